"""Keys over real sockets: who is let in, who is answered what, who is thrown out; and that strangers slow nothing."""

from __future__ import annotations

import itertools
import re
import select
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from least_service import Service, until

from livestem.client import (
    Acquisition,
    Endpoint,
    Haadf,
    Instrument,
    Keys,
    Sampling,
    ScanGrant,
    ScanPlan,
    ScanRequest,
    Subscriber,
)
from livestem.client.connection import Connection
from livestem.client.guard import Guard
from livestem.client.hub import Hub
from livestem.client.keys import new_pair
from livestem.client.line import Line
from livestem.domain.errors import LivestemError, RefusedError, TransportError, UsageError, WireError
from livestem.domain.limits import Limits
from livestem.protocol.follower import Refused
from livestem.protocol.permission import Role
from livestem.protocol.publisher import Publisher
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode
from ports import LONGEST_PATH, free_pairs

PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(64, 64), pixel_nm=(0.1, 0.1)), dtype="<u2"), frames=10_000)
FRAME = np.arange(64 * 64, dtype="<u2").reshape(64, 64)
Serve = Callable[..., Service]


class Ring:
    """A publisher's keys and its allow-lists; everybody else's keys are in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = new_pair(folder / "server", "server")

    def new(self, name: str, *roles: Role) -> Keys:
        """Make somebody's keys, and let them in."""
        keys = new_pair(self.folder / name, name)
        for role in roles:
            self.allow(name, role)
        return keys

    def allow(self, name: str, role: Role) -> None:
        lists = self.server.folder / "allowed" / role
        lists.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / name / f"{name}.key", lists)

    def remove(self, name: str, role: Role) -> None:
        (self.server.folder / "allowed" / role / f"{name}.key").unlink()


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path)


@pytest.fixture(params=["tcp", pytest.param("ipc", marks=pytest.mark.skipif(not zmq.has("ipc"), reason="no ipc"))])
def where(request: pytest.FixtureRequest, ring: Ring, tmp_path: Path) -> Endpoint:
    """Where a guarded publisher is met: by its server key."""
    if request.param == "ipc":
        if len(str(tmp_path)) > LONGEST_PATH:
            pytest.skip("the test's folder is too deep for a unix socket")
        return Endpoint(f"ipc://{tmp_path / 'p'}", server_key=ring.server.public)
    return Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}", server_key=ring.server.public)


@pytest.fixture
def tcp(ring: Ring) -> Endpoint:
    return Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}", server_key=ring.server.public)


class Results:
    """A service's results, guarded: one session, label maps on request."""

    def __init__(self, context: zmq.Context[Any], endpoint: Endpoint, keys: Keys | None) -> None:
        self.rejected: list[str] = []
        self.hub = Hub(
            context, endpoint, 7, stream="res", server="segmenter", keys=keys,
            on_rejected=lambda e: self.rejected.append(e.reason),
        )  # fmt: skip
        self.hub.add(Publisher("s1", "res", 7, lambda: 0))
        self._sent, self._in_turn = itertools.count(1), threading.Lock()

    def publish(self) -> int:
        """Publish a final; return its number. Whichever thread does, they leave in the order of their numbers."""
        with self._in_turn:
            number = next(self._sent)
            self.hub.publish("s1", m.Agreement(scan_id=f"scan-{number}", agreement={}))
        return number


@pytest.fixture
def results(context: zmq.Context[Any], where: Endpoint, ring: Ring) -> Iterator[Results]:
    found = Results(context, where, ring.server)
    yield found
    found.hub.close()


def hear(subscriber: Subscriber, last: int = 0, until_: Callable[[], bool] = lambda: False) -> list[int]:
    """Return the numbers of the finals as they came: up to `last`, or until something is so."""
    found: list[int] = []

    def through() -> bool:
        message = subscriber.receive(0.02)
        if message is not None and isinstance(message.header, m.Agreement):
            found.append(int(message.header.scan_id.removeprefix("scan-")))
        return last in found or until_()

    until(through, 20.0)
    return found


def silent(subscriber: Subscriber) -> list[int]:
    """Return the numbers of finals that come in a third of a second after which nothing has come."""
    turns = iter(range(15))
    return hear(subscriber, until_=lambda: next(turns, None) is None)


