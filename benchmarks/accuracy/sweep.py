"""From a scan to rows: accumulate, compute the finals at every checkpoint, score each label map."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Set
from importlib import resources

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.cli.demo import examples
from livestem.client.tilecheck import as_messages
from livestem.domain.geometry import Grid
from livestem.domain.parameters import PRESETS, Processing
from livestem.domain.truth import Truth
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.features import Collected, Encoder
from livestem.runtime.finals import Finals, finalise
from livestem.runtime.label_map import LabelMap
from livestem.runtime.recipe import resolve
from livestem.runtime.results import name
from livestem.runtime.saved import SavedResult
from livestem.runtime.scoring import MapScore, score
from livestem.simulator import Simulation, Specimen, load_specimen
from livestem.simulator.frames import Frame, cut
from livestem.stages import accuracy
from livestem.wire.codec import Message

from .plan import Scan

Key = tuple[str, int, str, int, str]  # sample, seed, series, frames, preset
Done = tuple[Key, str]  # and the origin: rows of older specimens or simulators are not taken for these


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One label map of one checkpoint.

    Attributes
    ----------
    sample, seed, series, frames, preset : where it belongs
    origin : of the specimen, see `origin`
    photons : EDS photons per pixel so far
    drift_nm : distance of the last frame from the first, nm
    map : ``<method>.<modality>``
    classes : names, in the order of `confusion`
    confusion : chips by [true class][class found]; a cluster is of the class that it overlaps most
    score : as ``livestem score`` gives it
    """

    sample: str
    seed: int
    series: str
    frames: int
    preset: str
    origin: str
    photons: float
    drift_nm: float
    map: str
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    score: MapScore

    @property
    def key(self) -> Key:
        """The checkpoint and preset that it is of."""
        return self.sample, self.seed, self.series, self.frames, self.preset


