"""Agreement: numbering, AMI by its definition, and every pair in one order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from livestem.domain.errors import StageError
from livestem.stages.agreement import ami, number_by_appearance, pairwise


@given(arrays(np.int64, array_shapes(max_dims=2, max_side=20), elements=st.integers(-2, 40)))
def test_numbering_keeps_the_partition_and_is_idempotent(labels):
    named = number_by_appearance(labels)
    assert named.dtype == np.int16 and named.shape == labels.shape
    assert np.array_equal(named == -1, labels < 0)
    assert len({*zip(labels[labels >= 0].tolist(), named[labels >= 0].tolist(), strict=True)}) == named.max() + 1
    first_seen = list(dict.fromkeys(named[named >= 0].tolist()))
    assert first_seen == list(range(len(first_seen)))
    assert np.array_equal(number_by_appearance(named), named)


def test_equal_partitions_become_equal_arrays():
    a = np.array([7, 7, 3, 9, 3])
    assert np.array_equal(number_by_appearance(a), number_by_appearance(np.array([0, 0, 5, 2, 5])))
    assert number_by_appearance(a).tolist() == [0, 0, 1, 2, 1]


def test_labels_of_valid_chips_return_to_their_places():
    valid = np.array([False, True, True, False, True])
    assert number_by_appearance(np.array([4, 2, 4]), valid).tolist() == [-1, 0, 1, -1, 0]


def test_more_labels_than_a_map_holds_are_refused():
    assert number_by_appearance(np.arange(32767)).max() == 32766
    with pytest.raises(StageError, match="use larger chips"):
        number_by_appearance(np.arange(32768))


def test_a_worked_example():
    """Vinh et al.'s definition, (MI - E[MI]) / (mean entropy - E[MI]), with E[MI] over all permutations."""
    a, b = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])

    def information(p: np.ndarray, q: np.ndarray) -> float:
        joint = np.histogram2d(p, q, bins=(3, 2))[0] / len(p)
        chance = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        some = joint > 0
        return float((joint[some] * np.log(joint[some] / chance[some])).sum())

    def entropy(p: np.ndarray) -> float:
        share = np.bincount(p) / len(p)
        return float(-(share * np.log(share)).sum())

    expected = np.mean([information(a, np.array(p)) for p in permutations(b.tolist())])
    by_hand = (information(a, b) - expected) / ((entropy(a) + entropy(b)) / 2 - expected)
    assert ami(a, b) == pytest.approx(by_hand)


def test_names_of_labels_do_not_matter():
    a = np.random.default_rng(0).integers(0, 4, 100)
    assert ami(a, np.array([9, 5, 2, 7])[a]) == 1.0


def test_independent_maps_agree_by_nothing():
    rng = np.random.default_rng(1)
    assert abs(ami(rng.integers(0, 5, 3000), rng.integers(0, 5, 3000))) < 0.01


@given(arrays(np.int16, (12, 2), elements=st.integers(-1, 3)))
def test_agreement_is_symmetric_and_at_most_one(pair):
    a, b = pair.T
    value = ami(a, b)
    both = int(((a >= 0) & (b >= 0)).sum())
    assert (value is None) == (both < 2)
    if value is not None:
        assert value <= 1 and np.isfinite(value)
        assert value == pytest.approx(ami(b, a), abs=1e-9)


def test_chips_without_data_in_either_map_do_not_count():
    a, b = np.array([0, 0, 1, 1, -1, 0]), np.array([1, 1, 0, 0, 0, -1])
    assert ami(a, b) == 1.0
    assert ami(a.reshape(2, 3), b.reshape(2, 3)) == 1.0
    assert ami(np.array([-1, -1, 0]), np.array([0, 0, 0])) is None
    assert ami(np.array([], int), np.array([], int)) is None


def test_maps_of_one_label_agree_fully():
    assert ami(np.zeros(5, int), np.ones(5, int)) == 1.0


def test_maps_of_different_grids_are_refused():
    with pytest.raises(StageError, match="use one grid"):
        ami(np.zeros(4, int), np.zeros(5, int))


def test_every_pair_in_one_order_whatever_the_mapping():
    rng = np.random.default_rng(2)
    names = ["haadf", "eds", "atomic", "lines", "zloss", "haadf+eds", "haadf+lines", "haadf+atomic+lines"]
    maps = {n: rng.integers(0, 3, 40) for n in names}
    expected = [f"{a}-{b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    for order in (names, names[::-1], sorted(names)):
        found = pairwise({n: maps[n] for n in order})
        assert list(found) == expected
    assert found["haadf-lines"] == ami(maps["haadf"], maps["lines"])


def test_one_map_has_no_pair_and_empty_maps_no_value():
    assert pairwise({"haadf": np.zeros(3, int)}) == {}
    assert pairwise({"haadf": np.full(3, -1), "lines": np.zeros(3, int)}) == {"haadf-lines": None}


def test_a_map_that_tells_nothing_apart_agrees_with_nothing():
    one, two = np.zeros((2, 3), np.int16), np.array([[0, 0, 1], [0, 1, 1]], np.int16)
    found = pairwise({"haadf": one, "lines": two, "eds": one})
    assert found == {"haadf-eds": None, "haadf-lines": None, "eds-lines": None}
    assert pairwise({"haadf": two, "lines": two}) == {"haadf-lines": pytest.approx(1.0)}
