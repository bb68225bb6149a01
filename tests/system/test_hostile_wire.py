"""The hostile corpus against a running service, at every door: all of it counted by reason, the scan unharmed.

Whoever sends it does so beside an honest scan, whose digest must be that of the same scan in peace.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import zmq
from processes import Service, wait_for

import hostile
from hostile import ANNOUNCED, BROKEN, REPLIES, REQUESTS, SUBSCRIPTIONS, TCP, WRONG, Case
from hostile_making import PLAN, REFUSED, SCAN, SIDE, sent
from livestem.client import Acquisition, Haadf, Sampling, ScanPlan, ScanWriter, Subscriber
from livestem.domain.errors import RefusedError
from livestem.domain.parameters import Processing
from livestem.wire import messages as m
from livestem.wire.codec import decode

pytestmark = pytest.mark.system

FIELD = msgspec.convert(PLAN, ScanPlan)
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(100, 1000, (2, SIDE, SIDE)).astype("<u2")
COUNTS = RNG.poisson(3.0, (2, SIDE, SIDE)).astype("u1")
MOST_MIB = 400.0  # that a service may grow by: a message of 64 MiB is held some times over, a plan's sums are small


class Grown:
    """Watches how far a service's memory grows."""

    def __init__(self, service: Service) -> None:
        self._process = psutil.Process(service.process.pid)
        self._before = self._process.memory_info().rss

    def check(self) -> None:
        grown = (self._process.memory_info().rss - self._before) / 2**20
        assert grown < MOST_MIB, f"{grown:.0f} MiB more than before"


@pytest.fixture(autouse=True)
def bounded(service: Service) -> Iterator[None]:
    """Whatever is sent: the service is alive afterwards, answers within seconds, and has not grown without bound."""
    grown = Grown(service)
    yield
    began = time.monotonic()
    service.assert_well()
    assert time.monotonic() - began < 10
    grown.check()


def rejected(service: Service) -> Counter[str]:
    """Return what was dropped so far, by reason."""
    reasons = {case.reason for case in (*BROKEN, *WRONG)}
    return Counter({reason: int(service.metric("livestem_rejected_total", reason=reason)) for reason in reasons})


def counted(service: Service, before: Counter[str], expected: Counter[str]) -> None:
    """Wait until so many more messages of each reason were dropped, and make sure that no others were."""
    wait_for(lambda: not expected - (rejected(service) - before), 20, f"{rejected(service) - before} of {expected}")
    assert rejected(service) - before == expected


def half(scan: ScanWriter, frame: int) -> None:
    """Send one frame, its HAADF row by row, as the corpus expects it."""
    for y in range(SIDE):
        scan.haadf(PICTURE[frame, y : y + 1], frame=frame, y=y)
    channels = np.random.default_rng(frame).integers(400, 700, int(COUNTS[frame].sum())).astype("<u2")
    scan.eds_events(COUNTS[frame], channels, frame=frame)


def digest(folder: Path) -> str:
    result = json.loads((folder / "result.json").read_bytes())
    assert (result["status"], result["coverage"]) == ("complete", {"haadf": 1.0, "eds": 1.0})
    return str(result["digest"])


