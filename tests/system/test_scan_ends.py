"""Every end that a scan can have, against one real service: its status, its reason, what is missing, what is there."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from processes import Service, end, run, start, wait_for

from livestem.client import Acquisition, ScanWriter, Subscriber
from livestem.domain.errors import TransportError
from livestem.domain.limits import Limits
from livestem.domain.parameters import Processing
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import HaadfTile, Tile
from livestem.runtime.journal import JournalRecording
from livestem.simulator import Simulation, load_specimen
from livestem.wire import messages as m

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them"),
]

FRAMES, SIDE, ROWS = 4, 64, 4
VANISH_S = 3.0  # three missed heartbeats: a source that is merely slow must not be taken for gone
VANISHED = f"its source vanished: nothing heard for {VANISH_S:g} s"
BY_HAND = "aborted: stopped by hand (Ctrl-C or SIGTERM)"


@dataclass(frozen=True)
class Ended:
    """How a scan must have ended: what it says, and what had been sent of it."""

    status: str
    reason: str | None
    sent: list[Tile]
    warning: str | None = None
    frames: int = FRAMES
    plan: ScanPlan | None = None


@dataclass
class Run:
    """Everything that happened at one service, and what came of it."""

    folder: Path
    store: Path
    plan: ScanPlan
    tiles: list[Tile]
    ended: dict[str, Ended] = field(default_factory=dict)  # scan -> how
    heard: dict[str, dict[str, Any]] = field(default_factory=dict)  # scan -> message type -> message
    stopped: Path | None = None  # the scan in whose middle the service was stopped
    acknowledged: list[Tile] = field(default_factory=list)
    exit_code: int | None = None
    words: str = ""

    def until(self, frame: int, row: int) -> list[Tile]:
        """Return what the beam has swept when it comes to a row of a frame."""
        return [t for t in self.tiles if t.frame < frame or (t.frame == frame and t.y < row)]

    def result(self, name: str) -> dict[str, Any]:
        return json.loads((self.at(name) / "result.json").read_bytes())  # type: ignore[no-any-return]

    def at(self, name: str) -> Path:
        (found,) = self.store.glob(f"*/{name}")
        return found


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Let everything happen, one end after the other; the tests look at what is left."""
    folder = tmp_path_factory.mktemp("ends")
    config = folder / "service.toml"
    config.write_text(f"vanish_s = {VANISH_S}\n", encoding="utf-8")
    simulation = Simulation(load_specimen("demo"), 0, FRAMES, shape=(SIDE, SIDE))
    with Service(folder, "--config", config) as service:
        plan = msgspec.structs.replace(simulation.plan, processing=Processing(elements=("La", "Fe", "Sr", "Ti", "O")))
        here = Run(folder, service.store, plan, list(simulation.tiles(ROWS)))
        vanish(here, service)  # first: what follows is time enough for it to be noticed
        complete_and_aborted(here, service)
        lose(here, service)
        overlap(here, service)
        by_hand(here, service)
        for name in here.ended:
            wait_for((here.at(name) / "result.json").is_file, otherwise=f"{name}: {service.words()}")
        service.assert_well()
        listen(here, service)
        stop(here, service)
        here.words = service.words()
    return here


def opened(service: Service, session: str) -> Acquisition:
    acquisition = Acquisition(session, service.acquisition, recorded=True)
    acquisition.wait_for_service(20)
    return acquisition


def write(scan: ScanWriter, tiles: list[Tile]) -> None:
    for tile in tiles:
        scan.tile(tile)


def vanish(here: Run, service: Service) -> None:
    """The program dies in the middle of a frame; everything that it sent is there."""
    sent = here.until(2, 36)
    with opened(service, "dead") as acquisition:
        write(acquisition.start_scan(here.plan, "vanished"), sent)
        acquisition.wait_acknowledged()
    last = "frame 2, the last one, is here up to row 36 of 64"
    here.ended["vanished"] = Ended("incomplete", VANISHED, sent, last)


