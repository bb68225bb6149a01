"""Region descriptors: sizes, means, composition and lattice of hand-made label maps."""

from __future__ import annotations

import json
import math
from collections import deque
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from livestem.domain.errors import StageError
from livestem.domain.geometry import Grid
from livestem.domain.regions import Calibration, Region
from livestem.stages import region_haadf
from livestem.stages.descriptors import (
    MOST_PAIRED,
    RegionComposition,
    connected_components,
    describe,
    difference,
    differences,
)
from livestem.stages.region_haadf import HaadfChips, largest_square
from livestem.stages.spacing import lattice_of

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
GRID = Grid(rows=6, cols=8, chip_nm=0.75, chip_px=15, pixel_nm=0.05, haadf_px=15, eds_px=15)
LATTICE = ("d_spacing_nm", "d_spacing_sigma_nm", "d_fast_nm", "d_slow_nm")


def described(labels, *, grid, haadf_mean_image=None, haadf_exposure=None, **further) -> tuple[Region, ...]:
    """Describe a map on a picture that is cut for it alone."""
    haadf = None if haadf_mean_image is None else HaadfChips.of(haadf_mean_image, haadf_exposure, grid)
    return describe(labels, grid=grid, haadf=haadf, **further)


def perovskite(shape: tuple[int, int], pixel_nm: float = 0.05) -> np.ndarray:
    """Columns on a 0.3905 nm lattice along the scan, unequal at corner and centre of the cell."""
    y, x = (np.mgrid[: shape[0], : shape[1]] + 0.5) * pixel_nm * 2 * np.pi / 0.3905
    corner = np.exp(3 * (np.cos(x) + np.cos(y) - 2))
    centre = np.exp(3 * (-np.cos(x) - np.cos(y) - 2))
    return 100 * (0.2 + corner + 0.4 * centre)


def two_halves() -> np.ndarray:
    labels = np.zeros(GRID.shape, np.int16)
    labels[:, 4:] = 1
    return labels


def composition(member: np.ndarray) -> RegionComposition:
    return RegionComposition(
        counts=int(member.sum()) * 10,
        atomic_percent={"La": 20.0, "N": None},
        sigma={"La": 0.5, "N": None},
        extraneous_percent=1.5,
        notes={"atomic_percent.N": "hidden under Ti Ll"},
    )


def without_reason(region: Region) -> list[str]:
    """Fields of a region that are None and do not say why."""
    silent = [f for f in Region.__struct_fields__ if getattr(region, f) is None and f not in region.notes]
    for f in ("atomic_percent", "atomic_percent_sigma"):
        silent += [e for e, v in (getattr(region, f) or {}).items() if v is None and f"{f}.{e}" not in region.notes]
    return silent


# --- squares and components ---------------------------------------------------------------------------------


@given(MASKS)
def test_the_largest_square_is_the_largest_and_the_first(mask):
    rows, cols = mask.shape
    squares = [
        (-side, row, col)
        for side in range(1, min(rows, cols) + 1)
        for row in range(rows - side + 1)
        for col in range(cols - side + 1)
        if mask[row : row + side, col : col + side].all()
    ]
    side, row, col = min(squares, default=(0, 0, 0))
    assert largest_square(mask) == (row, col, -side)


@given(MASKS)
def test_components_are_those_of_a_flood(mask):
    left, parts = {tuple(map(int, p)) for p in np.argwhere(mask)}, 0
    while left:
        parts += 1
        queue = deque([left.pop()])
        while queue:
            row, col = queue.popleft()
            for chip in ((row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)):
                if chip in left:
                    left.remove(chip)
                    queue.append(chip)
    assert connected_components(mask) == parts


def test_chips_that_touch_at_a_corner_are_two_parts():
    assert connected_components(np.eye(2, dtype=bool)) == 2


# --- regions ------------------------------------------------------------------------------------------------


