"""Fixtures of the wire's tests: real sockets, each test its own context and endpoints."""
