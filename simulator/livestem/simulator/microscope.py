"""The virtual microscope as an instrument: it takes requests, keeps count of the dose, and its clock goes on.

One specimen is under the beam for one session. Every scan begins where drift has carried the specimen by then and
finds the damage that the scans before it have done. A request is judged at once, against the reach of the
stage and its limits and with the dose of what already waits; what is granted waits in a queue for the beam.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from livestem.domain.errors import RefusedError, UsageError
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.simulator.dose import DoseMap
from livestem.simulator.geometry import Geometry
from livestem.simulator.motion import Motion, Raster
from livestem.simulator.scan import Simulation, frame_dose_e_nm2, standard_raster
from livestem.simulator.scene import Blocks
from livestem.simulator.specimen import Specimen
from livestem.simulator.window import Window

_QUEUE = 16  # scans that may wait: minutes of beam time; whoever wants more should look at results first
_LEAST, _MOST = 8, 4096  # pixels a side: below there is no field, above no service takes it


@dataclass(frozen=True)
class _Granted:
    scan_id: str
    number: int
    raster: Raster  # its start_s is not known before the beam is free
    frames: int
    modalities: tuple[str, ...]
    dose_e_nm2: float


class VirtualMicroscope:
    """One session with one specimen; safe to ask from several threads, scans one after the other.

    Parameters
    ----------
    specimen : Specimen
    seed : int
        Of everything random, 0 or more.
    eds_counts_per_pixel : float, optional
        As for `Simulation`.

    Attributes
    ----------
    dose : DoseMap
        What has fallen on the specimen so far, by place on the specimen.
    time_s : float
        Of the session: beam time and rest.
    """

    def __init__(self, specimen: Specimen, seed: int = 0, *, eds_counts_per_pixel: float | None = None) -> None:
        self.specimen, self.seed = specimen, seed
        self.time_s = 0.0
        self._counts = eds_counts_per_pixel
        self._motion = Motion(specimen.scan.drift, seed)
        height, width = specimen.field_nm
        self.stage = Window(0.0, 0.0, height, width).wider(specimen.reach_nm)
        self.dose = DoseMap()
        self._blocks = Blocks(Geometry(specimen, seed))
        self._rasters: dict[str, Raster] = {}
        self._number = 0
        self._queue: deque[_Granted] = deque()
        self._under_beam: _Granted | None = None
        self._waiting = threading.Condition()

    def request(self, request: ScanRequest) -> ScanGrant:
        """Grant a scan and queue it; quick, so that it may serve an `Acquisition`'s `on_request`.

        Raises
        ------
        RefusedError
            If the stage, its limits or the queue do not allow it; one line that says why and what would.
        """
        with self._waiting:
            if len(self._queue) >= _QUEUE:
                raise RefusedError(f"{_QUEUE} scans wait already; ask again when one is done")
            raster = self._raster(request)
            dose = request.frames * frame_dose_e_nm2(self.specimen, raster)
            self._check(raster, request.frames, dose)
            self._number += 1
            scan_id = f"{self.specimen.name[:40]}-{self.seed}-{self._number:04d}"
            granted = _Granted(scan_id, self._number, raster, request.frames, request.modalities, dose)
            self._check_made(granted)
            self._queue.append(granted)
            self._rasters[scan_id] = raster
            self._waiting.notify()
            return ScanGrant(
                scan_id=scan_id,
                duration_s=request.frames * raster.frame_s,
                dose_e_nm2=dose,
                queued=len(self._queue) - 1,
            )

    def next_scan(self, timeout_s: float | None = None) -> Simulation | None:
        """Take the next granted scan under the beam, as the specimen is now; None if none came within `timeout_s`.

        Raises
        ------
        UsageError
            If drift has meanwhile made it impossible; it is then given up.
        """
        with self._waiting:
            if not self._waiting.wait_for(lambda: bool(self._queue), timeout_s):
                return None
            granted = self._under_beam = self._queue.popleft()
        try:
            return self._simulation(granted, self.time_s)
        except UsageError:
            with self._waiting:
                self._under_beam = None
            raise

    def scanned(self, scan: Simulation, frames: float | None = None) -> None:
        """Account for a scan that the beam has done, or for as many of its frames as it has done."""
        frames = scan.frames if frames is None else frames
        place = self._place(scan.raster, frames)
        with self._waiting:
            self._under_beam = None
            self.dose.add(place, math.floor(frames) * scan.frame_dose_e_nm2)
            self.dose.add(place.upper(frames % 1), scan.frame_dose_e_nm2)  # of the last frame, the rows that were begun
            self.time_s = max(self.time_s, scan.raster.start_s + frames * scan.raster.frame_s)

    def rest(self, seconds: float) -> None:
        """Let time pass without the beam: drift goes on."""
        self.time_s += seconds

    def _raster(self, request: ScanRequest) -> Raster:
        """Return the pixels that a request means, if the stage reaches them."""
        standard = standard_raster(self.specimen, None)
        like, pixel = standard, request.pixel_nm
        y, x = standard.origin_nm
        height, width = self.specimen.field_nm
        if request.region_nm is not None:
            y, x, height, width = request.region_nm
        elif request.region_px is not None and request.of is not None:
            if request.of not in self._rasters:
                known = ", ".join(list(self._rasters)[-3:]) or "none yet"
                raise RefusedError(f"no scan {request.of} in this session; the last ones are {known}")
            like = self._rasters[request.of]
            top, left, rows, cols = request.region_px
            y, x = like.origin_nm[0] + top * like.pixel_nm, like.origin_nm[1] + left * like.pixel_nm
            height, width = rows * like.pixel_nm, cols * like.pixel_nm
        window = Window(y, x, y + height, x + width)
        if not self.stage.holds(window):
            raise RefusedError(f"the region {_words(window)} is outside the stage's {_words(self.stage)}; move it")
        pixel = pixel or like.pixel_nm
        shape = round(height / pixel), round(width / pixel)
        if not all(_LEAST <= side <= _MOST for side in shape):
            raise RefusedError(
                f"{height:g} x {width:g} nm at {pixel:g} nm are {shape[0]} x {shape[1]} pixels, and a scan has "
                f"{_LEAST} to {_MOST} a side; ask for another pixel_nm or region"
            )
        dwell = request.dwell_s or like.dwell_s
        return Raster(shape=shape, pixel_nm=pixel, origin_nm=(y, x), dwell_s=dwell)

    def _check(self, raster: Raster, frames: int, dose_e_nm2: float) -> None:
        """Refuse what the specimen's limits do not allow."""
        limits, window = self.specimen.limits, raster.window
        area = window.size_nm[0] * window.size_nm[1]
        if limits.area_nm2 is not None and area > limits.area_nm2:
            raise RefusedError(f"the region has {area:.4g} nm2, and a scan may have {limits.area_nm2:g} nm2; shrink it")
        time_s = frames * raster.frame_s
        if limits.time_s is not None and time_s > limits.time_s:
            raise RefusedError(
                f"{frames} frames take {time_s:.4g} s, and a scan may take {limits.time_s:g} s; "
                "ask for fewer frames, larger pixels or a shorter dwell"
            )
        if limits.dose_e_nm2 is not None:
            planned, start_s = self._planned()
            had = planned.highest(self._place(replace(raster, start_s=start_s), frames))
            if had + dose_e_nm2 > limits.dose_e_nm2:
                raise RefusedError(
                    f"the region has had {had:.3g} electrons per nm2, this scan adds {dose_e_nm2:.3g}, and "
                    f"{limits.dose_e_nm2:.3g} are allowed; go elsewhere, or ask for fewer frames or larger pixels"
                )

    def _check_made(self, granted: _Granted) -> None:
        """Refuse what the simulator could not make."""
        try:
            self._simulation(granted, self._planned()[1])
        except UsageError as e:
            raise RefusedError(str(e)) from e

    def _simulation(self, granted: _Granted, start_s: float) -> Simulation:
        return Simulation(
            self.specimen,
            self.seed,
            granted.frames,
            eds_counts_per_pixel=self._counts,
            raster=replace(granted.raster, start_s=start_s),
            modalities=granted.modalities,
            before=self.dose.copy(),
            scan_id=granted.scan_id,
            scan_number=granted.number,
            blocks=self._blocks,
        )

    def _planned(self) -> tuple[DoseMap, float]:
        """Return the dose once the scan under the beam and all that wait are done, and when that will be, s."""
        planned, time_s = self.dose.copy(), self.time_s
        for granted in (*([self._under_beam] if self._under_beam else []), *self._queue):
            raster = replace(granted.raster, start_s=time_s)
            planned.add(self._place(raster, granted.frames), granted.dose_e_nm2)
            time_s += granted.frames * raster.frame_s
        return planned, time_s

    def _place(self, raster: Raster, frames: float) -> Window:
        """Return where a scan's dose falls on the specimen: its window where drift has it half way through."""
        down, across = self._motion.offset_nm(np.array(raster.start_s + frames * raster.frame_s / 2))
        return raster.window.moved(float(down), float(across))


def _words(window: Window) -> str:
    return f"y {window.y0:g} to {window.y1:g}, x {window.x0:g} to {window.x1:g} nm"
