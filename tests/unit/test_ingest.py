"""Ingest: what is accepted, refused, journalled, and when a scan is over."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scans import FolderStore, messages, plan, tiles

from livestem.domain.errors import DiskFullError, LivestemError
from livestem.domain.limits import Limits
from livestem.domain.parameters import Processing
from livestem.domain.support import SupportClass, SupportSet
from livestem.runtime.admission import COUNTS_PER_S, journal_bytes
from livestem.runtime.decision import Decisions
from livestem.runtime.encoders import Arithmetic, Encoders
from livestem.runtime.ingest import SPARED_S, Ingest
from livestem.runtime.journal import JournalRecording
from livestem.runtime.metrics import Metrics

SUPPORT = SupportSet(classes=(SupportClass(name="a", chips=((0, 0),)), SupportClass(name="b", chips=((0, 3),))))
ASKED = Processing(elements=("Fe", "Ti"), chip_px=4, support=SUPPORT)


class Bare(Encoders):
    """Accepts every preset, without its weights."""

    def arithmetic(self, recipe):
        return Arithmetic(encoder="lattice")


class House:
    """An ingest with everything around it."""

    def __init__(self, root, limits=None, *, store=None, **changes):
        self.store, self.metrics, self.finished = store or FolderStore(root), Metrics(), []
        self.ingest = Ingest(
            self.store,
            Decisions(msgspec.structs.replace(ASKED, **changes), Bare(), root),
            limits or Limits(),
            self.metrics,
            lambda scan, status: self.finished.append((scan, status)),
        )

    def take(self, stream):
        verdicts = []
        for message in stream:
            verdicts += self.ingest.apply(message)
            self.ingest.register()
        return verdicts

    def count(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels) or 0


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def test_a_whole_scan_is_accepted_counted_journalled_and_finished_once(house):
    of = plan()
    parts = tiles(of)
    (verdict,) = house.take(messages(of, parts))
    assert verdict.accepted and verdict.facts["rows"] == 6 and verdict.facts["chip_px"] == 4
    ((scan, status),) = house.finished
    assert status == "complete" and not house.ingest.scans
    assert house.count("livestem_eds_counts_total") == sum(p.channels.size for p in parts if hasattr(p, "channels"))
    assert house.count("livestem_tiles_received_total", modality="haadf") == 6
    with JournalRecording(scan.journal.path) as recording:
        assert recording.scan_id == "scan" and recording.plan == of
        assert len(list(recording.tiles())) == len(parts)
    assert [p.name for p in scan.journal.path.parent.iterdir()] == ["journal.sqlite"], "one file, no log beside it"


def test_tiles_that_come_before_their_start_wait(house):
    start, *rest = messages(plan(), tiles(plan()))
    assert house.take(rest) == [] and not house.finished
    house.take([start])
    assert [status for _, status in house.finished] == ["complete"]


def test_the_end_waits_for_what_is_missing(house):
    stream = list(messages(plan(), tiles(plan())))
    late = stream.pop(3)
    house.take(stream)
    assert not house.finished
    house.take([late])
    assert [status for _, status in house.finished] == ["complete"]


def test_holes_are_what_has_been_passed_over(house):
    """Three tiles of eight rows a frame and modality, HAADF and EDS in turn."""
    stream = list(messages(plan(), tiles(plan())))
    late = [stream.pop(3), stream.pop(5)]
    house.take(stream[:4])
    (scan,) = house.ingest.scans.values()
    assert scan.accumulator.holes() == 0, "frame 0 is still under way"
    house.take(stream[4:8])
    assert scan.accumulator.holes() == 2
    house.take(late[:1])
    assert scan.accumulator.holes() == 1
    house.take(late[1:])
    assert scan.accumulator.holes() == 0


def test_what_is_lost_for_good_makes_the_scan_incomplete(house):
    stream = list(messages(plan(), tiles(plan())))
    end = stream[-1].header.seq
    del stream[3]
    house.take(stream)
    house.ingest.settle("s1", 7, end - 1)
    assert not house.finished
    house.ingest.settle("s1", 8, end)
    assert not house.finished, "another sender's numbers are not this one's"
    house.ingest.settle("s1", 7, end)
    ((scan, status),) = house.finished
    assert status == "incomplete" and len(scan.accumulator.missing()) == 1


def test_a_source_that_begins_again_is_asked_for_what_its_new_end_lacks(house):
    """The end of its former start stands for what nobody can be asked for any more."""
    of, parts = plan(), tiles(plan())
    first, again = (list(messages(of, parts, epoch=epoch)) for epoch in (7, 8))
    house.take([*first[:3], first[-1]])
    del again[3]
    house.take(again)
    (scan,) = house.ingest.scans.values()
    assert scan.ended_by == 8
    assert house.ingest.mending.acknowledgeable("s1", 8, again[-1].header.seq) == again[-1].header.seq - 1
    (wanted,) = house.ingest.mend("s1", 8, again[-1].header.seq)
    assert wanted.frame == 0 and len(wanted.rectangles) == 1
    house.take(first[3:4])
    assert [status for _, status in house.finished] == ["complete"]


def test_a_silent_source_does_not_keep_a_scan_open_for_ever(house):
    stream = list(messages(plan(), tiles(plan())))
    house.take(stream[:4])
    scan = next(iter(house.ingest.scans.values()))
    house.ingest.expire(scan.heard + 59, 60)
    assert not house.finished
    house.ingest.expire(scan.heard + 61, 60)
    assert [status for _, status in house.finished] == ["incomplete"]


class Sender:
    """One start of a sender: numbers what it says, whichever scan it is about."""

    def __init__(self, house, epoch):
        self.house, self.epoch, self.seq = house, epoch, 0

    def send(self, message):
        """Take a message of any stream as this sender's next."""
        self.seq += 1
        return self.again(message, self.seq)

    def again(self, message, seq):
        """Take a message under a number of its own, as a repair brings it."""
        header = msgspec.structs.replace(message.header, epoch=self.epoch, seq=seq)
        return self.house.ingest.apply(replace(message, header=header))

    def heartbeat(self):
        self.house.ingest.heard("s1", self.epoch)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.s)
    return now


