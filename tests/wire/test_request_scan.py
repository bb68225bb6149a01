"""Asking an instrument for scans, and trying what a network can do to what it sends: over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from least_service import Service, until

from livestem.client import Acquisition, Endpoint, Haadf, Instrument, Sampling, ScanGrant, ScanPlan, ScanRequest
from livestem.client import answers as answers_module
from livestem.client.answers import KEPT, Answers
from livestem.client.hub import Hub
from livestem.domain.errors import (
    LivestemError,
    RefusedError,
    SourceError,
    StoreError,
    TransportError,
    UsageError,
)
from livestem.protocol.publisher import Publisher
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

Make = Callable[[], Endpoint]
Serve = Callable[..., Service]
ASKED = ScanRequest(region_nm=(10.0, 20.0, 5.0, 6.0), frames=3, dwell_s=2e-6, pixel_nm=0.1, reason="a boundary")
PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(64, 64), pixel_nm=(0.1, 0.1)), dtype="<u2"), frames=100)
FRAME = np.arange(64 * 64, dtype="<u2").reshape(64, 64)


class Bench:
    """An instrument's own side: queues what it is asked for, and grants it by number."""

    def __init__(self) -> None:
        self.asked: list[ScanRequest] = []

    def __call__(self, request: ScanRequest) -> ScanGrant:
        self.asked.append(request)
        queued = len(self.asked) - 1
        return ScanGrant(scan_id=f"scan-{queued}", duration_s=request.frames * 0.25, dose_e_nm2=1e4, queued=queued)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def microscope(endpoint: Endpoint, bench: Bench, closing: ExitStack, context: zmq.Context[Any]) -> Acquisition:
    return closing.enter_context(Acquisition("s1", endpoint, on_request=bench, context=context))


@pytest.fixture
def hand(endpoint: Endpoint, closing: ExitStack, context: zmq.Context[Any]) -> Instrument:
    return closing.enter_context(Instrument(endpoint, name="test", context=context))


def refused(hand: Instrument, request: ScanRequest = ASKED) -> str:
    """Return the reason of a refusal, which is one line."""
    with pytest.raises(RefusedError) as caught:
        hand.request_scan(request)
    reason = str(caught.value)
    assert reason and "\n" not in reason
    return reason


# --- granted and refused ------------------------------------------------------------------------------------


def test_a_scan_is_granted(microscope: Acquisition, bench: Bench, hand: Instrument):
    assert hand.request_scan(ASKED) == ScanGrant(scan_id="scan-0", duration_s=0.75, dose_e_nm2=1e4, queued=0)
    assert hand.request_scan(ScanRequest()).scan_id == "scan-1"
    assert bench.asked == [ASKED, ScanRequest()]
    assert microscope._hub.rejected == {}


def test_what_was_granted_is_scanned_under_its_name(endpoint: Endpoint, bench: Bench, hand: Instrument, serve: Serve):
    """As an instrument's script does it: the handler queues, the script scans, a service follows."""
    with Acquisition("s1", endpoint, on_request=bench) as acquisition:
        service = serve(endpoint)
        acquisition.wait_for_service(10.0)
        with acquisition.start_scan(PLAN, "scan-before") as running:
            granted = hand.request_scan(ASKED)  # in the middle of a scan
            running.haadf(FRAME)
        with acquisition.start_scan(PLAN, granted.scan_id) as scan:
            scan.haadf(FRAME)
        until(lambda: len(service.reliable) == 6)
        assert {h.scan_id for h in service.reliable} == {"scan-before", "scan-0"} and service.errors == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RefusedError("the dose would be 2e5 e/nm², at most 1e5 are allowed"), "the dose would be"),
        (UsageError("no scan scan-9 here"), "no scan scan-9 here"),
        (SourceError("two\n  lines"), "two lines"),
        (StoreError("x" * 10_000), "x" * 4096),
        (ValueError("a domain's value refuses"), "a domain's value refuses"),
        (RefusedError(), "RefusedError"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Exception) else "",
)
def test_a_handlers_refusal_is_told(endpoint: Endpoint, hand: Instrument, error: Exception, reason: str):
    def handler(request: ScanRequest) -> ScanGrant:
        raise error

    with Acquisition("s1", endpoint, on_request=handler):
        assert refused(hand).startswith(reason)


