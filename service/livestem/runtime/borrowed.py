"""Examples of earlier scans: their chips' own numbers, kept with every result, and put beside this scan's chips.

Rules
-----
- Kept are numbers in units that scans share, before anything that follows from the scan as a whole: descriptors or
  embeddings of the HAADF, atomic percent, and counts per pixel and visit (``chips.npz``; `ChipFacts` in
  ``result.json``). This scan's own standardisation and whitening are then applied to both.
- What the numbers depend on must be the same, else the scan is refused with both values: encoder and its weights,
  grey mapping, chip size, energy axis, elements, and what makes atomic percent of intensities. Where nobody names
  elements, those of the earlier scan are taken.
- Counts are scaled by the probe's charge per visit (dwell times current) where both scans state it; otherwise it is
  taken to be the same.
- Assumed, and not known to any file: the HAADF detector's gain and offset have not been changed in between, and the
  dose is alike. Square roots and order parameters of few counts are biased by their noise, so prototypes of a scan of
  much more or less dose are a little off.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid
from livestem.domain.parameters import Parameters
from livestem.domain.scan import EnergyAxis, ScanPlan
from livestem.domain.support import SupportClass

CHIPS = "chips.npz"
_LIKE_DOSE = 4  # times: up to here accuracy was within 0.04 of a scan's own examples, at 16 it lost up to 0.16
COUNTED = frozenset(["eds", "lines"])  # modalities that are counts per pixel and visit
_WORDS = {"encoder": "encoder", "grey": "grey mapping", "haadf_px": "number of HAADF pixels along a chip"}
_SAME_SIZE = 0.01  # chips of one nominal size on two calibrations of a pixel

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class ChipFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the numbers of a result's chips depend on.

    Attributes
    ----------
    encoder : ``lattice``, or the digest of the network's weights; None without HAADF
    grey : rule of the grey mapping for a network, with its range; None for ``lattice``
    chip_nm, haadf_px : side of a chip, nm and HAADF pixels
    energy : the recorded energy axis; None without EDS
    elements : that were fitted, strays among them
    composition : how intensities become atomic percent, in words; None without that modality
    columns : modality -> names of its columns, where they depend on the scan
    charge_pc : dwell time times beam current, pC a pixel and visit; None where not known
    visits : of its most visited pixels
    """

    encoder: str | None
    grey: str | None
    chip_nm: float
    haadf_px: int | None
    energy: EnergyAxis | None
    elements: tuple[str, ...]
    composition: str | None = None
    columns: dict[str, tuple[str, ...]]
    charge_pc: float | None
    visits: int = 0

    @classmethod
    def of(
        cls,
        plan: ScanPlan,
        grid: Grid,
        parameters: Parameters,
        encoder: str,
        columns: Mapping[str, tuple[str, ...]] | None = None,
        visits: int = 0,
    ) -> ChipFacts:
        """Return the facts of a scan; `encoder` is the name or digest of what embeds its HAADF."""
        charge = None
        if plan.dwell_s is not None and plan.beam.current_pa is not None:
            charge = plan.dwell_s * plan.beam.current_pa
        values = "" if parameters.grey_range is None else " {:g} to {:g}".format(*parameters.grey_range)
        return cls(
            encoder=encoder if plan.haadf else None,
            grey=f"{parameters.grey}{values}" if plan.haadf and parameters.recipe.encoder != "lattice" else None,
            chip_nm=grid.chip_nm,
            haadf_px=grid.haadf_px,
            energy=plan.eds.energy if plan.eds else None,
            elements=(*parameters.elements, *parameters.strays),
            composition=_composition(parameters) if plan.eds and "atomic" in parameters.recipe.eds_modalities else None,
            columns=dict(columns or {}),
            charge_pc=charge,
            visits=visits,
        )


