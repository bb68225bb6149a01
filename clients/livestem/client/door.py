"""The two bound sockets of a publisher, behind a guard: opened, closed, and opened anew.

Results are always guarded, because whoever connects to their XPUB gets a queue: it has `subscribers` places. The ROUTER
has `_TALKING` times as many, so that who finds no place is told so. Acquisition is guarded if there are keys.

Whoever uses the sockets holds its own lock while they are renewed.

What a reader costs who does not read is bounded by messages, because ZeroMQ counts those: `subscriber_queue` for its
SUB (further ones are dropped for it alone; ZeroMQ holds a message once, however many readers it waits for),
`_ROUTER_QUEUE` and one more for its DEALER. In bytes: a live map of 48 x 48 chips with the scores of three classes has
32 kB, so 3 MB and 0.3 MB; the largest that the limits allow has 4.2 MB, so 420 MB and 38 MB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import zmq

from livestem.client.endpoints import Endpoint
from livestem.client.guard import Guard
from livestem.client.keys import Keys
from livestem.client.sockets import Context, Socket, bound, unbind
from livestem.domain.errors import LivestemError, WireError
from livestem.domain.limits import Limits
from livestem.protocol.permission import Stream
from livestem.wire import messages as m

_ACQUISITION_QUEUE = 1000  # messages: the resend buffer holds what a service that pauses for longer will ask for
_ROUTER_QUEUE = 8  # messages of an answer: enough to keep a connection busy until the hub's next look
_LINGER_MS = 1000
_TALKING = 2  # times the followers: as many again may be told that there is no place


class Door:
    """XPUB and ROUTER of one publisher.

    Parameters
    ----------
    context : zmq.Context
        Not used behind a guard, which has its own.
    endpoint : Endpoint
    stream : {"acq", "res"}
    limits : Limits
    keys : Keys, optional
    on_rejected : callable, optional
        As `Guard`'s.

    Attributes
    ----------
    xpub, router : zmq.Socket
        Others after `renew`.

    Raises
    ------
    TransportError, UsageError
        As `bound`.
    """

    def __init__(
        self,
        context: Context,
        endpoint: Endpoint,
        stream: Stream,
        limits: Limits,
        keys: Keys | None = None,
        on_rejected: Callable[[WireError], None] | None = None,
    ) -> None:
        self.endpoint, self._stream, self._limits = endpoint, stream, limits
        self._queue = limits.subscriber_queue if stream == "res" else _ACQUISITION_QUEUE
        self._guard = Guard(keys, stream, on_rejected) if keys is not None or stream == "res" else None
        self._context = context if self._guard is None else self._guard.context
        try:
            self._open()
        except LivestemError:
            if self._guard is not None:
                self._guard.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether connections are still judged, where they are."""
        return self._guard is None or self._guard.alive

    @property
    def refused(self) -> Counter[str]:
        """Connections that were not let in, by reason."""
        return Counter() if self._guard is None else self._guard.refused.by_reason

    def forbids(self, frame: zmq.Frame, request: m.Talk) -> str | None:
        """Return why the sender of a frame is not to be answered this request, or None; without keys always None."""
        return None if self._guard is None else self._guard.forbids(frame, request)

    def somebody_left(self) -> bool:
        """Return whether a key was removed since this was asked: then `renew`."""
        allowed = None if self._guard is None else self._guard.allowed
        return allowed is not None and allowed.somebody_left()

    @property
    def crowded(self) -> bool:
        """Whether every place to listen is taken, and somebody waits for one."""
        return self._guard is not None and self._guard.wanted(self._stream)

    def renew(self) -> None:
        """End every connection: who may will be back at once."""
        self._unbind()
        self._open()

    def close_sockets(self) -> None:
        """Close the sockets; what is queued is given a second to leave."""
        self._unbind(_LINGER_MS)

    def close(self) -> None:
        """Dismiss the guard, after the sockets."""
        if self._guard is not None:
            self._guard.close()

    def _open(self) -> None:
        self.xpub = self._bound(zmq.XPUB, self.endpoint.endpoint, self._stream, self._queue)
        self.xpub.setsockopt(zmq.XPUB_VERBOSER, 1)  # tell of every subscriber, so that they can be counted
        try:
            self.router = self._bound(zmq.ROUTER, self.endpoint.talk, self._talk, _ROUTER_QUEUE)
            self.router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a peer whose line was cut comes back under its own name
        except LivestemError:
            self._let_go(self._stream)
            self.xpub.close(linger=0)
            raise
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # say that a peer's queue is full, instead of dropping

    @property
    def _talk(self) -> str:
        return f"{self._stream}.talk"

    def _bound(self, kind: int, endpoint: str, domain: str, queue: int) -> Socket:
        places = None if self._stream == "acq" else self._limits.subscribers * (1 if kind == zmq.XPUB else _TALKING)
        return bound(
            self._context, kind, endpoint, self._limits, self._guard, domain=domain, places=places, queue=queue
        )

    def _let_go(self, domain: str) -> None:
        if self._guard is not None:
            self._guard.let_go(domain)

    def _unbind(self, linger_ms: int = 0) -> None:
        for domain, socket in ((self._stream, self.xpub), (self._talk, self.router)):
            self._let_go(domain)
            unbind(socket, linger_ms)
