"""The store: a folder per scan, and one catalogue of them all. One writer at a time.

``<store>/catalog.sqlite``, and of each scan ``<store>/<session>/<scan_id>/{journal.sqlite, result.json, labels.npz,
chips.npz, result.hspy}``.
Names were checked when they arrived, so a path made of them stays inside.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec

from livestem.domain.errors import StoreError, WireError
from livestem.domain.names import check_name
from livestem.domain.support import SupportSet
from livestem.protocol.publisher import Numbered
from livestem.protocol.resend import Frames
from livestem.runtime.disk import connect_alone, is_full, not_written
from livestem.wire import messages as m
from livestem.wire.codec import decode, nest

_LOCK = "catalog.lock"
CATALOG = "catalog.sqlite"
FORMAT = 2  # PRAGMA user_version of the catalogue
_APPLICATION = 0x4C53_5443  # "LSTC", so that a stranger's database is told apart; not in format 1
_SCHEMA = f"""
PRAGMA application_id={_APPLICATION};
PRAGMA user_version={FORMAT};
CREATE TABLE starts (n INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL);
CREATE TABLE sessions (session TEXT PRIMARY KEY, began_ns INTEGER NOT NULL);
CREATE TABLE scans (
    session TEXT NOT NULL, scan_id TEXT NOT NULL, began_ns INTEGER NOT NULL, plan BLOB NOT NULL,
    parameters BLOB NOT NULL, status TEXT NOT NULL, digest TEXT, arithmetic BLOB, PRIMARY KEY (session, scan_id));
CREATE TABLE results (
    session TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, message BLOB NOT NULL,
    PRIMARY KEY (session, epoch, seq));
