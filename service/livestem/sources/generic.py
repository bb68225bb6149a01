"""Files that RosettaSciIO reads as arrays with axes: .hspy, .zspy, .bcf, .dm4, NCEM .emd and the rest.

RosettaSciIO's readers are called directly; HyperSpy itself is not loaded. Formats that store chunks or plain
memory are read lazily, in bands of rows; the others (.bcf) decode the whole cube at once, which then is in
memory.
"""

from __future__ import annotations

import importlib
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import SourceError, UsageError
from livestem.domain.scan import Beam
from livestem.sources.axes import Roles, find_roles
from livestem.sources.facts import beam_of, eds_of, lookup, recorded_at, sample_of, stage_of
from livestem.sources.signals import Cube, DensePhotons, Facts, Picture, Signals, SpectrumImage

# What a reader can make of a damaged or foreign file (SyntaxError: XML); anything else is a bug and shows
# itself.
READER_ERRORS = (
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError,
    RuntimeError, SyntaxError, struct.error, zlib.error,
)  # fmt: skip
# Two readers claim these extensions; the microscope's is meant. (.img and .map of Hamamatsu cameras are no
# scans.)
_PREFERRED = {"hdf5": "HSPY", "mrc": "MRC", "img": "JEOL", "map": "JEOL"}
# Stored in chunks or as plain memory, so that reading a band does not decode the whole file.
_LAZY = frozenset(["HSPY", "ZSPY", "EMD", "DigitalMicrograph", "Ripple", "MRC", "EDAX", "NeXus"])


def read_generic(path: Path, **options: Any) -> Signals:
    """Read a file through its RosettaSciIO reader.

    Parameters
    ----------
    path : file, or folder of a .zspy store
    **options
        Further arguments of that reader.

    Returns
    -------
    Signals
        Pictures and EDS spectrum images in the order of the file.

    Raises
    ------
    SourceError
        If no reader knows the file, or it is damaged.
    """
    plugin = _plugin(path)
    entries = _entries(path, plugin, options)
    if any("livestem" in entry["metadata"] for entry in entries):
        raise SourceError(f"{path.name} is a result of livestem, not a recording; replay the journal.sqlite beside it")
    pictures: list[Picture] = []
    spectra: list[SpectrumImage] = []
    for entry in entries:
        data = entry["data"]
        roles = find_roles(entry.get("axes", ()), data.shape, path.name)
        if roles is None or data.dtype.kind not in "biuf":
            continue
        cube = Cube(_ordered(data, roles))
        if roles.energy is None:
            pictures.append(_picture(path, len(pictures) + 1, entry, cube, roles))
        elif str(lookup(entry, "metadata.Signal.signal_type") or "") not in ("EELS", "CL"):
            spectra.append(_spectrum_image(path, entry, cube, roles))
    return Signals(
        pictures=tuple(pictures),
        spectra=tuple(spectra),
        facts=merged_facts([facts_of(entry["metadata"]) for entry in entries]),
        close=_closer(entries),
    )


