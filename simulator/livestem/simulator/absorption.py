"""How much of its own X-rays a foil lets out towards the detector.

Theory. X-rays come evenly from all depths of a foil of thickness t. From depth z they cross z / sin(take-off)
of it, so of a line's photons the share

    f = (1 - exp(-x)) / x,    x = chi rho t / sin(take-off),    chi = sum of w_i mu_i(E)

reaches the detector (w: weight fractions, mu: mass absorption coefficients, Chantler's as exspy has them). It is
the inverse of the factor by which exspy's absorption correction multiplies [1]_. The foil is a slab at right
angles to the beam, and its faces are parallel: steps and shadows of the holder are left out, and so is
fluorescence, a small effect in thin foils [1]_.

References
----------
.. [1] Williams and Carter, Transmission Electron Microscopy (2009), ch. 35.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from livestem.stages.absorption import transmitted
from livestem.stages.kfactors import atomic_weight, mass_absorption

__all__ = ["THINNEST_NM", "absorption_per_nm", "mass_density", "thickness_nodes", "transmitted"]

Floats = NDArray[np.float64]
_GRAMS_PER_CM3 = 1.66053907e-3  # of one u per nm^3
_CM_PER_NM = 1e-7
_SOFTEST_KEV = 0.05  # exspy's tables begin below; no detector sees photons as soft
THINNEST_NM = 0.1  # a foil of 0.1 nm absorbs less than 1 % of any line, even C K in Os; one of none has no spectrum


def mass_density(atoms_per_nm3: Mapping[str, float]) -> dict[str, float]:
    """Return the mass of each element per volume, g/cm^3, of (element: atoms per nm^3)."""
    return {e: n * atomic_weight(e) * _GRAMS_PER_CM3 for e, n in atoms_per_nm3.items()}


def absorption_per_nm(density: Mapping[str, float], energy_kev: ArrayLike, take_off_deg: float) -> Floats:
    """Return the exponent x of a foil per nm of its thickness.

    Parameters
    ----------
    density : mapping of str to float
        Mass of each element per volume, g/cm^3.
    energy_kev : (N,) array
        Photon energies, keV.
    take_off_deg : float
        Angle between the foil and the way to the detector, degrees, above 0.

    Returns
    -------
    (N,) float64
        1/nm.
    """
    energy = np.maximum(np.asarray(energy_kev, np.float64), _SOFTEST_KEV)
    per_cm = np.zeros(energy.shape)
    for element, grams in density.items():
        per_cm += grams * np.array(mass_absorption(element, energy.ravel().tolist())).reshape(energy.shape)  # cm2/g
    return per_cm * _CM_PER_NM / math.sin(math.radians(take_off_deg))


def thickness_nodes(thickness_nm: Sequence[float], strongest_per_nm: float, error: float) -> Floats:
    """Choose thicknesses between which `transmitted` may be interpolated linearly.

    Parameters
    ----------
    thickness_nm : sequence of float
        Thicknesses that occur; only the extremes matter.
    strongest_per_nm : float
        The largest `absorption_per_nm` of what is to be interpolated.
    error : float
        Largest relative error allowed.

    Returns
    -------
    (T,) float64
        Rising, nm; from the thinnest (at least `THINNEST_NM`) to the thickest; one node if these are the same.

    Notes
    -----
    A line through two points of f misses it by step^2 / 8 * f''. The ratio f'' / f falls with x and is largest
    for the strongest absorption, so the left end of each step is the worst, and one line decides for all.
    """
    last = max(THINNEST_NM, *thickness_nm)
    nodes = [max(THINNEST_NM, min(thickness_nm))]
    while nodes[-1] < last:
        x = strongest_per_nm * nodes[-1]
        step = math.sqrt(8 * error / _curvature(x)) / max(strongest_per_nm, 1e-12)
        nodes.append(min(last, nodes[-1] + step))
    return np.array(nodes)


def _curvature(x: float) -> float:
    """Second derivative of `transmitted` over itself: 1/3 for a thin foil, 2 / x^2 for a thick one."""
    if x < 0.05:  # the formula cancels to nothing; the series (1/3 - x/4) / (1 - x/2) is good to x^2
        return (1 / 3 - x / 4) / (1 - x / 2)
    second = (2 - math.exp(-x) * (x * x + 2 * x + 2)) / x**3
    return second / (-math.expm1(-x) / x)
