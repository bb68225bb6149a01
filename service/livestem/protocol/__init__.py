"""Losing nothing: numbering, gap repair, handshakes. Pure state machines; no sockets and no clocks in here."""
