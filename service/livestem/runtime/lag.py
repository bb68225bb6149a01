"""How far live maps are behind what has come: the service's own measure of whether it is quick enough.

Rules
-----
- A scan *lags* by the age of the oldest data that are in no live map yet: not looked at, in a look under way, or in
  chips that wait to be embedded.
- More than one frame of the scan's own pace is too much. Less than `LEAST_S` nobody at a screen notices, more than
  `MOST_S` is too much however slow the beam.
- What lags drops revisions of live maps, the newest wins; never data, and finals are computed from all of them.
- It is told once when it begins and once when it is over: when the lag is half of what is too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from livestem.domain.scan import ScanPlan

LEAST_S, MOST_S, UNPACED_S = 0.5, 10.0, 1.0  # the last: of scans that do not state their dwell time
_OVER = 0.5


class Shown(Protocol):
    """What is asked of an open scan; the times are those of the monotonic clock."""

    plan: ScanPlan
    arrived: float | None  # when the oldest tile came that no look has taken up
    looked_from: float | None  # of the look under way
    stale_from: float | None  # when the chip that has waited longest for its embedding changed


@dataclass(frozen=True)
class Lag:
    """The lag of one scan.

    Attributes
    ----------
    seconds : it lags
    frame_s : a frame takes at the scan's own pace; None if that is not known
    """

    seconds: float = 0.0
    frame_s: float | None = None

    @classmethod
    def of(cls, scan: Shown, now: float) -> Lag:
        """Return the lag of a scan."""
        since = [at for at in (scan.arrived, scan.looked_from, scan.stale_from) if at is not None]
        return cls(max(0.0, now - min(since)) if since else 0.0, frame_s(scan.plan))

    @property
    def allowed_s(self) -> float:
        """How much is not too much."""
        return UNPACED_S if self.frame_s is None else min(max(self.frame_s, LEAST_S), MOST_S)

    @property
    def too_much(self) -> bool:
        """Whether a person should know."""
        return self.seconds > self.allowed_s

    @property
    def over(self) -> bool:
        """Whether a lag that was too much is over."""
        return self.seconds < _OVER * self.allowed_s

    @property
    def words(self) -> str:
        """For a person: ``compute lags 1.8 frames``."""
        if self.frame_s is None:
            return f"compute lags {self.seconds:.1f} s"
        return f"compute lags {self.seconds / self.frame_s:.1f} frames"


def frame_s(plan: ScanPlan) -> float | None:
    """Return what a frame takes at a scan's own pace, s; None if its dwell time is not stated."""
    if not plan.dwell_s:
        return None
    rows, cols = plan.sampling(plan.modalities[0]).shape
    return plan.dwell_s * rows * cols
