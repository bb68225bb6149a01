"""A recorded scan, end to end over real sockets: nothing lost, live first, then finals, then a result on disk."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Listener, Service, environment, run

pytestmark = [pytest.mark.system, pytest.mark.recordings]

COUNTS, FRAMES = 1_529_219, 20  # of the file, as RosettaSciIO reads it
MAPS = {f"{method}.{modality}" for method in ("ward", "louvain") for modality in ("haadf", "lines", "haadf+lines")}
KEYS = {
    *("format", "livestem", "session", "scan_id", "status", "coverage", "missing_tiles", "grid", "encoder"),
    *("parameters", "numerics", "classes", "agreement", "regions", "support_version", "input_digest", "digest"),
    *("timings_s", "warnings"),
}  # the design's contract
REGION_KEYS = {
    *("label", "name", "chips", "area_fraction", "counts", "atomic_percent", "atomic_percent_sigma"),
    *("extraneous_percent", "d_spacing_nm", "d_spacing_sigma_nm", "lattice_peaks", "crystallinity"),
}


class Heard:
    """One replay, and everything a subscriber and the store have of it."""

    def __init__(self, service: Service, folder: Path, lines: list[dict[str, Any]]) -> None:
        self.service, self.folder, self.lines = service, folder, lines
        self.result = json.loads((folder / "result.json").read_bytes())

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]


@pytest.fixture(scope="module")
def heard(service: Service, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Heard:
    with Listener(service, tmp_path_factory.mktemp("listen") / "lines.jsonl", "--scans", 1) as listener:
        file = recordings / "velox_superx_20frames.emd"
        folder = service.replay_fully(file, "--speed", "max", "--elements", "Ni,Cr,Fe,Nb", "--session", "first")
        lines = listener.until_done()
        assert listener.process.wait(20) == 0  # --scans 1: it leaves by itself
    return Heard(service, folder, lines)


def test_every_event_of_the_file_is_counted_in(heard: Heard):
    assert heard.service.metric("livestem_eds_counts_total") == COUNTS
    assert heard.result["counts"] == COUNTS
    assert heard.service.metric("livestem_rejected_total") == 0
    assert heard.service.metric("livestem_tiles_missing") == 0


def test_all_twenty_frames_arrive_whole(heard: Heard):
    assert heard.result["status"] == "complete"
    assert heard.result["coverage"] == {"haadf": 1.0, "eds": 1.0}
    assert heard.result["missing_tiles"] == []
    with sqlite3.connect(f"{(heard.folder / 'journal.sqlite').as_uri()}?mode=ro", uri=True) as db:
        frames = {row[0] for row in db.execute("SELECT DISTINCT frame FROM messages WHERE frame IS NOT NULL")}
    db.close()
    assert frames == set(range(FRAMES))
    assert all(0 <= line["frame"] < FRAMES for line in heard.of("live"))
    assert {line["frames"] for line in heard.of("live")} == {FRAMES}


def test_live_messages_come_before_finals(heard: Heard):
    kinds = [line["type"] for line in heard.lines]
    assert kinds.count("live") >= 1
    assert max(i for i, kind in enumerate(kinds) if kind == "live") < kinds.index("segmentation")
    revisions = [line["revision"] for line in heard.of("live")]
    assert revisions == sorted(set(revisions))
    counts = [line["counts"] for line in heard.of("live")]
    assert counts == sorted(counts) and counts[-1] <= COUNTS


def test_every_final_is_published_once_and_scan_done_is_last(heard: Heard):
    kinds = [line["type"] for line in heard.lines]
    assert sorted(f"{line['method']}.{line['modality']}" for line in heard.of("segmentation")) == sorted(MAPS)
    assert sorted(f"{line['method']}.{line['modality']}" for line in heard.of("descriptors")) == sorted(MAPS)
    assert kinds.count("agreement") == kinds.count("scan_done") == 1
    assert kinds[-1] == "scan_done"
    reliable = [line["seq"] for line in heard.lines if "seq" in line]
    assert reliable == list(range(1, len(reliable) + 1))


def test_what_is_published_is_what_is_stored(heard: Heard):
    (done,) = heard.of("scan_done")
    assert (done["digest"], done["input_digest"]) == (heard.result["digest"], heard.result["input_digest"])
    (agreed,) = heard.of("agreement")
    assert agreed["agreement"] == heard.result["agreement"]
    with np.load(heard.folder / "labels.npz", allow_pickle=False) as stored:
        assert set(stored.files) == MAPS
        for line in heard.of("segmentation"):
            labels = stored[f"{line['method']}.{line['modality']}"]
            assert labels.dtype == np.int16
            np.testing.assert_array_equal(labels, line["labels"])
    for line in heard.of("descriptors"):
        assert line["regions"] == heard.result["regions"][f"{line['method']}.{line['modality']}"]


def test_result_json_holds_the_contract(heard: Heard):
    result = heard.result
    assert KEYS <= set(result)
    assert {"rows", "cols", "chip_nm", "chip_px", "pixel_nm", "origin"} <= set(result["grid"])
    assert set(result["agreement"]) == {"ward", "louvain"}
    for pairs in result["agreement"].values():
        assert set(pairs) == {"haadf-lines", "haadf-haadf+lines", "lines-haadf+lines"}
        assert all(-1 <= ami <= 1.0 + 1e-12 for ami in pairs.values())
    assert set(result["regions"]) == set(result["classes"]) == MAPS
    for regions in result["regions"].values():
        assert regions and REGION_KEYS <= set(regions[0])
        assert sum(region["area_fraction"] for region in regions) == pytest.approx(1)


def test_the_composition_is_the_specimens(heard: Heard):
    """Nb-rich above, Cr and Fe below, as the file's description says."""
    regions = heard.result["regions"]["ward.haadf+lines"]
    rich = max(regions, key=lambda r: r["atomic_percent"]["Nb"])
    poor = min(regions, key=lambda r: r["atomic_percent"]["Nb"])
    assert rich["atomic_percent"]["Nb"] > 2 * poor["atomic_percent"]["Nb"]
    assert poor["atomic_percent"]["Cr"] > rich["atomic_percent"]["Cr"]
    labels = np.array(next(x["labels"] for x in heard.of("segmentation") if x["modality"] == "haadf+lines"))
    rows = {r["label"]: np.argwhere(labels == r["label"])[:, 0].mean() for r in (rich, poor)}
    assert rows[rich["label"]] < rows[poor["label"]]
    for region in regions:
        assert sum(region["atomic_percent"].values()) == pytest.approx(100)


