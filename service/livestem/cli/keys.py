"""``livestem keys``: make keys, and show whose keys are let in as what."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from livestem.cli import options as o
from livestem.domain.errors import UsageError

app = typer.Typer(help="Keys that open sockets to other machines: make them, list them.", no_args_is_help=True)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the key: a machine or a person; 1 to 64 letters, digits, - and _.")],
    keys: o.Keys = None,
    role: Annotated[
        str | None,
        typer.Option("--role", help="Let it in here, too: service, operator or observer."),
    ] = None,
) -> None:
    """Make a key pair: NAME.key_secret, which stays here, and NAME.key, which others are given."""
    from livestem.client.keys import ALLOWED, PUBLIC, new_pair
    from livestem.protocol.permission import ROLES

    if role is not None and role not in ROLES:
        raise UsageError(f"--role is {', '.join(ROLES[:-1])} or {ROLES[-1]}, got {role!r}")
    folder = _folder(keys)
    made = new_pair(folder, name, role)
    let_in = f", let in as {role} ({folder / ALLOWED / role})" if role else ""
    typer.echo(f"made {folder / name}{PUBLIC} and its secret half{let_in}\npublic key {made.public}")
    if os.name == "nt":
        typer.echo("Windows has no file modes: see that only its owner can read the folder.", err=True)


@app.command("list")
def list_(keys: o.Keys = None, as_json: o.AsJson = False) -> None:
    """Show every key of a folder: its name, its roles, its public half; never a secret."""
    folder = _folder(keys)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; make a key in it: livestem keys new NAME --keys {folder}")
    rows, wrong = _rows(folder)
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        _print(rows)
    for words in wrong:
        typer.echo(f"warning: not let in: {words}", err=True)


def _folder(keys: Path | None) -> Path:
    """Return the folder that is meant, also where a secret key in it was named."""
    from livestem.client.keys import KEYS_ENVIRONMENT, SECRET

    if keys is None:
        raise UsageError(f"say where the keys are: --keys FOLDER, or ${KEYS_ENVIRONMENT}")
    return keys.parent if keys.suffix == SECRET else keys


def _rows(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the folder's keys, its own pairs first, and what is wrong with others."""
    from livestem.client.keys import SECRET, load_keys, read_allowed
    from livestem.protocol.permission import ROLES

    holders, wrong = read_allowed(folder)
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"*{SECRET}")):
        try:
            pair = load_keys(path)
        except UsageError as e:
            wrong.append(str(e))
            continue
        found[pair.public] = {"name": pair.name, "own": True, "roles": [], "public_key": pair.public}
    for public, holder in holders.items():
        row = found.setdefault(public, {"name": ", ".join(holder.names), "own": False, "public_key": public})
        row["roles"] = [role for role in ROLES if role in holder.roles]
    return list(found.values()), wrong


_WIDEST = 1000  # characters: a name has 64, a key 40


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "let in as", "secret half", "public key")
    for row in rows:
        here = "here" if row["own"] else "elsewhere"
        table.add_row(row["name"], ", ".join(row["roles"]) or "-", here, Text(row["public_key"], no_wrap=True))
    console = Console()
    whole = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.width = max(console.width, whole)  # keys are compared with others': never cut
    console.print(table)
