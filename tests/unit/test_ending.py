"""A command that is told to stop: regular or unfinished, at once at the second word, and never late to store."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest
from test_monitoring import Source

from livestem.cli import ending
from livestem.cli.__main__ import app
from livestem.client import Acquisition, Endpoint, Subscriber
from livestem.client.replay import send_scan
from livestem.domain.errors import DiskFullError
from livestem.runtime import finisher
from livestem.runtime import segmenter as service
from livestem.runtime.settings import Http, Settings
from livestem.wire import messages as m
from ports import free_pairs

PATIENCE_S = 30.0


def test_an_interruption_is_regular_or_unfinished(capsys):
    with ending.regular():
        raise KeyboardInterrupt
    with ending.regular(), ending.unfinished("half of it is kept"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "livestem: stopped\nlivestem: stopped; half of it is kept\n"
    with (
        pytest.raises(ending.StoppedError, match=r"^stopped; half of it is kept$"),
        ending.unfinished("half of it is kept"),
    ):
        raise KeyboardInterrupt
    with pytest.raises(KeyError), ending.regular(), ending.unfinished("x"):
        raise KeyError


def test_serve_that_is_stopped_while_it_starts_has_ended_regularly(monkeypatch, tmp_path):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(service, "Segmenter", interrupted)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert not app(["serve", "--store", str(tmp_path)], standalone_mode=False)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


SLOW = """
import sys, time
from livestem.cli import ending
from livestem.cli.__main__ import app
stop = getattr(ending, sys.argv[1])()
try:
    print("ready", flush=True)
    if stop is None:
        time.sleep(60)
    stop.wait(60)
finally:
    print("draining", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("way", ["interrupt_on_signals", "stop_on_signals"])
def test_the_second_signal_does_not_wait(way):
    with subprocess.Popen([sys.executable, "-c", SLOW, way], stdout=subprocess.PIPE, text=True) as command:
        try:
            assert command.stdout is not None and command.stdout.readline() == "ready\n"
            command.send_signal(signal.SIGTERM)
            assert command.stdout.readline() == "draining\n"
            command.send_signal(signal.SIGINT)
            assert command.wait(PATIENCE_S) == ending.INTERRUPTED
        finally:
            command.kill()


def test_finals_that_outlast_the_drain_are_left_and_never_stored_late(monkeypatch, tmp_path, caplog):
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    conclude = finisher.conclude

    def slowly(*arguments: object) -> object:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        try:
            return conclude(*arguments)
        finally:
            done.set()

    monkeypatch.setattr(finisher, "conclude", slowly)
    data, results = free_pairs(2)
    settings = Settings(
        acquisition=(Endpoint(f"tcp://127.0.0.1:{data}"),),
        results=Endpoint(f"tcp://127.0.0.1:{results}"),
        http=Http(port=0),
        store=str(tmp_path / "store"),
        drain_s=0.0,
    )
    segmenter = service.Segmenter(settings)
    with Acquisition("s", settings.acquisition[0], recorded=True) as source:
        source.wait_for_service(PATIENCE_S)
        send_scan(source, Source(), speed=None)
        assert begun.wait(PATIENCE_S)
    (finals,) = [thread for thread in threading.enumerate() if thread.name == "finals"]
    segmenter.close()
    left = [record for record in caplog.records if getattr(record, "event", "") == "finals_left"]
    assert [record.fields for record in left] == [{"scans": 1}]
    go_on.set()
    finals.join(PATIENCE_S)
    assert done.is_set() and not finals.is_alive()
    (folder,) = (tmp_path / "store" / "s").iterdir()
    assert [path.name for path in folder.iterdir()] == ["journal.sqlite"]
    monkeypatch.setattr(finisher, "conclude", conclude)
    again = service.Segmenter(settings)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (folder / "result.json").exists():
            assert time.monotonic() < deadline, "the next start does not make them"
            time.sleep(0.05)
    finally:
        again.close()


def test_finals_wait_out_a_full_disk(monkeypatch, tmp_path):
    """Writing the result fails twice, keeping its messages once: the scan is not failed, and nothing is told twice."""
    write, keep, failed = finisher.write_result, service.Store.keep_results, []

    def full(*arguments: object, of: object, times: int) -> None:
        if failed.count(of) < times:
            failed.append(of)
            raise DiskFullError("its disk is full; make room there")
        of(*arguments)

    monkeypatch.setattr(finisher, "RETRY_S", 0.01)
    monkeypatch.setattr(finisher, "write_result", lambda *a: full(*a, of=write, times=2))
    monkeypatch.setattr(service.Store, "keep_results", lambda *a: full(*a, of=keep, times=1))
    data, results = free_pairs(2)
    settings = Settings(
        acquisition=(Endpoint(f"tcp://127.0.0.1:{data}"),),
        results=Endpoint(f"tcp://127.0.0.1:{results}"),
        http=Http(port=0),
        store=str(tmp_path / "store"),
    )
    heard = []
    segmenter = service.Segmenter(settings)
    try:
        with (
            Subscriber(settings.results) as subscriber,
            Acquisition("s", settings.acquisition[0], recorded=True) as source,
        ):
            source.wait_for_service(PATIENCE_S)
            subscriber.wait_subscribed(PATIENCE_S)
            send_scan(source, Source(), speed=None)
            while not heard or not isinstance(heard[-1], m.ScanDone):
                message = subscriber.receive(PATIENCE_S)
                assert message is not None
                heard.append(message.header)
        assert failed == [write, write, keep]
        assert heard[-1].status == "complete" and segmenter.monitor.health().ok
        assert sum(isinstance(x, m.Agreement) for x in heard) == 1
        assert segmenter.store.known("s", Source.scan_id).status == "complete"
    finally:
        segmenter.close()
