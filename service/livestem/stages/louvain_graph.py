"""Louvain's method on a graph of edges, by igraph or by networkx and python-louvain, which is the reference."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from livestem.stages.rows import Floats

Labels = NDArray[np.int64]
Found = tuple[Labels, float]  # a partition and its modularity
Search = Callable[[int], Found]  # from a seed

# igraph has one random generator per process: seeding and clustering must not be interleaved by another
# thread.
_IGRAPH = threading.Lock()


@dataclass(frozen=True, eq=False)
class _Graph:
    nodes: int
    pairs: NDArray[np.int32]  # (E, 2), row < column
    weights: Floats  # (E,), positive


def graph_search(weights: Floats, backend: Literal["igraph", "networkx"]) -> Search:
    """Return what finds communities from a seed, and their modularity; the graph is built once.

    Parameters
    ----------
    weights : (N, N) float64, not negative
        As in `partition`; at least one is positive.
    backend : "igraph" or "networkx"
    """
    graph = _weighted(weights)
    search = _with_networkx(graph) if backend == "networkx" else _with_igraph(graph)

    def found(seed: int) -> Found:
        labels = search(seed)
        return labels, _modularity(graph, labels)

    return found


def partition(weights: Floats, seed: int = 42) -> NDArray[np.int64]:
    """Find communities of a weighted graph.

    Parameters
    ----------
    weights : (N, N) float64, not negative
        Above the diagonal those of the edges, on it those of loops; below it is not read.
    seed : int
        Of the order in which nodes are visited.

    Returns
    -------
    (N,) int
        Labels 0, 1, ...
    """
    graph = _weighted(weights)
    return _with_igraph(graph)(seed) if len(graph.pairs) else np.arange(graph.nodes)


def modularity(weights: Floats, labels: NDArray[np.int64]) -> float:
    """Return Newman's modularity of a partition (N,) of such a graph; 0 without edges."""
    return _modularity(_weighted(weights), labels)


def _weighted(weights: Floats) -> _Graph:
    pairs = np.argwhere(np.triu(weights) > 0).astype(np.int32)
    return _Graph(len(weights), pairs, weights[pairs[:, 0], pairs[:, 1]])


def _with_igraph(graph: _Graph) -> Callable[[int], Labels]:
    import igraph

    first, second = graph.pairs.T.tolist()
    built = igraph.Graph(n=graph.nodes, edges=list(zip(first, second, strict=True)))  # five times as fast as an array
    weights = graph.weights.tolist()

    def search(seed: int) -> Labels:
        with _IGRAPH:
            igraph.set_random_number_generator(random.Random(seed))
            try:
                found = built.community_multilevel(weights=weights)
            finally:
                igraph.set_random_number_generator(random)
        return np.asarray(found.membership, np.int64)

    return search


def _with_networkx(graph: _Graph) -> Callable[[int], Labels]:
    import community
    import networkx

    built = networkx.Graph()
    built.add_nodes_from(range(graph.nodes))
    first, second = graph.pairs.T.tolist()
    built.add_weighted_edges_from(zip(first, second, graph.weights.tolist(), strict=True))

    def search(seed: int) -> Labels:
        found = community.best_partition(built, weight="weight", random_state=seed)
        return np.asarray([found[i] for i in range(graph.nodes)], np.int64)

    return search


def _modularity(graph: _Graph, labels: NDArray[np.int64]) -> float:
    """Newman's modularity: weight inside communities over all, less what chance would put there."""
    total = float(graph.weights.sum())
    if not total:
        return 0.0
    first, second = labels[graph.pairs[:, 0]], labels[graph.pairs[:, 1]]
    size = int(labels.max()) + 1
    ends = np.bincount(first, graph.weights, size) + np.bincount(second, graph.weights, size)
    inside = float(graph.weights[first == second].sum())
    return inside / total - float(((ends / (2 * total)) ** 2).sum())
