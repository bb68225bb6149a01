"""The receiving side of a publisher: proof of subscription, catching up, gap repair.

========== ============================== =====================================================
state      on                             then
========== ============================== =====================================================
greeting   welcome                        `hello` again by name for each followed session that it leaves out;
                                          then proving: send `probe` until its nonce is heard
proving    echo of the nonce (published)  following: `attach`, or the epochs of each session, oldest first
following  attached / a page              the stream's gaps are tracked; pages and gaps fill it
following  an earlier epoch is filled     the next is begun; the present one with a `snapshot`
following  an unknown session             greet again: it may have earlier epochs; without history track it from 1
following  another epoch of a session     greet again: who answers `hello` is alive, a late word proves nothing
following  `alive_s` have passed          observers say `hello`, to be known; another epoch answers: greet again
any        no answer for `retry_s`        ask again (every request is idempotent)
any        refusal of `hello`             tell, and ask again much later
any        refusal of `attach`            tell; the session's next heartbeat brings us back
any        refusal of `snapshot`          the session has just gone; its gaps, if any, will tell
any        refusal of `resend`            what was asked for is lost
========== ============================== =====================================================

A subscription is proved by the nonce and by nothing else: what a SUB receives before that is no promise of what
it will receive. Reliable messages that come before their stream is tracked are not delivered; they are in the
sender's buffer, and the tracker asks for them. Unnumbered ones are delivered as they come.

Of a session's epochs (see `epochs`) an observer follows one after the other: an earlier one is a stream whose end is
known and whose gap is whatever has not come (for who joins late, all of it), and the next begins when it is filled
from the publisher's store. What a publisher does not list it cannot serve: then the epoch has ended, what comes late
from it is dropped, and what it still owed is reported lost. Streams that are followed go on while we greet again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from livestem.domain.errors import WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.effects import Answered, Ask, Deliver, Effect, Lost, Refused, Tracking
from livestem.protocol.epochs import Epochs
from livestem.protocol.gaps import GapTracker
from livestem.protocol.requests import Requests
from livestem.protocol.track import Track, open_nested
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, unnest

__all__ = ["Answered", "Ask", "Deliver", "Effect", "Follower", "Lost", "Refused", "Role", "Take", "Tracking"]

Role = Literal["service", "observer", "operator"]
Take = Literal["attach", "snapshot", "new"]
_ANSWERS: dict[type[m.Talk], type[m.Talk]] = {
    m.Hello: m.Welcome,
    m.Attach: m.Attached,
    m.Snapshot: m.SnapshotPage,
}


_LET_GO = 4096  # sessions that made room: 64 at once come and go for months before one is forgotten
_REMEMBERED = 64  # requests by place; one is under way for each scan that is being repaired


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
    session : str
        Follow this session only, also one that the publisher knows from earlier starts; empty: those of this start.
    stored : callable
        ``stored(session, epoch)`` returns the seq up to which an earlier life of ours has a stream that is attached to.
    """

    retry_s = 0.5  # an answer on one machine takes a millisecond; a busy service some hundred
    probe_s = 0.05  # a fresh subscription takes some milliseconds to reach the publisher, silently
    refused_s = 10.0  # a person must act; until then it is enough to look now and then
    alive_s = 4.0  # two lost words in a row are no absence: a hub forgets who is silent for ten seconds

    def __init__(
        self,
        *,
        role: Role,
        take: Take,
        ids: Iterator[str],
        name: str = "",
        ordered: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        session: str = "",
        stored: Callable[[str, int], int] = lambda session, epoch: 0,
    ) -> None:
        self._role, self._take, self._ids, self._name = role, take, ids, name
        self._ordered, self._limits, self._session, self._stored = ordered, limits, session, stored
        self.state: Literal["greeting", "proving", "following"] = "greeting"
        self._sessions: dict[str, Epochs] = {}
        self._let_go: dict[str, m.Stream] = {}  # sessions that made room, and how far they were followed: as `sessions`
        self._streams: list[m.Stream] = []
        self._greeted: int | None = None  # epoch of whom we have greeted
        self._alive_at = 0.0
        self._nonce = ""
        self._requests = Requests()
        self._by_place: dict[str, m.Resend] = {}  # the last requests by place, by their ids
        self._greet()

    def acknowledged(self, session: str) -> m.Ack | None:
        """Return the ack for everything of `session` that has been delivered without a gap, or None."""
        track = self._track(session)
        if track is None:
            return None
        return m.Ack(request_id=next(self._ids), session=session, epoch=track.epoch, seq=track.gaps.contiguous)

    def gaps(self, session: str) -> GapTracker | None:
        """Return the gap tracker of a session's stream, once it is followed."""
        track = self._track(session)
        return None if track is None else track.gaps

    def epoch(self, session: str) -> int | None:
        """Return the epoch of a session that is followed just now."""
        track = self._track(session)
        return None if track is None else track.epoch

    def ask_places(self, session: str, scan_id: str, frame: int, rectangles: tuple[m.Rectangle, ...]) -> m.Resend:
        """Return a request by place; whoever asks also asks again, and is told every answer as `Answered`."""
        rid = next(self._ids)
        asked = m.Resend(request_id=rid, session=session, scan_id=scan_id, frame=frame, rectangles=rectangles)
        self._by_place[rid] = asked
        if len(self._by_place) > _REMEMBERED:
            del self._by_place[next(iter(self._by_place))]
        return asked

    def tick(self, now: float) -> list[Effect]:
        """Return what is due: requests without an answer, gaps to ask for."""
        effects = [*self._advance(now), *self._requests.due(now)]
        for session, epochs in self._sessions.items():
            if epochs.track is None or self._requests.under_way(m.Snapshot, session):
                continue  # the pages of a snapshot fill the gap
            wanted = epochs.track.gaps.wanted(now)
            if wanted is not None:
                effects.append(Ask(epochs.track.ask(next(self._ids), wanted)))
        if self.state == "following" and self._take != "attach" and now - self._alive_at >= self.alive_s:
            self._alive_at = now
            effects.append(Ask(self._hello(self._session)))
        return effects

    def published(self, message: Message, now: float) -> list[Effect]:
        """Take a message from the SUB.

        Raises
        ------
        WireError
            If it is talk, which nobody publishes.
        """
        header = message.header
        if isinstance(header, m.Talk):
            raise WireError("topic", f"a {m.tag_of(header)} is not published")
        if isinstance(header, m.Echo) and header.nonce == self._nonce and self.state == "proving":
            return self._proved(now)
        track = self._track(header.session, header.epoch)
        if track is None:
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
        if isinstance(header, m.Talk) and header.request_id in self._by_place:
            return self._placed(header, message)
        if isinstance(header, m.Resent | m.Gone):
            return self._repaired(header, message, now)
        if not isinstance(header, m.Talk):
            return []
        if isinstance(header, m.Refusal):
            return self._refused(header)
        asked = self._requests.waiting(header.request_id)
        if asked is None or not isinstance(header, _ANSWERS.get(type(asked), ())):
            return self._unasked(header, now)
        self._requests.settle(asked)
        if isinstance(header, m.Welcome):
            return self._welcomed(asked.session, header, now)
        if isinstance(header, m.Attached):
            return self._attached(header.stream, now) if header.stream.session == asked.session else []
        assert isinstance(asked, m.Snapshot) and isinstance(header, m.SnapshotPage)
        return self._page(asked, header, message, now)

    def _greet(self) -> None:
        """Begin anew; snapshots go on, because whoever answers them says of which epoch they are."""
        self.state = "greeting"
        self._requests.forget_all_but(m.Snapshot)
        self._want(self._hello(self._session))

    def _hello(self, session: str) -> m.Hello:
        rid = next(self._ids)
        return m.Hello(request_id=rid, session=session, versions=(m.VERSION,), role=self._role, name=self._name)

    def _unasked(self, header: m.Talk, now: float) -> list[Effect]:
        """The answer to a question that was asked twice, or to a word that only said that we are here."""
        if isinstance(header, m.Welcome) and header.epoch != self._greeted and self.state == "following":
            return self._greet_again(now)
        return []

    def _greet_again(self, now: float) -> list[Effect]:
        if self.state == "following":
            self._greet()
        return self.tick(now)

    def _welcomed(self, session: str, welcome: m.Welcome, now: float) -> list[Effect]:
        """Ask by name for what we follow and this start has not taken up; then prove the subscription."""
        if session == self._session:
            self._greeted, self._streams = welcome.epoch, []
        self._streams += [s for s in welcome.streams if session in ("", s.session)]
        if session == self._session and self._take != "attach":
            listed = {session, *(s.session for s in self._streams)}
            for unlisted in [s for s in self._sessions if s not in listed]:
                self._want(self._hello(unlisted))
        if not self._requests.under_way(m.Hello):
            self.state, self._alive_at, self._nonce = "proving", now, next(self._ids)
            self._want(m.Probe(request_id=self._nonce, nonce=self._nonce), self.probe_s)
        return self.tick(now)

    def _want(self, header: m.Talk, patience_s: float | None = None) -> None:
        self._requests.want(header, patience_s or self.retry_s)

    def _track(self, session: str, epoch: int | None = None) -> Track | None:
        """Return the track of a session, if it is of this epoch."""
        epochs = self._sessions.get(session)
        if epochs is None:
            return None
        return epochs.track if epoch is None else epochs.tracks(epoch)

    def _epochs(self, session: str) -> Epochs:
        known = self._sessions.get(session)
        return known or Epochs(session, self._ordered, self._limits, before=self._let_go.get(session))

    def _follow(self, session: str) -> tuple[Epochs, list[Effect]]:
        """Begin to follow a session if we do not yet; the one that was begun longest ago makes room for it."""
        room: list[Effect] = []
        epochs = self._epochs(session)
        if session not in self._sessions and len(self._sessions) >= self._limits.sessions:
            oldest = self._sessions.pop(next(iter(self._sessions)))
            if oldest.track is not None:
                room = oldest.track.end()
                self._remember(oldest.session, oldest.track)
        self._sessions[session] = epochs
        return epochs, room

    def _remember(self, session: str, track: Track) -> None:
        """Keep how far a session was followed: should it come again, it goes on there."""
        self._let_go.pop(session, None)
        self._let_go[session] = m.Stream(
            session=session, epoch=track.epoch, first_seq=1, last_seq=track.gaps.contiguous
        )
        if len(self._let_go) > _LET_GO:
            del self._let_go[next(iter(self._let_go))]

    def _to_follow(self) -> list[str]:
        """Sessions of the welcome: those that we follow, then the newest of the others, if we do not have it all."""
        listed = dict.fromkeys(s.session for s in self._streams)
        news = {s.session for s in self._streams if self._epochs(s.session).has_news(s)}
        ours = [session for session in listed if session in self._sessions]
        others = [session for session in listed if session in news - self._sessions.keys()]
        return [*ours, *others[-self._limits.sessions :]]

    def _proved(self, now: float) -> list[Effect]:
        self.state = "following"
        self._requests.forget_all_but(m.Snapshot)
        effects: list[Effect] = []
        for session in self._to_follow():
            epochs, room = self._follow(session)
            effects += room
            streams = [s for s in self._streams if s.session == session]
            if self._take == "attach":
                self._want(m.Attach(request_id=next(self._ids), session=session))
            elif self._take == "new" and epochs.track is None:
                epochs.ended.update(s.epoch for s in streams[:-1])
                now_on = streams[-1].last_seq + 1 if epochs.before is None else epochs.first_of(streams[-1].epoch)
                effects += epochs.begin(streams[-1], now_on, now)
            else:
                effects += epochs.line_up(streams, now)
        return effects + self.tick(now)

    def _advance(self, now: float) -> list[Effect]:
        """Begin the next epoch of every session whose last one is filled."""
        effects: list[Effect] = []
        for session, epochs in self._sessions.items():
            while (stream := epochs.next_epoch()) is not None:
                first = epochs.first_of(stream.epoch)
                effects += epochs.begin(stream, first, now)
                if first == 1 and not epochs.later and self._take == "snapshot":
                    self._want(m.Snapshot(request_id=next(self._ids), session=session, epoch=stream.epoch))
        return effects

    def _stranger(self, message: Message, now: float) -> list[Effect]:
        """A session or epoch we do not follow: a new one, or a publisher that started again."""
        header = message.header
        epochs = self._epochs(header.session)
        if epochs.is_over(header.epoch) or self._requests.under_way(m.Attach, header.session):
            return []
        assert isinstance(header, m.Reliable | m.Unnumbered)
        last_seq = header.seq if isinstance(header, m.Reliable) else header.last_seq
        stream = m.Stream(session=header.session, epoch=header.epoch, first_seq=1, last_seq=last_seq)
        # reliable ones will be asked for in their turn, or are known
        if epochs.waits(header.epoch) or not epochs.has_news(stream):
            return [Deliver(message)] if isinstance(header, m.Unnumbered) and not isinstance(header, m.Echo) else []
        if self._take != "new" or epochs.track is not None:
            return self._greet_again(now)
        epochs, room = self._follow(header.session)
        return [*room, *epochs.begin(stream, epochs.first_of(header.epoch), now), *self.published(message, now)]

    def _attached(self, stream: m.Stream, now: float) -> list[Effect]:
        known = self._track(stream.session, stream.epoch)
        here = 0 if known is not None else min(self._stored(stream.session, stream.epoch), stream.last_seq)
        epochs, effects = self._follow(stream.session)
        effects += epochs.begin(stream, max(stream.first_seq, here + 1), now)
        late = stream.first_seq > here + 1 and known is None
        return [*effects, Lost(stream.session, here + 1, stream.first_seq - 1)] if late else effects

    def _repaired(self, header: m.Resent | m.Gone, message: Message, now: float) -> list[Effect]:
        track = self._track(header.session, header.epoch)
        if track is None:
            return []
        if isinstance(header, m.Gone):
            return track.gone(header, now)
        return track.resent(header, message, now)

    def _placed(self, answer: m.Talk, message: Message) -> list[Effect]:
        """Data known by their place are delivered whatever their number, which may be settled long since."""
        answered = Answered(answer, self._by_place[answer.request_id])
        if not isinstance(answer, m.Resent):
            return [answered]
        return [Deliver(open_nested(message, answer.seq, self._limits), repaired=True), answered]

    def _refused(self, refusal: m.Refusal) -> list[Effect]:
        asked = self._requests.waiting(refusal.request_id)
        if asked is not None:
            if isinstance(asked, m.Hello):
                self._requests.be_patient(asked, self.refused_s)
            else:
                self._requests.settle(asked)
            return [] if isinstance(asked, m.Snapshot) else [Refused(refusal.reason)]
        for track in [e.track for e in self._sessions.values() if e.track is not None]:
            resend = track.asked
            if resend is not None and resend.request_id == refusal.request_id:
                assert resend.first is not None and resend.last is not None
                return track.give_up(resend.first, resend.last)
        return []

    def _page(self, asked: m.Snapshot, header: m.SnapshotPage, message: Message, now: float) -> list[Effect]:
        """Take one page and ask for the next; what the pages skip, the publisher no longer has."""
        track = self._track(asked.session, header.epoch)
        if track is None or header.epoch != asked.epoch:
            return self._greet_again(now)  # the publisher has started again
        track.gaps.announced(header.watermark, now)
        first, last = (asked.cursor or 0) + 1, header.cursor or header.watermark + 1
        if header.cursor is not None and header.cursor < first:
            raise WireError("payload", "a page of a snapshot leads back to pages before it")
        effects = track.give_up(first, last - 1)
        if header.cursor is None:
            return [*effects, *self._newest(message)]
        rid = next(self._ids)
        self._want(m.Snapshot(request_id=rid, session=asked.session, epoch=header.epoch, cursor=header.cursor))
        return [*effects, *track.paged(header.cursor, message, now), *self.tick(now)]

    def _newest(self, message: Message) -> list[Effect]:
        """The last page holds the newest live states, if there are any; unreadable, they are not missed for long."""
        try:
            return [Deliver(decode(unnest(a), self._limits), repaired=True) for a in message.arrays]
        except WireError:
            return []