def scan(name, parts=None):
    return list(messages(plan(), tiles(plan()) if parts is None else parts, scan_id=name))


def test_a_beam_that_pauses_for_minutes_keeps_its_scan(house, clock):
    sender, (start, tile, *_) = Sender(house, 1), scan("a")
    sender.send(start), sender.send(tile)
    for _ in range(300):
        clock.s += 1
        sender.heartbeat()
        house.ingest.expire(clock.s, 3)
    assert ("s1", "a") in house.ingest.scans


def test_a_scan_left_for_a_further_one_lives_on_its_own_data(house, clock):
    sender, a, b = Sender(house, 1), scan("a"), scan("b")
    sender.send(a[0]), sender.send(a[1])
    lost = sender.seq = sender.seq + 1
    for message in (b[0], a[3], b[1], a[4]):  # the latter are late: repaired under the number of then
        clock.s += 2
        if message.header.scan_id == "b":
            sender.send(message)
        else:
            sender.again(message, lost)
        sender.heartbeat()
        house.ingest.expire(clock.s, 3)
        assert not house.finished
    clock.s += 2
    sender.heartbeat()
    house.ingest.expire(clock.s + 2, 3)
    ((left, status),) = house.finished
    assert (left.scan_id, status, left.life.tiles) == ("a", "incomplete", 3)
    assert left.reason == "scan b began, and nothing more of this one came for 3 s"
    assert ("s1", "b") in house.ingest.scans


def test_a_sender_that_starts_again_takes_its_scan_up_or_loses_it(house, clock):
    first, again, a, b = Sender(house, 1), Sender(house, 2), scan("a"), scan("b")
    for message in (*a[:3], *b[:3]):
        first.send(message)
    clock.s += 2
    again.send(b[0])  # of `a` it knows nothing
    for _ in range(5):
        clock.s += 1
        again.heartbeat()
        house.ingest.expire(clock.s, 3)
    assert [(left.scan_id, status) for left, status in house.finished] == [("a", "incomplete")]
    for message in b[1:]:
        again.send(message)
    assert [(left.scan_id, status) for left, status in house.finished[1:]] == [("b", "complete")]


def test_an_ended_scan_waits_for_its_repair_while_the_next_one_runs(house, clock):
    sender, a, b = Sender(house, 1), scan("a"), scan("b")
    for message in (*a[:3], *a[4:]):
        sender.send(message)
    sender.send(b[0])
    for _ in range(20):
        clock.s += 1
        sender.heartbeat()
        house.ingest.expire(clock.s, 3)
    assert not house.finished
    sender.again(a[3], 99)
    assert [status for _, status in house.finished] == ["complete"]


STEPS = st.one_of(
    st.tuples(st.just("data"), st.sampled_from([1, 2]), st.sampled_from("abc")),
    st.tuples(st.just("heartbeat"), st.sampled_from([1, 2]), st.none()),
    st.tuples(st.just("time"), st.floats(0.5, 2.5), st.none()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=40))
