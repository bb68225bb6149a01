"""Specimens are data: those that come with livestem are what their sources say, and an impossible one is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from livestem.domain.errors import UsageError
from livestem.simulator.geometry import Geometry
from livestem.simulator.instrument import (
    Drift,
    EdsDetector,
    HaadfDetector,
    ProbeBeam,
    ScanSettings,
    StageLimits,
)
from livestem.simulator.kernels import fits, known_crystals
from livestem.simulator.materials import Amorphous, Crystal, Grains, Site
from livestem.simulator.parts import Border, Domains, Inclusion, Layer, Particles
from livestem.simulator.specimen import Specimen
from livestem.simulator.specimen_file import load_specimen, packaged_specimens

ROOT = Path(__file__).parents[2]
FOLDER, PAGE = ROOT / "configs" / "specimens", ROOT / "docs" / "specimens.md"
PRISTINE, DEFECTIVE = ("pristine-0dpa", "pristine-0.1dpa"), ("defective-0dpa", "defective-0.1dpa")
PAPER = PRISTINE + DEFECTIVE
BASE = "lfo-on-sto"
WEIGHTS = {
    "C": 12.011,
    "Cr": 51.996,
    "Fe": 55.845,
    "La": 138.905,
    "O": 15.999,
    "Pt": 195.084,
    "Sr": 87.62,
    "Ti": 47.867,
}


@pytest.fixture(scope="module")
def specimens() -> dict[str, Specimen]:
    return {name: load_specimen(name) for name in packaged_specimens()}


def of(specimen: Specimen, name: str):
    return next(m for m in specimen.material if m.name == name)


def class_map(specimen: Specimen, seed: int, side: int = 96):
    (height, width), middles = specimen.field_nm, (np.arange(side) + 0.5) / side
    y, x = middles * height, middles * width
    return Geometry(specimen, seed).class_at(y[:, None], x[None, :])


# --- those that come with livestem


def test_the_papers_four_samples_a_demo_and_particles_come_with_livestem():
    assert set(packaged_specimens()) == {*PAPER, "demo", "nanoparticles"}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", packaged_specimens())
def test_every_specimen_shows_all_its_classes_whatever_the_seed(specimens, name, seed):
    specimen = specimens[name]
    labels = class_map(specimen, seed)
    shares = np.bincount(labels.ravel(), minlength=len(specimen.classes)) / labels.size
    assert labels.dtype == np.int8 and shares.size == len(specimen.classes)
    assert shares.min() > 0.03  # of the field: enough for support chips of every class


@pytest.mark.parametrize("name", packaged_specimens())
def test_seeds_make_a_family_and_each_seed_one_specimen(specimens, name):
    specimen = specimens[name]
    one, again, other = class_map(specimen, 0), class_map(specimen, 0), class_map(specimen, 1)
    assert np.array_equal(one, again)
    drawn = specimen.domains or specimen.particles or any(layer.border.roughness_nm for layer in specimen.layer)
    assert np.array_equal(one, other) is not bool(drawn)


def test_pixels_are_the_papers(specimens):
    pixels = [1000 * specimens[name].field_nm[0] / specimens[name].scan.shape[0] for name in PAPER]
    assert pixels == pytest.approx([50, 35.5, 50, 71])  # pm, science.md
    for name in PAPER:
        s = specimens[name]
        assert s.scan.shape == (512, 512) and s.field_nm[0] == s.field_nm[1] and s.scan.dwell_s == 2e-6
        assert (s.beam.energy_kv, s.beam.convergence_mrad, s.beam.collection_mrad) == (300, 18, (50, 200))
        assert (s.eds.channels, s.eds.scale_kev, s.eds.offset_kev) == (4096, 0.01, -0.25)
        energy = s.eds.offset_kev + s.eds.scale_kev * np.arange(s.eds.channels)
        assert (energy >= 0.2 - 1e-9).sum() == 4051  # the paper's channels
        assert set(s.strays) == {"Al", "C", "Cu", "Ga", "N"}


def test_layers_lie_in_the_papers_order_and_thickness(specimens):
    for name in PAPER:
        cap, film, substrate = specimens[name].layer
        assert (film.material, substrate.material) == ("LFO", "STO")
        assert cap.material == ("Cr" if name in PRISTINE else "Pt")
        assert film.thickness_nm is not None and 10 <= film.thickness_nm <= 15
    for pair in (PRISTINE, DEFECTIVE):
        assert len({specimens[name].layer[1].thickness_nm for name in pair}) == 1  # a pair is one film


def test_densities_are_those_of_the_literature(specimens):
    # g/cm3: Cr 7.19, Pt 21.45, SrTiO3 5.12 (x-ray densities); LaFeO3 6.64 in bulk, squeezed by 0.75 % on SrTiO3;
    # evaporated carbon 1.75. 1 g/cm3 = 602.2 u/nm3
    expected = {"Cr": 7.19, "Pt": 21.45, "STO": 5.12, "LFO": 6.64 * 1.0075, "carbon": 1.75}
    for specimen in specimens.values():
        for material in specimen.classes:
            if material.name in expected:
                per_nm3 = sum(n * WEIGHTS[e] for e, n in material.structure.density.items())
                assert per_nm3 / 602.2 == pytest.approx(expected[material.name], rel=0.01), material.name


def test_every_zone_of_a_metal_is_a_projection_of_its_lattice(specimens):
    """Nearest columns of a zone [hkl] are as far apart as the lattice says."""
    a_cr, a_pt = 0.2885, 0.3924
    nearest = {
        "Cr": [a_cr / math.sqrt(2), a_cr * math.sqrt(2 / 3), a_cr / 2],
        "Pt": [a_pt / 2, a_pt * math.sqrt(3 / 8), a_pt / math.sqrt(6)],
    }
    for cap, expected in nearest.items():
        structure = of(specimens["pristine-0dpa" if cap == "Cr" else "defective-0dpa"], cap).structure
        assert isinstance(structure, Grains)
        assert [_nearest(zone) for zone in structure.zones] == pytest.approx(expected, rel=1e-3)
        periods = [zone.period_nm for zone in structure.zones]
        a, repeats = (a_cr, [1, math.sqrt(3) / 2, math.sqrt(2)]) if cap == "Cr" else (a_pt, [1, 0.5**0.5, math.sqrt(3)])
        assert periods == pytest.approx([a * r for r in repeats], rel=1e-3)


def test_the_film_is_coherent_in_the_plane_and_relaxed_along_its_growth(specimens):
    film, substrate = (of(specimens["pristine-0dpa"], n).structure for n in ("LFO", "STO"))
    assert isinstance(film, Crystal) and isinstance(substrate, Crystal)
    assert film.cell_nm[0] == film.period_nm == substrate.cell_nm[0] == 0.3905
    bulk = (0.2429 / 4) ** (1 / 3)  # nm, pseudo-cubic
    strain = film.cell_nm[0] / bulk - 1
    assert film.cell_nm[1] == pytest.approx(bulk * (1 - 2 * 0.3 / (1 - 0.3) * strain), abs=2e-4)
    for name in PAPER[1::2]:  # irradiation swells the growth direction only
        swollen = of(specimens[name], "LFO").structure
        assert swollen.cell_nm[0] == 0.3905 and film.cell_nm[1] < swollen.cell_nm[1] < 1.01 * film.cell_nm[1]
        assert film.static_nm < swollen.static_nm and film.thermal_nm < swollen.thermal_nm


@pytest.mark.parametrize("name", [*PAPER[1::2], "demo"])
def test_amorphous_film_differs_as_the_paper_found(specimens, name):
    change = _change(specimens[name], "LFO-disordered")
    if name == "demo":  # over all samples
        assert 1.4 <= change["O"] <= 7.5 and -12.1 <= change["La"] <= -3.0 and -14.3 <= change["Fe"] <= -1.9
        return
    assert 1.4 <= change["O"] <= 3.1 and -6.1 <= change["La"] <= -3.0 and -14.3 <= change["Fe"] <= -9.7
    knocked_in = {e for e in of(specimens[name], "LFO-disordered").composition if e not in ("La", "Fe", "O")}
    cap = specimens[name].layer[0].material
    assert knocked_in == {cap, "Sr", "Ti"}  # from above and below, nothing else


@pytest.mark.parametrize("name", DEFECTIVE)
def test_columnar_domains_differ_as_the_paper_found(specimens, name):
    change = _change(specimens[name], "LFO-defective")
    assert 1.4 <= change["O"] <= 7.5 and -12.1 <= change["La"] <= -3.0 and -14.3 <= change["Fe"] <= -1.9
    film, domain = (of(specimens[name], n).structure for n in ("LFO", "LFO-defective"))
    assert isinstance(film, Crystal) and isinstance(domain, Crystal)
    assert all(1 < mine / its < 1.02 for mine, its in zip(domain.cell_nm, film.cell_nm, strict=True))
    assert domain.turn_deg != 0 and domain.static_nm > film.static_nm
    assert all(n <= 1 for site in domain.sites for n in site.atoms.values())  # vacancies, not atoms put in


def test_domains_are_vertical_striations(specimens):
    """Classes change far more often along the film than down through it."""
    specimen = specimens["defective-0dpa"]
    u = np.arange(0.5, 25, 0.05)
    v = np.arange(7, 17, 0.05)
    labels = Geometry(specimen, 0).foil_class(*np.meshgrid(u, v))
    names = np.array(specimen.class_names)[labels]
    assert set(np.unique(names)) == {"LFO", "LFO-defective"}
    along, down = (np.diff(labels, axis=axis) != 0 for axis in (1, 0))
    assert along.mean() > 4 * down.mean() > 0
    share = np.mean([(Geometry(specimen, seed).foil_class(*np.meshgrid(u, v)) == 2).mean() for seed in range(20)])
    assert share == pytest.approx(specimen.domains[0].share, abs=0.05)


@pytest.mark.parametrize("name", packaged_specimens())
def test_every_number_of_microscope_and_structure_says_where_it_comes_from(name):
    for path in (FOLDER / f"{name}.toml", FOLDER / "base" / f"{BASE}.toml"):
        before_materials = path.read_text("utf-8").split("[[material]]")[0]
        for line in before_materials.splitlines():
            if re.match(r"\w+ = [\[\d-]", line):
                assert "#" in line, f"{path.name}: {line}"


@pytest.mark.parametrize("name", packaged_specimens())
def test_rates_are_those_of_real_detectors(specimens, name):
    eds = specimens[name].eds
    assert 0.02 <= eds.counts_per_pixel <= 0.4
    if eds.zero_peak_share:  # strobes come by the clock: 0.196 per 2 us pixel, whatever the photons
        strobes = eds.counts_per_pixel * eds.zero_peak_share / (1 - eds.zero_peak_share)
        assert strobes == pytest.approx(0.196, rel=0.05)


@pytest.mark.parametrize("name", [*PAPER, "demo"])
def test_delocalisation_follows_from_the_foil(specimens, name):
    """Goldstein's spread and the probe's cone, averaged over depth; the probe; the range of excitation."""
    specimen = specimens[name]
    t = specimen.thickness_nm
    z, a, rho = (57 + 26 + 3 * 8) / 5, 242.75 / 5, 6.69  # of LaFeO3
    exit_nm = 625 * z / 300 * math.sqrt(rho / a) * (t * 1e-7) ** 1.5 * 1e7  # diameter that holds 90 %
    spread = exit_nm / 2 / math.sqrt(2 * math.log(10)) / 2  # sigma; variance goes as depth^3, its mean is a quarter
    cone = 0.018 * t / math.sqrt(48)  # a disc of radius alpha |z|, -t/2 < z < t/2
    expected = math.sqrt(spread**2 + cone**2 + 0.038**2 + 0.10**2)
    assert specimen.eds.delocalisation_nm == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", packaged_specimens())
def test_every_kernel_that_a_specimen_names_is_computed_for_its_microscope(specimens, name):
    known, named = known_crystals(), 0
    for material in specimens[name].classes:
        structure = material.structure
        zones = structure.zones if isinstance(structure, Grains) else (structure,)
        for zone in zones:
            if isinstance(zone, Crystal) and zone.kernel is not None:
                named += 1
                assert {site.column for site in zone.sites} <= set(known[zone.kernel]), (material.name, zone.kernel)
    assert named and fits(specimens[name].beam)


# --- their page


def test_the_pages_example_is_a_specimen(tmp_path):
    (example,) = re.findall(r"```\n(base = .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "mine.toml").write_text(example, "utf-8")
    specimen = load_specimen(tmp_path / "mine.toml")
    assert specimen.class_names == ("LFO", "STO")
    assert specimen.field_nm[0] / specimen.scan.shape[0] == pytest.approx(0.05)  # as its comment says


def test_the_page_describes_every_key():
    page = PAGE.read_text("utf-8")
    kinds = (Specimen, ProbeBeam, ScanSettings, Drift, HaadfDetector, EdsDetector, StageLimits, Layer, Border)
    for kind in (*kinds, Inclusion, Domains, Particles, Crystal, Grains, Amorphous, Site):
        for key in kind.__struct_fields__:
            assert re.search(rf"`([\[\w]+\.)?\[*{key}(\.\w+|\]+)?`", page), (kind.__name__, key)


def test_the_pages_table_is_what_the_files_say(specimens):
    rows = {
        cells[0]: cells[1:]
        for line in PAGE.read_text("utf-8").split("## The six")[1].split("What is common")[0].splitlines()
        if line.startswith("|")
        for cells in [[c.strip() for c in line.strip("|").split("|")]]
    }
    for number, title in enumerate(rows[""]):
        s = specimens[title.strip("`")]
        assert float(rows["field, nm"][number]) == s.field_nm[0]
        assert rows["pixels"][number] == "{} x {}".format(*s.scan.shape)
        assert float(rows["pixel, pm"][number]) == pytest.approx(1000 * s.field_nm[0] / s.scan.shape[0])
        assert float(rows["foil, nm"][number]) == s.thickness_nm
        assert float(rows["photons per pixel and frame"][number]) == s.eds.counts_per_pixel
        if len(s.layer) == 3:
            assert rows["cap, nm in the field"][number] == f"{s.layer[0].material}, {s.layer[0].thickness_nm}"
            assert float(rows["film, nm"][number]) == s.layer[1].thickness_nm
            film = of(s, "LFO").structure
            assert rows["film's cell (u, v), nm"][number] == "{:.4f}, {:.4f}".format(*film.cell_nm)
            assert float(rows["static disorder, pm rms"][number]) == 1000 * film.static_nm
            roughness = [float(rows[f"film to {other}, rms nm"][number]) for other in ("cap", "substrate")]
            assert roughness == [layer.border.roughness_nm for layer in s.layer[:2]]
        for name, row in (("LFO-disordered", "its La, Fe, O, at.%"), ("LFO-defective", "their La, Fe, O, at.%")):
            if name in s.class_names:
                shown = [float(x) for x in rows[row][number].split(", ")]
                assert shown == pytest.approx([of(s, name).composition[e] for e in ("La", "Fe", "O")], abs=0.01)


# --- a base


OWN = """
base = "mine"
name = "own"
title = "own"
[scan]
dwell_s = 4e-6
[[layer]]
material = "STO"
"""


def own_file(tmp_path: Path, text: str = OWN, base: str | None = None) -> Path:
    (tmp_path / "base").mkdir()
    if base is None:
        packaged = (FOLDER / "base" / f"{BASE}.toml").read_text("utf-8")
        base = "thickness_nm = 20.0\nfield_nm = [8.0, 8.0]\n" + packaged
    (tmp_path / "base" / "mine.toml").write_text(base, "utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_file_states_only_what_differs_from_its_base(tmp_path):
    specimen = load_specimen(own_file(tmp_path))
    base = msgspec.toml.decode((tmp_path / "base" / "mine.toml").read_bytes())
    assert specimen.scan.dwell_s == 4e-6  # its own
    assert list(specimen.scan.shape) == base["scan"]["shape"]  # its neighbours in the table: the base's
    assert specimen.scan.drift.wander_nm == base["scan"]["drift"]["wander_nm"]  # tables within tables too
    assert specimen.thickness_nm == 20 and list(specimen.wedge) == base["wedge"]
    assert [m.name for m in specimen.material] == ["STO"]  # materials that it does not use are left out
    assert specimen.material[0] == load_specimen("demo").classes[-1]


def test_its_own_material_replaces_the_bases_of_that_name(tmp_path):
    own = (
        OWN
        + """
