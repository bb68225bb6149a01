"""Where a frame lies on the mean of the frames before it: the shift that undoes the drift of the specimen.

Rules
-----
- The shift is where the cross correlation with the mean has its most plausible peak (`livestem.stages.correlation`).
- A peak below `SIGNIFICANT` times the noise is none: the predicted shift stands. So it does along a direction in which
  the peak is not curved by as much (layers, seen along them).
- Drift goes on as it went: the prediction is the last shift and the median of the last steps.
- Neither of the two images need be whole: what was not visited is level ground. A frame that was swept in part is
  compared where it was swept, as if the field ended there: were its end within the window, shifts that bring more of it
  in would look more like the reference, and of a crystal the next cell be taken for this one.

References
----------
.. [1] B. H. Savitzky et al., Ultramicroscopy 191 (2018) 56.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.stages.correlation import PREDICTION_PX, SIGNIFICANT, Floats, Vector, Wide, correlate

_TAPER = 8  # an eighth of the field at each side: no edge of the field passes for a feature
_LEAST_PX = 16  # below, an eighth of the field is less than the two pixels that a peak takes
_LARGEST_PX = 1024  # a side: a larger field's middle tells its drift as well, in a tenth of a second instead of two
_TOLD = 0.99  # of the prediction's error: a direction that the images tell leaves at most 0.71 of it to one axis
_RECALLED = 5  # steps between frames whose median is the drift's speed: one jump among them does not count


@dataclass(frozen=True)
class Displacement:
    """What one comparison has found.

    Attributes
    ----------
    shift_px : (y, x) by which the frame must be moved to lie on the reference
    sigma_px : (y, x) what noise alone leaves uncertain of it, not more than the prediction's own error
    significance : height of the peak over the noise of the correlation
    """

    shift_px: Vector
    sigma_px: Vector
    significance: float

    @property
    def determined(self) -> bool:
        """Whether the images say it, in one direction at least, and not the prediction alone."""
        return self.significance >= SIGNIFICANT and min(self.sigma_px) < _TOLD * PREDICTION_PX


def displacement(
    frame: NDArray[Any],
    reference: NDArray[Any],
    visits: NDArray[Any],
    predicted_px: Vector = (0.0, 0.0),
    seen: NDArray[np.bool_] | None = None,
) -> Displacement:
    """Find the shift that lays a frame on the mean of those before it.

    Parameters
    ----------
    frame : (H, W) real
        Detector values.
    reference : (H, W) real
        Mean per visit of the frames before, moved to where they belong.
    visits : (H, W) integer
        Visits of each pixel of the reference; what it holds where there was none does not count.
    predicted_px : (y, x)
        Where the shift is expected, pixels.
    seen : (H, W) bool, optional
        Pixels of the frame that are there; all if not given.

    Returns
    -------
    Displacement
        The prediction, with significance 0, where there is nothing to compare.

    Raises
    ------
    StageError
        If the shapes differ.

    Notes
    -----
    Of fields above 1024 pixels a side the middle is compared.
    """
    if not frame.shape == reference.shape == visits.shape or (seen is not None and seen.shape != frame.shape):
        raise StageError(f"a frame of {frame.shape} pixels cannot be laid on a mean of {reference.shape}")
    unknown = Displacement(predicted_px, (PREDICTION_PX, PREDICTION_PX), 0.0)
    start = (round(predicted_px[0]), round(predicted_px[1]))
    middle = _middle(frame.shape)
    shape = frame[middle].shape
    if min(shape) < _LEAST_PX or any(abs(s) >= side for s, side in zip(start, shape, strict=True)):
        return unknown
    here, there = (None if part is None or part.all() else part for part in (seen, visits > 0))
    here, there = (None if part is None else part[middle] for part in (here, there))
    swept, tapers = _swept(shape, start, here)
    if min(len(taper) for taper in tapers) < _LEAST_PX:
        return unknown
    window = np.outer(*tapers).astype(np.float32)
    level, spread = _level(frame[middle], here)
    image = moved(_scaled(frame[middle], level, spread, here), start)[swept] * window
    level, _ = _level(reference[middle], there)
    mean = _scaled(reference[middle], level, spread, there)[swept] * window
    found = correlate(image, mean, max(float(visits[middle][swept].mean()), 1.0), tapers)
    if found is None:
        return unknown
    rest = predicted_px[0] - start[0], predicted_px[1] - start[1]
    (y, x), sigma, significance = found.peak(rest)
    if significance < SIGNIFICANT:
        return Displacement(predicted_px, unknown.sigma_px, significance)
    return Displacement((start[0] + y, start[1] + x), sigma, significance)


def predicted(estimates: Sequence[Vector], ahead: int = 1) -> Vector:
    """Return where the next frame's shift is expected, (y, x) in pixels.

    Parameters
    ----------
    estimates : sequence of (y, x)
        The shifts of the frames before, in order; (0, 0) of the first.
    ahead : int
        Frames beyond the last of them.

    Returns
    -------
    (y, x)
        The last one and the median of the last steps; the last one alone while there is but one step to go by.
    """
    if not estimates:
        return 0.0, 0.0
    recent = np.array(estimates[-_RECALLED - 1 :])
    steps = np.diff(recent, axis=0)
    speed = np.median(steps, axis=0) if len(steps) else np.zeros(2)
    y, x = recent[-1] + ahead * speed
    return float(y), float(x)


def moved(image: NDArray[Any], shift: tuple[int, int]) -> NDArray[Any]:
    """Return an image moved by whole pixels, 0 where nothing has come in."""
    out = np.zeros_like(image)
    to, of = overlap(image.shape, shift)
    out[to] = image[of]
    return out


def overlap(shape: tuple[int, ...], shift: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return (where to, where from) of what stays inside a field of `shape` that is moved by `shift`."""
    (top, bottom), (left, right) = (
        (min(max(s, 0), side), max(min(side, side + s), 0)) for side, s in zip(shape, shift, strict=True)
    )
    bottom, right = max(bottom, top), max(right, left)
    return np.s_[top:bottom, left:right], np.s_[top - shift[0] : bottom - shift[0], left - shift[1] : right - shift[1]]