@dataclass(frozen=True)
class Borrowed:
    """Chips of earlier scans, in the order of `SupportSet.borrowed`.

    Attributes
    ----------
    raw : modality -> (M, R), NaN-free; zeros where not `valid`
    valid : modality -> (M,)
    columns : modality -> names of its columns, or ()
    visits : scan -> visits of its most visited pixels
    """

    raw: dict[str, Floats]
    valid: dict[str, Mask]
    columns: dict[str, tuple[str, ...]]
    visits: dict[str, int] = field(default_factory=dict)

    def warnings(self, visits: int) -> Iterator[str]:
        """Yield a line for each earlier scan of much more or less dose than this one of so many visits."""
        for scan, theirs in self.visits.items():
            if visits and theirs and not 1 / _LIKE_DOSE <= theirs / visits <= _LIKE_DOSE:
                yield (
                    f"the examples of scan {scan} were visited {theirs} times and this scan {visits} times; "
                    "noise biases such prototypes, examples of a like dose are better"
                )

    def like(self, modality: str, columns: tuple[str, ...], width: int) -> tuple[Floats, Mask] | None:
        """Return the (M, width) numbers in this scan's columns, and which chips have them; None if any is missing."""
        raw, theirs = self.raw[modality], self.columns.get(modality, ())
        if set(columns) - set(theirs):
            return None
        if columns:
            raw = raw[:, [theirs.index(name) for name in columns]]
        return (raw, self.valid[modality]) if raw.shape[1] == width else None


class _Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of ``result.json`` that are needed here."""

    grid: Grid
    input_digest: str
    chips: ChipFacts | None = None


def borrow(
    plan: ScanPlan, grid: Grid, parameters: Parameters, encoder: str, store: Path
) -> tuple[Parameters, Borrowed | None]:
    """Fetch the examples that a support set takes from earlier scans.

    Parameters
    ----------
    plan, grid, parameters : of this scan
    encoder : str
        Name or digest of what embeds its HAADF.
    store : Path
        Where results are: ``<store>/<session>/<scan_id>/``.

    Returns
    -------
    Parameters, Borrowed or None
        With the elements of the earlier scan where nobody names them, and the digest of every earlier scan's input;
        None if every class is of this scan.

    Raises
    ------
    UsageError
        If an earlier scan is not there, has no such chip, or its numbers cannot be compared with this scan's.
    """
    support = parameters.support
    if support is None or not support.borrowed:
        return parameters, None
    digests: dict[str, str] = {}
    parts: list[Borrowed] = []
    for one in support.classes:
        if one.scan is None:
            continue
        found = _read(store, one.scan)
        assert found.chips is not None
        if parameters.elements_origin == "automatic" and plan.eds is not None:
            elements = tuple(e for e in found.chips.elements if e not in parameters.strays)
            parameters = msgspec.structs.replace(parameters, elements=elements, elements_origin="support")
        here = ChipFacts.of(plan, grid, parameters, encoder)
        _check(one.scan, found.chips, here)
        names = _modalities(plan, parameters)
        parts.append(_chips(store, one, found, names, here.charge_pc))
        digests[one.scan] = found.input_digest
    return msgspec.structs.replace(parameters, borrowed=digests), _joined(parts)


def _read(store: Path, scan: str) -> _Earlier:
    path = store / scan / "result.json"
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Earlier)
    except OSError as e:
        raise UsageError(
            f"there is no result of scan {scan} in {store}, of which the support set has chips; name a finished scan "
            "as session/scan_id, and its store"
        ) from e
    except ValueError as e:  # msgspec's errors are ValueErrors
        raise UsageError(f"the result of scan {scan} in {store} cannot be read: {e}") from e
    if found.chips is None:
        raise UsageError(
            f"the result of scan {scan} keeps no numbers of its chips, an earlier livestem wrote it; "
            "process its journal again (livestem batch)"
        )
    return found


def _check(scan: str, theirs: ChipFacts, ours: ChipFacts) -> None:
    """Refuse what cannot be compared, naming both values."""
    for what, same, there, here in _compared(theirs, ours):
        if not same:
            raise UsageError(
                f"examples of scan {scan} do not fit: its {what} is {there}, this scan's {here}; "
                "use the same, or choose chips of this scan"
            )


def _compared(theirs: ChipFacts, ours: ChipFacts) -> Iterator[tuple[str, bool, str, str]]:
    """Yield what is compared, whether it is the same, and both in words."""
    near = abs(theirs.chip_nm / ours.chip_nm - 1) <= _SAME_SIZE
    yield "chip size", near, f"{theirs.chip_nm:.4g} nm", f"{ours.chip_nm:.4g} nm"
    if ours.haadf_px is not None:
        for what in ("encoder", "grey", "haadf_px"):
            there, here = getattr(theirs, what), getattr(ours, what)
            yield _WORDS[what], there == here, str(there), str(here)
    if ours.energy is not None:
        yield "energy axis", theirs.energy == ours.energy, _axis(theirs.energy), _axis(ours.energy)
        there, here = (" ".join(sorted(of.elements)) or "empty" for of in (theirs, ours))
        yield "list of elements", there == here, there, here
        yield "composition", theirs.composition == ours.composition, str(theirs.composition), str(ours.composition)


def _composition(parameters: Parameters) -> str:
    """Return what atomic percent depend on beside the elements."""
    table = " ".join(f"{line} {k:g}" for line, k in sorted(parameters.k_factors.items())) or "computed"
    total = "in" if parameters.recipe.strays_in_total else "outside"
    return f"absorption {parameters.absorption}, strays {total} the total, k-factors {table}"


def _axis(axis: EnergyAxis | None) -> str:
    return "missing" if axis is None else f"{axis.channels} x {axis.scale_kev:g} keV from {axis.offset_kev:g} keV"


def _modalities(plan: ScanPlan, parameters: Parameters) -> tuple[str, ...]:
    haadf = ("haadf",) if plan.haadf is not None else ()
    return (*haadf, *(parameters.recipe.eds_modalities if plan.eds is not None else ()))


def _chips(
    store: Path, one: SupportClass, found: _Earlier, names: tuple[str, ...], charge_pc: float | None
) -> Borrowed:
    """Read a class's chips."""
    assert one.scan is not None and found.chips is not None
    grid, theirs = found.grid, found.chips.charge_pc
    for row, col in one.chips:
        if row >= grid.rows or col >= grid.cols:
            raise UsageError(
                f"support chip [{row}, {col}] of class {one.name} lies outside the {grid.rows} x {grid.cols} chips of "
                f"scan {one.scan}; check the support file"
            )
    rows = [row * grid.cols + col for row, col in one.chips]
    dose = charge_pc / theirs if charge_pc and theirs else 1.0
    raw, valid = {}, {}
    for name, (numbers, known) in _numbers(store / one.scan / CHIPS, names).items():
        if not len(numbers) == len(known) == grid.chips or not known[rows].any():
            raise UsageError(f"class {one.name} has no chip with {name} in scan {one.scan}; choose others")
        raw[name] = numbers[rows].astype(np.float64) * (dose if name in COUNTED else 1.0)
        valid[name] = known[rows]
    return Borrowed(raw, valid, found.chips.columns, {one.scan: found.chips.visits})


