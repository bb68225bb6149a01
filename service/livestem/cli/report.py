"""``livestem report``: results as one page with the paper's tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from livestem.cli import options as o


def report(
    results: Annotated[list[Path], typer.Argument(help="Result folders, or their result.json.")],
    out: Annotated[
        Path, typer.Option("--out", help="HTML file; figures as PNG files go into a folder beside it.")
    ] = Path("livestem-report.html"),
    as_json: o.AsJson = False,
) -> None:
    """Write maps, compositions, lattices, agreement and parameters of results into one HTML file."""
    from livestem.runtime.report.writing import write_report

    written = write_report(results, out)
    if as_json:
        scans = [
            {"folder": str(s.folder), "session": s.saved.session, "scan_id": s.saved.scan_id, "digest": s.facts.digest}
            for s in written.scans
        ]
        print(json.dumps({"page": str(written.page), "figures": [str(f) for f in written.figures], "results": scans}))
        return
    print(f"report   {written.page}\nfigures  {len(written.figures)} in {written.figures[0].parent}")
