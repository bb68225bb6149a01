"""Who is still heard of: which words of which sender keep which scan open, and which scan has been silent for longest.

The rules are those of `livestem.domain.life`; here is the clock (`time.monotonic`) that they are measured by.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from livestem.domain import life
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.opening import Key
from livestem.runtime.remembered import Remembered
from livestem.wire import messages as m

_SESSIONS = 1024  # whose senders are heard: a peer may invent them by the thousand


class Vigil:
    """Keeps the time of the last word that counts for each open scan, in its `heard`.

    Parameters
    ----------
    scans : mapping
        The open scans by (session, scan_id), as they are at any moment.
    """

    def __init__(self, scans: Mapping[Key, OpenScan]) -> None:
        self._scans = scans
        self._beams: Remembered[str, life.Beam] = Remembered(_SESSIONS)

    def moved(self, message: m.OfScan) -> None:
        """Note what a sender says of a scan: it is there that its beam is."""
        if message.session not in self._beams:
            self._beams[message.session] = life.Beam()
        self._beams[message.session].moved(message.epoch, message.seq, message.scan_id)
        scan = self._scans.get((message.session, message.scan_id))
        if scan is not None:
            scan.epoch, scan.heard = message.epoch, time.monotonic()

    def heard(self, session: str, epoch: int) -> None:
        """Note any word of a sender, a heartbeat perhaps."""
        beam = self._beams.get(session, life.Beam())
        for scan in self._scans.values():
            if scan.session == session and beam.counts_for(epoch, scan):
                scan.heard = time.monotonic()

    def heard_now(self) -> None:
        """Say that nobody was listened to until now: no silence before this counts."""
        for scan in self._scans.values():
            scan.heard = time.monotonic()

    def silent(self, now: float, for_s: float) -> list[OpenScan]:
        """Return the scans that are not over and of which nothing has been heard for longer than that, s."""
        return [scan for scan in self._going_on() if now - scan.heard > for_s]

    def quietest(self) -> OpenScan | None:
        """Return the scan that has been silent for longest, of those that are not over."""
        return min(self._going_on(), key=lambda scan: scan.heard, default=None)

    def why(self, scan: OpenScan, silent_s: float) -> str:
        """Return why a scan of which nothing was heard for so long is over, for a person."""
        return self._beams.get(scan.session, life.Beam()).why(scan, silent_s)

    def forget(self, session: str) -> None:
        """Let go of a session that has no open scan."""
        self._beams.pop(session, None)

    def _going_on(self) -> list[OpenScan]:
        return [scan for scan in self._scans.values() if scan.status is None]