# --- who is let in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["observer", "operator"])
def test_results_are_followed_by_who_is_let_in(results: Results, where: Endpoint, ring: Ring, role: Role):
    keys = ring.new("viewer", role)
    first = results.publish()
    with Subscriber(where, keys=keys) as subscriber:
        subscriber.wait_subscribed(10.0)
        last = results.publish()
        assert hear(subscriber, last) == [first, last]
    assert results.rejected == []


def test_a_scan_crosses_a_guarded_line_whole(where: Endpoint, ring: Ring, serve: Serve):
    keys = ring.new("service", "service")
    with Acquisition("s1", where, recorded=True, keys=ring.server) as acquisition:
        service = serve(where, keys=keys)
        acquisition.wait_for_service(10.0)
        with acquisition.start_scan(PLAN, "a") as scan:
            for frame in range(20):
                scan.haadf(FRAME, frame=frame)
        acquisition.wait_acknowledged(10.0)
        assert sorted(h.seq for h in service.reliable) == list(range(1, 23))
        assert acquisition._hub.rejected == {}


STRANGERS = ["no key", "unknown key", "wrong server key", "a role of another door"]


def stranger(kind: str, ring: Ring, where: Endpoint) -> tuple[Endpoint, Keys | None]:
    """Return how a stranger dials."""
    keys = ring.new("stranger", *(["service"] if kind.startswith("a role") else []))  # type: ignore[arg-type]
    if kind == "no key":
        return Endpoint(where.endpoint), None
    if kind == "wrong server key":
        return Endpoint(where.endpoint, server_key=keys.public), keys
    return where, keys


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_hears_nothing(kind: str, results: Results, where: Endpoint, ring: Ring):
    ring.new("viewer", "observer")
    at, keys = stranger(kind, ring, where)
    results.publish()
    with Subscriber(at, keys=keys) as subscriber:
        with pytest.raises(TransportError, match="no service answers"):
            subscriber.wait_subscribed(0.5)
        results.publish()
        assert subscriber.receive(0.2) is None
        assert results.hub.subscribers == 0
    if kind in ("unknown key", "a role of another door"):
        assert set(results.rejected) == {"forbidden"} == set(results.hub.rejected)


def test_other_mechanisms_are_refused(results: Results, where: Endpoint, ring: Ring, context: zmq.Context[Any]):
    """PLAIN with any name, and NULL: neither reaches the ROUTER."""
    ring.new("viewer", "observer")
    hello = encode(m.Hello(request_id="1", versions=(1,), role="observer"))
    for plain in (True, False):
        with context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            if plain:
                dealer.plain_username, dealer.plain_password = b"viewer", b"viewer"
            dealer.connect(where.talk)
            dealer.send_multipart(hello)
            assert not dealer.poll(200)
    assert results.hub.rejected == {}


def test_an_open_bind_takes_keys(ring: Ring, monkeypatch: pytest.MonkeyPatch):
    """Tried on loopback, which is taken for open: a test opens nothing."""
    monkeypatch.setattr("livestem.client.endpoints._LOOPBACK", re.compile("nothing"))
    everywhere = f"tcp://127.0.0.1:{free_pairs(1)[0]}"
    with pytest.raises(UsageError, match="--keys") as caught:
        Acquisition("s1", everywhere)
    assert "\n" not in str(caught.value)
    with Acquisition("s1", everywhere, keys=ring.server.folder):
        pass


def test_a_server_key_takes_keys_of_our_own(tcp: Endpoint):
    for dial in (Subscriber, Instrument):
        with pytest.raises(UsageError, match="give --keys") as caught:
            dial(tcp)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["short", "none.key"])
def test_a_server_key_that_is_none(wrong: str, ring: Ring):
    keys = ring.new("viewer")
    for dial in (Subscriber, Instrument):
        with pytest.raises(UsageError, match="key"):
            dial(Endpoint("tcp://127.0.0.1:5999", server_key=wrong), keys=keys)


