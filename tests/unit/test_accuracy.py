"""Measures of a label map against the truth: oracles, what must hold, what nobody can know."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import norm

from livestem.domain.errors import StageError
from livestem.stages import accuracy
from livestem.stages.accuracy import adjusted_rand, as_classes, border_ceiling, boundary_error_nm, measures, numbered_as

PIXEL = (0.05, 0.05)
maps = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=2, max_size=60)


def of_classes(classes: np.ndarray, number: int) -> np.ndarray:
    """Return the shares of chips of one class each."""
    return np.eye(number)[classes]


# --- partitions and names


def rand_by_counting_pairs(a: np.ndarray, b: np.ndarray) -> float:
    """Return the adjusted Rand index from its definition: all pairs, one by one."""
    n = len(a)
    pairs = [(a[i] == a[j], b[i] == b[j]) for i in range(n) for j in range(i)]
    both, in_a, in_b = (sum(f(p) for p in pairs) for f in (all, lambda p: p[0], lambda p: p[1]))
    expected, most = in_a * in_b / len(pairs), (in_a + in_b) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


@given(maps)
@settings(max_examples=60, deadline=None)
def test_adjusted_rand_is_its_definition_over_chips_labelled_in_both(chips):
    a, b = np.array(chips, np.int16).T
    both = (a >= 0) & (b >= 0)
    found = adjusted_rand(a, b)
    if both.sum() < 2:
        assert found is None
    else:
        assert found == pytest.approx(rand_by_counting_pairs(a[both], b[both]), abs=1e-9)


def test_measures_of_a_map_worked_out_by_hand():
    truth = np.array([[0, 0, 0, 0], [1, 1, 2, -1]])
    labels = np.array([[0, 0, 1, -1], [1, 0, 2, 2]])  # one chip without data, one of which nobody knows
    found = measures(labels, truth, 4)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.recall == (pytest.approx(2 / 3), pytest.approx(1 / 2), 1.0, None)  # there is no chip of class 3


def test_the_numbers_of_clusters_do_not_matter_but_those_of_classes_do():
    truth = np.repeat(np.arange(3), 20).reshape(6, 10)
    other = np.array([2, 0, 1])[truth]
    found = measures(other, truth, 3)
    assert found.ami == pytest.approx(1) and found.ari == 1 and found.accuracy == 0
    assert measures(truth, truth, 3).recall == (1, 1, 1)


def test_labels_that_know_nothing_score_nothing():
    rng = np.random.default_rng(1)
    found = measures(rng.integers(0, 4, (40, 40)), rng.integers(0, 4, (40, 40)), 4)
    assert abs(found.ami) < 0.01 and abs(found.ari) < 0.01 and found.accuracy == pytest.approx(0.25, abs=0.04)


def test_nothing_to_compare_is_none():
    empty = np.full((3, 3), -1)
    assert measures(empty, np.zeros((3, 3), int), 2) == accuracy.Measures(None, None, None, (None, None))


def test_labels_are_matched_by_name_and_unknown_names_are_never_right():
    labels = np.array([[0, 1, 2], [2, -1, 3]])
    found, unknown = numbered_as(labels, ("STO", "glue", "LFO", "ice"), ("Cr", "LFO", "STO"))
    assert unknown == ["glue", "ice"]
    assert found.tolist() == [[2, 3, 1], [1, -1, 4]] and found.dtype == np.int16
    with pytest.raises(StageError, match="label 3 has no name"):
        numbered_as(labels, ("STO", "LFO"), ("LFO", "STO"))


def test_maps_of_two_grids_are_refused():
    with pytest.raises(StageError, match="use one grid"):
        measures(np.zeros((2, 3), int), np.zeros((3, 2), int), 1)
    with pytest.raises(StageError, match="use one grid"):
        as_classes(np.zeros((2, 3), int), np.zeros((3, 2, 4)))


def test_a_cluster_is_of_the_class_that_it_overlaps_most_by_area_not_by_chips():
    shares = np.array([[[0.6, 0.4], [0.6, 0.4], [0.0, 1.0], [0.0, 0.0]]])
    assert as_classes(np.array([[0, 0, 0, 1]]), shares).tolist() == [[1, 1, 1, -1]]  # 1.2 chips against 1.8
    assert as_classes(np.array([[0, 0, 1, -1]]), shares).tolist() == [[0, 0, 1, -1]]


# --- the ceiling


def test_the_ceiling_of_pure_chips_is_one():
    found = border_ceiling(of_classes(np.arange(400) % 4, 4))
    assert found.accuracy == pytest.approx(1, abs=1e-3) and found.ami == pytest.approx(1, abs=2e-3)


def test_the_ceiling_of_two_classes_is_the_normal_law():
    """Share s against 1 - s, each off by 0.15: wrong where the difference's noise exceeds 2 s - 1."""
    share = np.linspace(0.5, 1, 2001)
    expected = norm.cdf((2 * share - 1) / (0.15 * math.sqrt(2))).mean()
    found = border_ceiling(np.stack([share, 1 - share], axis=-1), draws=50)
    assert found.accuracy == pytest.approx(expected, abs=0.002)


