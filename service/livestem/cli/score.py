"""``livestem score``: a result against what is really there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from livestem.cli import options as o
from livestem.domain.errors import UsageError

_TRUTH = "truth.json"  # where the demo leaves it: beside the result and its journal


def score(
    result: Annotated[Path, typer.Argument(help="Result folder, or its result.json.")],
    truth: Annotated[
        Path | None, typer.Option("--truth", help="FILE.npz or FILE.json; by default truth.json beside the result.")
    ] = None,
    as_json: o.AsJson = False,
) -> None:
    """Compare a result with the truth: label maps, borders, compositions and lattice spacings."""
    import msgspec

    from livestem.runtime.saved import read_result, result_folder
    from livestem.runtime.scoring import score as score_result
    from livestem.simulator import load_truth

    folder = result_folder(result)
    if truth is None:
        truth = folder / _TRUTH
        if not truth.is_file():
            raise UsageError(f"there is no {_TRUTH} in {folder}; name the truth with --truth FILE")
    found = score_result(read_result(folder), load_truth(truth))
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    from livestem.cli.score_report import report

    report(found)
