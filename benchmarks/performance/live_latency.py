"""Live latency: tile sent -> first live map that includes it received, at the instrument's own pace.

An adapter, the service and a subscriber, each a process of its own on this machine, over loopback TCP. The adapter
plays frames that were rendered before; a tile is sent when the beam has swept its last row. A live map includes a tile
if its watermark has reached the tile's number. Tiles that came before every class had an example are left out: there
was no map then.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import linear_regression

import msgspec
from benchmarks.performance.live_listener import Heard
from benchmarks.performance.live_source import ROWS, SHAPE
from benchmarks.performance.table import Cell, Table, percentile
from benchmarks.reliability.processes import Service

NAME = "live_latency"
ROOT = Path(__file__).parents[2]
PLAYED_S, QUICK_S = 60.0, 4.0
FRAME_S = SHAPE[0] * SHAPE[1] * 2e-6
GOAL_S = 0.1  # p99, `default`
STEADY = 0.2  # frames a minute: a backlog that grows by less will not be seen in an hour's session
PX = {10: "51 x 51", 15: "34 x 34"}
_PER_FRAME = 2 * SHAPE[0] // ROWS  # messages

Beside = Callable[[Service], AbstractContextManager[object]]


class Played(msgspec.Struct, frozen=True):
    """What came of one scan.

    Attributes
    ----------
    latency_s : of every tile that a live map has come to include
    never : tiles that none did
    backlog : (s since the first map, frames) how far each live map was behind what had been sent
    maps_per_s, cpu : live maps received, and cores that the service took while the beam was on
    maps : live messages received in all, with and without labels
    """

    latency_s: tuple[float, ...]
    never: int
    backlog: tuple[tuple[float, float], ...]
    maps_per_s: float
    cpu: float
    maps: int

    @property
    def growth(self) -> float:
        """Frames a minute by which the backlog grows: the slope of a straight line."""
        if len(self.backlog) < 2:
            return 0.0
        return 60.0 * linear_regression(*zip(*self.backlog, strict=True)).slope


def measure(runs: int, quick: bool) -> Table:
    """Play so many scans at each chip size; of them that with the median p99 is told."""
    seconds = QUICK_S if quick else PLAYED_S
    rows: list[tuple[Cell, ...]] = []
    facts, notes = {}, [*_ABOUT]
    for px, grid in PX.items():
        played = sorted((play(seconds, px) for _ in range(1 if quick else runs)), key=_p99)
        middle = played[len(played) // 2]
        rows.append((f"default, {grid} chips", *told(middle)))
        facts[grid] = [[_p99(p), p.growth] for p in played]
        notes += [_judged(grid, middle)]
    return Table(
        name=NAME,
        title="Live latency",
        command=f"python -m benchmarks.performance {NAME}",
        columns=COLUMNS,
        rows=tuple(rows),
        notes=tuple(notes),
        facts=facts,
    )


COLUMNS = ("what", "p50, ms", "p99, ms", "worst, ms", "live maps/s", "backlog grows, frames/min", "service, cores")
_ABOUT = (
    f"{SHAPE[0]} x {SHAPE[1]} pixels at 2 µs, a frame each {FRAME_S:.2f} s, tiles of {ROWS} rows, 0.2 EDS counts per "
    "pixel and frame; adapter, service and subscriber on this machine.",
    "The paper's scripts read a recording when the session is over: their latency is hours.",
)


def told(played: Played) -> tuple[Cell, ...]:
    """Return the cells of one scan."""
    p50, p99, worst = (1e3 * percentile(played.latency_s, share) for share in (0.5, 0.99, 1.0))
    return p50, p99, worst, played.maps_per_s, played.growth, played.cpu


def play(seconds: float, chip_px: int, preset: str = "default", beside: Beside = nullcontext) -> Played:
    """Play one scan to a service of its own; `beside` is entered before it and left when its finals are out."""
    frames = max(1, round(seconds / FRAME_S))
    with (
        tempfile.TemporaryDirectory() as made,
        Service(Path(made), "--preset", preset) as service,
        beside(service),
    ):
        folder = Path(made)
        listening = _start("live_listener", folder / "heard", "--endpoint", service.results)
        _said(listening, "listening")
        scan = ("--frames", frames, "--chip-px", chip_px, "--preset", preset)
        playing = _start("live_source", folder / "sent", "--endpoint", service.acquisition, *scan)
        _said(playing, "playing")
        before = service.metric("process_cpu_seconds_total")
        _end(playing, seconds)
        cpu = (service.metric("process_cpu_seconds_total") - before) / (frames * FRAME_S)
        _end(listening, seconds)
        sent = msgspec.json.decode((folder / "sent").read_bytes(), type=list[tuple[int, float]])
        heard = msgspec.json.decode((folder / "heard").read_bytes(), type=list[Heard])
    return judged(sent, heard, cpu)


def judged(sent: Sequence[tuple[int, float]], heard: Sequence[Heard], cpu: float) -> Played:
    """Return what follows from when tiles were sent and live maps heard."""
    maps = [h for h in heard if h.scored]
    if not maps:
        raise RuntimeError("no live map was heard; does every class have an example?")
    reached = [h.seq for h in maps]
    latency, never = [], 0
    for seq, at in sent:
        first = bisect_left(reached, seq)
        if seq <= reached[0]:
            continue  # sent before there could be a map
        if first == len(maps):
            never += 1
        else:
            latency.append(maps[first].at - at)
    times = [at for _, at in sent]
    numbers = [seq for seq, _ in sent]
    last = times[-1]
    backlog = tuple(
        (h.at - maps[0].at, (bisect_left(times, h.at) - bisect_left(numbers, h.seq + 1)) / _PER_FRAME)
        for h in maps
        if h.at <= last
    )
    during = [h for h in maps if h.at <= last]
    return Played(tuple(latency), never, backlog, len(during) / max(last - maps[0].at, 1e-9), cpu, len(heard))


def _judged(grid: str, played: Played) -> str:
    p99, growth = _p99(played), played.growth
    quick = "met" if p99 < GOAL_S else "missed"
    steady = "does not grow" if growth < STEADY else "grows"
    return f"{grid}: p99 {1e3 * p99:.0f} ms, goal below {1e3 * GOAL_S:.0f} ms: {quick}; the backlog {steady}."


def _p99(played: Played) -> float:
    return percentile(played.latency_s, 0.99)


def _start(module: str, out: Path, *flags: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"benchmarks.performance.{module}", "--out", str(out), *map(str, flags)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")


def _said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    if line.strip() != word:
        raise RuntimeError(f"{process.args} ended before it said {word!r}")


def _end(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait for a process of ours to end by itself."""
    if process.wait(seconds + 180):
        raise RuntimeError(f"{process.args} failed")
    if process.stdout is not None:
        process.stdout.close()
