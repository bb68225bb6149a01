"""X-rays that the specimen itself absorbs: how much of a line leaves the foil, and composition corrected for it.

Theory
------
X-rays come evenly from all depths of a foil of thickness t and cross ``z / sin(take-off)`` of it on their way out
from depth z. Of a line at energy E the share

    f = (1 - exp(-x)) / x,    x = rho t / sin(take-off) * sum_b w_b mu_b(E)

reaches the detector (w: weight fractions, mu: mass absorption coefficients, Chantler's as exspy has them), so its
counts are multiplied by ``F = 1 / f`` [1]_. As w is what is sought, ``w = norm(k I F(w))`` is iterated to its fixed
point. This is exspy's correction for Cliff-Lorimer, for all spectra at once and iterated until nothing changes
(exspy stops at 0.5 % of weight).

Rules
-----
1. The foil is a slab at right angles to the beam, made of the elements whose shares sum to 100 %; strays are
   corrected as if they lay in it. Fluorescence is left out, a small effect in thin foils [1]_.
2. Its density is given, or that of exspy: the elements' own, weighted by mass. For oxides that is too low, SrTiO3
   2.4 instead of 5.1 g/cm3, so that half of the absorption is left uncorrected: state it where it is known.
3. Errors include that the correction depends on the counts: with u = k I F(w) the mass of each element seen,
   ``du = (1 - dF)^-1 k F dI`` at the fixed point. Errors of thickness, density and mu are systematic, and not in.

References
----------
.. [1] Williams and Carter, Transmission Electron Microscopy (2009), ch. 35.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from livestem.domain.errors import UsageError
from livestem.stages.kfactors import mass_absorption

Floats = NDArray[np.float64]

# Where the recording states none: Super-X looks from 18 degrees, other makers' detectors from 20 to 25
DEFAULT_TAKE_OFF_DEG = 20.0
_CM_PER_NM = 1e-7
_THIN = 1e-6  # below this x the share is 1 within rounding, and the formula would divide zero by zero
# Each round brings the composition nearer by a factor of two or more, even in foils that let out a tenth
_ROUNDS, _CONVERGED = 60, 1e-9


@dataclass(frozen=True)
class Foil:
    """What X-rays have to leave.

    Attributes
    ----------
    thickness_nm : along the beam
    take_off_deg : angle between the foil and the way to the detector
    density_g_cm3 : of the foil; None for exspy's estimate from its composition
    """

    thickness_nm: float
    take_off_deg: float = DEFAULT_TAKE_OFF_DEG
    density_g_cm3: float | None = None


def transmitted(x: ArrayLike) -> Floats:
    """Return the share (1 - exp(-x)) / x of the photons that leave a foil, 1 for none absorbed."""
    thick = np.maximum(np.asarray(x, np.float64), _THIN)
    return np.asarray(-np.expm1(-thick) / thick)


def correct_absorption(
    foil: Foil, elements: tuple[str, ...], energies_kev: tuple[float, ...], mass: Floats, members: Floats
) -> tuple[Floats, Floats]:
    """Correct the mass of each element that N spectra show.

    Parameters
    ----------
    foil : Foil
    elements : E symbols
    energies_kev : E energies of the lines that show them, keV
    mass : (N, E) float64
        k-factor times intensity, any unit; negative ones (noise) absorb nothing.
    members : (E,) float64
        1 for the elements that the foil is made of, 0 for others.

    Returns
    -------
    mass : (N, E) float64
        Corrected; as given where a spectrum shows nothing of the foil.
    derivative : (N, E, E) float64
        Of each corrected mass by each given one.

    Raises
    ------
    UsageError
        If the composition does not settle (the foil is too thick for its soft lines), or the absorption of an element
        is not tabulated.

    Notes
    -----
    The oracle is exspy's ``quantification("CL", absorption_correction=True)``.
    """
    mu = _mass_absorption(elements, energies_kev)
    densities = np.array([_density(e) for e in elements])
    path = foil.thickness_nm * _CM_PER_NM / math.sin(math.radians(foil.take_off_deg))  # cm

    def exponent(share: Floats) -> Floats:
        density = share @ densities if foil.density_g_cm3 is None else np.full(len(share), foil.density_g_cm3)
        return np.asarray(path * density[:, None] * (share @ mu.T))

    share = _shares(mass, members)
    for _ in range(_ROUNDS):
        corrected = mass / transmitted(exponent(share))
        before, share = share, _shares(corrected, members)
        if np.abs(share - before).max(initial=0.0) < _CONVERGED:
            break
    else:
        raise UsageError(
            f"the absorption correction does not settle for a foil of {foil.thickness_nm:g} nm; "
            "its thickness or density is too large, or name harder lines with --lines"
        )
    x = exponent(share)
    slope = _log_slope(x)[:, :, None] * path  # d ln F / dx times path
    if foil.density_g_cm3 is None:
        slope = slope * ((share @ densities)[:, None, None] * mu + (share @ mu.T)[:, :, None] * densities)
    else:
        slope = slope * foil.density_g_cm3 * mu
    total = np.maximum(corrected.clip(0) @ members, 1e-300)[:, None, None]
    shown = (corrected > 0) * members
    by_mass = (np.eye(len(elements)) * shown[:, None, :] - share[:, :, None] * shown[:, None, :]) / total
    feedback = corrected[:, :, None] * (slope @ by_mass)
    derivative = np.linalg.solve(np.eye(len(elements)) - feedback, _diagonal(1.0 / transmitted(x)))
    return corrected, np.asarray(derivative, np.float64)


def _shares(mass: Floats, members: Floats) -> Floats:
    """Weight fractions (N, E) within the foil; zeros where a spectrum shows nothing of it."""
    shown = mass.clip(0) * members
    total = shown.sum(1, keepdims=True)
    return np.asarray(np.divide(shown, total, out=np.zeros_like(shown), where=total > 0))


def _log_slope(x: Floats) -> Floats:
    """Return d ln(1 / f) / dx: 1/2 for a thin foil, 1/x for a thick one."""
    thick = np.maximum(x, 1e-4)  # below, the difference of two large numbers is worth less than its limit
    return np.where(x < 1e-4, 0.5 - x / 12, 1 / thick - np.exp(-thick) / -np.expm1(-thick))


def _diagonal(rows: Floats) -> Floats:
    return np.asarray(rows[:, :, None] * np.eye(rows.shape[1]))


@functools.cache
def _mass_absorption(elements: tuple[str, ...], energies_kev: tuple[float, ...]) -> Floats:
    """Return mu[line, absorber], cm2/g."""
    return np.array([mass_absorption(e, energies_kev) for e in elements]).T


@functools.cache
def _density(element: str) -> float:
    """Return the density of an element by itself, g/cm3, 0 where none is tabulated."""
    from exspy.material import elements  # loads HyperSpy: only when asked for

    return float(elements.as_dictionary()[element]["Physical_properties"].get("density (g/cm^3)") or 0.0)
