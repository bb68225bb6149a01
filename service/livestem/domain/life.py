"""The life of a scan in the segmenter: events in, effects out; and which words of a sender keep a scan open.

=========== ==================== ============ =========================================
phase       event                then         effect
=========== ==================== ============ =========================================
receiving   TileApplied          receiving    -
receiving   EndArrived           finalising   Finalise, if every tile it states is here
receiving   EndArrived           ending       otherwise: gaps are being repaired
ending      TileApplied          finalising   Finalise, once the last missing tile is here
ending      NothingMoreComes     finalising   Finalise with what is there
receiving   NothingMoreComes     finalising   Finalise with what is there (source vanished)
finalising  Finalised            done         -
any other   any                  unchanged    -
=========== ==================== ============ =========================================

A scan that is not ended by its sender ends `vanish_s` after the last word that counts for it:

=============================== ===================================================================================
word                            counts for
=============================== ===================================================================================
a scan's own start, tile, end   that scan, whichever epoch it comes from
any word of an epoch,           the scan that this epoch was at last: that of its message with the highest `seq`,
a heartbeat too                 so that what is late or repaired does not take the beam back
likewise                        the scans whose end this epoch has stated: what was lost of them is being repaired
likewise, before this epoch     the scans whose data it had sent before the service was started again
has said anything of a scan
=============================== ===================================================================================

So a beam may pause for as long as its program lives. A scan that its sender has left for a further one, or that a
sender who began anew (another epoch) does not take up again, lives on its own data alone: what is late still counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

from livestem.domain.names import one_line

Phase = Literal["receiving", "ending", "finalising", "done"]
Status = Literal["complete", "incomplete", "aborted"]

LOST = "its source no longer had what was lost on the way"


@dataclass(frozen=True)
class TileApplied:
    """A new tile has been counted in."""


@dataclass(frozen=True)
class EndArrived:
    """The source says the scan is over, after so many tiles of both modalities, and perhaps why it was aborted."""

    tiles: int
    aborted: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class NothingMoreComes:
    """What is missing is gone for good, or the source has been silent too long: `why`, for a person."""

    why: str = LOST


@dataclass(frozen=True)
class Finalised:
    """The finals are stored."""


@dataclass(frozen=True)
class Finalise:
    """Compute the finals now, with this status; `reason` is why it is not complete, None if it is."""

    status: Status
    reason: str | None = None


Event = TileApplied | EndArrived | NothingMoreComes | Finalised


@dataclass(frozen=True)
class ScanLife:
    """One scan's phase, how many tiles are here and expected, and why it was aborted if it was."""

    phase: Phase = "receiving"
    tiles: int = 0
    expected: int | None = None
    aborted: str | None = None

    def on(self, event: Event) -> tuple[ScanLife, tuple[Finalise, ...]]:
        """Return the next state and what is to be done."""
        if isinstance(event, Finalised):
            return (replace(self, phase="done") if self.phase == "finalising" else self), ()
        if self.phase not in ("receiving", "ending"):
            return self, ()
        if isinstance(event, NothingMoreComes):
            return _over(self, "incomplete", event.why)
        if isinstance(event, TileApplied):
            after = replace(self, tiles=self.tiles + 1)
        else:
            why = f"aborted: {one_line(event.reason or 'no reason given')}" if event.aborted else None
            after = replace(self, phase="ending", expected=event.tiles, aborted=why)
        if after.expected is None or after.tiles < after.expected:
            return after, ()
        return _over(after, "complete", None)


def _over(scan: ScanLife, status: Status, why: str | None) -> tuple[ScanLife, tuple[Finalise, ...]]:
    """End a scan with this status and reason, unless its source said that it was aborted."""
    if scan.aborted is not None:
        status, why = "aborted", scan.aborted
    return replace(scan, phase="finalising"), (Finalise(status, why),)


class Known(Protocol):
    """What is known of an open scan: its name, the epoch of its newest data, and that of its end."""

    @property
    def scan_id(self) -> str:
        """Its name in its session."""

    @property
    def epoch(self) -> int:
        """Of the sender whose data came last."""

    @property
    def ended_by(self) -> int | None:
        """The epoch that stated its end; None before."""


class Beam:
    """Where the senders of one session are: the scan that each epoch was at last."""

    def __init__(self) -> None:
        self._at: dict[int, tuple[int, str]] = {}  # epoch -> highest seq, and its scan

    def moved(self, epoch: int, seq: int, scan_id: str) -> None:
        """Take note of a message about a scan."""
        if seq >= self._at.get(epoch, (0, ""))[0]:
            self._at[epoch] = seq, scan_id

    def counts_for(self, epoch: int, scan: Known) -> bool:
        """Return whether a word of an epoch keeps a scan open."""
        at = self.at(epoch)
        return at == scan.scan_id or scan.ended_by == epoch or (at is None and scan.epoch == epoch)

    def at(self, epoch: int) -> str | None:
        """Return the scan that an epoch was at last; None if it has said nothing of one."""
        return self._at.get(epoch, (0, None))[1]

    def why(self, scan: Known, silent_s: float) -> str:
        """Return why a scan of which nothing was heard for so long is over, for a person."""
        at = self.at(scan.epoch)
        if scan.ended_by is not None:
            return "it ended, and its source vanished before what was lost on the way came again"
        if at is None or at == scan.scan_id:
            return f"its source vanished: nothing heard for {silent_s:g} s"
        return f"scan {at} began, and nothing more of this one came for {silent_s:g} s"
