"""A sample that answers for all: every chip where it would have gone, by the plain way, near the exact answer."""

from __future__ import annotations

import numpy as np
import pytest

from livestem.domain.errors import StageError
from livestem.stages import sampled
from livestem.stages.agreement import ami, number_by_appearance
from livestem.stages.louvain import communities, similarity_matrix
from livestem.stages.sampled import sample, to_communities, to_nearest_means
from livestem.stages.ward import ward_labels


def blobs(seed: int, chips: int = 600, kinds: int = 4, width: int = 8, noise: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(kinds, width))[rng.integers(0, kinds, chips)] + noise * rng.normal(size=(chips, width))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(sampled, "_BLOCK", 64)


def test_a_sample_is_of_chips_with_data_each_once_in_order_and_the_seed_decides():
    valid = np.arange(500) % 3 != 0
    chosen = sample(valid, 100, 7)
    assert len(chosen) == 100 == len(set(chosen.tolist())) and valid[chosen].all() and (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, sample(valid, 100, 7)) and not np.array_equal(chosen, sample(valid, 100, 8))


@pytest.mark.parametrize("most", [4, 5, 99])
def test_few_chips_are_all_taken(most):
    assert sample(np.array([1, 0, 1, 1, 1], bool), most, 1).tolist() == [0, 2, 3, 4]


def test_every_chip_joins_the_nearest_mean_and_the_sample_keeps_what_it_had(small_blocks):
    x, valid = blobs(1) + 1e4, np.arange(600) % 7 != 0
    x[~valid] = np.nan
    chosen = sample(valid, 150, 42)
    labels = ward_labels(x[chosen], 5)
    found = to_nearest_means(x, valid, chosen, labels)
    means = [x[chosen][labels == k].mean(axis=0) for k in range(5)]
    plain = [int(np.argmin([np.linalg.norm(row - mean) for mean in means])) for row in x[valid]]
    expected = np.full(600, -1)
    expected[valid] = plain
    expected[chosen] = labels
    assert np.array_equal(found, number_by_appearance(expected)) and (found[~valid] == -1).all()


@pytest.mark.parametrize("weights", ["similarity", "binary"])
@pytest.mark.parametrize("rule", ["mode", "mean", 0.9, -0.5])
def test_every_chip_joins_the_community_that_gains_most(small_blocks, weights, rule):
    """One chip at a time: the gain of Louvain's move into the graph of the sample."""
    parts, valid = [blobs(2), blobs(3)], np.arange(600) % 5 != 1
    chosen = sample(valid, 120, 42)
    similarity = np.mean([similarity_matrix(part) for part in parts], axis=0)
    of_sample = communities(similarity[np.ix_(chosen, chosen)], rule, weights)
    found = to_communities(parts, valid, chosen, of_sample, weights)
    edge = (similarity >= of_sample.threshold) & ((similarity > 0) | (weights == "binary"))
    weight = np.where(edge, 1.0 if weights == "binary" else similarity, 0.0)
    among = weight[np.ix_(chosen, chosen)] * (1 - np.eye(len(chosen)))
    expected = np.full(600, -1)
    expected[chosen] = of_sample.labels
    for chip in np.setdiff1d(np.flatnonzero(valid), chosen):
        to = weight[chosen, chip]
        nearest = of_sample.labels[similarity[chosen, chip].argmax()]
        gain = [
            to[of_sample.labels == k].sum() - to.sum() * among[of_sample.labels == k].sum() / max(among.sum(), 1e-300)
            for k in range(of_sample.count)
        ]
        expected[chip] = int(np.argmax(gain)) if to.any() else nearest
    assert np.array_equal(found, number_by_appearance(expected))


def test_a_sample_finds_what_all_chips_find():
    x, valid = blobs(4, chips=1500), np.ones(1500, bool)
    chosen = sample(valid, 400, 42)
    similarity = similarity_matrix(x)
    exact = communities(similarity, starts=10)
    found = to_communities([x], valid, chosen, communities(similarity_matrix(x[chosen]), starts=10), "similarity")
    assert ami(found, exact.labels) > 0.9
    assert ami(to_nearest_means(x, valid, chosen, ward_labels(x[chosen], 4)), ward_labels(x, 4)) > 0.9


def test_a_row_that_is_no_number_is_refused():
    x, valid = blobs(5), np.ones(600, bool)
    chosen = sample(valid, 100, 42)
    x[np.setdiff1d(np.arange(600), chosen)[3]] = np.nan
    found = communities(similarity_matrix(x[chosen]))
    with pytest.raises(StageError, match="not finite"):
        to_communities([x], valid, chosen, found, "similarity")
    with pytest.raises(StageError, match="not finite"):
        to_nearest_means(x, valid, chosen, found.labels)
