"""Frames in their places: whatever the order, the tiles, the holes and the repairs, one sum and one digest."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import AXIS, FolderStore, dense, messages

from livestem.domain.geometry import Sampling, plan_grid
from livestem.domain.limits import Limits
from livestem.domain.parameters import Processing
from livestem.domain.scan import Eds, Haadf, ScanPlan
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.runtime import accumulator as accumulating
from livestem.runtime.accumulator import Accumulator, memory_bytes
from livestem.runtime.conclude import conclude, final_messages
from livestem.runtime.decision import Decisions
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Collected
from livestem.runtime.ingest import Ingest
from livestem.runtime.metrics import Metrics
from livestem.runtime.recipe import resolve
from livestem.runtime.results import write_result
from livestem.runtime.saved import read_result
from livestem.wire import messages as m

SIDE, FRAMES, ROWS = 48, 6, 12
STEP = (1.6, -0.9)  # pixels a frame
RNG = np.random.default_rng(0)
SPOTS = RNG.uniform(-10, SIDE + 10, (60, 2))


def plan(haadf: str | None = "<u2", frames: int | None = FRAMES, eds_pixel: int = 1, **changes) -> ScanPlan:
    fine = Sampling(shape=(SIDE, SIDE), pixel_nm=(0.5, 0.5))
    coarse = Sampling(shape=(SIDE // eds_pixel,) * 2, pixel_nm=(0.5 * eds_pixel,) * 2)
    given = {"haadf": None if haadf is None else Haadf(sampling=fine, dtype=haadf), "frames": frames, "dwell_s": 1e-6}
    return ScanPlan(**given | {"eds": Eds(sampling=coarse, energy=AXIS)} | changes)


def field(frame: int) -> np.ndarray:
    """Return what a frame shows, 0 to 1: irregular spots, further on with every frame."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    at = SPOTS - frame * np.array(STEP)
    return np.exp(-((y[..., None] - at[:, 0]) ** 2 + (x[..., None] - at[:, 1]) ** 2) / 4).sum(axis=-1).clip(0, 1)


def tiles(of: ScanPlan, seed: int = 0, rows: int = ROWS) -> list:
    rng = np.random.default_rng(seed)
    found = []
    for frame in range(of.frames or FRAMES):
        bright = 100 + 400 * field(frame)
        if of.haadf is not None:
            values = rng.poisson(bright) + (rng.random(bright.shape) if of.haadf.dtype == "<f4" else 0)
        if of.eds is not None:
            side = of.eds.sampling.shape[0]
            counts = rng.poisson(field(frame)[:: SIDE // side, :: SIDE // side] * 3).astype(np.uint8)
            channels = rng.integers(0, AXIS.channels, int(counts.sum())).astype(np.uint16)
            ends = [0, *np.cumsum(counts.sum(axis=1)).tolist()]
        for y in range(0, SIDE, rows):
            if of.haadf is not None:
                found.append(HaadfTile(frame=frame, y=y, x=0, values=values[y : y + rows].astype(of.haadf.dtype)))
            if of.eds is not None:
                first, last = y * side // SIDE, (y + rows) * side // SIDE
                part = channels[ends[first] : ends[last]]
                found.append(EdsEvents(frame=frame, y=first, x=0, counts=counts[first:last], channels=part))
    return found


def accumulator(of: ScanPlan, register: str = "frames") -> Accumulator:
    haadf, eds = (None if part is None else part.sampling for part in (of.haadf, of.eds))
    return Accumulator(of, plan_grid(haadf, eds, chip_px=8), register)


def streamed(of: ScanPlan, parts: list) -> list:
    return list(messages(of, parts))[1:-1]


def filled(of: ScanPlan, stream: list, register: str = "frames") -> Accumulator:
    made = accumulator(of, register)
    for message in stream:
        made.apply(message)
    made.finish()
    return made


def state(made: Accumulator) -> tuple:
    """Return everything that finals rest on."""
    arrays = [a for part in (made.haadf, made.eds) if part is not None for a in (part.exposure, part.left)]
    arrays += [] if made.haadf is None else [made.haadf.total()]
    arrays += [] if made.eds is None else [made.eds.spectra, made.eds.counts]
    return made.input_digest(), made.registration, *(np.asarray(a).tobytes() for a in arrays)


# --- where data go


def test_shifts_are_those_of_the_drift_and_data_follow_them():
    of = plan()
    parts = tiles(of)
    made = filled(of, streamed(of, parts))
    found = made.registration
    estimates = np.array([s.estimate_px for s in found.shifts])
    assert np.sqrt(np.mean((estimates - np.arange(FRAMES)[:, None] * STEP) ** 2)) < 0.2
    assert found.determined == FRAMES - 1 and found.warnings == ()
    image, visits = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), int)
    cube = np.zeros((SIDE, SIDE, AXIS.channels), int)
    for part in parts:
        sy, sx = found.shifts[part.frame].haadf_px
        for row in range(ROWS):
            y, columns = part.y + row + sy, np.arange(SIDE) + sx
            inside = (columns >= 0) & (columns < SIDE)
            if not 0 <= y < SIDE:
                continue
            if isinstance(part, HaadfTile):
                image[y, columns[inside]] += part.values[row][inside]
                visits[y, columns[inside]] += 1
            else:
                cube[y, columns[inside]] += dense(part).values[row][inside]
    assert np.array_equal(made.haadf.total(), image) and np.array_equal(made.haadf.exposure, visits)
    assert np.array_equal(made.eds.exposure, visits)
    chips = cube.reshape(6, 8, 6, 8, -1).sum(axis=(1, 3)).reshape(36, -1)
    assert np.array_equal(made.eds.spectra[:-1], chips)
    assert made.eds.left == made.eds.counts - cube.sum() > 0
    assert made.haadf.left == FRAMES * SIDE**2 - visits.sum() > 0
    assert made.coverage().haadf == made.coverage().eds == 1.0, "coverage is what came, not where it went"


