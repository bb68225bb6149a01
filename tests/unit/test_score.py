"""Scoring: a whole result against its truth, every number worked out another way, and what is refused."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console
from scans import ASKED, TRUTH, plan
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from test_batch import Field

from livestem.cli.__main__ import main
from livestem.cli.score_report import best_maps, report
from livestem.domain.errors import UsageError
from livestem.domain.truth import ClassFacts, Truth, TruthFacts
from livestem.runtime.batch import run_batch
from livestem.runtime.saved import read_result
from livestem.runtime.scoring import Score, score
from livestem.runtime.settings import Settings
from livestem.simulator import save_truth

CLASSES = (
    ClassFacts(name="film", composition={"La": 20.0, "Fe": 20.0, "O": 60.0}, d_spacing_nm=0.393),
    ClassFacts(name="glass", composition={"La": 18.0, "Fe": 18.0, "O": 64.0}),
    ClassFacts(
        name="base",
        composition={"Sr": 20.0, "Ti": 20.0, "O": 60.0},
        d_spacing_nm=0.3905,
        d_apparent_nm=(0.391, 0.388),
    ),
)
PIXEL = 0.05
CHIP = 10  # pixels


def true_field() -> np.ndarray:
    """Return 60 x 80 pixels of three layers whose borders cut chips, with an inclusion."""
    y, x = np.mgrid[:60, :80]
    return np.select([y + x // 20 < 23, (y < 44) & (x > 55)], [0, 1], 2).astype(np.int8)


def truth(first: np.ndarray | None = None, summed: np.ndarray | None = None, **changes) -> Truth:
    first = true_field() if first is None else first
    given = {"pixel_nm": (PIXEL, PIXEL), "classes": CLASSES, "scan_id": "made-1", "specimen": "abc"}
    return Truth(
        first, first if summed is None else summed, np.zeros(first.shape, np.float32), TruthFacts(**given | changes)
    )


def region(label: int, name: str, **changes) -> dict:
    return {"label": label, "name": name, "chips": 9, "area_fraction": 0.2, "components": 1} | changes


def write(folder: Path, maps: dict, names: dict, regions: dict | None = None, **changes) -> Path:
    """Write a result as the service does, of what scoring reads and a few keys that it leaves alone."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "labels.npz", **maps)
    rows, cols = next(iter(maps.values())).shape
    grid = {"rows": rows, "cols": cols, "chip_nm": CHIP * PIXEL, "chip_px": CHIP, "pixel_nm": PIXEL, "haadf_px": CHIP}
    result = {
        "format": 1,
        "livestem": "0.1.0",
        "session": "s",
        "scan_id": "made-1",
        "status": "complete",
        "grid": grid,
        "parameters": {"register": "none", "recipe": {"strays_in_total": False}, "seed": 42},
        "classes": names,
        "regions": regions or {},
    }
    (folder / "result.json").write_text(json.dumps(result | changes))
    return folder


