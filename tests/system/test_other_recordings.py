"""The other real recordings, each for what is hard about it: pairs, EDS alone, clipped, tiny, and 15 GB if dense."""

from __future__ import annotations

import json
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from processes import Service, end, run, start

pytestmark = [pytest.mark.system, pytest.mark.recordings]

GIB = 2**30


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    return found


def _batch(out: Path, *arguments: object) -> dict[str, Any]:
    done = run("batch", *arguments, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return _result(out)


SIO2 = ("--chip-px", 4, "--elements", "C,O,Si,Cu")


@pytest.fixture(scope="module")
def sio2(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("sio2") / "result"
    return _batch(out, "--haadf", recordings / "sio2_haadf.hspy", "--eds", recordings / "sio2_eds.hspy", *SIO2)


def test_sio2_regions_differ_in_silicon_by_more_than_five_sigma(sio2: dict[str, Any]):
    regions = sio2["regions"]["ward.haadf+lines"]
    assert len({region["name"] for region in regions}) == len(regions) >= 2
    apart = [
        abs(a["atomic_percent"]["Si"] - b["atomic_percent"]["Si"])
        / math.hypot(a["atomic_percent_sigma"]["Si"], b["atomic_percent_sigma"]["Si"])
        for i, a in enumerate(regions)
        for b in regions[:i]
    ]
    assert max(apart) > 5
    assert sio2["counts"] == 823_049


def test_sio2_as_two_paths_in_any_order_is_the_same_scan(service: Service, recordings: Path, sio2: dict[str, Any]):
    files = (recordings / "sio2_eds.hspy", recordings / "sio2_haadf.hspy")
    live = _result(service.replay_fully(*files, "--speed", "max", *SIO2))
    assert (live["scan_id"], live["input_digest"], live["digest"]) == (
        sio2["scan_id"], sio2["input_digest"], sio2["digest"],
    )  # fmt: skip


def test_eds_alone_has_no_haadf_anywhere(service: Service, recordings: Path):
    folder = service.replay_fully(recordings / "minerals_eds.hspy", "--speed", "max", "--session", "eds-only")
    result = _result(folder)
    assert result["counts"] == 716_887
    assert set(result["coverage"]) == {"eds"}
    assert set(result["regions"]) == {"ward.lines", "louvain.lines"}
    assert set(result["classes"]) == set(result["regions"])
    for region in (r for regions in result["regions"].values() for r in regions):
        assert region["haadf_mean"] is None and region["d_spacing_nm"] is None  # its notes say why
        assert region["chips"] > 0 and region["counts"] > 0
    assert result["agreement"] == {"ward": {}, "louvain": {}}
    with np.load(folder / "labels.npz") as labels:
        assert set(labels.files) == {"ward.lines", "louvain.lines"}


def test_a_clipped_detector_is_a_warning_and_the_scan_completes(recordings: Path, tmp_path: Path):
    done = run("batch", recordings / "bruker_tem.bcf", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "clipped" in done.stderr
    result = _result(tmp_path / "out")
    assert result["status"] == "complete"
    assert any("clipped" in warning for warning in result["warnings"])


def test_the_smallest_recording_completes_live(service: Service, recordings: Path):
    result = _result(service.replay_fully(recordings / "velox_v11_16x16.emd", "--speed", "max"))
    assert result["status"] == "complete"
    assert result["coverage"] == {"haadf": 1.0, "eds": 1.0}


def test_umlauts_and_spaces_in_a_path_are_nothing_special(recordings: Path, tmp_path: Path):
    folder = tmp_path / "Präparat Nr. 7 (µm) 試料"
    folder.mkdir()
    file = shutil.copy(recordings / "velox_v11_16x16.emd", folder / "größtes Bild.emd")
    done = run("batch", file, "--out", folder / "Ergebnis für Ö")
    assert done.returncode == 0, done.stderr
    assert _result(folder / "Ergebnis für Ö")["source"] == "größtes Bild.emd"


class _Peak(threading.Thread):
    """Watches the resident memory of one process."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self._over, self.bytes = psutil.Process(pid), threading.Event(), 0
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.02):
            try:
                self.bytes = max(self.bytes, self._process.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.bytes


def test_the_jeol_scan_never_takes_two_gibibytes(service: Service, recordings: Path):
    """14 frames of 512 x 512 x 4096: 15 GB dense, about 1 count a pixel in truth."""
    flags = ("--speed", "max", "--session", "jeol", "--acquisition", service.acquisition)
    sender = start("replay", recordings / "jeol_view000", *flags)
    peaks = {"replay": _Peak(sender.pid), "serve": _Peak(service.process.pid)}
    try:
        out, err = sender.communicate(timeout=120)
        assert sender.returncode == 0, err
        scan_id = next((service.store / "jeol").iterdir()).name
        folder = service.finished("jeol", scan_id)
    finally:
        end(sender)
        taken = {name: peak.stop() for name, peak in peaks.items()}
    for name, most in taken.items():
        print(f"peak resident memory of {name}: {most // 2**20} MiB")  # pytest -rP shows it
        assert 50 * 2**20 < most < 2 * GIB, (name, most)
    result = _result(folder)
    assert result["status"] == "complete"
    assert result["coverage"] == {"haadf": 1.0, "eds": 1.0}
    assert f"{result['counts']} EDS counts" in out
