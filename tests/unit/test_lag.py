"""How far live maps are behind, and when that is too much."""

from types import SimpleNamespace

import msgspec
import pytest
from scans import plan

from livestem.runtime.lag import LEAST_S, MOST_S, UNPACED_S, Lag, frame_s

PACED = msgspec.structs.replace(plan((512, 512)), dwell_s=2e-6)


def scan(of=PACED, **times):
    return SimpleNamespace(**{"plan": of, "arrived": None, "looked_from": None, "stale_from": None} | times)


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ({}, 0.0),
        ({"arrived": 99.0}, 1.0),
        ({"arrived": 99.0, "looked_from": 97.0}, 3.0),
        ({"arrived": 99.0, "looked_from": 97.0, "stale_from": 95.0}, 5.0),
        ({"stale_from": 101.0}, 0.0),
    ],
)
def test_a_scan_lags_by_its_oldest_data_that_nobody_has_seen(times, seconds):
    assert Lag.of(scan(**times), 100.0).seconds == seconds


def test_a_lag_is_told_in_frames_of_the_scans_own_pace():
    lag = Lag.of(scan(arrived=100.0), 100.0 + 1.8 * 0.524288)
    assert lag.frame_s == pytest.approx(0.524288)
    assert lag.words == "compute lags 1.8 frames" and lag.too_much
    unpaced = msgspec.structs.replace(PACED, dwell_s=None)
    assert frame_s(unpaced) is None
    assert Lag.of(scan(unpaced, arrived=98.0), 100.0).words == "compute lags 2.0 s"


@pytest.mark.parametrize(("frame", "allowed"), [(None, UNPACED_S), (0.001, LEAST_S), (2.0, 2.0), (600.0, MOST_S)])
def test_more_than_a_frame_is_too_much_and_half_of_it_is_over(frame, allowed):
    assert Lag(0.0, frame).allowed_s == allowed
    assert not Lag(allowed, frame).too_much and Lag(allowed + 0.01, frame).too_much
    assert Lag(allowed / 2 - 0.01, frame).over and not Lag(allowed / 2, frame).over
