"""Lattice spacings of one region from the Fourier transform of its HAADF.

Rules
-----
* Peaks, their errors and what makes them significant: `spectral_peaks`.
* A spacing is reported only if two significant peaks are not collinear and one basis (`lattice_basis`)
  holds most of the peaks' power. Anything else is a null with its reason.
* Perovskites on a zone axis are strongest at {110}; a {100} too weak to be found among thousands of cells is
  still found among the few half-order nodes of the basis, where it must lie (`_superlattices`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from scipy.special import fdtrc

from livestem.domain.errors import StageError
from livestem.domain.regions import LONGEST_D_NM, SHORTEST_D_NM, LatticePeak
from livestem.stages import spectrum2d
from livestem.stages.lattice_basis import Basis, basis_of, fitted, halves, nodes, non_collinear
from livestem.stages.spectral_peaks import FALSE_ALARM, LOBE, Peaks, power_at, significant_peaks
from livestem.stages.spectrum2d import Floats, Level, Spectrum

MAX_PIXEL_NM = 0.1
"""Coarser pixels cannot show 0.2 nm, the closest-packed planes of metals, and fold them into the band."""
MIN_SIDE_NM = 1.8
"""Three of the longest spacings: below, the window's main lobe joins the first peak to zero frequency."""
MIN_CELL_NM = 2.2
"""Smaller patches have peaks and no spacing: at 1.8 nm and 5 counts a pixel {110} of a perovskite was taken for its
cell in 95 of 100, because {100} stood out too little from the few cells around it; at 2.25 nm in none of 40, and in
some at 1 count (benchmarks/descriptors.py)."""

AMORPHOUS = "amorphous"
SINGLE_DIRECTION = "single grain direction"
SEVERAL_GRAINS = "several grains"
BEYOND_NYQUIST = "beyond Nyquist"
TOO_SMALL = "region too small"
NO_CONTRAST = "no contrast"

_OFF_NODE_CELLS = 0.5  # how far a peak may lie off its node: a quarter of a main lobe, where two would merge
_OFF_NODE = 0.15  # 1/nm; or so far, if more: half the distance within which a distorted scan's peaks are one
_INDEXED = 0.8  # least share of peak power on the basis: less means that another grain shares the square


@dataclass(frozen=True, kw_only=True)
class LatticeResult:
    """What the power spectrum of a patch says about its lattice.

    Attributes
    ----------
    peaks : significant peaks, strongest first (at most 24); angles run from fast (x) towards slow (y, down)
    d_spacing_nm, d_spacing_sigma_nm : 1 / |b1| of the reduced basis (b1, b2), |b1| <= |b2|, that indexes the
        peaks, and its standard error, nm
    d_fast_nm, d_slow_nm : the two spacings 1 / |b1| and 1 / |b2|, told apart by direction: of the two ways to
        give one vector to x (fast) and the other to y (slow), the one with the larger |cos| + |cos|.
        A lattice near 45 degrees to the scan has no such direction; the two then still are b1 and b2.
    drift_free_nm, drift_free_sigma_nm : spacing of a square lattice as its fast components alone have it, which drift
        does not change; None where the lattice is not square
    crystallinity : power of the peaks above their level over all power in the band, 0..1; shot noise counts
        as disorder. None where no spectrum was taken.
    reason : None, or why d_spacing_nm is None
    """

    peaks: tuple[LatticePeak, ...] = ()
    d_spacing_nm: float | None = None
    d_spacing_sigma_nm: float | None = None
    d_fast_nm: float | None = None
    d_slow_nm: float | None = None
    drift_free_nm: float | None = None
    drift_free_sigma_nm: float | None = None
    crystallinity: float | None = None
    reason: str | None = None

    def times(self, factor: float) -> LatticeResult:
        """Return the same with all lengths and their errors multiplied by `factor`."""
        lengths = {name: value * factor for name in _LENGTHS if (value := getattr(self, name)) is not None}
        peaks = (structs.replace(p, d_nm=p.d_nm * factor, sigma_nm=p.sigma_nm * factor) for p in self.peaks)
        return replace(self, peaks=tuple(peaks), **lengths)


_LENGTHS = tuple(f.name for f in fields(LatticeResult) if f.name.endswith("_nm"))