def _level(image: NDArray[Any], there: NDArray[np.bool_] | None) -> tuple[float, float]:
    """Return the mean and the spread of an image over what is there."""
    values = image if there is None else image[there]
    if not values.size:
        return 0.0, 1.0
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64)) or 1.0


def _scaled(image: NDArray[Any], level: float, spread: float, there: NDArray[np.bool_] | None) -> Floats:
    """Return an image in units of `spread` from `level`, 0 where nothing is there."""
    values = ((image - level) / spread).astype(np.float32)
    if there is not None:
        values[~there] = 0
    return values


def _taper(side: int, shift: int) -> Wide:
    """Return a window over what a side and its shifted self have in common: flat, with cosines at both ends."""
    inside = np.arange(side) + 0.5
    depth = np.minimum(inside - max(shift, 0), side + min(shift, 0) - inside)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.clip(depth * _TAPER / side, 0.0, 1.0)))


def _swept(
    shape: tuple[int, ...], shift: tuple[int, int], here: NDArray[np.bool_] | None
) -> tuple[tuple[slice, ...], list[Wide]]:
    """Return where a frame of which `here` came lies on the reference, as a box, and the windows over its sides."""
    if here is None:
        return np.s_[:, :], [_taper(side, s) for side, s in zip(shape, shift, strict=True)]
    came = moved(here, shift)
    ends = [np.flatnonzero(came.any(axis=1 - axis)) for axis in (0, 1)]
    box = [slice(int(e[0]), int(e[-1]) + 1) if e.size else slice(0, 0) for e in ends]
    return tuple(box), [_taper(part.stop - part.start, 0) for part in box]


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the middle of a field, at most `_LARGEST_PX` a side."""
    cut = [max(0, side - _LARGEST_PX) // 2 for side in shape]
    return tuple(slice(c, c + min(side, _LARGEST_PX)) for c, side in zip(cut, shape, strict=True))
