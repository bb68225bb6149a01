"""Lattice spacings of regions: right, null or wrong, against dose, distortion and size; false alarms; time.

Run: ``python benchmarks/descriptors.py [--patches 40] [--amorphous 1000]``: some minutes on one core.

Crystals are a perovskite of 0.3905 nm (unequal columns, so {110} is strongest), drawn at the places that the beam
really visits: rows jitter, drift stretches the slow axis and shears the fast one, a sway bends both. Counts are per
pixel, a third of them background. *Right*: both spacings within 3.5 %; *{110}*: those of the smaller cell that equal
columns would have, {100} was not seen; *null*: none, with a reason; *wrong*: another spacing; in percent of the
patches. *Error* is the median of |d_fast - d| / d over what is right, *drift-free* that of the calibrating spacing.

Amorphous patches are cut from fields of the virtual microscope that are nothing but the damaged film of
defective-0.1dpa, 1 to 16 frames of them, scanned with its jitter, lag and drift. A false alarm is any spacing.

*Simple* is what is usually done: a Hann window, the strongest cell between 0.12 and 0.6 nm, a parabola through the
logarithms of its neighbours along either axis. It says {110} and cannot know that; either spacing counts as right. It
has no idea of noise, so it is given a gate on peak over median power that passes 1 % of these very amorphous patches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.simulator import Simulation, load_specimen
from livestem.simulator.materials import Amorphous
from livestem.simulator.motion import Raster
from livestem.simulator.parts import Layer
from livestem.stages.spacing import LatticeResult, lattice_of

Image = NDArray[np.float64]
A_NM, PIXEL_NM, SIDE = 0.3905, 0.05, 90
RIGHT = 0.035  # of the spacing: what the strongest drift below does to it, and far from the next spacing
FIELD_PX = 540  # of an amorphous field: six patches by six
GRAIN_NM = 1.5  # four cells: too few to be told apart, and enough to shine


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How a crystal is scanned; lengths in nm, `along_slow` and `shear` per nm of the slow axis."""

    counts: float = 5.0
    side: int = SIDE
    rotation_deg: float = 9.0
    jitter_nm: float = 0.0
    along_slow: float = 0.0
    shear: float = 0.0
    sway_nm: float = 0.0
    grains: str = "one"  # or "two", "many"


CONDITIONS: dict[str, Scan] = {
    "counts 0.3": Scan(counts=0.3),
    "counts 1": Scan(counts=1.0),
    "counts 5": Scan(),
    "counts 50": Scan(counts=50.0),
    "side 2.25 nm": Scan(side=45),
    "side 2.25 nm, counts 1": Scan(side=45, counts=1.0, rotation_deg=30.0),
    "side 3 nm": Scan(side=60),
    "side 12 nm": Scan(side=240),
    "rotation 0": Scan(rotation_deg=0.0),
    "rotation 25": Scan(rotation_deg=25.0),
    "rotation 45": Scan(rotation_deg=45.0),
    "jitter 0.01 nm": Scan(jitter_nm=0.01),
    "jitter 0.03 nm": Scan(jitter_nm=0.03),
    "jitter 0.06 nm": Scan(jitter_nm=0.06),
    "jitter 0.03 nm, rotation 0": Scan(jitter_nm=0.03, rotation_deg=0.0),
    "drift 1 %": Scan(along_slow=0.01, shear=0.01),
    "drift 3 %": Scan(along_slow=0.03, shear=0.02),
    "sway 0.02 nm": Scan(sway_nm=0.02),
    "two grains": Scan(grains="two"),
    "grains of 1.5 nm": Scan(grains="many", side=120),
}


