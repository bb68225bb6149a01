"""Whatever the link does: an observer gets all once and in order; a service gets all or is told what is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lossy_link import Faults, World

from livestem.domain.limits import Limits
from livestem.protocol.follower import Deliver, Take
from livestem.wire import messages as m

MESSAGE_BYTES = 200  # of one numbered message, about

faults = st.builds(
    Faults,
    loss=st.sampled_from([0.0, 0.1, 0.4, 0.7]),
    double=st.sampled_from([0.0, 0.3]),
    spoil=st.sampled_from([0.0, 0.2]),
    delay_s=st.sampled_from([0.0, 0.05, 0.4]),
)
seeds = st.integers(0, 2**32)
counts = st.integers(0, 25)


# what one start of a service does: finals of so many scans, one more scan that is stored and not sent, silence after it
starts = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from([0.0, 0.1, 1.0])), min_size=1, max_size=4)


def publish(world: World, n: int, at_once: int = 1) -> None:
    """Publish n times so many messages at random times within about a second."""
    for _ in range(n):
        world.publish(n=at_once)
        world.run(world.rng.choice([0.0, 0.0, 0.01, 0.08]))


def stored(world: World, session: str = "s1") -> list[tuple[int, int]]:
    """Return (epoch, seq) of everything that a session's store holds, in the order in which it was kept."""
    return [(epoch, seq) for epoch, kept in world.store.get(session, {}).items() for seq in kept]


def received(world: World, session: str = "s1") -> list[tuple[int, int]]:
    """Return (epoch, seq) of the reliable messages of a session, as delivered."""
    headers = [e.message.header for e in world.effects if isinstance(e, Deliver)]
    return [(h.epoch, h.seq) for h in headers if isinstance(h, m.Reliable) and h.session == session]


@settings(max_examples=400, deadline=None)
@given(seed=seeds, faults=faults, before=counts, during=counts, late=st.booleans(), stored=st.booleans())
def test_an_observer_gets_everything_once_and_in_order(
    seed: int, faults: Faults, before: int, during: int, late: bool, stored: bool
):
    world = World(seed, faults, stored=stored)
    if not late:
        world.run(0.3)  # the follower is there before the publisher
    world.start(epoch=7)
    publish(world, before)
    world.run(0.3)
    publish(world, during)
    world.settle()
    assert world.delivered(7) == list(range(1, before + during + 1))
    assert world.lost == []


@settings(max_examples=300, deadline=None)
@given(seed=seeds, faults=faults, before=counts, during=counts, room=st.sampled_from([1, 3, 10, 1000]))
def test_a_service_gets_everything_once_or_is_told_what_is_lost(
    seed: int, faults: Faults, before: int, during: int, room: int
):
    """With room for a few messages only, the buffer lets go of what was never acknowledged."""
    limits = Limits(resend_bytes=room * MESSAGE_BYTES)
    world = World(seed, faults, take="attach", ordered=False, stored=False, limits=limits)
    world.start(epoch=7)
    publish(world, before)
    world.run(0.5)
    publish(world, during)
    world.settle()
    got, lost, everything = world.delivered(7), world.lost, set(range(1, before + during + 1))
    assert len(got) == len(set(got)) and len(lost) == len(set(lost))
    assert set(got) | set(lost) == everything and not set(got) & set(lost)
    if room == 1000:
        assert not lost
    assert world.publisher is not None
    world.run(1.0)
    last = world.follower.acknowledged("s1")
    assert last is not None and last.seq == before + during


@settings(max_examples=400, deadline=None)
@given(seed=seeds, faults=faults, first=counts, second=counts, gap_s=st.sampled_from([0.0, 0.1, 1.0]), up=st.booleans())
def test_a_publisher_that_starts_again_is_followed(
    seed: int, faults: Faults, first: int, second: int, gap_s: float, up: bool
):
    """Its clock may have been set back: an epoch is new, and that is all."""
    old, new = (7, 8) if up else (8, 7)
    world = World(seed, faults)
    world.start(old)
    world.run(0.3)
    publish(world, first)
    world.run(world.rng.choice([0.0, 0.5]))
    world.stop()
    world.run(gap_s)
    world.start(new)
    publish(world, second)
    world.settle()
    assert world.delivered(new) == list(range(1, second + 1)), "the new one: everything, once, in order"
    got = world.delivered(old)
    assert got == sorted(set(got)), "the old one: once, in order"
    known = set(got) | set(world.lost)
    assert not known or known == set(range(1, max(known) + 1)), "and no hole that was not told"


