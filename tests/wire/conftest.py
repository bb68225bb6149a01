"""Fixtures of the wire's tests: real sockets, each test its own context and its own endpoints, always closed."""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from livestem.client.connection import Connection
from livestem.client.endpoints import Endpoint
from livestem.client.keys import Keys
from livestem.domain.errors import WireError
from livestem.protocol.follower import Deliver, Effect
from livestem.wire import messages as m

LONGEST_PATH = 90  # of a unix socket: the system allows 107 bytes, the router's suffix needs some


@pytest.fixture
def new_endpoint(tmp_path: Path) -> Callable[[], Endpoint]:
    """Return a maker of fresh endpoints: ipc:// in the test's folder, tcp:// where that cannot be."""
    numbers = itertools.count()

    def make() -> Endpoint:
        path = tmp_path / f"s{next(numbers)}"
        if sys.platform == "win32" or len(str(path)) > LONGEST_PATH:
            return Endpoint(f"tcp://127.0.0.1:{free_ports()}")
        return Endpoint(f"ipc://{path}")

    return make


def free_ports() -> int:
    """Return a loopback port that is free, as is the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


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


class Service(threading.Thread):
    """The least service: attaches, answers scans, acknowledges when it is let."""

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoint: Endpoint,
        *,
        accept: bool = True,
        ack: bool = True,
        keys: Keys | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.errors: list[WireError] = []
        self.effects: list[Effect] = []
        self.accept, self.ack = accept, ack
        self._over = threading.Event()
        self._context, self._endpoint, self._keys = context, endpoint, keys
        self._ids = itertools.count()
        self._session = ""
        self.start()

    def run(self) -> None:
        connection = Connection(
            self._context, self._endpoint, stream="acq", role="service", take="attach", name="test",
            on_rejected=self.errors.append, keys=self._keys,
        )  # fmt: skip
        poller = zmq.Poller()
        connection.register(poller)
        try:
            while not self._over.is_set():
                poller.poll(10)
                fresh = connection.pump()
                self.effects += fresh
                for effect in fresh:
                    if isinstance(effect, Deliver):
                        self._on(connection, effect.message.header)
                self._acknowledge(connection)
        finally:
            connection.close()

    def _on(self, connection: Connection, header: m.Header) -> None:
        if isinstance(header, m.ScanStart):
            connection.send(
                m.Verdict(
                    request_id=f"v{next(self._ids)}", session=header.session, epoch=header.epoch,
                    seq=header.seq, scan_id=header.scan_id, accepted=self.accept,
                    reason="" if self.accept else "too large",
                )
            )  # fmt: skip
        self._session = header.session

    def _acknowledge(self, connection: Connection) -> None:
        ack = connection.follower.acknowledged(self._session)
        if ack is not None and self.ack:
            connection.send(ack)

    @property
    def headers(self) -> list[m.Header]:
        """Return what was delivered."""
        return [e.message.header for e in list(self.effects) if isinstance(e, Deliver)]

    @property
    def reliable(self) -> list[m.OfScan]:
        """Return what was delivered and is numbered."""
        return [h for h in self.headers if isinstance(h, m.OfScan)]

    def close(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def serve(context: zmq.Context[Any], closing: ExitStack) -> Callable[..., Service]:
    """Return a maker of services, closed at the end."""

    def make(endpoint: Endpoint, **kwargs: Any) -> Service:
        service = Service(context, endpoint, **kwargs)
        closing.callback(service.close)
        return service

    return make


def until(true: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.005)
    return found