def noisy(labels: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(labels.shape) < 0.15, rng.integers(0, 3, labels.shape), labels).astype(np.int16)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a result with mistakes: few-shot under names in another order, clusters under none."""
    classes, _ = truth().class_of_chips(read_grid())
    order = ("base", "film", "glass")  # of the support set, not of the truth
    few = np.array([1, 2, 0], np.int16)[noisy(classes, 1)]
    few[0, 0] = -1
    regions = [
        region(0, "base", d_spacing_nm=0.3900, d_spacing_sigma_nm=0.0002, d_fast_nm=0.3900, d_slow_nm=0.3885,
               atomic_percent={"Sr": 19.0, "Ti": 21.0, "O": 59.0, "Fe": 1.0},
               atomic_percent_sigma={"Sr": 0.5, "Ti": 0.5, "O": 1.0, "Fe": 0.1}),
        region(1, "film", notes={"d_spacing_nm": "region too small: its largest square is 10 px"},
               atomic_percent={"La": 20.0, "Fe": None, "O": 80.0}, atomic_percent_sigma={"La": 0.0, "O": 1.0}),
        region(2, "glass", d_spacing_nm=0.25, d_spacing_sigma_nm=0.001),
    ]  # fmt: skip
    return write(
        tmp_path / "result",
        {"fewshot.haadf": few, "ward.haadf": noisy(classes, 2), "ward.haadf+lines": (classes + 1) % 3},
        {"fewshot.haadf": order, "ward.haadf": ("R0", "R1", "R2"), "ward.haadf+lines": ("R0", "R1", "R2")},
        {"fewshot.haadf": regions},
    )


def read_grid():
    from livestem.domain.geometry import Grid

    return Grid(rows=6, cols=8, chip_nm=CHIP * PIXEL, chip_px=CHIP, pixel_nm=PIXEL, haadf_px=CHIP)


def majority() -> tuple[np.ndarray, np.ndarray]:
    """Return class and purity of the chips, counted one by one."""
    chips = [true_field()[r : r + CHIP, c : c + CHIP] for r in range(0, 60, CHIP) for c in range(0, 80, CHIP)]
    counts = np.array([np.bincount(chip.ravel(), minlength=3) for chip in chips])
    return counts.argmax(1).reshape(6, 8), counts.max(1).reshape(6, 8) / CHIP**2


# --- label maps


def test_label_maps_score_what_sklearn_and_counting_say(folder):
    found = score(read_result(folder), truth())
    classes, purity = majority()
    assert (found.chips, found.pure_chips) == (48, int((purity >= 0.8).sum())) and 20 < found.pure_chips < 48
    with np.load(folder / "labels.npz") as maps:
        few, ward = maps["fewshot.haadf"], maps["ward.haadf"]
    known, pure = few >= 0, purity >= 0.8
    one = found.maps["fewshot.haadf"]
    assert (one.regions, one.chips, one.pure_chips) == (3, 47, int((known & pure).sum()))
    named = np.array([2, 0, 1])[few]
    for measure, judge in ((one.ami, adjusted_mutual_info_score), (one.ari, adjusted_rand_score)):
        assert measure.all == pytest.approx(judge(classes[known], few[known]))
        assert measure.pure == pytest.approx(judge(classes[known & pure], few[known & pure]))
    assert one.accuracy.all == pytest.approx((named == classes)[known].mean())
    assert one.accuracy.pure == pytest.approx((named == classes)[known & pure].mean())
    assert 0.6 < one.accuracy.all < 1 and one.accuracy.all != one.accuracy.pure
    for label, name in enumerate(("film", "glass", "base")):
        there = known & (classes == label)
        assert one.accuracy_per_class[name].all == pytest.approx((named == label)[there].mean())
    two = found.maps["ward.haadf"]
    assert two.accuracy is None and two.accuracy_per_class is None  # clusters have no names
    assert two.ami.all == pytest.approx(adjusted_mutual_info_score(classes.ravel(), ward.ravel()))


def test_a_perfect_map_scores_one_and_stays_at_the_floor(folder):
    found = score(read_result(folder), truth()).maps["ward.haadf+lines"]
    assert found.ami.all == pytest.approx(1) and found.ari.all == found.ari.pure == 1
    assert found.boundary_nm == found.boundary_floor_nm and 0 < found.boundary_nm < CHIP * PIXEL / 2
    worse = score(read_result(folder), truth()).maps["ward.haadf"]
    assert worse.boundary_nm > worse.boundary_floor_nm == found.boundary_floor_nm
    assert 0.8 < worse.ami.ceiling < 1


def test_a_class_in_two_clusters_has_no_boundary_within(folder):
    halves = (2 * majority()[0] + np.arange(8) % 2).astype(np.int16)
    write(folder, {"ward.haadf": halves}, {"ward.haadf": tuple(f"R{i}" for i in range(6))})
    found = score(read_result(folder), truth()).maps["ward.haadf"]
    assert found.regions == 6 and found.boundary_nm == found.boundary_floor_nm
    assert found.ami.all < 0.8  # as a partition it is wrong all the same


def test_names_that_the_truth_does_not_know_are_wrong_and_said(folder):
    strange = msgspec.structs.replace(CLASSES[2], name="substrate")
    before = score(read_result(folder), truth()).maps["fewshot.haadf"]
    found = score(read_result(folder), truth(classes=(*CLASSES[:2], strange)))
    after = found.maps["fewshot.haadf"]
    assert after.unknown_classes == ("base",) and any("no class base" in w for w in found.warnings)
    assert after.accuracy_per_class["substrate"].all == 0 and after.accuracy.all < before.accuracy.all
    assert after.ami == before.ami  # a partition does not depend on names


def test_unknown_is_right_where_the_truth_has_a_class_without_support_and_wrong_elsewhere(folder):
    classes, _ = truth().class_of_chips(read_result(folder).grid)
    labels = np.where(classes == 2, 2, classes).astype(np.int16)  # film, glass, and unknown for all of the base
    labels[0, 0] = 2  # a chip of the film
    write(folder, {"fewshot.lines": labels}, {"fewshot.lines": ["film", "glass", "unknown"]})
    found = score(read_result(folder), truth())
    one = found.maps["fewshot.lines"]
    assert one.accuracy.all == pytest.approx(1 - 1 / labels.size)
    assert one.accuracy_per_class["base"].all == 1.0
    assert one.rejected == pytest.approx((labels == 2).mean())
    assert one.ami.all == pytest.approx(adjusted_mutual_info_score(classes.ravel(), labels.ravel()))
    assert one.unknown_classes == () and not found.warnings


def test_registered_frames_are_judged_by_the_first_summed_ones_by_the_sum(folder, tmp_path):
    drifted = np.roll(true_field(), 7, axis=0)
    both = truth(summed=drifted)
    result = json.loads((folder / "result.json").read_text())
    summed = score(read_result(folder), both)
    assert not summed.registered and summed.maps == score(read_result(folder), truth(drifted)).maps
    result["registration"] = {"frames": 3, "determined": 0}
    (folder / "result.json").write_text(json.dumps(result))
    assert not read_result(folder).registered, "frames that showed no shift lie as they came"
    result["registration"]["determined"] = 2
    (folder / "result.json").write_text(json.dumps(result))
    registered = score(read_result(folder), both)
    assert registered.registered and registered.maps == score(read_result(folder), truth()).maps
    assert registered.maps["ward.haadf+lines"].ami.all > summed.maps["ward.haadf+lines"].ami.all


# --- regions


def test_compositions_and_spacings_are_compared_with_the_regions_class(folder):
    base, film, glass = score(read_result(folder), truth()).regions["fewshot.haadf"]
    assert (base.truth, film.truth, glass.truth) == ("base", "film", "glass")
    errors = {e: (d.measured, d.true, d.error, d.error_sigmas) for e, d in base.composition.items()}
    assert errors["Sr"] == (19.0, 20.0, -1.0, pytest.approx(-2.0))
    assert errors["Fe"] == (1.0, 0.0, 1.0, pytest.approx(10.0))  # the class has none of it
    assert errors["O"] == (59.0, 60.0, -1.0, pytest.approx(-1.0))
    assert film.composition["Fe"].error is None and film.composition["Fe"].true == 20.0  # not measured
    assert film.composition["La"].error == 0 and film.composition["La"].error_sigmas is None  # no sigma, no sigmas
    assert glass.composition == {}
    assert base.d_spacing_nm.error == pytest.approx(-0.0005)
    assert base.d_spacing_nm.error_sigmas == pytest.approx(-2.5)
    assert base.d_apparent_nm.error == pytest.approx(-0.001)  # against the longest that the scan shows, 0.391
    assert base.d_fast_nm.error == pytest.approx(-0.001) and base.d_slow_nm.error == pytest.approx(0.0005)
    assert film.d_spacing_nm.measured is None and film.d_spacing_nm.true == 0.393 and "too small" in film.note
    assert glass.d_spacing_nm.true is None and glass.d_spacing_nm.error is None  # nothing to be right about


def test_a_spacing_is_compared_with_the_longest_that_a_drifting_scan_shows(folder):
    for apparent in ((0.391, 0.388), (0.388, 0.391)):
        stretched = msgspec.structs.replace(CLASSES[2], d_apparent_nm=apparent)
        base, *_ = score(read_result(folder), truth(classes=(*CLASSES[:2], stretched))).regions["fewshot.haadf"]
        assert base.d_apparent_nm.error == pytest.approx(0.3900 - 0.391)
        assert (base.d_fast_nm.true, base.d_slow_nm.true) == apparent


def test_a_regions_purity_is_its_share_of_true_pixels(folder):
    base, *_ = score(read_result(folder), truth()).regions["fewshot.haadf"]
    with np.load(folder / "labels.npz") as maps:
        inside = np.kron(maps["fewshot.haadf"] == 0, np.ones((CHIP, CHIP), bool))
    assert base.purity == pytest.approx(np.mean(true_field()[inside] == 2)) and 0.5 < base.purity < 1


def test_strays_among_the_100_percent_are_taken_out_again(folder):
    result = json.loads((folder / "result.json").read_text())
    result["parameters"]["recipe"]["strays_in_total"] = True
    percent = {"Sr": 16.0, "Ti": 16.0, "O": 48.0}  # and 20 % of copper beside
    result["regions"]["fewshot.haadf"][0] |= {"atomic_percent": percent, "atomic_percent_sigma": {"Sr": 0.4}}
    (folder / "result.json").write_text(json.dumps(result))
    base, *_ = score(read_result(folder), truth()).regions["fewshot.haadf"]
    assert {e: d.error for e, d in base.composition.items()} == pytest.approx({"Sr": 0, "Ti": 0, "O": 0})
    assert base.composition["Sr"].sigma == pytest.approx(0.5)


def test_regions_and_chips_of_which_nobody_knows_are_left_out(folder):
    field = true_field()
    field[field == 2] = -1
    found = score(read_result(folder), truth(field))
    assert found.chips < 48
    with np.load(folder / "labels.npz") as maps:
        base_only = np.where(maps["ward.haadf+lines"] == 0, 0, -1).astype(np.int16)  # where the truth is base
    write(folder, {"ward.haadf": base_only}, {"ward.haadf": ("R0",)}, {"ward.haadf": [region(0, "R0")]})
    field[:] = np.where(np.kron(base_only, np.ones((CHIP, CHIP))) == 0, -1, 0)
    found = score(read_result(folder), truth(field))
    (unknown,) = found.regions["ward.haadf"]
    assert unknown.truth is None and unknown.purity is None and unknown.composition == {}
    assert found.maps["ward.haadf"].chips == 0 and found.maps["ward.haadf"].ami.all is None
    assert found.maps["ward.haadf"].boundary_nm is None


# --- what belongs together


def test_another_scans_name_is_a_warning_and_no_name_is_none(folder):
    assert score(read_result(folder), truth()).warnings == ()
    assert score(read_result(folder), truth(scan_id="")).warnings == ()
    (warning,) = score(read_result(folder), truth(scan_id="made-2")).warnings
    assert "made-2" in warning and "made-1" in warning


@pytest.mark.parametrize(
    ("field", "pixel", "says"),
    [
        (np.zeros((50, 80), np.int8), 0.05, "larger than the field of 50 x 80 px"),
        (np.zeros((70, 80), np.int8), 0.05, "70 x 80 pixels"),
        (np.zeros((60, 90), np.int8), 0.05, "60 x 90 pixels"),
        (np.zeros((60, 80), np.int8), 0.06, "another pixel size"),
    ],
)
def test_the_truth_of_another_field_is_refused(folder, field, pixel, says):
    with pytest.raises(UsageError, match=says):
        score(read_result(folder), truth(field, pixel_nm=(pixel, pixel)))


def test_pixels_that_make_no_whole_chip_are_dropped_as_the_grid_does(folder):
    larger = np.pad(true_field(), ((0, 9), (0, 9)), mode="edge")
    assert score(read_result(folder), truth(larger)).maps == score(read_result(folder), truth()).maps


# --- the command


def run(capsys, monkeypatch, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["livestem", "score", *map(str, arguments)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_json_is_one_object_with_what_score_returns(folder, capsys, monkeypatch):
    save_truth(truth(), folder / "truth")
    for named in (folder, folder / "result.json"):
        code, out, err = run(capsys, monkeypatch, named, "--json")
        assert (code, err) == (0, "") and len(out.splitlines()) == 1
        assert msgspec.json.decode(out, type=Score, strict=True) == score(read_result(folder), truth())


def test_the_table_holds_every_map_the_ceiling_and_the_best_regions_in_100_columns(folder, capsys, monkeypatch):
    elsewhere, _ = save_truth(truth(scan_id="other"), folder.parent / "elsewhere")
    code, out, err = run(capsys, monkeypatch, folder, "--truth", elsewhere)
    assert code == 0 and err.startswith("warning: the truth is of scan other") and len(err.splitlines()) == 1
    assert max(map(len, out.splitlines())) <= 100
    found = score(read_result(folder), truth())
    for name, one in found.maps.items():
        (row,) = (line.split() for line in out.splitlines() if line.split()[:2] == [name, "3"])
        assert row[2:6] == [f"{v:.3f}" for m in (one.ami, one.ari) for v in (m.all, m.pure)]
        assert row[-1] == f"{one.boundary_nm:.2f}"
    floor = found.maps["ward.haadf"]
    (ceiling,) = (line.split() for line in out.splitlines() if "perfect classifier" in line)
    assert ceiling[2:4] == [f"{floor.ami.ceiling:.3f}", f"{floor.ari.ceiling:.3f}"]
    assert ceiling[-1] == f"{floor.boundary_floor_nm:.2f}"
    for said in (
        "Sr\u00a0-1.0±0.5",
        "Fe\u00a0+1.0±0.1",
        "Fe\u00a0not\u00a0measured",
        "-0.50±0.20",
        "missed: region too",
    ):
        assert said in out


def test_each_methods_best_joint_map_is_shown_with_its_largest_regions(folder):
    shattered = np.arange(48, dtype=np.int16).reshape(6, 8)
    names = {"ward.haadf": ("R0", "R1", "R2"), "louvain.haadf+lines": tuple(f"R{i}" for i in range(48))}
    with np.load(folder / "labels.npz") as maps:
        both = {"ward.haadf": maps["ward.haadf"], "louvain.haadf+lines": shattered, "louvain.lines": shattered % 2}
    parts = [region(i, f"R{i}", chips=i + 1) for i in range(48)]
    write(folder, both, names | {"louvain.lines": ("R0", "R1")}, {"louvain.haadf+lines": parts})
    found = score(read_result(folder), truth())
    assert best_maps(found) == ["ward.haadf", "louvain.haadf+lines"]
    console = Console(width=100, file=io.StringIO())
    report(found, console)
    said = console.file.getvalue()
    assert "40 smaller" in said and " R47 " in said and " R40 " in said and " R39 " not in said


@pytest.mark.parametrize(
    "what", ["no folder", "a file", "no result", "no truth", "not these", "broken json", "old", "labels"]
)
def test_bad_input_is_one_line_and_exit_code_2(what, folder, capsys, monkeypatch):
    save_truth(truth(), folder / "truth")
    target, options, says = folder, [], ""
    if what == "no folder":
        target, says = folder / "none", "there is no folder"
    elif what == "a file":
        target, says = folder / "labels.npz", "labels.npz is no folder; name a result folder"
    elif what == "no result":
        target, says = folder.parent, "no result.json"
    elif what == "no truth":
        (folder / "truth.json").unlink()
        says = "name the truth with --truth FILE"
    elif what == "not these":
        options, says = ["--truth", folder / "labels.npz"], "cannot read the truth"
    elif what == "broken json":
        (folder / "result.json").write_text('{"format": 1, "grid": 7}')
        says = "is not a result"
    elif what == "old":
        text = (folder / "result.json").read_text()
        (folder / "result.json").write_text(text.replace('"format": 1', '"format": 99'))
        says = "has format 99, and this livestem reads 1"
    else:
        (folder / "labels.npz").write_bytes(b"PK nothing")
        says = "is broken, or not of this result"
    code, out, err = run(capsys, monkeypatch, target, *options)
    assert (code, out) == (2, "") and says in err and len(err.splitlines()) == 1 and err.startswith("livestem: ")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"grid": {"rows": 0, "cols": 8, "chip_nm": 0.5, "chip_px": 10, "pixel_nm": 0.05}}, "grid is impossible"),
        ({"grid": {"rows": 6, "cols": 8, "chip_nm": 0.5, "chip_px": 0, "pixel_nm": 0.05}}, "grid is impossible"),
        ({"grid": {"rows": 5, "cols": 8, "chip_nm": 0.5, "chip_px": 10, "pixel_nm": 0.05}}, "not labels of"),
        ({"classes": {"ward.haadf": ["R0"]}}, "has label 2"),
        ({"classes": {"ward.none": ["R0"]}}, "broken, or not of this result"),
        ({"regions": {"ward.haadf": [region(3, "R3")]}}, "lacks a label"),
        ({"regions": {"ward.haadf": [{"label": 0}]}}, "is not a result"),
        ({"parameters": []}, "is not a result"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(folder, change, says):
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | change))
    with pytest.raises(UsageError, match=says):
        read_result(folder)


# --- the service's own result


def test_what_the_service_writes_can_be_scored(tmp_path):
    """Two halves that every joint method finds: all right, borders on the border, elements within their sigmas."""
    field = np.kron(TRUTH, np.ones((4, 4), int)).astype(np.int8)
    run_batch(Field(), msgspec.structs.replace(plan(), processing=ASKED), Settings(), tmp_path)
    pure = (ClassFacts(name="iron", composition={"Fe": 100.0}), ClassFacts(name="titanium", composition={"Ti": 100.0}))
    found = score(read_result(tmp_path), truth(field, classes=pure, pixel_nm=(1.0, 1.0), scan_id=""))
    assert found.warnings == () and {"fewshot.haadf+lines", "ward.lines"} <= set(found.maps)
    for name in ("fewshot.haadf+lines", "ward.lines"):
        one = found.maps[name]
        assert one.ami.all == one.ari.all == one.ami.ceiling == pytest.approx(1)
        assert one.boundary_nm == one.boundary_floor_nm == 0
        for part in found.regions[name]:
            assert part.purity == 1 and part.truth in ("iron", "titanium")
            assert set(part.composition) == {"Fe", "Ti"}
            assert all(abs(d.error) < 1 for d in part.composition.values())
    assert found.maps["fewshot.haadf+lines"].accuracy.all == 1
