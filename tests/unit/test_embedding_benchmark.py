"""The benchmarks of embedding and quantification: known work, the published way is ours, ratios are reckoned."""

import numpy as np
import pytest
from benchmarks.performance import embedding, quantification
from benchmarks.performance.embedding import ALONE, BATCHED, LATTICE
from benchmarks.performance.published import one_at_a_time, tensors
from benchmarks.performance.table import Timed

from livestem.stages.vgg16 import Vgg16


def test_the_work_of_a_chip_is_vgg16s():
    # 224 x 224 pixels are known to take 15.3 billion multiplications in the trunk
    assert embedding.multiplications() * 49 == pytest.approx(15.35e9, rel=0.01)


def test_one_at_a_time_embeds_what_the_service_embeds():
    chips = np.random.default_rng(0).integers(0, 256, (3, 15, 15), dtype=np.uint8)
    alone = one_at_a_time()
    theirs = np.stack([alone(chip) for chip in chips])
    ours = Vgg16(tensors()).encode(chips)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_shares_of_a_rate_are_of_the_work():
    took = {name: Timed((1.0,)) for name in (ALONE, *BATCHED.values(), LATTICE)}
    rates = {"fp32": 4.0 * embedding.multiplications(), "bf16": 8.0 * embedding.multiplications()}
    chips = {ALONE: 1, BATCHED["fp32"]: 2, BATCHED["bf16"]: 1, LATTICE: 100}
    rows = {row[0]: row[1:] for row in embedding.table(chips, took, rates, "").rows}
    assert rows[ALONE] == pytest.approx((1.0, 0.5, 0.25, 1.0, 1000.0))
    assert rows[BATCHED["fp32"]] == pytest.approx((2.0, 1.0, 0.5, 2.0, 500.0))
    assert rows[LATTICE][1:3] == (None, None)


@pytest.mark.parametrize(("apart", "sigma", "word"), [(0.4, 0.1, "met"), (0.6, 0.7, "met"), (0.6, 0.5, "missed")])
def test_ratios_are_of_what_does_the_same(apart: float, sigma: float, word: str):
    ours = {"live": Timed((0.1,)), "final": Timed((0.2,))}
    theirs = {"bounded": Timed((400.0,)), "lstsq": Timed((20.0,))}
    agreement = [("Sr 20.0", [0.1, 0.6, 0.7, apart], sigma)]
    found = quantification.table(2601, {"bounded": 2, "lstsq": 130}, ours, theirs, agreement)
    assert [row[1:3] for row in found.rows] == [
        pytest.approx(pair) for pair in ((1, 0.5), (2, 1), (4000, 2000), (200, 100))
    ]
    assert "from 2 chips" in str(found.rows[2][0])
    assert found.notes[1].endswith(f"or a sigma with the same weights: {word}.")


def test_a_quick_run_has_every_row():
    found = embedding.measure(1, quick=True)
    assert [row[0] for row in found.rows] == [ALONE, *BATCHED.values(), LATTICE]
    assert all(float(row[4]) > 0 for row in found.rows)
    assert "AMI of Ward's" in found.notes[1]
