"""What a script hands over is checked where it can still be mended, and what goes out is always receivable."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.extra.numpy as hnp
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestem.client import Acquisition, Eds, Endpoint, EnergyAxis, Haadf, Sampling, ScanPlan, ScanWriter
from livestem.client.replay import Pace
from livestem.client.tilecheck import check_plan
from livestem.domain.errors import SourceError
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

FIELD = Sampling(shape=(4, 6), pixel_nm=(0.1, 0.1))
PLAN = ScanPlan(
    haadf=Haadf(sampling=FIELD, dtype="<f4"),
    eds=Eds(sampling=FIELD, energy=EnergyAxis(channels=8, scale_kev=0.01)),
    frames=3,
    dwell_s=1e-3,
)


class Sink:
    """An outlet that encodes and decodes everything, as sockets would."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def publish(self, header: m.OfScan, arrays: tuple[Any, ...] = (), *, codec: str = "raw") -> None:
        frames = encode(msgspec.structs.replace(header, session="s1"), arrays, stream="acq", codec=codec)
        self.sent.append(decode(frames))

    def verdict(self, scan_id: str) -> None:
        return None


def writer(plan: ScanPlan = PLAN) -> tuple[ScanWriter, Sink]:
    sink = Sink()
    return ScanWriter(sink, plan, "scan-1"), sink


def large(rows: int, cols: int, channels: int = 8, dtype: str = "<f4") -> ScanPlan:
    field = Sampling(shape=(rows, cols), pixel_nm=(0.1, 0.1))
    energy = EnergyAxis(channels=channels, scale_kev=0.01)
    return ScanPlan(haadf=Haadf(sampling=field, dtype=dtype), eds=Eds(sampling=field, energy=energy), frames=None)


