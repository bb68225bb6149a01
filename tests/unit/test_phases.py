"""Evidence, regions, phases: what the default clusters are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_t, wishart

from livestem.domain.errors import StageError
from livestem.stages.compiled import compiled
from livestem.stages.evidence import Evidence, Samples
from livestem.stages.features import neighbour_pairs
from livestem.stages.growth import grown
from livestem.stages.phases import communities_of_regions, phase_tree
from livestem.stages.regions import edges, find_regions, grow

SHAPE = (20, 30)


def _field(rng: np.random.Generator, labels: np.ndarray, means: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return means[labels] + noise[labels, None] * rng.normal(size=(len(labels), means.shape[1]))


def _stripes(*widths: int) -> np.ndarray:
    """Labels of upright stripes over `SHAPE`, row-major."""
    return np.tile(np.repeat(np.arange(len(widths)), widths), SHAPE[0])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


# --- evidence ---------------------------------------------------------------------------------------------


def test_the_evidence_is_the_product_of_predictive_densities(rng):
    """An oracle by another way: the chain rule, each row's Student density given the rows before it."""
    rows = rng.normal(size=(6, 3)) * 2
    kappa, freedom, mean, scatter = 0.01, 5.0, np.zeros(3), np.eye(3)
    expected = 0.0
    for row in rows:
        t = freedom - 2
        expected += multivariate_t.logpdf(row, mean, scatter * (kappa + 1) / (kappa * t), df=t)
        scatter = scatter + kappa / (kappa + 1) * np.outer(row - mean, row - mean)
        mean = (kappa * mean + row) / (kappa + 1)
        kappa, freedom = kappa + 1, freedom + 1
    assert Evidence(3, 6).of(Samples.of(rows, np.zeros(6, int)))[0] == pytest.approx(expected, rel=1e-10)


def test_the_prior_covariance_is_the_noise_of_whitened_features():
    """The mean of the inverse-Wishart prior is one in every direction: drawn, not computed."""
    drawn = np.linalg.inv(wishart(df=4 + 6, scale=np.eye(4)).rvs(20000, random_state=1)) * (10 - 4 - 1)
    assert drawn.mean(axis=0) == pytest.approx(np.eye(4), abs=0.05)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_joined_samples_are_those_of_all_rows(seed: int, width: int, count: int):
    rows = np.random.default_rng(seed).normal(size=(2 * count, width)) * 10
    halves = Samples.of(rows, np.repeat([0, 1], count))
    whole = Samples.of(rows, np.zeros(2 * count, int))
    halves.join(0, 1)
    assert halves.count[0] == whole.count[0] == 2 * count and halves.width == width
    assert halves.gram[0] == pytest.approx(whole.gram[0])
    assert Evidence.among(whole).of(halves[[0]]) == pytest.approx(Evidence.among(whole).of(whole))


