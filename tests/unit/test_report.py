"""The report: one page that needs nothing else, its figures beside it, whatever the result holds."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
from scans import ASKED, TRUTH, plan, tiles
from test_batch import Field, run

from livestem.cli.__main__ import main
from livestem.domain.errors import LivestemError, UsageError
from livestem.domain.regions import LatticePeak, Region
from livestem.domain.support import SupportClass, SupportSet
from livestem.domain.tiles import HaadfTile
from livestem.runtime.map_colours import OTHERS, MapPanel, match_scans
from livestem.runtime.report import tables
from livestem.runtime.report.lattice import draw_lattices, indexed_peaks
from livestem.runtime.report.maps import legend_entries, overlay
from livestem.runtime.report.numbers import measured, plain
from livestem.runtime.report.scan import read_scan
from livestem.runtime.report.writing import write_report

HOSTILE = '<script>alert("x")</script> $\\frac{1}{ & "quoted" \x07 样品 ' + 40 * "long "


class Page(HTMLParser):
    """Reads a page as a browser does: tags, attributes, words, the rows of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        self.words.append(data)
        if self._in_cell:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def images(self) -> list[bytes]:
        sources = [a["src"] for tag, a in self.tags if tag == "img"]
        return [base64.b64decode(s.removeprefix("data:image/png;base64,")) for s in sources]


def reported(results, out) -> Page:
    """Write a report and check what holds for every one of them."""
    written = write_report([Path(r) for r in results], out)
    page = Page(out.read_text(encoding="utf-8"))
    assert page.images() == [figure.read_bytes() for figure in written.figures]
    assert sorted(out.with_name(f"{out.stem}-figures").iterdir()) == sorted(written.figures)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert not {a for a in attributes if a.startswith("on")}
        assert (attributes.get("src") or "data:").startswith("data:") and "href" not in attributes
    assert "nan" not in page.text.split() and "None" not in page.text.split()
    return page


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "out"
    run(out)
    return out


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    return reported([result], tmp_path_factory.mktemp("page") / "report.html")


def content(result: Path) -> dict:
    return json.loads((result / "result.json").read_text())


def edited(result: Path, to: Path, **changes) -> Path:
    """Copy a result with other keys in its result.json; None takes a key away."""
    shutil.copytree(result, to)
    found = content(result) | changes
    (to / "result.json").write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    return to


def relabelled(result: Path, to: Path, labels: dict, names: dict) -> Path:
    """Copy a result with other label maps, which then have no regions."""
    to = edited(result, to, classes=names, regions={name: [] for name in names}, maps={}, agreement={})
    np.savez(to / "labels.npz", **labels)
    return to


# --- what is in it


def test_the_page_has_the_numbers_of_the_result(page, result):
    found = content(result)
    table = {row[0]: row[1:] for row in page.rows if row}
    for pair, title in (("haadf-lines", "HAADF / EDS lines"), ("haadf-haadf+lines", "HAADF / HAADF + EDS lines")):
        assert table[title] == [f"{found['agreement'][m][pair]:.2f}" for m in ("fewshot", "ward", "louvain")]
    assert table["digest"] == [found["digest"]] and table["input_digest"] == [found["input_digest"]]
    assert table["chip_px"] == ["4"] and table["seed"] == ["42"]
    assert {"quantify", "embed", "ward", "louvain"} <= table.keys() and table["ward"][0].endswith(" s")
    assert {"Scan", "Chips", "EDS counts", "versions"} <= table.keys()


def test_every_region_has_its_composition_with_its_error(page, result):
    iron, titanium = content(result)["regions"]["fewshot.haadf+lines"]
    row = next(row for row in page.rows if row and row[0] == "Fe, at.%")
    assert row[1:] == [
        measured(r["atomic_percent"]["Fe"], r["atomic_percent_sigma"]["Fe"]) for r in (iron, titanium)
    ]  # both 18 chips: in label order
    heads = next(row for row in page.rows if row[1:] == ["iron", "titanium"])
    assert heads


def test_the_figures_have_the_size_of_a_journals_page(page):
    for image in page.images():
        width = int.from_bytes(image[16:20], "big")
        assert image[:8] == b"\x89PNG\r\n\x1a\n" and 1500 < width < 1600  # 7.1 inches at 220 dpi


