"""A result against the truth: label maps, compositions and lattices of its regions.

Rules
-----
* Frames summed as they came are judged by what most visits of a pixel saw, registered frames by the first frame's
  field; the result's parameters say which.
* A region is of the class that most of its true pixels have; how many have it is its purity. What is measured in a
  region is compared with that class, so an impure region is wrong by its mixture, not by its measurement.
* Measured atomic percent are compared as shares of the specimen's own elements: where a result counts strays among
  its 100 %, its values are scaled back, with their sigmas.
* A field that does not fit is an error. Another scan's name is only a warning: fields of one specimen look alike,
  and a truth made by hand may name no scan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from livestem.domain.geometry import Grid
from livestem.domain.regions import Region
from livestem.domain.support import UNKNOWN
from livestem.domain.truth import ClassFacts, Truth
from livestem.runtime.saved import SavedResult, check_field
from livestem.stages import accuracy
from livestem.stages.accuracy import PURE, Measures

_NAMED = "fewshot."  # methods whose labels are classes
_WHOLE = 100.0  # at.%: what the specimen's own elements sum to


class Measure(Struct, frozen=True, kw_only=True):
    """One measure: over all chips, over pure chips, and what a perfect classifier reaches over all chips."""

    all: float | None
    pure: float | None
    ceiling: float | None


class MapScore(Struct, frozen=True, kw_only=True):
    """How well one label map draws the truth.

    Attributes
    ----------
    regions, chips, pure_chips : labels; chips compared; those at least 80 % one class
    ami, ari : adjusted mutual information and adjusted Rand index against the truth
    accuracy, accuracy_per_class : of maps with class names; None for clusters
    boundary_nm, boundary_floor_nm : mean distance between drawn and true edges; that of the best map of chips
    unknown_classes : names that the truth does not know; their chips count as wrong
    rejected : share of the chips that few-shot calls `unknown`; right where the truth's class has no support
    """

    regions: int
    chips: int
    pure_chips: int
    ami: Measure
    ari: Measure
    accuracy: Measure | None
    accuracy_per_class: dict[str, Measure] | None
    boundary_nm: float | None
    boundary_floor_nm: float | None
    unknown_classes: tuple[str, ...] = ()
    rejected: float | None = None


class Deviation(Struct, frozen=True, kw_only=True):
    """A measured value beside the true one; `error` is measured - true, `error_sigmas` that over sigma."""

    measured: float | None
    true: float | None
    error: float | None
    sigma: float | None = None
    error_sigmas: float | None = None


class RegionScore(Struct, frozen=True, kw_only=True):
    """What was measured in one region against its class.

    Attributes
    ----------
    name, chips : of the region
    truth : class that most of its true pixels have; None where nothing is known there
    purity : share of its known pixels that have it
    composition : atomic percent by element; {} where either side knows none
    d_spacing_nm : longest spacing against the lattice's own
    d_apparent_nm : the same against the longest spacing that a drifting scan shows
    d_fast_nm, d_slow_nm : along either scan direction, against what a drifting scan shows
    note : why there is no spacing, or ""
    """

    name: str
    chips: int
    truth: str | None
    purity: float | None
    composition: dict[str, Deviation]
    d_spacing_nm: Deviation
    d_apparent_nm: Deviation
    d_fast_nm: Deviation
    d_slow_nm: Deviation
    note: str = ""


class Score(Struct, frozen=True, kw_only=True):
    """A result against the truth; `maps` and `regions` are keyed ``<method>.<modality>``."""

    session: str
    scan_id: str
    status: str
    specimen: str
    frames: int
    dose_e_nm2: float | None
    registered: bool
    chips: int
    pure_chips: int
    pure_from: float
    maps: dict[str, MapScore]
    regions: dict[str, tuple[RegionScore, ...]]
    warnings: tuple[str, ...]
    format: int = 1


def score(saved: SavedResult, truth: Truth) -> Score:
    """Score a result.

    Parameters
    ----------
    saved : SavedResult
        As `livestem.runtime.saved.read_result` reads it.
    truth : Truth
        Of the same field.

    Raises
    ------
    UsageError
        If the truth is of another field.
    """
    check_field(saved, truth)
    there = _Field.of(truth, saved.grid, registered=saved.registered)
    maps, regions = {}, {}
    for name, labels in saved.maps.items():
        named = saved.names[name] if name.startswith(_NAMED) else None
        maps[name] = there.map_score(labels, named)
        regions[name] = there.region_scores(labels, saved.regions.get(name, ()), scaled=saved.strays_in_total)
    return Score(
        session=saved.session,
        scan_id=saved.scan_id,
        status=saved.status,
        specimen=truth.facts.specimen,
        frames=truth.facts.frames,
        dose_e_nm2=truth.facts.dose_e_nm2,
        registered=saved.registered,
        chips=int(np.count_nonzero(there.classes >= 0)),
        pure_chips=int(np.count_nonzero(there.pure)),
        pure_from=PURE,
        maps=maps,
        regions=regions,
        warnings=(*_scan_warning(saved, truth), *_class_warnings(maps)),
    )


@dataclass(frozen=True)
class _Field:
    """The truth, cut to a grid."""

    truth: Truth
    pixels: NDArray[np.int8]  # of the grid's area
    shares: NDArray[np.float64]
    classes: NDArray[np.int16]
    pure: NDArray[np.bool_]
    ceilings: dict[bytes, Measures] = field(default_factory=dict)  # by the chips that a map has

    @classmethod
    def of(cls, truth: Truth, grid: Grid, *, registered: bool) -> _Field:
        classes, purity = truth.class_of_chips(grid, registered=registered)
        return cls(
            truth=truth,
            pixels=truth.classes(registered=registered)[truth.area(grid)],
            shares=truth.shares_of_chips(grid, registered=registered),
            classes=classes,
            pure=purity >= PURE,
        )

    def map_score(self, labels: NDArray[np.int16], names: tuple[str, ...] | None) -> MapScore:
        """Score a (rows, cols) map whose labels have these names, or are clusters (None)."""
        truth, unknown = self.truth, list[str]()
        numbered, drawn, rejected = labels, labels, np.zeros(labels.shape, bool)
        if names is None:
            drawn = accuracy.as_classes(labels, self.shares)
        else:
            numbered, unknown = accuracy.numbered_as(labels, names, truth.names)
            drawn = numbered
            rejected = np.isin(labels, [i for i, name in enumerate(names) if name == UNKNOWN])
        known = (labels >= 0) & (self.classes >= 0)
        ceiling, alike = self._ceiling(known), self._measured(numbered)
        right = self._measured(self._credited(numbered, rejected, names or ())) if rejected.any() else alike

        def beside(of: Callable[[Measures], float | None], pair: tuple[Measures, Measures] = alike) -> Measure:
            return Measure(all=of(pair[0]), pure=of(pair[1]), ceiling=of(ceiling))

        recall = {name: beside(_recall_of(i), right) for i, name in enumerate(truth.names)}
        pixel, ideal = truth.facts.pixel_nm, np.where(known, self.classes, -1)
        return MapScore(
            regions=int(labels.max(initial=-1)) + 1,
            chips=int(np.count_nonzero(known)),
            pure_chips=int(np.count_nonzero(known & self.pure)),
            ami=beside(lambda m: m.ami),
            ari=beside(lambda m: m.ari),
            accuracy=None if names is None else beside(lambda m: m.accuracy, right),
            accuracy_per_class=None if names is None else recall,
            boundary_nm=accuracy.boundary_error_nm(drawn, self.pixels, pixel),
            boundary_floor_nm=accuracy.boundary_error_nm(ideal, self.pixels, pixel),
            unknown_classes=tuple(name for name in unknown if name != UNKNOWN),
            rejected=float(np.mean(rejected[known])) if UNKNOWN in unknown and known.any() else None,
        )

    def region_scores(
        self, labels: NDArray[np.int16], regions: tuple[Region, ...], *, scaled: bool
    ) -> tuple[RegionScore, ...]:
        """Score the regions of a (rows, cols) map; `scaled` if their atomic percent count strays."""
        held = accuracy.overlap(labels, self.shares)
        return tuple(self._region_score(region, held[region.label], scaled) for region in regions)

    def _measured(self, labels: NDArray[np.int16]) -> tuple[Measures, Measures]:
        """Measure labels in the truth's numbers over all chips, and over the pure ones."""
        over = (labels, np.where(self.pure, labels, -1))
        every, pure = (accuracy.measures(part, self.classes, len(self.truth.names)) for part in over)
        return every, pure

    def _credited(
        self, labels: NDArray[np.int16], rejected: NDArray[np.bool_], names: tuple[str, ...]
    ) -> NDArray[np.int16]:
        """Give rejected chips the class that they have, where the map has no name for it."""
        unnamed = [i for i, name in enumerate(self.truth.names) if name not in names]
        return np.where(rejected & np.isin(self.classes, unnamed), self.classes, labels)

    def _ceiling(self, known: NDArray[np.bool_]) -> Measures:
        """Return the ceiling of these chips; maps of one scan mostly have the same."""
        key = known.tobytes()
        if key not in self.ceilings:
            self.ceilings[key] = accuracy.border_ceiling(self.shares[known])
        return self.ceilings[key]

    def _region_score(self, region: Region, held: NDArray[np.float64], scaled: bool) -> RegionScore:
        facts = self.truth.facts.classes[int(held.argmax())] if held.any() else None
        fast, slow = (facts.d_apparent_nm if facts else None) or (None, None)
        apparent = None if fast is None or slow is None else max(fast, slow)
        sigma = region.d_spacing_sigma_nm
        return RegionScore(
            name=region.name,
            chips=region.chips,
            truth=facts.name if facts else None,
            purity=float(held.max() / held.sum()) if facts else None,
            composition=_composition(region, facts, scaled) if facts else {},
            d_spacing_nm=_deviation(region.d_spacing_nm, facts.d_spacing_nm if facts else None, sigma),
            d_apparent_nm=_deviation(region.d_spacing_nm, apparent, sigma),
            d_fast_nm=_deviation(region.d_fast_nm, fast),
            d_slow_nm=_deviation(region.d_slow_nm, slow),
            note=region.notes.get("d_spacing_nm", ""),
        )


