"""The journal: what went in comes out, and a stranger's file is told apart."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from scans import dense, messages, plan, tiles

from livestem.domain.errors import SourceError, StoreError
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
