"""Keys: who we are, and whom we let in.

A key is a CURVE pair in ZeroMQ's own files, which any ZeroMQ program reads. One folder holds what a process needs::

    KEYS/NAME.key_secret              its own pair; readable by its owner alone, and it never leaves this machine
    KEYS/NAME.key                     the public half, to be handed out
    KEYS/allowed/service/*.key        public keys of those that may attach to our acquisition
    KEYS/allowed/operator/*.key       that may ask our instrument for scans, and follow our results
    KEYS/allowed/observer/*.key       that may follow our results

A folder with one secret key is named as it is; of several, the file is named. Who is in no list is not let in. Windows
has no file modes: there the folder's own permissions are all that protects a secret key.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zmq.auth

from livestem.domain.errors import UsageError
from livestem.domain.names import check_name
from livestem.protocol.permission import ROLES, Role

KEYS_ENVIRONMENT = "LIVESTEM_KEYS"
SECRET, PUBLIC = ".key_secret", ".key"  # ZeroMQ's
ALLOWED = "allowed"
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")  # 32 bytes, as ZeroMQ writes them


@dataclass(frozen=True)
class Keys:
    """A process's own pair, and the folder that holds it.

    Attributes
    ----------
    name : str
    public, secret : str
        Z85, 40 characters.
    folder : Path
        With ``allowed/`` below it.
    """

    name: str
    public: str
    secret: str = field(repr=False)
    folder: Path


@dataclass(frozen=True)
class Holder:
    """Whose key it is: the names of its files, and the roles of the lists that have it."""

    names: tuple[str, ...]
    roles: frozenset[Role]


def load_keys(path: Path | str) -> Keys:
    """Read our own pair.

    Parameters
    ----------
    path : Path or str
        A folder with one secret key, or the file of one.

    Raises
    ------
    UsageError
        If there is none, or several, or it cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        return _own(path)
    found = sorted(path.glob(f"*{SECRET}"))
    if len(found) == 1:
        return _own(found[0])
    if not found:
        raise UsageError(f"there is no secret key in {path}; make one: livestem keys new NAME --keys {path}")
    names = ", ".join(p.name for p in found)
    raise UsageError(f"{path} has several secret keys ({names}); say which: --keys {found[0]}")


def given_keys(keys: Keys | Path | str | None) -> Keys | None:
    """Return the keys that a caller gave, read from their files if need be."""
    return keys if keys is None or isinstance(keys, Keys) else load_keys(keys)


def public_key(text: str) -> str:
    """Return a public key that is given as such (Z85, 40 characters) or by its file ``NAME.key``.

    Raises
    ------
    UsageError
        If it is neither, or the file cannot be read.
    """
    if text.endswith(PUBLIC):
        return _read(Path(text))[0]
    if not _Z85.fullmatch(text):
        raise UsageError(f"{text!r} is no public key: give its file NAME.key, or the 40 characters in it")
    return text


def new_pair(folder: Path, name: str, role: Role | None = None) -> Keys:
    """Make a pair in a folder; with a role, enter its public half into that allow-list of the same folder.

    Raises
    ------
    UsageError
        If the name is illegal or taken, or the folder cannot be written; then nothing has been made.
    """
    try:
        check_name(name, "key")
    except ValueError as e:
        raise UsageError(str(e)) from e
    places = [folder / f"{name}{SECRET}", folder / f"{name}{PUBLIC}"]
    if role is not None:
        places.append(folder / ALLOWED / role / f"{name}{PUBLIC}")
    taken = [p for p in places if p.exists()]
    if taken:
        raise UsageError(f"{taken[0]} exists, and keys are never overwritten; choose another name, or remove it first")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:  # its owner's alone
            public, secret = (Path(made).read_bytes() for made in zmq.auth.create_certificates(fresh, name))
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(place, secret if place.suffix == SECRET else public)
    except OSError as e:
        raise UsageError(f"no key can be made in {folder}: {e.strerror or e}; choose another --keys") from e
    return _own(places[0])


def allowed_files(folder: Path) -> Iterator[tuple[Role, Path]]:
    """Yield every public key file of the allow-lists with its role, in order."""
    for role in ROLES:
        for path in sorted((folder / ALLOWED / role).glob(f"*{PUBLIC}")):
            yield role, path


def read_allowed(folder: Path) -> tuple[dict[str, Holder], list[str]]:
    """Read the allow-lists.

    Returns
    -------
    dict
        Public key -> holder.
    list of str
        What could not be read, in words; those keys are not let in.
    """
    found: dict[str, Holder] = {}
    wrong: list[str] = []
    for role, path in allowed_files(folder):
        try:
            name = check_name(path.stem, "key")
            public, _ = _read(path)
        except (UsageError, ValueError) as e:
            wrong.append(f"{path}: {e}")
            continue
        known = found.get(public, Holder((), frozenset()))
        found[public] = Holder(tuple(dict.fromkeys([*known.names, name])), known.roles | {role})
    return found, wrong


def _own(path: Path) -> Keys:
    if path.suffix != SECRET:
        raise UsageError(f"{path} is no folder of keys and no secret key; give the folder, or the file NAME{SECRET}")
    public, secret = _read(path)
    if secret is None:
        raise UsageError(f"{path} holds no secret key; make a new pair: livestem keys new NAME")
    return Keys(path.stem, public, secret, path.parent)


def _read(path: Path) -> tuple[str, str | None]:
    """Return the halves in a file; UsageError if there is no public one."""
    try:
        public, secret = zmq.auth.load_certificate(path)
        halves = public.decode("ascii"), None if secret is None else secret.decode("ascii")
    except (OSError, ValueError) as e:  # a UnicodeDecodeError is a ValueError
        raise UsageError(f"the key {path} cannot be read: {e}") from e
    if not all(_Z85.fullmatch(half) for half in halves if half is not None):
        raise UsageError(f"the key {path} cannot be read: it is not 40 characters of Z85")
    return halves


def _write(path: Path, content: bytes) -> None:
    """Write a new file, one with a secret for its owner alone from the first byte on."""
    mode = 0o600 if path.suffix == SECRET else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, mode), "wb") as file:
        file.write(content)