def test_the_registered_sum_is_sharp_where_the_plain_sum_is_not():
    of = plan()
    stream = streamed(of, tiles(of))
    spread = {way: filled(of, stream, way).haadf.mean()[12:-12, 12:-12].std() for way in ("frames", "none")}
    assert spread["frames"] > 1.2 * spread["none"]


def test_what_registration_moves_is_as_bright_per_visit():
    of = plan()
    data = Collected.of(filled(of, streamed(of, tiles(of))), final=True)
    assert data.haadf_exposure.min() >= 1 and data.haadf_exposure.max() == FRAMES
    assert (data.visits() <= 1).all() and data.visits().min() < 0.9
    edge, inner = data.haadf[:8], data.haadf[8:40, 8:40]
    assert 0.7 < edge.mean() / inner.mean() < 1.3


def test_eds_of_larger_pixels_rounds_the_same_shift_for_itself():
    of = plan(eds_pixel=4)
    found = filled(of, streamed(of, tiles(of))).registration
    for shift in found.shifts:
        assert shift.haadf_px == tuple(round(v) for v in shift.estimate_px)
        assert shift.eds_px == tuple(round(v / 4) for v in shift.estimate_px)
    assert found.shifts[-1].eds_px == (2, -1)


# --- however it comes


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple]:
    return {
        d: (parts, state(filled(plan(d), streamed(plan(d), parts))))
        for d in ("<u2", "<f4")
        if (parts := tiles(plan(d)))
    }


@settings(max_examples=15, deadline=None)
@given(order=st.randoms(use_true_random=False), dtype=st.sampled_from(["<u2", "<f4"]))
def test_order_repetition_and_form_do_not_matter(whole, order, dtype):
    parts, expected = whole[dtype]
    again = [dense(p) if isinstance(p, EdsEvents) and order.random() < 0.3 else p for p in parts]
    stream = streamed(plan(dtype), again)
    stream += order.sample(stream, 4)
    order.shuffle(stream)
    assert state(filled(plan(dtype), stream)) == expected


def test_tiles_of_another_height_give_the_same():
    of = plan()
    assert state(filled(of, streamed(of, tiles(of, rows=4)))) == state(filled(of, streamed(of, tiles(of, rows=48))))


def test_what_came_has_one_digest_registered_or_not():
    of = plan()
    stream = streamed(of, tiles(of))
    ways = [filled(of, stream, way) for way in ("frames", "none")]
    assert ways[0].input_digest() == ways[1].input_digest()
    assert not np.array_equal(ways[0].haadf.exposure, ways[1].haadf.exposure)


