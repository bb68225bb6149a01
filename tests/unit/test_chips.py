"""Cutting images into chips, against loops that are too plain to be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestem.domain.errors import StageError
from livestem.domain.geometry import Grid, Sampling, plan_grid
from livestem.stages.chips import coverage, cut, mean_per_visit, windows


def grid_of(rows, cols, chip_px, origin=(0, 0)):
    return Grid(rows=rows, cols=cols, chip_nm=float(chip_px), chip_px=chip_px, pixel_nm=1.0, origin=origin)


sizes = st.integers(1, 6)


@given(rows=sizes, cols=sizes, p=sizes, rest=st.tuples(st.integers(0, 5), st.integers(0, 5)), y=sizes, x=sizes)
def test_chips_are_the_slices_one_would_write_by_hand(rows, cols, p, rest, y, x):
    image = np.arange((y + rows * p + rest[0]) * (x + cols * p + rest[1])).reshape(y + rows * p + rest[0], -1)
    chips = cut(image, grid_of(rows, cols, p, origin=(y, x)), p)
    by_hand = [
        image[y + r * p : y + (r + 1) * p, x + c * p : x + (c + 1) * p] for r in range(rows) for c in range(cols)
    ]
    np.testing.assert_array_equal(chips, by_hand)


def test_partial_chips_at_the_right_and_bottom_are_dropped():
    sampling = Sampling(shape=(11, 8), pixel_nm=(0.05, 0.05))
    grid = plan_grid(sampling, None, chip_px=3)
    image = np.arange(88).reshape(11, 8)
    chips = cut(image, grid, 3)
    assert chips.shape == (6, 3, 3)
    assert not np.isin(image[9:], chips).any() and not np.isin(image[:, 6:], chips).any()


def test_cut_agrees_with_the_grids_own_map_of_pixels():
    grid = grid_of(3, 4, 5)
    owner = grid.chip_of_pixel((17, 22), 5)
    chips = cut(owner, grid, 5)
    np.testing.assert_array_equal(chips, np.broadcast_to(np.arange(12)[:, None, None], (12, 5, 5)))


@pytest.mark.parametrize("cols", [1, 4])
def test_chips_are_a_copy_and_keep_the_dtype(cols):
    image = np.ones((8, 8), np.uint16)
    chips = cut(image, grid_of(4, cols, 2), 2)
    assert chips.dtype == np.uint16 and chips.flags.c_contiguous
    chips[:] = 7
    assert image.max() == 1


def test_the_origin_is_in_pixels_of_the_finer_modality():
    fine = grid_of(2, 2, 4, origin=(4, 8))
    coarse_image = np.arange(48).reshape(6, 8)  # sampled half as finely: chips of 2 px, origin (2, 4)
    np.testing.assert_array_equal(cut(coarse_image, fine, 2)[0], coarse_image[2:4, 4:6])


@given(rows=sizes, cols=sizes, p=sizes, margin=st.integers(0, 9), spare=st.integers(0, 4))
def test_windows_hold_their_chip_in_the_middle_and_mirror_beyond_the_field(rows, cols, p, margin, spare):
    rng = np.random.default_rng(rows * 100 + cols)
    image = rng.integers(0, 1000, (rows * p + spare, cols * p + spare))
    grid = grid_of(rows, cols, p)
    got = windows(image, grid, p, margin)
    side = p + 2 * margin
    assert got.shape == (rows * cols, side, side)
    np.testing.assert_array_equal(got[:, margin : margin + p, margin : margin + p], cut(image, grid, p))
    if margin <= min(image.shape):
        padded = np.pad(image, margin, mode="symmetric")
        by_hand = [padded[r * p : r * p + side, c * p : c * p + side] for r in range(rows) for c in range(cols)]
        np.testing.assert_array_equal(got, by_hand)


def test_a_window_reads_nothing_beyond_its_margin():
    grid = grid_of(5, 5, 4)
    image = np.random.default_rng(0).random((20, 20))
    before = windows(image, grid, 4, 2)
    image[8:12, 8:12] += 1  # the middle chip
    changed = (windows(image, grid, 4, 2) != before).any(axis=(1, 2)).reshape(5, 5)
    assert changed[1:4, 1:4].all() and changed.sum() == 9


@given(st.integers(0, 2**32 - 1))
def test_coverage_counts_visited_pixels(seed):
    exposure = np.random.default_rng(seed).integers(0, 3, (9, 12)).astype(np.uint16)
    grid = grid_of(2, 3, 4)
    by_hand = [np.count_nonzero(chip) / 16 for chip in cut(exposure, grid, 4)]
    np.testing.assert_array_equal(coverage(exposure, grid, 4), by_hand)


def test_coverage_is_exactly_one_or_zero_for_whole_and_empty_chips():
    exposure = np.zeros((21, 7), np.int64)
    exposure[:7] = 1
    exposure[7:14, :3] = 5
    np.testing.assert_array_equal(coverage(exposure, grid_of(3, 1, 7), 7), [1.0, 21 / 49, 0.0])


def test_means_are_per_visit_and_unvisited_pixels_have_none():
    total = np.array([[10, -6], [0, 5]], np.int32)
    visits = np.array([[4, 3], [0, 1]], np.uint16)
    np.testing.assert_array_equal(mean_per_visit(total, visits), [[2.5, -2.0], [np.nan, 5.0]])


def test_frames_do_not_brighten_the_picture():
    frame = np.random.default_rng(1).random((6, 6)).astype(np.float32)
    one, forty = (mean_per_visit(frame.astype(np.float64) * n, np.full((6, 6), n)) for n in (1, 40))
    np.testing.assert_allclose(one, forty, rtol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cut(np.zeros((9, 10)), grid_of(2, 2, 5), 5),
            "needs an image of 10 x 10 px or more, got 9 x 10",
        ),
        (lambda: cut(np.zeros((9, 10, 3)), grid_of(1, 1, 5), 5), "two-dimensional"),
        (lambda: cut(np.zeros((9, 10)), grid_of(1, 1, 5), 0), "at least 1 px"),
        (lambda: cut(np.zeros((9, 9)), grid_of(1, 1, 5, origin=(-1, 0)), 5), "needs an image"),
        (lambda: windows(np.zeros((9, 9)), grid_of(1, 1, 5), 5, -1), "cannot be negative"),
        (lambda: coverage(np.zeros((4, 4)), grid_of(1, 1, 5), 5), "needs an image"),
        (lambda: mean_per_visit(np.zeros((4, 4)), np.zeros((4, 5))), "must have one shape"),
        (lambda: mean_per_visit(np.zeros((1, 1)), np.full((1, 1), -1)), "cannot be negative"),
    ],
)
def test_bad_input_is_answered_in_one_line(call, message):
    with pytest.raises(StageError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
