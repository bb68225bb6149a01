"""Coverage maps: what is missing of which chip, and how often its place was visited."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import ASKED, messages, plan, tiles
from scipy.ndimage import gaussian_filter
from test_batch import Field, run

from livestem.domain.errors import WireError
from livestem.domain.geometry import Sampling, plan_grid
from livestem.domain.scan import Eds, Haadf, ScanPlan
from livestem.domain.tiles import HaadfTile
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.covered import Covered
from livestem.wire import messages as m
from livestem.wire.arrays import check_arrays


def counted(of, parts, register="none"):
    grid = plan_grid(of.haadf.sampling if of.haadf else None, of.eds.sampling if of.eds else None, chip_px=4)
    made = Accumulator(of, grid, register)
    for message in list(messages(of, parts))[1:-1]:
        made.apply(message)
    made.finish()
    return made


def by_hand(of, parts, modality, frames, side):
    """Return the share of every chip's pixels that the tiles hold, counted pixel by pixel."""
    came = np.zeros(of.sampling(modality).shape)
    for part in parts:
        if isinstance(part, HaadfTile) is (modality == "haadf"):
            rows = len(part.values if modality == "haadf" else part.counts)
            came[part.y : part.y + rows] += 1
    rows, cols = came.shape[0] // side, came.shape[1] // side
    return came[: rows * side, : cols * side].reshape(rows, side, cols, side).mean(axis=(1, 3)) / frames


@settings(max_examples=30, deadline=None)
@given(chance=st.randoms(use_true_random=False), frames=st.sampled_from([None, 3]))
def test_the_map_is_the_share_of_what_was_expected_that_came(chance, frames):
    of = plan((26, 24), frames=3)
    parts = [part for part in tiles(of, rows=3) if chance.random() < 0.7]
    begun = max((part.frame for part in parts), default=-1) + 1
    made = counted(plan((26, 24), frames=frames), parts)
    found = Covered.of(made)
    for modality in ("haadf", "eds"):
        expected = by_hand(of, parts, modality, frames or begun, 4)
        np.testing.assert_allclose(found.coverage[modality], expected, atol=1e-6)
        np.testing.assert_allclose(found.visits[modality], expected * (frames or begun), atol=1e-5)
        assert found.coverage[modality].dtype == np.float32 and found.coverage[modality].shape == (6, 6)


def test_the_modalities_may_be_sampled_differently():
    fine, coarse = (Sampling(shape=(n, n), pixel_nm=(48 / n,) * 2) for n in (48, 24))
    of = ScanPlan(haadf=Haadf(sampling=fine, dtype="<u2"), eds=Eds(sampling=coarse, energy=plan().eds.energy), frames=2)
    parts = [p for p in tiles(plan((24, 24)), rows=8) if not isinstance(p, HaadfTile)][:4]
    parts += [HaadfTile(frame=0, y=0, x=0, values=np.ones((46, 48), "u2"))]
    found = Covered.of(counted(of, parts))
    assert found.coverage["haadf"].shape == found.coverage["eds"].shape == (12, 12)
    assert (found.coverage["haadf"][:11] == 0.5).all() and (found.coverage["haadf"][11] == 0.25).all()
    assert (found.coverage["eds"][:4] == 1).all() and (found.coverage["eds"][4:] == 0.5).all()
    assert found.as_json()["eds"] == {"least": 0.5, "chips_in_part": 96, "chips_without": 0}


def test_a_moved_frame_is_missing_nowhere_but_its_rim_was_visited_less():
    rng = np.random.default_rng(0)
    scene = rng.poisson(500 + 1000 * gaussian_filter(rng.random((40, 40)), 1.5)).astype("u2")
    of = plan((32, 32), frames=2, eds=False)
    parts = [HaadfTile(frame=i, y=0, x=0, values=scene[d : d + 32, d : d + 32]) for i, d in enumerate((4, 2))]
    made = counted(of, parts, register="frames")
    assert made.registration.shifts[1].haadf_px == (-2, -2)
    found = Covered.of(made)
    assert found.whole and found.as_json()["haadf"] == {"least": 1.0, "chips_in_part": 0, "chips_without": 0}
    assert (found.visits["haadf"][:-1, :-1] == 2).all() and (found.visits["haadf"][-1, :-1] == 1.5).all()


def test_the_last_frame_says_how_far_it_came():
    of = plan(frames=4)
    parts = [p for p in tiles(of) if p.frame < 2 or (p.frame == 2 and p.y == 0)]
    assert counted(of, parts).last_swept() == (2, {"haadf": (8, 24), "eds": (8, 24)})
    holed = [p for p in tiles(of) if not (p.frame == 3 and p.y == 8)]
    assert counted(of, holed).last_swept() == (3, {})
    assert counted(of, tiles(of)).last_swept() == (3, {})
    assert counted(of, []).last_swept() == (-1, {})


def test_a_result_has_its_maps_in_every_file(tmp_path):
    of = plan(frames=3)
    source = Field(of, [p for p in tiles(of) if p.frame < 2 or p.y == 0])
    source.end = m.ScanEnd(
        scan_id="field", status="aborted", frames=3, haadf_tiles=0, eds_tiles=0, eds_counts=0, reason="enough seen"
    )
    run(tmp_path / "out", source, elements=ASKED.elements)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("aborted", "aborted: enough seen")
    assert "frame 2, the last one, is here up to row 8 of 24" in result["warnings"]
    short = {"least": pytest.approx(2 / 3, abs=1e-6), "chips_in_part": 24, "chips_without": 0}
    assert result["coverage_map"] == {"haadf": short, "eds": short}
    with np.load(tmp_path / "out" / "coverage.npz") as maps:
        assert sorted(maps) == ["eds", "eds.visits", "haadf", "haadf.visits"]
        assert (maps["eds"][:2] == 1).all() and (maps["eds"][2:] == np.float32(2 / 3)).all()
        assert (maps["haadf.visits"][:2] == 3).all() and (maps["haadf.visits"][2:] == 2).all()
    import h5py

    with h5py.File(tmp_path / "out" / "result.hspy") as file:
        signal = file["Experiments/EDS coverage"]
        assert (signal["data"][()][:2] == 1).all() and signal["axis-1"].attrs["scale"] == 4.0
    with zipfile.ZipFile(tmp_path / "out" / "labels.npz") as archive:
        assert not [name for name in archive.namelist() if "coverage" in name]


@pytest.mark.parametrize(
    ("shares", "visits", "reason"),
    [
        (np.zeros((1, 2, 3), "f4"), np.zeros((2, 2, 3), "f4"), "payload"),
        (np.zeros((2, 2, 3), "f8"), np.zeros((2, 2, 3), "f4"), "payload"),
        (np.zeros((2, 2), "f4"), np.zeros((2, 2, 3), "f4"), "payload"),
        (np.zeros((2, 2, 3), "f4"), np.zeros((2, 3, 3), "f4"), "payload"),
        (np.full((2, 2, 3), 1.5, "f4"), np.zeros((2, 2, 3), "f4"), "value"),
        (np.full((2, 2, 3), -1, "f4"), np.zeros((2, 2, 3), "f4"), "value"),
        (np.zeros((2, 2, 3), "f4"), np.full((2, 2, 3), np.nan, "f4"), "value"),
    ],
)
def test_a_map_that_cannot_be_is_refused(shares, visits, reason):
    header = m.CoverageMap(scan_id="a", modalities=("haadf", "eds"), chip_nm=1.0, origin_nm=(0.0, 0.0))
    with pytest.raises(WireError) as caught:
        check_arrays(header, (shares, visits))
    assert caught.value.reason == reason
