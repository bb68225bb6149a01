"""Configuration and support files: strict, with one line for what is wrong; every example is loaded."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from scans import plan

from livestem.cli.options import weights
from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid
from livestem.domain.parameters import Processing
from livestem.domain.support import SupportClass, SupportSet
from livestem.runtime.recipe import checked, resolve
from livestem.runtime.settings import Settings, load_settings, load_support

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_example_loads(path):
    assert isinstance(load_settings(path), Settings)


def test_no_file_is_needed():
    assert load_settings(None) == Settings()


def test_the_store_is_configured_or_in_the_environment_or_here(monkeypatch):
    monkeypatch.delenv("LIVESTEM_STORE", raising=False)
    assert Settings().store_path == Path("livestem-store")
    monkeypatch.setenv("LIVESTEM_STORE", "/data")
    assert Settings().store_path == Path("/data")
    assert Settings(store="mine").store_path == Path("mine")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chip_px = 3", "chip_px"),
        ("[processing]\nchip = 3", "chip"),
        ("[processing]\nelements = ['Xx']", "Xx"),
        ("[processing]\nchip_px = -1", "chip_px"),
        ("[processing]\npreset = 'best'", "preset"),
        ("publish_interval_s = 0.0", "publish_interval_s"),
        ("[http]\nhost = '0.0.0.0'", "exposed"),
        ("[http]\nport = 99999", "port"),
        ("acquisition = []", "acquisition"),
        ("[[acquisition]]\nendpoint = 'localhost'", "tcp://"),
        ("[limits]\npixel = 3", "pixel"),
        ("= 3", "line 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, words):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    assert words in str(caught.value) and "c.toml" in str(caught.value) and "\n" not in str(caught.value)


def _support(name, chips=2):
    return SupportSet(
        classes=(
            SupportClass(name="a", chips=((0, 0), (1, 0))[:chips]),
            SupportClass(name=name, chips=((0, 3), (1, 3))[:chips]),
        )
    )


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml"):
        load_settings(tmp_path / "none.toml")


GOOD = (
    '[[class]]\nname = "STO"\nchips = [[0, 1], [2, 2]]\n[[class]]\nname = "LFO"\ntitle = "LaFeO3"\nchips = [[1, 1]]\n'
)


def test_a_support_file(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(GOOD)
    support = load_support(path)
    assert support.names == ("STO", "LFO")
    grid = Grid(rows=3, cols=3, chip_nm=1.0, chip_px=4, pixel_nm=0.25)
    assert support.indices(grid) == ((1, 8), (4,))
    with pytest.raises(UsageError, match=r"\[2, 2\] of class STO lies outside the grid of 2 x 3"):
        support.indices(Grid(rows=2, cols=3, chip_nm=1.0, chip_px=4, pixel_nm=0.25))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("chips = [[1, 1]]", "chip = [[1, 1]]"), "chip"),
        (("chips = [[1, 1]]", "chips = []"), "no chips"),
        (("chips = [[1, 1]]", "chips = [[1, -1]]"), "negative"),
        (('name = "LFO"', 'name = "STO"'), "repeat"),
        (('name = "LFO"', 'name = "L/F"'), "L/F"),
        (("[[class]]\nname = \"LFO\"", "[[klass]]\nname = \"LFO\""), "klass"),
        (('[[class]]\nname = "LFO"\ntitle = "LaFeO3"\nchips = [[1, 1]]\n', ""), "two classes"),
    ],
)  # fmt: skip
def test_a_support_file_with_a_mistake(tmp_path, change, words):
    path = tmp_path / "s.toml"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(UsageError) as caught:
        load_support(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_one_chip_cannot_stand_for_two_classes(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(GOOD.replace("[[1, 1]]", "[[0, 1]]"))
    with pytest.raises(UsageError, match="of STO and of LFO"):
        load_support(path).indices(Grid(rows=3, cols=3, chip_nm=1.0, chip_px=4, pixel_nm=0.25))


def test_who_wins():
    service = Processing(preset="graphem", chip_px=4, elements=("Fe",), grey="survey", grey_range=(1, 2))
    sender = Processing(chip_nm=2.0, clusters=3, grey="clahe")
    merged = sender.over(service)
    assert merged == Processing(preset="graphem", chip_nm=2.0, clusters=3, elements=("Fe",), grey="clahe")


@pytest.mark.parametrize(
    ("option", "words"),
    [({"elements": ("Fe", "Oo")}, "Oo"), ({"preset": "mine"}, "preset"), ({"chip_px": 0}, "chip_px"),
     ({"clusters": -1}, "clusters"), ({"chip_nm": float("nan")}, "chip_nm"),
     ({"grey": "bright"}, "use given, fixed, survey, percentile, clahe"), ({"grey": "fixed"}, "grey_range"),
     ({"grey": "percentile", "grey_range": (1, 2)}, "leave grey_range out"), ({"grey_range": (2, 1)}, "upwards"),
     ({"grey_range": (0, float("inf"))}, "finite"),
     ({"ensembles": {"ward": "mean"}}, "ward: joint, vector"), ({"ensembles": {"wart": "joint"}}, "wart"),
     ({"louvain_threshold": "modus"}, "mode, mean, median, or a number"), ({"louvain_threshold": 1.1}, "-1 to 1"),
     ({"louvain_threshold": float("nan")}, "-1 to 1"), ({"louvain_weights": "none"}, "similarity, binary"),
     ({"louvain_backend": "leiden"}, "matrix, igraph, networkx"),
     ({"calibrate_region": "STO"}, "go together"), ({"d_nm": 0.39}, "go together"),
     ({"calibrate_region": "STO", "d_nm": 3.905}, "0.12 to 0.6 nm"),
     ({"reject": 0.7}, "reject"), ({"reject": float("nan")}, "reject"),
     ({"modality_weights": {"haadf": 1.0}}, "of haadf and eds"),
     ({"modality_weights": {"haadf": 1.0, "eds": 0.0}}, "positive")],
)  # fmt: skip
def test_options_are_checked_with_a_word_to_the_user(option, words):
    with pytest.raises(UsageError) as caught:
        checked(**option)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_modalities_are_given_as_pairs():
    assert weights("haadf=0.45, eds=0.55") == {"haadf": 0.45, "eds": 0.55}
    assert weights(None) is None
    for text in ("haadf", "haadf=a,eds=1", "haadf=1=2"):
        with pytest.raises(UsageError, match="haadf=NUMBER,eds=NUMBER"):
            weights(text)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"preset": "as_published", "reject": 0.01}, "calls no chip unknown"),
        ({"modality_weights": {"haadf": 0.45, "eds": 0.55}}, "by their noise, not by weights"),
        ({"reject": 0.01, "support": _support("unknown")}, "another name"),
        ({"reject": 0.01, "support": _support("b", chips=1)}, "two chips or more"),
    ],
)
def test_what_a_preset_does_not_do_is_refused_in_one_line(asked, words):
    with pytest.raises(UsageError, match=words) as caught:
        resolve(plan(), Processing(elements=("Fe", "Ti"), chip_px=4, **asked))
    assert "\n" not in str(caught.value)


def test_weights_and_rejection_are_recorded_and_off_by_default():
    _, found = resolve(plan(), Processing(elements=("Fe", "Ti"), chip_px=4))
    assert found.reject == 0.0 and found.modality_weights == {}
    given = {"haadf": 0.45, "eds": 0.55}
    _, found = resolve(plan(), Processing(elements=("Fe",), chip_px=4, preset="as_published", modality_weights=given))
    assert found.modality_weights == given
    never = Processing(reject=0.0).over(Processing(reject=0.01))
    assert resolve(plan(), msgspec.structs.replace(never, chip_px=4))[1].reject == 0.0
