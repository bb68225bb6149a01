"""One scan, one digest: however its data came, at any speed, in any order, on any number of threads."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Service, run, wait_for

from livestem.client import Acquisition
from livestem.domain.parameters import Processing
from livestem.domain.tiles import Tile
from ports import free_pairs

pytestmark = [pytest.mark.system, pytest.mark.recordings]

ELEMENTS = ("Ni", "Cr", "Fe", "Nb")
FLAGS = ("--elements", ",".join(ELEMENTS))


class Batch:
    """The same file by ``livestem batch``: what every other way must agree with."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.file, self.folder = file, folder
        done = run("batch", file, *FLAGS, "--out", folder, env={"OMP_NUM_THREADS": "2"})
        assert done.returncode == 0, done.stderr
        self.result = json.loads((folder / "result.json").read_bytes())

    def assert_same(self, folder: Path) -> None:
        result = json.loads((folder / "result.json").read_bytes())
        assert result["coverage"] == {"haadf": 1.0, "eds": 1.0}
        assert result["input_digest"] == self.result["input_digest"]
        assert result["numerics"] == self.result["numerics"]
        assert result["digest"] == self.result["digest"]
        assert (folder / "labels.npz").read_bytes() == (self.folder / "labels.npz").read_bytes()


@pytest.fixture(scope="module")
def batch(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return Batch(recordings / "velox_superx_20frames.emd", tmp_path_factory.mktemp("batch") / "result")


@pytest.mark.parametrize("speed", ["max", "8"])  # 12.8 s recorded: 8 makes it 1.6 s, with live maps on the way
def test_replay_gives_the_digest_of_batch(service: Service, batch: Batch, speed: str):
    batch.assert_same(service.replay_fully(batch.file, "--speed", speed, *FLAGS))


def test_the_number_of_threads_does_not_matter(batch: Batch, tmp_path: Path):
    done = run("batch", batch.file, *FLAGS, "--out", tmp_path / "out", env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    batch.assert_same(tmp_path / "out")  # made with two
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_the_stored_journal_replays_to_the_digest(service: Service, batch: Batch, tmp_path: Path):
    """The batch's journal through the wire, and the wire's journal through batch; by file and by folder."""
    stored = service.replay_fully(batch.folder / "journal.sqlite", "--speed", "max")
    batch.assert_same(stored)
    done = run("batch", stored, "--out", tmp_path / "out")  # the journal holds what was asked for
    assert done.returncode == 0, done.stderr
    batch.assert_same(tmp_path / "out")


def _shuffled(tiles: list[Tile]) -> list[Tile]:
    return random.Random(1).sample(tiles, len(tiles))


def _backwards(tiles: list[Tile]) -> list[Tile]:
    return tiles[::-1]


@pytest.mark.parametrize("order", [_shuffled, _backwards])
def test_the_order_of_tiles_does_not_matter(service: Service, batch: Batch, order: Callable[[list[Tile]], list[Tile]]):
    batch.assert_same(_sent(service, batch.file, order))


def test_tiles_cut_otherwise_give_the_same_digest(service: Service, batch: Batch):
    batch.assert_same(_sent(service, batch.file, lambda tiles: tiles, rows_per_tile=7))


def _twice(tiles: list[Tile]) -> list[Tile]:
    twice = [tile for tile in tiles for _ in range(2)]
    return random.Random(2).sample(twice, len(twice))


@pytest.fixture(scope="module")
def duplicated(service: Service, batch: Batch) -> Path:
    before = service.metric("livestem_tiles_duplicate_total")
    folder = _sent(service, batch.file, _twice)
    assert service.metric("livestem_tiles_duplicate_total") > before
    return folder


def test_duplicated_tiles_are_ignored(duplicated: Path, batch: Batch):
    batch.assert_same(duplicated)


def test_a_scan_of_which_nothing_is_missing_is_complete(duplicated: Path):
    result = json.loads((duplicated / "result.json").read_bytes())
    assert (result["missing_tiles"], result["status"]) == ([], "complete")


def _sent(service: Service, file: Path, order: Any, rows_per_tile: int | None = None) -> Path:
    """Send a file's tiles as a microscope script would, in the order given."""
    import msgspec

    from livestem.sources import open_recording

    with open_recording([file]) as recording:
        plan = msgspec.structs.replace(recording.plan, processing=Processing(elements=ELEMENTS))
        with Acquisition(None, service.acquisition, recorded=True) as acquisition:
            acquisition.wait_for_service(20)
            with acquisition.start_scan(plan, recording.scan_id) as scan:
                for tile in order(list(recording.tiles(rows_per_tile))):
                    scan.tile(tile)
            acquisition.wait_acknowledged()
            return service.finished(acquisition.session, recording.scan_id)


def test_a_script_with_cumulative_snapshots_counts_the_same(service: Service, batch: Batch):
    """EDS as vendors' live interfaces give it: the sum so far, once a frame; differenced by the client."""
    import msgspec

    from livestem.sources import open_recording

    with open_recording([batch.file]) as recording:
        assert recording.plan.eds is not None and recording.plan.frames is not None
        total = np.zeros((*recording.plan.eds.sampling.shape, recording.plan.eds.energy.channels), np.uint32)
        plan = msgspec.structs.replace(recording.plan, processing=Processing(elements=ELEMENTS))
        with Acquisition(None, service.acquisition, recorded=True) as acquisition:
            acquisition.wait_for_service(20)
            with acquisition.start_scan(plan, recording.scan_id) as scan:
                for frame in range(recording.plan.frames):
                    for tile in recording.tiles_of(frame):
                        if hasattr(tile, "values"):
                            scan.tile(tile)
                            continue
                        h, w = tile.counts.shape
                        pixel = np.repeat(np.arange(h * w), tile.counts.ravel())
                        rows = total[tile.y : tile.y + h, tile.x : tile.x + w].reshape(h * w, -1)  # a copy, or a view
                        np.add.at(rows, (pixel, tile.channels), 1)
                        total[tile.y : tile.y + h, tile.x : tile.x + w] = rows.reshape(h, w, -1)
                    scan.eds_cumulative(total)
            acquisition.wait_acknowledged()
            batch.assert_same(service.finished(acquisition.session, recording.scan_id))


def test_a_service_restarted_on_its_store_gives_the_digest_again(batch: Batch, tmp_path: Path):
    for n in range(2):
        with Service(tmp_path / f"run{n}", store=tmp_path / "store") as again:
            batch.assert_same(again.replay_fully(batch.file, "--speed", "max", *FLAGS))
        wait_for(lambda: not list((tmp_path / "store").rglob("*-wal")), 5, "a write-ahead log was left")
    assert len(list((tmp_path / "store").rglob("result.json"))) == 2


def test_replay_may_be_started_before_the_service(batch: Batch, tmp_path: Path):
    """A tired microscopist's order: sending first, then the segmenter, here while the sender has waited for a while."""
    from processes import end, start

    data, results, http = free_pairs(3)
    endpoint = f"tcp://127.0.0.1:{data}"
    sender = start("replay", batch.file, *FLAGS, "--speed", "max", "--acquisition", endpoint, "--session", "early")
    time.sleep(1)
    server = start(
        "serve", *("--store", tmp_path / "store", "--acquisition", endpoint, "--http-port", http),
        *("--results", f"tcp://127.0.0.1:{results}"), stdout=None, stderr=None,
    )  # fmt: skip
    try:
        assert sender.wait(60) == 0
        folder = tmp_path / "store" / "early"
        wait_for(lambda: list(folder.rglob("result.json")), 30)
        batch.assert_same(next(folder.iterdir()))
    finally:
        end(sender)
        assert end(server) == 0
