"""The sending side of one session: numbers what must not be lost, keeps it, and answers those who follow.

What comes in: headers to publish, requests from the ROUTER. What goes out: frames, as `Out` effects. Whoever
owns the sockets sends them and does nothing else.

========  ===============================================================
request   answer
========  ===============================================================
hello     welcome with every epoch's stream, oldest first; refusal if no common version
probe     its nonce, published
attach    attached; from now on its acks count
ack       none
resend    resent, message by message; gone for each range let go; a burst, the rest when asked again
 by place likewise; for what is not kept coming, if the source makes it again, else gone
snapshot  the kept messages and the newest live ones, page by page
========  ===============================================================

Messages that belong together (the finals of one scan) are numbered, kept and buffered as one: all of them or none,
so that an attempt that failed can be made again.

A publisher with a store also answers for its epochs: earlier starts of the same session, of which nothing new
comes. What was kept but not sent when the process was killed is sent when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

from livestem.domain.errors import WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.places import Places, coming, gone_places
from livestem.protocol.resend import Frames, ResendBuffer
from livestem.wire import messages as m
from livestem.wire.codec import encode, most_header_bytes, nest

# One request is answered with at most so many messages: more would overrun the asker's queue (ZeroMQ's default is
# 1000), be dropped there without a word, and be sent all over again.
_BURST = 500
_NEST_BYTES = 4096  # what `resent` puts around a message: its own header and check, and 5 bytes a frame
# The newest live map of so many scans is kept for who comes late: as many as one page can carry (the wire's
# payloads), and as scans are open by default.
_LIVE_SCANS = 4


@dataclass(frozen=True)
class Out:
    """One message to send: to `peer` through the ROUTER, or published if `peer` is None.

    It `repairs` if it was missed: what an earlier start published, a late joiner asks for in the same way.
    """

    frames: Frames
    peer: bytes | None = None
    repairs: bool = False


@dataclass(frozen=True)
class Numbered:
    """A message that has its number, ready to be kept and sent."""

    header: m.Header
    frames: Frames


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
        ``older(epoch, first, last)`` yields (seq, frames) from a store, for what the buffer has let go and for
        earlier epochs.
    keep : callable, optional
        ``keep(messages)`` stores reliable messages, all or none; called before any of them is buffered or sent.
    earlier : sequence of Stream
        The epochs that the store holds, oldest first. If this one is among them, it was begun by a publisher that was
        let go meanwhile, and is carried on.
    remake : callable, optional
        ``remake(peer, request)`` is given what of a request by place is not kept, and says whether it is ``coming``
        (published anew, some time) or ``gone``, or None if it cannot take the request just now: then it is not
        answered, and asked again.
    """

    def __init__(
        self,
        session: str,
        stream: Literal["acq", "res"],
        epoch: int,
        now_ns: Callable[[], int],
        *,
        limits: Limits = DEFAULT_LIMITS,
        older: Callable[[int, int, int], Iterable[tuple[int, Frames]]] | None = None,
        keep: Callable[[Sequence[Numbered]], None] | None = None,
        earlier: Sequence[m.Stream] = (),
        remake: Callable[[bytes, m.Resend], Literal["coming", "gone"] | None] | None = None,
    ) -> None:
        self.session = session
        self.epoch = epoch
        self._stream = stream
        self._now_ns = now_ns
        self._limits = limits
        self._older, self._keep, self._remake = older, keep, remake
        self._earlier = {stream.epoch: stream for stream in earlier}
        self._places = Places()
        begun = self._earlier.pop(epoch, None)
        self.buffer = ResendBuffer(limits.resend_bytes, last_seq=0 if begun is None else begun.last_seq)
        self._live: dict[str, Frames] = {}  # scan -> its newest live message, longest ago first
        self.services: dict[bytes, int] = {}  # attached peer -> acknowledged seq
        self._blocked: dict[bytes, str] = {}  # attached peer -> why it can store nothing just now

    def publish(self, header: m.Header, arrays: Sequence[NDArray[Any]] = (), *, codec: str = "raw") -> Frames:
        """Number a header (or state `last_seq` in it), encode it, keep it if it is reliable; as `publish_all`."""
        (frames,) = self.publish_all([(header, arrays)], codec=codec)
        return frames

    def publish_all(
        self, messages: Sequence[tuple[m.Header, Sequence[NDArray[Any]]]], *, codec: str = "raw"
    ) -> list[Frames]:
        """Number, encode and keep messages that belong together; return their frames, to be sent in this order.

        Raises
        ------
        WireError
            If no receiver would take one: too large (also when resent), or a number in it is not finite.
        LivestemError
            Whatever `keep` raises. In either case none has a number, and nothing is kept.
        """
        seq, made = self.buffer.last_seq, []
        for header, arrays in messages:
            seq += isinstance(header, m.Reliable)
            made.append(self._encoded(header, seq, arrays, codec))
        reliable = [message for message in made if isinstance(message.header, m.Reliable)]
        if reliable and self._keep is not None:
            self._keep(reliable)
        for message, (_, arrays) in zip(made, messages, strict=True):
            self._remember(message, arrays)
        return [message.frames for message in made]

    def heartbeat(self) -> Frames:
        """Return the frames of a heartbeat."""
        return self.publish(m.Heartbeat())

    @property
    def state(self) -> m.Stream:
        """Where the stream stands, for `welcome` and `attached`."""
        first = 1 if self._older is not None else self.buffer.first_seq
        return m.Stream(session=self.session, epoch=self.epoch, first_seq=first, last_seq=self.buffer.last_seq)

    @property
    def streams(self) -> tuple[m.Stream, ...]:
        """Every epoch of the session that can be asked for, oldest first; the last is the present one."""
        return *self._earlier.values(), self.state

    @property
    def blocked(self) -> str | None:
        """Why an attached service can store nothing just now; None if all can."""
        return next(iter(self._blocked.copy().values()), None)

    def on_request(self, peer: bytes, request: m.Talk) -> Iterator[Out]:
        """Yield what a request is answered with, lazily: the owner sends at its own pace."""
        if isinstance(request, m.Probe):
            yield Out(self.publish(m.Echo(nonce=request.nonce)))
        elif isinstance(request, m.Attach):
            yield self._attach(peer, request)
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
        self._blocked.pop(peer, None)
        if self.services.pop(peer, None) is not None and self.services:
            self.buffer.acknowledge(min(self.services.values()))

    def _attach(self, peer: bytes, request: m.Attach) -> Out:
        if not self._welcome(peer):
            reason = f"{len(self.services)} services are attached, and no more may be"
            return self._reply(peer, m.Refusal(request_id=request.request_id, reason=reason))
        self.services.setdefault(peer, 0)
        return self._reply(peer, m.Attached(request_id=request.request_id, stream=self.state))

    def _welcome(self, peer: bytes) -> bool:
        return peer in self.services or len(self.services) < self._limits.services

    def _on_ack(self, peer: bytes, ack: m.Ack) -> None:
        """With several services, a message is safe once the slowest has it.

        Who acknowledges is attached, even if we do not know it: a connection that was broken comes back under
        another address, and a service that was silent for long has been forgotten.
        """
        if ack.epoch != self.epoch or not self._welcome(peer):
            return
        self.services[peer] = max(self.services.get(peer, 0), ack.seq)
        self._blocked.pop(peer, None)
        if ack.blocked:
            self._blocked[peer] = ack.blocked
        self.buffer.acknowledge(min(self.services.values()))

    def _resend(self, peer: bytes, request: m.Resend) -> Iterator[Out]:
        rid = request.request_id
        if request.first is None or request.last is None:
            yield from self._resend_places(peer, request)
            return
        first, last = max(request.first, 1), min(request.last, self._last_seq(request.epoch))
        if last < first:
            yield self._gone(peer, request, request.first, request.last)
            return
        end = last if request.epoch == self.epoch else request.last  # an epoch that is over grows no more
        hole = first  # everything from here to the message at hand has been let go
        count, size = 0, 0
        for seq, frames in self._kept(request.epoch, first, last):
            if frames is None:
                continue
            if hole < seq:
                yield self._gone(peer, request, hole, seq - 1, more=True)
            hole, count, size = seq + 1, count + 1, size + sum(map(len, frames))
            more = seq < end and count < _BURST and size < self._limits.snapshot_page_bytes
            resent = m.Resent(request_id=rid, seq=seq, more=more)
            out = self._reply(peer, resent, (nest(frames),), epoch=request.epoch)
            yield replace(out, repairs=request.epoch == self.epoch)
            if not more:
                return
        yield self._gone(peer, request, hole, end)

    def _last_seq(self, epoch: int) -> int:
        """Return how far an epoch came; 0 if it is not known here."""
        if epoch == self.epoch:
            return self.buffer.last_seq
        return self._earlier[epoch].last_seq if epoch in self._earlier else 0

    def _resend_places(self, peer: bytes, request: m.Resend) -> Iterator[Out]:
        """Answer by place, whatever epoch is named: data are the same under every number."""
        assert request.scan_id is not None and request.frame is not None
        seqs, absent = self._places.find(request.scan_id, request.frame, request.rectangles)
        if absent:
            yield from self._absent(peer, msgspec.structs.replace(request, rectangles=absent), more=bool(seqs))
        count, size = 0, 0
        for seq in seqs:
            frames = self.buffer.get(seq)
            if frames is None:
                continue
            count, size = count + 1, size + sum(map(len, frames))
            more = seq != seqs[-1] and count < _BURST and size < self._limits.snapshot_page_bytes
            resent = m.Resent(request_id=request.request_id, seq=seq, more=more)
            yield self._reply(peer, resent, (nest(frames),))
            if not more:
                return

    def _absent(self, peer: bytes, request: m.Resend, *, more: bool) -> Iterator[Out]:
        """Answer for rectangles that no kept message holds."""
        then = "gone" if self._remake is None else self._remake(peer, request)
        if then == "coming":
            yield self._reply(peer, coming(request))
        elif then == "gone":
            yield self._reply(peer, gone_places(request, more=more))

    def _gone(self, peer: bytes, request: m.Resend, first: int, last: int, *, more: bool = False) -> Out:
        """Answer under the epoch that was asked for: its numbers mean nothing in another."""
        gone = m.Gone(request_id=request.request_id, first=first, last=last, more=more)
        return self._reply(peer, gone, epoch=request.epoch)

    def _kept(self, epoch: int, first: int, last: int) -> Iterator[tuple[int, Frames | None]]:
        """Yield what is asked for, from the store where the buffer has let it go (perhaps just now) or never had it.

        One message is read at a time, so that a long answer neither fills memory nor holds up who else reads.
        """
        for seq in range(first, last + 1):
            frames = self.buffer.get(seq) if epoch == self.epoch else None
            if frames is None and self._older is not None:
                frames = next((stored for _, stored in self._older(epoch, seq, seq)), None)
            yield seq, frames

    def _snapshot(self, peer: bytes, request: m.Snapshot) -> Iterator[Out]:
        """One page is one message, asked for by the seq it follows; the newest live ones close the last page."""
        cursor = request.cursor or 0
        watermark = self.buffer.last_seq
        for seq, frames in self._kept(self.epoch, cursor + 1, watermark):
            if frames is not None:
                page = m.SnapshotPage(request_id=request.request_id, watermark=watermark, cursor=seq)
                yield self._reply(peer, page, (nest(frames),))
                return
        page = m.SnapshotPage(request_id=request.request_id, watermark=watermark)
        yield self._reply(peer, page, self._newest_live())

    def _newest_live(self) -> list[NDArray[Any]]:
        """Return the newest live message of each scan, nested, the newest of all last; as many as fit in a message."""
        room, found = self._limits.message_bytes, list[NDArray[Any]]()
        for frames in reversed(self._live.values()):
            room -= sum(map(len, frames)) + _NEST_BYTES
            if room < 0 and found:
                break
            found.insert(0, nest(frames))
        return found

    def _encoded(self, header: m.Header, seq: int, arrays: Sequence[NDArray[Any]], codec: str) -> Numbered:
        number = {"seq": seq} if isinstance(header, m.Reliable) else {"last_seq": seq}
        header = msgspec.structs.replace(header, **self._origin(), **number)
        frames = encode(header, arrays, stream=self._stream, codec=codec)
        self._check_size(header, frames, arrays)
        return Numbered(header, frames)

    def _remember(self, message: Numbered, arrays: Sequence[NDArray[Any]]) -> None:
        header = message.header
        if isinstance(header, m.Reliable):
            self._places.add(header, arrays)
            for forgotten in self.buffer.add(header.seq, message.frames, self._places.starts):
                self._places.forget(forgotten)
        elif isinstance(header, m.Live):
            self._live.pop(header.scan_id, None)
            self._live[header.scan_id] = message.frames
            if len(self._live) > _LIVE_SCANS:
                del self._live[next(iter(self._live))]

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
