"""What a plan may say of a scan: hostile and mistaken facts are refused where they are stated."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestem.domain.errors import StageError
from livestem.domain.geometry import Sampling, default_chip_px, plan_grid, sampling_ratio
from livestem.domain.scan import Eds, EnergyAxis, Haadf, ScanPlan

FIELD = Sampling(shape=(64, 64), pixel_nm=(0.5, 0.5))
AXIS = EnergyAxis(channels=8, scale_kev=0.01)


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (Haadf, {"dtype": "nonsense"}),
        (Haadf, {"dtype": ">u2"}),
        (Haadf, {"dtype": "object"}),
        (Haadf, {"dtype": "<u2", "grey_range": [9.0, 5.0]}),
        (Haadf, {"dtype": "<u2", "frames": 0}),
        (Eds, {"energy": {"channels": 8, "scale_kev": 0.01}, "frames": -1}),
        (Eds, {"energy": {"channels": 8, "scale_kev": 0.01}, "k_factors": {"Fe_Ka": -1.0}}),
        (Eds, {"energy": {"channels": 8, "scale_kev": 0.01}, "energy_resolution_mnka_ev": -1.0}),
        (Eds, {"energy": {"channels": 8, "scale_kev": 0.0}}),
    ],
)
def test_impossible_facts_of_a_modality(kind, facts):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"sampling": {"shape": [4, 4], "pixel_nm": [1.0, 1.0]}, **facts}, kind)


@pytest.mark.parametrize("pixel", [0.0, -1.0, 1e-310, 1e300, float("nan"), float("inf")])
def test_impossible_pixels(pixel):
    with pytest.raises(ValueError, match="pixel_nm"):
        Sampling(shape=(4, 4), pixel_nm=(pixel, 1.0))


def test_a_modality_has_no_more_frames_than_the_scan():
    with pytest.raises(ValueError, match="5 frames in a scan of 2"):
        ScanPlan(haadf=Haadf(sampling=FIELD, dtype="<u2", frames=5), frames=2)


@pytest.mark.parametrize("change", [{"origin_nm": (1000.0, 0.0)}, {"rotation_deg": 45.0}, {"shape": (32, 64)}])
def test_two_fields_are_not_one(change):
    with pytest.raises(StageError, match="two fields"):
        sampling_ratio(FIELD, msgspec.structs.replace(FIELD, **change))


@pytest.mark.parametrize(
    ("pixel", "shape", "chip"),
    [
        (0.050, (512, 512), 15), (0.0355, (512, 512), 21), (0.071, (512, 512), 11),
        (1.234, (50, 10), 4), (2.0, (512, 256), 8),
    ],
)  # fmt: skip
def test_the_default_chip_follows_the_design(pixel, shape, chip):
    assert default_chip_px(Sampling(shape=shape, pixel_nm=(pixel, pixel))) == chip


@given(
    rows=st.integers(1, 60),
    cols=st.integers(1, 60),
    ratio=st.integers(1, 4),
    chips=st.integers(1, 5),
    fine=st.booleans(),
)
def test_chips_are_whole_pixels_of_both_modalities(rows, cols, ratio, chips, fine):
    coarse = Sampling(shape=(rows, cols), pixel_nm=(1.0, 1.0))
    finer = Sampling(shape=(rows * ratio, cols * ratio), pixel_nm=(1.0 / ratio, 1.0 / ratio))
    haadf, eds = (finer, coarse) if fine else (coarse, finer)
    side = chips * ratio
    if side > min(finer.shape):
        with pytest.raises(StageError, match="larger than the field"):
            plan_grid(haadf, eds, chip_px=side)
        return
    grid = plan_grid(haadf, eds, chip_px=side)
    assert (grid.haadf_px, grid.eds_px) == ((side, chips) if fine else (chips, side))
    for sampling, px in ((haadf, grid.haadf_px), (eds, grid.eds_px)):
        index = grid.chip_of_pixel(sampling.shape, px)
        inside = index[index < grid.chips]
        assert inside.size == grid.chips * px * px
