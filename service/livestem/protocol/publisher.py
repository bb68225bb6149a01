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
resend    resent, message by message; gone for each range let go
snapshot  the kept messages and the newest live one, page by page
========  ===============================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.resend import Frames, ResendBuffer
from livestem.wire import messages as m
from livestem.wire.codec import encode, nest


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
        ``older(first, last)`` yields (seq, frames) from a store for what the buffer has let go.
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
        self._older, self._keep = older, keep
        self.buffer = ResendBuffer(limits.resend_bytes)
        self.newest_live: Frames | None = None
        self.services: dict[bytes, int] = {}  # attached peer -> acknowledged seq

    def publish(self, header: m.Header, arrays: Sequence[NDArray[Any]] = (), *, codec: str = "raw") -> Frames:
        """Number a header (or state `last_seq` in it), encode it, keep it if it is reliable."""
        number = (
            {"seq": self.buffer.last_seq + 1} if isinstance(header, m.Reliable) else {"last_seq": self.buffer.last_seq}
        )
        header = msgspec.structs.replace(header, **self._origin(), **number)
        frames = encode(header, arrays, stream=self._stream, codec=codec)
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
        """With several services, a message is safe once the slowest has it."""
        if ack.epoch != self.epoch or peer not in self.services:
            return
        self.services[peer] = max(self.services[peer], ack.seq)
        self.buffer.acknowledge(min(self.services.values()))

    def _resend(self, peer: bytes, request: m.Resend) -> Iterator[Out]:
        rid = request.request_id
        if request.first is None or request.last is None:
            yield self._reply(peer, m.Refusal(request_id=rid, reason="resend by rectangle is not offered here"))
            return
        last = min(request.last, self.buffer.last_seq)
        if request.epoch != self.epoch or last < request.first:
            yield self._reply(peer, m.Gone(request_id=rid, first=request.first, last=request.last))
            return
        for seq, frames in self._kept(request.first, last):
            more = seq < last
            if frames is None:
                yield self._reply(peer, m.Gone(request_id=rid, first=seq, last=seq, more=more))
            else:
                yield self._reply(peer, m.Resent(request_id=rid, seq=seq, more=more), (nest(frames),))

    def _kept(self, first: int, last: int) -> Iterator[tuple[int, Frames | None]]:
        """Yield what is asked for, from the store first where the buffer has let it go."""
        held = self.buffer.first_seq
        if first < held and self._older is not None:
            stored = dict(self._older(first, min(last, held - 1)))
            yield from ((seq, stored.get(seq)) for seq in range(first, min(last, held - 1) + 1))
            first = held
        yield from self.buffer.range(first, last)

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

    def _reply(self, peer: bytes, header: m.Talk, arrays: Sequence[NDArray[Any]] = ()) -> Out:
        return Out(encode(msgspec.structs.replace(header, **self._origin()), arrays), peer)

    def _origin(self) -> dict[str, Any]:
        return {"session": self.session, "epoch": self.epoch, "sent_ns": self._now_ns()}
