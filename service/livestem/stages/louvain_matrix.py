"""Louvain's method on a full matrix of weights: for graphs in which half of all pairs are joined.

Theory
------
A chip moves to the community where it raises modularity most: ``w_ic - k_i K_c / 2m``, with w_ic what joins chip i to
community c, k_i all that joins chip i, K_c the sum of k over c, and 2m that over all. When no chip gains by moving,
communities become the nodes of a smaller graph, until nothing moves there either.

How it is quick
---------------
- No graph is built: a row of the matrix is all that a chip's move needs to know.
- In the first round every chip is asked, in a random order. After it there are few communities, and what joins every
  chip to each of them, (C, N), is kept up to date: a move changes two of its rows. So all chips that would move are
  found at once, and only these are asked again, in the same order.
- What is left at the last level is the modularity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.stages.rows import Floats

_LEAST = 1e-9  # of a node's mean weight: a gain that counts, far above the rounding of sums (1e-13)

Labels = NDArray[np.int64]


def louvain(weights: Floats, seed: int) -> tuple[Labels, float]:
    """Find communities.

    Parameters
    ----------
    weights : (N, N) float64, symmetric, not negative
        Of the edges; on the diagonal twice those of loops. At least one is positive.
    seed : int
        Of the order in which nodes are visited.

    Returns
    -------
    (N,) int64
        Labels 0 .. C - 1.
    float
        Modularity of this partition.

    References
    ----------
    .. [1] V. D. Blondel et al., J. Stat. Mech. (2008) P10008.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(len(weights))
    while True:
        level, smaller = _level(weights, rng.permutation(len(weights)))
        labels = level[labels]
        if len(smaller) == len(weights):
            return labels, modularity_of(smaller)
        weights = smaller


def modularity_of(between: Floats) -> float:
    """Return the modularity of a partition from the weights (C, C) within and between its communities."""
    total = float(between.sum())
    share = between.sum(axis=1) / total
    return float(np.trace(between)) / total - float((share**2).sum())


def merged(weights: NDArray[np.floating[Any]], labels: Labels) -> Floats:
    """Return (C, M), the rows of (N, M) weights summed by community 0 .. C - 1 of the N nodes; each of them occurs."""
    from scipy.sparse import csr_array

    nodes = np.arange(len(labels))
    member = csr_array((np.ones(len(labels)), (labels, nodes)), shape=(int(labels.max()) + 1, len(labels)))
    return np.asarray(member @ weights)


def _level(weights: Floats, order: NDArray[np.int64]) -> tuple[Labels, Floats]:
    """Move nodes until none gains; return their labels 0 .. C - 1 and the weights (C, C) of the smaller graph."""
    degree = weights.sum(axis=1)
    share = degree / degree.sum()
    least = _LEAST * float(degree.mean())
    alone = np.diag(weights) - degree * share  # what a node has with itself: it is not to count for staying
    labels = _first_round(weights, degree, share, alone, order, least)
    labels = np.unique(labels, return_inverse=True)[1].ravel()
    to = merged(weights, labels)
    held = np.bincount(labels, degree)
    every = np.arange(len(labels))
    while True:
        gain = to - held[:, None] * share
        gain[labels, every] -= alone
        moving = order[(gain.max(axis=0) > gain[labels, every] + least)[order]]
        moved = False
        for i in moving.tolist():
            worth = to[:, i] - held * share[i]
            own, best = labels[i], _best(worth, labels[i], alone[i], least)
            if best != own:
                moved = True
                labels[i] = best
                to[own] -= weights[i]
                to[best] += weights[i]
                held[own] -= degree[i]
                held[best] += degree[i]
        if not moved:
            break
    names, labels = np.unique(labels, return_inverse=True)
    return labels.ravel(), merged(np.ascontiguousarray(to[names].T), labels.ravel())


def _first_round(
    weights: Floats, degree: Floats, share: Floats, alone: Floats, order: NDArray[np.int64], least: float
) -> Labels:
    """Ask every node once, each at first a community of its own."""
    nodes = len(weights)
    labels, held = np.arange(nodes), degree.copy()
    for i in order.tolist():
        own = labels[i]
        worth: Floats = np.bincount(labels, weights[i], nodes) - held * share[i]
        best = _best(worth, own, alone[i], least)
        if best != own:
            labels[i] = best
            held[own] -= degree[i]
            held[best] += degree[i]
    return labels


def _best(worth: Floats, own: int, alone: float, least: float) -> int:
    """Return the community worth most to a node, its own unless another is worth clearly more; of equals the first."""
    worth[own] -= alone
    best = int(worth.argmax())
    return best if worth[best] > worth[own] + least else own
