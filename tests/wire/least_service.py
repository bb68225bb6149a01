"""The least service that a test can meet: attaches, answers scans, acknowledges when it is let."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

from livestem.client.connection import Connection
from livestem.client.endpoints import Endpoint
from livestem.client.keys import Keys
from livestem.domain.errors import WireError
from livestem.protocol.follower import Deliver, Effect
from livestem.wire import messages as m


class Service(threading.Thread):
    """A service on a thread; ``close`` ends it."""

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


def until(true: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.005)
    return found
