"""A service that comes in the middle of a scan, or after it: it gets the scan from its beginning, or says what is gone.

A real service within this process, so that it can be exchanged between two tiles.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import wait_for

from livestem.client import Acquisition, Endpoint, Haadf, Sampling, ScanPlan, reception
from livestem.client.replay import TileSource, send_scan
from livestem.domain.limits import Limits
from livestem.domain.tiles import HaadfTile, Tile
from livestem.runtime.segmenter import Segmenter
from livestem.runtime.settings import Http, Settings
from livestem.simulator import Simulation, load_specimen
from livestem.simulator.faults import parse_faults
from livestem.simulator.faulty_source import send_with_faults
from ports import free_pairs

pytestmark = pytest.mark.system

SIDE, FRAMES, ROWS = 64, 12, 16  # tiles of 2 kB, four a frame
TILE_BYTES = SIDE * ROWS * 2
SMALL = Limits(resend_bytes=4 * TILE_BYTES, unacknowledged_bytes=2 * TILE_BYTES)  # hardly more than a frame


class Bands:
    """A recorded scan of HAADF in bands."""

    plan = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(SIDE, SIDE), pixel_nm=(1.0, 1.0)), dtype="<u2"), frames=FRAMES)
    scan_id = "bands"

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        for frame in range(FRAMES):
            picture = np.random.default_rng(frame).integers(100, 1000, (SIDE, SIDE)).astype("<u2")
            for y in range(0, SIDE, ROWS):
                yield HaadfTile(frame=frame, y=y, x=0, values=picture[y : y + ROWS])


class Bench:
    """One place where sources publish, and the services that come and go there, each with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at = Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}")
        self._services: list[tuple[Segmenter, Path]] = []

    def serve(self) -> None:
        """A service comes; one that was there has gone."""
        self.leave()
        store = self.folder / f"store-{len(list(self.folder.glob('store-*')))}"
        store.mkdir()
        results = Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}")  # the last one's may not be free yet
        settings = Settings(acquisition=(self.at,), results=results, http=Http(port=0), store=str(store))
        self._services.append((Segmenter(settings, lambda text: None), store))

    def leave(self) -> None:
        while self._services:
            self._services.pop()[0].close()

    def open(self, limits: Limits = SMALL, *, recorded: bool = True, link: Any = None) -> Acquisition:
        return Acquisition("s1", self.at, recorded=recorded, limits=limits, link=link)

    def result(self, scan_id: str) -> dict[str, Any]:
        """Return what the service that is there makes of a scan, and forget all stores."""
        folder = self._services[-1][1] / "s1" / scan_id
        wait_for((folder / "result.json").is_file, 30.0, "no result")
        found: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
        self.leave()
        for store in self.folder.glob("store-*"):
            shutil.rmtree(store)
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(reception, "SILENT_S", 1.5)  # of the service that goes: else its last word counts for 10 s
    found = Bench(tmp_path)
    yield found
    found.leave()


def sources() -> dict[str, Callable[[], TileSource]]:
    return {
        "recorded": Bands,
        "simulated": lambda: Simulation(load_specimen("demo"), 3, 8, shape=(64, 64)),
    }


