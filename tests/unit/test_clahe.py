"""CLAHE: step by step what OpenCV's code says, and what it does to pixels that OpenCV does not know."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from livestem.domain.errors import StageError
from livestem.stages.clahe import CLIP_LIMIT, TILES, equalise

pictures = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=33))
f32 = np.float32


def pixel_by_pixel(grey: np.ndarray, clip_limit: float = 2.0, tiles: int = 8) -> np.ndarray:
    """The published algorithm in plain loops and counters, float32 where OpenCV has it."""
    height, width = grey.shape
    below = beside = 0
    if width % tiles or height % tiles:
        below, beside = tiles - height % tiles, tiles - width % tiles
    tall, wide = (height + below) // tiles, (width + beside) // tiles
    limit = max(int(clip_limit * tall * wide / 256), 1)
    scale = f32(255) / f32(tall * wide)
    tables = {}
    for ty in range(tiles):
        for tx in range(tiles):
            counts = [0] * 256
            for y in range(ty * tall, (ty + 1) * tall):
                for x in range(tx * wide, (tx + 1) * wide):
                    counts[int(grey[reflected(y, height), reflected(x, width)])] += 1
            clipped = sum(max(count - limit, 0) for count in counts)
            counts = [min(count, limit) + clipped // 256 for count in counts]
            left, place = clipped % 256, 0
            step = max(256 // left, 1) if left else 1
            while left and place < 256:
                counts[place] += 1
                place, left = place + step, left - 1
            total = 0
            for value in range(256):
                total += counts[value]
                tables[ty, tx, value] = f32(min(255, round(float(f32(total) * scale))))
    out = np.zeros_like(grey)
    for y in range(height):
        for x in range(width):
            fy, fx = f32(y) * (f32(1) / f32(tall)) - f32(0.5), f32(x) * (f32(1) / f32(wide)) - f32(0.5)
            y1, x1 = int(np.floor(fy)), int(np.floor(fx))
            dy, dx, value = fy - f32(y1), fx - f32(x1), int(grey[y, x])
            rows, cols = (max(y1, 0), min(y1 + 1, tiles - 1)), (max(x1, 0), min(x1 + 1, tiles - 1))
            upper = tables[rows[0], cols[0], value] * (f32(1) - dx) + tables[rows[0], cols[1], value] * dx
            lower = tables[rows[1], cols[0], value] * (f32(1) - dx) + tables[rows[1], cols[1], value] * dx
            out[y, x] = round(float(upper * (f32(1) - dy) + lower * dy))
    return out


def reflected(place: int, side: int) -> int:
    """Reflect a place beyond the end without repeating the edge; Python's own round is to even, as OpenCV's."""
    period = 2 * (side - 1)
    place %= period
    return place if place < side else period - place


@settings(max_examples=25, deadline=None)
@given(pictures)
def test_greys_are_those_of_the_plain_algorithm(grey):
    np.testing.assert_array_equal(equalise(grey), pixel_by_pixel(grey))


@pytest.mark.parametrize("shape", [(64, 64), (64, 60), (61, 64), (70, 51)])
def test_a_structured_picture_too_whether_tiles_fit_or_not(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    rng = np.random.default_rng(0)
    grey = np.clip(90 + 60 * np.sin(x / 3) * np.cos(y / 4) + x + rng.normal(0, 9, shape), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(equalise(grey), pixel_by_pixel(grey))


def test_a_side_that_fits_is_still_continued_where_the_other_does_not():
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 255, (16, 17), dtype=np.uint8)  # 24 x 24 in tiles of 3 x 3, not 16 x 24 in tiles of 2 x 3
    np.testing.assert_array_equal(equalise(grey), pixel_by_pixel(grey))


def test_the_parameters_are_those_of_pychip():
    assert (CLIP_LIMIT, TILES) == (2.0, 8)


def test_contrast_of_a_dark_corner_rises_and_is_limited():
    rng = np.random.default_rng(2)
    grey = rng.integers(100, 110, (128, 128)).astype(np.uint8)
    found = equalise(grey)
    assert np.ptp(grey[:32, :32]) < np.ptp(found[:32, :32]) < 128  # an unlimited equalisation gives 230


def test_what_was_not_visited_takes_no_part_and_stays_black():
    rng = np.random.default_rng(3)
    grey = rng.integers(50, 200, (64, 64)).astype(np.uint8)
    visited = np.ones(grey.shape, bool)
    visited[32:] = False
    found = equalise(np.where(visited, grey, 0).astype(np.uint8), visited)
    assert not found[32:].any()
    # rows nearer to the first tile row without data than to their own tiles' centres are mixed with "no change"
    np.testing.assert_array_equal(found[:28], equalise(grey)[:28])


def test_all_visited_is_the_same_as_no_mask():
    grey = np.random.default_rng(4).integers(0, 255, (40, 33)).astype(np.uint8)
    np.testing.assert_array_equal(equalise(grey, np.ones(grey.shape, bool)), equalise(grey))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3)])
def test_tiny_pictures_have_an_answer(shape):
    assert equalise(np.full(shape, 7, np.uint8)).shape == shape


def test_the_picture_itself_is_left_alone():
    grey = np.random.default_rng(5).integers(0, 255, (20, 20)).astype(np.uint8)
    copy = grey.copy()
    equalise(grey)
    np.testing.assert_array_equal(grey, copy)


@pytest.mark.parametrize(
    ("grey", "visited"),
    [
        (np.zeros((8, 8)), None),
        (np.zeros(8, np.uint8), None),
        (np.zeros((8, 8), np.uint8), np.ones((8, 9), bool)),
    ],
)
def test_what_is_no_grey_picture_is_refused(grey, visited):
    with pytest.raises(StageError):
        equalise(grey, visited)


@pytest.mark.recordings
def test_the_published_chips_of_lanthanum_oxide_are_cut_without_clahe(recordings):
    """So they cannot tell whether CLAHE is right, and `--grey fixed` over 0 to 255 gives their bits."""
    from PIL import Image

    from livestem.stages.grey import GreyRange, to_grey

    folder = recordings / "pychip_LaO"

    def read(path):
        with Image.open(path) as image:
            return np.asarray(image)[..., 0]  # three equal channels

    picture = to_grey(read(folder / "LaO.png"), GreyRange(0, 255))
    chips = sorted(folder.glob("support_set/*/*.png"))
    assert len(chips) == 14
    for path in chips:
        row, col = (int(part) - 1 for part in path.stem.split("_")[2:])
        chip = read(path)
        height, width = chip.shape
        area = np.s_[row * height : (row + 1) * height, col * width : (col + 1) * width]
        np.testing.assert_array_equal(picture[area], chip)
        assert (equalise(picture)[area] != chip).any()
