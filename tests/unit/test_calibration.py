"""The pixel from a known crystal: drift-free spacings, which region is taken, and when nothing is calibrated."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from scans import plan
from test_batch import Field
from test_spacing import STO_NM, Image, counted, square

from livestem.domain.geometry import Sampling
from livestem.domain.parameters import Processing
from livestem.domain.support import SupportClass, SupportSet
from livestem.domain.tiles import HaadfTile
from livestem.runtime.batch import run_batch
from livestem.runtime.settings import Settings
from livestem.stages.calibration import MOST, calibrate, candidates
from livestem.stages.spacing import LatticeResult, lattice_of

WARD, JOINT, FEWSHOT = ("ward", "haadf"), ("ward", "haadf+lines"), ("fewshot", "haadf")
PIXEL_NM = 0.05


# --- drift ----------------------------------------------------------------------------------------------------


def drifted(n: int, rotation_deg: float, along_slow: float, shear: float) -> Image:
    """A square lattice seen by a scan whose specimen moves: y stretched, lines displaced in proportion to y."""
    y, x = np.mgrid[:n, :n].astype(float)
    y = y / (1 + along_slow)
    x = x - shear * y
    c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    wave = 2 * np.pi * PIXEL_NM / STO_NM
    u, v = wave * (c * x + s * y), wave * (c * y - s * x)
    return np.exp(3 * (np.cos(u) + np.cos(v) - 2)) + 0.4 * np.exp(3 * (-np.cos(u) - np.cos(v) - 2))


@pytest.mark.parametrize("rotation_deg", [0, 8, 25, 45])
@pytest.mark.parametrize(("along_slow", "shear"), [(0.0, 0.0), (0.02, 0.0), (0.02, 0.02), (-0.03, 0.01)])
def test_a_square_lattice_is_measured_without_its_drift(rotation_deg, along_slow, shear):
    image = counted(np.random.default_rng(rotation_deg), drifted(120, rotation_deg, along_slow, shear), 5)
    found = lattice_of(image, PIXEL_NM)
    assert found.drift_free_nm == pytest.approx(STO_NM, rel=0.002)
    worst = max(abs(found.d_fast_nm - STO_NM), abs(found.d_slow_nm - STO_NM))
    if along_slow:
        assert worst > 5 * abs(found.drift_free_nm - STO_NM)


def test_its_error_is_as_large_as_stated():
    rng, pulls = np.random.default_rng(1), []
    image = drifted(60, 10, 0.01, 0.01)
    for _ in range(40):
        found = lattice_of(counted(rng, image, 10), PIXEL_NM)
        pulls.append((found.drift_free_nm - STO_NM) / found.drift_free_sigma_nm)
    assert 0.6 < np.std(pulls) < 1.4 and abs(np.mean(pulls)) < 0.5


def test_a_lattice_that_is_not_square_has_only_what_it_shows():
    y, x = np.mgrid[:80, :80] * PIXEL_NM * 2 * np.pi
    image = np.exp(3 * (np.cos(x / 0.36) + np.cos(y / 0.42) - 2))
    found = lattice_of(counted(np.random.default_rng(2), image, 20), PIXEL_NM)
    assert found.d_spacing_nm == pytest.approx(0.42, rel=0.005) and found.drift_free_nm is None
    assert calibrate("R0", 0.42, PIXEL_NM, [(WARD, found)]).factor == pytest.approx(1.0, rel=0.005)


# --- which region ---------------------------------------------------------------------------------------------


def test_a_class_is_taken_from_any_few_shot_map_and_a_cluster_from_the_first_that_has_it():
    both = ("fewshot", "haadf+lines")
    names = {WARD: ("R0", "R1"), FEWSHOT: ("STO", "LSO"), ("louvain", "haadf"): ("R0", "R2"), JOINT: ("R0", "R1")}
    names[both] = ("STO", "LSO")
    assert candidates("STO", names) == [(both, 0), (FEWSHOT, 0)]
    assert candidates("R1", names) == [(JOINT, 1)]
    assert candidates("R2", names) == [(("louvain", "haadf"), 1)]
    assert candidates("ward.haadf/R1", names) == [(WARD, 1)]
    assert candidates("fewshot.haadf/STO", names) == [(FEWSHOT, 0)]
    assert candidates("LFO", names) == candidates("ward.eds/R1", names) == []


def a_lattice(nm: float | None, reason: str | None = None) -> LatticeResult:
    return LatticeResult(d_spacing_nm=nm, d_spacing_sigma_nm=None if nm is None else 0.001, reason=reason)


def test_the_first_map_with_a_lattice_counts():
    found = calibrate("R0", 0.39, 0.05, [(JOINT, a_lattice(None, "amorphous")), (WARD, a_lattice(0.4))])
    assert (found.label_map, found.reason) == ("ward.haadf", None)
    assert found.factor == pytest.approx(0.975) and found.pixel_nm == pytest.approx(0.04875)
    assert found.factor_sigma == pytest.approx(0.975 * 0.001 / 0.4)


def test_no_lattice_no_factor_and_the_first_reason():
    found = calibrate("R0", 0.39, 0.05, [(JOINT, a_lattice(None, "amorphous")), (WARD, a_lattice(None, "too small"))])
    assert found.factor is found.pixel_nm is found.label_map is None
    assert found.reason == "its lattice in ward.haadf+lines has no spacing: amorphous"


@pytest.mark.parametrize("measured", [STO_NM / np.sqrt(2), STO_NM * MOST * 1.01, STO_NM / MOST / 1.01])
def test_another_spacing_of_the_crystal_is_no_calibration(measured):
    found = calibrate("R0", STO_NM, 0.05, [(JOINT, a_lattice(measured))])
    assert found.factor is None and found.measured_nm == measured
    assert "is 0.3905 nm its longest spacing?" in found.reason


# --- through a whole scan -------------------------------------------------------------------------------------

TRUE_PIXEL_NM = 0.052  # of an image recorded as one of 0.05 nm
CLASSES = SupportSet(
    classes=(
        SupportClass(name="STO", chips=((0, 0), (3, 1), (5, 2))),
        SupportClass(name="glass", chips=((0, 5), (3, 6), (5, 7))),
    )
)


def scan(tmp_path, **asked):
    """Process a field of crystal beside noise, HAADF only; return the result and its warnings."""
    rng = np.random.default_rng(5)
    image = np.hstack([counted(rng, square(90, TRUE_PIXEL_NM, rotation_deg=9), 40), rng.poisson(40.0, (90, 30))])
    of = plan((90, 120), frames=1, eds=False)
    sampling = Sampling(shape=(90, 120), pixel_nm=(PIXEL_NM, PIXEL_NM))
    of = msgspec.structs.replace(of, haadf=msgspec.structs.replace(of.haadf, sampling=sampling))
    of = msgspec.structs.replace(of, processing=Processing(chip_px=15, support=CLASSES, **asked))
    parts = [HaadfTile(frame=0, y=0, x=0, values=image.astype("<u2"))]
    found = run_batch(Field(of, parts), of, Settings(), tmp_path / "out")
    return json.loads((tmp_path / "out" / "result.json").read_text()), found.warnings


def test_a_known_substrate_calibrates_every_length(tmp_path):
    found, warnings = scan(tmp_path, calibrate_region="STO", d_nm=STO_NM)
    calibration = found["calibration"]
    assert calibration["label_map"] == "fewshot.haadf" and not warnings
    assert calibration["factor"] == pytest.approx(TRUE_PIXEL_NM / PIXEL_NM, abs=4 * calibration["factor_sigma"])
    assert calibration["pixel_nm"] == pytest.approx(TRUE_PIXEL_NM, rel=2e-3) and calibration["reason"] is None
    region = found["regions"]["fewshot.haadf"][0]
    assert region["d_fast_nm"] == pytest.approx(STO_NM, rel=3e-3)
    assert "calibrated on STO" in region["notes"]["lattice_peaks"]
    assert found["grid"]["pixel_nm"] == PIXEL_NM
    assert (found["parameters"]["calibrate_region"], found["parameters"]["d_nm"]) == ("STO", STO_NM)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"calibrate_region": "SrTiO3", "d_nm": STO_NM}, "no label map has it; there are R0, R1"),
        ({"calibrate_region": "glass", "d_nm": STO_NM}, "region too small"),
        ({"calibrate_region": "STO", "d_nm": 0.55}, "is 0.55 nm its longest spacing?"),
    ],
)
def test_what_cannot_calibrate_is_a_warning_and_nothing_is_lost(tmp_path, asked, says):
    found, warnings = scan(tmp_path, **asked)
    (warning,) = warnings
    assert warning.startswith(f"lengths are not calibrated on region {asked['calibrate_region']}: ") and says in warning
    assert found["calibration"]["factor"] is None and says in found["calibration"]["reason"]
    region = found["regions"]["fewshot.haadf"][0]
    assert region["d_fast_nm"] == pytest.approx(STO_NM * PIXEL_NM / TRUE_PIXEL_NM, rel=3e-3)


def test_without_being_asked_nothing_is_calibrated(tmp_path):
    assert scan(tmp_path)[0]["calibration"] is None
