"""The sending side of one session: numbers what must not be lost, keeps it, and answers those who follow.

What comes in: headers to publish, requests from the ROUTER. What goes out: frames, as `Out` effects. Whoever
owns the sockets sends them and does nothing else.

========  ===============================================================
request   answer
========  ===============================================================
hello     welcome with the stream's state; refusal if no common version
probe     its nonce, published
attach    attached; from now on its acks count
ack       none
resend    resent, message by message; gone for each range let go; a burst, the rest when asked again
snapshot  the kept messages and the newest live one, page by page
========  ===============================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

from livestem.domain.errors import WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.resend import Frames, ResendBuffer
from livestem.wire import messages as m
from livestem.wire.codec import encode, most_header_bytes, nest

# One request is answered with at most so many messages: more would overrun the asker's queue (ZeroMQ's default is
# 1000), be dropped there without a word, and be sent all over again.
_BURST = 500
_NEST_BYTES = 4096  # what `resent` puts around a message: its own header and check, and 5 bytes a frame


@dataclass(frozen=True)
class Out:
    """One message to send: to `peer` through the ROUTER, or published if `peer` is None."""

    frames: Frames
    peer: bytes | None = None


class Publisher:
    """One session's stream of reliable messages, and its followers.

    Parameters
    ----------
    session : str
        Its name.
    stream : {"acq", "res"}
        Which family of topics it publishes.
    epoch : int
        New at each start; a clock in nanoseconds will do.
    now_ns : callable
        Wall clock for `sent_ns`.
    older : callable, optional
        ``older(first, last)`` yields (seq, frames) from a store, for what the buffer has let go.
    keep : callable, optional
        ``keep(seq, frames)`` stores a reliable message; called before it is sent.
    """

    def __init__(
        self,
        session: str,
        stream: Literal["acq", "res"],
        epoch: int,
        now_ns: Callable[[], int],
        *,
        limits: Limits = DEFAULT_LIMITS,
        older: Callable[[int, int], Iterable[tuple[int, Frames]]] | None = None,
        keep: Callable[[int, Frames], None] | None = None,
    ) -> None:
        self.session = session
        self.epoch = epoch
        self._stream = stream
        self._now_ns = now_ns
        self._limits = limits
        self._older, self._keep = older, keep
        self.buffer = ResendBuffer(limits.resend_bytes)
        self.newest_live: Frames | None = None
        self.services: dict[bytes, int] = {}  # attached peer -> acknowledged seq

    def publish(self, header: m.Header, arrays: Sequence[NDArray[Any]] = (), *, codec: str = "raw") -> Frames:
        """Number a header (or state `last_seq` in it), encode it, keep it if it is reliable.

        Raises
        ------
        WireError
            If no receiver would take it: too large (also when resent), or a number in it is not finite. It then
            has no number, and nothing is kept.
        """
        number = (
            {"seq": self.buffer.last_seq + 1} if isinstance(header, m.Reliable) else {"last_seq": self.buffer.last_seq}
        )
        header = msgspec.structs.replace(header, **self._origin(), **number)
        frames = encode(header, arrays, stream=self._stream, codec=codec)
        self._check_size(header, frames, arrays)
        if isinstance(header, m.Reliable):
            if self._keep is not None:
                self._keep(header.seq, frames)
            self.buffer.add(header.seq, frames)
        elif isinstance(header, m.Live):
            self.newest_live = frames
        return frames

    def heartbeat(self) -> Frames:
        """Return the frames of a heartbeat."""
        return self.publish(m.Heartbeat())

    @property
    def state(self) -> m.Stream:
        """Where the stream stands, for `welcome` and `attached`."""
        first = 1 if self._older is not None else self.buffer.first_seq
        return m.Stream(session=self.session, epoch=self.epoch, first_seq=first, last_seq=self.buffer.last_seq)

    def on_request(self, peer: bytes, request: m.Talk) -> Iterator[Out]:
        """Yield what a request is answered with, lazily: the owner sends at its own pace."""
        if isinstance(request, m.Probe):
            yield Out(self.publish(m.Echo(nonce=request.nonce)))
        elif isinstance(request, m.Attach):
            self.services.setdefault(peer, 0)
            yield self._reply(peer, m.Attached(request_id=request.request_id, stream=self.state))
        elif isinstance(request, m.Ack):
            self._on_ack(peer, request)
        elif isinstance(request, m.Resend):
            yield from self._resend(peer, request)
        elif isinstance(request, m.Snapshot):
            yield from self._snapshot(peer, request)
        else:
            reason = f"a publisher does not answer {m.tag_of(request)}"
            yield self._reply(peer, m.Refusal(request_id=request.request_id, reason=reason))

    def forget(self, peer: bytes) -> None:
        """Drop a service that has vanished; what it never acknowledged waits for the next one."""
        if self.services.pop(peer, None) is not None and self.services:
            self.buffer.acknowledge(min(self.services.values()))

    def _on_ack(self, peer: bytes, ack: m.Ack) -> None:
        """With several services, a message is safe once the slowest has it.

        Who acknowledges is attached, even if we do not know it: a connection that was broken comes back under
        another address, and a service that was silent for long has been forgotten.
        """
        if ack.epoch != self.epoch:
            return
        self.services[peer] = max(self.services.get(peer, 0), ack.seq)
        self.buffer.acknowledge(min(self.services.values()))

    def _resend(self, peer: bytes, request: m.Resend) -> Iterator[Out]:
        rid = request.request_id
        if request.first is None or request.last is None:
            yield self._reply(peer, m.Refusal(request_id=rid, reason="resend by rectangle is not offered here"))
            return
        first, last = max(request.first, 1), min(request.last, self.buffer.last_seq)
        if request.epoch != self.epoch or last < first:
            yield self._gone(peer, request, request.first, request.last)
            return
        hole = first  # everything from here to the message at hand has been let go
        count, size = 0, 0
        for seq, frames in self._kept(first, last):
            if frames is None:
                continue
            if hole < seq:
                yield self._gone(peer, request, hole, seq - 1, more=True)
            hole, count, size = seq + 1, count + 1, size + sum(map(len, frames))
            more = seq < last and count < _BURST and size < self._limits.snapshot_page_bytes
            yield self._reply(peer, m.Resent(request_id=rid, seq=seq, more=more), (nest(frames),))
            if not more:
                return
        yield self._gone(peer, request, hole, last)

    def _gone(self, peer: bytes, request: m.Resend, first: int, last: int, *, more: bool = False) -> Out:
        """Answer under the epoch that was asked for: its numbers mean nothing in another."""
        gone = m.Gone(request_id=request.request_id, first=first, last=last, more=more)
        return self._reply(peer, gone, epoch=request.epoch)

    def _kept(self, first: int, last: int) -> Iterator[tuple[int, Frames | None]]:
        """Yield what is asked for, from the store where the buffer has let it go (perhaps just now)."""
        for seq, frames in self.buffer.range(first, last):
            if frames is None and self._older is not None:
                frames = next((stored for _, stored in self._older(seq, seq)), None)
            yield seq, frames

    def _snapshot(self, peer: bytes, request: m.Snapshot) -> Iterator[Out]:
        """One page is one message, asked for by the seq it follows; the newest live one closes the last page."""
        cursor = request.cursor or 0
        watermark = self.buffer.last_seq
        for seq, frames in self._kept(cursor + 1, watermark):
            if frames is not None:
                page = m.SnapshotPage(request_id=request.request_id, watermark=watermark, cursor=seq)
                yield self._reply(peer, page, (nest(frames),))
                return
        live = () if self.newest_live is None else (nest(self.newest_live),)
        yield self._reply(peer, m.SnapshotPage(request_id=request.request_id, watermark=watermark), live)

    def _check_size(self, header: m.Header, frames: Frames, arrays: Sequence[NDArray[Any]]) -> None:
        limits = self._limits
        size = max(sum(map(len, frames)), sum(a.nbytes for a in arrays)) + _NEST_BYTES
        if len(frames[1]) > most_header_bytes(frames[0], limits) or size > limits.message_bytes:
            what = f"a {m.tag_of(header)} of {size} bytes, {len(frames[1])} of them header"
            raise WireError("limit", f"{what}, is more than a message may have; hand it over in smaller parts")

    def _reply(
        self, peer: bytes, header: m.Talk, arrays: Sequence[NDArray[Any]] = (), *, epoch: int | None = None
    ) -> Out:
        origin = self._origin() if epoch is None else {**self._origin(), "epoch": epoch}
        return Out(encode(msgspec.structs.replace(header, **origin), arrays), peer)

    def _origin(self) -> dict[str, Any]:
        return {"session": self.session, "epoch": self.epoch, "sent_ns": self._now_ns()}