CREATE TABLE support_sets (version TEXT PRIMARY KEY, at_ns INTEGER NOT NULL, content BLOB NOT NULL);
CREATE TABLE decisions (n INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, session TEXT, content BLOB NOT NULL);
"""
# What makes the next format of each: an older store is brought up to date when it is opened.
_NEXT = {
    1: f"ALTER TABLE scans ADD COLUMN arithmetic BLOB; PRAGMA application_id={_APPLICATION}; PRAGMA user_version=2;",
}


class KnownScan(msgspec.Struct, frozen=True):
    """What the catalogue says of a scan: plan, parameters and arithmetic as JSON; no arithmetic before format 2."""

    plan: bytes
    parameters: bytes
    status: str
    arithmetic: bytes | None = None


class Store:
    """The one writer of a store.

    Parameters
    ----------
    root : Path
        Its folder; made if it is not there.
    make_room : bool
        Open it also where its disk is full, to remove something: nobody else can read it then, and it counts no start.

    Raises
    ------
    DiskFullError
        If there is no room for what a store needs to be opened.
    StoreError
        If another process writes to it, it cannot be written, or a newer livestem made it.
    """

    def __init__(self, root: Path, *, make_room: bool = False) -> None:
        self.root = root
        self._lock = threading.Lock()
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock_file = _lock(root / _LOCK)
        except OSError as e:
            raise _unusable(root, e) from e
        try:
            self._open(make_room)
        except sqlite3.Error as e:
            self._lock_file.close()
            raise _unusable(root, e) from e
        except StoreError:
            self._lock_file.close()
            raise

    def _open(self, make_room: bool) -> None:
        path = self.root / CATALOG
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except (sqlite3.Error, StoreError) as e:
            self._db.close()
            if not (make_room and isinstance(e, sqlite3.Error) and is_full(e)):
                raise
            self._db = connect_alone(path)
            if self._db.execute("PRAGMA user_version").fetchone() != (FORMAT,):  # no room to bring it up to date
                self._db.close()
                raise
            self.starts = 0

    def _prepare(self) -> None:
        version = check_catalogue(self._db, self.root)
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        for old in range(version or FORMAT, FORMAT):
            self._db.executescript(f"BEGIN; {_NEXT[old]} COMMIT;")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        cursor = self._db.execute("INSERT INTO starts (at_ns) VALUES (?)", (time.time_ns(),))
        self.starts = int(cursor.lastrowid or 0)

    def folder(self, session: str, scan_id: str) -> Path:
        """Return a scan's folder, whether or not it exists."""
        return self.root / check_name(session, "session") / check_name(scan_id, "scan")

    def known(self, session: str, scan_id: str) -> KnownScan | None:
        """Return what the catalogue says of a scan, or None."""
        sql = "SELECT plan, parameters, status, arithmetic FROM scans WHERE session = ? AND scan_id = ?"
        rows = self._query(sql, session, scan_id)
        return KnownScan(*rows[0]) if rows else None

    def open_scans(self) -> list[tuple[str, str]]:
        """Return session and name of every scan that is open, the newest first."""
        return [*self._query("SELECT session, scan_id FROM scans WHERE status = 'open' ORDER BY began_ns DESC")]

    def latest(self, session: str, most: int) -> list[str]:
        """Return the names of the latest scans of a session, the newest first."""
        sql = "SELECT scan_id FROM scans WHERE session = ? ORDER BY began_ns DESC LIMIT ?"
        return [scan_id for (scan_id,) in self._query(sql, session, most)]

    def reopen(self, session: str, scan_id: str) -> None:
        """Note that a scan goes on; its result stays until the next one replaces it."""
        self._execute("UPDATE scans SET status = 'open' WHERE session = ? AND scan_id = ?", session, scan_id)

    def begin(
        self,
        session: str,
        scan_id: str,
        plan: bytes,
        parameters: bytes,
        arithmetic: bytes | None = None,
        fill: Callable[[Path], None] = lambda folder: None,
    ) -> Path:
        """Make a scan's folder, `fill` it, and enter the scan into the catalogue: in this order, whenever a kill comes.

        One of that name that cannot go on begins anew; what it had received is kept beside it, in ``<scan_id>.1``, ...
        """
        folder = self.folder(session, scan_id)
        try:
            if folder.exists():
                folder.rename(_aside(folder))
            folder.mkdir(parents=True)
        except OSError as e:
            raise StoreError(f"the folder {folder} cannot be made: {e.strerror or e}; use another --session") from e
        fill(folder)
        now = time.time_ns()
        self._execute("INSERT OR IGNORE INTO sessions VALUES (?, ?)", session, now)
        sql = "INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?, ?, 'open', NULL, ?)"
        self._execute(sql, session, scan_id, now, plan, parameters, arithmetic)
        return folder

    def forget(self, session: str, scan_id: str) -> None:
        """Take a scan out of the catalogue, with the messages that were kept of it."""
        with self._transaction() as db:
            forget(db, session, scan_id)

    def keep_support(self, support: SupportSet) -> None:
        """Keep a version of a support set."""
        content = msgspec.json.encode(support)
        self._execute("INSERT OR IGNORE INTO support_sets VALUES (?, ?, ?)", support.version, time.time_ns(), content)

    def keep_results(self, session: str, epoch: int, messages: Sequence[Numbered]) -> None:
        """Keep reliable result messages before they are published, in one transaction: all of them or none.

        A `scan_done` among them is also how its scan ended, so that no scan counts as finished whose finals are not
        here, and none has finals twice.
        """
        numbered = [(message.header, message.frames) for message in messages]
        rows = [(session, epoch, h.seq, nest(frames).tobytes()) for h, frames in numbered if isinstance(h, m.Reliable)]
        ends = [(h.status, h.digest or None, session, h.scan_id) for h, _ in numbered if isinstance(h, m.ScanDone)]
        with self._transaction() as db:
            db.executemany("INSERT INTO results VALUES (?, ?, ?, ?)", rows)
            db.executemany("UPDATE scans SET status = ?, digest = ? WHERE session = ? AND scan_id = ?", ends)

    def epochs(self, session: str) -> list[m.Stream]:
        """Return the epochs of which result messages of a session are kept, oldest first."""
        sql = "SELECT epoch, MIN(seq), MAX(seq) FROM results WHERE session = ? GROUP BY epoch ORDER BY MIN(rowid)"
        rows = self._query(sql, session)
        return [m.Stream(session=session, epoch=epoch, first_seq=a, last_seq=b) for epoch, a, b in rows]

    def results(self, session: str, epoch: int, first: int, last: int) -> Iterator[tuple[int, Frames]]:
        """Yield (seq, frames) of the kept result messages in [first, last]."""
        sql = "SELECT seq, message FROM results WHERE session = ? AND epoch = ? AND seq BETWEEN ? AND ? ORDER BY seq"
        for seq, blob in self._query(sql, session, epoch, first, last):
            yield seq, msgspec.msgpack.decode(blob, type=list[bytes])

    def free_bytes(self) -> int:
        """Return the free space of the store's disk, bytes."""
        return shutil.disk_usage(self.root).free

    def close(self) -> None:
        """Fold the log in and let the next writer have the store."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error):  # what the log holds is safe there, too
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.close()
        self._lock_file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Make what is done within durable as one, or not at all."""
        try:
            with self._lock, self._db:  # commits, or rolls back if an exception leaves it
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except sqlite3.Error as e:
            raise not_written(f"the store {self.root}", e) from e

    def _query(self, sql: str, *values: object) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _execute(self, sql: str, *values: object) -> None:
        try:
            with self._lock:
                self._db.execute(sql, values)
        except sqlite3.Error as e:
            raise not_written(f"the store {self.root}", e) from e


