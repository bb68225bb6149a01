"""``kill -9`` of the service, of a replay, of the virtual microscope, at any moment of a scan; then a new start.

A recorded scan is sent at a pace of some seconds. In the phase that was drawn the victim is killed without a word and
started again as a person would: the service with the same command, a source with the same command and ``--session``.
In the end the digest must be that of the scan without a kill.

===============  ====================================================================================================
phase            the kill comes
===============  ====================================================================================================
before           when the source is attached and nothing, or next to nothing, is counted in
tiles            when a share of the scan's tiles that was drawn is counted in
end              at once when the last tile is counted in
finals           within the time that the finals of the clean scan took, after the last tile
after            as soon as the result is in its folder: between storing and publishing, or later
===============  ====================================================================================================
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.reliability.processes import Service, digests, end, run, start, wait_for

from livestem.client import Subscriber
from livestem.wire import messages as m

Victim = Literal["service", "replay", "simulate"]
Phase = Literal["before", "tiles", "end", "finals", "after"]
PHASES: dict[Victim, tuple[Phase, ...]] = {
    "service": ("before", "tiles", "tiles", "end", "finals", "finals", "after"),
    "replay": ("before", "tiles", "tiles", "end"),
    "simulate": ("before", "tiles", "tiles", "end"),
}
FRAMES, SPEED = 4, 1.0  # of a quarter of the demo's pixels: some seconds of sending
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kill:
    """One kill, as it is drawn: `share` of the tiles or of the time that finals take."""

    victim: Victim
    phase: Phase
    share: float


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    kill: Kill
    status: str
    same_digest: bool
    missing_rows: int
    wrong: tuple[str, ...]
    took_s: float
    tiles_there: float = 0.0  # counted in at the kill, of a service that could still be asked
    result_there: bool = False  # in its folder at the kill


def drawn(n: int, seed: int) -> Iterator[Kill]:
    """Yield so many kills: every victim and phase in turn, at random moments of it."""
    rng = random.Random(seed)
    kinds = [(victim, phase) for victim, phases in PHASES.items() for phase in phases]
    order: list[tuple[Victim, Phase]] = []
    for _ in range(n):
        if not order:
            order = rng.sample(kinds, len(kinds))
        victim, phase = order.pop()
        yield Kill(victim, phase, rng.random())


class Kills:
    """Kills victims of scans that are all the same.

    Parameters
    ----------
    folder : where stores, logs and the recorded scan go
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._recorded = folder / "recorded"
        text = (_ROOT / "configs" / "specimens" / "demo.toml").read_text(encoding="utf-8")
        assert "shape = [320, 320]" in text
        self._specimen = folder / "demo.toml"
        self._specimen.write_text(text.replace("shape = [320, 320]", "shape = [160, 160]"), encoding="utf-8")
        done = run("simulate", "--sample", self._specimen, "--frames", FRAMES, "--save", self._recorded)
        assert done.returncode == 0, done.stderr
        with Service(folder / "clean") as service:
            result = service.replay_fully(self._recorded)
            self._tiles = service.metric("livestem_tiles_received_total")
            self._finals_s = service.metric("livestem_stage_duration_seconds_sum", stage="finals")
        self._clean = json.loads((result / "result.json").read_bytes())

    def run(self, kill: Kill) -> Outcome:
        """Do one kill, and see what comes of it; what does not come in time is wrong."""
        began = time.monotonic()
        self._number += 1
        service = Service(self._folder / f"kill-{self._number}")
        sources: list[subprocess.Popen[str]] = []
        try:
            found = self._run(kill, service, sources)
        except (AssertionError, subprocess.TimeoutExpired) as e:
            found = Outcome(kill, "none", False, 0, (f"{type(e).__name__}: {str(e)[:500]}",), 0.0)
        finally:
            end(service.process)
            for source in sources:
                end(source, signal.SIGKILL)
        return replace(found, took_s=round(time.monotonic() - began, 1))

    def _run(self, kill: Kill, service: Service, sources: list[subprocess.Popen[str]]) -> Outcome:
        with Subscriber(service.results, session="sitting") as subscriber:
            sources.append(self._source(kill, service))
            self._wait(kill, service, sources[0])
            tiles = service.metric("livestem_tiles_received_total")
            there = (service.store / "sitting" / self._clean["scan_id"] / "result.json").is_file()
            if kill.victim == "service":
                end(service.process, signal.SIGKILL)
                service.restart()
                service.wait_ready()
            else:
                end(sources[0], signal.SIGKILL)
                sources.append(self._source(kill, service))
            code = sources[-1].wait(120)
            found = self._judged(kill, service, subscriber, code)
        service.assert_well()
        return replace(found, tiles_there=tiles / self._tiles, result_there=there)

    def _source(self, kill: Kill, service: Service) -> subprocess.Popen[str]:
        simulated = ("simulate", "--sample", self._specimen, "--frames", FRAMES)
        what = simulated if kill.victim == "simulate" else ("replay", self._recorded)
        where = ("--session", "sitting", "--acquisition", service.acquisition, "--wait", 60)
        log = service.folder / "source.log"
        with log.open("a", encoding="utf-8") as out:
            return start(*what, "--speed", SPEED, *where, stdout=out, stderr=out)

    def _wait(self, kill: Kill, service: Service, source: subprocess.Popen[str]) -> None:
        """Return at the moment of the kill."""
        folder = service.store / "sitting" / self._clean["scan_id"]
        if kill.phase == "before":
            wait_for(lambda: service.metric("livestem_adapters_attached") >= 1 or source.poll() is not None)
            time.sleep(0.2 * kill.share)
        elif kill.phase == "tiles":
            _reached(service, kill.share * self._tiles)
        elif kill.phase == "after":
            wait_for((folder / "result.json").is_file)
            time.sleep(0.1 * kill.share)
        else:
            _reached(service, self._tiles)
            time.sleep(1.1 * self._finals_s * kill.share if kill.phase == "finals" else 0.0)

    def _judged(self, kill: Kill, service: Service, subscriber: Subscriber, code: int) -> Outcome:
        folder = service.finished("sitting", self._clean["scan_id"])
        result = json.loads((folder / "result.json").read_bytes())
        same = digests(result) == digests(self._clean)
        wrong = list(_wrong_finals(subscriber))
        if code != 0:
            wrong.append(f"the source ended with {code}: {(service.folder / 'source.log').read_text('utf-8')[-300:]}")
        if not same or result["status"] != "complete":
            wrong.append(f"{result['status']}, digest {result['digest'][:12]}")
        return Outcome(kill, result["status"], same, len(result["missing_tiles"]), tuple(wrong), 0.0)


def _reached(service: Service, tiles: float) -> None:
    wait_for(lambda: service.metric("livestem_tiles_received_total") >= tiles, pause=0.01)


def _wrong_finals(subscriber: Subscriber) -> Iterator[str]:
    """Yield what is wrong with what a subscriber that lived through it all has heard: every final once, none lost."""
    heard: list[m.Header] = []

    def done() -> bool:
        message = subscriber.receive(0.2)
        if message is not None and isinstance(message.header, m.Reliable):
            heard.append(message.header)
        return any(isinstance(header, m.ScanDone) for header in heard)

    wait_for(done, 30.0, "no scan_done was heard")
    while (message := subscriber.receive(0.5)) is not None:
        if isinstance(message.header, m.Reliable):
            heard.append(message.header)
    keys = [(m.tag_of(h), getattr(h, "method", ""), getattr(h, "modality", "")) for h in heard]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        yield f"heard twice: {twice}"
    if subscriber.lost:
        yield f"told lost: {subscriber.lost}"


def run_kills(n: int, folder: Path, seed: int, told: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
    """Do so many kills; `told` is given each outcome as it comes."""
    kills, found = Kills(folder), []
    for kill in drawn(n, seed):
        found.append(kills.run(kill))
        told(found[-1])
    return found
