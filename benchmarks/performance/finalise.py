"""Finals: from the last tile to the last final, beside the published pipeline on the same chips.

A simulated scan like the paper's largest (defective, 0.1 dpa: 2601 chips of 10 x 10 pixels, 4096 channels) goes through
a real ``livestem serve``: `Acquisition` sends it, `Subscriber` hears it, on sockets of this machine. Everything but the
last tile is sent, stored and seen in a live map; then the clock starts, the last tile and the scan's end are
handed over, and the clock stops when ``scan_done`` has been received, before which come all other finals: few-shot,
Ward and communities on each modality and together, agreement, and the descriptors of every region of every map.

The published pipeline (`published`) runs in this process, on the same chips, halfway through the runs; it takes a
minute or two and runs once. The service has nothing to do then.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from benchmarks.accuracy.sweep import accumulate
from benchmarks.performance.published import FIT, Chips, Seconds, fit_s, pipeline
from benchmarks.performance.table import Cell, Table, Timed
from benchmarks.reliability.processes import Service

from livestem.cli.demo import examples
from livestem.client import Acquisition, Subscriber
from livestem.domain.errors import LivestemError
from livestem.domain.parameters import PRESETS, PresetName, Processing
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import EdsEvents, Tile
from livestem.runtime import weights
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.features import Collected
from livestem.runtime.recipe import resolve
from livestem.simulator import Simulation, load_specimen
from livestem.wire import messages as m

NAME = "finalise"
COMMAND = f"python -m benchmarks.performance {NAME}"
SAMPLE, SEED, CHIP_PX = "defective-0.1dpa", 0, 10
FRAMES, COUNTS = 4, 2.0  # photons per pixel and frame: 8 in all, of the 1 to 50 that scans reach
FITTED = 4  # chips that exspy fits, five seconds each
GOAL_S, GOAL_PUBLISHED_S, GOAL_RATIO, GOAL_RATIO_FIT = 1.5, 10.0, 60.0, 5000.0
_PATIENCE_S = 300.0  # for one scan's finals on a machine that does other things, too


def measure(runs: int, quick: bool) -> Table:
    """Measure; `quick` has 144 chips, and no network if there are no weights."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # exspy says of every line that it lies outside somewhere
    scan = Scan.simulated("demo", 8, 1, (96, 96)) if quick else Scan.simulated(SAMPLE, CHIP_PX, FRAMES)
    presets: list[PresetName] = ["default"]
    if weights.find() is not None:
        presets.append("as_published")
    heard: dict[str, list[Finals]] = {preset: [] for preset in presets}
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        bench = Bench(service, scan)
        first = bench.finals("default")
        theirs: Seconds = {}
        for run in range(runs):
            if run == runs // 2:
                theirs = _published(scan, 1 if quick else FITTED)
            for preset in presets:
                heard[preset].append(bench.finals(preset))
    return table(scan, first, heard, theirs, 1 if quick else FITTED)


@dataclass(frozen=True)
class Scan:
    """A scan that is sent again and again: its tiles, and what is asked for with each preset."""

    simulation: Simulation
    tiles: tuple[Tile, ...]
    chips: int
    clusters: int
    asked: Mapping[str, ScanPlan]

    @classmethod
    def simulated(cls, sample: str, chip_px: int, frames: int, shape: tuple[int, int] | None = None) -> Scan:
        """Simulate one."""
        simulation = Simulation(load_specimen(sample), SEED, frames, shape=shape, eds_counts_per_pixel=COUNTS)
        specimen, plan = simulation.specimen, simulation.plan
        sized = Processing(chip_px=chip_px, elements=specimen.elements, strays=tuple(specimen.strays))
        grid, _ = resolve(plan, sized)
        support = examples(simulation, grid, SEED)
        known = msgspec.structs.replace(sized, support=support).over(plan.processing or Processing())
        asked = {
            preset: msgspec.structs.replace(plan, processing=Processing(preset=preset).over(known))  # type: ignore[arg-type]
            for preset in PRESETS
        }
        return cls(simulation, tuple(simulation.tiles()), grid.chips, len(support.names), asked)

    @property
    def counts_before_last(self) -> int:
        """Photons of all tiles but the last, which is one of EDS."""
        return sum(int(tile.counts.sum()) for tile in self.tiles[:-1] if isinstance(tile, EdsEvents))


@dataclass(frozen=True)
class Finals:
    """One scan's finals as a subscriber had them: seconds after the last tile, the service's own stages, messages."""

    seconds: float
    stages: Mapping[str, float]
    maps: int
    digest: str


class Bench:
    """A source and a subscriber of one service.

    Parameters
    ----------
    service : Service
        Running.
    scan : Scan
    """

    def __init__(self, service: Service, scan: Scan) -> None:
        self._service, self._scan, self._sent = service, scan, 0

    def finals(self, preset: str) -> Finals:
        """Send the scan; return its finals.

        Raises
        ------
        LivestemError
            If they do not come, or are not of a complete scan.
        """
        self._sent += 1
        name = f"{preset}-{self._sent}"
        with (
            Acquisition(endpoint=self._service.acquisition, recorded=True) as source,
            Subscriber(self._service.results, session=source.session) as results,
        ):
            source.wait_for_service(_PATIENCE_S)
            with source.start_scan(self._scan.asked[preset], name) as writer:
                for tile in self._scan.tiles[:-1]:
                    writer.tile(tile)
                source.wait_acknowledged()
                _until_live(results, self._scan.counts_before_last)
                began = time.perf_counter()
                writer.tile(self._scan.tiles[-1])
            done, maps = _until_done(results)
            return Finals(time.perf_counter() - began, done.timings_s, maps, done.digest)


