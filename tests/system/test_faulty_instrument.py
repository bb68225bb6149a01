"""The virtual microscope's faults against a real service: nothing is lost, or what is missing is said exactly."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Service, wait_for

from livestem.client import Acquisition, ScanWriter
from livestem.client.replay import TileSource, send_scan
from livestem.domain.errors import TransportError
from livestem.domain.tiles import EdsEvents, HaadfTile, Tile
from livestem.runtime.journal import JournalRecording
from livestem.simulator import Simulation, load_specimen
from livestem.simulator.faults import Faults, parse_faults
from livestem.simulator.faulty_link import FaultyLink
from livestem.simulator.faulty_source import send_with_faults

pytestmark = pytest.mark.system

FRAMES, SIDE, ROWS = 6, 64, 4  # bands of four rows: enough messages for every fault to strike
MESSAGES = 2 + 2 * FRAMES * SIDE // ROWS
VANISH_S = 3.0  # three missed heartbeats: a source that is merely slow must not be taken for gone
STRONG = "drop=0.1,dup=0.1,reorder=8,corrupt=0.1"


class Bands:
    """The simulated scan in narrow bands, computed once."""

    def __init__(self, simulation: Simulation) -> None:
        self.plan, self.scan_id = simulation.plan, simulation.scan_id
        self._tiles = list(simulation.tiles(ROWS))

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        return iter(self._tiles)


@pytest.fixture(scope="module")
def source() -> Bands:
    return Bands(Simulation(load_specimen("demo"), 0, FRAMES, shape=(SIDE, SIDE)))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that gives a silent source up after a few seconds, as others do after a minute."""
    folder = tmp_path_factory.mktemp("faults")
    config = folder / "service.toml"
    config.write_text(f"vanish_s = {VANISH_S}\n", encoding="utf-8")
    with Service(folder, "--config", config) as running:
        yield running
        running.assert_well()


@dataclass
class Sitting:
    """One instrument at one service, under one session name, and what came of it."""

    service: Service
    session: str
    links: list[FaultyLink] = field(default_factory=list)
    opened: list[Acquisition] = field(default_factory=list)

    def open(self, link: FaultyLink | None) -> Acquisition:
        acquisition = Acquisition(self.session, self.service.acquisition, recorded=True, link=link)
        acquisition.wait_for_service(20)
        if link is not None:
            self.links.append(link)
        self.opened.append(acquisition)
        return acquisition

    def send(self, source: TileSource, faults: str | Faults, **more: Any) -> ScanWriter:
        asked = parse_faults(faults) if isinstance(faults, str) else faults
        return send_with_faults(self.open, source, asked, **more)

    def result(self, scan_id: str) -> dict[str, Any]:
        folder = self.service.finished(self.session, scan_id)
        return json.loads((folder / "result.json").read_bytes())  # type: ignore[no-any-return]

    @property
    def done(self) -> dict[str, int]:
        """What all links together did."""
        return {what: sum(link.done[what] for link in self.links) for what in self.links[0].done}

    @cached_property
    def acknowledged(self) -> int:
        """How many messages of the program that died the service had acknowledged."""
        return self.opened[0]._publisher.buffer.acknowledged


@pytest.fixture(scope="module")
def sitting(service: Service) -> Callable[[], Sitting]:
    """Return a maker of sittings, each under a session name of its own."""
    names = (f"sitting-{n}" for n in itertools.count())
    return lambda: Sitting(service, next(names))


@pytest.fixture(scope="module")
def clean(service: Service, source: Bands) -> dict[str, Any]:
    """The result of the scan without faults."""
    sitting = Sitting(service, "clean")
    with sitting.open(None) as acquisition:
        send_scan(acquisition, source)
    result = sitting.result(source.scan_id)
    assert (result["status"], result["coverage"]) == ("complete", {"haadf": 1.0, "eds": 1.0})
    return result


def assert_same(result: dict[str, Any], clean: dict[str, Any]) -> None:
    assert (result["status"], result["missing_tiles"]) == ("complete", [])
    assert result["coverage"] == {"haadf": 1.0, "eds": 1.0}
    assert result["input_digest"] == clean["input_digest"]
    assert result["digest"] == clean["digest"]


