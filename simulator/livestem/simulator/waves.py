"""Smooth chance: random functions with a known rms and correlation length, defined everywhere and at any time.

A sum of cosines with random wave vectors and phases [1]_. It needs no grid and no memory of where it was asked
before, so that rough borders go on beyond any field, and drift at any moment follows from the moment alone.

References
----------
.. [1] Shinozuka and Deodatis, Appl. Mech. Rev. 44 (1991) 191.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_TERMS = 24  # cosines: by the central limit theorem the sum is then Gaussian within a few per cent


class Waves:
    """A random function of one or more coordinates, its covariance ``rms^2 exp(-r^2 / (2 length^2))``.

    Parameters
    ----------
    rms : float
        Standard deviation, in the unit of the value.
    length : float
        Correlation length, in the unit of the coordinates.
    rng : numpy Generator
    axes : int
        Number of coordinates.
    """

    def __init__(self, rms: float, length: float, rng: np.random.Generator, axes: int = 1) -> None:
        self._amplitude = rms * math.sqrt(2 / _TERMS)
        self._wave = rng.normal(0, 1 / length, (_TERMS, axes))
        self._phase = rng.uniform(0, 2 * math.pi, _TERMS)

    def __call__(self, *at: Floats) -> Floats:
        """Return the values at coordinates `at`, which broadcast."""
        total = np.zeros(np.broadcast_shapes(*(np.shape(a) for a in at)))
        if self._amplitude:
            for wave, phase in zip(self._wave, self._phase, strict=True):
                argument = np.full((), phase)
                for k, coordinate in zip(wave, at, strict=True):
                    argument = argument + k * coordinate
                total += np.cos(argument)
        return np.asarray(self._amplitude * total)