class Remembering:
    """An encoder that keeps its last embedding: two presets embed the same chips, and that is most of their time."""

    def __init__(self, encoder: Encoder) -> None:
        self.digest, self.precision, self.device = encoder.digest, encoder.precision, encoder.device
        self.convolutions = encoder.convolutions
        self._encoder = encoder
        self._last: tuple[bytes, NDArray[np.float32]] = (b"", np.zeros((0, 0), np.float32))

    def encode(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed chips, (N, p, p) -> (N, D)."""
        what = hashlib.sha256(f"{chips.shape}".encode() + np.ascontiguousarray(chips).tobytes()).digest()
        if self._last[0] != what:
            self._last = (what, self._encoder.encode(chips))
        return self._last[1]


def origin(specimen: Specimen) -> str:
    """Return a digest of the specimen and of the simulator's own files: equal origins give equal scans."""
    digest = hashlib.sha256(specimen.digest.encode())
    for file in sorted(resources.files("livestem.simulator").iterdir(), key=lambda f: f.name):
        if file.name.endswith((".py", ".json")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def keys_of(scan: Scan) -> set[Done]:
    """Return the keys of all that `rows_of` computes of a scan."""
    known = origin(load_specimen(scan.sample))
    return {((*_place(scan), frames, p), known) for frames, presets in scan.checkpoints for p in presets}


def rows_of(scan: Scan, encoder: Encoder | None, done: Set[Done] = frozenset()) -> Iterator[list[Row]]:
    """Yield the rows of each checkpoint and preset of a scan.

    Parameters
    ----------
    scan : Scan
    encoder : Encoder or None
        For the presets that embed with a network.
    done : set of Done
        What is there already and is left out.

    Raises
    ------
    LivestemError
        If the scan cannot be made or processed.
    """
    specimen = load_specimen(scan.sample)
    known = origin(specimen)
    photons = scan.real_frames * specimen.eds.counts_per_pixel
    left = {
        frames: [p for p in presets if ((*_place(scan), frames, p), known) not in done]
        for frames, presets in scan.checkpoints
    }
    if not any(left.values()):
        return
    last = scan.checkpoints[-1][0]  # also where it is done already: the rest is to be of the same scan
    simulation = Simulation(specimen, scan.seed, last, shape=scan.shape, eds_counts_per_pixel=photons)
    grid, parameters = resolve(simulation.plan, Processing())
    accumulator = Accumulator(simulation.plan, grid, parameters.register)
    for frames, presets in left.items():
        if not presets:
            continue
        for number in range(accumulator.frames_seen, frames):
            accumulate(accumulator, simulation.frame(number), simulation.scan_id)
        stopped = Simulation(specimen, scan.seed, frames, shape=scan.shape, eds_counts_per_pixel=photons)
        collected = Collected.of(accumulator, final=True)
        for preset in presets:
            finals = finals_of(collected, stopped, preset, encoder)
            yield list(_rows(scan, frames, preset, finals, stopped))


def accumulate(accumulator: Accumulator, frame: Frame, scan_id: str) -> None:
    """Count a frame in, by the messages that would carry it."""
    for tile in cut(frame, accumulator.plan.sampling(accumulator.plan.modalities[0]).shape[0]):
        for header, arrays, _ in as_messages(scan_id, tile):
            accumulator.apply(Message(header, arrays, ()))


def finals_of(collected: Collected, stopped: Simulation, preset: str, encoder: Encoder | None) -> Finals:
    """Compute the finals of what a scan has collected, with a preset.

    Parameters
    ----------
    collected : Collected
    stopped : Simulation
        The scan that ends here: its truth chooses the support chips.
    preset : str
    encoder : Encoder or None
        Used if the preset embeds with a network.
    """
    recipe, specimen, grid = PRESETS[preset], stopped.specimen, collected.grid
    asked = Processing(
        preset=preset,  # type: ignore[arg-type]
        elements=None if recipe.lines else specimen.elements,
        strays=() if recipe.lines else tuple(specimen.strays),
        support=examples(stopped, grid, stopped.seed),
    )
    asked = asked.over(collected.plan.processing or Processing())
    _, parameters = resolve(msgspec.structs.replace(collected.plan, processing=asked), Processing())
    return finalise(collected, parameters, None if recipe.encoder == "lattice" else encoder)


def confusion(found: LabelMap, truth: Truth, grid: Grid, *, registered: bool) -> NDArray[np.int64]:
    """Count chips by class and class found, (K, K); a cluster is of the class that it overlaps most."""
    classes, _ = truth.class_of_chips(grid, registered=registered)
    if found.classes:
        as_class, _ = accuracy.numbered_as(found.labels, found.classes, truth.names)
    else:
        as_class = accuracy.as_classes(found.labels, truth.shares_of_chips(grid, registered=registered))
    known = (classes >= 0) & (as_class >= 0)
    counts = np.zeros((len(truth.names),) * 2, np.int64)
    np.add.at(counts, (classes[known], as_class[known]), 1)
    return counts


def _place(scan: Scan) -> tuple[str, int, str]:
    return scan.sample, scan.seed, scan.series


def _rows(scan: Scan, frames: int, preset: str, finals: Finals, stopped: Simulation) -> Iterator[Row]:
    truth, grid = stopped.truth, finals.data.grid
    registered = finals.parameters.register != "none"
    saved = SavedResult(
        session="",
        scan_id=truth.facts.scan_id,
        status="complete",
        grid=grid,
        registered=registered,
        strays_in_total=finals.parameters.recipe.strays_in_total,
        maps={name(key): found.labels for key, found in finals.maps.items()},
        names={name(key): found.classes for key, found in finals.maps.items()},
        regions={},
    )
    scores = score(saved, truth).maps
    for key, found in finals.maps.items():
        counts = confusion(found, truth, grid, registered=registered)
        yield Row(
            sample=scan.sample,
            seed=scan.seed,
            series=scan.series,
            frames=frames,
            preset=preset,
            origin=origin(stopped.specimen),
            photons=frames * stopped.counts_per_pixel,
            drift_nm=math.hypot(*truth.facts.drift_nm[-1]),
            map=name(key),
            classes=truth.names,
            confusion=tuple(tuple(row) for row in counts.tolist()),
            score=scores[name(key)],
        )
