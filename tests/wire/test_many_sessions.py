"""More sessions than are kept at once, on either side: every message comes once all the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from lossy_link import numbered

from livestem.domain.limits import Limits
from livestem.protocol.desk import Desk
from livestem.protocol.follower import Ask, Deliver, Follower, Lost
from livestem.protocol.publisher import Publisher
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

KEPT = 3  # sessions that the follower follows at once


class House:
    """A service with a store that keeps `kept` sessions at its desk, and one follower on a link without faults."""

    def __init__(self, take: Any, kept: int) -> None:
        self.kept, self.now = kept, 0.0
        self.store: dict[str, dict[int, Any]] = {}
        self.desk = Desk("test", lambda session: self._publisher(session) if session in self.store else None)
        self.follower = Follower(role="observer", take=take, ids=map(str, range(10**9)), limits=Limits(sessions=KEPT))
        self.heard: Counter[tuple[str, int]] = Counter()
        self.lost: list[Lost] = []
        self.turn()

    def publish(self, session: str) -> None:
        """Publish one message more of a session, which is taken up again if it was let go."""
        if session not in self.desk.published:
            for oldest in list(self.desk.published)[: max(0, len(self.desk.published) + 1 - self.kept)]:
                del self.desk.published[oldest]
            self.desk.published[session] = self._publisher(session)
        found = self.desk.published[session]
        self.take(self.follower.published(decode(found.publish(numbered(1, found.state.last_seq + 1))), self.now))
        self.turn()

    def turn(self) -> None:
        """Let every publisher beat, and time pass, until all is answered."""
        for _ in range(10):
            self.now += 1.0
            for found in list(self.desk.published.values()):
                self.take(self.follower.published(decode(found.heartbeat()), self.now))
            self.take(self.follower.tick(self.now))

    def take(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver) and isinstance(effect.message.header, m.Reliable):
                self.heard[effect.message.header.session, effect.message.header.seq] += 1
            elif isinstance(effect, Lost):
                self.lost.append(effect)
            elif isinstance(effect, Ask):
                self._answer(effect.header)

    def _answer(self, asked: m.Talk) -> None:
        if isinstance(asked, m.Hello):
            self.take(self.follower.replied(decode(encode(self.desk.welcome(asked))), self.now))
        elif isinstance(asked, m.Probe):
            echo = encode(m.Echo(nonce=asked.nonce, epoch=1), stream="res")
            self.take(self.follower.published(decode(echo), self.now))
        elif (found := self.desk.find(asked.session)) is not None:
            for out in found.on_request(b"p", asked):
                self.take(self.follower.replied(decode(out.frames), self.now))

    def _publisher(self, session: str) -> Publisher:
        kept = self.store.setdefault(session, {})
        earlier = [m.Stream(session=session, epoch=1, first_seq=1, last_seq=max(kept))] if kept else []
        return Publisher(
            session,
            "res",
            1,
            lambda: 0,
            earlier=earlier,
            keep=lambda notes: kept.update((note.header.seq, note.frames) for note in notes),
            older=lambda epoch, first, last: [(seq, kept[seq]) for seq in range(first, last + 1)],
        )


@pytest.mark.parametrize("kept", [KEPT - 1, KEPT, KEPT + 1, 3 * KEPT])
@pytest.mark.parametrize("take", ["snapshot", "new"])
def test_every_message_of_every_session_comes_once(take: str, kept: int):
    house = House(take, kept)
    for n in range(4 * KEPT):
        for _ in range(3):
            house.publish(f"s{n}")
    assert house.heard == {(f"s{n}", seq): 1 for n in range(4 * KEPT) for seq in (1, 2, 3)} and house.lost == []


@pytest.mark.parametrize("kept", [KEPT - 1, KEPT, KEPT + 1, 3 * KEPT])
@pytest.mark.parametrize("take", ["snapshot", "new"])
def test_a_session_that_made_room_goes_on_where_it_was(take: str, kept: int):
    house = House(take, kept)
    for n in (*range(2 * KEPT), 0, 1, *range(2 * KEPT), 0):
        house.publish(f"s{n}")
    times = Counter((*range(2 * KEPT), 0, 1, *range(2 * KEPT), 0))
    assert house.heard == {(f"s{n}", seq): 1 for n in times for seq in range(1, times[n] + 1)} and house.lost == []
