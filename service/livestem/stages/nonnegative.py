"""Non-negative least squares of many right-hand sides with one matrix: all that have the same zeros at once.

Theory
------
The solution is a least-squares fit of some columns, the others being zero, such that no coefficient is negative and
no column left out would lower the misfit (its slope is not positive) [1]_. So spectra of one scan are guessed at first
by what is positive without the constraint, fitted group by group of equal guesses, and what breaks either condition
changes sides, all at once for a spectrum [2]_. Nearly all are settled after two or three rounds; the few that are not
after `_ROUNDS` are solved one by one by the active-set method.

Each row is computed by itself, from its group's inverse: the same bits in any batch.

References
----------
.. [1] C. L. Lawson and R. J. Hanson, Solving Least Squares Problems (1974), ch. 23.
.. [2] J. Kim and H. Park, SIAM J. Sci. Comput. 33 (2011) 3261 (block principal pivoting).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from livestem.stages.rows import Floats, Mask

_ROUNDS = 8  # real scans need three
_SLOPE = 1e-12  # of the product of both lengths: a slope that is round-off


def nonnegative(matrix: Floats, targets: Floats) -> Floats:
    """Return (N, P) coefficients, none negative, that fit each target best.

    Parameters
    ----------
    matrix : (M, P) float64
        Of full column rank.
    targets : (N, M) float64
    """
    found = np.zeros((len(targets), matrix.shape[1]))
    used = _fitted(matrix, targets, np.ones(found.shape, bool)) > 0
    open_rows = np.arange(len(targets))
    least = _SLOPE * np.linalg.norm(targets, axis=1)[:, None] * np.linalg.norm(matrix, axis=0)
    for _ in range(_ROUNDS):
        fitted = _fitted(matrix, targets[open_rows], used)
        slope = np.einsum("nm,mp->np", targets[open_rows] - np.einsum("np,mp->nm", fitted, matrix), matrix)
        wrong = np.where(used, fitted < 0, slope > least[open_rows])
        settled = ~wrong.any(axis=1)
        found[open_rows[settled]] = fitted[settled]
        open_rows, used = open_rows[~settled], (used ^ wrong)[~settled]
        if not open_rows.size:
            return found
    for row in open_rows.tolist():
        found[row] = nnls(matrix, targets[row])[0]
    return found


def _fitted(matrix: Floats, targets: Floats, used: Mask) -> Floats:
    """Return (N, P) the fit of each target by its used columns alone, refined once: the products lose digits."""
    length = np.linalg.norm(matrix, axis=0)
    unit = matrix / np.where(length > 0, length, 1.0)
    codes = np.ascontiguousarray(np.packbits(used, axis=1))
    _, first, group = np.unique(codes.view(f"V{codes.shape[1]}").ravel(), return_index=True, return_inverse=True)
    columns = used[first]
    both = columns[:, :, None] & columns[:, None, :]
    inverses = np.linalg.inv(np.where(both, unit.T @ unit, np.eye(len(length))))[group] * both[group]
    fitted = np.zeros(used.shape)
    for _ in range(2):
        left = targets - np.einsum("np,mp->nm", fitted, unit)
        fitted += np.einsum("npq,nq->np", inverses, np.einsum("nm,mp->np", left, unit))
    return fitted / np.where(length > 0, length, 1.0)
