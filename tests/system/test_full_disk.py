"""A disk that runs full in the middle of a scan, for real: a small file system in memory, and ballast that fills it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from processes import Service, end, start, wait_for

from livestem.client import Acquisition, Haadf, Sampling, ScanPlan, ScanWriter
from livestem.domain.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.system

SIDE, FRAMES = 256, 24  # 3 MiB of pictures that do not compress
PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(SIDE, SIDE), pixel_nm=(1.0, 1.0)), dtype="<u2"), frames=FRAMES)
PICTURES = np.random.default_rng(0).integers(0, 60000, (FRAMES, SIDE, SIDE)).astype("<u2")
SHORT = msgspec.structs.replace(DEFAULT_LIMITS, unacknowledged_bytes=512 * 1024)  # four frames: then a source waits


class Disk:
    """A small disk that only we and our children see, mounted for as long as a process of its own lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        mounted = 'mount -t tmpfs -o size=24m none "$0" && echo mounted && exec sleep 600'
        self._holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", mounted, str(folder)], stdout=subprocess.PIPE, encoding="utf-8"
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline() == "mounted\n"
        self.within = ("nsenter", "-t", str(self._holder.pid), "-U", "-m", "--preserve-credentials")

    @property
    def seen(self) -> Path:
        """The folder as seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root") / self.folder.relative_to("/")

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.seen / "ballast").open("ab", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(bytes(4096))

    def empty(self) -> None:
        """Make room."""
        (self.seen / "ballast").unlink()

    def close(self) -> None:
        end(self._holder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    lacks = any(shutil.which(name) is None for name in ("unshare", "nsenter"))
    if lacks or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here without being root: no `unshare -rm`")
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


@pytest.fixture
def full(tmp_path: Path, disk: Disk) -> Iterator[Service]:
    """A service whose store is on a disk of its own."""
    (tmp_path / "serve.toml").write_text("[limits]\nfree_disk_bytes = 0\n")
    flags = ("--config", tmp_path / "serve.toml")
    with Service(tmp_path, *flags, store=disk.folder / "store", within=disk.within) as running:
        yield running


def send(scan: ScanWriter, frames: range) -> None:
    for frame in frames:
        scan.haadf(PICTURES[frame], frame=frame)


def result_of(service: Service, folder: Path) -> dict[str, object]:
    wait_for((folder / "result.json").is_file, otherwise=service.words())
    return json.loads((folder / "result.json").read_bytes())


def facts(result: dict[str, object]) -> list[object]:
    return [result[key] for key in ("status", "digest", "input_digest")]


def undisturbed(service: Service) -> list[object]:
    """Return what a scan has for its result where nothing happens."""
    with Acquisition("one", service.acquisition, recorded=True) as clean:
        clean.wait_for_service(20)
        with clean.start_scan(PLAN, "scan") as scan:
            send(scan, range(FRAMES))
        clean.wait_acknowledged()
        return facts(result_of(service, service.store / "one" / "scan"))


def test_a_scan_waits_out_a_full_disk_and_has_the_same_digest(full: Service, disk: Disk, service: Service):
    wanted = undisturbed(service)
    with Acquisition("one", full.acquisition, recorded=True, limits=SHORT) as acquisition:
        acquisition.wait_for_service(20)
        scan = acquisition.start_scan(PLAN, "scan")
        send(scan, range(8))
        acquisition.wait_acknowledged()
        disk.fill()
        rest = threading.Thread(target=lambda: (send(scan, range(8, FRAMES)), scan.end()))
        rest.start()
        wait_for(lambda: "store" in full.health()[1]["reasons"], otherwise=full.words())
        assert (full.metric("livestem_degraded", reason="store"), full.metric("livestem_ready")) == (1, 0)
        buffer = acquisition._publisher.buffer
        wait_for(lambda: buffer.unacknowledged_bytes >= SHORT.unacknowledged_bytes)
        assert rest.is_alive(), "the source waits with its data"
        wait_for(lambda: "its disk is full" in full.words())
        acknowledged = buffer.acknowledged
        assert acknowledged < 2 + FRAMES
        assert full.words().count("its disk is full") == 1, "said once, loudly"
        disk.empty()
        rest.join(60)
        acquisition.wait_acknowledged()
    found = result_of(full, disk.seen / "store" / "one" / "scan")
    wait_for(lambda: "recovered: store" in full.words(), otherwise=full.words())
    assert facts(found) == wanted
    wait_for(lambda: full.health()[1]["status"] == "ok", otherwise=full.words())


def store(disk: Disk, *arguments: object) -> str:
    """Run a ``livestem store`` command on the disk; return what it says."""
    with start("store", *arguments, "--store", disk.folder / "store", within=disk.within) as running:
        said, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    return said


def waits(full: Service) -> bool:
    """Return whether a service that was just started answers that it has no room; it may not leave."""
    assert full.process.poll() is None, full.words()
    try:
        return full.health()[1]["reasons"].keys() == {"store"}
    except OSError:
        return False


def started_again(full: Service, disk: Disk, how: signal.Signals) -> None:
    """End a service on a full disk, and start it there; it says what it needs once, and waits."""
    disk.fill()
    assert end(full.process, how) == (0 if how == signal.SIGTERM else -how), full.words()
    disk.fill()
    said = full.words().count("its disk is full; make room there")
    full.launch()
    wait_for(lambda: waits(full), otherwise=full.words())
    assert full.words().count("its disk is full; make room there") == said + 1, "said once"


def test_a_start_on_a_full_disk_waits_for_room_and_prune_makes_it(full: Service, disk: Disk, service: Service):
    wanted = undisturbed(service)
    with Acquisition("one", full.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(PLAN, "over") as scan:
            send(scan, range(FRAMES))
        acquisition.wait_acknowledged()
        result_of(full, disk.seen / "store" / "one" / "over")
        scan = acquisition.start_scan(PLAN, "scan")
        send(scan, range(8))
        acquisition.wait_acknowledged()
        started_again(full, disk, signal.SIGKILL)
        listed = {s["scan_id"]: s["status"] for s in json.loads(store(disk, "list", "--json"))}
        assert listed == {"over": "complete", "scan": "open"}
        assert "removed one/over complete" in store(disk, "prune", "--older-than", "0h", "--yes")
        wait_for(lambda: "scan scan is resumed with 8 tiles" in full.words(), otherwise=full.words())
        started_again(full, disk, signal.SIGTERM)  # one that runs
        assert "scan" in store(disk, "list")
        started_again(full, disk, signal.SIGTERM)  # one that waits
        assert "another" not in full.words(), "its open scans are in this store"
        disk.empty()
        full.wait_ready()
        send(scan, range(8, FRAMES))
        scan.end()
        acquisition.wait_acknowledged()
        assert facts(result_of(full, disk.seen / "store" / "one" / "scan")) == wanted
    assert "Traceback" not in full.words()
