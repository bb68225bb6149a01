"""Physical descriptors of the regions of one label map.

Rules
-----
* A region is all chips that share a label; -1 is no data and no region. Area fractions are of labelled chips.
* The lattice is measured in the largest square of the region's chips that are exposed at every pixel, the
  first in row-major order on ties.
* HAADF means weight each pixel by its visits, so they are the mean detector value per visit.
* A value that the data do not allow is None and `Region.notes` says why, under the field's name
  (``atomic_percent.N`` for one element). There is never a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from livestem.domain.errors import StageError
from livestem.domain.geometry import Grid
from livestem.domain.regions import Calibration, Difference, Region
from livestem.stages.region_haadf import HaadfChips

NO_HAADF = "no HAADF in this scan"
NO_EDS = "no EDS in this scan"
NOT_VISITED = "no HAADF pixel of this region was visited"
_LEAST_PERCENT = 1e-6  # at.%: below is none, whatever its sigma; no spectrum counts so many photons
SIGNIFICANT = 3.0  # sigmas: below, a ratio to it is skewed, and its linear error means nothing
MOST_PAIRED = 8  # regions; a map of a hundred communities would have ten thousand pairs that nobody reads
_LATTICE_FIELDS = ("d_spacing_nm", "d_spacing_sigma_nm", "d_fast_nm", "d_slow_nm")


@dataclass(frozen=True, kw_only=True)
class RegionComposition:
    """Composition fitted on a region's summed spectrum.

    Attributes
    ----------
    counts : EDS photons in the region, all channels
    atomic_percent, sigma : by element, counting statistics only; None where the data do not allow one
    extraneous_percent : strays as a share of everything, atomic percent
    notes : why a value is None, under the names of `Region.notes` (``atomic_percent.N``)
    """

    counts: int
    atomic_percent: dict[str, float | None]
    sigma: dict[str, float | None]
    extraneous_percent: float | None = None
    notes: dict[str, str] = field(default_factory=dict)


def connected_components(member: NDArray[np.bool_]) -> int:
    """Return the number of 4-connected parts of a (rows, cols) bool mask."""
    return int(ndimage.label(member)[1])


def describe(
    labels: NDArray[np.int16],
    *,
    grid: Grid,
    names: tuple[str, ...] | None = None,
    haadf: HaadfChips | None = None,
    chip_counts: NDArray[np.integer] | None = None,
    composition: Callable[[NDArray[np.bool_]], RegionComposition] | None = None,
    calibration: Calibration | None = None,
) -> tuple[Region, ...]:
    """Describe every region of a label map.

    Parameters
    ----------
    labels : (rows, cols) int16
        Label of every chip, -1 for no data.
    grid : Grid
        The grid of chips; `haadf_px` sets the chip's side in HAADF pixels.
    names : tuple of str, optional
        Class name of label 0, 1, ...; without them regions are called R0, R1, ...
    haadf : HaadfChips, optional
        The picture, cut to the grid; one for all maps of a scan, so that what they share is measured once.
    chip_counts : (N,) int, optional
        EDS photons of every chip, all channels, row-major.
    composition : callable, optional
        Composition of the chips of an (N,) bool mask, row-major; called once per region.
    calibration : Calibration, optional
        Of lengths on the specimen; where it has a factor, lengths of the lattice are multiplied by it and say so.

    Returns
    -------
    tuple of Region
        In order of label; labels without chips have no region.

    Raises
    ------
    StageError
        If shapes disagree with the grid, or a label has no name.
    """
    _check(labels, grid, names, chip_counts)
    labelled = int((labels >= 0).sum())
    regions = []
    for label in np.unique(labels[labels >= 0]).tolist():
        member = labels == label
        notes: dict[str, str] = {}
        values = {
            **_haadf_values(member, haadf, notes, calibration),
            **_eds_values(member.ravel(), chip_counts, composition, notes),
        }
        regions.append(
            Region(
                label=label,
                name=f"R{label}" if names is None else names[label],
                chips=int(member.sum()),
                area_fraction=float(member.sum() / labelled),
                components=connected_components(member),
                **values,
                notes=notes,
            )
        )
    return tuple(regions)


def differences(regions: Sequence[Region]) -> tuple[Difference, ...]:
    """Compare the compositions of the regions of one label map.

    Parameters
    ----------
    regions : sequence of Region
        Without common chips, so that their errors are independent.

    Returns
    -------
    tuple of Difference
        Every ordered pair of regions with a composition, up to `MOST_PAIRED` of them; of more regions, each against the
        one with the most chips.
    """
    known = [r for r in regions if r.atomic_percent is not None]
    if len(known) > MOST_PAIRED:
        largest = max(known, key=lambda r: r.chips)
        return tuple(difference(a, largest) for a in known if a is not largest)
    return tuple(difference(a, b) for a in known for b in known if a is not b)


def difference(a: Region, b: Region) -> Difference:
    """Return the percent difference ``100 (a - b) / b`` of two compositions, by element.

    Parameters
    ----------
    a, b : Region
        Two regions without common chips, so that their errors are independent.

    Returns
    -------
    Difference
        ``sigma = 100 / b * hypot(sigma_a, a / b * sigma_b)``. An element is None with a note where a region has no
        value for it, or `b` has less than `SIGNIFICANT` sigmas of it.

    Raises
    ------
    StageError
        If one of them has no composition.
    """
    for region in (a, b):
        if region.atomic_percent is None:
            raise StageError(
                f"region {region.name} has no composition; compare regions of a scan with EDS and elements"
            )
    percent: dict[str, float | None] = {}
    sigma: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for element in a.atomic_percent or {}:
        x, sx = _measured(a, element)
        y, sy = _measured(b, element)
        if x is None or sx is None or y is None or sy is None:
            lacking = a.name if x is None or sx is None else b.name
            percent[element] = sigma[element] = None
            notes[element] = f"{lacking} has no value for it"
        elif y < max(_LEAST_PERCENT, SIGNIFICANT * sy):
            percent[element] = sigma[element] = None
            notes[element] = f"{b.name} has {y:.2g} +- {sy:.2g} at.% of it, which may be none"
        else:
            percent[element] = 100 * (x - y) / y
            sigma[element] = 100 * math.hypot(sx, x / y * sy) / y
    return Difference(a=a.name, b=b.name, percent=percent, sigma=sigma, notes=notes)


def _measured(region: Region, element: str) -> tuple[float | None, float | None]:
    return (region.atomic_percent or {}).get(element), (region.atomic_percent_sigma or {}).get(element)


def _check(
    labels: NDArray[np.int16],
    grid: Grid,
    names: tuple[str, ...] | None,
    chip_counts: NDArray[np.integer] | None,
) -> None:
    if labels.shape != grid.shape:
        raise StageError(f"a label map of {labels.shape} chips does not fit the grid of {grid.shape}")
    if names is not None and labels.max(initial=-1) >= len(names):
        raise StageError(f"label {labels.max()} has no name; give {labels.max() + 1} class names")
    if chip_counts is not None and chip_counts.shape != (grid.chips,):
        raise StageError(f"counts of shape {chip_counts.shape} do not fit the {grid.chips} chips of the grid")


def _haadf_values(
    member: NDArray[np.bool_], haadf: HaadfChips | None, notes: dict[str, str], calibration: Calibration | None
) -> dict[str, Any]:
    mean = None if haadf is None else haadf.mean_of(member)
    if haadf is None or mean is None:
        why = NO_HAADF if haadf is None else NOT_VISITED
        notes |= dict.fromkeys(("haadf_mean", *_LATTICE_FIELDS, "crystallinity"), why)
        return {}
    lattice = haadf.lattice_in(member)
    if lattice.reason is not None:
        notes |= dict.fromkeys(_LATTICE_FIELDS, lattice.reason)
        if lattice.crystallinity is None:
            notes["crystallinity"] = lattice.reason
    if lattice.peaks and calibration is not None and calibration.factor is not None:
        lattice = lattice.times(calibration.factor)
        words = f"calibrated on {calibration.region}: {calibration.factor:.5g} +- {calibration.factor_sigma:.2g} times"
        notes["lattice_peaks"] = f"{words} what the recorded pixel says, and so are the spacings"
    return {
        "haadf_mean": mean,
        "d_spacing_nm": lattice.d_spacing_nm,
        "d_spacing_sigma_nm": lattice.d_spacing_sigma_nm,
        "d_fast_nm": lattice.d_fast_nm,
        "d_slow_nm": lattice.d_slow_nm,
        "lattice_peaks": lattice.peaks,
        "crystallinity": lattice.crystallinity,
    }


def _eds_values(
    member: NDArray[np.bool_],
    chip_counts: NDArray[np.integer] | None,
    composition: Callable[[NDArray[np.bool_]], RegionComposition] | None,
    notes: dict[str, str],
) -> dict[str, Any]:
    counts = None if chip_counts is None else int(chip_counts[member].sum())
    fields = ("atomic_percent", "atomic_percent_sigma", "extraneous_percent")
    if composition is None:
        why = NO_EDS if counts is None else "composition was not asked for"
        notes |= dict.fromkeys(fields, why) | ({"counts": NO_EDS} if counts is None else {})
        return {"counts": counts}
    fit = composition(member)
    notes |= fit.notes
    if fit.extraneous_percent is None:
        notes.setdefault("extraneous_percent", "no strays were fitted")
    return {
        "counts": fit.counts if counts is None else counts,
        "atomic_percent": _finite(fit.atomic_percent, "atomic_percent", notes),
        "atomic_percent_sigma": _finite(fit.sigma, "atomic_percent_sigma", notes),
        "extraneous_percent": _finite({"": fit.extraneous_percent}, "extraneous_percent", notes)[""],
    }


def _finite(values: dict[str, float | None], name: str, notes: dict[str, str]) -> dict[str, float | None]:
    """Return the values with None for what is not finite, a note for every None."""
    out: dict[str, float | None] = {}
    for key, value in values.items():
        finite = value is not None and math.isfinite(value)
        out[key] = value if finite else None
        if not finite:
            field_name = f"{name}.{key}" if key else name
            notes.setdefault(field_name, "the fit does not determine it")
    return out
