"""Where a publisher is: its PUB endpoint, and the ROUTER beside it."""

from __future__ import annotations

import re

import msgspec

from livestem.domain.errors import UsageError

ACQUISITION_PORT = 5560
RESULTS_PORT = 5570
# What can leave the process, stays reliable, and we know how to guard. One host and one port: ZeroMQ would bind what
# stands after a ";" in place of what stands before it, and our word about loopback would be about the wrong one.
_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Za-z:.%]+\]|[^\s:;/\[\]]+):(?P<port>[0-9]{1,5})")
_IPC = re.compile(r"ipc://[^\0\n]+")
_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}|localhost|\[::1\]")


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A publisher's two sockets.

    Parameters
    ----------
    endpoint : str
        ZeroMQ endpoint of the PUB, such as ``tcp://127.0.0.1:5560``.
    router : str, optional
        Endpoint of the ROUTER; by default the next TCP port, or the same path with ``.router``.
    server_key : str, optional
        For those who connect: the publisher's public key, 40 characters, or a file ``NAME.key`` with it. The
        connection is then encrypted, and proves both sides' keys.
    """

    endpoint: str
    router: str | None = None
    server_key: str | None = None

    def __post_init__(self) -> None:
        for given in (self.endpoint, self.router or self.endpoint):
            tcp = _TCP.fullmatch(given)
            if tcp is None and not _IPC.fullmatch(given):
                raise ValueError(f"{given!r} is no endpoint; write tcp://HOST:PORT (or ipc://PATH)")
            if tcp is not None and not 1 <= int(tcp["port"]) <= 65534:
                raise ValueError(f"{given!r} needs a port of 1 to 65534; write tcp://HOST:PORT")

    @property
    def talk(self) -> str:
        """Endpoint of the ROUTER."""
        if self.router is not None:
            return self.router
        if self.endpoint.startswith("tcp://"):
            host, port = self.endpoint.rsplit(":", 1)
            return f"{host}:{int(port) + 1}"
        return self.endpoint + ".router"


def refuse_open_bind(endpoint: str) -> None:
    """Raise `UsageError` if binding `endpoint` would leave this machine: that takes keys."""
    tcp = _TCP.fullmatch(endpoint)
    if not (_LOOPBACK.fullmatch(tcp["host"]) if tcp else _IPC.fullmatch(endpoint)):
        raise UsageError(
            f"{endpoint} is open to the network, which takes CURVE keys: give --keys "
            "(livestem keys new NAME makes them), or bind 127.0.0.1"
        )


ACQUISITION = Endpoint(f"tcp://127.0.0.1:{ACQUISITION_PORT}")
RESULTS = Endpoint(f"tcp://127.0.0.1:{RESULTS_PORT}")
