"""The benchmark of finals: the published pipeline's steps do what ours do, and goals are reckoned, not typed."""

import numpy as np
import pytest
from benchmarks.performance.finalise import Finals, Scan, table
from benchmarks.performance.published import COMMUNITIES, EMBED, FIT, WARD, communities, ward

from livestem.domain.parameters import PRESETS
from livestem.domain.tiles import EdsEvents
from livestem.stages import louvain
from livestem.stages.agreement import ami
from livestem.stages.ward import ward_tree


@pytest.fixture(scope="module")
def modalities() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    of = rng.integers(3, size=90)
    return {
        name: np.abs(rng.normal(5, 1, (3, width))[of] + rng.normal(0, 0.2, (90, width)))
        for name, width in (("haadf", 12), ("atom", 5), ("eds", 30))
    }


def test_the_published_ward_is_ours(modalities):
    found = ward(modalities, 3)
    assert list(found) == ["haadf", "atom", "eds", "haadf+atom", "haadf+eds", "atom+eds"]
    for name, rows in modalities.items():
        assert ami(found[name], ward_tree(rows).cut(3)) == pytest.approx(1.0)


def test_the_published_communities_are_ours(modalities):
    found = communities(modalities)
    assert len(found) == 6
    for name, rows in modalities.items():
        ours = louvain.communities(louvain.similarity_matrix(rows), "mode", "binary", 42, "igraph")
        assert ami(np.asarray(found[name]), ours.labels) > 0.9  # two runs of a greedy method


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan.simulated("demo", 8, 1, (96, 96))


def test_a_scan_is_asked_for_with_every_preset_and_ends_with_photons(scan: Scan):
    assert set(scan.asked) == set(PRESETS) and scan.chips == 144 and scan.clusters == 4
    last = scan.tiles[-1]
    assert isinstance(last, EdsEvents)
    everything = sum(int(t.counts.sum()) for t in scan.tiles if isinstance(t, EdsEvents))
    assert scan.counts_before_last + int(last.counts.sum()) == everything


@pytest.mark.parametrize(("seconds", "word"), [(1.0, "met"), (3.0, "missed")])
def test_goals_are_reckoned(scan: Scan, seconds: float, word: str):
    theirs = {EMBED: 30.0, WARD: 20.0, COMMUNITIES: 30.0, FIT: 10000.0}
    run = Finals(seconds, {"ward": 0.3}, 9, "d")
    found = table(scan, Finals(5.0, {}, 9, "d"), {"default": [run] * 5}, theirs, 4)
    assert found.notes[0].startswith(f"Goals: `default` under 1.5 s: {word}, {seconds:.2f} s; ")
    assert f"at least 60x without the fit: {word}, {80 / seconds:.0f}x" in found.notes[0]
    assert f"at least 5000x with it: {word}, {10080 / seconds:.0f}x" in found.notes[0]
    assert found.notes[1].endswith("one digest: yes.")
    other = table(scan, run, {"default": [run, Finals(seconds, {"ward": 0.1}, 9, "e")]}, theirs, 4)
    assert other.notes[1].endswith("one digest: NO.")
    assert {row[0]: row[1] for row in other.rows}["of `default`: ward"] == pytest.approx(0.2)
