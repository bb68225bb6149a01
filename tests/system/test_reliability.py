"""A part of `make reliability`, in CI: real processes, real sockets, real kills. `.ci/run` soaks beside."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.reliability.kills import Kills, drawn
from benchmarks.reliability.matrix import run_matrix, some_cases
from benchmarks.reliability.soak import Sample, Soak

pytestmark = pytest.mark.system
KILLS = 5


def test_every_fault_and_every_blow_at_a_real_service(tmp_path: Path):
    outcomes = run_matrix(some_cases(), tmp_path)
    assert [(o.case, o.wrong) for o in outcomes if o.wrong] == []
    assert sum(o.same_digest for o in outcomes) == len(outcomes) - 2, "all but the aborted and the vanished one"


@pytest.mark.timeout(400)
def test_random_kills(tmp_path: Path):
    seed = random.SystemRandom().randrange(2**16)
    kills = Kills(tmp_path)
    outcomes = [kills.run(kill) for kill in drawn(KILLS, seed)]
    assert [(o.kill, o.wrong) for o in outcomes if o.wrong] == [], (
        f"python -m benchmarks.reliability kills --seed {seed}"
    )


@pytest.mark.parametrize("what", ["memory", "handles", "threads"])
def test_a_leak_fails_a_soak(what: str):
    def sample(i: int) -> Sample:
        grown = {"memory": 0.0, "handles": 0, "threads": 0} | {what: i}
        return Sample(
            2.0 * i, 300 + grown["memory"], 40 + int(grown["handles"]), 12 + int(grown["threads"]), None, None
        )

    still = tuple(Sample(2.0 * i, 300 + 5 * (i % 2), 40 + i % 3, 12, 0.02, 0.3) for i in range(100))
    assert Soak(200.0, 50, 50, 5, still, ()).leaks == []
    (leak,) = Soak(200.0, 50, 50, 5, tuple(map(sample, range(100))), ()).leaks
    assert leak.startswith(what)
