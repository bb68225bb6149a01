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
- The search is greedy, and the order in which chips are visited decides where it ends: of several orders the best is
  kept. Of more than a thousand chips, three orders that end at the same modularity are enough.

Backends: ``matrix`` searches the matrix itself (`louvain_matrix`), ``igraph`` a graph of it (`louvain_graph`),
``networkx`` with python-louvain is the reference.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.stages.agreement import number_by_appearance
from livestem.stages.features import unit_rows
from livestem.stages.louvain_graph import Found, Search, graph_search
from livestem.stages.louvain_matrix import louvain
from livestem.stages.rows import Floats, Mask

Rule = Literal["mode", "mean", "median"] | float
Weights = Literal["similarity", "binary"]
Backend = Literal["matrix", "igraph", "networkx"]

_BINS = 256  # of the histogram whose fullest bin is the mode
_DECIMALS = 12  # of a similarity: far above a product's rounding (1e-15), far below what chips differ by
_ALIKE = 1e-12  # similarities that differ by no more than their rounding have no mode to speak of: all stay
_FEW = 1024  # chips; up to here ten orders take a second, and they are all tried
_ENOUGH = 3  # orders of more chips than that, if they end as well as each other
_AS_WELL = 1e-4  # of modularity: a tenth of what two implementations of one method differ by


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
    backend: Backend = "matrix",
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
    backend : "matrix", "igraph" or "networkx"
        networkx + python-louvain is the slow reference.
    valid : (N,) bool, optional
        Chips with data.
    starts : int
        How many orders are tried at most, from seed on; the partition of highest modularity is kept, the first on a
        tie. The reference tries one.

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
    if backend not in ("matrix", "igraph", "networkx"):
        raise StageError(f"unknown Louvain backend {backend!r}; use matrix, igraph or networkx")
    cutoff, kept = _kept(matrix, rule, weights)
    edges = int(np.count_nonzero(kept)) // 2
    found, value = np.arange(len(kept)), 0.0
    if edges:
        found, value = _best_of(_search(kept, backend), range(seed, seed + (starts if backend != "networkx" else 1)))
    return Communities(labels=number_by_appearance(found, mask), modularity=value, threshold=cutoff, edges=edges)


def _best_of(search: Search, seeds: Sequence[int]) -> Found:
    """Return the best that a search finds from some seeds; of equals the first."""
    tried: list[Found] = []
    for seed in seeds:
        tried.append(search(seed))
        best = max(value for _, value in tried)
        if len(tried[0][0]) > _FEW and sum(value > best - _AS_WELL for _, value in tried) >= _ENOUGH:
            break
    return max(tried, key=lambda found: found[1])


def _search(weights: Floats, backend: Backend) -> Search:
    """Return what finds communities of a symmetric matrix of weights from a seed, and their modularity."""
    return functools.partial(louvain, weights) if backend == "matrix" else graph_search(weights, backend)


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


def _kept(matrix: NDArray[Any], rule: Rule, weights: Weights) -> tuple[float, Floats]:
    """Return the threshold, and the weights (N, N) of the edges that it leaves; no chip is joined to itself."""
    cutoff = _threshold(_values(matrix, _upper(matrix)), rule)
    joined = matrix >= cutoff
    if weights == "similarity":
        joined &= matrix > 0
    np.fill_diagonal(joined, False)
    return cutoff, np.where(joined, matrix if weights == "similarity" else 1.0, 0.0).astype(np.float64, copy=False)