def test_equal_results_give_equal_reports(result, tmp_path):
    first, second = tmp_path / "a" / "r.html", tmp_path / "b" / "r.html"
    for out in (first, second):
        out.parent.mkdir()
        reported([result], out)
    assert first.read_bytes() == second.read_bytes()


def test_warnings_are_told(result, tmp_path):
    page = reported([edited(result, tmp_path / "w", warnings=["the sample is <on fire>"])], tmp_path / "r.html")
    assert "the sample is <on fire>" in page.text


def test_registration_is_shown_where_the_result_has_it(page, result, tmp_path):
    assert "Registration of frames" in page.text
    found = {
        "frames": 4, "determined": 3, "drift_nm": [0.5, -0.25], "shifts_nm": [[0, 0], [1.0, -2.0], None, [0.5, 0.25]],
        "frame_determined": [True, True, False, True], "something_new": 1,
    }  # fmt: skip
    told = reported([edited(result, tmp_path / "w", registration=found)], tmp_path / "r.html")
    rows = {row[0]: row[1] for row in told.rows if len(row) == 2}
    assert rows["frames"] == "4" and rows["shift determined in"] == "3 frames"
    assert rows["drift over the scan (y, x)"] == "+0.500, −0.250 nm"
    assert rows["largest shift (y, x)"] == "+1.000, −2.000 nm"
    assert (tmp_path / "r-figures" / "drift.png").is_file()
    why = reported([edited(result, tmp_path / "x", registration={"reason": "one frame <only>"})], tmp_path / "r.html")
    assert "(one frame <only>)" in why.text and "Registration of frames" not in why.text


def test_the_thickness_that_absorption_was_corrected_with_is_told(page, result, tmp_path):
    assert ["Absorption", "uncorrected"] in page.rows
    parameters = content(result)["parameters"] | {"absorption": "corrected", "thickness_nm": 40.0}
    told = reported([edited(result, tmp_path / "t", parameters=parameters)], tmp_path / "r.html")
    assert ["Absorption", "corrected, 40 nm thick"] in told.rows


def test_lengths_are_calibrated_where_the_results_are(result, tmp_path):
    found = {"region": "iron", "d_nm": 0.39, "factor": 1.25, "factor_sigma": 0.01}
    page = reported([edited(result, tmp_path / "c", calibration=found)], tmp_path / "r.html")
    assert "calibrated on iron, 0.39 nm: factor 1.250 ± 0.010" in page.text
    assert read_scan(tmp_path / "c").pixel_nm == pytest.approx(1.25 * read_scan(result).pixel_nm)
    found = {"region": "iron", "d_nm": 0.39, "factor": None, "reason": "amorphous"}
    page = reported([edited(result, tmp_path / "n", calibration=found)], tmp_path / "r.html")
    assert "not calibrated on iron, 0.39 nm: amorphous" in page.text


# --- what a result may be


def test_names_and_titles_are_words_and_nothing_else(tmp_path):
    support = SupportSet(
        classes=tuple(SupportClass(name=c.name, chips=c.chips, title=HOSTILE) for c in ASKED.support.classes)
    )
    field = Field(msgspec.structs.replace(plan(), sample=HOSTILE, source=HOSTILE))
    run(tmp_path / "out", field, support=support)
    page = reported([tmp_path / "out"], tmp_path / "r.html")
    assert page.text.count('<script>alert("x")</script>') >= 4  # as words: title, heading, source, classes


def test_class_names_from_elsewhere_are_drawn_too(result, tmp_path):
    other = relabelled(
        result, tmp_path / "o", {"ward.lines": TRUTH.astype(np.int16)}, {"ward.lines": [HOSTILE, "$x$ <b>"]}
    )
    reported([other], tmp_path / "r.html")


@pytest.mark.parametrize("has", ["haadf", "lines"])
def test_one_modality_alone(tmp_path, has):
    of = plan(eds=has == "lines", haadf="<u2" if has == "haadf" else None)
    run(tmp_path / "out", Field(of), **({} if has == "lines" else {"elements": None}))
    page = reported([tmp_path / "out"], tmp_path / "r.html")
    assert ("no EDS" in page.text) == (has == "haadf")
    assert any(row[0] == "Fe, at.%" for row in page.rows if row) == (has == "lines")
    widths = [a["style"] for tag, a in page.tags if tag == "img"]
    assert set(widths) == {"width:180.3mm"}  # the methods stand beside each other


