"""What a scan has collected so far, and the rule that makes collecting it idempotent.

A piece of data is known by (modality, frame, rectangle). The same piece again is ignored; the same place with
other content, or a rectangle that overlaps an earlier one in part, is rejected: detectors do not do that, so
somebody is wrong. EDS counts and integer HAADF add up exactly in any order. Float HAADF does not, so its frames
are kept and reduced in frame order.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import WireError
from livestem.domain.geometry import Grid
from livestem.domain.scan import ScanPlan
from livestem.wire import messages as m
from livestem.wire.codec import Message


class Occupancy:
    """Which rectangles of which frames of one modality are here."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.pixels = 0  # of all frames
        self._seen: dict[int, NDArray[np.bool_]] = {}
        self._left: dict[int, int] = {}  # frame -> pixels that have not come
        self._whole = np.ones(shape, dtype=bool)  # stands for every complete frame
        self._content: dict[tuple[int, int, int, int, int], int] = {}

    def claim(self, frame: int, y: int, x: int, h: int, w: int, content: int) -> bool:
        """Take a rectangle for new data; False if just this content is here already.

        Raises
        ------
        WireError
            ``outside``, ``conflict`` (other content at the same place) or ``overlap``.
        """
        if y + h > self.shape[0] or x + w > self.shape[1]:
            raise WireError("outside", f"{h} x {w} at y {y}, x {x} in a field of {self.shape}")
        key = (frame, y, x, h, w)
        known = self._content.get(key)
        if known is not None:
            if known != content:
                raise WireError("conflict", f"frame {frame}, y {y}, x {x}: other content than before")
            return False
        seen = self._seen.get(frame)
        if seen is None:
            seen = self._seen[frame] = np.zeros(self.shape, dtype=bool)
            self._left[frame] = seen.size
        if seen[y : y + h, x : x + w].any():
            raise WireError("overlap", f"frame {frame}, {h} x {w} at y {y}, x {x} is partly here already")
        seen[y : y + h, x : x + w] = True
        self._content[key] = content
        self.pixels += h * w
        self._left[frame] -= h * w
        if not self._left[frame]:
            self._seen[frame] = self._whole
        return True

    def missing(self, modality: str, frames: int) -> tuple[m.MissingTile, ...]:
        """Return the bands of rows that never came whole, frame by frame."""
        bands = []
        for frame in range(frames):
            seen = self._seen.get(frame)
            absent = np.ones(self.shape[0], dtype=bool) if seen is None else ~seen.all(axis=1)
            edges = np.flatnonzero(np.diff(np.concatenate(([False], absent, [False])).astype(np.int8)))
            for top, bottom in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                bands.append(m.MissingTile(modality=modality, frame=frame, y=top, h=bottom - top))
        return tuple(bands)

    def coverage(self, frames: int) -> float:
        """Return the share of expected pixels that came, 0..1."""
        expected = frames * self.shape[0] * self.shape[1]
        return self.pixels / expected if expected else 0.0


class HaadfSum:
    """HAADF summed over frames, with exposure."""

    def __init__(self, shape: tuple[int, int], dtype: str) -> None:
        self.occupancy = Occupancy(shape)
        self.exposure = np.zeros(shape, dtype=np.uint32)
        self._dtype = np.dtype(dtype)
        self._exact = self._dtype.kind in "ui"
        self._sum = np.zeros(shape, dtype=np.int64 if self._exact else np.float64)
        self._frames: dict[int, NDArray[Any]] = {}

    def add(self, tile: m.OfScan, arrays: tuple[NDArray[Any], ...]) -> None:
        """Add a tile that occupancy has granted."""
        assert isinstance(tile, m.HaadfRows)
        (values,) = arrays
        where = (slice(tile.y, tile.y + values.shape[0]), slice(tile.x, tile.x + values.shape[1]))
        self.exposure[where] += 1
        self._sum[where] += values
        if not self._exact:
            kept = self._frames.setdefault(tile.frame, np.zeros(self.exposure.shape, dtype=self._dtype))
            kept[where] = values

    def total(self) -> NDArray[np.float64]:
        """Return the sum over frames, float64, the same however the tiles came."""
        if self._exact:
            return self._sum.astype(np.float64)
        total = np.zeros(self.exposure.shape)
        for frame in sorted(self._frames):
            total += self._frames[frame]
        return total

    def mean(self) -> NDArray[np.float64]:
        """Return the mean per visit; 0 where there was none. Quick, for live use."""
        return np.asarray(self._sum / np.maximum(self.exposure, 1), np.float64)


