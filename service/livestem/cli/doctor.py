"""``livestem doctor``: whether this machine can run a service, and what to do where it cannot."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from livestem.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from livestem.runtime.machine import Check
    from livestem.runtime.tuning import Choice, Measured

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    config: o.Config = None,
    store: o.Store = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure where VGG16 runs quickest, and keep that for later starts.")
    ] = False,
    as_json: o.AsJson = False,
) -> None:
    """Look whether a service can run here, and say what to do where it cannot; exit 1 if it cannot."""
    from livestem.runtime.checkup import configured, examine
    from livestem.runtime.settings import load_settings

    settings, first = configured(lambda: load_settings(config))
    if store is not None:
        settings = msgspec.structs.replace(settings, store=str(store))
    checks = [first, *examine(settings)]
    measured, choice = _tuned() if tune else ((), None)
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks]} | _as_json(measured, choice)))
    else:
        _show(checks, measured, choice)
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)


def _tuned() -> tuple[tuple[Measured, ...], Choice]:
    """Measure, choose and keep."""
    from livestem.cli.progress import status
    from livestem.runtime import tuning
    from livestem.runtime.weights import cache_dir

    with status("measuring where VGG16 runs quickest"):
        measured = tuple(tuning.measure())
    choice = tuning.choose(measured)
    tuning.keep(cache_dir(), choice, measured)
    return measured, choice


def _as_json(measured: tuple[Measured, ...], choice: Choice | None) -> dict[str, object]:
    if choice is None:
        return {}
    return {"measured": msgspec.to_builtins(measured), "choice": msgspec.to_builtins(choice)}


def _show(checks: list[Check], measured: tuple[Measured, ...], choice: Choice | None) -> None:
    """Print findings as a person reads them: what to do stands under what was found."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        found = Text(check.found)
        if check.advice:
            found.append(f"\n→ {check.advice}", _COLOURS[check.state])
        table.add_row(Text(check.state, _COLOURS[check.state]), Text(check.name), found)
    console.print(table)
    if choice is not None:
        _show_tuning(console, measured, choice)
    worst = {check.state for check in checks}
    words = "not yet" if "fail" in worst else "yes, see the warnings" if "warn" in worst else "yes"
    console.print(f"\nA service can run here: {words}", style="bold")


def _show_tuning(console: Console, measured: tuple[Measured, ...], choice: Choice) -> None:
    from rich.table import Table

    table = Table("device", "precision", "threads", "chips/s", box=None, pad_edge=False)
    for row in measured:
        told = (row.device, row.precision, str(row.threads), f"{row.chips_per_s:.0f}")
        table.add_row(*told, style="bold" if row.choice == choice else "")
    console.print()
    console.print(table)
    console.print(
        f"VGG16 runs on {choice.device} in {choice.precision} from the next start on, if nobody says otherwise"
    )
