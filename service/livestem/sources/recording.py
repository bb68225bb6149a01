"""A recorded scan: facts as a `ScanPlan`, data as tiles in the order in which the beam made them.

Tiles are bands of full rows. Bands of both modalities cover the same stripe of the field, the HAADF band
first; where they are sampled differently, a band is whole rows of the coarser one. The default height is
what the beam does in 50 ms, and no more than 256 kB; the tiles are the same at every call, so that lost ones
can be made again.

A modality with one frame beside one with many (JEOL's .img, a summed spectrum image) was recorded over the
whole acquisition; its tiles belong to frame 0 and it has none in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import numpy as np

from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.sources.generic import READER_ERRORS, unreadable
from livestem.sources.signals import Picture, SpectrumImage

Modality = Literal["haadf", "eds"]

_BAND_S = 0.05  # a live score goes out every 40 ms, so finer bands would show nothing more
_BAND_BYTES = 256 * 1024  # small enough to interleave with control messages, large enough to be cheap per byte


@dataclass(frozen=True)
class Band:
    """A stripe of the field: rows `haadf` and `eds` as (first, one past the last)."""

    haadf: tuple[int, int] = (0, 0)
    eds: tuple[int, int] = (0, 0)


class Recording:
    """A recorded scan, open for reading; close it, or use it as a context manager.

    One thread at a time. Made by `open_recording`.

    Attributes
    ----------
    plan : ScanPlan
        What `scan_start` states; `source` names the files without their folders.
    scan_id : str
        Name derived from the content, the same on every machine.
    warnings : tuple of str
        What the user should know, one line each.
    paths : tuple of Path
        Files in use.
    """

    def __init__(
        self,
        plan: ScanPlan,
        scan_id: str,
        haadf: Picture | None,
        eds: SpectrumImage | None,
        warnings: Sequence[str],
        close: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.scan_id = scan_id
        self.warnings = tuple(warnings)
        self.paths = tuple(dict.fromkeys(s.path for s in (haadf, eds) if s is not None))
        self._haadf = haadf
        self._eds = eds
        self._close = close
        self._default_rows: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; may be called again."""
        self._close()
        self._close = lambda: None

    def frames_of(self, modality: Modality) -> int:
        """Return how many frames a modality has; 0 if the scan lacks it."""
        signal = self._haadf if modality == "haadf" else self._eds
        return 0 if signal is None else int(signal.shape[0])

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[HaadfTile | EdsEvents]:
        """Yield all tiles, frame by frame and from top to bottom; every call begins anew.

        Parameters
        ----------
        rows_per_tile : int, optional
            Rows of the coarser modality per band; by default the module's rule.

        Raises
        ------
        SourceError
            If the file turns out to be damaged.
        """
        for frame in range(self.plan.frames or 0):
            yield from self.tiles_of(frame, rows_per_tile)

    def tiles_of(self, frame: int, rows_per_tile: int | None = None) -> Iterator[HaadfTile | EdsEvents]:
        """Yield the tiles of one frame, as `tiles` does."""
        for band in self.bands(rows_per_tile):
            if frame < self.frames_of("haadf"):
                yield self.haadf_rows(frame, *band.haadf)
            if frame < self.frames_of("eds"):
                yield self.eds_rows(frame, *band.eds)

    def haadf_rows(self, frame: int, y0: int, y1: int) -> HaadfTile:
        """Return the rows y0 .. y1 - 1 of one HAADF frame, in the plan's dtype."""
        if self._haadf is None or self.plan.haadf is None:
            raise KeyError("haadf")
        try:
            values = self._haadf.rows(frame, y0, y1)
        except READER_ERRORS as error:
            raise unreadable(self._haadf.path, error) from error
        values = np.ascontiguousarray(values, dtype=self.plan.haadf.dtype)
        return HaadfTile(frame=frame, y=y0, x=0, values=values)

    def eds_rows(self, frame: int, y0: int, y1: int) -> EdsEvents:
        """Return the photons of the rows y0 .. y1 - 1 of one EDS frame."""
        if self._eds is None:
            raise KeyError("eds")
        try:
            found = self._eds.photons.events(frame, y0, y1)
        except READER_ERRORS as error:
            raise unreadable(self._eds.path, error) from error
        return EdsEvents(frame=frame, y=y0, x=0, counts=found.counts, channels=found.channels)

    def bands(self, rows_per_tile: int | None = None) -> list[Band]:
        """Return the stripes that every frame is cut into."""
        if rows_per_tile is None:
            if self._default_rows is None:
                self._default_rows = self._rows_by_rule()
            rows_per_tile = self._default_rows
        if rows_per_tile < 1:
            raise ValueError("a tile has at least one row")
        heights = {m: self.plan.sampling(m).shape[0] for m in self.plan.modalities}
        coarse = min(heights.values())
        starts = [*range(0, coarse, rows_per_tile), coarse]
        return [
            Band(**{m: (_scaled(a, coarse, rows), _scaled(b, coarse, rows)) for m, rows in heights.items()})
            for a, b in zip(starts[:-1], starts[1:], strict=True)
        ]

    def _rows_by_rule(self) -> int:
        """Rows of 50 ms, but no more than 256 kB judged by the middle row of frame 0."""
        heights = {m: self.plan.sampling(m).shape[0] for m in self.plan.modalities}
        coarse = min(heights.values())
        row_bytes = 0.0
        for modality, rows in heights.items():
            middle = rows // 2
            if modality == "haadf":
                size = self.haadf_rows(0, middle, middle + 1).values.nbytes
            else:
                tile = self.eds_rows(0, middle, middle + 1)
                size = tile.counts.nbytes + tile.channels.nbytes
            row_bytes += size * rows / coarse
        wanted = [coarse, int(_BAND_BYTES // row_bytes)]
        if self.plan.dwell_s is not None:
            columns = max(self.plan.sampling(m).shape[1] * heights[m] / coarse for m in heights)
            wanted.append(round(_BAND_S / (self.plan.dwell_s * columns)))
        return max(1, min(wanted))


def _scaled(row: int, coarse: int, rows: int) -> int:
    """Row of a finer modality at a row of the coarser; the last stripe takes what is left over."""
    return rows if row == coarse else min(rows, row * max(1, round(rows / coarse)))
