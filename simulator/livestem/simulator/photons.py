"""Photons of one frame: how many at each place of the beam, and of which energy.

Theory. At a place where the beam crosses t nm of foil, t_k of them of class k, class k emits as t_k nm out of a
foil of t nm of it do. That spectrum lies between the spectra of two thicknesses, so every photon comes from one
of K x T *emitters* (class, thickness) or from the zero peak, each with a spectrum of its own. The expectation of
each emitter is a map over a window of the specimen, blurred by delocalisation: not the beam but the excitation
has that width. A frame is then an exact draw: photons per pixel are Poisson with the sum of the maps at the grid
point nearest to the beam, the emitter of each follows from their shares there, its channel from the emitter's
spectrum. Both choices use alias tables, which cost the same for however many emitters and channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.simulator.alias import alias
from livestem.simulator.eds import Emission

Floats = NDArray[np.float64]
_MOST = 60_000.0  # photons per pixel and frame: uint16 holds them and their spread
_BLOCK = 1 << 17  # photons drawn at a time: their arrays stay in the processor's cache


class EmissionMap:
    """Expected photons over a window of the specimen, and frames drawn from them.

    Parameters
    ----------
    emission : Emission
        Of K classes at T thicknesses.
    crossed_nm : (K, h, w) array
        Foil of each class that the beam crosses at each point of a grid, nm; their sum is the foil's thickness.
        Where it is 0 nothing is emitted.
    origin_nm : (y, x)
        Of grid point (0, 0), nm: whole steps from the frame's origin.
    step_nm : float
        Of the grid, nm; beyond the grid its outermost points go on.
    per_brightness : float
        Photons per pixel and frame for a brightness of 1.
    zero_peak_per_pixel : float
        Counts of the zero peak per pixel and frame, everywhere; none if the axis does not show the peak.
    delocalisation_nm : float
        Sigma of the place of emission about the beam, nm.

    Raises
    ------
    UsageError
        If a pixel and frame would hold more photons than 16 bits count.
    """

    def __init__(
        self,
        emission: Emission,
        crossed_nm: NDArray[np.floating],
        origin_nm: tuple[float, float],
        step_nm: float,
        per_brightness: float,
        zero_peak_per_pixel: float = 0.0,
        delocalisation_nm: float = 0.0,
    ) -> None:
        self._step_nm = step_nm
        self._first = origin_nm[0] / step_nm, origin_nm[1] / step_nm
        self.shape: tuple[int, int] = crossed_nm.shape[1:]
        emitters = emission.brightness.size
        maps = np.zeros((emitters + 1, *self.shape), np.float32)
        for number, values in enumerate(_emitters(emission, crossed_nm)):
            maps[number] = _blurred(values * per_brightness, delocalisation_nm / step_nm)
        self._photons = maps[:-1].sum(axis=0, dtype=np.float64).ravel()
        maps[-1] = zero_peak_per_pixel * bool(emission.zero_peak.any())
        self._expected = self._photons + maps[-1].ravel()
        if self._expected.max(initial=0.0) > _MOST:
            raise UsageError(f"more than {_MOST:g} photons per pixel and frame; ask for fewer counts per pixel")
        # All emitters, whether the window shows them or not: what is drawn at a place must not depend on the window.
        self._emitter = alias(maps.reshape(emitters + 1, -1).T)
        self._channel = emission.channels

    def expected(self, y_nm: Floats, x_nm: Floats) -> Floats:
        """Return the expected photons (H, W), the zero peak not counted, at places of the beam as `draw` has them."""
        return np.asarray(self._photons[self._point(y_nm, x_nm)])

    def draw(
        self, y_nm: Floats, x_nm: Floats, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Draw the photons of one frame.

        Parameters
        ----------
        y_nm : (H,) or (H, W) float64
            Where the beam is on the specimen, nm: of each row, or of each pixel.
        x_nm : (H, W) float64
            Likewise; of each pixel.
        rng : numpy Generator

        Returns
        -------
        (H, W) uint16, (sum of counts,) uint16
            Photons per pixel, and the channel of each, pixel after pixel in row-major order.
        """
        point = self._point(y_nm, x_nm)
        counts = rng.poisson(self._expected[point]).astype(np.uint16)
        of_photon = np.repeat(point.ravel(), counts.ravel())
        channels = np.empty(of_photon.size, np.uint16)
        for start in range(0, of_photon.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            channels[block] = self._channel.draw(self._emitter.draw(of_photon[block], rng), rng)
        return counts, channels

    def _point(self, y_nm: Floats, x_nm: Floats) -> NDArray[np.intp]:
        """Index (H, W) of the grid point nearest to each place."""
        height, width = self.shape
        y = (np.rint(y_nm / self._step_nm) - round(self._first[0])).clip(0, height - 1).astype(np.intp)
        x = (np.rint(x_nm / self._step_nm) - round(self._first[1])).clip(0, width - 1).astype(np.intp)
        return np.asarray((y if y.ndim == 2 else y[:, None]) * width + x)


def brightness_of(emission: Emission, crossed_nm: NDArray[np.floating]) -> Floats:
    """Return the brightness (h, w) where the beam crosses `crossed_nm` (K, h, w) of each class, before any blur."""
    return np.asarray(np.sum(list(_emitters(emission, crossed_nm)), axis=0, dtype=np.float64))


def _emitters(emission: Emission, crossed_nm: NDArray[np.floating]) -> Iterator[NDArray[np.float32]]:
    """Yield the brightness (h, w) of each emitter: class by class, its thicknesses in order."""
    total = crossed_nm.sum(axis=0)
    nodes = emission.thickness_nm
    hats = [np.interp(total, nodes, unit).astype(np.float32) for unit in np.eye(nodes.size)]
    for crossed, brightness in zip(crossed_nm, emission.brightness, strict=True):
        for hat, per_nm in zip(hats, brightness / nodes, strict=True):
            yield np.asarray(crossed * hat * np.float32(per_nm), np.float32)


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    if not sigma or not values.any():
        return values
    return np.asarray(gaussian_filter(values, sigma, mode="nearest"))
