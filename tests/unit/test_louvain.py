"""Louvain: the published threshold to the letter, and communities as good as the reference's."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from livestem.domain.errors import StageError
from livestem.stages.agreement import ami
from livestem.stages.louvain import communities, similarity_matrix, threshold
from livestem.stages.louvain_matrix import louvain, merged, modularity_of


def blobs(seed: int, chips: int = 150, kinds: int = 4, width: int = 8, noise: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(kinds, width))[np.arange(chips) % kinds] + noise * rng.normal(size=(chips, width))


def symmetric(upper: list[float]) -> np.ndarray:
    n = round((1 + np.sqrt(1 + 8 * len(upper))) / 2)
    s = np.eye(n)
    s[np.triu_indices(n, 1)] = upper
    return np.triu(s) + np.triu(s, 1).T


def as_networkx(similarity: np.ndarray, cutoff: float, binary: bool):
    """Build the thresholded graph pair by pair, as the paper says it."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(len(similarity)))
    for i in range(len(similarity)):
        for j in range(i + 1, len(similarity)):
            s = float(similarity[i, j])
            if s >= cutoff and (binary or s > 0):
                graph.add_edge(i, j, weight=1.0 if binary else s)
    return graph


def groups(labels: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(labels == v).tolist()) for v in range(labels.max() + 1)]


# --- similarities


def test_similarities_are_those_of_scikit_learn():
    from sklearn.metrics.pairwise import cosine_similarity

    x = np.random.default_rng(0).normal(size=(40, 7)) * 1e3
    assert np.allclose(similarity_matrix(x), cosine_similarity(x), atol=2e-12)


@given(arrays(np.float64, (6, 3), elements=st.floats(-1e150, 1e150)))
def test_similarities_are_symmetric_and_within_one(x):
    s = similarity_matrix(x)
    assert np.array_equal(s, s.T)
    assert np.isfinite(s).all() and np.abs(s).max() <= 1


def test_equal_directions_are_exactly_one_and_blank_chips_like_nothing():
    x = np.array([[0.1, 0.2], [0.3, 0.6], [0.0, 0.0], [-0.1, -0.2]])
    s = similarity_matrix(x)
    assert s[0, 1] == 1.0 and s[0, 3] == -1.0
    assert not s[2].any()


# --- threshold


def test_the_mode_is_the_centre_of_the_fullest_of_256_bins():
    values = np.array([0.0, 1.0, 0.5, 0.5001, 0.7, 0.2])  # 0.5 and 0.5001 share bin 128
    assert threshold(symmetric(values.tolist()), "mode") == pytest.approx(128.5 / 256)


def test_ties_go_to_the_lower_bin_and_the_diagonal_does_not_count():
    assert threshold(symmetric([0.0, 0.25, 0.5]), "mode") == pytest.approx(0.5 * 0.5 / 256)


def test_the_top_value_falls_into_the_last_bin():
    assert threshold(symmetric([0.0, 0.8, 0.8]), "mode") == pytest.approx(0.8 * 255.5 / 256)


@pytest.mark.parametrize("step", [0.0, 1e-16, 1e-13])
def test_equal_similarities_are_their_own_mode_and_all_stay(step):
    s = symmetric([0.3, 0.3 + step, 0.3 - step])
    assert threshold(s, "mode") == pytest.approx(0.3)
    assert communities(s, "mode").edges == 3


@given(st.lists(st.floats(-1, 1), min_size=10, max_size=10))
def test_the_mode_against_a_plain_count(values):
    low, high = min(values), max(values)
    found = threshold(symmetric(values), "mode")
    if high - low < 1e-9:
        assert low <= found <= high
        return
    counts = np.histogram(values, bins=np.linspace(low, high, 257))[0]
    centre = low + (int(counts.argmax()) + 0.5) * (high - low) / 256
    assert abs(found - centre) < 2 * (high - low) / 256  # a value on an edge may fall either way
    assert low <= found <= high


@pytest.mark.parametrize(("rule", "value"), [("mean", 2.0 / 6), ("median", 0.25), (0.125, 0.125), (-1, -1.0)])
def test_other_thresholds(rule, value):
    assert threshold(symmetric([0.0, 0.1, 0.2, 0.3, 0.4, 1.0]), rule) == pytest.approx(value)


