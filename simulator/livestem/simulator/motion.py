"""Where the beam stands on the specimen: the scan as it is meant, and what jitter, flyback and drift make of it.

The specimen creeps under the beam, in the frame's own time and between scans, so every place follows from the
session's clock. Rows slip sideways one by one; at the start of a row the coils still lag.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from livestem.simulator.instrument import Drift, ScanSettings
from livestem.simulator.parts import Floats
from livestem.simulator.waves import Waves
from livestem.simulator.window import Window

_DRIFT = (3,)  # spawn key of the random numbers of wander: apart from structure and noise


class Motion:
    """The way of the beam over the specimen in a session, nm, as a function of its time, s."""

    def __init__(self, drift: Drift, seed: int) -> None:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=_DRIFT))
        self._velocity = drift.velocity_nm_s
        self._wander = [Waves(drift.wander_nm, drift.wander_s, rng) for _ in "yx"]
        self._start = [float(wander(np.zeros(()))) for wander in self._wander]

    def offset_nm(self, time_s: Floats) -> tuple[Floats, Floats]:
        """Return how far (y, x) the beam stands from where it would on a specimen at rest; 0 at time 0."""
        y, x = (
            np.asarray(velocity * time_s + wander(time_s) - start)
            for velocity, wander, start in zip(self._velocity, self._wander, self._start, strict=True)
        )
        return y, x


@dataclass(frozen=True, kw_only=True)
class Raster:
    """One scan's pixels: where they are meant to be, and when the beam is there.

    Attributes
    ----------
    shape : (rows, cols)
    pixel_nm : side of a square pixel, nm
    origin_nm : (y, x) of the first pixel's corner in the session's frame, nm
    dwell_s : per pixel and frame, s
    start_s : of the scan in the session's time, s
    """

    shape: tuple[int, int]
    pixel_nm: float
    origin_nm: tuple[float, float]
    dwell_s: float
    start_s: float = 0.0

    @property
    def frame_s(self) -> float:
        """Time of one frame, s."""
        return self.shape[0] * self.shape[1] * self.dwell_s

    @property
    def window(self) -> Window:
        """The scan's rectangle, nm."""
        (y, x), (rows, cols) = self.origin_nm, self.shape
        return Window(y, x, y + rows * self.pixel_nm, x + cols * self.pixel_nm)

    def centres_nm(self) -> tuple[Floats, Floats]:
        """Return y (rows,) and x (cols,) of the pixels' middles, nm."""
        (y, x), (rows, cols) = self.origin_nm, self.shape
        down, across = np.arange(rows, dtype=np.float64), np.arange(cols, dtype=np.float64)
        return y + (down + 0.5) * self.pixel_nm, x + (across + 0.5) * self.pixel_nm

    def frame_times_s(self, frames: int) -> Floats:
        """Return when each of the first frames begins, s."""
        return np.asarray(self.start_s + self.frame_s * np.arange(frames))

    def row_times_s(self, frame: int) -> Floats:
        """Return when each row of a frame begins, s."""
        return np.asarray(self.start_s + frame * self.frame_s + np.arange(self.shape[0]) * self.shape[1] * self.dwell_s)


def drifted(raster: Raster, motion: Motion, frame: int) -> tuple[Floats, Floats]:
    """Return y (rows,) and x (rows, cols) on the specimen as drift alone displaces them, nm.

    Within a row drift is left out: a row takes a millisecond, and drift picometres of it.
    """
    y, x = raster.centres_nm()
    down, across = motion.offset_nm(raster.row_times_s(frame))
    return y + down, x + across[:, None]


def places(
    raster: Raster, motion: Motion, settings: ScanSettings, frame: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return y (rows,) and x (rows, cols) on the specimen that the beam visits in a frame, nm."""
    y, x = drifted(raster, motion, frame)
    slip = rng.normal(0, settings.row_jitter_nm, (raster.shape[0], 1))
    since_flyback = np.arange(raster.shape[1]) * raster.dwell_s
    lag = settings.flyback_nm * np.exp(-since_flyback / settings.flyback_s)
    return y, x + slip - lag
