"""A result on disk: maps, numbers of chips, ``result.hspy`` and, last, ``result.json``; each appears whole."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Grid
from livestem.runtime.borrowed import CHIPS, ChipFacts
from livestem.runtime.covered import Covered
from livestem.runtime.disk import not_written
from livestem.runtime.features import Feature, grey_range
from livestem.runtime.finals import Finals
from livestem.runtime.hspy import write_hspy
from livestem.runtime.label_map import Key, LabelMap
from livestem.runtime.regions import region_names
from livestem.runtime.registration import Registration
from livestem.runtime.side_by_side import side_by_side
from livestem.stages.clahe import CLIP_LIMIT, TILES
from livestem.stages.descriptors import differences
from livestem.wire import messages as m

FORMAT = 1
MISSING_TOLD = 4096  # rectangles in a message, 250 kB; the result file lists them all
COVERAGE = "coverage.npz"
FILES = frozenset(["journal.sqlite", "labels.npz", CHIPS, COVERAGE, "result.hspy", "result.json"])
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: equal label maps give equal bytes


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """A scan's finals with how it was received."""

    session: str
    scan_id: str
    status: str
    reason: str | None  # why it is not complete
    coverage: m.Coverage
    missing: tuple[m.MissingTile, ...]
    scattered: int  # frames of which `missing` is told in whole rows
    covered: Covered
    last_frame: str | None  # how far it came, if not to its end
    counts: int | None
    input_digest: str
    finals: Finals
    registration: Registration | None = None
    contradictions: int = 0  # tiles that were refused because others are at their place

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know."""
        last = () if self.last_frame is None else (self.last_frame,)
        unregistered = self.registration.warnings if self.registration is not None else ()
        return (*self._absent(), *self._contradicted(), *last, *unregistered, *self.finals.warnings)

    def _absent(self) -> tuple[str, ...]:
        if not self.missing:
            return ()
        what = "bands of rows" if all(tile.w is None for tile in self.missing) else "rectangles"
        coarse = f"what is missing is scattered in {self.scattered} frames: their rows are listed whole"
        return (f"{len(self.missing)} {what} are missing", *((coarse,) if self.scattered else ()))

    def _contradicted(self) -> tuple[str, ...]:
        if not self.contradictions:
            return ()
        tiles = "1 tile was" if self.contradictions == 1 else f"{self.contradictions} tiles were"
        return (
            f"{tiles} refused because other data are at their place: two measurements were sent under this name, and "
            "what is kept may be of both; take the scan again under another name",
        )


def write_result(folder: Path, result: ScanResult) -> None:
    """Write a result into its folder.

    Raises
    ------
    StoreError
        If it cannot be written; no half-written file is left.
    """
    try:
        writers: dict[str, Callable[[Path], object]] = {
            CHIPS: lambda path: path.write_bytes(chips_npz(result.finals.features)),  # packing leaves the others a core
            "result.hspy": lambda path: write_hspy(path, result),
            "labels.npz": lambda path: path.write_bytes(labels_npz(result.finals.maps)),
            COVERAGE: lambda path: path.write_bytes(coverage_npz(result.covered)),
        }
        side_by_side(lambda name: _whole(folder / name, writers[name]), [*writers])
        text = msgspec.json.format(msgspec.json.encode(result_json(result)), indent=1)
        _whole(folder / "result.json", lambda path: path.write_bytes(text + b"\n"))
    except OSError as e:
        raise not_written(f"the result of scan {result.scan_id} in {folder}", e) from e


def labels_npz(maps: Mapping[Key, LabelMap]) -> bytes:
    """Return the bytes of ``labels.npz``: the same for the same maps, on every machine and at any time."""
    arrays: dict[str, NDArray[Any]] = {}
    for (method, modality), found in maps.items():
        arrays[f"{method}.{modality}"] = found.labels.astype("<i2")
        if found.scores is not None:
            arrays[f"{method}.{modality}.scores"] = found.scores.astype("<f4")
    return _npz(arrays, zipfile.ZIP_STORED)


def chips_npz(features: Mapping[str, Feature]) -> bytes:
    """Return the bytes of ``chips.npz``: the numbers of every chip that later scans can be compared with."""
    arrays: dict[str, NDArray[Any]] = {}
    for modality, feature in features.items():
        arrays[modality] = feature.numbers.astype("<f4")
        arrays[f"{modality}.valid"] = feature.valid
    return _npz(arrays, zipfile.ZIP_DEFLATED)  # spectra of chips are mostly zeros


def coverage_npz(covered: Covered) -> bytes:
    """Return the bytes of ``coverage.npz``: what of every chip came, and how often it was visited."""
    return _npz({name: found.astype("<f4") for name, found in covered.arrays().items()}, zipfile.ZIP_DEFLATED)


def _npz(arrays: Mapping[str, NDArray[Any]], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            part = io.BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(arrays[name]), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.create_system = 0  # else the operating system shows in the bytes
            info.compress_type = compression
            archive.writestr(info, part.getvalue(), compresslevel=1)
    return buffer.getvalue()


def result_json(result: ScanResult) -> dict[str, Any]:
    """Return the content of ``result.json``."""
    finals = result.finals
    plan = finals.data.plan
    columns = {modality: feature.columns for modality, feature in finals.features.items() if feature.columns}
    return {
        "format": FORMAT,
        "livestem": version("livestem"),
        "session": result.session,
        "scan_id": result.scan_id,
        "status": result.status,
        "reason": result.reason,
        "sample": plan.sample,
        "source": plan.source,
        "coverage": result.coverage,
        "missing_tiles": result.missing,
        "coverage_map": result.covered.as_json(),
        "counts": result.counts,
        "registration": _registration(result),
        "grid": finals.data.grid,
        "chips": ChipFacts.of(
            plan, finals.data.grid, finals.parameters, finals.numerics["encoder"], columns, finals.data.most_visits
        ),
        "encoder": finals.parameters.recipe.encoder,
        "parameters": _parameters(finals),
        "numerics": finals.numerics,
        "classes": {name(k): region_names(found) for k, found in finals.maps.items()},
        "maps": {name(k): found.facts for k, found in finals.maps.items()},
        "agreement": finals.agreement,
        "regions": {name(k): regions for k, regions in finals.regions.items()},
        "differences": {name(k): differences(regions) for k, regions in finals.regions.items()},
        "calibration": finals.calibration,
        "support_version": finals.parameters.support.version if finals.parameters.support else None,
        "input_digest": result.input_digest,
        "digest": finals.digest,
        "timings_s": finals.timings_s,
        "warnings": result.warnings,
    }


def name(key: Key) -> str:
    """Return ``<method>.<modality>``."""
    return ".".join(key)


def _registration(result: ScanResult) -> dict[str, Any]:
    """Return where the frames were moved, or why they were not."""
    if result.registration is not None:
        return result.registration.as_json()
    return {"reason": result.finals.data.plan.not_to_register or "switched off"}


def _parameters(finals: Finals) -> dict[str, Any]:
    """Return the effective parameters with what was derived from the data."""
    derived: dict[str, Any] = {}
    if finals.parameters.recipe.encoder != "lattice" and finals.data.haadf is not None:
        derived["grey_mapping"] = grey_range(finals.data, finals.parameters).parameters() | {
            "clahe": {"clip_limit": CLIP_LIMIT, "tiles": TILES} if finals.parameters.grey == "clahe" else None
        }
    quantifier = finals.quantifier
    if quantifier is not None:
        operator = quantifier.operator
        undetermined = {
            f.line: why for f, why in zip(operator.families, operator.reasons, strict=True) if why and not f.nuisance
        }
        derived |= {
            "lines_used": quantifier.lines,
            "lines_undetermined": undetermined,
            "k_factors_used": dict(quantifier.k_factors.values),
            "k_factors_source": quantifier.k_factors.source,
            "energy_resolution_mnka_ev": operator.resolution_mnka_ev,
            "energy_axis": operator.axis,
        }
        if quantifier.foil is not None:
            derived["take_off_angle_deg"] = quantifier.foil.take_off_deg
    parameters: dict[str, Any] = msgspec.to_builtins(finals.parameters)
    return parameters | derived


def _whole(path: Path, write: Any) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_grid(path: Path) -> Grid:
    """Return the grid of a ``result.json``."""
    return msgspec.convert(msgspec.json.decode(path.read_bytes())["grid"], Grid)
