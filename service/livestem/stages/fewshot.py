"""Few-shot classification: a chip belongs to the class whose examples it resembles most.

Two ways to score, both a softmax over the classes:

published
    ``softmax(-|z - c_k|)``: Euclidean distances to the prototypes c_k. In 512 dimensions distances are so
    large that the scores are 0.0 and 1.0: they rank classes, they are no uncertainty.
calibrated (default)
    In features whitened by their neighbours, where the noise of a chip is one in every direction
    (`features.whiten_by_neighbours`): ``softmax((|z - c_a|^2 - |z - c_k|^2) / 2 T_ak)``, a the nearest class. With
    one T this is the posterior of classes of equal normal noise; T is one of each pair, the larger of two:

    - s^2, the variance of both classes' examples about their prototypes, never below one (the neighbours' noise):
      chips of a class also differ by thickness and tilt, and those of a cap more than those of a crystal. A
      prototype of n examples is itself off by s^2 / n in each of D directions, so squared distances between
      prototypes are too long by 2 D s^2 / n on average, and the log-odds too steep by the ratio: s^2 times it.
    - `_SHARED` D_ak^2, D_ak the prototypes' distance: a chip on a border is partly both, and what share of it is
      which is known to no better than 0.15 whatever the dose, because windows overlap and features are not linear
      in the share. The log-odds are then no steeper than a logistic curve's of that width in the share.

Measured by ``python -m benchmarks.calibration``, which prints both ways side by side. One
temperature for all pairs, that of the worst, was off by 0.1: two alike classes made those far apart unsure, too, and
border chips were wrong with certainty.

Not done, because measured: letting unlabelled chips pull the prototypes (soft k-means anchored at the
examples) gains 0.03 of accuracy where classes are apart, loses 0.04 where they overlap, and grows ever surer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.stages.rows import Floats, Mask, valid_rows

Classes = Sequence[Sequence[int]]
Scores = NDArray[np.float32]

_CACHED = 2**15  # numbers of a block of rows that stays in a core's cache (256 KiB)
_HOTTEST = 10.0  # bound on the correction for few examples: beyond, classes are not separable by these examples
_SHARED = 0.15 / 1.702  # width of a chip's share (see the top), as a logistic curve that is a normal one's at 1.702


@dataclass(frozen=True, eq=False)
class Calibration:
    """Prototypes with what turns distances into probabilities.

    Attributes
    ----------
    prototypes : (K, D) in the whitened space
    examples : (K,) number of examples behind each
    variances : (K,) s^2 of a chip about its class, >= 1; all examples' where a class has but one
    temperatures : (K, K) T of each pair of classes
    """

    prototypes: Floats
    examples: NDArray[np.int64]
    variances: Floats
    temperatures: Floats


def finished(classes: Classes, valid: Mask) -> bool:
    """Return whether every class has an example with data, so that scoring can begin."""
    return all(valid[list(c)].any() for c in classes)


def prototypes(embedding: NDArray[Any], classes: Classes, valid: Mask | None = None) -> Floats:
    """Mean embedding of the examples of each class.

    Parameters
    ----------
    embedding : (N, D) real
        One row per chip.
    classes : K sequences of chip indices
        Examples of each class (`SupportSet.indices`).
    valid : (N,) bool, optional
        Chips with data; examples without are left out.

    Returns
    -------
    (K, D) float64

    Raises
    ------
    StageError
        If an index lies outside the scan or a class has no example with data.
    """
    rows, examples = _examples(embedding, classes, valid)
    return np.stack([rows[e].mean(axis=0) for e in examples])


def softmax_scores(embedding: NDArray[Any], prototypes: NDArray[Any], valid: Mask | None = None) -> Scores:
    """Score chips as published: softmax over negative Euclidean distances.

    Parameters
    ----------
    embedding : (N, D) real
    prototypes : (K, D) real
    valid : (N,) bool, optional
        Chips with data.

    Returns
    -------
    (N, K) float32
        Rows sum to 1; zeros for chips without data.

    Raises
    ------
    StageError
        If the columns do not fit, or a row is not finite.

    References
    ----------
    .. [1] S. Akers et al., npj Comput. Mater. 7 (2021) 187; J. Snell, K. Swersky and R. Zemel, NeurIPS
       (2017).
    """
    rows, mask = _fitting(embedding, prototypes, valid)
    return _scattered(_softmax(-np.sqrt(squared_distances(rows, prototypes))), mask)


def calibrate(embedding: NDArray[Any], classes: Classes, valid: Mask | None = None) -> Calibration:
    """Take prototypes, variances and temperatures from the examples.

    Parameters
    ----------
    embedding : (N, D) real
        Whitened by neighbours: the noise of a chip is one in every direction.
    classes : K sequences of chip indices
        Examples of each class; one is enough, more also measure the variances.
    valid : (N,) bool, optional
        Chips with data.

    Raises
    ------
    StageError
        As `prototypes`.
    """
    rows, examples = _examples(embedding, classes, valid)
    centres = np.stack([rows[e].mean(axis=0) for e in examples])
    count = np.array([len(e) for e in examples])
    squares = np.array([((rows[e] - c) ** 2).sum() for e, c in zip(examples, centres, strict=True)])
    freedom = (count - 1) * rows.shape[1]
    pooled = _variance(squares.sum(), freedom.sum(), 1.0)
    own = _variance(squares, freedom, pooled)
    paired = _variance(squares[:, None] + squares, freedom[:, None] + freedom, pooled)
    return Calibration(centres, count, own, _temperatures(centres, own / count, paired))


def calibrated_scores(embedding: NDArray[Any], calibration: Calibration, valid: Mask | None = None) -> Scores:
    """Return (N, K) float32 class probabilities; zeros for chips without data. See the top of this module."""
    rows, mask = _fitting(embedding, calibration.prototypes, valid)
    squared = squared_distances(rows, calibration.prototypes)
    longer = squared - squared.min(axis=1, keepdims=True)
    return _scattered(_softmax(-longer / (2 * calibration.temperatures[squared.argmin(axis=1)])), mask)


def combine(scores: Mapping[str, NDArray[Any]], weights: Mapping[str, float | NDArray[Any]] | None = None) -> Scores:
    """Weighted mean of the scores of several modalities.

    Parameters
    ----------
    scores : modality -> (N, K)
        From one support set.
    weights : modality -> number or (N,), optional
        Not negative; an array weighs each chip (EDS by its counts while live). None: equal (50/50). The
        paper's irradiated defective sample: 0.55 EDS, 0.45 HAADF.

    Returns
    -------
    (N, K) float32
        A chip without data (all zeros) in one modality is scored by the others; zeros where none has data.

    Raises
    ------
    StageError
        If there are no scores, shapes differ, or weights are missing, negative, not finite or all zero.
    """
    if not scores:
        raise StageError("an ensemble needs the scores of at least one modality")
    if len({np.shape(s) for s in scores.values()}) > 1:
        raise StageError("modalities differ in chips or classes; score them with one grid and support set")
    if weights is not None and set(weights) != set(scores):
        raise StageError(f"weights name {', '.join(sorted(weights))}, scores {', '.join(sorted(scores))}")
    given = {m: np.asarray(weights[m] if weights else 1.0, np.float64) for m in sorted(scores)}
    checked = np.concatenate([w.ravel() for w in given.values()])
    if not np.isfinite(checked).all() or (checked < 0).any() or not checked.any():
        raise StageError("ensemble weights must be finite, not negative, and not all zero")
    # Sorted, so that the sums do not depend on the mapping's order; all-zero rows have no data and no weight.
    each = [(np.asarray(scores[m], np.float64), w) for m, w in given.items()]
    weight = np.stack([w * s.any(axis=1) for s, w in each])[:, :, None]
    mean = (weight * np.stack([s for s, _ in each])).sum(axis=0)
    total = np.broadcast_to(weight.sum(axis=0), mean.shape)
    return np.asarray(np.divide(mean, total, out=np.zeros_like(mean), where=total > 0), np.float32)


def predict(scores: NDArray[Any], valid: Mask | None = None) -> NDArray[np.int16]:
    """Return (N,) int16, the class of the largest score (the first of equals), -1 for chips without data.

    A chip whose scores are all zero has no data, whatever `valid` says.
    """
    scores = np.asarray(scores)
    known = scores.any(axis=1) if valid is None else scores.any(axis=1) & valid
    return np.where(known, scores.argmax(axis=1), -1).astype(np.int16)


def _examples(x: NDArray[Any], classes: Classes, valid: Mask | None) -> tuple[Floats, list[NDArray[np.intp]]]:
    """Rows of all examples with data, and the row numbers of each class."""
    chips = len(x)
    if any(not 0 <= i < chips for c in classes for i in c):
        raise StageError(f"a support chip lies outside the {chips} chips of the scan; check the support file")
    usable = np.ones(chips, bool) if valid is None else np.asarray(valid, bool)
    kept = [[i for i in dict.fromkeys(c) if usable[i]] for c in classes]
    if not kept or not all(kept):
        lacking = ", ".join(str(k) for k, c in enumerate(kept) if not c) or "all"
        raise StageError(f"class {lacking} has no support chip with data yet; wait for it or choose others")
    flat = [i for c in kept for i in c]
    rows, _ = valid_rows(np.asarray(x)[flat], None, "support chips")
    bounds = np.cumsum([0, *(len(c) for c in kept)])
    return rows, [np.arange(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def _fitting(x: NDArray[Any], centres: NDArray[Any], valid: Mask | None) -> tuple[Floats, Mask]:
    rows, mask = valid_rows(x, valid)
    if np.ndim(centres) != 2 or np.shape(centres)[1] != rows.shape[1] or not len(centres):
        raise StageError(
            f"prototypes of shape {np.shape(centres)} do not fit chips of {rows.shape[1]} features; "
            "the support set was made with other parameters"
        )
    return rows, mask


def squared_distances(rows: Floats, centres: Floats) -> Floats:
    """Return squared distances (V, K), by differences: exact where a product would cancel."""
    found = np.empty((len(rows), len(centres)))
    block = max(1, _CACHED // rows.shape[1])
    for first in range(0, len(rows), block):  # each row by itself: blocks change no bit
        some = slice(first, first + block)
        for k, centre in enumerate(centres):
            found[some, k] = ((rows[some] - centre) ** 2).sum(axis=1)
    return found


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _scattered(scores: Floats, mask: Mask) -> Scores:
    out = np.zeros((len(mask), scores.shape[1]), np.float32)
    out[mask] = scores
    return out


def _variance(squares: Floats, freedom: NDArray[np.int64], otherwise: float | Floats) -> Floats:
    """Return mean squares, never below one, and `otherwise` where nothing was free to vary."""
    unknown = np.broadcast_to(np.asarray(otherwise, np.float64), np.shape(squares)).copy()
    return np.asarray(np.maximum(1.0, np.divide(squares, freedom, out=unknown, where=freedom > 0)))


def _temperatures(centres: Floats, doubt: Floats, variance: Floats) -> Floats:
    """T of each pair (K, K); `doubt` (K,) is the squared error of a prototype in each direction."""
    apart = squared_distances(centres, centres)
    by_chance = centres.shape[1] * (doubt[:, None] + doubt)
    unbiased = np.maximum(apart - by_chance, apart / _HOTTEST)
    ratio = np.divide(apart, unbiased, out=np.full_like(apart, _HOTTEST), where=unbiased > 0)
    return np.asarray(np.maximum(variance * ratio, _SHARED * apart))