def lattice_of(patch: NDArray[np.floating], pixel_nm: float) -> LatticeResult:
    """Measure the lattice of a square patch of HAADF.

    Parameters
    ----------
    patch : (n, n) float
        HAADF, any unit, finite.
    pixel_nm : float
        Pixel, nm (square).

    Returns
    -------
    LatticeResult
        With `reason` "region too small" (side below 2.2 nm; below 1.8 nm without peaks, too), "beyond Nyquist"
        (pixel above 0.1 nm), "no contrast" (all values equal), "amorphous" (no significant peak), "single grain
        direction" (peaks in one direction only) or "several grains" (no basis holds 80 % of the peaks' power) where
        there is no spacing.

    Raises
    ------
    StageError
        If the patch is not square, not finite, or the pixel not positive.
    """
    patch = np.asarray(patch)
    if patch.ndim != 2 or patch.shape[0] != patch.shape[1] or not np.isfinite(patch).all():
        raise StageError(f"a lattice is measured on a finite square patch; got shape {patch.shape}")
    if not (np.isfinite(pixel_nm) and pixel_nm > 0):
        raise StageError(f"pixel_nm must be positive, got {pixel_nm}")
    if pixel_nm > MAX_PIXEL_NM:
        return LatticeResult(reason=BEYOND_NYQUIST)
    if len(patch) * pixel_nm < MIN_SIDE_NM * (1 - 1e-9):
        return LatticeResult(reason=TOO_SMALL)
    if np.ptp(patch) == 0:
        return LatticeResult(reason=NO_CONTRAST)
    spectrum = spectrum2d.spectrum_of(patch, pixel_nm, (1 / LONGEST_D_NM, 1 / SHORTEST_D_NM))
    peaks, level = significant_peaks(spectrum)
    share = _crystallinity(spectrum, level, peaks)
    reported = tuple(_reported(peaks))
    if not len(peaks.g):
        return LatticeResult(crystallinity=share, reason=AMORPHOUS)
    if not non_collinear(peaks.g):
        return LatticeResult(peaks=reported, crystallinity=share, reason=SINGLE_DIRECTION)
    basis = _basis(spectrum, level, peaks)
    if basis is None:
        return LatticeResult(peaks=reported, crystallinity=share, reason=SEVERAL_GRAINS)
    if len(patch) * pixel_nm < MIN_CELL_NM * (1 - 1e-9):
        return LatticeResult(peaks=reported, crystallinity=share, reason=TOO_SMALL)
    fast, slow = _along_scan(basis)
    drift_free, drift_free_sigma = basis.drift_free_nm or (None, None)
    return LatticeResult(
        peaks=reported,
        d_spacing_nm=basis.spacings_nm[0],
        d_spacing_sigma_nm=basis.sigmas_nm[0],
        d_fast_nm=fast,
        d_slow_nm=slow,
        drift_free_nm=drift_free,
        drift_free_sigma_nm=drift_free_sigma,
        crystallinity=share,
    )


def _basis(spectrum: Spectrum, level: Level, peaks: Peaks) -> Basis | None:
    """Return the basis that holds most of the peaks' power, or None."""
    tolerance = max(_OFF_NODE_CELLS * spectrum.cell, _OFF_NODE)
    basis = basis_of(peaks.g, peaks.sigma, tolerance=tolerance, longest_nm=LONGEST_D_NM)
    if basis is None or peaks.ratio[basis.indexed].sum() < _INDEXED * peaks.ratio.sum():
        return None
    for finer in _superlattices(spectrum, level, basis, float(np.hypot(*peaks.g.T).max())):
        again = fitted(finer, peaks.g, peaks.sigma, tolerance)
        if again is not None and again.spacings_nm[0] <= LONGEST_D_NM:
            return again
    return basis


def _superlattices(spectrum: Spectrum, level: Level, basis: Basis, highest: float) -> list[Floats]:
    """Return the bases of half the cell whose new nodes together hold more than speckle, surest first.

    The mean ratio of k nodes is F(2k, 2m) distributed; three sublattices share the false-alarm probability.
    """
    band = (1 / LONGEST_D_NM, min(highest, float(spectrum.q[spectrum.searched].max())))
    found = []
    for vectors, shift in halves(basis.vectors):
        g = nodes(basis.vectors, shift, band)
        if not len(g):
            continue
        cells = spectrum.cell_of(g)
        ratio = float((power_at(spectrum, g) / level.mean[cells]).mean())
        chance = float(fdtrc(2 * len(g), 2 * float(level.cells[cells].min()), ratio))
        if chance < FALSE_ALARM / 3:
            found.append((chance, -ratio, vectors))
    return [vectors for _, _, vectors in sorted(found, key=lambda f: f[:2])]


def _along_scan(basis: Basis) -> tuple[float, float]:
    """Return the spacings of the basis along the fast and the slow scan direction."""
    unit = abs(basis.vectors) / np.hypot(*basis.vectors.T)[:, None]
    first, second = basis.spacings_nm
    return (first, second) if unit[0, 0] + unit[1, 1] >= unit[0, 1] + unit[1, 0] else (second, first)


def _crystallinity(spectrum: Spectrum, level: Level, peaks: Peaks) -> float:
    """Return the share of the band's power that the peaks hold above their level."""
    inside = spectrum.searched & spectrum2d.near(spectrum, peaks.g, LOBE * spectrum.cell)
    above = np.maximum(spectrum.power - level.mean, 0)[inside].sum()
    return float(above / spectrum.power[spectrum.searched].sum())


def _reported(peaks: Peaks) -> list[LatticePeak]:
    length = np.hypot(*peaks.g.T)
    angle = np.degrees(np.arctan2(peaks.g[:, 1], peaks.g[:, 0])) % 180.0
    return [
        LatticePeak(d_nm=float(1 / q), sigma_nm=float(s / q**2), angle_deg=float(a % 180.0), snr=float(r))
        for q, s, a, r in zip(length, peaks.sigma, angle, peaks.ratio, strict=True)
    ]
