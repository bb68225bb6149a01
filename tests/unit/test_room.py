"""A store whose disk is full: it can be read, something can be removed from it, and a service waits for room."""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
import time
import urllib.error
import urllib.request

import pytest
from test_monitoring import Source

from livestem.client import Acquisition, Endpoint
from livestem.domain.errors import DiskFullError, StoreError
from livestem.runtime import disk, room, segmenter
from livestem.runtime import store as stores
from livestem.runtime.catalogue import scans_of
from livestem.runtime.notices import Notices
from livestem.runtime.settings import Http, Settings
from livestem.runtime.store import Store
from ports import free_pairs

PATIENCE_S = 20.0


def full_disk(*arguments: object) -> None:
    """Fail as SQLite does where there is no room for the index of its log."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    raise error


@pytest.fixture
def root(tmp_path):
    """A store with a finished scan and an open one."""
    with Store(tmp_path / "store") as store:
        store.begin("one", "open", b"plan", b"parameters")
        store.begin("one", "over", b"plan", b"parameters")
        store._execute("UPDATE scans SET status = 'complete' WHERE scan_id = 'over'")
    return tmp_path / "store"


def test_a_full_disk_is_no_reason_to_choose_another_store(monkeypatch, root):
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_prepare", full_disk)
        for _ in range(2):  # the lock was given back
            with pytest.raises(DiskFullError, match="make room there") as told:
                Store(root)
            assert "--store" not in str(told.value)
        patched.setattr(stores, "_lock", lambda path: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
        with pytest.raises(DiskFullError, match="make room there"):
            Store(root)
    Store(root).close()


def test_what_is_to_be_removed_can_be_removed_on_a_full_disk(monkeypatch, root):
    monkeypatch.setattr(Store, "_prepare", full_disk)
    with Store(root, make_room=True) as store:
        assert not (root / "catalog.sqlite-shm").exists()
        store.forget("one", "over")
    assert [scan.name for scan in scans_of(root)] == ["one/open"]


def test_an_older_store_has_to_be_brought_up_to_date_first(monkeypatch, root):
    with sqlite3.connect(root / "catalog.sqlite") as db:
        db.execute("PRAGMA user_version=1")
    db.close()
    monkeypatch.setattr(Store, "_prepare", full_disk)
    with pytest.raises(DiskFullError):
        Store(root, make_room=True)


def test_a_store_is_listed_on_a_full_disk(monkeypatch, root):
    look, looked = disk._look, []

    def first_fails(db: sqlite3.Connection) -> None:
        looked.append(db)
        full_disk() if len(looked) == 1 else look(db)

    monkeypatch.setattr(disk, "_look", first_fails)
    assert [(scan.scan_id, scan.status) for scan in scans_of(root)] == [("open", "open"), ("over", "complete")]
    assert len(looked) == 2 and not (root / "catalog.sqlite-shm").exists()
    monkeypatch.setattr(disk, "_look", full_disk)
    with pytest.raises(DiskFullError, match="cannot be read: its disk is full; make room"):
        scans_of(root)


def settings_of(root, http_port: int = 0) -> Settings:
    data, results = free_pairs(2)
    return Settings(
        acquisition=(Endpoint(f"tcp://127.0.0.1:{data}"),),
        results=Endpoint(f"tcp://127.0.0.1:{results}"),
        http=Http(port=http_port),
        store=str(root),
    )


def test_a_start_waits_for_room_and_answers_meanwhile(monkeypatch, root):
    (port,) = free_pairs(1)
    tries, answers, said = [], [], []

    def opened(path):
        tries.append(path)
        if len(tries) == 1:
            raise DiskFullError("the store cannot be written: its disk is full; make room there")
        if len(tries) == 2:
            with pytest.raises(urllib.error.HTTPError) as answer:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE_S)
            with answer.value as answered:
                answers.append(json.load(answered))
            raise StoreError("in use: somebody makes room")
        return Store(path)

    monkeypatch.setattr(room, "RETRY_S", 0.01)
    monkeypatch.setattr(room, "Store", opened)
    store = room.open_store(settings_of(root, port), Notices(said.append), threading.Event())
    assert store is not None
    store.close()
    assert len(tries) == 3
    assert answers[0]["live"] and not answers[0]["ready"] and "make room there" in answers[0]["reasons"]["store"]
    assert [line.partition(":")[0] for line in said] == ["degraded", "recovered"]


def test_the_wait_ends_when_we_are_stopped(monkeypatch, root):
    stop = threading.Event()

    def never(path):
        stop.set()
        raise DiskFullError("full")

    monkeypatch.setattr(room, "Store", never)
    assert room.open_store(settings_of(root), Notices(lambda text: None), stop) is None


def test_another_fault_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another"):
        room.open_store(settings_of(tmp_path / "file" / "store"), Notices(lambda text: None), threading.Event())


def until(what) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_open_scan_is_resumed_once_there_is_room_for_it(monkeypatch, tmp_path):
    settings, said, room_again = settings_of(tmp_path / "store"), [], threading.Event()
    earlier = segmenter.Segmenter(settings)
    with Acquisition("s", settings.acquisition[0], recorded=True) as source:
        source.wait_for_service(PATIENCE_S)
        source.start_scan(Source().plan, Source.scan_id)
        source.wait_acknowledged()
        earlier.close()
    resume = segmenter.Ingest.resume

    def full(self, session, scan_id):
        if not room_again.is_set():
            raise DiskFullError("the journal cannot be written: its disk is full; make room there")
        return resume(self, session, scan_id)

    monkeypatch.setattr(segmenter, "RETRY_S", 0.01)
    monkeypatch.setattr(segmenter.Ingest, "resume", full)
    again = segmenter.Segmenter(settings, said.append)
    try:
        until(lambda: "store" in again.monitor.health().reasons)
        assert not any("resumed" in line for line in said)
        room_again.set()
        until(lambda: again.monitor.health().ok)
        assert any("is resumed" in line for line in said) and not any("not resumed" in line for line in said)
    finally:
        again.close()