def refuse(words: str, call: Any, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


# --- cumulative snapshots -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(hnp.arrays(np.uint8, (4, 6, 8), elements=st.integers(0, 9)), min_size=1, max_size=4))
def test_of_running_totals_the_increase_is_published(increases: list[np.ndarray]):
    scan, sink = writer(msgspec.structs.replace(PLAN, frames=None))
    total = np.zeros((4, 6, 8), "<u4")
    for increase in increases:
        total += increase
        scan.eds_cumulative(total)  # the same buffer each time, as live interfaces do
    assert [t.header.frame for t in sink.sent] == list(range(len(increases)))
    for tile, increase in zip(sink.sent, increases, strict=True):
        np.testing.assert_array_equal(tile.arrays[0], increase)
    assert scan.totals.sent.eds_counts == total.sum()


def test_a_running_total_that_was_reset_is_named_by_its_place_and_the_scan_goes_on():
    scan, sink = writer()
    total = np.full((4, 6, 8), 5, "<u2")
    scan.eds_cumulative(total)
    reset = total.copy()
    reset[1, 2, 3] = 4
    refuse("frame 1, y 1, x 2, channel 3; was it reset", scan.eds_cumulative, reset)
    scan.eds_cumulative(total + 1)
    assert [int(t.arrays[0].sum()) for t in sink.sent] == [5 * 192, 192]
    refuse("shape", scan.eds_cumulative, np.zeros((4, 5, 8), "<u2"))


@pytest.mark.parametrize(
    "snapshot", [np.zeros((4, 6, 8), "<f4"), np.full((4, 6, 8), np.nan), np.zeros(6, "i4"), np.array(-1),
                 np.zeros((4, 6, 8), "O"), np.full((4, 6), -1)]
)  # fmt: skip
def test_a_running_total_is_whole_counts(snapshot: np.ndarray):
    refuse("whole counts", writer()[0].eds_cumulative, snapshot)


def test_a_running_total_below_nothing():
    refuse("fell at frame 0, y 0, x 0, channel 0", writer()[0].eds_cumulative, np.full((4, 6, 8), -1, "<i4"))


# --- what is refused, and where it is -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_haadf_that_is_not_finite(value: float):
    scan, sink = writer()
    values = np.zeros((2, 3), "<f4")
    values[1, 2] = value
    refuse("not finite at frame 2, y 2, x 5", scan.haadf, values, frame=2, y=1, x=3)
    assert sink.sent == []


def test_negative_counts():
    scan, sink = writer()
    dense = np.zeros((1, 2, 8), "<i4")
    dense[0, 1, 5] = -3
    refuse("negative EDS counts at frame 1, y 2, x 4, channel 5", scan.eds_dense, dense, frame=1, y=2, x=3)
    refuse("not negative .frame 0, y 1", scan.eds_events, np.array([[2, -1]]), np.array([0]), y=1)
    refuse("not negative", scan.eds_events, np.array([[1]]), np.array([-1]))
    assert sink.sent == []


def test_negative_haadf_is_legal():
    scan, sink = writer()
    scan.haadf(np.full((4, 6), -1.5, "<f4"))
    assert sink.sent[0].arrays[0].min() == -1.5


@pytest.mark.parametrize("counts", [np.array([[math.nan]]), np.array([[1.0]]), np.array([[True]]), np.array([["1"]])])
def test_counts_are_whole_numbers(counts: np.ndarray):
    refuse("whole numbers", writer()[0].eds_events, counts, np.array([1]))
    refuse("whole numbers|axes", writer()[0].eds_dense, np.zeros((1, 1, 8)).astype(counts.dtype))


def test_channels_and_counts_agree():
    scan, _ = writer()
    refuse("3 channels for 2 counts at frame 0, y 0", scan.eds_events, np.array([[2]]), np.array([1, 2, 3]))
    refuse("channel 8 .* beyond the 8", scan.eds_events, np.array([[1]]), np.array([8]))
    refuse("9 channels, the plan says 8", scan.eds_dense, np.zeros((1, 1, 9), "u1"))


@pytest.mark.parametrize(("y", "x"), [(-1, 0), (0, -1), (3, 0), (0, 5), (4, 6), (100, 0)])
def test_a_tile_outside_the_field(y: int, x: int):
    scan, _ = writer()
    refuse("not inside the field of 4 x 6", scan.haadf, np.zeros((2, 2), "<f4"), y=y, x=x)
    refuse("not inside the field of 4 x 6", scan.eds_dense, np.zeros((2, 2, 8), "u1"), y=y, x=x)
    refuse("not inside the field of 4 x 6", scan.eds_events, np.zeros((2, 2), "u1"), np.zeros(0, "u2"), y=y, x=x)


@pytest.mark.parametrize("shape", [(0, 6), (4, 0)])
def test_a_tile_of_nothing(shape: tuple[int, int]):
    refuse("not inside", writer()[0].haadf, np.zeros(shape, "<f4"))


@pytest.mark.parametrize("frame", [-1, 3, 1000])
def test_a_frame_that_is_not_planned(frame: int):
    refuse(f"frame {frame} of a scan planned with 3", writer()[0].haadf, np.zeros((1, 1), "<f4"), frame=frame)


def test_frames_count_from_nothing_also_in_an_open_ended_scan():
    scan, sink = writer(msgspec.structs.replace(PLAN, frames=None))
    refuse("open-ended", scan.haadf, np.zeros((1, 1), "<f4"), frame=-1)
    scan.haadf(np.zeros((1, 1), "<f4"), frame=10_000)
    assert len(sink.sent) == 1


def test_places_are_whole_numbers_and_numpys_will_do():
    scan, sink = writer()
    for frame in np.arange(3):
        scan.haadf(np.zeros((1, 1), "<f4"), frame=frame, y=np.int32(1), x=np.uint8(2))
    assert [(t.header.frame, t.header.y, t.header.x) for t in sink.sent] == [(f, 1, 2) for f in range(3)]
    refuse("y of a tile is a whole number, got 0.5", scan.haadf, np.zeros((1, 1), "<f4"), y=0.5)


def test_the_plan_says_what_there_is():
    only = msgspec.structs.replace(PLAN, eds=None)
    refuse("no eds", writer(only)[0].eds_dense, np.zeros((1, 1, 8), "u1"))
    refuse("comes as uint16, the plan says <f4", writer()[0].haadf, np.zeros((4, 6), "u2"))
    refuse("2 axes, got 1", writer()[0].haadf, np.zeros(6, "<f4"))
    refuse("3 axes, got 2", writer()[0].eds_dense, np.zeros((4, 6), "u1"))


@pytest.mark.parametrize("dtype", ["complex64", "bool", "float16", "object", "U3", "nonsense", ">u2"])
def test_a_plan_whose_data_could_not_travel(dtype: str):
    with pytest.raises(ValueError, match="use one such as|convert to one of"):
        Haadf(sampling=FIELD, dtype=dtype)


def test_a_dtype_may_be_named_as_numpy_names_it():
    assert Haadf(sampling=FIELD, dtype="uint16").dtype == "<u2"


def test_a_plan_that_the_service_would_not_read(tmp_path: Any):
    refuse("not legal", check_plan, msgspec.structs.replace(PLAN, source=5))
    refuse("not legal", check_plan, msgspec.structs.replace(PLAN, stage={"x": object()}))
    with Acquisition("s1", Endpoint(f"ipc://{tmp_path}/a")) as acquisition:
        refuse("cannot be sent: .*finite", acquisition.start_scan, msgspec.structs.replace(PLAN, stage={"x": math.nan}))
        refuse("cannot be sent: .*header", acquisition.start_scan, msgspec.structs.replace(PLAN, source="x" * 2**24))


# --- bands --------------------------------------------------------------------------------------------------


def test_a_large_frame_goes_out_in_bands_of_rows():
    scan, sink = writer(large(1024, 1024))
    values = np.arange(2**20, dtype="<f4").reshape(1024, 1024)
    scan.haadf(values)
    assert len(sink.sent) == 16 == scan.totals.sent.haadf_tiles
    assert [t.header.y for t in sink.sent] == list(range(0, 1024, 64))
    np.testing.assert_array_equal(np.vstack([t.arrays[0] for t in sink.sent]), values)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 40), busy=st.sampled_from([0, 10, 3000]))
