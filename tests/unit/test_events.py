"""Photons in canonical form, whatever they came from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from livestem.domain.errors import SourceError
from livestem.sources.events import check_counts, from_dense, from_photons

cubes = arrays(np.uint16, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 4))


def dense(events, n_channels):
    rows, cols = events.counts.shape
    pixel = np.repeat(np.arange(rows * cols), events.counts.reshape(-1))
    cube = np.zeros((rows * cols, n_channels), dtype=np.int64)
    np.add.at(cube, (pixel, events.channels), 1)
    return cube.reshape(rows, cols, n_channels)


@given(cubes)
def test_spectra_survive_the_way_through_events(cube):
    events = from_dense(cube)
    assert (dense(events, cube.shape[2]) == cube).all()
    assert events.channels.size == cube.sum() and events.counts.dtype == events.channels.dtype == np.uint16


@given(cubes, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(cube, random):
    photons = [divmod(i, cube.shape[2]) for i, n in enumerate(cube.reshape(-1)) for _ in range(n)]
    random.shuffle(photons)
    pixels, channels = np.array(photons, dtype=np.int64).reshape(-1, 2).T
    events, expected = from_photons(pixels, channels, cube.shape[:2], cube.shape[2]), from_dense(cube)
    assert (events.counts == expected.counts).all() and (events.channels == expected.channels).all()


@given(cubes, st.integers(0, 5), st.integers(0, 5))
def test_a_band_is_the_photons_of_its_rows(cube, a, b):
    y0, y1 = sorted((min(a, len(cube)), min(b, len(cube))))
    band = from_dense(cube).rows(y0, y1)
    assert (dense(band, cube.shape[2]) == cube[y0:y1]).all()


def test_a_pixel_of_many_photons_has_room():
    events = from_dense(np.full((1, 1, 2), 40_000, dtype=np.uint16))
    assert events.counts.dtype == np.uint32 and events.counts[0, 0] == 80_000


@pytest.mark.parametrize(
    "value, what", [(-1.0, "negative"), (np.nan, "not finite"), (np.inf, "not finite"), (0.5, "not a whole number")]
)
def test_what_is_no_count_is_named_by_its_place(value, what):
    values = np.zeros((3, 4, 5), dtype=np.float32)
    values[1, 2, 3] = value
    with pytest.raises(SourceError, match=rf"EDS of a.hspy is {what} .* at frame 6, y 11, x 2, channel 3; "):
        check_counts(values, "EDS of a.hspy", 6, 10)


def test_whole_numbers_pass_in_any_type():
    for dtype in (np.uint8, np.int32, np.float64, bool):
        check_counts(np.ones((2, 2, 2), dtype=dtype), "EDS", 0, 0)
    with pytest.raises(SourceError, match="complex"):
        check_counts(np.ones((2, 2, 2), dtype=complex), "EDS", 0, 0)
