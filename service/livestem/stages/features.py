"""Rows of numbers that can be compared: one row per chip, one column per feature.

Rules
-----
- Rows and their `valid` mask as in `livestem.stages.rows`: all finite, zeros for chips without data.
- The same for the same input: no random numbers, no signs left to chance.
- A column that tells chips apart by nothing (constant, up to rounding) becomes zero.

Why whiten by neighbours: two chips side by side mostly show the same phase, so half the covariance of their
differences is the covariance of the noise (the variogram's nugget), measured without a single label. In the
space where that covariance is one, every direction has the same noise and Euclidean distance is the right
distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.stages.rows import Floats, Mask, checked_weights, scatter, valid_rows

_MAD_TO_SIGMA = 1.482602218505602  # 1 / Phi^-1(3/4): makes the median deviation of normal data its sigma
_ROUNDING = 1e-9  # a spread below this share of the largest value is float noise of a constant column
_NOISE_FLOOR = 1e-3  # no feature of ten counts a chip has a signal-to-noise above a thousand
_KEEP = 0.9  # share of neighbour pairs kept: less cuts honest noise of the noisiest phase, more keeps borders
_LEAST_SHRINKAGE = 0.001  # bounds the gain of a direction in which two features agree to about thirtyfold
_LEAST_PAIRS = 16  # below, a covariance is guesswork: the columns' own spread is used instead


def square_root(intensities: NDArray[Any]) -> Floats:
    """Return ``sqrt(max(I, 0))`` of fitted intensities: Poisson noise of sigma 1/2 whatever their size."""
    return np.sqrt(np.maximum(np.asarray(intensities, np.float64), 0.0))


def anscombe(counts: NDArray[Any], noise_variance: NDArray[Any] | float = 0.0) -> Floats:
    """Return counts on a scale where their noise is one.

    Parameters
    ----------
    counts : (N, D) real
        Counts, or fitted intensities in counts (these may be negative).
    noise_variance : broadcast to (N, D), counts squared
        Variance that the counts themselves do not explain: that of the background under a line.

    Returns
    -------
    (N, D) float64
        ``2 sqrt(max(I + 3/8 + v, 0))``; sigma is 1 within 5 % from about two counts on.

    References
    ----------
    .. [1] F. J. Anscombe, Biometrika 35 (1948) 246; with `noise_variance`, J.-L. Starck, F. Murtagh and
       A. Bijaoui, Image Processing and Data Analysis, Cambridge (1998), ch. 2.
    """
    raised = np.asarray(counts, np.float64) + 0.375 + np.asarray(noise_variance, np.float64)
    return 2.0 * np.sqrt(np.maximum(raised, 0.0))


def _spread(rows: Floats) -> tuple[Floats, Floats]:
    """Median and robust sigma of each column; sigma 0 marks a constant one."""
    columns = np.ascontiguousarray(rows.T)  # a median is of what lies side by side
    centre = _medians(columns)
    away = np.abs(columns - centre[:, None])
    furthest = away.max(axis=1)
    sigma = _MAD_TO_SIGMA * _medians(away)
    # More than half of the chips equal (an element that one layer lacks): the median deviation is blind.
    blind = sigma <= _ROUNDING * furthest
    if blind.any():
        scaled = (rows[:, blind] - centre[blind]) * _inverse(furthest[blind])
        sigma[blind] = furthest[blind] * scaled.std(axis=0)
    constant = furthest <= _ROUNDING * np.abs(rows).max(axis=0)
    return centre, np.where(constant, 0.0, sigma)


def _medians(columns: Floats) -> Floats:
    """Return the median of each of (D, N) columns, finite; one place to part at is eight times as quick as two."""
    half = columns.shape[1] // 2
    parted = np.partition(columns, half, axis=1)
    above = parted[:, half]
    if columns.shape[1] % 2:
        return np.asarray(above)
    return np.asarray((parted[:, :half].max(axis=1) + above) / 2)


def _inverse(sigma: Floats) -> Floats:
    """``1 / sigma``, and 0 where sigma is 0 or so small that the inverse overflows."""
    return np.divide(1.0, sigma, out=np.zeros_like(sigma), where=sigma > np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Standard:
    """Median and inverse robust sigma of each column of the features they were measured on."""

    centre: Floats
    inverse: Floats

    def apply(self, x: NDArray[Any], valid: Mask | None = None) -> Floats:
        """Return (N, D) float64, z-scores by this standard; zeros for chips without data."""
        rows, mask = valid_rows(x, valid)
        return scatter((rows - self.centre) * self.inverse, mask)


def standard_of(x: NDArray[Any], valid: Mask | None = None) -> Standard:
    """Measure the standard of `standardise`; keep it to bring chips of another scan to this one's."""
    rows, _ = valid_rows(x, valid)
    centre, sigma = _spread(rows)
    return Standard(centre, _inverse(sigma))


