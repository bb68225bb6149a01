"""One scan between its start and its finals."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from livestem.domain.geometry import Grid
from livestem.domain.life import EndArrived, Event, ScanLife, Status
from livestem.domain.limits import Limits
from livestem.domain.parameters import Parameters
from livestem.domain.scan import ScanPlan
from livestem.protocol.repair import Repair
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.borrowed import Borrowed
from livestem.runtime.encoders import Arithmetic
from livestem.runtime.journal import Journal
from livestem.wire import messages as m

_COMMITS = 64  # remembered: more than a second's, and a look is over by then


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
    arithmetic: Arithmetic | None = None  # what embeds its HAADF; None if nobody decided
    begun_by: tuple[int, int] = (0, 0)  # epoch and seq of its newest `scan_start`
    epoch: int = 0  # of the sender whose data came last: one session may have two adapters
    watermark: m.Watermark = m.Watermark(epoch=0, seq=0)
    commits: tuple[tuple[int, m.Watermark], ...] = ()  # the newest: tiles that were here, and how far all is stored
    end: m.ScanEnd | None = None
    repair: Repair | None = None  # once its numbers are settled and it lacks something
    status: Status | None = None  # how it ended, once it is over
    reason: str | None = None  # why it is not complete then
    contradictions: int = 0  # tiles that were refused because others are at their place
    live: object = None  # what live scoring keeps for this scan; nobody else's business
    last_look: object = None  # what it said last; likewise
    heard: float = field(default_factory=time.monotonic)  # the last word that counts for it
    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)  # when the newest live message went out, or the scan began
    arrived: float | None = None  # when the oldest tile came that no look has taken up yet
    looked_from: float | None = None  # the same of the look under way
    stale_from: float | None = None  # when the chip that has waited longest for its embedding changed
    lagging: bool = False  # whether it has been told that live maps of this scan lag

    def stored(self, watermark: m.Watermark) -> None:
        """Note how far its sender's stream is stored, and with it every tile that is here."""
        self.watermark = watermark
        self.commits = (*self.commits[-_COMMITS:], (self.life.tiles, watermark))

    def reached(self, tiles: int, otherwise: m.Watermark) -> m.Watermark:
        """Return the newest watermark of which all is among the first so many tiles."""
        return next((mark for here, mark in reversed(self.commits) if here <= tiles), otherwise)

    def begin(self, start: m.ScanStart) -> bool:
        """Take note of a `scan_start`; False if it is known. A new one takes back the end before it."""
        by = start.epoch, start.seq
        if by == self.begun_by:
            return False
        self.begun_by, self.epoch = by, start.epoch
        self.life, self.end, self.status, self.reason = ScanLife(tiles=self.life.tiles), None, None, None
        self.repair = None
        self.accumulator.frames_stated = 0
        return True

    def take_end(self, end: m.ScanEnd, limits: Limits) -> bool:
        """Take note of its end, however much of it is here; return whether it is over by that."""
        self.end, self.repair = end, None
        with self.lock:
            self.accumulator.frames_stated = min(end.frames, limits.planned_frames)
        return self.on(EndArrived(end.haadf_tiles + end.eds_tiles, end.status == "aborted", end.reason))

    def on(self, event: Event) -> bool:
        """Let something happen to it; return whether it is over by that."""
        self.life, effects = self.life.on(event)
        for effect in effects:
            self.status, self.reason = effect.status, effect.reason
        return bool(effects)

    @property
    def grid(self) -> Grid:
        """Its chips."""
        return self.accumulator.grid

    @property
    def ended_by(self) -> int | None:
        """The epoch that stated its end; None before."""
        return None if self.end is None else self.end.epoch
