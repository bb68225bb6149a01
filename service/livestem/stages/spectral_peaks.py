"""Significant peaks of a power spectrum, at continuous frequency.

Rules. A peak is significant if speckle and streaks (`spectrum2d`) would show one as strong anywhere in the
searched band with probability `FALSE_ALARM` or less. +g and -g are one measurement. What lies within one
main lobe of a stronger peak, or no higher than its side lobes, is part of that peak.

Interpolation. A peak lies where the Hann-windowed periodogram, evaluated at continuous frequency, is largest
(Newton from the best cell). Its standard error is the Cramer-Rao bound times the window's loss,

    sigma^2 = (1 / 2R) * var_{w^2}(t) / var_w(t)^2 / (2 pi)^2,

with R the ratio of peak power to its level and var the variance of position t under the weights w^2 and w.
It counts noise and speckle only: drift, distortion and the pixel calibration are systematic and not in it.

References
----------
.. [1] Rife & Boorstyn, IEEE Trans. Inf. Theory 20 (1974) 591 (the bound on a tone's frequency).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.stages import spectrum2d
from livestem.stages.spectrum2d import Floats, Level, Spectrum

FALSE_ALARM = 1e-3  # of one peak anywhere in a patch; two are needed, so a false lattice is rarer still
LOBE = 2.5  # half-width of a windowed peak with its skirt, cells: the Hann main lobe ends at 2

_GRAIN = 0.3  # 1/nm; lattice nodes lie 1.67 apart or more, so what is nearer belongs to the same distorted peak
_PEAKS = 24  # the strongest are kept: a basis needs a handful, and 0.39 nm has 16 in the band
_SCALLOP = 0.5  # a peak between four cells shows 0.52 of its power in each
_QUANTILES = (0.25, 0.5)  # first where unknown peaks may fill most of an annulus, then with these left out
_NEWTON_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Significant peaks, strongest first.

    Attributes
    ----------
    g : (K, 2) float64
        Frequency (x, y), 1/nm, in the half-plane x > 0.
    ratio : (K,) float64
        Power over the level.
    sigma : (K,) float64
        Standard error of each component of g, 1/nm.
    """

    g: Floats
    ratio: Floats
    sigma: Floats


def significant_peaks(spectrum: Spectrum) -> tuple[Peaks, Level]:
    """Find the significant peaks, first against a level that resists them, then with them left out of it."""
    known = np.empty((0, 2))
    per_cell = FALSE_ALARM / max(1, int(spectrum.searched.sum()))
    for quantile in _QUANTILES:
        level = spectrum2d.level_of(spectrum, known, _radius(spectrum), quantile)
        threshold = level.mean * spectrum2d.ratio_at(per_cell, level.cells)
        peaks = _peaks(spectrum, level, threshold)
        known = peaks.g
    return peaks, level


def _peaks(spectrum: Spectrum, level: Level, threshold: Floats) -> Peaks:
    """Return the maxima above the threshold that are no part and no side lobe of a stronger one."""
    g, power = _refined(spectrum, _maxima(spectrum, _SCALLOP * threshold))
    cells = spectrum.cell_of(g)
    mean, bar = level.mean[cells], threshold[cells]
    kept: list[int] = []
    for i in _apart(g, power, _radius(spectrum)):
        stronger = np.concatenate([g[kept], -g[kept]])
        leak = np.tile(power[kept], 2) @ _side_lobe(abs(stronger - g[i]) / spectrum.cell)
        if power[i] > (1 + leak / mean[i]) * bar[i]:
            kept.append(i)
    ratio = power[kept] / mean[kept]
    order = np.argsort(-ratio, kind="stable")[:_PEAKS]
    return Peaks(g=g[kept][order], ratio=ratio[order], sigma=_sigma(spectrum, ratio[order]))


def _maxima(spectrum: Spectrum, threshold: Floats) -> Floats:
    """Return the frequencies (K, 2) of searched cells above the threshold that no stronger cell is near."""
    rows, cols = np.nonzero(spectrum.searched & (spectrum.power > threshold))
    n = len(spectrum.power)
    power = spectrum.power[rows, cols]
    for y, x in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        top = power >= spectrum.power[(rows + y) % n, (cols + x) % n]
        rows, cols, power = rows[top], cols[top], power[top]
    f = spectrum.frequency
    g = np.stack([f[cols], f[rows]], axis=1)
    return g[_apart(g, power, _radius(spectrum))[: 2 * _PEAKS]]


