"""The grey mapping: exact ranks, stated rounding, recorded parameters."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from livestem.domain.errors import StageError
from livestem.stages.grey import GreyRange, nearest_rank, percentile_range, to_grey

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)
images = hnp.arrays(np.float64, st.integers(1, 200), elements=finite)


@given(images, st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda p: p[0] < p[1]))
def test_percentiles_are_values_of_the_image_at_their_exact_rank(image, tenths):
    low, high = tenths[0] / 10, tenths[1] / 10
    found = percentile_range(image, low=low, high=high)
    ordered = sorted(image.tolist())
    for value, tenth in ((found.low, tenths[0]), (found.high, tenths[1])):
        rank = max(1, -(-tenth * len(ordered) // 1000))  # whole numbers only
        assert value == ordered[rank - 1]


@given(st.integers(1, 10**6), st.decimals(0, 100, places=3))
def test_the_rank_is_that_of_the_decimal_as_written(count, percentile):
    assert nearest_rank(float(percentile), count) == max(1, math.ceil(percentile * count / Decimal(100)))


def test_the_rank_rule_is_numpys_inverted_cdf():
    image = np.random.default_rng(0).normal(size=997)
    found = percentile_range(image, low=2.5, high=97.5)
    np.testing.assert_array_equal([found.low, found.high], np.percentile(image, [2.5, 97.5], method="inverted_cdf"))


def test_zero_and_a_hundred_are_the_extremes():
    found = percentile_range(np.array([3, 9, -4, 7]), low=0, high=100)
    assert (found.low, found.high) == (-4.0, 9.0)


def test_a_hot_pixel_sets_no_range_by_default():
    image = np.random.default_rng(3).normal(100, 5, (128, 128))
    image[5, 5], image[6, 6] = 65535, -65535
    found = percentile_range(image)
    assert 80 < found.low < 90 and 110 < found.high < 120
    assert found.rule == "percentiles 0.1 to 99.9, nearest rank"


def test_unvisited_pixels_take_no_part():
    image = np.array([np.nan, 1.0, 2.0, np.inf, 3.0, -np.inf])
    found = percentile_range(image, low=0, high=100)
    assert (found.low, found.high) == (1.0, 3.0)
    np.testing.assert_array_equal(to_grey(image, found), [0, 0, 128, 255, 255, 0])


@given(images, finite, finite)
def test_grey_is_the_formula_with_halves_up(image, a, b):
    low, high = sorted((a, b))
    got = to_grey(image, GreyRange(low, high))
    if high > low:
        want = np.clip(np.floor(255 * (np.clip(image, low, high) - low) / (high - low) + 0.5), 0, 255)
        np.testing.assert_array_equal(got, want.astype(np.uint8))
    assert got.dtype == np.uint8 and got.shape == image.shape


def test_halves_round_up_and_not_to_even():
    # 0 .. 510 maps 1, 3, 5, ... to 0.5, 1.5, 2.5, ...
    np.testing.assert_array_equal(to_grey(np.arange(0, 511), GreyRange(0, 510)), (np.arange(511) + 1) // 2)


@given(images)
def test_grey_never_falls_where_the_value_rises(image):
    ordered = np.sort(image)
    assert (np.diff(to_grey(ordered, percentile_range(ordered)).astype(int)) >= 0).all()


@given(images, st.integers(1, 64), st.integers(-500, 500))
def test_whole_gain_and_offset_of_the_detector_leave_grey_as_it_is(image, gain, offset):
    image = np.round(image)  # whole numbers: the arithmetic is exact, so the greys must be too
    scaled = image * gain + offset
    np.testing.assert_allclose(
        to_grey(image, percentile_range(image)).astype(int),
        to_grey(scaled, percentile_range(scaled)).astype(int),
        atol=1,  # a value within rounding of a half may fall on its other side
    )


def test_eight_bit_pictures_over_their_full_range_come_out_unchanged():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(to_grey(image, GreyRange(0, 255)), image)


@pytest.mark.parametrize("value", [-5.0, 0.0, 7.25e6])
def test_a_constant_image_is_black_and_has_a_range(value):
    image = np.full((4, 4), value)
    found = percentile_range(image)
    assert found.low == found.high == value
    assert not to_grey(image, found).any()
    assert (to_grey(image + 1, found) == 255).all()


def test_the_image_itself_is_left_alone():
    image = np.array([[1.0, np.nan], [3.0, 4.0]])
    copy = image.copy()
    to_grey(image, percentile_range(image))
    np.testing.assert_array_equal(image, copy)


@given(finite, finite)
def test_the_record_gives_the_mapping_back(a, b):
    low, high = sorted((a, b))
    grey_range = GreyRange(low, high, "survey image")
    assert GreyRange(**json.loads(json.dumps(grey_range.parameters()))) == grey_range
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(grey_range), type=GreyRange) == grey_range


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.inf), (-1.7e308, 1.7e308)])
def test_a_range_that_is_none_is_refused(low, high):
    with pytest.raises(ValueError, match="grey range"):
        GreyRange(low, high)


@pytest.mark.parametrize(("low", "high"), [(50, 50), (60, 40), (-1, 50), (0, 101), (math.nan, 50)])
def test_percentiles_out_of_order_are_refused(low, high):
    with pytest.raises(StageError, match="percentiles must rise"):
        percentile_range(np.arange(5), low=low, high=high)


@pytest.mark.parametrize("image", [np.empty(0), np.full((3, 3), np.nan)])
def test_no_data_has_no_range(image):
    with pytest.raises(StageError, match="no finite value"):
        percentile_range(image)
