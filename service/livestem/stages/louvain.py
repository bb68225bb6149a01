"""Louvain communities of the graph of similar chips.

Theory: every chip is a node, every pair an edge with the cosine similarity of its features; edges below a
threshold are dropped; Louvain moves nodes between communities as long as modularity rises, then merges and
repeats.

Rules
-----
- An edge stays if its similarity is at least the threshold (``sim >= c``, as published).
- The *mode* of continuous values is the centre of the fullest bin of a 256-bin histogram over [min, max] of
  the off-diagonal similarities, ties to the lower bin.
- Weights: the similarity (the paper's text) or one (its code). Modularity is not defined for negative
  weights, so with similarity weights an edge must also be positive: chips that point apart share no edge,
  whatever the threshold.
- A chip without edges is a community of its own.
- Similarities are rounded to 1e-12, so that the last bits of a matrix product do not decide edges.
"""

from __future__ import annotations

import math
import random
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.stages.agreement import number_by_appearance
from livestem.stages.features import unit_rows
from livestem.stages.rows import Floats, Mask

Rule = Literal["mode", "mean", "median"] | float
Weights = Literal["similarity", "binary"]
Backend = Literal["igraph", "networkx"]

_BINS = 256  # of the histogram whose fullest bin is the mode
_DECIMALS = 12  # of a similarity: far above a product's rounding (1e-15), far below what chips differ by
_ALIKE = 1e-12  # similarities that differ by no more than their rounding have no mode to speak of: all stay

# igraph has one random generator per process: seeding and clustering must not be interleaved by another
# thread.
_IGRAPH = threading.Lock()


@dataclass(frozen=True, eq=False)
class Communities:
    """Communities of chips.

    Attributes
    ----------
    labels : (N,) int16, by first appearance; -1 for chips without data
    modularity : of this partition of the thresholded graph; 0 for a graph without edges
    threshold : the similarity from which on pairs were joined
    edges : pairs joined
    """

    labels: NDArray[np.int16]
    modularity: float
    threshold: float
    edges: int

    @property
    def count(self) -> int:
        """Number of communities, isolated chips included."""
        return int(self.labels.max(initial=-1)) + 1


@dataclass(frozen=True, eq=False)
class _Graph:
    nodes: int
    pairs: NDArray[np.int32]  # (E, 2), row < column
    weights: Floats  # (E,), positive


def similarity_matrix(x: NDArray[Any], valid: Mask | None = None) -> Floats:
    """Cosine similarities of all pairs of chips.

    Parameters
    ----------
    x : (N, D) real
        One row per chip.
    valid : (N,) bool, optional
        Chips with data.

    Returns
    -------
    (N, N) float64
        Symmetric, -1 .. 1; 0 for rows of zeros and for chips without data. 54 MB for 2601 chips.

    Raises
    ------
    StageError
        If a valid row is not finite.
    """
    unit = unit_rows(x, valid)
    similarity = np.round(unit @ unit.T, _DECIMALS)
    return np.asarray(np.clip(similarity, -1.0, 1.0, out=similarity))


def threshold(similarities: NDArray[Any], rule: Rule = "mode") -> float:
    """Return the similarity below which pairs are not joined.

    Parameters
    ----------
    similarities : (N, N) real, symmetric
        Only the values off the diagonal count.
    rule : "mode", "mean", "median" or a number
        See the top of this module.

    Raises
    ------
    StageError
        If there are fewer than two chips, or the rule is neither known nor a finite number.
    """
    matrix = _square(similarities)
    return _threshold(_values(matrix, _upper(matrix)), rule)


def _threshold(values: NDArray[Any], rule: Rule) -> float:
    if not isinstance(rule, str):
        if not math.isfinite(rule):
            raise StageError(f"the similarity threshold must be a finite number, got {rule}")
        return float(rule)
    if not len(values):
        raise StageError("a similarity threshold needs at least two chips with data")
    if rule == "mean":
        return float(values.mean())
    if rule == "median":
        return float(np.median(values))
    if rule != "mode":
        raise StageError(f"unknown similarity threshold {rule!r}; use mode, mean, median or a number")
    low, high = float(values.min()), float(values.max())
    if high - low <= _ALIKE:
        return low
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    fullest = int(np.argmax(counts))  # argmax takes the first, that is the lower of equals
    return float(edges[fullest] + edges[fullest + 1]) / 2


