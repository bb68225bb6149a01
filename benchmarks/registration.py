"""How well frames are laid on each other, and how fast: residuals against the true drift, beside HyperSpy's.

Run: ``python benchmarks/registration.py [--samples demo pristine-0dpa ...] [--shares 1 0.02] [--frames 24]``.

Every line is one scan of a sample that drifts by ``--speed`` nm/s, with row jitter and flyback, at a share of the usual
beam current. *Residual* is the rms over frames and directions of estimated less true drift, in pixels, and *rounded*
that of the whole pixels by which data move; *slips* are frames more than two pixels off. *Frame ms* is the median time
of one frame's registration in the processor's time, on one thread. *Sharp* is the contrast of the registered sum within
chips over that of the plain sum. HyperSpy is ``Signal2D.estimate_shift2D`` on the same frames, against the first one
(``current``; ``cascade`` adds up its roundings), by whole pixels, for which it needs no further package: its residual,
its slips, and its time over ours.
Medians are over the frames of a scan; where several seeds are asked for, over all of theirs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy is loaded

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Grid, plan_grid
from livestem.runtime.pieces import Strip
from livestem.runtime.registration import Registrar
from livestem.runtime.sums import HaadfSum
from livestem.simulator import Simulation, Specimen, load_specimen
from livestem.stages.chips import cut

SAMPLES = "demo", "pristine-0dpa", "pristine-0.1dpa", "defective-0dpa", "defective-0.1dpa", "nanoparticles"
SHARES = 1.0, 0.02, 0.002  # of the usual 100 pA: at the last a column of atoms gives one electron or two
DIRECTION = 0.8, 0.6  # (y, x) of the drift
SLIPPED_PX = 2.0  # less than half a cell at the coarsest pixel, far more than any residual
HEADLINE = (
    f"{'sample':18}{'share':>7}{'drift px':>10}{'residual':>10}{'rounded':>9}{'slips':>7}{'frame ms':>10}{'sharp':>7}"
    f"{'HyperSpy: residual':>20}{'slips':>7}{'time':>8}"
)
Floats = NDArray[np.float64]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One scan; residuals (frames, 2) in pixels, times in ms a frame."""

    drift_px: float
    residual: list[list[float]]
    rounded: list[list[float]]
    frame_ms: list[float]
    sharp: float
    theirs: list[list[float]]
    their_ms: float


def drifting(name: str, speed_nm_s: float, share: float) -> Specimen:
    """Return a sample that creeps at a speed, under a share of its beam."""
    specimen = load_specimen(name)
    drift = msgspec.structs.replace(
        specimen.scan.drift, velocity_nm_s=(DIRECTION[0] * speed_nm_s, DIRECTION[1] * speed_nm_s)
    )
    changes = {
        "scan": msgspec.structs.replace(specimen.scan, drift=drift),
        "beam": msgspec.structs.replace(specimen.beam, current_pa=share * specimen.beam.current_pa),
    }
    return msgspec.convert(msgspec.to_builtins(msgspec.structs.replace(specimen, **changes)), Specimen)


def measure(name: str, share: float, seed: int, frames: int, speed_nm_s: float) -> Measured:
    """Register one scan and compare with its true drift."""
    simulation = Simulation(drifting(name, speed_nm_s, share), seed, frames, modalities=("haadf",))
    stack = np.stack([simulation.frame(i).haadf for i in range(frames)])  # type: ignore[arg-type]
    grid = plan_grid(simulation.plan.sampling("haadf"), None)
    truth = np.array(simulation.truth.facts.drift_nm) / simulation.raster.pixel_nm
    registrar, sums, took = _registered(stack, grid)
    shifts = registrar.shifts
    began = time.process_time()
    theirs = _hyperspy(stack)
    their_ms = 1e3 * (time.process_time() - began) / frames
    return Measured(
        drift_px=float(np.hypot(*truth[-1])),
        residual=(np.array([s.estimate_px for s in shifts]) - truth).tolist(),
        rounded=(np.array([s.haadf_px for s in shifts]) - truth).tolist(),
        frame_ms=took,
        sharp=_contrast(sums.mean(), grid) / _contrast(stack.mean(axis=0), grid),
        theirs=(theirs - truth).tolist(),
        their_ms=their_ms,
    )


def _registered(stack: NDArray[np.uint16], grid: Grid) -> tuple[Registrar, HaadfSum, list[float]]:
    sums = HaadfSum(stack.shape[1:], "<u2")
    registrar, seen, took = Registrar(grid), np.ones(stack.shape[1:], bool), []
    for frame in stack:
        began = time.process_time()
        shift = registrar.next(frame, seen, sums)
        took.append(1e3 * (time.process_time() - began))
        sums.add(Strip(0, 0, frame), shift.haadf_px)
    return registrar, sums, took[1:]  # the first is not moved


def _hyperspy(stack: NDArray[np.uint16]) -> Floats:
    """Return HyperSpy's shifts (frames, 2), in our sense: by how much a frame is to be moved."""
    import hyperspy.api as hs

    hs.preferences.General.show_progressbar = False
    signal: Any = hs.signals.Signal2D(stack.astype(np.float32))
    found = signal.estimate_shift2D(reference="current", show_progressbar=False)
    return -np.asarray(found, np.float64)


def _contrast(image: Floats, grid: Grid) -> float:
    assert grid.haadf_px is not None
    return float(np.median(cut(image, grid, grid.haadf_px).std(axis=(1, 2))))


def _rms(values: list[list[float]]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _slips(values: list[list[float]]) -> int:
    return int(np.count_nonzero(np.hypot(*np.transpose(values)) > SLIPPED_PX))


def line(name: str, share: float, runs: list[Measured]) -> str:
    """Return a line of the table for the runs of one sample and dose."""
    ours = [r for run in runs for r in run.residual]
    rounded = [r for run in runs for r in run.rounded]
    theirs = [r for run in runs for r in run.theirs]
    frame_ms = statistics.median(t for run in runs for t in run.frame_ms)
    drift, sharp = (statistics.median(getattr(run, what) for run in runs) for what in ("drift_px", "sharp"))
    ratio = statistics.median(run.their_ms for run in runs) / frame_ms
    return (
        f"{name:18}{share:7.3f}{drift:10.1f}{_rms(ours):10.3f}{_rms(rounded):9.3f}{_slips(ours):7d}{frame_ms:10.1f}"
        f"{sharp:7.2f}{_rms(theirs):20.3f}{_slips(theirs):7d}{ratio:7.1f}x"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", nargs="+", default=SAMPLES)
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--speed", type=float, default=0.2, help="of the drift, nm/s")
    asked = parser.parse_args()
    print(HEADLINE)
    for name in asked.samples:
        for share in asked.shares:
            runs = [measure(name, share, 100 + seed, asked.frames, asked.speed) for seed in range(asked.seeds)]
            print(line(name, share, runs), flush=True)


if __name__ == "__main__":
    main()
