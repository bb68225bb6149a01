"""What a failed write means: a full disk is waited out, anything else is told.

SQLite says `SQLITE_FULL`, or cannot extend the shared index of its write-ahead log; everything else says ``ENOSPC``,
or ``EDQUOT`` where the user's share is used up.
"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from livestem.domain.errors import DiskFullError, StoreError

RETRY_S = 1.0  # between tries while the disk is full: a person makes room, in minutes
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


def is_full(error: OSError | sqlite3.Error) -> bool:
    """Return whether something failed for want of room."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return getattr(error, "sqlite_errorcode", None) in _SQLITE_FULL


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a database to read it, also where its disk is full; the caller closes it.

    Who reads a write-ahead log needs its shared index, a file of 32 KiB or more. Where there is no room for that,
    SQLite keeps the index in memory, for which it must be alone with the database.

    Raises
    ------
    sqlite3.Error
        If it cannot be read.
    """
    uri = path.resolve().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True)
    try:
        _look(db)
    except sqlite3.Error as e:
        db.close()
        if not is_full(e):
            raise
        return connect_alone(path)
    return db


def connect_alone(path: Path) -> sqlite3.Connection:
    """Open a database that is there for this process alone, without the file of a shared index; else as `sqlite3`."""
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        _look(db)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _look(db: sqlite3.Connection) -> None:
    """Read something: connecting alone does not touch the file."""
    db.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def not_written(what: str, error: OSError | sqlite3.Error) -> StoreError:
    """Return the error to raise when `what` could not be written: `DiskFullError` if there was no room for it.

    Parameters
    ----------
    what : str
        Subject of the sentence, such as ``the journal PATH``.
    error : OSError or sqlite3.Error
    """
    reason = getattr(error, "strerror", None) or str(error)
    if is_full(error):
        return DiskFullError(f"{what} cannot be written: its disk is full; make room there")
    return StoreError(f"{what} cannot be written: {reason}")
