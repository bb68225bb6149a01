"""What the HAADF detector sees: every projected atom a Gaussian, then electrons, then 16-bit numbers.

Model. High-angle scattering is incoherent, so the image is the sum over atoms of cross-section times the
probe's intensity at the atom [1]_. Thermal motion is Gaussian. The probe is two Gaussians: its core, and the
broad part that tails, aberrations and the spread over the foil's depth make of the rest. The cross-section
goes as Z^1.7, between Rutherford's Z^2 and screening. An electron is counted once, however often it scatters:
the share of the beam is 1 - exp(-sum). There is no channelling and no depth of focus; a kernel per element
computed by multislice would enter where `render` blurs.

References
----------
.. [1] Pennycook and Jesson, Ultramicroscopy 37 (1991) 14.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.domain.elements import SYMBOLS
from livestem.simulator.atoms import Atoms
from livestem.simulator.instrument import HaadfDetector, ProbeBeam
from livestem.simulator.specimen import Specimen

_STEP_NM = 0.0125  # of the scene: a quarter of a 0.05 nm pixel, a third of the sharpest Gaussian's sigma
_TAILS = 3  # sigmas at which the broad part of the probe is cut: 1 % of it lies beyond
_EDGE_NM = 0.25  # the scene reaches this far beyond the field, so that a slipped row still finds a value
_Z_POWER = 1.7  # usual for inner angles around 50 mrad (Krivanek et al., Nature 464, 571, 2010: 1.64)
_Z_RUTHERFORD = 10  # up to neon screening hardly touches angles beyond 50 mrad: the laws are joined there
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in sigmas
_ELECTRON_KEV = 511.0
_E2_KEV_NM = 1.44e-3  # e^2 / (4 pi eps0)
_ELECTRONS_PER_PA_S = 6.2415e6


def cross_section_nm2(element: str, beam: ProbeBeam) -> float:
    """Return the cross-section for scattering onto the HAADF detector, nm^2 per atom.

    Rutherford's, integrated over the detector's angles and joined at Z = 10 to Z^1.7.
    """
    z = SYMBOLS.index(element) + 1
    kinetic = beam.energy_kv
    momentum_speed = (kinetic**2 + 2 * kinetic * _ELECTRON_KEV) / (kinetic + _ELECTRON_KEV)
    inner, outer = (math.sin(angle * 1e-3 / 2) ** -2 for angle in beam.collection_mrad)
    rutherford = 4 * math.pi * (_Z_RUTHERFORD * _E2_KEV_NM / (2 * momentum_speed)) ** 2 * (inner - outer)
    return rutherford * math.pow(z / _Z_RUTHERFORD, _Z_POWER)


def probe_sigma_nm(beam: ProbeBeam) -> float:
    """Return the probe's sigma, nm: the diffraction limit (FWHM 0.51 lambda/alpha) and the source's image."""
    kinetic = beam.energy_kv
    wavelength = 1.23984 / math.sqrt(kinetic**2 + 2 * kinetic * _ELECTRON_KEV)
    return math.hypot(0.51 * wavelength / (beam.convergence_mrad * 1e-3), beam.source_nm) / _FWHM


@dataclass(frozen=True)
class Scene:
    """Share of the beam that reaches the HAADF detector, on a grid finer than any scan's.

    Attributes
    ----------
    share : (H, W) float64
        Dimensionless; the sample (i, j) lies at ``i * step_nm - edge_nm``, ``j * step_nm - edge_nm``.
    edge_nm : how far the grid reaches beyond the field, nm
    step_nm : of the grid, nm
    """

    share: NDArray[np.float64]
    edge_nm: float
    step_nm: float = _STEP_NM

    def at(self, y_nm: NDArray[np.float64], x_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share at rows `y_nm` (H,), places `x_nm` (H, W); bilinear, clamped at the edge."""
        row, in_row = self._split(y_nm, self.share.shape[0])
        col, in_col = self._split(x_nm, self.share.shape[1])
        row, in_row = row[:, None], in_row[:, None]
        upper = self.share[row, col] * (1 - in_col) + self.share[row, col + 1] * in_col
        lower = self.share[row + 1, col] * (1 - in_col) + self.share[row + 1, col + 1] * in_col
        return np.asarray(upper * (1 - in_row) + lower * in_row)

    def _split(self, place: NDArray[np.float64], size: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        at = np.clip((place + self.edge_nm) / self.step_nm, 0, size - 1.001)
        whole = at.astype(np.intp)
        return whole, at - whole


def render(specimen: Specimen, atoms: list[Atoms]) -> Scene:
    """Return the scene of a specimen's atoms.

    Notes
    -----
    Atoms are laid on the grid with linear weights, which keeps their number and their centre exactly and
    widens them by at most a quarter of the squared step (2 % of the variance), then blurred per material.
    """
    from scipy.ndimage import gaussian_filter

    beam = specimen.beam
    edge = _EDGE_NM + _TAILS * beam.tail_nm  # room for the tails of the scene's own edge
    shape = tuple(math.ceil((side + 2 * edge) / _STEP_NM) + 1 for side in specimen.field_nm)
    total, sharp = np.zeros(shape), np.zeros(shape)
    for thermal in sorted({a.thermal_nm for a in atoms}):
        parts = [a for a in atoms if a.thermal_nm == thermal]
        y, x = specimen.to_field(np.concatenate([a.u for a in parts]), np.concatenate([a.v for a in parts]))
        weight = np.concatenate([a.number * cross_section_nm2(a.element, beam) for a in parts])
        layer = _lay((y + edge) / _STEP_NM, (x + edge) / _STEP_NM, weight, shape) / _STEP_NM**2
        total += layer
        sharp += gaussian_filter(layer, math.hypot(probe_sigma_nm(beam), thermal) / _STEP_NM)
    broad = gaussian_filter(total, beam.tail_nm / _STEP_NM, truncate=_TAILS)
    return Scene(-np.expm1(-(1 - beam.tail_share) * sharp - beam.tail_share * broad), edge_nm=edge)


def electrons_per_pixel(specimen: Specimen) -> float:
    """Return the electrons that the beam sends through one pixel in one frame."""
    return specimen.beam.current_pa * specimen.scan.dwell_s * _ELECTRONS_PER_PA_S


def detect(electrons: NDArray[np.float64], detector: HaadfDetector, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return what the detector writes for the expected `electrons` (H, W): Poisson, read noise, 16 bit.

    Values saturate at 0 and 65535.
    """
    seen = rng.poisson(electrons) + rng.normal(0, detector.read_noise, electrons.shape)
    return np.clip(np.rint(detector.offset + detector.gain * seen), 0, 65535).astype(np.uint16)


def _lay(
    row: NDArray[np.float64], col: NDArray[np.float64], weight: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Lay `weight` at fractional (row, col), shared linearly among four samples; drop what lies outside."""
    inside = (row >= 0) & (row < shape[0] - 1) & (col >= 0) & (col < shape[1] - 1)
    row, col, weight = row[inside], col[inside], weight[inside]
    top, left = row.astype(np.intp), col.astype(np.intp)
    down, right = row - top, col - left
    grid = np.zeros(shape[0] * shape[1])
    for step_down, share_down in ((0, 1 - down), (1, down)):
        for step_right, share_right in ((0, 1 - right), (1, right)):
            at = (top + step_down) * shape[1] + left + step_right
            grid += np.bincount(at, weight * share_down * share_right, grid.size)
    return grid.reshape(shape)