def test_no_support_set(tmp_path):
    run(tmp_path / "out", support=None)
    page = reported([tmp_path / "out"], tmp_path / "r.html")
    assert "Few-shot" not in page.text and "Ward" in page.text


def test_what_was_not_scanned_is_no_data(tmp_path):
    parts = [p for p in tiles(plan()) if p.y != 8]
    run(tmp_path / "out", Field(parts=parts))
    scan = read_scan(tmp_path / "out")
    assert scan.image is not None
    assert np.isnan(scan.image[8:16]).all() and np.isfinite(scan.image[:8]).all() and np.isfinite(scan.image[16:]).all()
    (legend,) = match_scans([scan.panels])
    drawn = overlay(scan, scan.panels[0], legend.palette(0))
    assert (drawn[8:16, :, 3] == 0).all() and (drawn[:8, :, 3] == 1).all()
    assert "bands of rows are missing" in reported([tmp_path / "out"], tmp_path / "r.html").text


def test_the_stored_exposure_says_what_was_scanned(result, tmp_path):
    other = edited(result, tmp_path / "e")
    seen = np.ones((24, 24), np.uint32)
    seen[3, 5] = 0
    with h5py.File(other / "result.hspy", "r+") as file:
        experiments = file["Experiments"]
        if "HAADF exposure" in experiments:
            del experiments["HAADF exposure"]
        experiments.create_group("HAADF exposure")["data"] = seen
    image = read_scan(other).image
    assert image is not None and np.argwhere(np.isnan(image)).tolist() == [[3, 5]]


def test_where_no_exposure_is_stored_a_black_pixel_of_a_missing_tile_is_no_data(result, tmp_path):
    missing = [
        {"modality": "haadf", "frame": 0, "y": y, "h": 4, **columns} for y, columns in ((4, {"x": 8, "w": 9}), (20, {}))
    ]
    other = edited(result, tmp_path / "e", missing_tiles=missing)
    with h5py.File(other / "result.hspy", "r+") as file:
        experiments = file["Experiments"]
        if "HAADF exposure" in experiments:
            del experiments["HAADF exposure"]
        experiments["HAADF"]["data"][...] = 0
    expected = np.zeros((24, 24), bool)
    expected[4:8, 8:17] = expected[20:] = True
    np.testing.assert_array_equal(np.isnan(read_scan(other).image), expected)


def test_a_black_pixel_that_was_scanned_is_data(tmp_path):
    dark = [replace(p, values=p.values * 0) if isinstance(p, HaadfTile) else p for p in tiles(plan())]
    run(tmp_path / "out", Field(parts=dark))
    image = read_scan(tmp_path / "out").image
    assert image is not None and np.isfinite(image).all()


def test_hundreds_of_communities(result, tmp_path):
    rng = np.random.default_rng(0)
    labels = {"ward.lines": TRUTH.astype(np.int16), "louvain.lines": rng.permutation(36).reshape(6, 6).astype(np.int16)}
    names = {"ward.lines": ["R0", "R1"], "louvain.lines": [f"R{i}" for i in range(36)]}
    other = relabelled(result, tmp_path / "many", labels, names)
    reported([other], tmp_path / "r.html")
    scan = read_scan(other)
    (legend,) = match_scans([scan.panels])
    entries, more = legend_entries(legend, 10)
    assert len(entries) == 10 and len(entries) + more == 38
    assert len({c for c in legend.colours.values() if c != OTHERS}) == 23


def test_keys_that_are_absent_are_not_shown_and_new_ones_are_left_alone(result, tmp_path):
    gone = dict.fromkeys(
        ("coverage", "timings_s", "numerics", "maps", "agreement", "counts", "sample", "missing_tiles")
    )
    other = edited(result, tmp_path / "less", **gone, something_new={"a": [1, 2]})
    page = reported([other], tmp_path / "r.html")
    assert "Agreement between" not in page.text


