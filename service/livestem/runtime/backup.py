"""A copy of a store, or of some of its scans, that is whole: also of scans that are open, while a service writes.

The copy is a store of its own. The catalogue is copied first and says no more than the folders then hold: a scan that
ends in between is open in the copy, with its whole journal, and a service that is started on it makes its finals.
Databases are copied by SQLite's backup, which takes the state of one moment together with the log beside it; all other
files were made whole when they appeared. The copy itself appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from livestem.domain.errors import StoreError, UsageError
from livestem.runtime.catalogue import ListedScan, folder_of, reading
from livestem.runtime.disk import connect_to_read, not_written
from livestem.runtime.journal import JOURNAL
from livestem.runtime.results import FILES
from livestem.runtime.store import CATALOG, forget


def back_up(
    root: Path, scans: Sequence[ListedScan], to: Path, on_scan: Callable[[ListedScan], None] = lambda scan: None
) -> None:
    """Copy scans of a store into a new one.

    Parameters
    ----------
    root : Path
        The store.
    scans : sequence of ListedScan
        All of its scans, or some.
    to : Path
        Where; must not exist yet.
    on_scan : callable, optional
        Told of every scan that is copied.

    Raises
    ------
    UsageError
        If there is something at `to` already.
    StoreError
        If it cannot be read or written.
    """
    if to.exists():
        raise UsageError(f"{to} is there already; choose another place for the copy")
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _catalogue(root, {(scan.session, scan.scan_id) for scan in scans}, partial / CATALOG)
        for scan in scans:
            folder = partial / scan.session / scan.scan_id
            folder.mkdir(parents=True)
            _scan(folder_of(root, scan.session, scan.scan_id), folder)
            on_scan(scan)
        partial.rename(to)
    except (OSError, sqlite3.Error) as e:
        raise not_written(f"the copy {to}", e) from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _catalogue(root: Path, kept: set[tuple[str, str]], to: Path) -> None:
    with reading(root) as source, contextlib.closing(sqlite3.connect(to, isolation_level=None)) as copy:
        source.backup(copy)
        for session, scan_id in copy.execute("SELECT session, scan_id FROM scans").fetchall():
            if (session, scan_id) not in kept:
                forget(copy, session, scan_id)
        copy.execute("VACUUM")
        copy.execute("PRAGMA journal_mode=DELETE")


def _scan(source: Path, to: Path) -> None:
    journal = source / JOURNAL
    if journal.is_file() and not journal.is_symlink():
        try:
            with (
                contextlib.closing(connect_to_read(journal)) as db,
                contextlib.closing(sqlite3.connect(to / JOURNAL)) as copy,
            ):
                db.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.DatabaseError as e:
            if isinstance(e, sqlite3.OperationalError):
                raise
            raise StoreError(f"{journal} is damaged and cannot be copied: {e}; copy its folder as it is") from e
    for name in sorted(FILES - {JOURNAL}):
        path = source / name
        if path.is_file() and not path.is_symlink():
            shutil.copy2(path, to / name)
