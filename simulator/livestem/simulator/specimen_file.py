"""Specimens in files: TOML, decoded strictly, so that a key that is not known is an error.

A file may say ``base = "NAME"``: it then states only what differs from ``base/NAME.toml`` beside it, or from the
one that comes with livestem. Tables are merged key by key, materials by their name, other lists are replaced;
materials of the base that the specimen does not use are left out.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import msgspec

from livestem.domain.errors import UsageError
from livestem.simulator.specimen import Specimen

_PARTS = ("layer", "inclusion", "domains", "particles")  # what names a material
_IN_PACKAGE = "specimens"  # where a wheel carries configs/specimens (docs/decisions/0008)


def packaged_specimens() -> tuple[str, ...]:
    """Return the names of the specimens that come with livestem."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in _packaged().iterdir() if f.name.endswith(".toml")))


def load_specimen(name_or_path: str | Path) -> Specimen:
    """Return a specimen that comes with livestem, or one read from a TOML file.

    Parameters
    ----------
    name_or_path : str or Path
        A name of `packaged_specimens`, or the path of a file (anything with a ``.toml`` ending).

    Raises
    ------
    UsageError
        If there is no such specimen, it cannot be read, or it is impossible; one line that says why.
    """
    file: Traversable
    if Path(name_or_path).suffix == ".toml":
        file = Path(name_or_path)
        folders: tuple[Traversable, ...] = (Path(name_or_path).parent, _packaged())
    elif str(name_or_path) in packaged_specimens():
        file = _packaged() / f"{name_or_path}.toml"
        folders = (_packaged(),)
    else:
        known = ", ".join(packaged_specimens())
        raise UsageError(f"no specimen {str(name_or_path)!r}; use one of {known}, or the path of a .toml file")
    try:
        return msgspec.convert(_with_base(_read(file), folders), Specimen)
    except OSError as error:
        raise UsageError(f"cannot read specimen {name_or_path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
        raise UsageError(f"specimen {name_or_path}: {error}") from None


def _packaged() -> Traversable:
    """Return the folder of the specimens: in the installed package, else in the checkout it runs from."""
    installed = resources.files(__package__) / _IN_PACKAGE
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs" / "specimens"


def _read(file: Traversable) -> dict[str, Any]:
    return msgspec.toml.decode(file.read_bytes(), type=dict[str, Any])


def _with_base(own: dict[str, Any], folders: tuple[Traversable, ...]) -> dict[str, Any]:
    """Return a specimen's tables over those of the base it names; shapes that cannot be merged are left as they are."""
    name = own.pop("base", None)
    if name is None:
        return own
    if not isinstance(name, str) or not name or set(name) & set("/\\:"):
        raise msgspec.ValidationError(f"base takes a name, got {name!r}; it is that of a file base/NAME.toml")
    file = next((f for folder in folders if (f := folder / "base" / f"{name}.toml").is_file()), None)
    if file is None:
        raise msgspec.ValidationError(f"no base {name!r}; there must be a file base/{name}.toml beside the specimen's")
    base = _read(file)
    library = _by_name(base.pop("material", []))
    merged = _merge(base, own)
    defined = _by_name(own.get("material", []))
    used = [table.get("material") for kind in _PARTS for table in _tables(merged.get(kind))]
    wanted = dict.fromkeys(n for n in used if isinstance(n, str) and n in library and n not in defined)
    if not isinstance(own.get("material", []), list):
        return merged  # the strict decoder says what is wrong with it
    return merged | {"material": [*own.get("material", []), *(library[n] for n in wanted)]}


def _by_name(materials: Any) -> dict[str, dict[str, Any]]:
    return {table["name"]: table for table in _tables(materials) if isinstance(table.get("name"), str)}


def _tables(found: Any) -> list[dict[str, Any]]:
    """Return the tables of an array; of anything else, none: the strict decoder says what is wrong with it."""
    return [table for table in found if isinstance(table, dict)] if isinstance(found, list) else []


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `own` over it, table by table."""
    merged = dict(base)
    for key, value in own.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
