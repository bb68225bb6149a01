"""Ingest: how fast tiles go through socket, validation, journal and accumulation, everything else running.

A real service and an adapter that sends as fast as it is acknowledged, each a process of its own; live maps are made
meanwhile, and scored. The service has loaded its libraries before. The clock stops when `scan_end` is acknowledged:
everything is in the journal and counted in.
Beside it, in the same run and on the same messages: pyzmq that only moves them, and SQLite that only inserts them.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import msgspec
from benchmarks.performance.ingest_source import CHANNELS, ROWS, SIDE, Sent
from benchmarks.performance.live_latency import Beside
from benchmarks.performance.rest import at_rest
from benchmarks.performance.table import Cell, Table
from benchmarks.reliability.processes import Service, end

NAME = "ingest"
ROOT = Path(__file__).parents[2]
FRAMES = {"haadf": 40, "0.04": 40, "0.4": 30, "5": 12, "dense": 2}  # by kind: some seconds each
WORDS = {
    "haadf": "HAADF alone",
    "0.04": "HAADF, events, 0.04 a pixel",
    "0.4": "HAADF, events, 0.4 a pixel",
    "5": "HAADF, events, 5 a pixel: stress",
    "dense": f"dense spectra of {CHANNELS} channels",
}
STRESS_TIMES, DENSE_SHARE = 5.0, 0.6  # goals: times real time at 5 a pixel; of bare SQLite for dense tiles
LONGEST_S = 300.0  # a run that takes so long has failed


def measure(runs: int, quick: bool) -> Table:
    """Send every kind `runs` times to a service of its own; medians."""
    found = {kind: [sent(kind, 2 if quick else frames) for _ in range(runs)] for kind, frames in FRAMES.items()}
    middle = {kind: _median(all_of) for kind, all_of in found.items()}
    stress = middle["5"].beam_s / middle["5"].ours_s
    dense = middle["dense"].sqlite_s / middle["dense"].ours_s
    return Table(
        name=NAME,
        title="Ingest",
        command=f"python -m benchmarks.performance {NAME}",
        columns=("what", "times real time", "of bare pyzmq", "of bare SQLite", "events/s", "tiles/s", "MB/s"),
        rows=tuple((WORDS[kind], *_cells(m)) for kind, m in middle.items()),
        notes=(
            f"{SIDE} x {SIDE} pixels at 2 µs, tiles of {ROWS} rows (dense: of one), four classes scored live; "
            "dense spectra come as fast as photons do, real time means little for them.",
            f"Stress: {stress:.1f} times real time, goal {STRESS_TIMES:g}: {_met(stress >= STRESS_TIMES)}.",
            f"Dense: {dense:.2f} of bare SQLite, goal {DENSE_SHARE:g}: {_met(dense >= DENSE_SHARE)}.",
        ),
        facts={kind: [msgspec.to_builtins(one) for one in all_of] for kind, all_of in found.items()},
    )


def sent(kind: str, frames: int, beside: Beside = nullcontext) -> Sent:
    """Send one scan to a service of its own, with something beside it."""
    with tempfile.TemporaryDirectory() as made, Service(Path(made)) as service, beside(service):
        at_rest(service)
        command = [sys.executable, "-m", "benchmarks.performance.ingest_source", "--endpoint", service.acquisition]
        command += ["--kind", kind, "--frames", str(frames), "--folder", made]
        told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=LONGEST_S, check=True)
        end(service.process, signal.SIGKILL)  # the finals of noise are nobody's
        return msgspec.json.decode(told.stdout, type=Sent)


def _median(found: list[Sent]) -> Sent:
    """Return one run's counts with the median of each way's seconds."""
    times = {way: statistics.median(getattr(one, way) for one in found) for way in ("ours_s", "zmq_s", "sqlite_s")}
    return msgspec.structs.replace(found[0], **times)


def _cells(of: Sent) -> tuple[Cell, ...]:
    return (
        of.beam_s / of.ours_s,
        of.zmq_s / of.ours_s,
        of.sqlite_s / of.ours_s,
        of.events / of.ours_s,
        of.tiles / of.ours_s,
        of.nbytes / of.ours_s / 1e6,
    )


def _met(so: bool) -> str:
    return "met" if so else "missed"
