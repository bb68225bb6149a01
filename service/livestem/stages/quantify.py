"""Line intensities of many spectra from one linear operator.

Theory
------
A spectrum is ``y = X b + noise``: one column per line family (its Gaussians integrated over the channels,
with fixed ratios; the named line's Gaussian has area 1, so its coefficient is that line's counts) and a few
smooth background columns (bremsstrahlung ``(E0 - E) / E`` times cubic B-splines in log E, whose slow
variation stands for absorption and detector efficiency). The weighted least-squares solution ``b = R y``,
``R = (X' W X)^-1 X' W``, is one matrix for the whole scan, so that a photon in channel c adds column c of
``R``: live updates are exact.

Rules
-----
1. Weights come from the scan's mean spectrum, as smoothed by the model, never from the few counts of one
   chip: those would pull every estimate towards the channels that happened to be empty.
2. Errors are sandwich errors, ``R diag(v) R'``, right whatever the weights. ``v`` is the spectrum itself (the
   unbiased estimate of a Poisson variance) plus one photon spread like the scan's mean, which keeps the error
   of an empty spectrum above zero and is nothing beside a hundred counts. They, too, are linear in ``y``.
3. Live estimates are unconstrained, hence unbiased. Finals may add ``b >= 0`` for the lines; their errors
   remain those of the unconstrained estimate, which is what the data can tell.
4. A line that the data cannot tell from others is *not determined*: its numbers are zero, its mask is False
   and the reason is in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from livestem.domain.errors import StageError
from livestem.domain.scan import EnergyAxis
from livestem.stages.determined import RCOND, determined_lines
from livestem.stages.lines import DEFAULT_MNKA_EV, LineFamily
from livestem.stages.nonnegative import nonnegative
from livestem.stages.spectrum_model import (
    Floats,
    background_shapes,
    checked_counts,
    fit_mean,
    fit_window,
    line_shapes,
    noise_level,
)


@dataclass(frozen=True)
class LineOperator:
    """What turns spectra into line intensities; built once per scan.

    Attributes
    ----------
    families : L line families
    axis : EnergyAxis as it was used (aligned, if it was aligned)
    resolution_mnka_ev : detector resolution used, eV
    window : first and one past the last channel of the fit
    design : (C', P) float64; the L families, then the background, over the window
    weights : (C',) float64
    response : (L, C') float64; intensities are ``response @ spectrum[window]``
    mean_model : (C',) float64; the scan's mean as the model (non-negative) sees it
    mean_coefficients : (P,) float64 of that model
    determined : (L,) bool
    reasons : L texts, empty where determined
    """

    families: tuple[LineFamily, ...]
    axis: EnergyAxis
    resolution_mnka_ev: float
    window: slice
    design: Floats
    weights: Floats
    response: Floats
    mean_model: Floats
    mean_coefficients: Floats
    determined: NDArray[np.bool_]
    reasons: tuple[str, ...]

    @cached_property
    def pairs(self) -> tuple[Floats, Floats]:
        """What each channel, (C', L (L + 1) / 2), and one photon spread like the mean add to each two lines' error."""
        first, second = np.triu_indices(len(self.families))
        products = np.ascontiguousarray((self.response[first] * self.response[second]).T)
        prior = self.mean_model if self.mean_model.any() else np.ones_like(self.mean_model)
        return products, (prior / prior.sum()) @ products

    @cached_property
    def eliminated(self) -> tuple[Floats, Floats]:
        """(A, A) root and (C', A) map of the A determined lines alone: min |root b - spectrum @ map| for b >= 0.

        Everything else (background, lines that share their signal with others) stays free and is projected out.
        """
        active = np.flatnonzero(self.determined)
        free = np.setdiff1d(np.arange(self.design.shape[1]), active)
        root_weight = np.sqrt(self.weights)[:, None]
        lines, rest = self.design[:, active] * root_weight, self.design[:, free] * root_weight
        basis = np.linalg.svd(rest / np.linalg.norm(rest, axis=0).clip(1e-300), full_matrices=False)
        spanned = basis.U[:, basis.S > np.sqrt(RCOND) * basis.S[0]]
        lines -= spanned @ (spanned.T @ lines)
        q, root = np.linalg.qr(lines)
        return root, root_weight * q


@dataclass(frozen=True)
class Fit:
    """Intensities of N spectra.

    Attributes
    ----------
    families : L line families
    intensities : (N, L) float64, counts of each family's named line
    covariance : (N, L, L) float64, counts squared; counting statistics only
    counts : (N,) float64, all counts in the fit's window
    determined : (L,) bool; where False, intensities and covariances are zero and mean nothing
    reasons : L texts, empty where determined
    """

    families: tuple[LineFamily, ...]
    intensities: Floats
    covariance: Floats
    counts: Floats
    determined: NDArray[np.bool_]
    reasons: tuple[str, ...]

    @property
    def sigma(self) -> Floats:
        """(N, L) standard errors, counts."""
        sigma: Floats = np.sqrt(np.einsum("nii->ni", self.covariance))
        return sigma


def build_operator(
    families: tuple[LineFamily, ...],
    axis: EnergyAxis,
    mean_spectrum: ArrayLike,
    resolution_mnka_ev: float | None = None,
    beam_energy_kv: float | None = None,
) -> LineOperator:
    """Build the operator of a scan.

    Parameters
    ----------
    families : tuple of LineFamily
        From `livestem.stages.lines.choose_lines`.
    axis : EnergyAxis
    mean_spectrum : (C,) array
        Counts per channel of the scan, mean or sum: its scale does not matter. All zeros is allowed (nothing
        has arrived): weights are then flat.
    resolution_mnka_ev : float, optional
        Detector resolution at Mn Ka, eV.
    beam_energy_kv : float, optional
        End of the bremsstrahlung; where unknown, the background bends by itself.

    Returns
    -------
    LineOperator

    Raises
    ------
    StageError
        If the spectrum does not fit the axis, is negative or not finite, or the axis is too short for the
        lines. UsageError If the resolution is impossible.
    """
    mean = checked_counts(mean_spectrum, axis, 1).astype(np.float64)
    resolution = DEFAULT_MNKA_EV if resolution_mnka_ev is None else resolution_mnka_ev
    window = fit_window(families, axis, beam_energy_kv)
    y = mean[window]
    design = np.hstack(
        [line_shapes(families, axis, resolution)[window], background_shapes(axis, window, beam_energy_kv)]
    )
    if design.shape[0] <= design.shape[1]:
        raise StageError(f"{design.shape[0]} channels cannot hold {len(families)} line families; give fewer elements")
    coefficients, model = fit_mean(design, y)
    weights = 1.0 / noise_level(model, y)
    determined, reasons = determined_lines(families, design, weights, coefficients, resolution)
    response = _solve(design, weights)[: len(families)] * determined[:, None]
    return LineOperator(
        families=families,
        axis=axis,
        resolution_mnka_ev=resolution,
        window=window,
        design=design,
        weights=weights,
        response=response,
        mean_model=model,
        mean_coefficients=coefficients,
        determined=determined,
        reasons=reasons,
    )


def fit(operator: LineOperator, spectra: ArrayLike, *, nonnegative: bool = False) -> Fit:
    """Fit line intensities to many spectra.

    Parameters
    ----------
    operator : LineOperator
    spectra : (N, C) array
        Counts per channel.
    nonnegative : bool
        Forbid negative intensities (finals); False is the unbiased estimate (live).

    Returns
    -------
    Fit

    Raises
    ------
    StageError
        If the spectra do not fit the axis, or are negative or not finite.

    References
    ----------
    .. [1] White, Econometrica 48 (1980) 817 (sandwich errors).
    """
    counted = _counted(operator, spectra)
    return Fit(
        families=operator.families,
        intensities=_intensities(operator, counted, nonnegative),
        covariance=_sandwich(operator, counted),
        counts=np.asarray(counted.sum(1), dtype=np.float64),
        determined=operator.determined,
        reasons=operator.reasons,
    )


def line_intensities(operator: LineOperator, spectra: ArrayLike, *, nonnegative: bool = False) -> Floats:
    """Fit line intensities without their covariance, which takes most of the time of `fit`.

    Parameters and errors are those of `fit`.

    Returns
    -------
    (N, L) float64
        Counts of each family's named line; zero where not determined.

    Notes
    -----
    Unconstrained: a product with the spectra as sparse rows. A chip holds some hundred photons in thousands of
    channels, so this is several times faster than dense, and each row is summed by itself, channel by channel: the
    same bits in any batch and with any number of threads. Constrained: only spectra with a negative line are solved
    again (`livestem.stages.nonnegative`), on the L x L normal equations with the background eliminated.
    """
    return _intensities(operator, _counted(operator, spectra), nonnegative)


def _counted(operator: LineOperator, spectra: ArrayLike) -> csr_array:
    """Return the window of the spectra as sparse rows (scipy's own way makes the indices of a full matrix first)."""
    dense = np.ascontiguousarray(checked_counts(spectra, operator.axis, 2)[:, operator.window])
    rows, channels = dense.shape
    places = np.flatnonzero(dense.ravel() != 0)
    starts = np.searchsorted(places, np.arange(rows + 1) * channels)
    values = dense.ravel()[places].astype(np.float64)
    return csr_array((values, places % channels, starts), shape=dense.shape)


def _intensities(operator: LineOperator, counted: csr_array, nonnegative: bool) -> Floats:
    intensities: Floats = counted @ operator.response.T
    return _nonnegative(operator, counted, intensities) if nonnegative else intensities


def _solve(design: Floats, weights: Floats) -> Floats:
    """R = (X' W X)^+ X' W, columns scaled to unit norm first; collinear columns share their signal."""
    weighted = design * weights[:, None]
    scale = np.sqrt(np.einsum("cp,cp->p", design, weighted))
    scale[scale == 0] = 1.0
    normal = design.T @ weighted / np.outer(scale, scale)
    response: Floats = np.linalg.pinv(normal, rcond=RCOND, hermitian=True) @ (weighted / scale).T
    response /= scale[:, None]
    return response


def _sandwich(operator: LineOperator, counted: csr_array) -> Floats:
    products, one_photon = operator.pairs
    count = len(operator.families)
    first, second = np.triu_indices(count)
    covariance = np.empty((counted.shape[0], count, count))
    covariance[:, first, second] = counted @ products + one_photon
    covariance[:, second, first] = covariance[:, first, second]
    return covariance


def _nonnegative(operator: LineOperator, counted: csr_array, unconstrained: Floats) -> Floats:
    wrong = np.flatnonzero((unconstrained < 0).any(1))
    active = np.flatnonzero(operator.determined)
    result = unconstrained.copy()
    if not wrong.size or not active.size:
        return result
    root, onto = operator.eliminated
    result[np.ix_(wrong, active)] = nonnegative(root, counted[wrong] @ onto)
    return result