def test_a_scan_that_was_cut_says_why_and_shows_what_is_missing(result, tmp_path):
    of = plan(frames=3)
    run(tmp_path / "out", Field(of, [p for p in tiles(of) if p.frame < 2 or p.y == 0]))
    page = reported([tmp_path / "out"], tmp_path / "r.html")
    table = {row[0]: row[1:] for row in page.rows if row}
    assert table["End"] == ["its source ended it without all rows of its frames"]
    assert "Coverage" in page.text and "frame 2, the last one, is here up to row 8 of 24" in page.text
    assert (tmp_path / "r-figures" / "coverage.png").is_file()
    (tmp_path / "out" / "coverage.npz").unlink()  # as older results are
    page = reported([tmp_path / "out"], tmp_path / "r.html")
    assert "Coverage:" not in page.text and not (tmp_path / "r-figures" / "coverage.png").exists()
    np.savez(tmp_path / "out" / "coverage.npz", haadf=np.ones((2, 2), np.float32))
    with pytest.raises(UsageError, match=r"coverage\.npz does not fit"):
        read_scan(tmp_path / "out")
    (tmp_path / "out" / "coverage.npz").write_bytes(b"PK broken")
    with pytest.raises(UsageError, match=r"coverage\.npz is broken"):
        read_scan(tmp_path / "out")
    whole = reported([result], tmp_path / "whole.html")
    assert "Coverage:" not in whole.text and ["End", "as planned"] in whole.rows


# --- several results


def test_several_results_stand_beside_each_other_in_the_same_colours(result, tmp_path):
    swapped = SupportSet(classes=ASKED.support.classes[::-1])
    run(tmp_path / "two", support=swapped)
    page = reported([result, tmp_path / "two"], tmp_path / "r.html")
    assert "The results beside each other" in page.text and "Classes that several results have" in page.text
    scans = [read_scan(r) for r in (result, tmp_path / "two")]
    legends = match_scans([s.panels for s in scans])
    colours = []
    for scan, legend in zip(scans, legends, strict=True):
        name = "fewshot.haadf+lines"
        labels = {scan.saved.names[name][v]: v for v in (0, 1)}
        colours.append({n: legend.colours[scan.place(name, v, legend)] for n, v in labels.items()})
    assert colours[0] == colours[1] and colours[0]["iron"] != colours[0]["titanium"]
    names = {p.name for p in (tmp_path / "r-figures").iterdir()}
    assert names == {f"{i}-{part}.png" for i in (1, 2) for part in ("maps", "composition", "drift")}


# --- tables and marks


def peaks(*d_angle):
    return tuple(LatticePeak(d_nm=d, sigma_nm=1e-4, angle_deg=a, snr=100.0) for d, a in d_angle)


def test_a_peak_off_the_lattice_is_not_indexed():
    d = 0.39
    square = peaks((d, 0.0), (d, 90.0), (d / 2**0.5, 45.0), (d / 2**0.5, 135.0), (d / 2, 0.0), (0.21, 20.0))
    region = Region(label=0, name="R0", chips=9, area_fraction=1, components=1, d_spacing_nm=d, lattice_peaks=square)
    assert indexed_peaks(region, 0.2) == [True] * 5 + [False]
    none = msgspec.structs.replace(region, d_spacing_nm=None)
    assert indexed_peaks(none, 0.2) == [False] * 6


def test_the_weak_half_orders_of_a_perovskite_are_indexed():
    d, diagonal = 0.39, 0.39 / 2**0.5
    strong = peaks(
        *((diagonal, a) for a in (45.0, 135.0)), *((d / 2, a) for a in (0.0, 90.0)),
        *((diagonal / 2, a) for a in (45.0, 135.0)), *((d / 20**0.5 * 2**0.5, a) for a in (18.435, 71.565)),
    )  # fmt: skip
    region = Region(
        label=0, name="R0", chips=9, area_fraction=1, components=1, d_spacing_nm=d,
        lattice_peaks=(*strong, *peaks((d, 0.0), (d, 90.0))),
    )  # fmt: skip
    assert indexed_peaks(region, 0.2) == [True] * 10