@pytest.mark.parametrize("kind", ["recorded", "simulated"])
def test_one_that_comes_in_mid_scan_has_it_from_the_beginning(bench: Bench, kind: str):
    """The source has let go of nearly everything by then, and reads it again."""
    source = sources()[kind]()
    sent: list[Tile] = []

    def swap(tile: Tile) -> None:
        sent.append(tile)
        if swapped and len(sent) == swapped[0]:
            bench.serve()

    def send() -> dict[str, Any]:
        sent.clear()
        bench.serve()
        faults = parse_faults("drop=0.03,dup=0.1,reorder=2" if kind == "simulated" else "drop=0")
        send_with_faults(lambda link: opened(bench, link), source, faults, on_tile=swap)
        return bench.result(source.scan_id)

    swapped: list[int] = []
    clean = send()
    swapped.append(len(sent) * 2 // 3)
    late = send()
    assert clean["status"] == late["status"] == "complete"
    assert (late["input_digest"], late["digest"]) == (clean["input_digest"], clean["digest"])


def opened(bench: Bench, link: Any) -> Acquisition:
    source = bench.open(Limits(resend_bytes=16 * TILE_BYTES, unacknowledged_bytes=16 * TILE_BYTES), link=link)
    source.wait_for_service(20.0)
    return source


@pytest.mark.parametrize("kept", [True, False])
def test_an_instrument_gives_what_it_keeps_and_the_rest_is_listed(bench: Bench, kept: bool):
    limits = Limits() if kept else Limits(resend_bytes=6 * TILE_BYTES)
    with bench.open(limits, recorded=False) as instrument:
        with instrument.start_scan(Bands.plan, "bands") as scan:
            for tile in Bands().tiles():
                scan.tile(tile)
            assert instrument._publisher.buffer.get(1) is not None
        bench.serve()
        held = [s for s in range(2, 2 + 4 * FRAMES) if instrument._publisher.buffer.get(s) is not None]
        result = bench.result("bands")
    assert len(held) == 4 * FRAMES if kept else 0 < len(held) < 6
    missing = {(t["frame"], y) for t in result["missing_tiles"] for y in range(t["y"], t["y"] + t["h"])}
    expected = {(n // 4, n % 4 * ROWS + y) for n in range(4 * FRAMES) if n + 2 not in held for y in range(ROWS)}
    assert missing == expected
    assert result["status"] == ("complete" if kept else "incomplete")
    assert result["coverage"] == {"haadf": len(held) / (4 * FRAMES)}
    assert kept or "no longer had" in result["reason"]


def test_a_quadrant_that_never_came_is_listed_as_what_it_is(bench: Bench):
    bench.serve()
    with bench.open(Limits(), recorded=False) as instrument:
        instrument.wait_for_service(20.0)
        with instrument.start_scan(Bands.plan, "bands") as scan:
            for frame, y, x in np.ndindex(FRAMES, 2, 2):
                if (frame, y, x) != (1, 1, 1):
                    quadrant = np.full((SIDE // 2, SIDE // 2), 100 + frame, "<u2")
                    scan.haadf(quadrant, frame=frame, y=y * SIDE // 2, x=x * SIDE // 2)
        result = bench.result("bands")
    half = SIDE // 2
    assert result["missing_tiles"] == [{"modality": "haadf", "frame": 1, "y": half, "h": half, "x": half, "w": half}]
    assert result["coverage"] == {"haadf": 1 - 1 / (4 * FRAMES)} and result["status"] == "incomplete"
    assert result["warnings"][0] == "1 rectangles are missing"


def test_a_recorded_scan_that_nobody_can_read_again_is_listed_and_its_source_leaves(bench: Bench):
    """By hand, so without a way to make tiles again: the service asks, hears that they are gone, and acknowledges."""
    bench.serve()
    with bench.open() as source:
        source.wait_for_service(20.0)
        with source.start_scan(Bands.plan, "bands") as scan:
            for n, tile in enumerate(Bands().tiles()):
                scan.tile(tile)
                if n == 30:
                    bench.serve()
        source.wait_acknowledged()
        result = bench.result("bands")
    assert result["status"] == "incomplete" and 0 < result["coverage"]["haadf"] < 1


def test_a_source_that_is_read_again_leaves_only_when_the_service_has_everything(bench: Bench):
    bench.serve()
    asked: list[int] = []

    class Seen(Bands):
        def tiles_of(self, frame: int) -> Iterator[Tile]:
            asked.append(frame)
            return (tile for tile in self.tiles() if tile.frame == frame)

    with bench.open() as source:
        source.wait_for_service(20.0)
        count = iter(range(4 * FRAMES))
        send_scan(source, Seen(), on_tile=lambda tile: bench.serve() if next(count) == 40 else None)
        assert source._publisher.buffer.acknowledged == source._publisher.buffer.last_seq
    assert asked == sorted(set(asked)) and len(asked) >= 6, "frame by frame, each once"
    assert bench.result("bands")["coverage"] == {"haadf": 1.0}
