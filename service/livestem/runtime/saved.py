"""A result read back from its folder: label maps, names, regions and what decides how they are judged."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid
from livestem.domain.regions import Region
from livestem.domain.truth import Truth
from livestem.runtime.results import FORMAT

_RESULT, _LABELS = "result.json", "labels.npz"


class _Recipe(msgspec.Struct, frozen=True, kw_only=True):
    strays_in_total: bool = False


class _Parameters(msgspec.Struct, frozen=True, kw_only=True):
    recipe: _Recipe = _Recipe()


class _Registration(msgspec.Struct, frozen=True, kw_only=True):
    determined: int = 0  # without a frame that was, the sum is of the frames as they came


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of ``result.json`` that scoring needs; others are left alone."""

    format: int
    session: str
    scan_id: str
    status: str
    grid: Grid
    parameters: _Parameters
    registration: _Registration = _Registration()
    classes: dict[str, tuple[str, ...]]
    regions: dict[str, tuple[Region, ...]]


class SavedResult(msgspec.Struct, frozen=True, kw_only=True):
    """One scan's result.

    Attributes
    ----------
    session, scan_id, status : of the scan
    grid : of its chips
    registered : whether frames were registered before they were summed, those whose shift the images told
    strays_in_total : whether atomic percent count strays among the 100 %
    maps : ``<method>.<modality>`` -> (rows, cols) int16, -1 without data, in the result's order
    names, regions : ``<method>.<modality>`` -> names and regions in label order
    """

    session: str
    scan_id: str
    status: str
    grid: Grid
    registered: bool
    strays_in_total: bool
    maps: dict[str, NDArray[np.int16]]
    names: dict[str, tuple[str, ...]]
    regions: dict[str, tuple[Region, ...]]


def result_folder(path: Path) -> Path:
    """Return the folder of a result that is named by its folder or by its ``result.json``.

    Raises
    ------
    UsageError
        If there is no result.
    """
    folder = path.parent if path.name == _RESULT else path
    if not folder.is_dir():
        what = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
        raise UsageError(f"{what}; name a result folder, or its {_RESULT}")
    if not (folder / _RESULT).is_file():
        raise UsageError(
            f"{folder} has no {_RESULT}: it is no result folder, or its scan is not finished; "
            "of a saved scan, livestem batch makes a result"
        )
    return folder


def read_result(path: Path) -> SavedResult:
    """Read a result folder.

    Parameters
    ----------
    path : Path
        The folder, or the ``result.json`` in it.

    Raises
    ------
    UsageError
        If there is no result, its files are broken, or another version wrote them.
    """
    folder = result_folder(path)
    try:
        found = msgspec.json.decode((folder / _RESULT).read_bytes(), type=_Result)
    except OSError as e:
        raise UsageError(f"{folder / _RESULT} cannot be read: {e.strerror or e}") from e
    except ValueError as e:  # msgspec's errors are ValueErrors
        raise UsageError(f"{folder / _RESULT} is not a result: {e}") from e
    if found.format != FORMAT:
        raise UsageError(f"{folder / _RESULT} has format {found.format}, and this livestem reads {FORMAT}")
    _check_grid(found.grid, folder / _RESULT)
    return SavedResult(
        session=found.session,
        scan_id=found.scan_id,
        status=found.status,
        grid=found.grid,
        registered=found.registration.determined > 0,
        strays_in_total=found.parameters.recipe.strays_in_total,
        maps=_maps(folder / _LABELS, found),
        names=found.classes,
        regions=found.regions,
    )


def _check_grid(grid: Grid, path: Path) -> None:
    sides = (grid.rows, grid.cols, grid.chip_px, grid.haadf_px, grid.eds_px)
    if any(side is not None and side < 1 for side in sides) or not 0 < grid.chip_nm < np.inf or min(grid.origin) < 0:
        raise UsageError(f"{path} is not a result: its grid is impossible")


def _maps(path: Path, found: _Result) -> dict[str, NDArray[np.int16]]:
    """Read the label maps; UsageError if one is missing or not laid on the result's grid."""
    try:
        with np.load(path, allow_pickle=False) as file:
            maps = {name: file[name] for name in found.classes}
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror or e}") from e
    except (KeyError, ValueError, EOFError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error) as e:
        raise UsageError(f"{path} is broken, or not of this result: {e}") from e
    for name, labels in maps.items():
        if labels.shape != found.grid.shape or labels.dtype != np.int16 or labels.min(initial=0) < -1:
            raise UsageError(f"{path}: {name} is {labels.dtype} of {labels.shape}, not labels of {found.grid.shape}")
        regions = found.regions.get(name, ())
        if any(not 0 <= region.label <= labels.max(initial=-1) for region in regions):
            raise UsageError(f"{path}: {name} lacks a label of which {_RESULT} has a region")
        if labels.max(initial=-1) >= len(found.classes[name]):
            raise UsageError(f"{path}: {name} has label {labels.max()}, and {_RESULT} names {len(found.classes[name])}")
    return maps


def check_field(saved: SavedResult, truth: Truth) -> None:
    """Raise UsageError unless the result's grid covers the truth's field as chips do.

    Notes
    -----
    Pixels that make no whole chip are dropped, and so may be a part of one pixel of the coarser modality.
    """
    grid = saved.grid
    side = truth.chip_px(grid)
    coarse = side // min(px for px in (grid.haadf_px, grid.eds_px, side) if px)
    have = truth.class_of_pixel.shape
    for pixels, first, chips in zip(have, truth.area(grid), grid.shape, strict=True):
        if first.start == 0 and pixels - chips * side >= side + coarse - 1:
            raise UsageError(
                f"this truth has {have[0]} x {have[1]} pixels, and the result's {grid.rows} x {grid.cols} chips of "
                f"{side} px cover less of it than a scan's grid does; give the truth of this scan"
            )