def test_two_guarded_publishers_in_one_process(ring: Ring, tmp_path: Path, context: zmq.Context[Any]):
    """One ZAP handler to a context: each guarded hub has its own, whatever context it was given."""
    other = Ring(tmp_path / "other")
    ports = free_pairs(2)
    mine = Endpoint(f"tcp://127.0.0.1:{ports[0]}", server_key=ring.server.public)
    theirs = Endpoint(f"tcp://127.0.0.1:{ports[1]}", server_key=other.server.public)
    viewer, guest = ring.new("viewer", "observer"), other.new("guest", "observer")
    with ExitStack() as stack:
        for where, keys in ((mine, ring.server), (theirs, other.server)):
            stack.callback(Results(context, where, keys).hub.close)
        for where, keys in ((mine, viewer), (theirs, guest)):
            stack.enter_context(Subscriber(where, keys=keys)).wait_subscribed(10.0)
        with Subscriber(theirs, keys=viewer) as subscriber, pytest.raises(TransportError):
            subscriber.wait_subscribed(0.3)


# --- who is answered what -----------------------------------------------------------------------------------


class Hand:
    """A DEALER with keys that asks one thing at a time."""

    def __init__(self, context: zmq.Context[Any], where: Endpoint, keys: Keys) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.curve_serverkey = str(where.server_key).encode()
        self.socket.curve_publickey, self.socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
        self.socket.connect(where.talk)

    def ask(self, header: m.Talk, patience_ms: int = 5000) -> m.Header | None:
        self.socket.send_multipart(encode(header))
        return decode(self.socket.recv_multipart()).header if self.socket.poll(patience_ms) else None


@pytest.fixture
def hand(context: zmq.Context[Any], closing: ExitStack) -> Callable[[Endpoint, Keys], Hand]:
    def make(where: Endpoint, keys: Keys) -> Hand:
        found = Hand(context, where, keys)
        closing.callback(found.socket.close)
        return found

    return make


def test_at_an_adapter(tcp: Endpoint, ring: Ring, hand: Any):
    """A service attaches and an operator asks for scans; neither does the other's work, and each is told."""
    asked: list[ScanRequest] = []

    def grant(request: ScanRequest) -> ScanGrant:
        asked.append(request)
        return ScanGrant(scan_id="a", duration_s=1.0)

    service, operator = ring.new("service", "service"), ring.new("desk", "operator")
    with Acquisition("s1", tcp, keys=ring.server, on_request=grant) as acquisition:
        epoch = acquisition._publisher.epoch
        one, other = hand(tcp, service), hand(tcp, operator)
        for who, request in (
            (one, m.Hello(request_id="1", versions=(1,), role="operator")),
            (one, m.RequestScan(request_id="2", session="s1", epoch=epoch, request=ScanRequest())),
            (other, m.Hello(request_id="3", versions=(1,), role="service")),
            (other, m.Attach(request_id="4", session="s1")),
            (other, m.Ack(request_id="5", session="s1", epoch=epoch, seq=0)),
            (other, m.Verdict(request_id="6", session="s1", scan_id="a", accepted=False, reason="mine")),
            (other, m.Resend(request_id="7", session="s1", epoch=epoch, first=1, last=1)),
            (other, m.Snapshot(request_id="8", session="s1")),
        ):
            answer = who.ask(request)
            assert isinstance(answer, m.Refusal) and answer.request_id == request.request_id
            assert "your key is let in as" in answer.reason and "\n" not in answer.reason
        until(lambda: acquisition._hub.rejected == {"forbidden": 8})
        assert asked == [] and acquisition._publisher.services == {} and acquisition.verdict("a") is None
        assert isinstance(one.ask(m.Attach(request_id="9", session="s1")), m.Attached)
        with Instrument(tcp, keys=operator) as instrument:
            assert instrument.request_scan(ScanRequest()).scan_id == "a"
        with Instrument(tcp, keys=service) as instrument, pytest.raises(RefusedError, match="hello as operator is for"):
            instrument.request_scan(ScanRequest())
        assert len(asked) == 1


