"""Truths on disk.

A truth is two files of one name. ``<name>.json`` holds the facts (`TruthFacts`), ``<name>.npz`` the maps:

==================  ================  =====================================================================
``class_of_pixel``  (H, W) integer    class at the first frame's places; -1 where nobody knows
``class_of_sum``    (H, W) integer    what most visits of a pixel saw; without it, as `class_of_pixel`
``dose_e_nm2``      (H, W) float      electrons per nm^2 before the scan's end; without it, not known
==================  ================  =====================================================================

A person who labelled a real recording by hand writes ``class_of_pixel`` at the HAADF's pixels, and as facts::

    {"pixel_nm": [0.05, 0.05],
     "classes": [{"name": "LFO", "composition": {"La": 20, "Fe": 20, "O": 60}, "d_spacing_nm": 0.393},
                 {"name": "vacuum"}]}
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.truth import Truth, TruthFacts
from livestem.simulator.dose import DoseMap
from livestem.simulator.window import Window

_DOSE_STEP_NM = 0.25  # of a dose map on disk: a third of a chip
_LARGEST = 8192  # pixels a side: no microscope scans more, and a broken file may claim anything


def save_truth(truth: Truth, path: str | Path) -> tuple[Path, Path]:
    """Write ``<path>.npz`` (the maps) and ``<path>.json`` (the facts); return both paths.

    Raises
    ------
    UsageError
        If they cannot be written.
    """
    arrays, facts = _paths(path)
    try:
        with arrays.open("wb") as file:
            np.savez_compressed(
                file,
                class_of_pixel=truth.class_of_pixel,
                class_of_sum=truth.class_of_sum,
                dose_e_nm2=truth.dose_e_nm2,
            )
        facts.write_bytes(msgspec.json.format(msgspec.json.encode(truth.facts)) + b"\n")
    except OSError as error:
        raise UsageError(f"cannot write the truth {arrays} and {facts.name}: {error.strerror or error}") from None
    return arrays, facts


def save_dose(dose: DoseMap, window: Window, path: str | Path) -> Path:
    """Write the dose over a window as ``<path>.npz``; return its path.

    It holds ``dose_e_nm2`` (rows, cols) float32, electrons per nm^2 by place on the specimen at time 0 of the
    session, ``origin_nm`` (y, x) of its first cell's corner, and ``step_nm`` of its cells.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    arrays, _ = _paths(path)
    try:
        with arrays.open("wb") as file:
            np.savez_compressed(
                file,
                dose_e_nm2=dose.on_grid(window, _DOSE_STEP_NM),
                origin_nm=np.array([window.y0, window.x0]),
                step_nm=np.array(_DOSE_STEP_NM),
            )
    except OSError as error:
        raise UsageError(f"cannot write the dose {arrays}: {error.strerror or error}") from None
    return arrays


def load_truth(path: str | Path) -> Truth:
    """Read what `save_truth` wrote, or what a person made in its form.

    Parameters
    ----------
    path : str or Path
        Of either file, or their common name without an ending.

    Raises
    ------
    UsageError
        If a file is missing, broken, or is not a truth.
    """
    arrays, facts = _paths(path)
    try:
        known = msgspec.json.decode(facts.read_bytes(), type=TruthFacts)
        with zipfile.ZipFile(arrays) as archive:
            maps = {Path(name).stem: _array(archive, name) for name in archive.namelist()}
        first = _classes(maps, "class_of_pixel")
        summed = _classes(maps, "class_of_sum") if "class_of_sum" in maps else first
        dose = maps.get("dose_e_nm2", np.full(first.shape, np.nan))
        return Truth(first, summed, dose.astype(np.float32), known)
    except OSError as error:
        raise UsageError(f"cannot read the truth {facts} and {arrays.name}: {error.strerror or error}") from None
    except _BROKEN as error:
        raise UsageError(f"cannot read the truth {facts} and {arrays.name}: {error}") from None


# What files that are none of ours raise. msgspec's errors are ValueErrors; zipfile also refuses by
# RuntimeError (encrypted) and NotImplementedError (a compression that it does not know).
_BROKEN = (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return an array of the archive once its header says that it is a map of possible size."""
    with archive.open(name) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    if len(shape) != 2 or not all(1 <= side <= _LARGEST for side in shape) or dtype.kind not in "iuf":
        raise ValueError(f"{name} holds {dtype} of shape {shape}, not a map of 1 to {_LARGEST} pixels a side")
    with archive.open(name) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


def _classes(maps: dict[str, NDArray[Any]], name: str) -> NDArray[np.int8]:
    if name not in maps:
        raise ValueError(f"there is no {name} in it")
    found = maps[name]
    limits = np.iinfo(np.int8)
    if found.dtype.kind not in "iu" or found.min() < limits.min or found.max() > limits.max:
        raise ValueError(f"{name} must hold class numbers, got {found.dtype} from {found.min()} to {found.max()}")
    return found.astype(np.int8)


def _paths(path: str | Path) -> tuple[Path, Path]:
    stem = Path(path)
    if stem.suffix in (".npz", ".json"):
        stem = stem.with_suffix("")
    return stem.with_name(stem.name + ".npz"), stem.with_name(stem.name + ".json")
