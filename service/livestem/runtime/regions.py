"""The regions of every label map of a scan: their descriptors, on a pixel that a known one of them may calibrate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from livestem.domain.parameters import Parameters
from livestem.domain.regions import Calibration, Region
from livestem.runtime.features import Collected
from livestem.runtime.quantification import Quantifier
from livestem.stages.calibration import calibrate, candidates
from livestem.stages.descriptors import RegionComposition, describe
from livestem.stages.region_haadf import HaadfChips
from livestem.stages.spacing import LatticeResult

if TYPE_CHECKING:
    from livestem.runtime.label_map import Key, LabelMap

_TOGETHER = 256  # regions whose spectra are fitted at once: eight megabytes of them
_LAG = 0.1  # of a line: there the beam may still lag behind after the flyback, and pixels are not equally far apart


def describe_maps(
    maps: Mapping[Key, LabelMap], data: Collected, parameters: Parameters, quantifier: Quantifier | None
) -> tuple[dict[Key, tuple[Region, ...]], Calibration | None]:
    """Return the regions of every map, and the calibration of their lengths if one was asked for."""
    haadf = None if data.haadf is None else HaadfChips.of(data.haadf, data.haadf_exposure, data.grid)
    calibration = None
    if parameters.calibrate_region is not None and parameters.d_nm is not None:
        calibration = _calibration(parameters.calibrate_region, parameters.d_nm, maps, haadf)
    composition = None if quantifier is None or data.spectra is None else _compositions(quantifier, data, maps)
    regions = {
        key: describe(
            found.labels,
            grid=data.grid,
            names=found.classes or None,
            haadf=haadf,
            chip_counts=data.chip_counts,
            composition=composition,
            calibration=calibration,
        )
        for key, found in maps.items()
    }
    return regions, calibration


def region_names(found: LabelMap) -> tuple[str, ...]:
    """Return the names of a map's labels, in their order: the classes, or ``R0``, ``R1``, ..."""
    return found.classes or tuple(f"R{i}" for i in range(int(found.labels.max(initial=-1)) + 1))


def _calibration(region: str, d_nm: float, maps: Mapping[Key, LabelMap], haadf: HaadfChips | None) -> Calibration:
    names = {key: region_names(found) for key, found in maps.items()}
    known = candidates(region, names)
    if not known or haadf is None:
        there = sorted({name for some in names.values() for name in some})
        reason = "the scan has no HAADF" if haadf is None else f"no label map has it; there are {', '.join(there)}"
        return Calibration(region=region, d_nm=d_nm, reason=reason)
    cols = haadf.whole.shape[1]
    steady = np.arange(cols) >= _LAG * cols

    def measured() -> Iterator[tuple[Key, LatticeResult]]:
        for key, label in known:
            yield key, haadf.lattice_in((maps[key].labels == label) & steady)

    return calibrate(region, d_nm, haadf.pixel_nm, measured())


def _compositions(
    quantifier: Quantifier, data: Collected, maps: Mapping[Key, LabelMap]
) -> Callable[[NDArray[np.bool_]], RegionComposition]:
    """Return what knows the composition of every region of the maps by its (N,) mask; each is fitted once."""
    labelled = (found.labels.ravel() for found in maps.values())
    members = [*{(flat == label).tobytes(): None for flat in labelled for label in np.unique(flat[flat >= 0])}]
    known: dict[bytes, RegionComposition] = {}
    for start in range(0, len(members), _TOGETHER):
        some = members[start : start + _TOGETHER]
        spectra = np.stack([data.spectrum_of(np.frombuffer(member, np.bool_)) for member in some])
        known |= zip(some, quantifier.regions(spectra), strict=True)
    return lambda member: known[member.tobytes()]
