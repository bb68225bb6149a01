"""Features: finite whatever comes in, comparable whatever the units, noise of one after whitening."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from livestem.domain.errors import StageError
from livestem.stages.features import (
    anscombe,
    join,
    neighbour_pairs,
    neighbour_whitening,
    square_root,
    standardise,
    unit_rows,
    whiten_by_neighbours,
)
from livestem.stages.rows import checked_weights, valid_rows

GRID = (20, 25)
finite_matrices = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-1e12, 1e12))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def two_phases(rng: np.random.Generator, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right half differ by 6 in every feature; noise has the given covariance."""
    right = np.tile(np.arange(GRID[1]) >= 12, GRID[0])
    x = rng.multivariate_normal(np.zeros(len(noise)), noise, right.size)
    return x + 6.0 * right[:, None], right


@given(finite_matrices)
def test_standardised_features_are_finite_and_centred(x: np.ndarray):
    z = standardise(x)
    assert z.shape == x.shape
    assert np.isfinite(z).all()
    assert np.allclose(np.median(z, axis=0), 0, atol=1e-6)


def test_units_do_not_matter(rng):
    x = rng.normal(size=(50, 3))
    assert np.allclose(standardise(x), standardise(x * [1e-6, 3.0, 1e9] + [5.0, -2.0, 1e9]), rtol=1e-5, atol=1e-5)


def test_robust_scores_ignore_a_few_wild_chips_and_match_sigma_of_normal_noise(rng):
    x = rng.normal(3.0, 2.0, size=(4000, 1))
    x[:100] = 1e6
    assert standardise(x)[100:].std() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("constant", [0.0, 7.0, 0.1, -1e-300, 1e300])
def test_constant_columns_become_zero(constant, rng):
    x = np.column_stack([np.full(30, constant), rng.normal(size=30)])
    assert not standardise(x)[:, 0].any()
    assert standardise(x)[:, 1].any()
    assert not whiten_by_neighbours(x, (5, 6))[:, 0].any()


def test_a_column_that_is_constant_up_to_rounding_becomes_zero():
    x = np.array([[0.1 + 0.2], [0.3], [0.3], [0.1 + 0.2]])
    assert not standardise(x).any()


def test_an_element_that_most_chips_lack_still_counts():
    x = np.zeros((100, 1))
    x[:20] = 5.0
    z = standardise(x)
    assert z[0, 0] == pytest.approx(5.0 / x.std())
    assert not z[20:].any()


def test_rows_without_data_are_never_read(rng):
    x = rng.normal(size=(30, 4))
    valid = np.arange(30) % 3 != 0
    spoiled = np.where(valid[:, None], x, np.nan)
    for method in (standardise, unit_rows, lambda a, v: whiten_by_neighbours(a, (5, 6), v)):
        z = method(spoiled, valid)
        assert np.array_equal(z, method(x, valid))
        assert not z[~valid].any()
    assert np.array_equal(standardise(x, valid)[valid], standardise(x[valid]))


def test_square_root_and_anscombe_of_what_a_fit_may_return():
    assert np.array_equal(square_root(np.array([[-3.0, 0.0, 4.0]])), [[0.0, 0.0, 2.0]])
    assert np.array_equal(anscombe(np.array([[-3.0, 0.625]])), [[0.0, 2.0]])
    assert np.array_equal(anscombe(np.array([[-3.0]]), np.array([3.625])), [[2.0]])


@pytest.mark.parametrize("mean", [3, 10, 100, 10000])
def test_anscombe_makes_counting_noise_one(mean, rng):
    assert anscombe(rng.poisson(mean, 40_000)).std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("background", [5.0, 50.0])
def test_anscombe_knows_of_the_background_under_a_line(background, rng):
    fitted = rng.poisson(20, 40_000) + rng.normal(0, np.sqrt(background), 40_000)
    assert anscombe(fitted, background).std() == pytest.approx(1.0, abs=0.05)


def test_whitened_noise_is_one_in_every_direction_though_phases_differ(rng):
    mix = rng.normal(size=(6, 6))
    x, right = two_phases(rng, mix @ mix.T)
    z = whiten_by_neighbours(x * [1, 1e3, 1e-3, 1, 1, 1], GRID)
    for phase in (right, ~right):
        values = np.linalg.eigvalsh(np.cov(z[phase].T))
        assert 0.5 < values.min() and values.max() < 1.5
    assert np.linalg.norm(z[right].mean(0) - z[~right].mean(0)) > 4


def test_whitening_lengthens_the_quiet_direction(rng):
    """Two features share loud noise; the phase shows in their difference, which Euclid cannot see before."""
    loud = rng.normal(0, 5, size=(500, 1))
    phase = np.repeat([0.0, 1.0], 250)[:, None]
    x = np.hstack([loud + phase, loud - phase]) + rng.normal(0, 0.2, size=(500, 2))

    def contrast(z: np.ndarray) -> float:
        gap = np.linalg.norm(z[:250].mean(0) - z[250:].mean(0))
        return float(gap / np.sqrt(z[:250].var(0).sum()))

    assert contrast(standardise(x)) < 0.7
    assert contrast(whiten_by_neighbours(x, GRID)) > 3.5


