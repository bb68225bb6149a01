"""Rejection: chips unlike any class are unknown where they fill an area, and chips of known classes are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestem.domain.errors import StageError
from livestem.stages.fewshot import calibrate, calibrated_scores, predict
from livestem.stages.rejection import unknown, with_unknown

GRID = (20, 20)
LAST = (slice(14, 20), slice(14, 20))  # a phase in the corner


def field(seed: int = 0, directions: int = 8, away: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """Return features (400, 8) and classes of two halves with a third phase in a corner, noise one."""
    rng = np.random.default_rng(seed)
    classes = np.zeros(GRID, int)
    classes[:, 10:] = 1
    classes[LAST] = 2
    centres = away * np.eye(3, directions)
    return centres[classes.ravel()] + rng.normal(size=(400, directions)), classes


def chosen(classes: np.ndarray, each: int, seed: int = 0, kinds: int = 2) -> list[list[int]]:
    rng = np.random.default_rng([seed, 5])
    return [rng.choice(np.flatnonzero(classes.ravel() == k), each, replace=False).tolist() for k in range(kinds)]


def test_a_phase_without_examples_is_unknown_and_the_named_ones_are_not():
    x, classes = field()
    found = unknown(x, calibrate(x, chosen(classes, 4)), GRID, 0.01).reshape(GRID)
    assert np.array_equal(found, classes == 2)


@pytest.mark.parametrize("each", [2, 4, 10])
def test_named_classes_are_rarely_rejected_however_few_their_examples(each):
    shares = []
    for seed in range(20):
        x, classes = field(seed)
        found = unknown(x, calibrate(x, chosen(classes, each, seed, kinds=3)), GRID, 0.01)
        shares.append(found.mean())
    assert np.mean(shares) < 0.01


def test_a_line_of_odd_chips_is_a_border_and_no_phase():
    x, classes = field()
    calibration = calibrate(x, chosen(classes, 4, kinds=3))
    x = x.reshape(*GRID, -1)
    x[2:4] = 99.0  # two rows, as a border with its overlapping windows makes
    assert not unknown(x.reshape(400, -1), calibration, GRID, 0.01).any()
    x[2:5] = 99.0
    assert unknown(x.reshape(400, -1), calibration, GRID, 0.01).reshape(GRID)[2:5].all()


def test_the_fields_edge_may_cut_an_area():
    x, classes = field()
    calibration = calibrate(x, chosen(classes, 4, kinds=3))
    x = x.reshape(*GRID, -1)
    x[0, 3:9] = 99.0
    found = unknown(x.reshape(400, -1), calibration, GRID, 0.01).reshape(GRID)
    assert found[0, 3:9].all() and found.sum() == 6


def test_a_class_that_varies_more_reaches_farther():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(200, 4)), 60 + 6 * rng.normal(size=(200, 4))])
    calibration = calibrate(x, [list(range(8)), list(range(200, 208))])
    x[100:200] = 7.0  # 14 from the quiet class: far
    x[300:] = 60 + 7.0  # as far from the one that varies: not far
    found = unknown(x, calibration, GRID, 0.01)
    assert found[120:180].all() and not found[200:].any()


def test_a_class_of_one_example_varies_as_the_others_and_none_rejects_nothing():
    x, classes = field()
    (first, _) = chosen(classes, 4)
    one = calibrate(x, [first, [10]])
    assert np.array_equal(unknown(x, one, GRID, 0.01).reshape(GRID), classes == 2)
    assert not unknown(x, calibrate(x, [[0], [10]]), GRID, 0.01).any()


def test_chips_without_data_are_never_unknown():
    x, classes = field()
    valid = np.ones(400, bool)
    valid[[399, 5]] = False
    x[~valid] = np.nan
    found = unknown(x, calibrate(x, chosen(classes, 4), valid), GRID, 0.01, valid)
    assert not found[~valid].any() and found.reshape(GRID)[LAST].sum() == 35


@given(st.floats(0.001, 0.4), st.floats(0.001, 0.4))
def test_a_larger_rate_rejects_no_fewer(one, other):
    x, classes = field(away=4.0)
    calibration = calibrate(x, chosen(classes, 4))
    few, many = (unknown(x, calibration, GRID, rate) for rate in sorted((one, other)))
    assert not (few & ~many).any()


def test_unknown_is_the_last_class_of_scores_that_still_sum_to_one():
    x, classes = field()
    calibration = calibrate(x, chosen(classes, 4))
    valid = np.arange(400) != 7
    away = unknown(x, calibration, GRID, 0.01, valid)
    scores = with_unknown(calibrated_scores(x, calibration, valid), away)
    assert scores.shape == (400, 3) and scores.dtype == np.float32
    assert scores[valid].sum(axis=1) == pytest.approx(np.ones(399), abs=1e-6)
    labels = predict(scores, valid)
    assert np.array_equal(labels == 2, away) and labels[7] == -1


@pytest.mark.parametrize(("shape", "rate", "line"), [((3, 3), 0.01, "does not hold 400"), (GRID, 0.0, "between 0 and")])
def test_what_makes_no_sense_is_refused(shape, rate, line):
    x, classes = field()
    with pytest.raises(StageError, match=line):
        unknown(x, calibrate(x, chosen(classes, 4)), shape, rate)