def _entries(path: Path, plugin: Mapping[str, Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read lazily where that spares memory, at once where a reader's lazy way refuses (unchunked HDF5)."""
    lazily = _options(plugin["name"])
    if lazily:
        try:
            return read_entries(path, plugin["api"], **lazily, **options)
        except SourceError:
            pass  # if the file itself is at fault, the second reading says so
    return read_entries(path, plugin["api"], **options)


def read_entries(path: Path, api: str, **options: Any) -> list[dict[str, Any]]:
    """Call a RosettaSciIO reader; what it raises becomes one line.

    Raises
    ------
    SourceError
        If the reader fails, or the file does not fit into memory.
    UsageError
        If a library that the format needs is missing.
    """
    try:
        reader = importlib.import_module(api)
        with _quiet():
            entries = list(reader.file_reader(str(path), **options))
    except ImportError as error:
        raise UsageError(f"{path.name} needs {error.name}; pip install 'livestem[service]'") from error
    except MemoryError as error:
        raise SourceError(f"{path.name} does not fit into memory; save it as .hspy, which is read in parts") from error
    except READER_ERRORS as error:
        raise unreadable(path, error) from error
    for entry in entries:
        entry["metadata"] = mapped(entry)
    return entries


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep RosettaSciIO's log off stdout, where --json writes; what matters is raised, or is a warning of ours."""
    logger = logging.getLogger("rsciio")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def unreadable(path: Path, error: BaseException) -> SourceError:
    """Return the one line for a file that a reader gave up on."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return SourceError(f"{path.name} cannot be read ({reason}); it may be incomplete: save or copy it again")


def mapped(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry's metadata, completed from its original metadata by the reader's own mapping."""
    metadata: dict[str, Any] = dict(entry.get("metadata") or {})
    for source, (target, convert) in (entry.get("mapping") or {}).items():
        value = lookup(entry.get("original_metadata"), source)
        if value is None or lookup(metadata, target) is not None:
            continue
        try:
            value = value if convert is None else convert(value)
        except READER_ERRORS:
            continue  # a fact that the vendor wrote in another form is a fact that we do not have
        branch = metadata
        *parents, last = target.split(".")
        for key in parents:
            child = branch.get(key)
            branch[key] = branch = dict(child) if isinstance(child, Mapping) else {}
        branch[last] = value
    return metadata


def facts_of(metadata: Mapping[str, Any]) -> Facts:
    """Return the facts of HyperSpy's metadata."""
    return Facts(
        beam=beam_of(metadata),
        stage=stage_of(metadata),
        sample=sample_of(metadata),
        recorded_at=recorded_at(metadata),
    )


def merged_facts(facts: list[Facts]) -> Facts:
    """Return one set of facts: of each, the first that is stated."""

    def first(values: list[Any]) -> Any:
        return next((v for v in values if v not in (None, {}, 0.0)), None)

    beam = {f: first([getattr(one.beam, f) for one in facts]) for f in Beam.__struct_fields__}
    return Facts(
        beam=Beam(**beam),
        dwell_s=first([one.dwell_s for one in facts]),
        rotation_deg=first([one.rotation_deg for one in facts]) or 0.0,
        stage=first([one.stage for one in facts]) or {},
        sample=first([one.sample for one in facts]),
        recorded_at=first([one.recorded_at for one in facts]),
    )


def _plugin(path: Path) -> Mapping[str, Any]:
    from rsciio import IO_PLUGINS

    extension = path.suffix[1:].lower()
    known = [p for p in IO_PLUGINS if extension in [str(e).lower() for e in p["file_extensions"]]]
    preferred = _PREFERRED.get(extension)
    known.sort(key=lambda p: p["name"] != preferred)
    if not known:
        raise SourceError(
            f"{path.name}: no reader knows {path.suffix or 'a name without extension'}; "
            "export it as .emd, .bcf, .pts, .hspy or another format that RosettaSciIO reads"
        )
    return known[0]  # type: ignore[no-any-return]


def _options(name: str) -> dict[str, Any]:
    options: dict[str, Any] = {"lazy": True} if name in _LAZY else {}
    if name == "ZSPY":
        options["mode"] = "r"  # lazily, it would ask for write access
    return options


def _ordered(data: Any, roles: Roles) -> Any:
    """Return the array as (frames, rows, cols[, channels])."""
    data = data.transpose(roles.order)
    return data[None] if roles.frame is None else data


def _title(path: Path, entry: Mapping[str, Any]) -> str:
    title = lookup(entry, "metadata.General.title")
    return title.strip() if isinstance(title, str) and title.strip() else path.stem


def _picture(path: Path, number: int, entry: Mapping[str, Any], cube: Cube, roles: Roles) -> Picture:
    title = _title(path, entry)
    shape = _ordered(entry["data"], roles).shape
    return Picture(
        path=path, number=number, title=title, shape=shape, dtype=entry["data"].dtype,
        pixel_nm=roles.pixel_nm, rows=cube.rows, elemental=is_elemental(title),
    )  # fmt: skip


def is_elemental(title: str) -> bool:
    """Tell whether a picture's title is that of an elemental map: a symbol, with a line or without."""
    return title.replace("_", " ").split(" ")[0] in SYMBOLS and len(title) <= len("Xx Ka1")


def _spectrum_image(path: Path, entry: Mapping[str, Any], cube: Cube, roles: Roles) -> SpectrumImage:
    data = entry["data"]
    shape = _ordered(data, roles).shape
    return SpectrumImage(
        path=path, title=_title(path, entry), shape=shape, pixel_nm=roles.pixel_nm,
        energy_kev=roles.energy_kev, photons=DensePhotons(cube, f"EDS of {path.name}"),
        counted=data.dtype.kind in "ub", **eds_of(entry["metadata"]),
    )  # fmt: skip


def _closer(entries: list[dict[str, Any]]) -> Any:
    """Return what closes the HDF5 file behind lazy arrays; a file left open stays locked on Windows."""
    lazy = [entry["data"] for entry in entries if hasattr(entry["data"], "dask")]

    def close() -> None:
        from rsciio.utils.file import get_file_handle

        for data in lazy:
            handle = get_file_handle(data, warn=False)
            if handle is not None and hasattr(handle, "close"):
                handle.close()

    return close
