"""Retention: which scans of a store may go, and how they go.

Rules
-----
- Only finished scans: an open one is never touched, and none while a service holds the store.
- A scan goes if it is older than was asked and not among the newest that are to be kept.
- Its files go first, then what the catalogue and the kept messages say of it: who is interrupted begins again.
- Only files that livestem makes go. Whatever else lies in a folder stays, and so does the folder; links are not
  followed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from livestem.domain.errors import StoreError
from livestem.runtime.catalogue import ListedScan, folder_of
from livestem.runtime.journal import JOURNAL
from livestem.runtime.results import FILES
from livestem.runtime.store import Store

What = Literal["everything", "journals", "results"]

_JOURNALS = frozenset([JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm", f"{JOURNAL}-journal"])
_RESULTS = FILES - _JOURNALS
_GOES: dict[What, frozenset[str]] = {"everything": _JOURNALS | FILES, "journals": _JOURNALS, "results": _RESULTS}


def prunable(
    scans: Sequence[ListedScan], *, now_ns: int, older_than_s: float | None = None, keep_last: int = 0
) -> list[ListedScan]:
    """Return the scans that may go, the oldest first.

    Parameters
    ----------
    scans : the store's, the oldest first
    now_ns : the time, since the epoch, ns
    older_than_s : begun at least so long ago
    keep_last : so many of the newest finished scans stay
    """
    finished = [scan for scan in scans if scan.status != "open"]
    old = finished[: max(0, len(finished) - keep_last)]
    return [s for s in old if older_than_s is None or now_ns - s.began_ns >= older_than_s * 1e9]


def freed_bytes(root: Path, scan: ListedScan, what: What) -> int:
    """Return what a scan's removal frees, bytes."""
    folder = folder_of(root, scan.session, scan.scan_id)
    return sum(path.lstat().st_size for place in _places(folder, what) for path in _files(place, _GOES[what]))


def remove(store: Store, scan: ListedScan, what: What = "everything") -> list[Path]:
    """Remove a scan, or part of what is kept of it; return what was left because it is not ours.

    Raises
    ------
    StoreError
        If the scan is open, or a file cannot be removed.
    """
    known = store.known(scan.session, scan.scan_id)
    if known is None or known.status == "open":
        raise StoreError(f"{scan.name} is open or gone; only finished scans are removed")
    left: list[Path] = []
    try:
        for place in _places(folder_of(store.root, scan.session, scan.scan_id), what):
            for path in _files(place, _GOES[what]):
                path.unlink()
            if what == "everything":
                left += _remove_empty(place)
    except OSError as e:
        raise StoreError(f"{scan.name} cannot be removed: {e.strerror or e}") from e
    if what == "everything":
        store.forget(scan.session, scan.scan_id)
        _remove_empty(store.root / scan.session)
    return left


def _places(folder: Path, what: What) -> list[Path]:
    """Return a scan's folder, and with everything also what was set aside when the scan began anew."""
    aside = re.compile(re.escape(folder.name) + r"\.\d+")
    beside = folder.parent.iterdir() if what == "everything" and folder.parent.is_dir() else ()
    set_aside = sorted(path for path in beside if aside.fullmatch(path.name))
    return [path for path in (folder, *set_aside) if path.is_dir() and not path.is_symlink()]


def _files(folder: Path, names: Collection[str]) -> list[Path]:
    """Return the files of these names, and what was left of one that was being written."""
    ours = {*names, *(f".{name}.partial" for name in names)}
    return [p for p in sorted(folder.iterdir()) if p.name in ours and p.is_file() and not p.is_symlink()]


def _remove_empty(folder: Path) -> list[Path]:
    """Remove a folder if nothing is in it; return what is."""
    left = sorted(folder.iterdir()) if folder.is_dir() else []
    if not left and folder.is_dir():
        folder.rmdir()
    return left
