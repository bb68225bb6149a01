"""Ward and Louvain of a scan as the presets ask for them: of regions, of chips, and from the one to the other."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from livestem.domain.geometry import Grid
from livestem.domain.parameters import PRESETS, Parameters, Preset, Processing
from livestem.domain.scan import Eds, EnergyAxis, Haadf, Sampling, ScanPlan
from livestem.runtime.clusters import Clusters
from livestem.runtime.features import Feature
from livestem.runtime.label_map import Joined, LabelMap
from livestem.runtime.recipe import resolve
from livestem.stages.agreement import ami
from livestem.stages.features import standardise

SHAPE = (24, 30)
TRUTH = np.tile(np.repeat([0, 1, 2], 10), SHAPE[0])


@pytest.fixture
def features() -> dict[str, Feature]:
    """Two layers, told apart by the spectra, and in the second a half that only the picture tells."""
    rng = np.random.default_rng(3)
    picture = np.array([[100.0, 1, 0], [140, 1, 0], [150, 1, 4]])[TRUTH] + rng.normal(size=(TRUTH.size, 3))
    counts = rng.poisson(np.array([[300.0, 20, 80], [40, 260, 100], [40, 260, 100]])[TRUTH]).astype(float)
    valid = np.ones(TRUTH.size, bool)
    seen, roots = standardise(picture), standardise(np.sqrt(counts))
    return {
        "haadf": Feature(seen, valid, phase=seen, linear=picture[:, :1]),
        "lines": Feature(roots, valid, phase=roots, linear=counts),
    }


def _parameters(recipe: Preset = PRESETS["default"], clusters: int | None = None) -> Parameters:
    return Parameters(preset="default", recipe=recipe, chip_px=10, chip_nm=1.0, clusters=clusters)


def _maps(features: dict[str, Feature], parameters: Parameters) -> dict[str, LabelMap]:
    grid = Grid(rows=SHAPE[0], cols=SHAPE[1], chip_nm=1.0, chip_px=10, pixel_nm=0.1, haadf_px=10, eds_px=10)
    single = [Joined.of((name,), features, grid, parameters) for name in features]
    every = [*single, Joined.of(tuple(features), features, grid, parameters)]
    clusters = Clusters(every)
    ward = {"ward." + j.name: found for j, found in zip(every, clusters.ward_maps(), strict=True)}
    return ward | {"louvain." + j.name: found for j, found in zip(every, clusters.louvain_maps(), strict=True)}


def test_regions_find_all_phases_without_being_told_how_many(features):
    maps = _maps(features, _parameters())
    for name in ("ward.haadf+lines", "louvain.haadf+lines"):
        assert (ami(maps[name].labels.ravel(), TRUTH) or 0) > 0.95, name
        assert maps[name].labels.max() == 2
    assert maps["ward.haadf+lines"].facts["suggested"] is True
    assert maps["ward.lines"].labels.max() == 1, "the spectra tell two layers"


def test_the_number_of_clusters_is_the_users_word(features):
    for wanted in (1, 2, 3, 7, 300):
        found = _maps(features, _parameters(clusters=wanted))["ward.haadf+lines"]
        assert len(np.unique(found.labels)) == found.facts["clusters"] == wanted


@pytest.mark.parametrize("preset", ["default", "as_published"])
def test_chips_that_do_not_differ_are_one_cluster(preset: str):
    same = np.zeros((TRUTH.size, 3))
    valid = np.ones(TRUTH.size, bool)
    maps = _maps(
        {"haadf": Feature(same, valid, same, same), "lines": Feature(same, valid, same, same)},
        _parameters(PRESETS[preset]),
    )
    assert all((found.labels == 0).all() for found in maps.values())


def test_chips_without_data_have_no_label(features):
    valid = np.ones(TRUTH.size, bool)
    valid[: 3 * SHAPE[1]] = False
    holes = {
        name: Feature(
            *(np.where(valid[:, None], x, 0.0) if x.ndim == 2 else valid for x in (f.rows, valid, f.phase, f.linear))
        )
        for name, f in features.items()
    }
    for name, found in _maps(holes, _parameters()).items():
        assert (found.labels.ravel()[~valid] == -1).all() and (found.labels.ravel()[valid] >= 0).all(), name


@pytest.mark.parametrize(
    "asked", [{"louvain_threshold": "mode"}, {"louvain_weights": "binary"}, {"ensembles": {"louvain": "mean"}}]
)
def test_who_shapes_the_graph_of_chips_gets_communities_of_chips(asked: dict[str, object], features):
    sampling = Sampling(shape=(480, 600), pixel_nm=(0.05, 0.05))
    plan = ScanPlan(
        haadf=Haadf(sampling=sampling, dtype="<u2"),
        eds=Eds(sampling=sampling, energy=EnergyAxis(channels=2048, scale_kev=0.01, offset_kev=0.0)),
    )
    recipe = resolve(plan, msgspec.convert(asked, Processing))[1].recipe
    assert recipe.regions == ("ward",)
    found = _maps(features, _parameters(recipe))
    assert "threshold" in found["louvain.haadf+lines"].facts
    assert "regions" in found["ward.haadf+lines"].facts


def test_few_chips_are_clustered_by_themselves():
    """Fewer than ten for every column of the features: their covariance is unknown, and one phase would fit it all."""
    rng = np.random.default_rng(0)
    rows, valid = rng.normal(size=(TRUTH.size, 80)) + 9.0 * TRUTH[:, None], np.ones(TRUTH.size, bool)
    wide = Feature(rows, valid, phase=rows, linear=rows)
    maps = _maps({"haadf": wide, "lines": wide}, _parameters())
    assert "regions" not in maps["ward.haadf"].facts and "threshold" in maps["louvain.haadf"].facts
    assert maps["ward.haadf"].labels.max() > 0


def test_regions_of_one_phase_leave_the_word_to_the_chips():
    """A slow gradient is one wide normal law to the evidence; a map of a single label would say nothing of it."""
    rng = np.random.default_rng(2)
    rows = np.linspace(0, 3, TRUTH.size)[:, None] + rng.normal(size=(TRUTH.size, 12))
    wide = Feature(rows, np.ones(TRUTH.size, bool), phase=rows, linear=rows)
    maps = _maps({"haadf": wide, "lines": wide}, _parameters())
    for name in ("ward.lines", "louvain.lines"):
        assert maps[name].labels.max() > 0 and "regions" not in maps[name].facts, name


def test_tiny_communities_are_merged_by_default_and_kept_as_published(features):
    """A threshold so high that some chips have no edge at all."""
    lonely = msgspec.structs.replace(PRESETS["default"], regions=("ward",), louvain_threshold=0.999)
    published = msgspec.structs.replace(lonely, regions=())
    merged, kept = (_maps(features, _parameters(recipe))["louvain.lines"].labels for recipe in (lonely, published))
    assert np.bincount(kept.ravel()).min() < 4 <= np.bincount(merged.ravel()).min()
    large = np.flatnonzero(np.bincount(kept.ravel()) >= 4)
    for label in large:
        assert len(np.unique(merged[kept == label])) == 1, "the others stay together"


@pytest.mark.parametrize("preset", ["as_published", "graphem"])
def test_of_more_chips_than_are_taken_exactly_a_sample_answers_for_all_and_the_map_says_so(features, preset: str):
    exact = msgspec.structs.replace(PRESETS[preset], louvain_threshold=0.5)
    few = msgspec.structs.replace(exact, exact_chips=240)
    asked = _maps(features, _parameters(exact, clusters=3)), _maps(features, _parameters(few, clusters=3))
    for name, found in asked[1].items():
        assert (ami(found.labels, asked[0][name].labels) or 0) > 0.6, name
        if name != "ward.haadf+lines":  # a vote of maps, nothing is clustered
            assert found.facts["sample"] == 240 and "sample" not in asked[0][name].facts
