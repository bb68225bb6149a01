"""Decisions about scans, said until they must have been heard: a recorded source waits for its own, and words get lost.

Each is said again every `AGAIN_S`, until a later message of its scan has come from the same start of its sender (which
then has not waited in vain) and it has been said `TIMES`, for an instrument sends on without it. After `WAITED_S`
nobody waits for it any more. A further decision about the same scan takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from livestem.wire import messages as m

AGAIN_S = 1.0  # the rhythm of everything that is repeated on this wire
TIMES = 3  # a word lost three times in three seconds is lost to somebody who has other troubles
WAITED_S = 60.0  # twice as long as a source waits that nobody has told otherwise


@dataclass
class _Said:
    verdict: m.Verdict
    first_at: float
    last_at: float
    times: int = 1
    heard: bool = False


class Verdicts:
    """What has been decided for one sender, and is still to be said."""

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}  # by scan

    def said(self, verdict: m.Verdict, now: float) -> None:
        """Note that a decision has been said for the first time."""
        self._said[verdict.scan_id] = _Said(verdict, now, now)

    def came(self, message: m.OfScan) -> None:
        """Note a message of a scan; a later one than its start shows that its sender has gone on."""
        said = self._said.get(message.scan_id)
        if said is not None and message.epoch == said.verdict.epoch and message.seq > (said.verdict.seq or 0):
            said.heard = True

    def due(self, now: float) -> list[m.Verdict]:
        """Return what is to be said again now."""
        over = [s for s, v in self._said.items() if (v.heard and v.times >= TIMES) or now - v.first_at > WAITED_S]
        for scan_id in over:
            del self._said[scan_id]
        again = [v for v in self._said.values() if now - v.last_at >= AGAIN_S]
        for said in again:
            said.last_at, said.times = now, said.times + 1
        return [said.verdict for said in again]
