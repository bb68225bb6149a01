"""The tables of docs/performance.md, from what the benchmarks left in a folder: one JSON file each."""

from __future__ import annotations

from pathlib import Path

import msgspec
from benchmarks.performance.table import Table


def rewrite(page: Path, results: Path) -> list[str]:
    """Put the table of every benchmark that `results` holds between its marks; return the names of those.

    Raises
    ------
    ValueError
        If the page has no marks for a benchmark that was run.
    """
    text, done = page.read_text(encoding="utf-8"), []
    for path in sorted(results.glob("*.json")):
        table = msgspec.json.decode(path.read_bytes(), type=Table)
        begin, end = (f"<!-- {table.name} {side} -->" for side in ("begin", "end"))
        before, mark, rest = text.partition(begin)
        _, closing, after = rest.partition(end)
        if not mark or not closing:
            raise ValueError(f"{page} has no place for {table.name}: {begin} ... {end}")
        text = f"{before}{begin}\n\n{table.markdown()}\n\n{end}{after}"
        done.append(table.name)
    page.write_text(text, encoding="utf-8")
    return done