def test_at_a_service(tcp: Endpoint, ring: Ring, hand: Any, context: zmq.Context[Any], closing: ExitStack):
    results = Results(context, tcp, ring.server)
    closing.callback(results.hub.close)
    viewer = hand(tcp, ring.new("viewer", "observer", "service"))
    for request in (
        m.Hello(request_id="1", versions=(1,), role="service"),
        m.Hello(request_id="2", versions=(1,), role="operator"),
        m.Attach(request_id="3", session="s1"),
        m.Ack(request_id="4", session="s1", epoch=7, seq=0),
        m.RequestScan(request_id="5", session="s1", epoch=7, request=ScanRequest()),
    ):
        answer = viewer.ask(request)
        assert isinstance(answer, m.Refusal) and "let in as observer" in answer.reason
    until(lambda: results.rejected == ["forbidden"] * 5)
    assert isinstance(viewer.ask(m.Hello(request_id="6", versions=(1,), role="observer")), m.Welcome)
    assert isinstance(viewer.ask(m.Snapshot(request_id="7", session="s1")), m.SnapshotPage)
    with Subscriber(tcp, keys=ring.new("desk", "operator")) as subscriber:
        subscriber.wait_subscribed(10.0)  # an operator may observe


def test_a_service_that_is_only_an_operator_here_is_told(tcp: Endpoint, ring: Ring, serve: Serve):
    keys = ring.new("service", "operator")
    with Acquisition("s1", tcp, keys=ring.server) as acquisition:
        service = serve(tcp, keys=keys)
        refused = until(lambda: [e for e in service.effects if isinstance(e, Refused)])
        assert "hello as service is for service here" in refused[0].reason
        assert acquisition._publisher.services == {}


def test_without_keys_everybody_on_this_machine_has_every_role(context: zmq.Context[Any]):
    where = Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}")
    with Acquisition("s1", where), context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(where.talk)
        for role in ("service", "operator", "observer"):
            dealer.send_multipart(encode(m.Hello(request_id="1", versions=(1,), role=role)))  # type: ignore[arg-type]
            assert dealer.poll(5000)
            assert isinstance(decode(dealer.recv_multipart()).header, m.Welcome)


# --- keys that come and go ----------------------------------------------------------------------------------


def test_a_key_that_is_added_needs_no_restart(tcp: Endpoint, ring: Ring, context: Any, closing: ExitStack):
    """Neither of the publisher, nor of who was refused before: libzmq tries again."""
    results = Results(context, tcp, ring.server)
    closing.callback(results.hub.close)
    keys = ring.new("viewer")
    ring.new("other", "observer")
    first = results.publish()
    with Subscriber(tcp, keys=keys) as subscriber:
        with pytest.raises(TransportError):
            subscriber.wait_subscribed(0.3)
        until(lambda: results.rejected)
        ring.allow("viewer", "observer")
        subscriber.wait_subscribed(20.0)
        last = results.publish()
        assert hear(subscriber, last) == [first, last]


def test_a_key_that_is_removed_ends_its_connections_and_nobody_else_loses_anything(
    results: Results, where: Endpoint, ring: Ring
):
    """While finals are published without a pause: one is thrown out in between, the other has every one, in order."""
    keys = {name: ring.new(name, "observer") for name in ("stays", "goes")}
    with Subscriber(where, keys=keys["stays"]) as stays, Subscriber(where, keys=keys["goes"]) as goes:
        for subscriber in (stays, goes):
            subscriber.wait_subscribed(10.0)
        hear(goes, results.publish())
        over = threading.Event()

        def publish() -> None:
            while not over.wait(0.005):
                results.publish()

        publishing = threading.Thread(target=publish)
        publishing.start()
        try:
            before = results.hub._xpub
            ring.remove("goes", "observer")
            until(lambda: results.hub._xpub is not before)
            thrown_out_at = results.publish()
            again = hear(stays, thrown_out_at)  # it reads on: ZeroMQ subscribes anew when it does
            again += hear(stays, until_=lambda: results.hub.subscribers == 1)
        finally:
            over.set()
            publishing.join()
        last = results.publish()
        again += hear(stays, last)
        assert again == list(range(1, last + 1)) and stays.lost == [], "every one, once, in order"
        heard = silent(goes)
        assert not heard or max(heard) <= thrown_out_at
    assert results.hub.subscribers <= 1 and "forbidden" in results.rejected