class EdsSum:
    """EDS counts by chip and channel, and by pixel, with exposure; one more row holds what is outside the grid."""

    def __init__(self, shape: tuple[int, int], channels: int, chip_of_pixel: NDArray[np.int32], chips: int) -> None:
        self.occupancy = Occupancy(shape)
        self.exposure = np.zeros(shape, dtype=np.uint32)
        self.spectra = np.zeros((chips + 1, channels), dtype=np.uint32)
        self.pixel_counts = np.zeros(shape, dtype=np.uint32)
        self.counts = 0
        self._chip_of_pixel = chip_of_pixel

    @property
    def channels(self) -> int:
        """Channels of the energy axis."""
        return int(self.spectra.shape[1])

    def add(self, tile: m.OfScan, arrays: tuple[NDArray[Any], ...]) -> None:
        """Add a tile that occupancy has granted."""
        assert isinstance(tile, m.EdsRows)
        where = (slice(tile.y, tile.y + tile.h), slice(tile.x, tile.x + tile.w))
        chips = self._chip_of_pixel[where]
        self.exposure[where] += 1
        if tile.content == "events":
            counts, channels = arrays
            flat = np.repeat(chips.ravel(), counts.ravel()).astype(np.int64) * self.channels + channels
            np.add.at(self.spectra.reshape(-1), flat, np.uint32(1))
            self.pixel_counts[where] += counts
            self.counts += int(channels.size)
            return
        (values,) = arrays
        pixels = values.reshape(-1, self.channels)
        np.add.at(self.spectra, chips.ravel(), pixels.astype(np.uint32, copy=False))
        per_pixel = values.sum(axis=2, dtype=np.uint32)
        self.pixel_counts[where] += per_pixel
        self.counts += int(per_pixel.sum(dtype=np.uint64))


