"""The journal: what went in comes out, and a stranger's file is told apart."""

from __future__ import annotations

import shutil
import sqlite3

import numpy as np
import pytest
from scans import dense, messages, plan, tiles

from livestem.domain.errors import DiskFullError, SourceError, StoreError
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.runtime.journal import FORMAT, Journal, JournalRecording


def written(path, parts=None, of=None):
    of = of or plan()
    journal = Journal(path)
    for message in messages(of, tiles(of) if parts is None else parts):
        journal.append(message)
    journal.commit(7, 9)
    journal.close()
    return path


def same(a, b):
    names = ("values",) if not isinstance(a, EdsEvents) else ("counts", "channels")
    return (
        type(a) is type(b)
        and (a.frame, a.y, a.x) == (b.frame, b.y, b.x)
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)
    )


def test_tiles_come_back_as_they_were_in_frame_order(tmp_path):
    parts = tiles(plan())
    parts[1] = dense(parts[1])
    with JournalRecording(written(tmp_path / "j.sqlite", parts[::-1])) as recording:
        assert recording.plan == plan() and recording.scan_id == "scan"
        assert recording.end is not None and recording.end.status == "complete"
        back = list(recording.tiles())
    assert [t.frame for t in back] == sorted(t.frame for t in back)
    key = lambda t: (t.frame, not isinstance(t, HaadfTile), t.y)  # noqa: E731
    assert all(same(a, b) for a, b in zip(sorted(back, key=key), sorted(parts, key=key), strict=True))


def test_an_uncommitted_tail_is_not_there(tmp_path):
    stream = list(messages(plan(), tiles(plan())))
    journal = Journal(tmp_path / "j.sqlite")
    for message in stream[:3]:
        journal.append(message)
    journal.commit(7, 3)
    assert journal.uncommitted_bytes == 0
    journal.append(stream[3])
    assert journal.uncommitted_bytes > 0
    with sqlite3.connect(tmp_path / "j.sqlite") as other:
        assert other.execute("SELECT count(*) FROM messages").fetchone() == (3,)
        assert other.execute("SELECT epoch, seq FROM cursor").fetchone() == (7, 3)
    other.close()
    journal.close()


def fill_up(journal):
    """Leave no room: SQLite then fails as on a full disk."""
    journal._db.execute(f"PRAGMA max_page_count={journal._db.execute('PRAGMA page_count').fetchone()[0]}")


def make_room(journal):
    journal._db.execute("PRAGMA max_page_count=1000000")


def test_a_write_that_finds_no_room_loses_nothing_and_is_repeated(tmp_path):
    stream = list(messages(plan(), tiles(plan())))
    journal = Journal(tmp_path / "j.sqlite")
    journal.append(stream[0])
    journal.commit(7, 1)
    fill_up(journal)
    for message in stream[1:]:
        journal.append(message)
    waiting = journal.uncommitted_bytes
    for write in (lambda: journal.commit(7, len(stream)), journal.flush, journal.close):
        with pytest.raises(DiskFullError, match="make room"):
            write()
        assert (journal.uncommitted_bytes, journal.cursor) == (waiting, (7, 1))
    make_room(journal)
    journal.commit(7, len(stream))
    assert (journal.uncommitted_bytes, journal.cursor) == (0, (7, len(stream)))
    journal.close()
    with JournalRecording(tmp_path / "j.sqlite") as recording:
        assert [x.header for x in recording.received()] == [x.header for x in stream]


def test_a_journal_goes_on_where_a_killed_writer_left_it(tmp_path):
    stream = list(messages(plan(), tiles(plan())))
    killed = Journal(tmp_path / "j.sqlite")
    for message in stream[:4]:
        killed.append(message)
    killed.commit(7, 4)
    killed.append(stream[4])
    killed._db.close()  # nothing folded in, nothing written: the log lies beside it
    for missing in (stream[4:6], stream[6:]):  # a second time from a journal that was closed in good order
        again = Journal(tmp_path / "j.sqlite", reopen=True)
        assert again.cursor == (7, missing[0].header.seq - 1)
        for message in missing:
            again.append(message)
        again.commit(7, missing[-1].header.seq)
        again.close()
    with JournalRecording(tmp_path / "j.sqlite") as recording:
        assert [x.header.seq for x in recording.received()] == [x.header.seq for x in stream]


