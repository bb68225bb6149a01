"""Alias tables: draws from many discrete distributions at once, in a time that does not depend on their size.

Theory. N values of any chances can be packed into N columns of height 1 that hold two values each, the column's own
below a mark and one other above it (Walker; Vose [1]_). A draw is then a random place: its column, and its height
beside the mark.

References
----------
.. [1] Vose, IEEE Trans. Softw. Eng. 17 (1991) 972.
.. [2] Hubschle-Schneider and Sanders, ACM Trans. Math. Softw. 48 (2022) 41, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROWS = 1 << 13  # worked on at a time, for the processor's cache


@dataclass(frozen=True)
class Alias:
    """Tables that draw from R distributions over N values each.

    Attributes
    ----------
    keep : (R * N,) float32, chance to keep a column's own value
    other : (R * N,) uint16, the value taken otherwise
    size : N
    """

    keep: NDArray[np.float32]
    other: NDArray[np.uint16]
    size: int

    def draw(self, row: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
        """Return a value (n,) from the distribution of each row (n,)."""
        place = rng.random(row.size)
        place *= self.size
        value = place.astype(np.intp)  # rounds down
        place -= value
        column = row * self.size
        column += value
        lost = np.flatnonzero(place >= self.keep[column])
        value[lost] = self.other[column[lost]]
        return value


def alias(weights: NDArray[np.floating]) -> Alias:
    """Build alias tables.

    Parameters
    ----------
    weights : (R, N) array
        Not negative; a row need not sum to 1. A row of zeros draws all its values alike. N at most 65536.

    Notes
    -----
    Columns are closed one by one, in many rows at once: those below the mean are filled up by the first of those
    above it, which, once it is below the mean itself, is filled up by the next [2]_.
    """
    rows, size = weights.shape
    keep, other = np.ones((rows, size), np.float32), np.zeros((rows, size), np.uint16)
    for start in range(0, rows, _ROWS):
        block = slice(start, start + _ROWS)
        _fill(np.asarray(weights[block], np.float64), keep[block], other[block])
    return Alias(keep.ravel(), other.ravel(), size)


def _fill(weights: Floats, keep: NDArray[np.float32], other: NDArray[np.uint16]) -> None:
    """Fill `keep` (R, N), which is 1, and `other` (R, N) in place."""
    rows, size = weights.shape
    total = weights.sum(axis=1, keepdims=True)
    left = np.where(total > 0, weights * (size / np.where(total > 0, total, 1.0)), 1.0)
    order = left.argsort(axis=1)
    poor, poor_end = np.zeros(rows, np.intp), (left <= 1).sum(axis=1)
    rich = np.minimum(poor_end, size - 1)
    every = np.arange(rows)
    rest = left[every, order[every, rich]]
    for _ in range(size):
        filling, passing = (rest > 1) & (poor < poor_end), (rest <= 1) & (rich < size - 1)
        r = np.flatnonzero(filling)
        closed = order[r, poor[r]]
        keep[r, closed], other[r, closed] = left[r, closed], order[r, rich[r]]
        rest[r] -= 1 - left[r, closed]
        poor[r] += 1
        r = np.flatnonzero(passing)
        closed, giver = order[r, rich[r]], order[r, rich[r] + 1]
        keep[r, closed], other[r, closed] = rest[r], giver
        rest[r] += left[r, giver] - 1
        rich[r] += 1
