"""The shift of a frame against the mean of those before it: known shifts, cells, layers, noise, holes."""

from __future__ import annotations

import numpy as np
import pytest

from livestem.domain.errors import StageError
from livestem.stages.correlation import SIGNIFICANT
from livestem.stages.register import Displacement, displacement, moved, overlap, predicted

SIDE = 128


def lattice(y: np.ndarray, x: np.ndarray, cell: float = 7.8) -> np.ndarray:
    """Return columns of atoms, every one like the others, at places (pixels)."""
    return np.exp(3 * (np.cos(2 * np.pi * y / cell) + np.cos(2 * np.pi * x / cell) - 2))


def specimen(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a lattice of which one corner is brighter, with a few odd columns."""
    odd = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 8) for a, b in ((30, 40), (71, 99), (90, 20), (55, 62)))
    return lattice(y, x) * (1 + 0.5 * (x + 0.5 * y > 110)) + odd


def frame(shift: tuple[float, float], electrons: float, seed: int, of=specimen, jitter: float = 0.0) -> np.ndarray:
    """Return a frame that must be moved by `shift`, of so many electrons a pixel at the brightest."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    x = x + rng.normal(0, jitter, (SIDE, 1))
    return rng.poisson(electrons * (0.2 + of(y + shift[0], x + shift[1])))


def whole(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape, int)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (0.5, 0.5), (-1.3, 4.6), (-5.2, 9.0)])
@pytest.mark.parametrize("electrons", [2000.0, 20.0])
def test_a_known_shift_is_found_to_a_tenth_of_a_pixel(shift, electrons):
    reference = frame((0, 0), electrons, 1)
    found = displacement(frame(shift, electrons, 2), reference, whole(reference))
    assert found.determined
    assert found.shift_px == pytest.approx(shift, abs=0.15)
    assert max(found.sigma_px) < 0.15


def test_dtype_scale_and_level_do_not_matter():
    reference, other = frame((0, 0), 50, 1), frame((2.4, -1.2), 50, 2)
    plain = displacement(other, reference, whole(reference))
    for scale, level, dtype in ((1e30, 1e32, "f8"), (1e-20, 0.0, "f4"), (1, -40, "i2"), (7, 1000, "u4")):
        found = displacement((other * scale + level).astype(dtype), reference * scale + level, whole(reference))
        assert found.shift_px == pytest.approx(plain.shift_px, abs=0.01)


@pytest.mark.parametrize("electrons", [500.0, 10.0])
def test_a_perfect_lattice_is_not_slipped_by_a_cell(electrons):
    """It is its own copy one cell further; only where drift has been going tells them apart."""
    reference = frame((0, 0), electrons, 1, lattice)
    for seed, expected in enumerate(((0.0, 0.0), (7.8, 0.0), (-15.6, 7.8), (23.4, -23.4))):
        shift = expected[0] + 1.7, expected[1] - 1.4
        found = displacement(frame(shift, electrons, seed + 2, lattice), reference, whole(reference), expected)
        assert found.shift_px == pytest.approx(shift, abs=0.2)


def test_a_jump_that_the_field_tells_is_followed():
    reference = frame((0, 0), 500, 1)
    found = displacement(frame((11.3, -13.2), 500, 2), reference, whole(reference), (0.4, 0.3))
    assert found.shift_px == pytest.approx((11.3, -13.2), abs=0.15)


def test_jitter_of_rows_is_borne():
    reference = frame((0, 0), 50, 1, jitter=0.4)
    found = displacement(frame((2.5, 1.5), 50, 2, jitter=0.4), reference, whole(reference))
    assert found.shift_px == pytest.approx((2.5, 1.5), abs=0.2)


def test_noise_alone_determines_nothing():
    rng = np.random.default_rng(0)
    for level in (0.1, 10.0, 1e4):
        mean, new = rng.poisson(level, (2, SIDE, SIDE))
        found = displacement(new, mean, whole(mean), (1.25, -3.5))
        assert not found.determined and found.significance < SIGNIFICANT
        assert found.shift_px == (1.25, -3.5) and found.sigma_px == (1.0, 1.0)


def test_a_constant_field_determines_nothing():
    level = np.full((SIDE, SIDE), 65535)
    assert displacement(level, level, whole(level), (2.0, 0.0)).shift_px == (2.0, 0.0)
    assert displacement(level, level, whole(level)).significance == 0.0


def test_along_a_layer_the_prediction_stands():
    rng = np.random.default_rng(0)
    layers = np.where(np.arange(SIDE) > 60, 400, 200) * np.ones((SIDE, 1))
    mean, new = rng.poisson(layers), rng.poisson(np.roll(layers, -3, axis=1))
    found = displacement(new, mean, whole(mean), (4.25, 2.5))
    assert found.determined
    assert found.shift_px == pytest.approx((4.25, 3.0), abs=0.1)
    assert found.sigma_px[0] > 0.9 and found.sigma_px[1] < 0.1