def test_one_phase_gains_by_joining_and_two_lose(rng):
    one = rng.normal(size=(40, 4))
    other = rng.normal(size=(40, 4)) + [3, 0, 0, 0]
    noisy = 6 * rng.normal(size=(40, 4))
    samples = Samples.of(np.concatenate([one[:20], one[20:], other, noisy]), np.repeat([0, 1, 2, 3], [20, 20, 40, 40]))
    evidence = Evidence.among(samples)
    gain = evidence.gains(samples, evidence.of(samples), np.array([[0, 1], [0, 2], [0, 3]]))
    assert gain[0] > 0 > gain[1], "apart by three noises"
    assert gain[2] < 0, "equal means, but scatter of one and of six"


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([0.5, 1.0]))
@settings(max_examples=15, deadline=None)
def test_what_a_crowd_of_single_chips_gains_is_what_each_would_gain_alone(seed: int, width: int, independent: float):
    """Two large samples among single rows share one factor with these; every pair is also judged by itself."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat([0, 1], [40, 7]), np.arange(2, 202)])
    samples = Samples.of(rng.normal(size=(len(labels), width)) * rng.uniform(0.01, 30, width), labels)
    pairs = np.stack([rng.integers(0, 2, 300), rng.integers(2, 202, 300)], axis=1)
    pairs = rng.permutation(np.concatenate([pairs, pairs[:60, ::-1], [[0, 1], [2, 3], [3, 4]]]))
    evidence = Evidence.among(samples, independent)
    alone = evidence.of(samples)
    joined = evidence.of(Samples(samples.gram[pairs[:, 0]] + samples.gram[pairs[:, 1]]))
    assert evidence.gains(samples, alone, pairs) == pytest.approx(joined - alone[pairs].sum(axis=1), rel=1e-9, abs=1e-8)


# --- regions ----------------------------------------------------------------------------------------------


def test_regions_never_cross_into_another_phase(rng):
    labels = _stripes(10, 8, 12)
    rows = _field(rng, labels, np.array([[0.0] * 4, [20.0] * 4, [0, 20.0, 0, 20]]), np.array([1.0, 1, 5]))
    found = find_regions(rows, rows[:, :2], SHAPE)
    for region in range(len(found.samples)):
        assert len(set(labels[found.labels == region])) == 1
    assert found.samples.count.sum() == labels.size and found.labels.min() == 0


def test_growing_joins_neighbours_only(rng):
    rows = rng.normal(size=(6, 3))
    assert len(set(grow(rows, np.array([[0, 1], [1, 2], [3, 4], [4, 5]])))) >= 2  # nothing joins 2 and 3
    assert len(set(grow(rows, np.zeros((0, 2), int)))) == 6


def _grown_plainly(rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Grow regions as the module says, every gain from the rows themselves."""
    regions = {i: [i] for i in range(len(rows))}
    evidence = Evidence(rows.shape[1], len(rows))

    def alone(members: list[int]) -> float:
        return float(evidence.of(Samples.of(rows[members], np.zeros(len(members), int)))[0])

    while True:
        of = {chip: name for name, members in regions.items() for chip in members}
        near = sorted({tuple(sorted((of[a], of[b]))) for a, b in pairs.tolist() if of[a] != of[b]})
        gain = {(a, b): alone(regions[a] + regions[b]) - alone(regions[a]) - alone(regions[b]) for a, b in near}
        best = {name: max((g for p, g in gain.items() if name in p), default=-1.0) for name in regions}
        joined = [(a, b) for (a, b), g in gain.items() if g > 0 and g == best[a] == best[b]]
        if not joined:
            return np.array([of[i] for i in range(len(rows))])
        for a, b in joined:
            regions[a] += regions.pop(b)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_growing_is_what_its_rules_say(seed: int):
    rng = np.random.default_rng(seed)
    shape = (6, 7)
    rows = rng.normal(size=(42, 3)) + 4 * (np.arange(42) % 7 > 3)[:, None]
    pairs = neighbour_pairs(shape, np.ones(42, bool))
    assert grow(rows, pairs).tolist() == _grown_plainly(rows, pairs).tolist()


def test_what_grows_is_named_by_its_first_chip_and_who_has_no_neighbour_stays_alone(rng):
    rows = np.repeat(rng.normal(size=(2, 2)) * 30, 8, axis=0) + rng.normal(size=(16, 2)) * 0.1
    pairs = [[i, i + 1] for i in range(2, 15)]  # the first two have no neighbour
    assert grow(rows, np.array(pairs[::-1])).tolist() == [0, 1] + [2] * 6 + [8] * 8


def test_of_equal_gains_each_chip_takes_one(rng):
    rows = np.zeros((7, 2))  # a row of equal chips: every pair gains the same
    assert grow(rows, np.array([[i, i + 1] for i in range(6)])).tolist() == [0] * 7


def test_determinants_beyond_what_a_number_holds_are_no_trouble(rng):
    rows = np.concatenate([rng.normal(size=(40, 40)) * 1e5, rng.normal(size=(40, 40)) * 1e-5])
    pairs = np.array([[i, i + 1] for i in range(79)])
    assert grow(rows, pairs).tolist() == _grown_plainly(rows, pairs).tolist()


def test_whatever_is_grown_what_the_warm_up_compiled_serves(rng):
    grow(np.zeros((2, 1)), np.array([[0, 1]]))
    grow(np.asfortranarray(rng.normal(size=(5, 3)).astype(np.float32)), np.array([[0, 1], [3, 4]], np.int32))
    grow(rng.normal(size=(5, 3)), np.zeros((0, 2), int))
    assert len(grown.signatures) == 1


def test_a_loop_is_compiled_at_each_start_where_nothing_can_be_kept(monkeypatch):
    kept = []

    def njit(*, cache=False, **how):
        kept.append(cache)
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return lambda loop: loop

    monkeypatch.setattr("livestem.stages.compiled.njit", njit)
    assert compiled(len) is len and kept == [True, False]


