"""Minimal filtering against the convolution's definition."""

from __future__ import annotations

import numpy as np
import pytest

from livestem.domain.errors import StageError
from livestem.stages.minimal_filtering import Filtered, forms_of, halved

torch = pytest.importorskip("torch")

SIDES = [2, 4, 8, 16]


def by_definition(maps, weight, bias):
    """Convolve (N, C, n, n) in float64, tap by tap, then ReLU."""
    n = maps.shape[2]
    around = np.pad(maps.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = np.zeros((len(maps), len(weight), n, n)) + bias.astype(np.float64)[:, None, None]
    for y in range(3):
        for x in range(3):
            found += np.einsum("ncyx,oc->noyx", around[:, :, y : y + n, x : x + n], weight[:, :, y, x].astype(float))
    return found.clip(0)


def filtered(maps, weight, bias):
    chips, _, n, _ = maps.shape
    ours = torch.from_numpy(np.ascontiguousarray(maps.transpose(2, 3, 0, 1))).reshape(n, n, -1)
    found = Filtered(weight, bias, n)(ours, chips).reshape(n, n, chips, -1)
    return found.numpy().transpose(2, 3, 0, 1)


@pytest.mark.parametrize("side", [*SIDES, 12, 32])
def test_products_give_the_filter_in_one_dimension(side):
    rng = np.random.default_rng(side)
    values, taps, forms = rng.normal(size=side), rng.normal(size=3), forms_of(side)
    found = np.concatenate([forms.outputs @ ((forms.weights @ taps) * (tile @ values)) for tile in forms.inputs])
    np.testing.assert_allclose(found, np.correlate(np.pad(values, 1), taps), atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("chips", "inputs", "outputs"), [(1, 1, 1), (3, 5, 7), (4, 16, 8)])
def test_it_is_the_convolution(side, chips, inputs, outputs):
    rng = np.random.default_rng(7)
    maps = rng.normal(size=(chips, inputs, side, side)).astype(np.float32)
    weight, bias = (rng.normal(size=s).astype(np.float32) for s in ((outputs, inputs, 3, 3), (outputs,)))
    want = by_definition(maps, weight, bias)
    np.testing.assert_allclose(filtered(maps, weight, bias), want, atol=2e-5 * max(1, want.max()))


@pytest.mark.parametrize("side", SIDES)
def test_one_bright_pixel_shows_the_kernel_where_it_is_also_in_corners(side):
    weight = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    bias = np.zeros(1, np.float32)
    for at in ((0, 0), (0, side - 1), (side - 1, 0), (side // 2, side // 2)):
        maps = np.zeros((1, 1, side, side), np.float32)
        maps[0, 0, *at] = 1
        np.testing.assert_allclose(filtered(maps, weight, bias), by_definition(maps, weight, bias), atol=1e-5)


def test_zeros_give_the_bias_and_what_is_negative_gives_zero():
    weight, bias = np.ones((2, 3, 3, 3), np.float32), np.array([0.5, -0.5], np.float32)
    found = filtered(np.zeros((2, 3, 8, 8), np.float32), weight, bias)
    assert (found[:, 0] == 0.5).all() and (found[:, 1] == 0).all()


def test_maxima_are_of_two_by_two():
    maps = torch.arange(2 * 4 * 4).reshape(4, 4, 2)
    np.testing.assert_array_equal(halved(maps).numpy(), maps.numpy().reshape(2, 2, 2, 2, 2).max((1, 3)))


@pytest.mark.parametrize("side", [0, 1, 3, 6, 10])
def test_other_sides_are_refused(side):
    with pytest.raises(StageError, match="2 or a multiple of 4"):
        forms_of(side)
