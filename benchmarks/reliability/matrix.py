"""Every fault of the virtual microscope, and every blow of the proxy at every place, against a real service.

A case is a scan of one frame or of several, sent by an instrument with a fault while a proxy strikes in its middle. In
the end either the digest is that of the scan without a fault, or the result tells exactly what is missing: of a scan
that was aborted, all that was not sent; of one whose instrument vanished, all that is not in the journal, in which is
at least all that was acknowledged. And the subscriber, behind its own two proxies, has every final exactly once.

A proxy before the adapter strikes after a quarter of the scan, and has done before its middle, where the microscope's
own faults wait; one behind the service strikes at the last tile, when the finals are about to come. A blow that did
nothing (no connection reset, no byte delayed) makes its case a wrong one.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.reliability.processes import PLACES, Digests, Proxied, digests, proxied, wait_for
from benchmarks.reliability.proxy import BLOWS, Blow

from livestem.client import Acquisition, Subscriber
from livestem.client.replay import send_scan
from livestem.domain.errors import LivestemError, TransportError
from livestem.domain.tiles import HaadfTile, Tile, height
from livestem.runtime.journal import JournalRecording
from livestem.simulator import Simulation, load_specimen
from livestem.simulator.faults import NO_FAULTS, Faults, parse_faults
from livestem.simulator.faulty_link import FaultyLink
from livestem.simulator.faulty_source import send_with_faults
from livestem.wire import messages as m

SIDE, ROWS = 48, 4  # pixels of a scan's side, and rows of a tile: enough messages for every fault to strike
FRAMES = {"single frame": 1, "multi-frame": 4}
VANISH_S = 4.0  # four missed heartbeats: who is merely cut off is not taken for gone
PACE_S = 0.004  # between tiles, so that a blow in the middle of a scan has a middle to strike in
BLOW_S, DELAY_S = 0.5, 0.05
MICROSCOPE = ("none", "drop", "dup", "corrupt", "reorder", "stall", "abort", "restart", "vanish")

Place = tuple[str, int, int, int]  # modality, frame, first row, rows
Line = tuple[str, int, int, int, int | None]  # modality, frame, row, first column, columns (None: to the right edge)


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    microscope: str
    blow: Blow | None
    place: str | None
    frames: str


@dataclass(frozen=True)
class Outcome:
    """What came of it; `wrong` is what was lost silently or told wrongly, and must be empty.

    `resets` and `lost_bytes` are what the proxy did.
    """

    case: Case
    status: str
    same_digest: bool
    missing_rows: int
    wrong: tuple[str, ...]
    took_s: float
    resets: int = 0
    lost_bytes: int = 0


def every_case() -> Iterator[Case]:
    """Yield the whole matrix."""
    for frames, microscope in itertools.product(FRAMES, MICROSCOPE):
        yield Case(microscope, None, None, frames)
        for blow, place in itertools.product(BLOWS, PLACES):
            yield Case(microscope, blow, place, frames)


def some_cases() -> list[Case]:
    """Return a small part in which every fault, every blow, every place and both kinds of scan strike."""
    found = []
    for n, microscope in enumerate(MICROSCOPE):
        frames = tuple(FRAMES)[n % 2]
        found.append(Case(microscope, BLOWS[n % len(BLOWS)], PLACES[n % len(PLACES)], frames))
    return found


def faults_of(case: Case) -> Faults:
    """Return what the virtual microscope is asked for."""
    frame = FRAMES[case.frames] // 2
    words = {
        "drop": "drop=0.1",
        "dup": "dup=0.2",
        "corrupt": "corrupt=0.1",
        "reorder": "reorder=8",
        "stall": f"stall=500ms@frame={frame}",
    }
    words |= {name: f"{name}@frame={frame}" for name in ("abort", "restart", "vanish")}
    return NO_FAULTS if case.microscope == "none" else parse_faults(words[case.microscope])


class Scan:
    """The simulated scan in narrow bands, computed once."""

    def __init__(self, frames: int) -> None:
        simulation = Simulation(load_specimen("demo"), 0, frames, shape=(SIDE, SIDE))
        self.plan, self.scan_id = simulation.plan, simulation.scan_id
        self._tiles = list(simulation.tiles(ROWS))

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        """Yield every tile."""
        return iter(self._tiles)

    @property
    def places(self) -> set[Place]:
        """Return the place of every tile."""
        return {place(tile) for tile in self._tiles}


class Matrix:
    """Runs cases, one after the other, at one service."""

    def __init__(self, at: Proxied) -> None:
        self._at = at
        self._scans = {name: Scan(frames) for name, frames in FRAMES.items()}
        self._numbers = itertools.count()
        self._clean = {name: self._clean_digests(name) for name in FRAMES}

    def run(self, case: Case) -> Outcome:
        """Run one case; what does not come in time is wrong, and the next one has a calm network again."""
        began = time.monotonic()
        proxy = self._at.proxies.get(case.place or "")
        before = (proxy.resets, proxy.lost, proxy.delayed) if proxy is not None else (0, 0, 0)
        try:
            found = self._run(case)
        except (AssertionError, LivestemError) as e:
            found = Outcome(case, "none", False, 0, (f"{type(e).__name__}: {str(e)[:500]}",), 0.0)
        self._at.calm()
        after = (proxy.resets, proxy.lost, proxy.delayed) if proxy is not None else (0, 0, 0)
        resets, lost, delayed = (b - a for a, b in zip(before, after, strict=True))
        took_s = round(time.monotonic() - began, 2)
        found = replace(found, took_s=took_s, resets=resets, lost_bytes=lost)
        if case.blow is not None and not (delayed if case.blow == "delay" else resets + lost):
            return replace(found, wrong=(*found.wrong, "the blow did nothing"))
        return found

    def _run(self, case: Case) -> Outcome:
        session = f"case-{next(self._numbers)}"
        scan = self._scans[case.frames]
        with Subscriber(self._at.results, session=session) as subscriber:
            subscriber.wait_subscribed(20)
            sent, acknowledged = self._send(case, scan, session)
            heard = _heard(subscriber)
            if case.place is not None:
                wait_for(lambda: self._at.proxies[case.place or ""].resting, 10.0, "the blow did not end")
                heard += _more(subscriber)
        return self._judged(case, session, scan, sent, acknowledged, heard)

    def _send(self, case: Case, scan: Scan, session: str) -> tuple[list[Place], int]:
        """Send a scan with its fault and its blow; return what was sent last, and how much of it was acknowledged."""
        opened: list[Acquisition] = []
        sent: list[Place] = []
        whole = len(scan.places)
        moment = whole // 4 if case.place in PLACES[:2] else whole
        slow_s = 1.2 * BLOW_S / (whole // 4)  # between the tiles of the second quarter

        def open_(link: FaultyLink) -> Acquisition:
            acquisition = Acquisition(session, self._at.bind, link=link)
            acquisition.wait_for_service(20)
            opened.append(acquisition)
            sent.clear()
            return acquisition

        def strike() -> None:
            if case.blow is not None and case.place is not None:
                self._at.proxies[case.place].strike(case.blow, DELAY_S if case.blow == "delay" else BLOW_S)

        def on_tile(tile: Tile) -> None:
            sent.append(place(tile))
            if len(sent) == moment and len(opened) == 1:
                strike()
            time.sleep(slow_s if moment <= len(sent) < whole // 2 and len(opened) == 1 else PACE_S)

        try:
            send_with_faults(open_, scan, faults_of(case), on_tile=on_tile)
        except TransportError:
            if case.microscope != "vanish":
                raise
        if len(sent) < moment or (len(opened) > 1 and moment == whole):
            strike()  # the scan was cut off before its last tile, or sent anew: its finals are still to come
        return sent, opened[-1].acknowledged

    def _judged(
        self, case: Case, session: str, scan: Scan, sent: list[Place], acknowledged: int, heard: list[m.Header]
    ) -> Outcome:
        folder = self._at.service.finished(session, scan.scan_id)
        result = json.loads((folder / "result.json").read_bytes())
        missing = rows_of(result["missing_tiles"])
        with JournalRecording(folder / "journal.sqlite") as journal:
            here = {place(tile) for tile in journal.tiles()}
        wrong = list(_wrong_finals(result, heard))
        same = digests(result) == self._clean[case.frames]
        expected = {"abort": "aborted", "vanish": "incomplete"}.get(case.microscope, "complete")
        if result["status"] != expected:
            wrong.append(f"status {result['status']}, not {expected}")
        if missing != lines(scan.places - here):
            wrong.append("what is told missing is not what the journal lacks")
        if case.microscope == "abort" and here != set(sent):
            wrong.append(f"{len(set(sent) - here)} tiles that were sent are not there")
        if case.microscope == "vanish" and not set(sent[: max(0, acknowledged - 1)]) <= here:  # the first is its start
            wrong.append("something acknowledged is not there")
        if expected == "complete" and not same:
            wrong.append("another digest")
        return Outcome(case, result["status"], same, len(missing), tuple(wrong), 0.0)

    def _clean_digests(self, frames: str) -> Digests:
        scan, session = self._scans[frames], f"clean-{FRAMES[frames]}"
        with Acquisition(session, self._at.bind) as acquisition:
            acquisition.wait_for_service(20)
            send_scan(acquisition, scan)
        folder = self._at.service.finished(session, scan.scan_id)
        return digests(json.loads((folder / "result.json").read_bytes()))


def run_matrix(
    cases: list[Case], folder: Path, told: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Run cases at a service of their own in `folder`; `told` is given each outcome as it comes."""
    config = folder / "service.toml"
    config.write_text(f"vanish_s = {VANISH_S}\n", encoding="utf-8")
    with proxied(folder, "--config", config) as at:
        matrix = Matrix(at)
        found = []
        for case in cases:
            found.append(matrix.run(case))
            told(found[-1])
        at.service.assert_well()
    return found


