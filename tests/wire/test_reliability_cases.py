"""Both hops of the wire in memory: whatever happens, nothing is lost silently; who loses on purpose is found out."""

from __future__ import annotations

import pytest
from benchmarks.reliability.cases import Blow, Case, run
from benchmarks.reliability.drawn import cases, faults_of, run_cases
from benchmarks.reliability.link import CALM, Weather
from hypothesis import given, settings

from livestem.domain import life
from livestem.protocol.gaps import GapTracker
from livestem.protocol.publisher import Publisher
from livestem.protocol.resend import ResendBuffer

LOSSY = Weather(loss=0.4)


def case(**changes: object) -> Case:
    given = {"seed": 1, "tiles": (9, 5), "recorded": True, "acquisition": CALM, "results": CALM, "blows": ()}
    return Case(**{**given, **changes})  # type: ignore[arg-type]


@settings(max_examples=400, deadline=None)
@given(case=cases)
def test_whatever_happens_everything_comes_or_is_told_missing(case: Case):
    assert run(case).silent == ()


def test_calm_cases_are_whole():
    for recorded in (True, False):
        assert run(case(recorded=recorded)) == run(case(recorded=recorded, late=True))
        assert (run(case(recorded=recorded)).whole, run(case(recorded=recorded)).told) == (2, 0)


def test_what_a_full_buffer_let_go_of_is_told():
    cut = Blow("cut", at_s=0.05, length_s=2.0)
    outcome = run(case(tiles=(13,), recorded=False, room=3, blows=(cut,)))
    assert (outcome.whole, outcome.told, outcome.silent) == (0, 1, ())


def test_a_killed_instrument_leaves_a_scan_that_tells_what_it_lacks():
    killed = Blow("adapter killed", at_s=0.8, length_s=1.0)
    outcome = run(case(tiles=(60, 5), recorded=False, acquisition=Weather(delay_s=0.05), blows=(killed,)))
    assert (outcome.whole, outcome.told, outcome.silent) == (1, 1, ())


def test_the_same_seed_draws_the_same_cases():
    assert run_cases(20, 7) == run_cases(20, 7) != run_cases(20, 8)


def test_cases_count_under_each_of_their_faults():
    assert faults_of(case()) == {"none"}
    assert faults_of(case(acquisition=LOSSY, blows=(Blow("cut", 1.0, 1.0),))) == {"messages lost: acquisition", "cut"}


# --- a product that is broken on purpose ------------------------------------------------------------------------


def fails(broken: Case) -> bool:
    """Whether a case finds something wrong."""
    try:
        return bool(run(broken).silent)
    except AssertionError:  # it never comes to rest
        return True


def test_a_follower_that_asks_for_nothing_again_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GapTracker, "wanted", lambda self, now: None)
    assert fails(case(acquisition=LOSSY))


def test_a_tracker_that_takes_what_it_has_is_found(monkeypatch: pytest.MonkeyPatch):
    received = GapTracker.received
    monkeypatch.setattr(GapTracker, "received", lambda self, seq, now: bool(received(self, seq, now)) or True)
    assert fails(case(results=Weather(double=0.9)))


def test_a_buffer_that_forgets_what_is_not_acknowledged_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ResendBuffer, "get", lambda self, seq: None if seq % 2 else self._kept.get(seq))
    assert fails(case(recorded=True, acquisition=LOSSY))


def test_finals_that_are_sent_and_not_stored_are_found(monkeypatch: pytest.MonkeyPatch):
    remembered = Publisher.publish_all

    def forgetful(self: Publisher, messages, **more):  # type: ignore[no-untyped-def]
        keep, self._keep = self._keep, None
        try:
            return remembered(self, messages, **more)
        finally:
            self._keep = keep

    monkeypatch.setattr(Publisher, "publish_all", forgetful)
    assert fails(case(blows=(Blow("service killed", at_s=3.0, length_s=0.3), Blow("observer leaves", 3.9, 0.0))))


def test_a_scan_that_ends_too_early_is_found(monkeypatch: pytest.MonkeyPatch):
    def hasty(self: life.ScanLife, event: life.Event) -> tuple[life.ScanLife, tuple[life.Finalise, ...]]:
        return (self, (life.Finalise("complete"),)) if isinstance(event, life.EndArrived) else (self, ())

    monkeypatch.setattr(life.ScanLife, "on", hasty)
    assert any(fails(case(seed=seed, acquisition=LOSSY)) for seed in range(5))
