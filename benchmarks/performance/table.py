"""What a benchmark measured, and how it is told: one table each, every ratio of two things of the same run.

Rules
-----
* Both sides of a ratio are timed in one process run, in turn, so that what else the machine does meets both.
* A time is the median of the runs; beside it stands its spread, half the range between the quartiles.
* A table carries the command that made it, and the machine.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

Cell = str | int | float | None


class Timed(msgspec.Struct, frozen=True):
    """The times of some runs, seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median, seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the range between the quartiles, seconds; 0 for a single run."""
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (third - first) / 2


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark's outcome.

    Attributes
    ----------
    name : of the benchmark, as it is asked for
    title : of its part of the page
    command : that made it
    columns : heads; the first column is text, the others are numbers
    rows : cells; None where there is nothing to tell
    notes : sentences below the table: what was measured, goals and whether they were met
    facts : numbers by name, for who reads the file
    runs : medians are of so many; 0 for as many as were asked for
    took_s : of the whole benchmark
    machine : where
    """

    name: str
    title: str
    command: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = {}
    runs: int = 0
    took_s: float = 0.0
    machine: str = ""

    def markdown(self) -> str:
        """Return it as its part of the page."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = [self.columns, rule, *([_told(cell) for cell in row] for row in self.rows)]
        runs = f"Medians of {self.runs} runs" if self.runs > 1 else "One run"
        took = f"{runs}; {self.took_s:.0f} s in all; {self.machine}."
        parts = ["```sh", self.command, "```", "", took, "", *(f"| {' | '.join(line)} |" for line in lines)]
        return "\n".join([*parts, *(f"\n{note}" for note in self.notes)])


def timed(works: Mapping[str, Callable[[], object]], runs: int, *, warm: int = 1) -> dict[str, Timed]:
    """Time several ways of doing the same thing, in turn: a, b, c, a, b, c, ...

    Parameters
    ----------
    works : name -> what is timed
    runs : of each
    warm : runs of each before, which do not count
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for run in range(-warm, runs):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if run >= 0:
                seconds[name].append(time.perf_counter() - began)
    return {name: Timed(tuple(found)) for name, found in seconds.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below or at which `share` (0..1) of the values lie: the nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-round(share * len(ordered) * 1e9) // 10**9) - 1)]


def machine() -> str:
    """Return where this runs, in a few words."""
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def _told(cell: Cell) -> str:
    """Return a cell as text: three digits, as many as these machines repeat."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return str(cell)
