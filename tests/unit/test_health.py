"""How the service is: judged from a look at it; told over HTTP; a thread's death is never silent."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest

from livestem.cli.serve import _changes
from livestem.domain.errors import TransportError
from livestem.domain.limits import Limits
from livestem.runtime.catalogue import size_of
from livestem.runtime.health import REASON_NAMES, SILENT_S, STUCK_S, Health, Vitals, judge
from livestem.runtime.http_endpoint import HttpEndpoint
from livestem.runtime.lag import Lag
from livestem.runtime.monitor import Monitor

LIMITS = Limits()
ROOM = LIMITS.free_disk_bytes


def well(**changes) -> Vitals:
    return Vitals(**{"disk_free_bytes": ROOM} | changes)


@pytest.mark.parametrize(
    ("changes", "live", "ready", "reasons"),
    [
        ({}, True, True, ()),  # waits for an instrument, which is nothing to worry about
        ({"attached": 1, "open_scans": 4, "finals_waiting": 4, "silent_s": SILENT_S - 0.1}, True, True, ()),
        ({"warm": False}, True, False, ()),
        ({"stopping": True}, True, False, ()),
        ({"disk_free_bytes": ROOM - 1}, True, False, ("disk",)),
        ({"blocked": "its disk is full"}, True, False, ("store",)),
        ({"finals_waiting": LIMITS.open_scans + 1}, True, True, ("finals",)),
        ({"silent_s": SILENT_S}, True, True, ("adapter",)),
        ({"lag": Lag(0.9, 0.9)}, True, True, ()),
        ({"lag": Lag(0.91, 0.9)}, True, True, ("compute",)),
        ({"quiet_s": STUCK_S - 0.1}, True, True, ()),
        ({"quiet_s": STUCK_S}, False, False, ("stuck",)),
        ({"dead": ("the live thread died: KeyError: 1",)}, False, False, ("thread",)),
        ({"dead": ("a", "b"), "disk_free_bytes": 0}, False, False, ("thread", "disk")),
    ],
)
def test_what_follows_from_a_look(changes, live, ready, reasons):
    health = judge(well(**changes), LIMITS)
    assert (health.live, health.ready, tuple(health.reasons)) == (live, ready, reasons)
    assert health.ok is (not reasons)
    assert health.as_json()["status"] == ("degraded" if reasons else "ok")
    assert all(words and "\n" not in words for words in health.reasons.values())


def test_every_reason_can_hold():
    kept = {"blocked": "full", "disk_free_bytes": 0, "finals_waiting": 99}
    worst = well(dead=("x",), quiet_s=STUCK_S, silent_s=SILENT_S, lag=Lag(99.0), **kept)
    assert tuple(judge(worst, LIMITS).reasons) == REASON_NAMES


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def of(live: bool, ready: bool, ok: bool) -> Health:
    return Health(live, ready, {} if ok else {"disk": "full"}, well())


@pytest.mark.parametrize("state", [(True, True, True), (True, False, True), (True, True, False), (False, False, False)])
def test_the_paths_answer_for_their_question(state):
    endpoint = HttpEndpoint("127.0.0.1", 0)
    try:
        endpoint.serve(lambda: of(*state), lambda health: b"of " + str(health.ok).encode())
        for path, good in zip(("/health/live", "/health/ready", "/health"), state, strict=True):
            code, text = answer(endpoint.port, path)
            assert code == (200 if good else 503)
            assert json.loads(text) == of(*state).as_json()
        assert answer(endpoint.port, "/metrics") == (200, f"of {state[2]}")
        code, text = answer(endpoint.port, "/elsewhere")
        assert code == 404 and "/health/ready" in text
    finally:
        endpoint.close()


def test_a_port_in_use_is_said_and_frees_nothing_of_others():
    first = HttpEndpoint("127.0.0.1", 0)
    try:
        with pytest.raises(TransportError, match="is in use by another program .*--http-port"):
            HttpEndpoint("127.0.0.1", first.port)
    finally:
        first.close()  # which never served


# --- the monitor --------------------------------------------------------------------------------------------


def monitor(tmp_path, **hub: Any) -> Monitor:
    """A monitor of a service whose parts do nothing."""
    parts: tuple[Any, ...] = (
        SimpleNamespace(root=tmp_path, free_bytes=lambda: ROOM),
        SimpleNamespace(**{"alive": True, "turned": time.monotonic(), "resend_bytes": 0, "subscribers": 0} | hub),
        SimpleNamespace(scans={}),
        SimpleNamespace(configured=1, attached=0, blocked=None),
        SimpleNamespace(waiting=0, held=None),
    )
    watched = Monitor(*parts, LIMITS)
    watched.resuming = False
    return watched


def test_a_threads_death_is_told_and_ends_the_service(tmp_path, caplog):
    watched, go_on = monitor(tmp_path), threading.Event()

    def work() -> None:
        go_on.wait(10)
        raise KeyError("lost")

    thread = watched.thread("live", work)
    thread.start()
    assert watched.is_alive("live") and watched.health().live and not watched.failed
    go_on.set()
    thread.join(10)
    assert watched.failed and not watched.is_alive("live")
    assert watched.health().reasons == {"thread": "the live thread died: KeyError: 'lost'"}
    (record,) = [r for r in caplog.records if getattr(r, "event", "") == "thread_died"]
    assert record.fields == {"thread": "live"} and record.exc_info


def test_a_thread_that_ends_its_work_has_not_died(tmp_path):
    watched = monitor(tmp_path)
    watched.resuming = True
    assert not watched.health().ready
    watched.resuming = False
    thread = watched.thread("warm-up", lambda: None)
    assert not watched.health().ready, "its libraries are not loaded yet"
    thread.start()
    thread.join(10)
    assert watched.health().ready and not watched.failed


def test_result_sockets_that_died_or_hang(tmp_path):
    dead = monitor(tmp_path, alive=False)
    assert dead.failed and tuple(dead.health().reasons) == ("thread",)
    dead.stopping = True
    assert not dead.failed and dead.health().ok, "they are closed when the service stops"
    assert tuple(monitor(tmp_path, turned=time.monotonic() - STUCK_S).health().reasons) == ("stuck",)


def test_the_size_of_a_store_is_looked_up_rarely(tmp_path):
    (tmp_path / "a").write_bytes(bytes(100))
    watched = monitor(tmp_path)
    assert watched.look().store_bytes == 100
    (tmp_path / "b").write_bytes(bytes(100))
    assert watched.look().store_bytes == 100


def test_what_goes_while_a_store_is_looked_at_counts_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(100))
    (tmp_path / "journal.sqlite-wal").write_bytes(bytes(50))
    scandir = os.scandir

    @contextlib.contextmanager
    def listed_before(folder):
        with scandir(folder) as entries:
            found = [*entries]
        (tmp_path / "journal.sqlite-wal").unlink()
        yield found

    monkeypatch.setattr(os, "scandir", listed_before)
    assert size_of(tmp_path) == 100


def test_looking_at_a_store_of_ten_times_the_scans_takes_no_more_memory(tmp_path):
    def peak(scans: int) -> int:
        store = tmp_path / str(scans)
        for n in range(scans):
            folder = store / f"session-{n // 5}" / f"scan-{n % 5}"
            folder.mkdir(parents=True)
            (folder / "journal.sqlite").write_bytes(bytes(10))
        watched = monitor(store)
        tracemalloc.start()
        try:
            assert watched.look().store_bytes == 10 * scans
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # whatever is made once
    assert peak(500) < 3 * peak(50)


def test_a_reason_is_told_when_it_begins_and_when_it_is_over():
    told: list[tuple[str, str]] = []
    service: Any = SimpleNamespace(tell=lambda event, text, reason: told.append((event, reason)))
    known = _changes(service, {}, {"disk": "9 MiB free"})
    known = _changes(service, known, {"disk": "8 MiB free", "finals": "5 wait"})
    assert _changes(service, known, {}) == {}
    assert told[:2] == [("degraded", "disk"), ("degraded", "finals")]
    assert sorted(told[2:]) == [("recovered", "disk"), ("recovered", "finals")]