def test_a_role_that_is_taken_away_is_gone_at_once(tcp: Endpoint, ring: Ring, hand: Any):
    """Still let in as a service, no longer an operator: no connection ends."""
    keys = ring.new("both", "service", "operator")
    with Acquisition("s1", tcp, keys=ring.server, on_request=lambda r: ScanGrant(scan_id="a", duration_s=1.0)) as found:
        both, before = hand(tcp, keys), found._hub._door.router
        hello = m.Hello(request_id="1", versions=(1,), role="operator")
        assert isinstance(both.ask(hello), m.Welcome)
        ring.remove("both", "operator")
        until(lambda: isinstance(both.ask(hello), m.Refusal))
        assert isinstance(both.ask(m.Attach(request_id="2", session="s1")), m.Attached)
        assert found._hub._door.router is before


def test_a_scan_goes_on_while_another_service_is_thrown_out(where: Endpoint, ring: Ring, serve: Serve):
    """The adapter's side: what the other acknowledged no longer counts, and the one that stays has every tile."""
    keys = {name: ring.new(name, "service") for name in ("stays", "goes")}
    with Acquisition("s1", where, recorded=True, keys=ring.server) as acquisition:
        services = {n: serve(where, keys=k) for n, k in keys.items()}
        until(lambda: len(acquisition._publisher.services) == 2)
        before = acquisition._hub._xpub
        with acquisition.start_scan(PLAN, "a") as scan:
            for frame in range(50):
                scan.haadf(FRAME, frame=frame)
            ring.remove("goes", "service")
            until(lambda: acquisition._hub._xpub is not before)
            for frame in range(50, 100):
                scan.haadf(FRAME, frame=frame)
        until(lambda: len(services["stays"].reliable) == 102, 20.0)
        assert sorted(h.seq for h in services["stays"].reliable) == list(range(1, 103))
        assert max(h.seq for h in services["goes"].reliable) <= 51
        acquisition.wait_acknowledged(20.0)


def advised(dial: Subscriber | Instrument) -> str:
    """Return what is said to who waits in vain; of two sides that differ, either may be the first to hang up."""
    with pytest.raises(TransportError) as caught:
        dial.wait_subscribed(0.5) if isinstance(dial, Subscriber) else dial.request_scan(ScanRequest(), 0.5)
    return str(caught.value)


def test_keys_that_are_forgotten_at_a_restart_and_then_remembered(tcp: Endpoint, ring: Ring, serve: Serve):
    """ZeroMQ's client gives such a line up for good; ours dials again."""
    service = serve(tcp, keys=ring.new("service", "service"))
    for keys in (ring.server, None, ring.server):
        with Acquisition("s1", tcp, recorded=True, keys=keys) as acquisition:
            if keys is None:
                with Subscriber(tcp, keys=ring.new("viewer")) as viewer:
                    until(lambda v=viewer: "it has no keys" in advised(v))
                continue
            acquisition.wait_for_service(20.0)
            with acquisition.start_scan(PLAN) as scan:
                scan.haadf(FRAME)
            acquisition.wait_acknowledged(10.0)
    assert sorted(h.seq for h in service.reliable) == [1, 1, 2, 2, 3, 3]


def test_what_is_wrong_about_keys_is_said(tcp: Endpoint, ring: Ring, context: zmq.Context[Any], closing: ExitStack):
    with Acquisition("s1", tcp, keys=ring.server) as acquisition, pytest.raises(TransportError, match="is its key in"):
        acquisition.wait_for_service(0.1)
    results = Results(context, tcp, ring.server)
    closing.callback(results.hub.close)
    plain, keys = Endpoint(tcp.endpoint), ring.new("viewer")
    for dial in (Subscriber(plain), Instrument(plain)):
        with dial:
            until(lambda d=dial: "it wants keys (--keys and --server-key)" in advised(d))
    with Subscriber(tcp, keys=keys) as unlisted, pytest.raises(TransportError, match="is our public key in its list"):
        unlisted.wait_subscribed(0.5)


def test_an_empty_list_lets_nobody_in(results: Results, where: Endpoint, ring: Ring, caplog: pytest.LogCaptureFixture):
    keys = ring.new("viewer", "observer")
    with Subscriber(where, keys=keys) as subscriber:
        subscriber.wait_subscribed(10.0)
        shutil.rmtree(ring.server.folder / "allowed")
        until(lambda: "nobody is let in" in caplog.text and results.hub.subscribers == 0)
        number = results.publish()
        assert number not in silent(subscriber)