def test_a_source_without_a_handler_takes_no_requests(endpoint: Endpoint, hand: Instrument):
    with Acquisition("s1", endpoint):
        assert "takes no scan requests" in refused(hand)


def test_nor_does_a_service(endpoint: Endpoint, context: zmq.Context[Any], hand: Instrument):
    with Hub(context, endpoint, 7, stream="res", server="segmenter") as hub:
        assert "takes no scan requests" in refused(hand)  # of no session
        hub.add(Publisher("s1", "res", 7, time.time_ns))
        assert "takes no scan requests" in refused(hand)


def test_a_mistake_of_the_handler_is_loud(endpoint: Endpoint, context: zmq.Context[Any], closing: ExitStack):
    """No refusal, which would hide it: its traceback on stderr, and the script that publishes is told."""
    told: list[type[BaseException]] = []
    before, threading.excepthook = threading.excepthook, lambda args: told.append(args.exc_type)
    closing.callback(setattr, threading, "excepthook", before)
    nothing: dict[str, ScanGrant] = {}
    with Acquisition("s1", endpoint, on_request=lambda request: nothing["x"], context=context) as acquisition:
        with Instrument(endpoint, context=context) as hand, pytest.raises(TransportError, match="did not answer"):
            hand.request_scan(ASKED, 0.3)
        until(lambda: not acquisition._hub._thread.is_alive())
        with pytest.raises(TransportError, match="thread has ended"):
            acquisition.start_scan(PLAN)
    assert told == [KeyError]


# --- once and only once -------------------------------------------------------------------------------------


def test_asked_twice_under_one_name_is_asked_once(
    microscope: Acquisition, bench: Bench, hand: Instrument, endpoint: Endpoint
):
    granted = hand.request_scan(ASKED, request_id="mine")
    with Instrument(endpoint) as another:  # the first was killed, say, and started again
        assert another.request_scan(ASKED, request_id="mine") == granted
    assert hand.request_scan(ASKED, request_id="mine") == granted
    assert bench.asked == [ASKED]
    assert hand.request_scan(ASKED).scan_id == "scan-1", "the same scan again has another name"


def test_a_refusal_is_remembered_too(endpoint: Endpoint, hand: Instrument):
    reasons = iter(["first", "second"])

    def handler(request: ScanRequest) -> ScanGrant:
        raise RefusedError(next(reasons))

    with Acquisition("s1", endpoint, on_request=handler):
        for name, reason in (("a", "first"), ("a", "first"), ("b", "second")):
            with pytest.raises(RefusedError, match=reason):
                hand.request_scan(ASKED, request_id=name)


def test_one_name_is_not_two_requests(microscope: Acquisition, bench: Bench, hand: Instrument):
    granted = hand.request_scan(ASKED, request_id="mine")
    with pytest.raises(RefusedError, match="ask under a new one"):
        hand.request_scan(ScanRequest(), request_id="mine")
    assert hand.request_scan(ASKED, request_id="mine") == granted and bench.asked == [ASKED]


@pytest.mark.parametrize("kind", [m.ScanGranted, m.Welcome])
def test_a_lost_reply_is_repeated(
    microscope: Acquisition, bench: Bench, hand: Instrument, monkeypatch: pytest.MonkeyPatch, kind: type[m.Talk]
):
    reply, lost = microscope._hub._reception.reply, []

    def lossy(peer: bytes, header: m.Talk) -> None:
        if isinstance(header, kind) and len(lost) < 2:
            lost.append(header)
        else:
            reply(peer, header)

    monkeypatch.setattr(microscope._hub._reception, "reply", lossy)
    assert hand.request_scan(ASKED).scan_id == "scan-0"
    assert len(lost) == 2 and bench.asked == [ASKED]


