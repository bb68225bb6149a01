"""Is the virtual microscope faster than a real one: time and memory of its frames, and of a saved scan read back.

Run: ``python benchmarks/simulator.py [--samples pristine-0dpa ...] [--frames 15] [--counts 0.04 0.4 5]``.

Every line is a fresh process on one thread. *Scene* and *X-rays* are made once a scan, before the beam starts:
the noiseless image, and the map of what every place emits. *Frame* is the median of the frames' times by the clock,
HAADF and EDS, *core* the same in the processor's time: less, if other work shares the machine. *Of own time* is the
core's time over what the frame takes under the beam (512 x 512 pixels of 2 us: 0.524 s): below 1, one core makes it
in real time. *Events* are photons and zero peak per pixel and frame, *counts* the photons that were asked for.
*Peak* is the process's largest resident memory up to there. *Read back* is the same scan from a
journal as ``livestem simulate --save`` writes it, per frame, as ``livestem replay`` reads it: what a measurement of
latency is left with once the simulator's own load is gone.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from livestem.runtime.journal import JournalRecording
from livestem.runtime.recorder import record
from livestem.simulator import Simulation, load_specimen

SAMPLES = "pristine-0dpa", "pristine-0.1dpa", "defective-0dpa", "defective-0.1dpa"
COUNTS = 0.04, 0.4, 5.0  # photons per pixel and frame: a Super-X, a large detector at high current, the stress rate
THREADS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"  # read when numpy is loaded, so by a new process
HEADLINE = (
    f"{'specimen':18}{'counts':>8}{'events':>8}{'scene s':>9}{'X-rays s':>10}{'frame ms':>10}{'core ms':>9}"
    f"{'of own time':>13}{'peak MiB':>10}{'read back ms':>14}"
)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One specimen at one rate; see the module's docstring."""

    scene_s: float
    xrays_s: float
    frame_ms: float
    core_ms: float
    own_ms: float
    events_per_pixel: float
    peak_mib: float
    read_back_ms: float


def measure(sample: str, counts: float, frames: int) -> Measured:
    """Measure in this process, which should be a fresh one: memory is its peak."""
    scan = Simulation(load_specimen(sample), 0, frames, eds_counts_per_pixel=counts)
    began = time.perf_counter()
    _ = scan.scene
    drawn = time.perf_counter()
    _ = scan.photons
    ready = time.perf_counter()
    took, core, events = [], [], 0
    for number in range(frames):
        start, busy = time.perf_counter(), time.process_time()
        frame = scan.frame(number)
        took.append(time.perf_counter() - start)
        core.append(time.process_time() - busy)
        events += 0 if frame.channels is None else frame.channels.size
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measured(
        scene_s=drawn - began,
        xrays_s=ready - drawn,
        frame_ms=1e3 * statistics.median(took),
        core_ms=1e3 * statistics.median(core),
        own_ms=1e3 * scan.raster.frame_s,
        events_per_pixel=events / frames / (scan.shape[0] * scan.shape[1]),
        peak_mib=peak_kib / 1024,
        read_back_ms=read_back_ms(scan),
    )


def read_back_ms(scan: Simulation) -> float:
    """Save a scan and read it: the time per frame, ms; the file is still in the system's cache."""
    with tempfile.TemporaryDirectory() as folder, JournalRecording(record(scan, Path(folder) / "scan")) as saved:
        began = time.perf_counter()
        for _ in saved.tiles():
            pass
        return 1e3 * (time.perf_counter() - began) / scan.frames


def measured_apart(sample: str, counts: float, frames: int) -> Measured:
    """Measure in a fresh process on one thread."""
    call = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--samples",
        sample,
        "--counts",
        str(counts),
        "--frames",
        str(frames),
        "--here",
    ]
    done = subprocess.run(call, env=os.environ | dict.fromkeys(THREADS, "1"), stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Measured)


def line(sample: str, counts: float, found: Measured) -> str:
    return (
        f"{sample:18}{counts:8g}{found.events_per_pixel:8.2f}{found.scene_s:9.1f}{found.xrays_s:10.1f}{found.frame_ms:10.0f}"
        f"{found.core_ms:9.0f}{found.core_ms / found.own_ms:13.2f}{found.peak_mib:10.0f}{found.read_back_ms:14.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", nargs="+", default=SAMPLES, help="specimens by name, or their TOML files")
    parser.add_argument("--counts", nargs="+", type=float, default=COUNTS, help="photons per pixel and frame")
    parser.add_argument("--frames", type=int, default=15, help="of each scan")
    parser.add_argument("--here", action="store_true", help="measure in this process and write JSON")
    asked = parser.parse_args()
    if asked.here:
        for sample in asked.samples:
            for counts in asked.counts:
                print(msgspec.json.encode(measure(sample, counts, asked.frames)).decode())
        return
    print(HEADLINE)
    for sample in asked.samples:
        for counts in asked.counts:
            print(line(sample, counts, measured_apart(sample, counts, asked.frames)), flush=True)


if __name__ == "__main__":
    main()
