"""``livestem store``: what a store holds, a copy of it, and what of it may go."""

from __future__ import annotations

import datetime
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livestem.cli import options as o

if TYPE_CHECKING:
    from livestem.runtime.catalogue import ListedScan
    from livestem.runtime.prune import What
    from livestem.runtime.store import Store

app = typer.Typer(help="What a store holds, a copy of it, and what of it may go.", no_args_is_help=True)

_UNITS_S = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_COLOURS = {"complete": "green", "open": "cyan", "failed": "red"}

Json = Annotated[bool, typer.Option("--json", help="One JSON list, for machines.")]


@app.command("list")
def list_(store: o.Store = None, as_json: Json = False) -> None:
    """Show every scan: status, size, when it began, digest. A service may be running."""
    from livestem.runtime.catalogue import scans_of

    _show(scans_of(_root(store)), as_json=as_json)


@app.command()
def backup(
    names: Annotated[list[str], typer.Argument(metavar="[SESSION | SESSION/SCAN] COPY", help="Of what, and where to.")],
    store: o.Store = None,
    everything: Annotated[bool, typer.Option("--all", help="Every scan.")] = False,
) -> None:
    """Copy scans into a new store, whole, also while they are open and a service writes."""
    from livestem.domain.errors import UsageError
    from livestem.runtime.backup import back_up
    from livestem.runtime.catalogue import chosen

    if len(names) != (1 if everything else 2):
        raise UsageError("give a session or a scan, and the folder of the copy; or --all, and the folder of the copy")
    root, to = _root(store), Path(names[-1])
    scans = chosen(root, None if everything else names[0])
    back_up(root, scans, to, lambda scan: typer.echo(f"{scan.name} {scan.status}"))
    typer.echo(f"copied {_count(scans)} to {to}")


@app.command()
def prune(
    store: o.Store = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Scans that began so long ago: 30d, 12h, 4w.")
    ] = None,
    keep_last: Annotated[int, typer.Option("--keep-last", min=0, help="So many of the newest scans stay.")] = 0,
    keep_results: Annotated[
        bool, typer.Option("--keep-results", help="Remove the journals, the data as received, only.")
    ] = False,
    keep_journals: Annotated[
        bool, typer.Option("--keep-journals", help="Remove the results only; `batch` makes them again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove finished scans from a store. Open ones stay, and no service may be running on it."""
    from livestem.domain.errors import UsageError
    from livestem.runtime.catalogue import scans_of
    from livestem.runtime.prune import freed_bytes, prunable
    from livestem.runtime.store import Store

    if older_than is None and not keep_last:
        raise UsageError("say which scans may go: --older-than 30d, --keep-last 100, or both")
    if keep_results and keep_journals:
        raise UsageError("--keep-results and --keep-journals together remove nothing")
    root = _root(store)
    age_s = None if older_than is None else _seconds(older_than)
    what: What = "journals" if keep_results else "results" if keep_journals else "everything"
    if dry_run:
        going = prunable(scans_of(root), now_ns=time.time_ns(), older_than_s=age_s, keep_last=keep_last)
        freed = sum(freed_bytes(root, scan, what) for scan in going)
        for scan in going:
            typer.echo(f"{scan.name} {scan.status}")
        typer.echo(f"would remove {what} of {_count(going)}, {_size(freed)}")
        return
    going = prunable(scans_of(root), now_ns=time.time_ns(), older_than_s=age_s, keep_last=keep_last)
    with Store(root, make_room=True) as writer:  # which nobody can read where it is alone; open scans are seen again
        _agreed(going, what, asked=yes)
        _remove(writer, going, what)


def _remove(writer: Store, going: Sequence[ListedScan], what: What) -> None:
    from livestem.runtime.prune import freed_bytes, remove

    freed = 0
    for scan in going:
        size = freed_bytes(writer.root, scan, what)
        for path in remove(writer, scan, what):
            print(f"warning: {path} is not livestem's and stays", file=sys.stderr)
        freed += size
        typer.echo(f"removed {scan.name} {scan.status}")
    typer.echo(f"removed {what} of {_count(going)}, {_size(freed)}")


def _agreed(going: Sequence[ListedScan], what: What, *, asked: bool) -> None:
    """Ask a person before anything goes; who is no person has to say so beforehand."""
    from livestem.domain.errors import UsageError

    if asked or not going:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{_count(going)} would be removed; say --yes to remove them, or --dry-run to see which")
    typer.confirm(f"remove {what} of {_count(going)}, {going[0].name} to {going[-1].name}?", abort=True)


def _show(scans: Sequence[ListedScan], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([{**asdict(scan), "began": _when(scan)} for scan in scans]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("scan", "status", "began", "size", "digest")
    for scan in scans:
        status = Text(scan.status, _COLOURS.get(scan.status, "yellow"))
        table.add_row(scan.name, status, _when(scan), _size(scan.size_bytes), (scan.digest or "")[:16])
    Console().print(table)


def _root(store: Path | None) -> Path:
    from livestem.runtime.settings import Settings

    return Settings(store=None if store is None else str(store)).store_path


def _seconds(text: str) -> float:
    from livestem.domain.errors import UsageError

    found = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if found is None:
        raise UsageError(f"--older-than takes hours, days or weeks, such as 12h, 30d or 4w; got {text!r}")
    return int(found[1]) * _UNITS_S[found[2]]


def _when(scan: ListedScan) -> str:
    began = datetime.datetime.fromtimestamp(scan.began_ns / 1e9, datetime.UTC)
    return began.isoformat(timespec="seconds").replace("+00:00", "Z")


def _size(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size = round(size / 1024)
    return f"{size} GiB"


def _count(scans: Sequence[ListedScan]) -> str:
    return f"{len(scans)} scan{'' if len(scans) == 1 else 's'}"