@pytest.mark.parametrize("swap", ["haadf frames", "eds frames", "photon"])
def test_what_is_not_the_same_has_another_digest(swap):
    of = plan()
    parts = tiles(of)
    changed = list(parts)
    kind = HaadfTile if swap == "haadf frames" else EdsEvents
    i, j = (next(k for k, p in enumerate(parts) if isinstance(p, kind) and p.frame == f) for f in (2, 3))
    if swap == "photon":
        channels = parts[i].channels.copy()
        channels[0] ^= 1
        changed[i] = EdsEvents(frame=2, y=0, x=0, counts=parts[i].counts, channels=channels)
    else:  # every sum over frames stays the same
        for here, there in ((i, j), (j, i)):
            fields = {k: v for k, v in vars(parts[there]).items() if k != "frame"}
            changed[here] = kind(frame=parts[here].frame, **fields)
    assert filled(of, streamed(of, changed)).input_digest() != filled(of, streamed(of, parts)).input_digest()


@pytest.mark.parametrize("lost", [(0, ROWS), (2, ROWS), (FRAMES - 1, 0)])
def test_a_hole_is_a_hole_however_the_rest_comes(lost):
    of = plan()
    stream = streamed(of, [p for p in tiles(of) if (p.frame, p.y) != lost])
    forwards, backwards = filled(of, stream), filled(of, stream[::-1])
    assert state(forwards) == state(backwards) and not forwards.late
    assert len(forwards.missing()) == 2
    assert forwards.registration.determined >= FRAMES - 2


def test_a_frame_that_never_came_leaves_the_others_in_their_places():
    of = plan()
    made = filled(of, streamed(of, [p for p in tiles(of) if p.frame != 3]))
    estimates = np.array([s.estimate_px for s in made.registration.shifts])
    assert [s.determined for s in made.registration.shifts] == [True, True, True, False, True, True]
    assert np.abs(estimates - np.arange(FRAMES)[:, None] * STEP).max() < 0.5
    assert made.registration.warnings == (f"1 of {FRAMES} frames showed no shift and lie where drift was going",)


# --- while it comes


def test_a_live_look_sees_what_waits_where_it_is_expected():
    of = plan()
    made = accumulator(of)
    for message in streamed(of, [p for p in tiles(of) if p.frame < 3 or (p.frame == 3 and p.y == 0)]):
        made.apply(message)
    assert made.haadf.exposure.max() == 3, "the frame under way waits for its shift"
    shown = Collected.of(made, final=False)
    assert shown.haadf_exposure.max() == 4
    assert np.array_equal(shown.haadf_exposure, Collected.of(made, final=False, exposure_only=True).haadf_exposure)
    assert np.array_equal(shown.eds_exposure, made.exposures()["eds"])
    first = np.flatnonzero((shown.haadf_exposure == 4).any(axis=1))[0]
    assert first == round(3 * STEP[0])
    assert shown.total.sum() > made.eds.spectra.sum()
    assert np.array_equal(Collected.of(made, final=True).haadf_exposure, made.haadf.exposure)


def test_a_frame_that_lands_elsewhere_dirties_both_places():
    of = plan()
    made = accumulator(of)
    *before, last = [p for p in streamed(of, tiles(of)) if p.header.frame < 2]
    for message in before[:-1]:
        made.apply(message)
    changed = made.changed["haadf"]
    changed.take()
    made.apply(before[-1])  # completes the HAADF of frame 1, expected to lie on frame 0
    assert made.registration.shifts[1].haadf_px != (0, 0) and changed.chips[:-1].all()
    changed.take()
    made.apply(last)
    assert not changed and 0 < made.changed["eds"].chips.sum() < changed.chips.size


def test_too_much_waiting_lets_a_hole_go_and_its_data_are_late(monkeypatch):
    monkeypatch.setattr(accumulating, "MOST_WAITING", 3 * SIDE * SIDE * 2)
    of = plan()
    stream = streamed(of, tiles(of))
    late = [message for message in stream if message.header.frame == 1][0]
    made = accumulator(of)
    for message in stream:
        if message is not late:
            made.apply(message)
    assert not made.late and len(made.registration.shifts) == FRAMES
    made.apply(late)
    made.finish()
    assert made.late and made.coverage().haadf == 1.0
    assert made.input_digest() == filled(of, stream).input_digest()


def test_memory_is_bounded_by_what_may_wait():
    of = plan()
    grid = accumulator(of).grid
    more = memory_bytes(of, grid, "frames") - memory_bytes(of, grid)
    assert accumulating.MOST_WAITING < more < 2 * accumulating.MOST_WAITING


# --- whole scans


ASKED = Processing(elements=("Fe", "Ti"), chip_px=8, clusters=2)


