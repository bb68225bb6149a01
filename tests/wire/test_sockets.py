"""Acquisition, service connection, hub and subscriber over real sockets."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import zmq
from least_service import Service, until
from lossy_link import numbered

from livestem.client import Acquisition, Eds, Endpoint, EnergyAxis, Haadf, Sampling, ScanPlan, Subscriber
from livestem.client.hub import Hub
from livestem.domain.errors import LivestemError, RefusedError, TransportError, UsageError
from livestem.domain.limits import Limits
from livestem.protocol.follower import Deliver, Tracking
from livestem.protocol.publisher import Publisher
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode
from ports import free_pairs

FIELD = Sampling(shape=(64, 64), pixel_nm=(0.1, 0.1))
PLAN = ScanPlan(
    haadf=Haadf(sampling=FIELD, dtype="<u2"),
    eds=Eds(sampling=FIELD, energy=EnergyAxis(channels=128, scale_kev=0.01)),
    frames=100,
)
FRAME = np.arange(64 * 64, dtype="<u2").reshape(64, 64)
Serve = Callable[..., Service]
Make = Callable[[], Endpoint]


def one_line(error: BaseException) -> bool:
    return 0 < len(str(error)) and "\n" not in str(error)


# --- Acquisition and service --------------------------------------------------------------------------------


@pytest.mark.parametrize("service_first", [True, False])
def test_a_recorded_scan_arrives_whole(endpoint: Endpoint, closing: ExitStack, serve: Serve, service_first: bool):
    service = serve(endpoint) if service_first else None
    if service_first:
        time.sleep(0.2)
    with Acquisition("s1", endpoint, recorded=True) as acquisition:
        service = service or serve(endpoint)
        acquisition.wait_for_service(10.0)
        with acquisition.start_scan(PLAN, "scan-1") as scan:
            assert scan.verdict is not None and scan.verdict.accepted
            for frame in range(3):
                scan.haadf(FRAME, frame=frame)
        acquisition.wait_acknowledged(10.0)
        got = service.reliable
        assert [type(h) for h in got] == [m.ScanStart, *[m.HaadfRows] * 3, m.ScanEnd]
        assert [h.seq for h in got] == [1, 2, 3, 4, 5]
        end = got[-1]
        assert isinstance(end, m.ScanEnd) and (end.status, end.frames, end.haadf_tiles) == ("complete", 3, 3)
    assert service.errors == []
    assert [e.stream.session for e in service.effects if isinstance(e, Tracking)] == ["s1"]


def test_what_was_published_before_anybody_came_is_there(endpoint: Endpoint, serve: Serve):
    """An instrument never waits; the resend buffer does."""
    with Acquisition("s1", endpoint) as acquisition:
        with acquisition.start_scan(PLAN, "scan-1") as scan:
            assert scan.verdict is None
            for frame in range(50):
                scan.haadf(FRAME, frame=frame)
        service = serve(endpoint)
        until(lambda: len(service.reliable) == 52)
        assert [h.seq for h in service.reliable] == list(range(1, 53))
        until(lambda: scan.verdict is not None and scan.verdict.accepted)


def test_an_instrument_never_blocks(endpoint: Endpoint, serve: Serve):
    """Nobody acknowledges, and it has sent twenty times what may be unacknowledged and kept."""
    limits = Limits(unacknowledged_bytes=10_000, resend_bytes=20_000)
    with Acquisition("s1", endpoint, limits=limits) as acquisition:
        serve(endpoint, ack=False)
        acquisition.wait_for_service(10.0)
        began = time.monotonic()
        with acquisition.start_scan(PLAN) as scan:
            for frame in range(50):
                scan.haadf(FRAME, frame=frame)
        assert time.monotonic() - began < 2.0
        assert acquisition._publisher.buffer.forgotten_unacknowledged > 0


def test_a_recorded_source_waits_for_acknowledgements(endpoint: Endpoint, serve: Serve):
    limit, message = 50_000, FRAME.nbytes + 400
    with Acquisition("s1", endpoint, recorded=True, limits=Limits(unacknowledged_bytes=limit)) as acquisition:
        service = serve(endpoint)
        acquisition.wait_for_service(10.0)
        scan = acquisition.start_scan(PLAN)
        acquisition.wait_acknowledged(10.0)
        service.ack = False
        frames = iter(range(100))
        sending = threading.Thread(target=lambda: [scan.haadf(FRAME, frame=f) for f in frames], daemon=True)
        sending.start()
        buffer = acquisition._publisher.buffer
        until(lambda: buffer.unacknowledged_bytes >= limit)
        time.sleep(0.1)
        stuck_at = buffer.last_seq
        assert sending.is_alive() and limit <= buffer.unacknowledged_bytes < limit + message
        time.sleep(0.2)
        assert buffer.last_seq == stuck_at, "it waits"
        service.ack = True
        most = 0
        while sending.is_alive():
            most = max(most, buffer.unacknowledged_bytes)
            sending.join(0.0005)
        assert most < limit + message + 400
        acquisition.wait_acknowledged(10.0)
        assert buffer.unacknowledged_bytes == 0 and buffer.forgotten_unacknowledged == 0
        assert len([h for h in service.reliable if isinstance(h, m.HaadfRows)]) == 100


def test_a_refusal_is_raised_with_its_reason(endpoint: Endpoint, serve: Serve):
    with Acquisition("s1", endpoint, recorded=True) as acquisition:
        serve(endpoint, accept=False)
        acquisition.wait_for_service(10.0)
        with pytest.raises(RefusedError, match="too large") as caught:
            acquisition.start_scan(PLAN, "scan-1")
        assert one_line(caught.value)


def test_an_instrument_reads_the_refusal(endpoint: Endpoint, serve: Serve):
    with Acquisition("s1", endpoint) as acquisition:
        serve(endpoint, accept=False)
        scan = acquisition.start_scan(PLAN)
        assert until(lambda: scan.verdict).reason == "too large"


def test_no_service(endpoint: Endpoint):
    with Acquisition("s1", endpoint, recorded=True) as acquisition:
        with pytest.raises(TransportError, match="livestem serve") as caught:
            acquisition.wait_for_service(0.2)
        assert one_line(caught.value)
        with pytest.raises(TransportError, match="did not answer") as caught:
            acquisition.start_scan(PLAN, timeout_s=0.2)
        assert one_line(caught.value)


def test_a_service_that_stops_acknowledging_is_noticed(endpoint: Endpoint, serve: Serve):
    with Acquisition("s1", endpoint, recorded=True) as acquisition:
        serve(endpoint, ack=False)
        acquisition.start_scan(PLAN)
        with pytest.raises(TransportError, match="acknowledged nothing") as caught:
            acquisition.wait_acknowledged(0.3)
        assert one_line(caught.value)


def test_an_exception_aborts_the_scan_without_waiting(endpoint: Endpoint, serve: Serve):
    """Also where nobody acknowledges, which may be why."""
    limits = Limits(unacknowledged_bytes=1)
    with Acquisition("s1", endpoint, recorded=True, limits=limits) as acquisition:
        service = serve(endpoint)
        scan = acquisition.start_scan(PLAN, "scan-1")
        acquisition.wait_acknowledged(10.0)
        service.ack = False
        scan.haadf(FRAME)
        began = time.monotonic()
        with pytest.raises(ZeroDivisionError), scan:
            raise ZeroDivisionError("the stage hit something")
        assert time.monotonic() - began < 1.0
        end = until(lambda: [h for h in service.reliable if isinstance(h, m.ScanEnd)])[0]
        assert (end.status, end.reason) == ("aborted", "ZeroDivisionError: the stage hit something")


def test_a_new_acquisition_at_the_same_place_is_attached_to(endpoint: Endpoint, serve: Serve):
    service = serve(endpoint)
    for session in ("s1", "s2", "s2"):
        with Acquisition(session, endpoint, recorded=True) as acquisition:
            acquisition.wait_for_service(10.0)
            with acquisition.start_scan(PLAN) as scan:
                scan.haadf(FRAME)
            acquisition.wait_acknowledged(10.0)
    assert [(h.session, h.seq) for h in service.reliable] == [(s, n) for s in ("s1", "s2", "s2") for n in (1, 2, 3)]
    assert len({h.epoch for h in service.reliable}) == 3


# --- endpoints ----------------------------------------------------------------------------------------------


def test_a_port_in_use(closing: ExitStack):
    (port,) = free_pairs(1)
    endpoint = Endpoint(f"tcp://127.0.0.1:{port}")
    with Acquisition("s1", endpoint):
        with pytest.raises(TransportError, match="in use") as caught:
            Acquisition("s2", endpoint)
        assert one_line(caught.value)
    with Acquisition("s2", endpoint):
        pass  # free again
    with zmq.Context() as context, context.socket(zmq.ROUTER) as squatter:
        squatter.bind(f"tcp://127.0.0.1:{port + 1}")
        with pytest.raises(TransportError, match=f"{port + 1} is in use"):
            Acquisition("s2", endpoint)


@pytest.mark.skipif(sys.platform == "win32", reason="ipc:// is of POSIX systems")
def test_a_path_in_use_is_not_taken_away_and_one_left_behind_is_replaced(tmp_path: Path, serve: Serve):
    here = Endpoint(f"ipc://{tmp_path / 's'}")
    with Acquisition("s1", here, recorded=True) as acquisition:
        for taken in (here, Endpoint(f"ipc://{tmp_path / 'free'}", here.endpoint)):
            with pytest.raises(TransportError, match="in use by another program") as caught:
                Acquisition("s2", taken)
            assert one_line(caught.value)
        serve(here)
        acquisition.wait_for_service(10.0)  # it has lost nothing by that
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left))
    assert left.exists()
    for again in (here, Endpoint(f"ipc://{left}")):
        with Acquisition("s2", again):
            pass


@pytest.mark.parametrize("where", ["tcp://0.0.0.0:5999", "tcp://*:5999", "tcp://192.168.1.5:5999", "tcp://[::]:5999",
                                   "tcp://127.0.0.1.example.org:5999", "tcp://localhost.example.org:5999"])  # fmt: skip
def test_a_bind_that_leaves_this_machine_is_refused(where: str):
    with pytest.raises(UsageError, match="CURVE") as caught:
        Acquisition("s1", where)
    assert one_line(caught.value)


def test_a_router_that_leaves_this_machine_is_refused_and_nothing_stays_bound():
    (port,) = free_pairs(1)
    with pytest.raises(UsageError, match="CURVE"):
        Acquisition("s1", Endpoint(f"tcp://127.0.0.1:{port}", f"tcp://0.0.0.0:{port + 1}"))
    with Acquisition("s1", f"tcp://127.0.0.1:{port}"):
        pass


@pytest.mark.parametrize(
    "where", ["localhost:5560", "http://localhost:5560", "udp://127.0.0.1:5560", "tcp://localhost", "tcp://localhost:x",
              "tcp://localhost:0", "tcp://localhost:65535", "ipc://", "", "inproc://a", "ws://127.0.0.1:5560",
              "tcp://127.0.0.1:5560;0.0.0.0:5561", "tcp://127.0.0.1;0.0.0.0:5560", "tcp://127.0.0.1:5560/a", "tcp://:5560"]
)  # fmt: skip
def test_no_endpoint(where: str):
    for make in (Acquisition, Subscriber):
        kwargs = {"session": "s1"} if make is Acquisition else {}
        with pytest.raises(UsageError, match="write tcp://HOST:PORT") as caught:
            make(endpoint=where, **kwargs)  # type: ignore[arg-type]
        assert one_line(caught.value)
    if where.startswith("tcp://"):
        with pytest.raises(ValueError, match="write tcp://HOST:PORT"):
            Endpoint("ipc://whatever", router=where)


@pytest.mark.parametrize("name", ["CON", "a/b", "..", "x" * 65])
def test_a_name_that_is_none(name: str, endpoint: Endpoint):
    with pytest.raises(UsageError, match="session name"):
        Acquisition(name, endpoint)
    with Acquisition("s1", endpoint) as acquisition, pytest.raises(UsageError, match="scan name"):
        acquisition.start_scan(PLAN, name)


def test_closing_twice_and_sending_afterwards(endpoint: Endpoint):
    acquisition = Acquisition("s1", endpoint)
    scan = acquisition.start_scan(PLAN)
    acquisition.close()
    acquisition.close()
    with pytest.raises(TransportError, match="closed"):
        scan.haadf(FRAME)


# --- hub ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack) -> Hub:
    found = Hub(context, endpoint, 7, stream="res", server="test")
    closing.callback(found.close)
    found.add(Publisher("s1", "res", 7, time.time_ns))
    return found


def dealer(context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack) -> zmq.Socket[bytes]:
    found = closing.enter_context(context.socket(zmq.DEALER))
    found.setsockopt(zmq.LINGER, 0)
    found.connect(endpoint.talk)
    return found


def ask(socket: zmq.Socket[bytes], header: m.Talk) -> m.Header:
    socket.send_multipart(encode(header))
    assert socket.poll(5000)
    return decode(socket.recv_multipart()).header


def test_versions_are_negotiated(hub: Hub, context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack):
    talk = dealer(context, endpoint, closing)
    welcome = ask(talk, m.Hello(request_id="1", versions=(9, 1), role="observer"))
    assert isinstance(welcome, m.Welcome) and welcome.version == 1
    assert [(s.session, s.epoch, s.last_seq) for s in welcome.streams] == [("s1", 7, 0)]
    refusal = ask(talk, m.Hello(request_id="2", versions=(2, 3), role="observer"))
    assert isinstance(refusal, m.Refusal) and "update" in refusal.reason and refusal.request_id == "2"
    refusal = ask(talk, m.Snapshot(request_id="3", session="nowhere"))
    assert isinstance(refusal, m.Refusal) and "nowhere" in refusal.reason


def test_nonsense_is_counted_and_the_hub_goes_on(
    hub: Hub, context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack
):
    talk = dealer(context, endpoint, closing)
    talk.send(b"GET / HTTP/1.1\r\n\r\n")
    talk.send_multipart([b""] * 20)
    talk.send_multipart(encode(m.Heartbeat(session="s1"), stream="res"))
    spoilt = encode(m.Attach(request_id="1", session="s1"))
    talk.send_multipart([*spoilt[:-1], b"\0\0\0\0"])
    assert isinstance(ask(talk, m.Hello(request_id="1", versions=(1,), role="observer")), m.Welcome)
    assert hub.rejected == {"header": 1, "limit": 1, "topic": 1, "check": 1}


def test_an_error_of_the_store_does_not_end_the_hub(
    hub: Hub, context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack
):
    def older(epoch: int, first: int, last: int) -> Any:
        raise LivestemError("the disk is gone")

    publisher = Publisher("s2", "res", 7, time.time_ns, older=older, limits=Limits(resend_bytes=1))
    hub.add(publisher)
    for seq in (1, 2):
        hub.publish("s2", numbered(7, seq))
    talk = dealer(context, endpoint, closing)
    talk.send_multipart(encode(m.Resend(request_id="1", session="s2", epoch=7, first=1, last=1)))
    assert isinstance(ask(talk, m.Hello(request_id="1", versions=(1,), role="observer")), m.Welcome)


def test_subscribers_are_counted(hub: Hub, context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack):
    subs = [closing.enter_context(context.socket(zmq.SUB)) for _ in range(3)]
    for sub in subs:
        sub.setsockopt(zmq.SUBSCRIBE, b"res.")
        sub.connect(endpoint.endpoint)
    until(lambda: hub.subscribers == 3)
    subs[0].close(linger=0)
    until(lambda: hub.subscribers == 2)


def test_many_threads_publish_in_the_order_of_their_numbers(
    context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack
):
    hub = Hub(context, endpoint, 7, stream="res", server="test", limits=Limits(subscriber_queue=1000))
    closing.callback(hub.close)
    hub.add(Publisher("s1", "res", 7, time.time_ns))
    sub = closing.enter_context(context.socket(zmq.SUB))
    sub.setsockopt(zmq.RCVHWM, 0)
    sub.setsockopt(zmq.SUBSCRIBE, b"res.s1.agreement")
    sub.connect(endpoint.endpoint)
    until(lambda: hub.subscribers == 1)
    threads = [threading.Thread(target=lambda: [hub.publish("s1", numbered(7, 0)) for _ in range(200)]) for _ in "abcd"]
    for thread in threads:
        thread.start()
    seqs = []
    for _ in range(800):
        assert sub.poll(5000)
        seqs.append(decode(sub.recv_multipart()).header.seq)  # type: ignore[attr-defined]
    for thread in threads:
        thread.join()
    assert seqs == list(range(1, 801))


def raw_sub(context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack) -> zmq.Socket[bytes]:
    """Return a subscribed SUB that keeps next to nothing itself: what it does not read waits at the hub."""
    sub = closing.enter_context(context.socket(zmq.SUB))
    for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096)):
        sub.setsockopt(option, value)
    sub.setsockopt(zmq.SUBSCRIBE, b"res.")
    sub.connect(endpoint.endpoint)
    return sub


def test_a_reader_that_does_not_read_costs_its_queue_and_nobody_else_anything(
    context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack
):
    """Thousands of messages for one that sleeps: dropped for it, whole for the one beside it."""
    hub = Hub(context, endpoint, 7, stream="res", server="test", limits=Limits(subscriber_queue=10))
    closing.callback(hub.close)
    hub.add(Publisher("s1", "res", 7, time.time_ns))
    sleeping = raw_sub(context, endpoint, closing)
    with Subscriber(endpoint, context=context) as awake:
        awake.wait_subscribed(10.0)
        until(lambda: hub.subscribers == 2)
        large = m.Agreement(scan_id="a" * 60, agreement={"x" * 60: {"y" * 50_000: None}})
        for _ in range(300):
            hub.publish("s1", large)
        assert [h.seq for h in take(awake, 300)] == list(range(1, 301)) and awake.lost == []
    read = 0
    while sleeping.poll(500):
        sleeping.recv_multipart()
        read += 1
    assert 10 <= read < 150, "its queue, what was on the way, and the rest dropped"


def test_the_memory_that_a_sleeping_reader_costs_is_its_queue(
    context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack
):
    limits = Limits(subscriber_queue=10, resend_bytes=2**20)
    hub = Hub(context, endpoint, 7, stream="res", server="test", limits=limits)
    closing.callback(hub.close)
    hub.add(Publisher("s1", "res", 7, time.time_ns, limits=limits))
    raw_sub(context, endpoint, closing)
    until(lambda: hub.subscribers == 1)
    memory = psutil.Process().memory_info
    before = memory().rss
    labels, scores = np.zeros((128, 128), np.int16), np.ones((15, 128, 128), np.float32)
    live = msgspec.structs.replace(live_map(0), method="fewshot", classes=tuple(f"c{i}" for i in range(15)))
    for revision in range(400):  # of 1 MB
        hub.publish("s1", msgspec.structs.replace(live, revision=revision), (labels, scores))
    assert memory().rss - before < 100e6, "ten in the queue, one in the publisher, and what the allocator keeps"


def test_who_asks_and_never_reads_is_sent_little_and_keeps_nobody_waiting(
    context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack
):
    hub = Hub(context, endpoint, 7, stream="res", server="test")
    closing.callback(hub.close)
    hub.add(Publisher("s1", "res", 7, time.time_ns))
    for _ in range(400):  # 40 MB
        hub.publish("s1", m.Agreement(scan_id="a", agreement={"x": {"y" * 100_000: None}}))
    rude = closing.enter_context(context.socket(zmq.DEALER))
    for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096)):
        rude.setsockopt(option, value)
    rude.connect(endpoint.talk)
    for n in range(100):
        rude.send_multipart(encode(m.Resend(request_id=f"{n}", session="s1", epoch=7, first=1, last=400)))
    until(lambda: hub._reception.replies.busy)
    with Subscriber(endpoint, context=context) as polite:
        assert [h.seq for h in take(polite, 400)] == list(range(1, 401))
    until(lambda: not hub._reception.replies.busy, 15.0)  # it takes nothing: what was under way is let go
    read = 0
    while rude.poll(500):
        rude.recv_multipart()
        read += 1
    assert 1 <= read < 60


def test_only_so_many_clients_are_greeted(context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack):
    hub = Hub(context, endpoint, 7, stream="res", server="test", limits=Limits(subscribers=2))
    closing.callback(hub.close)
    hub.add(Publisher("s1", "res", 7, time.time_ns))
    hello = m.Hello(request_id="1", versions=(1,), role="observer")
    first, second, third = (dealer(context, endpoint, closing) for _ in range(3))
    assert isinstance(ask(first, hello), m.Welcome) and isinstance(ask(second, hello), m.Welcome)
    refusal = ask(third, hello)
    assert isinstance(refusal, m.Refusal) and "`subscribers`" in refusal.reason and "\n" not in refusal.reason
    third.send_multipart(encode(m.Snapshot(request_id="2", session="s1")))
    assert isinstance(ask(second, hello), m.Welcome), "who is here stays"
    assert not third.poll(100), "what else it asks is not answered, and so lost to nobody"
    with hub.lock:
        hub._reception.heard[next(iter(hub._reception.heard))] -= 60.0  # the first has been silent for a minute
    until(lambda: len(hub._reception.heard) == 1)
    assert isinstance(ask(third, hello), m.Welcome)
    with Subscriber(endpoint, context=context) as late, pytest.raises(LivestemError, match="allows; close one"):
        late.wait_subscribed(10.0)


def test_a_hub_closes_with_an_idle_reader_and_a_full_queue(context: zmq.Context[Any], endpoint: Endpoint):
    with context.socket(zmq.SUB) as sub:
        sub.setsockopt(zmq.RCVHWM, 1)
        sub.setsockopt(zmq.SUBSCRIBE, b"")
        sub.connect(endpoint.endpoint)
        hub = Hub(context, endpoint, 7, stream="res", server="test")
        hub.add(Publisher("s1", "res", 7, time.time_ns))
        until(lambda: hub.subscribers == 1)
        for seq in range(12_000):
            hub.publish("s1", numbered(7, seq))
        began = time.monotonic()
        hub.close()
        assert time.monotonic() - began < 2.0


# --- Subscriber ---------------------------------------------------------------------------------------------


@pytest.fixture
def subscriber(hub: Hub, endpoint: Endpoint, context: zmq.Context[Any], closing: ExitStack) -> Subscriber:
    return closing.enter_context(Subscriber(endpoint, context=context))


def live_map(revision: int, scan_id: str = "a") -> m.Live:
    return m.Live(
        scan_id=scan_id, revision=revision, watermark=m.Watermark(epoch=1, seq=1), coverage=m.Coverage(), frame=0,
        frames=None, counts=None, chips_done=0, chips=1,
    )  # fmt: skip


def take(subscriber: Subscriber, n: int, kind: type = m.Agreement) -> list[Any]:
    """Return the next n messages of a kind."""
    found: list[Any] = []
    deadline = time.monotonic() + 10
    while len(found) < n:
        assert time.monotonic() < deadline, f"{len(found)} of {n}"
        message = subscriber.receive(1.0)
        if message is not None and isinstance(message.header, kind):
            found.append(message.header)
    return found


def test_finals_from_before_during_and_after(hub: Hub, subscriber: Subscriber):
    for seq in (1, 2, 3):
        hub.publish("s1", numbered(7, seq))
    assert [h.seq for h in take(subscriber, 3)] == [1, 2, 3]
    assert subscriber.subscribed and subscriber.lost == [] and subscriber.rejected == {}
    hub.publish("s1", numbered(7, 4))
    assert [h.seq for h in take(subscriber, 1)] == [4]
    hub.add(Publisher("s2", "res", 7, time.time_ns))
    hub.publish("s2", numbered(7, 1))
    assert [(h.session, h.seq) for h in take(subscriber, 1)] == [("s2", 1)]


def test_without_history_only_what_comes(hub: Hub, endpoint: Endpoint, context: zmq.Context[Any]):
    hub.publish("s1", numbered(7, 1))
    with Subscriber(endpoint, context=context, history=False) as subscriber:
        subscriber.wait_subscribed(10.0)
        hub.publish("s1", numbered(7, 2))
        assert [h.seq for h in take(subscriber, 1)] == [2]


def test_once_subscribed_nothing_is_missed(hub: Hub, endpoint: Endpoint, context: zmq.Context[Any]):
    """The nonce is the proof: what is published right after it arrives, every time."""
    for n in range(1, 16):
        with Subscriber(endpoint, context=context, history=False) as subscriber:
            subscriber.wait_subscribed(10.0)
            hub.publish("s1", live_map(n))
            assert take(subscriber, 1, m.Live)[0].revision == n


def test_one_session_and_nothing_of_the_others(hub: Hub, endpoint: Endpoint, context: zmq.Context[Any]):
    hub.add(Publisher("s2", "res", 7, time.time_ns))
    hub.publish("s1", numbered(7, 1))
    hub.publish("s2", numbered(7, 1, "s2"))
    with Subscriber(endpoint, context=context, session="s2") as subscriber:
        assert take(subscriber, 1)[0].session == "s2"
        until(lambda: hub.subscribers == 1)
        hub.publish("s1", numbered(7, 2))
        hub.publish("s2", numbered(7, 2, "s2"))
        assert [(h.session, h.seq) for h in take(subscriber, 1)] == [("s2", 2)]
    with pytest.raises(UsageError, match="session name"):
        Subscriber(endpoint, context=context, session="a/b")


def test_a_session_that_only_the_store_knows(endpoint: Endpoint, context: zmq.Context[Any], closing: ExitStack):
    kept: dict[int, Any] = {}
    before = Publisher("s1", "res", 6, time.time_ns, keep=lambda ns: kept.update((n.header.seq, n.frames) for n in ns))  # type: ignore[attr-defined]
    before.publish_all([(numbered(6, seq), ()) for seq in (1, 2, 3)])

    def stored(session: str) -> Publisher | None:
        if session != "s1":
            return None
        earlier = [m.Stream(session="s1", epoch=6, first_seq=1, last_seq=3)]
        return Publisher(
            "s1", "res", 7, time.time_ns, earlier=earlier, older=lambda e, a, b: [(s, kept[s]) for s in range(a, b + 1)]
        )

    hub = Hub(context, endpoint, 7, stream="res", server="test", stored=stored)
    closing.callback(hub.close)
    with Subscriber(endpoint, context=context, session="s1") as subscriber:
        assert [(h.epoch, h.seq) for h in take(subscriber, 3)] == [(6, 1), (6, 2), (6, 3)]
        assert hub.publisher("s1") is None, "nothing of it stays"
        hub.add(Publisher("s1", "res", 7, time.time_ns, older=lambda *_: (), earlier=[]))
        hub.publish("s1", numbered(7, 1))
        assert [(h.epoch, h.seq) for h in take(subscriber, 1)] == [(7, 1)] and subscriber.lost == []
    with Subscriber(endpoint, context=context, session="unknown") as subscriber:
        subscriber.wait_subscribed(10.0)
        hub.add(Publisher("unknown", "res", 7, time.time_ns))
        hub.publish("unknown", numbered(7, 1, "unknown"))
        assert take(subscriber, 1)[0].session == "unknown"


def test_what_the_reader_was_too_slow_for_is_repaired(
    hub: Hub, endpoint: Endpoint, context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
):
    """Queues of a few messages, and a reader that sleeps through thousands."""
    monkeypatch.setattr("livestem.client.connection._RCVHWM", 5)
    hub._xpub.setsockopt(zmq.SNDHWM, 5)
    with Subscriber(endpoint, context=context) as subscriber:
        subscriber.wait_subscribed(10.0)
        for seq in range(1, 3001):
            hub.publish("s1", numbered(7, seq))
        assert [h.seq for h in take(subscriber, 3000)] == list(range(1, 3001))
        assert subscriber.lost == []


def test_what_is_gone_is_reported(endpoint: Endpoint, context: zmq.Context[Any], closing: ExitStack):
    hub = Hub(context, endpoint, 7, stream="res", server="test")
    closing.callback(hub.close)
    hub.add(Publisher("s1", "res", 7, time.time_ns, limits=Limits(resend_bytes=2000)))
    with Subscriber(endpoint, context=context) as subscriber:
        hub.publish("s1", numbered(7, 1))
        take(subscriber, 1)
        with hub.lock:  # published, and every packet lost
            for seq in range(2, 102):
                hub.publisher("s1").publish(numbered(7, seq))  # type: ignore[union-attr]
        got = [h.seq for h in take(subscriber, 1)]
        hub.publish("s1", numbered(7, 102))
        while got[-1] < 102:
            got += [h.seq for h in take(subscriber, 1)]
        lost = [s for gone in subscriber.lost for s in range(gone.first, gone.last + 1)]
        assert lost and lost + got == list(range(2, 103))


def test_of_live_maps_the_newest_wins(hub: Hub, subscriber: Subscriber):
    subscriber.wait_subscribed(10.0)
    hub.publish("s1", live_map(1))
    assert take(subscriber, 1, m.Live)[0].revision == 1
    for revision in (2, 3, 5, 4):
        hub.publish("s1", live_map(revision))
    hub.publish("s1", live_map(9, "b"))
    hub.publish("s1", numbered(7, 1))
    deadline = time.monotonic() + 10
    while not any(isinstance(w.header, m.Agreement) for w in subscriber._ready):
        subscriber._pump(20)
        assert time.monotonic() < deadline
    waiting = [subscriber.receive(1.0) for _ in range(3)]
    # in any order: the snapshot's last page may have brought a scan's map, or the final, before the stream did
    assert {w.header.scan_id: w.header.revision for w in waiting if w and isinstance(w.header, m.Live)} == {
        "a": 5,
        "b": 9,
    }
    assert sum(isinstance(w.header, m.Agreement) for w in waiting if w) == 1


def test_a_scan_of_the_same_name_in_another_session_has_its_own_live_maps(hub: Hub, subscriber: Subscriber):
    subscriber.wait_subscribed(10.0)
    hub.publish("s1", live_map(100))
    take(subscriber, 1, m.Live)
    hub.add(Publisher("s2", "res", 7, time.time_ns))
    hub.publish("s2", live_map(1))
    assert take(subscriber, 1, m.Live)[0].session == "s2"


def test_who_comes_late_sees_the_newest_live_map(hub: Hub, endpoint: Endpoint, context: zmq.Context[Any]):
    for revision in (1, 2):
        hub.publish("s1", live_map(revision))
    with Subscriber(endpoint, context=context) as subscriber:
        assert take(subscriber, 1, m.Live)[0].revision == 2


def test_who_comes_in_the_middle_gets_the_newest_live_maps_and_every_final_once(
    hub: Hub, endpoint: Endpoint, context: zmq.Context[Any], closing: ExitStack
):
    """Six join one after the other, while finals and live maps of two scans go on."""
    joined, over = [], threading.Event()

    def work() -> None:
        for n in range(1, 2001):
            hub.publish("s1", numbered(7, n))
            hub.publish("s1", live_map(n, "ab"[n % 2]))
            if over.wait(0.002):
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    closing.callback(thread.join)
    closing.callback(over.set)
    for _ in range(6):
        joined.append(closing.enter_context(Subscriber(endpoint, context=context)))
        joined[-1].wait_subscribed(10.0)
    over.set()
    thread.join()
    last = hub.publisher("s1").state.last_seq  # type: ignore[union-attr]
    assert last > 2
    for subscriber in joined:
        finals, live = [], set()
        deadline = time.monotonic() + 10
        while len(finals) < last or len(live) < 2:
            assert time.monotonic() < deadline, (len(finals), last, live)
            message = subscriber.receive(1.0)
            if message is not None and isinstance(message.header, m.Live):
                live.add(message.header.scan_id)
            elif message is not None and isinstance(message.header, m.Reliable):
                finals.append(message.header.seq)
        assert finals == list(range(1, last + 1)) and live == {"a", "b"} and subscriber.lost == []


def test_a_service_that_starts_again_is_followed(endpoint: Endpoint, context: zmq.Context[Any]):
    with Subscriber(endpoint, context=context) as subscriber:
        for epoch in (7, 8):
            hub = Hub(context, endpoint, epoch, stream="res", server="test")
            hub.add(Publisher("s1", "res", epoch, time.time_ns))
            for seq in (1, 2):
                hub.publish("s1", numbered(epoch, seq))
            try:
                assert [(h.epoch, h.seq) for h in take(subscriber, 2)] == [(epoch, 1), (epoch, 2)]
            finally:
                hub.close()


def test_no_segmenter(endpoint: Endpoint):
    with Subscriber(endpoint) as subscriber:
        with pytest.raises(TransportError, match="livestem serve") as caught:
            subscriber.wait_subscribed(0.2)
        assert one_line(caught.value)
        assert subscriber.receive(0.1) is None
    assert list(subscriber) == []


def test_another_version_is_told(
    hub: Hub, endpoint: Endpoint, context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("livestem.client.hub.m.VERSION", 2)
    monkeypatch.setattr("livestem.protocol.follower.m.VERSION", 1)
    hub._welcome = lambda hello: m.Refusal(request_id=hello.request_id, reason="speaks version 2; update")  # type: ignore
    with (
        Subscriber(endpoint, context=context) as subscriber,
        pytest.raises(LivestemError, match="speaks version 2; update"),
    ):
        subscriber.wait_subscribed(10.0)


def test_a_service_follows_many_thousand_messages_it_missed(endpoint: Endpoint, serve: Serve):
    """More than any queue between the two holds."""
    with Acquisition("s1", endpoint) as acquisition:
        scan = acquisition.start_scan(PLAN)
        row = FRAME[:1]
        for n in range(6400):
            scan.haadf(row, frame=n // 64, y=n % 64)
        service = serve(endpoint)
        until(lambda: len(service.reliable) >= 6401, 30.0)
        assert [h.seq for h in service.reliable] == list(range(1, 6402))
        assert not [e for e in service.effects if not isinstance(e, Deliver | Tracking)]