def table(scan: Scan, first: Finals, heard: Mapping[str, list[Finals]], theirs: Seconds, fitted: int) -> Table:
    """Return what was measured, with the goals."""
    ours = {preset: Timed(tuple(f.seconds for f in found)) for preset, found in heard.items()}
    quickest = ours["default"].median
    without = sum(seconds for step, seconds in theirs.items() if step != FIT)
    rows: list[tuple[Cell, ...]] = [
        ("published: " + step + (f" (from {fitted} chips)" if step == FIT else ""), seconds, None, seconds / quickest)
        for step, seconds in theirs.items()
    ]
    rows.append(("**published, without the fit**", without, None, without / quickest))
    rows.append(("**published, with it**", without + theirs[FIT], None, (without + theirs[FIT]) / quickest))
    rows += [
        (f"**livestem, `{p}`: last tile sent to last final received**", t.median, t.spread, t.median / quickest)
        for p, t in ours.items()
    ]
    rows.append(("livestem, `default`, the first scan of a service", first.seconds, None, first.seconds / quickest))
    for preset, found in heard.items():
        for stage in found[0].stages:
            seconds = statistics.median(f.stages[stage] for f in found)
            rows.append((f"of `{preset}`: {stage}", seconds, None, seconds / quickest))
    return Table(
        name=NAME,
        title="Finals: last tile in, last final out",
        command=COMMAND,
        columns=("what", "s", "±", "times livestem's `default`"),
        rows=tuple(rows),
        notes=(_goals(ours, without, theirs[FIT]), _about(scan, heard)),
        facts={"chips": scan.chips, "seconds": {preset: t.seconds for preset, t in ours.items()}, "published": theirs},
    )


def _goals(ours: Mapping[str, Timed], without: float, fit: float) -> str:
    quickest = ours["default"].median
    goals = [
        (f"`default` under {GOAL_S:g} s", f"{quickest:.2f} s", quickest < GOAL_S),
        (f"at least {GOAL_RATIO:g}x without the fit", f"{without / quickest:.0f}x", without / quickest >= GOAL_RATIO),
        (
            f"at least {GOAL_RATIO_FIT:g}x with it",
            f"{(without + fit) / quickest:.0f}x",
            (without + fit) / quickest >= GOAL_RATIO_FIT,
        ),
    ]
    if "as_published" in ours:
        took = ours["as_published"].median
        goals.append((f"`as_published` under {GOAL_PUBLISHED_S:g} s", f"{took:.1f} s", took < GOAL_PUBLISHED_S))
    return "Goals: " + "; ".join(f"{goal}: {'met' if met else 'missed'}, {got}" for goal, got, met in goals) + "."


def _about(scan: Scan, heard: Mapping[str, list[Finals]]) -> str:
    of, (rows, cols) = scan.simulation, scan.simulation.shape
    maps = ", ".join(f"{found[0].maps} in `{preset}`" for preset, found in heard.items())
    return (
        f"{scan.chips} chips of {rows} x {cols} pixels, sample {of.specimen.name}, {of.frames} frames of {COUNTS:g} "
        f"photons a pixel; label maps: {maps}. The published pipeline ran once; its few-shot scores are left out, and "
        "region descriptors it has none. "
        f"Every run of a preset gave one digest: {'yes' if _one_digest(heard) else 'NO'}."
    )


def _one_digest(heard: Mapping[str, list[Finals]]) -> bool:
    return all(len({f.digest for f in found}) == 1 for found in heard.values())


def _published(scan: Scan, fitted: int) -> Seconds:
    """Return what the published pipeline takes on the same chips."""
    plan = scan.asked["as_published"]
    grid, parameters = resolve(plan, Processing())
    accumulator = Accumulator(plan, grid, parameters.register)
    for number in range(scan.simulation.frames):
        accumulate(accumulator, scan.simulation.frame(number), scan.simulation.scan_id)
    chips = Chips.of(Collected.of(accumulator, final=True), parameters)
    beam = plan.beam.energy_kv
    assert beam is not None
    return pipeline(chips, scan.clusters) | {FIT: fit_s(chips, beam, fitted)}


def _until_live(results: Subscriber, counts: int) -> None:
    """Return once a live map includes so many photons: the service has nothing left to do."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        message = results.receive(timeout_s=1.0)
        if message is not None and isinstance(message.header, m.Live) and message.header.counts == counts:
            return
    raise LivestemError(f"no live map of all tiles within {_PATIENCE_S:g} s")


def _until_done(results: Subscriber) -> tuple[m.ScanDone, int]:
    """Return the end of the finals, and how many label maps came before it."""
    deadline, maps = time.monotonic() + _PATIENCE_S, 0
    while time.monotonic() < deadline:
        message = results.receive(timeout_s=1.0)
        header = None if message is None else message.header
        maps += isinstance(header, m.Segmentation)
        if isinstance(header, m.ScanDone):
            if header.status != "complete":
                raise LivestemError(f"the scan ended {header.status}: {header.reason}")
            return header, maps
    raise LivestemError(f"no finals within {_PATIENCE_S:g} s")
