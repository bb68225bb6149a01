"""Shapes that a spectrum is made of: Gaussians integrated over channels, and a smooth background.

The background is bremsstrahlung ``(E0 - E) / E`` (Kramers) times cubic B-splines that are uniform in log E:
slow factors, which stand for absorption in specimen and window and for what a detector misses. The splines
are wider than any peak (a factor of two to three in energy each), so they cannot take a line's counts.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BSpline
from scipy.optimize import minimize, nnls
from scipy.special import ndtr

from livestem.domain.errors import StageError
from livestem.domain.scan import EnergyAxis
from livestem.stages.lines import DEFAULT_MNKA_EV, LineFamily, fwhm_kev, in_range_kev

Floats = NDArray[np.float64]

FWHM_PER_SIGMA = 2.354820045  # 2 sqrt(2 ln 2)
# Four real sums: 5 columns raise chi2 by 1 to 39 %, 12 lower it by 1 to 13 %. On a chip of 190 counts 7 columns
# instead of 4 cost less than 3 % of any line's error, but 27 % of carbon's.
BACKGROUND_COLUMNS = 7
_BEYOND_KEV = 1.0  # continuum kept beyond the hardest line, so that its background is held from both sides
_FLOOR = 0.02  # a channel's noise is taken as at least that of 2 % of the mean level: none counts as noiseless
_REWEIGHTINGS = 3  # the third round changes weights by less than 0.1 %
_NOTHING = 1e-150  # length of a column whose square is lost: it is as good as zero
_SHIFT_EV = 60.0  # largest axis error corrected: half a peak's width, beyond which lines would be mistaken
_RESOLUTION_EV = (122.0, 200.0)  # Mn Ka: below, Fiori's formula leaves carbon no width; above, no Si detector


def energies_kev(axis: EnergyAxis) -> Floats:
    """Energy of every channel, keV."""
    return axis.offset_kev + np.arange(axis.channels, dtype=np.float64) * axis.scale_kev


def fit_window(families: tuple[LineFamily, ...], axis: EnergyAxis, beam_energy_kv: float | None = None) -> slice:
    """Channels of the fit: from 0.2 keV (the zero peak lies below) to 1 keV beyond the hardest line.

    Raises
    ------
    StageError
        If the axis has no channel there.
    """
    low, high = in_range_kev(axis)
    hardest = max((max(f.energies_kev) for f in families), default=high)
    high = min(high, hardest + _BEYOND_KEV, beam_energy_kv or math.inf)
    inside = np.flatnonzero((energies_kev(axis) >= low) & (energies_kev(axis) <= high))
    if not inside.size:
        raise StageError(
            f"the energy axis ends at {energies_kev(axis)[-1]:g} keV; lines are fitted from {low:g} keV up"
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)


def line_shapes(families: tuple[LineFamily, ...], axis: EnergyAxis, resolution_mnka_ev: float | None = None) -> Floats:
    """Spectrum of each family per count of its named line.

    Returns
    -------
    (C, L) float64
        Counts per channel; the named line's Gaussian has area 1 (less what lies outside the axis), its
        companions have their weights.
    """
    edges = axis.offset_kev + (np.arange(axis.channels + 1) - 0.5) * axis.scale_kev
    column = np.repeat(np.arange(len(families)), [len(f.energies_kev) for f in families])
    energy = np.array([e for f in families for e in f.energies_kev])
    weight = np.array([w for f in families for w in f.weights])
    sigma = np.array([fwhm_kev(e, resolution_mnka_ev) for e in energy.tolist()]) / FWHM_PER_SIGMA
    # Beyond 8 sigma a Gaussian holds 1e-15 of its area: those channels need no error function.
    first, last = np.searchsorted(edges, energy - 8 * sigma), np.searchsorted(edges, energy + 8 * sigma)
    width = int((last - first).max(initial=0))
    near = np.minimum(first[:, None] + np.arange(width), axis.channels)  # what is beyond the axis adds nothing
    below = ndtr((edges[near] - energy[:, None]) / sigma[:, None])
    inside = near[:, 1:] < last[:, None]
    shapes = np.zeros((axis.channels, len(families)))
    counts = np.where(inside, np.diff(below, axis=1), 0.0) * weight[:, None]
    place = np.minimum(near[:, :-1], axis.channels - 1) * len(families) + column[:, None]
    np.add.at(shapes.reshape(-1), place.ravel(), counts.ravel())  # numpy is quick where there is one index
    return shapes


def background_shapes(axis: EnergyAxis, window: slice, beam_energy_kv: float | None = None) -> Floats:
    """Background columns over a window of channels.

    Returns
    -------
    (C', BACKGROUND_COLUMNS) float64
        Not negative, mean 1, so that coefficients are counts per channel.
    """
    energy = energies_kev(axis)[window]
    place = np.log(energy / energy[0]) / max(np.log(energy[-1] / energy[0]), 1e-9)
    degree = 3
    inner = np.linspace(0.0, 1.0, BACKGROUND_COLUMNS - degree + 1)
    knots = np.concatenate([np.zeros(degree), inner, np.ones(degree)])
    splines = BSpline.design_matrix(np.clip(place, 0.0, 1.0), knots, degree).toarray()
    # Unknown beam energy: far above the axis, where (E0 - E) is flat.
    kramers = 1.0 / energy if beam_energy_kv is None else (beam_energy_kv - energy).clip(0) / energy
    shapes = splines * kramers[:, None]
    return np.asarray(shapes / shapes.mean(0).clip(1e-300))


def fit_mean(design: Floats, spectrum: Floats) -> tuple[Floats, Floats]:
    """Fit all columns, none negative, to one spectrum of many counts, its noise taken from the model itself.

    Parameters
    ----------
    design : (C, P) float64
    spectrum : (C,) float64

    Returns
    -------
    coefficients : (P,) float64
    model : (C,) float64
    """
    # 9 channels are less than a peak's width: good enough to start from.
    model = np.convolve(spectrum, np.ones(9) / 9, "same")
    coefficients = np.zeros(design.shape[1])
    for _ in range(_REWEIGHTINGS):
        root = 1.0 / np.sqrt(noise_level(model, spectrum))
        coefficients = nonnegative_fit(design * root[:, None], spectrum * root)[0]
        model = design @ coefficients
    return coefficients, model


def noise_level(model: Floats, spectrum: Floats) -> Floats:
    """Poisson variance of a modelled spectrum, up to a factor, kept from vanishing.

    Returns
    -------
    (C,) float64
        Positive; all ones for an empty spectrum.
    """
    floor = _FLOOR * float(spectrum.mean())
    return np.maximum(model, floor) if floor > 0 else np.ones_like(model)


def align(
    families: tuple[LineFamily, ...],
    axis: EnergyAxis,
    mean_spectrum: ArrayLike,
    resolution_mnka_ev: float | None = None,
    beam_energy_kv: float | None = None,
) -> tuple[EnergyAxis, float]:
    """Correct the offset of an energy axis and the detector's resolution by the recording's own lines.

    Recordings exist whose peaks sit 30 eV off, a third of a peak's width: intensities would be wrong by tens
    of per cent. Offset and resolution are those that make the non-negative fit of the mean best.

    Parameters
    ----------
    families : tuple of LineFamily
        At least one must show in the spectrum; without any, or without counts, nothing is changed.
    axis : EnergyAxis
    mean_spectrum : (C,) array
        Mean or summed counts per channel; thousands of counts are needed for a result to trust.
    resolution_mnka_ev, beam_energy_kv : float, optional
        As in `livestem.stages.quantify.build_operator`; the resolution is where the search begins.

    Returns
    -------
    axis : EnergyAxis
        Its offset corrected by at most 60 eV.
    resolution_mnka_ev : float
        Resolution at Mn Ka, eV, within 122 to 200.
    """
    counted = checked_counts(mean_spectrum, axis, 1).astype(np.float64)
    start = DEFAULT_MNKA_EV if resolution_mnka_ev is None else resolution_mnka_ev
    if not families or not counted.any():
        return axis, start
    window = fit_window(families, axis, beam_energy_kv)
    spectrum = counted[window]
    root = 1.0 / np.sqrt(noise_level(np.convolve(spectrum, np.ones(9) / 9, "same"), spectrum))
    design = np.empty((len(spectrum), len(families) + BACKGROUND_COLUMNS))
    design[:, len(families) :] = background_shapes(axis, window, beam_energy_kv) * root[:, None]
    target = spectrum * root
    lines = design[:, : len(families)]  # written anew for every try; the background stays

    def state(free: Floats) -> tuple[EnergyAxis, float]:
        shift = float(np.clip(free[0], -_SHIFT_EV, _SHIFT_EV)) / 1e3
        moved = msgspec.structs.replace(axis, offset_kev=axis.offset_kev + shift)
        return moved, float(np.clip(free[1], *_RESOLUTION_EV))

    def misfit(free: Floats) -> float:
        np.multiply(line_shapes(families, *state(free))[window], root[:, None], out=lines)
        return nonnegative_fit(design, target)[1]

    # First steps of 20 eV and 10 eV: less than a peak's half width, more than the noise of the misfit.
    simplex = np.array([(0.0, start), (20.0, start), (0.0, start + 10.0)])
    options = {"initial_simplex": simplex, "xatol": 0.2, "fatol": 1e-4, "maxfev": 90}
    return state(minimize(misfit, simplex[0], method="Nelder-Mead", options=options).x)


def checked_counts(counts: ArrayLike, axis: EnergyAxis, ndim: int) -> NDArray[np.number[Any]]:
    """Return counts as an array of `ndim` dimensions, the last being the axis' channels; dtype as given.

    Raises
    ------
    StageError
        If the shape is another, or a count is negative or not finite.
    """
    array = np.asarray(counts)
    if array.ndim != ndim or array.shape[-1] != axis.channels:
        raise StageError(
            f"spectra of shape {array.shape} do not fit an energy axis of {axis.channels} channels "
            f"({ndim} dimensions expected)"
        )
    if array.dtype.kind not in "uif":
        raise StageError(f"spectra must be numbers, not {array.dtype}")
    # Every comparison with nan is False, so one pass finds negatives, nan and, at the other end, infinity.
    if array.dtype.kind != "u" and array.size and not (array.min() >= 0 and array.max() < np.inf):
        raise StageError("a spectrum holds negative or infinite counts; give raw counts, not processed ones")
    return array


def nonnegative_fit(design: Floats, spectrum: Floats) -> tuple[Floats, float]:
    """Non-negative least squares of one spectrum, by way of the P x P normal matrix of columns of norm one.

    Parameters
    ----------
    design : (C, P) float64
        Well conditioned once its columns are of one length: the normal matrix' condition is the square of theirs.
    spectrum : (C,) float64

    Returns
    -------
    coefficients : (P,) float64, none negative
    misfit : float
        Sum of squared residuals.
    """
    normal = design.T @ design
    norms = np.sqrt(np.diagonal(normal))
    norms = np.where(norms > _NOTHING, norms, 1.0)
    values, vectors = np.linalg.eigh(normal / norms[:, None] / norms)
    kept = values > 1e-12 * values[-1]  # what is below is round-off of the normal matrix
    root = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    target = (vectors[:, kept].T @ (design.T @ spectrum / norms)) / np.sqrt(values[kept])
    coefficients, inside = nnls(root, target)
    return coefficients / norms, float(inside**2 + spectrum @ spectrum - target @ target)
