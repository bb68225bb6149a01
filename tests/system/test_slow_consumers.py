"""Readers that stop reading, beside many that do not: nobody else is slowed, nothing is lost, memory stays bounded.

One real service, three scans with large live maps, and three kinds of reader: 64 that read, one that was subscribed and
never read again, and a ``livestem listen`` whose process is stopped.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import pytest
import zmq
from processes import Listener, Service, end, wait_for

from livestem.client import Acquisition, Haadf, Sampling, ScanPlan, Subscriber
from livestem.domain.parameters import Processing
from livestem.domain.support import SupportClass, SupportSet
from livestem.wire import messages as m

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them"),
]

HEALTHY, SCANS, FRAMES = 64, 3, 6
SIDE, CHIP = 96, 4  # pixels: 24 x 24 chips
CLASSES = 32  # whose scores make a live map of 75 kB
QUEUE, OWN_QUEUE, OWN_BYTES = 10, 2, 4096  # messages that wait for a subscriber at the service (the finals of a scan
# are nine), and what the one that sleeps keeps itself: else the system's buffers would swallow all that is dropped
# What the service may take beyond what it had after one scan without subscribers, MiB: a queue of 1 MB, 3 MB of finals
# kept in memory, 0.2 MB for each of 66 connections, and as much again for an allocator that keeps what it has (12 to 16
# were measured).
# (How a queue is bounded whatever is sent is tested in tests/wire/test_sockets.py, with 400 MB for one that sleeps.)
MOST_MIB = 64
SUPPORT = SupportSet(classes=tuple(SupportClass(name=f"c{i}", chips=((i // 24, i % 24),)) for i in range(CLASSES)))
PLAN = ScanPlan(
    haadf=Haadf(sampling=Sampling(shape=(SIDE, SIDE), pixel_nm=(0.1, 0.1)), dtype="<u2"),
    frames=FRAMES,
    processing=Processing(chip_px=CHIP, support=SUPPORT, register="none"),
)
PICTURE = np.random.default_rng(0).integers(100, 1000, (SIDE, SIDE)).astype("<u2")
FINAL = (m.Segmentation, m.CoverageMap, m.Agreement, m.Descriptors, m.ScanDone)


@dataclass
class Reader:
    """What one subscriber got of the session."""

    subscriber: Subscriber
    finals: list[int] = field(default_factory=list)  # seq
    done: list[tuple[str, str]] = field(default_factory=list)  # scan_id, digest
    live: int = 0

    def read(self) -> None:
        """Take what is here, without waiting."""
        self.subscriber._pump(0)
        while self.subscriber._ready:
            header = self.subscriber.receive(0).header  # type: ignore[union-attr]
            if isinstance(header, m.Live):
                self.live += 1
            elif isinstance(header, m.Reliable):
                self.finals.append(header.seq)
                if isinstance(header, m.ScanDone):
                    self.done.append((header.scan_id, header.digest))


class Crowd(threading.Thread):
    """Many subscribers, read by one thread; what is read is looked at when it has ended."""

    def __init__(self, readers: list[Reader]) -> None:
        super().__init__(daemon=True)
        self.readers, self.over = readers, threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.wait(0.01):
                for reader in self.readers:
                    reader.read()
        except BaseException as e:  # told by the test, on its own thread
            self.failure = e

    @property
    def whole(self) -> bool:
        """Whether every reader has the end of every scan."""
        assert self.failure is None, self.failure
        return all(len(reader.done) >= SCANS for reader in self.readers)


def scan(acquisition: Acquisition, name: str, after_two: Callable[[], None] = lambda: None) -> None:
    """Send one scan in half a dozen frames, over some seconds: live maps take time."""
    with acquisition.start_scan(PLAN, name) as writer:
        for frame in range(FRAMES):
            if frame == 2:
                after_two()
            for y in range(0, SIDE, 16):
                writer.haadf(PICTURE[y : y + 16], frame=frame, y=y)
                time.sleep(0.04)  # the beam takes its time, and live maps theirs
    acquisition.wait_acknowledged()


@dataclass
class Heard:
    """Everything that the readers have when all is over."""

    alone: dict[str, Any]  # result.json of the scan without subscribers
    service: Service
    crowd: list[Reader]
    sleeper: Reader
    stopped: list[dict[str, Any]]  # lines of `listen`, woken after the scans
    grown_mib: float
    repaired: float  # messages sent again to the one that slept, once it was woken


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    folder = tmp_path_factory.mktemp("slow")
    (folder / "serve.toml").write_text(f"[limits]\nsubscriber_queue = {QUEUE}\n")
    with ExitStack() as opened:
        service = opened.enter_context(Service(folder, "--config", folder / "serve.toml"))
        with Acquisition("alone", service.acquisition, recorded=True) as acquisition:
            acquisition.wait_for_service(20)
            scan(acquisition, "scan-0")
        alone = json.loads((service.finished("alone", "scan-0") / "result.json").read_bytes())
        wait_for(lambda: service.metric("livestem_ready") == 1, otherwise="the service has not loaded its libraries")
        memory = psutil.Process(service.process.pid).memory_info
        before = memory().rss
        context: zmq.Context[Any] = opened.enter_context(zmq.Context())
        crowd = [
            Reader(opened.enter_context(Subscriber(service.results, session="crowd", context=context)))
            for _ in range(HEALTHY)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("livestem.client.connection._RCVHWM", OWN_QUEUE)
            context.setsockopt(zmq.RCVBUF, OWN_BYTES)  # of sockets that are opened from now on
            sleeper = Reader(opened.enter_context(Subscriber(service.results, session="crowd", context=context)))
        for reader in (*crowd, sleeper):
            reader.subscriber.wait_subscribed(20)
        listener = opened.enter_context(Listener(service, folder / "lines.jsonl", "--session", "crowd"))
        wait_for(lambda: service.metric("livestem_subscriptions") == HEALTHY + 2)
        reading = Crowd(crowd)
        reading.start()
        opened.callback(reading.join)
        opened.callback(reading.over.set)

        def stop() -> None:
            wait_for(listener.lines, otherwise="listen has shown nothing of the scan")
            wait_for(lambda: sleeper.read() or sleeper.live, otherwise="no live map came")
            listener.process.send_signal(signal.SIGSTOP)
            opened.callback(listener.process.send_signal, signal.SIGCONT)

        largest = 0
        with Acquisition("crowd", service.acquisition, recorded=True) as acquisition:
            acquisition.wait_for_service(20)
            for n in range(SCANS):
                scan(acquisition, f"scan-{n}", *([stop] if n == 0 else []))
                largest = max(largest, memory().rss)
        wait_for(lambda: reading.whole, otherwise="a subscriber that reads did not get every final")
        largest = max(largest, memory().rss)
        reading.over.set()
        reading.join()
        listener.process.send_signal(signal.SIGCONT)
        stopped = listener.until_done(SCANS)
        before_waking = service.metric("livestem_subscriber_gaps_total")
        wait_for(lambda: sleeper.read() or len(sleeper.done) >= SCANS, otherwise="the one that slept is not complete")
        repaired = service.metric("livestem_subscriber_gaps_total") - before_waking
        yield Heard(alone, service, crowd, sleeper, stopped, (largest - before) / 2**20, repaired)
        service.assert_well()
        assert end(listener.process) in (0, -signal.SIGTERM, 143)


def test_every_reader_that_reads_gets_every_final_once_and_in_order(heard: Heard):
    (finals,) = {tuple(reader.finals) for reader in heard.crowd}
    assert finals == tuple(range(1, len(finals) + 1)) and len(finals) >= 4 * SCANS
    assert all(reader.subscriber.lost == [] and not reader.subscriber.rejected for reader in heard.crowd)
    assert min(reader.live for reader in heard.crowd) > QUEUE, "live maps come while the others sleep"


def test_who_does_not_read_slows_nothing_and_changes_nothing(heard: Heard):
    digests = {digest for reader in heard.crowd for _, digest in reader.done}
    assert digests == {heard.alone["digest"]}
    for n in range(SCANS):
        result = json.loads((heard.service.finished("crowd", f"scan-{n}") / "result.json").read_bytes())
        assert (result["status"], result["coverage"]) == ("complete", {"haadf": 1.0})
        assert result["input_digest"] == heard.alone["input_digest"]


def test_who_was_asleep_is_complete_when_it_wakes(heard: Heard):
    everything = heard.crowd[0].finals
    assert heard.sleeper.finals == everything and heard.sleeper.subscriber.lost == []
    lines = [line for line in heard.stopped if "seq" in line]
    assert [line["seq"] for line in lines] == everything
    assert Counter(line["scan_id"] for line in heard.stopped if line["type"] == "scan_done") == {
        f"scan-{n}": 1 for n in range(SCANS)
    }


def test_live_maps_are_dropped_for_who_does_not_read_and_finals_sent_again(heard: Heard):
    assert heard.sleeper.live < min(reader.live for reader in heard.crowd)
    assert heard.repaired > 0, "finals were dropped for it too, and sent again"


def test_the_memory_of_the_service_is_bounded(heard: Heard):
    assert heard.grown_mib < MOST_MIB
