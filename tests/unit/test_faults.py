"""Faults on request: what can be asked for, what the link does to messages, what happens to a scan and its program."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scans import plan as make_plan
from scans import tiles as make_tiles

from livestem.client.acquisition import Acquisition
from livestem.client.replay import Pace
from livestem.domain.errors import SourceError, TransportError, UsageError, WireError
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import HaadfTile, Tile
from livestem.simulator.faults import NO_FAULTS, Faults, parse_faults
from livestem.simulator.faulty_link import FaultyLink, flip_bit
from livestem.simulator.faulty_source import FaultySource, Middle, send_with_faults, with_middles
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, encode

# --- what can be asked for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("drop=0.01", Faults(drop=0.01)),
        ("drop=0,dup=1", Faults(dup=1.0)),
        ("corrupt=1e-3", Faults(corrupt=0.001)),
        ("reorder=8", Faults(reorder=8)),
        ("stall=2s", Faults(stall_s=2.0)),
        ("stall=0.5s@frame=1", Faults(stall_s=0.5, stall_frame=1)),
        ("stall=500ms", Faults(stall_s=0.5)),
        ("abort@frame=0", Faults(abort_frame=0)),
        (" drop=0.01 , restart@frame=2 ", Faults(drop=0.01, restart_frame=2)),
        ("restart@frame=3,abort@frame=3", Faults(restart_frame=3, abort_frame=3)),
        (
            "drop=0.01,dup=0.01,reorder=8,corrupt=0.001,stall=2s,restart@frame=2,vanish@frame=4",
            Faults(drop=0.01, dup=0.01, reorder=8, corrupt=0.001, stall_s=2.0, restart_frame=2, vanish_frame=4),
        ),
    ],
)
def test_a_list_of_faults_is_read(text: str, faults: Faults):
    assert parse_faults(text) == faults


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no fault", "drop=", "vanish@frame="]),
        ("drop=0.01,", ["no fault", "possible"]),
        ("lag=2s", ["'lag=2s'", "possible", "stall="]),
        ("DROP=0.1", ["'DROP=0.1'", "possible"]),
        ("drop=0.1=0.2", ["'drop=0.1=0.2'", "possible"]),
        ("drop", ["'drop'", "probability", "drop=0.01"]),
        ("drop=", ["'drop='", "probability"]),
        ("drop=often", ["'drop=often'", "0 to 1"]),
        ("drop=1.01", ["'drop=1.01'", "0 to 1"]),
        ("dup=-0.1", ["'dup=-0.1'", "0 to 1", "dup=0.01"]),
        ("corrupt=nan", ["'corrupt=nan'", "0 to 1"]),
        ("corrupt=inf", ["'corrupt=inf'", "0 to 1"]),
        ("drop=0.1@frame=2", ["'drop=0.1@frame=2'", "probability"]),
        ("reorder", ["'reorder'", "whole number"]),
        ("reorder=2.5", ["'reorder=2.5'", "whole number"]),
        ("reorder=-1", ["'reorder=-1'", "whole number"]),
        ("reorder=1001", ["reorder", "0 to 1000"]),
        ("reorder=8@frame=1", ["'reorder=8@frame=1'"]),
        ("stall", ["'stall'", "stall=2s"]),
        ("stall=2", ["'stall=2'", "s or ms"]),
        ("stall=2h", ["'stall=2h'", "s or ms"]),
        ("stall=0s", ["'stall=0s'", "how long"]),
        ("stall=-1s", ["'stall=-1s'"]),
        ("stall=nans", ["'stall=nans'"]),
        ("stall=4000s", ["stall", "3600"]),
        ("stall@frame=1", ["'stall@frame=1'", "how long"]),
        ("stall=2s@frame=x", ["frame", "whole number"]),
        ("abort", ["'abort'", "abort@frame=3"]),
        ("abort=3", ["'abort=3'", "abort@frame=3"]),
        ("abort@frame=", ["'abort@frame='", "counted from 0"]),
        ("abort@frame=-1", ["'abort@frame=-1'", "counted from 0"]),
        ("abort@frame=1.5", ["'abort@frame=1.5'", "whole number"]),
        ("abort@row=3", ["'abort@row=3'", "possible"]),
        ("restart=1@frame=2", ["'restart=1@frame=2'", "restart@frame=3"]),
        ("vanish@frame=99999999999", ["vanish", "frame"]),
        ("drop=0.1,drop=0.1", ["drop", "twice"]),
        ("stall=2s,stall=1s@frame=1", ["stall", "twice"]),
        ("abort@frame=1,abort@frame=2", ["abort", "twice"]),
        ("abort@frame=3,vanish@frame=3", ["abort", "vanish", "once"]),
        ("abort@frame=3,restart@frame=4", ["restart@frame=4", "never", "abort@frame=3"]),
        ("vanish@frame=0,stall=1s@frame=1", ["stall@frame=1", "never", "vanish@frame=0"]),
    ],
)
def test_what_is_no_fault_is_told_in_one_line(text: str, words: list[str]):
    with pytest.raises(UsageError) as told:
        parse_faults(text)
    line = str(told.value)
    assert "\n" not in line and len(line) < 300
    for word in words:
        assert word in line


@given(st.text(alphabet="drop=abort@frame,stl0123456789.sm- ", max_size=40))
def test_any_text_is_faults_or_a_usage_error(text: str):
    try:
        parse_faults(text).within(1_000_000_000)
    except UsageError:
        pass


def test_faults_made_by_hand_keep_the_same_rules():
    for wrong in (
        {"drop": 1.5}, {"dup": -1.0}, {"corrupt": float("nan")}, {"reorder": -1}, {"reorder": 1001},
        {"stall_s": -1.0}, {"stall_s": float("inf")}, {"stall_frame": 2}, {"abort_frame": -1},
        {"abort_frame": 1, "vanish_frame": 1}, {"abort_frame": 1, "restart_frame": 2},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            Faults(**wrong)


def test_a_fault_in_a_frame_that_the_scan_does_not_have_is_refused():
    for faults in (Faults(abort_frame=3), Faults(stall_s=1.0, stall_frame=3), Faults(restart_frame=7)):
        with pytest.raises(UsageError, match="frames 0 to 2"):
            faults.within(3)
        assert faults.within(8) == faults
        assert faults.within(None) == faults  # open-ended: it may yet come


def test_of_abort_and_vanish_the_earlier_ends_the_scan():
    everything = parse_faults(
        "drop=0.01,dup=0.01,reorder=8,corrupt=0.001,stall=2s,abort@frame=3,restart@frame=2,vanish@frame=4"
    ).within(10)
    assert (everything.abort_frame, everything.vanish_frame) == (3, None)
    assert (everything.restart_frame, everything.stall_frame) == (2, 3)
    turned = parse_faults("abort@frame=4,vanish@frame=3").within(10)
    assert (turned.abort_frame, turned.vanish_frame) == (None, 3)


@pytest.mark.parametrize(
    ("faults", "frames", "where"),
    [
        (Faults(stall_s=1.0), 10, 5),
        (Faults(stall_s=1.0), 1, 0),
        (Faults(stall_s=1.0), None, 0),
        (Faults(stall_s=1.0, stall_frame=9), 10, 9),
        (Faults(stall_s=1.0, abort_frame=2), 10, 2),
        (Faults(stall_s=1.0, vanish_frame=8), 10, 5),
        (NO_FAULTS, 10, None),
    ],
)
def test_a_stall_without_a_frame_is_in_the_middle_of_what_will_be_scanned(
    faults: Faults, frames: int | None, where: int | None
):
    assert faults.within(frames).stall_frame == where


# --- what the link does to messages -------------------------------------------------------------------------


def data(number: int) -> list[bytes]:
    """Return a message like no other, with data."""
    kind = ("scan_start", "haadf_tile", "eds_tile", "scan_end")[number % 4]
    return [f"acq.s1.{kind}".encode(), number.to_bytes(4, "big"), bytes(range(number % 50)), b"", b"chck"]


BEAT = [b"acq.s1.heartbeat", b"header", b"chck"]
ECHO = [b"acq.s1.echo", b"header", b"chck"]


def link(faults: Faults, seed: int = 0) -> FaultyLink:
    return FaultyLink(faults, np.random.default_rng(seed))


def through(network: FaultyLink, count: int) -> list[list[bytes]]:
    """Return what comes out when so many messages and a heartbeat go in, without the heartbeat."""
    sent = [frames for n in range(count) for frames in network(data(n))]
    last = network(BEAT)
    assert last[-1] == BEAT
    return sent + last[:-1]


def numbers(sent: list[list[bytes]]) -> list[int]:
    return [int.from_bytes(frames[1], "big") for frames in sent]


ANY = st.builds(
    Faults,
    drop=st.floats(0, 1),
    dup=st.floats(0, 1),
    corrupt=st.floats(0, 1),
    reorder=st.integers(0, 20),
)
SEEDS = st.integers(0, 2**32 - 1)


def test_without_faults_everything_passes_as_it_comes():
    network = link(NO_FAULTS)
    assert [network(data(n)) for n in range(50)] == [[data(n)] for n in range(50)]
    assert network.done == {"messages": 50, "drop": 0, "dup": 0, "corrupt": 0, "reorder": 0}


@given(faults=ANY, seed=SEEDS, count=st.integers(0, 60))
def test_the_same_chance_does_the_same(faults: Faults, seed: int, count: int):
    first, second = link(faults, seed), link(faults, seed)
    assert through(first, count) == through(second, count)
    assert first.done == second.done


@given(faults=ANY, seed=SEEDS, count=st.integers(0, 60))
def test_it_did_what_it_says(faults: Faults, seed: int, count: int):
    """Every copy that comes out is a message that went in, or differs from one in a single bit; the counts are true."""
    network = link(faults, seed)
    sent = [tuple(frames) for frames in through(network, count)]
    went_in = {tuple(data(n)) for n in range(count)}
    spoilt = [frames for frames in sent if frames not in went_in]
    done = network.done
    assert done["messages"] == count
    assert len(spoilt) == done["corrupt"]
    assert len(sent) == count - done["drop"] + done["dup"]
    assert max(Counter(sent).values(), default=0) <= 2
    for frames in spoilt:
        assert min(distance(frames, original) for original in went_in) == 1


def distance(a: tuple[bytes, ...], b: tuple[bytes, ...]) -> float:
    """Return in how many bits two messages differ; infinite if their frames have other lengths."""
    if [len(f) for f in a] != [len(f) for f in b]:
        return float("inf")
    return sum((x ^ y).bit_count() for x, y in zip(b"".join(a), b"".join(b), strict=True))


@given(places=st.integers(0, 20), seed=SEEDS, count=st.integers(0, 100))
def test_nothing_leaves_later_than_the_window_and_nothing_is_lost_in_it(places: int, seed: int, count: int):
    network = link(Faults(reorder=places), seed)
    left = numbers(through(network, count))
    assert sorted(left) == list(range(count))
    assert all(abs(place - number) <= places for place, number in enumerate(left))
    overtaken = [number for place, number in enumerate(left) if max(left[:place], default=-1) > number]
    assert network.done["reorder"] == len(overtaken)


def test_a_window_is_made_use_of():
    left = numbers(through(link(Faults(reorder=8)), 1000))
    late = [place - number for place, number in enumerate(left)]
    assert max(late) > 4 and min(late) < -4


def test_what_is_held_back_leaves_before_a_heartbeat_or_an_echo():
    for sign in (BEAT, ECHO):
        network = link(Faults(reorder=20), seed=3)
        at_once = [frames for n in range(10) for frames in network(data(n))]
        assert len(at_once) < 10, "nothing was held back, so this shows nothing"
        *held, last = network(sign)
        assert last == sign
        assert sorted(numbers(at_once + held)) == list(range(10))
        assert network(sign) == [sign]


def test_signs_of_life_are_never_harmed_or_counted():
    network = link(Faults(drop=1.0, dup=1.0, corrupt=1.0, reorder=5))
    assert [network(BEAT) for _ in range(20)] == [[BEAT]] * 20
    assert network.done["messages"] == 0


@pytest.mark.parametrize("fault", ["drop", "dup", "corrupt"])
def test_a_probability_is_kept_over_many_messages(fault: str):
    """5000 at 0.1: 500 expected, standard deviation 21; five of them either way."""
    network = link(Faults(**{fault: 0.1}))
    through(network, 5000)
    assert 394 < network.done[fault] < 606
    assert sum(network.done.values()) == 5000 + network.done[fault]  # and nothing else was done


def test_all_or_nothing():
    assert through(link(Faults(drop=1.0)), 20) == []
    assert numbers(through(link(Faults(dup=1.0)), 20)) == [n for n in range(20) for _ in range(2)]


def test_the_publishers_own_bytes_are_not_touched():
    network, frames = link(Faults(corrupt=1.0, dup=1.0, reorder=3)), data(7)
    kept = list(frames)
    for _ in range(50):
        network(frames)
    assert frames == kept and all(a is b for a, b in zip(frames, kept, strict=True))


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=5), st.data())
def test_one_bit_is_flipped_and_flips_back(frames: list[bytes], draw: st.DataObject):
    bits = 8 * sum(map(len, frames))
    with pytest.raises(IndexError):
        flip_bit(frames, bits)
    if bits:
        bit = draw.draw(st.integers(0, bits - 1))
        flipped = flip_bit(frames, bit)
        assert distance(tuple(flipped), tuple(frames)) == 1
        assert flip_bit(flipped, bit) == frames


def test_every_bit_can_be_hit_and_every_hit_is_noticed_by_the_check():
    frames = encode(
        m.HaadfRows(session="s1", seq=1, scan_id="a", frame=0, y=0, x=0), [np.ones((1, 2), "<u2")], stream="acq"
    )
    network = link(Faults(corrupt=1.0))
    hit: set[tuple[bytes, ...]] = set()
    for _ in range(20_000):
        (sent,) = network(frames)
        hit.add(tuple(sent))
    assert len(hit) == 8 * sum(map(len, frames))
    for spoilt in hit:
        with pytest.raises(WireError, match="check"):
            decode(spoilt)


# --- where the middle of a frame is -------------------------------------------------------------------------


class Listed:
    """A scan whose tiles are a list."""

    def __init__(self, plan: ScanPlan, tiles: list[Tile], scan_id: str = "listed") -> None:
        self.plan, self.scan_id, self._tiles = plan, scan_id, tiles

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        return iter(self._tiles)


def scan(frames: int | None = 3, rows: int = 8, *, eds: bool = True) -> Listed:
    """Return a scan of 24 x 24 pixels, HAADF before EDS of the same rows."""
    plan = make_plan(frames=frames or 3, eds=eds)
    return Listed(msgspec.structs.replace(plan, frames=frames), make_tiles(plan, rows=rows))


def places(items: Any) -> list[Any]:
    return [("middle", i.frame) if isinstance(i, Middle) else (kind(i), i.frame, i.y) for i in items]


def kind(tile: Tile) -> str:
    return "haadf" if isinstance(tile, HaadfTile) else "eds"


def test_the_middle_comes_before_the_tile_that_reaches_beyond_half():
    source = scan(frames=2)
    assert places(with_middles(source.tiles(), source.plan)) == [
        place
        for n in range(2)
        for place in [
            *(("haadf", n, 0), ("eds", n, 0), ("middle", n)),
            *(("haadf", n, 8), ("eds", n, 8), ("haadf", n, 16), ("eds", n, 16)),
        ]
    ]


def test_a_tile_that_ends_at_half_is_before_the_middle():
    source = scan(frames=1, rows=12, eds=False)
    assert places(with_middles(source.tiles(), source.plan)) == [("haadf", 0, 0), ("middle", 0), ("haadf", 0, 12)]


def test_frames_in_one_piece_have_a_middle_too():
    source = scan(frames=2, rows=24, eds=False)
    assert places(with_middles(source.tiles(), source.plan)) == [
        *(("haadf", 0, 0), ("middle", 0)),
        *(("haadf", 1, 0), ("middle", 1)),
    ]


@given(frames=st.integers(1, 4), rows=st.integers(1, 30), eds=st.booleans(), reverse=st.booleans())
def test_every_frame_has_one_middle_inside_and_no_tile_is_changed(frames: int, rows: int, eds: bool, reverse: bool):
    plan = make_plan(frames=frames, eds=eds)
    key: Callable[[Tile], tuple[int, int]] = lambda t: (t.frame, -t.y if reverse else t.y)  # noqa: E731
    tiles = sorted(make_tiles(plan, rows=rows), key=key)
    items = list(with_middles(tiles, plan))
    assert [i for i in items if not isinstance(i, Middle)] == tiles
    assert [i.frame for i in items if isinstance(i, Middle)] == list(range(frames))
    for frame in range(frames):
        at = items.index(Middle(frame))
        before = items[at - 1]
        assert not isinstance(before, Middle) and before.frame == frame


# --- what happens to a scan ---------------------------------------------------------------------------------


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds
        self.slept.append(seconds)


class Instrument:
    """Opens real acquisitions that nobody follows, and keeps what leaves them.

    Heartbeats go past the faulty link, so that nothing here depends on when they come.
    """

    def __init__(self, folder: Path, session: str | None = "s1") -> None:
        self.folder, self.session = folder, session
        self.messages: list[list[Message]] = []  # of each start
        self.links: list[FaultyLink] = []
        self.opened: list[Acquisition] = []

    def open(self, faulty: FaultyLink) -> Acquisition:
        sent: list[Message] = []

        def kept(frames: list[bytes]) -> list[list[bytes]]:
            out = [frames] if frames[0].endswith((b".heartbeat", b".echo")) else faulty(frames)
            sent.extend(decode(f) for f in out)
            return out

        self.messages.append(sent)
        self.links.append(faulty)
        self.opened.append(Acquisition(self.session, f"ipc://{self.folder}/a", link=kept))
        return self.opened[-1]

    def headers(self, start: int) -> list[m.OfScan]:
        return [x.header for x in self.messages[start] if isinstance(x.header, m.OfScan)]


@pytest.fixture
def instrument(tmp_path: Path) -> Instrument:
    return Instrument(tmp_path)


def tile_places(headers: list[m.OfScan]) -> list[tuple[str, int, int]]:
    kinds = {m.HaadfRows: "haadf", m.EdsRows: "eds"}
    return [(kinds[type(h)], h.frame, h.y) for h in headers if isinstance(h, m.HaadfRows | m.EdsRows)]


def until_middle(source: Listed, frame: int) -> list[Any]:
    items = list(with_middles(source.tiles(), source.plan))
    return [p for p in places(items[: items.index(Middle(frame))]) if p[0] != "middle"]


def test_without_faults_it_is_the_scan_itself(instrument: Instrument):
    source = scan()
    seen: list[Tile] = []
    writer = send_with_faults(instrument.open, source, NO_FAULTS, on_tile=seen.append)
    headers = instrument.headers(0)
    assert seen == list(source.tiles())
    assert tile_places(headers) == places(source.tiles())
    assert isinstance(headers[0], m.ScanStart) and headers[0].plan == source.plan
    end = headers[-1]
    assert isinstance(end, m.ScanEnd) and (end.status, end.frames) == ("complete", 3)
    assert writer.totals.sent.haadf_tiles == end.haadf_tiles == 9
    assert len(instrument.opened) == 1


def test_an_aborted_scan_ends_in_the_middle_of_its_frame_and_says_why(instrument: Instrument):
    source = scan()
    send_with_faults(instrument.open, source, Faults(abort_frame=1))
    *tiles, end = instrument.headers(0)
    assert tile_places(tiles) == until_middle(source, 1)
    assert isinstance(end, m.ScanEnd) and (end.status, end.frames) == ("aborted", 2)
    assert (end.haadf_tiles, end.eds_tiles) == (4, 4)
    assert end.reason is not None and "frame 1" in end.reason


def test_an_instrument_that_vanishes_says_nothing_more(instrument: Instrument):
    source = scan()
    with pytest.raises(TransportError, match=r"vanished in the middle of frame 1 .*listed") as told:
        send_with_faults(instrument.open, source, Faults(vanish_frame=1))
    assert (told.value.exit_code, "\n" in str(told.value)) == (1, False)
    assert tile_places(instrument.headers(0)) == until_middle(source, 1)
    assert not any(isinstance(h, m.ScanEnd) for h in instrument.headers(0))
    with Acquisition("next", f"ipc://{instrument.folder}/a"):
        pass  # the endpoint is free


def test_a_restarted_instrument_scans_again_from_the_beginning(instrument: Instrument):
    source = scan()
    writer = send_with_faults(instrument.open, source, Faults(restart_frame=1))
    assert len(instrument.opened) == 2
    assert tile_places(instrument.headers(0)) == until_middle(source, 1)
    assert not any(isinstance(h, m.ScanEnd) for h in instrument.headers(0))
    again = instrument.headers(1)
    assert tile_places(again) == places(source.tiles())
    assert isinstance(again[-1], m.ScanEnd) and again[-1].status == "complete"
    assert writer.totals.sent.haadf_tiles == 9
    first, second = instrument.headers(0)[0], again[0]
    assert (first.session, first.scan_id, first.seq) == (second.session, second.scan_id, second.seq)
    assert first.epoch < second.epoch


def test_what_was_on_the_way_dies_with_the_program(instrument: Instrument):
    """What the link held back when the program died is sent by nobody."""
    send_with_faults(instrument.open, scan(frames=4), Faults(restart_frame=3, reorder=50))
    for start in (0, 1):
        headers = instrument.headers(start)
        assert 0 < len(headers) < instrument.links[start].done["messages"]
        assert {h.epoch for h in headers} == {instrument.opened[start]._publisher.epoch}


@pytest.mark.parametrize(
    ("end", "happened"), [({"abort_frame": 2}, "aborted"), ({"vanish_frame": 2}, None), ({}, "complete")]
)
def test_faults_come_one_after_the_other(instrument: Instrument, end: dict[str, int], happened: str | None):
    time = Time()
    faults = Faults(stall_s=5.0, stall_frame=0, restart_frame=1, **end)
    try:
        send_with_faults(instrument.open, scan(), faults, clock=time.clock, sleep=time.sleep)
    except TransportError:
        assert happened is None
    assert time.slept == [5.0], "a stall is over once it has been, also for the program that comes back"
    ends = [h for start in (0, 1) for h in instrument.headers(start) if isinstance(h, m.ScanEnd)]
    assert [h.status for h in ends] == ([] if happened is None else [happened])


def test_the_same_frame_may_restart_and_then_abort(instrument: Instrument):
    send_with_faults(instrument.open, scan(), Faults(restart_frame=1, abort_frame=1))
    assert [type(h) for start in (0, 1) for h in instrument.headers(start)].count(m.ScanEnd) == 1
    end = instrument.headers(1)[-1]
    assert isinstance(end, m.ScanEnd) and end.status == "aborted"


def test_a_stall_delays_what_comes_after_it_and_nothing_else(tmp_path: Path):
    """Against the undisturbed scan at its real pace: the same instants before the stall, 3 s later ones after it."""
    instants: dict[str, list[float]] = {}
    source = scan()
    for name, faults in (("clean", NO_FAULTS), ("stalled", Faults(stall_s=3.0, stall_frame=1))):
        time, seen = Time(), instants.setdefault(name, [])
        send_with_faults(
            Instrument(tmp_path).open, source, faults, speed=1.0,
            on_tile=lambda tile, seen=seen, time=time: seen.append(time.now), clock=time.clock, sleep=time.sleep,
        )  # fmt: skip
    before = len(until_middle(source, 1))
    pace = Pace(source.plan, 1.0)
    assert instants["clean"] == pytest.approx([pace.due_s(t) for t in source.tiles()])
    assert instants["stalled"][:before] == pytest.approx(instants["clean"][:before])
    assert instants["stalled"][before:] == pytest.approx([t + 3.0 for t in instants["clean"][before:]])


def test_a_stall_takes_its_time_at_full_speed_too(instrument: Instrument):
    time = Time()
    send_with_faults(instrument.open, scan(), Faults(stall_s=2.0), clock=time.clock, sleep=time.sleep)
    assert time.slept == [2.0]
    assert tile_places(instrument.headers(0)) == places(scan().tiles())


def test_the_network_is_faulty_by_the_seed(tmp_path: Path):
    faults = Faults(drop=0.3, dup=0.3, reorder=3)

    def sent(seed: int) -> tuple[list[int], dict[str, int]]:
        instrument = Instrument(tmp_path)
        send_with_faults(instrument.open, scan(frames=8), faults, seed=seed)
        return [h.seq for h in instrument.headers(0)], instrument.links[0].done

    assert sent(1) == sent(1) != sent(2)


def test_a_restart_has_chances_of_its_own(instrument: Instrument):
    """Else the same messages would be dropped again, and never two different ones."""
    send_with_faults(instrument.open, scan(frames=8), Faults(drop=0.5, restart_frame=7))
    first, second = ({h.seq for h in instrument.headers(start)} for start in (0, 1))
    both = range(1, instrument.links[0].done["messages"] + 1)
    assert first & set(both) != second & set(both)


def test_a_plan_that_is_extended_is_the_one_announced(instrument: Instrument):
    source = scan()
    extended = msgspec.structs.replace(source.plan, sample="another word")
    send_with_faults(instrument.open, source, Faults(restart_frame=0), plan=extended)
    starts = [h for start in (0, 1) for h in instrument.headers(start) if isinstance(h, m.ScanStart)]
    assert [h.plan for h in starts] == [extended, extended]


def test_a_fault_beyond_the_scan_opens_nothing(instrument: Instrument):
    with pytest.raises(UsageError, match=r"abort@frame=3 .*frames 0 to 2"):
        send_with_faults(instrument.open, scan(), Faults(abort_frame=3))
    assert instrument.opened == []


def test_an_open_ended_scan_that_ends_too_early_is_no_test_of_its_fault(instrument: Instrument):
    with pytest.raises(SourceError, match="vanish@frame=5 never happened"):
        send_with_faults(instrument.open, scan(frames=None), Faults(vanish_frame=5))
    end = instrument.headers(0)[-1]
    assert isinstance(end, m.ScanEnd) and end.status == "aborted"


def test_an_instrument_comes_back_under_its_name(tmp_path: Path):
    nameless = Instrument(tmp_path, session=None)
    with pytest.raises(ValueError, match="comes back as session"):
        send_with_faults(nameless.open, scan(), Faults(restart_frame=1))


def test_an_error_that_was_not_asked_for_is_told(instrument: Instrument):
    class Broken(Listed):
        def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
            yield from itertools.islice(super().tiles(), 3)
            raise TransportError("the file server is gone")

    source = scan()
    with pytest.raises(TransportError, match="file server"):
        send_with_faults(instrument.open, Broken(source.plan, list(source.tiles())), Faults(restart_frame=2))
    assert len(instrument.opened) == 1


def test_a_source_that_was_aborted_stays_aborted():
    """A journal knows how its scan ended."""

    class Aborted(Listed):
        end = m.ScanEnd(
            scan_id="listed", status="aborted", reason="by hand", frames=0, haadf_tiles=0, eds_tiles=0, eds_counts=0
        )

    source = scan()
    faulty = FaultySource(Aborted(source.plan, []), NO_FAULTS, die=lambda: None, sleep=lambda s: None)
    assert list(faulty.tiles()) == []
    assert faulty.end is not None and (faulty.end.status, faulty.end.reason) == ("aborted", "by hand")
