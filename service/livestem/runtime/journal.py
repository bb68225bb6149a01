"""The journal of one scan: its messages as they were received, in one SQLite file that can be replayed.

Rows and the cursor (how far the stream is stored) are written in one transaction, which is committed before the
acknowledgement is sent: every 20 ms or 4 MiB. While the scan runs the file has a write-ahead log beside it; at
its end that is folded in, so that the journal is a single file that can be copied. A scan that is begun again, by
another start of its sender or after its end, has a further `scan_start` in it: an end before that is not its end.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec

from livestem.domain.errors import DiskFullError, SourceError, StoreError, WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import EdsDense, EdsEvents, HaadfTile, Tile
from livestem.runtime.disk import not_written
from livestem.wire import messages as m
from livestem.wire.codec import Buffer, Message, decode, nest

log = logging.getLogger(__name__)

JOURNAL = "journal.sqlite"  # its name in a scan's folder
FORMAT = 1  # PRAGMA user_version
COMMIT_BYTES = 4 * 2**20  # the design's: whoever writes commits at the latest when so much is waiting
# Messages of 256 kB are written in two thirds of the time that SQLite's usual 4096 take; larger pages gain little more,
# and every commit of a slow scan writes whole ones.
_PAGE_BYTES = 16384
_APPLICATION = 0x4C53_544D  # "LSTM", so that a stranger's database is told apart
_SCHEMA = f"""
PRAGMA page_size={_PAGE_BYTES};
BEGIN;
PRAGMA application_id={_APPLICATION};
PRAGMA user_version={FORMAT};
CREATE TABLE messages (n INTEGER PRIMARY KEY, type TEXT NOT NULL, frame INTEGER, message BLOB NOT NULL);
CREATE TABLE cursor (epoch INTEGER NOT NULL, seq INTEGER NOT NULL);
INSERT INTO cursor VALUES (0, 0);
COMMIT;
"""
_TILES = f"'{m.tag_of(m.HaadfRows)}', '{m.tag_of(m.EdsRows)}'"


class Journal:
    """Writes one scan's messages.

    What is appended waits in memory until a commit writes it, all or nothing: a write that fails (a full disk) loses
    nothing and can be repeated. Whoever appends bounds what waits, see `COMMIT_BYTES`.

    Parameters
    ----------
    path : Path
        Where; must not exist yet, unless `reopen`.
    reopen : bool
        Go on with a journal that is there, whoever wrote it last and however they ended.

    Attributes
    ----------
    cursor : (epoch, seq) up to which the sender's stream is stored
    uncommitted_bytes : what waits

    Raises
    ------
    StoreError
        If it cannot be written, or what is to be reopened is no journal of this format.
    """

    def __init__(self, path: Path, *, reopen: bool = False) -> None:
        self.path = path
        self.uncommitted_bytes = 0
        self._waiting: list[tuple[int, str, int | None, memoryview]] = []
        if reopen and not path.is_file():
            raise StoreError(f"{path} is not there; nothing of its scan was stored")
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as e:
            raise not_written(f"the journal {path}", e) from e
        try:
            self._check() if reopen else self._db.executescript(_SCHEMA)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # survives a killed process, not a power cut
            self._rows: int = self._db.execute("SELECT coalesce(max(n), 0) FROM messages").fetchone()[0]
            self.cursor = self._stored()
        except sqlite3.Error as e:
            self._db.close()
            raise not_written(f"the journal {path}", e) from e
        except StoreError:
            self._db.close()
            raise

    def append(self, message: Message) -> None:
        """Take a message; the next commit writes it."""
        blob = nest(message.frames).data
        self._rows += 1
        self._waiting.append((self._rows, m.tag_of(message.header), getattr(message.header, "frame", None), blob))
        self.uncommitted_bytes += len(blob)

    def commit(self, epoch: int, seq: int) -> None:
        """Make everything appended durable, with how far the sender's stream is stored.

        Raises
        ------
        StoreError
            If it cannot be written; nothing is lost, and it can be tried again.
        """
        self._write((epoch, seq))

    def flush(self) -> None:
        """Make everything appended durable, where nobody knows how far the stream has come; StoreError as `commit`."""
        self._write(self.cursor)

    def close(self) -> None:
        """Fold the write-ahead log in and close: one file is left, unless somebody is reading it just now.

        Raises
        ------
        StoreError
            If there is no room for it; the journal is still open, and closing can be tried again.
        """
        self.flush()
        try:
            self._db.execute("PRAGMA busy_timeout=0")  # whoever reads may take their time; a service may not
            self._db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as e:
            if isinstance(failed := not_written(f"the journal {self.path}", e), DiskFullError):
                raise failed from e
            log.info("%s keeps its write-ahead log beside it (%s); the two belong together", self.path, e)
        self._db.close()

    def abandon(self) -> None:
        """Close without writing anything: what is committed stays, in the file and the log beside it."""
        self._waiting.clear()
        self._db.close()

    def _check(self) -> None:
        found = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found != _APPLICATION:
            raise StoreError(f"{self.path} is no livestem journal")
        if version > FORMAT:
            raise StoreError(f"{self.path} is a journal of format {version}, this livestem writes {FORMAT}; update it")

    def _stored(self) -> tuple[int, int]:
        rows = self._db.execute("SELECT epoch, seq FROM cursor").fetchall()
        if len(rows) != 1:
            raise StoreError(f"{self.path} is damaged: it does not say how far it goes")
        return int(rows[0][0]), int(rows[0][1])

    def _write(self, cursor: tuple[int, int]) -> None:
        if not self._waiting:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?)", self._waiting)
            self._db.execute("UPDATE cursor SET epoch = ?, seq = ?", cursor)
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled it back already
                self._db.execute("ROLLBACK")
            raise not_written(f"the journal {self.path}", e) from e
        self.cursor = cursor
        self._waiting.clear()
        self.uncommitted_bytes = 0


class JournalRecording:
    """A journal as a source: the same scan, under the same name, tile by tile as it was received.

    Raises
    ------
    SourceError
        If the file is no journal, or of a newer format.
    """

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self._path, self._limits = path, limits
        try:
            self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            found = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as e:
            raise SourceError(f"{path} cannot be read as a journal: {e}") from e
        if found != _APPLICATION:
            raise SourceError(f"{path} is a database, but no livestem journal")
        if version > FORMAT:
            raise SourceError(f"{path} is a journal of format {version}, this livestem reads {FORMAT}; update it")
        try:
            self._start = self._find_start()
        except SourceError:
            self._db.close()
            raise
        self.plan: ScanPlan = self._start.plan
        self.scan_id: str = self._start.scan_id

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        """Yield the tiles in frame order; their rectangles are those of the journal."""
        return map(as_tile, self.messages())

    def tiles_of(self, frame: int) -> Iterator[Tile]:
        """Yield the tiles of one frame, as `tiles` does."""
        return map(as_tile, self._read(f"type IN ({_TILES}) AND frame = {int(frame)} ORDER BY n"))

    def messages(self) -> Iterator[Message]:
        """Yield the messages of the tiles, in frame order."""
        return self._read(f"type IN ({_TILES}) ORDER BY frame, n")

    def received(self) -> Iterator[Message]:
        """Yield every message, in the order in which they were received."""
        return self._read("TRUE ORDER BY n")

    @property
    def end(self) -> m.ScanEnd | None:
        """The scan's end, if the journal holds one that no further start follows."""
        last = f"(SELECT max(n) FROM messages WHERE type = '{m.tag_of(m.ScanStart)}')"
        for message in self._read(f"type = '{m.tag_of(m.ScanEnd)}' AND n > {last} ORDER BY n DESC LIMIT 1"):
            assert isinstance(message.header, m.ScanEnd)
            return message.header
        return None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know: that the scan is cut off here, or that this copy of it is."""
        if self.end is not None:
            return ()
        return (
            f"{self._path} has no scan_end: its scan was cut off, or goes on, or the file was copied without the "
            f"{self._path.name}-wal beside it",
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> JournalRecording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find_start(self) -> m.ScanStart:
        for message in self._read(f"type = '{m.tag_of(m.ScanStart)}' ORDER BY n LIMIT 1"):
            assert isinstance(message.header, m.ScanStart)
            return message.header
        raise SourceError(
            f"{self._path} holds no scan_start: its scan never began, or the file was copied without the "
            f"{self._path.name}-wal beside it; `livestem store backup` makes whole copies"
        )

    def _read(self, where: str) -> Iterator[Message]:
        number = 0
        try:
            for number, blob in self._db.execute(f"SELECT n, message FROM messages WHERE {where}"):  # noqa: B007
                yield decode(unnest_blob(blob), self._limits)
        except sqlite3.Error as e:
            raise SourceError(f"{self._path} cannot be read: {e}; it is damaged") from e
        except (msgspec.DecodeError, WireError) as e:
            raise SourceError(f"{self._path} is damaged at message {number}: {e}; replay another copy of it") from e


def cursor_of(path: Path) -> tuple[int, int]:
    """Return (epoch, seq) up to which a journal has its sender's stream; zeros if it cannot be read."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            epoch, seq = db.execute("SELECT epoch, seq FROM cursor").fetchone() or (0, 0)
            return int(epoch), int(seq)
    except sqlite3.Error:
        return 0, 0


def unnest_blob(blob: bytes) -> list[Buffer]:
    """Return the frames of a stored message."""
    return list(msgspec.msgpack.decode(blob, type=list[bytes]))


def as_tile(message: Message) -> Tile:
    """Return what a tile message carries, as the source once handed it over."""
    tile, arrays = message.header, message.arrays
    if isinstance(tile, m.HaadfRows):
        return HaadfTile(frame=tile.frame, y=tile.y, x=tile.x, values=arrays[0])
    assert isinstance(tile, m.EdsRows)
    if tile.content == "dense":
        return EdsDense(frame=tile.frame, y=tile.y, x=tile.x, values=arrays[0])
    return EdsEvents(frame=tile.frame, y=tile.y, x=tile.x, counts=arrays[0], channels=arrays[1])
