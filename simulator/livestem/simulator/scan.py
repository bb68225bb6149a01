"""A simulated scan: a plan, tiles in the order in which the beam would write them, and the truth.

Frame n follows from (specimen, seed, n) and the scan's settings alone: its random numbers come from
``SeedSequence([seed, n])``, so any frame can be made again, in any order and cut into any tiles, without the
ones before it. The atoms of grains and of amorphous matter come from the seed alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Sampling
from livestem.domain.scan import Beam, Eds, Haadf, ScanPlan
from livestem.domain.tiles import EdsEvents, HaadfTile, Tile
from livestem.simulator.atoms import place_atoms
from livestem.simulator.eds import Emission, emission, photons
from livestem.simulator.haadf import Scene, detect, electrons_per_pixel, render
from livestem.simulator.specimen import Specimen
from livestem.simulator.truth import Truth, truth_of

SOURCE = "simulator"
_STRUCTURE = (0,)  # spawn key of the random numbers that place atoms: apart from every frame's
_SMALLEST, _LARGEST = 8, 8192  # pixels a side: below there is no field, above no microscope
_MOST_COUNTS = 1000.0  # photons per pixel and frame: far beyond any detector, and uint16 still holds them
_ROWS = 32  # of a tile: a frame of 320 rows comes in ten pieces, so that live maps have something to follow
_SQUARE = 0.01  # what the grid of chips accepts as square pixels


@dataclass(frozen=True)
class Frame:
    """One pass of the beam: HAADF (H, W), EDS counts (H, W) and channels (sum of counts,), all uint16."""

    number: int
    haadf: NDArray[np.uint16]
    counts: NDArray[np.uint16]
    channels: NDArray[np.uint16]


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
        Probe positions over the specimen's field, which stays the same: fewer of them are larger pixels.
        The specimen's own if None.
    eds_counts_per_pixel : float, optional
        Mean photons per pixel and *frame* over the field; the specimen's own if None.

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
    ) -> None:
        self.specimen = specimen
        self.seed = seed
        self.frames = frames
        self.shape = shape or specimen.scan.shape
        self.counts_per_pixel = specimen.eds.counts_per_pixel if eds_counts_per_pixel is None else eds_counts_per_pixel
        self._check()

    @property
    def pixel_nm(self) -> tuple[float, float]:
        """(y, x) size of a pixel, nm."""
        field = self.specimen.field_nm
        return field[0] / self.shape[0], field[1] / self.shape[1]

    @cached_property
    def scan_id(self) -> str:
        """Name that derives from all that decides the scan's content: equal names, equal data."""
        facts = (self.specimen.digest, self.seed, self.frames, self.shape, self.counts_per_pixel)
        return f"{self.specimen.name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:10]}"

    @cached_property
    def plan(self) -> ScanPlan:
        """What the microscope states about the scan at its start."""
        specimen, sampling = self.specimen, Sampling(shape=self.shape, pixel_nm=self.pixel_nm)
        beam, eds = specimen.beam, specimen.eds
        scan_s = self.shape[0] * self.shape[1] * specimen.scan.dwell_s * self.frames
        return ScanPlan(
            haadf=Haadf(sampling=sampling, dtype="uint16", detector="HAADF"),
            eds=Eds(
                sampling=sampling,
                energy=eds.energy,
                detectors=("simulated",),
                live_time_s=scan_s,
                real_time_s=scan_s,
                energy_resolution_mnka_ev=eds.resolution_mnka_ev,
                elements=(*specimen.elements, *(e for e in specimen.strays if e not in specimen.elements)),
            ),
            frames=self.frames,
            dwell_s=specimen.scan.dwell_s,
            beam=Beam(
                energy_kv=beam.energy_kv,
                current_pa=beam.current_pa,
                convergence_mrad=beam.convergence_mrad,
                collection_mrad=beam.collection_mrad,
            ),
            sample=specimen.title,
            source=SOURCE,
            vendor={"specimen": specimen.digest, "seed": self.seed, "thickness_nm": specimen.thickness_nm},
        )

    @cached_property
    def truth(self) -> Truth:
        """What the field really is."""
        return truth_of(self.specimen, self.shape)

    @cached_property
    def scene(self) -> Scene:
        """The noiseless HAADF image, finer than the scan's pixels."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=_STRUCTURE))
        return render(self.specimen, place_atoms(self.specimen, rng))

    @cached_property
    def emission(self) -> Emission:
        """The expected EDS spectrum of every class."""
        return emission(self.specimen)

    def frame(self, number: int) -> Frame:
        """Return frame `number`, 0 or more; not limited to the frames planned."""
        if number < 0:
            raise UsageError(f"frames count from 0; there is no frame {number}")
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        y, x = self.specimen.pixel_centres_nm(self.shape)
        slip = rng.normal(0, self.specimen.scan.row_jitter_nm, (self.shape[0], 1))
        share = self.scene.at(y, x + slip)
        haadf = detect(share * electrons_per_pixel(self.specimen), self.specimen.haadf, rng)
        classes = self.truth.class_of_pixel
        counts, channels = photons(self._photon_rate, classes, self.emission.cumulative, rng)
        return Frame(number, haadf, counts, channels)

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        """Yield the tiles of all frames in time order, HAADF before EDS of the same rows.

        Parameters
        ----------
        rows_per_tile : int, optional
            Rows of a tile, at least 1; the last one of a frame may have fewer. By default 32.
        """
        rows_per_tile = _ROWS if rows_per_tile is None else rows_per_tile
        if rows_per_tile < 1:
            raise UsageError(f"a tile needs at least 1 row, got {rows_per_tile}")
        for number in range(self.frames):
            yield from cut(self.frame(number), rows_per_tile)

    @cached_property
    def _photon_rate(self) -> NDArray[np.float64]:
        rate = self.emission.brightness[self.truth.class_of_pixel]
        return np.asarray(rate * (self.counts_per_pixel / rate.mean()))

    def _check(self) -> None:
        if self.seed < 0:
            raise UsageError(f"--seed must be 0 or more, got {self.seed}")
        if self.frames < 1:
            raise UsageError(f"--frames must be at least 1, got {self.frames}")
        if not all(_SMALLEST <= side <= _LARGEST for side in self.shape):
            raise UsageError(f"a scan needs {_SMALLEST} to {_LARGEST} pixels a side, got {self.shape}")
        if not (math.isfinite(self.counts_per_pixel) and 0 <= self.counts_per_pixel <= _MOST_COUNTS):
            raise UsageError(f"EDS counts per pixel must be 0 to {_MOST_COUNTS:g}, got {self.counts_per_pixel}")
        if abs(self.pixel_nm[0] / self.pixel_nm[1] - 1) > _SQUARE:
            height, width = self.specimen.field_nm
            raise UsageError(
                f"{self.shape[0]} x {self.shape[1]} pixels over {height:g} x {width:g} nm are not square; "
                f"use {self.shape[0]} x {round(self.shape[0] * width / height)}"
            )


def cut(frame: Frame, rows_per_tile: int) -> Iterator[Tile]:
    """Cut a frame into tiles of whole rows, HAADF before EDS."""
    height, width = frame.haadf.shape
    ends = np.concatenate([[0], np.cumsum(frame.counts.sum(axis=1, dtype=np.int64))])
    for y in range(0, height, rows_per_tile):
        stop = min(y + rows_per_tile, height)
        yield HaadfTile(frame=frame.number, y=y, x=0, values=frame.haadf[y:stop])
        yield EdsEvents(
            frame=frame.number,
            y=y,
            x=0,
            counts=frame.counts[y:stop],
            channels=frame.channels[ends[y] : ends[stop]],
        )
