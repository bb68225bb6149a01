"""What a store holds, read without its lock: also while a service writes to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from livestem.domain.errors import DiskFullError, StoreError, UsageError
from livestem.domain.names import check_name
from livestem.runtime.disk import connect_to_read, is_full
from livestem.runtime.store import CATALOG, check_catalogue


@dataclass(frozen=True, kw_only=True)
class ListedScan:
    """One scan of a store.

    Attributes
    ----------
    status : open, complete, incomplete, aborted, failed
    began_ns : when, since the epoch, ns
    size_bytes : of the files in its folder
    """

    session: str
    scan_id: str
    status: str
    began_ns: int
    digest: str | None
    size_bytes: int

    @property
    def name(self) -> str:
        """``session/scan_id``."""
        return f"{self.session}/{self.scan_id}"


@contextlib.contextmanager
def reading(root: Path) -> Iterator[sqlite3.Connection]:
    """Open a store's catalogue to read from it.

    Raises
    ------
    StoreError
        If there is none, it is a stranger's, or a newer livestem made it.
    """
    path = root / CATALOG
    if not path.is_file():
        raise StoreError(f"{root} is no store of livestem: it has no {CATALOG}; name one with --store")
    try:
        with contextlib.closing(connect_to_read(path)) as db:
            if check_catalogue(db, root) == 0:
                raise StoreError(f"{path} is empty; name another store with --store")
            yield db
    except sqlite3.Error as e:
        if is_full(e):
            raise DiskFullError(f"the store {root} cannot be read: its disk is full; make room there") from e
        raise StoreError(f"the store {root} cannot be read: {e}; name another with --store") from e


def scans_of(root: Path) -> list[ListedScan]:
    """Return every scan of a store, the oldest first; StoreError as `reading`."""
    with reading(root) as db:
        sql = "SELECT session, scan_id, status, began_ns, digest FROM scans ORDER BY began_ns, session, scan_id"
        rows = db.execute(sql).fetchall()
    return [
        ListedScan(
            session=session,
            scan_id=scan_id,
            status=status,
            began_ns=began_ns,
            digest=digest,
            size_bytes=size_of(folder_of(root, session, scan_id)),
        )
        for session, scan_id, status, began_ns, digest in rows
    ]


def folder_of(root: Path, session: str, scan_id: str) -> Path:
    """Return the folder of a scan; StoreError if its name would leave the store, by its letters or by a link."""
    try:
        folder = root / check_name(session, "session") / check_name(scan_id, "scan")
    except ValueError as e:
        raise StoreError(f"the catalogue of {root} has been tampered with: {e}") from e
    for path in (folder.parent, folder):
        if path.is_symlink():
            raise StoreError(f"{path} is a link; what it leads to is not part of this store")
    return folder


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; links count nothing, nor what goes or cannot be read meanwhile.

    No list of them is made: a store holds a handful of files for every scan ever made.
    """
    size = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                size += size_of(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_size
    return size


def chosen(root: Path, which: str | None) -> list[ListedScan]:
    """Return the scans that ``SESSION``, ``SESSION/SCAN`` or None (all of them) names.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    scans = scans_of(root)
    found = [scan for scan in scans if which in (None, scan.session, scan.name)]
    if which is not None and not found:
        raise UsageError(f"{root} holds no session or scan {which!r}; `livestem store list` shows what there is")
    return found
