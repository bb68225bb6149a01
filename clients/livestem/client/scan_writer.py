"""One scan's data, on their way out: checked, put into messages, counted."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.client.tilecheck import Totals, as_messages, check_tile
from livestem.domain.errors import SourceError
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import EdsDense, EdsEvents, HaadfTile, Tile
from livestem.wire import messages as m


class Outlet(Protocol):
    """Where a `ScanWriter`'s messages go: an `Acquisition`, or a pipeline in the same process."""

    def publish(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...] = (), *, codec: str = "raw") -> None:
        """Take a reliable message."""

    def verdict(self, scan_id: str) -> m.Verdict | None:
        """Return what was decided about a scan."""


class ScanWriter:
    """Hand over one scan's data; a context manager that ends the scan (aborted, if an exception leaves it).

    Every piece has its place (`frame`, `y`, `x`), so the order of the calls does not matter. Each rectangle of a
    frame is handed over once.
    """

    def __init__(self, outlet: Outlet, plan: ScanPlan, scan_id: str) -> None:
        self.plan, self.scan_id = plan, scan_id
        self.totals = Totals()
        self._outlet = outlet
        self._before: NDArray[np.integer[Any]] | None = None  # last cumulative snapshot
        self._snapshots = 0
        self._ended = False

    @property
    def verdict(self) -> m.Verdict | None:
        """What the service decided about this scan, or None if it has not spoken yet."""
        return self._outlet.verdict(self.scan_id)

    def haadf(self, values: NDArray[Any], *, frame: int = 0, y: int = 0, x: int = 0) -> None:
        """Hand over HAADF of the rectangle at (y, x): a whole frame, rows, or any (h, w) part, in the plan's dtype.

        Raises
        ------
        SourceError
            If it lies outside the field or the plan, or is not finite (the place is named).
        """
        self.tile(HaadfTile(frame=frame, y=y, x=x, values=np.asarray(values)))

    def eds_events(
        self, counts: NDArray[Any], channels: NDArray[Any], *, frame: int = 0, y: int = 0, x: int = 0
    ) -> None:
        """Hand over EDS photons: `counts` (h, w) per pixel and the `channels` of all of them, pixel after pixel."""
        self.tile(EdsEvents(frame=frame, y=y, x=x, counts=np.asarray(counts), channels=np.asarray(channels)))

    def eds_dense(self, values: NDArray[Any], *, frame: int = 0, y: int = 0, x: int = 0) -> None:
        """Hand over EDS spectra (h, w, channels), whole counts."""
        self.tile(EdsDense(frame=frame, y=y, x=x, values=np.asarray(values)))

    def eds_cumulative(self, snapshot: NDArray[Any], *, frame: int | None = None) -> None:
        """Hand over the running total of the whole field, (rows, cols, channels); the increase is published.

        Vendors' live interfaces give the sum so far. Each snapshot stands for one frame, by default the next.

        Raises
        ------
        SourceError
            If a count is smaller than in the snapshot before (the place is named).
        """
        snapshot = np.asarray(snapshot)
        if snapshot.ndim != 3 or snapshot.dtype.kind not in "ui":
            got = f"{snapshot.dtype} with {snapshot.ndim} axes"
            raise SourceError(f"cumulative EDS is whole counts over (rows, cols, channels), got {got}")
        before = np.zeros_like(snapshot) if self._before is None else self._before
        frame = self._snapshots if frame is None else frame
        if snapshot.shape != before.shape:
            raise SourceError(f"cumulative EDS changed its shape from {before.shape} to {snapshot.shape}")
        fell = snapshot < before
        if fell.any():
            y, x, channel = (int(i) for i in np.argwhere(fell)[0])
            raise SourceError(f"cumulative EDS fell at frame {frame}, y {y}, x {x}, channel {channel}; was it reset?")
        self.tile(EdsDense(frame=frame, y=0, x=0, values=snapshot - before))
        self._before, self._snapshots = snapshot.copy(), frame + 1

    def tile(self, tile: Tile) -> None:
        """Hand over any tile; a large one is published in bands of rows."""
        if self._ended:
            raise SourceError(f"scan {self.scan_id} has ended; start another for further data")
        check_tile(self.plan, tile)
        for header, arrays, codec in as_messages(self.scan_id, tile):
            self._outlet.publish(header, arrays, codec=codec)
            self.totals.add(header, arrays)

    def end(self, status: Literal["complete", "aborted"] = "complete", reason: str | None = None) -> None:
        """End the scan; the totals go along, so that the service can prove nothing is missing."""
        if self._ended:
            return
        self._ended = True
        end = m.ScanEnd(scan_id=self.scan_id, status=status, reason=reason, **msgspec.structs.asdict(self.totals.sent))
        self._outlet.publish(end)

    def __enter__(self) -> ScanWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            self.end()
        else:
            self.end("aborted", reason=why_aborted(value or kind()))
        return False


def why_aborted(error: BaseException) -> str:
    """Return why an exception ended a scan, for a person."""
    by_hand = isinstance(error, KeyboardInterrupt) and not str(error)
    words = "stopped by hand (Ctrl-C or SIGTERM)" if by_hand else f"{type(error).__name__}: {error}"
    return words[:4096]
