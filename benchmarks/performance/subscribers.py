"""Subscribers: whether latency and ingest stay as they are when many listen.

As `live_latency` and `ingest`, with 1 to 64 subscribers, taken in turn; latency is that of the first. The others are
sockets of one process (`crowd`), which shares the two cores: what they take is told by the service's own processor
time. In the scan at the instrument's pace every one of them must have received every live map that the first has, and
the end.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
from benchmarks.performance import ingest
from benchmarks.performance.crowd import Received, crowd
from benchmarks.performance.live_latency import play
from benchmarks.performance.table import Cell, Table, percentile
from benchmarks.reliability.processes import Service

NAME = "subscribers"
COUNTS, QUICK = (1, 4, 16, 64), (1, 3)
PLAYED_S, QUICK_S = 6.0, 2.0
KIND, FRAMES = "0.4", 20  # of `ingest`
CHIP_PX = 10  # 51 x 51 chips
GOAL_S = 0.1  # p99 of the live maps, as with one subscriber
UNAFFECTED = 1.2  # times what one subscriber has
COLUMNS = (
    "before",
    "times the latency of one",
    "times the ingest time",
    "times the service's cores",
    "p50, ms",
    "p99, ms",
    "ingest, s",
    "service, cores",
    "MB to the others",
)


class Heard(msgspec.Struct, frozen=True):
    """One scan at the instrument's pace, and one as fast as it is acknowledged, before so many subscribers.

    Attributes
    ----------
    p50_s, p99_s : of the live maps
    cpu : cores that the service took
    ingest_s : until all was acknowledged
    lacked : messages that one subscriber of the first scan had and another had not
    megabytes : that left the service in the first scan
    """

    p50_s: float
    p99_s: float
    cpu: float
    ingest_s: float
    lacked: int
    megabytes: float


def measure(runs: int, quick: bool) -> Table:
    """Take every number of subscribers in turn, `runs` times."""
    counts, seconds, frames = (QUICK, QUICK_S, 2) if quick else (COUNTS, PLAYED_S, FRAMES)
    found: dict[int, list[Heard]] = {count: [] for count in counts}
    for _ in range(runs):
        for count in counts:
            found[count].append(before(count, seconds, frames))
    return table({count: median(heard) for count, heard in found.items()})


def before(subscribers: int, seconds: float, frames: int) -> Heard:
    """Play and send one scan each, before so many subscribers."""
    received: list[Received] = []

    @contextmanager
    def others(service: Service) -> Iterator[None]:  # beside the listener, who is one
        with crowd(service.results, subscribers - 1) as found:
            yield
        received.extend(found)

    @contextmanager
    def everybody(service: Service) -> Iterator[None]:
        with crowd(service.results, subscribers):
            yield

    played = play(seconds, CHIP_PX, beside=others)
    sent = ingest.sent(KIND, frames, everybody)
    lacked = sum(one.live < played.maps or not one.done for one in received)
    p50, p99 = (percentile(played.latency_s, share) for share in (0.5, 0.99))
    return Heard(p50, p99, played.cpu, sent.ours_s, lacked, sum(one.nbytes for one in received) / 1e6)


def median(heard: Sequence[Heard]) -> Heard:
    """Return the medians of some runs; of what was lacked the sum."""
    middle = {name: statistics.median(getattr(one, name) for one in heard) for name in Heard.__struct_fields__}
    return Heard(**middle | {"lacked": sum(one.lacked for one in heard)})


def table(heard: Mapping[int, Heard]) -> Table:
    """Return what was measured, with the goal; by number of subscribers, the first of which is one."""
    alone = heard[1]
    rows: list[tuple[Cell, ...]] = [
        (
            f"{count} subscribers" if count > 1 else "1 subscriber",
            one.p50_s / alone.p50_s,
            one.ingest_s / alone.ingest_s,
            one.cpu / alone.cpu,
            1e3 * one.p50_s,
            1e3 * one.p99_s,
            one.ingest_s,
            one.cpu,
            one.megabytes,
        )
        for count, one in heard.items()
    ]
    most = max(heard)
    slower = max(heard[most].p50_s / alone.p50_s, heard[most].ingest_s / alone.ingest_s)
    lacked = sum(one.lacked for one in heard.values())
    return Table(
        name=NAME,
        title="Subscribers",
        command=f"python -m benchmarks.performance {NAME}",
        columns=COLUMNS,
        rows=tuple(rows),
        notes=(
            "The subscribers run on the service's own two cores. "
            + ("Each received every live map and the end." if not lacked else f"{lacked} LACKED live maps or the end."),
            f"Goal, latency and ingest unaffected (at most {UNAFFECTED:g} times one subscriber's) by {most}: "
            f"{'met' if slower <= UNAFFECTED and not lacked else 'missed'}, {slower:.2f}; p99 below "
            f"{1e3 * GOAL_S:.0f} ms: {'met' if heard[most].p99_s < GOAL_S else 'missed'}, "
            f"{1e3 * heard[most].p99_s:.0f} ms.",
        ),
        facts={str(count): msgspec.to_builtins(one) for count, one in heard.items()},
    )
