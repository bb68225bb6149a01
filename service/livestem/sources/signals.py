"""What a recorded file offers to a scan: pictures and spectrum images, each readable in bands of rows.

A reader (`velox`, `jeol`, `generic`) turns a file into `Signals`; `pair` chooses the HAADF among the
pictures and the EDS among the spectrum images; `recording` makes tiles of them. Nothing larger than one
frame, or one block of chunks of it, needs to be in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from livestem.domain.scan import Beam
from livestem.sources.events import FrameEvents, check_counts, from_dense

# A block of chunks held decompressed: more than the chunks of common files, little beside a frame of events.
_BLOCK_BYTES = 64 * 2**20

Rows = Callable[[int, int, int], NDArray[np.generic]]  # (frame, y0, y1) -> (y1 - y0, cols)


class Photons(Protocol):
    """The photons of a spectrum image."""

    def events(self, frame: int, y0: int, y1: int) -> FrameEvents:
        """Return the photons of the rows y0 .. y1 - 1 of one frame."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image, or a stack of them over the frames of a scan.

    Attributes
    ----------
    path, number : the file and the picture's number in it, from 1
    title : what the file calls it
    shape : (frames, rows, cols)
    pixel_nm : (y, x) nm, or None if uncalibrated
    rows : reads a band of rows of one frame
    elemental : the picture is an elemental map, not a detector's image
    """

    path: Path
    number: int
    title: str
    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    pixel_nm: tuple[float, float] | None
    rows: Rows
    elemental: bool = False
    collection_mrad: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class SpectrumImage:
    """An EDS spectrum image, all detectors summed.

    Attributes
    ----------
    path, title : as of `Picture`
    shape : (frames, rows, cols, channels)
    pixel_nm : (y, x) nm, or None if uncalibrated
    energy_kev : (offset, scale) keV, or None if uncalibrated
    photons : reads a band of rows of one frame
    counted : values are known to be photon counts, so that nothing needs checking beforehand
    """

    path: Path
    title: str
    shape: tuple[int, int, int, int]
    pixel_nm: tuple[float, float] | None
    energy_kev: tuple[float, float] | None
    photons: Photons
    counted: bool = True
    detectors: tuple[str, ...] = ()
    live_time_s: float | None = None
    real_time_s: float | None = None
    take_off_angle_deg: float | None = None
    energy_resolution_mnka_ev: float | None = None
    elements: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file states about the whole acquisition; None or empty where it does not."""

    beam: Beam = Beam()
    dwell_s: float | None = None
    rotation_deg: float = 0.0
    stage: dict[str, float] = field(default_factory=dict)
    sample: str | None = None
    recorded_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Signals:
    """All that one file offers, with the facts it states and what closes it."""

    pictures: tuple[Picture, ...] = ()
    spectra: tuple[SpectrumImage, ...] = ()
    facts: Facts = Facts()
    warnings: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None


class Cube:
    """An array of (frames, rows, cols[, channels]) read in bands; a lazy one in blocks of whole chunks.

    Parameters
    ----------
    data : numpy or dask array, axes in that order, little- or big-endian
    """

    def __init__(self, data: NDArray[np.generic]) -> None:
        self._data = data
        self._block: tuple[tuple[int, int, int], NDArray[np.generic]] | None = None
        self._bounds = _row_blocks(data)

    def rows(self, frame: int, y0: int, y1: int) -> NDArray[np.generic]:
        """Return the rows y0 .. y1 - 1 of one frame, little-endian; not to be written to."""
        parts, y = [], y0
        while y < y1:
            first, last = self._block_of(y)
            stop = min(y1, last)
            parts.append(self._load(frame, first, last)[y - first : stop - first])
            y = stop
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return values.astype(values.dtype.newbyteorder("<"), copy=False)

    def _block_of(self, y: int) -> tuple[int, int]:
        i = int(np.searchsorted(self._bounds, y, side="right")) - 1
        return self._bounds[i], self._bounds[i + 1]

    def _load(self, frame: int, first: int, last: int) -> NDArray[np.generic]:
        if self._block is None or self._block[0] != (frame, first, last):
            values = self._data[frame, first:last]
            if hasattr(values, "compute"):
                values = values.compute(scheduler="synchronous")  # HDF5 reads one at a time anyway
            if hasattr(values, "todense"):
                values = values.todense()
            self._block = ((frame, first, last), np.asarray(values))
        return self._block[1]


def _row_blocks(data: NDArray[np.generic]) -> list[int]:
    """Bounds of the blocks of rows that are read at once: the whole frame of a plain array."""
    rows = data.shape[1]
    chunks = getattr(data, "chunks", None)
    if chunks is None:
        return [0, rows]
    row_bytes = max(1, int(np.prod(data.shape[2:]))) * data.dtype.itemsize
    bounds, y = [0], 0
    for size in chunks[1]:
        if y > bounds[-1] and (y + size - bounds[-1]) * row_bytes > _BLOCK_BYTES:
            bounds.append(y)
        y += size
    bounds.append(rows)
    return bounds


class DensePhotons:
    """Photons of a dense cube (frames, rows, cols, channels), checked to be counts as they are read."""

    def __init__(self, cube: Cube, where: str) -> None:
        self._cube = cube
        self._where = where

    def events(self, frame: int, y0: int, y1: int) -> FrameEvents:
        """Return the photons of the rows y0 .. y1 - 1 of one frame."""
        values = self._cube.rows(frame, y0, y1)
        check_counts(values, self._where, frame, y0)
        return from_dense(values)