def test_lattices_are_drawn_where_the_pixels_resolve_them(tmp_path, result):
    (legend,) = match_scans([read_scan(result).panels])
    assert draw_lattices(read_scan(result), legend) == {}  # pixels of 1 nm
    scan = read_scan(fine(result, tmp_path / "fine"))
    figures = draw_lattices(scan, match_scans([scan.panels])[0])
    assert list(figures) == ["ward.haadf"]
    circles = [p for axis in figures["ward.haadf"].axes for p in axis.patches if type(p).__name__ == "Circle"]
    assert len(circles) == 4  # two peaks and their mirrors
    page = reported([scan.folder], tmp_path / "r.html")
    assert "Lattices: Ward, HAADF" in page.text


def fine(result: Path, to: Path) -> Path:
    """Copy a result as one of 48 x 48 pixels of 0.05 nm with a lattice, in chips of 8 px."""
    d = 0.2
    region = {
        "label": 0, "name": "R0", "chips": 36, "area_fraction": 1.0, "components": 1, "d_spacing_nm": d,
        "d_spacing_sigma_nm": 0.001,
        "lattice_peaks": [{"d_nm": d, "sigma_nm": 0.001, "angle_deg": a, "snr": 50.0} for a in (0.0, 90.0)],
    }  # fmt: skip
    grid = content(result)["grid"] | {"chip_nm": 0.4, "chip_px": 8, "haadf_px": 8, "eds_px": None, "pixel_nm": 0.05}
    to = relabelled(result, to, {"ward.haadf": np.zeros((6, 6), np.int16)}, {"ward.haadf": ["R0"]})
    found = json.loads((to / "result.json").read_text()) | {"grid": grid, "regions": {"ward.haadf": [region]}}
    (to / "result.json").write_text(json.dumps(found))
    y, x = np.mgrid[:48, :48] * 0.05
    with h5py.File(to / "result.hspy", "r+") as file:
        signal = file["Experiments/HAADF"]
        del signal["data"]
        signal["data"] = (np.cos(2 * np.pi * x / d) + np.cos(2 * np.pi * y / d)).astype(np.float32)
        signal["axis-1"].attrs["scale"] = 0.05
    return to


def test_differences_are_percent_of_the_second_with_both_errors(result, tmp_path):
    scan = read_scan(result)
    a, b = scan.regions("fewshot.haadf+lines")
    changed = [
        msgspec.structs.replace(r, atomic_percent={"Fe": v, "Ti": t}, atomic_percent_sigma={"Fe": s, "Ti": 0.1})
        for r, v, s, t in ((a, 22.0, 0.2, 0.5), (b, 20.0, 0.1, 99.0))
    ]
    regions = {"fewshot.haadf+lines": [msgspec.to_builtins(r) for r in changed]}
    scan = read_scan(edited(result, tmp_path / "d", regions=regions))
    found = tables.differences(scan, "fewshot.haadf+lines", match_scans([scan.panels])[0])
    assert found is not None and found.head == ("a against b", "Fe")  # 0.5 at.% is too little to compare
    ((pair, cell),) = found.rows
    sigma = 100 * np.hypot(0.2, 22 / 20 * 0.1) / 20
    assert pair == "iron against titanium" and cell.text == f"+{measured(10.0, sigma)}" and cell.bold


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (20.1234, 0.217, "20.12 ± 0.22"), (0.39512, 0.000037, "0.395120 ± 0.000037"), (5.0, 30.0, "5 ± 30"),
        (12.345, None, "12.35"), (12.345, 0.0, "12.35"), (None, None, "–"),
    ],
)  # fmt: skip
def test_a_number_has_two_digits_of_its_error(value, sigma, text):
    assert measured(value, sigma) == text


def test_thousands_are_apart():
    assert plain(25753.2) == "25\u2009753" and plain(12.3456) == "12.35" and plain(None) == "–"


# --- colours of several maps


