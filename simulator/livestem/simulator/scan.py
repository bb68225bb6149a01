"""A simulated scan: a plan, tiles in the order in which the beam would write them, and the truth.

Frame n follows from (specimen, seed, n) and the scan's settings alone: its random numbers come from
``SeedSequence([seed, n])``, so any frame can be made again, in any order and cut into any tiles, without the
ones before it. Where the atoms are comes from the seed alone, where the beam stands from the session's clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Sampling
from livestem.domain.parameters import Processing
from livestem.domain.scan import Beam, Eds, Haadf, ScanPlan
from livestem.domain.tiles import Tile
from livestem.domain.truth import Truth
from livestem.simulator.dose import DoseMap
from livestem.simulator.eds import emission
from livestem.simulator.field_truth import truth_of
from livestem.simulator.frames import Frame, cut
from livestem.simulator.geometry import Geometry
from livestem.simulator.haadf import detect, electrons_per_pixel
from livestem.simulator.motion import Motion, Raster, places
from livestem.simulator.parts import Floats
from livestem.simulator.photons import EmissionMap, brightness_of
from livestem.simulator.scene import Blocks, Scene, channelling_warnings
from livestem.simulator.specimen import Specimen
from livestem.simulator.window import Window

SOURCE = "simulator"
MODALITIES = ("haadf", "eds")
_SMALLEST, _LARGEST = 8, 8192  # pixels a side: below there is no field, above no microscope
_MOST_FRAMES = 100_000  # what a service takes; fifteen hours of the usual frame
_MOST_SEEN_NM2 = 5000.0  # 64 x 64 nm and their drift: the scene of more would not fit into 1 GiB
_MOST_COUNTS = 1000.0  # photons per pixel and frame: far beyond any detector, and uint16 still holds them
_ROWS = 32  # of a tile: a frame of 320 rows comes in ten pieces, so that live maps have something to follow
_SQUARE = 0.01  # what the grid of chips accepts as square pixels, and we as equal ones
_EMISSION_STEP_NM = 0.1  # of the map of X-rays: finer than their delocalisation, half the thinnest layer's pixel
_BLURRED = 5  # sigmas of delocalisation beyond which the map of X-rays may end: a blur reaches four
_LOOKS, _MOST_LOOKS = 8, 50_000  # at the wander, in the time in which it changes; and in all
_SLIPS = 4  # sigmas of a row's slip that the scene leaves room for


class Simulation:
    """One scan of a specimen.

    Parameters
    ----------
    specimen : Specimen
    seed : int
        Of everything random, 0 or more.
    frames : int
        Passes of the beam, at least 1.
    shape : (rows, cols), optional
        Probe positions over the standard field, which stays the same: fewer of them are larger pixels.
        The specimen's own if None.
    eds_counts_per_pixel : float, optional
        Mean photons per pixel and *frame* over the standard field at the specimen's dwell time; the specimen's own
        if None.
    raster : Raster, optional
        Another field, pixel, dwell or time than the standard ones; instead of `shape`.
    modalities : tuple of {"haadf", "eds"}
        What is measured.
    before : DoseMap, optional
        What had fallen on the specimen before; nothing if None.
    scan_id : str, optional
        Its name; by default one that derives from all that decides the scan's content.
    scan_number : int
        Of the session: each scan has noise of its own.
    blocks : Blocks, optional
        Of the specimen's scene, shared with other scans of the session; of this specimen and seed.

    Raises
    ------
    UsageError
        If these settings make no scan.
    """

    def __init__(
        self,
        specimen: Specimen,
        seed: int = 0,
        frames: int = 10,
        *,
        shape: tuple[int, int] | None = None,
        eds_counts_per_pixel: float | None = None,
        raster: Raster | None = None,
        modalities: tuple[str, ...] = MODALITIES,
        before: DoseMap | None = None,
        scan_id: str | None = None,
        scan_number: int = 0,
        blocks: Blocks | None = None,
    ) -> None:
        self.specimen = specimen
        self.seed = seed
        self.frames = frames
        self.counts_per_pixel = specimen.eds.counts_per_pixel if eds_counts_per_pixel is None else eds_counts_per_pixel
        self.modalities = tuple(m for m in MODALITIES if m in modalities)
        self._check()
        self.raster = raster or standard_raster(specimen, shape)
        self._before, self._name, self._number = before, scan_id, scan_number
        self._blocks = blocks or Blocks(Geometry(specimen, seed))
        self._check_raster()

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of the scan."""
        return self.raster.shape

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of this scan's physics."""
        return channelling_warnings(self.specimen)

    @property
    def frame_dose_e_nm2(self) -> float:
        """Electrons per nm^2 that one frame puts on the field."""
        return frame_dose_e_nm2(self.specimen, self.raster)

    @cached_property
    def scan_id(self) -> str:
        """Name of the scan: of scans that nobody named, equal names mean equal data."""
        if self._name is not None:
            return self._name
        before = "" if self._before is None else self._before.digest
        facts = (
            self.specimen.digest, self.seed, self.frames, self.raster, self.counts_per_pixel, self.modalities, before,
            self._number,
        )  # fmt: skip
        return f"{self.specimen.name[:40]}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:10]}"

    @cached_property
    def plan(self) -> ScanPlan:
        """What the microscope states about the scan at its start."""
        specimen, raster = self.specimen, self.raster
        sampling = Sampling(shape=raster.shape, pixel_nm=(raster.pixel_nm,) * 2, origin_nm=raster.origin_nm)
        beam, eds = specimen.beam, specimen.eds
        scan_s = raster.frame_s * self.frames
        return ScanPlan(
            haadf=Haadf(sampling=sampling, dtype="uint16", detector="HAADF") if "haadf" in self.modalities else None,
            eds=Eds(
                sampling=sampling,
                energy=eds.energy,
                detectors=("simulated",),
                live_time_s=scan_s,
                real_time_s=scan_s,
                take_off_angle_deg=eds.take_off_deg,
                energy_resolution_mnka_ev=eds.resolution_mnka_ev,
                elements=(*specimen.elements, *(e for e in specimen.strays if e not in specimen.elements)),
            )
            if "eds" in self.modalities
            else None,
            frames=self.frames,
            dwell_s=raster.dwell_s,
            beam=Beam(
                energy_kv=beam.energy_kv,
                current_pa=beam.current_pa,
                convergence_mrad=beam.convergence_mrad,
                collection_mrad=beam.collection_mrad,
            ),
            sample=specimen.title,
            source=SOURCE,
            processing=self._processing(),
            vendor={"specimen": specimen.digest, "seed": self.seed, "thickness_nm": specimen.thickness_nm},
        )

    @property
    def geometry(self) -> Geometry:
        """The specimen as the seed has made it."""
        return self._blocks.geometry

    @cached_property
    def motion(self) -> Motion:
        """The way of the beam in the session."""
        return Motion(self.specimen.scan.drift, self.seed)

    @cached_property
    def truth(self) -> Truth:
        """What the scan really shows once it is complete."""
        return self.truth_after(self.frames)

    def truth_after(self, frames: float) -> Truth:
        """Return what the scan shows if the beam has done so many of its frames, more than 0; parts of one count."""
        before = self._before or DoseMap()
        return truth_of(self.geometry, self.raster, self.motion, frames, self.scan_id, before, self.frame_dose_e_nm2)

    @cached_property
    def window(self) -> Window:
        """What of the specimen the beam sees in all frames."""
        settings = self.specimen.scan
        times = self.raster.frame_times_s(self.frames + 1)
        often = min(_MOST_LOOKS, math.ceil(_LOOKS * (times[-1] - times[0]) / settings.drift.wander_s) + 1)
        times = np.concatenate([times, np.linspace(times[0], times[-1], often)])
        down, across = self.motion.offset_nm(times)
        slip = _SLIPS * settings.row_jitter_nm
        seen = self.raster.window
        return Window(
            seen.y0 + down.min(),
            seen.x0 + across.min() - slip - settings.flyback_nm,
            seen.y1 + down.max(),
            seen.x1 + across.max() + slip,
        )

    @cached_property
    def scene(self) -> Scene:
        """The noiseless HAADF image, finer than the scan's pixels."""
        return self._blocks.scene(self.window)

    @cached_property
    def photons(self) -> EmissionMap:
        """The expected X-rays, and the photons drawn from them."""
        eds, step = self.specimen.eds, _EMISSION_STEP_NM
        window = self.window.wider(_BLURRED * eds.delocalisation_nm + step)
        crossed, first = self._crossed(window)
        standard, _ = self._crossed(standard_raster(self.specimen, None).window)
        emitted = emission(self.specimen, self.geometry.thicknesses_nm())
        dwell = self.raster.dwell_s / self.specimen.scan.dwell_s
        noise = eds.counts_per_pixel * eds.zero_peak_share / (1 - eds.zero_peak_share)  # however bright the specimen is
        return EmissionMap(
            emitted,
            crossed,
            (first[0] * step, first[1] * step),
            step,
            dwell * self.counts_per_pixel / float(brightness_of(emitted, standard).mean()),
            dwell * noise,
            eds.delocalisation_nm,
        )

    def frame(self, number: int) -> Frame:
        """Return frame `number`, 0 or more and below `frames`."""
        if not 0 <= number < self.frames:
            raise UsageError(f"frames count from 0 to {self.frames - 1}; there is no frame {number}")
        seeds = np.random.SeedSequence([self.seed, number], spawn_key=(self._number,)).spawn(3)
        way, image, spectra = (np.random.default_rng(seed) for seed in seeds)  # what one draws is nothing to the others
        y, x = places(self.raster, self.motion, self.specimen.scan, number, way)
        haadf = counts = channels = None
        if "haadf" in self.modalities:
            electrons = electrons_per_pixel(self.specimen.beam, self.raster.dwell_s)
            haadf = detect(self._share(y, x, number) * electrons, self.specimen.haadf, image)
        if "eds" in self.modalities:
            counts, channels = self.photons.draw(y, x, spectra)
        return Frame(number, haadf, counts, channels)

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        """Yield the tiles of all frames in time order, HAADF before EDS of the same rows.

        Parameters
        ----------
        rows_per_tile : int, optional
            Rows of a tile, at least 1; the last one of a frame may have fewer. By default 32.
        """
        for number in range(self.frames):
            yield from self.tiles_of(number, rows_per_tile)

    def tiles_of(self, frame: int, rows_per_tile: int | None = None) -> Iterator[Tile]:
        """Yield the tiles of one frame, as `tiles` does."""
        rows_per_tile = _ROWS if rows_per_tile is None else rows_per_tile
        if rows_per_tile < 1:
            raise UsageError(f"a tile needs at least 1 row, got {rows_per_tile}")
        yield from cut(self.frame(frame), rows_per_tile)

    @cached_property
    def _ruin(self) -> Scene:
        """The scene with all order lost."""
        return self._blocks.scene(self.window, ordered=False)

    def _share(self, y: Floats, x: Floats, number: int) -> Floats:
        """Return the share of the beam that is scattered, order lost as the dose so far has it."""
        critical = self.specimen.critical_dose_e_nm2
        if critical is None:
            return self.scene.at(y, x)
        dose = number * self.frame_dose_e_nm2
        fallen = dose if self._before is None else self._before.at(y[:, None], x) + dose
        order = np.exp(-np.asarray(fallen) / critical)
        return np.asarray(order * self.scene.at(y, x) + (1 - order) * self._ruin.at(y, x))

    def _processing(self) -> Processing | None:
        """Return what the scan asks of the service: which elements are strays, and chips, if pixels are as meant."""
        meant = abs(self.raster.pixel_nm * self.specimen.scan.shape[1] / self.specimen.field_nm[1] - 1) < _SQUARE
        strays = tuple(self.specimen.strays) if "eds" in self.modalities else ()
        asked = Processing(chip_px=self.specimen.chip_px if meant else None, strays=strays or None)
        return None if asked == Processing() else asked

    def _crossed(self, window: Window) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """Return what the beam crosses in a window, and its first point (row, col) on a grid that all windows share."""
        y, x = (
            np.arange(math.floor(low / _EMISSION_STEP_NM), math.ceil(high / _EMISSION_STEP_NM) + 1, dtype=np.float64)
            for low, high in ((window.y0, window.y1), (window.x0, window.x1))
        )
        return self.geometry.crossed_nm(y * _EMISSION_STEP_NM, x * _EMISSION_STEP_NM), (int(y[0]), int(x[0]))

    def _check(self) -> None:
        if self.seed < 0:
            raise UsageError(f"--seed must be 0 or more, got {self.seed}")
        if not 1 <= self.frames <= _MOST_FRAMES:
            raise UsageError(f"--frames must be 1 to {_MOST_FRAMES}, got {self.frames}")
        if not self.modalities:
            raise UsageError("a scan needs HAADF, EDS or both")
        if not (math.isfinite(self.counts_per_pixel) and 0 <= self.counts_per_pixel <= _MOST_COUNTS):
            raise UsageError(f"EDS counts per pixel must be 0 to {_MOST_COUNTS:g}, got {self.counts_per_pixel}")

    def _check_raster(self) -> None:
        if not all(_SMALLEST <= side <= _LARGEST for side in self.shape):
            raise UsageError(f"a scan needs {_SMALLEST} to {_LARGEST} pixels a side, got {self.shape}")
        height, width = self.window.size_nm
        if height * width > _MOST_SEEN_NM2:
            raise UsageError(
                f"the beam would see {height:.4g} x {width:.4g} nm of the specimen, drift included, and "
                f"{_MOST_SEEN_NM2:g} nm2 can be made; ask for a smaller field, fewer frames, or less drift"
            )


def frame_dose_e_nm2(specimen: Specimen, raster: Raster) -> float:
    """Return the electrons per nm^2 that one frame puts on a field."""
    return electrons_per_pixel(specimen.beam, raster.dwell_s) / raster.pixel_nm**2


def standard_raster(specimen: Specimen, shape: tuple[int, int] | None) -> Raster:
    """Return the standard scan of a specimen, with `shape` (rows, cols) probe positions if given.

    Raises
    ------
    UsageError
        If its pixels would not be square.
    """
    shape = shape or specimen.scan.shape
    height, width = specimen.field_nm
    if min(shape) < 1:
        raise UsageError(f"a scan needs {_SMALLEST} to {_LARGEST} pixels a side, got {shape}")
    if abs((height / shape[0]) / (width / shape[1]) - 1) > _SQUARE:
        raise UsageError(
            f"{shape[0]} x {shape[1]} pixels over {height:g} x {width:g} nm are not square; "
            f"use {shape[0]} x {round(shape[0] * width / height)}"
        )
    return Raster(shape=shape, pixel_nm=width / shape[1], origin_nm=(0.0, 0.0), dwell_s=specimen.scan.dwell_s)
