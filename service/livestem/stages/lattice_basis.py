"""The two-vector basis of a set of diffraction peaks.

A projected crystal has its peaks on the nodes h b1 + k b2 of a plane lattice. Candidates for (b1, b2) are
pairs of peaks and of their sums and differences (so that {110} with {210} finds {100}). The basis kept is
the one that puts most peaks on nodes; among equals, the one with the largest cell, because half of a basis
indexes all that the basis does. It is then fitted to its peaks by weighted least squares and reduced
(Lagrange), so that b1 is the shortest vector of the lattice and 1 / |b1| its longest spacing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COLLINEAR_SINE = 0.2  # 11.5 degrees: directions nearer than that are one row of planes, sheared by drift
_PEAKS_USED = 8  # the strongest: candidates grow with the fourth power, and {100} {110} {200} are six
_SLACK = 1.02  # of the longest spacing: a crystal at the very end of the band may measure 2 % long
_SHARED_NOISE = 2.0
"""Least factor on the variance of a fitted basis. A lattice modulates its own shot noise, which therefore is
correlated between its peaks, and combining them gains less than independence promises: measured pulls are
1.3-1.4 at 3-20 counts per pixel, 0.9 with white noise."""
_SQUARE = 0.05  # of length, and cosine (3 degrees): what drift makes of a square; tetragonal oxides differ by less
_REDUCTIONS = 20  # Lagrange's steps; vectors whose lengths differ less than a thousandfold take fewer


@dataclass(frozen=True, kw_only=True)
class Basis:
    """A reduced basis and how well it is known.

    Attributes
    ----------
    vectors : (2, 2) float64
        Rows b1, b2 as (x, y), 1/nm; |b1| <= |b2|.
    covariance : (2, 2) float64
        Of one component of (b1, b2), 1/nm^2; x and y components are independent and alike.
    indices : (K, 2) int64
        h, k of every peak.
    indexed : (K,) bool
        Which peaks lie on their node.
    """

    vectors: Floats
    covariance: Floats
    indices: NDArray[np.int64]
    indexed: NDArray[np.bool_]

    @property
    def spacings_nm(self) -> tuple[float, float]:
        """1 / |b1| >= 1 / |b2|, nm."""
        first, second = 1.0 / np.hypot(*self.vectors.T)
        return float(first), float(second)

    @property
    def sigmas_nm(self) -> tuple[float, float]:
        """Standard errors of `spacings_nm`."""
        first, second = np.sqrt(np.diag(self.covariance)) * np.square(self.spacings_nm)
        return float(first), float(second)

    @property
    def drift_free_nm(self) -> tuple[float, float] | None:
        """Spacing of a square lattice from the fast (x) components of its vectors, and its standard error, nm.

        None where the lattice is not square within `_SQUARE`.
        """
        lengths = np.hypot(*self.vectors.T)
        cosine = float(self.vectors[0] @ self.vectors[1]) / float(lengths.prod())
        if lengths[1] > (1 + _SQUARE) * lengths[0] or abs(cosine) > _SQUARE:
            return None
        x = self.vectors[:, 0]
        spacing = float((x @ x) ** -0.5)
        return spacing, float(spacing**3 * np.sqrt(x @ self.covariance @ x))


def non_collinear(g: Floats) -> bool:
    """Say whether the peaks `g` (K, 2) point in at least two directions."""
    length = np.hypot(*g.T)
    sine = (g[:, None, 0] * g[None, :, 1] - g[:, None, 1] * g[None, :, 0]) / (length[:, None] * length[None, :])
    return bool((abs(sine) > COLLINEAR_SINE).any())


def basis_of(g: Floats, sigma: Floats, *, tolerance: float, longest_nm: float) -> Basis | None:
    """Find the basis that indexes most of the peaks.

    Parameters
    ----------
    g, sigma : (K, 2) and (K,) float64
        Peaks, strongest first, and the standard error of each component, 1/nm.
    tolerance : float
        How far from its node an indexed peak may lie, 1/nm.
    longest_nm : float
        Longest spacing a basis may have.

    Returns
    -------
    Basis or None
        None where no two peaks span a plane within `longest_nm`.
    """
    candidates = _candidates(g[:_PEAKS_USED], longest_nm)
    if not len(candidates):
        return None
    hk = np.rint(_coordinates(candidates, g))
    off = np.hypot(*np.moveaxis(hk @ candidates - g, -1, 0))
    on = (off <= tolerance) & hk.any(axis=-1)
    score = on.sum(axis=1) * 1e6 + abs(np.linalg.det(candidates))  # count first; the cell decides between equals
    best = int(np.argmax(score))
    return fitted(candidates[best], g, sigma, tolerance)


def fitted(vectors: Floats, g: Floats, sigma: Floats, tolerance: float) -> Basis | None:
    """Fit a basis to the peaks near its nodes and reduce it; None if they do not span a plane."""
    vectors = _reduced(vectors)
    for _ in range(2):  # the second fit takes in far peaks that the rough basis missed
        hk = np.rint(_coordinates(vectors[None], g)[0])
        off = np.hypot(*(hk @ vectors - g).T)
        on = (off <= tolerance) & hk.any(axis=1)
        weight = on / sigma**2
        normal = hk.T @ (weight[:, None] * hk)
        if np.linalg.matrix_rank(hk[on]) < 2:
            return None
        vectors = np.linalg.solve(normal, hk.T @ (weight[:, None] * g))
    residual = (hk @ vectors - g)[on] / sigma[on, None]
    freedom = 2 * int(on.sum()) - 4
    # a distorted scan moves peaks by more than their noise: the errors grow with the misfit
    misfit = float((residual**2).sum()) / freedom if freedom else 1.0
    covariance = np.linalg.inv(normal) * max(_SHARED_NOISE, misfit)
    order = np.argsort(np.hypot(*vectors.T), kind="stable")  # the fit may have made the shorter the longer
    return Basis(
        vectors=vectors[order],
        covariance=covariance[np.ix_(order, order)],
        indices=hk[:, order].astype(np.int64),
        indexed=on,
    )


def halves(vectors: Floats) -> tuple[tuple[Floats, Floats], ...]:
    """Return the three lattices of half the cell: for each, its basis and the shift (2,) of its new nodes."""
    b1, b2 = vectors
    return (
        (np.array([(b1 + b2) / 2, (b1 - b2) / 2]), (b1 + b2) / 2),
        (np.array([b1 / 2, b2]), b1 / 2),
        (np.array([b1, b2 / 2]), b2 / 2),
    )


def nodes(vectors: Floats, shift: Floats, band: tuple[float, float]) -> Floats:
    """Return the nodes shift + h b1 + k b2 in one half-plane whose length lies in the band, (M, 2)."""
    reach = int(np.ceil(band[1] / np.hypot(*vectors.T).min() * 1.2)) + 1  # a reduced cell is at worst hexagonal
    h, k = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    g = shift + np.stack([h, k], axis=1) @ vectors
    length = np.hypot(*g.T)
    half = (g[:, 0] > 0) | ((g[:, 0] == 0) & (g[:, 1] > 0))
    inside: Floats = g[half & (length >= band[0]) & (length <= band[1])]
    return inside


def _candidates(g: Floats, longest_nm: float) -> Floats:
    """Return (C, 2, 2) pairs of non-collinear vectors none of which is shorter than 1 / longest."""
    first, second = np.triu_indices(len(g), 1)
    vectors = np.concatenate([g, g[first] + g[second], g[first] - g[second]])
    vectors = vectors[np.hypot(*vectors.T) * longest_nm * _SLACK >= 1]
    i, j = np.triu_indices(len(vectors), 1)
    pairs = np.stack([vectors[i], vectors[j]], axis=1)
    area = abs(np.linalg.det(pairs))
    pairs = pairs[area > COLLINEAR_SINE * np.prod(np.hypot(pairs[..., 0], pairs[..., 1]), axis=1)]
    shortest = np.hypot(*_reduced(pairs)[:, 0].T)
    possible: Floats = pairs[shortest * longest_nm * _SLACK >= 1]
    return possible


def _coordinates(bases: Floats, g: Floats) -> Floats:
    """Return (C, K, 2): g in each of the bases (C, 2, 2)."""
    out: Floats = g[None] @ np.linalg.inv(bases)
    return out


def _reduced(bases: Floats) -> Floats:
    """Return Lagrange's reduced basis of each lattice, (..., 2, 2), the shorter vector first."""
    a, b = bases[..., 0, :], bases[..., 1, :]
    for _ in range(_REDUCTIONS):
        longer = ((a * a).sum(-1) > (b * b).sum(-1))[..., None]
        a, b = np.where(longer, b, a), np.where(longer, a, b)
        step = np.rint((a * b).sum(-1) / (a * a).sum(-1))
        if not step.any():
            break
        b = b - step[..., None] * a
    return np.stack([a, b], axis=-2)
