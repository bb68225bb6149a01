"""Scans that end anywhere: finals of what is there, not skewed by it, and nothing that is not a number."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import ASKED, AXIS, TRUTH, messages, plan, tiles
from test_registration import field

from livestem.domain.geometry import Sampling, plan_grid
from livestem.domain.parameters import Processing
from livestem.domain.scan import Eds, Haadf, ScanPlan
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.batch import run_batch
from livestem.runtime.features import Collected, eds_features
from livestem.runtime.settings import Settings
from livestem.wire import messages as m

SIDE, CHIP, FRAMES = 24, 4, 3
KINDS = ["both", "haadf", "eds", "fine haadf", "fine eds"]


def planned(kind: str, frames: int | None = FRAMES) -> ScanPlan:
    """Return the plan of a field of 24 x 24 nm with a modality, or both, one perhaps at half the pixel."""
    whole, fine = (Sampling(shape=(n, n), pixel_nm=(SIDE / n,) * 2) for n in (SIDE, 2 * SIDE))
    haadf = None if kind == "eds" else Haadf(sampling=fine if kind == "fine haadf" else whole, dtype="<u2")
    eds = None if kind == "haadf" else Eds(sampling=fine if kind == "fine eds" else whole, energy=AXIS)
    return ScanPlan(haadf=haadf, eds=eds, frames=frames, dwell_s=1e-6)


def rows_of(of: ScanPlan, until: dict[str, int], last: int = FRAMES - 1):
    """Yield the rows of a scan whose every frame is the same, the last as far as `until` says."""
    for frame in range(last + 1):
        for modality in of.modalities:
            height, width = of.sampling(modality).shape
            for y in range(height if frame < last else until[modality]):
                if modality == "haadf":
                    values = 200 + 7 * y + 3 * np.arange(width, dtype="<u2")[None]
                    yield HaadfTile(frame=frame, y=y, x=0, values=values.astype("<u2"))
                else:
                    right = np.arange(width) >= width // 2
                    channels = np.where(np.repeat(right, 6), 461, 650) + np.tile([-2, -1, 0, 0, 1, 2], width)
                    yield EdsEvents(
                        frame=frame, y=y, x=0, counts=np.full((1, width), 6, "u1"), channels=channels.astype("<u2")
                    )


class Cut:
    """A source that ends somewhere, as the operator stops it."""

    scan_id = "cut"

    end = m.ScanEnd(scan_id="cut", status="aborted", frames=0, haadf_tiles=0, eds_tiles=0, eds_counts=0, reason="cut")

    def __init__(self, of: ScanPlan, parts) -> None:
        self.plan, self._parts = of, list(parts)

    def tiles(self, rows_per_tile=None):
        yield from self._parts


def collected(of: ScanPlan, parts) -> Collected:
    haadf, eds = (None if part is None else part.sampling for part in (of.haadf, of.eds))
    made = Accumulator(of, plan_grid(haadf, eds, chip_nm=CHIP))
    for message in list(messages(of, list(parts)))[1:-1]:
        made.apply(message)
    return Collected.of(made, final=True)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    frames=st.sampled_from([None, FRAMES, FRAMES + 2]),
    cut=st.tuples(st.integers(0, 2 * SIDE), st.integers(0, 2 * SIDE)),
)
def test_a_last_frame_in_part_skews_no_mean(kind, frames, cut):
    """Every pixel and chip of the frames before is as it would be of a whole scan, to the last bit or so."""
    of = planned(kind, frames)
    heights = {modality: of.sampling(modality).shape[0] for modality in of.modalities}
    until = {modality: min(row, heights[modality]) for modality, row in zip(of.modalities, cut, strict=False)}
    whole, part = collected(of, rows_of(of, heights)), collected(of, rows_of(of, until))
    for modality in of.modalities:
        assert part.valid(modality).all()
    if of.haadf is not None:
        np.testing.assert_array_equal(part.haadf, whole.haadf)
    if of.eds is not None:
        (of_part,), (of_whole,) = (eds_features(d, ("eds",), None, final=True).values() for d in (part, whole))
        assert np.isfinite(of_part.rows).all()
        if part.eds_visits.max() == FRAMES:  # some chip was swept to the end: both count in the same visits
            np.testing.assert_allclose(of_part.rows, of_whole.rows, rtol=1e-12)
        np.testing.assert_allclose(of_part.numbers, of_whole.numbers, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), row=st.integers(0, 2 * SIDE))
def test_of_a_first_frame_in_part_the_rest_is_no_data(kind, row):
    of = planned(kind, None)
    heights = {modality: of.sampling(modality).shape[0] for modality in of.modalities}
    share = row / (2 * SIDE)
    until = {modality: round(share * height) for modality, height in heights.items()}
    data = collected(of, rows_of(of, until, last=0))
    for modality, rows in until.items():
        side = CHIP * heights[modality] // SIDE
        swept = np.clip(rows - side * np.arange(SIDE // CHIP), 0, side) / side
        expected = np.repeat(swept >= 0.5, SIDE // CHIP)
        np.testing.assert_array_equal(data.valid(modality), expected)
    if of.haadf is not None:
        assert np.isfinite(data.haadf).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("last", "share"), [(0, 0.6), (1, 0.05), (2, 0.55), (0, 0.02), (2, 0.0)])
def test_finals_of_a_cut_scan_are_numbers_and_no_data_is_minus_one(kind, last, share, tmp_path):
    of = planned(kind)
    until = {modality: round(share * of.sampling(modality).shape[0]) for modality in of.modalities}
    asked = Processing(elements=ASKED.elements, chip_nm=float(CHIP), clusters=2)
    of = msgspec.structs.replace(of, processing=asked)
    result = run_batch(Cut(of, rows_of(of, until, last)), of, Settings(), tmp_path / "out")
    assert (result.status, result.reason) == ("aborted", "aborted: cut")
    text = (tmp_path / "out" / "result.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in result.json"))
    sides = {modality: CHIP * of.sampling(modality).shape[0] // SIDE for modality in of.modalities}
    with np.load(tmp_path / "out" / "labels.npz") as maps:
        assert sorted(maps) == sorted(found["classes"])
        for name, labels in maps.items():
            parts = {"haadf" if part == "haadf" else "eds" for part in name.partition(".")[2].split("+")}
            chips = [
                SIDE // CHIP if last else int(np.clip((until[part] + sides[part] / 2) // sides[part], 0, SIDE // CHIP))
                for part in parts
            ]
            assert (labels[: min(chips)] >= 0).all() and (labels[min(chips) :] == -1).all()
    for region in found["regions"].get("ward.lines", []):
        assert max(region["atomic_percent"].values()) > 99
    with np.load(tmp_path / "out" / "coverage.npz") as maps:
        assert all(np.isfinite(maps[name]).all() for name in maps)


def test_a_random_scan_is_unbiased_where_it_was_swept_less():
    """Of noise no two cuts are equal; their means are, within it."""
    of = plan(frames=6)
    parts = tiles(of, rows=4)
    cut = [p for p in parts if p.frame < 3 or (p.frame == 3 and p.y < 12)]
    whole, part = collected(of, parts), collected(of, cut)
    top, bottom = part.haadf[:12] - whole.haadf[:12], part.haadf[12:] - whole.haadf[12:]
    assert abs(top.mean()) < 4 * top.std() / np.sqrt(top.size)
    assert abs(bottom.mean()) < 4 * bottom.std() / np.sqrt(bottom.size)
    counts = [eds_features(d, ("eds",), None, final=True)["eds"].numbers.sum(axis=1) for d in (part, whole)]
    assert counts[0].reshape(TRUTH.shape)[:3].mean() == pytest.approx(counts[1].mean(), rel=0.02)
    assert counts[0].reshape(TRUTH.shape)[3:].mean() == pytest.approx(counts[1].mean(), rel=0.02)


@pytest.mark.parametrize("rows", [1, 6, 15, 16, 24, 40, 41, 47])
def test_a_registered_last_frame_in_part_lies_right_or_where_drift_was_going(rows):
    frames, step = 5, np.array((1.6, -0.9))
    sampling = Sampling(shape=(48, 48), pixel_nm=(0.5, 0.5))
    of = ScanPlan(haadf=Haadf(sampling=sampling, dtype="<u2"), frames=None)
    rng = np.random.default_rng(0)
    parts = []
    for frame in range(frames):
        values = rng.poisson(100 + 400 * field(frame)).astype("<u2")
        parts.append(HaadfTile(frame=frame, y=0, x=0, values=values[: rows if frame == frames - 1 else 48]))
    made = Accumulator(of, plan_grid(sampling, None, chip_px=8), "frames")
    for message in list(messages(of, parts))[1:-1]:
        made.apply(message)
    made.finish()
    last = made.registration.shifts[-1]
    assert np.abs(np.array(last.estimate_px) - (frames - 1) * step).max() < 1.0
    if rows < 16:
        assert not last.determined
