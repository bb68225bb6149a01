"""HAADF kernels: the file as it is, what physics demands of it, and its scaling to other microscopes."""

from __future__ import annotations

import math
from importlib import resources

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import UsageError
from livestem.simulator import kernels
from livestem.simulator.instrument import ProbeBeam
from livestem.simulator.kernels import Kernel, cross_section_nm2, fits, incoherent, kernel, known_crystals

BEAM = ProbeBeam(
    energy_kv=300.0, convergence_mrad=18.0, collection_mrad=(50.0, 200.0), current_pa=100.0, source_nm=0.07
)
FILE = msgspec.json.decode(resources.files("livestem.simulator").joinpath("haadf_kernels.json").read_bytes())
COLUMNS = [(crystal, column) for crystal, columns in known_crystals().items() for column in columns]
WAVELENGTH_NM = 1.9687e-3  # of 300 kV electrons, from any textbook


def beam(**changes) -> ProbeBeam:
    return msgspec.structs.replace(BEAM, **changes)


def brightness(crystal: str, column: str, atoms: dict[str, float], thickness_nm: float, period_nm: float) -> float:
    """Integrated intensity of a column, nm^2: atoms per period times cross-section times contrast."""
    single = sum(number * cross_section_nm2(element, BEAM) for element, number in atoms.items())
    return kernel(crystal, column, thickness_nm).contrast * single * thickness_nm / period_nm


# --- the file ---------------------------------------------------------------------------------------------


def test_the_crystals_that_specimens_name_are_there():
    assert known_crystals()["SrTiO3-001"] == ("Sr", "Ti+O", "O")
    assert known_crystals()["LaFeO3-001"] == ("La", "Fe+O", "O")
    assert {"Cr-001", "Cr-111", "Pt-001", "Pt-110"} <= known_crystals().keys()


def test_every_kernel_is_possible():
    for crystal, column in COLUMNS:
        for thickness in np.linspace(0, 120, 61):
            k = kernel(crystal, column, thickness)
            assert 0.3 < k.contrast < 3
            assert 0.02 < k.core_nm < k.tail_nm < 0.6
            assert 0 < k.tail_share < 1


def test_two_gaussians_explain_the_picture_that_multislice_gave():
    for crystal in FILE["crystals"].values():
        assert max(crystal["picture_misfit"]) < 0.12  # rms of the difference by rms of the picture


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f | {"version": 2},
        lambda f: {key: value for key, value in f.items() if key != "free_space"},
        lambda f: f | {"energy_kv": "300"},
        lambda f: f | {"energy_kv": -300.0},
        lambda f: f | {"free_space": f["free_space"] | {"core": f["free_space"]["core"][:-1]}},
        lambda f: f | {"free_space": f["free_space"] | {"depth": f["free_space"]["depth"][::-1]}},
        lambda f: f | {"free_space": {key: [] for key in f["free_space"]}},
    ],
)
def test_a_file_that_is_not_what_the_script_writes_is_refused(spoil):
    msgspec.json.decode(msgspec.json.encode(FILE), type=kernels._Table)  # noqa: SLF001 - the format is private
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(spoil(FILE)), type=kernels._Table)  # noqa: SLF001


# --- channelling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("crystal", "column"), COLUMNS)
def test_a_vanishing_crystal_scatters_as_single_atoms_do(crystal, column):
    surface = kernel(crystal, column, 0.0)
    assert surface.contrast == 1
    thermal_nm = FILE["crystals"][crystal]["thermal_nm"]
    probe = incoherent(0.0, BEAM)
    widest, narrowest = max(thermal_nm.values()), min(thermal_nm.values())
    assert math.hypot(probe.core_nm, narrowest) - 1e-5 <= surface.core_nm <= math.hypot(probe.core_nm, widest) + 1e-5
    assert (surface.tail_share, surface.tail_nm) == pytest.approx((probe.tail_share, probe.tail_nm), rel=1e-3)
    assert kernel(crystal, column, 0.1).contrast == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("crystal", ["SrTiO3-001", "LaFeO3-001", "Cr-001", "Pt-001"])
def test_channelling_rises_then_falls(crystal):
    column = known_crystals()[crystal][0]
    contrast = [kernel(crystal, column, t).contrast for t in (0, 5, 100)]
    assert contrast[1] > 1.3 * contrast[0]
    assert contrast[2] < contrast[1]


