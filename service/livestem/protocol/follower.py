"""The receiving side of a publisher: proof of subscription, catching up, gap repair.

========== ============================== =====================================================
state      on                             then
========== ============================== =====================================================
greeting   welcome                        proving: send `probe` until its nonce is heard
proving    echo of the nonce (published)  following: `attach` or `snapshot` for each stream
following  attached / last snapshot page  the stream's gaps are tracked from there
following  an unknown session or epoch    observers track it from 1; services greet again
any        no answer for `retry_s`        ask again (every request is idempotent)
========== ============================== =====================================================

A subscription is proved by the nonce and by nothing else: what a SUB receives before that is no promise of what
it will receive. Reliable messages that come before their stream is tracked are not delivered; they are in the
sender's buffer, and the tracker asks for them. Unnumbered ones are delivered as they come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from livestem.domain.errors import WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.gaps import GapTracker
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, unnest


@dataclass(frozen=True)
class Ask:
    """Send this through the DEALER."""

    header: m.Talk


@dataclass(frozen=True)
class Deliver:
    """A message for the application; `repaired` if it came by resend or snapshot."""

    message: Message
    repaired: bool = False


@dataclass(frozen=True)
class Tracking:
    """A stream is followed from here on; whatever is published next will be delivered or reported lost."""

    stream: m.Stream


@dataclass(frozen=True)
class Lost:
    """The publisher no longer has these; nothing will bring them back."""

    session: str
    first: int
    last: int


@dataclass(frozen=True)
class Refused:
    """The publisher will not serve us; a person must act."""

    reason: str


Effect = Ask | Deliver | Tracking | Lost | Refused
Take = Literal["attach", "snapshot", "new"]


@dataclass
class _Track:
    """One (session, epoch): its gaps, and what waits for one to be filled (in ordered delivery)."""

    epoch: int
    gaps: GapTracker
    held: dict[int, Deliver] = field(default_factory=dict)
    spoilt: dict[int, int] = field(default_factory=dict)  # seq -> times it came back and could not be read
    next_seq: int = 1


@dataclass
class _Pending:
    header: m.Talk
    asked_at: float | None = None


class Follower:
    """One publisher, as one of its followers sees it.

    Parameters
    ----------
    role : {"service", "observer", "operator"}
    take : {"attach", "snapshot", "new"}
        How to begin a stream: take responsibility for it (a service), its state first (an observer), or only
        what is published from now on.
    ids : iterator of str
        Request ids and nonces, never repeated.
    ordered : bool
        Hold reliable messages back until all before them are here or known to be lost.
    """

    retry_s = 0.5  # an answer on one machine takes a millisecond; a busy service some hundred
    tries = 3  # a message that cannot be read even when resent three times was made wrong
    probe_s = 0.05  # a fresh subscription takes some milliseconds to reach the publisher, silently

    def __init__(
        self,
        *,
        role: Literal["service", "observer", "operator"],
        take: Take,
        ids: Iterator[str],
        name: str = "",
        ordered: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._role, self._take, self._ids, self._name = role, take, ids, name
        self._ordered, self._limits = ordered, limits
        self.state: Literal["greeting", "proving", "following"] = "greeting"
        self._tracks: dict[str, _Track] = {}
        self._streams: tuple[m.Stream, ...] = ()
        self._nonce = ""
        self._pending: dict[str, _Pending] = {}
        self._greet()

    def acknowledged(self, session: str) -> m.Ack | None:
        """Return the ack for everything of `session` that has been delivered without a gap, or None."""
        track = self._tracks.get(session)
        if track is None:
            return None
        return m.Ack(request_id=next(self._ids), session=session, epoch=track.epoch, seq=track.gaps.contiguous)

    def gaps(self, session: str) -> GapTracker | None:
        """Return the gap tracker of a session's stream, once it is followed."""
        track = self._tracks.get(session)
        return None if track is None else track.gaps

    def tick(self, now: float) -> list[Effect]:
        """Return what is due: requests without an answer, gaps to ask for."""
        effects: list[Effect] = []
        for pending in self._pending.values():
            patience = self.probe_s if isinstance(pending.header, m.Probe) else self.retry_s
            if pending.asked_at is None or now - pending.asked_at >= patience:
                pending.asked_at = now
                effects.append(Ask(pending.header))
        for session, track in self._tracks.items():
            wanted = track.gaps.wanted(now)
            if wanted is not None:
                ask = m.Resend(
                    request_id=next(self._ids),
                    session=session,
                    epoch=track.epoch,
                    first=wanted[0],
                    last=wanted[1],
                )
                effects.append(Ask(ask))
        return effects

    def published(self, message: Message, now: float) -> list[Effect]:
        """Take a message from the SUB."""
        header = message.header
        if isinstance(header, m.Echo) and header.nonce == self._nonce and self.state == "proving":
            return self._proved(now)
        if self.state != "following" or not header.session:
            return []
        track = self._tracks.get(header.session)
        if track is None or track.epoch != header.epoch:
            return self._stranger(message, now)
        if isinstance(header, m.Reliable):
            return self._arrived(track, Deliver(message), header.seq, now)
        assert isinstance(header, m.Unnumbered)
        track.gaps.announced(header.last_seq, now)
        return [] if isinstance(header, m.Echo) else [Deliver(message)]

    def replied(self, message: Message, now: float) -> list[Effect]:
        """Take a reply from the DEALER."""
        header = message.header
        if isinstance(header, m.Resent | m.Gone):
            return self._repaired(message, now)
        pending = self._pending.get(_purpose(header))
        if pending is None or not isinstance(header, m.Talk) or header.request_id != pending.header.request_id:
            return [Refused(header.reason)] if isinstance(header, m.Refusal) else []
        del self._pending[_purpose(header)]
        if isinstance(header, m.Welcome):
            self.state, self._streams, self._nonce = "proving", header.streams, next(self._ids)
            self._want(m.Probe(request_id=self._nonce, nonce=self._nonce))
            return self.tick(now)
        if isinstance(header, m.Attached):
            return [self._track(header.stream, header.stream.first_seq)]
        if isinstance(header, m.SnapshotPage):
            return self._page(header, message, now)
        return []

    def _greet(self) -> None:
        self.state, self._tracks, self._pending = "greeting", {}, {}
        self._want(m.Hello(request_id=next(self._ids), versions=(m.VERSION,), role=self._role, name=self._name))

    def _want(self, header: m.Talk) -> None:
        self._pending[_answer(header)] = _Pending(header)

    def _proved(self, now: float) -> list[Effect]:
        self.state, self._pending = "following", {}
        effects: list[Effect] = []
        for stream in self._streams:
            if self._take == "new":
                effects.append(self._track(stream, stream.last_seq + 1))
            else:
                kind = m.Attach if self._take == "attach" else m.Snapshot
                self._want(kind(request_id=next(self._ids), session=stream.session))
        return effects + self.tick(now)

    def _stranger(self, message: Message, now: float) -> list[Effect]:
        """A session or epoch we do not follow: a new one, or a publisher that started again."""
        header = message.header
        if any(p.header.session == header.session for p in self._pending.values()):
            return []  # its attach or snapshot is under way
        if self._take == "attach":
            self._greet()
            return self.tick(now)
        stream = m.Stream(session=header.session, epoch=header.epoch, first_seq=1, last_seq=0)
        return [self._track(stream, 1), *self.published(message, now)]

    def _track(self, stream: m.Stream, first: int) -> Tracking:
        track = _Track(stream.epoch, GapTracker(first), next_seq=first)
        self._tracks[stream.session] = track
        return Tracking(stream)

    def _arrived(self, track: _Track, deliver: Deliver, seq: int, now: float) -> list[Effect]:
        if not track.gaps.received(seq, now):
            return []
        if not self._ordered:
            return [deliver]
        track.held[seq] = deliver
        return self._release(track)

    def _release(self, track: _Track) -> list[Effect]:
        """Return, in order, what no gap holds back any more."""
        ready: list[Effect] = []
        while track.next_seq <= track.gaps.contiguous:
            held = track.held.pop(track.next_seq, None)
            if held is not None:
                ready.append(held)
            track.next_seq += 1
        return ready

    def _repaired(self, message: Message, now: float) -> list[Effect]:
        header = message.header
        track = self._tracks.get(header.session)
        if track is None or track.epoch != header.epoch:
            return []
        if isinstance(header, m.Gone):
            return self._give_up(track, header.session, header.first, header.last)
        assert isinstance(header, m.Resent)
        if not header.more:
            track.gaps.answered()
        try:
            nested = decode(unnest(message.arrays[0]), self._limits)
            if not isinstance(nested.header, m.Reliable) or nested.header.seq != header.seq:
                raise WireError("payload", "a resent message is not the one it is said to be")
        except WireError:
            track.spoilt[header.seq] = track.spoilt.get(header.seq, 0) + 1
            if track.spoilt[header.seq] < self.tries:
                raise
            return self._give_up(track, header.session, header.seq, header.seq)
        return self._arrived(track, Deliver(nested, repaired=True), header.seq, now)

    def _give_up(self, track: _Track, session: str, first: int, last: int) -> list[Effect]:
        track.gaps.gone(first, last)
        return [Lost(session, first, last), *self._release(track)]

    def _page(self, header: m.SnapshotPage, message: Message, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if message.arrays:
            effects.append(Deliver(decode(unnest(message.arrays[0]), self._limits), repaired=True))
        if header.cursor is not None:
            self._want(m.Snapshot(request_id=next(self._ids), session=header.session, cursor=header.cursor))
            return effects + self.tick(now)
        stream = m.Stream(session=header.session, epoch=header.epoch, first_seq=1, last_seq=header.watermark)
        return [*effects, self._track(stream, header.watermark + 1)]


def _answer(header: m.Talk) -> str:
    """Return the purpose under which a request waits for its answer."""
    session = header.session if isinstance(header, m.Attach | m.Snapshot) else ""
    return f"{m.tag_of(header)} {session}"


def _purpose(header: m.Header) -> str:
    request = {m.Welcome: "hello ", m.Attached: "attach ", m.SnapshotPage: "snapshot "}.get(type(header), "")
    return request if isinstance(header, m.Welcome) else f"{request}{header.session}"
