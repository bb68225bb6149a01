"""Power spectrum of a square patch, and the level below which a peak in it means nothing.

Theory. The periodogram of any texture without long-range order is speckle: at each frequency the power is
exponentially distributed about a smooth mean. That mean is modelled as the sum of

* the *ring*, a function of |q| only: the form factor of the columns times the structure factor of the glass,
  plus shot noise. It is the quantile of its annulus over that of a unit exponential, so that peaks do not
  lift it; the annuli are flattened by the previous estimate and measured again, so that a steep ring
  does not look like a heavy tail.
* the *streaks*: a scan that jitters from row to row (or column to column) spreads power evenly along one
  column (row) of the spectrum. A lattice that lies along the scan has its peaks on those very lines, so the
  lines are not cut out; a peak there must beat the streak, which is measured along its line.

A level that is itself measured from m independent cells gives the ratio power / level an F(2, 2m)
distribution: ``P(ratio > t) = (1 + t / m) ** -m``, heavier than exponential where the annulus is short.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float64]

HANN_BANDWIDTH = 1.5**2  # noise bandwidth of a 2-D Hann window, cells: neighbours share their noise
_HALF_RING = 1.5  # half-width of an annulus, cells: wide enough to count, narrow against a glass's first ring
_STREAK_CELLS = 1.5  # a line on the axis is three cells wide under a Hann window
_FEWEST_CELLS = 6  # fewer cells than this give no level; the neighbouring annuli are interpolated
_FLATTENINGS = 2  # passes; a third changes the level by less than its error
_TINY = 1e-12  # of the largest power: rounding, so that a noiseless patch divides by something


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Hann-windowed periodogram of a square patch; zero frequency at cell (n // 2, n // 2).

    Attributes
    ----------
    windowed : (n, n) float64
        The patch less its mean plane, times the window.
    power : (n, n) float64
        |FFT|^2, in squared detector values.
    frequency : (n,) float64
        Of the rows (y), and, the patch being square, of the columns (x), 1/nm.
    q : (n, n) float64
        |frequency|, 1/nm.
    searched : (n, n) bool
        Cells of the band in one half-plane: what is searched for peaks; the other half is its mirror.
    pixel_nm, cell : pixel, nm; distance of neighbouring cells, 1/nm
    """

    windowed: Floats
    power: Floats
    frequency: Floats
    q: Floats
    searched: NDArray[np.bool_]
    pixel_nm: float

    @property
    def cell(self) -> float:
        """Distance of neighbouring cells, 1/nm."""
        return 1.0 / (len(self.power) * self.pixel_nm)

    def cell_of(self, g: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return (row, col) of the cells nearest to the frequencies `g`, (K, 2) as (x, y) in 1/nm."""
        index = np.rint(g / self.cell).astype(np.intp) + len(self.power) // 2
        return index[:, 1], index[:, 0]


@dataclass(frozen=True, kw_only=True)
class Level:
    """What speckle and streaks alone would give.

    Attributes
    ----------
    mean : (n, n) float64
        Mean power, squared detector values.
    cells : (n, n) float64
        Independent cells that the mean was measured from.
    """

    mean: Floats
    cells: Floats


def hann(n: int) -> Floats:
    """Return the periodic-symmetric Hann window of `n` samples that is nowhere zero."""
    out: Floats = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
    return out


def spectrum_of(patch: NDArray[np.floating], pixel_nm: float, band: tuple[float, float]) -> Spectrum:
    """Return the windowed power spectrum of a square patch.

    Parameters
    ----------
    patch : (n, n) float
        HAADF, any unit, finite.
    pixel_nm : float
        Pixel, nm.
    band : (float, float)
        Lowest and highest frequency to search, 1/nm; the highest is cut at Nyquist less one cell.
    """
    n = len(patch)
    t = np.arange(n) - (n - 1) / 2
    values = np.asarray(patch, np.float64)
    values = values - values.mean()
    norm = n * float(t @ t)
    slope_y, slope_x = float(t @ values.sum(axis=1)) / norm, float(t @ values.sum(axis=0)) / norm
    window = hann(n)
    windowed = (values - slope_y * t[:, None] - slope_x * t[None, :]) * window[:, None] * window[None, :]
    power = np.abs(fft.fftshift(fft.fft2(windowed))) ** 2
    index = np.arange(n, dtype=np.float64) - n // 2
    cell = 1.0 / (n * pixel_nm)
    q = np.hypot(index[:, None], index[None, :]) * cell
    half = (index[None, :] > 0) | ((index[None, :] == 0) & (index[:, None] > 0))
    highest = min(band[1], (n / 2 - 1) * cell)
    searched = half & (q >= band[0]) & (q <= highest)
    return Spectrum(windowed=windowed, power=power, frequency=index * cell, q=q, searched=searched, pixel_nm=pixel_nm)


def level_of(spectrum: Spectrum, known: Floats, radius: float, quantile: float) -> Level:
    """Measure the mean power of speckle and streaks.

    Parameters
    ----------
    known : (K, 2) float64
        Peaks (x, y), 1/nm, that are left out with their mirrors.
    radius : float
        How far around them, 1/nm.
    quantile : float
        Which quantile of an annulus stands for it: low resists peaks, one half is steadier.
    """
    free = ~near(spectrum, known, radius)
    ring, cells = _ring(spectrum, free, quantile)
    return Level(mean=ring + _streaks(spectrum, free, ring, quantile), cells=cells)


def near(spectrum: Spectrum, known: Floats, radius: float) -> NDArray[np.bool_]:
    """Return (n, n) bool: cells within `radius` (1/nm) of the peaks `known` (K, 2) or their mirrors."""
    f = spectrum.frequency
    out = np.zeros(spectrum.power.shape, bool)
    for x, y in np.concatenate([known, -known]):
        rows, cols = np.flatnonzero(abs(f - y) <= radius), np.flatnonzero(abs(f - x) <= radius)
        if len(rows) and len(cols):
            disc = np.hypot(f[rows, None] - y, f[None, cols] - x) <= radius
            out[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] |= disc
    return out


def _ring(spectrum: Spectrum, free: NDArray[np.bool_], quantile: float) -> tuple[Floats, Floats]:
    """Return the ring's mean power and the independent cells behind it, both (n, n)."""
    cell = spectrum.cell
    band = spectrum.q[spectrum.searched]
    low, high = float(band.min()), float(band.max())
    f, off = spectrum.frequency, _STREAK_CELLS * cell
    aside = (abs(f)[:, None] > off) & (abs(f)[None, :] > off)
    half = f[None, :] > 0  # off the axes this is half the plane, so no cell is counted with its mirror
    reach = _HALF_RING * cell
    used = aside & half & free & (spectrum.q >= low - reach) & (spectrum.q <= high + reach)
    order = np.argsort(spectrum.q[used], kind="stable")
    q, power = spectrum.q[used][order], spectrum.power[used][order]
    power = np.maximum(power, _TINY * spectrum.power.max())
    centres = np.linspace(low, high, max(2, round((high - low) / cell) + 1))
    starts, ends = np.searchsorted(q, centres - reach), np.searchsorted(q, centres + reach, side="right")
    kept = np.flatnonzero(ends - starts >= _FEWEST_CELLS)
    if not len(kept):  # so many peaks that nothing is left beside them: one level for all
        everything = np.full(spectrum.power.shape, _quantile_mean(power, quantile))
        return everything, np.full(spectrum.power.shape, _independent(len(power), quantile))
    log_level = np.zeros(len(kept))
    for _ in range(_FLATTENINGS):
        flat = power / np.exp(np.interp(q, centres[kept], log_level))
        log_level += [np.log(_quantile_mean(flat[starts[k] : ends[k]], quantile)) for k in kept]
    cells = _independent(ends[kept] - starts[kept], quantile)
    at = np.clip(spectrum.q, low, high)
    return np.exp(np.interp(at, centres[kept], log_level)), np.interp(at, centres[kept], cells)


def _streaks(spectrum: Spectrum, free: NDArray[np.bool_], ring: Floats, quantile: float) -> Floats:
    """Return the power, (n, n), that columns and rows of the spectrum hold evenly beyond the ring."""
    scale = -np.log1p(-quantile)
    band = spectrum.q[spectrum.searched]
    inside = free & (spectrum.q >= band.min()) & (spectrum.q <= band.max())
    excess = np.where(inside, spectrum.power - scale * ring, np.inf)
    centre = len(excess) // 2
    # a line and its mirror hold the same numbers, so half of them are measured
    columns = _line_quantiles(excess[:, centre:].T, quantile) / scale
    rows = _line_quantiles(excess[centre:, :], quantile) / scale
    mirror = np.minimum(abs(np.arange(len(excess)) - centre), len(columns) - 1)
    out: Floats = columns[mirror][None, :] + rows[mirror][:, None]
    return out


def _line_quantiles(lines: Floats, quantile: float) -> Floats:
    """Return the quantile of the finite values of each line, at least 0; 0 where they are too few to tell."""
    counts = np.isfinite(lines).sum(axis=1)
    ordered = np.sort(lines, axis=1)
    rank = np.maximum(np.rint(quantile * (counts - 1)).astype(np.intp), 0)
    value = np.take_along_axis(ordered, rank[:, None], axis=1)[:, 0]
    # a line on the axis counts each cell twice, as its own mirror
    return np.where(counts >= 2 * _FEWEST_CELLS, np.maximum(value, 0), 0)


def _quantile_mean(power: Floats, quantile: float) -> float:
    """Return the mean of the exponential distribution that has this quantile."""
    rank = round(quantile * (len(power) - 1))
    return float(np.partition(power, rank)[rank] / -np.log1p(-quantile))


def _independent(cells: int | NDArray[np.intp], quantile: float) -> Floats:
    """Return how many independent cells, averaged, would give a level as sure as the quantile of `cells`."""
    efficiency = (1 - quantile) * np.log1p(-quantile) ** 2 / quantile  # 0.25 at a quarter, 0.48 at a half
    return np.asarray(cells * (efficiency / HANN_BANDWIDTH), np.float64)


def ratio_at(false_alarm: float, cells: Floats) -> Floats:
    """Return the ratio power / level that speckle exceeds with probability `false_alarm` in one cell."""
    out: Floats = cells * np.expm1(-np.log(false_alarm) / cells)
    return out
