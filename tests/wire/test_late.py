"""Words that are lost, late or never said between a source and its service, over real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from least_service import Service, until

from livestem.client import Acquisition, Endpoint, Haadf, Sampling, ScanPlan
from livestem.client import acquisition as client
from livestem.client.connection import Connection
from livestem.client.waiting import Waiting
from livestem.domain.errors import TransportError
from livestem.domain.limits import Limits
from livestem.wire import messages as m
from livestem.wire.codec import encode

PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(16, 16), pixel_nm=(0.1, 0.1)), dtype="<u2"), frames=20)
FRAME = np.arange(256, dtype="<u2").reshape(16, 16)
Serve = Callable[..., Service]


class Stuck(Service):
    """A service that says, while it is told so, that it can store nothing."""

    blocked: str | None = None
    stored = 0

    def _acknowledge(self, connection: Connection) -> None:
        ack = connection.follower.acknowledged(self._session)
        if ack is not None and self.ack:
            self.stored = self.stored if self.blocked else ack.seq
            connection.send(msgspec.structs.replace(ack, seq=self.stored, blocked=self.blocked))


@pytest.fixture
def stuck(context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack) -> Stuck:
    service = Stuck(context, endpoint)
    closing.callback(service.close)
    return service


def test_a_service_that_cannot_store_is_waited_for_and_told_of_once(
    stuck: Stuck, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "STALL_S", 0.2)
    told: list[str] = []
    limits = Limits(unacknowledged_bytes=2000)
    with Acquisition("s1", endpoint, recorded=True, limits=limits, tell=told.append) as here:
        here.wait_for_service(10.0)
        scan = here.start_scan(PLAN, "scan-1", timeout_s=10.0)
        stuck.blocked = "the disk is full"
        until(lambda: here._publisher.blocked)
        failed: list[BaseException] = []

        def send() -> None:
            try:
                for frame in range(20):
                    scan.haadf(FRAME, frame=frame)
                scan.end()
                here.wait_acknowledged(10.0)
            except TransportError as e:
                failed.append(e)

        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        until(lambda: told)
        sending.join(1.0)  # five times as long as it waits for one that says nothing
        assert sending.is_alive() and not failed
        assert here._publisher.buffer.last_seq < 10, "nothing is sent meanwhile"
        stuck.blocked = None
        sending.join(10.0)
        assert not sending.is_alive() and not failed
    assert len(told) == 2 and "the disk is full" in told[0] and "going on" in told[1]
    assert len([h for h in stuck.reliable if isinstance(h, m.HaadfRows)]) == 20


def test_one_that_was_blocked_and_falls_silent_is_not_waited_for(stuck: Stuck, endpoint: Endpoint):
    with Acquisition("s1", endpoint, recorded=True, tell=lambda line: None) as here:
        here.wait_for_service(10.0)
        scan = here.start_scan(PLAN, "scan-1")
        stuck.blocked = "the disk is full"
        until(lambda: here._publisher.blocked)
        scan.haadf(FRAME)
        stuck.ack = False
        with pytest.raises(TransportError, match="acknowledged nothing"):
            here.wait_acknowledged(0.3)


# --- verdicts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"epoch": 1}, {"seq": 1}, {"seq": msgspec.UNSET}, {"scan_id": "scan-2"}], ids=lambda w: next(iter(w))
)
def test_only_a_verdict_on_this_very_start_counts(
    context: zmq.Context[Any], endpoint: Endpoint, closing: ExitStack, wrong: dict[str, Any]
):
    """An earlier attempt under the same name was refused, and that word comes late."""
    with Acquisition("s1", endpoint, recorded=True) as here:
        talk = closing.enter_context(context.socket(zmq.DEALER))
        talk.connect(endpoint.talk)
        epoch = here._publisher.epoch

        def says(**more: Any) -> None:
            fields = {"epoch": epoch, "seq": 3, "scan_id": "scan-1", "accepted": False, "reason": "too large"} | more
            talk.send_multipart(encode(m.Verdict(request_id="v", session="s1", **fields)))

        for _ in range(2):  # its scan_start has the number 3 at the third attempt
            with pytest.raises(TransportError, match="did not answer"):
                here.start_scan(PLAN, "scan-0", timeout_s=0.01)
        assert here._publisher.buffer.last_seq == 4
        answer = threading.Timer(0.05, lambda: [says(**({"seq": 5} | wrong)), says(seq=5, accepted=True)])
        answer.start()
        scan = here.start_scan(PLAN, "scan-1", timeout_s=10.0)
        answer.join()
        assert scan.verdict is not None and scan.verdict.accepted
        for _ in range(3):
            says(seq=5, accepted=True)  # as often as it is said
        scan.end("aborted")


def test_a_scan_that_nobody_answers_for_is_taken_back(endpoint: Endpoint, serve: Serve):
    """A service that comes later finds its start and its end, and not a scan that waits for tiles for ever."""
    with Acquisition("s1", endpoint, recorded=True) as here:
        with pytest.raises(TransportError, match="did not answer"):
            here.start_scan(PLAN, "scan-1", timeout_s=0.05)
        service = serve(endpoint)
        until(lambda: len(service.reliable) == 2)
        end = service.reliable[1]
        assert isinstance(end, m.ScanEnd) and end.status == "aborted" and "did not answer" in (end.reason or "")


# --- the last word --------------------------------------------------------------------------------------------------


class Loses:
    """A link that loses the first of these messages."""

    def __init__(self, kind: bytes) -> None:
        self.kind, self.lost = kind, 0

    def __call__(self, frames: list[bytes]) -> Iterable[list[bytes]]:
        if frames[0].endswith(self.kind) and not self.lost:
            self.lost += 1
            return []
        return [frames]


@pytest.mark.parametrize("recorded", [True, False])
def test_an_abortion_that_is_lost_on_the_way_arrives_all_the_same(endpoint: Endpoint, serve: Serve, recorded: bool):
    service, link = serve(endpoint), Loses(b"scan_end")
    with pytest.raises(KeyboardInterrupt), Acquisition("s1", endpoint, recorded=recorded, link=link) as here:
        here.wait_for_service(10.0)
        with here.start_scan(PLAN, "scan-1") as scan:
            scan.haadf(FRAME)
            raise KeyboardInterrupt
    assert link.lost == 1
    end = service.reliable[-1]
    assert isinstance(end, m.ScanEnd) and end.reason == "stopped by hand (Ctrl-C or SIGTERM)"


def test_a_second_ctrl_c_leaves_at_once_and_frees_the_endpoint(
    endpoint: Endpoint, serve: Serve, monkeypatch: pytest.MonkeyPatch
):
    serve(endpoint)

    def second(self: Waiting, timeout_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Waiting, "part", second)
    with pytest.raises(KeyboardInterrupt), Acquisition("s1", endpoint, recorded=True) as here:
        here.wait_for_service(10.0)
        with here.start_scan(PLAN, "scan-1"):
            raise KeyboardInterrupt
    monkeypatch.undo()
    with Acquisition("s2", endpoint):
        pass


def test_nobody_is_waited_for_who_does_not_acknowledge(endpoint: Endpoint, serve: Serve):
    """The patience of parting is for words that are lost, not for a service that hangs or has gone."""
    serve(endpoint, ack=False)
    with Acquisition("s1", endpoint) as here:
        here.wait_for_service(10.0)
        with here.start_scan(PLAN) as scan:
            scan.haadf(FRAME)
        began = time.monotonic()
    assert time.monotonic() - began < client.PARTING_S
