"""Follower and publisher against talk that is whole and absurd: no error but `WireError`, no memory without bound."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lossy_link import Faults, World, ids

import hostile
from hostile import ANNOUNCED, REPLIES, REQUESTS, Case
from hostile_making import sent
from hostile_strategies import mutated, structured
from livestem.domain.errors import WireError
from livestem.domain.limits import Limits
from livestem.protocol.epochs import ENDED
from livestem.protocol.follower import Ask, Follower, Take
from livestem.protocol.gaps import MOST_RANGES
from livestem.protocol.publisher import Publisher
from livestem.protocol.track import SPOILT, TRIES
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

TAKES: tuple[Take, ...] = ("attach", "snapshot", "new")
MOST = 2**63 - 1


def following(take: Take = "attach", *, limits: Limits | None = None, session: str = "s") -> Follower:
    """Return a follower that follows epoch 1 of a session, nothing of which has been published."""
    role = "service" if take == "attach" else "observer"
    follower = Follower(role=role, take=take, ids=ids("f"), limits=limits or Limits())
    greet(follower, 0.0, session)
    assert follower.epoch(session) == 1
    return follower


def greet(follower: Follower, now: float, *sessions: str) -> None:
    """Answer whatever the follower asks, until it follows these sessions; the publisher has nothing to show."""
    effects = follower.tick(now)
    for _ in range(8):
        asked = [e.header for e in effects if isinstance(e, Ask)]
        effects = [effect for ask in asked for effect in answer(follower, ask, now, sessions)]
        if not effects:
            return


def answer(follower: Follower, ask: m.Talk, now: float, sessions: tuple[str, ...]) -> list[Any]:
    about = {"request_id": ask.request_id, "session": ask.session, "epoch": 1}
    if isinstance(ask, m.Hello):
        streams = [hostile.stream(s) for s in sessions]
        return follower.replied(said("welcome", version=1, streams=streams, **about), now)
    if isinstance(ask, m.Probe):
        return follower.published(said("echo", nonce=ask.nonce, session="", last_seq=0, topic=b"acq..echo"), now)
    if isinstance(ask, m.Attach):
        return follower.replied(said("attached", stream=hostile.stream(ask.session), **about), now)
    if isinstance(ask, m.Snapshot):
        return follower.replied(said("snapshot_page", watermark=0, **about), now)
    return []


def said(kind: str, *, session: str = "s", **fields: Any) -> Any:
    if kind == "echo":
        fields["request_id"] = ...
    return decode(sent(session, kind, **fields))


def size(follower: Follower) -> int:
    """Return how many things a follower remembers."""
    found = len(follower._sessions) + len(follower._streams) + len(follower._requests._pending)
    for epochs in follower._sessions.values():
        found += len(epochs.later) + len(epochs.ended)
        if epochs.track is not None:
            track = epochs.track
            found += len(track._held) + len(track._spoilt) + len(track.gaps._ahead) + len(track.gaps.lost)
    return found


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize("case", REPLIES, ids=str)
def test_a_reply_is_refused_under_its_reason_or_taken_no_notice_of(case: Case, take: Take):
    follower = following(take)
    follower.published(said("heartbeat", last_seq=1), 1.0)  # one is missing
    before = size(follower)
    reasons = []
    for n in range(TRIES - 1):
        try:
            follower.replied(decode(case.make("s")), 2.0 + n)
        except WireError as e:
            reasons.append(e.reason)
    assert reasons == ([case.reason] * (TRIES - 1) if case.reason else [])
    assert size(follower) <= before + 2


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize("case", ANNOUNCED, ids=str)
def test_what_is_announced_costs_nothing_and_the_session_is_followed(case: Case, take: Take):
    follower = following(take)
    before = size(follower)
    for n in range(100):
        follower.published(decode(case.make("s")), 1.0 + n)
        follower.tick(1.0 + n)
    assert size(follower) <= before + 2
    greet(follower, 200.0, "s")
    assert follower.state == "following"
    (delivered,) = [e for e in follower.published(decode(sent("s", seq=1)), 201.0) if not isinstance(e, Ask)]
    assert delivered.message.header.seq == 1


@pytest.mark.parametrize("take", TAKES)
def test_sessions_without_end_are_let_go_one_by_one(take: Take):
    limits = Limits(sessions=8)
    follower = following(take, limits=limits)
    for n in range(200):
        follower.published(decode(sent(f"invented{n}", "heartbeat", last_seq=n)), 10.0 * n)
        greet(follower, 10.0 * n + 1, "s", f"invented{n}")
    assert len(follower._sessions) <= 8 and size(follower) < 100


@pytest.mark.parametrize("take", TAKES)
def test_a_welcome_with_a_thousand_streams_is_taken_as_far_as_sessions_may_be(take: Take):
    follower = Follower(role="observer", take=take, ids=ids("f"), limits=Limits(sessions=8))
    greet(follower, 0.0, *(f"s{n}" for n in range(1000)))
    assert set(follower._sessions) <= {f"s{n}" for n in range(992, 1000)}


@pytest.mark.parametrize("take", TAKES)
def test_an_epoch_on_each_message(take: Take):
    follower = following(take)
    for n in range(1000):
        follower.published(decode(sent("s", epoch=n, seq=1)), n / 10)
        for ask in follower.tick(n / 10):
            assert isinstance(ask, Ask)
            if isinstance(ask.header, m.Hello):
                about = {"request_id": ask.header.request_id, "epoch": n}
                streams = [hostile.stream("s", epoch=n)]
                follower.replied(said("welcome", version=1, streams=streams, **about), n / 10)
    assert size(follower) <= ENDED + 20


def test_attached_to_another_session_than_asked_is_not_attached():
    follower = Follower(role="service", take="attach", ids=ids("f"))
    greeting = follower.tick(0.0)
    (hello,) = [e.header for e in greeting if isinstance(e, Ask)]
    (probe,) = [e.header for e in answer(follower, hello, 0.0, ("s",)) if isinstance(e, Ask)]
    (attach,) = [e.header for e in answer(follower, probe, 0.0, ("s",)) if isinstance(e, Ask)]
    other = said("attached", stream=hostile.stream("other"), request_id=attach.request_id)
    assert follower.replied(other, 0.1) == []
    assert follower.epoch("other") is None


def test_a_snapshot_that_goes_round_in_circles_is_ended():
    follower = Follower(role="observer", take="snapshot", ids=ids("f"))
    effects = follower.tick(0.0)
    pages = 0
    while pages < 10:
        asked = [e.header for e in effects if isinstance(e, Ask)]
        snapshots = [a for a in asked if isinstance(a, m.Snapshot)]
        if not snapshots:
            effects = [f for a in asked for f in answer(follower, a, 0.0, ("s",))]
            continue
        pages += 1
        inner = hostile.nested(sent("s", seq=1))
        page = decode(hostile.page("s", inner, watermark=9, cursor=1, request_id=snapshots[0].request_id))
        if pages == 2:
            with pytest.raises(WireError, match="leads back"):
                follower.replied(page, 0.0)
            return
        effects = follower.replied(page, 0.0)
    raise AssertionError("it was asked for again and again")


def test_gaps_without_end_are_ranges_up_to_a_number_and_then_asked_for_again():
    follower = following()
    tracker = follower.gaps("s")
    assert tracker is not None
    for seq in range(2, 2 * MOST_RANGES + 200, 2):
        follower.published(decode(sent("s", "scan_end", seq=seq)), 1.0) if seq < 50 else tracker.received(seq, 1.0)
    assert len(tracker._ahead) == MOST_RANGES
    for seq in range(1, 2 * MOST_RANGES + 200):  # all is sent again, and all of it arrives, once
        tracker.received(seq, 2.0)
    assert tracker.complete


def test_spoilt_replies_without_end_are_counted_up_to_a_number():
    follower = following()
    follower.published(said("heartbeat", last_seq=MOST), 1.0)
    for seq in range(1, SPOILT + 500):
        with pytest.raises(WireError):
            follower.replied(decode(hostile.resent("s", b"\xc0", seq=seq)), 2.0)
    assert size(follower) < SPOILT + 10


# --- the publisher ----------------------------------------------------------------------------------------------------


def publisher(limits: Limits | None = None, messages: int = 3) -> Publisher:
    found = Publisher("s", "acq", 1, lambda: 0, limits=limits or Limits())
    for n in range(messages):
        found.publish(m.HaadfRows(scan_id="a", frame=n, y=0, x=0), (np.zeros((1, 4), "<u2"),))
    return found


@pytest.mark.parametrize("case", REQUESTS, ids=str)
def test_a_request_is_answered_with_few_words_or_none(case: Case):
    answering = publisher()
    request = decode(case.make("s")).header
    assert isinstance(request, m.Talk)
    for out in itertools.islice(answering.on_request(b"peer", request), 10):
        decode(out.frames)
    assert sum(1 for _ in answering.on_request(b"peer", request)) <= 4
    assert answering.buffer.last_seq == 3 and answering.buffer.acknowledged <= 3


def test_so_many_services_may_attach_and_no_more():
    answering = publisher(Limits(services=2))
    said = [next(iter(answering.on_request(bytes([n]), m.Attach(request_id="r", session="s")))) for n in (1, 2, 3, 1)]
    kinds = [type(decode(out.frames).header) for out in said]
    assert kinds == [m.Attached, m.Attached, m.Refusal, m.Attached]
    list(answering.on_request(b"\x03", m.Ack(request_id="r", session="s", epoch=1, seq=1)))
    assert set(answering.services) == {b"\x01", b"\x02"}
    answering.forget(b"\x01")
    list(answering.on_request(b"\x03", m.Ack(request_id="r", session="s", epoch=1, seq=3)))
    assert set(answering.services) == {b"\x02", b"\x03"} and answering.buffer.acknowledged == 0


# --- both, and chance -------------------------------------------------------------------------------------------------


_ANYTHING = (
    st.sampled_from([*REPLIES, *ANNOUNCED, *REQUESTS]).map(lambda case: case.make("s1")) | structured() | mutated()
)


@settings(max_examples=60, deadline=None)
@given(said=st.lists(st.tuples(st.sampled_from(["pub", "reply", "request"]), _ANYTHING), min_size=1, max_size=8))
def test_a_stream_goes_on_whatever_else_is_said(said: list[tuple[str, list[bytes]]]):
    """A publisher and its follower, and somebody who speaks on every channel in the name of both."""
    world = World(1, Faults(), take="snapshot")
    world.start(5)
    world.run(1.0)
    for channel, frames in said:
        world._send(channel, in_its_name(frames))
        world.publish()
        world.run(1.0)
    world.run(15.0)
    assert world.publisher is not None and world.publisher.buffer.last_seq == len(said)
    assert world.follower.state == "following" and size(world.follower) < 100
    numbers = [h.seq for h in world.heard(5)]  # a forged one may be among them: only keys tell who wrote it
    assert len(numbers) == len(set(numbers))


def in_its_name(frames: list[bytes]) -> list[bytes]:
    """Return a message as one of the publisher's session and epoch, if it can be read at all."""
    try:
        message = decode(frames)
    except WireError:
        return frames
    header = msgspec.structs.replace(message.header, session="s1", epoch=5)
    return encode(header, message.arrays, stream=frames[0].split(b".")[0].decode())
