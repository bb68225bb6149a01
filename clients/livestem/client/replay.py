"""Send a scan that can be read again (a recording, a journal, a simulation) through an `Acquisition`, at a pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from livestem.client.acquisition import Acquisition
from livestem.client.scan_writer import ScanWriter
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import HaadfTile, Tile, height


class TileSource(Protocol):
    """A scan that can be sent: what it is, its name, and its tiles in the order of time."""

    @property
    def plan(self) -> ScanPlan:
        """What `scan_start` states."""

    @property
    def scan_id(self) -> str:
        """Its name, derived from its content."""

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        """Yield every tile; the same ones each time."""


def tiles_of(source: TileSource, frame: int) -> Iterator[Tile]:
    """Yield the tiles of one frame again: as the source makes them if it can, else by looking through all of them."""
    of_frame = getattr(source, "tiles_of", None)
    tiles: Iterator[Tile] = source.tiles() if of_frame is None else of_frame(frame)
    return (tile for tile in tiles if tile.frame == frame)


class Pace:
    """When each tile is due: after the beam has swept its last row.

    Parameters
    ----------
    plan : ScanPlan
        Its dwell time and field; a plan without a dwell time has no pace.
    speed : float or None
        Times real time; None is as fast as possible.
    """

    def __init__(self, plan: ScanPlan, speed: float | None) -> None:
        shapes = {m: plan.sampling(m).shape for m in plan.modalities}
        rows, cols = max(shapes.values(), key=lambda s: s[0] * s[1])
        self._rows = {m: shape[0] for m, shape in shapes.items()}
        dwell = plan.dwell_s if plan.dwell_s is not None and speed is not None else 0.0
        self.frame_s = rows * cols * dwell / (speed or 1.0)

    def due_s(self, tile: Tile) -> float:
        """Return the seconds from the scan's start to this tile."""
        modality = "haadf" if isinstance(tile, HaadfTile) else "eds"
        return float((tile.frame + (tile.y + height(tile)) / self._rows[modality]) * self.frame_s)


def hand_over(
    source: TileSource,
    writer: ScanWriter,
    *,
    before: Callable[[Tile], None] = lambda tile: None,
    after: Callable[[Tile], None] = lambda tile: None,
) -> None:
    """Hand a source's tiles to a writer, and end the scan as the source ended it (a journal knows)."""
    for tile in source.tiles():
        before(tile)
        writer.tile(tile)
        after(tile)
    end = getattr(source, "end", None)
    if end is not None and end.status == "aborted":
        writer.end("aborted", end.reason)


def send_scan(
    acquisition: Acquisition,
    source: TileSource,
    *,
    plan: ScanPlan | None = None,
    speed: float | None = None,
    on_tile: Callable[[Tile], None] = lambda tile: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ScanWriter:
    """Publish a whole scan; return once a recorded source's data are all acknowledged.

    Parameters
    ----------
    acquisition : Acquisition
    source : TileSource
    plan : ScanPlan, optional
        Announced instead of the source's own, which it extends (by `processing`, say).
    speed : float, optional
        Times the recorded pace; None for as fast as the service takes it.
    on_tile : callable, optional
        Called after each tile, for a progress bar.

    Raises
    ------
    RefusedError, TransportError, SourceError
        If the service refuses the scan or vanishes, or the source breaks (the scan is then aborted).
    """
    plan = plan or source.plan
    pace = Pace(plan, speed)
    with acquisition.start_scan(plan, source.scan_id) as writer:
        if acquisition.recorded:
            acquisition.offer(source.scan_id, lambda frame: tiles_of(source, frame))
        began = clock()

        def wait(tile: Tile) -> None:
            early = began + pace.due_s(tile) - clock()
            if early > 0:
                sleep(early)

        hand_over(source, writer, before=wait, after=on_tile)
    if acquisition.recorded:
        acquisition.wait_acknowledged()
        acquisition.withdraw(source.scan_id)
    return writer
