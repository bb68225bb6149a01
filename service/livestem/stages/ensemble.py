"""Several modalities, one answer: three ways, each where the methods allow it.

============  ===========================================================  ========================
``vector``    the ordered pair of labels is the class                      after Ward (published)
``mean``      similarities (scores) are averaged, then clustered (chosen)  Louvain, few-shot
``joint``     features are put side by side, then clustered                default; beats the others
============  ===========================================================  ========================

Vector voting multiplies noise: k labels twice make up to k * k classes, and a chip is wrong where either is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.stages.agreement import number_by_appearance
from livestem.stages.features import join
from livestem.stages.rows import checked_weights

__all__ = ["join", "mean_affinity", "vector_vote"]


def vector_vote(a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]]) -> NDArray[np.int16]:
    """Label each chip by the ordered pair of its labels.

    Parameters
    ----------
    a, b : int, same shape
        Label maps of two modalities; negative marks a chip without data. For three, vote twice.

    Returns
    -------
    int16, same shape
        One label per pair that occurs, numbered by first appearance; -1 where either map has no label.

    Raises
    ------
    StageError
        If the maps differ in shape.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise StageError(f"label maps of {a.shape} and {b.shape} chips cannot vote; use one grid")
    if not a.size:
        return np.full(a.shape, -1, np.int16)
    pair = a.astype(np.int64) * (int(b.max()) + 1) + b
    return number_by_appearance(np.where((a >= 0) & (b >= 0), pair, -1))


def mean_affinity(similarities: Sequence[NDArray[Any]], weights: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Average the similarity matrices of several modalities.

    Parameters
    ----------
    similarities : sequence of (N, N) real
        One matrix per modality, in a fixed order.
    weights : sequence of float, optional
        One per modality; only their ratios matter. None: equal.

    Returns
    -------
    (N, N) float64
        The weighted mean. A chip without data in one modality must be left out by the `valid` of what
        clusters it.

    Raises
    ------
    StageError
        If there is none, they differ in shape, or a weight is negative or not finite.
    """
    if not similarities:
        raise StageError("an ensemble needs the similarities of at least one modality")
    shapes = {np.shape(s) for s in similarities}
    if len(shapes) > 1:
        raise StageError(f"similarities of {' and '.join(map(str, sorted(shapes)))} chips cannot be averaged")
    w = checked_weights([1.0] * len(similarities) if weights is None else weights, len(similarities))
    mean = np.zeros(shapes.pop())
    for share, similarity in zip(w, similarities, strict=True):
        mean += share * similarity
    return mean