@pytest.mark.parametrize(
    ("matrix", "rule", "line"),
    [
        (np.eye(3), "modus", "unknown similarity threshold"),
        (np.eye(3), np.nan, "finite number"),
        (np.eye(1), "mode", "at least two chips"),
        (np.ones((2, 3)), "mode", "square"),
        (np.ones(3), "mode", "square"),
        (np.full((3, 3), np.nan), "mode", "not finite"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(matrix, rule, line):
    with pytest.raises(StageError, match=line):
        threshold(matrix, rule)
    with pytest.raises(StageError, match=line):
        communities(matrix, rule)


# --- communities


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weights", ["similarity", "binary"])
@pytest.mark.parametrize("rule", ["mode", "mean", "median", 0.5])
def test_all_backends_reach_the_same_modularity(seed, weights, rule):
    """Of ten orders, as the published presets try them: one order alone may end lower, with each of them."""
    s = similarity_matrix(blobs(seed, kinds=3 + seed))
    mine = communities(s, rule, weights, starts=10)
    igraph = communities(s, rule, weights, backend="igraph", starts=10)
    reference = communities(s, rule, weights, backend="networkx")
    assert mine.modularity == pytest.approx(igraph.modularity, abs=1e-3)
    assert mine.modularity >= reference.modularity - 1e-3
    for other in (igraph, reference):
        assert (mine.threshold, mine.edges) == (other.threshold, other.edges)


@pytest.mark.parametrize("weights", ["similarity", "binary"])
@pytest.mark.parametrize("rule", ["mode", 0.6, -0.5])
def test_graph_and_modularity_are_those_of_networkx(weights, rule):
    import networkx

    s = similarity_matrix(blobs(5, chips=60))
    found = communities(s, rule, weights)
    graph = as_networkx(s, found.threshold, weights == "binary")
    assert found.edges == graph.number_of_edges()
    assert found.modularity == pytest.approx(
        networkx.algorithms.community.modularity(graph, groups(found.labels)), abs=1e-12
    )


@pytest.mark.parametrize("weights", ["similarity", "binary"])
def test_clear_groups_are_found(weights):
    x = blobs(1, noise=0.1)
    found = communities(similarity_matrix(x), 0.7, weights)
    assert ami(found.labels, np.arange(150) % 4) == pytest.approx(1.0)
    assert found.count == 4


def test_the_seed_decides_and_nothing_else():
    s = similarity_matrix(np.random.default_rng(3).normal(size=(200, 3)))
    first = communities(s, "mode", seed=42)
    import random

    random.seed(1)
    np.random.default_rng(1).normal()
    assert np.array_equal(communities(s, "mode", seed=42).labels, first.labels)
    others = [communities(s, "mode", seed=i).labels for i in range(8)]
    assert any(not np.array_equal(o, first.labels) for o in others)


def test_python_s_own_random_numbers_are_left_alone():
    import random

    s = similarity_matrix(blobs(2, chips=50))
    random.seed(5)
    expected = random.random()
    random.seed(5)
    communities(s, backend="igraph")
    assert random.random() == expected


@pytest.mark.parametrize("backend", ["matrix", "igraph"])
def test_threads_do_not_disturb_each_other(backend):
    s = similarity_matrix(np.random.default_rng(4).normal(size=(150, 3)))
    alone = [communities(s, "mode", seed=i, backend=backend).labels for i in range(6)]
    together: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(
            target=lambda i=i: together.update({i: communities(s, "mode", seed=i, backend=backend).labels})
        )
        for i in range(6)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(np.array_equal(alone[i], together[i]) for i in range(6))


def test_isolated_chips_are_communities_of_their_own():
    s = symmetric([0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    found = communities(s, 0.5)
    assert found.labels.tolist() == [0, 0, 1, 2]
    assert (found.edges, found.count) == (1, 3)


def test_no_edges_at_all():
    found = communities(symmetric([0.1, 0.1, 0.1]), 0.5)
    assert found.labels.tolist() == [0, 1, 2]
    assert (found.edges, found.modularity) == (0, 0.0)
    assert communities(np.eye(1), 0.5).labels.tolist() == [0]


@pytest.mark.parametrize("backend", ["matrix", "igraph", "networkx"])
@pytest.mark.parametrize("chips", [2, 9])
@pytest.mark.parametrize("rule", ["mode", "mean", "median", 0.5, 1])
def test_equal_chips_are_one_community(backend, chips, rule):
    found = communities(similarity_matrix(np.full((chips, 3), 0.1)), rule, backend=backend)
    assert not found.labels.any() and found.count == 1 and found.modularity == 0.0


@pytest.mark.parametrize("backend", ["matrix", "igraph", "networkx"])
@pytest.mark.parametrize(("between", "labels"), [(0.9, [0, 0]), (0.0, [0, 1]), (-0.9, [0, 1])])
def test_two_chips_are_together_if_they_point_the_same_way(backend, between, labels):
    assert communities(symmetric([between]), "mode", backend=backend).labels.tolist() == labels


@pytest.mark.parametrize("backend", ["matrix", "igraph", "networkx"])
def test_negative_similarities_weigh_nothing_but_count_as_binary_edges(backend):
    s = symmetric([0.5, -0.2, -0.3])
    assert communities(s, -1.0, backend=backend).edges == 1
    assert communities(s, -1.0, "binary", backend=backend).edges == 3


def test_a_similarity_at_the_threshold_stays():
    assert communities(symmetric([0.5, 0.4, 0.4]), 0.5).edges == 1


def test_chips_without_data_are_left_out_of_graph_and_threshold():
    x = blobs(6)
    valid = np.arange(150) % 7 != 0
    s = similarity_matrix(np.where(valid[:, None], x, np.nan), valid)
    found, alone = communities(s, valid=valid), communities(similarity_matrix(x[valid]))
    assert (found.threshold, found.edges) == (alone.threshold, alone.edges)
    assert np.array_equal(found.labels[valid], alone.labels)
    assert (found.labels[~valid] == -1).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(0, 10_000), st.sampled_from(["mode", "mean", "median", 0.2]))
def test_labels_are_numbered_by_first_appearance(chips, seed, rule):
    found = communities(similarity_matrix(np.random.default_rng(seed).normal(size=(chips, 3))), rule)
    assert found.labels.dtype == np.int16
    first = [found.labels.tolist().index(v) for v in range(found.count)]
    assert first == sorted(first)
    assert -0.5 <= found.modularity <= 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"weights": "squared"}, "edge weights"),
        ({"backend": "leiden"}, "Louvain backend"),
        ({"valid": np.ones(2, bool)}, "mask"),
        ({"valid": np.zeros(3, bool)}, "no chip has data"),
        ({"valid": np.array([True, False, False])}, "at least two chips"),
    ],
)
def test_options_that_do_not_exist_are_refused(arguments, line):
    with pytest.raises(StageError, match=line):
        communities(symmetric([0.9, 0.9, 0.1]), **arguments)