def _apart(g: Floats, power: Floats, radius: float) -> list[int]:
    """Return the indices, strongest first, of the peaks that lie `radius` or more from all stronger ones."""
    kept: list[int] = []
    for i in np.argsort(-power, kind="stable"):
        stronger = np.concatenate([g[kept], -g[kept]])
        if (np.hypot(*(stronger - g[i]).T) >= radius).all():
            kept.append(int(i))
    return kept


def _moments(spectrum: Spectrum, g: Floats, orders: int = 3) -> NDArray[np.complex128]:
    """Return M[i, j] = sum of values t_y^i t_x^j exp(-2 pi i g.t), (orders, orders, K), t in sides from the centre."""
    n = len(spectrum.windowed)
    t = (np.arange(n) - (n - 1) / 2) / n
    waves = np.exp(-2j * np.pi * t[:, None, None] * (g.T / spectrum.cell)[None])  # (n, 2, K)
    powers = t[:, None] ** np.arange(orders)
    along_x = powers[:, :, None] * waves[:, None, 0]  # (n, orders, K)
    along_y = powers[:, :, None] * waves[:, None, 1]
    flat = along_x.reshape(n, -1)
    # two real products: a complex one would first copy the patch to complex
    rows = (spectrum.windowed @ flat.real + 1j * (spectrum.windowed @ flat.imag)).reshape(n, orders, -1)
    out: NDArray[np.complex128] = np.einsum("nik,njk->ijk", along_y, rows)
    return out


def power_at(spectrum: Spectrum, g: Floats) -> Floats:
    """Return the periodogram at the continuous frequencies `g` (K, 2), (K,)."""
    out: Floats = abs(_moments(spectrum, g, 1)[0, 0]) ** 2
    return out


def _refined(spectrum: Spectrum, start: Floats) -> tuple[Floats, Floats]:
    """Climb from cells (K, 2) to the maxima of the continuous periodogram; return these and their power.

    Newton's steps are those of the logarithm: a window's lobe is a product of its two axes, whose logarithm is concave
    all over. The power itself has a saddle between four cells, and a step from there would lead nowhere.
    """
    offset = np.zeros_like(start)
    wave = -2j * np.pi
    for _ in range(_NEWTON_STEPS):
        m = _moments(spectrum, start + offset * spectrum.cell)
        first = np.stack([wave * m[0, 1], wave * m[1, 0]])  # by x, by y, per cell
        second = wave**2 * np.array([[m[0, 2], m[1, 1]], [m[1, 1], m[2, 0]]])
        power = abs(m[0, 0]) ** 2
        slope = 2 * (m[0, 0].conj() * first).real / power
        curve = 2 * (first[:, None].conj() * first[None] + m[0, 0].conj() * second).real / power
        curve = np.moveaxis(curve - slope[:, None] * slope[None], -1, 0)
        peaked = (np.linalg.det(curve) > 0) & (curve[:, 0, 0] < 0)
        curve[~peaked] = -np.eye(2)
        step = np.where(peaked[:, None], -np.linalg.solve(curve, slope.T[..., None])[..., 0], 0)
        offset = np.clip(offset + np.clip(step, -0.5, 0.5), -1, 1)  # the maximum is within a cell of its best cell
    g = start + offset * spectrum.cell
    return g, power_at(spectrum, g)


def _side_lobe(cells: Floats) -> Floats:
    """Return the envelope of the Hann window's power at (K, 2) cells from a tone, relative to the peak."""
    u = np.maximum(cells, 2.0)
    envelope = np.where(cells < 2.0, 1.0, (1 / (np.pi * u * (u**2 - 1))) ** 2)
    out: Floats = envelope.prod(axis=1)
    return out


def _sigma(spectrum: Spectrum, ratio: Floats) -> Floats:
    """Return the standard error of each component of g, 1/nm, from the ratio of a peak to its level."""
    n = len(spectrum.power)
    w = spectrum2d.hann(n)
    t = (np.arange(n) - (n - 1) / 2) * spectrum.pixel_nm
    spread, noise = w @ t**2 / w.sum(), w**2 @ t**2 / (w**2).sum()
    out: Floats = np.sqrt(noise / (2 * ratio)) / (2 * np.pi * spread)
    return out


def _radius(spectrum: Spectrum) -> float:
    return max(LOBE * spectrum.cell, _GRAIN)
