"""Support sets: named classes and the chips that are examples of each."""

from __future__ import annotations

import hashlib

import msgspec

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid
from livestem.domain.names import check_name

UNKNOWN = "unknown"  # the class of chips that resemble no other, where rejection is on


class SupportClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One class: `name` is an identifier, `title` free text, `chips` (row, col) of its examples."""

    name: str
    chips: tuple[tuple[int, int], ...]
    title: str | None = None
    scan: str | None = None  # "session/scan_id" of an earlier scan whose chips these are

    def __post_init__(self) -> None:
        check_name(self.name, "class")
        if not self.chips:
            raise ValueError(f"class {self.name!r} has no chips; give at least one [row, col]")
        if any(v < 0 for chip in self.chips for v in chip):
            raise ValueError(f"class {self.name!r} has a negative chip index")


class SupportSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The classes that few-shot scoring chooses from, in the order of their labels 0, 1, ..."""

    classes: tuple[SupportClass, ...]

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        if len(names) < 2:
            raise ValueError("a support set needs at least two classes")
        if len(set(names)) < len(names):
            raise ValueError(f"class names repeat: {', '.join(names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(c.name for c in self.classes)

    @property
    def version(self) -> str:
        """Content digest, so that a result says which support set made it."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    def indices(self, grid: Grid) -> tuple[tuple[int, ...], ...]:
        """Return the row-major chip indices of each class.

        Raises
        ------
        UsageError
            If a chip lies outside the grid, or one chip stands for two classes.
        """
        owner: dict[tuple[int, int], str] = {}
        for c in self.classes:
            for row, col in c.chips:
                if row >= grid.rows or col >= grid.cols:
                    raise UsageError(
                        f"support chip [{row}, {col}] of class {c.name} lies outside the grid of "
                        f"{grid.rows} x {grid.cols} chips; check the support file or --chip-px"
                    )
                if owner.setdefault((row, col), c.name) != c.name:
                    raise UsageError(
                        f"chip [{row}, {col}] is an example of {owner[row, col]} and of {c.name}; keep one"
                    )
        return tuple(tuple(r * grid.cols + k for r, k in c.chips) for c in self.classes)
