"""A disk that runs full in the middle of a scan, for real: a small file system in memory, and ballast that fills it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from processes import Service, wait_for

from livestem.client import Acquisition, Haadf, Sampling, ScanPlan, ScanWriter
from livestem.domain.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.system

SIDE, FRAMES = 256, 24  # 3 MiB of pictures that do not compress
PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(SIDE, SIDE), pixel_nm=(1.0, 1.0)), dtype="<u2"), frames=FRAMES)
PICTURES = np.random.default_rng(0).integers(0, 60000, (FRAMES, SIDE, SIDE)).astype("<u2")
SHORT = msgspec.structs.replace(DEFAULT_LIMITS, unacknowledged_bytes=512 * 1024)  # four frames: then a source waits

# Mounts where only this process and its children see it, and fills and empties it when files appear outside.
_INSIDE = """
mount -t tmpfs -o size=24m none "$0/disk" || exit 3
(
    until [ -e "$0/fill" ]; do sleep 0.1; done
    dd if=/dev/zero of="$0/disk/ballast" bs=4096 2>/dev/null
    touch "$0/filled"
    until [ -e "$0/empty" ]; do sleep 0.1; done
    rm "$0/disk/ballast"
) &
exec "$@"
"""


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Service]:
    """A service whose store is on a disk of its own; `full.folder` takes ``fill`` and ``empty``."""
    (tmp_path / "disk").mkdir()
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here without being root: no `unshare -rm`")
    (tmp_path / "serve.toml").write_text("[limits]\nfree_disk_bytes = 0\n")
    within = ("unshare", "-rm", "sh", "-c", _INSIDE, str(tmp_path))
    flags = ("--config", tmp_path / "serve.toml")
    with Service(tmp_path, *flags, store=tmp_path / "disk" / "store", within=within) as running:
        yield running


def seen_inside(service: Service) -> Path:
    """Return the store as the service sees it."""
    return Path(f"/proc/{service.process.pid}/root") / service.store.relative_to("/")


def send(scan: ScanWriter, frames: range) -> None:
    for frame in frames:
        scan.haadf(PICTURES[frame], frame=frame)


def result_of(service: Service, folder: Path) -> dict[str, object]:
    wait_for((folder / "result.json").is_file, otherwise=service.words())
    return json.loads((folder / "result.json").read_bytes())


def test_a_scan_waits_out_a_full_disk_and_has_the_same_digest(full: Service, service: Service):
    with Acquisition("one", service.acquisition, recorded=True) as clean:
        clean.wait_for_service(20)
        with clean.start_scan(PLAN, "scan") as scan:
            send(scan, range(FRAMES))
        clean.wait_acknowledged()
        wanted = result_of(service, service.store / "one" / "scan")
    with Acquisition("one", full.acquisition, recorded=True, limits=SHORT) as acquisition:
        acquisition.wait_for_service(20)
        scan = acquisition.start_scan(PLAN, "scan")
        send(scan, range(8))
        acquisition.wait_acknowledged()
        (full.folder / "fill").touch()
        wait_for((full.folder / "filled").exists)
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
        (full.folder / "empty").touch()
        rest.join(60)
        acquisition.wait_acknowledged()
    found = result_of(full, seen_inside(full) / "one" / "scan")
    wait_for(lambda: "recovered: store" in full.words(), otherwise=full.words())
    assert [found[k] for k in ("status", "digest", "input_digest")] == [
        wanted[k] for k in ("status", "digest", "input_digest")
    ]
    wait_for(lambda: full.health()[1]["status"] == "ok", otherwise=full.words())
