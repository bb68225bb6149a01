"""The continuum under the lines: bremsstrahlung of a thin foil, as a silicon detector shows it.

Theory. Per atom and photon energy E an electron radiates into the detector's direction

    N(E) = Z^2 B(E, angle) S(E),    S = F(s) / F(0)
    F(s) = (1/2) [ln((b^2 + s^2) / (a^2 + s^2)) + s^2 / (b^2 + s^2) - s^2 / (a^2 + s^2)]

B is the cross section of Bethe and Heitler for a bare nucleus and a given angle of emission, relativistic and in
Born's approximation [1]_ (its formula 2BN, after Sauter). The detectors look at the foil from above, so the angle
is 90 degrees + take-off; there, hard photons are rarer than soft ones by more than 1/E. S is screening, from the
same calculation at low speed with Yukawa's potential for Coulomb's [2]_: a = p0 - p and b = p0 + p are the least
and the largest momentum that the nucleus can take up (p0, p: of the electron before and after), 1 / s is the radius
of the electrons about it, 0.885 bohr Z^(-1/3) (Thomas and Fermi). Without S there would be half as many photons
again at 1 keV beside those at 10 keV. Electrons do not slow down in a thin foil, so Kramers' factor E0 - E, which is
that of a thick target, has no place here. Left out: the pull of the nucleus on the leaving electron, the same
for all E far below the beam's energy, and coherent bremsstrahlung, a few broad humps where a crystal's zone axis
lies along the beam.

References
----------
.. [1] Koch and Motz, Rev. Mod. Phys. 31 (1959) 920.
.. [2] Jackson, Classical Electrodynamics (1999), section 15.2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from livestem.domain.scan import EnergyAxis
from livestem.stages.kfactors import detector_efficiency
from livestem.stages.lines import fwhm_kev
from livestem.stages.spectrum_model import FWHM_PER_SIGMA, energies_kev

Floats = NDArray[np.float64]
LOWEST_KEV = 0.12  # where Velox begins a Super-X spectrum (BeginEnergy of velox_sto_spectra.emd)
_REST_KEV = 510.998950  # electron rest energy
_BOHR = 137.035999  # bohr radius in units of hbar / mc
_THOMAS_FERMI = 0.885  # radius of the electron cloud, bohr Z^(-1/3)
_FANO_KEV = 2.5e-3  # fwhm^2 grows by this times E, as in `fwhm_kev`
_EFFICIENCY_STEP = 0.01  # of ln E, linear between: silicon's edge is then 18 eV wide, and the detector blurs by 80
_FINE = 4  # samples per sigma where the detector's response is applied: 0.1 % of a step's height


def bremsstrahlung(energy_kev: Floats, z: int, beam_energy_kv: float, angle_deg: float) -> Floats:
    """Return the photons per atom and keV that a thin foil emits, relative to other elements and energies.

    Parameters
    ----------
    energy_kev : (N,) float64
        Photon energies, keV, above 0.
    z : int
        Atomic number.
    beam_energy_kv : float
    angle_deg : float
        Between the beam's direction and the photon's, degrees.

    Returns
    -------
    (N,) float64
        0 from the beam's energy on.
    """
    out = np.zeros(energy_kev.shape)
    below = energy_kev < beam_energy_kv
    photon, kinetic = energy_kev[below] / _REST_KEV, beam_energy_kv / _REST_KEV
    screen = z ** (1 / 3) / (_THOMAS_FERMI * _BOHR)
    screened = _momentum_transfers(photon, kinetic, screen) / _momentum_transfers(photon, kinetic, 0.0)
    out[below] = z * z * screened * bare_nucleus(photon, kinetic, math.cos(math.radians(angle_deg)))
    return out


def bare_nucleus(photon: Floats, kinetic: float, cosine: float) -> Floats:
    """Return the cross section 2BN of Koch and Motz per photon energy and solid angle.

    Parameters
    ----------
    photon : (N,) float64
        Photon energies, above 0 and below `kinetic`, in units of the electron's rest energy (mc^2).
    kinetic : float
        Of the electron before, mc^2.
    cosine : float
        Of the angle between the beam's direction and the photon's.

    Returns
    -------
    (N,) float64
        In units of Z^2 r0^2 / 137 per mc^2 and steradian (r0: classical radius of the electron).
    """
    k, e0 = photon, 1 + kinetic
    e = e0 - k
    p0, p = np.sqrt(e0 * e0 - 1), np.sqrt(e * e - 1)
    slow = e0 - p0 * cosine  # Delta_0
    side = (1 - cosine**2) / (p0**2 * slow**4)
    q = np.sqrt(p0**2 + k**2 - 2 * p0 * k * cosine)
    spread = np.log((e * e0 - 1 + p * p0) / (e * e0 - 1 - p * p0))  # L
    leaving = np.log((e + p) / (e - p))  # epsilon
    recoil = np.log((q + p) / (q - p))  # epsilon^Q
    plain = 8 * side * (2 * e0**2 + 1) - 2 * (5 * e0**2 + 2 * e * e0 + 3) / (p0 * slow) ** 2
    plain += -2 * (p0**2 - k**2) / (q * slow) ** 2 + 4 * e / (p0**2 * slow)
    by_spread = 4 * e0 * side * (3 * k - p0**2 * e) + 4 * e0**2 * (e0**2 + e**2) / (p0 * slow) ** 2
    by_spread += (2 - 2 * (7 * e0**2 - 3 * e * e0 + e**2)) / (p0 * slow) ** 2
    by_spread += 2 * k * (e0**2 + e * e0 - 1) / (p0**2 * slow)
    by_recoil = 4 / slow**2 - 6 * k / slow - 2 * k * (p0**2 - k**2) / (q**2 * slow)
    total = plain + spread * by_spread / (p * p0) - 4 * leaving / (p * slow) + recoil * by_recoil / (p * q)
    return np.asarray(p / (8 * math.pi * k * p0) * total)


def efficiency(energy_kev: Floats) -> Floats:
    """Return the share of the photons that the detector counts, (N,), 0 below `LOWEST_KEV`; energies rise."""
    out = np.zeros(energy_kev.shape)
    seen = energy_kev >= LOWEST_KEV
    if seen.any():
        ends = energy_kev[seen][0], energy_kev[seen][-1]
        points = np.geomspace(*ends, 2 + math.ceil(math.log(ends[1] / ends[0]) / _EFFICIENCY_STEP))
        out[seen] = np.interp(energy_kev[seen], points, [detector_efficiency(float(e)) for e in points])
    return out


def broadened(spectrum: Floats, axis: EnergyAxis, resolution_mnka_ev: float) -> Floats:
    """Blur a smooth spectrum with its edges as the detector does.

    Parameters
    ----------
    spectrum : (C,) float64
        Photons per channel before the detector; 0 below `LOWEST_KEV`.
    axis : EnergyAxis
    resolution_mnka_ev : float
        FWHM at Mn Ka, eV.

    Returns
    -------
    (C,) float64
        What the detector shows.

    Notes
    -----
    The width depends on the energy: fwhm^2 = c + 2.5 eV E (Fiori). In the coordinate s = integral of dE / sigma,
    which is 2.355 * 2 fwhm / 2.5 eV, it is 1 everywhere, and the blur is one convolution.
    """
    from scipy.ndimage import gaussian_filter1d

    energy = energies_kev(axis)
    seen = energy >= LOWEST_KEV
    if not seen.any():
        return np.zeros_like(spectrum)
    width = np.array([fwhm_kev(float(e), resolution_mnka_ev) for e in energy[seen]])
    stretched = FWHM_PER_SIGMA * 2 / _FANO_KEV * width
    even = np.linspace(stretched[0], stretched[-1], max(2, math.ceil(_FINE * np.ptp(stretched))))
    blurred = gaussian_filter1d(np.interp(even, stretched, spectrum[seen]), _FINE, mode="nearest")
    out = np.zeros_like(spectrum)
    out[seen] = np.interp(stretched, even, blurred)
    return out


def _momentum_transfers(photon: Floats, kinetic: float, screen: float) -> Floats:
    """F(s) of the module's theory; momenta in units of mc."""
    before, after = (np.sqrt(t * (t + 2)) for t in (kinetic, kinetic - photon))
    least, most, cloud = (before - after) ** 2, (before + after) ** 2, screen**2
    ends = cloud / (most + cloud) - cloud / (least + cloud)
    return np.asarray((np.log((most + cloud) / (least + cloud)) + ends) / 2)
