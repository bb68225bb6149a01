"""Examples of earlier scans: found again, made comparable, and refused where they are not."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from scans import ASKED, TRUTH, plan, tiles
from test_batch import Field
from test_live import FakeEncoders, running

from livestem.domain.errors import UsageError
from livestem.domain.scan import Beam, EnergyAxis
from livestem.domain.support import SupportClass, SupportSet
from livestem.runtime.batch import run_batch
from livestem.runtime.borrowed import CHIPS
from livestem.runtime.live import LiveScorer
from livestem.runtime.settings import Settings

IRON = SupportClass(name="iron", chips=((0, 0), (3, 1), (5, 2)), scan="s0/first")
TITANIUM = SupportClass(name="titanium", chips=((0, 5), (3, 4), (5, 3)), scan="s0/first")
LENT = SupportSet(classes=(IRON, TITANIUM))


def run(out, store, source=None, support=LENT, **changes):
    source = source or Field(parts=tiles(plan(), seed=3))
    asked = msgspec.structs.replace(ASKED, support=support, **changes)
    of = msgspec.structs.replace(source.plan, processing=asked)
    return run_batch(source, of, Settings(store=str(store)), out)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with one result, ``s0/first``."""
    root = tmp_path_factory.mktemp("store")
    run(root / "s0" / "first", root, Field(), ASKED.support)
    return root


def test_all_classes_of_an_earlier_scan(store, tmp_path):
    result = run(tmp_path / "out", store)
    for modality in ("haadf", "lines", "haadf+lines"):
        assert np.array_equal(result.finals.maps["fewshot", modality].labels, TRUTH), modality
    first = json.loads((store / "s0" / "first" / "result.json").read_text())
    assert result.finals.parameters.borrowed == {"s0/first": first["input_digest"]}
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["parameters"]["borrowed"] and found["support_version"] == LENT.version != first["support_version"]


def test_an_earlier_scan_that_is_this_one_gives_the_same_scores(store, tmp_path):
    """The oracle: chips borrowed from an equal scan are this scan's own chips, up to float32."""
    own = run(tmp_path / "own", store, Field(), ASKED.support).finals
    lent = run(tmp_path / "lent", store, Field()).finals
    for key, found in own.maps.items():
        if key[0] == "fewshot":
            assert np.array_equal(found.labels, lent.maps[key].labels)
            assert lent.maps[key].scores == pytest.approx(found.scores, abs=1e-4)
    assert own.digest != lent.digest  # another support set is another parameter


def test_some_classes_of_this_scan_and_one_class_of_both(store, tmp_path):
    here = SupportClass(name="titanium", chips=((1, 4),))
    mixed = SupportSet(classes=(IRON, here, TITANIUM))
    assert mixed.names == ("iron", "titanium")
    result = run(tmp_path / "out", store, support=mixed)
    assert np.array_equal(result.finals.maps["fewshot", "haadf+lines"].labels, TRUTH)


