"""The loops over pixels and bins of many windows that `lattice` needs, compiled: one pass, nothing in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livestem.stages.compiled import compiled
from livestem.stages.rows import Floats


@compiled
def tapered(window: Floats, hann: Floats) -> Floats:
    """Return (N, q, q) windows less their mean, both weighed by the (q, q) taper of sum 1."""
    count, rows, cols = window.shape
    out = np.empty((count, rows, cols))
    for n in range(count):
        mean = 0.0
        for y in range(rows):
            for x in range(cols):
                mean += window[n, y, x] * hann[y, x]
        for y in range(rows):
            for x in range(cols):
                out[n, y, x] = (window[n, y, x] - mean) * hann[y, x]
    return out


@compiled
def spectral_sums(
    spectrum: NDArray[np.complex128],
    noise: Floats,
    bins: NDArray[np.intp],
    weight: Floats,
    bounds: NDArray[np.intp],
    harmonics: NDArray[np.complex128],
) -> tuple[Floats, Floats, Floats]:
    """Return (N, K) shares of the bins in the power of all, (N, A) those of annuli, (N, F) of the power in folds.

    That of a fold is the sum over annuli of how much of the annulus has it.

    Parameters
    ----------
    spectrum : (N, M)
        Flat half-plane transforms.
    noise : (N,)
        Power that counts as none: the window is then without structure.
    bins, weight : (K,)
        Places in the spectrum, by annulus, and what each counts.
    bounds : (A + 1,)
        Where each annulus begins in `bins`, and the end.
    harmonics : (F, K)
        exp(i m theta) of each bin.
    """
    rings, folds, count = len(bounds) - 1, len(harmonics), len(spectrum)
    share, power = np.empty((count, len(bins))), np.zeros((count, rings))
    angular, wave = np.zeros((count, folds)), np.zeros(folds, np.complex128)
    for n in range(count):
        total = 0.0
        for k in range(len(bins)):
            z = spectrum[n, bins[k]]
            share[n, k] = (z.real * z.real + z.imag * z.imag) * weight[k]
            total += share[n, k]
        inverse = 1 / total if total > noise[n] else 0.0
        for ring in range(rings):
            for fold in range(folds):
                wave[fold] = 0.0
            for k in range(bounds[ring], bounds[ring + 1]):
                share[n, k] *= inverse
                power[n, ring] += share[n, k]
                for fold in range(folds):
                    wave[fold] += share[n, k] * harmonics[fold, k]
            for fold in range(folds):
                angular[n, fold] += abs(wave[fold])
    return share, power, angular
