"""The finals of a scan: every method on every modality and ensemble, agreement, descriptors, digests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from livestem.domain.parameters import Parameters
from livestem.domain.regions import Calibration, Region
from livestem.domain.support import UNKNOWN
from livestem.runtime.clusters import Clusters
from livestem.runtime.features import Collected, Encoder, Feature, eds_features, haadf_feature, score_weights
from livestem.runtime.label_map import Facts, Joined, Key, LabelMap
from livestem.runtime.numerics import digest_of, numerics_of
from livestem.runtime.quantification import Quantifier, build_quantifier
from livestem.runtime.regions import describe_maps
from livestem.runtime.side_by_side import Once, side_by_side
from livestem.stages import agreement, fewshot, rejection

_CLIPPED = 0.01  # of the pixels at an end of the detector's range: hot and dead pixels are fewer


@dataclass(frozen=True)
class Finals:
    """Everything computed from a completed scan. `data`, `quantifier`, `features` are kept for the result files."""

    data: Collected
    parameters: Parameters
    quantifier: Quantifier | None
    numerics: dict[str, Any]
    maps: dict[Key, LabelMap]
    agreement: dict[str, dict[str, float | None]]
    regions: dict[Key, tuple[Region, ...]]
    digest: str
    timings_s: dict[str, float]
    warnings: tuple[str, ...]
    calibration: Calibration | None = None
    features: Mapping[str, Feature] = field(default_factory=dict)


def finalise(data: Collected, parameters: Parameters, encoder: Encoder | None) -> Finals:
    """Compute the finals of a scan.

    The numerical libraries run on one thread here: a sum's order, and so its last bits, must not depend on how
    many cores are free.

    Parameters
    ----------
    data : Collected
        With ``final=True``.
    parameters : Parameters
    encoder : Encoder or None
        None for the lattice descriptor.
    """
    from threadpoolctl import threadpool_limits

    timings: dict[str, float] = {}
    with threadpool_limits(limits=1):
        with _timed(timings, "quantify"):
            quantifier = None
            if data.total is not None:
                quantifier = build_quantifier(data.plan, parameters, data.total)
        parameters = quantifier.parameters if quantifier else parameters
        with _timed(timings, "embed"):
            features = _features(data, parameters, quantifier, encoder)
        maps = _maps(features, data, parameters, timings)
        with _timed(timings, "agreement"):
            agreed = _agreement(maps)
        with _timed(timings, "descriptors"):
            regions, calibration = describe_maps(maps, data, parameters, quantifier)
    numerics = numerics_of(encoder)
    warnings = (
        *_warnings(data, quantifier, calibration),
        *_not_borrowed(features, data),
        *(quantifier.warnings if quantifier else ()),
    )
    digest = digest_of({key: found.labels for key, found in maps.items()}, parameters, numerics)
    return Finals(
        data, parameters, quantifier, numerics, maps, agreed, regions, digest, timings, warnings, calibration, features
    )


def modalities(features: Mapping[str, Feature]) -> list[tuple[str, ...]]:
    """Return what is clustered: each modality, then haadf with each other one."""
    single = [(name,) for name in features]
    pairs = [("haadf", name) for name in features if name != "haadf" and "haadf" in features]
    return [parts for parts in single + pairs if np.all([features[p].valid for p in parts], axis=0).any()]


def fewshot_map(
    parts: tuple[str, ...],
    features: Mapping[str, Feature],
    data: Collected,
    parameters: Parameters,
    once: Once | None = None,
) -> LabelMap | None:
    """Score chips against the support set; None until every class has a chip with data.

    `once` keeps, for several maps of the same features, what they share.

    Examples of earlier scans stand behind this scan's chips, brought to their place by its own standards; None where
    they lack a number that this scan has.

    As published: softmax over distances, ensembles by the mean of the scores. Default: the parts joined and
    whitened by the differences of neighbours, probabilities calibrated, and chips on borders decided by what of each
    class they show; chips unlike any class `unknown` if asked.
    """
    assert parameters.support is not None
    classes, chips = parameters.support.indices(data.grid), data.grid.chips
    own = Joined.of(parts, features, data.grid, parameters)
    if data.borrowed is not None:
        beside = {part: features[part].beside(data.borrowed, part) for part in parts}
        features = {part: found for part, found in beside.items() if found is not None}
        if len(features) < len(parts):
            return None
    joined = Joined.of(parts, features, data.grid, parameters)
    valid = joined.valid
    if not fewshot.finished(classes, valid):
        return None
    if parameters.recipe.fewshot == "softmax":
        once = once or Once()
        by_part = {part: once(part, partial(_softmax, features[part], classes)) for part in parts}
        scores = fewshot.combine(by_part, score_weights(parts, features, parameters))
    else:
        rows = joined.rows()
        calibration = fewshot.calibrate(rows, classes, valid)
        scores = fewshot.calibrated_scores(rows, calibration, valid)
    scores, valid = scores[:chips], valid[:chips]
    if (settled := own.settled(fewshot.predict(scores, valid))) is not None:
        scores = settled.over(scores)
    facts: Facts = {"scores": parameters.recipe.fewshot, "support": parameters.support.version}
    names = parameters.support.names
    if parameters.reject:
        away = rejection.unknown(rows[:chips], calibration, data.grid.shape, parameters.reject, valid)
        scores, names = rejection.with_unknown(scores, away), (*names, UNKNOWN)
        facts["unknown"] = int(away.sum())
    return LabelMap(
        joined.as_map(fewshot.predict(scores, valid)),
        np.ascontiguousarray(scores.T.reshape(-1, *data.grid.shape).astype(np.float32)),
        names,
        facts | joined.way("fewshot"),
    )


def _softmax(feature: Feature, classes: fewshot.Classes) -> fewshot.Scores:
    """Return the published scores of one modality."""
    return fewshot.softmax_scores(feature.rows, fewshot.prototypes(feature.rows, classes, feature.valid), feature.valid)


def _features(
    data: Collected, parameters: Parameters, quantifier: Quantifier | None, encoder: Encoder | None
) -> dict[str, Feature]:
    features = {}
    if data.haadf is not None:
        features["haadf"] = haadf_feature(data, parameters, encoder)
    if data.spectra is not None:
        features |= eds_features(data, parameters.recipe.eds_modalities, quantifier, final=True)
    return {name: f for name, f in features.items() if f.valid.any()}


def _maps(
    features: dict[str, Feature], data: Collected, parameters: Parameters, timings: dict[str, float]
) -> dict[Key, LabelMap]:
    maps: dict[Key, LabelMap] = {}
    everything = modalities(features)
    names = ["+".join(parts) for parts in everything]
    if parameters.support is not None:
        with _timed(timings, "fewshot"):
            once, many = Once(), parameters.recipe.fewshot == "softmax"  # of wide embeddings
            scored = side_by_side(
                lambda parts: fewshot_map(parts, features, data, parameters, once), everything, None if many else 1
            )
        maps |= {("fewshot", name): found for name, found in zip(names, scored, strict=True) if found is not None}
    clusters = Clusters([Joined.of(parts, features, data.grid, parameters) for parts in everything])
    with _timed(timings, "ward"):
        maps |= {("ward", name): found for name, found in zip(names, clusters.ward_maps(), strict=True)}
    with _timed(timings, "louvain"):
        maps |= {("louvain", name): found for name, found in zip(names, clusters.louvain_maps(), strict=True)}
    return maps


def _agreement(maps: Mapping[Key, LabelMap]) -> dict[str, dict[str, float | None]]:
    methods = dict.fromkeys(method for method, _ in maps)
    return {
        wanted: agreement.pairwise({modality: x.labels for (method, modality), x in maps.items() if method == wanted})
        for wanted in methods
    }


def _warnings(data: Collected, quantifier: Quantifier | None, calibration: Calibration | None) -> Iterator[str]:
    if calibration is not None and calibration.reason is not None:
        yield f"lengths are not calibrated on region {calibration.region}: {calibration.reason}"
    if data.spectra is not None and quantifier is None:
        yield "no element could be told from the spectra; name them with --elements"
    haadf = data.plan.haadf
    if haadf is not None and data.haadf is not None and np.dtype(haadf.dtype).kind in "ui":
        seen = data.haadf[data.valid_pixels()]
        ends = np.iinfo(haadf.dtype)
        for end, advice in ((ends.min, "raise its offset"), (ends.max, "lower its gain")):
            clipped = float(np.mean(seen == end)) if seen.size else 0.0
            if clipped > _CLIPPED:
                yield f"HAADF is clipped at {end} in {100 * clipped:.1f} % of the pixels; {advice} at the detector"


def _not_borrowed(features: Mapping[str, Feature], data: Collected) -> Iterator[str]:
    if data.borrowed is not None:
        yield from data.borrowed.warnings(data.most_visits)
    for name, feature in features.items():
        if data.borrowed is not None and feature.beside(data.borrowed, name) is None:
            yield f"no few-shot with {name}: the earlier scan's chips lack some of {', '.join(feature.columns) or name}"


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    timings[stage] = round(time.perf_counter() - began, 4)


ami = agreement.ami  # for the command line, which does not reach into the stages