class Accumulator:
    """Everything a scan has collected.

    Parameters
    ----------
    plan : ScanPlan
    grid : Grid
    """

    def __init__(self, plan: ScanPlan, grid: Grid) -> None:
        self.plan, self.grid = plan, grid
        self.frames_seen = 0
        self.frames_stated = 0  # by `scan_end`: of an open-ended scan the only word on how many there were
        self.haadf = None if plan.haadf is None else HaadfSum(plan.haadf.sampling.shape, plan.haadf.dtype)
        self.eds: EdsSum | None = None
        self._chips: dict[str, NDArray[np.int32]] = {}
        for modality, side in (("haadf", grid.haadf_px), ("eds", grid.eds_px)):
            if side is not None:
                self._chips[modality] = grid.chip_of_pixel(plan.sampling(modality).shape, side)
        if plan.eds is not None:
            channels = plan.eds.energy.channels
            self.eds = EdsSum(plan.eds.sampling.shape, channels, self._chips["eds"], grid.chips)
        self.dirty = np.zeros(grid.chips + 1, dtype=bool)

    def apply(self, message: Message) -> bool:
        """Count a tile in; False if it was here already.

        Raises
        ------
        WireError
            If it cannot be part of this scan; nothing is changed then.
        """
        tile, arrays = message.header, message.arrays
        part: HaadfSum | EdsSum
        if isinstance(tile, m.HaadfRows):
            part, modality, (h, w) = self._haadf(arrays[0]), "haadf", arrays[0].shape
        elif isinstance(tile, m.EdsRows):
            part, modality, (h, w) = self._eds(tile, arrays), "eds", (tile.h, tile.w)
        else:
            raise TypeError(f"{tile!r} is no tile")
        if self.plan.frames is not None and tile.frame >= self.plan.frames:
            raise WireError("outside", f"frame {tile.frame} of {self.plan.frames} planned")
        if not part.occupancy.claim(tile.frame, tile.y, tile.x, h, w, _content(tile, arrays)):
            return False
        part.add(tile, arrays)
        self.frames_seen = max(self.frames_seen, tile.frame + 1)
        self.dirty[self._chips[modality][tile.y : tile.y + h, tile.x : tile.x + w]] = True
        return True

    @property
    def counts(self) -> int | None:
        """EDS photons counted in; None if the scan has no EDS."""
        return None if self.eds is None else self.eds.counts

    def coverage(self) -> m.Coverage:
        """Return the share of expected pixels that came, by modality."""
        return m.Coverage(**{k: p.occupancy.coverage(self._frames(k)) for k, p in self._parts().items()})

    def missing(self) -> tuple[m.MissingTile, ...]:
        """Return the rows that never came."""
        return tuple(t for k, p in self._parts().items() for t in p.occupancy.missing(k, self._frames(k)))

    def input_digest(self) -> str:
        """Return the SHA-256 of what was measured and where: equal however the data came."""
        digest = hashlib.sha256()
        geometry = {k: self.plan.sampling(k) for k in self.plan.modalities}
        axis = None if self.plan.eds is None else self.plan.eds.energy
        digest.update(msgspec.json.encode([geometry, axis, self.grid], order="sorted"))
        arrays: list[NDArray[Any]] = []
        if self.haadf is not None:
            arrays += [self.haadf.total(), self.haadf.exposure]
        if self.eds is not None:
            arrays += [self.eds.spectra, self.eds.pixel_counts, self.eds.exposure]
        for array in arrays:
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(f"{little.dtype.str}{little.shape}".encode())
            digest.update(little.data)
        return digest.hexdigest()

    def _parts(self) -> dict[str, HaadfSum | EdsSum]:
        parts = {"haadf": self.haadf, "eds": self.eds}
        return {k: p for k, p in parts.items() if p is not None}

    def _frames(self, modality: str) -> int:
        return self.plan.frames_of(modality, max(self.frames_seen, self.frames_stated))

    def _haadf(self, values: NDArray[Any]) -> HaadfSum:
        if self.haadf is None or self.plan.haadf is None:
            raise WireError("outside", "HAADF in a scan that announced none")
        if values.dtype != np.dtype(self.plan.haadf.dtype):
            raise WireError("payload", f"HAADF as {values.dtype}, announced as {self.plan.haadf.dtype}")
        return self.haadf

    def _eds(self, tile: m.EdsRows, arrays: tuple[NDArray[Any], ...]) -> EdsSum:
        if self.eds is None:
            raise WireError("outside", "EDS in a scan that announced none")
        if tile.content == "dense" and arrays[0].shape[2] != self.eds.channels:
            raise WireError("payload", f"spectra of {arrays[0].shape[2]} channels, {self.eds.channels} announced")
        if tile.content == "events" and arrays[1].size and int(arrays[1].max()) >= self.eds.channels:
            raise WireError("outside", f"channel {int(arrays[1].max())} of {self.eds.channels}")
        return self.eds


def memory_bytes(plan: ScanPlan, grid: Grid) -> int:
    """Estimate what the accumulator of a planned scan will take, bytes."""
    total = 0
    for modality in plan.modalities:
        rows, cols = plan.sampling(modality).shape
        total += rows * cols * 40  # sums, exposure, maps, occupancy of the frames under way
    if plan.haadf is not None and np.dtype(plan.haadf.dtype).kind == "f":
        rows, cols = plan.haadf.sampling.shape
        total += rows * cols * np.dtype(plan.haadf.dtype).itemsize * plan.frames_of("haadf", 1)
    if plan.eds is not None:
        total += 4 * (grid.chips + 1) * plan.eds.energy.channels
    return total


def _content(tile: m.HaadfRows | m.EdsRows, arrays: tuple[NDArray[Any], ...]) -> int:
    """Return a checksum of a tile's data, whatever codec they came in."""
    crc = zlib.crc32(type(tile).__name__.encode())
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data, crc)
    return crc
