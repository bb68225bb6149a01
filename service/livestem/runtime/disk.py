"""What a failed write means: a full disk is waited out, anything else is told.

SQLite says `SQLITE_FULL`, or cannot extend the shared index of its write-ahead log; everything else says ``ENOSPC``,
or ``EDQUOT`` where the user's share is used up.
"""

from __future__ import annotations

import errno
import sqlite3

from livestem.domain.errors import DiskFullError, StoreError

RETRY_S = 1.0  # between tries while the disk is full: a person makes room, in minutes
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


def not_written(what: str, error: OSError | sqlite3.Error) -> StoreError:
    """Return the error to raise when `what` could not be written: `DiskFullError` if there was no room for it.

    Parameters
    ----------
    what : str
        Subject of the sentence, such as ``the journal PATH``.
    error : OSError or sqlite3.Error
    """
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, OSError):
        full = error.errno in _FULL
    else:
        full = getattr(error, "sqlite_errorcode", None) in _SQLITE_FULL
    if full:
        return DiskFullError(f"{what} cannot be written: its disk is full; make room there")
    return StoreError(f"{what} cannot be written: {reason}")
