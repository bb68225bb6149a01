"""Support sets: named classes and the chips that are examples of each, of this scan or of earlier ones."""

from __future__ import annotations

import hashlib
import itertools

import msgspec

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid
from livestem.domain.names import check_name

UNKNOWN = "unknown"  # the class of chips that resemble no other, where rejection is on


class SupportClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One class, or its chips of one scan: a class may be given once for every scan that has examples of it.

    Attributes
    ----------
    name : identifier
    chips : (row, col) of its examples
    title : free text
    scan : "session/scan_id" of the earlier scan whose chips these are; None: of the scan that is processed
    """

    name: str
    chips: tuple[tuple[int, int], ...]
    title: str | None = None
    scan: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "class")
        if not self.chips:
            raise ValueError(f"class {self.name!r} has no chips; give at least one [row, col]")
        if any(v < 0 for chip in self.chips for v in chip):
            raise ValueError(f"class {self.name!r} has a negative chip index")
        if self.scan is not None:
            session, _, scan_id = self.scan.partition("/")
            check_name(session, f"class {self.name!r}: scan is session/scan_id; session")
            check_name(scan_id, f"class {self.name!r}: scan is session/scan_id; scan")


class SupportSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The classes that few-shot scoring chooses from; labels 0, 1, ... in the order of first appearance."""

    classes: tuple[SupportClass, ...]

    def __post_init__(self) -> None:
        given = [(c.name, c.scan) for c in self.classes]
        if len(set(given)) < len(given):
            raise ValueError(f"class names repeat: {', '.join(name for name, _ in given)}")
        if len(self.names) < 2:
            raise ValueError("a support set needs at least two classes")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(dict.fromkeys(c.name for c in self.classes))

    @property
    def borrowed(self) -> tuple[tuple[str, tuple[int, int]], ...]:
        """Examples of earlier scans, (scan, (row, col)), in order."""
        return tuple((c.scan, chip) for c in self.classes if c.scan is not None for chip in c.chips)

    @property
    def version(self) -> str:
        """Content digest, so that a result says which support set made it."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    def indices(self, grid: Grid) -> tuple[tuple[int, ...], ...]:
        """Return the row-major chip indices of each class; `borrowed` chips are numbered on after the grid's.

        Raises
        ------
        UsageError
            If a chip lies outside the grid, or one chip stands for two classes.
        """
        owner: dict[tuple[str | None, tuple[int, int]], str] = {}
        found: dict[str, list[int]] = {name: [] for name in self.names}
        borrowed = itertools.count(grid.chips)
        for c in self.classes:
            for row, col in c.chips:
                if c.scan is None and (row >= grid.rows or col >= grid.cols):
                    raise UsageError(
                        f"support chip [{row}, {col}] of class {c.name} lies outside the grid of "
                        f"{grid.rows} x {grid.cols} chips; check the support file or --chip-px"
                    )
                first = owner.setdefault((c.scan, (row, col)), c.name)
                if first != c.name:
                    raise UsageError(f"chip [{row}, {col}] is an example of {first} and of {c.name}; keep one")
                found[c.name].append(row * grid.cols + col if c.scan is None else next(borrowed))
        return tuple(tuple(chips) for chips in found.values())