def test_twice_the_same_bytes(store, tmp_path):
    for name in ("a", "b"):
        run(tmp_path / name, store)
    for file in ("labels.npz", CHIPS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("frames", [1, 6])
def test_another_number_of_frames_is_another_dose_and_the_same_units(store, tmp_path, frames):
    of = plan(frames=frames)
    result = run(tmp_path / "out", store, Field(of, tiles(of, seed=4)))
    assert np.array_equal(result.finals.maps["fewshot", "haadf+lines"].labels, TRUTH)
    assert all("6.40 keV" in said for said in result.warnings)  # the field's iron, which nobody names
    with np.load(tmp_path / "out" / CHIPS) as now, np.load(store / "s0" / "first" / CHIPS) as then:
        assert now["lines"].mean() == pytest.approx(then["lines"].mean(), rel=0.03)


def test_much_more_dose_is_a_warning(store, tmp_path):
    of = plan(frames=9)
    result = run(tmp_path / "out", store, Field(of, tiles(of, seed=4)))
    assert any("visited 2 times and this scan 9 times" in w for w in result.warnings)


def test_counts_are_scaled_by_the_charge_of_a_visit_where_both_scans_state_it(tmp_path):
    """Iron is told from titanium by its height alone: half as many counts at half the current."""
    beams = {current: Beam(energy_kv=200.0, current_pa=current) for current in (50.0, 100.0)}
    first = Field(msgspec.structs.replace(plan(), beam=beams[50.0]), tiles(plan()))
    run(tmp_path / "s0" / "first", tmp_path, first, ASKED.support)
    second = msgspec.structs.replace(plan(), beam=beams[100.0])
    raw = {}
    for name, of in (("same", first.plan), ("twice", second)):
        found = run(tmp_path / name, tmp_path, Field(of, tiles(plan(), seed=3)))
        raw[name] = found.finals.data.borrowed.raw
    assert raw["twice"]["lines"] == pytest.approx(2 * raw["same"]["lines"])
    assert np.array_equal(raw["twice"]["haadf"], raw["same"]["haadf"])


def test_where_nobody_names_elements_those_of_the_earlier_scan_are_fitted(store, tmp_path):
    result = run(tmp_path / "out", store, elements=None)
    assert result.finals.parameters.elements == ("Fe", "Ti")
    assert result.finals.parameters.elements_origin == "support"
    assert np.array_equal(result.finals.maps["fewshot", "lines"].labels, TRUTH)


class Faked(FakeEncoders):
    """What `run_batch` makes of the settings, without a network."""

    @classmethod
    def configured(cls, settings):
        return cls()


def test_the_published_scores_borrow_as_well_and_another_encoders_chips_are_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr("livestem.runtime.batch.Encoders", Faked)
    published = {"preset": "as_published"}
    own = run(tmp_path / "s0" / "first", tmp_path, Field(), ASKED.support, **published).finals
    lent = run(tmp_path / "lent", tmp_path, Field(), **published).finals
    for modality in ("haadf", "eds", "atomic", "haadf+atomic"):
        found = lent.maps["fewshot", modality]
        assert np.array_equal(found.labels, own.maps["fewshot", modality].labels), modality
        assert found.scores == pytest.approx(own.maps["fewshot", modality].scores, abs=1e-3)
    with pytest.raises(UsageError, match="encoder is lattice, this scan's fake"):
        run(tmp_path / "out", store, **published)
    with pytest.raises(UsageError, match="encoder is fake, this scan's lattice"):
        run(tmp_path / "out", tmp_path)
    with pytest.raises(UsageError, match="grey mapping is percentile, this scan's fixed 100 to 900"):
        run(tmp_path / "out", tmp_path, grey="fixed", grey_range=(100.0, 900.0), **published)


def test_live_scoring_begins_with_the_first_chip_if_all_examples_are_of_earlier_scans(tmp_path):
    run(tmp_path / "s0" / "first", tmp_path, Field(), ASKED.support)
    house, rest, scan = running(tmp_path, support=LENT)
    scorer = LiveScorer(FakeEncoders(), 0)
    seen = []
    for message in rest:
        house.take([message])
        seen.append(scorer.look(scan))
    assert seen[0].header.classes == ("iron", "titanium")
    assert np.array_equal(seen[-1].label_map.labels, TRUTH)


def other_axis():
    of = plan()
    axis = EnergyAxis(channels=1024, scale_kev=0.01, offset_kev=-0.2)
    return msgspec.structs.replace(of, eds=msgspec.structs.replace(of.eds, energy=axis))


@pytest.mark.parametrize(
    ("changes", "of", "words"),
    [
        ({"chip_px": 6, "clusters": None}, None, "chip size is 4 nm, this scan's 6 nm"),
        ({"elements": ("Fe", "Ni")}, None, "list of elements is Fe Ti, this scan's Fe Ni"),
        ({"strays": ("Cu",)}, None, "list of elements is Fe Ti, this scan's Cu Fe Ti"),
        ({}, other_axis(), "energy axis is 1024 x 0.01 keV from -0.1 keV, this scan's 1024 x 0.01 keV from -0.2"),
        ({"support": SupportSet(classes=(IRON, msgspec.structs.replace(TITANIUM, chips=((6, 0),))))}, None,
         r"\[6, 0\] of class titanium lies outside the 6 x 6 chips of scan s0/first"),
        ({"support": SupportSet(classes=(IRON, msgspec.structs.replace(TITANIUM, scan="s0/second")))}, None,
         "no result of scan s0/second"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_one_line_naming_both(store, tmp_path, changes, of, words):
    source = Field(parts=tiles(plan(), seed=3)) if of is None else Field(of, tiles(plan()))
    with pytest.raises(UsageError, match=words) as caught:
        run(tmp_path / "out", store, source, **changes)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("encoder", "ac0a901d", "encoder is ac0a901d, this scan's lattice"),
        ("grey", "fixed 0 to 99", "grey mapping is fixed 0 to 99, this scan's None"),
        ("haadf_px", 8, "number of HAADF pixels along a chip is 8, this scan's 4"),
        ("energy", None, "energy axis is missing"),
    ],
)
def test_another_encoder_or_mapping_is_refused(store, tmp_path, key, value, words):
    folder = tmp_path / "s0" / "first"
    folder.mkdir(parents=True)
    (folder / CHIPS).write_bytes((store / "s0" / "first" / CHIPS).read_bytes())
    facts = json.loads((store / "s0" / "first" / "result.json").read_text())
    facts["chips"][key] = value
    (folder / "result.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match=words):
        run(tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "result.json").unlink(), "no result of scan s0/first"),
        (lambda folder: (folder / "result.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / CHIPS).unlink(), "cannot be read"),
        (lambda folder: (folder / CHIPS).write_bytes(b"PK"), "cannot be read"),
        (lambda folder: np.savez(folder / CHIPS, haadf=np.zeros((36, 15))), "has no lines|cannot be read"),
        (lambda folder: without_chips(folder / "result.json"), "an earlier livestem wrote it"),
    ],
)
def test_a_broken_earlier_result_is_one_line(store, tmp_path, spoil, words):
    folder = tmp_path / "s0" / "first"
    folder.mkdir(parents=True)
    for file in ("result.json", CHIPS):
        (folder / file).write_bytes((store / "s0" / "first" / file).read_bytes())
    spoil(folder)
    with pytest.raises(UsageError, match=words) as caught:
        run(tmp_path / "out", tmp_path)
    assert "\n" not in str(caught.value)


def without_chips(path):
    facts = json.loads(path.read_text())
    del facts["chips"]
    path.write_text(json.dumps(facts))


def test_a_class_without_a_finished_chip_there_is_refused(tmp_path):
    half = [t for t in tiles(plan()) if t.y < 8]
    run(tmp_path / "s0" / "first", tmp_path, Field(parts=half), None)
    below = SupportSet(classes=(IRON, msgspec.structs.replace(TITANIUM, chips=((4, 4), (5, 5)))))
    with pytest.raises(UsageError, match="class titanium has no chip with haadf in scan s0/first"):
        run(tmp_path / "out", tmp_path, support=below)
    result = run(tmp_path / "some", tmp_path)  # (0, 0) and (0, 5) are there, which is enough
    assert np.array_equal(result.finals.maps["fewshot", "lines"].labels, TRUTH)


def test_an_earlier_scan_without_spectra_has_nothing_to_lend_to_one_with(tmp_path):
    run(tmp_path / "s0" / "first", tmp_path, Field(plan(eds=False)), None, elements=None)
    with pytest.raises(UsageError, match="energy axis is missing"):
        run(tmp_path / "out", tmp_path)
    image = run(tmp_path / "image", tmp_path, Field(plan(eds=False)), elements=None)
    assert np.array_equal(image.finals.maps["fewshot", "haadf"].labels, TRUTH)


def test_a_line_that_the_earlier_scan_could_not_determine_is_said_and_the_image_still_scored(store, tmp_path):
    folder = tmp_path / "s0" / "first"
    folder.mkdir(parents=True)
    (folder / CHIPS).write_bytes((store / "s0" / "first" / CHIPS).read_bytes())
    facts = json.loads((store / "s0" / "first" / "result.json").read_text())
    facts["chips"]["columns"]["lines"] = ["Fe_Ka", "X_Ka"]
    (folder / "result.json").write_text(json.dumps(facts))
    result = run(tmp_path / "out", tmp_path)
    assert ("fewshot", "haadf") in result.finals.maps and ("fewshot", "lines") not in result.finals.maps
    assert any("no few-shot with lines" in w for w in result.warnings)


@pytest.mark.parametrize("scan", ["first", "s0/", "/first", "s0/../x", "s0/first/x"])
def test_a_scan_is_named_by_session_and_scan_id(scan):
    with pytest.raises(ValueError, match="session/scan_id"):
        SupportClass(name="a", chips=((0, 0),), scan=scan)


def test_one_chip_of_an_earlier_scan_cannot_stand_for_two_classes(store, tmp_path):
    double = SupportSet(classes=(IRON, msgspec.structs.replace(IRON, name="other")))
    with pytest.raises(UsageError, match="of iron and of other"):
        run(tmp_path / "out", store, support=double)