def complete_and_aborted(here: Run, service: Service) -> None:
    """One session: a whole scan, one that a script's error ends, open and planned ones that end in mid-frame."""
    open_ended = msgspec.structs.replace(here.plan, frames=None)
    with opened(service, "alive") as acquisition:
        with acquisition.start_scan(here.plan, "whole") as scan:
            write(scan, here.tiles)
        here.ended["whole"] = Ended("complete", None, here.tiles)
        sent = here.until(1, 32)
        with pytest.raises(TransportError), acquisition.start_scan(here.plan, "raised") as scan:
            write(scan, sent)
            raise TransportError("the column valve has closed")
        last = "frame 1, the last one, is here up to row 32 of 64"
        here.ended["raised"] = Ended("aborted", "aborted: TransportError: the column valve has closed", sent, last)
        sent = here.until(2, 20)
        with acquisition.start_scan(open_ended, "open-ended") as scan:
            write(scan, sent)
        last = "frame 2, the last one, is here up to row 20 of 64"
        early = "its source ended it without all rows of its frames"
        here.ended["open-ended"] = Ended("incomplete", early, sent, last, frames=3, plan=open_ended)
        sent = here.until(2, 0)
        with acquisition.start_scan(here.plan, "early") as scan:
            write(scan, sent)
        here.ended["early"] = Ended("incomplete", "its source ended it after 2 of 4 planned frames", sent)


def lose(here: Run, service: Service) -> None:
    """An instrument whose buffer holds one message, on a network that loses a tile: it is gone for good."""
    lost = next(tile for tile in here.tiles if isinstance(tile, HaadfTile) and (tile.frame, tile.y) == (1, 12))
    number = 1 + here.tiles.index(lost)  # scan_start goes before
    data = itertools.count()

    def link(frames: list[bytes]) -> list[list[bytes]]:
        reliable = b"_tile" in frames[0] or b".scan_" in frames[0]
        return [] if reliable and next(data) == number else [frames]

    small = Limits(resend_bytes=1)
    with Acquisition("leaky", service.acquisition, limits=small, link=link) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(here.plan, "lost") as scan:
            write(scan, here.tiles)
        sent = [tile for tile in here.tiles if tile is not lost]
        here.ended["lost"] = Ended("incomplete", "its source no longer had what was lost on the way", sent)
        wait_for((here.store / "leaky" / "lost" / "result.json").is_file)  # while the instrument is there to say so


def overlap(here: Run, service: Service) -> None:
    """One session, where the next scan begins before the last one has ended: its end comes late, or never."""
    half = here.until(2, 0)
    with opened(service, "overlapping") as acquisition:
        late = acquisition.start_scan(here.plan, "late")
        write(late, half)
        left = acquisition.start_scan(here.plan, "left")
        write(left, half)
        write(late, here.tiles[len(half) :])
        late.end()
        here.ended["late"] = Ended("complete", None, here.tiles)
        with acquisition.start_scan(here.plan, "further") as scan:
            write(scan, here.tiles)
        here.ended["further"] = Ended("complete", None, here.tiles)
        reason = f"scan further began, and nothing more of this one came for {VANISH_S:g} s"
        here.ended["left"] = Ended("incomplete", reason, half)
        wait_for((here.store / "overlapping" / "left" / "result.json").is_file)  # while the session is heard


def by_hand(here: Run, service: Service) -> None:
    """Ctrl-C of whoever sends: the simulator, and a replay."""
    at = ("--acquisition", service.acquisition)
    journal = here.at("whole") / "journal.sqlite"
    for session, command in (
        ("simulated", ("simulate", "--frames", 200, "--speed", 1)),
        ("replayed", ("replay", journal, "--speed", 0.1)),
    ):
        sender = start(*command, *at, "--session", session)
        name = interrupted(here, service, session, sender)
        with JournalRecording(here.at(name) / "journal.sqlite") as kept:
            sent, frames = list(kept.tiles()), kept.plan.frames
            here.ended[name] = Ended("aborted", BY_HAND, sent, frames=frames or 0, plan=kept.plan)