def test_a_slow_handler_is_asked_once(endpoint: Endpoint, hand: Instrument, bench: Bench):
    """The asker has given up in between; under the same name it finds what was granted after all."""
    go_on = threading.Event()

    def handler(request: ScanRequest) -> ScanGrant:
        assert go_on.wait(10.0)
        return bench(request)

    with Acquisition("s1", endpoint, on_request=handler):
        with pytest.raises(TransportError, match="same request_id") as caught:
            hand.request_scan(ASKED, 0.3, request_id="mine")
        assert "\n" not in str(caught.value) and "request mine" in str(caught.value)
        go_on.set()
        assert hand.request_scan(ASKED, request_id="mine").scan_id == "scan-0"
        assert hand.request_scan(ScanRequest()).scan_id == "scan-1", "late answers to the first are not taken for it"
        assert bench.asked == [ASKED, ScanRequest()]


def test_the_answers_kept_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers_module, "KEPT", 3)
    bench = Bench()
    answers = Answers(bench)

    def ask(name: str) -> Any:
        return answers(m.RequestScan(request_id=name, request=ASKED))

    first = [ask(name).grant.scan_id for name in "abc"]
    assert [ask(name).grant.scan_id for name in "abc"] == first and len(bench.asked) == 3
    ask("d")
    assert len(answers._given) == 3 and ask("b").grant.scan_id == first[1] and len(bench.asked) == 4
    ask("a")
    assert len(bench.asked) == 5, "the oldest was forgotten"
    assert KEPT >= 1000


def test_another_start_refuses_what_was_meant_for_the_one_before(
    endpoint: Endpoint, bench: Bench, context: zmq.Context[Any], hand: Instrument, monkeypatch: pytest.MonkeyPatch
):
    """The same session name, another epoch: what the first start granted is not known to the second."""
    with Acquisition("s1", endpoint, on_request=bench):
        hand.request_scan(ASKED)
    ask = hand._ask
    first = Acquisition("s1", endpoint, on_request=bench)
    second: list[Acquisition] = []

    def restarting(header: m.Talk, deadline: float) -> Any:
        answer = ask(header, deadline)
        if isinstance(answer, m.Welcome) and not second:
            first.close()
            second.append(Acquisition("s1", endpoint, on_request=bench))
        return answer

    monkeypatch.setattr(hand, "_ask", restarting)
    try:
        assert "since this start" in refused(hand)
        assert bench.asked == [ASKED]
        assert hand.request_scan(ASKED).scan_id == "scan-1", "asked anew, it is scanned"
    finally:
        for acquisition in second:
            acquisition.close()


