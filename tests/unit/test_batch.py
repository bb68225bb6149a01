"""The pipeline from tiles to a result folder, without a network."""

from __future__ import annotations

import json
import zipfile

import h5py
import msgspec
import numpy as np
import pytest
from scans import ASKED, TRUTH, messages, plan, tiles
from test_ingest import House
from test_live import FakeEncoders

from livestem.domain.errors import LivestemError, SourceError, UsageError
from livestem.domain.parameters import PRESETS
from livestem.domain.support import SupportClass, SupportSet
from livestem.domain.tiles import HaadfTile
from livestem.runtime import received
from livestem.runtime.batch import run_batch
from livestem.runtime.conclude import conclude
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import grey_picture, grey_range
from livestem.runtime.results import result_json
from livestem.runtime.settings import Settings
from livestem.sources import open_recording
from livestem.stages.clahe import equalise

CONTRACT = {
    "format", "livestem", "session", "scan_id", "status", "coverage", "missing_tiles", "grid", "encoder", "parameters",
    "numerics", "classes", "agreement", "regions", "support_version", "input_digest", "digest", "timings_s", "warnings",
}  # fmt: skip


class Field:
    """A source in memory."""

    scan_id = "field"

    def __init__(self, of=None, parts=None):
        self.plan = of or plan()
        self._parts = tiles(self.plan) if parts is None else parts

    def tiles(self, rows_per_tile=None):
        yield from self._parts


def run(out, source=None, **changes):
    source = source or Field()
    asked = msgspec.structs.replace(ASKED, **changes)
    of = msgspec.structs.replace(source.plan, processing=asked)
    return run_batch(source, of, Settings(), out)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("batch") / "out"
    run(out)
    return out


def test_the_folder_holds_what_the_contract_says(result):
    assert {p.name for p in result.iterdir()} == {
        "journal.sqlite",
        "labels.npz",
        "chips.npz",
        "coverage.npz",
        "result.hspy",
        "result.json",
    }
    assert set(json.loads((result / "result.json").read_text())) >= CONTRACT


def test_two_halves_are_found_by_every_method(result):
    maps = np.load(result / "labels.npz")
    assert np.array_equal(maps["fewshot.haadf+lines"], TRUTH)
    assert np.array_equal(maps["ward.lines"], TRUTH)
    assert maps["ward.lines"].dtype == np.int16
    scores = maps["fewshot.haadf+lines.scores"]
    assert scores.dtype == np.float32 and scores.shape == (2, 6, 6) and np.allclose(scores.sum(axis=0), 1)
    found = json.loads((result / "result.json").read_text())
    assert set(found["agreement"]["ward"]) == {"haadf-lines", "haadf-haadf+lines", "lines-haadf+lines"}
    assert found["classes"]["fewshot.lines"] == ["iron", "titanium"]
    iron, titanium = found["regions"]["fewshot.haadf+lines"]
    assert iron["name"] == "iron" and iron["atomic_percent"]["Fe"] > 99 > 1 > iron["atomic_percent"]["Ti"]
    assert titanium["atomic_percent"]["Ti"] > 99 and titanium["haadf_mean"] == pytest.approx(400, rel=0.02)
    assert iron["d_spacing_nm"] is None and "Nyquist" in iron["notes"]["d_spacing_nm"]


def test_every_number_of_a_result_is_finite(result):
    text = (result / "result.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in result.json"))


def test_equal_scans_give_equal_bytes_however_they_came(result, tmp_path):
    parts = tiles(plan())
    rng = np.random.default_rng(1)
    shuffled = [parts[i] for i in rng.permutation(len(parts))]
    again = run(tmp_path / "out", Field(parts=shuffled))
    first = json.loads((result / "result.json").read_text())
    assert again.finals.digest == first["digest"] and again.input_digest == first["input_digest"]
    assert (tmp_path / "out" / "labels.npz").read_bytes() == (result / "labels.npz").read_bytes()


