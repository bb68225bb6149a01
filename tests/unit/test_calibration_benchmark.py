"""The calibration benchmark: its measures are those of the literature, its scores those of the product."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks import calibration  # noqa: E402


def test_a_forecast_that_says_what_happens_is_calibrated_and_one_that_is_too_sure_is_not():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1.0, 20_000)
    truth = (rng.random(sure.size) > sure).astype(np.int16)
    honest = calibration.Believed.of(np.stack([sure, 1 - sure], axis=1), truth)
    assert honest.ece < 0.01
    assert honest.accuracy == pytest.approx(0.75, abs=0.01)
    boasting = np.where(sure > 0.5, 1.0, 0.0)
    too_sure = calibration.Believed.of(np.stack([boasting, 1 - boasting], axis=1), truth)
    assert too_sure.ece == pytest.approx(0.25, abs=0.01)
    assert too_sure.log_loss > honest.log_loss
    assert too_sure.brier > honest.brier


def test_the_measures_by_hand():
    scores = np.array([[0.9, 0.1], [0.3, 0.7], [0.65, 0.35], [0.95, 0.05]])
    found = calibration.Believed.of(scores, np.array([0, 1, 1, 1], np.int16))
    assert found.accuracy == 0.5
    assert found.confidence == pytest.approx(0.8)
    assert found.ece == pytest.approx((abs(0.9 + 0.95 - 1) + abs(0.7 - 1) + 0.65) / 4)
    assert found.brier == pytest.approx((2 * 0.01 + 2 * 0.09 + 2 * 0.65**2 + 2 * 0.95**2) / 4)
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.7, 0.35, 0.05]).mean())


def test_on_a_simulated_scan_the_defaults_confidence_is_believed(monkeypatch: pytest.MonkeyPatch):
    """The gate of the default: 0.05 on a scan of a seed that nothing was developed on; the published is worse."""
    monkeypatch.setattr(calibration, "SAMPLES", ("pristine-0.1dpa",))
    ((_, _, stopped, data),) = calibration.scans(1, (1,))
    truth = stopped.truth.class_of_chips(data.grid)[0].ravel()
    found = {way: calibration.Believed.of(s, truth) for way, s in calibration.ways(stopped, data, None)}
    assert found["default"].ece < 0.05 < found["published"].ece
    assert found["default"].log_loss < found["published"].log_loss