def crystal(rng: np.random.Generator, scan: Scan) -> Image:
    """Return Poisson counts of a patch."""
    row, col = np.mgrid[: scan.side, : scan.side] * PIXEL_NM
    y = row / (1 + scan.along_slow) + scan.sway_nm * np.cos(2 * np.pi * row / (scan.side * PIXEL_NM))
    jitter = rng.normal(0, scan.jitter_nm, (scan.side, 1)) + rng.random()
    x = col - scan.shear * row + scan.sway_nm * np.sin(2 * np.pi * row / (scan.side * PIXEL_NM)) + jitter
    turn = np.radians(scan.rotation_deg) + _turns(rng, scan, row, col)
    u = 2 * np.pi / A_NM * (np.cos(turn) * x + np.sin(turn) * y)
    v = 2 * np.pi / A_NM * (np.cos(turn) * y - np.sin(turn) * x)
    columns = np.exp(3 * (np.cos(u) + np.cos(v) - 2)) + 0.4 * np.exp(3 * (-np.cos(u) - np.cos(v) - 2))
    seen = columns / columns.mean() + 0.5
    return rng.poisson(seen * scan.counts / seen.mean()).astype(np.float64)


def _turns(rng: np.random.Generator, scan: Scan, row: Image, col: Image) -> Image | float:
    """Return how far the crystal at each place is turned, radians."""
    if scan.grains == "one":
        return 0.0
    if scan.grains == "two":
        return np.where(col > col.mean(), np.radians(28.0), 0.0)
    centres = rng.random((round((scan.side * PIXEL_NM / GRAIN_NM) ** 2), 2)) * scan.side * PIXEL_NM
    nearest = np.argmin([np.hypot(row - y, col - x) for y, x in centres], axis=0)
    out: Image = rng.random(len(centres))[nearest] * np.pi / 2
    return out


