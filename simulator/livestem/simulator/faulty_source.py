"""A scan by an instrument that misbehaves: the beam stalls, the operator aborts, the program dies.

A `FaultySource` is the scan it is made of, until something happens to it in the middle of a frame; so everything that
sends a scan sends this one too. `send_with_faults` sends it over a `FaultyLink`, and is the program that dies: it
closes its sockets, with no last word, and at a restart opens them again under the same session with a new epoch,
an empty resend buffer and the same scan from its beginning. What was held back on the link dies with the program.

The *middle of a frame* comes before its first tile that reaches beyond half of the rows, but not before its first
tile: something of the frame has always been sent. If the frame is one tile, its middle is after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from livestem.client.acquisition import Acquisition
from livestem.client.replay import TileSource, send_scan, tiles_of
from livestem.client.scan_writer import ScanWriter
from livestem.domain.errors import SourceError, TransportError
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import HaadfTile, Tile, height
from livestem.simulator.faults import Faults
from livestem.simulator.faulty_link import FaultyLink

_CHANCE = 0xFA  # spawn key of the link's random numbers: apart from those of the specimen and of every frame


@dataclass(frozen=True)
class Middle:
    """The beam is in the middle of this frame."""

    frame: int


@dataclass(frozen=True)
class End:
    """How a scan ended, as `scan_end` will say it."""

    status: Literal["complete", "aborted"]
    reason: str | None = None


def with_middles(tiles: Iterable[Tile], plan: ScanPlan) -> Iterator[Tile | Middle]:
    """Yield the tiles of a scan, and the middle of each frame where it is; tiles come frame by frame."""
    half = {modality: plan.sampling(modality).shape[0] / 2 for modality in plan.modalities}
    frame: int | None = None  # the one whose middle is still to come
    newest = -1
    for tile in tiles:
        beyond = tile.y + height(tile) > half["haadf" if isinstance(tile, HaadfTile) else "eds"]
        if frame is not None and (tile.frame > frame or beyond):
            yield Middle(frame)
            frame = None
        if tile.frame > newest:
            frame = newest = tile.frame
        yield tile
    if frame is not None:
        yield Middle(frame)


class FaultySource:
    """A scan to which something happens; a `TileSource`, to be sent once.

    Parameters
    ----------
    source : TileSource
        The scan as it would have been.
    faults : Faults
        Of which `stall`, `restart`, `abort` and `vanish` are its business.
    die : callable
        Closes the sockets of the program that sends this.
    sleep : callable
        Waits so many seconds.

    Attributes
    ----------
    stalled_s : float
        How long the beam has stood still so far, s: to be taken off the clock by which tiles are due.
    death : {"restart", "vanish"} or None
        Why the program has died.
    end : End or None
        How the scan ended, where it did not simply come to its end.
    """

    def __init__(
        self, source: TileSource, faults: Faults, *, die: Callable[[], None], sleep: Callable[[float], None]
    ) -> None:
        self.plan, self.scan_id = source.plan, source.scan_id
        self._source, self._die, self._sleep = source, die, sleep
        self.faults = faults.within(self.plan.frames)
        self.stalled_s = 0.0
        self.death: Literal["restart", "vanish"] | None = None
        self.end: End | None = getattr(source, "end", None)

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        """Yield the tiles until something ends the scan.

        Raises
        ------
        TransportError
            When the program has died, after its sockets are closed.
        SourceError
            If an open-ended scan ends before the frame in which something was to happen.
        """
        for item in with_middles(self._source.tiles(rows_per_tile), self.plan):
            if not isinstance(item, Middle):
                yield item
            elif self._ends_in(item.frame):
                return
        for name in ("restart", "abort", "vanish"):
            frame = getattr(self.faults, f"{name}_frame")
            if frame is not None:
                raise SourceError(f"fault {name}@frame={frame} never happened: the scan had ended before")

    def tiles_of(self, frame: int) -> Iterator[Tile]:
        """Yield the tiles of one frame again; nothing happens to the beam by that."""
        return tiles_of(self._source, frame)

    def _ends_in(self, frame: int) -> bool:
        """Let happen what happens in the middle of a frame; True if the scan ends there."""
        faults = self.faults
        if faults.stall_s and frame == faults.stall_frame:
            self.faults = replace(faults, stall_s=0.0, stall_frame=None)
            self._sleep(faults.stall_s)
            self.stalled_s += faults.stall_s
        if frame == faults.restart_frame:
            self.faults = replace(self.faults, restart_frame=None)
            self._perish("restart", frame)
        if frame == faults.vanish_frame:
            self._perish("vanish", frame)
        if frame == faults.abort_frame:
            self.end = End("aborted", f"by the operator in the middle of frame {frame}")
            return True
        return False

    def _perish(self, death: Literal["restart", "vanish"], frame: int) -> None:
        self.death = death
        self._die()
        raise TransportError(f"the instrument's program died in the middle of frame {frame}, as was asked")


def send_with_faults(
    open_acquisition: Callable[[FaultyLink], Acquisition],
    source: TileSource,
    faults: Faults,
    *,
    plan: ScanPlan | None = None,
    speed: float | None = None,
    on_tile: Callable[[Tile], None] = lambda tile: None,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ScanWriter:
    """Publish a whole scan as `send_scan` does, with these faults; the sockets are closed afterwards.

    Parameters
    ----------
    open_acquisition : callable
        Opens the instrument over a link, ready to send. Called again at a restart, when it must give the same session:
        name the session before, do not let each `Acquisition` choose its own. A `recorded` one is kept open until the
        service has everything; another is closed at the scan's end, some seconds later if the last words are lost.
    source : TileSource
    faults : Faults
    plan : ScanPlan, optional
        Announced instead of the source's own, which it extends.
    speed : float, optional
        Times the recorded pace; None for as fast as the service takes it.
    on_tile : callable, optional
        Called after each tile that was sent, also when it is sent a second time.
    seed : int
        Of the network's faults, 0 or more.

    Returns
    -------
    ScanWriter
        Of the scan as it was sent last: what it carried, and the service's verdict.

    Raises
    ------
    UsageError
        If a fault is to happen in a frame that the scan does not have; nothing is opened then.
    TransportError
        If the instrument vanished, as asked, or cannot be reached.
    RefusedError, SourceError
        If the service refuses the scan, or the source breaks.
    """
    left = faults.within((plan or source.plan).frames)
    session, start = None, 0
    while True:
        chance = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_CHANCE, start)))
        with open_acquisition(FaultyLink(left, chance)) as acquisition:
            if session not in (None, acquisition.session):
                raise ValueError(f"an instrument comes back as session {session}, not as {acquisition.session}")
            session = acquisition.session
            faulty = FaultySource(source, left, die=acquisition.close, sleep=sleep)

            def beam_clock(faulty: FaultySource = faulty) -> float:
                return clock() - faulty.stalled_s

            try:
                return send_scan(
                    acquisition, faulty, plan=plan, speed=speed, on_tile=on_tile, clock=beam_clock, sleep=sleep
                )
            except TransportError:
                if faulty.death is None:
                    raise
        if faulty.death == "vanish":
            raise TransportError(
                f"the instrument vanished in the middle of frame {left.vanish_frame} without ending scan "
                f"{source.scan_id}, as fault vanish@frame={left.vanish_frame} asks"
            )
        left, start = faulty.faults, start + 1