def concluded(tmp_path, of: ScanPlan, stream: list, asked: Processing = ASKED):
    """Return the result of a scan by ingest, journal and finals."""
    finished: list = []
    ingest = Ingest(
        FolderStore(tmp_path),
        Decisions(asked, Encoders(), tmp_path),
        Limits(),
        Metrics(),
        lambda *job: finished.append(job),
    )
    for message in stream:
        ingest.apply(message)
    ingest.settle("s1", 7, 10**9)
    ((scan, status),) = finished
    return conclude(scan, status, Encoders(None))


def test_late_data_give_the_digest_of_data_in_time(tmp_path, monkeypatch):
    of = plan()
    start, *stream, end = messages(of, tiles(of))
    in_time = concluded(tmp_path / "a", of, [start, *stream, end])
    monkeypatch.setattr(accumulating, "MOST_WAITING", 3 * SIDE * SIDE * 2)
    late = [message for message in stream if message.header.frame == 1]
    rest = [message for message in stream if message.header.frame != 1]
    after = concluded(tmp_path / "b", of, [start, *rest, *late, end])
    assert after.registration == in_time.registration
    assert (after.input_digest, after.finals.digest) == (in_time.input_digest, in_time.finals.digest)
    assert after.status == in_time.status == "complete"


def test_the_result_says_where_frames_were_moved(tmp_path):
    of = plan()
    result = concluded(tmp_path / "s", of, list(messages(of, tiles(of))))
    folder = tmp_path / "out"
    folder.mkdir()
    write_result(folder, result)
    said = json.loads((folder / "result.json").read_bytes())
    assert said["parameters"]["register"] == "frames"
    found = said["registration"]
    assert found["frames"] == FRAMES and found["determined"] == FRAMES - 1
    assert found["shifts_nm"][-1] == pytest.approx([0.5 * v for v in found["estimates_px"][-1]])
    assert found["drift_nm"] == found["shifts_nm"][-1] and found["left"]["eds"] > 0
    assert found["haadf_px"] == found["eds_px"] and all(found["frame_determined"])
    assert read_result(folder).registered
    with h5py.File(folder / "result.hspy") as file:
        visits = file["Experiments/HAADF exposure/data"][:]
        moved = file["Experiments/HAADF/metadata/livestem/registration/haadf_px"][:]
    assert np.array_equal(visits, result.finals.data.haadf_exposure) and moved.tolist() == found["haadf_px"]
    sent = final_messages(result)
    assert isinstance(sent[-1][0], m.ScanDone)
    header, (estimates, whole_px, determined) = next(s for s in sent if isinstance(s[0], m.Registration))
    assert header.determined == FRAMES - 1 and header.drift_nm == tuple(found["drift_nm"])
    assert np.allclose(estimates, found["estimates_px"]) and whole_px.tolist() == found["haadf_px"]
    assert determined.tolist() == [1] * FRAMES


@pytest.mark.parametrize(
    ("changes", "asked", "reason"),
    [
        ({}, "none", "switched off"),
        ({"frames": 1}, None, "the scan has one frame"),
        ({"haadf": None}, "frames", "the scan has no HAADF"),
    ],
)
def test_where_nothing_is_registered_the_result_says_why(tmp_path, changes, asked, reason):
    of = plan(**changes)
    wanted = Processing(elements=("Fe", "Ti"), chip_px=8, clusters=2, register=asked)
    result = concluded(tmp_path / "s", of, list(messages(of, tiles(of))), wanted)
    folder = tmp_path / "out"
    folder.mkdir()
    write_result(folder, result)
    said = json.loads((folder / "result.json").read_bytes())
    assert said["parameters"]["register"] == "none" and said["registration"] == {"reason": reason}
    assert not read_result(folder).registered


def test_one_picture_of_many_eds_frames_is_not_registered():
    sampling = Sampling(shape=(SIDE, SIDE), pixel_nm=(0.5, 0.5))
    of = ScanPlan(haadf=Haadf(sampling=sampling, dtype="<u2", frames=1), eds=plan().eds, frames=FRAMES)
    assert of.not_to_register == "HAADF and EDS do not come frame by frame together"
    assert resolve(of, Processing(elements=("Fe",)))[1].register == "none"


def test_an_open_ended_scan_is_registered_as_it_goes():
    of = plan(frames=None)
    made = filled(of, streamed(of, tiles(of)))
    assert made.registration.determined == FRAMES - 1
    assert made.drift_nm == pytest.approx([0.5 * v for v in made.registration.shifts[-1].estimate_px])