def test_other_data_or_parameters_give_another_digest(result, tmp_path):
    first = json.loads((result / "result.json").read_text())
    other = run(tmp_path / "a", Field(parts=tiles(plan(), seed=5)))
    assert other.input_digest != first["input_digest"]
    other = run(tmp_path / "b", clusters=3)
    assert other.input_digest == first["input_digest"] and other.finals.digest != first["digest"]


def test_the_zip_does_not_know_what_time_it_is(result):
    with zipfile.ZipFile(result / "labels.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        assert names == sorted(names)


def test_a_phase_without_a_class_is_unknown_if_that_is_asked_and_a_region_of_its_own(tmp_path):
    classes = (
        SupportClass(name="bright", chips=((0, 5), (3, 4), (5, 3))),
        SupportClass(name="also", chips=((1, 5), (2, 4), (4, 3))),
    )
    result = run(tmp_path / "out", support=SupportSet(classes=classes), reject=0.01)
    found = result.finals.maps["fewshot", "lines"]
    assert found.classes == ("bright", "also", "unknown")
    assert np.array_equal(found.labels == 2, TRUTH == 0) and found.facts["unknown"] == 18
    assert found.scores.shape == (3, 6, 6) and np.allclose(found.scores.sum(axis=0), 1)
    named = {region.name: region for region in result.finals.regions["fewshot", "lines"]}
    assert named["unknown"].atomic_percent["Fe"] > 99
    plain = run(tmp_path / "plain", support=SupportSet(classes=classes))
    assert plain.finals.maps["fewshot", "lines"].classes == ("bright", "also")


@pytest.mark.parametrize(("has", "lacks"), [("haadf", "lines"), ("lines", "haadf")])
def test_one_modality_alone(tmp_path, has, lacks):
    of = plan(eds=has == "lines", haadf="<u2" if has == "haadf" else None)
    asked = {} if has == "lines" else {"elements": None}
    result = run(tmp_path / "out", Field(of), **asked)
    assert {modality for _, modality in result.finals.maps} == {has}
    text = (tmp_path / "out" / "result.json").read_text()
    found = json.loads(text)
    assert set(found["coverage"]) == {"haadf" if has == "haadf" else "eds"}
    assert not any(lacks in key for key in found["regions"])


def test_missing_rows_are_listed_and_their_chips_have_no_data(tmp_path):
    parts = [p for p in tiles(plan()) if p.y != 8]
    result = run(tmp_path / "out", Field(parts=parts))
    labels = np.load(tmp_path / "out" / "labels.npz")["ward.haadf+lines"]
    assert (labels[2:4] == -1).all() and (labels[:2] >= 0).all() and (labels[4:] >= 0).all()
    assert result.coverage.haadf == pytest.approx(2 / 3)
    assert len(result.missing) == 4 and "missing" in result.warnings[0]


def test_what_is_missing_of_narrow_tiles_is_listed_exactly_and_what_is_scattered_by_rows(tmp_path):
    def narrow(width: int) -> list[HaadfTile]:
        """Return both frames; of rows 8 to 15 of frame 1 every second piece of this width has gone."""
        parts = [p for p in tiles(plan()) if isinstance(p, HaadfTile)]
        (cut,) = (p for p in parts if (p.frame, p.y) == (1, 8))
        pieces = [(y, x) for y in range(0, 8, width) for x in range(0, 24, width) if (x + y) // width % 2]
        left = [
            HaadfTile(frame=1, y=8 + y, x=x, values=np.ascontiguousarray(cut.values[y : y + width, x : x + width]))
            for y, x in pieces
        ]
        return [p for p in parts if p is not cut] + left

    exact = run(tmp_path / "exact", Field(plan(eds=False), narrow(8)))
    assert [(t.frame, t.y, t.h, t.x, t.w) for t in exact.missing] == [(1, 8, 8, 0, 8), (1, 8, 8, 16, 8)]
    assert exact.warnings[0] == "2 rectangles are missing" and exact.scattered == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(received, "MOST_HOLES", 90)
        coarse = run(tmp_path / "coarse", Field(plan(eds=False), narrow(1)))
    assert [(t.frame, t.y, t.h, t.x, t.w) for t in coarse.missing] == [(1, 8, 8, 0, None)]
    assert coarse.coverage.haadf == pytest.approx(1 - 96 / (2 * 24 * 24))
    assert coarse.warnings[:2] == (
        "1 bands of rows are missing", "what is missing is scattered in 1 frames: their rows are listed whole",
    )  # fmt: skip


def test_a_partly_swept_frame_does_not_skew_anything(tmp_path):
    parts = [p for p in tiles(plan()) if p.frame == 0 or p.y == 0]
    run(tmp_path / "out", Field(parts=parts))
    assert np.array_equal(np.load(tmp_path / "out" / "labels.npz")["ward.lines"], TRUTH)


def test_elements_are_found_where_nobody_names_them(tmp_path):
    result = run(tmp_path / "out", elements=None)
    assert set(result.finals.parameters.elements) == {"Fe", "Ti"}
    assert any("automatically" in w for w in result.warnings)


def test_strays_are_kept_apart(tmp_path):
    result = run(tmp_path / "out", elements=("Fe",), strays=("Ti",))
    iron, titanium = result.finals.regions["fewshot", "haadf+lines"]
    assert iron.atomic_percent == {"Fe": pytest.approx(100.0)} and iron.extraneous_percent < 1
    assert titanium.extraneous_percent > 95


@pytest.mark.parametrize("existing", ["foreign", "file"])
def test_a_folder_of_somebody_elses_is_left_alone(tmp_path, existing):
    out = tmp_path / "out"
    if existing == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="--out"):
        run(out)
    assert (out if existing == "file" else out / "thesis.tex").read_text() == "mine"


def test_notes_beside_a_result_are_not_deleted(result, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "result.json").write_text("{}")
    with pytest.raises(UsageError, match="--out"):
        run(out)
    (out / "result.json").write_bytes((result / "result.json").read_bytes())
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="--out"):
        run(out)
    assert (out / "notes.txt").read_text() == "mine"


