"""What examples of another scan are worth: accuracy and calibration beside those with a scan's own examples.

Run: ``python -m benchmarks.across_scans [--seeds 2] [--frames 1 4 16]``, from the repository's root.

Each scan of the four samples is scored by the default few-shot, both modalities: with four examples a class of its own,
and with four of another seed's scan (another specimen of the same kind, another noise) after as many frames, and after
more or fewer. Examples pass through what ``chips.npz`` keeps of them.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from dataclasses import dataclass

import msgspec
import numpy as np
from benchmarks.calibration import Believed, parameters_of, scans
from benchmarks.rejection import features_of

from livestem.domain.parameters import Parameters
from livestem.domain.support import SupportSet
from livestem.runtime.borrowed import Borrowed
from livestem.runtime.features import Collected, Feature
from livestem.runtime.finals import fewshot_map

_ELSEWHERE = "other/scan"


@dataclass(frozen=True)
class Scored:
    """One scan, ready to be scored or to lend its chips."""

    data: Collected
    parameters: Parameters
    features: dict[str, Feature]
    truth: np.ndarray

    def believed(self) -> Believed:
        """Score with its own examples."""
        return self._believed(self.data, self.parameters)

    def with_examples_of(self, other: Scored) -> Believed:
        """Score with another scan's examples."""
        assert other.parameters.support is not None
        chips = [c for classes in other.parameters.support.indices(other.data.grid) for c in classes]
        lent = Borrowed(
            {name: f.numbers[chips].astype(np.float32).astype(float) for name, f in other.features.items()},
            {name: f.valid[chips] for name, f in other.features.items()},
            {name: f.columns for name, f in other.features.items()},
        )
        classes = (msgspec.structs.replace(c, scan=_ELSEWHERE) for c in other.parameters.support.classes)
        parameters = msgspec.structs.replace(self.parameters, support=SupportSet(classes=tuple(classes)))
        return self._believed(_replaced(self.data, lent), parameters)

    def _believed(self, data: Collected, parameters: Parameters) -> Believed:
        found = fewshot_map(tuple(self.features), self.features, data, parameters)
        assert found is not None and found.scores is not None
        scores = found.scores.reshape(len(found.classes), -1).T.astype(np.float64)
        known = (self.truth >= 0) & scores.any(axis=1)
        return Believed.of(scores[known], self.truth[known])


def _replaced(data: Collected, lent: Borrowed) -> Collected:
    fields = {name: getattr(data, name) for name in Collected.__dataclass_fields__}
    return Collected(**(fields | {"borrowed": lent}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="scans of each sample, seeds 0, 1, ...")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 4, 16], help="frames of eight real ones' photons")
    asked = parser.parse_args()
    scored: dict[tuple[str, int, int], Scored] = {}
    for sample, frames, stopped, data in scans(asked.seeds, tuple(asked.frames)):
        parameters = parameters_of(stopped, data, "default")
        truth = stopped.truth.class_of_chips(data.grid)[0].ravel()
        scored[sample, frames, stopped.seed] = Scored(data, parameters, features_of(data, parameters), truth)
    found: dict[tuple[str, int, str], list[Believed]] = defaultdict(list)
    for (sample, frames, seed), scan in scored.items():
        found[sample, frames, "own"].append(scan.believed())
        for lending, other in itertools.product(asked.frames, range(asked.seeds)):
            if other != seed:
                lent = scan.with_examples_of(scored[sample, lending, other])
                found[sample, frames, f"{lending:4d} frames"].append(lent)
    print(f"{'sample':18s} {'frames':>6s}  {'examples of':12s} accuracy   ECE")
    for (sample, frames, what), runs in sorted(found.items()):
        accuracy, ece = (np.mean([getattr(run, name) for run in runs]) for name in ("accuracy", "ece"))
        print(f"{sample:18s} {frames:6d}  {what:12s} {accuracy:8.3f} {ece:6.3f}")


if __name__ == "__main__":
    main()
