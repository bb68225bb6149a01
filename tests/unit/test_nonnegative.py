"""Non-negative least squares of many targets at once: scipy's solution of each, whoever else is in the batch."""

import numpy as np
import pytest
from scipy.optimize import nnls

from livestem.stages import nonnegative as stage
from livestem.stages.nonnegative import nonnegative


def one_by_one(matrix, targets):
    return np.array([nnls(matrix, target)[0] for target in targets])


def cases():
    rng = np.random.default_rng(0)
    for rows, columns, skew in ((12, 12, 0.0), (20, 9, 0.0), (15, 15, 0.9), (6, 1, 0.0), (30, 11, 0.99)):
        matrix = rng.normal(size=(rows, columns)) * (1 - skew) + skew * rng.normal(size=(rows, 1))
        yield matrix, rng.normal(size=(300, rows))
        yield matrix, np.abs(rng.normal(size=(300, columns))) @ matrix.T  # all positive
        yield matrix, -np.abs(rng.normal(size=(40, columns))) @ matrix.T
        yield np.triu(matrix), 1e6 * rng.normal(size=(100, rows))
        yield matrix * 10.0 ** rng.integers(-4, 4, columns), rng.normal(size=(100, rows))


@pytest.mark.parametrize(("matrix", "targets"), [*cases()])
def test_each_is_what_scipy_finds(matrix, targets):
    if np.linalg.matrix_rank(matrix) < matrix.shape[1]:
        matrix = matrix + np.eye(*matrix.shape) * np.abs(matrix).max()
    ours, theirs = nonnegative(matrix, targets), one_by_one(matrix, targets)
    assert (ours >= 0).all()
    fits = [np.linalg.norm(targets - found @ matrix.T, axis=1) for found in (ours, theirs)]
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-9, atol=1e-9 * np.linalg.norm(targets))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7 * np.abs(theirs).max())


def test_a_row_is_the_same_in_any_batch():
    rng = np.random.default_rng(1)
    matrix, targets = rng.normal(size=(14, 11)), rng.normal(size=(257, 14))
    whole = nonnegative(matrix, targets)
    for some in (slice(0, 1), slice(3, 20), slice(100, 257)):
        assert nonnegative(matrix, targets[some]).tobytes() == whole[some].tobytes()
    assert nonnegative(matrix, targets[:0]).shape == (0, 11)


def test_a_target_of_nothing_has_nothing():
    assert not nonnegative(np.eye(3), np.zeros((2, 3))).any()


def test_what_does_not_settle_is_solved_by_itself(monkeypatch):
    monkeypatch.setattr(stage, "_ROUNDS", 0)
    rng = np.random.default_rng(2)
    matrix, targets = rng.normal(size=(8, 6)), rng.normal(size=(20, 8))
    assert np.array_equal(nonnegative(matrix, targets), one_by_one(matrix, targets))