def interrupted(here: Run, service: Service, session: str, sender: subprocess.Popen[str]) -> str:
    """Stop a sender once some of its scan is there; return the scan's name, which is made the session's."""
    before = service.metric("livestem_tiles_received_total")
    try:
        wait_for(lambda: service.metric("livestem_tiles_received_total") > before + 4, otherwise=service.words())
        sender.send_signal(signal.SIGINT)
        assert sender.wait(20) == 130
        assert sender.stderr is not None and "Traceback" not in sender.stderr.read()
    finally:
        end(sender)
    (folder,) = (here.store / session).iterdir()
    wait_for((folder / "result.json").is_file)
    renamed = folder.rename(folder.with_name(session))  # two scans of one name: the replay is of one seen before
    return renamed.name


def listen(here: Run, service: Service) -> None:
    """Take everything that a late subscriber is told."""
    with Subscriber(service.results) as results:
        results.wait_subscribed(10)
        while sum("scan_done" in found for found in here.heard.values()) < len(here.ended):
            message = results.receive(10)
            assert message is not None, here.heard.keys()
            if isinstance(message.header, m.ScanDone | m.CoverageMap):
                header = message.header
                name = header.session if header.session in here.ended else header.scan_id
                here.heard.setdefault(name, {})[m.tag_of(header)] = message


def stop(here: Run, service: Service) -> None:
    """SIGTERM in mid-scan: what was acknowledged is in the journal, and there are no finals yet."""
    with opened(service, "stopped") as acquisition:
        scan = acquisition.start_scan(here.plan, "open")
        here.acknowledged = here.until(1, 24)
        write(scan, here.acknowledged)
        acquisition.wait_acknowledged()
        here.exit_code = end(service.process)
    here.stopped = service.store / "stopped" / "open"


# --- what must have come of it ----------------------------------------------------------------------------------

ENDS = [
    "vanished", "whole", "raised", "open-ended", "early", "lost", "late", "left", "further", "simulated", "replayed",
]  # fmt: skip


def swept(of: Ended, plan: ScanPlan, modality: str) -> NDArray[np.int64]:
    """Return (frames, rows), 1 where a row of a frame was sent."""
    rows = np.zeros((of.frames, plan.sampling(modality).shape[0]), np.int64)
    for tile in of.sent:
        if isinstance(tile, HaadfTile) is (modality == "haadf"):
            values = tile.values if isinstance(tile, HaadfTile) else getattr(tile, "counts")  # noqa: B009
            rows[tile.frame, tile.y : tile.y + len(values)] += 1
    return rows


def absent(of: Ended, plan: ScanPlan) -> Iterator[tuple[str, int, int, int]]:
    """Yield the bands of rows that were not sent: modality, frame, first row, rows."""
    for modality in plan.modalities:
        for frame, rows in enumerate(swept(of, plan, modality)):
            edges = np.flatnonzero(np.diff(np.concatenate(([1], rows, [1]))))
            for top, bottom in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                yield modality, frame, top, bottom - top


@pytest.mark.parametrize("name", ENDS)
def test_every_end_says_what_it_was_and_exactly_what_is_missing(happened: Run, name: str):
    wanted, result = happened.ended[name], happened.result(name)
    plan = wanted.plan or happened.plan
    assert (result["status"], result["reason"]) == (wanted.status, wanted.reason)
    missing = [(t["modality"], t["frame"], t["y"], t["h"]) for t in result["missing_tiles"]]
    assert missing == list(absent(wanted, plan))
    assert bool(missing) is (wanted.status != "complete")
    expected = {k: swept(wanted, plan, k).mean() for k in plan.modalities}
    assert result["coverage"] == pytest.approx(expected, abs=1e-9)
    told = [warning for warning in result["warnings"] if "the last one" in warning]
    if wanted.sent and wanted.reason != BY_HAND:
        assert told == ([] if wanted.warning is None else [wanted.warning])


