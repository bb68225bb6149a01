"""Every metric moves to the value that it should have: what is told to it happens, and the real endpoint is asked.

Each story runs one service in this process and keeps every scrape of it; the last test looks through all of them for
a sample that was never seen to differ. Reasons of rejection have tests of their own (`test_hostile_wire`, over the
wire of a real process); here are those that no hostile message brings about.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client.metrics_core import Metric
from scans import ASKED, plan, tiles
from test_monitoring import SCAN, SESSION, ask_again, families, value

from hostile import BROKEN, WRONG
from livestem.client import Acquisition, Endpoint, ScanWriter, Subscriber
from livestem.client.keys import new_pair
from livestem.domain.errors import DiskFullError, StageError
from livestem.domain.limits import Limits
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.runtime import finisher, health, lag, live, monitor
from livestem.runtime.journal import Journal
from livestem.runtime.segmenter import Segmenter
from livestem.runtime.settings import Http, Settings
from livestem.wire import messages as m
from ports import free_pairs

WAIT_S = 30.0  # for what takes a second, on a busy machine
GIB = 2**30
PLAN = msgspec.structs.replace(plan(), processing=ASKED)
SMALL = plan((8, 8), 1, eds=False)
TILES = tiles(PLAN)  # two frames, three bands of eight rows, HAADF and EDS each


class Terminal:
    """A person's screen: takes lines, or stops taking them at a word; or is gone, with an error."""

    def __init__(self) -> None:
        self.stops_at, self.breaks_at = "", ""
        self.goes_on = threading.Event()

    def __call__(self, text: str) -> None:
        if self.breaks_at and self.breaks_at in text:
            raise RuntimeError("the terminal is gone")
        if self.stops_at and self.stops_at in text:
            assert self.goes_on.wait(2 * WAIT_S)


class Watched:
    """A service in this process, and every scrape of it."""

    def __init__(self, **settings: Any) -> None:
        self.terminal = Terminal()
        self.folder = tempfile.TemporaryDirectory()
        data, nobody, results = free_pairs(3)
        self.settings = Settings(
            acquisition=(Endpoint(f"tcp://127.0.0.1:{data}"), Endpoint(f"tcp://127.0.0.1:{nobody}")),
            results=Endpoint(f"tcp://127.0.0.1:{results}"),
            http=Http(port=0),
            store=self.folder.name,
            **settings,
        )
        self.scrapes: list[dict[str, Metric]] = []
        self.service = Segmenter(self.settings, self.terminal)

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminal.goes_on.set()
        self.service.close()
        self.folder.cleanup()

    def source(self, **how: Any) -> Acquisition:
        return Acquisition(SESSION, self.settings.acquisition[0], **how)

    def now(self, name: str, **labels: str) -> float:
        """Return a metric of ours as a scrape has it now."""
        self.scrapes.append(families(self.service))
        return value(self.scrapes[-1], f"livestem_{name}", **labels)

    def until(self, holds: Callable[[float], bool], name: str, **labels: str) -> float:
        """Return a metric once it is as it should be."""
        deadline = time.monotonic() + WAIT_S
        while not holds(found := self.now(name, **labels)):
            assert time.monotonic() < deadline, f"{name} {labels} stays at {found}"
            time.sleep(0.02)
        return found

    def reaches(self, wanted: float, name: str, **labels: str) -> None:
        self.until(lambda found: found == wanted, name, **labels)


def counted(scrape: dict[str, Metric]) -> list[Any]:
    """Return the samples of ours that only rise, without the buckets."""
    rising = ("_total", "_count", "_sum")
    ours = [sample for family in scrape.values() for sample in family.samples if sample.name.startswith("livestem_")]
    return [sample for sample in ours if sample.name.endswith(rising)]


