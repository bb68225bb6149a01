"""One result as a report needs it: label maps, regions, the HAADF image, and the facts of ``result.json``.

Rules
-----
* A fact that this version does not know is left alone, one that is absent is not shown: results of one format may
  have more or fewer keys.
* A HAADF pixel that was never visited is no data. Where the result does not store the exposure, it is one of value
  0 in a missing tile.
* Lengths are calibrated where the result's are: the pixel is multiplied by the calibration's factor.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.regions import Region
from livestem.domain.support import SupportSet
from livestem.runtime.map_colours import Legend, MapPanel
from livestem.runtime.results import COVERAGE
from livestem.runtime.saved import SavedResult, read_result, result_folder
from livestem.wire.messages import MissingTile

_METHODS = {"fewshot": "Few-shot", "ward": "Ward", "louvain": "Louvain"}
_MODALITIES = {"haadf": "HAADF", "eds": "EDS spectra", "atomic": "EDS at.%", "lines": "EDS lines"}
_HSPY = "result.hspy"


class _Parameters(msgspec.Struct, frozen=True, kw_only=True):
    support: SupportSet | None = None
    strays: tuple[str, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of ``result.json`` that are shown beside maps and regions."""

    livestem: str
    digest: str
    input_digest: str
    encoder: str = ""
    reason: str | None = None
    sample: str | None = None
    source: str | None = None
    counts: int | None = None
    coverage: dict[str, float | None] = {}
    missing_tiles: tuple[MissingTile, ...] = ()
    parameters: dict[str, Any] = {}
    numerics: dict[str, Any] = {}
    maps: dict[str, dict[str, Any]] = {}
    agreement: dict[str, dict[str, float | None]] = {}
    registration: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None

    @property
    def length_factor(self) -> float:
        """True over recorded length; 1 where lengths were not calibrated."""
        factor = (self.calibration or {}).get("factor")
        return float(factor) if isinstance(factor, int | float) and 0 < factor < np.inf else 1.0

    timings_s: dict[str, float] = {}
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One result to report.

    Attributes
    ----------
    folder : where it is
    saved : label maps and regions
    facts : the rest of ``result.json``
    coverage : modality -> (rows, cols), the share of each chip that came; empty where the result does not say
    image : (H, W) float64, HAADF per visit, NaN where there are no data; None without HAADF
    pixel_nm : of the image, nm, calibrated
    """

    folder: Path
    saved: SavedResult
    facts: Facts
    coverage: dict[str, NDArray[np.float32]]
    image: NDArray[np.float64] | None
    pixel_nm: float | None

    @property
    def title(self) -> str:
        """What a person calls it."""
        return self.facts.sample or self.saved.scan_id

    @cached_property
    def panels(self) -> list[MapPanel]:
        """Its label maps, in the result's order."""
        return [
            MapPanel(title=name, labels=labels, names=self.saved.names[name])
            for name, labels in self.saved.maps.items()
        ]

    @cached_property
    def methods(self) -> dict[str, dict[str, int]]:
        """Method -> modality -> index into `panels`."""
        found: dict[str, dict[str, int]] = {}
        for i, name in enumerate(self.saved.maps):
            method, _, modality = name.partition(".")
            found.setdefault(method, {})[modality] = i
        return found

    @property
    def main_maps(self) -> dict[str, str]:
        """Method -> name of the map whose regions are described: the first that joins modalities, else the first."""
        chosen = {m: next((x for x in found if "+" in x), next(iter(found))) for m, found in self.methods.items()}
        return {method: f"{method}.{modality}" for method, modality in chosen.items()}

    def regions(self, name: str) -> list[Region]:
        """Return a map's regions, the largest first."""
        return sorted(self.saved.regions.get(name, ()), key=lambda region: (-region.chips, region.label))

    def place(self, name: str, label: int, legend: Legend) -> int:
        """Return the place of a region in the legend."""
        return legend.places[list(self.saved.maps).index(name)][label]

    @cached_property
    def class_titles(self) -> dict[str, str]:
        """Class name -> its title, free text, of the classes that have one."""
        support = self._parameters.support
        return {c.name: c.title for c in support.classes if c.title} if support else {}

    @cached_property
    def _parameters(self) -> _Parameters:
        try:
            return msgspec.convert(self.facts.parameters, _Parameters)
        except ValueError:
            return _Parameters()


def read_scan(path: Path) -> Scan:
    """Read a result for a report.

    Raises
    ------
    UsageError
        If there is no result, its files are broken, or another version wrote them.
    """
    folder = result_folder(path)
    saved = read_result(folder)
    if not saved.maps:
        raise UsageError(f"{folder} holds no label map; its scan had no chip with data")
    try:
        facts = msgspec.json.decode((folder / "result.json").read_bytes(), type=Facts)
    except (OSError, ValueError) as e:
        raise UsageError(f"{folder / 'result.json'} is not a result: {e}") from e
    image, pixel_nm = None, None
    if saved.grid.haadf_px is not None:
        image, pixel_nm = _image(folder / _HSPY, facts, saved.grid.haadf_px * saved.grid.rows)
    coverage = _coverage(folder / COVERAGE, saved)
    return Scan(folder=folder, saved=saved, facts=facts, coverage=coverage, image=image, pixel_nm=pixel_nm)


def method_title(method: str) -> str:
    """Return a method's name for people."""
    return _METHODS.get(method, method)


def modality_title(modality: str) -> str:
    """Return a modality's name for people, of an ensemble with its parts."""
    return " + ".join(_MODALITIES.get(part, part) for part in modality.split("+"))


def map_title(name: str) -> str:
    """Return the name of ``<method>.<modality>`` for people."""
    method, _, modality = name.partition(".")
    return f"{method_title(method)}, {modality_title(modality)}"


def _coverage(path: Path, saved: SavedResult) -> dict[str, NDArray[np.float32]]:
    """Return the coverage maps, none if the result is of a version that did not write them."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("haadf", "eds") if name in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as e:
        raise UsageError(f"{path} is broken ({e}); make the result again with livestem batch") from e
    for share in found.values():
        if share.shape != saved.grid.shape or share.dtype.kind != "f" or not ((share >= 0) & (share <= 1)).all():
            raise UsageError(f"{path} does not fit the grid; make the result again with livestem batch")
    return found


def _image(path: Path, facts: Facts, least_rows: int) -> tuple[NDArray[np.float64], float]:
    """Return the HAADF with NaN for no data, and its pixel, nm."""
    import h5py

    try:
        with h5py.File(path) as file:
            signal, visited = file["Experiments/HAADF"], file.get("Experiments/HAADF exposure")
            image = np.asarray(signal["data"], np.float64)
            pixel_nm = float(signal["axis-1"].attrs["scale"]) * facts.length_factor
            exposure = None if visited is None else np.asarray(visited["data"])
    except (OSError, KeyError, ValueError) as e:
        raise UsageError(f"the HAADF of {path} cannot be read ({e}); make the result again with livestem batch") from e
    if image.ndim != 2 or len(image) < least_rows or not 0 < pixel_nm < np.inf:
        raise UsageError(f"the HAADF of {path} does not fit the grid; make the result again with livestem batch")
    if exposure is not None and exposure.shape == image.shape:
        image[exposure == 0] = np.nan
        return image, pixel_nm
    missing = np.zeros(image.shape, bool)
    for tile in facts.missing_tiles:
        if tile.modality == "haadf":
            right = None if tile.w is None else tile.x + tile.w
            missing[tile.y : tile.y + tile.h, tile.x : right] = True
    image[missing & (image == 0)] = np.nan
    return image, pixel_nm
