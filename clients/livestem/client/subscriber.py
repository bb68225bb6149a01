"""A subscriber: label maps and descriptors as they are made, and none of the finals lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

import zmq

from livestem.client.connection import Connection
from livestem.client.endpoints import RESULTS, Endpoint
from livestem.client.keys import Keys, given_keys
from livestem.client.tally import Tally
from livestem.domain.errors import LivestemError, TransportError, UsageError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.names import check_name
from livestem.protocol.follower import Deliver, Effect, Lost, Refused, Tracking
from livestem.wire import messages as m
from livestem.wire.codec import Message

_POLL_MS = 50


class Subscriber:
    """Follow a segmenter's results.

    Reliable messages (finals) come in order and once, repaired where the network dropped them. Live maps are
    newest-wins: when several wait, only the last of each scan is handed over.

    Parameters
    ----------
    endpoint : Endpoint or str
        Where the service publishes.
    history : bool
        Begin with what the service already knows (the snapshot); otherwise with what comes from now on.
    name : str
        Who we are, for the service's log.
    session : str, optional
        Follow this session only, also one of an earlier start that only the service's store knows; one that is unknown
        is waited for. By default every session since the service's start.
    keys : Keys, Path or str, optional
        Our own, or their folder: for an endpoint with a server key.

    Raises
    ------
    UsageError
        If the endpoint or the session's name is not legal, or the endpoint has a server key and there are no keys.

    Examples
    --------
    >>> from livestem.client import Subscriber
    >>> with Subscriber("tcp://127.0.0.1:5570") as results:   # doctest: +SKIP
    ...     for message in results:
    ...         print(type(message.header).__name__)
    """

    def __init__(
        self,
        endpoint: Endpoint | str = RESULTS,
        *,
        history: bool = True,
        name: str = "",
        session: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: Keys | Path | str | None = None,
    ) -> None:
        try:
            endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
            session = "" if session is None else check_name(session, "session")
        except ValueError as e:
            raise UsageError(str(e)) from e
        own = given_keys(keys)
        self._dropped = Tally("result message")
        self.lost: list[Lost] = []
        self._own_context = zmq.Context() if context is None else None
        try:
            self._connection = Connection(
                context or self._own_context,  # type: ignore[arg-type]
                endpoint,
                stream="res",
                role="observer",
                take="snapshot" if history else "new",
                name=name,
                ordered=True,
                session=session,
                limits=limits,
                on_rejected=self._dropped.add,
                keys=own,
            )
        except LivestemError:
            if self._own_context is not None:
                self._own_context.term()
            raise
        self._poller = zmq.Poller()
        self._connection.register(self._poller)
        self._ready: deque[Message] = deque()
        self._revisions: dict[tuple[str, str], int] = {}  # newest of each scan
        self._closed = False

    @property
    def rejected(self) -> dict[str, int]:
        """Messages dropped so far, by reason."""
        return dict(self._dropped.by_reason)

    @property
    def subscribed(self) -> bool:
        """Whether the subscription is proved: from here on nothing is missed without our knowing."""
        return self._connection.follower.state == "following"

    def wait_subscribed(self, timeout_s: float) -> None:
        """Return once subscribed.

        Raises
        ------
        TransportError
            If no service answers within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not self.subscribed:
            self._pump(_POLL_MS)
            if time.monotonic() > deadline:
                where = self._connection.endpoint.endpoint
                raise TransportError(
                    f"no service answers at {where} within {timeout_s:g} s; start `livestem serve` or give --results"
                    f"{self._connection.advice}"
                )

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """Return the next message, or None if none comes within `timeout_s`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._ready:
            if self._closed or (deadline is not None and time.monotonic() >= deadline):
                return None
            self._pump(_POLL_MS)
        return self._ready.popleft()

    def __iter__(self) -> Iterator[Message]:
        while not self._closed:
            message = self.receive()
            if message is not None:
                yield message

    def close(self) -> None:
        """Leave; a closed subscriber yields nothing more."""
        if not self._closed:
            self._closed = True
            self._connection.close()
            if self._own_context is not None:
                self._own_context.term()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    def _pump(self, wait_ms: int) -> None:
        self._poller.poll(wait_ms)
        effects = self._connection.pump()
        for effect in effects:
            self._take(effect)
        for effect in effects:  # last: what came with it has been settled, and would never come again
            if isinstance(effect, Refused):
                raise LivestemError(f"the service refuses: {effect.reason}")

    def _take(self, effect: Effect) -> None:
        if isinstance(effect, Lost):
            self.lost.append(effect)
        elif isinstance(effect, Deliver):
            self._sort_in(effect.message)
        else:
            assert isinstance(effect, Tracking | Refused)

    def _sort_in(self, message: Message) -> None:
        header = message.header
        if isinstance(header, m.Live):
            scan = header.session, header.scan_id  # a recording keeps its scan_id in every session
            if header.revision <= self._revisions.get(scan, -1):
                return
            self._revisions[scan] = header.revision
            self._ready = deque(w for w in self._ready if not _older_live(w, header))
        self._ready.append(message)


def _older_live(waiting: Message, live: m.Live) -> bool:
    other = waiting.header
    return isinstance(other, m.Live) and (other.session, other.scan_id) == (live.session, live.scan_id)
