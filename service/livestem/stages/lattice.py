"""The default encoder `lattice`: what the HAADF picture of a chip says about the order in it.

Theory
------
A crystal along a zone axis is a sum of few plane waves: its power sits in spots, at fixed distances and
directions. An amorphous patch has the same power smeared over rings, a disordered crystal loses its outer
spots first (Debye-Waller), a grain off axis keeps one pair of spots, vacuum and thick cap are white noise.
The descriptor is therefore a power spectrum, reduced to what does not depend on where in the unit cell a
chip begins:

==================  ========================================================================================
level               mean detector value (thickness and Z)
contrast            square root of the standard deviation: zero for a flat chip, without a floor to choose
skewness, kurtosis  of the values: bright columns on dark ground are skewed, speckle and noise are not
power_1 .. power_6  log share of six annuli in the power, equal steps of log frequency
angular_2, _4, _6   2-, 4- and 6-fold angular order *within* annuli: 1 spots, 0 rings. Within, because
                    {100} and {110} are 45 degrees apart and would cancel in a sum over all frequencies
peak, entropy       log share of the strongest bin; entropy of the shares, nats: few sharp spots or many bins
==================  ========================================================================================

Rules
-----
* Gain and offset of the detector: `level` follows them linearly, `contrast` by a factor, so that both
  vanish when columns are standardised, as every consumer does; all others do not change at all.
* **Context.** A chip of 0.75 nm holds two unit cells, too few for a spectrum. Give windows of twice the
  chip side (`chips.windows` with `margin_px(p)`): under a Hann window they overlap so that each pixel
  weighs nearly the same in all (Welch), and two thirds of the weight lie on the chip itself. On five
  synthetic fields (cap, film with amorphous and disordered domains, substrate) this raised the accuracy of
  nearest prototypes from 0.89 to 0.96. `level`, `contrast` and the moments always come from the chip alone.
  A chip depends on nothing beyond half a chip around it: when a pixel changes, its chip and the eight around
  it are dirty, no more.
* Frequencies below 1.5 bins are slopes and borders, not lattices, and take no part.
* Pixels that are not finite (never visited) are replaced by the mean of their window; a chip without any
  finite pixel is a row of zeros, which the caller marks as no data. Every feature is finite for any float32
  picture, from chips of 1 px (no spectrum: power shares at their floor, the rest 0) up.
* A row depends on its own window only, bit for bit: how chips are grouped into calls does not matter.

References
----------
.. [1] Welch, IEEE Trans. Audio Electroacoust. 15 (1967) 70.
.. [2] Harris, Proc. IEEE 66 (1978) 51 (Hann window: leakage, overlap).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft2

from livestem.domain.errors import StageError

ANNULI = 6  # over the 1.5 .. 15 bins of a 30 px window: each holds one order of a perovskite's spots
FOLDS = (2, 4, 6)  # symmetries that a projected lattice can have (3 shows as 6: power is centrosymmetric)
LOWEST_BIN = 1.5  # below are the two bins that a Hann window smears a slope over
# Less power than this counts as none: a third of what white noise gives to one of the 350 bins of 30 px.
SHARE_FLOOR = 1e-3
_BLOCK = 256  # chips per transform: 4 MB of spectra for 30 px windows, which stays in the cache

DESCRIPTOR_NAMES: tuple[str, ...] = (
    "level",
    "contrast",
    "skewness",
    "kurtosis",
    *(f"power_{i + 1}" for i in range(ANNULI)),
    *(f"angular_{m}" for m in FOLDS),
    "peak",
    "entropy",
)
"""Columns of `lattice_descriptors`, in order."""
ORDER: tuple[int, ...] = tuple(
    DESCRIPTOR_NAMES.index(name) for name in ("level", "contrast", "skewness", "kurtosis", "peak", "entropy")
)
"""Columns that say how bright and how ordered a chip is, whichever way its crystal lies: grains share them."""


def margin_px(chip_px: int) -> int:
    """Return the pixels of context around a chip of `chip_px` pixels: half a chip, rounded down."""
    return chip_px // 2


def lattice_descriptors(chips: NDArray[np.generic], margin: int = 0) -> NDArray[np.float32]:
    """Describe the order in each chip.

    Parameters
    ----------
    chips : (N, q, q), any real dtype
        Chips, or windows around them, in detector values per visit; not finite where never visited.
    margin : int
        Context pixels on each side of the chip inside its window, 0 <= 2 * margin < q.

    Returns
    -------
    (N, 15) float32
        One row per chip, columns `DESCRIPTOR_NAMES`; to be standardised before distances are taken. Finite.

    Raises
    ------
    StageError
        If `chips` is not (N, q, q), or the margin leaves no chip.

    Notes
    -----
    `kurtosis` is the log of the fourth standardised moment and `skewness` the inverse hyperbolic sine of the
    third, so that one hot pixel does not outweigh the lattice.
    """
    if chips.ndim != 3 or chips.shape[1] != chips.shape[2] or chips.shape[1] < 1:
        raise StageError(f"chips must be (N, q, q), got {chips.shape}")
    side = chips.shape[1]
    if not 0 <= 2 * margin < side:
        raise StageError(f"a margin of {margin} px leaves no chip in a window of {side} px")
    out = np.zeros((len(chips), len(DESCRIPTOR_NAMES)), dtype=np.float32)
    for start in range(0, len(chips), _BLOCK):
        window = np.array(chips[start : start + _BLOCK], dtype=np.float64)  # a copy: gaps are filled in it
        core = window[:, margin : side - margin, margin : side - margin]
        empty = _fill_gaps(window, core)
        rows = np.concatenate([_moments(core), _spectral(window)], axis=1)
        rows[empty] = 0.0
        out[start : start + _BLOCK] = rows
    return out


def _fill_gaps(window: NDArray[np.float64], core: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Put the window's mean where pixels are not finite, in place; return which chips have no data."""
    finite = np.isfinite(window)
    if finite.all():
        return np.zeros(len(window), dtype=bool)
    empty = np.asarray(~np.isfinite(core).any(axis=(1, 2)))
    for i in np.flatnonzero(~finite.all(axis=(1, 2))):
        values = window[i][finite[i]]
        window[i][~finite[i]] = values.mean() if values.size else 0.0
    return empty


