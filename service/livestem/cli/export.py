"""``livestem export``: a result in the form that another program reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from livestem.cli import options as o
from livestem.domain.errors import UsageError

_FORMATS = ("graphem",)


def export(
    result: Annotated[Path, typer.Argument(help="Result folder, or its result.json; its journal must be there.")],
    format: Annotated[str, typer.Option("--format", help="graphem: the chip database of GraphEM's scripts, HDF5.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("livestem-chips.h5"),
    config: o.Config = None,
    as_json: o.AsJson = False,
) -> None:
    """Write the chips of a result for GraphEM: images, embeddings, spectra, atomic percent."""
    from livestem.runtime.encoders import Encoders
    from livestem.runtime.graphem import chip_database, refuse_foreign, write_chips
    from livestem.runtime.settings import load_settings

    if format not in _FORMATS:
        raise UsageError(f"unknown format {format!r}; use {', '.join(_FORMATS)}")
    refuse_foreign(out)  # before the work
    database = chip_database(result, Encoders.configured(load_settings(config)))
    write_chips(database, out)
    if database.left_out:
        print(
            f"warning: {len(database.left_out)} chips without data were left out; GraphEM's Louvain script numbers "
            "chips by place and needs a full grid",
            file=sys.stderr,
        )
    if as_json:
        print(json.dumps({"file": str(out), "chips": len(database.names), **database.about}))
        return
    shapes = "\n".join(f"  {name:20} {rows.shape[1]} {rows.dtype}" for name, rows in database.arrays.items())
    print(f"{len(database.names)} chips in {out}, each with\n{shapes}")
