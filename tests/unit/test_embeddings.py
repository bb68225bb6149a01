"""Which chips a network embeds at a look: by need, within a budget of time, and none waits for ever."""

from __future__ import annotations

import numpy as np
import pytest

from livestem.runtime.embeddings import BATCH, BUDGET_S, NEVER, Embeddings

CHIPS = 400
ALL = np.ones(CHIPS, bool)


class Slow:
    """An encoder that notes what it embeds, by the chips' first pixel, and takes its time on a clock of its own."""

    digest, precision, device = "slow", "fp32", "cpu"

    def __init__(self, chip_s: float) -> None:
        self.now, self._chip_s, self.calls = 0.0, chip_s, []

    def encode(self, chips):
        self.now += self._chip_s * len(chips)
        self.calls.append(chips.copy())
        return chips.reshape(len(chips), -1)[:, :3].astype(np.float32)


def made(chip_s: float):
    encoder = Slow(chip_s)
    return encoder, Embeddings(CHIPS, lambda: encoder.now)


def greys(seed=0):
    return np.random.default_rng(seed).integers(0, 200, (CHIPS, 4, 4)).astype(np.uint8)


def settle(embeddings, encoder, grey, frame=0):
    embeddings.mark(ALL)
    while embeddings.waiting.any():
        embeddings.renew(grey, encoder, ALL, frame, None)


@pytest.mark.parametrize(
    ("chip_s", "at_once"), [(1.0, BATCH), (BUDGET_S / 100, 96), (BUDGET_S / 1000, CHIPS), (0.0, CHIPS)]
)
def test_a_look_embeds_what_its_time_allows(chip_s, at_once):
    encoder, embeddings = made(chip_s)
    settle(embeddings, encoder, greys())
    assert len(encoder.calls[0]) == BATCH, "before anything is measured"
    assert len(encoder.calls[1]) == min(at_once, CHIPS - BATCH)
    assert sum(map(len, encoder.calls)) == CHIPS
    assert np.array_equal(embeddings.rows, greys().reshape(CHIPS, -1)[:, :3])


def test_what_looks_as_it_did_is_not_embedded_again():
    encoder, embeddings = made(0.001)
    settle(embeddings, encoder, greys())
    before = len(encoder.calls)
    embeddings.mark(ALL)
    embeddings.renew(greys(), encoder, ALL, 1, None)
    assert len(encoder.calls) == before and not embeddings.waiting.any()


def test_the_most_changed_and_least_certain_go_first():
    encoder, embeddings = made(1.0)
    grey = greys()
    settle(embeddings, encoder, grey)
    changed = grey + 1
    changed[100:110] += 40  # most changed
    changed[200:210] += 20
    margin = np.ones(CHIPS, np.float32)
    margin[300:310] = 0.0  # as little changed as the others, and nothing is known of them
    embeddings.mark(ALL)
    embeddings.renew(changed, encoder, ALL, 1, margin)
    renewed = np.flatnonzero(~embeddings.waiting)
    by_turn, by_need = BATCH // 4, BATCH - BATCH // 4
    assert set(range(by_turn)) <= set(renewed), "as many as one in four have waited longest"
    assert set(range(100, 110)) | set(range(200, 210)) <= set(renewed)
    assert len(set(renewed) & set(range(300, 310))) == by_need - 20


def test_no_chip_waits_for_ever_however_much_the_others_change():
    encoder, embeddings = made(1.0)
    grey = greys()
    settle(embeddings, encoder, grey)
    quiet = 377
    waited = 0
    for look in range(1, 4 * CHIPS // BATCH + 2):
        grey = grey + np.uint8(look % 50 + 1)
        grey[quiet] = greys()[quiet] + 1
        embeddings.mark(ALL)
        embeddings.renew(grey, encoder, ALL, look, None)
        assert embeddings.waiting.sum() <= CHIPS, "what waits is bounded, whatever has come"
        if not embeddings.waiting[quiet]:
            break
        waited += 1
    assert 0 < waited <= 4 * CHIPS / BATCH


def test_an_age_is_the_frames_since_and_none_where_nothing_has_come():
    encoder, embeddings = made(1.0)
    assert (embeddings.ages(3) == NEVER).all()
    settle(embeddings, encoder, greys(), frame=2)
    assert (embeddings.ages(9) == 0).all(), "nothing has come to any"
    some = np.zeros(CHIPS, bool)
    some[5:8] = True
    embeddings.mark(some)
    assert embeddings.ages(9)[5:8].tolist() == [7, 7, 7] and embeddings.ages(9).sum() == 21
    assert embeddings.oldest(ALL) == encoder.now and embeddings.oldest(~some) is None


def test_a_chip_without_data_waits_for_them():
    encoder, embeddings = made(1.0)
    valid = np.arange(CHIPS) < 10
    embeddings.mark(ALL)
    embeddings.renew(greys(), encoder, valid, 0, None)
    assert np.array_equal(~embeddings.waiting, valid)
    assert len(encoder.calls[0]) == 10