[[material]]
name = "STO"
title = "glass"
[material.structure]
type = "amorphous"
composition = { O = 100.0 }
atoms_per_nm3 = 50.0
thermal_nm = 0.01
radius_nm = { O = 0.1 }
"""
    )
    specimen = load_specimen(own_file(tmp_path, own))
    assert [(m.title, m.composition) for m in specimen.material] == [("glass", {"O": 100})]


def test_lists_are_replaced_whole_and_tables_merged_by_key(tmp_path):
    own = OWN.replace('title = "own"', 'title = "own"\nwedge = [0.0, 0.0]\nstrays = { C = 9.0 }')
    specimen = load_specimen(own_file(tmp_path, own))
    assert specimen.wedge == (0, 0)
    assert specimen.strays["C"] == 9 and specimen.strays["Ga"] == load_specimen("demo").strays["Ga"]


def test_a_base_beside_the_file_comes_before_the_packaged_one(tmp_path):
    path = own_file(tmp_path, OWN.replace('"mine"', f'"{BASE}"'))
    (tmp_path / "base" / "mine.toml").rename(tmp_path / "base" / f"{BASE}.toml")
    assert load_specimen(path).thickness_nm == 20  # which the packaged one does not state
    (tmp_path / "base" / f"{BASE}.toml").unlink()
    with pytest.raises(UsageError, match="thickness_nm"):
        load_specimen(path)


def test_a_material_that_neither_file_has_is_named(tmp_path):
    with pytest.raises(UsageError, match="no material named Au"):
        load_specimen(own_file(tmp_path, OWN.replace('"STO"', '"Au"')))


@pytest.mark.parametrize("base", ['"nothing"', '"../mine"', '"base/mine"', '""', "3", "[]"])
def test_a_base_that_is_not_there_is_refused(tmp_path, base):
    path = own_file(tmp_path, OWN.replace('"mine"', base))
    with pytest.raises(UsageError, match=r"own\.toml: .*base.*base/.*\.toml") as error:
        load_specimen(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("base", ["[scan", 'base = "lfo-on-sto"\n', "colour = 3\n"])
def test_a_base_that_is_wrong_is_refused(tmp_path, base):
    with pytest.raises(UsageError, match=r"own\.toml") as error:
        load_specimen(own_file(tmp_path, base=base))
    assert "\n" not in str(error.value)


# --- impossible ones

DEMO, DEFECTS, PARTICLES = "demo", "defective-0dpa", "nanoparticles"
IMPOSSIBLE = [
    # keys and values
    (DEMO, 'name = "demo"', 'name = "demo"\ncolour = "red"', "colour"),
    (DEMO, 'name = "demo"', 'name = "de mo"', "de mo"),
    (DEMO, "[eds]", "[eds]\nbrightness = 1.0", "brightness"),
    (DEMO, "[eds]", "[eds", ""),
    (DEMO, "thickness_nm = 30.0", "thickness_nm = -30.0", "thickness_nm"),
    (DEMO, "thickness_nm = 30.0", "thickness_nm = inf", "thickness_nm"),
    (DEMO, "thickness_nm = 30.0", "thickness_nm = nan", "thickness_nm"),
    (DEMO, "thickness_nm = 30.0", "thickness_nm = 30.0\ncritical_dose_e_nm2 = 0.0", "critical_dose_e_nm2"),
    (DEMO, "thickness_nm = 30.0", "thickness_nm = 30.0\nreach_nm = 2000.0", "reach_nm"),
    (DEMO, "field_nm = [16.0, 16.0]", "field_nm = [16000.0, 16.0]", "field_nm"),
    (DEMO, "rotation_deg = 2.0", "rotation_deg = 60.0", "rotation_deg"),
    (DEMO, "shape = [320, 320]", "shape = [320, 0]", "shape"),
    (DEMO, "zero_peak_share = 0.0", "zero_peak_share = 1.0", "zero_peak_share"),
    (DEMO, "counts_per_pixel = 0.4", "counts_per_pixel = -0.4", "counts_per_pixel"),
    (PARTICLES, "collection_mrad = [50.0, 200.0]", "collection_mrad = [200.0, 50.0]", "inner, outer"),
    (PARTICLES, "convergence_mrad = 18.0", "convergence_mrad = 60.0", "inner, outer"),
    (PARTICLES, "resolution_mnka_ev = 130.0", "resolution_mnka_ev = 13.0", "resolution_mnka_ev"),
    (PARTICLES, "noise_ev = 44.0", "noise_ev = 4.4", "noise_ev"),
    (PARTICLES, "take_off_deg = 18.0", "take_off_deg = 0.0", "take_off_deg"),
    (PARTICLES, "wander_s = 60.0", "wander_s = 0.0", "wander_s"),
    (PARTICLES, "row_jitter_nm = 0.01", "row_jitter_nm = 1e4", "row_jitter_nm"),
    (PARTICLES, "flyback_nm = 0.1", "flyback_nm = 1e9", "flyback_nm"),
    (PARTICLES, "current_pa = 100.0", "current_pa = 1e11", "current_pa"),
    (PARTICLES, "[scan.drift]", "[scan.drift]\nvelocity = 1.0", "velocity"),
    (PARTICLES, "area_nm2 = 3600.0", "area_nm2 = -3600.0", "area_nm2"),
    (PARTICLES, "[beam]", "[beams]", "beam"),
    # layers
    (DEMO, "thickness_nm = 10.0", "thickness_nm = 14.0", "leave nothing of STO"),
    (DEMO, 'material = "STO"', 'material = "STO"\nthickness_nm = 3.0', "reaches to the bottom"),
    (DEMO, 'material = "STO"', 'material = "STO"\nborder = { roughness_nm = 0.1 }', "has no lower border"),
    (DEMO, "thickness_nm = 3.1", "", "needs thickness_nm"),
    (DEMO, 'material = "Cr"', 'material = "Au"', "no material named Au"),
    (DEMO, "thickness_nm = 3.1", "thickness_nm = 3.1\nborder = { roughness_nm = 2.0 }", "tears a layer"),
    (DEMO, "thickness_nm = 3.1", "thickness_nm = 3.1\nborder = { terrace_nm = 0.0 }", "terrace_nm"),
    (PARTICLES, '[[layer]]\nmaterial = "carbon"', "", "layer"),
    # foil
    (DEMO, "thickness_nm = 30.0", "thickness_nm = 30.0\nwedge = [4.0, 0.0]", "thin at a corner"),
    (DEMO, "thickness_nm = 30.0", "thickness_nm = 30.0\nwedge = [nan, 0.0]", "finite"),
    (DEMO, "thickness_nm = 30.0", "thickness_nm = 30.0\nsurface_nm = 15.0", "amorphous"),
    # what lies within the layers and on them
    (DEMO, 'within = "LFO"', 'within = "Au"', "is no layer"),
    (DEMO, 'within = "LFO"', 'within = "STO"', "does not lie in the layer STO"),
    (DEMO, "[[4.0, 3.9], [13.4, 3.9], [8.7, 11.6]]", "[[4.0, 3.9], [13.4, 3.9]]", "encloses no area"),
    (DEMO, "[8.7, 11.6]]", "[8.7, 3.9]]", "encloses no area"),
    (DEMO, "[8.7, 11.6]]", "[8.7, 31.6]]", "outside the field"),
    (DEMO, 'material = "LFO-disordered"', 'material = "STO"', "LFO-disordered is in no layer"),
    (DEFECTS, 'within = "LFO"', 'within = "film"', "is no layer"),
    (DEFECTS, "share = 0.4", "share = 0.9", "share"),
    (DEFECTS, "width_nm = 2.5", "width_nm = 0.0", "width_nm"),
    (DEFECTS, "roughness_nm = 0.4 ", "roughness_nm = 4.0 ", "tears a layer"),
    (PARTICLES, 'material = "Pt"', 'material = "carbon"', "Pt is in no layer"),
    (PARTICLES, "number = 14", "number = 0", "number"),
    (PARTICLES, "spread = 0.25", "spread = 0.9", "spread"),
    # materials
    (PARTICLES, 'name = "Pt"', 'name = "carbon"', "materials repeat"),
    (PARTICLES, "composition = { C = 100.0 }", "composition = { C = 90.0 }", "sums to 90 %"),
    (PARTICLES, "radius_nm = { C = 0.07 }", "radius_nm = { C = 0.12 }", "random packing"),
    (PARTICLES, "tilt_deg = 2.0", "tilt_deg = 20.0", "tilt_deg"),
    (PARTICLES, "cell_nm = [0.1602, 0.27747]", "cell_nm = [0.1702, 0.27747]", "differ in density"),
    (DEMO, "O = 62.4", "O = 72.4", "sums to 110 %"),
    (DEMO, "radius_nm = { La = 0.13, Fe = 0.08,", "radius_nm = { La = 0.13, Co = 0.08,", "same elements"),
    (DEMO, 'type = "amorphous"', 'type = "liquid"', "liquid"),
    (DEFECTS, "{ La = 0.838 }", "{ Xx = 0.838 }", "unknown element Xx"),
    (DEFECTS, "{ La = 0.838 }", "{}", "atoms"),
    (DEFECTS, "{ La = 0.838 }", "{ La = 0.0 }", "atoms"),
    (DEFECTS, "turn_deg = 1.5", "turn_deg = 50.0", "turn_deg"),
    (DEFECTS, "at = [0.5, 0.0]", "at = [0.5, 1.0]", "at"),
    (PARTICLES, "[strays]", "[strays]\nXx = 1.0", "unknown element Xx"),
    (DEFECTS, 'kernel = "LaFeO3-001"', 'kernel = "LaFeO3-999"', "no kernel LaFeO3-999; there are SrTiO3-001"),
    (DEFECTS, 'kernel = "LaFeO3-001"', 'kernel = "SrTiO3-001"', "kernel SrTiO3-001 has no column"),
    # shapes that cannot be merged with a base
    (DEMO, "[[inclusion]]", "[inclusion]", "inclusion"),
    (DEMO, 'name = "demo"', 'name = "demo"\nparticles = 3', "particles"),
    (DEMO, 'name = "demo"', 'name = "demo"\nparticles = [3]', "particles"),
    (DEMO, 'material = "Cr"', 'material = ["Cr"]', "layer[0].material"),
    (DEMO, 'name = "LFO-disordered"', 'name = ["LFO-disordered"]', "material[0].name"),
]


@pytest.mark.parametrize(("name", "old", "new", "says"), IMPOSSIBLE)
def test_an_impossible_specimen_is_refused_in_one_line(tmp_path, name, old, new, says):
    text = (FOLDER / f"{name}.toml").read_text("utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(UsageError) as error:
        load_specimen(path)
    assert says in str(error.value) and "mine.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_specimen_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"use one of defective-0\.1dpa, .*, or the path of a \.toml file"):
        load_specimen("nothing")
    with pytest.raises(UsageError, match="cannot read specimen"):
        load_specimen(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(UsageError, match=r"latin\.toml"):
        load_specimen(tmp_path / "latin.toml")


def _change(specimen: Specimen, name: str) -> dict[str, float]:
    """Percent by which La, Fe and O differ from the crystal."""
    crystal, other = of(specimen, "LFO").composition, of(specimen, name).composition
    assert crystal == pytest.approx({"La": 20, "Fe": 20, "O": 60})
    assert sum(other.values()) == pytest.approx(100, abs=0.01)
    return {e: 100 * (other[e] / crystal[e] - 1) for e in crystal}


def _nearest(zone: Crystal) -> float:
    """Distance of neighbouring columns, nm."""
    span = np.arange(-2, 3)
    i, j = (g.ravel() for g in np.meshgrid(span, span))
    places = [np.stack([(i + s.at[0]) * zone.cell_nm[0], (j + s.at[1]) * zone.cell_nm[1]], axis=1) for s in zone.sites]
    apart = np.linalg.norm(np.concatenate(places) - places[0][i.size // 2], axis=1)
    return float(apart[apart > 1e-9].min())
