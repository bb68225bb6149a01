"""What a new user has: no recordings, no weights, no terminal. The simulator, the demo, and ``watch``."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import Listener, Service, end, run, start, wait_for

pytestmark = pytest.mark.system

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_virtual_microscope_is_segmented_live(service: Service, tmp_path: Path):
    truth = tmp_path / "truth"
    with Listener(service, tmp_path / "lines.jsonl", "--scans", 1) as listener:
        done = run(
            *("simulate", "--frames", 2, "--speed", "max", "--session", "virtual", "--truth", truth),
            *("--acquisition", service.acquisition),
        )
        assert done.returncode == 0, done.stderr
        lines = listener.until_done()
    counts = int(re.search(r"(\d+) EDS counts", done.stdout)[1])  # type: ignore[index]
    assert lines[-1]["status"] == "complete"
    folder = service.finished("virtual", lines[-1]["scan_id"])
    result = json.loads((folder / "result.json").read_bytes())
    assert result["counts"] == counts > 0
    assert result["coverage"] == {"haadf": 1.0, "eds": 1.0}
    assert truth.with_suffix(".npz").is_file() and truth.with_suffix(".json").is_file()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.CompletedProcess[str], Path]]:
    out = tmp_path_factory.mktemp("demo") / "out"
    yield run("demo", "--frames", 2, "--speed", "max", "--out", out), out


def test_the_demo_ends_with_a_table_and_a_picture(demo: tuple[subprocess.CompletedProcess[str], Path]):
    done, out = demo
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nothing to complain about, and no progress bar where no terminal is
    assert (out / "overview.png").read_bytes().startswith(PNG)
    assert (out / "overview.png").stat().st_size > 10_000
    for word in ("AMI against truth", "fewshot", "ward", "louvain", "haadf+lines", "composition, at.%", "d, nm"):
        assert word in done.stdout
    scores = re.findall(r"haadf\+lines\s*\S?\s*\d+\s*\S?\s*([01]\.\d+)", done.stdout)
    assert scores and max(map(float, scores)) > 0.8  # three layers and a disordered region, seen in two frames


def test_the_demo_leaves_a_whole_result_folder(demo: tuple[subprocess.CompletedProcess[str], Path]):
    _, out = demo
    (result,) = (out / "store").rglob("result.json")
    found = json.loads(result.read_bytes())
    assert found["status"] == "complete" and found["support_version"]
    with np.load(result.with_name("labels.npz")) as labels:
        assert "fewshot.haadf+lines.scores" in labels.files
    assert not list(out.rglob("*-wal"))


# --- watch ------------------------------------------------------------------------------------------------


def test_watch_publishes_each_file_once_when_it_is_complete(service: Service, written: Path, tmp_path: Path):
    watched = tmp_path / "vendor saves here"
    watched.mkdir()
    whole = written / "eds.hspy"
    shutil.copy(whole, watched / "old.hspy")  # there before: not published without --existing
    content = whole.read_bytes()
    log = tmp_path / "watch.log"
    with log.open("w") as out:
        watcher = start(
            *("watch", watched, "--settle", 1, "--session", "watched", "--elements", "Si,O,Fe"),
            *("--acquisition", service.acquisition),
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for(lambda: "watching" in log.read_text(), otherwise=log.read_text())
        (watched / "broken.hspy").write_bytes(content[: len(content) // 2])  # copied in part, and never finished
        with (watched / "new.hspy").open("wb") as slow:
            for start_at in range(0, len(content), len(content) // 8 + 1):
                slow.write(content[start_at : start_at + len(content) // 8 + 1])
                slow.flush()
                time.sleep(0.3)  # below --settle: never at rest until it is whole
        wait_for(lambda: "sent watched/" in log.read_text(), 30, log.read_text())
        wait_for(lambda: "skipped" in log.read_text(), 30, log.read_text())
        time.sleep(2.5)  # several polls more: nothing is published again
        words = log.read_text()
        assert words.count("sent watched/") == 1, words
        skipped = [line for line in words.splitlines() if "skipped" in line]
        assert len(skipped) == 1 and "broken.hspy" in skipped[0] and "Traceback" not in words
        assert "old.hspy" not in words and "new.hspy skipped" not in words
        assert watcher.poll() is None  # it goes on
        shutil.copy(written / "second.hspy", watched / "second.hspy")
        wait_for(lambda: log.read_text().count("sent watched/") == 2, 30, log.read_text())
    finally:
        code = end(watcher, signal.SIGINT)
    assert code == 0
    assert len(list((service.store / "watched").iterdir())) == 2
    service.assert_well()
