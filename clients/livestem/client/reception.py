"""The ROUTER of a hub: requests in, answers out. Owned by the hub's thread.

A request is decoded, its sender's role checked (`Door`), and a place found for whoever sends it. Answers of one message
are sent at once, or not at all where a queue is full: they will be asked for again. Long ones go out at the pace of
whoever takes them (`Replies`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import zmq

from livestem.client.door import Door
from livestem.client.tally import Tally
from livestem.domain.errors import WireError
from livestem.domain.limits import Limits
from livestem.protocol.publisher import Out
from livestem.protocol.replies import Delivery, Replies
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

SILENT_S = 10.0  # a follower says something every few seconds; when it has not for so long, it is gone
_POLL_MS = 20
_BLOCKED_POLL_MS = 2  # while a peer's queue is full: ZeroMQ does not say when it no longer is


class Reception:
    """Who is here, what they ask, and what they are answered.

    Parameters
    ----------
    door : Door
        Has the socket, and knows the roles.
    server : str
        Who we are, for people.
    epoch : int
        Of every answer that a publisher does not give.
    limits : Limits
    publish : callable
        Sends an answer that everybody is to hear.
    on_rejected : callable, optional
        Called with the error of every request that was dropped.
    """

    def __init__(
        self,
        door: Door,
        server: str,
        epoch: int,
        limits: Limits,
        publish: Callable[[Sequence[bytes]], None],
        on_rejected: Callable[[WireError], None] | None,
    ) -> None:
        self._door, self._server, self._epoch, self._limits = door, server, epoch, limits
        self._publish, self._on_rejected = publish, on_rejected
        self.dropped = Tally("request")
        self.replies = Replies(self.send)
        self.heard: dict[bytes, float] = {}  # peer -> when, on the monotonic clock

    def wait(self) -> bool:
        """Send what can be sent and wait a little for a request; return whether there is one."""
        moved = self.replies.turn(time.monotonic())
        busy_ms = 0 if moved else _BLOCKED_POLL_MS
        return bool(self._door.router.poll(busy_ms if self.replies.busy else _POLL_MS))

    def requests(self, most: int) -> Iterator[tuple[bytes, m.Talk]]:
        """Yield the requests that are here and may be answered, each with its peer."""
        with contextlib.suppress(zmq.Again):
            for _ in range(most):
                peer, *frames = self._door.router.recv_multipart(zmq.NOBLOCK, copy=False)
                try:
                    header = decode([f.buffer for f in frames], self._limits).header
                    if not isinstance(header, m.Talk):
                        raise WireError("topic", "only talk belongs on a ROUTER")
                    self._check_allowed(peer.bytes, frames[-1], header)
                except WireError as e:
                    self.dropped.add(e)
                    if self._on_rejected is not None:
                        self._on_rejected(e)
                    continue
                if self._admits(peer.bytes, header):
                    self.heard[peer.bytes] = time.monotonic()
                    yield peer.bytes, header

    def reply(self, peer: bytes, header: m.Talk) -> None:
        """Answer in one message."""
        header = msgspec.structs.replace(header, epoch=self._epoch, sent_ns=time.time_ns())
        self.send(Out(encode(header), peer))

    def answer(self, peer: bytes, request: m.Talk, outs: Iterator[Out]) -> None:
        """Answer in as many messages as it takes: those of `resend` and `snapshot` when the peer takes them."""
        if isinstance(request, m.Resend | m.Snapshot):
            place = getattr(request, "scan_id", None) or ""
            self.replies.begin(peer, (type(request), request.session, place), outs, time.monotonic())
            return
        for out in outs:
            self.send(out)

    def send(self, out: Out) -> Delivery:
        """Send one message, to its peer or to everybody."""
        if out.peer is None:
            self._publish(out.frames)
            return "sent"
        try:
            self._door.router.send_multipart([out.peer, *out.frames], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return "full"
        except zmq.ZMQError as e:
            if e.errno != zmq.EHOSTUNREACH:
                raise
            return "away"
        return "sent"

    def forget_silent(self) -> list[bytes]:
        """Return who has not been heard of for so long that their place is free."""
        now = time.monotonic()
        gone = [peer for peer, heard in self.heard.items() if now - heard > SILENT_S]
        for peer in gone:
            del self.heard[peer]
        return gone

    def _check_allowed(self, peer: bytes, frame: zmq.Frame, request: m.Talk) -> None:
        """Refuse, and raise, what the sender's role may not ask for."""
        reason = self._door.forbids(frame, request)
        if reason is not None:
            self.reply(peer, m.Refusal(request_id=request.request_id, session=request.session, reason=reason))
            raise WireError("forbidden", reason)

    def _admits(self, peer: bytes, request: m.Talk) -> bool:
        """With all places taken a stranger's greeting is refused, and what else it says goes unanswered."""
        if peer in self.heard or len(self.heard) < self._limits.subscribers:
            return True
        if isinstance(request, m.Hello):
            self.refuse_full(peer, request)
        return False

    def refuse_full(self, peer: bytes, request: m.Talk) -> None:
        """Say that all places are taken."""
        most = self._limits.subscribers
        reason = f"{most} clients are here, which is all {self._server} allows; close one, or raise `subscribers` of "
        self.reply(peer, m.Refusal(request_id=request.request_id, reason=reason + "its limits"))
