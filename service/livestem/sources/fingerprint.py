"""The name of a recorded scan: what it holds, not what its file is called or where it lies.

``rec-`` and twenty hex digits of a SHA-256 over the bytes of the files and over everything that decides what
is made of them: which file gives HAADF and which EDS, the number of the chosen image, and the calibrations
that the user gave. So the same recording has the same name on every machine, and another reading of it has
another name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from livestem.domain.errors import SourceError
from livestem.domain.names import check_name

_READ_BYTES = 2**20
_DIGITS = 20  # 80 bits: no two recordings of a facility meet by chance


def scan_name(files: Mapping[str, Path], selection: Mapping[str, object]) -> str:
    """Return the scan_id of a recording.

    Parameters
    ----------
    files : path by what it gives (``haadf``, ``eds``)
    selection : the choices made, plain values only

    Raises
    ------
    SourceError
        If a file cannot be read.
    """
    digests = {path: file_digest(path) for path in set(files.values())}
    record = {"files": {role: digests[path] for role, path in files.items()}, "selection": dict(selection)}
    text = msgspec.json.encode(record, order="deterministic")
    return check_name(f"rec-{hashlib.sha256(text).hexdigest()[:_DIGITS]}", "scan")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files by their sorted relative names.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for inner in sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.relative_to(path).parts):
                digest.update("/".join(inner.relative_to(path).parts).encode() + b"\0")
                digest.update(bytes.fromhex(file_digest(inner)))
        else:
            for block in _blocks(path):
                digest.update(block)
    except OSError as error:
        raise SourceError(f"{path.name} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _blocks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            yield block