@pytest.mark.parametrize("name", ENDS)
def test_the_coverage_map_is_what_was_sent(happened: Run, name: str):
    wanted, result = happened.ended[name], happened.result(name)
    plan, grid = wanted.plan or happened.plan, result["grid"]
    with np.load(happened.at(name) / "coverage.npz") as maps:
        found = dict(maps)
    for modality in plan.modalities:
        side = grid[f"{modality}_px"]
        rows = swept(wanted, plan, modality).sum(axis=0)[: grid["rows"] * side]
        share = np.repeat((rows.reshape(-1, side).mean(axis=1) / wanted.frames)[:, None], grid["cols"], axis=1)
        np.testing.assert_allclose(found[modality], share, atol=1e-6)
        short = result["coverage_map"][modality]
        assert short["least"] == pytest.approx(share.min(), abs=1e-6)
        assert short["chips_in_part"] == ((share > 0) & (share < 1)).sum()
    told = happened.heard[name]["coverage_map"]
    assert told.header.modalities == plan.modalities
    for modality, shares, visits in zip(told.header.modalities, *told.arrays, strict=True):
        np.testing.assert_array_equal(shares, found[modality])
        np.testing.assert_array_equal(visits, found[f"{modality}.visits"])


@pytest.mark.parametrize("name", ENDS)
def test_every_end_has_its_finals_and_everybody_hears_of_it(happened: Run, name: str):
    result, folder = happened.result(name), happened.at(name)
    with np.load(folder / "labels.npz") as maps:
        assert {"ward.haadf", "ward.lines", "louvain.haadf+lines"} <= set(maps)
        labels = maps["ward.haadf"]
    wanted, side = happened.ended[name], result["grid"]["haadf_px"]
    visited = swept(wanted, wanted.plan or happened.plan, "haadf").any(axis=0)[: len(labels) * side]
    half = visited.reshape(-1, side).mean(axis=1) >= 0.5
    assert (labels[half] >= 0).all() and (labels[~half] == -1).all()
    done = happened.heard[name]["scan_done"].header
    assert (done.status, done.reason) == (result["status"], result["reason"])
    assert (done.digest, done.input_digest) == (result["digest"], result["input_digest"])
    assert [msgspec.to_builtins(tile) for tile in done.missing_tiles] == result["missing_tiles"]
    json.loads((folder / "result.json").read_text(), parse_constant=lambda word: pytest.fail(f"{word} in {name}"))


def test_a_report_can_be_made_of_scans_that_were_cut(happened: Run):
    page = happened.folder / "report.html"
    several = ["vanished", "raised", "left"]
    done = run("report", *(happened.at(name) for name in several), "--out", page)
    assert (done.returncode, done.stderr) == (0, "")
    text = page.read_text("utf-8")
    for name in several:
        assert str(happened.ended[name].reason) in text


def test_what_a_scan_that_was_cut_holds_is_what_the_whole_one_holds_there(happened: Run):
    """Two frames of the same scan, ended early or left: one digest of what came."""
    assert happened.result("early")["input_digest"] == happened.result("left")["input_digest"]
    assert happened.result("early")["digest"] == happened.result("left")["digest"]
    assert happened.result("late")["digest"] == happened.result("whole")["digest"]


def test_a_service_that_is_stopped_keeps_the_journal_of_what_it_acknowledged(happened: Run):
    assert happened.exit_code == 0 and "Traceback" not in happened.words
    assert happened.stopped is not None
    assert sorted(path.name for path in happened.stopped.iterdir()) == ["journal.sqlite"]
    with closing(sqlite3.connect(f"{(happened.stopped / 'journal.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with JournalRecording(happened.stopped / "journal.sqlite") as journal:
        held = [(tile.frame, tile.y, type(tile)) for tile in journal.tiles()]
        assert journal.end is None
    assert sorted(held, key=str) == sorted(((t.frame, t.y, type(t)) for t in happened.acknowledged), key=str)