def _moments(core: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return level, contrast, skewness and kurtosis of (N, p, p) chips."""
    values = core.reshape(len(core), -1)
    mean = values.mean(axis=1)
    centred = values - mean[:, None]
    deviation = np.sqrt((centred**2).mean(axis=1))
    flat = deviation <= _rounding(values)
    scale = np.where(flat, 1.0, deviation)
    z = centred / scale[:, None]
    squared = z * z  # products: a power with a general exponent takes fifty times as long
    skewness = np.arcsinh((squared * z).mean(axis=1))
    fourth = (squared * squared).mean(axis=1)
    columns = [
        mean,
        np.sqrt(np.where(flat, 0.0, deviation)),
        np.where(flat, 0.0, skewness),
        np.where(flat, 0.0, np.log(np.where(flat, 1.0, fourth))),
    ]
    return np.stack(columns, axis=1)


def _rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the arithmetic alone can make of a constant chip's deviation."""
    return np.asarray(1e-12 * np.abs(values).max(axis=1))


@dataclass(frozen=True)
class _Plan:
    """Bins of the half-plane spectrum of a q x q window that count, sorted by annulus."""

    hann: NDArray[np.float64]  # (q, q), sums to 1
    bins: NDArray[np.intp]  # (K,) flat indices into the (q, q // 2 + 1) spectrum
    weight: NDArray[np.float64]  # (K,) 2 for a bin and its mirror, 1 for one that is its own mirror
    bounds: NDArray[np.intp]  # (ANNULI + 1,) where each annulus begins in `bins`, and the end
    harmonics: NDArray[np.complex128]  # (FOLDS, K) exp(i m theta)


@lru_cache(maxsize=8)
def _plan(side: int) -> _Plan:
    taper = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    hann = np.outer(taper, taper)
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    k = np.hypot(fy, fx).ravel()
    theta = np.arctan2(fy, fx).ravel()
    # +f and -f are one bin of weight 2. The columns fx = 0 and fx = Nyquist store both: keep one of them.
    edge = (fx == 0) | (2 * np.arange(fx.size)[None, :] == side)
    self_mirrored = edge & np.isin(2 * np.abs(fy), (0.0, 1.0))
    twin = (edge & (fy < 0) & ~self_mirrored).ravel()
    pair = np.where(np.broadcast_to(self_mirrored, (side, fx.size)), 1.0, 2.0).ravel()
    lowest = LOWEST_BIN / side
    if lowest >= 0.5:  # up to 3 px: no frequency between the slopes and Nyquist
        edges = np.full(ANNULI + 1, 0.5)
    else:
        edges = np.geomspace(lowest, 0.5, ANNULI + 1)
        edges[-1] = 0.5
    annulus = np.searchsorted(edges, k, side="left") - 1  # k in (edge_i, edge_i+1]
    inside = np.flatnonzero((k > edges[0]) & (k <= 0.5) & ~twin)
    bins = inside[np.argsort(annulus[inside], kind="stable")]
    starts = np.searchsorted(annulus[bins], np.arange(ANNULI + 1))
    return _Plan(
        hann=hann / hann.sum(),
        bins=bins,
        weight=pair[bins],
        bounds=np.ascontiguousarray(starts, np.intp),
        harmonics=np.exp(1j * np.multiply.outer(np.array(FOLDS), theta[bins])),
    )


def _spectral(window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the spectral columns of (N, q, q) windows."""
    from livestem.stages.lattice_loops import spectral_sums, tapered  # loads Numba: only when asked for

    n, plan = len(window), _plan(window.shape[1])
    spectrum = rfft2(tapered(window, plan.hann)).reshape(n, -1)
    noise = _rounding(window.reshape(n, -1)) ** 2
    share, power, angular = spectral_sums(spectrum, noise, plan.bins, plan.weight, plan.bounds, plan.harmonics)
    peak = share.max(axis=1, initial=0.0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy = -(share * logs).sum(axis=1)
    columns = [np.log(power + SHARE_FLOOR), angular, np.log(np.where(peak > 0, peak, 1.0))[:, None], entropy[:, None]]
    return np.concatenate(columns, axis=1)
