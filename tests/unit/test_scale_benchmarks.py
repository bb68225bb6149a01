"""The benchmarks of clusters and of size: their quick form runs, and what they say of costs is what they measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.performance import clustering, scale
from benchmarks.performance.scale import Cost, cost_of, draw, exponent


def test_every_way_of_clustering_is_run_and_the_ratio_is_of_the_times():
    table = clustering.measure(1, quick=True)
    assert len(table.rows) == 4
    for _, ours, theirs, ratio in table.rows:
        assert ratio == pytest.approx(theirs / ours)  # type: ignore[operator]
    ours, reference = table.facts["modularity"]
    assert ours == pytest.approx(reference, abs=1e-3) and table.facts["ami"] == pytest.approx(1.0)


def test_a_field_has_its_finals_and_the_sample_is_compared_with_the_exact_answer():
    cost = cost_of(96, "as_published", compare=True)
    assert (cost.preset, cost.chips) == ("as_published", 144) and cost.seconds > 0 and 0 < cost.peak_gib < 64
    assert {"louvain.haadf", "louvain.eds", "louvain.haadf+eds", "ward.haadf", "ward.eds"} <= cost.agreement.keys()


def test_the_exponent_is_that_of_the_costs_and_they_are_drawn(tmp_path: Path):
    costs = [Cost("default", n, 1e-6 * n**1.5, n / 1e4, {"ward": 0.0, "louvain": 0.0}) for n in (500, 2000, 64_000)]
    assert exponent(costs) == pytest.approx(1.5)
    draw(costs, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_every_size_of_every_preset_has_a_row(monkeypatch):
    def apart(side: int, preset: str, *, compare: bool) -> Cost:
        agreement = {"ward.haadf": 0.5, "ward.eds": 0.7, "louvain.eds": None} if preset == "as_published" else {}
        return Cost(preset, side**2, float(side**2), 9.0, {"ward": 1.0, "louvain": 2.0}, agreement)

    monkeypatch.setattr("benchmarks.performance.scale._apart", apart)
    table = scale.measure(1, quick=True)
    assert len(table.rows) == 4 and all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows[-1][3:] == (3.0, 9.0, pytest.approx(0.6), None)
    assert table.facts["exponents"] == {"default": pytest.approx(1.0), "as_published": pytest.approx(1.0)}
    assert "missed, 9.0 GiB" in table.notes[1]
