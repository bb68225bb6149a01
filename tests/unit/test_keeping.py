"""What a store holds, copies of it, and what of it may go."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from make_golden_store import fill
from scans import messages, plan, tiles
from test_ingest import House
from test_resume import ROOMY, done, feed, result, resumed
from typer.testing import CliRunner

from livestem.cli.store import app
from livestem.domain.errors import StoreError, UsageError
from livestem.runtime.backup import back_up
from livestem.runtime.catalogue import chosen, folder_of, scans_of
from livestem.runtime.journal import JournalRecording
from livestem.runtime.prune import prunable, remove
from livestem.runtime.store import CATALOG, Store

DAY_NS = 86400 * 10**9


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    root = tmp_path_factory.mktemp("filled") / "store"
    fill(root)
    return root


@pytest.fixture
def root(tmp_path, filled):
    """A store with a complete scan `whole` and an open one, `open`."""
    return Path(shutil.copytree(filled, tmp_path / "store"))


def cli(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_store_is_listed(root):
    found = cli("list", "--store", root, "--json")
    whole, open_ = json.loads(found.stdout)
    assert (whole["scan_id"], whole["status"], open_["scan_id"], open_["status"]) == (
        "whole",
        "complete",
        "open",
        "open",
    )
    assert len(whole["digest"]) == 64 and open_["digest"] is None and whole["began"].endswith("Z")
    assert whole["size_bytes"] == sum(p.stat().st_size for p in (root / "s1" / "whole").iterdir())
    assert "s1/whole" in cli("list", "--store", root).stdout


@pytest.mark.parametrize("catalogue", [None, "hello" * 1000, "stranger", "newer"])
def test_what_is_no_store_is_said_in_one_line(tmp_path, catalogue):
    path = tmp_path / CATALOG
    if catalogue == "newer":
        Store(tmp_path).close()
    if catalogue in ("stranger", "newer"):
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE t (x)" if catalogue == "stranger" else "PRAGMA user_version=99")
        db.close()
    elif catalogue is not None:
        path.write_text(catalogue)
    before = path.read_bytes() if path.exists() else None
    opened = [lambda: scans_of(tmp_path)] + ([] if catalogue is None else [lambda: Store(tmp_path)])
    for open_it in opened:
        with pytest.raises(StoreError) as caught:
            open_it()
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
        assert "--store" in str(caught.value) or "newer livestem" in str(caught.value)
    assert before is None or path.read_bytes() == before, "what is not ours is left as it is"


def test_a_copy_is_a_store_while_the_service_writes(tmp_path):
    """Open scans too, with all that is committed: a service started on the copy ends them as on the first."""
    stream, other = (list(messages(plan(), tiles(plan()), name)) for name in ("a", "b"))
    with Store(tmp_path / "store") as store:
        house = House(tmp_path / "store", ROOMY, store=store)
        feed(house, other)
        store.keep_results("s1", 1, [done("b", "complete")])
        feed(house, stream[:7])
        back_up(store.root, scans_of(store.root), tmp_path / "copy")
        house.take(stream[7:])
        ((_, _), (scan, status)) = house.finished
        house.finished[:] = [(scan, status)]
        wanted = result(house)
    assert not list((tmp_path / "copy").rglob("*-wal"))
    with Store(tmp_path / "copy") as store:
        again = House(tmp_path / "copy", ROOMY, store=store)
        stored = resumed(again)
        again.take(stream[stored:])
        assert result(again) == wanted
    with JournalRecording(tmp_path / "copy" / "s1" / "b" / "journal.sqlite") as journal:
        assert journal.end is not None and journal.warnings == ()


def test_a_copy_of_one_scan_holds_nothing_of_the_others(root, tmp_path):
    assert cli("backup", "s1/whole", tmp_path / "copy", "--store", root).exit_code == 0
    (only,) = scans_of(tmp_path / "copy")
    assert only.name == "s1/whole" and only.digest == chosen(root, "s1/whole")[0].digest
    assert sorted(p.name for p in (tmp_path / "copy" / "s1").iterdir()) == ["whole"]
    assert (tmp_path / "copy" / "s1" / "whole" / "result.hspy").is_file()
    with sqlite3.connect(tmp_path / "copy" / CATALOG) as copy, sqlite3.connect(root / CATALOG) as db:
        kept = [x.execute("SELECT count(*) FROM results").fetchone()[0] for x in (copy, db)]
    copy.close(), db.close()
    assert kept[0] == kept[1] > 1, "all messages that are kept are of this scan"
    cli("backup", "s1/open", tmp_path / "other", "--store", root)
    with sqlite3.connect(tmp_path / "other" / CATALOG) as copy:
        assert copy.execute("SELECT count(*) FROM results").fetchone() == (0,)
    copy.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["s1/none", "COPY"], "holds no session or scan"),
        (["COPY"], "--all"),
        (["--all", "s1", "COPY"], "--all"),
        (["--all", "THERE"], "already"),
    ],
)
def test_a_copy_that_cannot_be_made_is_said(root, tmp_path, arguments, words):
    (tmp_path / "there").mkdir()
    named = [str(tmp_path / a.lower()) if a.isupper() else a for a in arguments]
    with pytest.raises(UsageError, match=words):
        app(["backup", *named, "--store", str(root)], standalone_mode=False)
    assert not (tmp_path / "copy").exists() and not list(tmp_path.glob(".*partial*"))


def test_what_may_go_is_old_finished_and_not_among_the_newest(root):
    whole, open_ = scans_of(root)
    later = whole.began_ns + 10 * DAY_NS
    assert prunable([whole, open_], now_ns=later, older_than_s=9 * 86400) == [whole], "an open one never goes"
    assert prunable([whole, open_], now_ns=later, older_than_s=11 * 86400) == []
    assert prunable([whole, open_], now_ns=later, older_than_s=1, keep_last=1) == []


def test_a_scan_is_removed_with_all_that_is_known_of_it(root):
    aside = root / "s1" / "whole.1"
    aside.mkdir()
    (aside / "journal.sqlite").write_text("set aside")
    shown = cli("prune", "--older-than", "0h", "--store", root, "--dry-run")
    assert "s1/whole complete" in shown.stdout and "would remove everything of 1 scan" in shown.stdout
    assert (root / "s1" / "whole" / "result.json").is_file() and len(scans_of(root)) == 2
    assert cli("prune", "--older-than", "0h", "--store", root, "--yes").exit_code == 0
    assert [scan.name for scan in scans_of(root)] == ["s1/open"]
    assert [p.name for p in (root / "s1").iterdir()] == ["open"]
    with sqlite3.connect(root / CATALOG) as db:
        assert db.execute("SELECT count(*) FROM results").fetchone() == (0,)
    db.close()


@pytest.mark.parametrize(
    ("flag", "stays", "goes"),
    [("--keep-results", "result.json", "journal.sqlite"), ("--keep-journals", "journal.sqlite", "result.hspy")],
)
def test_half_of_it_may_stay(root, flag, stays, goes):
    cli("prune", "--older-than", "0h", "--store", root, "--yes", flag)
    names = {p.name for p in (root / "s1" / "whole").iterdir()}
    assert stays in names and goes not in names and len(scans_of(root)) == 2


def test_what_is_not_ours_stays(root, tmp_path):
    """Notes of a person, a link out of the store: neither is removed, nor followed."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "journal.sqlite").write_text("of another instrument")
    folder = root / "s1" / "whole"
    (folder / "notes.txt").write_text("mine")
    (folder / "labels.npz").unlink()
    (folder / "labels.npz").symlink_to(tmp_path / "precious" / "journal.sqlite")
    with Store(root) as store:
        whole, open_ = scans_of(root)
        with pytest.raises(StoreError, match="open"):
            remove(store, open_)
        assert [p.name for p in remove(store, whole)] == ["labels.npz", "notes.txt"]
        store._execute(
            "INSERT INTO scans SELECT 's1', 'linked', 1, plan, parameters, 'complete', NULL, NULL FROM scans"
        )
        (root / "s1" / "linked").symlink_to(tmp_path / "precious")
        store._execute(
            "INSERT INTO scans SELECT '..', 'precious', 1, plan, parameters, 'complete', NULL, NULL FROM scans LIMIT 1"
        )
        with pytest.raises(StoreError, match="link"):
            folder_of(root, "s1", "linked")
        with pytest.raises(StoreError, match="tampered"):
            scans_of(root)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (tmp_path / "precious" / "journal.sqlite").read_text() == "of another instrument"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--older-than"),
        (["--older-than", "soon"], "30d"),
        (["--keep-last", "1", "--keep-results", "--keep-journals"], "nothing"),
        (["--older-than", "0h"], "--yes"),
    ],
)
def test_nothing_goes_by_mistake(root, arguments, words):
    with pytest.raises(UsageError, match=words):
        app(["prune", *arguments, "--store", str(root)], standalone_mode=False)
    assert len(scans_of(root)) == 2


def test_nothing_goes_while_a_service_holds_the_store(root):
    with Store(root), pytest.raises(StoreError, match="in use by another livestem"):
        app(["prune", "--older-than", "0h", "--yes", "--store", str(root)], standalone_mode=False)
    assert len(scans_of(root)) == 2