def test_more_starts_are_never_worse_and_the_first_of_them_is_one_alone():
    rng = np.random.default_rng(5)
    features = rng.normal(size=(120, 4))
    similarity = similarity_matrix(features)
    found = [communities(similarity, "median", "binary", seed).modularity for seed in range(42, 52)]
    best = communities(similarity, "median", "binary", 42, starts=10)
    assert best.modularity == max(found) > min(found)
    again = communities(similarity, "median", "binary", 42 + found.index(max(found)))
    assert np.array_equal(best.labels, again.labels)


@pytest.mark.parametrize(
    ("chips", "values", "tried", "best"),
    [
        (1025, [0.3, 0.3, 0.3, 0.9], 3, 0.3),  # three alike
        (1025, [0.2, 0.2, 0.3, 0.3, 0.29995, 0.9], 5, 0.3),  # three as good as the best of them
        (1025, [0.1, 0.2, 0.3, 0.4], 4, 0.4),  # never alike: all that were asked for
        (1024, [0.3, 0.3, 0.3, 0.9], 4, 0.9),  # few chips: all
    ],
)
def test_of_many_chips_three_orders_that_end_alike_are_enough(monkeypatch, chips, values, tried, best):
    seeds = []

    def search(weights: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
        seeds.append(seed)
        return np.full(len(weights), 0), values[seed - 42]

    monkeypatch.setattr("livestem.stages.louvain.louvain", search)
    assert communities(np.ones((chips, chips)), starts=len(values)).modularity == best
    assert seeds == list(range(42, 42 + tried))


# --- on the matrix itself


def weighted(seed: int, nodes: int = 60, share: float = 0.3) -> np.ndarray:
    """Return a random graph of three loose groups, with loops: the diagonal holds twice what a loop weighs."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, nodes)
    there = rng.random((nodes, nodes)) < np.where(group[:, None] == group, 2 * share, share / 2)
    upper = np.triu(np.where(there, rng.random((nodes, nodes)), 0.0))
    return upper + upper.T


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.03, 0.3, 0.5])
def test_no_move_of_a_node_gains_modularity_and_the_value_is_newmans(seed, share):
    import networkx

    weights = weighted(seed, share=share)
    labels, value = louvain(weights, seed)
    halved = weights - np.diag(np.diag(weights)) / 2  # networkx counts a loop twice in a degree
    graph = networkx.from_numpy_array(halved)
    assert value == pytest.approx(networkx.algorithms.community.modularity(graph, groups(labels)), abs=1e-12)
    of_groups = merged(weights, labels) @ np.eye(labels.max() + 1)[labels]
    for a in range(len(of_groups)):
        for b in range(a):
            joined = np.where(labels == a, b, labels)
            joined = np.unique(joined, return_inverse=True)[1]
            assert modularity_of(merged(weights, joined) @ np.eye(joined.max() + 1)[joined]) <= value + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_the_matrix_ends_where_python_louvain_ends_on_the_whole(seed):
    """Loose graphs have many ends; over ten orders the two find them alike."""
    import community
    import networkx

    weights = weighted(seed, nodes=90, share=0.1)
    np.fill_diagonal(weights, 0.0)
    graph = networkx.from_numpy_array(weights)
    theirs = [
        community.modularity(community.best_partition(graph, random_state=i, weight="weight"), graph) for i in range(10)
    ]
    mine = [louvain(weights, i)[1] for i in range(10)]
    assert np.mean(mine) >= np.mean(theirs) - 0.01 and min(mine) >= min(theirs) - 0.01


def test_the_matrix_is_left_as_it_was_and_the_seed_alone_decides():
    weights = weighted(9)
    before = weights.copy()
    assert np.array_equal(louvain(weights, 3)[0], louvain(weights, 3)[0])
    assert np.array_equal(weights, before)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_unit_of_the_weights_does_not_count(scale):
    weights = weighted(2)
    assert np.array_equal(louvain(weights * scale, 1)[0], louvain(weights, 1)[0])
