"""The registration of one scan: the shift of every frame, found in frame order and kept.

Shifts are counted from the first frame, which is not moved. Each modality rounds the same shift to whole pixels of
its own. Rounding leaves the running mean a little off the first frame; how much is known, and taken into account when
the next frame is laid on it, so that roundings do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Grid
from livestem.runtime.pieces import Whole
from livestem.runtime.sums import HaadfSum
from livestem.stages.correlation import PREDICTION_PX, Vector
from livestem.stages.register import displacement, predicted
from livestem.wire import messages as m

_STILL: Vector = (0.0, 0.0)


@dataclass(frozen=True)
class Shift:
    """Where one frame was moved, (y, x).

    Attributes
    ----------
    estimate_px : found or expected, in pixels of the HAADF, not rounded
    sigma_px : what noise leaves uncertain of it; 0 for the first frame, which defines the field
    haadf_px, eds_px : the whole pixels of either modality by which its data were moved
    determined : whether the images said so; where they did not, the frame went where drift was going
    """

    estimate_px: Vector
    sigma_px: Vector
    haadf_px: Whole
    eds_px: Whole
    determined: bool

    def of(self, modality: str) -> Whole:
        """Return the whole pixels by which ``haadf`` or ``eds`` is moved."""
        return self.haadf_px if modality == "haadf" else self.eds_px


@dataclass(frozen=True)
class Registration:
    """How the frames of one scan were registered.

    Attributes
    ----------
    shifts : of every frame
    pixel_nm : (y, x) of the HAADF
    left : ``haadf`` visits and ``eds`` photons that the shifts moved out of the field
    """

    shifts: tuple[Shift, ...]
    pixel_nm: tuple[float, float]
    left: dict[str, int]

    @property
    def determined(self) -> int:
        """Frames, beyond the first, whose shift the images told."""
        return sum(shift.determined for shift in self.shifts[1:])

    @property
    def drift_nm(self) -> tuple[float, float]:
        """Shift of the last frame, (y, x), nm: how far the beam stood from where it began."""
        return self.nm(self.shifts[-1]) if self.shifts else (0.0, 0.0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know."""
        unknown = len(self.shifts[1:]) - self.determined
        if not unknown:
            return ()
        return (f"{unknown} of {len(self.shifts)} frames showed no shift and lie where drift was going",)

    def nm(self, shift: Shift) -> tuple[float, float]:
        """Return a shift as it was estimated, (y, x), nm."""
        return shift.estimate_px[0] * self.pixel_nm[0], shift.estimate_px[1] * self.pixel_nm[1]

    def message(self, scan_id: str) -> tuple[m.Registration, NDArray[np.float32], NDArray[np.int32], NDArray[np.uint8]]:
        """Return the message about it and its arrays."""
        header = m.Registration(
            scan_id=scan_id, pixel_nm=self.pixel_nm, drift_nm=self.drift_nm, determined=self.determined
        )
        estimates = np.array([s.estimate_px for s in self.shifts], np.float32).reshape(-1, 2)
        moved = np.array([s.haadf_px for s in self.shifts], np.int32).reshape(-1, 2)
        return header, estimates, moved, np.array([s.determined for s in self.shifts], np.uint8)

    def as_json(self) -> dict[str, Any]:
        """Return what ``result.json`` says of it."""
        return {
            "frames": len(self.shifts),
            "determined": self.determined,
            "drift_nm": self.drift_nm,
            "left": self.left,
            "shifts_nm": [self.nm(s) for s in self.shifts],
            "estimates_px": [s.estimate_px for s in self.shifts],
            "sigma_px": [s.sigma_px for s in self.shifts],
            "haadf_px": [s.haadf_px for s in self.shifts],
            "eds_px": [s.eds_px for s in self.shifts] if "eds" in self.left else None,
            "frame_determined": [s.determined for s in self.shifts],
        }


class Registrar:
    """Finds the shifts of a scan's frames, one after the other.

    Parameters
    ----------
    grid : Grid
        Gives how many HAADF pixels make an EDS pixel.
    """

    def __init__(self, grid: Grid) -> None:
        self.shifts: list[Shift] = []
        self._eds_per_haadf = 1.0 if not grid.eds_px or not grid.haadf_px else grid.eds_px / grid.haadf_px
        self._estimates: list[Vector] = []
        self._rounded = np.zeros(2)  # what rounding has moved the frames too far, summed over those that were there
        self._placed = 0

    def expected(self, frame: int) -> Shift:
        """Return the shift of a frame: the one found, or the one that drift leads to expect."""
        if frame < len(self.shifts):
            return self.shifts[frame]
        ahead = frame - len(self.shifts) + 1
        return self._shift(predicted(self._estimates, ahead), (PREDICTION_PX, PREDICTION_PX), determined=False)

    def found(self, image: NDArray[Any] | None, seen: NDArray[np.bool_], sums: HaadfSum) -> Shift:
        """Register the next frame against the sums of those before it; `take` then takes it in.

        Parameters
        ----------
        image : (H, W) real or None
            The frame as it came; None if nothing of it did, or it is the first, whose data wait for nobody.
        seen : (H, W) bool
            What of it is there.
        sums : HaadfSum
            Of the frames before.
        """
        if not self.shifts:
            return self._shift(_STILL, _STILL, determined=True)
        if image is None:
            return self.expected(len(self.shifts))
        return self._found(image, seen, sums)

    def take(self, found: Shift, *, seen: bool) -> None:
        """Take in the shift of the next frame, of which something was seen, or nothing."""
        self.shifts.append(found)
        self._estimates.append(found.estimate_px)
        if seen:
            self._rounded += np.subtract(found.haadf_px, found.estimate_px)
            self._placed += 1

    def _found(self, image: NDArray[Any], seen: NDArray[np.bool_], sums: HaadfSum) -> Shift:
        off = self._rounded / max(self._placed, 1)  # of the mean from the first frame's place
        y, x = np.add(predicted(self._estimates), off)
        there = displacement(image, sums.mean(), sums.exposure, (float(y), float(x)), seen)
        y, x = np.subtract(there.shift_px, off)
        return self._shift((float(y), float(x)), there.sigma_px, determined=there.determined)

    def _shift(self, estimate: Vector, sigma: Vector, *, determined: bool) -> Shift:
        y, x = estimate
        eds = round(y * self._eds_per_haadf), round(x * self._eds_per_haadf)
        return Shift(estimate, sigma, (round(y), round(x)), eds, determined)
