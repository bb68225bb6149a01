"""Chips on borders: decided by the larger of the two parts they show."""

from __future__ import annotations

import numpy as np
import pytest

from livestem.stages.mixing import Linear, settle

SHAPE = (40, 12)


class Border:
    """Two phases side by side; their border slants, so that every share occurs in the sixth column or beside it."""

    def __init__(self, seed: int, *, photons: float = 400.0, bent: bool = False) -> None:
        rng = np.random.default_rng(seed)
        wall = 5.0 + 2 * np.linspace(0, 1, SHAPE[0])[:, None]
        self.share = np.clip(wall - np.arange(SHAPE[1]), 0, 1).ravel()  # of the left phase
        rates = np.outer(self.share, [0.8, 0.15, 0.05]) + np.outer(1 - self.share, [0.2, 0.2, 0.6])
        self.counts = rng.poisson(photons * rates).astype(np.float64)
        seen = np.sqrt(self.share) if bent else self.share
        self.level = 100 + 40 * seen + rng.normal(size=len(seen))
        # a descriptor that undoes the bend, and one that says nothing
        undone = self.share - seen + 0.03 * rng.normal(size=len(seen))
        self.texture = np.stack([undone, rng.normal(size=len(seen))], axis=1)
        self.truth = np.where(self.share > 0.5, 0, 1)
        self.drawn = np.where(np.arange(SHAPE[1]) < 6, 0, 1)[None].repeat(SHAPE[0], axis=0).ravel()  # a straight guess
        self.valid = np.ones(len(seen), bool)

    def right(self, linear: Linear, texture: np.ndarray | None = None) -> float:
        """Share of the mixed chips that come out right."""
        found = settle(self.drawn, linear, texture, SHAPE, self.valid)
        mixed = (self.share > 0) & (self.share < 1)
        return float((found.labels == self.truth)[mixed].mean())


def test_chips_go_to_the_phase_of_which_they_show_more():
    """With photons alone, the level alone, and both."""
    for linear in ("counts", "level", "both"):
        found = []
        for seed in range(5):
            b = Border(seed)
            before = float((b.drawn == b.truth)[(b.share > 0) & (b.share < 1)].mean())
            given = Linear(None if linear == "counts" else b.level, None if linear == "level" else b.counts)
            found.append(b.right(given))
            assert found[-1] > before + 0.1
        assert np.mean(found) > 0.93, linear


def test_the_spectra_teach_a_picture_that_is_not_linear():
    """The level bends by a quarter of a chip: alone it is wrong there, taught by few photons it is not."""
    alone, taught = [], []
    for seed in range(6):
        b = Border(seed, photons=60, bent=True)
        alone.append(b.right(Linear(b.level, None)))
        taught.append(b.right(Linear(b.level, b.counts), b.texture))
    assert np.mean(taught) > np.mean(alone) + 0.1
    assert np.mean(taught) > 0.9


def test_probabilities_say_how_often_they_are_right():
    told, hit = [], []
    for seed in range(20):
        b = Border(seed, photons=60)
        found = settle(b.drawn, Linear(b.level, b.counts), b.texture, SHAPE, b.valid)
        sure = np.maximum(found.probability, 1 - found.probability)
        told.append(sure), hit.append(found.labels[found.chips] == b.truth[found.chips])
    told, hit = np.concatenate(told), np.concatenate(hit)
    assert abs(told.mean() - hit.mean()) < 0.06
    assert hit[told > 0.95].mean() > 0.95


def test_only_chips_on_borders_move():
    b = Border(1)
    found = settle(b.drawn, Linear(b.level, b.counts), None, SHAPE, b.valid)
    moved = np.flatnonzero(found.labels != b.drawn)
    assert moved.size and set(moved % SHAPE[1]) <= {5, 6}


def test_a_map_of_one_phase_is_left_alone():
    b = Border(2)
    one = np.zeros_like(b.drawn)
    found = settle(one, Linear(b.level, b.counts), b.texture, SHAPE, b.valid)
    assert (found.labels == 0).all() and not found.chips.size


def test_chips_without_data_stay_without_a_label():
    b = Border(3)
    b.valid[::5] = False
    found = settle(b.drawn, Linear(b.level, b.counts), b.texture, SHAPE, b.valid)
    assert (found.labels[~b.valid] == -1).all() and (found.labels[b.valid] >= 0).all()
    none = settle(b.drawn, Linear(b.level, b.counts), b.texture, SHAPE, np.zeros_like(b.valid))
    assert (none.labels == -1).all() and not none.chips.size


def test_the_probabilities_replace_the_scores_of_border_chips():
    b = Border(4)
    scores = np.full((len(b.drawn), 3), 1 / 3, np.float32)
    found = settle(b.drawn, Linear(b.level, b.counts), b.texture, SHAPE, b.valid)
    over = found.over(scores)
    assert over[found.chips].sum(axis=1) == pytest.approx(1) and (over[found.chips, 2] == 0).all()
    untouched = np.setdiff1d(np.arange(len(scores)), found.chips)
    assert (over[untouched] == scores[untouched]).all() and (scores == np.float32(1 / 3)).all()
    assert (over.argmax(axis=1)[found.chips] == found.labels[found.chips]).all()


@pytest.mark.parametrize("spoil", ["equal counts", "no photons", "lone chips", "two equal phases"])
def test_what_cannot_be_told_apart_harms_nothing(spoil: str):
    b = Border(6)
    if spoil == "equal counts":
        b.counts[:] = 7
    elif spoil == "no photons":
        b.counts[:] = 0
    elif spoil == "lone chips":
        b.drawn = np.arange(len(b.drawn)) % 3
    else:
        b.counts[:], b.level[:] = 7, 100
    found = settle(b.drawn, Linear(b.level, b.counts), b.texture, SHAPE, b.valid)
    assert np.isfinite(found.probability).all() and (found.labels >= 0).all()