def test_a_whole_scan_is_described():
    rng = np.random.default_rng(0)
    image = perovskite((90, 120))
    image[:, 60:] = 50
    image = rng.poisson(image).astype(float)
    counts = np.arange(GRID.chips)
    crystal, blank = described(
        two_halves(),
        grid=GRID,
        names=("film", "glass"),
        haadf_mean_image=image,
        haadf_exposure=np.full(image.shape, 3),
        chip_counts=counts,
        composition=composition,
    )
    assert (crystal.label, crystal.name, crystal.chips, crystal.components) == (0, "film", 24, 1)
    assert crystal.area_fraction == blank.area_fraction == 0.5
    assert crystal.d_spacing_nm == pytest.approx(0.3905, abs=0.001)
    assert crystal.d_fast_nm == pytest.approx(0.3905, abs=0.001)
    assert crystal.lattice_peaks and crystal.crystallinity > 0.5
    assert crystal.haadf_mean == pytest.approx(image[:, :60].mean())
    assert crystal.counts == counts.reshape(GRID.shape)[:, :4].sum()
    assert crystal.atomic_percent == {"La": 20.0, "N": None}
    assert crystal.extraneous_percent == 1.5
    assert crystal.notes == {
        "atomic_percent.N": "hidden under Ti Ll",
        "atomic_percent_sigma.N": "the fit does not determine it",
    }
    assert blank.d_spacing_nm is None and blank.crystallinity == 0.0
    assert {blank.notes[f] for f in LATTICE} == {"amorphous"}
    assert without_reason(crystal) == without_reason(blank) == []


def test_clusters_are_numbered_and_gaps_skipped():
    labels = np.array([[5, 5, -1], [2, -1, 5]], np.int16)
    grid = Grid(rows=2, cols=3, chip_nm=1, chip_px=10, pixel_nm=0.1)
    regions = described(labels, grid=grid)
    assert [(r.name, r.chips, r.components) for r in regions] == [("R2", 1, 1), ("R5", 3, 2)]
    assert [r.area_fraction for r in regions] == [0.25, 0.75]  # of labelled chips
    assert all(without_reason(r) == [] for r in regions)
    assert regions[0].notes["haadf_mean"] == "no HAADF in this scan"
    assert regions[0].notes["counts"] == "no EDS in this scan"


def test_no_labelled_chip_is_no_region():
    assert described(np.full(GRID.shape, -1, np.int16), grid=GRID) == ()


def test_the_mean_is_per_visit():
    image = np.ones((90, 120))
    image[:45] = 4.0
    exposure = np.ones((90, 120), int)
    exposure[:45] = 3
    (region,) = described(np.zeros(GRID.shape, np.int16), grid=GRID, haadf_mean_image=image, haadf_exposure=exposure)
    assert region.haadf_mean == pytest.approx((3 * 4 + 1) / 4)


def test_the_lattice_avoids_chips_with_gaps_and_gaps_have_no_value():
    image, exposure = perovskite((90, 120)), np.ones((90, 120), int)
    image[20, 20], exposure[20, 20] = np.nan, 0  # within chip (1, 1)
    labels = two_halves()
    region, whole = described(labels, grid=GRID, haadf_mean_image=image, haadf_exposure=exposure)
    assert math.isfinite(region.haadf_mean)
    assert region.d_spacing_nm == pytest.approx(0.3905, abs=0.003)
    assert without_reason(region) == without_reason(whole) == []


def test_a_region_that_was_never_visited_says_so():
    image, exposure = np.full((90, 120), np.nan), np.zeros((90, 120), int)
    image[:, :60], exposure[:, :60] = 1.0, 1
    flat, unseen = described(two_halves(), grid=GRID, haadf_mean_image=image, haadf_exposure=exposure)
    assert flat.notes["d_spacing_nm"].startswith("no contrast") and flat.haadf_mean == 1.0
    assert unseen.haadf_mean is None and "visited" in unseen.notes["haadf_mean"]
    assert without_reason(flat) == without_reason(unseen) == []


def test_a_region_too_small_says_how_small_and_what_it_takes():
    labels = np.zeros(GRID.shape, np.int16)
    labels[2:4, 3:5] = 1
    small = described(labels, grid=GRID, haadf_mean_image=perovskite((90, 120)))[1]
    note = small.notes["d_spacing_nm"]
    assert note.startswith("region too small") and "30 px (1.5 nm)" in note and "44 px (2.2 nm)" in note
    assert small.crystallinity is None and small.notes["crystallinity"] == note


def test_a_coarse_scan_says_beyond_nyquist():
    grid = Grid(rows=6, cols=8, chip_nm=4, chip_px=4, pixel_nm=1.0, haadf_px=4)
    image = np.random.default_rng(1).normal(size=(24, 32))
    (region,) = described(np.zeros(grid.shape, np.int16), grid=grid, haadf_mean_image=image)
    assert region.notes["d_spacing_nm"].startswith("beyond Nyquist: pixels of 1 nm")