def test_photons_stay_with_their_pixels_in_bands(seed: int, rows: int, busy: int):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, busy + 1, (rows, 5)) * rng.integers(0, 2, (rows, 1))
    channels = rng.integers(0, 8, counts.sum()).astype("<u2")
    scan, sink = writer(large(50, 6))
    scan.eds_events(counts, channels, y=3, x=1)
    spectra = np.zeros((50, 6, 8), int)
    for tile in sink.sent:
        part, energies = tile.arrays
        ys, xs = np.divmod(np.repeat(np.arange(part.size), part.ravel()), part.shape[1])
        np.add.at(spectra, (ys + tile.header.y, xs + tile.header.x, energies), 1)
        assert part.shape[0] == 1 or tile.nbytes < 2**18 + 2000
    expected = np.zeros((50, 6, 8), int)
    ys, xs = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), 5)
    np.add.at(expected, (ys + 3, xs + 1, channels), 1)
    np.testing.assert_array_equal(spectra, expected)
    assert scan.totals.sent.eds_counts == counts.sum() and scan.totals.sent.eds_tiles == len(sink.sent)


def test_dense_spectra_come_back_whole():
    scan, sink = writer(large(16, 16, channels=4096))
    values = np.random.default_rng(1).poisson(0.01, (16, 16, 4096)).astype("<i8")
    values[3, 4, 5] = 70_000
    scan.eds_dense(values)
    np.testing.assert_array_equal(np.vstack([t.arrays[0] for t in sink.sent]), values)
    assert scan.totals.sent.eds_counts == values.sum()
    refuse("beyond 32 bits", scan.eds_dense, np.full((1, 1, 4096), 2**40))


# --- the end ------------------------------------------------------------------------------------------------


def test_the_end_states_what_was_sent_and_comes_once():
    scan, sink = writer()
    with scan:
        scan.haadf(np.zeros((4, 6), "<f4"), frame=1)
        scan.eds_events(np.array([[2, 1]]), np.array([1, 2, 3]), frame=2)
        scan.end()
        scan.end("aborted")
    ends = [t.header for t in sink.sent if isinstance(t.header, m.ScanEnd)]
    assert [(e.status, e.frames, e.haadf_tiles, e.eds_tiles, e.eds_counts) for e in ends] == [("complete", 3, 1, 1, 3)]
    refuse("has ended", scan.haadf, np.zeros((4, 6), "<f4"))


def test_what_was_refused_is_not_counted():
    scan, sink = writer()
    with pytest.raises(SourceError), scan:
        scan.haadf(np.zeros((4, 6), "<f4"))
        scan.haadf(np.full((4, 6), np.nan, "<f4"))
    (end,) = (t.header for t in sink.sent if isinstance(t.header, m.ScanEnd))
    assert (end.status, end.haadf_tiles) == ("aborted", 1)
    assert end.reason is not None and end.reason.startswith("SourceError: HAADF is not finite")


def test_a_long_reason_is_cut():
    scan, sink = writer()
    with pytest.raises(KeyboardInterrupt), scan:
        raise KeyboardInterrupt("x" * 10_000)
    assert sink.sent[-1].header.status == "aborted" and len(sink.sent[-1].header.reason) == 4096


def test_who_stops_a_scan_by_hand_is_told_so():
    scan, sink = writer()
    with pytest.raises(KeyboardInterrupt), scan:
        raise KeyboardInterrupt
    assert sink.sent[-1].header.reason == "stopped by hand (Ctrl-C or SIGTERM)"


# --- pace ---------------------------------------------------------------------------------------------------


def test_a_tile_is_due_when_the_beam_has_swept_it():
    pace = Pace(PLAN, speed=2.0)
    assert pace.frame_s == pytest.approx(24 * 1e-3 / 2)
    tile = HaadfTile(frame=1, y=2, x=0, values=np.zeros((1, 6), "<f4"))
    assert pace.due_s(tile) == pytest.approx(1.75 * pace.frame_s)
    photons = EdsEvents(frame=0, y=0, x=0, counts=np.zeros((4, 6), "u1"), channels=np.zeros(0, "u2"))
    assert pace.due_s(photons) == pytest.approx(pace.frame_s)
    assert Pace(PLAN, None).due_s(tile) == 0.0
    assert Pace(msgspec.structs.replace(PLAN, dwell_s=None), 1.0).due_s(tile) == 0.0
