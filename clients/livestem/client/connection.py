"""The two sockets of a follower: SUB for what everybody gets, DEALER for what is asked for.

`pump` moves what has arrived through the pure `Follower` and sends what it asks for; the caller polls.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Iterator

import msgspec
import zmq

from livestem.client.endpoints import Endpoint
from livestem.client.keys import Keys
from livestem.client.line import Line, advice
from livestem.client.tally import Tally
from livestem.domain.errors import TransportError, WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.follower import Ask, Effect, Follower, Role, Take
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, encode

# Messages that wait for the application, which drains them at every turn: ten seconds of a busy instrument, and what a
# script that pauses holds in memory at most. What comes beyond is dropped, shows as a gap, and is sent again.
_RCVHWM = 1000


class Connection:
    """Follows one publisher.

    Parameters
    ----------
    context : zmq.Context
    endpoint : Endpoint
        The publisher's.
    stream : {"acq", "res"}
        Family of topics to subscribe to.
    session : str
        Follow this session only; empty: whatever is published.
    on_rejected : callable
        Called with the `WireError` of every message that was dropped.
    keys : Keys, optional
        Our own, for an endpoint with a server key.
    stored : callable, optional
        See `Follower`.

    Raises
    ------
    TransportError
        If the endpoint is none. That nobody is there yet is no error.
    UsageError
        If it has a server key, and we have none or cannot read it.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        *,
        stream: str,
        role: Role,
        take: Take,
        name: str,
        ordered: bool = False,
        session: str = "",
        limits: Limits = DEFAULT_LIMITS,
        on_rejected: Callable[[WireError], None] | None = None,
        keys: Keys | None = None,
        stored: Callable[[str, int], int] = lambda session, epoch: 0,
    ) -> None:
        self.endpoint, self._limits = endpoint, limits
        self._on_rejected = on_rejected or Tally("message").add
        self.follower = Follower(
            role=role,
            take=take,
            ids=_ids(),
            name=name,
            ordered=ordered,
            session=session,
            limits=limits,
            stored=stored,
        )
        self._lines = [Line(context, kind, endpoint, keys, limits) for kind in (zmq.SUB, zmq.DEALER)]
        self.sub, self.dealer = (line.socket for line in self._lines)
        self.sub.setsockopt(zmq.RCVHWM, _RCVHWM)
        # the echo's topic last: who hears its nonce has the other subscription too
        for topic in (f"{stream}.{session}.", f"{stream}..echo") if session else (f"{stream}.",):
            self.sub.setsockopt(zmq.SUBSCRIBE, topic.encode())
        self.dealer.setsockopt(zmq.SNDHWM, 1000)
        # Whoever dials again after a cut is the same peer to the ROUTER: else a service's acknowledgements would count
        # as another's, and its former self hold them back until it is forgotten.
        self.dealer.setsockopt(zmq.ROUTING_ID, uuid.uuid4().hex.encode())
        try:
            for line, where in zip(self._lines, (endpoint.endpoint, endpoint.talk), strict=True):
                line.dial(where)
        except TransportError:
            self.close()
            raise

    @property
    def advice(self) -> str:
        """What to look at about keys if nobody answers."""
        return advice(self.endpoint, any(line.mismatched for line in self._lines))

    def register(self, poller: zmq.Poller) -> None:
        """Have `poller` watch both sockets."""
        poller.register(self.sub, zmq.POLLIN)
        poller.register(self.dealer, zmq.POLLIN)

    def pump(self, most: int = 256) -> list[Effect]:
        """Take at most `most` messages from each socket; return what is for the application."""
        now = time.monotonic()
        effects: list[Effect] = []
        data, talk = self._lines
        for line, handle in ((talk, self.follower.replied), (data, self.follower.published)):
            for message in self._arrived(line, most):
                try:
                    effects += handle(message, now)
                except WireError as e:
                    self._on_rejected(e)
        data.due()  # a publisher beats
        talk.tend()
        if data.tend():
            talk.redial()  # most likely cut as well, and it is spoken to less often
        return self._perform([*effects, *self.follower.tick(now)])

    def send(self, header: m.Talk) -> None:
        """Send a request or a note; dropped if the publisher has been away so long that its queue is full."""
        header = msgspec.structs.replace(header, sent_ns=time.time_ns())
        with contextlib.suppress(zmq.Again):
            self.dealer.send_multipart(encode(header), zmq.NOBLOCK)

    def close(self) -> None:
        """Close both sockets."""
        for line, linger_ms in zip(self._lines, (0, 100), strict=True):
            line.close(linger_ms)

    def _perform(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Ask):
                self._lines[1].due()  # whatever is asked is answered
                self.send(effect.header)
        return [e for e in effects if not isinstance(e, Ask)]

    def _arrived(self, line: Line, most: int) -> Iterator[Message]:
        with contextlib.suppress(zmq.Again):
            for _ in range(most):
                frames = line.socket.recv_multipart(zmq.NOBLOCK, copy=False)
                line.heard()
                try:
                    yield decode([f.buffer for f in frames], self._limits)
                except WireError as e:
                    self._on_rejected(e)


def _ids() -> Iterator[str]:
    """Yield request ids that no other client uses."""
    stem = uuid.uuid4().hex[:12]
    return (f"{stem}-{i}" for i in itertools.count())
