"""From a source's tile to wire messages: checked at the place where the mistake can still be mended."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import SourceError
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import EdsDense, EdsEvents, HaadfTile, Tile
from livestem.wire import messages as m
from livestem.wire.arrays import haadf_fault

_BAND_BYTES = 1 << 18  # measured by the design: 200 kB messages move at 2.6 GB/s; larger ones only add latency

Parts = tuple[m.OfScan, tuple[NDArray[Any], ...], str]


class Sent(msgspec.Struct):
    """What `scan_end` states."""

    frames: int = 0
    haadf_tiles: int = 0
    eds_tiles: int = 0
    eds_counts: int = 0


class Totals:
    """Counts what has been published of a scan."""

    def __init__(self) -> None:
        self.sent = Sent()

    def add(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...]) -> None:
        """Count one tile message."""
        if isinstance(header, m.HaadfRows):
            self.sent.haadf_tiles += 1
        elif isinstance(header, m.EdsRows):
            self.sent.eds_tiles += 1
            events = header.content == "events"
            self.sent.eds_counts += arrays[1].size if events else int(arrays[0].sum(dtype=np.uint64))
        else:
            raise TypeError(f"{header!r} is no tile")
        self.sent.frames = max(self.sent.frames, header.frame + 1)


def check_plan(plan: ScanPlan) -> None:
    """Raise `SourceError` unless a receiver would take this plan."""
    try:  # structs are checked when they are decoded, not when they are made: better here than over there
        msgspec.convert(msgspec.to_builtins(plan), ScanPlan)
    except (msgspec.ValidationError, TypeError) as e:
        raise SourceError(f"the scan's plan is not legal: {e}") from e


def check_tile(plan: ScanPlan, tile: Tile) -> None:
    """Raise `SourceError`, naming the place, unless `tile` can be part of a scan of this plan."""
    for number, what in ((tile.frame, "frame"), (tile.y, "y"), (tile.x, "x")):
        try:
            operator.index(number)  # numpy's integers are welcome
        except TypeError as e:
            raise SourceError(f"{what} of a tile is a whole number, got {number!r}") from e
    modality = "haadf" if isinstance(tile, HaadfTile) else "eds"
    if modality not in plan.modalities:
        raise SourceError(f"the scan's plan has no {modality}; state it in ScanPlan")
    planned = plan.frames_of(modality, 0)
    if tile.frame < 0 or (planned and tile.frame >= planned):
        scan = f"a scan planned with {planned} frames of {modality}" if planned else "an open-ended scan"
        raise SourceError(f"frame {tile.frame} of {scan}; frames count from 0")
    h, w = _extent(tile)
    rows, cols = plan.sampling(modality).shape
    if h < 1 or w < 1 or tile.y < 0 or tile.x < 0 or tile.y + h > rows or tile.x + w > cols:
        raise SourceError(
            f"{modality} tile {h} x {w} at y {tile.y}, x {tile.x} is not inside the field of {rows} x {cols} pixels"
        )
    if isinstance(tile, HaadfTile):
        _check_haadf(plan, tile)
    elif isinstance(tile, EdsEvents):
        _check_events(plan, tile)
    else:
        _check_dense(plan, tile)


def as_messages(scan_id: str, tile: Tile) -> Iterator[Parts]:
    """Yield (header, arrays, codec) of the messages that carry a tile, in bands of rows of about 256 kB."""
    frame, y, x = operator.index(tile.frame), operator.index(tile.y), operator.index(tile.x)
    if isinstance(tile, HaadfTile):
        for top, bottom in _bands(tile.values):
            header = m.HaadfRows(scan_id=scan_id, frame=frame, y=y + top, x=x)
            yield header, (tile.values[top:bottom],), "raw"
    elif isinstance(tile, EdsEvents):
        counts, channels = _narrow(tile.counts), _narrow(tile.channels, np.uint16)
        w = counts.shape[1]
        first = np.concatenate([[0], np.cumsum(counts.sum(axis=1, dtype=np.int64))])  # photon of each row
        weight = counts.nbytes // counts.shape[0] + channels.itemsize * np.diff(first)
        for top, bottom in _even_bands(weight):
            rows = m.EdsRows(scan_id=scan_id, frame=frame, y=y + top, x=x, h=bottom - top, w=w, content="events")
            yield rows, (counts[top:bottom], channels[first[top] : first[bottom]]), "raw"
    else:
        for top, bottom in _bands(tile.values):
            part = tile.values[top:bottom]
            h, w = part.shape[:2]
            rows = m.EdsRows(scan_id=scan_id, frame=frame, y=y + top, x=x, h=h, w=w, content="dense")
            yield rows, (_narrow(part),), "zstd"  # mostly zeros: a hundredth of its size, and cheaper to send


def _extent(tile: Tile) -> tuple[int, int]:
    values = tile.counts if isinstance(tile, EdsEvents) else tile.values
    ndim = 3 if isinstance(tile, EdsDense) else 2
    if values.ndim != ndim:
        raise SourceError(f"a tile's data have {ndim} axes, got {values.ndim}")
    return int(values.shape[0]), int(values.shape[1])


def _check_haadf(plan: ScanPlan, tile: HaadfTile) -> None:
    assert plan.haadf is not None
    if tile.values.dtype != np.dtype(plan.haadf.dtype):
        raise SourceError(f"HAADF comes as {tile.values.dtype}, the plan says {plan.haadf.dtype}; make them agree")
    fault = haadf_fault(tile.values)
    if fault is not None:
        what, (y, x) = fault
        raise SourceError(f"HAADF is {what} at frame {tile.frame}, y {tile.y + y}, x {tile.x + x}")


def _check_events(plan: ScanPlan, tile: EdsEvents) -> None:
    assert plan.eds is not None
    for array, name in ((tile.counts, "counts"), (tile.channels, "channels")):
        if array.dtype.kind not in "ui" or (array.size and int(array.min()) < 0):
            raise SourceError(f"EDS event {name} must be whole numbers, not negative (frame {tile.frame}, y {tile.y})")
    total = int(tile.counts.sum())
    if tile.channels.ndim != 1 or tile.channels.size != total:
        raise SourceError(
            f"EDS events: {tile.channels.size} channels for {total} counts at frame {tile.frame}, y {tile.y}"
        )
    if total and int(tile.channels.max()) >= plan.eds.energy.channels:
        raise SourceError(
            f"EDS channel {int(tile.channels.max())} at frame {tile.frame}, y {tile.y}, beyond the "
            f"{plan.eds.energy.channels} of the plan"
        )


def _check_dense(plan: ScanPlan, tile: EdsDense) -> None:
    assert plan.eds is not None
    values = tile.values
    if values.shape[2] != plan.eds.energy.channels:
        raise SourceError(f"EDS spectra of {values.shape[2]} channels, the plan says {plan.eds.energy.channels}")
    if values.dtype.kind not in "ui":
        raise SourceError(f"EDS counts are whole numbers, got {values.dtype}; hand over the raw counts")
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        y, x, channel = (int(i) for i in np.argwhere(values < 0)[0])
        raise SourceError(
            f"negative EDS counts at frame {tile.frame}, y {tile.y + y}, x {tile.x + x}, channel {channel}"
        )


def _bands(values: NDArray[Any]) -> Iterator[tuple[int, int]]:
    row_bytes = max(1, values[0].nbytes)
    step = max(1, _BAND_BYTES // row_bytes)
    for top in range(0, values.shape[0], step):
        yield top, min(top + step, values.shape[0])


def _even_bands(weights: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Divide rows of these bytes into bands of one row at least, and no more than `_BAND_BYTES` otherwise."""
    ends = np.cumsum(weights)
    top, before = 0, 0
    while top < len(weights):
        bottom = max(top + 1, int(np.searchsorted(ends, before + _BAND_BYTES, side="right")))
        yield top, bottom
        top, before = bottom, int(ends[bottom - 1])


def _narrow(values: NDArray[Any], least: type[np.unsignedinteger[Any]] = np.uint8) -> NDArray[Any]:
    """Return `values` in the smallest unsigned dtype that holds them: photons per pixel fit one byte."""
    largest = int(values.max()) if values.size else 0
    for dtype in (least, np.uint16, np.uint32):
        if largest <= np.iinfo(dtype).max:
            return values.astype(dtype, copy=False)
    raise SourceError(f"EDS count {largest} is beyond 32 bits")