@pytest.mark.parametrize(
    ("crystal", "columns"),
    [
        ("SrTiO3-001", [("Sr", {"Sr": 1}), ("Ti+O", {"Ti": 1, "O": 1}), ("O", {"O": 1})]),
        ("LaFeO3-001", [("La", {"La": 1}), ("Fe+O", {"Fe": 1, "O": 1}), ("O", {"O": 1})]),
    ],
)
def test_heavier_columns_are_brighter_and_all_grow_with_thickness(crystal, columns):
    thickness = np.linspace(0.5, 100, 200)
    heavy, middle, light = (
        np.array([brightness(crystal, name, atoms, t, 0.3905) for t in thickness]) for name, atoms in columns
    )
    assert np.all(heavy > middle)
    assert np.all(middle > 3 * light)
    for row in (heavy, middle, light):
        assert np.all(np.diff(row) > 0)


@pytest.mark.parametrize("crystal", known_crystals())
def test_columns_add_up_to_what_the_detector_counted(crystal):
    """The file holds the mean share of the beam beside the kernels: contrast, cross-sections and cell must give it."""
    entry = FILE["crystals"][crystal]
    u, v, w = entry["cell_nm"]
    per_cell = {
        "SrTiO3-001": {"Sr": {"Sr": 1}, "Ti+O": {"Ti": 1, "O": 1}, "O": {"O": 2}},
        "LaFeO3-001": {"La": {"La": 1}, "Fe+O": {"Fe": 1, "O": 1}, "O": {"O": 2}},
        "Cr-001": {"Cr": {"Cr": 2}},
        "Cr-110": {"Cr": {"Cr": 4}},
        "Cr-111": {"Cr": {"Cr": 6}},
        "Pt-001": {"Pt": {"Pt": 4}},
        "Pt-110": {"Pt": {"Pt": 2}},
        "Pt-111": {"Pt": {"Pt": 6}},
    }[crystal]
    for t, share in zip(entry["thickness_nm"], entry["mean_share"], strict=True):
        total = sum(brightness(crystal, name, atoms, t, w) for name, atoms in per_cell.items()) / (u * v)
        assert total == pytest.approx(share, rel=0.05)  # the O column is held to the others' by a prior


def test_nodes_are_exact_and_between_them_nothing_jumps():
    entry = FILE["crystals"]["SrTiO3-001"]
    for i, t in enumerate(entry["thickness_nm"]):
        sr = entry["columns"]["Sr"]
        expected = Kernel(sr["contrast"][i], sr["core_nm"][i], sr["tail_share"][i], sr["tail_nm"][i])
        assert kernel("SrTiO3-001", "Sr", t) == expected
    last = entry["thickness_nm"][-1]
    assert kernel("SrTiO3-001", "Sr", last + 50) == kernel("SrTiO3-001", "Sr", last)


@given(st.sampled_from(COLUMNS), st.floats(0, 120))
def test_a_little_thicker_is_a_little_different(which, thickness):
    here, there = kernel(*which, thickness), kernel(*which, thickness + 1e-3)
    assert here.contrast == pytest.approx(there.contrast, abs=2e-3)
    assert here.core_nm == pytest.approx(there.core_nm, abs=1e-4)
    assert here.tail_share == pytest.approx(there.tail_share, abs=1e-3)
    assert here.tail_nm == pytest.approx(there.tail_nm, abs=1e-3)


# --- single atoms -----------------------------------------------------------------------------------------


def test_cross_sections_go_as_a_power_of_z_between_rutherford_and_screening():
    z = {e: SYMBOLS.index(e) + 1 for e in FILE["cross_section_nm2"]}
    power, _ = np.polyfit(np.log(list(z.values())), np.log(list(FILE["cross_section_nm2"].values())), 1)
    assert 1.6 < power < 1.9


def test_cross_sections_of_light_atoms_are_near_rutherfords():
    """The closed form without screening: 4 pi (Z e^2 / 2 p v)^2 (1/sin^2 inner/2 - 1/sin^2 outer/2)."""
    momentum_speed = (300**2 + 2 * 300 * 511) / (300 + 511)
    angles = math.sin(0.025) ** -2 - math.sin(0.1) ** -2
    for element, z in (("C", 6), ("N", 7), ("O", 8)):
        rutherford = 4 * math.pi * (z * 1.44e-3 / (2 * momentum_speed)) ** 2 * angles
        assert cross_section_nm2(element, BEAM) == pytest.approx(rutherford, rel=0.15)


def test_lanthanum_outshines_oxygen_as_much_as_it_should():
    ratio = cross_section_nm2("La", BEAM) / cross_section_nm2("O", BEAM)
    assert (57 / 8) ** 1.6 < ratio < (57 / 8) ** 2


