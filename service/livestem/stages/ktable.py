"""k-factor files: a CSV table that states its convention, or what Velox exports.

Rules
-----
1. A table is used as weight k-factors of named lines. Any normalisation will do, since only ratios count; what the
   factors multiply must be known, because a wrong guess is a factor of two (La L against its alpha line).
2. A CSV file says so in a comment, ``# convention: weight line``: ``weight`` or ``atomic`` fractions, counts of the
   named ``line`` or of its whole ``family`` (the sum of the element's K, L or M lines). One that does not is refused.
3. A Velox export (columns *Line identifier* and *K-factor*) needs none: its factors are of weights and of families.
   All lines of a subshell have the same factor in it (Fe Ka1, Ka2 and Kb1), so it cannot be one line's.
4. Converted: ``k_weight = k_atomic * A``, and ``k_line = k_family * sum of the family's weights``, with the weights
   that the fit uses (the named line's is 1).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from livestem.domain.errors import UsageError
from livestem.stages.kfactors import KFactors, atomic_weight
from livestem.stages.lines import split_line, xray_lines

_EXAMPLE = "write rows of line,k such as Fe_Ka,1.45"
_VELOX = ("line identifier", "k-factor")  # of its columns, in any case


@dataclass(frozen=True)
class Convention:
    """What k-factors multiply: `atomic` or weight fractions, counts of a `family` or of the named line."""

    atomic: bool = False
    family: bool = False

    def as_weight_of_line(self, line: str, k: float) -> float:
        """Return the weight k-factor of the named line alone."""
        element, member = split_line(line)
        known = xray_lines(element)
        if self.family:
            k *= sum(weight for name, (_, weight) in known.items() if name[0] == member[0]) / known[member][1]
        return k * atomic_weight(element) if self.atomic else k


def read_k_factors(path: Path) -> KFactors:
    """Read k-factors from a CSV file of ``line,k`` rows that states its convention, or from a Velox export.

    Parameters
    ----------
    path : Path
        UTF-8 text; a header ``line,k``, blank rows and rows that begin with # are allowed.

    Returns
    -------
    KFactors
        Of weights and named lines, in the file's normalisation.

    Raises
    ------
    UsageError
        If the file cannot be read or does not state its convention, a line is unknown or repeated, or a factor is not a
        positive number.
    """
    rows = _rows(path)
    convention = _convention(rows, path.name)
    rows = [(n, cells) for n, cells in rows if any(cells) and not cells[0].startswith("#")]
    header = [c.lower() for c in rows[0][1]] if rows else []
    if set(_VELOX) <= set(header):
        pairs, convention = _velox(rows, header, path.name), convention or Convention(family=True)
    else:
        pairs = _plain(rows, path.name)
    values: dict[str, float] = {}
    for where, line, k in pairs:
        if line in values:
            raise UsageError(f"{where}: {line} stands there twice")
        values[line] = k
    if not values:
        raise UsageError(f"{path.name} holds no k-factors; {_EXAMPLE}")
    if convention is None:
        raise UsageError(
            f"{path.name} does not say what its k-factors are for; add a first row '# convention: weight line' (or "
            "atomic for atomic fractions, family for the counts of a whole K, L or M family)"
        )
    return KFactors({line: convention.as_weight_of_line(line, k) for line, k in values.items()}, source=path.name)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the k-factors in {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file; k-factors are rows of line,k such as Fe_Ka,1.45") from error
    cells = csv.reader(text.splitlines())
    return [(number, [cell.strip() for cell in row] or [""]) for number, row in enumerate(cells, start=1)]


def _convention(rows: list[tuple[int, list[str]]], name: str) -> Convention | None:
    """Return what the file says of itself; None if it says nothing."""
    found: Convention | None = None
    for number, cells in rows:
        stated, mark, words = ",".join(cells).lstrip("# ").lower().partition("convention:")
        if not cells[0].startswith("#") or stated or not mark:
            continue
        said = words.replace(",", " ").split()
        if len(said) != 2 or set(said) - {"weight", "atomic", "line", "family"}:
            raise UsageError(f"{name}, row {number}: the convention is weight or atomic, and line or family")
        if len({"weight", "atomic"} & set(said)) != 1 or found is not None:
            raise UsageError(f"{name}, row {number}: state one convention: weight or atomic, and line or family")
        found = Convention(atomic="atomic" in said, family="family" in said)
    return found


def _plain(rows: list[tuple[int, list[str]]], name: str) -> Iterator[tuple[str, str, float]]:
    for number, cells in rows:
        where = f"{name}, row {number}"
        if [c.lower() for c in cells] == ["line", "k"]:
            continue
        if len(cells) != 2:
            raise UsageError(f"{where}: expected line,k such as Fe_Ka,1.45")
        try:
            split_line(cells[0])
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        yield where, cells[0], _number(cells[1], cells[0], where)


def _velox(rows: list[tuple[int, list[str]]], header: list[str], name: str) -> Iterator[tuple[str, str, float]]:
    """Yield what exspy has a name for: ``Fe-Ka1`` is its Fe_Ka; it has no Ka2 and La2, and nothing of N shells."""
    identifier, factor = (header.index(column) for column in _VELOX)
    for number, cells in rows[1:]:
        where = f"{name}, row {number}"
        if len(cells) != len(header):
            raise UsageError(f"{where}: expected {len(header)} columns, as the header has")
        element, _, member = cells[identifier].partition("-")
        if not element:
            continue  # the row of units
        try:
            known = xray_lines(element)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        wanted = next((m for m in (member, member.removesuffix("1")) if m in known), None)
        if wanted is not None:
            line = f"{element}_{wanted}"
            yield where, line, _number(cells[factor], line, where)


def _number(text: str, line: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise UsageError(f"{where}: {text!r} is not a number") from error
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{where}: a k-factor must be positive, got {text} for {line}")
    return value