def communities(
    similarity: NDArray[Any],
    rule: Rule = "mode",
    weights: Weights = "similarity",
    seed: int = 42,
    backend: Backend = "igraph",
    valid: Mask | None = None,
    starts: int = 1,
) -> Communities:
    """Find communities of similar chips.

    Parameters
    ----------
    similarity : (N, N) real, symmetric
        From `similarity_matrix`, or the mean of several.
    rule : "mode", "mean", "median" or a number
        How the threshold is chosen.
    weights : "similarity" or "binary"
        What an edge weighs.
    seed : int
        Of the order in which nodes are visited (42 is the published one).
    backend : "igraph" or "networkx"
        networkx + python-louvain is the slow reference.
    valid : (N,) bool, optional
        Chips with data.
    starts : int
        How many orders igraph tries, from seed on; the partition of highest modularity is kept, the first on a tie.
        The reference tries one.

    Returns
    -------
    Communities

    Raises
    ------
    StageError
        If the matrix is not square, finite and symmetric, or an option is unknown.

    Notes
    -----
    igraph's random generator belongs to the process. It is seeded for each call under a lock and handed
    back to Python's `random` module afterwards; other code that uses igraph's generator meanwhile is not
    protected.

    References
    ----------
    .. [1] V. D. Blondel et al., J. Stat. Mech. (2008) P10008.
    """
    matrix = _square(similarity)
    mask = np.ones(len(matrix), bool) if valid is None else np.asarray(valid, bool).ravel()
    if mask.shape != (len(matrix),):
        raise StageError(f"{len(matrix)} chips, but the mask of valid chips has {mask.size} entries")
    if not mask.any():
        raise StageError("no chip has data to cluster; wait for the first finished chip")
    if not mask.all():
        matrix = matrix[np.ix_(mask, mask)]
    if weights not in ("similarity", "binary"):
        raise StageError(f"unknown edge weights {weights!r}; use similarity or binary")
    cutoff, graph = _graph(matrix, rule, weights)
    if backend not in ("igraph", "networkx"):
        raise StageError(f"unknown Louvain backend {backend!r}; use igraph or networkx")
    found = np.arange(graph.nodes)
    if len(graph.pairs):
        if backend == "networkx":
            tried = [_with_networkx(graph, seed)]
        else:
            tried = [_with_igraph(graph, seed + i) for i in range(starts)]
        found = max(tried, key=lambda labels: _modularity(graph, labels))
    return Communities(
        labels=number_by_appearance(found, mask),
        modularity=_modularity(graph, found),
        threshold=cutoff,
        edges=len(graph.pairs),
    )


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
    return _with_igraph(graph, seed) if len(graph.pairs) else np.arange(graph.nodes)


def modularity(weights: Floats, labels: NDArray[np.int64]) -> float:
    """Return Newman's modularity of a partition (N,) of such a graph; 0 without edges."""
    return _modularity(_weighted(weights), labels)


def _weighted(weights: Floats) -> _Graph:
    pairs = np.argwhere(np.triu(weights) > 0).astype(np.int32)
    return _Graph(len(weights), pairs, weights[pairs[:, 0], pairs[:, 1]])


def _square(similarity: NDArray[Any]) -> NDArray[Any]:
    matrix = np.asarray(similarity)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise StageError(f"similarities must be a square matrix, one row per chip; got shape {matrix.shape}")
    return matrix


def _upper(matrix: NDArray[Any]) -> Mask:
    """Mark each pair of chips once: above the diagonal."""
    return np.triu(np.ones(matrix.shape, bool), k=1)


def _values(matrix: NDArray[Any], pair: Mask) -> NDArray[Any]:
    values = matrix[pair]
    if not np.isfinite(values).all():
        raise StageError("similarities are not finite; mark chips without data as not valid")
    return values


def _graph(matrix: NDArray[Any], rule: Rule, weights: Weights) -> tuple[float, _Graph]:
    """Threshold the matrix; return (threshold, graph)."""
    pair = _upper(matrix)
    values = _values(matrix, pair)
    cutoff = _threshold(values, rule)
    pair &= matrix >= cutoff
    if weights == "similarity":
        pair &= matrix > 0
    edges = np.argwhere(pair).astype(np.int32)
    weight = matrix[pair].astype(np.float64) if weights == "similarity" else np.ones(len(edges))
    return cutoff, _Graph(len(matrix), edges, weight)


def _with_igraph(graph: _Graph, seed: int) -> NDArray[np.int64]:
    import igraph

    built = igraph.Graph(n=graph.nodes, edges=graph.pairs)
    with _IGRAPH:
        igraph.set_random_number_generator(random.Random(seed))
        try:
            found = built.community_multilevel(weights=graph.weights.tolist())
        finally:
            igraph.set_random_number_generator(random)
    return np.asarray(found.membership, np.int64)


def _with_networkx(graph: _Graph, seed: int) -> NDArray[np.int64]:
    import community
    import networkx

    built = networkx.Graph()
    built.add_nodes_from(range(graph.nodes))
    first, second = graph.pairs.T.tolist()
    built.add_weighted_edges_from(zip(first, second, graph.weights.tolist(), strict=True))
    found = community.best_partition(built, weight="weight", random_state=seed)
    return np.asarray([found[i] for i in range(graph.nodes)], np.int64)


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
