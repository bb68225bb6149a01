"""Ward against scikit-learn: the very same partition, on both ways of computing distances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestem.domain.errors import StageError
from livestem.stages import ward
from livestem.stages.agreement import ami, number_by_appearance
from livestem.stages.ward import suggest_clusters, ward_labels, ward_tree

NARROW, WIDE = 12, 300  # columns: direct distances, and those from a matrix product


def oracle(x: np.ndarray, k: int) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering

    return number_by_appearance(AgglomerativeClustering(n_clusters=k, linkage="ward").fit_predict(x))


def blobs(rng: np.random.Generator, chips: int, width: int, kinds: int = 4, gap: float = 8.0) -> np.ndarray:
    centres = rng.normal(size=(kinds, width)) * gap / np.sqrt(width)
    return centres[rng.integers(0, kinds, chips)] + rng.normal(size=(chips, width))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("chips", [40, 200])
@pytest.mark.parametrize("width", [1, NARROW, WIDE, 700])
@pytest.mark.parametrize("kind", ["noise", "blobs", "float32", "offset"])
def test_the_partition_is_that_of_scikit_learn(seed, chips, width, kind):
    rng = np.random.default_rng([seed, chips, width])
    x = rng.normal(size=(chips, width)) if kind == "noise" else blobs(rng, chips, width)
    if kind == "float32":
        x = x.astype(np.float32)
    if kind == "offset":
        x = x + 1e4  # far from the origin a matrix product cancels, unless the rows are centred
    for k in (1, 2, 3, 25, chips - 1):
        assert np.array_equal(ward_labels(x, k), oracle(x, k)), k


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_counts_with_many_ties_too(width):
    """Whole numbers: both ways are exact, so even ties fall alike."""
    rng = np.random.default_rng(3)
    x = rng.poisson(6.0 / width, size=(200, width))
    x[150:] = x[:50]
    differ = len(np.unique(x, axis=0))
    for k in (2, 5, 20, differ):
        assert np.array_equal(ward_labels(x, k), oracle(x, k))
    assert np.array_equal(ward_tree(x).merges, _scipy_tree(x))


def _scipy_tree(x: np.ndarray) -> np.ndarray:
    from scipy.cluster.hierarchy import linkage

    return linkage(x.astype(float), method="ward")


@pytest.mark.parametrize("copies", [3, 150])
def test_equal_chips_among_real_numbers_merge_at_height_zero(copies):
    """Few copies are computed directly one by one, many all at once; both give exact zeros."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, WIDE))
    x[:copies] = x[0]
    tree = ward_tree(x)
    assert np.count_nonzero(tree.merges[:, 2] == 0) == copies - 1
    for k in (2, 10, 200 - copies + 1):
        assert np.array_equal(tree.cut(k), oracle(x, k))


def test_close_pairs_keep_their_digits():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(60, WIDE)) * 1e3
    x[30:] = x[:30] + rng.normal(size=(30, WIDE)) * 1e-6
    assert np.allclose(ward_tree(x).merges[:, 2], _scipy_tree(x)[:, 2], rtol=1e-9)
    assert np.array_equal(ward_labels(x, 30), np.tile(np.arange(30), 2))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 10_000), st.data())
def test_a_cut_has_the_clusters_asked_for_numbered_by_first_appearance(chips, width, seed, data):
    x = np.random.default_rng(seed).normal(size=(chips, width))
    k = data.draw(st.integers(1, chips))
    labels = ward_labels(x, k)
    assert labels.dtype == np.int16
    assert sorted(set(labels.tolist())) == list(range(k))
    first = [labels.tolist().index(v) for v in range(k)]
    assert first == sorted(first)


def test_cuts_of_one_tree_are_nested():
    tree = ward_tree(np.random.default_rng(1).normal(size=(80, 5)))
    for k in range(1, 79):
        coarse, fine = tree.cut(k), tree.cut(k + 1)
        assert len({*zip(fine.tolist(), coarse.tolist(), strict=True)}) == k + 1