def test_two_hands_at_once(microscope: Acquisition, bench: Bench, endpoint: Endpoint):
    each = 25
    granted: dict[int, list[str]] = {1: [], 2: []}

    def work(frames: int) -> None:
        with Instrument(endpoint) as hand:
            for _ in range(each):
                grant = hand.request_scan(ScanRequest(frames=frames))
                assert grant.duration_s == frames * 0.25, "this is the other's"
                granted[frames].append(grant.scan_id)

    threads = [threading.Thread(target=work, args=(frames,)) for frames in granted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert len({*granted[1], *granted[2]}) == 2 * each == len(bench.asked)
    for frames, names in granted.items():
        assert [bench.asked[int(n.removeprefix("scan-"))].frames for n in names] == [frames] * each


# --- nobody, and nonsense -----------------------------------------------------------------------------------


def test_nobody_is_there_and_nothing_is_left_for_who_comes_later(endpoint: Endpoint, bench: Bench, hand: Instrument):
    with pytest.raises(TransportError, match="no instrument at .* within 0.3 s; start `livestem simulate") as caught:
        hand.request_scan(ASKED, 0.3)
    assert "\n" not in str(caught.value)
    with Acquisition("s1", endpoint, on_request=bench):
        assert hand.request_scan(ScanRequest()).scan_id == "scan-0"
        assert bench.asked == [ScanRequest()]


def test_nothing_waits_for_an_instrument_that_is_not_there(
    endpoint: Endpoint, context: zmq.Context[Any], hand: Instrument
):
    with pytest.raises(TransportError, match="no instrument"):
        hand.request_scan(ASKED, 0.1)
    with context.socket(zmq.ROUTER) as late:
        late.setsockopt(zmq.LINGER, 0)
        late.bind(endpoint.talk)
        assert hand._dealer.poll(5000, zmq.POLLOUT), "connected"
        assert not late.poll(50)


def test_somebody_who_says_nothing(endpoint: Endpoint, context: zmq.Context[Any], hand: Instrument):
    with context.socket(zmq.ROUTER) as mute:
        mute.setsockopt(zmq.LINGER, 0)
        mute.bind(endpoint.talk)
        with pytest.raises(TransportError, match="no instrument"):
            hand.request_scan(ASKED, 0.2)


def test_somebody_who_talks_nonsense(endpoint: Endpoint, context: zmq.Context[Any], hand: Instrument):
    """Spoilt replies, somebody else's, and answers to what was not asked: all passed over, none taken."""
    over = threading.Event()
    heard: list[str] = []

    def talk() -> None:
        with context.socket(zmq.ROUTER) as router:
            router.setsockopt(zmq.LINGER, 0)
            router.bind(endpoint.talk)
            while not over.is_set():
                if router.poll(20):
                    peer, *frames = router.recv_multipart()
                    header: Any = decode(frames).header
                    heard.append(m.tag_of(header))
                    router.send_multipart([peer, b"", b"nonsense", b"1234"])
                    router.send_multipart([peer, *encode(m.Refusal(request_id="x", reason="somebody else's"))])
                    router.send_multipart([peer, *encode(m.Gone(request_id=header.request_id, first=1, last=2))])
                    if isinstance(header, m.Hello):
                        welcome = m.Welcome(request_id=header.request_id, version=1, streams=())
                        router.send_multipart([peer, *encode(welcome)])

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        with pytest.raises(TransportError, match="did not answer"):
            hand.request_scan(ASKED, 1.2)
        assert heard == ["hello", *["request_scan"] * (len(heard) - 1)] and len(heard) >= 3, "asked again"
        assert hand._dropped.by_reason["header"] + hand._dropped.by_reason["check"] == len(heard)
    finally:
        over.set()
        thread.join()


def test_another_version_of_the_wire_is_told(
    microscope: Acquisition, bench: Bench, hand: Instrument, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(microscope._hub, "_welcome", lambda hello: m.Refusal(
        request_id=hello.request_id, reason="acquisition speaks wire version 2, you speak 1; update the older side"
    ))  # fmt: skip
    assert "update the older side" in refused(hand) and bench.asked == []


def hostile(**request: Any) -> dict[str, Any]:
    return {"type": "request_scan", "v": 1, "session": "s1", "request_id": "r", "request": request}


HOSTILE: dict[str, dict[str, Any]] = {
    "nan": hostile(region_nm=[float("nan"), 0.0, 1.0, 1.0]),
    "infinite": hostile(dwell_s=float("inf")),
    "huge frames": hostile(frames=2**64 - 1),
    "huge region": hostile(region_nm=[0.0, 0.0, 1e308, 1e308]),
    "huge pixels": hostile(region_px=[0, 0, 2**63, 1], of="a"),
    "no frames": hostile(frames=0),
    "empty region": hostile(region_nm=[0.0, 0.0, 0.0, 1.0]),
    "two regions": hostile(region_nm=[0.0, 0.0, 1.0, 1.0], region_px=[0, 0, 1, 1], of="a"),
    "unknown modality": hostile(modalities=["xps"]),
    "no modality": hostile(modalities=[]),
    "many modalities": hostile(modalities=["haadf"] * 100_000),
    "long reason": hostile(reason="x" * 1_000_000),
    "a terminal's codes": hostile(reason="\x1b]0;owned\x07"),
    "a path for a scan": hostile(region_px=[0, 0, 1, 1], of="../../etc"),
    "unknown field": hostile(dose=1.0),
    "no request": {k: v for k, v in hostile().items() if k != "request"},
    "no name": {**hostile(), "request_id": ""},
    "a long name": {**hostile(), "request_id": "r" * 65},
    "an array beside it": {**hostile(), "payload": [{"dtype": "|u1", "shape": [1], "codec": "raw"}]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_are_dropped_and_the_hub_goes_on(
    name: str, microscope: Acquisition, bench: Bench, hand: Instrument, endpoint: Endpoint, context: zmq.Context[Any]
):
    header = {**HOSTILE[name], "epoch": microscope._publisher.epoch}
    bodies = [b"\0"] if "payload" in header else []
    frames = [b"", msgpack.packb(header), *bodies]
    with context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(endpoint.talk)
        dealer.send_multipart([*frames, _crc(frames)])
        until(lambda: sum(microscope._hub.rejected.values()) == 1)
        assert not dealer.poll(50), "not answered"
    assert set(microscope._hub.rejected) <= {"header", "value", "limit", "payload"} and bench.asked == []
    assert hand.request_scan(ASKED).scan_id == "scan-0"


def test_a_plain_messagepack_client_can_ask(
    microscope: Acquisition, bench: Bench, endpoint: Endpoint, context: zmq.Context[Any]
):
    """Nothing of livestem in the request: as the wire's page says it."""
    header = {**hostile(region_px=[-1, 2, 3, 4], of="scan-9", frames=2), "epoch": microscope._publisher.epoch}
    frames = [b"", msgpack.packb(header)]
    with context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(endpoint.talk)
        dealer.send_multipart([*frames, _crc(frames)])
        assert dealer.poll(5000)
        answer = msgpack.unpackb(dealer.recv_multipart()[1])
    assert (answer["type"], answer["request_id"], answer["grant"]["scan_id"]) == ("scan_granted", "r", "scan-0")
    assert bench.asked == [ScanRequest(region_px=(-1, 2, 3, 4), of="scan-9", frames=2)]


def _crc(frames: list[bytes]) -> bytes:
    return zlib.crc32(b"".join(frames)).to_bytes(4, "little")


@pytest.mark.parametrize("where", ["localhost:5560", "http://x:1", "tcp://localhost", "ipc://", ""])
def test_no_endpoint(where: str):
    with pytest.raises(UsageError, match="write tcp://HOST:PORT"):
        Instrument(where)


def test_what_cannot_be_sent_is_told_before(microscope: Acquisition, bench: Bench, hand: Instrument):
    with pytest.raises(UsageError, match="cannot be sent") as caught:
        hand.request_scan(ASKED, request_id="r" * 65)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be sent"):
        hand.request_scan({"frames": 0})  # type: ignore[arg-type]
    assert bench.asked == [] and microscope._hub.rejected == {}


def test_a_closed_hand(endpoint: Endpoint):
    hand = Instrument(endpoint)
    hand.close()
    hand.close()
    with pytest.raises(TransportError, match="closed"):
        hand.request_scan(ASKED)


# --- the command --------------------------------------------------------------------------------------------


def livestem(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "livestem.cli", "request", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_asks_and_prints_the_grant(microscope: Acquisition, bench: Bench, endpoint: Endpoint):
    done = livestem("--region-nm", "10,20,5,6", "--frames", "3", "--dwell-us", "2", "--pixel-nm", "0.1",
                    "--reason", "a boundary", "--acquisition", endpoint.endpoint, "--json")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and bench.asked == [ASKED]
    assert json.loads(done.stdout) == {"scan_id": "scan-0", "duration_s": 0.75, "dose_e_nm2": 1e4, "queued": 0}


def test_the_command_is_refused_in_one_line(endpoint: Endpoint):
    with Acquisition("s1", endpoint):
        done = livestem("--acquisition", endpoint.endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("livestem: this source takes no scan requests") and done.stderr.count("\n") == 1


# --- the link -----------------------------------------------------------------------------------------------

Link = Callable[[list[bytes]], Iterable[list[bytes]]]


class Faulty:
    """Does to every nth tile what a network might."""

    def __init__(self, do: Callable[[list[bytes]], Iterable[list[bytes]]]) -> None:
        self.topics: list[bytes] = []
        self.did = 0
        self._do = do

    def __call__(self, frames: list[bytes]) -> Iterable[list[bytes]]:
        self.topics.append(frames[0])
        if not frames[0].endswith(b"_tile") or len(self.topics) % 3:
            return [frames]
        self.did += 1
        return self._do(frames)


def spoil(frames: list[bytes]) -> Iterable[list[bytes]]:
    frames[2] = bytes([frames[2][0] ^ 1]) + frames[2][1:]  # in the list it was given, on purpose
    return [frames]


FAULTS: dict[str, Callable[[list[bytes]], Iterable[list[bytes]]]] = {
    "drop": lambda frames: (),
    "double": lambda frames: (frames, list(frames)),
    "corrupt": spoil,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_link_does_is_repaired(endpoint: Endpoint, serve: Serve, fault: str):
    """A service gets every tile, once and whole, whatever happened on the way."""
    link = Faulty(FAULTS[fault])
    with Acquisition("s1", endpoint, link=link) as acquisition:
        service = serve(endpoint)
        acquisition.wait_for_service(10.0)
        with acquisition.start_scan(PLAN, "a") as scan:
            for frame in range(30):
                scan.haadf(FRAME, frame=frame)
        until(lambda: len(service.reliable) == 32)
        acquisition.wait_acknowledged(10.0)
        assert sorted(h.seq for h in service.reliable) == list(range(1, 33))
        assert link.did >= 5
        assert [e.reason for e in service.errors] == (["check"] * link.did if fault == "corrupt" else [])
        tiles = [
            e.message for e in service.effects if hasattr(e, "message") and isinstance(e.message.header, m.HaadfRows)
        ]
        assert len(tiles) == 30 and all((t.arrays[0] == FRAME).all() for t in tiles)


def test_the_link_may_hold_back_and_change_the_order(endpoint: Endpoint, serve: Serve):
    held: list[list[bytes]] = []

    def reorder(frames: list[bytes]) -> Iterable[list[bytes]]:
        if frames[0].endswith(b"_tile"):
            held.append(frames)
            return ()
        out = [frames, *reversed(held)]
        held.clear()
        return out

    with Acquisition("s1", endpoint, link=reorder) as acquisition:
        service = serve(endpoint)
        acquisition.wait_for_service(10.0)
        with acquisition.start_scan(PLAN, "a") as scan:
            for frame in range(10):
                scan.haadf(FRAME, frame=frame)
        until(lambda: len(service.reliable) == 12)
        assert [h.seq for h in service.reliable] != list(range(1, 13))
        assert sorted(h.seq for h in service.reliable) == list(range(1, 13))


def test_everything_that_is_published_passes_the_link(endpoint: Endpoint, serve: Serve):
    link = Faulty(lambda frames: [frames])
    with Acquisition("s1", endpoint, link=link) as acquisition:
        serve(endpoint)
        acquisition.wait_for_service(10.0)
        with acquisition.start_scan(PLAN, "a") as scan:
            scan.haadf(FRAME)
    seen = {topic.decode() for topic in link.topics}
    assert seen == {"acq.s1.heartbeat", "acq..echo", "acq.s1.scan_start", "acq.s1.haadf_tile", "acq.s1.scan_end"}


def test_an_instrument_that_vanishes_from_the_air_still_answers(endpoint: Endpoint, hand: Instrument, bench: Bench):
    """The link is on the published side only."""
    with Acquisition("s1", endpoint, on_request=bench, link=lambda frames: ()):
        assert hand.request_scan(ASKED).scan_id == "scan-0"


def test_an_error_of_the_link_reaches_the_script(endpoint: Endpoint):
    broken = threading.Event()

    def link(frames: list[bytes]) -> Iterable[list[bytes]]:
        if broken.is_set() and frames[0].endswith(b"scan_start"):
            raise LivestemError("the instrument has gone")
        return [frames]

    with Acquisition("s1", endpoint, link=link) as acquisition:
        broken.set()
        with pytest.raises(LivestemError, match="has gone"):
            acquisition.start_scan(PLAN)
