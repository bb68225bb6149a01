"""The journal of one scan: its messages as they were received, in one SQLite file that can be replayed.

Rows and the cursor (how far the stream is stored) are written in one transaction, which is committed before the
acknowledgement is sent: every 20 ms or 4 MiB. While the scan runs the file has a write-ahead log beside it; at
its end that is folded in, so that the journal is a single file that can be copied.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec

from livestem.domain.errors import SourceError, StoreError, WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import EdsDense, EdsEvents, HaadfTile, Tile
from livestem.wire import messages as m
from livestem.wire.codec import Buffer, Message, decode, nest

log = logging.getLogger(__name__)

JOURNAL = "journal.sqlite"  # its name in a scan's folder
FORMAT = 1  # PRAGMA user_version
COMMIT_BYTES = 4 * 2**20  # the design's: whoever writes commits at the latest when so much is waiting
_APPLICATION = 0x4C53_544D  # "LSTM", so that a stranger's database is told apart
_SCHEMA = """
CREATE TABLE messages (n INTEGER PRIMARY KEY, type TEXT NOT NULL, frame INTEGER, message BLOB NOT NULL);
CREATE TABLE cursor (epoch INTEGER NOT NULL, seq INTEGER NOT NULL);
INSERT INTO cursor VALUES (0, 0);
"""


class Journal:
    """Writes one scan's messages.

    Parameters
    ----------
    path : Path
        Where; must not exist yet.

    Raises
    ------
    StoreError
        If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uncommitted_bytes = 0
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.executescript(f"PRAGMA application_id={_APPLICATION}; PRAGMA user_version={FORMAT}; {_SCHEMA}")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # survives a killed process, not a power cut
        except sqlite3.Error as e:
            raise StoreError(f"the journal {path} cannot be written: {e}") from e
        self._open = False

    def append(self, message: Message) -> None:
        """Write a message into the open transaction."""
        blob = nest(message.frames).data
        frame = getattr(message.header, "frame", None)
        self._begin()
        self._run(
            "INSERT INTO messages (type, frame, message) VALUES (?, ?, ?)",
            m.tag_of(message.header),
            frame,
            blob,
        )
        self.uncommitted_bytes += len(blob)

    def commit(self, epoch: int, seq: int) -> None:
        """Make everything appended durable, with how far the sender's stream is stored."""
        if self._open:
            self._run("UPDATE cursor SET epoch = ?, seq = ?", epoch, seq)
            self._run("COMMIT")
            self._open = False
        self.uncommitted_bytes = 0

    def close(self) -> None:
        """Fold the write-ahead log in and close: one file is left, unless somebody is reading it just now."""
        if self._open:
            self._run("COMMIT")
        try:
            self._db.execute("PRAGMA busy_timeout=0")  # whoever reads may take their time; a service may not
            self._db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as e:
            log.info("%s keeps its write-ahead log beside it (%s); the two belong together", self.path, e)
        self._db.close()

    def _begin(self) -> None:
        if not self._open:
            self._run("BEGIN")
            self._open = True

    def _run(self, sql: str, *values: object) -> None:
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as e:
            raise StoreError(f"the journal {self.path} cannot be written: {e}; free some disk space") from e


class JournalRecording:
    """A journal as a source: the same scan, under the same name, tile by tile as it was received.

    Raises
    ------
    SourceError
        If the file is no journal, or of a newer format.
    """

    warnings: tuple[str, ...] = ()

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

    def messages(self) -> Iterator[Message]:
        """Yield the messages of the tiles, in frame order."""
        kinds = f"'{m.tag_of(m.HaadfRows)}', '{m.tag_of(m.EdsRows)}'"
        return self._read(f"type IN ({kinds}) ORDER BY frame, n")

    @property
    def end(self) -> m.ScanEnd | None:
        """The scan's end, if the journal holds one."""
        for message in self._read(f"type = '{m.tag_of(m.ScanEnd)}' ORDER BY n DESC LIMIT 1"):
            assert isinstance(message.header, m.ScanEnd)
            return message.header
        return None

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
        raise SourceError(f"{self._path} holds no scan_start; the scan never began")

    def _read(self, where: str) -> Iterator[Message]:
        number = 0
        try:
            for number, blob in self._db.execute(f"SELECT n, message FROM messages WHERE {where}"):  # noqa: B007
                yield decode(unnest_blob(blob), self._limits)
        except sqlite3.Error as e:
            raise SourceError(f"{self._path} cannot be read: {e}; it is damaged") from e
        except (msgspec.DecodeError, WireError) as e:
            raise SourceError(f"{self._path} is damaged at message {number}: {e}; replay another copy of it") from e


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
