"""What has been received of one modality: which rectangles of which frames, and a checksum of their content.

A piece of data is known by (frame, rectangle). The same piece again is ignored; the same place with other content, or
a rectangle that overlaps an earlier one in part, is rejected: detectors do not do that, so somebody is wrong.

The checksum knows every value by its frame and pixel and is a sum, so it is the same whatever the order, the tiles and
the form in which the values came. It says what was measured; where registration then put it is another matter.

What never came is told in rectangles that do not overlap, and exactly: the columns of one are a whole gap in each of
its rows, and no row above or below has just this gap. So rows that lack everything are one band. Of a frame that would
take more than `MOST_HOLES` rectangles the rows that are not whole are told whole: coarse, and said so.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import WireError
from livestem.wire import messages as m

MOST_SEEN = 2**30  # bytes of maps of frames that are here in part: 64 of 4096 x 4096 pixels, 4096 of 512 x 512
MOST_HOLES = 1024  # of one frame and modality: eight detectors' tiles a row of 128; single pixels could make millions
_WORD = 2**64


class Hole(NamedTuple):
    """A rectangle of a frame, pixels: first row, first column, rows, columns."""

    y: int
    x: int
    h: int
    w: int


class Occupancy:
    """Which rectangles of which frames of one modality are here.

    Attributes
    ----------
    shape : (rows, cols) of the field
    pixels : received, of all frames
    checksum : of everything received, 0 .. 2^64 - 1
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.pixels = 0
        self.checksum = 0
        self._seen: dict[int, NDArray[np.bool_]] = {}
        self._left: dict[int, int] = {}  # frame -> pixels that have not come
        self._parts = 0  # frames that are here in part: each has a map of its own
        self._whole = np.ones(shape, dtype=bool)  # stands for every complete frame
        self._content: dict[tuple[int, int, int, int, int], int] = {}

    def claim(self, frame: int, y: int, x: int, h: int, w: int, content: int) -> bool:
        """Take a rectangle for new data; False if just this content is here already.

        Raises
        ------
        WireError
            ``outside``, ``conflict`` (other content at the same place), ``overlap``, or ``limit`` (too many frames
            are here in part).
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
            if self._parts * self._whole.size >= MOST_SEEN:
                raise WireError("limit", f"frame {frame}: {self._parts} frames are here in part, and no more may be")
            self._parts += 1
            seen = self._seen[frame] = np.zeros(self.shape, dtype=bool)
            self._left[frame] = seen.size
        if seen[y : y + h, x : x + w].any():
            raise WireError("overlap", f"frame {frame}, {h} x {w} at y {y}, x {x} is partly here already")
        seen[y : y + h, x : x + w] = True
        self._content[key] = content
        self.pixels += h * w
        self._left[frame] -= h * w
        if not self._left[frame]:
            self._parts -= 1
            self._seen[frame] = self._whole
        return True

    def add(self, checksum: int) -> None:
        """Add to the checksum that of values at places (frame and pixel as `places_of` numbers them)."""
        self.checksum = (self.checksum + checksum) % _WORD

    def places_of(self, frame: int, y: int, x: int, h: int, w: int) -> NDArray[np.uint64]:
        """Return the numbers (h * w,) of a rectangle's pixels, row by row; no two pixels of a scan share one."""
        rows = (frame * self.shape[0] + y + np.arange(h, dtype=np.uint64)) * np.uint64(self.shape[1])
        return (rows[:, None] + (x + np.arange(w, dtype=np.uint64))).ravel()

    @property
    def newest(self) -> int:
        """The newest frame that anything has come of; 0 before."""
        return max(self._seen, default=0)

    def complete(self, frame: int) -> bool:
        """Return whether a frame is all here."""
        return self._left.get(frame) == 0

    def seen(self, frame: int) -> NDArray[np.bool_]:
        """Return (H, W) which pixels of a frame are here; not to be written to."""
        seen = self._seen.get(frame)
        return np.zeros(self.shape, dtype=bool) if seen is None else seen

    def missing(self, modality: str, frames: int) -> tuple[m.MissingTile, ...]:
        """Return what never came, frame by frame; full rows without `x` and `w`."""
        found = []
        for frame in range(frames):
            for y, x, h, w in self.holes(frame):
                columns = None if w == self.shape[1] else w
                found.append(m.MissingTile(modality=modality, frame=frame, y=y, h=h, x=x, w=columns))
        return tuple(found)

    def holes(self, frame: int) -> list[Hole]:
        """Return what of a frame never came, from the top; of one that is too scattered in whole rows."""
        if self.complete(frame):
            return []
        seen = self._seen.get(frame)
        if seen is None:
            return [Hole(0, 0, *self.shape)]
        return rectangles(~seen, MOST_HOLES)

    def scattered(self, frames: int) -> int:
        """Return of how many of the first `frames` more is told to be missing than is: in whole rows."""
        begun = [frame for frame, left in self._left.items() if left and frame < frames]
        return sum(sum(hole.h * hole.w for hole in self.holes(frame)) > self._left[frame] for frame in begun)

    def visits(self, frames: int) -> NDArray[np.uint32]:
        """Return (H, W) in how many of the first `frames` each pixel came, where the beam swept it."""
        came = np.zeros(self.shape, dtype=np.uint32)
        for frame, seen in self._seen.items():
            if frame < frames:
                came += 1 if seen is self._whole else seen
        return came

    def swept(self, frame: int) -> int | None:
        """Return to which row a frame came, if that is all of it; None if it is whole, not begun, or has holes."""
        seen = self.seen(frame)
        rows = int(seen.all(axis=1).argmin())
        return None if not seen.any() or seen.all() or seen[rows + 1 :].any() else rows

    def coverage(self, frames: int) -> float:
        """Return the share of expected pixels that came, 0..1."""
        expected = frames * self.shape[0] * self.shape[1]
        return self.pixels / expected if expected else 0.0


def rectangles(absent: NDArray[np.bool_], most: int) -> list[Hole]:
    """Return what a mask (H, W) is made of (see the module), by y and then x; if that is more than `most`, its rows."""
    height, width = absent.shape
    first = np.flatnonzero(np.append(True, (absent[1:] != absent[:-1]).any(axis=1)))  # of each band of equal rows
    edges = np.diff(absent[first].astype(np.int8), axis=1, prepend=0, append=0)
    (band, x), (_, right) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    gaps = np.zeros((len(first) + 2, width), dtype=np.int32)  # where one begins: its end
    gaps[band + 1, x] = right
    begins, ends = (np.flatnonzero(gaps[band + beside, x] != right) for beside in (0, 2))
    if len(begins) > most:
        return rectangles(np.repeat(absent.any(axis=1, keepdims=True), width, axis=1), height)
    begins, ends = (at[np.lexsort((band[at], right[at], x[at]))] for at in (begins, ends))  # as pairs
    y, bottom = first[band[begins]], np.append(first, height)[band[ends] + 1]
    columns = (y, x[begins], bottom - y, right[begins] - x[begins])
    return sorted(Hole(*hole) for hole in zip(*(c.tolist() for c in columns), strict=True))


def as_words(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return real values as 64-bit words, equal for equal values whatever their dtype within a kind; flat."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.kind == "f":
        return (flat.astype(np.float64) + 0.0).view(np.uint64)  # one word for both zeros
    return flat.astype(np.uint64 if flat.dtype.kind == "u" else np.int64).view(np.uint64)


def content_of(kind: str, arrays: Iterable[NDArray[Any]]) -> int:
    """Return a checksum of a tile's data, of this kind, whatever codec they came in."""
    crc = zlib.crc32(kind.encode())
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data, crc)
    return crc