def place(tile: Tile) -> Place:
    """Return where a tile belongs."""
    return "haadf" if isinstance(tile, HaadfTile) else "eds", tile.frame, tile.y, height(tile)


def lines(places: set[Place]) -> set[Line]:
    """Return every row of some tiles: they are as wide as the field."""
    return {(modality, frame, y + i, 0, None) for modality, frame, y, rows in places for i in range(rows)}


def rows_of(missing: list[dict[str, Any]]) -> set[Line]:
    """Return every row, or part of one, that a result tells is missing."""
    return {(t["modality"], t["frame"], t["y"] + i, t.get("x", 0), t.get("w")) for t in missing for i in range(t["h"])}


def _heard(subscriber: Subscriber) -> list[m.Header]:
    """Return the reliable messages up to the scan's last, and what comes in the second after it."""
    found: list[m.Header] = []

    def done() -> bool:
        message = subscriber.receive(0.2)
        if message is not None and isinstance(message.header, m.Reliable):
            found.append(message.header)
        return bool(found) and isinstance(found[-1], m.ScanDone)

    wait_for(done, 60.0, "no scan_done was heard")
    return found + _more(subscriber)


def _more(subscriber: Subscriber) -> list[m.Header]:
    """Return the reliable messages that still come."""
    found: list[m.Header] = []
    while (message := subscriber.receive(0.3)) is not None:
        if isinstance(message.header, m.Reliable):
            found.append(message.header)
    assert not subscriber.lost, subscriber.lost
    return found


def _wrong_finals(result: dict[str, Any], heard: list[m.Header]) -> Iterator[str]:
    """Yield what a subscriber lacks of a result, or has twice."""
    keys = [(m.tag_of(h), getattr(h, "method", ""), getattr(h, "modality", "")) for h in heard]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        yield f"heard twice: {sorted(twice)}"
    maps = {f"{h.method}.{h.modality}" for h in heard if isinstance(h, m.Segmentation)}
    if maps != set(result["classes"]):
        yield f"maps heard: {sorted(maps)}, in the result {sorted(result['classes'])}"
    digests = {h.digest for h in heard if isinstance(h, m.ScanDone)}
    if digests != {result["digest"]}:
        yield f"scan_done told {digests}"
