"""The accuracy benchmark: its maps are the product's, its checkpoints are scans, its tables say what the rows say."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
import pytest

from livestem.domain.errors import LivestemError, UsageError
from livestem.domain.parameters import GRAPHEM_LINES, Processing
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.batch import run_batch
from livestem.runtime.features import Collected
from livestem.runtime.label_map import LabelMap
from livestem.runtime.recipe import resolve
from livestem.runtime.saved import read_result
from livestem.runtime.scoring import score
from livestem.runtime.settings import Settings
from livestem.simulator import Simulation, load_specimen, packaged_specimens

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks.accuracy import __main__ as command  # noqa: E402
from benchmarks.accuracy import curves, plan, sweep, tables  # noqa: E402
from benchmarks.accuracy.plan import Scan  # noqa: E402

PAGE = ROOT / "docs" / "accuracy.md"
PAIR = """\
base = "lfo-on-sto"
name = "small"
title = "A film on its substrate"
thickness_nm = 20.0
chip_px = 6
field_nm = [7.2, 7.2]
[scan]
shape = [72, 72]
[eds]
counts_per_pixel = 0.5
[[layer]]
material = "LFO"
thickness_nm = 3.6
[[layer]]
material = "STO"
"""


class Fake:
    """An encoder without a network: mean and spread of each chip."""

    digest, precision, device, convolutions = "fake", "fp32", "cpu", "none"

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, chips):
        self.calls += 1
        return np.stack([chips.mean(axis=(1, 2)), chips.std(axis=(1, 2)), np.ones(len(chips))], axis=1).astype("f4")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Scan:
    """Two checkpoints of a scan of 144 chips."""
    path = tmp_path_factory.mktemp("specimen") / "small.toml"
    path.write_text(PAIR)
    return Scan(str(path), 3, "eightfold", ((1, ("default",)), (3, ("default",))))


@pytest.fixture(scope="module")
def batches(small) -> list[list[sweep.Row]]:
    return list(sweep.rows_of(small, None))


@pytest.fixture(scope="module")
def rows(batches) -> list[sweep.Row]:
    return [row for batch in batches for row in batch]


def made_up(**changes) -> sweep.Row:
    """Return a row of two classes with these values, AMI among them."""
    given = {"ami": 0.5, "accuracy": None, "regions": 2} | changes
    whole = {"all": given.pop("ami"), "pure": 0.75, "ceiling": 0.9}
    right = given.pop("accuracy")
    found = {
        "regions": given.pop("regions"), "chips": 10, "pure_chips": 8, "ami": whole, "ari": whole,
        "accuracy": None if right is None else whole | {"all": right},
        "accuracy_per_class": None, "boundary_nm": 0.4, "boundary_floor_nm": 0.2,
    }  # fmt: skip
    fields = {
        "sample": "s", "seed": 0, "series": "eightfold", "frames": 4, "preset": "default", "origin": "",
        "photons": 1.0, "drift_nm": 0.0, "map": "ward.haadf", "classes": ("A", "B"), "confusion": ((8, 2), (0, 5)),
        "score": found,
    }  # fmt: skip
    return msgspec.convert(fields | given, sweep.Row)


# --- what is swept ------------------------------------------------------------------------------------------


def test_the_full_table_covers_samples_seeds_series_and_presets():
    scans = list(plan.full(3, plan.PUBLISHED))
    assert {(s.sample, s.seed, s.series) for s in scans} == {
        (sample, seed, series) for sample in plan.SAMPLES for seed in range(3) for series in plan.SERIES
    }
    series, frames = plan.MAIN
    for scan in scans:
        steps = [n for n, _ in scan.checkpoints]
        assert steps == sorted(set(steps)) and all("default" in presets for _, presets in scan.checkpoints)
        assert scan.series != series or set(dict(scan.checkpoints)[frames]) == {"default", *plan.PUBLISHED}
    assert [s.seed for s in scans] == sorted(s.seed for s in scans), "a run that is stopped has whole seeds"


def test_without_weights_only_the_default_preset_is_run():
    assert {p for s in plan.full(1, ()) for _, presets in s.checkpoints for p in presets} == {"default"}


def test_the_samples_are_the_papers_with_its_numbers_of_chips():
    assert set(plan.SAMPLES) <= set(packaged_specimens())
    samples = [load_specimen(name) for name in plan.SAMPLES]
    assert [s.chip_px and s.scan.shape[0] // s.chip_px for s in samples] == [34, 25, 34, 51]  # what 512 pixels give


def test_the_doses_reach_from_a_first_frame_to_a_long_scan():
    doses = [
        n * s.real_frames * load_specimen(s.sample).eds.counts_per_pixel
        for s in plan.full(1, ())
        for n, _ in s.checkpoints
    ]
    assert min(doses) <= 0.05 and max(doses) >= 20


def test_the_quick_form_ends_at_its_table():
    (scan,) = plan.quick()
    assert (scan.series, scan.checkpoints[-1][0]) == plan.QUICK
    assert {p for _, presets in scan.checkpoints for p in presets} == {"default"}  # no weights needed


# --- from scans to rows -------------------------------------------------------------------------------------


def test_the_rows_are_those_of_livestem_batch_and_livestem_score(small, rows, tmp_path):
    specimen = load_specimen(small.sample)
    scan = Simulation(specimen, small.seed, 3, eds_counts_per_pixel=8 * specimen.eds.counts_per_pixel)
    asked = Processing(elements=specimen.elements, strays=tuple(specimen.strays))
    grid, _ = resolve(scan.plan, asked)
    asked = msgspec.structs.replace(asked, chip_px=6, support=sweep.examples(scan, grid, small.seed))
    run_batch(scan, msgspec.structs.replace(scan.plan, processing=asked), Settings(), tmp_path / "out")
    expected = score(read_result(tmp_path / "out"), scan.truth).maps
    assert {row.map: row.score for row in rows if row.frames == 3} == expected


def test_a_checkpoint_is_the_scan_of_somebody_who_stopped_there(tmp_path):
    path = tmp_path / "still.toml"  # a scan that drifts sees more of the specimen, which changes its noise
    path.write_text(PAIR.replace("[eds]", "drift = { velocity_nm_s = [0.0, 0.0], wander_nm = 0.0 }\n[eds]"))
    both = Scan(str(path), 3, "real", ((1, ("default",)), (2, ("default",))))
    stopped = Scan(str(path), 3, "real", ((1, ("default",)),))
    first, second = sweep.rows_of(both, None)
    assert list(sweep.rows_of(stopped, None)) == [first] and first[0].photons == 0.5
    assert {row.drift_nm for row in second} == {0.0}


def test_rows_say_what_they_are_of(small, batches, rows):
    assert [(b[0].frames, b[0].photons) for b in batches] == [(1, 4.0), (3, 12.0)]
    assert {(row.key, row.origin) for row in rows} == sweep.keys_of(small)
    methods = {(row.map.partition(".")[0], row.map.partition(".")[2]) for row in rows}
    assert methods == {(m, n) for m in ("fewshot", "ward", "louvain") for n in ("haadf", "lines", "haadf+lines")}
    assert all(row.classes == ("LFO", "STO") for row in rows)


def test_confusions_count_every_chip_and_agree_with_the_accuracy(rows):
    for row in rows:
        counts = np.array(row.confusion)
        assert counts.sum() == row.score.chips == 144
        if row.score.accuracy is not None:
            assert counts.trace() / counts.sum() == pytest.approx(row.score.accuracy.all)
            assert counts[0, 0] / counts[0].sum() == pytest.approx(row.score.accuracy_per_class["LFO"].all)


def test_a_good_method_finds_the_layers_and_is_told_from_a_poor_one(rows):
    by = {row.map: row for row in rows if row.frames == 3}
    assert by["fewshot.lines"].score.accuracy.all > 0.95  # Sr and Ti against La and Fe, 12 photons a pixel
    rng = np.random.default_rng(0)
    poor = LabelMap(rng.integers(0, 2, (12, 12)).astype(np.int16), classes=("LFO", "STO"))
    specimen = load_specimen(by["ward.lines"].sample)
    scan = Simulation(specimen, 3, 3)
    grid, _ = resolve(scan.plan, Processing())
    counts = sweep.confusion(poor, scan.truth, grid, registered=False)
    assert counts.trace() < 0.75 * counts.sum()


def test_a_cluster_is_the_class_that_it_overlaps_most(small):
    scan = Simulation(load_specimen(small.sample), 3, 1)
    grid, _ = resolve(scan.plan, Processing())
    classes, _ = scan.truth.class_of_chips(grid)
    every = np.bincount(classes.ravel(), minlength=2)
    perfect = LabelMap((7 - classes).astype(np.int16))  # other numbers, the same regions
    assert sweep.confusion(perfect, scan.truth, grid, registered=False).tolist() == np.diag(every).tolist()
    one = LabelMap(np.zeros_like(classes))
    lost = sweep.confusion(one, scan.truth, grid, registered=False)
    assert lost[:, every.argmax()].tolist() == every.tolist() and lost.sum() == every.sum()
    named = LabelMap(classes[::-1].copy(), classes=("LFO", "STO"))
    upside_down = sweep.confusion(named, scan.truth, grid, registered=False)
    assert upside_down[0, 1] > upside_down[0, 0]
    without = LabelMap(np.full_like(classes, -1))
    assert sweep.confusion(without, scan.truth, grid, registered=False).sum() == 0


def test_an_origin_is_the_specimen_and_the_simulator(small, tmp_path, monkeypatch):
    specimen = load_specimen(small.sample)
    known = sweep.origin(specimen)
    assert known == sweep.origin(load_specimen(small.sample)) != sweep.origin(load_specimen("pristine-0dpa"))
    assert known != sweep.origin(msgspec.structs.replace(specimen, thickness_nm=21.0))
    for file in resources.files("livestem.simulator").iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(sweep.resources, "files", lambda package: tmp_path)
    assert sweep.origin(specimen) == known
    (tmp_path / "notes.txt").write_text("of no account")
    assert sweep.origin(specimen) == known
    kernels = tmp_path / "haadf_kernels.json"
    kernels.write_bytes(kernels.read_bytes() + b" ")
    assert sweep.origin(specimen) != known


def test_what_is_there_already_is_not_run_again(small, rows, monkeypatch):
    done = {(row.key, row.origin) for row in rows}
    first = {(row.key, row.origin) for row in rows if row.frames == 1}
    (again,) = sweep.rows_of(small, None, first)
    assert again == [row for row in rows if row.frames == 3]
    monkeypatch.setattr(Simulation, "frame", lambda self, number: pytest.fail("a frame was simulated"))
    assert list(sweep.rows_of(small, None, done)) == []
    older = {(key, "another specimen") for key, _ in done}
    with pytest.raises(pytest.fail.Exception):
        list(sweep.rows_of(small, None, older))


def test_the_published_presets_embed_once_and_graphem_brings_its_own_lines(small):
    scan = Simulation(load_specimen(small.sample), 3, 1)
    grid, _ = resolve(scan.plan, Processing())
    accumulator = Accumulator(scan.plan, grid)
    sweep.accumulate(accumulator, scan.frame(0), scan.scan_id)
    collected, fake = Collected.of(accumulator, final=True), Fake()
    encoder = sweep.Remembering(fake)
    text, code = (sweep.finals_of(collected, scan, preset, encoder) for preset in plan.PUBLISHED)
    assert fake.calls == 1
    wanted = {(m, n) for m in tables.METHODS for n in ("haadf", "eds", "atomic", "haadf+eds", "haadf+atomic")}
    assert set(text.maps) == set(code.maps) == wanted
    assert text.parameters.elements == scan.specimen.elements
    assert text.parameters.strays == tuple(scan.specimen.strays) and code.parameters.strays == ()
    assert set(code.parameters.elements) == {line.partition("_")[0] for line in GRAPHEM_LINES}
    assert text.parameters.support == code.parameters.support
    assert [len(c.chips) for c in text.parameters.support.classes] == [4, 4]


def test_an_embedding_is_remembered_only_for_the_same_chips():
    fake = Fake()
    encoder = sweep.Remembering(fake)
    chips = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    first = encoder.encode(chips)
    assert encoder.encode(chips.copy()) is first and fake.calls == 1
    assert encoder.encode(chips[:1]).shape == (1, 3) and fake.calls == 2
    assert encoder.encode(chips + np.uint8(1))[0, 0] == first[0, 0] + 1
    assert (encoder.digest, encoder.precision, encoder.device) == ("fake", "fp32", "cpu")


# --- tables -------------------------------------------------------------------------------------------------


def test_a_cell_is_mean_and_standard_deviation():
    pair = [made_up(seed=i, ami=v) for i, v in enumerate((0.4, 0.6))]
    assert tables.spread(pair, tables.ami) == "0.50 ± 0.14"
    assert tables.spread(pair, tables.ami, short=True) == tables.spread(pair[:1] + pair[1:], tables.ami)[:4]
    assert tables.spread(pair[:1], tables.ami) == "0.40"
    assert tables.spread([], tables.ami) == tables.spread(pair, tables.accuracy) == "-"


def test_few_shot_is_judged_by_accuracy_and_clusters_by_ami():
    row = made_up(map="fewshot.haadf", ami=0.3, accuracy=0.8)
    assert tables.measure_of("fewshot.haadf")(row) == 0.8
    assert tables.measure_of("ward.haadf")(row) == 0.3


def test_the_best_of_a_column_is_bold_and_the_ceiling_stands_last():
    there = [made_up(map=f"ward.{n}", ami=v) for n, v in (("haadf", 0.70), ("lines", 0.704), ("haadf+lines", 0.6))]
    lines = tables.methods_table(there, "ward").splitlines()
    assert lines[2:] == [
        "| default | haadf | **0.70 / 0.75** |",
        "| default | lines | **0.70 / 0.75** |",
        "| default | haadf+lines | 0.60 / 0.75 |",
        "| perfect classifier |  | 0.90 / 1.00 |",
    ]


def test_enough_is_the_fewest_frames_near_the_best_even_where_more_of_them_harm():
    values = {1: 0.5, 4: 0.795, 16: 0.8, 64: 0.6}
    there = [made_up(frames=n, photons=float(n), map="ward.haadf+lines", ami=v) for n, v in values.items()]
    _, _, line, drift = tables.dose_tables(there).split("\n\n")[1].splitlines()
    assert line == "| s | default | ward.haadf+lines | 0.50 | 0.80 | 0.80 | 0.60 | 4 |"
    assert drift.startswith("| drift, nm |")


def test_a_row_that_was_not_run_everywhere_claims_nothing():
    there = [made_up(frames=n, map="ward.haadf+lines") for n in (1, 4)]
    there.append(made_up(frames=4, preset="as_published", map="ward.haadf+atomic"))
    text = tables.dose_tables(there)
    assert "| s | as_published | ward.haadf+atomic | - | 0.50 |  |" in text


def test_confusions_are_summed_over_seeds_and_named():
    there = [made_up(seed=i, map="ward.haadf+lines", confusion=c) for i, c in enumerate([((8, 2), (0, 5))] * 2)]
    assert "| A | 20 | 0.80, B 0.20 |\n| B | 10 | 1.00 |" in tables.classes_tables(there)


def test_only_maps_with_other_than_the_given_number_of_regions_are_listed():
    there = [
        made_up(map="ward.haadf"), made_up(map="ward.haadf+eds", regions=4),
        made_up(map="louvain.haadf", regions=3), made_up(seed=1, map="louvain.haadf", regions=90),
    ]  # fmt: skip
    assert tables.regions_table(there).splitlines()[2:] == [
        "| default | ward.haadf+eds | 4 |",
        "| default | louvain.haadf | 3-90 |",
        "| truth |  | 2 |",
    ]


def test_everything_has_every_map_and_says_so_if_nothing_was_run(rows):
    text = tables.everything(rows, ("eightfold", 3))
    assert "3 frames of series `eightfold`, 12 photons per pixel, seed 3." in text
    for method in tables.METHODS.values():
        assert f"### {method}: " in text
    assert all(row.map in text for row in rows)
    assert tables.everything(rows, ("real", 3)) == "Nothing was run to 3 frames of series real."


def test_only_what_lies_between_the_markers_is_rewritten(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"above\n\n{tables.BEGIN}\nold\n{tables.END}\n\nbelow\n")
    for _ in range(2):
        tables.splice(page, "| new |")
        assert page.read_text() == f"above\n\n{tables.BEGIN}\n\n| new |\n\n{tables.END}\n\nbelow\n"


@pytest.mark.parametrize(
    "text", ["", tables.BEGIN, f"{tables.END}{tables.BEGIN}", f"{tables.BEGIN}{tables.END}" * 2], ids=range(4)
)
def test_a_page_without_its_markers_is_left_alone(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UsageError, match="once each"):
        tables.splice(page, "new")
    assert page.read_text() == text
    with pytest.raises(UsageError, match="cannot be read"):
        tables.splice(tmp_path / "none.md", "new")


def test_the_picture_is_a_small_png(rows, tmp_path):
    curves.draw(rows, tmp_path / "images" / "accuracy.png")
    data = (tmp_path / "images" / "accuracy.png").read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) < 200_000


# --- the command --------------------------------------------------------------------------------------------


def test_the_quick_form_prints_its_tables_and_leaves_the_page_alone(small, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "quick", lambda: iter([small]))
    monkeypatch.setattr(plan, "QUICK", ("eightfold", 3))
    before = PAGE.read_bytes()
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "build" / "accuracy-quick.jsonl"  # not the file of a full run
    assert command.main(["--quick"]) == 0
    assert "## Every method" in capsys.readouterr().out
    assert command.read(results) == rows and PAGE.read_bytes() == before


def test_a_run_that_was_cut_off_goes_on(small, batches, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "full", lambda seeds, published: iter([small]))
    monkeypatch.setattr(plan, "MAIN", ("eightfold", 3))
    monkeypatch.setattr(command.Encoders, "of", _no_weights)
    page, results = tmp_path / "accuracy.md", tmp_path / "rows.jsonl"
    page.write_text(f"{tables.BEGIN}{tables.END}")
    lines = [msgspec.json.encode(batch) + b"\n" for batch in batches]
    results.write_bytes(lines[0] + lines[1][:200])
    assert command.main(["--resume", "--results", str(results), "--page", str(page)]) == 0
    assert results.read_bytes() == b"".join(lines)
    assert "12 photons per pixel" in page.read_text() and (tmp_path / "images" / "accuracy.png").is_file()


def test_rows_of_other_seeds_or_older_specimens_are_not_in_the_tables(small, rows):
    other = [msgspec.structs.replace(rows[0], seed=9), msgspec.structs.replace(rows[0], origin="older")]
    assert command.planned([*rows, *other], [small]) == rows


def test_without_weights_one_line_says_what_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(command.Encoders, "of", _no_weights)
    assert command._encoder(None) is None
    assert capsys.readouterr().err == "left out, as_published and graphem: no weights are here\n"


def test_a_scan_that_fails_is_told_and_the_others_go_on(small, rows, tmp_path, monkeypatch, capsys):
    lost = Scan("no-such-specimen", 0, "real", ((1, ("default",)),))
    monkeypatch.setattr(plan, "quick", lambda: iter([lost, small]))
    monkeypatch.setattr(plan, "QUICK", ("eightfold", 3))
    done = tmp_path / "rows.jsonl"
    done.write_bytes(msgspec.json.encode(rows) + b"\n")
    assert command.main(["--quick", "--resume", "--results", str(done)]) == 1
    said = capsys.readouterr()
    assert "no-such-specimen seed 0 real: no specimen 'no-such-specimen'" in said.err
    assert "12 photons per pixel" in said.out


def test_wrong_calls_are_refused_in_one_line_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "rows_of", lambda *given: pytest.fail("something was run"))
    (tmp_path / "bare.md").write_text("no markers")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    page = tmp_path / "page.md"
    page.write_text(f"{tables.BEGIN}{tables.END}")
    for call, expected in (
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--page", str(tmp_path / "bare.md")], "bare.md needs the lines"),
        (["--page", str(tmp_path / "none.md")], "none.md cannot be read"),
        (["--page", str(page), "--weights", str(tmp_path / "none.safetensors")], "none.safetensors, which is no file"),
        (["--quick", "--resume", "--results", str(tmp_path / "other.jsonl")], "holds no rows of this benchmark"),
        (["--quick", "--results", str(tmp_path / "bare.md" / "rows.jsonl")], "choose another --results"),
    ):
        assert command.main([*["--results", str(tmp_path / "rows.jsonl")], *call]) == 2
        said = capsys.readouterr().err
        assert expected in said and said.count("\n") == 1
    assert (tmp_path / "other.jsonl").read_text() == '{"a": 1}\n'


def _no_weights(self, recipe):
    raise LivestemError("no weights are here")


# --- the page that is committed -----------------------------------------------------------------------------


def test_the_page_holds_the_table_of_every_sample_and_preset():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(tables.BEGIN) == text.count(tables.END) == 1
    made = text.partition(tables.BEGIN)[2].partition(tables.END)[0]
    for wanted in (*plan.SAMPLES, "default", *plan.PUBLISHED, *(f"Series `{s}`" for s in plan.SERIES)):
        assert wanted in made
    calls = re.findall(r"^python -m benchmarks.accuracy ?([^#\n]*)", text, flags=re.M)
    assert len(calls) >= 4
    for call in calls:
        command._parser().parse_args(call.split())  # exits if there is no such option
    assert (PAGE.parent / "images" / "accuracy.png").stat().st_size < 200_000