def beside_a_scan(service: Service, session: str, what: Callable[[Acquisition], None]) -> str:
    """Do something in the middle of a scan; return the scan's digest."""
    with Acquisition(session, service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(FIELD, SCAN) as scan:
            half(scan, 0)
            what(acquisition)
            half(scan, 1)
        acquisition.wait_acknowledged()
        return digest(service.finished(session, SCAN))


@pytest.fixture(scope="module")
def clean(service: Service) -> str:
    """The digest of the scan in peace."""
    return beside_a_scan(service, "peace", lambda acquisition: None)


def publish(acquisition: Acquisition, messages: Iterable[Sequence[bytes]]) -> None:
    """Send frames on the acquisition's own PUB socket, past all that it would check."""
    with acquisition._hub.lock:
        for frames in messages:
            acquisition._hub._xpub.send_multipart(frames)


def reply(acquisition: Acquisition, messages: Sequence[Sequence[bytes]]) -> None:
    """Send frames to the service that is attached, unasked: on the hub's thread, at the service's next word."""
    hub, said = acquisition._hub, threading.Event()
    heard = hub._on_talk

    def speak(request: m.Talk) -> None:
        if heard is not None:
            heard(request)
        if not said.is_set():
            for peer in acquisition._publisher.services:
                for frames in messages:
                    hub._door.router.send_multipart([peer, *frames])
            said.set()

    hub._on_talk = speak
    assert said.wait(10), "the service says nothing"
    hub._on_talk = heard


def reasons(cases: Iterable[Case]) -> Counter[str]:
    return Counter(case.reason for case in cases)


def test_what_is_published_and_broken_is_counted_and_the_scan_unharmed(service: Service, clean: str):
    cases = [case for case in BROKEN if case.audible]
    assert len(cases) > 150
    before = rejected(service)
    found = beside_a_scan(
        service, "broken", lambda acquisition: publish(acquisition, (c.make("broken") for c in (*cases, *ANNOUNCED)))
    )
    counted(service, before, reasons(cases))
    assert found == clean


def test_what_is_replied_and_broken_is_counted_and_the_scan_unharmed(service: Service, clean: str):
    cases = [case for case in BROKEN if not case.heavy]
    messages = [case.make("replies") for case in (*cases, *REPLIES, *REQUESTS)]
    before = rejected(service)
    assert beside_a_scan(service, "replies", lambda acquisition: reply(acquisition, messages)) == clean
    counted(service, before, reasons(cases))


def test_what_breaks_the_scans_rules_is_counted_and_not_applied(service: Service, clean: str):
    """Well-formed, numbered messages, as a faulty adapter might send them: dropped, and the stream goes on."""

    def send(acquisition: Acquisition) -> None:
        with pytest.raises(RefusedError, match="--chip-px"):
            acquisition.start_scan(msgspec.structs.replace(FIELD, processing=Processing(chip_px=99)), REFUSED)
        for case in WRONG:
            message = decode(case.make("wrong"))
            assert isinstance(message.header, m.OfScan)
            acquisition.publish(message.header, message.arrays)

    before = rejected(service)
    assert beside_a_scan(service, "wrong", send) == clean
    counted(service, before, reasons(WRONG))


def test_plans_that_are_bombs_are_refused_one_by_one(service: Service, clean: str):
    def send(acquisition: Acquisition) -> None:
        for case in hostile.BOMBS:
            start = decode(case.make("bombs")).header
            assert isinstance(start, m.ScanStart)
            acquisition._announce(start)
            wait_for(lambda scan=start.scan_id: acquisition.verdict(scan), 20, case.name)
            verdict = acquisition.verdict(start.scan_id)
            assert verdict is not None and not verdict.accepted, case.name

    assert beside_a_scan(service, "bombs", send) == clean
    assert [p.name for p in (service.store / "bombs").iterdir()] == [SCAN]


@pytest.fixture
def dealer(service: Service) -> Iterator[zmq.Socket[bytes]]:
    """A stranger at the door where requests are answered."""
    port = int(service.results.rsplit(":", 1)[1]) + 1
    with zmq.Context() as context, context.socket(zmq.DEALER) as found:
        found.setsockopt(zmq.LINGER, 1000)
        found.connect(f"tcp://127.0.0.1:{port}")
        yield found


def ask_honestly(dealer: zmq.Socket[bytes]) -> None:
    """Say hello, and be welcomed, whatever else comes first; an answer that had no room in the queue is asked again."""
    for _ in range(10):
        dealer.send_multipart(sent("", "hello", versions=[1], role="observer", request_id="honest"))
        while dealer.poll(1000):
            if getattr(decode(dealer.recv_multipart()).header, "request_id", "") == "honest":
                return
    pytest.fail("an honest request after the rubbish is not answered")


def test_what_is_asked_and_broken_is_counted(service: Service, dealer: zmq.Socket[bytes], clean: str):
    cases = [case for case in BROKEN if not case.heavy]
    before = rejected(service)
    for case in cases:
        dealer.send_multipart(case.make("peace"))
    for case in WRONG:  # whole, and no request
        dealer.send_multipart(case.make("peace"))
    ask_honestly(dealer)
    counted(service, before, reasons(cases) + Counter(topic=len(WRONG)))


def test_absurd_requests_are_answered_or_ignored(service: Service, dealer: zmq.Socket[bytes], clean: str):
    before = rejected(service)
    for _ in range(20):
        for case in REQUESTS:
            dealer.send_multipart(case.make("peace"))
    ask_honestly(dealer)
    assert rejected(service) == before


def test_a_request_of_megabytes_costs_its_sender_the_connection(service: Service, dealer: zmq.Socket[bytes]):
    for _ in range(4):
        dealer.send_multipart([b"", bytes(2**26), b""])
    dealer.send_multipart(sent("", "hello", versions=[1], role="observer"))
    service.assert_well()


def test_a_flood_of_subscriptions_ends_and_others_are_served(service: Service, clean: str):
    port = int(service.results.rsplit(":", 1)[1])
    with zmq.Context() as context, context.socket(zmq.XSUB) as flood:
        flood.setsockopt(zmq.SNDHWM, 0)
        flood.setsockopt(zmq.LINGER, 0)
        flood.connect(f"tcp://127.0.0.1:{port}")
        for frames in SUBSCRIPTIONS.values():
            flood.send_multipart(frames)
        for n in range(20_000):
            flood.send(b"\x01res.nobody%d." % n)
        with Subscriber(service.results) as results:
            results.wait_subscribed(20)
    service.assert_well()


def say(peer: socket.socket, data: bytes) -> None:
    """Send, perhaps to a service that has hung up already: that is fair."""
    with contextlib.suppress(OSError):
        peer.sendall(data)


def test_strangers_at_every_port_are_left_alone_and_health_is_told_meanwhile(service: Service):
    """All at once, and all of them stay: whoever never finishes a sentence holds up nobody."""
    port = int(service.results.rsplit(":", 1)[1])
    with ExitStack() as open_ones:
        for door in (port, port + 1, service.http):
            for data in TCP.values():
                peer = open_ones.enter_context(socket.create_connection(("127.0.0.1", door), timeout=5))
                say(peer, data)
        slow = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", service.http), timeout=5)) for _ in range(80)
        ]
        for letter in b"GET":
            for peer in slow:
                say(peer, bytes([letter]))
            service.assert_well()
    service.assert_well()


