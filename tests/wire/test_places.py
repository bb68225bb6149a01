"""`subscribers` bounds connections, whether they ever say a word or not; strangers take none of the places."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq
from least_service import until

from livestem.client import Endpoint, Keys, Subscriber
from livestem.client.hub import Hub
from livestem.client.keys import new_pair
from livestem.domain.errors import LivestemError
from livestem.domain.limits import Limits
from livestem.protocol.publisher import Publisher
from ports import free_pairs

PLACES = 2
MANY = 300


@pytest.fixture(params=[False, True], ids=["without keys", "with keys"])
def guarded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is turned away tries again after a handshake's time."""
    monkeypatch.setattr("livestem.client.sockets._HANDSHAKE_MS", 500)
    monkeypatch.setattr("livestem.client.places._LATE_S", 0.5)


@pytest.fixture
def server(tmp_path: Path) -> Keys:
    return new_pair(tmp_path / "server", "server")


@pytest.fixture
def viewer(server: Keys, tmp_path: Path) -> Keys:
    """Who is let in."""
    keys = new_pair(tmp_path / "viewer", "viewer")
    folder = server.folder / "allowed" / "observer"
    folder.mkdir(parents=True)
    (folder / "viewer.key").write_bytes((tmp_path / "viewer" / "viewer.key").read_bytes())
    return keys


@pytest.fixture
def where(guarded: bool, server: Keys) -> Endpoint:
    return Endpoint(f"tcp://127.0.0.1:{free_pairs(1)[0]}", server_key=server.public if guarded else None)


@pytest.fixture
def hub(guarded: bool, server: Keys, viewer: Keys, where: Endpoint, context: Any, closing: ExitStack) -> Hub:
    keys = server if guarded else None
    found = Hub(context, where, 7, stream="res", server="t", limits=Limits(subscribers=PLACES), keys=keys)
    closing.callback(found.close)
    found.add(Publisher("s1", "res", 7, time.time_ns))
    return found


Listen = Callable[..., zmq.Socket[bytes]]


@pytest.fixture
def listen(where: Endpoint) -> Iterator[Listen]:
    """A maker of bare SUBs, which never say hello."""
    with zmq.Context() as context, ExitStack() as opened:
        context.set(zmq.MAX_SOCKETS, 2 * MANY)

        def make(keys: Keys | None) -> zmq.Socket[bytes]:
            sub = opened.enter_context(context.socket(zmq.SUB))
            sub.linger = 0
            if where.server_key is not None and keys is not None:
                sub.curve_serverkey = str(where.server_key).encode()
                sub.curve_publickey, sub.curve_secretkey = keys.public.encode(), keys.secret.encode()
            sub.subscribe(b"")
            sub.connect(where.endpoint)
            return sub

        yield make


def hearing(subs: list[zmq.Socket[bytes]]) -> list[zmq.Socket[bytes]]:
    """Return who of them has heard something; heartbeats come all the time."""
    return [sub for sub in subs if not sub.closed and sub.poll(0)]


def beat(hub: Hub) -> None:
    """Return when two more heartbeats have left: who could hear has heard one."""
    publisher, seen = hub._publishers["s1"], []
    heartbeat = publisher.heartbeat
    publisher.heartbeat = lambda: seen.append(None) or heartbeat()  # type: ignore[method-assign, func-returns-value]
    until(lambda: len(seen) >= 3)
    publisher.heartbeat = heartbeat  # type: ignore[method-assign]


def test_as_many_listen_as_there_are_places_and_the_next_when_one_leaves(hub: Hub, viewer: Keys, listen: Listen):
    subs = [listen(viewer) for _ in range(MANY)]
    until(lambda: hub.rejected.get("limit", 0) >= 2 * MANY, 60.0)  # everybody else has been turned away, about twice
    until(lambda: len(hearing(subs)) >= PLACES)
    beat(hub)
    first = hearing(subs)
    assert len(first) == PLACES
    first[0].close()
    until(lambda: len(hearing(subs)) == PLACES, 60.0)  # one of the first, and another
    asked = hub.rejected["limit"]
    until(lambda: hub.rejected["limit"] > asked + MANY, 60.0)
    beat(hub)
    assert len(hearing(subs)) == PLACES


@pytest.mark.parametrize("guarded", [True], ids=["with keys"], indirect=True)
def test_strangers_take_no_places(hub: Hub, viewer: Keys, where: Endpoint, listen: Listen, tmp_path: Path):
    """With an unknown key, or none."""
    unknown = new_pair(tmp_path / "unknown", "unknown")
    for i in range(20):
        listen(unknown if i % 2 else None)
    until(lambda: hub.rejected.get("forbidden", 0) >= 20, 60.0)
    subs = [listen(viewer) for _ in range(PLACES)]
    until(lambda: len(hearing(subs)) == PLACES)
    assert "limit" not in hub.rejected


def test_who_never_greets_takes_no_place(hub: Hub, viewer: Keys, where: Endpoint, listen: Listen):
    host, port = where.endpoint.removeprefix("tcp://").rsplit(":", 1)
    with ExitStack() as raw:
        for _ in range(20):
            raw.enter_context(socket.create_connection((host, int(port)), timeout=5))
        subs = [listen(viewer) for _ in range(PLACES)]
        until(lambda: len(hearing(subs)) == PLACES)
        assert hub.rejected == {}


def test_who_finds_no_place_to_listen_is_told_so(
    hub: Hub, viewer: Keys, guarded: bool, where: Endpoint, listen: Listen
):
    """Nobody but bare SUBs is here, so its hello is welcome; its subscription is not."""
    subs = [listen(viewer) for _ in range(PLACES)]
    until(lambda: len(hearing(subs)) == PLACES)
    late = Subscriber(where, keys=viewer if guarded else None)
    with late, pytest.raises(LivestemError, match="2 clients are here.*close one, or raise `subscribers`"):
        late.wait_subscribed(20.0)


def test_places_begin_anew_with_the_sockets(hub: Hub, viewer: Keys, listen: Listen, monkeypatch: pytest.MonkeyPatch):
    subs = [listen(viewer) for _ in range(PLACES)]
    until(lambda: len(hearing(subs)) == PLACES)
    before, left = hub._xpub, iter([True])
    monkeypatch.setattr(hub._door, "somebody_left", lambda: next(left, False))
    until(lambda: hub._xpub is not before)
    more = [listen(viewer) for _ in range(PLACES)]
    until(lambda: hub.rejected.get("limit", 0) >= 1)
    for sub in subs:
        sub.close()
    until(lambda: len(hearing(more)) == PLACES, 60.0)
