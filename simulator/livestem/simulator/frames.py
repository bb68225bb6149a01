"""One pass of the beam, and the tiles it is sent in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.domain.tiles import EdsEvents, HaadfTile, Tile


@dataclass(frozen=True)
class Frame:
    """One pass of the beam: HAADF (H, W), EDS counts (H, W) and channels (sum of counts,), all uint16.

    What the scan does not measure is None.
    """

    number: int
    haadf: NDArray[np.uint16] | None
    counts: NDArray[np.uint16] | None
    channels: NDArray[np.uint16] | None


def cut(frame: Frame, rows_per_tile: int) -> Iterator[Tile]:
    """Cut a frame into tiles of whole rows, HAADF before EDS."""
    height = next(len(part) for part in (frame.haadf, frame.counts) if part is not None)
    ends = None
    if frame.counts is not None:
        ends = np.concatenate([[0], np.cumsum(frame.counts.sum(axis=1, dtype=np.int64))])
    for y in range(0, height, rows_per_tile):
        stop = min(y + rows_per_tile, height)
        if frame.haadf is not None:
            yield HaadfTile(frame=frame.number, y=y, x=0, values=frame.haadf[y:stop])
        if frame.counts is not None and frame.channels is not None and ends is not None:
            channels = frame.channels[ends[y] : ends[stop]]
            yield EdsEvents(frame=frame.number, y=y, x=0, counts=frame.counts[y:stop], channels=channels)