def test_order_of_chips_does_not_matter():
    rng = np.random.default_rng(2)
    x, order = blobs(rng, 150, 6), rng.permutation(150)
    assert ami(ward_labels(x, 4)[order], ward_labels(x[order], 4)) == pytest.approx(1.0)


def test_chips_without_data_are_left_out():
    x = blobs(np.random.default_rng(8), 60, 5)
    valid = np.arange(60) % 4 != 0
    labels = ward_labels(np.where(valid[:, None], x, np.nan), 3, valid)
    assert np.array_equal(labels[valid], ward_labels(x[valid], 3))
    assert (labels[~valid] == -1).all()


def test_one_chip_or_equal_chips_are_one_cluster():
    assert ward_labels(np.ones((1, 3)), 1).tolist() == [0]
    assert ward_labels(np.ones((4, 3)), 1).tolist() == [0, 0, 0, 0]
    assert suggest_clusters(ward_tree(np.ones((1, 3)))) == 1
    assert suggest_clusters(ward_tree(np.ones((4, 3)))) == 1


@pytest.mark.parametrize(
    ("x", "k", "line"),
    [
        (np.ones((1, 3)), 2, "2 clusters of 1 chips"),
        (np.eye(3), 4, "ask for 1 to 3"),
        (np.eye(3), 0, "ask for 1 to 3"),
        (np.eye(3), -1, "ask for 1 to 3"),
        (np.ones((5, 3)), 2, "only 1 of the chips differ"),
        (np.ones((5, WIDE)), 2, "only 1 of the chips differ"),
        (np.full((5, WIDE), 0.1), 2, "only 1 of the chips differ"),
        (np.repeat(np.eye(3), 4, axis=0), 4, "only 3 of the chips differ"),
        (np.array([[1.0], [np.nan], [2.0]]), 2, "1 chips are not finite"),
        (np.array([[1.0], [np.inf], [2.0]]), 2, "1 chips are not finite"),
        (np.array([[1e200], [-1e200], [2.0]]), 2, "too large"),
        (np.ones(5), 2, "one row per chip"),
    ],
)
def test_what_cannot_be_clustered_is_refused_in_one_line(x, k, line):
    with pytest.raises(StageError, match=line) as caught:
        ward_labels(x, k)
    assert "\n" not in str(caught.value)


def test_valid_chips_count_not_all_chips():
    with pytest.raises(StageError, match="ask for 1 to 2"):
        ward_labels(np.eye(3), 3, np.array([True, False, True]))


@pytest.mark.parametrize("kinds", [2, 3, 4, 6])
def test_the_suggestion_finds_clear_phases(kinds):
    rng = np.random.default_rng(kinds)
    centres = 30 * np.eye(kinds, 7)
    x = centres[np.arange(300) % kinds] + rng.normal(size=(300, 7))
    assert suggest_clusters(ward_tree(x)) == kinds


def test_the_suggestion_is_the_calinski_harabasz_maximum():
    from sklearn.metrics import calinski_harabasz_score

    x = blobs(np.random.default_rng(4), 200, 5, kinds=5, gap=5.0)
    tree = ward_tree(x)
    scores = {k: calinski_harabasz_score(x, tree.cut(k)) for k in range(2, 9)}
    assert suggest_clusters(tree) == max(scores, key=lambda k: scores[k])


def test_the_suggestion_stays_within_bounds():
    tree = ward_tree(blobs(np.random.default_rng(9), 100, 4, kinds=9, gap=60.0))
    assert suggest_clusters(tree, most=5) <= 5
    assert suggest_clusters(tree, most=1) == 1
    assert suggest_clusters(ward_tree(np.eye(2))) == 2
    assert suggest_clusters(ward_tree(np.repeat(np.eye(3), 5, axis=0))) == 3
    with pytest.raises(StageError, match="at least 1"):
        suggest_clusters(tree, most=0)


def test_the_fast_way_is_taken_for_wide_features(monkeypatch):
    x = np.random.default_rng(0).normal(size=(50, WIDE))
    fast = ward._distances(x)
    monkeypatch.setattr(ward, "_FAST_FROM", WIDE + 1)
    assert not np.array_equal(fast, ward._distances(x))
    assert np.allclose(fast, ward._distances(x), rtol=1e-12)