def amorphous(patches: int) -> Iterator[Image]:
    """Yield patches of amorphous film as the virtual microscope sees it."""
    specimen = load_specimen("defective-0.1dpa")
    film = next(m for m in specimen.material if isinstance(m.structure, Amorphous))
    plain = msgspec.structs.replace(
        specimen,
        material=(film,),
        layer=(Layer(material=film.name),),
        inclusion=(),
        domains=(),
        particles=(),
        surface_nm=0.0,
    )
    each = (FIELD_PX // SIDE) ** 2
    raster = Raster(shape=(FIELD_PX, FIELD_PX), pixel_nm=PIXEL_NM, origin_nm=(0.0, 0.0), dwell_s=2e-6)
    for seed in range(-(-patches // each)):
        frames = 2 ** (seed % 5)
        scan = Simulation(plain, seed, frames, raster=raster, modalities=("haadf",))
        total = sum(scan.frame(i).haadf.astype(np.float64) for i in range(frames))  # type: ignore[union-attr]
        for i in range(min(each, patches - seed * each)):
            top, left = (SIDE * k for k in divmod(i, FIELD_PX // SIDE))
            yield total[top : top + SIDE, left : left + SIDE]


def simple(patch: Image) -> tuple[float, float]:
    """Return the spacing of the strongest cell, nm, and its power over the median."""
    n = len(patch)
    window = np.hanning(n)
    power = abs(np.fft.fftshift(np.fft.fft2((patch - patch.mean()) * window[:, None] * window))) ** 2
    axis = np.fft.fftshift(np.fft.fftfreq(n, PIXEL_NM))
    q = np.hypot(axis[:, None], axis)
    band = (q > 1 / 0.6) & (q < 1 / 0.12)
    row, col = np.unravel_index(np.argmax(np.where(band, power, 0)), power.shape)
    place = [axis[row], axis[col]]
    for i, (a, b, c) in enumerate((power[row - 1 : row + 2, col], power[row, col - 1 : col + 2])):
        a, b, c = np.log([a, b, c])
        place[i] += 0.5 * (a - c) / (a - 2 * b + c) * (axis[1] - axis[0])
    return float(1 / np.hypot(*place)), float(power[row, col] / np.median(power[band]))


def verdict(found: LatticeResult) -> str:
    if found.d_fast_nm is None or found.d_slow_nm is None:
        return "null"
    for name, nm in (("right", A_NM), ("{110}", A_NM / np.sqrt(2))):
        if max(abs(found.d_fast_nm / nm - 1), abs(found.d_slow_nm / nm - 1)) <= RIGHT:
            return name
    return "wrong"


def error_of_simple(nm: float) -> float:
    return min(abs(nm / (A_NM / np.sqrt(order)) - 1) for order in (1, 2))


def false_alarms(patches: int) -> float:
    """Print the outcomes on amorphous patches; return the gate that lets the simple way pass 1 % of them."""
    reasons: Counter[str | None] = Counter()
    ratios = []
    for patch in amorphous(patches):
        reasons[lattice_of(patch, PIXEL_NM).reason] += 1
        ratios.append(simple(patch)[1])
    alarms = reasons.pop(None, 0)
    share = 100 * alarms / patches
    print(f"{patches} amorphous patches of {SIDE * PIXEL_NM:.1f} nm: {alarms} false alarms ({share:.2f} %)")
    print("  else " + ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()))
    low, middle, gate, top = np.percentile(ratios, [0, 50, 99, 100])
    print(f"  simple: peak over median {low:.0f} to {top:.0f}, half above {middle:.0f}; gate for 1 %: {gate:.0f}")
    return float(gate)


def spacings(patches: int, gate: float) -> None:
    """Print what becomes of crystals under each condition."""
    columns = (("right", 8), ("{110}", 7), ("null", 7), ("wrong", 7), ("error %", 10), ("drift-free", 12))
    print(
        "\n" + " " * 28 + "".join(f"{name:>{width}}" for name, width in columns) + f"{'simple right':>15}{'error %':>9}"
    )
    for name, scan in CONDITIONS.items():
        rng = np.random.default_rng(0)
        outcomes: Counter[str] = Counter()
        errors, free, passed = [], [], []
        for _ in range(patches):
            patch = crystal(rng, scan)
            found = lattice_of(patch, PIXEL_NM)
            outcomes[verdict(found)] += 1
            if verdict(found) == "right" and found.d_fast_nm is not None:
                errors.append(abs(found.d_fast_nm / A_NM - 1))
                free += [] if found.drift_free_nm is None else [abs(found.drift_free_nm / A_NM - 1)]
            nm, ratio = simple(patch)
            passed += [error_of_simple(nm)] if ratio > gate and error_of_simple(nm) <= RIGHT else []
        shares = "".join(f"{100 * outcomes[k] / patches:7.0f}" for k in ("right", "{110}", "null", "wrong"))
        print(
            f"{name:28} {shares}{_percent(errors):>10}{_percent(free):>12}"
            f"{100 * len(passed) / patches:15.0f}{_percent(passed):>9}"
        )


def _percent(errors: list[float]) -> str:
    return f"{100 * statistics.median(errors):.3f}" if errors else "-"


def times(rounds: int) -> None:
    """Print the median time per region, by its size."""
    print(f"\n{'ms per region':28}{'livestem':>10}{'simple':>10}")
    for side in (45, 90, 240, 512):
        patch = crystal(np.random.default_rng(1), replace(Scan(), side=side))
        took = [_median_ms(work, patch, rounds) for work in (lambda p: lattice_of(p, PIXEL_NM), simple)]
        print(f"{side:4} px, {side * PIXEL_NM:5.1f} nm {'':11}{took[0]:10.2f}{took[1]:10.2f}")


def _median_ms(work: Callable[[Image], object], patch: Image, rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work(patch)
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=40, help="of each kind of crystal")
    parser.add_argument("--amorphous", type=int, default=1000, help="amorphous patches")
    parser.add_argument("--rounds", type=int, default=15, help="of each time")
    asked = parser.parse_args()
    gate = false_alarms(asked.amorphous)
    spacings(asked.patches, gate)
    times(asked.rounds)


if __name__ == "__main__":
    main()