def test_haadf_may_be_the_coarser_modality_and_the_field_larger_than_the_grid():
    grid = Grid(rows=3, cols=4, chip_nm=1.4, chip_px=40, pixel_nm=0.035, haadf_px=20, eds_px=40, origin=(8, 4))
    image = np.full((70, 90), 1e6)
    seen = np.random.default_rng(3).poisson(perovskite((60, 80), pixel_nm=0.07))
    image[4:64, 2:82] = seen
    (region,) = described(np.zeros(grid.shape, np.int16), grid=grid, haadf_mean_image=image)
    assert region.haadf_mean == pytest.approx(seen.mean())
    assert region.d_spacing_nm == pytest.approx(0.3905, abs=0.002)


def test_a_fit_that_is_not_finite_becomes_null():
    def broken(member: np.ndarray) -> RegionComposition:
        return RegionComposition(
            counts=0, atomic_percent={"O": math.nan}, sigma={"O": math.inf}, extraneous_percent=math.nan
        )

    (region,) = described(np.zeros(GRID.shape, np.int16), grid=GRID, composition=broken)
    assert region.atomic_percent == {"O": None} == region.atomic_percent_sigma
    assert without_reason(region) == []
    assert json.loads(msgspec.json.encode(region))["extraneous_percent"] is None


def test_counts_without_composition_are_kept():
    (region,) = described(np.zeros(GRID.shape, np.int16), grid=GRID, chip_counts=np.full(GRID.chips, 7, np.uint32))
    assert region.counts == 7 * GRID.chips and region.atomic_percent is None
    assert region.notes["atomic_percent"] == "composition was not asked for"


@given(hnp.arrays(np.int16, GRID.shape, elements=st.integers(-1, 4)))
def test_regions_share_out_the_labelled_chips(labels):
    regions = described(labels, grid=GRID)
    assert sum(r.chips for r in regions) == (labels >= 0).sum()
    assert math.isclose(sum(r.area_fraction for r in regions), 1.0) or not regions
    assert all(a.label < b.label for a, b in pairwise(regions))
    assert all(without_reason(r) == [] for r in regions)


@pytest.mark.parametrize(
    ("labels", "arguments", "says"),
    [
        (np.zeros((2, 2), np.int16), {}, "does not fit the grid"),
        (two_halves(), {"names": ("only",)}, "label 1 has no name"),
        (two_halves(), {"chip_counts": np.zeros(3, int)}, "do not fit the 48 chips"),
        (two_halves(), {"haadf_mean_image": np.zeros((90, 119))}, "covers 90 x 120"),
        (two_halves(), {"haadf_mean_image": np.zeros((90, 120)), "haadf_exposure": np.zeros(3)}, "exposure"),
        (
            two_halves(),
            {"haadf_mean_image": np.zeros((90, 120)), "grid": msgspec.structs.replace(GRID, haadf_px=None)},
            "without HAADF",
        ),
    ],
)
def test_what_does_not_fit_is_refused(labels, arguments, says):
    with pytest.raises(StageError, match=says):
        described(labels, **{"grid": GRID, **arguments})


def test_regions_of_two_maps_that_hold_one_square_share_its_lattice(monkeypatch):
    """Measured once, and the same as measured anew; another picture knows nothing of it."""
    image, measured = perovskite((90, 120)), []

    def measure(patch: np.ndarray, pixel_nm: float):
        measured.append(patch.shape)
        return lattice_of(patch, pixel_nm)

    monkeypatch.setattr(region_haadf, "lattice_of", measure)
    haadf = HaadfChips.of(image, None, GRID)
    whole, lone = np.zeros(GRID.shape, np.int16), np.zeros(GRID.shape, np.int16)
    lone[5, 7] = 1
    first, second = describe(whole, grid=GRID, haadf=haadf), describe(lone, grid=GRID, haadf=haadf)
    assert measured.count((90, 90)) == 1 and first[0].lattice_peaks == second[0].lattice_peaks != ()
    assert described(lone, grid=GRID, haadf_mean_image=image) == second
    assert described(whole, grid=GRID, haadf_mean_image=0.5 * image + np.eye(90, 120)) != first


# --- differences --------------------------------------------------------------------------------------------


def region(name: str, percent: dict | None, sigma: dict | None) -> Region:
    return Region(
        label=0,
        name=name,
        chips=1,
        area_fraction=0.5,
        components=1,
        atomic_percent=percent,
        atomic_percent_sigma=sigma,
    )


