"""Few-shot: the published score to the letter, and a calibrated one whose confidence can be believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from livestem.domain.errors import StageError
from livestem.stages.features import square_root, standardise, whiten_by_neighbours
from livestem.stages.fewshot import (
    calibrate,
    calibrated_scores,
    combine,
    finished,
    predict,
    prototypes,
    softmax_scores,
)

GRID = (34, 34)


def phantom(seed: int, noise: float, blind: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features and true phase of a film on a substrate with a defect domain and a cap.

    Correlated image features of the given noise, about 10 counts in six lines, `blind` features that
    tell no phases apart, a thickness gradient; borders are sharp.
    """
    rng = np.random.default_rng(seed)
    y, x = np.divmod(np.arange(GRID[0] * GRID[1]), GRID[1])
    truth = np.select([y >= 27, ((y - 20) / 5) ** 2 + ((x - 11) / 9) ** 2 < 1, y >= 13], [3, 2, 1], 0)
    image = np.array(
        [
            [1.0, 0.5, 0.8, 0.6, 0.2],
            [1.4, 0.7, 0.9, 0.5, 0.2],
            [1.3, 0.4, 0.3, 0.2, 0.5],
            [0.5, 0.2, 0.1, 0.1, 0.8],
        ]
    )
    lines = np.array([[0, 4, 0, 9, 5, 3], [3, 4, 5, 0, 0, 3], [2.7, 4.5, 4.5, 0, 0, 3.2], [0, 1.5, 0, 0, 0, 9]], float)
    mix = np.eye(5) + 0.5 * rng.normal(size=(5, 5))
    gradient = 1 + 0.05 * (x / GRID[1])[:, None]
    columns = [
        image[truth] * gradient + 0.5 * noise * rng.normal(size=(truth.size, 5)) @ mix,
        square_root(rng.poisson(0.7 * lines[truth] * gradient)),
        rng.normal(size=(truth.size, blind)) @ rng.normal(size=(blind, blind)),
    ]
    return np.hstack(columns), truth


def examples(truth: np.ndarray, each: int, seed: int, kinds: int = 4) -> list[list[int]]:
    rng = np.random.default_rng([seed, 99])
    return [rng.choice(np.flatnonzero(truth == k), each, replace=False).tolist() for k in range(kinds)]


def log_loss(scores: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(scores[np.arange(len(truth)), truth] + 1e-9).mean())


# --- prototypes


def test_a_prototype_is_the_mean_of_its_examples_with_data():
    x = np.arange(12.0).reshape(6, 2)
    assert prototypes(x, ((0, 1), (5,))).tolist() == [[1, 2], [10, 11]]
    valid = np.array([0, 1, 1, 1, 1, 1], bool)
    x[0] = np.nan
    assert prototypes(x, ((0, 1), (5,)), valid).tolist() == [[2, 3], [10, 11]]
    assert prototypes(x, ((1, 1, 2), (5,))).tolist() == [[3, 4], [10, 11]]  # an example counts once


def test_scoring_begins_when_every_class_has_an_example():
    classes = ((0, 1), (2,))
    assert finished(classes, np.array([False, True, True]))
    assert not finished(classes, np.array([True, True, False]))


@pytest.mark.parametrize(
    ("x", "classes", "valid", "line"),
    [
        (np.eye(3), ((0,), (3,)), None, "outside the 3 chips"),
        (np.eye(3), ((0,), (-1,)), None, "outside the 3 chips"),
        (np.eye(3), ((0,), ()), None, "class 1 has no support chip"),
        (np.eye(3), (), None, "no support chip"),
        (np.eye(3), ((0,), (1,)), np.array([True, False, True]), "class 1 has no support chip with data"),
        (np.full((3, 2), np.nan), ((0,), (1,)), None, "support chips of 2 chips are not finite"),
    ],
)
def test_support_that_cannot_be_used_is_refused_in_one_line(x, classes, valid, line):
    for method in (prototypes, calibrate):
        with pytest.raises(StageError, match=line) as caught:
            method(x, classes, valid)
        assert "\n" not in str(caught.value)


