"""Fixtures of the wire's tests: real sockets, each test its own context and its own endpoints, always closed."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq
from least_service import Service

from livestem.client.endpoints import Endpoint
from ports import LONGEST_PATH, free_pairs


@pytest.fixture
def new_endpoint(tmp_path: Path) -> Callable[[], Endpoint]:
    """Return a maker of fresh endpoints: ipc:// in the test's folder, tcp:// where that cannot be."""
    numbers = itertools.count()

    def make() -> Endpoint:
        path = tmp_path / f"s{next(numbers)}"
        if sys.platform == "win32" or len(str(path)) > LONGEST_PATH:
            return Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}")
        return Endpoint(f"ipc://{path}")

    return make


@pytest.fixture
def endpoint(new_endpoint: Callable[[], Endpoint]) -> Endpoint:
    return new_endpoint()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    """One ZeroMQ context, which must end by itself: a socket left open would hang here, and fails the test."""
    with zmq.Context() as found:
        yield found
        ended = threading.Thread(target=found.term, daemon=True)
        ended.start()
        ended.join(5.0)
        if ended.is_alive():
            found.destroy(linger=0)
            pytest.fail("a socket was left open")


@pytest.fixture
def closing(context: zmq.Context[Any]) -> Iterator[ExitStack]:
    """Whatever is entered or given a callback here is closed before the context ends."""
    assert not context.closed
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(context: zmq.Context[Any], closing: ExitStack) -> Callable[..., Service]:
    """Return a maker of services, closed at the end."""

    def make(endpoint: Endpoint, **kwargs: Any) -> Service:
        service = Service(context, endpoint, **kwargs)
        closing.callback(service.close)
        return service

    return make