class Counted:
    """What a service has counted since this was made."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        names = {"repairs": "gap_repairs", "duplicates": "tiles_duplicate", "tiles": "tiles_received"}
        found = {key: self._service.metric(f"livestem_{name}_total") for key, name in names.items()}
        return found | {"rejected": self._service.metric("livestem_rejected_total")}

    def __getitem__(self, name: str) -> float:
        return self._now()[name] - self._before[name]


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_what_the_network_loses_doubles_spoils_and_reorders_is_repaired(
    service: Service, source: Bands, clean: dict[str, Any], sitting: Callable[[], Sitting], seed: int
):
    counted, here = Counted(service), sitting()
    here.send(source, STRONG, seed=seed)
    assert_same(here.result(source.scan_id), clean)
    assert all(here.done[fault] > 5 for fault in ("drop", "dup", "corrupt", "reorder")), here.done
    assert here.done["messages"] == MESSAGES
    assert counted["repairs"] >= here.done["drop"]
    assert 0 < counted["rejected"] <= here.done["corrupt"]  # a topic spoilt in its first bytes is never delivered
    assert counted["tiles"] == MESSAGES - 2


@pytest.mark.parametrize("fault", ["drop=1", "corrupt=1"])
def test_a_network_that_brings_nothing_at_all_costs_only_time(
    service: Service, source: Bands, clean: dict[str, Any], sitting: Callable[[], Sitting], fault: str
):
    """Heartbeats come through and tell how much there is; every single message has to be asked for."""
    counted, here = Counted(service), sitting()
    here.send(source, fault)
    assert_same(here.result(source.scan_id), clean)
    assert here.done[fault.partition("=")[0]] == MESSAGES
    assert counted["repairs"] == MESSAGES


def test_doubles_and_latecomers_alone_are_harmless(
    service: Service, source: Bands, clean: dict[str, Any], sitting: Callable[[], Sitting]
):
    counted, here = Counted(service), sitting()
    here.send(source, "dup=1,reorder=30")
    assert_same(here.result(source.scan_id), clean)
    assert here.done["dup"] == MESSAGES and here.done["reorder"] > 50
    assert counted["rejected"] == 0


# --- the instrument ---------------------------------------------------------------------------------------------


def test_a_stall_longer_than_a_silence_is_not_the_end(
    source: Bands, clean: dict[str, Any], sitting: Callable[[], Sitting]
):
    """The beam rests, the program lives: its heartbeats keep the scan open."""
    here, began = sitting(), time.monotonic()
    here.send(source, f"stall={VANISH_S + 2}s")
    assert time.monotonic() - began > VANISH_S + 2
    assert_same(here.result(source.scan_id), clean)


def test_an_aborted_scan_keeps_its_data_whatever_the_network_does(source: Bands, sitting: Callable[[], Sitting]):
    """Three frames and the half of one more: exactly that is in the result, in the journal, and said to be missing."""
    results = {}
    for faults in ("abort@frame=3", f"abort@frame=3,{STRONG}"):
        here = sitting()
        here.send(source, faults)
        results[faults] = result = here.result(source.scan_id)
        assert (result["status"], result["coverage"]) == ("aborted", {"haadf": 3.5 / FRAMES, "eds": 3.5 / FRAMES})
        missing = {(t["modality"], t["frame"]): (t["y"], t["h"]) for t in result["missing_tiles"]}
        expected = {3: (SIDE // 2, SIDE // 2), 4: (0, SIDE), 5: (0, SIDE)}
        assert missing == {(kind, frame): rows for kind in ("haadf", "eds") for frame, rows in expected.items()}
        with JournalRecording(here.service.store / here.session / source.scan_id / "journal.sqlite") as journal:
            assert keys(journal.tiles()) == keys(t for t in source.tiles() if before_middle_of(3, t))
            assert journal.end is not None and journal.end.reason is not None
            assert (journal.end.status, "frame 3" in journal.end.reason) == ("aborted", True)
    quiet, loud = results.values()
    assert quiet["input_digest"] == loud["input_digest"] and quiet["digest"] == loud["digest"]


@pytest.mark.parametrize("faults", ["restart@frame=2", f"restart@frame=0,{STRONG}", f"restart@frame=5,{STRONG}"])
def test_a_program_that_dies_and_comes_back_gives_the_same_scan(
    service: Service, source: Bands, clean: dict[str, Any], sitting: Callable[[], Sitting], faults: str
):
    """What it sends again is known by its place and counted once; what the dead one owed comes from the new one."""
    counted, here = Counted(service), sitting()
    here.send(source, faults)
    assert len(here.opened) == 2
    assert here.opened[0]._publisher.epoch != here.opened[1]._publisher.epoch
    assert_same(here.result(source.scan_id), clean)
    assert counted["tiles"] == MESSAGES - 2
    assert counted["duplicates"] >= max(0, here.acknowledged - 1)  # without scan_start


# the stall lets the service acknowledge something: at full speed an instrument may be gone before
@pytest.mark.parametrize("faults", [f"vanish@frame=4,stall=1s@frame=3{more}" for more in ("", f",{STRONG}")])
def test_of_a_vanished_instrument_nothing_received_is_lost(
    service: Service, source: Bands, clean: dict[str, Any], sitting: Callable[[], Sitting], faults: str
):
    """After a silence its scan is finished as incomplete; others are served meanwhile; its journal gives it again."""
    here, next_one, again = sitting(), sitting(), sitting()
    with pytest.raises(TransportError, match="vanished in the middle of frame 4"):
        here.send(source, faults)
    assert here.acknowledged > 0
    folder = service.store / here.session / source.scan_id
    assert service.health()[1]["open_scans"] == 1
    wait_for(lambda: stored(folder))
    assert_received(folder, source, here.acknowledged)  # of a scan still open: read beside the one who writes it

    next_one.send(source, "drop=0.1")
    assert_same(next_one.result(source.scan_id), clean)

    result = here.result(source.scan_id)
    received = assert_received(folder, source, here.acknowledged)
    pixels = {kind: SIDE * sum(rows for k, _, _, rows in received if k == kind) for kind in ("haadf", "eds")}
    assert result["status"] == "incomplete"
    assert result["reason"] == f"its source vanished: nothing heard for {VANISH_S:g} s"
    assert result["coverage"] == {kind: n / (FRAMES * SIDE * SIDE) for kind, n in pixels.items()}
    lines = sum(t["h"] for t in result["missing_tiles"])
    assert lines == 2 * FRAMES * SIDE - sum(pixels.values()) // SIDE

    with JournalRecording(folder / "journal.sqlite") as journal, again.open(None) as acquisition:
        assert journal.end is None
        send_scan(acquisition, journal)
    replayed = again.result(source.scan_id)
    assert (replayed["status"], replayed["coverage"]) == ("incomplete", result["coverage"])
    assert replayed["input_digest"] == result["input_digest"]


def test_a_vanished_instrument_may_come_back_by_itself(
    source: Bands, clean: dict[str, Any], sitting: Callable[[], Sitting]
):
    """Started again by hand, under its session and before it is given up: the scan goes on where it is."""
    here = sitting()
    with pytest.raises(TransportError):
        here.send(source, f"vanish@frame=4,{STRONG}")
    here.send(source, "drop=0.1")
    assert_same(here.result(source.scan_id), clean)


# --- what once did not hold ---------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_in_the_journal_from_the_scans_start(source: Bands, sitting: Callable[[], Sitting]):
    """A killed service leaves an empty journal of a scan whose start it had acknowledged."""
    here = sitting()
    with here.open(None) as acquisition, acquisition.start_scan(source.plan, source.scan_id) as scan:
        acquisition.wait_acknowledged()
        found = stored(here.service.store / here.session / source.scan_id)
        scan.end("aborted")
    assert found == ["scan_start"]


def test_who_reads_the_journal_of_a_running_scan_does_no_harm(source: Bands, tmp_path: Path):
    """`livestem replay` of an open scan, a backup, a look with sqlite: the service goes on when the scan ends."""
    with Service(tmp_path) as service:
        here = Sitting(service, "read")
        with here.open(None) as acquisition, acquisition.start_scan(source.plan, source.scan_id) as scan:
            for tile in source.tiles():
                scan.tile(tile)
            acquisition.wait_acknowledged()
            with JournalRecording(service.store / here.session / source.scan_id / "journal.sqlite"):
                scan.end()
                time.sleep(1)
                service.assert_well()


def test_a_vanished_scan_is_finished_while_its_session_goes_on(source: Bands, sitting: Callable[[], Sitting]):
    here = sitting()
    with pytest.raises(TransportError):
        here.send(source, "vanish@frame=1")
    result = here.service.store / here.session / source.scan_id / "result.json"
    with here.open(None) as alive:  # the microscopist starts again, and thinks about the next field
        assert alive.session == here.session
        wait_for(result.is_file, timeout=3 * VANISH_S)


# --- what a scan's tiles are known by ---------------------------------------------------------------------------

Key = tuple[str, int, int, int]  # modality, frame, y, rows


def key(tile: Tile) -> Key:
    assert isinstance(tile, HaadfTile | EdsEvents)
    if isinstance(tile, HaadfTile):
        return "haadf", tile.frame, tile.y, len(tile.values)
    return "eds", tile.frame, tile.y, len(tile.counts)


def keys(tiles: Iterator[Tile] | Any) -> set[Key]:
    return {key(tile) for tile in tiles}


def before_middle_of(frame: int, tile: Tile) -> bool:
    return tile.frame < frame or (tile.frame == frame and tile.y < SIDE // 2)


def stored(folder: Path) -> list[str]:
    """Return the types of the messages that a journal holds just now."""
    with closing(sqlite3.connect(f"{(folder / 'journal.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT type FROM messages ORDER BY n")]


def assert_received(folder: Path, source: Bands, acknowledged: int) -> set[Key]:
    """Return what a vanished scan's journal holds: true, from before the end, and all that was acknowledged."""
    sent = {key(tile): tile for tile in source.tiles()}
    with JournalRecording(folder / "journal.sqlite") as journal:
        assert journal.plan == source.plan
        held = {key(tile): tile for tile in journal.tiles()}
    for place, tile in held.items():
        assert before_middle_of(4, tile)
        for name in ("values",) if isinstance(tile, HaadfTile) else ("counts", "channels"):
            np.testing.assert_array_equal(getattr(tile, name), getattr(sent[place], name))
    safe = list(sent)[: acknowledged - 1]  # the first message is scan_start, and each tile here is one more
    assert held.keys() >= set(safe)
    return set(held)