def test_missing_rows_and_unvisited_pixels_are_level_ground():
    reference, new = frame((0, 0), 200, 1).astype(float), frame((2.2, -3.1), 200, 2)
    seen, visits = np.ones(new.shape, bool), whole(reference)
    seen[50:90], visits[:20] = False, 0
    new[~seen], reference[visits == 0] = 0, 0.0
    found = displacement(new, reference, visits, seen=seen)
    assert found.determined and found.shift_px == pytest.approx((2.2, -3.1), abs=0.15)


@pytest.mark.parametrize("rows", [0, 3])
def test_of_hardly_a_frame_nothing_is_known(rows):
    reference = frame((0, 0), 20, 1)
    seen = np.zeros(reference.shape, bool)
    seen[:rows] = True
    found = displacement(frame((3, 3), 20, 2), reference, whole(reference), (1.0, 1.0), seen)
    assert not found.determined and found.shift_px == (1.0, 1.0)


@pytest.mark.parametrize("of", [specimen, lattice])
@pytest.mark.parametrize("electrons", [400.0, 20.0])
def test_a_frame_swept_in_part_is_laid_on_its_own_cell(of, electrons):
    """Wherever its end is: also where the taper of a whole field would have begun."""
    shift, expected = (1.7, -1.1), (0.7, -0.4)
    reference = np.mean([frame((0, 0), electrons, seed, of) for seed in range(5)], axis=0)
    new = frame(shift, electrons, 9, of)
    for rows in range(0, SIDE + 1, 3):
        seen = np.zeros(new.shape, bool)
        seen[:rows] = True
        found = displacement(np.where(seen, new, 0), reference, 5 * whole(new), expected, seen)
        if rows < 16:
            assert found.shift_px == expected and not found.determined, rows
        elif found.determined:
            assert found.shift_px == pytest.approx(shift, abs=0.6), rows
        assert found.determined or rows < SIDE // 2


def test_a_clipped_detector_still_tells():
    reference = np.minimum(frame((0, 0), 500, 1), 300)
    found = displacement(np.minimum(frame((1.5, -2.5), 500, 2), 300), reference, whole(reference))
    assert found.shift_px == pytest.approx((1.5, -2.5), abs=0.15)


@pytest.mark.parametrize(("shape", "expected"), [((8, 300), (0.0, 0.0)), ((1, 1), (0.0, 0.0)), ((64, 64), (70.0, 0.0))])
def test_what_cannot_be_compared_keeps_the_prediction(shape, expected):
    image = np.random.default_rng(0).normal(size=shape)
    assert displacement(image, image, np.ones(shape, int), expected).shift_px == expected


def test_of_a_large_field_the_middle_is_compared():
    rng = np.random.default_rng(0)
    field = rng.normal(size=(1300, 1200))
    field[100:1200, 50:1150] += 3 * (rng.random((1100, 1100)) > 0.99)
    found = displacement(np.roll(field, (-4, 7), (0, 1)), field, np.ones(field.shape, int))
    assert found.shift_px == pytest.approx((4, -7), abs=0.1)


def test_shapes_must_agree():
    with pytest.raises(StageError, match="cannot be laid"):
        displacement(np.zeros((4, 5)), np.zeros((4, 4)), np.zeros((4, 4), int))


def test_a_peak_that_tells_no_direction_determines_nothing():
    assert not Displacement((0.0, 0.0), (1.0, 1.0 - 1e-15), 9.0).determined
    assert not Displacement((0.0, 0.0), (0.1, 0.1), SIGNIFICANT - 0.1).determined
    assert Displacement((0.0, 0.0), (0.75, 0.75), 9.0).determined, "one direction, aslant"


# --- prediction and moving


def test_drift_goes_on_as_it_went():
    assert predicted([]) == (0.0, 0.0)
    assert predicted([(0.0, 0.0)]) == (0.0, 0.0)
    steady = [(0.5 * i, -0.25 * i) for i in range(9)]
    assert predicted(steady) == pytest.approx((4.5, -2.25))
    assert predicted(steady, ahead=3) == pytest.approx((5.5, -2.75))
    jumped = [*steady, (40.0, 30.0)]
    assert predicted(jumped) == pytest.approx((40.5, 29.75)), "one jump is no speed"


def test_moving_drops_what_leaves_and_uncovers_nothing():
    image = np.arange(1, 13).reshape(3, 4)
    assert moved(image, (1, -1)).tolist() == [[0, 0, 0, 0], [2, 3, 4, 0], [6, 7, 8, 0]]
    assert moved(image, (0, 0)).tolist() == image.tolist()
    for far in ((3, 0), (-3, 0), (0, 4), (9, -9)):
        assert not moved(image, far).any()
        to, of = overlap(image.shape, far)
        assert image[to].size == image[of].size == 0