def stored(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


# --- stories ------------------------------------------------------------------------------------------------


def a_scan_with_a_hole(patch: pytest.MonkeyPatch) -> Watched:
    """A tile is lost and comes again, another is late; one comes twice, one contradicts; then all is there."""
    patch.setattr(monitor, "_LOOK_S", 0.0)
    patch.setattr(monitor, "_LOOK_SHARE", 1e9)  # the store's size is looked up at every scrape
    lost = iter([True])

    def link(frames: list[bytes]) -> Iterator[list[bytes]]:
        if not (frames[0].endswith(b".haadf_tile") and next(lost, False)):
            yield frames

    with Watched() as watched:
        watched.reaches(1, "ready")
        assert {sample.value for sample in counted(watched.scrapes[0])} == {0}
        assert (watched.now("adapters_configured"), watched.now("adapters_attached")) == (2, 0)
        assert abs(watched.now("disk_free_bytes") - shutil.disk_usage(watched.folder.name).free) < GIB
        at_first = watched.now("store_bytes")
        with Subscriber(watched.settings.results) as subscriber:
            subscriber.wait_subscribed(WAIT_S)
            watched.reaches(1, "subscriptions")
        watched.reaches(0, "subscriptions")
        with watched.source(recorded=True, link=link) as source:
            watched.reaches(1, "adapters_attached")
            source.wait_for_service(WAIT_S)
            tell_a_scan(watched, source)
        watched.reaches(0, "open_scans")
        watched.until(lambda size: size == stored(Path(watched.folder.name)) > at_first, "store_bytes")
        watched.until(lambda kept: kept > 1000, "resend_buffer_bytes")
        ask_again(watched.settings)
        watched.reaches(1, "subscriber_gaps_total")
    return watched


def tell_a_scan(watched: Watched, source: Acquisition) -> None:
    began = time.monotonic()
    scan = source.start_scan(PLAN, SCAN)
    watched.reaches(1, "open_scans")
    late = next(tile for tile in TILES if (tile.frame, tile.y) == (0, 8) and isinstance(tile, HaadfTile))
    for tile in TILES:
        if tile is not late:
            scan.tile(tile)
    watched.reaches(11, "tiles_received_total")
    watched.reaches(1, "gap_repairs_total")  # the lost one
    watched.reaches(1, "tiles_missing", scan="open")  # the late one
    age = watched.until(lambda age: age > 0.3, "result_age_seconds")
    assert age < time.monotonic() - began
    shown, sent_at = watched.now("live_maps_total"), time.monotonic()
    stutter = ScanWriter(source, PLAN, SCAN)  # whose tiles the scan's end does not count
    stutter.tile(TILES[0])
    watched.reaches(1, "tiles_duplicate_total")
    stutter.haadf(np.zeros((8, 24), "<u2"), frame=0, y=0)
    watched.reaches(1, "rejected_total", reason="conflict")
    scan.tile(late)
    watched.until(lambda maps: maps > shown, "live_maps_total")
    assert watched.now("result_age_seconds") < time.monotonic() - sent_at
    assert watched.now("tiles_missing", scan="open") == 0
    scan.end()
    source.wait_acknowledged(WAIT_S)
    watched.reaches(1, "scans_total", status="complete")
    assert [watched.now("tiles_received_total", modality=k) for k in ("haadf", "eds")] == [6, 6]
    photons = [tile for tile in TILES if isinstance(tile, EdsEvents)]
    assert watched.now("eds_counts_total") == sum(tile.channels.size for tile in photons)
    assert watched.now("received_bytes_total") > sum(tile.channels.nbytes for tile in photons)
    for stage in ("commit", "live", "finals", "quantify"):
        assert 0 < watched.now("stage_duration_seconds_sum", stage=stage) < time.monotonic() - began


def a_source_that_vanishes(patch: pytest.MonkeyPatch) -> Watched:
    """It leaves a hole and goes; then one of its tiles comes after all, when there is no place for its scan."""
    with Watched(limits=Limits(open_scans=1)) as watched:
        with watched.source(recorded=True) as source:
            scan = source.start_scan(PLAN, SCAN)
            scan.tile(TILES[0])
            source.wait_acknowledged(WAIT_S)
            source.close()
        patch.setattr(health, "SILENT_S", 0.1)
        watched.reaches(1, "degraded", reason="adapter")
        watched.service._intake._vanish_s = 0.1
        watched.reaches(1, "scans_total", status="incomplete")
        watched.service._intake._vanish_s = 10 * WAIT_S
        watched.reaches(4, "tiles_missing", scan="finished")  # a band of each modality in each of the two frames
        watched.reaches(0, "degraded", reason="adapter")
        with watched.source(recorded=True) as source:
            other = source.start_scan(SMALL, "other")
            ScanWriter(source, PLAN, SCAN).tile(TILES[-1])
            watched.reaches(1, "rejected_total", reason="finished")
            other.end("aborted")
            watched.reaches(1, "scans_total", status="aborted")
    return watched


def finals_that_wait(patch: pytest.MonkeyPatch) -> Watched:
    """The screen takes no line more while finals are told; a scan later no finals can be made."""
    with Watched(limits=Limits(open_scans=1)) as watched, watched.source(recorded=True) as source:
        watched.terminal.stops_at = "complete: "
        small_scan(source, "one")
        watched.reaches(1, "finals_waiting")
        small_scan(source, "two")
        watched.reaches(2, "finals_waiting")
        assert watched.now("open_scans") == 2
        assert (watched.now("degraded", reason="finals"), watched.now("degraded")) == (1, 1)
        watched.terminal.goes_on.set()
        watched.reaches(0, "finals_waiting")
        assert watched.now("degraded") == 0

        def fails(*arguments: object) -> None:
            raise StageError("as if a method could not be applied")

        patch.setattr(finisher, "conclude", fails)
        small_scan(source, "three")
        watched.reaches(1, "scans_total", status="failed")
        assert watched.now("scans_total") == 3
    return watched


def small_scan(source: Acquisition, scan_id: str) -> None:
    with source.start_scan(SMALL, scan_id) as scan:
        scan.haadf(tiles(SMALL)[0].values)


def scoring_that_is_too_slow(patch: pytest.MonkeyPatch) -> Watched:
    """Live maps lag, which is told when it begins and when it is over; what is stored is what is always stored."""
    quick, goes_on = live.fewshot_map, threading.Event()

    def slow(*arguments: Any) -> Any:
        assert goes_on.wait(2 * WAIT_S)
        return quick(*arguments)

    with Watched() as watched, watched.source(recorded=True) as source:
        with Subscriber(watched.settings.results) as subscriber:
            subscriber.wait_subscribed(WAIT_S)
            watched.reaches(1, "ready")
            patch.setattr(live, "fewshot_map", slow)
            scan = source.start_scan(PLAN, "slow")
            heard_until(subscriber, lambda h: h.session == SESSION)  # which it did not know
            for tile in TILES[:-2]:
                scan.tile(tile)
            watched.reaches(1, "degraded", reason="compute")
            reason = watched.service.monitor.health().reasons["compute"]
            assert "compute lags" in reason and "frames: live maps are late" in reason
            assert watched.now("ready") == 1 and watched.now("live_lag_seconds") > lag.LEAST_S
            watched.reaches(len(TILES) - 2, "tiles_received_total")
            assert watched.now("live_maps_total") == 0
            goes_on.set()
            watched.reaches(0, "degraded", reason="compute")
            for tile in TILES[-2:]:
                scan.tile(tile)
            said = heard_until(subscriber, lambda h: isinstance(h, m.Status) and "keep up" in h.text)
            assert [h.level for h in said if isinstance(h, m.Status) and "live maps" in h.text] == ["warning", "info"]
            scan.end()
            late = heard_until(subscriber, lambda h: isinstance(h, m.ScanDone))[-1]
            patch.setattr(live, "fewshot_map", quick)
            with source.start_scan(PLAN, "quick") as scan:
                for tile in TILES:
                    scan.tile(tile)
            done = heard_until(subscriber, lambda h: isinstance(h, m.ScanDone))[-1]
            assert (late.status, late.digest, late.input_digest) == ("complete", done.digest, done.input_digest)
    return watched


def heard_until(subscriber: Subscriber, last: Callable[[Any], bool]) -> list[Any]:
    """Return the headers up to the one that is waited for."""
    headers: list[Any] = []
    deadline = time.monotonic() + WAIT_S
    while not headers or not last(headers[-1]):
        assert time.monotonic() < deadline, headers
        message = subscriber.receive(1.0)
        if message is not None:
            headers.append(message.header)
    return headers


def a_store_that_cannot_be_written(patch: pytest.MonkeyPatch) -> Watched:
    """No room for the journal, and then there is again."""
    full, commit = threading.Event(), Journal.commit

    def when_there_is_room(journal: Journal, epoch: int, seq: int) -> None:
        if full.is_set():
            raise DiskFullError("the journal cannot be written: its disk is full; make room there")
        commit(journal, epoch, seq)

    patch.setattr(Journal, "commit", when_there_is_room)
    with Watched() as watched, watched.source(recorded=True) as source:
        with source.start_scan(SMALL, SCAN):
            watched.reaches(1, "ready")
            full.set()
            watched.reaches(1, "degraded", reason="store")
            assert (watched.now("degraded"), watched.now("ready")) == (1, 0)
            full.clear()
            watched.reaches(0, "degraded", reason="store")
            watched.reaches(1, "ready")
    return watched


def a_disk_without_room(patch: pytest.MonkeyPatch) -> Watched:
    """Less is free than the service was told to leave."""
    with Watched(limits=Limits(free_disk_bytes=2**62)) as watched:
        watched.reaches(1, "degraded", reason="disk")
        watched.until(lambda _: watched.service.monitor.look().warm, "ready")  # so that it is the disk alone
        assert (watched.now("degraded"), watched.now("ready")) == (1, 0)
    return watched


def a_thread_that_hangs(patch: pytest.MonkeyPatch) -> Watched:
    """The screen takes no line more while ingest tells something; then the screen is gone, and ingest with it."""
    with Watched() as watched:
        watched.reaches(1, "ready")
        watched.terminal.stops_at, watched.terminal.breaks_at = "attached", "scan"
        with watched.source() as source:
            patch.setattr(health, "STUCK_S", 0.5)
            watched.reaches(1, "degraded", reason="stuck")
            assert watched.now("ready") == 0
            watched.terminal.goes_on.set()
            watched.reaches(0, "degraded", reason="stuck")
            assert watched.now("degraded", reason="thread") == 0
            patch.setattr(health, "STUCK_S", 10 * WAIT_S)
            source.start_scan(SMALL, SCAN)
            watched.reaches(1, "degraded", reason="thread")
            assert (watched.now("degraded"), watched.now("ready")) == (1, 0)
    return watched


def a_stranger_at_the_door(patch: pytest.MonkeyPatch) -> Watched:
    """Somebody whose key is on no list."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = (new_pair(Path(folder) / name, name) for name in ("server", "stranger"))
        with Watched(keys=str(ours.folder)) as watched:
            assert watched.now("rejected_total") == 0
            at = Endpoint(watched.settings.results.endpoint, server_key=ours.public)
            with Subscriber(at, keys=theirs), Subscriber(at, keys=theirs):
                watched.until(lambda refused: refused >= 2, "rejected_total", reason="forbidden")
            assert watched.now("subscriptions") == 0
    return watched


STORIES = (
    a_scan_with_a_hole, a_source_that_vanishes, finals_that_wait, scoring_that_is_too_slow,
    a_store_that_cannot_be_written, a_disk_without_room, a_thread_that_hangs, a_stranger_at_the_door,
)  # fmt: skip


@functools.cache  # for the last test
def told(story: Callable[[pytest.MonkeyPatch], Watched]) -> list[dict[str, Metric]]:
    with pytest.MonkeyPatch.context() as patch:
        return story(patch).scrapes


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_metrics_follow(story):
    assert told(story)


# What these stories do not move: `test_hostile_wire` sends these to a real process, and counts them by reason.
ELSEWHERE = {("livestem_rejected_total", case.reason) for case in (*BROKEN, *WRONG) if case.reason != "conflict"}
FIXED = {"livestem_build_info", "livestem_adapters_configured"}  # while a service runs


def test_no_metric_stands_still():
    seen: dict[tuple[str, ...], set[float]] = {}
    for scrape in (scrape for story in STORIES for scrape in told(story)):
        for sample in (sample for family in scrape.values() for sample in family.samples):
            if sample.name.startswith("livestem_") and sample.name not in FIXED:
                seen.setdefault((sample.name, *sample.labels.values()), set()).add(sample.value)
    still = {key for key, values in seen.items() if len(values) == 1 and not key[0].endswith("_bucket")}
    assert still == ELSEWHERE
