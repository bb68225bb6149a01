"""Whether few-shot's confidence can be believed: the default's probabilities beside the published scores.

Run: ``python -m benchmarks.calibration [--seeds 3] [--frames 1 16] [--weights FILE]``, from the repository's root.
With VGG16's weights (``livestem weights``) preset ``as_published`` is a third way.

Every chip of the simulated scans of the four samples is scored from four examples a class, both modalities together.
A score is good if it is right (accuracy), if of chips scored 0.8 eight in ten are right (ECE, the expected calibration
error: the mean distance between confidence and accuracy in ten bins, by their chips), and if the true class got much
(Brier score, log loss: smaller is better; a log loss is bounded at a score of 1e-7, where float32 says nothing more).
Frames carry eight real frames' photons, as in ``benchmarks.accuracy``, and are summed as they come.

=============  ====================================================================
way            what
=============  ====================================================================
default        the default preset
published      its features, scored as published: softmax of negative distances
as_published   VGG16 and atomic percent, the mean of both modalities' scores
=============  ====================================================================
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from benchmarks.accuracy.plan import SAMPLES, SERIES
from benchmarks.accuracy.sweep import accumulate
from numpy.typing import NDArray

from livestem.cli.demo import examples
from livestem.domain.parameters import PRESETS, Parameters, Processing
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Collected, Encoder, eds_features, haadf_feature
from livestem.runtime.finals import fewshot_map
from livestem.runtime.quantification import build_quantifier
from livestem.runtime.recipe import resolve
from livestem.simulator import Simulation, load_specimen

BINS = 10
LEAST = 1e-7  # a float32 next to 1 is 6e-8 off
Floats = NDArray[np.float64]
Labels = NDArray[np.int16]
Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Believed:
    """How scores (N, K) of chips of known class do; means over the chips."""

    accuracy: float
    confidence: float
    ece: float
    brier: float
    log_loss: float

    @classmethod
    def of(cls, scores: Floats, truth: Labels) -> Believed:
        """Measure scores (N, K) against classes (N,), all known."""
        right = scores.argmax(axis=1) == truth
        confidence = scores.max(axis=1)
        apart = sum(chips * abs(sure - hit) for chips, sure, hit in reliability(scores, truth))
        ideal = np.eye(scores.shape[1])[truth]
        return cls(
            accuracy=float(right.mean()),
            confidence=float(confidence.mean()),
            ece=apart / len(truth),
            brier=float(((scores - ideal) ** 2).sum(axis=1).mean()),
            log_loss=float(-np.log(np.maximum(scores[np.arange(len(truth)), truth], LEAST)).mean()),
        )

    def __str__(self) -> str:
        return f"{self.accuracy:8.3f} {self.confidence:6.3f} {self.ece:6.3f} {self.brier:6.3f} {self.log_loss:8.3f}"


def reliability(scores: Floats, truth: Labels) -> list[tuple[int, float, float]]:
    """Return (chips, mean confidence, share that is right) of each bin of confidence, the empty ones too, as zeros."""
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    members = [bins == b for b in range(BINS)]
    return [
        (int(m.sum()), float(confidence[m].mean()), float(right[m].mean())) if m.any() else (0, 0.0, 0.0)
        for m in members
    ]


def scans(seeds: int, frames: tuple[int, ...]) -> Iterator[tuple[str, int, Simulation, Collected]]:
    """Yield (sample, frames, scan that ends there, what it has collected)."""
    for sample, seed in itertools.product(SAMPLES, range(seeds)):
        specimen = load_specimen(sample)
        photons = SERIES["eightfold"] * specimen.eds.counts_per_pixel
        whole = Simulation(specimen, seed, max(frames), eds_counts_per_pixel=photons)
        grid, _ = resolve(whole.plan, Processing())
        accumulator = Accumulator(whole.plan, grid)
        for count in sorted(frames):
            for number in range(accumulator.frames_seen, count):
                accumulate(accumulator, whole.frame(number), whole.scan_id)
            stopped = Simulation(specimen, seed, count, eds_counts_per_pixel=photons)
            yield sample, count, stopped, Collected.of(accumulator, final=True)


def ways(stopped: Simulation, data: Collected, encoder: Encoder | None) -> Iterator[tuple[str, Floats]]:
    """Yield (way, scores (N, K)) of one scan."""
    default = parameters_of(stopped, data, "default")
    published = msgspec.structs.replace(default.recipe, fewshot="softmax", ensembles=PRESETS["as_published"].ensembles)
    yield "default", _scores(data, default, None)
    yield "published", _scores(data, msgspec.structs.replace(default, recipe=published), None)
    if encoder is not None:
        yield "as_published", _scores(data, parameters_of(stopped, data, "as_published"), encoder)


def parameters_of(stopped: Simulation, data: Collected, preset: str) -> Parameters:
    """Return the effective parameters of a preset, with four examples of each class."""
    specimen = stopped.specimen
    asked = Processing(
        preset=preset,  # type: ignore[arg-type]
        elements=specimen.elements,
        strays=tuple(specimen.strays),
        support=examples(stopped, data.grid, stopped.seed),
    )
    asked = asked.over(data.plan.processing or Processing())
    return resolve(msgspec.structs.replace(data.plan, processing=asked), Processing())[1]


def _scores(data: Collected, parameters: Parameters, encoder: Encoder | None) -> Floats:
    assert data.total is not None
    quantifier = build_quantifier(data.plan, parameters, data.total)
    spectral = parameters.recipe.eds_modalities[-1]
    features = {"haadf": haadf_feature(data, parameters, encoder)}
    features |= eds_features(data, (spectral,), quantifier, final=True)
    found = fewshot_map(("haadf", spectral), features, data, parameters)
    assert found is not None and found.scores is not None
    return found.scores.reshape(len(found.classes), -1).T.astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="scans of each sample, seeds 0, 1, ...")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 16], help="frames of eight real ones' photons")
    parser.add_argument("--weights", type=Path, help="VGG16's weights; adds as_published")
    asked = parser.parse_args()
    encoder = Encoders(asked.weights).of(PRESETS["as_published"]) if asked.weights else None
    found: dict[tuple[str, int, str], list[Believed]] = defaultdict(list)
    pooled: dict[str, list[tuple[Floats, Right]]] = defaultdict(list)
    for sample, frames, stopped, data in scans(asked.seeds, tuple(asked.frames)):
        classes, _ = stopped.truth.class_of_chips(data.grid)
        truth = classes.ravel()
        for way, scores in ways(stopped, data, encoder):
            known = (truth >= 0) & scores.any(axis=1)
            found[sample, frames, way].append(Believed.of(scores[known], truth[known]))
            pooled[way].append((scores[known].max(axis=1), (scores[known].argmax(axis=1) == truth[known])))
    print(f"{'sample':18s} {'frames':>6s} {'way':14s} accuracy   sure    ECE  Brier log loss")
    for (sample, frames, way), runs in sorted(found.items()):
        print(f"{sample:18s} {frames:6d} {way:14s} {_mean(runs)}")
    for way in pooled:
        runs = [run for key, of_scan in found.items() if key[2] == way for run in of_scan]
        print(f"{'all':18s} {'':6s} {way:14s} {_mean(runs)}")
    print(f"\nOf chips scored between, how many are right (chips), seeds 0 to {asked.seeds - 1}")
    _print_bins(pooled)


def _mean(runs: list[Believed]) -> Believed:
    fields = Believed.__dataclass_fields__
    return Believed(**{name: float(np.mean([getattr(run, name) for run in runs])) for name in fields})


def _print_bins(pooled: dict[str, list[tuple[Floats, Right]]]) -> None:
    for b in range(1, BINS):  # nobody is less sure than one in as many as there are classes
        cells = []
        for way, parts in pooled.items():
            sure, right = (np.concatenate(column) for column in zip(*parts, strict=True))
            there = np.minimum((sure * BINS).astype(int), BINS - 1) == b
            share = f"{right[there].mean():.2f}" if there.any() else "   -"
            cells.append(f"{way} {share} ({there.sum():6d})")
        print(f"{b / BINS:.1f} to {(b + 1) / BINS:.1f}   " + "   ".join(cells))


if __name__ == "__main__":
    main()