def standardise(x: NDArray[Any], valid: Mask | None = None) -> Floats:
    """Return robust z-scores of every column.

    Parameters
    ----------
    x : (N, D) real
        Features, any units.
    valid : (N,) bool, optional
        Chips with data.

    Returns
    -------
    (N, D) float64
        ``(x - median) / (1.4826 MAD)`` over the valid chips; by the standard deviation where the median
        deviation is zero; zero for constant columns and for chips without data.

    Raises
    ------
    StageError
        See `valid_rows`.
    """
    return standard_of(x, valid).apply(x, valid)


@dataclass(frozen=True, eq=False)
class Whitening:
    """A linear map to the space where the noise between neighbours is one in every direction.

    Attributes
    ----------
    centre : (D,) medians of the features it was measured on
    matrix : (D, D) symmetric up to the columns' scales
    shrinkage : how far the correlations were pulled to zero, 0.001 .. 1
    pairs : neighbour pairs it was measured on; 0 if there were too few and the columns' spread stands in
    """

    centre: Floats
    matrix: Floats
    shrinkage: float
    pairs: int

    def apply(self, x: NDArray[Any], valid: Mask | None = None) -> Floats:
        """Return (N, D) float64, the whitened rows; zeros for chips without data."""
        rows, mask = valid_rows(x, valid)
        if rows.shape[1] != len(self.centre):
            raise StageError(f"features have {rows.shape[1]} columns, the whitening {len(self.centre)}")
        return scatter((rows - self.centre) @ self.matrix, mask)


def neighbour_pairs(shape: tuple[int, int], valid: Mask) -> NDArray[np.intp]:
    """Return (P, 2) chip indices of all pairs side by side or one above the other, both valid."""
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    right = np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], axis=1)
    below = np.stack([index[:-1].ravel(), index[1:].ravel()], axis=1)
    pairs = np.concatenate([right, below])
    return np.asarray(pairs[valid[pairs].all(axis=1)], np.intp)


def _shrunk_correlation(z: Floats, independent: int) -> tuple[Floats, float]:
    """Second moments of z (P, D), shrunk to their diagonal by Schaefer and Strimmer's estimate."""
    moment = z.T @ z / len(z)
    scale = _inverse(np.sqrt(np.diag(moment)))
    r = moment * scale[:, None] * scale[None, :]
    squared = np.square(z * scale)
    scatter_of_r = np.maximum(squared.T @ squared / len(z) - r**2, 0.0)
    off = ~np.eye(len(r), dtype=bool)
    power = float((r[off] ** 2).sum())
    noise = float(scatter_of_r[off].sum()) / max(independent - 1, 1)
    shrinkage = float(np.clip(noise / power if power > 0 else 1.0, _LEAST_SHRINKAGE, 1.0))
    shrunk = np.where(off, (1.0 - shrinkage) * moment, moment)
    return shrunk, shrinkage


def _inside(z: Floats, covariance: Floats) -> tuple[Mask, float]:
    """Mark the `_KEEP` shortest differences; the factor undoes what the cut takes from normal variances."""
    from scipy.special import gammainc, gammaincinv

    length = np.einsum("ij,ij->i", z @ np.linalg.inv(covariance), z)
    keep = _shortest(length, max(int(_KEEP * len(z)), 2))
    half = z.shape[1] / 2
    # The chi-square law of D degrees, and the mean of its lower part (that of D + 2 degrees).
    factor = float(gammainc(half + 1, gammaincinv(half, _KEEP))) / _KEEP
    return keep, factor


def _shortest(length: Floats, count: int) -> Mask:
    """Mark the `count` shortest of (P,), of equals the first."""
    if count >= len(length):
        return np.ones(len(length), bool)
    longest = np.partition(length, count - 1)[count - 1]
    keep: Mask = length < longest
    keep[np.flatnonzero(length == longest)[: count - np.count_nonzero(keep)]] = True
    return keep


