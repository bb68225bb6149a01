"""The life of a scan in the segmenter: events in, effects out.

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
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["receiving", "ending", "finalising", "done"]
Status = Literal["complete", "incomplete", "aborted"]


@dataclass(frozen=True)
class TileApplied:
    """A new tile has been counted in."""


@dataclass(frozen=True)
class EndArrived:
    """The source says the scan is over, after so many tiles of both modalities."""

    tiles: int
    aborted: bool = False


@dataclass(frozen=True)
class NothingMoreComes:
    """What is missing is gone for good, or the source has been silent too long."""


@dataclass(frozen=True)
class Finalised:
    """The finals are stored."""


@dataclass(frozen=True)
class Finalise:
    """Compute the finals now, with this status."""

    status: Status


Event = TileApplied | EndArrived | NothingMoreComes | Finalised


@dataclass(frozen=True)
class ScanLife:
    """One scan's phase, and how many tiles are here and expected."""

    phase: Phase = "receiving"
    tiles: int = 0
    expected: int | None = None
    aborted: bool = False

    def on(self, event: Event) -> tuple[ScanLife, tuple[Finalise, ...]]:
        """Return the next state and what is to be done."""
        if isinstance(event, Finalised):
            return (replace(self, phase="done") if self.phase == "finalising" else self), ()
        if self.phase not in ("receiving", "ending"):
            return self, ()
        if isinstance(event, NothingMoreComes):
            return replace(self, phase="finalising"), (Finalise("aborted" if self.aborted else "incomplete"),)
        if isinstance(event, TileApplied):
            after = replace(self, tiles=self.tiles + 1)
        else:
            after = replace(self, phase="ending", expected=event.tiles, aborted=event.aborted)
        if after.expected is None or after.tiles < after.expected:
            return after, ()
        return replace(after, phase="finalising"), (Finalise("aborted" if after.aborted else "complete"),)