def test_without_noise_the_ceiling_is_one_and_more_noise_is_worse():
    rng = np.random.default_rng(3)
    shares = rng.dirichlet([0.1, 0.1, 0.1], 900)
    reached = [border_ceiling(shares, noise=noise) for noise in (0.0, 0.15, 0.5)]
    assert reached[0].accuracy == 1 and reached[0].ami == pytest.approx(1)
    assert reached[0].ami > reached[1].ami > reached[2].ami
    assert reached[0].ari > reached[1].ari > reached[2].ari


def test_equal_seeds_give_equal_ceilings_and_unknown_chips_do_not_count():
    shares = np.random.default_rng(4).dirichlet([0.2, 0.2], 300)
    with_unknown = np.concatenate([shares, np.zeros((50, 2))])
    assert border_ceiling(shares) == border_ceiling(with_unknown)
    assert border_ceiling(shares, seed=1) != border_ceiling(shares, seed=2)


def test_the_ceiling_of_no_chips_is_none():
    assert border_ceiling(np.zeros((0, 3))).accuracy is None
    assert border_ceiling(np.zeros((5, 3))).ami is None


# --- boundaries


def split(at: int, shape: tuple[int, int] = (60, 60)) -> np.ndarray:
    """Return pixels that are class 1 from column `at` on."""
    return np.broadcast_to((np.arange(shape[1]) >= at).astype(np.int8), shape)


@pytest.mark.parametrize(("at", "expected"), [(30, 0), (31, 1), (26, 4), (40, 10)])
def test_a_straight_edge_drawn_d_away_has_the_error_d(at, expected):
    chips = split(3, (6, 6))  # edge at pixel 30
    assert boundary_error_nm(chips, split(at), PIXEL) == pytest.approx(expected * 0.05)
    assert boundary_error_nm(chips.T, split(at).T, PIXEL) == pytest.approx(expected * 0.05)


def test_pixels_that_are_not_square_are_measured_in_nm():
    chips = split(3, (6, 6))
    assert boundary_error_nm(chips, split(32), (0.05, 0.1)) == pytest.approx(0.2)
    assert boundary_error_nm(chips.T, split(32).T, (0.05, 0.1)) == pytest.approx(0.1)


def test_an_edge_that_was_not_there_counts_as_much_as_one_that_was_missed():
    truth = np.where(np.arange(60)[None, :].repeat(60, 0) >= 40, 2, split(20))
    one, both = split(2, (6, 6)), np.where(np.arange(6)[None, :].repeat(6, 0) >= 4, 2, split(2, (6, 6)))
    missed = boundary_error_nm(one, truth, PIXEL)
    invented = boundary_error_nm(both, split(20), PIXEL)
    assert missed == pytest.approx(invented) == pytest.approx(20 * 0.05 / 3)  # one edge of three is 20 px off


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_boundary_is_the_mean_over_all_pairs_of_edges(seed):
    rng = np.random.default_rng(seed)
    chips, truth = rng.integers(-1, 2, (3, 4)), rng.integers(-1, 3, (9, 12))
    drawn = np.kron(chips, np.ones((3, 3), int))

    def edges(of: np.ndarray) -> np.ndarray:
        there = []
        for y, x in np.ndindex(9, 12):
            for down, right in ((1, 0), (0, 1)):
                if y + down < 9 and x + right < 12:
                    known = min(m[p] for m in (drawn, truth) for p in ((y, x), (y + down, x + right))) >= 0
                    if known and of[y, x] != of[y + down, x + right]:
                        there.append(((y + down / 2) * 0.05, (x + right / 2) * 0.05))
        return np.array(there)

    ours, theirs = edges(drawn), edges(truth)
    found = boundary_error_nm(chips, truth, PIXEL)
    if not len(ours) or not len(theirs):
        assert found is None
    else:
        apart = cdist(ours, theirs)
        assert found == pytest.approx(np.concatenate([apart.min(0), apart.min(1)]).mean())


def test_no_boundary_at_all_is_none():
    assert boundary_error_nm(np.zeros((6, 6), int), split(30), PIXEL) is None
    assert boundary_error_nm(split(3, (6, 6)), np.zeros((60, 60), int), PIXEL) is None
    assert boundary_error_nm(np.full((6, 6), -1), split(30), PIXEL) is None


def test_chips_without_data_have_no_edges():
    chips = split(3, (6, 6)).astype(int)
    hidden = chips.copy()
    hidden[:, 2:4] = -1  # the border itself
    assert boundary_error_nm(hidden, split(30), PIXEL) is None
    hidden = chips.copy()
    hidden[:3] = -1
    truth = split(30).copy()
    truth[:30] = split(5)[:30]  # wrong only where there are no data
    assert boundary_error_nm(hidden, truth, PIXEL) == 0


def test_pixels_that_are_not_whole_chips_are_refused():
    with pytest.raises(StageError, match="whole chips"):
        boundary_error_nm(np.zeros((6, 6), int), np.zeros((61, 60), int), PIXEL)