def _numbers(path: Path, names: tuple[str, ...]) -> dict[str, tuple[NDArray[Any], Mask]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            lacking = [name for name in names if name not in file]
            if lacking:
                raise UsageError(f"{path} has no {lacking[0]}; process that scan with this preset, or choose another")
            return {name: (file[name], file[f"{name}.valid"].astype(bool)) for name in names}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise UsageError(f"the chips of an earlier scan cannot be read from {path}: {e}") from e


def _joined(parts: list[Borrowed]) -> Borrowed:
    """Put the chips of several classes one after another, in the columns that all have."""
    raw, valid, columns = {}, {}, {}
    for name in parts[0].raw:
        shared = tuple(c for c in parts[0].columns.get(name, ()) if all(c in p.columns.get(name, ()) for p in parts))
        width = len(shared) or parts[0].raw[name].shape[1]
        rows = [found for p in parts if (found := p.like(name, shared, width)) is not None]
        if len(rows) < len(parts):
            raise UsageError(f"the support set's earlier scans have different numbers of {name}; take chips of one")
        raw[name], valid[name] = (np.concatenate(column) for column in zip(*rows, strict=True))
        columns[name] = shared
    return Borrowed(raw, valid, columns, {scan: visits for part in parts for scan, visits in part.visits.items()})
