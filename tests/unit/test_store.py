"""The store: one writer, names that stay inside, results that are kept."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

from livestem.domain.errors import StoreError
from livestem.domain.support import SupportClass, SupportSet
from livestem.protocol.publisher import Numbered
from livestem.runtime.store import FORMAT, Store
from livestem.wire import messages as m


def numbered(seq: int, *, done: bool = False) -> Numbered:
    header = m.ScanDone(
        seq=seq, scan_id="scan", status="complete", coverage=m.Coverage(), missing_tiles=(), input_digest="",
        digest="digest", timings_s={},
    ) if done else m.Agreement(seq=seq, scan_id="scan", agreement={})  # fmt: skip
    return Numbered(header, [b"topic", b"head", bytes([seq])])


def test_scans_and_results_survive_the_writer(tmp_path):
    support = SupportSet(classes=(SupportClass(name="a", chips=((0, 0),)), SupportClass(name="b", chips=((0, 1),))))
    with Store(tmp_path / "s") as store:
        first = store.starts
        folder = store.begin("one", "scan", b"plan", b"parameters")
        assert folder == tmp_path / "s" / "one" / "scan" and folder.is_dir()
        store.keep_results("one", 5, [numbered(1), numbered(2)])
        store.keep_results("one", 4, [numbered(1)])
        store.keep_results("one", 5, [numbered(3, done=True)])
        store.keep_support(support)
        store.keep_support(support)
    with Store(tmp_path / "s") as store:
        assert store.starts == first + 1, "revisions rise across restarts"
        known = store.known("one", "scan")
        assert known is not None and (known.plan, known.status) == (b"plan", "complete")
        assert store.known("one", "other") is None
        assert dict(store.results("one", 5, 2, 9)) == {2: [b"topic", b"head", b"\x02"], 3: [b"topic", b"head", b"\x03"]}
        assert [(s.epoch, s.first_seq, s.last_seq) for s in store.epochs("one")] == [(5, 1, 3), (4, 1, 1)], "as begun"
        assert store.epochs("two") == []
        assert not list(store.results("one", 6, 1, 9)), "another epoch has its own numbers"


def test_finals_are_kept_all_or_none_and_with_their_scans_status(tmp_path):
    with Store(tmp_path) as store:
        store.begin("one", "scan", b"plan", b"parameters")
        store.keep_results("one", 5, [numbered(2)])
        with pytest.raises(StoreError, match="cannot be written"):
            store.keep_results("one", 5, [numbered(1), numbered(2), numbered(3, done=True)])  # 2 is here already
        assert [seq for seq, _ in store.results("one", 5, 1, 9)] == [2]
        known = store.known("one", "scan")
        assert known is not None and known.status == "open"
        store.keep_results("one", 5, [numbered(3, done=True)])
        known = store.known("one", "scan")
        assert known is not None and known.status == "complete"


def test_one_writer_at_a_time_also_between_processes(tmp_path):
    with Store(tmp_path), pytest.raises(StoreError, match="in use by another livestem"):
        Store(tmp_path)
    code = "import sys, pathlib; from livestem.runtime.store import Store; Store(pathlib.Path(sys.argv[1]))"
    with Store(tmp_path):
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "in use" in other.stderr and other.returncode != 0
    Store(tmp_path).close()


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b", "/etc", "CON", "nul", "x" * 65, "ü", "a b", "a\n"])
def test_no_name_leaves_the_store(tmp_path, name):
    with Store(tmp_path) as store:
        for session, scan in ((name, "scan"), ("session", name)):
            with pytest.raises(ValueError, match="name"):
                store.folder(session, scan)


@pytest.mark.parametrize("session", ["lock", "catalog", "journal", "labels"])
def test_no_session_name_meets_a_file_of_the_store(tmp_path, session):
    with Store(tmp_path) as store:
        assert store.begin(session, "scan", b"p", b"q").is_dir()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    with Store(tmp_path) as store:
        (tmp_path / "one").write_text("in the way")
        with pytest.raises(StoreError, match="--session"):
            store.begin("one", "scan", b"p", b"q")


def test_an_unfinished_scan_begins_again(tmp_path):
    with Store(tmp_path) as store:
        for content in ("first", "second"):
            folder = store.begin("one", "scan", b"p", b"q")
            assert not list(folder.iterdir())
            (folder / "journal.sqlite").write_text(content)
        assert (tmp_path / "one" / "scan.1" / "journal.sqlite").read_text() == "first", "a dose is not spent twice"
        assert (folder / "journal.sqlite").read_text() == "second"


def test_a_newer_store_is_refused_in_one_line(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "catalog.sqlite") as db:
        db.execute(f"PRAGMA user_version={FORMAT + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer livestem"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="newer livestem"):  # and the lock was given back
        Store(tmp_path)


def test_a_store_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--store"):
        Store(tmp_path / "file" / "store")


def test_a_kill_before_the_journal_has_its_start_leaves_no_open_scan(tmp_path):
    """Else the next start of the service would call a scan damaged of which nobody was told that it had begun."""

    def killed(folder):
        (folder / "journal.sqlite").touch()
        raise KeyboardInterrupt

    with Store(tmp_path / "store") as store:
        with pytest.raises(KeyboardInterrupt):
            store.begin("one", "scan", b"plan", b"parameters", None, killed)
        assert store.open_scans() == [] and store.known("one", "scan") is None
        filled = []
        folder = store.begin("one", "scan", b"plan", b"parameters", None, filled.append)
        assert filled == [folder] and store.open_scans() == [("one", "scan")] and not any(folder.iterdir())