def test_every_element_has_a_cross_section_that_lies_between_its_neighbours_in_the_table():
    for element, value in FILE["cross_section_nm2"].items():
        assert cross_section_nm2(element, BEAM) == pytest.approx(value, rel=1e-9)
    values = [cross_section_nm2(element, BEAM) for element in SYMBOLS[:92]]
    assert np.all(np.diff(values) > 0)
    assert values[0] > 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    # ratios to 300 kV, 18 mrad, 50-200 mrad as the script's `cross_section` gives them
    [
        ({"collection_mrad": (80.0, 200.0)}, {"C": 0.365, "Ti": 0.379, "La": 0.406, "Pt": 0.416}),
        ({"collection_mrad": (40.0, 200.0)}, {"C": 1.592, "Ti": 1.547, "La": 1.486, "Pt": 1.453}),
        ({"energy_kv": 200.0}, {"C": 1.874, "Ti": 1.820, "La": 1.714, "Pt": 1.643}),
    ],
)
def test_another_microscope_scatters_as_multislice_says(changes, expected):
    for element, ratio in expected.items():
        got = cross_section_nm2(element, beam(**changes)) / cross_section_nm2(element, BEAM)
        assert got == pytest.approx(ratio, rel=0.09)


# --- free space -------------------------------------------------------------------------------------------


def test_the_probe_in_focus_is_the_airy_disc():
    """The best Gaussian has the disc's width at half its height, 0.51 lambda / alpha, within a tenth."""
    fwhm = incoherent(0.0, BEAM).core_nm * 2 * math.sqrt(2 * math.log(2))
    assert fwhm == pytest.approx(0.51 * WAVELENGTH_NM / 18e-3, rel=0.1)


@pytest.mark.parametrize("thickness_nm", [50.0, 100.0])
def test_a_thick_foil_spreads_the_probe_as_the_cone_does(thickness_nm):
    """A cone of half-angle alpha: rms over depth of the disc's sigma, alpha z / 2, is alpha t / sqrt(12)."""
    k = incoherent(thickness_nm, BEAM)
    rms = math.sqrt((1 - k.tail_share) * k.core_nm**2 + k.tail_share * k.tail_nm**2)
    assert k.contrast == 1
    assert rms == pytest.approx(18e-3 * thickness_nm / math.sqrt(12), rel=0.2)


@given(st.floats(60, 300), st.floats(5, 30), st.floats(0, 100))
def test_free_space_scales(energy_kv, convergence_mrad, thickness_nm):
    """Lengths in lambda / alpha and depths in lambda / alpha^2: any beam is the reference beam, stretched."""
    other = beam(energy_kv=energy_kv, convergence_mrad=convergence_mrad, collection_mrad=(50.0, 200.0))
    wavelength = 1.23984 / math.sqrt(energy_kv**2 + 2 * energy_kv * 511)
    stretch = wavelength / convergence_mrad / (WAVELENGTH_NM / 18)
    depth = wavelength / convergence_mrad**2 / (WAVELENGTH_NM / 18**2)
    a, b = incoherent(thickness_nm * depth, other), incoherent(thickness_nm, BEAM)
    assert a.core_nm == pytest.approx(b.core_nm * stretch, rel=2e-3)
    assert a.tail_nm == pytest.approx(b.tail_nm * stretch, rel=2e-3)
    assert a.tail_share == pytest.approx(b.tail_share, abs=2e-3)


def test_a_crystal_on_its_axis_holds_the_probe_together():
    """Channelling: less of the image is in the tails than if the probe went through empty space."""
    for crystal in ("SrTiO3-001", "LaFeO3-001", "Cr-001"):
        column = known_crystals()[crystal][0]
        assert kernel(crystal, column, 50.0).tail_share < incoherent(50.0, BEAM).tail_share


# --- asking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"current_pa": 20.0, "source_nm": 0.1}, True),  # neither changes a kernel
        ({"collection_mrad": (50.06, 200.0)}, True),
        ({"energy_kv": 200.0}, False),
        ({"convergence_mrad": 25.0}, False),
        ({"collection_mrad": (60.0, 200.0)}, False),
        ({"collection_mrad": (50.0, 180.0)}, False),
    ],
)
def test_fits_says_whether_the_beam_is_that_of_the_kernels(changes, expected):
    assert fits(beam(**changes)) is expected


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: kernel("SrTiO3-011", "Sr", 10.0), ("SrTiO3-011", "SrTiO3-001", "Pt-001")),
        (lambda: kernel("SrTiO3-001", "La", 10.0), ("La", "SrTiO3-001", "Ti+O")),
        (lambda: cross_section_nm2("Xx", BEAM), ("Xx",)),
    ],
)
def test_an_unknown_name_is_refused_in_one_line_that_names_the_known(call, names):
    with pytest.raises(UsageError) as refused:
        call()
    assert "\n" not in str(refused.value)
    for name in names:
        assert name in str(refused.value)