@settings(max_examples=200, deadline=None)
@given(seed=seeds, faults=faults, first=counts, second=counts)
def test_a_service_follows_a_publisher_that_starts_again(seed: int, faults: Faults, first: int, second: int):
    world = World(seed, faults, take="attach", ordered=False, stored=False)
    world.start(7)
    world.run(0.3)
    publish(world, first)
    world.stop()
    world.start(8)
    publish(world, second)
    world.settle()
    got = world.delivered(8)
    assert sorted(got) == list(range(1, second + 1)) and len(got) == len(set(got))


def live_through(world: World, session: str, plan: list[tuple[int, bool, float]], opened: st.DataObject) -> None:
    """Let a service be killed and started again and again; whether a start opens the session is drawn."""
    for n, (scans, unsent, gap_s) in enumerate(plan):
        epoch = 100 - n if n % 2 else 100 + n  # the clock may have been set back
        opens = opened.draw(st.booleans(), label="opens") or n == 0
        world.start(epoch, session if opens else "")
        world.run(world.rng.choice([0.0, 0.2, 1.0]))
        if opens:
            publish(world, scans, at_once=3)
            if unsent:
                world.publish(n=3, sent=False)
        world.stop()
        world.run(gap_s)


@settings(max_examples=300, deadline=None)
@given(seed=seeds, faults=faults, plan=starts, late=st.booleans(), small=st.booleans(), data=st.data())
def test_finals_of_every_start_come_once_and_in_order(
    seed: int, faults: Faults, plan: list[tuple[int, bool, float]], late: bool, small: bool, data: st.DataObject
):
    """Who lived through the restarts and who joins after them get the same, also what was stored and never sent."""
    limits = Limits(resend_bytes=4 * MESSAGE_BYTES) if small else Limits()
    world = World(seed, faults, limits=limits)
    if not late:
        world.run(0.3)
    live_through(world, "s1", plan, data)
    world.start(999)
    publish(world, 2)
    world.settle(60.0)
    assert received(world) == stored(world) and world.lost == []


@settings(max_examples=300, deadline=None)
@given(seed=seeds, faults=faults, plan=starts, reopened=st.booleans(), data=st.data())
def test_one_session_of_many_comes_whole_also_if_only_the_store_knows_it(
    seed: int, faults: Faults, plan: list[tuple[int, bool, float]], reopened: bool, data: st.DataObject
):
    world = World(seed, faults, session="s1")
    live_through(world, "s1", plan, data)
    world.start(998, "s2")
    publish(world, 3)
    if reopened:
        world.open("s1")
        publish(world, 2)
        world.open("s2")
    world.settle(60.0, rested=lambda: received(world) == stored(world))
    world.run(5.0)
    assert received(world) == stored(world) and world.lost == []
    assert received(world, "s2") == []


@settings(max_examples=200, deadline=None)
@given(seed=seeds, faults=faults, unsent=st.integers(0, 5), gap_s=st.sampled_from([0.0, 1.0]))
def test_a_kill_between_storing_and_sending_loses_nothing_where_nobody_opens_the_session_again(
    seed: int, faults: Faults, unsent: int, gap_s: float
):
    """No heartbeat of the session says that there is more: only the next start's answer to `hello` does."""
    world = World(seed, faults)
    world.start(7)
    publish(world, 3)
    world.settle()
    world.faults = faults
    world.publish(n=unsent, sent=False)
    world.stop()
    world.run(gap_s)
    world.start(8, session="")
    world.settle(60.0, rested=lambda: received(world) == stored(world))
    world.run(5.0)
    assert received(world) == stored(world) and world.lost == []


def test_an_unknown_session_is_waited_for():
    world = World(1, Faults(), session="tomorrow")
    world.start(7)
    publish(world, 2)
    world.run(1.0)
    assert world.follower.state == "following" and world.tracking == []
    world.open("tomorrow")
    publish(world, 2)
    world.settle()
    assert received(world, "tomorrow") == [(7, 1), (7, 2)] and received(world) == []