# --- strangers slow nothing ---------------------------------------------------------------------------------


@pytest.fixture
def flood() -> Iterator[Callable[[int], zmq.Socket[bytes]]]:
    """A maker of sockets in a context of their own, which slow nobody else's."""
    with zmq.Context() as context, ExitStack() as opened:
        yield lambda kind: opened.enter_context(context.socket(kind))


def test_a_flood_of_failing_handshakes_does_not_harm_a_scan(ring: Ring, tcp: Endpoint, serve: Serve, flood: Any):
    """Four hundred connections of all kinds while a scan goes through, whole and in order."""
    keys = ring.new("service", "service")
    kinds = [stranger(kind, Ring(ring.folder / f"s{i}"), tcp) for i, kind in enumerate(STRANGERS)]
    with Acquisition("s1", tcp, recorded=True, keys=ring.server) as acquisition:
        service = serve(tcp, keys=keys)
        acquisition.wait_for_service(10.0)
        with acquisition.start_scan(PLAN, "a") as scan:
            for i in range(200):
                at, theirs = kinds[i % len(kinds)]
                dealer = flood(zmq.DEALER)
                dealer.linger = 0
                if theirs is not None:
                    dealer.curve_serverkey = str(at.server_key).encode()
                    dealer.curve_publickey, dealer.curve_secretkey = theirs.public.encode(), theirs.secret.encode()
                dealer.connect(tcp.talk if i % 2 else tcp.endpoint)
                dealer.send(b"x")
                with socket.create_connection(_address(tcp), timeout=5) as raw:
                    raw.sendall(b"GET / HTTP/1.1\r\n\r\n" if i % 2 else bytes(range(256)))
                scan.haadf(FRAME, frame=i)
        acquisition.wait_acknowledged(20.0)
        assert sorted(h.seq for h in service.reliable) == list(range(1, 203))
        until(lambda: acquisition._hub.rejected.get("forbidden", 0) > 0)
        assert set(acquisition._hub.rejected) == {"forbidden"} and len(acquisition._publisher.services) == 1


def _address(where: Endpoint) -> tuple[str, int]:
    host, port = where.endpoint.removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