def test_borders_do_not_pass_for_noise(rng):
    """Stripes of three chips: a sixth of the pairs lies across a border, yet noise is known to 40 %."""
    stripe = np.tile((np.arange(GRID[1]) // 3) % 2, GRID[0])[:, None]
    z = whiten_by_neighbours(rng.normal(size=(500, 4)) + 5.0 * stripe, GRID)
    within = z[stripe[:, 0] == 0]
    assert 0.6 < within.var(axis=0).mean() < 1.4


def test_a_whitening_serves_another_scan(rng):
    x = rng.normal(size=(500, 3))
    whitening = neighbour_whitening(x, GRID)
    assert whitening.pairs == 20 * 24 + 19 * 25
    assert 0.001 <= whitening.shrinkage <= 1
    assert np.allclose(whitening.apply(x[:7]), whiten_by_neighbours(x, GRID)[:7])
    with pytest.raises(StageError, match="columns"):
        whitening.apply(x[:, :2])


def test_features_that_say_the_same_do_not_blow_up(rng):
    a = rng.normal(size=(500, 1))
    z = whiten_by_neighbours(np.hstack([a, a, 2 * a, -a]), GRID)
    assert np.isfinite(z).all() and np.abs(z).max() < 50


def test_more_features_than_chips(rng):
    assert np.isfinite(whiten_by_neighbours(rng.normal(size=(30, 200)), (5, 6))).all()


def test_a_feature_without_noise_does_not_drown_the_rest(rng):
    layer = np.repeat([0.0, 1.0], 250)
    z = whiten_by_neighbours(np.column_stack([layer, rng.normal(size=500)]), GRID)
    assert np.isfinite(z).all()
    assert np.abs(z[:, 0]).max() < 5000  # a signal-to-noise of a thousand at most


def test_too_few_neighbours_fall_back_to_standardised(rng):
    x = rng.normal(size=(500, 3))
    valid = np.zeros(500, bool)
    valid[[0, 3, 7, 100, 400]] = True
    assert np.allclose(whiten_by_neighbours(x, GRID, valid), standardise(x, valid))
    assert whiten_by_neighbours(x[:1], (1, 1)).shape == (1, 3)


@given(finite_matrices)
def test_whitened_features_are_finite(x: np.ndarray):
    assert np.isfinite(whiten_by_neighbours(x, (1, len(x)))).all()


def test_neighbours_are_side_by_side_or_above_and_both_valid():
    valid = np.array([1, 1, 0, 1, 1, 1], bool)
    assert neighbour_pairs((2, 3), valid).tolist() == [[0, 1], [3, 4], [4, 5], [0, 3], [1, 4]]


def test_join_weighs_squared_distances(rng):
    a, b = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))

    def squared(x: np.ndarray) -> float:
        return float(((x[0] - x[1]) ** 2).sum())

    assert np.array_equal(join([a, b]), np.hstack([a, b]))
    assert squared(join([a, b], [1, 3])) == pytest.approx(0.5 * squared(a) + 1.5 * squared(b))
    assert np.allclose(join([a, b], [0.45, 0.55]), join([a, b], [9, 11]))
    assert not join([a, b], [0, 1])[:, :2].any()


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [np.nan, 1], [np.inf, 1], [1, 1, 1]])
def test_join_refuses_weights_that_mean_nothing(weights):
    with pytest.raises(StageError, match="weights"):
        join([np.ones((2, 1)), np.ones((2, 1))], weights)


def test_join_refuses_modalities_that_differ():
    with pytest.raises(StageError, match="at least one"):
        join([])
    with pytest.raises(StageError, match="2, 3 rows"):
        join([np.ones((2, 1)), np.ones((3, 1))])


def test_weights_sum_to_one():
    assert checked_weights([2, 6], 2).tolist() == [0.25, 0.75]


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_unit_rows_have_length_one_at_any_scale(scale, rng):
    x = rng.normal(size=(5, 3)) * scale
    x[2] = 0
    assert np.linalg.norm(unit_rows(x), axis=1) == pytest.approx([1, 1, 0, 1, 1])


@pytest.mark.parametrize(
    ("x", "valid", "line"),
    [
        (np.ones(3), None, "one row per chip"),
        (np.ones((3, 0)), None, "at least one column"),
        (np.ones((3, 1)), np.ones(2, bool), "mask"),
        (np.ones((3, 1)), np.zeros(3, bool), "no chip has data"),
        (np.ones((0, 2)), None, "no chip has data"),
        (np.array([[1.0], [np.nan]]), None, "1 chips are not finite"),
        (np.array([[np.inf], [np.nan]]), None, "2 chips are not finite"),
    ],
)
def test_bad_features_are_refused_in_one_line(x, valid, line):
    with pytest.raises(StageError, match=line) as caught:
        valid_rows(x, valid)
    assert "\n" not in str(caught.value)
    with pytest.raises(StageError):
        standardise(x, valid)


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(StageError, match="2 x 2 chips does not hold 5"):
        whiten_by_neighbours(np.ones((5, 1)), (2, 2))
