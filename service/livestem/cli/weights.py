"""``livestem weights``: list, fetch and import the weights of the encoder `vgg16`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

app = typer.Typer(help="Weights of the vgg16 encoder: what is there, fetch them, bring them in.", no_args_is_help=True)

_COLOURS = {"ready": "green", "broken": "red", "absent": "yellow"}


@app.command("list")
def list_(
    as_json: bool = typer.Option(False, "--json", help="One JSON list, for machines."),
) -> None:
    """Show every place the weights are looked for, in order, and what is there."""
    from livestem.runtime.weights import status

    rows = status()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("place", "state", "detail", "where")
    for row in rows:
        table.add_row(row.place, Text(row.state, _COLOURS.get(row.state, "dim")), Text(row.detail), Text(row.where))
    Console().print(table)


@app.command()
def fetch() -> None:
    """Get the weights from the first source that has them, verify them, keep them in the cache."""
    from rich.console import Console

    from livestem.runtime import weights

    here = weights.find()
    if here is not None:
        typer.echo(here)
        return
    console = Console(stderr=True, highlight=False)
    with console.status("fetching VGG16 weights"):
        path = weights.fetch(lambda line: console.print(line, markup=False))
    typer.echo(path)


@app.command("import")
def import_(
    file: Path = typer.Argument(..., help="A .safetensors, .pth, .onnx or .whl file."),
) -> None:
    """Verify a weights file from another machine and keep it in the cache."""
    from livestem.runtime.weights import import_file

    typer.echo(import_file(file))