def test_a_message_that_was_made_wrong_is_given_up_and_the_scan_ends(service: Service):
    """Its checksum is right and its content is not: asking again does not help, and must not go on for ever."""
    plan = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(32, 32), pixel_nm=(1.0, 1.0)), dtype="<f4"), frames=1)
    with Acquisition("madewrong", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(plan, "holed") as scan:
            scan.haadf(PICTURE[0, :16].astype("<f4"))
            rows = m.HaadfRows(scan_id="holed", frame=0, y=16, x=0)
            acquisition.publish(rows, (np.full((16, 32), np.nan, "<f4"),))
        acquisition.wait_acknowledged()
        folder = service.finished("madewrong", "holed")
    result = json.loads((folder / "result.json").read_bytes())
    assert result["coverage"] == {"haadf": 0.5}
    assert result["missing_tiles"] == [{"modality": "haadf", "frame": 0, "y": 16, "h": 16}]
    with np.load(folder / "labels.npz") as labels:
        ward = labels["ward.haadf"]
    assert (ward[ward.shape[0] // 2 :] == -1).all() and (ward[: ward.shape[0] // 2] >= 0).all()


def test_a_scrape_that_is_broken_off_is_no_traceback(service: Service):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", service.http), timeout=5) as peer:
            peer.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave with a reset


def test_a_flood_of_rubbish_is_not_a_flood_of_log(service: Service):
    with Acquisition("flood", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        before, said = rejected(service), len(service.words())
        publish(acquisition, ([b"acq.flood.haadf_tile", os.urandom(8), b"y", b"z"] for _ in range(2000)))
        counted(service, before, Counter(check=2000))
        assert len(service.words()) - said < 20_000
