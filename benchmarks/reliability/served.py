"""A hub without sockets: a desk that answers through a link, and beats."""

from __future__ import annotations

import msgspec
from benchmarks.reliability.link import Link

from livestem.domain.errors import WireError
from livestem.protocol.desk import Desk
from livestem.protocol.resend import Frames
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, encode

SESSION = "s1"
BEAT_S = 0.2  # a real hub beats every second; the faster one only shortens the cases


class Served:
    """A hub without sockets: a desk that answers through a link, and beats."""

    def __init__(self, link: Link, epoch: int, desk: Desk, family: str) -> None:
        self.link, self.epoch, self.desk, self._family = link, epoch, desk, family
        self._beat_at = 0.0

    def tick(self, now: float) -> None:
        """Beat if it is time."""
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            for publisher in self.desk.published.values():
                self.link.send("pub", publisher.heartbeat())

    def request(self, request: m.Talk) -> None:
        """Answer as a hub does."""
        if isinstance(request, m.Hello):
            self.link.send("reply", encode(msgspec.structs.replace(self.desk.welcome(request), epoch=self.epoch)))
        elif isinstance(request, m.Probe):
            self.link.send("pub", encode(m.Echo(nonce=request.nonce, epoch=self.epoch), stream=self._family))
        elif (publisher := self.desk.find(request.session)) is not None:
            for out in publisher.on_request(b"f", request):
                self.link.send("pub" if out.peer is None else "reply", out.frames)
        elif not isinstance(request, m.Ack):
            self.link.send("reply", encode(m.Refusal(request_id=request.request_id, reason="no such session")))


def opened(frames: Frames) -> Message | None:
    """Return a message that arrived; None if it cannot be read, as every owner of sockets drops it."""
    try:
        return decode(list(frames))
    except WireError:
        return None
