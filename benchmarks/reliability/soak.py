"""A service for hours: scans back to back, sessions that come and go, subscribers that come and go, cuts now and then.

What could grow is looked at every few seconds: resident memory, open file handles and threads of the service, the
latency of its live maps, and how long finals take. After a warm-up (every code path has run, caches are full) none of
it may grow: a leak fails the run. Memory is judged by the slope of Theil and Sen, which a few high samples do not
move; what is allowed is the growth of the run, not of an hour, because a short run cannot know an hour. The newest
results of 64 sessions are kept in memory: only a warm-up that has seen more of them is followed by nothing but noise,
and less of it is allowed then.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from benchmarks.reliability.matrix import Scan
from benchmarks.reliability.processes import PLACES, Proxied, Service, proxied, wait_for

from livestem.client import Acquisition, Subscriber
from livestem.client.replay import send_scan
from livestem.domain.limits import DEFAULT_LIMITS
from livestem.wire import messages as m

SAMPLE_S = 2.0
WARM = 0.25  # share of the run that is warm-up
GROWTH_MIB = 24.0  # a run's growth while sessions come into memory: some finals of each, and the allocator's arenas
GROWTH_SHARE = 0.05  # or so much of what it was after the warm-up
# And once they are there. Names of 10 000 scans and 4096 sessions are remembered (4 MiB, never reached in an hour),
# Python's table of names is made anew now and then (4 MiB at once), and the allocator has arenas of one MiB.
FULL_MIB = 12.0
HANDLES = 6  # a subscriber's and an adapter's connections may be open at one sample and not at another
THREADS = 2  # those of HTTP
SCANS = 5  # of a session
FRAMES = 2
CUT = 0.2  # share of scans during which a line is cut
_BUCKET = "livestem_live_latency_seconds_bucket"


@dataclass(frozen=True)
class Sample:
    """What the service was at one moment."""

    at_s: float
    memory_mib: float
    handles: int
    threads: int
    live_s: float | None  # median latency of the live maps since the sample before
    finals_s: float | None  # mean time of the finals since the sample before


@dataclass(frozen=True)
class Soak:
    """A run."""

    seconds: float
    scans: int
    subscribers: int
    cuts: int
    samples: tuple[Sample, ...]
    wrong: tuple[str, ...]

    @property
    def warm(self) -> list[Sample]:
        """Return the samples after the warm-up."""
        return [s for s in self.samples if s.at_s >= WARM * self.seconds]

    @property
    def growth_mib(self) -> float:
        """Return what memory grew by after the warm-up, by its slope, MiB."""
        warm = self.warm
        return slope([s.at_s for s in warm], [s.memory_mib for s in warm]) * (warm[-1].at_s - warm[0].at_s)

    @property
    def allowed_mib(self) -> float:
        """Return what growth after the warm-up may be noise, MiB."""
        if WARM * self.scans >= DEFAULT_LIMITS.sessions * SCANS:
            return FULL_MIB
        return max(GROWTH_MIB, GROWTH_SHARE * self.warm[0].memory_mib)

    @property
    def leaks(self) -> list[str]:
        """Return what grew, in words; empty if nothing did."""
        warm = self.warm
        third = max(1, len(warm) // 3)
        first, last = warm[:third], warm[-third:]
        found = []
        if self.growth_mib > self.allowed_mib:
            found.append(f"memory grew by {self.growth_mib:.0f} MiB, more than {self.allowed_mib:.0f}")
        for what, most in (("handles", HANDLES), ("threads", THREADS)):
            before, after = (statistics.median(getattr(s, what) for s in part) for part in (first, last))
            if after - before > most:
                found.append(f"{what} grew from {before:g} to {after:g}")
        return found


class _Watch:
    """Samples a service."""

    def __init__(self, service: Service) -> None:
        self._service, self._process = service, psutil.Process(service.process.pid)
        self._began = time.monotonic()
        self._live: dict[float, float] = {}
        self._finals = 0.0, 0.0
        self.samples: list[Sample] = []
        self._due = 0.0

    @property
    def at_s(self) -> float:
        return time.monotonic() - self._began

    def look(self) -> None:
        """Take a sample if it is time."""
        if self.at_s < self._due:
            return
        self._due = self.at_s + SAMPLE_S
        with self._process.oneshot():
            memory, threads = self._process.memory_info().rss / 2**20, self._process.num_threads()
        handles = self._process.num_fds() if psutil.POSIX else self._process.num_handles()
        live, finals = self._latencies()
        self.samples.append(Sample(round(self.at_s, 1), round(memory, 1), handles, threads, live, finals))

    def _latencies(self) -> tuple[float | None, float | None]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._service.http}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        live = {
            float(line.split('le="')[1].split('"')[0]): float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith(_BUCKET)
        }
        stage = 'livestem_stage_duration_seconds_{}{{stage="finals"}}'
        finals = tuple(
            next((float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith(stage.format(part))), 0.0)
            for part in ("sum", "count")
        )
        median = _median_of({le: n - self._live.get(le, 0.0) for le, n in live.items()})
        took, n = finals[0] - self._finals[0], finals[1] - self._finals[1]
        self._live, self._finals = live, (finals[0], finals[1])
        return median, round(took / n, 3) if n else None


def soak(seconds: float, folder: Path, seed: int, told: Callable[[str], None] = lambda text: None) -> Soak:
    """Run a service for so long; return what was seen."""
    rng = random.Random(seed)
    scan = Scan(FRAMES)
    done: list[m.ScanDone] = []  # as who was there all the time has heard
    wrong: list[str] = []
    counts = {"scans": 0, "subscribers": 0, "cuts": 0}
    with proxied(folder) as at:
        watch = _Watch(at.service)
        steady = Subscriber(at.results)
        for session in itertools.count():
            if watch.at_s >= seconds:
                break
            with Acquisition(f"soak-{session}", at.bind, recorded=True) as acquisition:
                acquisition.wait_for_service(20)
                for number in range(SCANS):
                    _one_scan(at, acquisition, scan, number, rng, counts, watch)
                    done += _listen(steady)
            told(f"{watch.at_s:.0f} s: {counts['scans']} scans, {watch.samples[-1].memory_mib:.0f} MiB")
        wait_for(lambda: done.extend(_listen(steady)) or len(done) >= counts["scans"], 30.0, "finals are missing")
        if steady.lost:
            wrong.append(f"told lost: {steady.lost[:3]}")
        steady.close()
        at.service.assert_well()
    seen = {(header.input_digest, header.digest) for header in done}
    scans = {(header.session, header.scan_id) for header in done}
    if len(seen) != 1:
        wrong.append(f"{len(seen)} digests of one scan")
    if not len(done) == len(scans) == counts["scans"]:
        wrong.append(f"{len(done)} scan_done of {len(scans)} scans were heard, {counts['scans']} were sent")
    return Soak(round(watch.at_s, 1), **counts, samples=tuple(watch.samples), wrong=tuple(wrong))


def _one_scan(
    at: Proxied,
    acquisition: Acquisition,
    scan: Scan,
    number: int,
    rng: random.Random,
    counts: dict[str, int],
    watch: _Watch,
) -> None:
    """Send the scan once more, under another name, with a passing subscriber, and perhaps with a cut."""
    scan.scan_id = f"scan-{number}"
    cut_at = rng.randrange(len(scan.places)) if rng.random() < CUT else None
    counts["cuts"] += cut_at is not None
    sent = itertools.count()

    def on_tile(tile: object) -> None:
        if next(sent) == cut_at:
            at.proxies[rng.choice(PLACES)].strike("cut", 0.0)
        time.sleep(0.002)
        watch.look()

    with Subscriber(at.results, session=acquisition.session) as passing:
        passing.wait_subscribed(20)
        send_scan(acquisition, scan, on_tile=on_tile)
        _listen(passing)
    counts["scans"] += 1
    counts["subscribers"] += 1


def _listen(subscriber: Subscriber) -> list[m.ScanDone]:
    """Take what waits; return what tells that a scan is done."""
    found = []
    while (message := subscriber.receive(0.05)) is not None:
        if isinstance(message.header, m.ScanDone):
            found.append(message.header)
    return found


def slope(x: list[float], y: list[float]) -> float:
    """Return the slope of Theil and Sen: the median of those of all pairs of points."""
    pairs = [(b - a, d - c) for (a, c), (b, d) in itertools.combinations(zip(x, y, strict=True), 2) if b > a]
    return statistics.median(dy / dx for dx, dy in pairs) if pairs else 0.0


def _median_of(cumulative: dict[float, float]) -> float | None:
    """Return the upper edge of the bucket that holds the median of a histogram; None if it is empty."""
    total = max(cumulative.values(), default=0.0)
    return min((le for le, n in cumulative.items() if n >= total / 2), default=None) if total else None
