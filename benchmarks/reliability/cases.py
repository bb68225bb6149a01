"""One case: a microscope, a service and observers, what happens to them, and what must be true in the end.

Whatever happens in the first seconds, the network is calm and everybody is up again after them, and soon:

1. every scan of which the service knows is finished; one that it never heard of is of an instrument whose every tile
   was let go or died with its program;
2. what its finals were made of is what the source measured, tile by tile, and what they lack is told, tile by tile:
   nothing at all of a recorded source; of an instrument only what its full buffer had let go of, or what died with it;
3. the observer that was there all the time, and the one that came last, have every final once and in order.

A case is made of plain values, so that it can be drawn, shrunk, printed and run again.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Literal, get_args

from benchmarks.reliability.adapters import Adapter, Scan
from benchmarks.reliability.link import CALM, CHANNELS, Link, Weather
from benchmarks.reliability.observers import Observer
from benchmarks.reliability.served import opened
from benchmarks.reliability.services import VANISH_S, Service

from livestem.domain.limits import Limits
from livestem.protocol.resend import Frames
from livestem.wire import messages as m

STEP_S = 0.02
STORM_S = 4.0  # faults happen within this time
SETTLED_S = 90.0  # of calm: a case that is not at rest then never will be
TILE_BYTES = 260  # of one tile message, about

Kind = Literal[
    "cut",
    "half-open",
    "service killed",
    "killed before sending",
    "adapter killed",
    "observer leaves",
    "observer stalls",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Blow:
    """Something that happens at a time, s, and lasts so long, s; `link` and `channel` say where."""

    kind: Kind
    at_s: float
    length_s: float
    link: int = 0
    channel: int = 0


@dataclass(frozen=True)
class Case:
    """What is drawn."""

    seed: int
    tiles: tuple[int, ...]  # of each scan
    recorded: bool
    acquisition: Weather
    results: Weather
    blows: tuple[Blow, ...]
    room: int = 1000  # messages that the adapter's resend buffer holds
    late: bool = False  # the service comes when scans are under way


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    whole: int  # scans whose finals lack nothing
    told: int  # scans whose finals tell exactly what they lack
    unheard: int  # scans of which nothing ever reached the service, and nothing could
    silent: tuple[str, ...]  # what was lost without a word, or told wrongly: must be empty


class World:
    """Everything of one case, and its clock."""

    def __init__(self, case: Case) -> None:
        rng = random.Random(case.seed)
        self.case, self.now = case, 0.0
        self._epochs, self._ids = itertools.count(10), (f"o{i}" for i in itertools.count())
        scans = [Scan(f"scan{n}", tiles) for n, tiles in enumerate(case.tiles)]
        self.acquisition = Link(rng, case.acquisition, self._on_acquisition)
        limits = Limits(resend_bytes=case.room * TILE_BYTES)
        self.adapter = Adapter(self.acquisition, scans, recorded=case.recorded, limits=limits)
        self._links: list[Link] = []
        self._observers: list[Observer] = []
        self._rng = rng
        self.results = _Fan()
        self.service = Service(self.acquisition, self.results, scans)  # type: ignore[arg-type]
        self.constant, self.last = self._observe(), self._observe()
        self._pending = sorted(case.blows, key=lambda blow: blow.at_s)
        self._comes_back: list[tuple[float, str]] = []

    def run(self) -> None:
        """Live through the storm, then until everything rests; an `AssertionError` if it never does."""
        self.adapter.start(next(self._epochs))
        if not self.case.late:
            self.service.start(next(self._epochs), self.now)
        while self.now < STORM_S:
            self._step()
        self._calm()
        while not self.rested:
            assert self.now < STORM_S + SETTLED_S, f"not at rest: {self.case}"
            self._step()
        self.adapter.close_books()

    @property
    def rested(self) -> bool:
        """Whether the source has sent all, no scan is open, and the observers have every final."""
        if not self.adapter.finished or self.service.open or self._comes_back:
            return False
        if self.adapter.sent_all is not None and not self.service.has(*self.adapter.sent_all):
            return False
        kept = self.kept
        everyone = all(observer.got == kept for observer in (self.constant, self.last))
        return everyone and (not self.case.recorded or self._all_known)

    @property
    def kept(self) -> list[tuple[int, int]]:
        """Return (epoch, seq) of all finals in the service's store, in the order in which they were kept."""
        return [(epoch, seq) for epoch, found in self.service.disk.results.items() for seq in found]

    @property
    def _all_known(self) -> bool:
        return len(self.service.disk.finished) == len(self.adapter.scans)

    def _step(self) -> None:
        self.now += STEP_S
        while self._pending and self._pending[0].at_s <= self.now:
            self._strike(self._pending.pop(0))
        for _, who in [back for back in self._comes_back if back[0] <= self.now]:
            self._start(who)
        self._comes_back = [back for back in self._comes_back if back[0] > self.now]
        for link in (self.acquisition, *self._links):
            link.advance(self.now)
        self.adapter.step(self.now)
        self.service.step(self.now)
        for observer in self._observers:
            if self.now >= observer.stalled_until:
                observer.step(self.now)

    def _strike(self, blow: Blow) -> None:
        link = (self.acquisition, *self._links)[blow.link % (1 + len(self._links))]
        if blow.kind == "cut":
            link.cut(CHANNELS, blow.length_s)
        elif blow.kind == "half-open":
            link.cut((CHANNELS[blow.channel % len(CHANNELS)],), blow.length_s)
        elif blow.kind == "service killed":
            self.service.kill()
            self._comes_back.append((self.now + blow.length_s, "service"))
        elif blow.kind == "killed before sending":
            self.service.kill_before_sending = True
        elif blow.kind == "adapter killed":
            self.adapter.kill()
            self._comes_back.append((self.now + blow.length_s, "adapter"))
        elif blow.kind == "observer stalls":
            self.constant.stalled_until = self.now + blow.length_s
        else:
            self._observers.remove(self.last)
            self.last = self._observe()

    def _start(self, who: str) -> None:
        if who == "service" and not self.service.running:
            self.service.start(next(self._epochs), self.now)
        elif who == "adapter" and not self.adapter.running and not self.adapter.finished:
            self.adapter.start(next(self._epochs))

    def _calm(self) -> None:
        for link in (self.acquisition, *self._links):
            link.weather = CALM
        self.service.kill_before_sending = False
        for who in ("service", "adapter"):
            self._start(who)
        self._comes_back = []

    def _observe(self) -> Observer:
        observer: Observer

        def arrive(channel: str, frames: Frames) -> None:
            message = opened(frames)
            if message is None:
                return
            if channel == "request":
                if isinstance(message.header, m.Talk):
                    self.results.at = link
                    self.service.hear(message.header)
                    self.results.at = None
            elif self.now < observer.stalled_until:
                pass  # its queue is full: what is published is dropped, and replies too
            elif channel == "pub":
                observer.published(message, self.now)
            else:
                observer.replied(message, self.now)

        link = Link(self._rng, self.case.results, arrive)
        link.now = self.now
        observer = Observer(link, self._ids)
        self._links.append(link)
        self.results.links.append(link)
        self._observers.append(observer)
        return observer

    def _on_acquisition(self, channel: str, frames: Frames) -> None:
        message = opened(frames)
        if message is None:
            return
        if channel == "request":
            if isinstance(message.header, m.Talk):
                self.adapter.hear(message.header)
        elif channel == "pub":
            self.service.published(message, self.now)
        else:
            self.service.replied(message, self.now)