def test_a_new_region_has_one_colour_in_all_maps_that_see_it():
    classes = np.zeros((8, 8), np.int16)
    stripe = np.zeros((8, 8), np.int16)
    stripe[:, 5:] = 1  # 24 chips that no class has
    other = np.where(stripe == 1, 0, 1).astype(np.int16)
    panels = [
        MapPanel(title="fewshot", labels=classes, names=("film", "base")),
        MapPanel(title="ward", labels=stripe, names=("R0", "R1")),
        MapPanel(title="louvain", labels=other, names=("R0", "R1")),
    ]
    (legend,) = match_scans([panels])
    first, ward, louvain = (legend.palette(i) for i in range(3))
    assert ward[0] == louvain[1] == first[0] and ward[1] == louvain[0] != first[0]


def test_a_few_chips_inside_a_class_are_not_that_class():
    classes = np.zeros((8, 8), np.int16)
    classes[4:] = 1
    clusters = np.zeros((8, 8), np.int16)
    clusters[0, :3] = 1  # 3 of 32 chips
    panels = [
        MapPanel(title="fewshot", labels=classes, names=("film", "base")),
        MapPanel(title="ward", labels=clusters, names=("R0", "R1")),
    ]
    (legend,) = match_scans([panels])
    assert legend.palette(1)[1] not in legend.palette(0).values()


def test_unknown_is_white_and_the_smallest_share_one_grey():
    labels = np.arange(64, dtype=np.int16).reshape(8, 8)
    labels[:4] = 0
    names = ("unknown", *(f"R{i}" for i in range(1, 64)))
    (legend,) = match_scans([[MapPanel(title="fewshot", labels=labels, names=names)]])
    colours = legend.palette(0)
    assert colours[0] == (1.0, 1.0, 1.0)
    assert sum(c == OTHERS for c in colours.values()) == 32 - 23


# --- bad input


def test_what_is_no_result_is_refused_in_one_line(result, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "none", "there is no folder"), (tmp_path / "empty", "no result.json")):
        with pytest.raises(UsageError, match=words):
            write_report([path], tmp_path / "r.html")
    with pytest.raises(UsageError, match="has format 9, and this livestem reads 1"):
        write_report([edited(result, tmp_path / "f", format=9)], tmp_path / "r.html")
    with pytest.raises(UsageError, match="is not a result"):
        write_report([edited(result, tmp_path / "g", warnings=7)], tmp_path / "r.html")
    broken = edited(result, tmp_path / "h")
    (broken / "result.hspy").write_bytes(b"not HDF5")
    with pytest.raises(UsageError, match="HAADF of .* cannot be read"):
        write_report([broken], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists() and not (tmp_path / "r-figures").exists()


def test_somebody_elses_files_are_left_alone(result, tmp_path):
    thesis = tmp_path / "thesis.html"
    thesis.write_text("mine")
    with pytest.raises(UsageError, match="no livestem report"):
        write_report([result], thesis)
    (tmp_path / "r-figures").mkdir()
    (tmp_path / "r-figures" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="more than a report's figures"):
        write_report([result], tmp_path / "r.html")
    for out in (tmp_path / "r.pdf", tmp_path / "none" / "r.html"):
        with pytest.raises(UsageError, match="--out"):
            write_report([result], out)
    assert thesis.read_text() == "mine" and (tmp_path / "r-figures" / "notes.txt").read_text() == "mine"


def test_an_earlier_report_is_replaced_with_its_figures(result, tmp_path):
    out = tmp_path / "r.html"
    reported([result, result], out)
    reported([result], out)
    assert {p.name for p in tmp_path.iterdir()} == {"r.html", "r-figures"}


def test_a_full_disk_is_told_in_one_line(result, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LivestemError, match="cannot be written to .*: No space left"):
        write_report([result], tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def called(capsys, monkeypatch, *words) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["livestem", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_the_command_says_what_was_written_where(result, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = called(capsys, monkeypatch, "report", result)
    assert (code, err) == (0, "") and "livestem-report.html" in out and "livestem-report-figures" in out
    code, out, _ = called(capsys, monkeypatch, "report", result, "--out", tmp_path / "x.html", "--json")
    found = json.loads(out)
    assert code == 0 and Path(found["page"]).is_file() and all(Path(f).is_file() for f in found["figures"])
    assert found["results"][0]["digest"] == content(result)["digest"]
    code, out, err = called(capsys, monkeypatch, "report", tmp_path / "none")
    assert (code, out) == (2, "") and err.count("\n") == 1
