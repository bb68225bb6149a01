"""What each modality says about each chip: one row of numbers, from what has been collected.

Live and final work take the same way; finals fit without negative intensities and use every chip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Grid
from livestem.domain.parameters import Parameters
from livestem.domain.scan import ScanPlan
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.borrowed import Borrowed
from livestem.runtime.quantification import Quantifier
from livestem.stages.chips import coverage, cut, windows
from livestem.stages.clahe import equalise
from livestem.stages.features import square_root, standard_of
from livestem.stages.grey import GreyRange, percentile_range, to_grey
from livestem.stages.lattice import ORDER, lattice_descriptors, margin_px
from livestem.stages.lines import SOFTEST_KEV
from livestem.stages.quantify import Fit

LEAST_COVERAGE = 0.5  # a chip of which less was scanned is no data: its texture and counts are not a chip's

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Encoder(Protocol):
    """Turns 8-bit chips (N, p, p) into embeddings (N, D) float32; `digest` names its weights."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""

    @property
    def precision(self) -> str:
        """Of the arithmetic, such as ``fp32``."""

    @property
    def device(self) -> str:
        """Where it runs, such as ``cpu``."""

    @property
    def convolutions(self) -> str:
        """How a network's sums are made, such as ``filtered``."""

    def encode(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed chips."""


@dataclass(frozen=True)
class Collected:
    """A copy of what a scan has collected, so that compute never holds up ingest.

    Attributes
    ----------
    haadf : (H, W) mean per visit; haadf_exposure : (H, W) visits
    spectra : (N, C) counts of every chip; total : (C,) of the whole field; eds_exposure : (H, W) visits
    borrowed : chips of earlier scans that are examples of this one's classes
    """

    plan: ScanPlan
    grid: Grid
    haadf: Floats | None = None
    haadf_exposure: NDArray[np.uint32] | None = None
    spectra: NDArray[np.uint32] | None = None
    total: NDArray[np.int64] | None = None
    eds_exposure: NDArray[np.uint32] | None = None
    borrowed: Borrowed | None = None

    @classmethod
    def of(
        cls, accumulator: Accumulator, *, final: bool, exposure_only: bool = False, borrowed: Borrowed | None = None
    ) -> Collected:
        """Copy from an accumulator; for finals nothing more is waited for, mere progress needs no data."""
        values: dict[str, Any] = {"borrowed": borrowed}
        if final:
            accumulator.finish()
        if exposure_only:
            values = {f"{modality}_exposure": part for modality, part in accumulator.exposures().items()}
            return cls(accumulator.plan, accumulator.grid, **values)
        haadf, eds = accumulator.sums()
        if haadf is not None:
            values |= {"haadf": haadf.mean(), "haadf_exposure": haadf.exposure}
        if eds is not None:
            total = eds.spectra.sum(axis=0, dtype=np.int64)
            values |= {"spectra": eds.spectra[:-1], "total": total, "eds_exposure": eds.exposure}
        return cls(accumulator.plan, accumulator.grid, **values)

    @cached_property
    def chip_counts(self) -> NDArray[np.int64] | None:
        """(N,) EDS photons of every chip, all channels; None without EDS."""
        return None if self.spectra is None else self.spectra.sum(axis=1, dtype=np.int64)

    @cached_property
    def _sums(self) -> dict[bytes, NDArray[np.int64]]:
        return {}

    def spectrum_of(self, member: Mask) -> NDArray[np.int64]:
        """Return (C,) the summed spectrum of the chips of an (N,) mask; regions that several maps have are summed once.

        It is not to be written to.
        """
        assert self.spectra is not None
        key = np.packbits(member).tobytes()
        if key not in self._sums:
            self._sums[key] = self.spectra[member].sum(axis=0, dtype=np.int64)
        return self._sums[key]

    @cached_property
    def covered(self) -> dict[str, Floats]:
        """Of each modality, (N,) the share of each chip's pixels that was visited."""
        grid = self.grid
        there = ("haadf", self.haadf_exposure, grid.haadf_px), ("eds", self.eds_exposure, grid.eds_px)
        return {k: coverage(visits, grid, side) for k, visits, side in there if visits is not None and side is not None}

    def valid(self, modality: str) -> Mask:
        """Return (N,) which chips have data, ``haadf`` or ``eds``."""
        share = self.covered.get(modality)
        return np.zeros(self.grid.chips, dtype=bool) if share is None else share >= LEAST_COVERAGE

    def valid_pixels(self) -> Mask:
        """Return (H, W) which HAADF pixels were visited."""
        assert self.haadf_exposure is not None
        return np.asarray(self.haadf_exposure > 0)

    @property
    def most_visits(self) -> int:
        """Visits of the most visited pixels."""
        there = [int(e.max()) for e in (self.haadf_exposure, self.eds_exposure) if e is not None]
        return max(there, default=0)

    @cached_property
    def eds_visits(self) -> Floats:
        """(N,) mean EDS visits of each chip's pixels."""
        assert self.eds_exposure is not None and self.grid.eds_px is not None
        return np.asarray(cut(self.eds_exposure.astype(np.float64), self.grid, self.grid.eds_px).mean(axis=(1, 2)))

    def visits(self) -> Floats:
        """Return (N, 1) EDS visits of each chip relative to the fully scanned field's, for means per visit."""
        full = self.eds_visits.max() or 1.0
        return np.where(self.eds_visits > 0, self.eds_visits / full, 1.0)[:, None]

    def counted(self) -> Floats:
        """Return (N,) EDS counts of each chip over those that the scan will give it: its visits over those planned.

        Of an open-ended scan, over the most that any chip has.
        """
        planned = self.plan.frames_of("eds", 0) or self.eds_visits.max() or 1.0
        return np.asarray(np.minimum(self.eds_visits / planned, 1.0))


@dataclass(frozen=True)
class Feature:
    """What one modality says of each chip.

    Attributes
    ----------
    rows : (N, D); zeros where not `valid`
    valid : (N,) which chips have data
    weight : (N,) how much of a chip is measured, 0..1, where scores are averaged; None: all of it
    raw : (N, R) numbers in units that scans share, before anything that follows from this scan; None: `rows`
    unit : that `rows` are in, where there is no `raw`: one of those that scans share
    like : brings (M, R) such numbers of other scans to `rows`' place
    columns : names of the columns of `raw`, where they depend on the scan
    phase : (N, P) those standardised columns that tell phases; None for embeddings of a network
    linear : (N, M) what mixes linearly where two phases share a chip, in its own units; None likewise
    """

    rows: Floats
    valid: Mask
    weight: Floats | None = None
    raw: Floats | None = None
    like: Callable[[Floats], Floats] = np.asarray
    columns: tuple[str, ...] = ()
    phase: Floats | None = None
    linear: Floats | None = None
    unit: float = 1.0

    @property
    def numbers(self) -> Floats:
        """(N, R), `raw` or `rows`."""
        if self.raw is not None:
            return self.raw
        return self.rows if self.unit == 1.0 else self.rows / self.unit

    def beside(self, chips: Borrowed, modality: str) -> Feature | None:
        """Return this with the chips of earlier scans after its own; None if they lack a number that it has."""
        found = chips.like(modality, self.columns, self.numbers.shape[1])
        if found is None:
            return None
        raw, valid = found
        weight = None if self.weight is None else np.concatenate([self.weight, np.ones(len(valid))])
        return Feature(np.concatenate([self.rows, self.like(raw)]), np.concatenate([self.valid, valid]), weight)


def haadf_feature(data: Collected, parameters: Parameters, encoder: Encoder | None) -> Feature:
    """Embed the HAADF chips: with `encoder`, or by the lattice descriptor where it is None."""
    assert data.haadf is not None and data.grid.haadf_px is not None
    valid = data.valid("haadf")
    side = data.grid.haadf_px
    if not valid.any():
        return Feature(np.zeros((data.grid.chips, 1)), valid)
    if encoder is None:
        return lattice_feature(lattice_rows(data), valid)
    picture = grey_picture(data, parameters, grey_range(data, parameters))
    found = encoder.encode(cut(picture, data.grid, side)[valid])
    rows = np.zeros((data.grid.chips, found.shape[1]))
    rows[valid] = found
    return Feature(rows, valid)


def lattice_rows(data: Collected, chips: NDArray[np.intp] | None = None) -> Floats:
    """Return the lattice descriptors (N, D) of all chips, or (K, D) of some."""
    assert data.haadf is not None and data.grid.haadf_px is not None
    side = data.grid.haadf_px
    margin = margin_px(side)
    seen = data.haadf
    if data.haadf_exposure is not None and not data.haadf_exposure.all():
        seen = np.where(data.haadf_exposure == 0, np.nan, seen)
    return lattice_descriptors(windows(seen, data.grid, side, margin, chips), margin).astype(np.float64)


def lattice_feature(rows: Floats, valid: Mask) -> Feature:
    """Return what the lattice descriptors (N, D) of all chips say."""
    standard = standard_of(rows, valid)
    standardised = standard.apply(rows, valid)
    return Feature(
        standardised,
        valid,
        raw=_only(rows, valid),
        like=standard.apply,
        phase=standardised[:, ORDER],
        linear=_only(rows[:, :1], valid),
    )


def grey_range(data: Collected, parameters: Parameters) -> GreyRange:
    """Return what becomes 0 and 255: the range in the parameters, else exact percentiles of the visited pixels."""
    assert data.plan.haadf is not None and data.haadf is not None
    if parameters.grey_range is None:
        return percentile_range(data.haadf[data.valid_pixels()])
    given = parameters.grey_range == data.plan.haadf.grey_range
    words = {"given": "given", "fixed": "fixed", "survey": "survey image", "clahe": "given" if given else "fixed"}
    return GreyRange(*parameters.grey_range, words[parameters.grey])


def grey_picture(data: Collected, parameters: Parameters, of: GreyRange) -> NDArray[np.uint8]:
    """Return the whole picture in 8-bit grey: over the range `of`, then equalised if the parameters say so."""
    assert data.haadf is not None
    grey = to_grey(data.haadf, of)
    return equalise(grey, data.valid_pixels()) if parameters.grey == "clahe" else grey


def eds_features(
    data: Collected,
    names: tuple[str, ...],
    quantifier: Quantifier | None,
    *,
    final: bool,
    fitted: Fit | Floats | None = None,
) -> dict[str, Feature]:
    """Return the EDS modalities asked for: ``lines``, ``atomic`` (these need a quantifier) and ``eds``.

    While the scan runs a chip's weight is the share of its counts that are in. `fitted` is what the quantifier makes
    of the chips' spectra, if that is known; intensities alone will do where no composition is asked for.
    """
    assert data.spectra is not None and data.plan.eds is not None and data.grid.eds_px is not None
    valid = data.valid("eds")
    weight = None if final else data.counted()
    per_chip = data.eds_visits.max() * data.grid.eds_px**2 or 1.0  # visits of a whole chip, which counts are of
    features: dict[str, Feature] = {}
    if not valid.any():
        return features
    if "eds" in names:
        axis = data.plan.eds.energy
        above = axis.offset_kev + axis.scale_kev * np.arange(axis.channels) >= SOFTEST_KEV
        counts = data.spectra[:, above] / data.visits()  # of a large field the largest array there is: never copied
        counts[~valid] = 0.0
        features["eds"] = Feature(counts, valid, weight, like=lambda raw: raw * per_chip, unit=per_chip)
    if quantifier is None:
        return features
    if fitted is None and "atomic" in names:
        fitted = quantifier.fit(data.spectra, final=final)
    if "lines" in names:
        found = quantifier.intensities(data.spectra, final=final) if fitted is None else fitted
        intensities = found.intensities if isinstance(found, Fit) else found
        per_visit = quantifier.named(intensities) / data.visits()
        standard = standard_of(square_root(per_visit), valid)
        rows = standard.apply(square_root(per_visit), valid)
        features["lines"] = Feature(
            rows,
            valid,
            weight,
            _only(per_visit / per_chip, valid),
            lambda raw: standard.apply(square_root(raw * per_chip)),
            quantifier.named_determined,
            phase=rows,
            linear=_only(per_visit, valid),
        )
    if isinstance(fitted, Fit) and "atomic" in names:
        made = quantifier.composition(fitted)
        known = valid & made.valid
        features["atomic"] = Feature(_only(made.atomic_percent, known), known, weight, columns=made.elements)
    return features


def score_weights(
    parts: tuple[str, ...], features: Mapping[str, Feature], parameters: Parameters
) -> dict[str, Floats] | None:
    """Return what each chip's scores count in a mean: its modality's weight, times how much of it is measured."""
    if len(parts) == 1:
        return None
    weights = {}
    for part in parts:
        given = parameters.modality_weights.get("haadf" if part == "haadf" else "eds", 1.0)
        measured = features[part].weight
        weights[part] = given * (np.ones(len(features[part].valid)) if measured is None else measured)
    return weights


def _only(rows: Floats, valid: Mask) -> Floats:
    return np.where(valid[:, None], rows, 0.0)