def _recall_of(label: int) -> Callable[[Measures], float | None]:
    return lambda m: m.recall[label]


def _composition(region: Region, facts: ClassFacts, scaled: bool) -> dict[str, Deviation]:
    """Compare a region's atomic percent with its class: every element that either of them names."""
    measured, sigma = region.atomic_percent, region.atomic_percent_sigma or {}
    if not measured or not facts.composition:
        return {}
    total = sum(v for v in measured.values() if v is not None)
    scale = _WHOLE / total if scaled and total > 0 else 1.0
    elements = dict.fromkeys((*facts.composition, *measured))
    return {
        e: _deviation(_times(measured.get(e), scale), facts.composition.get(e, 0.0), _times(sigma.get(e), scale))
        for e in elements
    }


def _deviation(measured: float | None, true: float | None, sigma: float | None = None) -> Deviation:
    error = None if measured is None or true is None else measured - true
    sigmas = error / sigma if error is not None and sigma else None
    return Deviation(measured=measured, true=true, error=error, sigma=sigma, error_sigmas=sigmas)


def _times(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def _scan_warning(saved: SavedResult, truth: Truth) -> list[str]:
    named = truth.facts.scan_id
    if named in ("", saved.scan_id):
        return []
    return [f"the truth is of scan {named}, the result of {saved.scan_id}; the fields fit, so they were compared"]


def _class_warnings(maps: dict[str, MapScore]) -> list[str]:
    unknown = dict.fromkeys(name for found in maps.values() for name in found.unknown_classes)
    return [f"the truth knows no class {name}; its chips count as wrong" for name in unknown]