def test_a_difference_and_its_error():
    a = region("a", {"O": 63.0, "La": 18.0}, {"O": 0.6, "La": 0.3})
    b = region("b", {"O": 60.0, "La": 20.0}, {"O": 0.5, "La": 0.4})
    found = difference(a, b)
    assert (found.a, found.b, found.notes) == ("a", "b", {})
    assert found.percent == pytest.approx({"O": 5.0, "La": -10.0})
    rng = np.random.default_rng(2)
    ratio = 100 * (rng.normal(63, 0.6, 200_000) / rng.normal(60, 0.5, 200_000) - 1)
    assert found.sigma["O"] == pytest.approx(ratio.std(), rel=0.02)


def test_elements_without_a_value_have_no_difference_and_say_why():
    a = region("a", {"O": 60.0, "N": None, "Fe": 1.0, "Cr": 2.0, "La": 20.0}, {"O": None, "Fe": 0.1, "La": 0.1})
    b = region("b", {"O": 50.0, "N": 1.0, "Fe": 0.0, "La": 0.29}, {"O": 0.1, "Fe": 0.1, "La": 0.1})
    found = difference(a, b)
    assert found.percent == found.sigma == dict.fromkeys(("O", "N", "Fe", "Cr", "La"))
    assert found.notes["O"] == found.notes["N"] == "a has no value for it"
    assert found.notes["Fe"] == "b has 0 +- 0.1 at.% of it, which may be none"
    assert found.notes["La"] == "b has 0.29 +- 0.1 at.% of it, which may be none"


@given(st.floats(0, 100), st.floats(0, 30), st.floats(0, 100), st.floats(0, 30))
def test_a_difference_is_a_finite_number_or_null_with_a_note(x, sx, y, sy):
    found = difference(region("a", {"O": x}, {"O": sx}), region("b", {"O": y}, {"O": sy}))
    assert (found.percent["O"] is None) == (found.sigma["O"] is None) == ("O" in found.notes)
    if found.percent["O"] is not None:
        assert math.isfinite(found.percent["O"]) and 0 <= found.sigma["O"] < math.inf
        assert y >= 3 * sy


def test_a_difference_needs_two_compositions():
    with pytest.raises(StageError, match="region b has no composition"):
        difference(region("a", {"O": 1.0}, None), region("b", None, None))


def test_every_pair_of_a_few_regions_and_the_largest_of_many():
    def some(count: int) -> list[Region]:
        made = [region(f"R{i}", {"O": 50.0 + i}, {"O": 1.0}) for i in range(count)]
        return [msgspec.structs.replace(r, chips=10 if r.name == "R2" else 1) for r in made]

    pairs = [(d.a, d.b) for d in differences(some(3))]
    assert sorted(pairs) == [(f"R{i}", f"R{j}") for i in range(3) for j in range(3) if i != j]
    many = differences(some(MOST_PAIRED + 1))
    assert {d.b for d in many} == {"R2"} and len(many) == MOST_PAIRED
    assert differences([region("R0", None, None), *some(1)]) == differences([]) == ()


# --- calibration --------------------------------------------------------------------------------------------


def test_lengths_follow_the_calibrated_pixel_and_say_so():
    image = np.random.default_rng(4).poisson(perovskite((90, 120))).astype(float)
    labels = np.zeros(GRID.shape, np.int16)
    (recorded,) = described(labels, grid=GRID, haadf_mean_image=image)
    known = Calibration(region="STO", d_nm=0.4, factor=1.04, factor_sigma=0.0004, pixel_nm=0.052)
    (found,) = described(labels, grid=GRID, haadf_mean_image=image, calibration=known)
    for name in ("d_spacing_nm", "d_spacing_sigma_nm", "d_fast_nm", "d_slow_nm"):
        assert getattr(found, name) == pytest.approx(1.04 * getattr(recorded, name), rel=1e-4)
    assert found.lattice_peaks[0].d_nm == pytest.approx(1.04 * recorded.lattice_peaks[0].d_nm, rel=1e-4)
    assert found.notes["lattice_peaks"].startswith("calibrated on STO: 1.04 +- 0.0004 times")
    assert "lattice_peaks" not in recorded.notes
    refused = Calibration(region="STO", d_nm=0.4, reason="amorphous")
    assert described(labels, grid=GRID, haadf_mean_image=image, calibration=refused) == (recorded,)