class _Fan:
    """The service's two sockets: what is published goes to every observer's link, a reply to who asked."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.at: Link | None = None

    def send(self, channel: str, frames: Frames) -> None:
        for link in self.links if channel == "pub" else [self.at]:
            if link is not None:
                link.send(channel, frames)


def run(case: Case) -> Outcome:
    """Run a case to its end, and say what came of it."""
    world = World(case)
    world.run()
    disk, adapter = world.service.disk, world.adapter
    wrong: list[str] = []
    unheard = 0
    for scan in adapter.scans:
        if scan.name not in disk.finished:
            unheard += 1
            wrong += [f"{scan.name}: tile {y} was to be had" for y in range(scan.tiles) if _owed(adapter, scan, y)]
            continue
        tiles, missing = disk.finished[scan.name], disk.missing[scan.name]
        wrong += [f"{scan.name}: tile {y} holds {v}" for y, v in tiles.items() if v != scan.value(y)]
        if set(tiles) | set(missing) != set(range(scan.tiles)) or set(tiles) & set(missing):
            wrong.append(f"{scan.name}: {sorted(tiles)} and {missing} are not the scan")
        wrong += [f"{scan.name}: tile {y} was to be had" for y in missing if _owed(adapter, scan, y)]
        if missing and adapter.recorded:
            wrong.append(f"{scan.name}: a recording lacks {missing}")
        for observer in (world.constant, world.last):
            if observer.done.get(scan.name) != list(missing):
                wrong.append(f"{scan.name}: an observer was told {observer.done.get(scan.name)}, not {missing}")
    for observer in (world.constant, world.last):
        wrong += [f"an observer was told that {lost} is lost" for lost in observer.lost]
    told = sum(bool(missing) for missing in disk.missing.values())
    return Outcome(len(disk.missing) - told, told, unheard, tuple(wrong))


def _owed(adapter: Adapter, scan: Scan, tile: int) -> bool:
    """Return whether the service could have had a tile."""
    return adapter.recorded or (scan.name, tile) not in adapter.excused


assert VANISH_S > STORM_S  # an outage within the storm ends no scan of a source that comes back