def test_the_journal_is_one_file_that_holds_every_message(heard: Heard):
    names = {path.name for path in heard.folder.iterdir()}
    assert names == {"journal.sqlite", "result.hspy", "labels.npz", "chips.npz", "coverage.npz", "result.json"}
    with sqlite3.connect(f"{(heard.folder / 'journal.sqlite').as_uri()}?mode=ro", uri=True) as db:
        kinds = dict(db.execute("SELECT type, COUNT(*) FROM messages GROUP BY type").fetchall())
    db.close()
    assert kinds["scan_start"] == kinds["scan_end"] == 1
    assert kinds["haadf_tile"] >= FRAMES and kinds["eds_tile"] >= FRAMES


_OPEN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import hyperspy.api as hs
signals = hs.load(sys.argv[1])
signals = signals if isinstance(signals, list) else [signals]
out = []
for s in signals:
    axes = [(a.name, a.units, a.scale, a.offset, a.size) for a in s.axes_manager._axes]
    out.append([s.metadata.General.title, type(s).__name__, axes, float(s.data.sum())])
print(json.dumps(out))
"""


def test_hyperspy_opens_the_result_with_calibrated_axes(heard: Heard):
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(heard.folder / "result.hspy")],
        capture_output=True, text=True, timeout=60, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    signals = json.loads(done.stdout)
    images = [s for s in signals if s[1] != "EDSTEMSpectrum"]
    spectra = [s for s in signals if s[1] == "EDSTEMSpectrum"]
    haadf = next(s for s in images if "haadf" in s[0].casefold() and [a[4] for a in s[2]][-2:] == [50, 10])
    for _, units, scale, _, _ in haadf[2][-2:]:
        assert units == "nm" and scale == pytest.approx(1.234, abs=0.001)
    chips = [s for s in images if [a[4] for a in s[2]][-2:] == [12, 2]]
    assert len(chips) >= len(MAPS)
    for _, units, scale, _, _ in (axis for s in chips for axis in s[2][-2:]):
        assert units == "nm" and scale == pytest.approx(heard.result["grid"]["chip_nm"], abs=1e-6)
    assert len(spectra) >= len(MAPS)
    for _, units, scale, offset, size in (s[2][-1] for s in spectra):
        assert (units, size) == ("keV", 4096)
        assert scale == pytest.approx(0.005, rel=1e-3) and offset == pytest.approx(-1.0, abs=0.01)


def test_a_late_listener_gets_the_finals_from_the_snapshot(heard: Heard):
    late = run("listen", "--json", "--results", heard.service.results, "--scans", 1, "--wait", 10, timeout=60)
    assert late.returncode == 0, late.stderr
    reliable = [line for line in heard.lines if "seq" in line]
    again = [line for line in map(json.loads, late.stdout.splitlines()) if "seq" in line]
    assert again == reliable


def test_a_listener_may_leave_after_the_first_line(heard: Heard):
    command = f"{sys.executable} -m livestem.cli listen --results {heard.service.results} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_the_same_scan_once_more_in_one_session_is_known(heard: Heard, recordings: Path):
    before = heard.service.metric("livestem_eds_counts_total")
    file = recordings / "velox_superx_20frames.emd"
    flags = ("--speed", "max", "--elements", "Ni,Cr,Fe,Nb", "--session", "first")
    again = heard.service.replay(file, *flags)
    assert again.returncode == 0, again.stderr
    assert "already complete" in again.stdout
    assert heard.service.metric("livestem_eds_counts_total") == before
    other = heard.service.replay(file, *flags[:3], "Ni,Nb", *flags[4:])
    assert other.returncode == 1 and "--session" in other.stderr
    assert json.loads((heard.folder / "result.json").read_bytes()) == heard.result
    heard.service.assert_well()