def test_a_scan_is_open_for_just_as_long_as_something_counts_for_it(tmp_path, steps):
    """Two starts of a sender, three scans, in any order: kept by their own data, or by who was at them last."""
    with TemporaryDirectory(dir=tmp_path) as root, pytest.MonkeyPatch.context() as patch:
        now, vanish_s = [0.0], 3.0
        patch.setattr(time, "monotonic", lambda: now[0])
        house = House(Path(root), Limits(open_scans=3))
        senders, left = {n: Sender(house, n) for n in (1, 2)}, {name: scan(name) for name in "abc"}
        last_word, at = {}, {}
        for what, who, name in steps:
            if what == "time":
                now[0] += who
                house.ingest.expire(now[0], vanish_s)
            elif what == "heartbeat":
                senders[who].heartbeat()
                if at.get(who) in last_word:
                    last_word[at[who]] = now[0]
            elif len(left[name]) > 1:  # its end never comes
                senders[who].send(left[name].pop(0))
                at[who], last_word[name] = name, now[0]
            over = {name for name, word in last_word.items() if now[0] - word > vanish_s}
            for name in over:
                del last_word[name]
                left[name] = []
            assert {name for _, name in house.ingest.scans} == set(last_word)
        house.ingest.close()


def test_a_further_scan_finds_room_where_one_is_silent(tmp_path, clock):
    house = House(tmp_path, Limits(open_scans=2))
    sender, other = Sender(house, 1), Sender(house, 2)
    sender.send(scan("a")[0]), other.send(scan("b")[0])
    (verdict,) = sender.send(scan("c")[0])
    assert not verdict.accepted and "open scans" in verdict.reason
    clock.s += SPARED_S
    other.heartbeat()
    (verdict,) = sender.send(scan("d")[0])
    assert verdict.accepted
    ((left, status),) = house.finished
    assert (left.scan_id, status) == ("a", "incomplete")
    assert left.reason == "scan d began, and nothing more of this one came for 10 s"


def test_a_scan_whose_finals_are_under_way_is_not_begun_anew(house):
    """Its folder is being written; what is sent again is known."""
    stream = scan("a")
    house.take(stream)
    (verdict,) = house.take(stream)
    assert verdict.accepted and "finals are being computed" in verdict.facts["already"]
    assert len(house.finished) == 1 and not house.ingest.scans
    assert house.count("livestem_tiles_duplicate_total") == len(stream) - 1


def test_why_a_scan_was_aborted_is_kept(house):
    *stream, end = scan("a")
    header = msgspec.structs.replace(end.header, status="aborted", reason="sample drifted away")
    house.take([*stream, replace(end, header=header)])
    ((left, status),) = house.finished
    assert (status, left.reason) == ("aborted", "aborted: sample drifted away")


def test_duplicates_are_counted_and_conflicts_rejected(house):
    stream = list(messages(plan(), tiles(plan())))
    other = list(messages(plan(), tiles(plan(), seed=1)))
    house.take([*stream[:5], stream[2], other[2]])
    assert house.count("livestem_tiles_duplicate_total") == 1
    assert house.count("livestem_rejected_total", reason="conflict") == 1
    house.take(stream[5:])
    assert [(scan.contradictions, status) for scan, status in house.finished] == [(1, "complete")]


def test_a_scan_that_is_done_is_not_done_again(house):
    stream = list(messages(plan(), tiles(plan())))
    house.take(stream)
    known = house.store.scans["s1", "scan"]
    house.store.scans["s1", "scan"] = msgspec.structs.replace(known, status="complete")
    (verdict,) = house.take(stream)
    assert verdict.accepted and verdict.facts == {"already": "complete"}
    assert len(house.finished) == 1


def test_the_same_scan_with_other_parameters_is_refused_with_the_way_out(house, tmp_path):
    stream = list(messages(plan(), tiles(plan())))
    house.take(stream)
    known = house.store.scans["s1", "scan"]
    other = House(tmp_path / "b", chip_px=6)
    other.store.scans["s1", "scan"] = msgspec.structs.replace(known, status="complete")
    (verdict,) = other.take(stream)
    assert not verdict.accepted and "--session" in verdict.reason


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(pixels=100), "pixels"),
        (Limits(channels=100), "channels"),
        (Limits(chips=10), "--chip-px"),
        (Limits(planned_frames=1), "frames"),
        (Limits(classes=1), "classes"),
        (Limits(accumulator_bytes=1000), "memory"),
        (Limits(open_scans=0), "open scans"),
    ],
)
def test_limits_refuse_a_scan_before_it_costs_anything(tmp_path, limits, words):
    house = House(tmp_path, limits)
    stream = list(messages(plan(), tiles(plan())))
    (verdict,) = house.take(stream[:1])
    assert not verdict.accepted and words in verdict.reason
    assert not list(tmp_path.iterdir()), "no folder is left behind"
    house.take(stream[1:2])
    assert house.count("livestem_rejected_total", reason="unknown_scan") == 1


