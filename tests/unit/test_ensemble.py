"""Ensembles: pairs of labels, means of similarities, features side by side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestem.domain.errors import StageError
from livestem.stages.ensemble import join, mean_affinity, vector_vote
from livestem.stages.features import standardise
from livestem.stages.louvain import communities, similarity_matrix
from livestem.stages.ward import ward_labels

label_maps = st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 300)), min_size=1, max_size=60)


def test_the_ordered_pair_is_the_class():
    assert vector_vote(np.array([0, 0, 1, 1, 0]), np.array([0, 1, 0, 1, 0])).tolist() == [0, 1, 2, 3, 0]
    assert vector_vote(np.array([0, 1]), np.array([1, 0])).tolist() == [0, 1]  # (0, 1) is not (1, 0)


@given(label_maps)
def test_two_chips_share_a_class_where_they_share_both_labels(pairs):
    a, b = (np.array(v) for v in zip(*pairs, strict=True))
    voted = vector_vote(a, b)
    assert voted.dtype == np.int16
    for i, p in enumerate(pairs):
        assert (voted[i] == -1) == (min(p) < 0)
        for j, q in enumerate(pairs):
            if min(p) >= 0 and min(q) >= 0:
                assert (voted[i] == voted[j]) == (p == q)
    seen = list(dict.fromkeys(voted[voted >= 0].tolist()))
    assert seen == list(range(len(seen)))


def test_maps_keep_their_shape_and_three_vote_in_turn():
    a, b = np.array([[0, 1], [1, 0]]), np.array([[0, 0], [1, -1]])
    assert vector_vote(a, b).tolist() == [[0, 1], [2, -1]]
    assert vector_vote(vector_vote(a, b), a).tolist() == [[0, 1], [2, -1]]
    assert vector_vote(np.empty(0, int), np.empty(0, int)).size == 0


def test_labels_of_a_full_int16_map_do_not_overflow():
    many = np.arange(300, dtype=np.int16)
    assert vector_vote(many, many[::-1].copy()).tolist() == list(range(300))


def test_maps_of_different_grids_are_refused():
    with pytest.raises(StageError, match="use one grid"):
        vector_vote(np.zeros(4, int), np.zeros((2, 2), int))


def test_mean_affinity_is_the_weighted_mean():
    a, b = np.full((2, 2), 0.2), np.full((2, 2), 0.6)
    assert np.allclose(mean_affinity([a, b]), 0.4)
    assert np.allclose(mean_affinity([a, b], [3, 1]), 0.3)
    assert np.array_equal(mean_affinity([a]), a)
    assert a[0, 0] == 0.2 and b[0, 0] == 0.6  # the parts are not written to


@pytest.mark.parametrize(
    ("parts", "weights", "line"),
    [
        ([], None, "at least one"),
        ([np.eye(2), np.eye(3)], None, "cannot be averaged"),
        ([np.eye(2), np.eye(2)], [1], "weights must be 2"),
        ([np.eye(2), np.eye(2)], [1, -1], "weights must be 2"),
    ],
)
def test_similarities_that_do_not_fit_are_refused(parts, weights, line):
    with pytest.raises(StageError, match=line):
        mean_affinity(parts, weights)


def test_each_way_sees_what_no_modality_sees_alone():
    """Image tells left from right, spectra top from bottom: together four quarters."""
    rng = np.random.default_rng(0)
    y, x = np.divmod(np.arange(400), 20)
    left, top = x < 10, y < 10
    image = np.column_stack([left, ~left]) + 0.1 * rng.normal(size=(400, 2))
    spectra = np.column_stack([top, ~top]) + 0.1 * rng.normal(size=(400, 2))
    quarters = vector_vote(left.astype(int), top.astype(int))
    votes = vector_vote(ward_labels(image, 2), ward_labels(spectra, 2))
    joint = ward_labels(join([standardise(image), standardise(spectra)]), 4)
    affinity = mean_affinity([similarity_matrix(image), similarity_matrix(spectra)])
    for labels in (votes, joint, communities(affinity, 0.8).labels):
        assert np.array_equal(labels, quarters)
