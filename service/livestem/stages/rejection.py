"""Rejection: a chip that resembles no class's examples is `unknown`, rather than the least unlike of them.

Rules
-----
- A chip is far from a class if its squared distance to the prototype, in features whitened by their neighbours, is
  larger than chips of that class are by chance: ``d^2 / (D s_k^2 (1 + 1 / n_k))`` follows an F law, s_k^2 the variance
  of its n_k examples about their prototype. The law's degrees of freedom are `_DIRECTIONS` and `_DIRECTIONS` times
  (n_k - 1), not D: chips of a class vary in few directions (thickness, tilt, grain), not in all.
- `rate` is the share of a class's chips that lies beyond, were the law exact. A class of one example takes the
  variance of all; where no class has two, nothing is known of any spread, and nothing is far.
- A chip is unknown if it is far from every class **and** belongs to a square of 3 x 3 chips that all are. Chips on a
  border are mixtures of two classes and far from both, but they form lines; a phase that nobody named has an area. One
  that is narrower than three chips is not found.

Measured on the four simulated samples (``python -m benchmarks.rejection``): at a rate of 0.01 with
four examples a class, 0.1 % of the chips of named classes are rejected. Of a class that was left out of the support set
nearly all chips are rejected where it is far from the others, and none where it resembles one (a film with defects and
the same without): distance cannot tell a new class from an odd chip of a known one.
Distances to the segments between prototypes, with directions of large variance divided out, and medians in place of
squares of chips, all did worse at the same rate of false rejections.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.stages.fewshot import Calibration, Scores, squared_distances
from livestem.stages.rows import Mask, valid_rows

_DIRECTIONS = 4.0  # (tr S)^2 / tr S^2 of the examples' scatter S: 1.8 to 4.5 on the four samples, rounded up
_SQUARE = 3  # side of the smallest area, chips: the lines that borders make are two wide


def unknown(
    embedding: NDArray[Any],
    calibration: Calibration,
    shape: tuple[int, int],
    rate: float,
    valid: Mask | None = None,
) -> Mask:
    """Tell which chips resemble no class.

    Parameters
    ----------
    embedding : (N, D) real
        Whitened by neighbours, row-major.
    calibration : Calibration
        Of the same features.
    shape : (rows, cols)
        The grid, rows * cols = N.
    rate : float
        Share of a class's chips that may be far from it by chance, 0 < rate < 1.
    valid : (N,) bool, optional
        Chips with data; others are never unknown, and part no square.

    Returns
    -------
    (N,) bool

    Raises
    ------
    StageError
        If the grid does not hold N chips, or the rate is none.
    """
    rows, mask = valid_rows(embedding, valid)
    if shape[0] * shape[1] != len(mask):
        raise StageError(f"a grid of {shape[0]} x {shape[1]} chips does not hold {len(mask)} rows of features")
    if not 0 < rate < 1:
        raise StageError(f"a rate of rejection is a share between 0 and 1, got {rate:g}")
    far = np.ones(len(mask), bool)
    far[mask] = (squared_distances(rows, calibration.prototypes) > _bounds(calibration, rate)).all(axis=1)
    return _in_squares(far.reshape(shape)).ravel() & mask


def with_unknown(scores: Scores, away: Mask) -> Scores:
    """Return (N, K + 1) scores with `unknown` as the last class: 1 for the chips `away`, 0 for all others.

    A test, not a posterior: nothing is known of what an unnamed class looks like, so nothing lies between.
    """
    return np.hstack([np.where(away[:, None], 0.0, scores), away[:, None]]).astype(np.float32)


def _bounds(calibration: Calibration, rate: float) -> NDArray[np.float64]:
    """Return (K,) squared distances beyond which a chip is far from each class."""
    from scipy.stats import f

    spare = calibration.examples - 1
    freedom = np.where(spare > 0, spare, spare.sum())
    doubt = 1 + 1 / calibration.examples
    spread = calibration.prototypes.shape[1] * calibration.variances * doubt
    known = np.maximum(freedom, 1) * _DIRECTIONS
    return np.asarray(np.where(freedom > 0, spread * f.isf(rate, _DIRECTIONS, known), np.inf))


def _in_squares(far: Mask) -> Mask:
    """Keep what lies in a square of far chips; the field's edge may cut it."""
    from scipy.ndimage import binary_opening

    around = np.pad(far, _SQUARE, mode="edge")
    kept = binary_opening(around, np.ones((_SQUARE, _SQUARE), bool))
    return np.asarray(kept[_SQUARE:-_SQUARE, _SQUARE:-_SQUARE])