def test_an_earlier_result_is_replaced_whole(result, tmp_path):
    run(tmp_path / "out", clusters=3)
    first = json.loads((tmp_path / "out" / "result.json").read_text())["digest"]
    run(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["digest"] != first
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_refused_or_broken_scan_leaves_nothing(tmp_path):
    with pytest.raises(LivestemError, match="larger than the field"):
        run(tmp_path / "out", chip_px=99)

    class Broken(Field):
        def tiles(self, rows_per_tile=None):
            yield self._parts[0]
            raise LivestemError("the file ends in the middle")

    with pytest.raises(LivestemError, match="in the middle"):
        run(tmp_path / "out", Broken())
    assert not list(tmp_path.iterdir())


def test_a_lost_last_frame_of_an_open_ended_scan_is_missed(tmp_path):
    of = plan(frames=None)
    stream = list(messages(of, tiles(plan())))
    house = House(tmp_path, **msgspec.structs.asdict(ASKED))
    house.take([x for x in stream if getattr(x.header, "frame", 0) == 0])
    house.ingest.settle("s1", 7, stream[-1].header.seq)
    ((scan, status),) = house.finished
    result = conclude(scan, status, Encoders())
    assert result.status == "incomplete" and result.coverage.haadf == 0.5
    assert [(t.modality, t.frame, t.h) for t in result.missing] == [("haadf", 1, 24), ("eds", 1, 24)]


@pytest.mark.parametrize("shape", [(4, 4), (4, 8)])
def test_a_grid_of_one_or_two_chips_has_a_result(tmp_path, shape):
    result = run(tmp_path / "out", Field(plan(shape)), support=None, clusters=None)
    for found in result.finals.maps.values():
        assert found.labels.shape == (1, shape[1] // 4) and (found.labels >= 0).all()


def test_a_modality_with_one_usable_chip_does_not_take_the_others_with_it(tmp_path):
    parts = []
    for part in tiles(plan()):
        if hasattr(part, "counts") and (part.y or part.frame):
            empty = {"counts": np.zeros_like(part.counts), "channels": np.zeros(0, np.uint16)}
            part = type(part)(frame=part.frame, y=part.y, x=0, **empty)
        parts.append(part)
    encoders = FakeEncoders()
    of = plan()
    house = House(tmp_path, **{**msgspec.structs.asdict(ASKED), "preset": "as_published", "support": None})
    house.take(messages(of, parts))
    ((scan, status),) = house.finished
    found = conclude(scan, status, encoders).finals.maps
    assert ("ward", "haadf") in found and ("louvain", "haadf+eds") in found


def test_the_grey_mapping_of_a_network_is_recorded(tmp_path):
    house = House(tmp_path, **{**msgspec.structs.asdict(ASKED), "preset": "as_published"})
    house.take(messages(plan(), tiles(plan())))
    ((scan, status),) = house.finished
    grey = result_json(conclude(scan, status, FakeEncoders()))["parameters"]["grey_mapping"]
    assert 150 < grey["low"] < 250 < 350 < grey["high"] < 500 and "percentiles 0.1 to 99.9" in grey["rule"]


def test_clahe_is_recorded_and_changes_what_the_network_sees(tmp_path):
    seen = {}
    for grey in ("percentile", "clahe"):
        asked = {**msgspec.structs.asdict(ASKED), "preset": "as_published", "grey": grey}
        house = House(tmp_path / grey, **asked)
        house.take(messages(plan(), tiles(plan())))
        ((scan, status),) = house.finished
        result = conclude(scan, status, FakeEncoders())
        parameters = result_json(result)["parameters"]
        data = result.finals.data
        seen[grey] = grey_picture(data, result.finals.parameters, grey_range(data, result.finals.parameters))
        assert parameters["grey"] == grey and "percentiles 0.1 to 99.9" in parameters["grey_mapping"]["rule"]
        assert parameters["grey_mapping"]["clahe"] == ({"clip_limit": 2.0, "tiles": 8} if grey == "clahe" else None)
    np.testing.assert_array_equal(seen["clahe"], equalise(seen["percentile"]))
    assert (seen["clahe"] != seen["percentile"]).any()


@pytest.mark.parametrize(
    ("asked", "given", "mode", "limits", "rule"),
    [
        ({}, None, "percentile", None, "percentiles"),
        ({}, (1, 900), "given", (1, 900), "given"),
        ({"grey": "percentile"}, (1, 900), "percentile", None, "percentiles"),
        ({"grey_range": (5, 600)}, (1, 900), "fixed", (5, 600), "fixed"),
        ({"grey": "survey", "grey_range": (5, 600)}, None, "survey", (5, 600), "survey image"),
        ({"grey": "clahe"}, (1, 900), "clahe", (1, 900), "given"),
        ({"grey": "clahe", "grey_range": (5, 600)}, (1, 900), "clahe", (5, 600), "fixed"),
        ({"grey": "clahe"}, None, "clahe", None, "percentiles"),
    ],
)
def test_whose_grey_range_counts(tmp_path, asked, given, mode, limits, rule):
    of = plan()
    of = msgspec.structs.replace(of, haadf=msgspec.structs.replace(of.haadf, grey_range=given))
    house = House(tmp_path, **{**msgspec.structs.asdict(ASKED), "preset": "as_published", **asked})
    house.take(messages(of, tiles(of)))
    ((scan, status),) = house.finished
    found = result_json(conclude(scan, status, FakeEncoders()))["parameters"]
    assert (found["grey"], found["grey_range"]) == (mode, None if limits is None else limits)
    assert found["grey_mapping"]["rule"].startswith(rule)
    if limits is not None:
        assert (found["grey_mapping"]["low"], found["grey_mapping"]["high"]) == limits


def test_a_given_range_that_nobody_gave_is_refused(tmp_path):
    with pytest.raises(UsageError, match="gives no grey range"):
        run(tmp_path / "out", grey="given")


@pytest.mark.parametrize(
    ("asked", "facts"),
    [
        ({"ensembles": {"ward": "vector"}}, {"ward": "vector", "louvain": "joint"}),
        ({"ensembles": {"louvain": "mean"}}, {"ward": "joint", "louvain": "mean"}),
        ({"louvain_threshold": 0.25, "louvain_weights": "binary"}, {"threshold": 0.25}),
    ],
)
def test_the_published_ways_can_be_asked_for_one_by_one(tmp_path, asked, facts):
    result = run(tmp_path / "out", **asked)
    wanted = {method: result.finals.maps[method, "haadf+lines"].facts for method in ("ward", "louvain")}
    for name, value in facts.items():
        assert wanted[name]["ensemble"] == value if name in wanted else wanted["louvain"][name] == value
    recipe = result.finals.parameters.recipe
    assert recipe.ensembles == PRESETS["default"].ensembles | asked.get("ensembles", {})
    plain = run(tmp_path / "plain")
    assert result.finals.digest != plain.finals.digest


def test_the_reference_backend_reaches_the_same_modularity_and_is_recorded(tmp_path):
    found = {name: run(tmp_path / name, louvain_backend=name).finals for name in ("matrix", "networkx")}
    for key, mine in found["matrix"].maps.items():
        if key[0] == "louvain":
            reference = found["networkx"].maps[key].facts["modularity"]
            assert mine.facts["modularity"] == pytest.approx(reference, abs=1e-3)
    assert found["networkx"].parameters.recipe.louvain_backend == "networkx"
    assert found["networkx"].digest != found["matrix"].digest


def test_differences_between_regions_are_in_the_result(result):
    found = json.loads((result / "result.json").read_text())
    iron, titanium = found["differences"]["fewshot.haadf+lines"]
    assert (iron["a"], iron["b"]) == ("iron", "titanium") == (titanium["b"], titanium["a"])
    regions = {r["name"]: r["atomic_percent"] for r in found["regions"]["fewshot.haadf+lines"]}
    for element, percent in iron["percent"].items():
        a, b = regions["iron"][element], regions["titanium"][element]
        assert percent is None and element in iron["notes"] or percent == pytest.approx(100 * (a - b) / b)


def test_a_result_is_not_taken_for_a_recording(result):
    with pytest.raises(SourceError, match=r"journal\.sqlite"):
        open_recording([result / "result.hspy"])


def test_label_maps_lie_on_the_image_in_hyperspy(result):
    with h5py.File(result / "result.hspy") as file:
        image, labels = (file["Experiments"][name] for name in ("HAADF", "ward.haadf labels"))
        centre = labels["axis-0"].attrs["offset"]
        assert image["axis-0"].attrs["offset"] == 0.0 and labels["axis-0"].attrs["scale"] == 4.0
        assert centre == 1.5, "the middle of pixels 0 to 3"


def test_an_aborted_scan_is_finished_with_what_is_there(tmp_path):
    of = plan(frames=None)
    parts = [p for p in tiles(plan()) if p.frame == 0]
    result = run(tmp_path / "out", Field(of, parts))
    assert result.status == "complete" and result.coverage.eds == 1.0


def test_a_blank_field_gives_one_region_and_no_error(tmp_path):
    parts = []
    for part in tiles(plan()):
        if hasattr(part, "values"):
            parts.append(type(part)(frame=part.frame, y=part.y, x=0, values=np.full_like(part.values, 7)))
        else:
            empty = {"counts": np.zeros_like(part.counts), "channels": np.zeros(0, np.uint16)}
            parts.append(type(part)(frame=part.frame, y=part.y, x=0, **empty))
    result = run(tmp_path / "out", Field(parts=parts), support=None, clusters=None)
    assert (np.load(tmp_path / "out" / "labels.npz")["ward.haadf+lines"] == 0).all()
    (region,) = result.finals.regions["ward", "haadf+lines"]
    assert region.atomic_percent == {"Fe": None, "Ti": None} and region.notes
    assert not any(found.labels.any() for key, found in result.finals.maps.items()), "chips that do not differ"