def neighbour_whitening(x: NDArray[Any], shape: tuple[int, int], valid: Mask | None = None) -> Whitening:
    """Measure the noise between neighbouring chips and return the map that makes it one.

    Parameters
    ----------
    x : (N, D) real
        Features of all chips, row-major.
    shape : (rows, cols)
        The grid, rows * cols = N.
    valid : (N,) bool, optional
        Chips with data.

    Returns
    -------
    Whitening
        Keep it to bring chips of another scan (an earlier support set) into the same space.

    Raises
    ------
    StageError
        If the grid does not hold N chips; see also `valid_rows`.

    Notes
    -----
    Half the second moment of the differences of 4-neighbours, measured on the nine tenths of the pairs that
    differ least (twice reweighted), so that pairs across a border do not pass for noise. Its correlations are
    shrunk to zero by the estimate of [1]_ with the number of chips as that of independent pairs, never by
    less than a thousandth. No column's noise counts as less than a thousandth of its spread. Below 16 pairs
    (the first chips of a scan) the result is `standardise`.

    References
    ----------
    .. [1] J. Schaefer and K. Strimmer, Stat. Appl. Genet. Mol. Biol. 4 (2005) 32.
    """
    rows, mask = valid_rows(x, valid)
    if shape[0] * shape[1] != len(mask):
        raise StageError(f"a grid of {shape[0]} x {shape[1]} chips does not hold {len(mask)} rows of features")
    centre, sigma = _spread(rows)
    pairs = neighbour_pairs(shape, mask)
    if len(pairs) < _LEAST_PAIRS:
        return Whitening(centre, np.diag(_inverse(sigma)), 1.0, 0)
    place = np.cumsum(mask) - 1  # chip index -> row among the valid
    used = sigma > 0
    unit = _inverse(sigma)
    z = ((rows[place[pairs[:, 0]]] - rows[place[pairs[:, 1]]]) * unit / np.sqrt(2.0))[:, used]
    matrix = np.zeros((len(sigma), len(sigma)))
    shrinkage = 1.0
    if used.any():
        root, shrinkage = _inverse_root(z, len(rows))
        matrix[np.ix_(used, used)] = unit[used, None] * root
    return Whitening(centre, matrix, shrinkage, len(pairs))


def _inverse_root(z: Floats, independent: int) -> tuple[Floats, float]:
    """Inverse square root of the noise covariance of the differences z (P, D), and its shrinkage."""
    covariance, shrinkage = _shrunk_correlation(z, independent)
    for _ in range(2):  # the second pass no longer sees the border pairs that bent the first
        floored = covariance + np.diag(np.maximum(_NOISE_FLOOR**2 - np.diag(covariance), 0.0))
        keep, factor = _inside(z, floored)
        covariance, shrinkage = _shrunk_correlation(z[keep] / np.sqrt(factor), independent)
    covariance = covariance + np.diag(np.maximum(_NOISE_FLOOR**2 - np.diag(covariance), 0.0))
    values, vectors = np.linalg.eigh(covariance)
    return (vectors / np.sqrt(values)) @ vectors.T, shrinkage


def whiten_by_neighbours(x: NDArray[Any], shape: tuple[int, int], valid: Mask | None = None) -> Floats:
    """Return (N, D) features whose noise between neighbouring chips is one; see `neighbour_whitening`."""
    return neighbour_whitening(x, shape, valid).apply(x, valid)


def join(parts: Sequence[NDArray[Any]], weights: Sequence[float] | None = None) -> Floats:
    """Put the features of several modalities side by side.

    Parameters
    ----------
    parts : sequence of (N, D_m) real
        Standardised or whitened features, in a fixed order of modalities.
    weights : sequence of float, optional
        Share of each part in squared distances; only their ratios matter. None: every column counts as it is.

    Returns
    -------
    (N, sum of D_m) float64
        Squared distances are ``sum_m w_m d_m^2 / mean(w)``.

    Raises
    ------
    StageError
        If there is no part, the parts differ in their rows, or a weight is negative or not finite.
    """
    if not parts:
        raise StageError("an ensemble needs the features of at least one modality")
    if len({len(p) for p in parts}) > 1:
        raise StageError(f"modalities differ in their chips: {', '.join(str(len(p)) for p in parts)} rows")
    w = checked_weights([1.0] * len(parts) if weights is None else weights, len(parts))
    return np.concatenate(
        [np.sqrt(v * len(parts)) * np.asarray(p, np.float64) for v, p in zip(w, parts, strict=True)], axis=1
    )


def unit_rows(x: NDArray[Any], valid: Mask | None = None) -> Floats:
    """Return (N, D) rows of length one, whose products are cosines; a row of zeros stays zero."""
    rows, mask = valid_rows(x, valid)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows * _inverse(largest)  # so that squares neither overflow nor vanish
    return scatter(rows * _inverse(np.linalg.norm(rows, axis=1, keepdims=True)), mask)
