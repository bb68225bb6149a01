"""The end of a service, a source or a listener: nothing lost that was acknowledged, nothing left that blocks the next.

What has no end of its own (``serve``, ``listen``, ``watch``, ``simulate --requests``) exits 0 on SIGTERM and on Ctrl-C:
it is how one ends it. What is stopped before its work is done exits 130 and says what is kept.
"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import Service, end, run, start, wait_for

from livestem.client import Acquisition, Haadf, Sampling, ScanPlan

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them"),
]

PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(64, 64), pixel_nm=(1.0, 1.0)), dtype="<u2"), frames=4)
PICTURE = np.random.default_rng(0).integers(100, 1000, (64, 64)).astype("<u2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_drains_and_leaves_a_store_for_the_next(tmp_path: Path, number: signal.Signals):
    with Service(tmp_path) as service, Acquisition("cut", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(PLAN, "whole") as scan:
            for frame in range(4):
                scan.haadf(PICTURE, frame=frame)
        cut = acquisition.start_scan(PLAN, "cut")
        cut.haadf(PICTURE, frame=0)
        acquisition.wait_acknowledged()
        assert end(service.process, number) == 0  # the whole scan's finals may still be under way
    assert "Traceback" not in service.words()
    result = json.loads((service.store / "cut" / "whole" / "result.json").read_bytes())
    assert result["status"] == "complete"
    assert sorted(path.name for path in (service.store / "cut" / "cut").iterdir()) == ["journal.sqlite"]
    assert not list(service.store.rglob("*-wal")) and not list(service.store.rglob(".*partial*"))
    for journal in service.store.rglob("journal.sqlite"):
        db = sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT COUNT(*) FROM messages WHERE type = 'haadf_tile'").fetchone()[0] >= 1
        db.close()
    with Service(tmp_path / "again", store=service.store) as again:
        again.assert_well()


def test_an_acknowledged_tile_survives_kill_9(tmp_path: Path):
    with Service(tmp_path) as service, Acquisition("killed", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        scan = acquisition.start_scan(PLAN, "scan")
        scan.haadf(PICTURE, frame=0)
        acquisition.wait_acknowledged()
        assert end(service.process, signal.SIGKILL) == -signal.SIGKILL
    journal = service.store / "killed" / "scan" / "journal.sqlite"
    done = run("batch", journal, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_bytes())["coverage"] == {"haadf": 0.25}
    with Service(tmp_path / "again", store=service.store) as again:  # its lock died with it
        again.assert_well()


def test_ctrl_c_in_mid_replay_aborts_the_scan_and_frees_the_endpoint(service: Service, written: Path):
    flags = (written / "haadf.hspy", written / "eds.hspy", "--acquisition", service.acquisition)
    sender = start("replay", *flags, "--session", "broken-off", "--dwell-us", 20_000)  # 20 s a frame
    try:
        wait_for(lambda: service.metric("livestem_tiles_received_total") >= 4)
        sender.send_signal(signal.SIGINT)
        assert sender.wait(20) == 130
        assert sender.stderr is not None
        assert re.fullmatch(r"livestem: stopped; the service keeps .* as an aborted scan\n", sender.stderr.read())
    finally:
        end(sender)
    wait_for(lambda: service.metric("livestem_open_scans") == 0, 30)
    service.replay_fully(*flags[:2], "--speed", "max", "--session", "next")
    service.assert_well()


def test_ctrl_c_while_the_service_is_away_does_not_say_that_it_was_heard(written: Path, tmp_path: Path):
    with Service(tmp_path) as service:
        flags = (written / "haadf.hspy", written / "eds.hspy", "--acquisition", service.acquisition)
        sender = start("replay", *flags, "--session", "unheard", "--dwell-us", 20_000)
        try:
            wait_for(lambda: service.metric("livestem_tiles_received_total") >= 4)
            end(service.process, signal.SIGKILL)
            sender.send_signal(signal.SIGINT)
            assert sender.wait(30) == 130
            assert sender.stderr is not None
            assert re.fullmatch(
                r"livestem: stopped; the service was not there .* incomplete scan\n", sender.stderr.read()
            )
        finally:
            end(sender)


def test_a_source_that_vanishes_leaves_an_incomplete_scan_and_a_free_service(written: Path, tmp_path: Path):
    (tmp_path / "serve.toml").write_text("vanish_s = 2.0\n")
    with Service(tmp_path, "--config", tmp_path / "serve.toml") as service:
        sender = start(
            *("replay", written / "haadf.hspy", written / "eds.hspy", "--dwell-us", 20_000, "--session", "gone"),
            *("--acquisition", service.acquisition),
        )
        try:
            wait_for(lambda: service.metric("livestem_tiles_received_total") >= 4)
        finally:
            assert end(sender, signal.SIGKILL) == -signal.SIGKILL
        wait_for(lambda: service.metric("livestem_scans_total") == 1, 30)
        assert service.metric("livestem_scans_total", status="complete") == 0
        service.assert_well()


def test_listen_leaves_quietly(service: Service):
    listener = start("listen", "--results", service.results)
    try:
        wait_for(lambda: service.metric("livestem_subscriptions") >= 1)
        listener.send_signal(signal.SIGINT)
        assert listener.wait(20) == 0
        assert listener.stderr is not None and listener.stderr.read() == "livestem: stopped\n"
    finally:
        end(listener)


def test_listen_for_a_number_of_scans_says_that_they_have_not_come(service: Service):
    wait_for(lambda: service.metric("livestem_subscriptions") == 0)  # the one before has left
    listener = start("listen", "--results", service.results, "--scans", 3, "--no-history")
    try:
        wait_for(lambda: service.metric("livestem_subscriptions") >= 1)
        listener.send_signal(signal.SIGTERM)
        assert listener.wait(20) == 130
        assert listener.stderr is not None
        assert listener.stderr.read() == "livestem: stopped; fewer than 3 scans have finished\n"
    finally:
        end(listener)


def test_watch_and_the_instrument_that_waits_leave_quietly(service: Service, tmp_path: Path):
    instrument = start("simulate", "--requests", "--frames", 0, "--acquisition", service.acquisition)
    try:
        assert instrument.stdout is not None and "scans on request" in instrument.stdout.readline()
    finally:
        assert end(instrument, signal.SIGTERM) == 0
    watcher = start("watch", tmp_path, "--acquisition", service.acquisition)
    try:
        assert watcher.stderr is not None and watcher.stderr.readline().startswith("watching")
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(20) == 0 and watcher.stderr.read() == "livestem: stopped\n"
    finally:
        end(watcher)


def test_a_source_that_pauses_and_beats_has_not_vanished(tmp_path: Path):
    """Drift correction, a refilled cryostat, coffee: the adapter is there, its beam is not."""
    (tmp_path / "serve.toml").write_text("vanish_s = 1.5\n")
    with (
        Service(tmp_path, "--config", tmp_path / "serve.toml") as service,
        Acquisition("pause", service.acquisition, recorded=True) as acquisition,
    ):
        acquisition.wait_for_service(20)
        with acquisition.start_scan(PLAN, "paused") as scan:
            scan.haadf(PICTURE, frame=0)
            time.sleep(4)
            for frame in range(1, 4):
                scan.haadf(PICTURE, frame=frame)
        acquisition.wait_acknowledged()
        result = json.loads((service.finished("pause", "paused") / "result.json").read_bytes())
    assert (result["coverage"], result["status"]) == ({"haadf": 1.0}, "complete")
