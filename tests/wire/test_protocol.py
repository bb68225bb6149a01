"""Tables of (state, event, effects): gap tracker, resend buffer, publisher, follower."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lossy_link import ids, numbered

from livestem.domain.errors import WireError
from livestem.domain.limits import Limits
from livestem.protocol.follower import Ask, Deliver, Follower, Lost, Refused, Tracking
from livestem.protocol.gaps import GapTracker
from livestem.protocol.publisher import Out, Publisher
from livestem.protocol.resend import ResendBuffer
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, encode, nest, unnest

# --- gap tracker --------------------------------------------------------------------------------------------


def test_a_gap_is_asked_for_after_patience_and_again_after_a_while():
    gaps = GapTracker(patience_s=0.02, retry_s=0.5)
    assert gaps.received(1, 0.0) and gaps.received(5, 0.0)
    assert gaps.wanted(0.01) is None, "a resend may already be under way"
    assert gaps.wanted(0.02) == (2, 4)
    assert gaps.wanted(0.3) is None
    assert gaps.wanted(0.52) == (2, 4)
    assert gaps.missing == [(2, 4)]


def test_gaps_are_asked_for_oldest_first_one_at_a_time():
    gaps = GapTracker()
    for seq in (3, 6):
        gaps.received(seq, 0.0)
    gaps.announced(8, 0.0)
    assert gaps.missing == [(1, 2), (4, 5), (7, 8)]
    asked = []
    now = 1.0
    while (wanted := gaps.wanted(now)) is not None:
        asked.append(wanted)
        for seq in range(wanted[0], wanted[1] + 1):
            assert gaps.received(seq, now)
        gaps.answered(now)
    assert asked == [(1, 2), (4, 5), (7, 8)] and gaps.complete


def test_an_answer_that_goes_on_puts_the_next_request_off():
    gaps = GapTracker(retry_s=0.5)
    gaps.announced(9, 0.0)
    assert gaps.wanted(1.0) == (1, 9)
    gaps.received(1, 1.4)
    gaps.answered(1.4, more=True)
    assert gaps.wanted(1.6) is None
    assert gaps.wanted(1.9) == (2, 9)


def test_a_duplicate_is_none():
    gaps = GapTracker()
    assert [gaps.received(s, 0.0) for s in (1, 1, 3, 3, 2, 2, 1)] == [True, False, True, False, True, False, False]


def test_what_is_gone_is_lost_once_and_only_what_had_not_come():
    gaps = GapTracker()
    for seq in (1, 4):
        gaps.received(seq, 0.0)
    gaps.announced(6, 0.0)
    assert gaps.gone(1, 5) == [(2, 3), (5, 5)]
    assert gaps.gone(1, 5) == [] and gaps.lost == [(2, 3), (5, 5)]
    assert gaps.contiguous == 5 and not gaps.received(3, 0.0)


def test_what_is_not_announced_cannot_be_gone():
    gaps = GapTracker()
    gaps.announced(3, 0.0)
    assert gaps.gone(2, 100) == [(2, 3)]
    assert gaps.received(4, 0.0)


def test_absurd_numbers_cost_nothing():
    gaps = GapTracker()
    assert gaps.received(2**63 - 1, 0.0)
    assert gaps.wanted(1.0) == (1, 2**63 - 2)
    assert gaps.gone(5, 2**62) == [(5, 2**62)]
    assert gaps.gone(1, 2**63 - 2) == [(1, 4), (2**62 + 1, 2**63 - 2)]
    assert gaps.contiguous == 2**63 - 1


ranges = st.tuples(st.integers(1, 30), st.integers(0, 5)).map(lambda r: (r[0], r[0] + r[1]))
happenings = st.lists(st.tuples(st.sampled_from(["received", "gone", "announced"]), ranges), max_size=40)


@settings(max_examples=400, deadline=None)
@given(first=st.integers(1, 4), events=happenings)
def test_the_tracker_is_a_set_of_numbers(first: int, events: list[tuple[str, tuple[int, int]]]):
    """Against the plainest model there is."""
    gaps, here, known, lost = GapTracker(first), set(range(1, first)), first - 1, set()
    for kind, (a, b) in events:
        if kind == "received":
            assert gaps.received(a, 0.0) == (a not in here)
            here.add(a)
            known = max(known, a)
        elif kind == "announced":
            gaps.announced(b, 0.0)
            known = max(known, b)
        else:
            new = set(range(a, min(b, known) + 1)) - here
            told = [s for r in gaps.gone(a, b) for s in range(r[0], r[1] + 1)]
            assert told == sorted(new)
            here |= new
            lost |= new
        missing = sorted(set(range(1, known + 1)) - here)
        assert [s for r in gaps.missing for s in range(r[0], r[1] + 1)] == missing
        assert gaps.contiguous == (missing[0] - 1 if missing else known)
        assert gaps.complete == (not missing)
        wanted = GapTracker.wanted(gaps, 100.0)
        gaps.answered(0.0)
        assert (wanted is None) == (not missing)
        assert wanted is None or set(range(wanted[0], wanted[1] + 1)) <= set(missing)
    assert {s for r in gaps.lost for s in range(r[0], r[1] + 1)} == lost


# --- resend buffer ------------------------------------------------------------------------------------------


def test_the_buffer_keeps_what_there_is_room_for():
    buffer = ResendBuffer(max_bytes=30)
    for seq in range(1, 6):
        buffer.add(seq, [b"x" * 10])
    assert (buffer.first_seq, buffer.last_seq) == (3, 5)
    assert [(s, f is not None) for s, f in buffer.range(1, 99)] == [
        (1, False), (2, False), (3, True), (4, True), (5, True),
    ]  # fmt: skip
    assert buffer.forgotten_unacknowledged == 2 and buffer.unacknowledged_bytes == 30


def test_a_message_larger_than_the_buffer_is_kept_alone():
    buffer = ResendBuffer(max_bytes=5)
    buffer.add(1, [b"x" * 10])
    buffer.add(2, [b"x" * 20])
    assert (buffer.first_seq, buffer.unacknowledged_bytes) == (2, 20)


def test_acknowledged_messages_are_no_loss():
    buffer = ResendBuffer(max_bytes=30)
    for seq in range(1, 4):
        buffer.add(seq, [b"x" * 10])
    buffer.acknowledge(2)
    assert (buffer.acknowledged, buffer.unacknowledged_bytes) == (2, 10)
    buffer.add(4, [b"x" * 10])
    assert buffer.forgotten_unacknowledged == 0 and buffer.first_seq == 2
    for late in (1, 0, 2):
        buffer.acknowledge(late)
    assert (buffer.acknowledged, buffer.unacknowledged_bytes) == (2, 20)
    buffer.acknowledge(1000)
    assert (buffer.acknowledged, buffer.unacknowledged_bytes) == (4, 0)


def test_numbers_rise_by_one():
    buffer = ResendBuffer(100)
    with pytest.raises(ValueError, match="seq 2 after 0"):
        buffer.add(2, [b""])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 40), st.tuples(st.integers(0, 30))), max_size=60), st.integers(1, 100))
def test_the_buffers_bytes_are_the_sum_of_what_it_keeps(steps: list[Any], room: int):
    buffer, acked = ResendBuffer(room), 0
    for step in steps:
        if isinstance(step, tuple):
            buffer.acknowledge(step[0])
            acked = max(acked, min(step[0], buffer.last_seq))
        else:
            buffer.add(buffer.last_seq + 1, [b"x" * step])
        kept = {s: sum(map(len, f)) for s, f in buffer.range(1, buffer.last_seq) if f is not None}
        assert sum(kept.values()) <= room or len(kept) == 1
        assert buffer.unacknowledged_bytes == sum(n for s, n in kept.items() if s > acked)
        assert sorted(kept) == list(range(buffer.first_seq, buffer.last_seq + 1))


# --- publisher ----------------------------------------------------------------------------------------------


def publisher(epoch: int = 7, **kwargs: Any) -> Publisher:
    return Publisher("s1", "res", epoch, lambda: 123, **kwargs)


def headers(outs: Any) -> list[m.Header]:
    return [decode(out.frames).header for out in outs]


def filled(n: int, **kwargs: Any) -> Publisher:
    found = publisher(**kwargs)
    for seq in range(1, n + 1):
        found.publish(numbered(7, seq))
    return found


def resend(first: int, last: int, epoch: int = 7) -> m.Resend:
    return m.Resend(request_id="r", session="s1", epoch=epoch, first=first, last=last)


def test_reliable_messages_are_numbered_and_the_others_say_how_far():
    found = publisher()
    sent = [decode(found.publish(h)).header for h in (m.Heartbeat(), numbered(7, 1), m.Heartbeat(), numbered(7, 2))]
    assert [getattr(h, "seq", None) for h in sent] == [None, 1, None, 2]
    assert [getattr(h, "last_seq", None) for h in sent] == [0, None, 1, None]
    assert {(h.session, h.epoch, h.sent_ns) for h in sent} == {("s1", 7, 123)}


def test_what_is_asked_for_comes_as_it_was_sent():
    found = filled(4)
    outs = list(found.on_request(b"p", resend(2, 3)))
    assert [o.peer for o in outs] == [b"p", b"p"]
    answers = [decode(o.frames) for o in outs]
    assert [(a.header.seq, a.header.more) for a in answers] == [(2, True), (3, False)]  # type: ignore[attr-defined]
    kept = dict(found.buffer.range(1, 4))
    assert [unnest(a.arrays[0]) for a in answers] == [kept[2], kept[3]]


@pytest.mark.parametrize(
    ("first", "last", "epoch", "answer"),
    [
        (1, 9, 7, [("gone", 1, 7), ("resent", 8), ("resent", 9)]),
        (8, 8, 7, [("resent", 8)]),
        (1, 3, 7, [("gone", 1, 3)]),
        (0, 0, 7, [("gone", 0, 0)]),
        (0, 8, 7, [("gone", 1, 7), ("resent", 8)]),
        (10, 2**62, 7, [("resent", 10)]),
        (11, 2**62, 7, [("gone", 11, 2**62)]),
        (8, 9, 6, [("gone", 8, 9)]),
    ],
)
def test_what_has_been_let_go_is_said(first: int, last: int, epoch: int, answer: list[Any]):
    size = sum(map(len, publisher().publish(numbered(7, 1))))
    found = filled(10, limits=Limits(resend_bytes=3 * size + size // 2))
    assert found.buffer.first_seq == 8
    answers = headers(found.on_request(b"p", resend(first, last, epoch)))
    got = [("gone", h.first, h.last) if isinstance(h, m.Gone) else ("resent", h.seq) for h in answers]  # type: ignore
    assert got == answer
    assert [h.more for h in answers] == [True] * (len(answers) - 1) + [False]  # type: ignore[attr-defined]
    assert {h.epoch for h in answers} == {epoch}, "numbers mean nothing in another epoch"


def test_a_burst_has_an_end():
    found = filled(1200)
    for first, most in ((1, 500), (501, 500), (1001, 200)):
        answers = headers(found.on_request(b"p", resend(first, 1200)))
        assert [h.seq for h in answers] == list(range(first, first + most))  # type: ignore[attr-defined]
        assert [h.more for h in answers] == [True] * (most - 1) + [False]  # type: ignore[attr-defined]


def test_a_burst_of_large_messages_is_shorter():
    size = sum(map(len, publisher().publish(numbered(7, 1))))
    found = filled(10, limits=Limits(snapshot_page_bytes=3 * size))
    assert len(headers(found.on_request(b"p", resend(1, 10)))) == 3


def test_the_store_serves_what_the_buffer_lets_go_even_meanwhile():
    store: dict[int, Any] = {}
    found = filled(
        10,
        limits=Limits(resend_bytes=1000),
        keep=lambda kept: store.update((n.header.seq, n.frames) for n in kept),  # type: ignore[attr-defined]
        older=lambda epoch, a, b: [(s, store[s]) for s in range(a, b + 1) if s in store],
    )
    assert found.state.first_seq == 1 and found.buffer.first_seq > 1
    answers = found.on_request(b"p", resend(1, 10))
    got = [next(answers)]
    for seq in range(11, 60):
        found.publish(numbered(7, seq))  # pushes out what was still in the buffer
    got += list(answers)
    assert [h.seq for h in headers(got)] == list(range(1, 11))  # type: ignore[attr-defined]


def test_what_could_not_be_stored_is_not_numbered():
    def keep(messages: Any) -> None:
        if not broken:
            return
        raise WireError("limit", "disk full")

    broken: list[int] = [1]
    found = publisher(keep=keep)
    with pytest.raises(WireError):
        found.publish(numbered(7, 1))
    broken.clear()
    assert decode(found.publish(numbered(7, 1))).header.seq == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_what_no_receiver_would_take_is_refused_and_not_numbered(codec: str):
    limits = Limits(message_bytes=100_000)
    found = Publisher("s1", "acq", 7, lambda: 0, limits=limits)
    tile = m.HaadfRows(scan_id="a", frame=0, y=0, x=0)
    with pytest.raises(WireError, match="smaller parts"):
        found.publish(tile, (np.zeros((1, 99_000), "u1"),), codec=codec)
    with pytest.raises(WireError, match="not finite"):
        found.publish(m.Suggestion(scan_id="a", origin_nm=(math.nan, 0.0), size_nm=(1.0, 1.0), reason=""))
    assert found.buffer.last_seq == 0
    largest = found.publish(tile, (np.zeros((1, 95_000), "u1"),))
    decode(largest, limits)
    (again,) = found.on_request(b"p", resend(1, 1))
    decode(unnest(decode(again.frames, limits).arrays[0]), limits)


def acknowledge(found: Publisher, peer: bytes, seq: int, epoch: int = 7) -> None:
    assert list(found.on_request(peer, m.Ack(request_id="r", session="s1", epoch=epoch, seq=seq))) == []


def test_the_slowest_service_counts_and_a_vanished_one_does_not():
    found = filled(10)
    for peer in (b"fast", b"slow"):
        (out,) = found.on_request(peer, m.Attach(request_id="r", session="s1"))
        assert isinstance(decode(out.frames).header, m.Attached)
    acknowledge(found, b"fast", 9)
    assert found.buffer.acknowledged == 0
    acknowledge(found, b"slow", 4)
    acknowledge(found, b"slow", 3)
    assert found.buffer.acknowledged == 4
    acknowledge(found, b"slow", 10, epoch=6)
    assert found.buffer.acknowledged == 4
    found.forget(b"slow")
    assert found.buffer.acknowledged == 9
    found.forget(b"nobody")


def test_a_service_that_was_forgotten_is_known_again_by_its_acknowledgement():
    found = filled(10)
    list(found.on_request(b"p", m.Attach(request_id="r", session="s1")))
    acknowledge(found, b"p", 3)
    found.forget(b"p")
    acknowledge(found, b"p", 5)
    assert found.services == {b"p": 5} and found.buffer.acknowledged == 5


def test_attaching_twice_does_no_harm():
    found = filled(10)
    for _ in range(2):
        list(found.on_request(b"p", m.Attach(request_id="r", session="s1")))
        acknowledge(found, b"p", 5)
    assert found.services == {b"p": 5}


def test_a_snapshot_is_every_message_and_then_the_newest_live_one():
    found = filled(3)
    live = m.Live(
        scan_id="a", revision=1, watermark=m.Watermark(epoch=1, seq=1), coverage=m.Coverage(), frame=0, frames=None,
        counts=None, chips_done=0, chips=1,
    )  # fmt: skip
    found.publish(live)
    newest = found.publish(msgspec.structs.replace(live, revision=2))
    cursor, seqs = None, []
    while True:
        (out,) = found.on_request(b"p", m.Snapshot(request_id="r", session="s1", cursor=cursor))
        page = decode(out.frames)
        assert isinstance(page.header, m.SnapshotPage) and page.header.watermark == 3
        if page.header.cursor is None:
            break
        cursor = page.header.cursor
        seqs.append(decode(unnest(page.arrays[0])).header.seq)  # type: ignore[attr-defined]
    assert seqs == [1, 2, 3] and unnest(page.arrays[0]) == newest


def test_of_several_scans_each_has_its_newest_live_map_as_far_as_a_message_can_carry_them():
    found = publisher()
    sent = {}
    for revision, scan in enumerate(["a", "b", "a", "c", "d", "e"]):
        live = m.Live(
            scan_id=scan, revision=revision, watermark=m.Watermark(epoch=1, seq=1), coverage=m.Coverage(), frame=0,
            frames=None, counts=None, chips_done=0, chips=1,
        )  # fmt: skip
        sent[scan] = found.publish(live)
    (out,) = found.on_request(b"p", m.Snapshot(request_id="r", session="s1"))
    assert [unnest(a) for a in decode(out.frames).arrays] == [sent[scan] for scan in "acde"], "four, the newest last"
    narrow = publisher(limits=Limits(message_bytes=10_000))
    for scan in "ab":
        narrow.publish(msgspec.structs.replace(live, scan_id=scan, classes=("x" * 50,) * 30))
    (out,) = narrow.on_request(b"p", m.Snapshot(request_id="r", session="s1"))
    (page,) = decode(out.frames, Limits(message_bytes=10_000)).arrays
    assert decode(unnest(page)).header.scan_id == "b"  # type: ignore[attr-defined]


def test_messages_that_belong_together_are_published_all_or_none():
    kept: list[Any] = []
    found = publisher(keep=kept.append, limits=Limits(message_bytes=10_000))
    large = m.Status(level="info", text="x" * 4000)
    with pytest.raises(WireError, match="smaller parts"):
        found.publish_all([(numbered(7, 1), ()), (m.Agreement(scan_id="x", agreement={"y" * 9000: {}}), ())])
    assert kept == [] and found.state.last_seq == 0
    frames = found.publish_all([(numbered(7, 1), ()), (large, ()), (numbered(7, 2), ())])
    assert [[n.header.seq for n in together] for together in kept] == [[1, 2]], "one call for all that is reliable"
    assert [getattr(decode(f).header, "seq", None) for f in frames] == [1, None, 2]


EARLIER = {5: {1: b"a", 2: b"b"}, 6: {1: b"c", 4: b"d"}}  # epoch -> seq -> what was kept; 2 and 3 of epoch 6 are gone


@pytest.mark.parametrize(
    ("first", "last", "epoch", "answer"),
    [
        (1, 2, 5, [("resent", 1), ("resent", 2)]),
        (1, 9, 5, [("resent", 1), ("resent", 2), ("gone", 3, 9)]),
        (1, 4, 6, [("resent", 1), ("gone", 2, 3), ("resent", 4)]),
        (5, 2**62, 6, [("gone", 5, 2**62)]),
        (1, 2, 4, [("gone", 1, 2)]),
    ],
)
def test_earlier_epochs_are_listed_and_served_from_the_store(first: int, last: int, epoch: int, answer: list[Any]):
    earlier = [m.Stream(session="s1", epoch=e, first_seq=1, last_seq=max(kept)) for e, kept in EARLIER.items()]
    found = publisher(
        earlier=earlier,
        older=lambda e, a, b: [(s, [f]) for s, f in EARLIER.get(e, {}).items() if a <= s <= b],
    )
    assert found.streams == (*earlier, found.state)
    answers = headers(found.on_request(b"p", resend(first, last, epoch)))
    got = [("gone", h.first, h.last) if isinstance(h, m.Gone) else ("resent", h.seq) for h in answers]  # type: ignore
    assert got == answer
    assert [h.more for h in answers] == [True] * (len(answers) - 1) + [False]  # type: ignore[attr-defined]
    assert {h.epoch for h in answers} == {epoch}


def test_a_session_that_was_let_go_and_comes_back_is_carried_on():
    """In the same start, so in the same epoch: what was published before is in the store alone."""
    store: dict[int, Any] = {}
    stored = {
        "keep": lambda kept: store.update((n.header.seq, n.frames) for n in kept),
        "older": lambda epoch, a, b: [(s, store[s]) for s in range(a, b + 1)],
    }
    filled(3, **stored)
    again = publisher(earlier=[m.Stream(session="s1", epoch=7, first_seq=1, last_seq=3)], **stored)
    assert again.streams == (again.state,) and (again.state.first_seq, again.state.last_seq) == (1, 3)
    again.publish(numbered(7, 4))
    assert [h.seq for h in headers(again.on_request(b"p", resend(1, 4)))] == [1, 2, 3, 4]  # type: ignore[attr-defined]
    assert again.buffer.first_seq == 4 and sorted(store) == [1, 2, 3, 4]


def test_a_nonce_is_published():
    (echo,) = publisher().on_request(b"p", m.Probe(request_id="r", nonce="n"))
    assert echo.peer is None and decode(echo.frames).header.nonce == "n"  # type: ignore[attr-defined]


# --- follower -----------------------------------------------------------------------------------------------


class Bench:
    """A follower and a publisher, hand in hand; the test says what arrives."""

    def __init__(self, take: Any = "snapshot", n: int = 0, **kwargs: Any) -> None:
        self.follower = Follower(role="observer", take=take, ids=ids("f"), **kwargs)
        self.publisher = filled(n)
        self.now = 0.0

    def asks(self, effects: Any = None) -> list[m.Talk]:
        found = self.follower.tick(self.now) if effects is None else effects
        return [e.header for e in found if isinstance(e, Ask)]

    def reply(self, header: m.Talk, *arrays: Any) -> list[Any]:
        return self.follower.replied(decode(encode(header, arrays)), self.now)

    def hear(self, frames: Any) -> list[Any]:
        return self.follower.published(decode(frames), self.now)

    def answer(self, request: m.Talk) -> list[Any]:
        """Let the publisher answer."""
        effects = []
        for out in self.publisher.on_request(b"p", request):
            effects += self.hear(out.frames) if out.peer is None else self._replied(out)
        return effects

    def _replied(self, out: Out) -> list[Any]:
        return self.follower.replied(decode(out.frames), self.now)

    def greet(self) -> list[Any]:
        (hello,) = self.asks()
        welcome = m.Welcome(request_id=hello.request_id, version=1, streams=(self.publisher.state,))
        (probe,) = self.asks(self.reply(welcome))
        return self.answer(probe)

    def follow(self) -> Bench:
        effects = self.greet()
        while requests := self.asks(effects):
            effects = [e for r in requests for e in self.answer(r)]
        assert self.follower.state == "following"
        return self


def test_a_subscription_is_proved_by_the_nonce_alone():
    bench = Bench()
    (hello,) = bench.asks()
    assert isinstance(hello, m.Hello) and hello.versions == (1,)
    assert bench.hear(bench.publisher.publish(numbered(7, 1))) == [], "no proof"
    welcome = m.Welcome(request_id=hello.request_id, version=1, streams=(bench.publisher.state,))
    assert bench.reply(msgspec.structs.replace(welcome, request_id="other")) == []
    assert bench.follower.state == "greeting"
    (probe,) = bench.asks(bench.reply(welcome))
    assert isinstance(probe, m.Probe) and bench.follower.state == "proving"
    assert bench.hear(encode(m.Echo(nonce="another's", epoch=7), stream="res")) == []
    assert bench.hear(bench.publisher.heartbeat()) == [] and bench.follower.state == "proving"
    (ask,) = bench.asks(bench.hear(encode(m.Echo(nonce=probe.nonce, epoch=7), stream="res")))
    assert isinstance(ask, m.Snapshot) and bench.follower.state == "following"


@pytest.mark.parametrize(("take", "request_"), [("attach", m.Attach), ("snapshot", m.Snapshot)])
def test_every_request_is_repeated_until_it_is_answered(take: str, request_: type):
    bench = Bench(take)
    seen: dict[type, list[float]] = {}
    seen_last: dict[type, m.Talk] = {}
    effects: list[Any] = []
    for step in range(500):
        bench.now = step * 0.01
        for ask in bench.asks(effects + bench.follower.tick(bench.now)):
            seen.setdefault(type(ask), []).append(round(bench.now, 2))
            seen_last[type(ask)] = ask
        effects = []
        if step == 150:
            hello = seen_last[m.Hello]
            effects = bench.reply(m.Welcome(request_id=hello.request_id, version=1, streams=(bench.publisher.state,)))
        if step == 200:
            effects = bench.hear(encode(m.Echo(nonce=bench.follower._nonce, epoch=7), stream="res"))
    assert seen[m.Hello] == [0.0, 0.5, 1.0, 1.5]
    assert np.allclose(np.diff(seen[m.Probe]), 0.05, atol=0.011) and len(seen[m.Probe]) >= 8
    assert len(seen[request_]) == 6


def test_attached_means_following_from_the_oldest_that_is_kept():
    bench = Bench("attach", n=3)
    (attach,) = bench.asks(bench.greet())
    assert bench.answer(attach) == [Tracking(bench.publisher.state)]
    bench.now = 0.1
    (ask,) = bench.asks()
    assert isinstance(ask, m.Resend) and (ask.first, ask.last) == (1, 3), "at once, not at the next heartbeat"
    delivered = bench.answer(ask)
    assert [e.message.header.seq for e in delivered] == [1, 2, 3] and all(e.repaired for e in delivered)
    ack = bench.follower.acknowledged("s1")
    assert ack is not None and (ack.seq, ack.epoch) == (3, 7)


def test_refused_greetings_are_told_and_asked_again_much_later():
    bench = Bench()
    (hello,) = bench.asks()
    refusal = m.Refusal(request_id=hello.request_id, reason="wire version 2")
    assert bench.reply(refusal) == [Refused("wire version 2")]
    bench.now = 9.0
    assert bench.asks() == []
    bench.now = 10.0
    assert [type(a) for a in bench.asks()] == [m.Hello]


def test_a_refusal_of_nothing_that_was_asked_is_nothing():
    bench = Bench().follow()
    assert bench.reply(m.Refusal(request_id="stranger", reason="no")) == []


def test_a_refused_attach_is_told_once_and_begun_again_by_a_heartbeat():
    bench = Bench("attach")
    (attach,) = bench.asks(bench.greet())
    assert bench.reply(m.Refusal(request_id=attach.request_id, session="s1", reason="no")) == [Refused("no")]
    bench.now = 5.0
    assert bench.asks() == []
    assert [type(a) for a in bench.asks(bench.hear(bench.publisher.heartbeat()))] == [m.Hello]


def test_a_session_that_ends_between_welcome_and_snapshot_is_no_error():
    bench = Bench()
    (ask,) = bench.asks(bench.greet())
    assert bench.reply(m.Refusal(request_id=ask.request_id, reason="no session 's1' here")) == []
    bench.now = 3.0
    assert bench.asks() == []


def missing_one(**kwargs: Any) -> tuple[Bench, m.Resend]:
    """Return a bench at which message 2 of 3 is missing, and the request for it."""
    bench = Bench(**kwargs).follow()
    frames = [bench.publisher.publish(numbered(7, s)) for s in (1, 2, 3)]
    bench.hear(frames[0])
    bench.hear(frames[2])
    bench.now += 1.0
    (ask,) = bench.asks()
    assert isinstance(ask, m.Resend)
    return bench, ask


def test_a_refused_resend_is_a_loss_and_releases_what_waited():
    bench, ask = missing_one(ordered=True)
    effects = bench.reply(m.Refusal(request_id=ask.request_id, reason="no session 's1' here"))
    assert effects[0] == Lost("s1", 2, 2)
    assert [e.message.header.seq for e in effects[1:]] == [3]


def test_gone_is_lost_once_however_often_it_is_said():
    bench, ask = missing_one(ordered=True)
    gone = m.Gone(request_id=ask.request_id, session="s1", epoch=7, first=1, last=3)
    effects = bench.reply(gone)
    assert effects[0] == Lost("s1", 2, 2) and len(effects) == 2
    assert bench.reply(gone) == []


def test_gone_of_another_epoch_says_nothing():
    bench, ask = missing_one(ordered=True)
    assert bench.reply(m.Gone(request_id=ask.request_id, session="s1", epoch=6, first=1, last=3)) == []
    assert [e.message.header.seq for e in bench.answer(ask)] == [2, 3]


def test_a_message_that_never_can_be_read_is_given_up_at_the_third_time():
    bench, ask = missing_one(ordered=True)
    bad = np.frombuffer(b"\x91\xc4\x01a", np.uint8)
    resent = m.Resent(request_id=ask.request_id, session="s1", epoch=7, seq=2, more=False)
    for _ in range(2):
        with pytest.raises(WireError):
            bench.reply(resent, bad)
    effects = bench.reply(resent, bad)
    assert effects[0] == Lost("s1", 2, 2) and effects[1].message.header.seq == 3


def test_a_resent_message_must_be_the_one_it_is_said_to_be():
    bench, ask = missing_one()
    other = nest(next(f for s, f in bench.publisher.buffer.range(3, 3) if f))
    with pytest.raises(WireError, match="not the one"):
        bench.reply(m.Resent(request_id=ask.request_id, session="s1", epoch=7, seq=2, more=False), other)


def test_a_page_that_cannot_be_read_does_not_end_the_snapshot():
    bench = Bench(n=3)
    effects = bench.greet()
    assert isinstance(effects[0], Tracking)
    (ask,) = bench.asks(effects)
    bad = np.frombuffer(b"\x91\xc4\x01a", np.uint8)
    page = m.SnapshotPage(request_id=ask.request_id, session="s1", epoch=7, watermark=3, cursor=1)
    effects = bench.reply(page, bad)
    assert effects[0] == Lost("s1", 1, 1)
    got = []
    while requests := bench.asks(effects):
        effects = bench.answer(requests[0])
        got += [e.message.header.seq for e in effects if isinstance(e, Deliver)]
    assert got == [2, 3]


def test_an_answer_to_a_question_asked_twice_is_taken_once():
    bench = Bench(n=1)
    (ask,) = bench.asks(bench.greet())
    assert len([e for e in bench.answer(ask) if isinstance(e, Deliver)]) == 1
    assert bench.answer(ask) == []


def test_live_messages_come_as_they_come_and_echoes_do_not():
    bench = Bench().follow()
    status = bench.publisher.publish(m.Status(level="info", text="hello"))
    (effect,) = bench.hear(status)
    assert isinstance(effect, Deliver) and isinstance(effect.message, Message)
    (echo,) = bench.publisher.on_request(b"q", m.Probe(request_id="r", nonce="another's"))
    assert bench.hear(echo.frames) == []


def test_a_late_word_of_another_epoch_proves_nothing_but_makes_us_ask():
    bench = Bench().follow()
    other = Publisher("s1", "res", 6, lambda: 0)
    (hello,) = bench.asks(bench.hear(other.publish(numbered(6, 1))))
    assert isinstance(hello, m.Hello)
    (effect,) = bench.hear(bench.publisher.publish(numbered(7, 1)))
    assert isinstance(effect, Deliver), "what is followed goes on meanwhile"
    welcome = m.Welcome(request_id=hello.request_id, version=1, streams=(bench.publisher.state,))
    (probe,) = bench.asks(bench.reply(welcome))
    assert bench.answer(probe) == [], "nothing new"
    assert bench.follower.state == "following"


def restarted(bench: Bench, epoch: int) -> list[Any]:
    """Let the publisher start again, and be greeted; return what follows from it."""
    bench.publisher = Publisher("s1", "res", epoch, lambda: 0)
    (hello,) = bench.asks(bench.hear(bench.publisher.heartbeat()))
    assert isinstance(hello, m.Hello)
    welcome = m.Welcome(request_id=hello.request_id, version=1, streams=(bench.publisher.state,))
    (probe,) = (a for a in bench.asks(bench.reply(welcome)) if isinstance(a, m.Probe))
    return bench.answer(probe)


def test_what_an_ended_epoch_owed_is_lost_and_what_waited_for_it_is_delivered():
    bench, _ = missing_one(ordered=True)
    before = bench.publisher
    effects = restarted(bench, 8)
    assert effects[0] == Lost("s1", 2, 2)
    assert isinstance(effects[1], Deliver) and effects[1].message.header.seq == 3  # type: ignore[attr-defined]
    assert effects[2] == Tracking(bench.publisher.state)
    assert [type(a) for a in bench.asks(effects[3:])] == [m.Snapshot]
    assert bench.hear(before.publish(numbered(7, 4))) == [], "it has ended"
    assert bench.follower.state == "following", "and makes nobody ask"


def test_the_answer_of_an_ended_epoch_does_not_touch_the_next():
    bench, ask = missing_one(ordered=True)
    for page in bench.asks(restarted(bench, 8)):
        bench.answer(page)
    (gone,) = bench.publisher.on_request(b"p", ask)
    assert bench.follower.replied(decode(gone.frames), bench.now) == []
    bench.publisher.publish(numbered(8, 1))
    (effect,) = (e for e in bench.hear(bench.publisher.publish(numbered(8, 2))) or [None])
    assert effect is None
    bench.now += 1.0
    (again,) = bench.asks()
    assert [e.message.header.seq for e in bench.answer(again)] == [1, 2]


def test_a_snapshot_says_what_it_skips():
    size = sum(map(len, publisher().publish(numbered(7, 1))))
    bench = Bench()
    bench.publisher = filled(10, limits=Limits(resend_bytes=3 * size + size // 2))
    effects, everything = bench.greet(), []
    while requests := bench.asks(effects):
        effects = bench.answer(requests[0])
        everything += effects
    assert everything[0] == Lost("s1", 1, 7)
    assert [e.message.header.seq for e in everything if isinstance(e, Deliver)] == [8, 9, 10]


def test_a_snapshot_begins_again_if_the_publisher_does():
    bench = Bench(n=3)
    (ask,) = bench.asks(bench.greet())
    (ask,) = bench.asks(bench.answer(ask))
    assert isinstance(ask, m.Snapshot) and (ask.cursor, ask.epoch) == (1, 7)
    bench.publisher = filled(0, epoch=8)
    for seq in (1, 2):
        bench.publisher.publish(numbered(8, seq))
    (hello,) = bench.asks(bench.answer(ask))
    welcome = m.Welcome(request_id=hello.request_id, epoch=8, version=1, streams=bench.publisher.streams)
    (probe,) = bench.asks(bench.reply(welcome))
    effects = bench.answer(probe)
    assert effects[0] == Lost("s1", 2, 3), "the publisher has no store"
    got = []
    while requests := bench.asks(effects):
        effects = bench.answer(requests[0])
        got += [e.message.header.seq for e in effects if isinstance(e, Deliver)]
    assert got == [1, 2]
