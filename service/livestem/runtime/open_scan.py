"""One scan between its start and its finals."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from livestem.domain.geometry import Grid
from livestem.domain.life import ScanLife, Status
from livestem.domain.parameters import Parameters
from livestem.domain.scan import ScanPlan
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.borrowed import Borrowed
from livestem.runtime.journal import Journal
from livestem.wire import messages as m


@dataclass
class OpenScan:
    """One scan from its start to its finals. `lock` guards the accumulator between ingest and compute."""

    session: str
    scan_id: str
    plan: ScanPlan
    parameters: Parameters
    accumulator: Accumulator
    journal: Journal
    lock: threading.Lock = field(default_factory=threading.Lock)
    life: ScanLife = ScanLife()
    borrowed: Borrowed | None = None  # chips of earlier scans that are examples here
    epoch: int = 0  # of the sender whose data came last: one session may have two adapters
    watermark: m.Watermark = m.Watermark(epoch=0, seq=0)
    end: m.ScanEnd | None = None
    status: Status | None = None  # how it ended, once it is over
    reason: str | None = None  # why it is not complete then
    live: object = None  # what live scoring keeps for this scan; nobody else's business
    heard: float = field(default_factory=time.monotonic)  # the last word that counts for it
    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)  # when the newest live message went out, or the scan began
    arrived: float | None = None  # when the oldest tile came that no live message includes yet

    @property
    def grid(self) -> Grid:
        """Its chips."""
        return self.accumulator.grid

    @property
    def ended_by(self) -> int | None:
        """The epoch that stated its end; None before."""
        return None if self.end is None else self.end.epoch
