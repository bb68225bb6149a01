"""The receiving side of a publisher: proof of subscription, catching up, gap repair.

========== ============================== =====================================================
state      on                             then
========== ============================== =====================================================
greeting   welcome                        proving: send `probe` until its nonce is heard
proving    echo of the nonce (published)  following: `attach` or `snapshot` for each stream
following  attached / last snapshot page  the stream's gaps are tracked from there
following  an unknown session             observers track it from 1; services greet again
following  another epoch of a session     greet again: who answers `hello` is alive, a late word proves nothing
any        no answer for `retry_s`        ask again (every request is idempotent)
any        refusal of `hello`             tell, and ask again much later
any        refusal of `attach`            tell; the session's next heartbeat brings us back
any        refusal of `snapshot`          the session has just gone; likewise
any        refusal of `resend`            what was asked for is lost
========== ============================== =====================================================

A subscription is proved by the nonce and by nothing else: what a SUB receives before that is no promise of what
it will receive. Reliable messages that come before their stream is tracked are not delivered; they are in the
sender's buffer, and the tracker asks for them. Unnumbered ones are delivered as they come.

Only an answer ends an epoch: then what comes late from it is dropped, and what it still owed is reported lost.
Streams that are followed go on while we greet again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from livestem.domain.errors import WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.effects import Ask, Deliver, Effect, Lost, Refused, Tracking
from livestem.protocol.gaps import GapTracker
from livestem.protocol.track import Track, open_nested
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, unnest

__all__ = ["Ask", "Deliver", "Effect", "Follower", "Lost", "Refused", "Role", "Take", "Tracking"]

Role = Literal["service", "observer", "operator"]
Take = Literal["attach", "snapshot", "new"]
_ANSWERS: dict[type[m.Talk], type[m.Talk]] = {
    m.Hello: m.Welcome,
    m.Attach: m.Attached,
    m.Snapshot: m.SnapshotPage,
}


@dataclass
class _Pending:
    """A request that is repeated every `patience_s` until it is answered."""

    header: m.Talk
    patience_s: float
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
    probe_s = 0.05  # a fresh subscription takes some milliseconds to reach the publisher, silently
    refused_s = 10.0  # a person must act; until then it is enough to look now and then

    def __init__(
        self,
        *,
        role: Role,
        take: Take,
        ids: Iterator[str],
        name: str = "",
        ordered: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._role, self._take, self._ids, self._name = role, take, ids, name
        self._ordered, self._limits = ordered, limits
        self.state: Literal["greeting", "proving", "following"] = "greeting"
        self._tracks: dict[str, Track] = {}
        self._ended: dict[str, set[int]] = {}  # epochs that a session has left behind
        self._streams: tuple[m.Stream, ...] = ()
        self._nonce = ""
        self._pending: dict[tuple[type[m.Talk], str], _Pending] = {}
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
            if pending.asked_at is None or now - pending.asked_at >= pending.patience_s:
                pending.asked_at = now
                effects.append(Ask(pending.header))
        for track in self._tracks.values():
            wanted = track.gaps.wanted(now)
            if wanted is not None:
                effects.append(Ask(track.ask(next(self._ids), wanted)))
        return effects

    def published(self, message: Message, now: float) -> list[Effect]:
        """Take a message from the SUB."""
        header = message.header
        if isinstance(header, m.Echo) and header.nonce == self._nonce and self.state == "proving":
            return self._proved(now)
        track = self._tracks.get(header.session)
        if track is None or track.epoch != header.epoch:
            return self._stranger(message, now) if self.state == "following" and header.session else []
        if isinstance(header, m.Reliable):
            return track.arrived(Deliver(message), header.seq, now)
        assert isinstance(header, m.Unnumbered)
        track.gaps.announced(header.last_seq, now)
        return [] if isinstance(header, m.Echo) else [Deliver(message)]

    def replied(self, message: Message, now: float) -> list[Effect]:
        """Take a reply from the DEALER.

        Raises
        ------
        WireError
            If a message within it cannot be read.
        """
        header = message.header
        if isinstance(header, m.Resent | m.Gone):
            return self._repaired(header, message, now)
        if not isinstance(header, m.Talk):
            return []
        if isinstance(header, m.Refusal):
            return self._refused(header)
        asked = self._waiting(header.request_id)
        if asked is None or not isinstance(header, _ANSWERS.get(type(asked), ())):
            return []  # the answer to a question that was asked twice
        del self._pending[type(asked), asked.session]
        if isinstance(header, m.Welcome):
            self.state, self._streams, self._nonce = "proving", header.streams, next(self._ids)
            self._want(m.Probe(request_id=self._nonce, nonce=self._nonce), self.probe_s)
            return self.tick(now)
        if isinstance(header, m.Attached):
            return self._attached(header.stream, now)
        assert isinstance(asked, m.Snapshot) and isinstance(header, m.SnapshotPage)
        return self._page(asked, header, message, now)

    def _greet(self) -> None:
        self.state, self._pending = "greeting", {}
        self._want(m.Hello(request_id=next(self._ids), versions=(m.VERSION,), role=self._role, name=self._name))

    def _want(self, header: m.Talk, patience_s: float | None = None) -> None:
        self._pending[type(header), header.session] = _Pending(header, patience_s or self.retry_s)

    def _waiting(self, request_id: str) -> m.Talk | None:
        """Return the pending request of this id."""
        return next((p.header for p in self._pending.values() if p.header.request_id == request_id), None)

    def _proved(self, now: float) -> list[Effect]:
        self.state, self._pending = "following", {}
        effects: list[Effect] = []
        for stream in self._streams:
            if self._take != "attach" and stream.session in self._tracks:  # followed, perhaps in another epoch
                effects += self._begin(stream, 1, now)
            elif self._take == "new":
                effects += self._begin(stream, stream.last_seq + 1, now)
            else:
                kind = m.Attach if self._take == "attach" else m.Snapshot
                self._want(kind(request_id=next(self._ids), session=stream.session))
        return effects + self.tick(now)

    def _stranger(self, message: Message, now: float) -> list[Effect]:
        """A session or epoch we do not follow: a new one, or a publisher that started again."""
        header = message.header
        if header.epoch in self._ended.get(header.session, ()):
            return []
        if any(p.header.session == header.session for p in self._pending.values()):
            return []  # its attach or snapshot is under way
        if self._take == "attach" or header.session in self._tracks:
            self._greet()
            return self.tick(now)
        stream = m.Stream(session=header.session, epoch=header.epoch, first_seq=1, last_seq=0)
        return [*self._begin(stream, 1, now), *self.published(message, now)]

    def _begin(self, stream: m.Stream, first: int, now: float) -> list[Effect]:
        """Follow a stream from `first` on; one that is followed already is not begun anew."""
        effects: list[Effect] = []
        track = self._tracks.get(stream.session)
        if track is not None and track.epoch != stream.epoch:
            self._ended.setdefault(stream.session, set()).add(track.epoch)
            effects, track = track.end(), None
        if track is None:
            track = Track(stream.session, stream.epoch, GapTracker(first), self._ordered, self._limits)
            self._tracks[stream.session] = track
            effects.append(Tracking(stream))
        track.gaps.announced(stream.last_seq, now)
        return effects

    def _attached(self, stream: m.Stream, now: float) -> list[Effect]:
        known = self._tracks.get(stream.session)
        late = stream.first_seq > 1 and (known is None or known.epoch != stream.epoch)
        effects = self._begin(stream, stream.first_seq, now)
        return [*effects, Lost(stream.session, 1, stream.first_seq - 1)] if late else effects

    def _repaired(self, header: m.Resent | m.Gone, message: Message, now: float) -> list[Effect]:
        track = self._tracks.get(header.session)
        if track is None or track.epoch != header.epoch:
            return []
        if isinstance(header, m.Gone):
            return track.gone(header, now)
        return track.resent(header, message, now)

    def _refused(self, refusal: m.Refusal) -> list[Effect]:
        asked = self._waiting(refusal.request_id)
        if asked is not None:
            if isinstance(asked, m.Hello):
                self._pending[m.Hello, ""].patience_s = self.refused_s
            else:
                del self._pending[type(asked), asked.session]
            return [] if isinstance(asked, m.Snapshot) else [Refused(refusal.reason)]
        for track in self._tracks.values():
            resend = track.asked
            if resend is not None and resend.request_id == refusal.request_id:
                assert resend.first is not None and resend.last is not None
                return track.give_up(resend.first, resend.last)
        return []

    def _page(self, asked: m.Snapshot, header: m.SnapshotPage, message: Message, now: float) -> list[Effect]:
        """Deliver one page and ask for the next; begin again if the publisher has, in between."""
        if asked.cursor is not None and header.epoch != asked.epoch:
            self._want(m.Snapshot(request_id=next(self._ids), session=asked.session))
            return self.tick(now)
        if header.cursor is not None:
            ask = m.Snapshot(
                request_id=next(self._ids), session=asked.session, epoch=header.epoch, cursor=header.cursor
            )
            self._want(ask)
            hole = _between(asked.session, asked.cursor, header.cursor)
            return [*hole, self._paged(asked.session, header.cursor, message), *self.tick(now)]
        stream = m.Stream(session=asked.session, epoch=header.epoch, first_seq=1, last_seq=header.watermark)
        hole = _between(asked.session, asked.cursor, header.watermark + 1)
        return [*hole, *self._begin(stream, header.watermark + 1, now), *self._newest(message)]

    def _paged(self, session: str, seq: int, message: Message) -> Effect:
        """A page that holds no readable message must not end the snapshot: the message is lost, the rest is not."""
        try:
            return Deliver(open_nested(message, seq, self._limits), repaired=True)
        except WireError:
            return Lost(session, seq, seq)

    def _newest(self, message: Message) -> list[Effect]:
        """The last page holds the newest live state, if there is one; unreadable, it is not missed for long."""
        try:
            return [Deliver(decode(unnest(a), self._limits), repaired=True) for a in message.arrays]
        except WireError:
            return []


def _between(session: str, before: int | None, seq: int) -> list[Effect]:
    """Return what a snapshot skips, because the publisher no longer has it."""
    first = (before or 0) + 1
    return [Lost(session, first, seq - 1)] if first < seq else []