@settings(max_examples=150, deadline=None)
@given(seed=seeds, faults=faults, room=st.sampled_from([0, 1, 3]), silent_s=st.sampled_from([0.0, 2.0]))
def test_what_waits_behind_a_gap_is_bounded_and_still_all_comes(seed: int, faults: Faults, room: int, silent_s: float):
    """While the hub answers nothing, what is published goes on; it is let go, and asked for afterwards."""
    world = World(seed, Faults(), follower_limits=Limits(held_bytes=room * MESSAGE_BYTES))
    world.start(7)
    world.settle()
    world.faults = Faults(loss=1.0)
    world.publish()  # the gap
    world.faults = faults
    world.deaf = True
    publish(world, 20)
    world.run(silent_s)
    assert world.held <= room * MESSAGE_BYTES
    world.deaf = False
    world.settle()
    assert world.delivered(7) == list(range(1, 22)) and world.lost == [] and world.held == 0


@pytest.mark.parametrize("take", ["attach", "snapshot", "new"])
def test_a_lost_tail_is_found_by_a_heartbeat(take: Take):
    world = World(1, Faults(), take=take)
    world.start(7)
    world.run(1.0)
    assert world.rested
    world.publish()
    world.faults = Faults(loss=1.0)
    for _ in range(5):
        world.publish()
    world.faults = Faults()
    world.run(0.02)
    assert world.delivered(7) == [1], "nothing shows yet"
    world.run(0.5)
    assert world.delivered(7) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("stored", [True, False])
def test_who_joins_late_gets_everything_that_is_kept(stored: bool):
    world = World(1, Faults(), stored=stored, limits=Limits(resend_bytes=4 * MESSAGE_BYTES))
    world.start(7)
    for _ in range(20):
        world.publish()
    world.settle()
    got = world.delivered(7)
    assert got == (list(range(1, 21)) if stored else list(range(21 - len(got), 21)))
    assert len(got) >= 3


def test_a_service_that_attaches_late_is_told_what_has_been_let_go():
    world = World(1, Faults(), take="attach", stored=False, limits=Limits(resend_bytes=4 * MESSAGE_BYTES))
    world.start(7)
    for _ in range(20):
        world.publish()
    world.settle()
    got, lost = world.delivered(7), world.lost
    assert lost == list(range(1, got[0])) and got == list(range(got[0], 21))


def test_new_means_from_now_on():
    world = World(1, Faults(), take="new")
    world.start(7)
    for _ in range(5):
        world.publish()
    world.run(1.0)
    publish(world, 5)
    world.settle()
    assert world.delivered(7) == [6, 7, 8, 9, 10]


def test_a_long_gap_is_repaired_in_bursts_and_each_message_is_sent_once():
    world = World(1, Faults(), ordered=True)
    world.start(7)
    world.run(1.0)
    world.faults = Faults(loss=1.0)
    for _ in range(11_000):
        world.publish()
    world.faults = Faults()
    before = world.requests
    world.settle()
    assert world.delivered(7) == list(range(1, 11_001))
    assert world.requests - before <= 11_000 // 500 + 4, "a burst that is under way is not asked for again"


def test_messages_of_an_epoch_that_has_ended_change_nothing():
    world = World(1, Faults(delay_s=0.0))
    world.start(7)
    world.run(1.0)
    assert world.publisher is not None
    old = world.publisher
    publish(world, 3)
    world.start(8)
    publish(world, 2)
    world.settle()
    world._send("pub", old.heartbeat())
    world.run(0.1)
    publish(world, 1)
    world.settle()
    assert world.delivered(8) == [1, 2, 3] and world.delivered(7) == [1, 2, 3] and world.lost == []


def test_another_session_at_the_same_place_is_followed():
    for take in ("snapshot", "attach", "new"):
        world = World(1, Faults(), take=take)  # type: ignore[arg-type]
        world.start(7)
        world.run(1.0)
        publish(world, 3)
        world.run(0.1)
        world.start(8, session="s2")
        publish(world, 3)
        world.settle()
        assert (world.delivered(7), world.delivered(8)) == ([1, 2, 3], [1, 2, 3]), take


def test_a_gap_of_a_session_that_nobody_knows_any_more_is_lost_and_what_waited_for_it_is_not():
    world = World(1, Faults(), stored=False)
    world.start(7)
    world.run(1.0)
    world.faults = Faults(loss=1.0)
    publish(world, 2)
    world.stop()
    world.faults = Faults()
    world.start(7)
    world.stop()  # (its number of messages is not told)
    world.start(8, session="s2")
    gaps = world.follower.gaps("s1")
    assert gaps is not None
    gaps.announced(2, world.now)
    publish(world, 1)
    world.settle()
    assert world.lost == [1, 2]
    assert gaps.complete
