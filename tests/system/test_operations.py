"""A service as its supervisor sees it: told from start to end how it is, one JSON object a line, whatever is sent."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from processes import Service, end, wait_for

from livestem.client import Acquisition, Haadf, Sampling, ScanPlan

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and sockets as POSIX has them"),
]

NASTY = '\r\n{"event": "ready"}\n\x1b[2J"} livestem_evil 1\n'
PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(64, 64), pixel_nm=(1.0, 1.0)), dtype="<u2"), sample=NASTY)


def test_a_supervised_service_tells_how_it_is_from_its_start_to_its_end(tmp_path: Path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Service(tmp_path, "--log-format", "json") as service:
            assert manager.recv(100) == b"READY=1"
            assert manager.recv(100) == b"WATCHDOG=1"
            with Acquisition("evil", service.acquisition, recorded=True) as acquisition:
                acquisition.wait_for_service(20)
                scan = acquisition.start_scan(PLAN, "scan_total")
                scan.haadf(np.ones((64, 64), "<u2"))
                scan.end("aborted", reason=NASTY)
                acquisition.wait_acknowledged()
                wait_for(lambda: '"scan_done"' in service.words())
            assert service.metric("livestem_scans_total", status="aborted") == 1
            with urllib.request.urlopen(f"http://127.0.0.1:{service.http}/metrics", timeout=10) as answer:
                metrics = answer.read().decode()
            assert end(service.process, signal.SIGTERM) == 0
        words = [manager.recv(100)]
        while words[-1] != b"STOPPING=1":
            words.append(manager.recv(100))
        assert set(words) <= {b"WATCHDOG=1", b"STOPPING=1"}
    assert not re.search(r"evil|scan_total[\"'}]|\x1b", metrics), "what a peer says is no label and no line"
    lines = [json.loads(line) for line in service.words().splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    events = [line["event"] for line in lines if line["event"] != "log"]
    assert events == ["ready", "attached", "scan_accepted", "scan_done", "stopping", "stopped"]
    assert lines[[line["event"] for line in lines].index("scan_done")]["status"] == "aborted"