@pytest.mark.parametrize("damage", ["missing", "text", "foreign", "newer", "no cursor"])
def test_only_a_journal_is_reopened(tmp_path, damage):
    path = tmp_path / "j.sqlite"
    if damage == "text":
        path.write_text("hello" * 1000)
    elif damage != "missing":
        written(path)
        with sqlite3.connect(path) as db:
            db.execute({"foreign": "PRAGMA application_id=1", "newer": f"PRAGMA user_version={FORMAT + 1}"}.get(
                damage, "DELETE FROM cursor"))  # fmt: skip
        db.close()
    with pytest.raises(StoreError) as caught:
        Journal(path, reopen=True)
    assert "\n" not in str(caught.value) and "j.sqlite" in str(caught.value)
    assert damage == "missing" or path.is_file(), "what is there is left alone"


def test_the_end_of_a_scan_that_was_begun_again_is_the_one_after(tmp_path):
    first, second = (list(messages(plan(), tiles(plan(), rows=rows))) for rows in (24, 8))
    journal = Journal(tmp_path / "j.sqlite")
    for message in [*first, second[0]]:
        journal.append(message)
    journal.commit(7, 1)
    with JournalRecording(tmp_path / "j.sqlite") as recording:
        assert recording.end is None
        assert "no scan_end" in "".join(recording.warnings)
    journal.append(second[-1])
    journal.close()
    with JournalRecording(tmp_path / "j.sqlite") as recording:
        assert recording.end == second[-1].header and recording.warnings == ()


def test_a_lone_copy_of_an_open_journal_is_not_silently_short(tmp_path):
    """Its newest part is in the log beside it: whoever copies one file must hear that something is amiss."""
    stream = list(messages(plan(), tiles(plan())))
    journal = Journal(tmp_path / "j.sqlite")
    for message in stream[:5]:
        journal.append(message)
    journal.commit(7, 5)
    shutil.copy(tmp_path / "j.sqlite", tmp_path / "copy.sqlite")
    with pytest.raises(SourceError, match="-wal"):
        JournalRecording(tmp_path / "copy.sqlite")
    journal._db.execute("PRAGMA wal_checkpoint")
    shutil.copy(tmp_path / "j.sqlite", tmp_path / "copy.sqlite")
    with JournalRecording(tmp_path / "copy.sqlite") as recording:
        assert "-wal" in "".join(recording.warnings)
    journal.close()


def test_a_closed_journal_is_one_file(tmp_path):
    written(tmp_path / "j.sqlite")
    assert [p.name for p in tmp_path.iterdir()] == ["j.sqlite"]


def test_names_with_spaces_and_umlauts(tmp_path):
    folder = tmp_path / "Messungen März ?#%"
    folder.mkdir()
    with JournalRecording(written(folder / "j.sqlite")) as recording:
        assert recording.scan_id == "scan"


@pytest.mark.parametrize("damage", ["text", "truncated", "foreign", "newer", "empty"])
def test_what_is_no_journal_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "j.sqlite"
    if damage == "text":
        path.write_text("hello")
    elif damage == "foreign":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE t (x)")
        db.close()
    else:
        written(path, [] if damage == "empty" else None)
        with sqlite3.connect(path) as db:
            if damage == "newer":
                db.execute(f"PRAGMA user_version={FORMAT + 1}")
            if damage == "empty":
                db.execute("DELETE FROM messages")
        db.close()
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError) as caught, JournalRecording(path) as recording:
        list(recording.tiles())
    assert "\n" not in str(caught.value) and "j.sqlite" in str(caught.value)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(StoreError, match=r"j\.sqlite"):
        Journal(tmp_path / "missing" / "j.sqlite")