def test_an_edge_lies_between_chips_that_differ_and_noise_is_none(rng):
    labels = _stripes(15, 15)
    mixing = _field(rng, labels, np.array([[0.0, 0], [30, 0]]), np.array([1.0, 1]))
    valid = np.ones(labels.size, bool)
    found = edges(mixing, SHAPE, valid).reshape(SHAPE)
    assert found[:, 14:16].all()
    assert found[:, :13].mean() < 0.02 and found[:, 17:].mean() < 0.02  # four directions at once in a thousand
    valid[: SHAPE[1]] = False
    assert not edges(mixing, SHAPE, valid).reshape(SHAPE)[0].any()


def test_chips_without_data_are_in_no_region(rng):
    labels = _stripes(10, 20)
    rows = _field(rng, labels, np.array([[0.0, 0, 0], [9, 9, 9]]), np.array([1.0, 1]))
    valid = np.ones(labels.size, bool)
    valid[::7] = False
    rows[~valid] = np.nan
    found = find_regions(np.nan_to_num(rows), np.nan_to_num(rows), SHAPE, valid)
    assert (found.labels[~valid] == -1).all() and (found.labels[valid] >= 0).all()


# --- phases -----------------------------------------------------------------------------------------------

PHASES = st.integers(2, 5)


@given(PHASES, st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_tree_and_the_communities_find_as_many_phases_as_there_are(count: int, seed: int):
    """Phases five noises apart, of different scatter; every region is a small sample of one of them."""
    rng = np.random.default_rng(seed)
    means = 8 * np.linalg.qr(rng.normal(size=(6, 6)))[0][:count]
    truth = np.repeat(np.arange(count), 12)
    rows = np.concatenate([means[k] + rng.uniform(0.7, 2) * rng.normal(size=(12, 6)) for k in truth])
    samples = Samples.of(rows - rows.mean(axis=0), np.repeat(np.arange(len(truth)), 12))
    tree = phase_tree(samples)
    assert abs(tree.suggested - count) <= 1
    assert _same(tree.cut(count), truth)
    assert abs(len(set(communities_of_regions(phase_tree(samples)).labels)) - count) <= 1


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


def test_communities_smaller_than_the_resolution_limit_are_found(rng):
    """Two small phases beside a large one: modularity alone joins them."""
    sizes = [400] * 12 + [20] * 6
    truth = np.repeat([0, 1, 2], [12, 3, 3])
    means = np.array([[0.0] * 4, [40] * 4, [40, 40, 46, 40]])
    rows = np.concatenate([means[k] + rng.normal(size=(n, 4)) for k, n in zip(truth, sizes, strict=True)])
    samples = Samples.of(rows - rows.mean(axis=0), np.repeat(np.arange(18), sizes))
    assert _same(communities_of_regions(phase_tree(samples)).labels, truth)


def test_one_region_is_one_phase(rng):
    samples = Samples.of(rng.normal(size=(9, 3)), np.zeros(9, int))
    tree = phase_tree(samples)
    assert (tree.regions, tree.suggested) == (1, 1) and tree.cut(1).tolist() == [0]
    assert communities_of_regions(phase_tree(samples)).labels.tolist() == [0]


def test_a_tree_cannot_be_cut_into_more_phases_than_regions(rng):
    tree = phase_tree(Samples.of(rng.normal(size=(20, 3)), np.repeat([0, 1], 10)))
    with pytest.raises(StageError, match="ask for 1 to 2"):
        tree.cut(3)
    with pytest.raises(StageError, match="ask for 1 to 2"):
        tree.cut(0)


@pytest.mark.parametrize("columns", [3, 6, 11])
def test_noise_is_one_phase(columns: int):
    """Regions are grown on the noise that they are judged by, so now and then it looks like two: seldom."""
    found = []
    for seed in range(12):
        rows = np.random.default_rng(seed).normal(size=(SHAPE[0] * SHAPE[1], columns))
        regions = find_regions(rows, rows, SHAPE)
        samples = regions.samples[regions.solid]
        found += [phase_tree(samples).suggested, int(communities_of_regions(phase_tree(samples)).labels.max()) + 1]
    assert np.mean(np.array(found) == 1) > 0.85 and max(found) <= 3