# --- published scores


def test_published_scores_are_the_softmax_of_negative_distances():
    x, c = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    distances = np.array([[0, 5, 1], [5, 0, np.sqrt(18)]])
    weights = np.exp(-distances)
    assert softmax_scores(x, c) == pytest.approx(weights / weights.sum(1, keepdims=True), rel=1e-6)
    assert softmax_scores(x, c).dtype == np.float32


@given(
    arrays(np.float64, (7, 3), elements=st.floats(-1e6, 1e6)),
    arrays(np.float64, (4, 3), elements=st.floats(-1e6, 1e6)),
)
def test_published_scores_are_shares_and_rank_by_distance(x, c):
    scores = softmax_scores(x, c)
    assert np.isfinite(scores).all() and (scores >= 0).all()
    assert scores.sum(1) == pytest.approx(np.ones(7), abs=1e-5)
    nearest = np.linalg.norm(x[:, None] - c, axis=2)
    assert np.allclose(nearest[np.arange(7), predict(scores)], nearest.min(1), atol=1e-5)


def test_in_512_dimensions_published_scores_saturate():
    rng = np.random.default_rng(0)
    x = 500 * rng.normal(size=(40, 512))  # what VGG16 puts out has norms of this order
    assert (np.abs(softmax_scores(x, x[:3]) - 0.5) > 0.499999).mean() > 0.9


def test_far_features_do_not_overflow():
    assert softmax_scores(np.array([[1e100], [-1e100]]), np.array([[1e100], [0.0]])).tolist() == [
        [1, 0],
        [0, 1],
    ]


def test_prototypes_of_other_parameters_are_refused():
    for centres in (np.ones((2, 3)), np.ones(2), np.ones((0, 2))):
        with pytest.raises(StageError, match="do not fit"):
            softmax_scores(np.ones((4, 2)), centres)


def test_chips_without_data_have_no_score_and_label_minus_one():
    x, valid = np.array([[0.0], [np.nan], [5.0]]), np.array([True, False, True])
    calibration = calibrate(x, ((0,), (2,)), valid)
    for scores in (
        softmax_scores(x, np.array([[0.0], [5.0]]), valid),
        calibrated_scores(x, calibration, valid),
    ):
        assert not scores[1].any()
        assert predict(scores, valid).tolist() == predict(scores).tolist() == [0, -1, 1]


def test_equal_scores_go_to_the_first_class():
    labels = predict(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([True, False]))
    assert labels.tolist() == [0, -1]
    assert labels.dtype == np.int16


# --- calibrated scores


def test_a_class_varies_as_its_own_examples_do_and_never_below_one():
    x = np.array([[0.0], [4.0], [100.0], [102.0], [104.0], [50.0]])
    found = calibrate(x, ((0, 1), (2, 3, 4), (5,)))
    assert found.variances == pytest.approx([8, 8 / 2, (8 + 8) / 3])  # one example: as all examples do
    assert found.examples.tolist() == [2, 3, 1]
    assert (calibrate(x / 100, ((0, 1), (2, 3, 4))).variances == 1.0).all()
    assert (calibrate(x, ((0,), (5,))).variances == 1.0).all()


def test_temperature_corrects_for_what_distances_owe_to_chance():
    """Two classes of one example, squared 10 apart in 3 columns: 6 are chance, so 10 / 4 too steep."""
    x = np.zeros((2, 3))
    x[1, 0] = np.sqrt(10.0)
    assert calibrate(x, ((0,), (1,))).temperatures[0, 1] == pytest.approx(10 / 4)
    assert calibrate(x / 10, ((0,), (1,))).temperatures[0, 1] == pytest.approx(10)  # bounded
    assert calibrate(np.zeros((2, 3)), ((0,), (1,))).temperatures[0, 1] == pytest.approx(10)
    assert (calibrate(x, ((0, 1),)).temperatures >= 1).all()  # a single class has no pair