def test_an_open_ended_scan_has_an_end_all_the_same(tmp_path):
    house = House(tmp_path, Limits(planned_frames=1))
    house.take(messages(plan(frames=None), tiles(plan())))
    assert house.count("livestem_rejected_total", reason="limit") == 6
    assert [t.frame for t in house.ingest.scans["s1", "scan"].accumulator.missing()] == []


def test_only_so_many_tiles_wait_for_their_start(tmp_path, caplog):
    house = House(tmp_path, Limits(waiting_tiles=2))
    start, *rest = messages(plan(), tiles(plan()))
    house.take(rest)
    assert house.count("livestem_rejected_total", reason="limit") == len(rest) - 2
    assert len(caplog.records) == 2, "the first and the tenth are told, the others counted"


def test_a_scan_that_would_fill_the_disk_is_refused(house):
    """What its plan will take, beside what is to stay free."""
    of = plan(frames=10)
    photons = round(COUNTS_PER_S * of.dwell_s * 24 * 24 * 10)
    needed = 24 * 24 * 10 * (2 + 1) + 2 * photons  # HAADF of two bytes, a byte for a pixel's photons, two for each
    assert journal_bytes(of) == needed
    for free, accepted in ((needed - 1, False), (needed, True)):
        house.store.free = Limits().free_disk_bytes + free
        (verdict,) = house.take(list(messages(of, []))[:1])
        assert verdict.accepted is accepted, verdict.reason
        assert accepted or "to stay free" in verdict.reason


def test_a_full_disk_refuses_a_scan(house):
    house.store.free = 1000
    (verdict,) = house.take(list(messages(plan(), []))[:1])
    assert not verdict.accepted and "free" in verdict.reason


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"chip_px": 100}, "larger than the field"),
        (
            {
                "support": msgspec.convert(
                    {"classes": [{"name": n, "chips": [[0, i]], "scan": "s0/scan"} for i, n in enumerate("ab")]},
                    SupportSet,
                )
            },
            "no result of scan s0/scan",
        ),
        ({"elements": ("H",)}, "H"),
        ({"clusters": 1000}, "--clusters"),
        ({"lines": ("Fe_Kx",)}, "Fe_Kx"),
        ({"k_factors": {"Fe_Ka": 1.0}}, "Ti"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_start(tmp_path, asked, words):
    house = House(tmp_path, **asked)
    (verdict,) = house.take(list(messages(plan(), []))[:1])
    assert not verdict.accepted and words in verdict.reason
    assert "\n" not in verdict.reason


def test_a_bug_is_not_swallowed(tmp_path):
    def broken(of):
        raise RuntimeError("a bug of ours")

    house = House(tmp_path)
    house.ingest._opener._decider = SimpleNamespace(decide=broken)
    with pytest.raises(RuntimeError):
        house.take(messages(plan(), []))
    assert not issubclass(RuntimeError, LivestemError)


def full(journal, full=True):
    """Leave a journal no room, as on a full disk, or give it back."""
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages if full else 10**6}")


def test_on_a_full_disk_nothing_is_lost_and_nothing_handed_on(house):
    """Commits fail and say so; once there is room the scan is over as if nothing had been."""
    start, *rest = messages(plan(), tiles(plan()))
    house.take([start])
    scan = house.ingest.scans["s1", "scan"]
    full(scan.journal)
    house.take(rest)
    assert scan.status == "complete" and not house.finished
    for write in (lambda: house.ingest.commit("s1", 7, len(rest)), house.ingest.hand_over):
        with pytest.raises(DiskFullError, match="make room"):
            write()
    assert not house.finished and scan.watermark.seq == 0
    full(scan.journal, full=False)
    house.ingest.commit("s1", 7, len(rest) + 1)
    house.ingest.hand_over()
    assert [(of.scan_id, status) for of, status in house.finished] == [("scan", "complete")]
    assert not house.ingest.scans
    with JournalRecording(scan.journal.path) as recording:
        assert len(list(recording.received())) == len(rest) + 1


def test_a_service_that_stops_on_a_full_disk_keeps_what_is_committed(house, caplog):
    start, *rest = messages(plan(), tiles(plan()))
    house.take([start, *rest[:3]])
    scan = house.ingest.scans["s1", "scan"]
    house.ingest.commit("s1", 7, 4)
    full(scan.journal)
    house.take(rest[3:-1])
    house.ingest.close()
    assert "full" in caplog.text
    with JournalRecording(scan.journal.path) as recording:
        assert len(list(recording.received())) == 4