def test_a_frame_far_beyond_the_limit_costs_its_sender_the_connection(context: zmq.Context[Any]):
    """A little beyond is refused by name; far beyond is never read, and an honest peer beside it notices nothing."""
    where = Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}")
    rejected: list[WireError] = []
    hub = Hub(context, where, 1, stream="res", server="t", limits=Limits(talk_bytes=100_000),
              on_rejected=rejected.append)  # fmt: skip
    try:
        with context.socket(zmq.DEALER) as greedy, context.socket(zmq.DEALER) as honest:
            for dealer in (greedy, honest):
                dealer.linger = 0
                dealer.connect(where.talk)
            monitor = greedy.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            greedy.send_multipart([b"", bytes(150_000), b"1234"])
            until(lambda: [e.reason for e in rejected] == ["limit"])
            assert not monitor.poll(0)
            greedy.send_multipart([b"", bytes(250_000), b"1234"])
            assert monitor.poll(5000)
            greedy.disable_monitor()
            monitor.close(linger=0)
            honest.send_multipart(encode(m.Hello(request_id="1", versions=(1,), role="observer")))
            assert honest.poll(5000)
            assert len(rejected) == 1
    finally:
        hub.close()


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("said", [b"", b"\xff" + bytes(8) + b"\x7f\x03\x01"], ids=["nothing", "half a greeting"])
def test_who_does_not_finish_a_handshake_is_let_go(
    said: bytes, guarded: bool, tcp: Endpoint, ring: Ring, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("livestem.client.sockets._HANDSHAKE_MS", 100)
    with Acquisition("s1", Endpoint(tcp.endpoint), keys=ring.server if guarded else None):
        with socket.create_connection(_address(tcp), timeout=10) as raw:
            raw.sendall(said)
            while raw.recv(4096):  # its greeting, and then the end: else this times out
                pass


class Relay:
    """A TCP line between one endpoint and a publisher: `freeze` leaves it open and lets nothing more through."""

    def __init__(self, to: tuple[str, int]) -> None:
        self._to, self._server = to, socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._frozen: set[socket.socket] = set()
        self._over, self._turns = threading.Event(), 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def lines(self) -> int:
        """Connections that were ever made."""
        return len(self._pairs)

    def freeze(self) -> None:
        """No more bytes, and no end either, on the connections that are there."""
        self._frozen |= {end for pair in self._pairs for end in pair}
        turn = self._turns
        until(lambda: self._turns > turn + 1)  # the one that was under way is over

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for end in (self._server, *(end for pair in self._pairs for end in pair)):
            end.close()

    def _run(self) -> None:
        while not self._over.is_set():
            self._turns += 1
            across = {a: b for pair in self._pairs for a, b in (pair, pair[::-1])}
            heard, _, _ = select.select([self._server, *(set(across) - self._frozen)], [], [], 0.02)
            for end in heard:
                if end is self._server:
                    self._pairs.append((end.accept()[0], socket.create_connection(self._to, timeout=5)))
                elif not _moved(end, across[end]):
                    across[end].close()
                    end.close()
                    self._frozen |= {end, across[end]}  # over


def _moved(end: socket.socket, to: socket.socket) -> bool:
    """Pass on what is there; return False if either side has hung up."""
    try:
        data = end.recv(65536)
        to.sendall(data)
    except OSError:
        return False
    return bool(data)


@pytest.mark.parametrize("guarded", [False, True])
def test_a_line_that_is_cut_without_a_word_is_dialled_anew(
    guarded: bool, tcp: Endpoint, ring: Ring, context: Any, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
):
    """Half-open, on both of a subscriber's connections: neither side is told, and nothing is lost."""
    monkeypatch.setattr("livestem.client.line._SILENT_S", 1.5)  # beats come every second
    results = Results(context, tcp, ring.server if guarded else None)
    closing.callback(results.hub.close)
    host, port = _address(tcp)
    data, talk = Relay((host, port)), Relay((host, port + 1))
    closing.callback(data.close)
    closing.callback(talk.close)
    where = Endpoint(
        f"tcp://127.0.0.1:{data.port}", f"tcp://127.0.0.1:{talk.port}", tcp.server_key if guarded else None
    )
    with Subscriber(where, keys=ring.new("viewer", "observer") if guarded else None) as subscriber:
        subscriber.wait_subscribed(10.0)
        heard = hear(subscriber, results.publish())
        for relay in (data, talk):
            relay.freeze()
        last = [results.publish() for _ in range(20)][-1]
        heard += hear(subscriber, last)
        assert heard == list(range(1, last + 1)) and subscriber.lost == []
        assert data.lines >= 2 and talk.lines >= 2


def test_a_line_that_was_dialled_anew_keeps_no_context():
    """Nobody was there: what was to be said to them is let go with the line."""
    context: zmq.Context[Any] = zmq.Context()
    line = Line(context, zmq.DEALER, Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}"), None, Limits())
    line.dial(f"tcp://127.0.0.1:{free_pairs(1)[0]}")
    line.socket.send(b"hello")
    line.redial()
    line.close(100)
    ended = threading.Thread(target=context.term, daemon=True)
    ended.start()
    ended.join(10.0)
    assert not ended.is_alive()


def test_no_socket_beats_by_itself(endpoint: Endpoint, context: Any, closing: ExitStack):
    """Where messages wait unread, libzmq 4.3.5 ends the process when its heartbeat meets a reset connection."""
    connection = Connection(context, endpoint, stream="res", role="observer", take="new", name="test")
    closing.callback(connection.close)
    hub = Hub(context, endpoint, 1, stream="res", server="test")
    closing.callback(hub.close)
    for socket_ in (connection.sub, connection.dealer, hub._door.xpub, hub._door.router):
        assert socket_.getsockopt(zmq.HEARTBEAT_IVL) == 0


def test_a_publisher_whose_guard_has_died_says_so(tcp: Endpoint, ring: Ring, monkeypatch: pytest.MonkeyPatch):
    with Acquisition("s1", tcp, keys=ring.server) as acquisition:
        monkeypatch.setattr(Guard, "alive", False)
        with pytest.raises(LivestemError, match="thread has ended"):
            acquisition.start_scan(PLAN)
        monkeypatch.undo()
