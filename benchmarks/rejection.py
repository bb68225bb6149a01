"""What ``--reject`` costs and finds: chips of named classes that it calls unknown, and of a class that has no name.

Run: ``python -m benchmarks.rejection [--rate 0.01] [--seeds 3] [--frames 1 16]``, from the repository's root.

The default few-shot, both modalities, on simulated scans of the four samples. Once with four examples of every class:
whatever is rejected is so by mistake. Then with each class left out of the support set in turn, where at least two
others are left: all of its chips should be unknown, none of the others.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import msgspec
import numpy as np
from benchmarks.calibration import parameters_of, scans
from numpy.typing import NDArray

from livestem.domain.parameters import Parameters
from livestem.domain.support import UNKNOWN, SupportSet
from livestem.runtime.features import Collected, Feature, eds_features, haadf_feature
from livestem.runtime.finals import fewshot_map
from livestem.runtime.quantification import build_quantifier

Mask = NDArray[np.bool_]


def features_of(data: Collected, parameters: Parameters) -> dict[str, Feature]:
    """Return the default's two modalities."""
    assert data.total is not None
    quantifier = build_quantifier(data.plan, parameters, data.total)
    features = {"haadf": haadf_feature(data, parameters, None)}
    return features | eds_features(data, parameters.recipe.eds_modalities, quantifier, final=True)


def rejected(data: Collected, features: dict[str, Feature], parameters: Parameters) -> Mask:
    """Return (rows, cols) which chips are unknown."""
    found = fewshot_map(tuple(features), features, data, parameters)
    assert found is not None and found.classes[-1] == UNKNOWN
    return np.asarray(found.labels == len(found.classes) - 1)


def without(parameters: Parameters, name: str) -> Parameters:
    """Return the parameters with one class less."""
    assert parameters.support is not None
    left = tuple(c for c in parameters.support.classes if c.name != name)
    return msgspec.structs.replace(parameters, support=SupportSet(classes=left))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.01, help="as --reject")
    parser.add_argument("--seeds", type=int, default=3, help="scans of each sample, seeds 0, 1, ...")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 16], help="frames of eight real ones' photons")
    asked = parser.parse_args()
    mistaken: dict[tuple[str, int], list[float]] = defaultdict(list)
    found: dict[tuple[str, int, str], list[tuple[float, float]]] = defaultdict(list)
    for sample, frames, stopped, data in scans(asked.seeds, tuple(asked.frames)):
        parameters = msgspec.structs.replace(parameters_of(stopped, data, "default"), reject=asked.rate)
        features = features_of(data, parameters)
        classes, _ = stopped.truth.class_of_chips(data.grid)
        mistaken[sample, frames].append(float(rejected(data, features, parameters).mean()))
        names = stopped.truth.names
        for label, name in enumerate(names if len(names) > 2 else ()):
            away = rejected(data, features, without(parameters, name))
            its = classes == label
            found[sample, frames, name].append((float(away[its].mean()), float(away[~its].mean())))
    print(f"rate {asked.rate:g}, seeds 0 to {asked.seeds - 1}: share of chips called unknown, mean (worst)\n")
    print(f"{'sample':18s} {'frames':>6s}  every class named")
    for (sample, frames), shares in sorted(mistaken.items()):
        print(f"{sample:18s} {frames:6d}  {np.mean(shares):.4f} ({max(shares):.4f})")
    every = [share for shares in mistaken.values() for share in shares]
    print(f"{'all':18s} {'':6s}  {np.mean(every):.4f} ({max(every):.4f})")
    print(f"\n{'sample':18s} {'frames':>6s}  {'left out':14s} its chips  others")
    for (sample, frames, name), pairs in sorted(found.items()):
        share, others = np.mean(pairs, axis=0)
        print(f"{sample:18s} {frames:6d}  {name:14s} {share:9.2f}  {others:.4f}")


if __name__ == "__main__":
    main()
