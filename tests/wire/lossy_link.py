"""A hub and a follower without sockets: a link that loses, doubles, delays, reorders and spoils, and a clock.

Everything is decided by one seeded generator, so that a failure can be run again. Faults end at a given time; what
is promised must then come true, because the heartbeats go on.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from benchmarks.reliability.link import Weather as Faults
from benchmarks.reliability.link import spoilt

from livestem.domain.errors import WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.desk import Desk
from livestem.protocol.follower import Ask, Deliver, Effect, Follower, Lost, Refused, Take, Tracking
from livestem.protocol.publisher import Numbered, Publisher
from livestem.protocol.resend import Frames
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

STEP_S = 0.01
BEAT_S = 0.2  # a real hub beats every second; the faster one only shortens the tests


def ids(stem: str) -> Iterator[str]:
    return (f"{stem}{i}" for i in itertools.count())


def numbered(epoch: int, seq: int, session: str = "s1") -> m.Agreement:
    """Return a small reliable message that says which one it is."""
    return m.Agreement(session=session, scan_id="a", agreement={str(epoch): {str(seq): None}})


@dataclass
class World:
    """One hub with its sessions and its store, and one follower of it.

    `publisher` is that of the session opened last; `store` is what survives a kill: session -> epoch -> seq -> frames.
    """

    seed: int
    faults: Faults
    take: Take = "snapshot"
    ordered: bool = True
    stored: bool = True  # the publishers have a store for what their buffers let go
    session: str = ""  # what the follower asks for
    limits: Limits = DEFAULT_LIMITS
    follower_limits: Limits = DEFAULT_LIMITS
    now: float = 0.0
    effects: list[Effect] = field(default_factory=list)
    published: dict[int, int] = field(default_factory=dict)  # epoch -> last seq of its session opened last
    requests: int = 0
    deaf: bool = False  # the hub publishes and hears nothing

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._way: list[tuple[float, int, str, Frames]] = []
        self._order = itertools.count()
        self.store: dict[str, dict[int, dict[int, Frames]]] = {}
        self._beat_at = 0.0
        self.desk: Desk | None = None
        self.epoch = 0
        self.publisher: Publisher | None = None
        role = "service" if self.take == "attach" else "observer"
        self.follower = Follower(
            role=role,
            take=self.take,
            ids=ids("f"),
            ordered=self.ordered,
            limits=self.follower_limits,
            session=self.session,
        )

    # --- the publisher's side ---

    def start(self, epoch: int, session: str = "s1") -> None:
        """A hub starts (again) with one session, or none: nothing is left of the one before but what was stored."""
        self.epoch, self.desk, self.publisher = epoch, Desk("test", self._stored), None
        if session:
            self.open(session)

    def open(self, session: str) -> None:
        """The hub opens a session, and beats."""
        assert self.desk is not None
        self.publisher = self.desk.published[session] = self._publisher(session)
        self.published[self.epoch] = 0
        self._send("pub", self.publisher.heartbeat())

    def stop(self) -> None:
        """The hub is killed."""
        self.desk = self.publisher = None

    def publish(self, *, n: int = 1, sent: bool = True) -> None:
        """Publish the next `n` reliable messages as one; without `sent` the kill comes between storing and sending."""
        assert self.publisher is not None
        epoch, last = self.publisher.epoch, self.published[self.publisher.epoch]
        headers = [numbered(epoch, last + i + 1, self.publisher.session) for i in range(n)]
        self.published[epoch] += n
        for frames in self.publisher.publish_all([(header, ()) for header in headers]):
            if sent:
                self._send("pub", frames)

    def _publisher(self, session: str) -> Publisher:
        epoch, kept = self.epoch, self.store.setdefault(session, {})

        def older(epoch: int, first: int, last: int) -> Iterable[tuple[int, Frames]]:
            return [(s, f) for s in range(first, last + 1) if (f := kept.get(epoch, {}).get(s)) is not None]

        def keep(messages: Sequence[Numbered]) -> None:
            kept.setdefault(epoch, {}).update((n.header.seq, n.frames) for n in messages)  # type: ignore[attr-defined]

        if not self.stored:
            return Publisher(session, "res", epoch, lambda: 0, limits=self.limits)
        earlier = [
            m.Stream(session=session, epoch=e, first_seq=min(found), last_seq=max(found)) for e, found in kept.items()
        ]
        return Publisher(session, "res", epoch, lambda: 0, limits=self.limits, older=older, keep=keep, earlier=earlier)

    def _stored(self, session: str) -> Publisher | None:
        return self._publisher(session) if self.stored and self.store.get(session) else None

    # --- time ---

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            if self.desk is not None and self.now >= self._beat_at:
                self._beat_at = self.now + BEAT_S
                for publisher in self.desk.published.values():
                    self._send("pub", publisher.heartbeat())
            while self._way and self._way[0][0] <= self.now:
                _, _, channel, frames = heapq.heappop(self._way)
                self._arrive(channel, frames)
            self._take_effects(self.follower.tick(self.now))

    def settle(self, most_s: float = 30.0, rested: Callable[[], bool] | None = None) -> None:
        """End all faults and let everything come to rest; an `AssertionError` if it does not."""
        self.faults = Faults()
        for _ in range(round(most_s)):
            self.run(1.0)
            if rested() if rested is not None else self.rested:
                return
        raise AssertionError(f"not at rest {most_s} s after the last fault: {self.follower.__dict__}")

    @property
    def rested(self) -> bool:
        """Whether the follower has all that the running publisher has published."""
        assert self.publisher is not None
        gaps = self.follower.gaps(self.publisher.session)
        if self.follower.state != "following" or gaps is None:
            return False
        ours = self.follower.epoch(self.publisher.session) == self.publisher.epoch
        return ours and gaps.complete and gaps.contiguous == self.published[self.publisher.epoch]

    # --- what came of it ---

    def delivered(self, epoch: int, session: str = "") -> list[int]:
        """Return the seq of every reliable message of an epoch (and session) as delivered; each must be its own."""
        found = [h for h in self.heard(epoch) if session in ("", h.session)]
        assert all(h.agreement == {str(epoch): {str(h.seq): None}} for h in found), "a message is not its own"
        return [h.seq for h in found]

    def heard(self, epoch: int) -> list[m.Agreement]:
        """Return the reliable messages of an epoch as delivered, whoever may have written them in its name."""
        headers = [e.message.header for e in self.effects if isinstance(e, Deliver)]
        return [h for h in headers if isinstance(h, m.Agreement) and h.epoch == epoch]

    @property
    def lost(self) -> list[int]:
        """Return every seq reported lost."""
        return [s for e in self.effects if isinstance(e, Lost) for s in range(e.first, e.last + 1)]

    @property
    def tracking(self) -> list[m.Stream]:
        """Return the streams that were begun."""
        return [e.stream for e in self.effects if isinstance(e, Tracking)]

    @property
    def held(self) -> int:
        """Return the bytes of the messages that wait behind a gap."""
        tracks = [e.track for e in self.follower._sessions.values() if e.track is not None]
        return sum(deliver.message.nbytes for track in tracks for deliver in track._held.values())

    # --- the link ---

    @property
    def _topics(self) -> tuple[bytes, ...]:
        """What the follower's SUB subscribes to, if it follows one session."""
        return f"res.{self.session}.".encode(), b"res..echo"

    def _send(self, channel: str, frames: Frames) -> None:
        faults, rng = self.faults, self.rng
        if channel == "pub" and self.session and not frames[0].startswith(self._topics):
            return
        if rng.random() < faults.loss:
            return
        for _ in range(2 if rng.random() < faults.double else 1):
            due = self.now + rng.random() * faults.delay_s
            sent = spoilt(frames, rng) if rng.random() < faults.spoil else frames
            heapq.heappush(self._way, (due, next(self._order), channel, sent))

    def _arrive(self, channel: str, frames: Frames) -> None:
        try:
            message = decode(frames, self.follower_limits)
            if channel == "pub":
                self._take_effects(self.follower.published(message, self.now))
            elif channel == "reply":
                self._take_effects(self.follower.replied(message, self.now))
            elif self.desk is not None and isinstance(message.header, m.Talk) and not self.deaf:
                self._serve(self.desk, message.header)
        except WireError:
            pass  # dropped, as every owner of sockets does

    def _serve(self, desk: Desk, request: m.Talk) -> None:
        """What a hub does."""
        self.requests += 1
        if isinstance(request, m.Hello):
            welcome = msgspec.structs.replace(desk.welcome(request), epoch=self.epoch)
            self._send("reply", encode(welcome))
        elif isinstance(request, m.Probe):
            self._send("pub", encode(m.Echo(nonce=request.nonce, epoch=self.epoch), stream="res"))
        elif (publisher := desk.find(request.session)) is None:
            self._send("reply", encode(m.Refusal(request_id=request.request_id, reason="no such session")))
        else:
            for out in publisher.on_request(b"f", request):
                self._send("pub" if out.peer is None else "reply", out.frames)

    def _take_effects(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Ask):
                self._send("request", encode(effect.header))
            else:
                assert not isinstance(effect, Refused), effect
                self.effects.append(effect)
                if isinstance(effect, Deliver) and self.take == "attach":
                    self._acknowledge(effect.message.header.session)

    def _acknowledge(self, session: str) -> None:
        ack = self.follower.acknowledged(session)
        if ack is not None:
            self._send("request", encode(msgspec.structs.replace(ack, sent_ns=0)))