def test_alike_classes_do_not_make_the_others_unsure():
    """Two classes 3 apart and one 30 away: a chip at the far one is as sure as without the alike pair."""
    x = np.array([[0.0], [3.0], [30.0]])
    near = calibrated_scores(x, calibrate(x, ((0,), (1,), (2,))))
    assert near[2, 2] == pytest.approx(calibrated_scores(x, calibrate(x, ((0,), (2,))))[2, 1], abs=0.01)
    assert near[2, 2] > 0.98 > near[0, 0]


def test_calibrated_scores_are_the_posterior_of_normal_classes():
    x = np.array([[0.0], [3.0], [1.0]])
    found = calibrate(x, ((0,), (1,)))
    logit = (9 - 0 - 2 * 3 * 1.0) / (2 * found.temperatures[0, 1])  # (|z - 3|^2 - |z|^2) / 2T at z = 1
    assert found.temperatures[0, 1] == pytest.approx(9 / 7)  # 2 of the 9 are chance
    assert calibrated_scores(x, found)[2, 0] == pytest.approx(1 / (1 + np.exp(-logit)))


def test_what_a_chip_on_a_border_is_never_certain_however_far_its_classes_are():
    """A share of 0.45 is known to 0.15: the odds are those of a normal error of that width, within 2 %."""
    x = np.array([[0.0, 0.0], [1e4, 0.0], [4.5e3, 0.0], [3e3, 0.0]])
    scores = calibrated_scores(x, calibrate(x, ((0,), (1,))))
    for row, share in ((2, 0.45), (3, 0.3)):
        assert scores[row, 0] == pytest.approx(norm.cdf((0.5 - share) / 0.15), abs=0.02)
    assert scores[0, 0] == pytest.approx(norm.cdf(0.5 / 0.15), abs=0.004)


@given(
    arrays(np.float64, (7, 3), elements=st.floats(-1e6, 1e6)),
    arrays(np.float64, (5, 3), elements=st.floats(-1e3, 1e3)),
)
def test_calibrated_scores_are_shares_and_rank_by_distance(x, y):
    found = calibrate(y, ((0, 1), (2,), (3, 4)))
    scores = calibrated_scores(x, found)
    assert np.isfinite(scores).all() and (scores >= 0).all()
    assert scores.sum(1) == pytest.approx(np.ones(7), abs=1e-5)
    away = np.linalg.norm(x[:, None] - found.prototypes, axis=2)
    tie = 1e-3 * np.sqrt(found.temperatures.max())  # nearer than that, scores are equal in float32
    assert away[np.arange(7), predict(scores)] == pytest.approx(away.min(1), rel=1e-6, abs=tie)


SETTINGS = [
    # noise, blind features, examples, how far confidence may be from accuracy
    (0.5, 0, 4, 0.03),
    (1.0, 0, 4, 0.07),
    (1.0, 0, 2, 0.07),
    (1.0, 30, 4, 0.07),
    (1.5, 0, 4, 0.07),
    (1.5, 30, 4, 0.07),
    (1.5, 0, 1, 0.10),
]


@pytest.mark.parametrize(("noise", "blind", "each", "apart"), SETTINGS)
def test_confidence_can_be_believed_and_beats_the_published_scores(noise, blind, each, apart):
    """Means over four scans, on the chips that are no examples."""
    found: dict[str, list[tuple[float, float, float]]] = {"calibrated": [], "published": []}
    for seed in range(4):
        x, truth = phantom(seed, noise, blind)
        classes = examples(truth, each, seed)
        others = np.ones(truth.size, bool)
        others[[i for c in classes for i in c]] = False
        z, plain = whiten_by_neighbours(x, GRID), standardise(x)
        ways = {
            "calibrated": calibrated_scores(z, calibrate(z, classes))[others],
            "published": softmax_scores(plain, prototypes(plain, classes))[others],
        }
        for way, scores in ways.items():
            hit = predict(scores) == truth[others]
            found[way].append((hit.mean(), scores.max(1).mean(), log_loss(scores, truth[others])))
    (hits, sure, loss), (old_hits, _, old_loss) = (np.mean(found[w], axis=0) for w in found)
    assert abs(sure - hits) < apart
    assert hits > old_hits
    assert loss < old_loss


