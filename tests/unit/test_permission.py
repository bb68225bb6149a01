"""Who may ask for what: the table of the design, for every request, role and stream."""

from __future__ import annotations

from typing import Any

import pytest

from livestem.domain.request import ScanRequest
from livestem.protocol.permission import ADMITTED, ROLES, forbidden
from livestem.wire import messages as m

REQUESTS: dict[str, m.Talk] = {
    "hello service": m.Hello(request_id="1", versions=(1,), role="service"),
    "hello operator": m.Hello(request_id="1", versions=(1,), role="operator"),
    "hello observer": m.Hello(request_id="1", versions=(1,), role="observer"),
    "probe": m.Probe(request_id="1", nonce="n"),
    "attach": m.Attach(request_id="1"),
    "ack": m.Ack(request_id="1", seq=1),
    "verdict": m.Verdict(request_id="1", scan_id="s", accepted=True),
    "resend": m.Resend(request_id="1", first=1, last=2),
    "snapshot": m.Snapshot(request_id="1"),
    "request_scan": m.RequestScan(request_id="1", request=ScanRequest()),
}
# Rows: request. Columns: stream and role; nobody who is not named here gets an answer.
MAY = {
    "hello service": {("acq", "service")},
    "hello operator": {("acq", "operator"), ("res", "operator")},
    "hello observer": {("acq", "operator"), ("res", "observer"), ("res", "operator")},
    "probe": {(s, r) for s in ADMITTED for r in ROLES},  # who is not let in never comes so far
    "attach": {("acq", "service")},
    "ack": {("acq", "service")},
    "verdict": {("acq", "service")},
    "resend": {("acq", "service"), ("res", "observer"), ("res", "operator")},
    "snapshot": {("acq", "service"), ("res", "observer"), ("res", "operator")},
    "request_scan": {("acq", "operator"), ("res", "operator")},
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("stream", ["acq", "res"])
def test_the_table(stream: Any, role: Any, request_name: str):
    reason = forbidden(stream, REQUESTS[request_name], {role})
    assert (reason is None) == ((stream, role) in MAY[request_name])
    assert reason is None or ("\n" not in reason and len(reason) < 200)


@pytest.mark.parametrize("request_name", [name for name in REQUESTS if name != "probe"])
@pytest.mark.parametrize("stream", ["acq", "res"])
def test_without_a_role_nothing_is_answered(stream: Any, request_name: str):
    assert forbidden(stream, REQUESTS[request_name], frozenset())


def test_roles_that_are_not_let_in_here_count_for_nothing():
    """A service's key in the lists of a service opens nothing; together with observer it is an observer's."""
    assert forbidden("res", REQUESTS["attach"], {"service"})
    assert "let in as observer" in (forbidden("res", REQUESTS["attach"], {"service", "observer"}) or "")
    assert forbidden("res", REQUESTS["snapshot"], {"service", "observer"}) is None


def test_every_request_that_a_publisher_is_asked_is_in_the_table():
    replies = {m.Welcome, m.Attached, m.Resent, m.Gone, m.Coming, m.SnapshotPage, m.Refusal, m.ScanGranted}
    assert {type(r) for r in REQUESTS.values()} == set(m.TALK) - replies
