"""What every method on chips shares: one row per chip, and a mask of the chips that have data.

Rules
-----
- Row i belongs to chip i (row-major). `valid` marks the chips that have data; None means all of them.
- Rows that are not valid are never read. They come back as zeros, and as label -1 from whatever labels chips.
- Methods compute in float64 on the valid rows alone: a chip without data changes nothing for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def valid_rows(x: NDArray[Any], valid: Mask | None, what: str = "features") -> tuple[Floats, Mask]:
    """Check a feature matrix and its mask.

    Parameters
    ----------
    x : (N, D) real
        One row per chip.
    valid : (N,) bool or None
        Chips with data; None: all.
    what : str
        What the rows are, for the error's line.

    Returns
    -------
    (V, D) float64
        The valid rows, in order; `x` itself where nothing had to be copied, so not to be written to.
    (N,) bool
        The mask.

    Raises
    ------
    StageError
        If there is no valid row or no column, the mask does not fit, or a valid row is not finite.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise StageError(f"{what} must be one row per chip with at least one column, got shape {x.shape}")
    mask = np.ones(len(x), bool) if valid is None else np.asarray(valid, bool).ravel()
    if mask.shape != (len(x),):
        raise StageError(f"{what} has {len(x)} rows, but the mask of valid chips has {mask.size} entries")
    rows = np.ascontiguousarray(x if mask.all() else x[mask], np.float64)
    if not len(rows):
        raise StageError(f"no chip has data for {what}; wait for the first finished chip")
    if not np.isfinite(rows).all():
        bad = int(np.count_nonzero(~np.isfinite(rows).all(axis=1)))
        raise StageError(f"{what} of {bad} chips are not finite; look for NaN or infinity in the recording")
    return rows, mask


def scatter(rows: NDArray[Any], valid: Mask) -> Floats:
    """Put (V, D) rows of valid chips back to their places in (N, D) float64; the others are zero.

    Where all chips are valid, `rows` itself is returned.
    """
    if valid.all() and rows.dtype == np.float64:
        return rows
    out = np.zeros((len(valid), rows.shape[1]))
    out[valid] = rows
    return out


def checked_weights(weights: Sequence[float], parts: int) -> Floats:
    """Return weights scaled to sum 1; StageError unless there is one, not negative, for each part."""
    w = np.asarray(weights, np.float64)
    if w.shape != (parts,) or not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
        raise StageError(f"weights must be {parts} numbers, none negative and not all zero; got {list(weights)}")
    return np.asarray(w / w.sum())