def test_surer_chips_are_right_more_often():
    x, truth = phantom(3, 1.0)
    z = whiten_by_neighbours(x, GRID)
    scores = calibrated_scores(z, calibrate(z, examples(truth, 4, 3)))
    confidence, hit = scores.max(1), predict(scores) == truth
    shares = [hit[(confidence > a) & (confidence <= a + 0.2)].mean() for a in (0.4, 0.6, 0.8)]
    assert shares == sorted(shares)
    assert hit[confidence > 0.95].mean() > 0.93


# --- ensembles


def test_the_default_is_half_and_half_and_weights_are_ratios():
    a, b = np.array([[0.8, 0.2]]), np.array([[0.4, 0.6]])
    assert combine({"haadf": a, "eds": b}) == pytest.approx(np.array([[0.6, 0.4]]))
    assert combine({"haadf": a, "eds": b}, {"haadf": 45, "eds": 55}) == pytest.approx(np.array([[0.58, 0.42]]))
    assert combine({"haadf": a, "eds": b}).dtype == np.float32
    assert combine({"haadf": a}, {"haadf": 2.0}) == pytest.approx(a)


def test_a_chip_is_scored_by_the_modalities_that_have_it():
    a, b = np.array([[0.8, 0.2], [0.0, 0.0], [0, 0]]), np.array([[0.0, 0.0], [0.4, 0.6], [0, 0]])
    mean = combine({"haadf": a, "eds": b})
    assert mean == pytest.approx(np.array([[0.8, 0.2], [0.4, 0.6], [0, 0]]))
    assert predict(mean).tolist() == [0, 1, -1]


def test_eds_can_count_by_its_counts_chip_by_chip():
    a, b = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]] * 3)
    mean = combine({"haadf": a, "eds": b}, {"haadf": 1.0, "eds": np.array([0.0, 1.0, 3.0])})
    assert mean[:, 1] == pytest.approx([0.0, 0.5, 0.75])


@given(st.lists(st.floats(0.01, 10), min_size=3, max_size=3), st.integers(0, 1000))
def test_combined_scores_are_shares_whatever_the_order(weights, seed):
    rng = np.random.default_rng(seed)
    scores = {m: rng.dirichlet(np.ones(4), 5) for m in ("haadf", "eds", "lines")}
    w = dict(zip(scores, weights, strict=True))
    mean = combine(scores, w)
    assert mean.sum(1) == pytest.approx(np.ones(5), abs=1e-6)
    assert np.array_equal(mean, combine(dict(reversed(scores.items())), w))


@pytest.mark.parametrize(
    ("scores", "weights", "line"),
    [
        ({}, None, "at least one modality"),
        ({"a": np.ones((2, 2)), "b": np.ones((3, 2))}, None, "differ in chips or classes"),
        ({"a": np.ones((2, 2)), "b": np.ones((2, 3))}, None, "differ in chips or classes"),
        ({"a": np.ones((2, 2))}, {"b": 1.0}, "weights name b, scores a"),
        ({"a": np.ones((2, 2))}, {}, "weights name"),
        ({"a": np.ones((2, 2))}, {"a": -1.0}, "not negative"),
        ({"a": np.ones((2, 2))}, {"a": 0.0}, "not all zero"),
        ({"a": np.ones((2, 2))}, {"a": np.nan}, "finite"),
    ],
)
def test_ensembles_that_mean_nothing_are_refused(scores, weights, line):
    with pytest.raises(StageError, match=line):
        combine(scores, weights)
