"""Cost against size: the finals of fields of 576 to 65 536 chips, each in a process of its own for its peak's sake.

The virtual microscope's defective-0.1dpa, chips of 8 pixels, two frames with as many photons as 64 real ones. The
published preset's embedding is not VGG16's but a fixed random projection to as many numbers: a network's cost is
proportional to the chips, and measured elsewhere. Agreement is that of a sample of a quarter of the chips with the
exact answer, where the exact one is made.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
from benchmarks.accuracy.sweep import accumulate
from benchmarks.performance.table import Cell, Table
from numpy.typing import NDArray

from livestem.domain.parameters import Processing
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.features import Collected
from livestem.runtime.finals import Finals, ami, finalise
from livestem.runtime.recipe import resolve
from livestem.simulator import Simulation, load_specimen

NAME = "scale"
ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "scale.png"
SIDES = (192, 264, 408, 736, 1024, 2048)  # pixels: 576, 1089, 2601, 8464, 16 384 and 65 536 chips
QUICK = (96, 128)
PRESETS = ("default", "as_published")
_CHIP = 8
_LARGE = 8464  # chips from which on a size runs once
_GOAL_GIB = 8.0
_TIMEOUT_S = 3600


class Cost(msgspec.Struct, frozen=True):
    """What the finals of one field took."""

    preset: str
    chips: int
    seconds: float
    peak_gib: float
    stages: dict[str, float]
    agreement: dict[str, float | None] = {}


class Projection:
    """Stands for a network: 512 numbers of every chip, by a fixed random projection."""

    digest, precision, device, convolutions = "0" * 64, "fp32", "cpu", "none"

    def encode(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed chips (N, p, p)."""
        flat = chips.reshape(len(chips), -1).astype(np.float32) - 128
        matrix = np.random.default_rng(0).normal(size=(flat.shape[1], 512)).astype(np.float32)
        return np.maximum(flat @ matrix / 8, 0)


def measure(runs: int, quick: bool) -> Table:
    """Run every size in a process of its own."""
    sides = QUICK if quick else SIDES
    costs = []
    for preset in PRESETS:
        for side in sides:
            chips = (side // _CHIP) ** 2
            found = [
                _apart(side, preset, compare=chips < _LARGE) for _ in range(1 if quick or chips >= _LARGE else runs)
            ]
            costs.append(sorted(found, key=lambda cost: cost.seconds)[len(found) // 2])
    exponents = {p: exponent([c for c in costs if c.preset == p]) for p in PRESETS}
    largest = max(costs, key=lambda cost: cost.peak_gib)
    if not quick:
        draw(costs, PICTURE)
    return Table(
        name=NAME,
        title="Cost against size",
        command="python -m benchmarks.performance scale",
        columns=(
            "preset",
            "chips",
            "finals, s",
            "of it clusters, s",
            "peak memory, GiB",
            "AMI, Ward",
            "AMI, communities",
        ),
        rows=tuple(_row(cost) for cost in costs),
        notes=(
            "Seconds grow with the chips to the power of "
            + ", ".join(f"{value:.2f} ({preset})" for preset, value in exponents.items())
            + ". AMI: of the published ways with a sample of a quarter of the chips, the mean of all modalities. "
            f"From {_LARGE} chips on, sizes ran once.",
            f"Goal, less than {_GOAL_GIB:g} GiB: {'met' if largest.peak_gib < _GOAL_GIB else 'missed'}, "
            f"{largest.peak_gib:.1f} GiB at most ({largest.preset}, {largest.chips} chips).",
        ),
        facts={"costs": [msgspec.to_builtins(cost) for cost in costs], "exponents": exponents},
    )


def cost_of(side: int, preset: str, compare: bool) -> Cost:
    """Make a scan of side x side pixels, and its finals."""
    specimen = load_specimen("defective-0.1dpa")
    photons = 32 * specimen.eds.counts_per_pixel
    scan = Simulation(specimen, 0, 2, shape=(side, side), eds_counts_per_pixel=photons)
    asked = Processing(preset=preset, chip_px=_CHIP, clusters=5, register="none")  # type: ignore[arg-type]
    plan = msgspec.structs.replace(scan.plan, processing=asked)
    grid, parameters = resolve(plan, Processing())
    accumulator = Accumulator(plan, grid, parameters.register)
    for number in range(2):
        accumulate(accumulator, scan.frame(number), scan.scan_id)
    collected = Collected.of(accumulator, final=True)
    encoder = Projection() if parameters.recipe.encoder == "vgg16" else None
    began = time.perf_counter()
    exact = finalise(collected, parameters, encoder)
    seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    agreement = {}
    if compare and preset == "as_published":
        few = msgspec.structs.replace(parameters.recipe, exact_chips=grid.chips // 4)
        agreement = _agreement(exact, finalise(collected, msgspec.structs.replace(parameters, recipe=few), encoder))
    return Cost(preset, grid.chips, seconds, peak, exact.timings_s, agreement)


def exponent(costs: list[Cost]) -> float:
    """Return the slope of seconds against chips, both as logarithms."""
    slope, _ = np.polyfit([math.log(c.chips) for c in costs], [math.log(c.seconds) for c in costs], 1)
    return float(slope)


def draw(costs: list[Cost], path: Path) -> None:
    """Draw seconds and memory against chips."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    for preset in dict.fromkeys(cost.preset for cost in costs):
        mine = [cost for cost in costs if cost.preset == preset]
        chips = [cost.chips for cost in mine]
        label = f"{preset}, exponent {exponent(mine):.2f}"
        seconds.loglog(chips, [cost.seconds for cost in mine], "o-", label=label)
        memory.semilogx(chips, [cost.peak_gib for cost in mine], "o-", label=preset)
    seconds.set(xlabel="chips", ylabel="finals, s")
    memory.axhline(_GOAL_GIB, color="grey", linestyle="--")
    memory.set(xlabel="chips", ylabel="peak memory of the process, GiB", ylim=(0, None))
    for axes in (seconds, memory):
        axes.axvline(8192, color="grey", linestyle=":")
        axes.legend()
    figure.savefig(path, dpi=110)


def _agreement(exact: Finals, sampled: Finals) -> dict[str, float | None]:
    return {
        ".".join(key): ami(found.labels, exact.maps[key].labels)
        for key, found in sampled.maps.items()
        if "sample" in found.facts
    }


def _apart(side: int, preset: str, *, compare: bool) -> Cost:
    command = [sys.executable, "-m", "benchmarks.performance.scale", str(side), preset, str(int(compare))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Cost)


def _row(cost: Cost) -> tuple[Cell, ...]:
    clusters = cost.stages["ward"] + cost.stages["louvain"]
    means = [_mean(cost.agreement, method) for method in ("ward", "louvain")]
    return cost.preset, cost.chips, cost.seconds, clusters, cost.peak_gib, *means


def _mean(agreement: dict[str, float | None], method: str) -> float | None:
    known = [value for name, value in agreement.items() if name.startswith(method) and value is not None]
    return sum(known) / len(known) if known else None


if __name__ == "__main__":
    asked_side, asked_preset, asked_compare = sys.argv[1:]
    print(msgspec.json.encode(cost_of(int(asked_side), asked_preset, asked_compare == "1")).decode())
