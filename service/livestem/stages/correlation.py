"""The cross correlation of a frame with the mean of those before it, and its most plausible peak.

Theory
------
A frame is what the mean of the frames before it shows, displaced, with white noise of its own. The displacement of
greatest likelihood is where the cross correlation with the Wiener-filtered mean is highest: frequencies at which the
mean holds no signal only add noise [1]_. Two things are not white noise, and both bend the likelihood. Rows that
slip and distortions within a frame cost every signal a share of itself, so strong frequencies count for less than
their power (`_SELF_NOISE`). And a crystal matches itself one cell further almost as well, the more so the less dose
there is; so the peak is chosen by its height less a penalty for its distance from where drift has been going.

Rules
-----
- Heights are in units of the noise of the correlation.
- They are compared between pixels, by interpolation: on the pixels alone a wrong cell that happens to fall on one
  beats the right cell that falls between two.
- The further a shift, the less both windows see of the same place; heights are set right for that.
- Where the field tells little about one direction, noise would wander along it. So the place of a peak is weighted with
  the prediction by what the noise allows, direction by direction.

References
----------
.. [1] C. H. Knapp and G. C. Carter, IEEE Trans. Acoust. Speech Signal Process. 24 (1976) 320.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float]  # (y, x), pixels
Floats = NDArray[np.float32]
Wide = NDArray[np.float64]

SIGNIFICANT = 6.0  # sigma: the highest of the 20 000 shifts searched on noise alone reaches 4.5
_SELF_NOISE = 0.1  # of a signal's power: with 0.03 jumps along layers end on wrong cells, 0.3 lowers faint peaks
_FLOOR = 8.0  # times the noise's mean power: one in 3000 of the frequencies without signal lies above
_PENALTY_SIGMA, _PENALTY_SHARE = 2.5, 0.01  # times log(1 + r^2), r in pixels: 8 sigma and 3 % of the peak at a cell
_REACH = 8  # the search goes an eighth of the field each way; beyond, what both see is too little to trust
PREDICTION_PX = 1.0  # error of the prediction: frames follow within a second or so, and drift turns in minutes
_LOOKED_AT = 32  # peaks: the cells within reach that the penalty leaves a chance
_LOBES = 4  # of the interpolating kernel: within 1 % of a peak two pixels wide, as sharp as atoms are scanned
_MARGIN = _LOBES + 2  # pixels that the kernel needs beyond a peak that has moved by a step
_COMMON = 0.25  # of the window: below, the field is moved out of itself, and noise would be blown up
_JUMP_PX = 3.0  # sigma of the prediction
_ROUNDING = 1e-6  # of the mean power: the noise of an image without any, in single precision


@dataclass(frozen=True, eq=False)
class Correlation:
    """A cross correlation in units of its own noise.

    Attributes
    ----------
    surface : (2 h + 1, 2 w + 1), shift 0 in the middle, `_MARGIN` wider all round than is searched
    slope : (2,) variance of the noise's slope along y and x
    bend : (2, 2) variance of the noise's second derivatives: of (k u)^4, what ky^4, ky^2 kx^2 and kx^4 contribute
    """

    surface: Wide
    slope: Wide
    bend: Wide

    def peak(self, expected: Vector) -> tuple[Vector, Vector, float]:
        """Return the most plausible peak's place, its sigma, and its height."""
        m, near = _MARGIN, self.surface
        middle = near[m:-m, m:-m]
        up, down = near[m - 1 : -m - 1, m:-m], near[m + 1 : -m + 1, m:-m]
        left, right = near[m:-m, m - 1 : -m - 1], near[m:-m, m + 1 : -m + 1]
        rows, cols = (np.arange(side) - side // 2 for side in middle.shape)
        i, j = np.nonzero((middle >= up) & (middle > down) & (middle >= left) & (middle > right))
        if not i.size:
            return expected, (PREDICTION_PX, PREDICTION_PX), 0.0
        away = np.log1p((rows[i] - expected[0]) ** 2 + (cols[j] - expected[1]) ** 2)
        penalty = (_PENALTY_SIGMA + _PENALTY_SHARE * float(middle.max())) * away
        likely = np.argsort(penalty - middle[i, j], kind="stable")[:_LOOKED_AT]
        places = np.stack([rows[i[likely]], cols[j[likely]]], axis=1).astype(np.float64)
        for step in (1.0, 0.5):  # the second parabola lies within half a pixel of a peak that the first has found
            around = self._around(places, step)
            offset, higher = _vertex(around)
            places = places + step * offset
        height = around[:, 1, 1] + higher
        best = int(np.argmax(height - penalty[likely]))
        y, x = places[best].tolist()
        place, sigma = self._weighted((y, x), around[best] / step**2, expected)
        return place, sigma, float(height[best])

    def _around(self, places: Wide, step: float) -> Wide:
        """Return the surface at (N, 2) places and one `step` beside them, (N, 3, 3), by Lanczos' interpolation."""
        first = np.floor(places).astype(np.intp) - _LOBES
        taps = np.arange(2 * _LOBES + 2)
        index = [first[:, axis, None] + taps + side // 2 for axis, side in enumerate(self.surface.shape)]
        boxes = self.surface[index[0][:, :, None], index[1][:, None, :]]
        wanted = places[:, :, None] + step * np.array([-1.0, 0.0, 1.0])
        off = wanted[..., None] - (first[:, :, None, None] + taps)
        kernel = np.where(np.abs(off) < _LOBES, np.sinc(off) * np.sinc(off / _LOBES), 0.0)
        kernel /= kernel.sum(axis=-1, keepdims=True)
        around: Wide = np.einsum("nai,nij,nbj->nab", kernel[:, 0], boxes, kernel[:, 1])
        return around

    def _weighted(self, found: Vector, around: Wide, expected: Vector) -> tuple[Vector, Vector]:
        """Weight a peak's place with the expected one, each direction by what noise leaves uncertain of it."""
        yy, xx = (a[0] - 2 * a[1] + a[2] for a in (around[:, 1], around[1]))
        yx = (around[2, 2] - around[2, 0] - around[0, 2] + around[0, 0]) / 4
        curved, along = np.linalg.eigh(-np.array([[yy, yx], [yx, xx]]))
        squares = along**2  # of (y, x), a column a direction
        by_chance = np.sqrt(np.einsum("ij,ia,ja->a", self.bend, squares, squares))
        information = np.where(curved > SIGNIFICANT * by_chance, curved, 0.0) ** 2 / (self.slope @ squares)
        variance = 1 / (information + PREDICTION_PX**-2)
        off = along.T @ np.subtract(found, expected)
        jumped = np.hypot(*off) > _JUMP_PX  # what was expected is no guide then
        y, x = np.add(expected, along @ (off * np.where(jumped & (information > 0), 1.0, variance * information)))
        sigma = np.sqrt(squares @ variance)
        return (float(y), float(x)), (float(sigma[0]), float(sigma[1]))


def correlate(image: Floats, mean: Floats, visits: float, tapers: Sequence[Wide]) -> Correlation | None:
    """Correlate a frame with the Wiener-filtered mean of those before it.

    Parameters
    ----------
    image, mean : (H, W) float32
        The frame and the mean, levelled, in one unit, within one window.
    visits : float
        Frames that the mean is of.
    tapers : two float64 arrays, (H,) and (W,)
        The window is their outer product.

    Returns
    -------
    Correlation or None
        None if one of the two is empty, or the mean holds nothing but noise.
    """
    from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq

    height, width = image.shape
    of_image, of_mean = rfft2(image), rfft2(mean)
    power, mean_power = (part.real**2 + part.imag**2 for part in (of_image, of_mean))
    if not power.any() or not mean_power.any():
        return None
    # Most of a spectrum is noise, and its power is exponential there: the median is ln 2 of the mean.
    noise = np.float32(np.median(power[height // 8 : -(height // 8), width // 8 :]) / np.log(2.0))
    noise = max(noise, np.float32(_ROUNDING * power.mean()))
    rest = noise / np.float32(visits)
    signal = np.maximum(mean_power - np.float32(_FLOOR) * rest, 0)
    weight = signal / ((signal + rest) * (noise + np.float32(_SELF_NOISE) * signal))
    spread = weight * weight * (noise * mean_power + signal * rest)
    spread[:, 1 : (width + 1) // 2] *= 2  # the half that the transform of a real image leaves out
    total = float(spread.sum(dtype=np.float64))
    if not total > 0:
        return None
    ky2, kx2 = (2 * np.pi * fftfreq(height)) ** 2, (2 * np.pi * rfftfreq(width)) ** 2
    by_row, by_col = spread.sum(axis=1, dtype=np.float64), spread.sum(axis=0, dtype=np.float64)
    crossed = 3 * float(ky2 @ (spread * kx2).sum(axis=1))  # by no threaded product: every sum in one order
    surface = irfft2(np.conj(of_image) * of_mean * weight, s=(height, width))
    return Correlation(
        surface=_searched(surface, tapers) * (height * width / np.sqrt(total)),
        slope=np.array([by_row @ ky2, by_col @ kx2]) / total,
        bend=np.array([[by_row @ ky2**2, crossed], [crossed, by_col @ kx2**2]]) / total,
    )


def _searched(surface: Floats, tapers: Sequence[Wide]) -> Wide:
    """Return what is searched of a correlation, as if every shift left as much in both windows as none does."""
    lags = [np.arange(-(len(t) // _REACH) - _MARGIN, len(t) // _REACH + _MARGIN + 1) for t in tapers]
    common = [
        np.array([t[: len(t) - abs(k)] @ t[abs(k) :] for k in ks]) / (t @ t) for t, ks in zip(tapers, lags, strict=True)
    ]
    near = surface[np.ix_(*(ks % side for ks, side in zip(lags, surface.shape, strict=True)))]
    return np.asarray(near / np.maximum(np.outer(*common), _COMMON))


def _vertex(around: Wide) -> tuple[Wide, Wide]:
    """Return where the parabolas through (N, 3, 3) values have their vertices, (N, 2) steps, and how much higher."""
    along = np.stack([around[:, :, 1], around[:, 1, :]], axis=1)  # (N, axis, 3)
    bend = np.maximum(2 * along[..., 1] - along[..., 0] - along[..., 2], 0.0)
    slope = (along[..., 2] - along[..., 0]) / 2
    steep = np.abs(slope) >= bend  # no vertex within a step
    offset = np.where(steep, np.sign(slope), slope / np.where(steep, 1.0, bend))
    return offset, (slope * offset - bend * offset**2 / 2).sum(axis=1)