def _unusable(root: Path, error: OSError | sqlite3.Error) -> StoreError:
    """Return the error of a store that cannot be opened; one whose disk is full is not to be left for another."""
    if is_full(error):
        return not_written(f"the store {root}", error)
    return StoreError(f"the store {root} cannot be used: {error}; choose another with --store")


def is_in_use(root: Path) -> bool:
    """Return whether a livestem holds a store; nothing is made or changed."""
    path = root / _LOCK
    if not path.exists():
        return False
    try:
        _lock(path).close()
    except (StoreError, OSError):
        return True
    return False


def check_catalogue(db: sqlite3.Connection, root: Path) -> int:
    """Return the format of a catalogue, 0 if it is new and empty.

    Raises
    ------
    StoreError
        If it is a stranger's database, or a newer livestem made it.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    ours = tables >= {"starts", "scans"} if version else not tables
    if application not in (0, _APPLICATION) or not ours:
        raise StoreError(f"{root / CATALOG} is no catalogue of livestem; choose another store with --store")
    if version > FORMAT:
        raise StoreError(f"the store {root} was made by a newer livestem (format {version}); update this one")
    return version


def forget(db: sqlite3.Connection, session: str, scan_id: str) -> None:
    """Take a scan out of a catalogue, with the messages that were kept of it; its session, if it was the last."""
    of_session = db.execute("SELECT epoch, seq, message FROM results WHERE session = ?", (session,))
    about = [(session, epoch, seq) for epoch, seq, blob in of_session if _scan_of(blob) == scan_id]
    db.executemany("DELETE FROM results WHERE session = ? AND epoch = ? AND seq = ?", about)
    db.execute("DELETE FROM scans WHERE session = ? AND scan_id = ?", (session, scan_id))
    db.execute(
        "DELETE FROM sessions WHERE session = ?1 AND NOT EXISTS (SELECT 1 FROM scans WHERE session = ?1)", (session,)
    )


def _scan_of(blob: bytes) -> str | None:
    """Return which scan a kept message is about; None if it is about none, or cannot be read."""
    try:
        header = decode(msgspec.msgpack.decode(blob, type=list[bytes])).header
    except (msgspec.DecodeError, WireError):
        return None
    return header.scan_id if isinstance(header, m.OfScan) else None


def _aside(folder: Path) -> Path:
    """Return a name beside a scan's folder that no scan can have: ``<scan_id>.1``, or the next that is free."""
    names = (folder.with_name(f"{folder.name}.{n}") for n in itertools.count(1))
    return next(path for path in names if not path.exists())


def _lock(path: Path) -> IO[bytes]:
    """Hold an exclusive lock for the life of this process; the operating system frees it if we die."""
    handle = path.open("a+b")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        handle.close()
        raise StoreError(
            f"the store {path.parent} is in use by another livestem; stop that one or choose another with --store"
        ) from e
    return handle
