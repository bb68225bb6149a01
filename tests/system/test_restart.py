"""`kill -9` of the service at any moment of a scan, start again: the same final digest, and the same for a follower."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Listener, Service, end, run, wait_for

from livestem.client import Acquisition, Haadf, Sampling, ScanPlan, ScanWriter

pytestmark = pytest.mark.system

SIDE, FRAMES, ROWS = 64, 6, 8
SEED = 20261123  # of the moments
PICTURES = np.random.default_rng(0).normal(100, 9, (FRAMES, SIDE, SIDE)).astype("<f4")  # float: its sum has an order


def plan(scan: str) -> ScanPlan:
    sampling = Sampling(shape=(SIDE, SIDE), pixel_nm=(1.0, 1.0))
    return ScanPlan(haadf=Haadf(sampling=sampling, dtype="<f4"), frames=FRAMES, sample=scan)


def send(scan: ScanWriter, pause_s: float = 0.0) -> None:
    """Hand over a whole scan in bands, slowly if asked, and end it."""
    for frame in range(FRAMES):
        for y in range(0, SIDE, ROWS):
            scan.haadf(PICTURES[frame, y : y + ROWS], frame=frame, y=y)
            time.sleep(pause_s)
    scan.end()


def outcome(folder: Path) -> tuple[Any, ...]:
    result = json.loads((folder / "result.json").read_bytes())
    return result["status"], result["digest"], result["input_digest"], result["coverage"]


@pytest.fixture(scope="module")
def wanted(service: Service) -> tuple[Any, ...]:
    """What a scan gives that nobody disturbs."""
    with Acquisition("calm", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        send(acquisition.start_scan(plan("calm"), "scan"))
        acquisition.wait_acknowledged()
        return outcome(service.finished("calm", "scan"))


class Killed:
    """A service that is killed and started again, with the same store and the same ports."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.starts = folder, 1
        self.service = Service(folder / "1")

    def kill(self) -> None:
        assert end(self.service.process, signal.SIGKILL) == -signal.SIGKILL
        self.starts += 1
        self.service = Service(self.folder / str(self.starts), after=self.service)


@pytest.fixture
def killed(tmp_path: Path):
    it = Killed(tmp_path)
    yield it
    assert end(it.service.process) == 0
    assert "Traceback" not in it.service.words()


def at_once(scan: ScanWriter, killed: Killed, rng: np.random.Generator) -> None:
    """Its start is known, nothing of it has come."""


def in_mid_scan(scan: ScanWriter, killed: Killed, rng: np.random.Generator) -> None:
    some = int(rng.integers(1, FRAMES * SIDE // ROWS))
    wait_for(lambda: killed.service.metric("livestem_tiles_received_total") >= some)


def at_its_end(scan: ScanWriter, killed: Killed, rng: np.random.Generator) -> None:
    """Its end is stored, its finals wait, are computed, written or published: they take some tenths of a second."""
    wait_for(lambda: scan._ended)
    time.sleep(float(rng.uniform(0.0, 0.6)))


def test_killed_at_any_moment_the_digest_is_the_same(killed: Killed, wanted: tuple[Any, ...]):
    """One scan after the other in one session, the service killed once in each; a follower hears of every one."""
    rng = np.random.default_rng(SEED)
    moments = (at_once, in_mid_scan, at_its_end, at_its_end)
    with (
        Listener(killed.service, killed.folder / "heard.jsonl") as follower,
        Acquisition("sitting", killed.service.acquisition, recorded=True) as acquisition,
    ):
        acquisition.wait_for_service(20)
        for number, moment in enumerate(moments):
            scan = acquisition.start_scan(plan("calm"), f"scan-{number}")
            sender = threading.Thread(target=send, args=(scan, 0.005))
            sender.start()
            moment(scan, killed, rng)
            killed.kill()
            sender.join(60)
            acquisition.wait_acknowledged()
            folder = killed.service.finished("sitting", scan.scan_id)
            assert outcome(folder) == wanted, (number, killed.service.words())
        done = wait_for(lambda: (d := ended(follower)).keys() == {f"scan-{n}" for n in range(4)} and d)
    assert set(done.values()) == {wanted[1]}
    assert len(list(folder.parent.iterdir())) == len(moments), "nothing was begun anew"


def ended(follower: Listener) -> dict[str, str]:
    """Return the digests of the scans that a follower has heard the end of."""
    return {x["scan_id"]: x["digest"] for x in follower.lines() if x["type"] == "scan_done"}


def test_a_scan_that_its_sender_left_is_finished_with_what_there_is(tmp_path: Path):
    """The service is killed, and the instrument never comes back; a copy made in between replays to the same."""
    (tmp_path / "serve.toml").write_text("vanish_s = 2.0\n")
    flags = ("--config", tmp_path / "serve.toml")
    with Service(tmp_path / "1", *flags) as first, Acquisition("gone", first.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        scan = acquisition.start_scan(plan("gone"), "scan")
        scan.haadf(PICTURES[0])
        acquisition.wait_acknowledged()
        copied = run("store", "backup", "--all", tmp_path / "copy", "--store", first.store)
        assert copied.returncode == 0, copied.stderr
        end(first.process, signal.SIGKILL)
    with Service(tmp_path / "2", *flags, after=first) as second:
        folder = second.finished("gone", "scan")
        journal = tmp_path / "copy" / "gone" / "scan" / "journal.sqlite"
        replayed = second.replay(journal, "--session", "copied", "--speed", "max")
        assert replayed.returncode == 0 and "no scan_end" in replayed.stderr, replayed.stderr
        again = outcome(second.finished("copied", "scan"))
        second.assert_well()
    assert again == outcome(folder)
    result = json.loads((folder / "result.json").read_bytes())
    assert (result["status"], result["coverage"]) == ("incomplete", {"haadf": 1 / FRAMES})
    assert "is resumed with" in second.words() and "vanished" in result["reason"]


def test_an_incomplete_scan_that_is_sent_again_is_made_whole(tmp_path: Path, wanted: tuple[Any, ...]):
    """In the same session, with the same plan: what it had is kept, what it lacked is added, its result replaced."""
    (tmp_path / "serve.toml").write_text("vanish_s = 2.0\n")
    with Service(tmp_path, "--config", tmp_path / "serve.toml") as service:
        for whole in (False, True):
            with Acquisition("again", service.acquisition, recorded=True) as acquisition:
                acquisition.wait_for_service(20)
                scan = acquisition.start_scan(plan("calm"), "scan")
                if whole:
                    assert scan.verdict is not None and scan.verdict.facts["kept"] == 2
                    send(scan)
                else:
                    scan.haadf(PICTURES[0, :ROWS]), scan.haadf(PICTURES[3, ROWS : 2 * ROWS], frame=3, y=ROWS)
                acquisition.wait_acknowledged()
            if not whole:
                folder = service.finished("again", "scan")
                assert outcome(folder)[0] == "incomplete"
        wait_for(lambda: outcome(folder)[0] == "complete", otherwise=service.words())
        service.finished("again", "scan")
        service.assert_well()
    assert outcome(folder) == wanted
