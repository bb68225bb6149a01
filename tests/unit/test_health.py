"""How the service is: judged from a look at it; told over HTTP; a thread's death is never silent."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from livestem.domain.errors import TransportError
from livestem.domain.limits import Limits
from livestem.runtime.health import REASON_NAMES, SILENT_S, STUCK_S, Health, Vitals, judge
from livestem.runtime.http_endpoint import HttpEndpoint

LIMITS = Limits()
ROOM = LIMITS.free_disk_bytes


def well(**changes) -> Vitals:
    return Vitals(**{"disk_free_bytes": ROOM} | changes)


@pytest.mark.parametrize(
    ("changes", "live", "ready", "reasons"),
    [
        ({}, True, True, ()),  # waits for an instrument, which is nothing to worry about
        ({"attached": 1, "open_scans": 4, "finals_waiting": 4, "silent_s": SILENT_S - 0.1}, True, True, ()),
        ({"warm": False}, True, False, ()),
        ({"stopping": True}, True, False, ()),
        ({"disk_free_bytes": ROOM - 1}, True, False, ("disk",)),
        ({"blocked": "its disk is full"}, True, False, ("store",)),
        ({"finals_waiting": LIMITS.open_scans + 1}, True, True, ("finals",)),
        ({"silent_s": SILENT_S}, True, True, ("adapter",)),
        ({"quiet_s": STUCK_S - 0.1}, True, True, ()),
        ({"quiet_s": STUCK_S}, False, False, ("stuck",)),
        ({"dead": ("the live thread died: KeyError: 1",)}, False, False, ("thread",)),
        ({"dead": ("a", "b"), "disk_free_bytes": 0}, False, False, ("thread", "disk")),
    ],
)
def test_what_follows_from_a_look(changes, live, ready, reasons):
    health = judge(well(**changes), LIMITS)
    assert (health.live, health.ready, tuple(health.reasons)) == (live, ready, reasons)
    assert health.ok is (not reasons)
    assert health.as_json()["status"] == ("degraded" if reasons else "ok")
    assert all(words and "\n" not in words for words in health.reasons.values())


def test_every_reason_can_hold():
    worst = well(dead=("x",), quiet_s=STUCK_S, blocked="full", disk_free_bytes=0, finals_waiting=99, silent_s=SILENT_S)
    assert tuple(judge(worst, LIMITS).reasons) == REASON_NAMES


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def of(live: bool, ready: bool, ok: bool) -> Health:
    return Health(live, ready, {} if ok else {"disk": "full"}, well())


@pytest.mark.parametrize("state", [(True, True, True), (True, False, True), (True, True, False), (False, False, False)])
def test_the_paths_answer_for_their_question(state):
    endpoint = HttpEndpoint("127.0.0.1", 0)
    try:
        endpoint.serve(lambda: of(*state), lambda health: b"of " + str(health.ok).encode())
        for path, good in zip(("/health/live", "/health/ready", "/health"), state, strict=True):
            code, text = answer(endpoint.port, path)
            assert code == (200 if good else 503)
            assert json.loads(text) == of(*state).as_json()
        assert answer(endpoint.port, "/metrics") == (200, f"of {state[2]}")
        code, text = answer(endpoint.port, "/elsewhere")
        assert code == 404 and "/health/ready" in text
    finally:
        endpoint.close()


def test_a_port_in_use_is_said_and_frees_nothing_of_others():
    first = HttpEndpoint("127.0.0.1", 0)
    try:
        with pytest.raises(TransportError, match="is in use by another program .*--http-port"):
            HttpEndpoint("127.0.0.1", first.port)
    finally:
        first.close()  # which never served
