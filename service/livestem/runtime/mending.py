"""Scans that have ended and lack something: what is asked for again by place, and what is acknowledged meanwhile.

A recorded source leaves once its `scan_end` is acknowledged. So that word is held back while the scan is mended: an
acknowledged `scan_end` means that everything that can be had is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from livestem.protocol.effects import Answered
from livestem.protocol.repair import Repair
from livestem.runtime.open_scan import OpenScan
from livestem.wire import messages as m

PRESENT_S = 3.0  # without a heartbeat: nobody is there to be asked


@dataclass(frozen=True)
class Wanted:
    """What to ask a sender for by place."""

    scan_id: str
    frame: int
    rectangles: tuple[m.Rectangle, ...]


class Mending:
    """The repair by place of the open scans.

    Parameters
    ----------
    scans : mapping
        The open scans by (session, scan_id), as they are at any moment.
    """

    def __init__(self, scans: Mapping[tuple[str, str], OpenScan]) -> None:
        self._scans = scans

    def turn(self, session: str, epoch: int, contiguous: int, now: float) -> tuple[list[Wanted], list[OpenScan]]:
        """Return what to ask a sender for, and the scans for which nothing is left to be asked.

        Parameters
        ----------
        session, epoch : the sender
        contiguous : int
            Up to where its messages have come or are gone.
        now : float
            s, `time.monotonic`.
        """
        wanted, over = [], []
        for scan in self._ended(session, epoch):
            assert scan.end is not None
            if contiguous < scan.end.seq or scan.status is not None:
                continue
            if scan.repair is None:
                scan.repair = Repair(scan.accumulator.lacking_frames(scan.end.frames))
            asked = scan.repair.wanted(scan.accumulator.lacking, now) if now - scan.heard < PRESENT_S else None
            if asked is not None:
                wanted.append(Wanted(scan.scan_id, *asked))
            elif scan.repair.over:
                over.append(scan)
        return wanted, over

    def answered(self, effect: Answered, now: float) -> None:
        """Take an answer to what was wanted."""
        scan = self._scans.get((effect.asked.session, effect.asked.scan_id or ""))
        if scan is not None and scan.repair is not None:
            scan.repair.answered(effect.answer, effect.asked, now)

    def acknowledgeable(self, session: str, epoch: int, contiguous: int) -> int:
        """Return up to where a sender may be told that its messages are stored."""
        ends = [scan.end.seq - 1 for scan in self._ended(session, epoch) if scan.end is not None]
        return min([contiguous, *ends])

    def _ended(self, session: str, epoch: int) -> list[OpenScan]:
        return [s for s in list(self._scans.values()) if s.session == session and s.ended_by == epoch]
