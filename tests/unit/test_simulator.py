"""The virtual microscope: its specimen is possible, its physics true, its frames reproducible, its truth the truth."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import astuple
from importlib import resources

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid, plan_grid
from livestem.domain.names import check_name
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.simulator import Simulation, Truth, load_specimen, packaged_specimens
from livestem.simulator.atoms import Atoms, place_atoms, random_packing
from livestem.simulator.eds import photons
from livestem.simulator.haadf import (
    cross_section_nm2,
    detect,
    electrons_per_pixel,
    probe_sigma_nm,
    render,
)
from livestem.simulator.instrument import HaadfDetector
from livestem.simulator.specimen import Inclusion

DEMO = load_specimen("demo")
CR, LFO, DISORDERED, STO = range(4)
LAYERS = msgspec.structs.replace(  # without the triangle, whose packing takes most of a scene's second
    DEMO, inclusion=(), material=tuple(m for m in DEMO.material if m.name != "LFO-disordered")
)
BLOCK = msgspec.structs.replace(  # a small piece of the substrate alone
    DEMO,
    inclusion=(),
    layer=DEMO.layer[-1:],
    material=tuple(m for m in DEMO.material if m.name == "STO"),
    field_nm=(3.0, 3.0),
    rotation_deg=0.0,
)


def demo_text() -> str:
    return (resources.files("livestem.simulator") / "specimens" / "demo.toml").read_text("utf-8")


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(DEMO, seed=7, frames=3)


@pytest.fixture(scope="module")
def small() -> Simulation:
    return Simulation(LAYERS, seed=7, frames=2, shape=(64, 64))


# --- the specimen


@pytest.mark.parametrize("name", packaged_specimens())
def test_every_packaged_specimen_loads_and_shows_all_its_classes(name):
    specimen = load_specimen(name)
    shares = np.bincount(Simulation(specimen).truth.class_of_pixel.ravel(), minlength=len(specimen.classes))
    assert (shares > 0).all()
    assert "demo" in packaged_specimens()


def test_density_of_the_crystals_is_that_of_the_literature():
    # g/cm3: Cr 7.19, LaFeO3 6.6 (6.64 bulk, strained here), SrTiO3 5.12; 1 g/cm3 = 602.2 u/nm3
    weight = {"Cr": 51.996, "La": 138.905, "Fe": 55.845, "O": 15.999, "Sr": 87.62, "Ti": 47.867}
    got = [sum(n * weight[e] for e, n in m.structure.density.items()) / 602.2 for m in DEMO.classes]
    assert [got[CR], got[LFO], got[STO]] == pytest.approx([7.19, 6.68, 5.12], rel=0.01)
    assert 0.9 < got[DISORDERED] / got[LFO] < 1


def test_composition_is_the_papers_order_and_disorder():
    assert DEMO.class_names == ("Cr", "LFO", "LFO-disordered", "STO")
    ordered, disordered = DEMO.classes[LFO].composition, DEMO.classes[DISORDERED].composition
    assert ordered == pytest.approx({"La": 20, "Fe": 20, "O": 60})
    change = {e: 100 * (disordered[e] - ordered[e]) / ordered[e] for e in ordered}
    assert 1.4 <= change["O"] <= 7.5 and -12.1 <= change["La"] <= -3.0 and -14.3 <= change["Fe"] <= -1.9
    assert all(sum(m.composition.values()) == pytest.approx(100, abs=0.01) for m in DEMO.classes)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "demo"', 'name = "demo"\ncolour = "red"', "colour"),
        ("[beam]", "[beam]\nbrightness = 1.0", "brightness"),
        ("thickness_nm = 30.0", "thickness_nm = -30.0", "thickness_nm"),
        ("thickness_nm = 30.0", "thickness_nm = inf", "thickness_nm"),
        ("thickness_nm = 30.0", "thickness_nm = nan", "thickness_nm"),
        ("field_nm = [16.0, 16.0]", "field_nm = [16000.0, 16.0]", "field_nm"),
        ("thickness_nm = 10.0", "thickness_nm = 14.0", "leave nothing of STO"),
        ('material = "STO"', 'material = "STO"\nthickness_nm = 3.0', "reaches to the bottom"),
        ("thickness_nm = 3.1", "", "needs thickness_nm"),
        ('material = "Cr"', 'material = "Pt"', "no material named Pt"),
        ('within = "LFO"', 'within = "Au"', "is no layer"),
        ('within = "LFO"', 'within = "STO"', "does not lie in the layer STO"),
        ("[[4.0, 3.9], [13.4, 3.9], [8.7, 11.6]]", "[[4.0, 3.9], [13.4, 3.9]]", "encloses no area"),
        ("[8.7, 11.6]]", "[8.7, 31.6]]", "outside the field"),
        ("O = 62.4", "O = 72.4", "sums to 110 %"),
        ("{ La = 0.13,", "{ La = 0.30,", "random packing"),
        ("{ La = 0.13, Fe = 0.08,", "{ La = 0.13, Co = 0.08,", "same elements"),
        ("{ Sr = 1 }", "{ Xx = 1 }", "unknown element Xx"),
        ("cell_nm = [0.23556, 0.408]", "cell_nm = [0.28556, 0.408]", "differ in density"),
        ('type = "amorphous"', 'type = "liquid"', "liquid"),
        ("collection_mrad = [50.0, 200.0]", "collection_mrad = [200.0, 50.0]", "inner, outer"),
        ("resolution_mnka_ev = 130.0", "resolution_mnka_ev = 13.0", "resolution_mnka_ev"),
        ("shape = [320, 320]", "shape = [320, 0]", "shape"),
        ("[beam]", "[beam", ""),
        ("[strays]", "[strays]\nXx = 1.0", "Xx"),
    ],
)
def test_an_impossible_specimen_is_refused_in_one_line(tmp_path, old, new, says):
    text = demo_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(UsageError) as error:
        load_specimen(path)
    assert says in str(error.value) and "mine.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_specimen_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="use one of demo"):
        load_specimen("nothing")
    with pytest.raises(UsageError, match="cannot read specimen"):
        load_specimen(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(UsageError, match="latin.toml"):
        load_specimen(tmp_path / "latin.toml")


@given(st.floats(-20, 40), st.floats(-20, 40))
def test_field_and_specimen_coordinates_are_each_others_inverse(y, x):
    u, v = DEMO.to_specimen(np.array([y]), np.array([x]))
    assert np.allclose(DEMO.to_field(u, v), [[y], [x]], atol=1e-9)
    middle = np.array(DEMO.field_nm) / 2
    assert math.hypot(u[0] - middle[1], v[0] - middle[0]) == pytest.approx(math.hypot(y - middle[0], x - middle[1]))


def test_classes_lie_where_the_file_says():
    u = np.array([8.0, 8.0, 0.5, 8.7, 8.7, 8.0])
    v = np.array([-5.0, 3.0, 3.2, 4.0, 11.9, 13.2])
    assert DEMO.class_at(u, v).tolist() == [CR, CR, LFO, DISORDERED, LFO, STO]


def test_a_polygon_holds_what_matplotlib_says_it_holds():
    from matplotlib.path import Path

    rng = np.random.default_rng(0)
    corners = ((0.0, 0.0), (4.0, 1.0), (3.0, 5.0), (2.0, 2.0), (-1.0, 4.0))  # not convex
    u, v = rng.uniform(-2, 6, (2, 4000))
    inside = Inclusion(within="A", material="B", corners_nm=corners).holds(u, v)
    assert np.array_equal(inside, Path(corners).contains_points(np.stack([u, v], axis=1)))


# --- HAADF


def test_the_cross_section_is_rutherfords_at_neon_and_goes_as_z_to_the_1_7():
    # dsigma/dOmega = (Z e2 / 2 p v)^2 / sin^4(theta/2), integrated numerically; p v at 300 kV is 489.0 keV
    theta = np.linspace(0.05, 0.2, 20001)
    z_e2_2pv = 10 * 1.44e-3 / (2 * 489.0)  # keV nm / keV
    integrand = 2 * np.pi * np.sin(theta) * z_e2_2pv**2 / np.sin(theta / 2) ** 4
    numeric = float(((integrand[1:] + integrand[:-1]) / 2 * np.diff(theta)).sum())
    assert cross_section_nm2("Ne", DEMO.beam) == pytest.approx(numeric, rel=1e-3)
    ratio = cross_section_nm2("La", DEMO.beam) / cross_section_nm2("O", DEMO.beam)
    assert ratio == pytest.approx((57 / 8) ** 1.7)


def test_the_probe_is_as_wide_as_diffraction_and_source_make_it():
    # lambda(300 kV) = 1.969 pm; 0.51 * 1.969 / 18 mrad = 55.8 pm; with 70 pm of source 89.5 pm FWHM
    assert probe_sigma_nm(DEMO.beam) * 2.3548 == pytest.approx(0.0895, abs=2e-4)


@pytest.mark.parametrize("at", [(1.5, 1.5), (1.2031, 1.9977), (2.007, 0.993)])
def test_one_atom_is_rendered_in_full_and_in_its_place(at):
    one = np.ones(1)
    atom = Atoms(element="La", thermal_nm=0.008, u=one * at[1], v=one * at[0], number=one)
    scene = render(BLOCK, [atom])
    total = -np.log1p(-scene.share)
    assert total.sum() * scene.step_nm**2 == pytest.approx(cross_section_nm2("La", DEMO.beam), rel=0.01)
    place = np.arange(total.shape[0]) * scene.step_nm - scene.edge_nm
    assert (total.sum(axis=1) @ place) / total.sum() == pytest.approx(at[0], abs=1e-4)  # 0.1 pm
    assert (total.sum(axis=0) @ place) / total.sum() == pytest.approx(at[1], abs=1e-4)


def test_the_mean_of_each_class_is_its_areal_density_times_cross_section(simulation):
    share = simulation.scene.at(*(a if i == 0 else a[None, :] for i, a in enumerate(_centres(simulation))))
    linear = -np.log1p(-share)
    truth = simulation.truth.class_of_pixel
    for number, material in enumerate(DEMO.classes):
        expected = DEMO.thickness_nm * sum(
            n * cross_section_nm2(e, DEMO.beam) for e, n in material.structure.density.items()
        )
        assert linear[truth == number].mean() == pytest.approx(expected, rel=0.04)


def test_lattice_peaks_stand_where_the_cell_says_and_are_gone_in_the_disordered_region(simulation):
    image = np.mean([simulation.frame(i).haadf for i in range(3)], axis=0)
    side = 60
    patches = {LFO: image[170 : 170 + side, 5 : 5 + side], STO: image[258:318, 60 : 60 + side]}
    for number, patch in patches.items():
        cell = DEMO.classes[number].structure.cell_nm
        for h, k in ((1, 0), (0, 1), (1, 1), (1, -1)):
            assert _contrast(patch, cell, h, k) > 8
    disordered = image[84 : 84 + side, 142 : 142 + side]
    assert (simulation.truth.class_of_pixel[84:132, 142:202] == DISORDERED).all()
    for h, k in ((1, 0), (0, 1), (1, 1), (1, -1)):
        assert _contrast(disordered[:48], DEMO.classes[LFO].structure.cell_nm, h, k) < 4  # speckle: exp(-4^2)


def _contrast(patch, cell, h, k):
    """Amplitude at the reciprocal lattice point (h, k) over the rms at random places of the same length."""
    height, width = patch.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    values = (patch - np.average(patch, weights=window)) * window
    y, x = np.mgrid[:height, :width] * 0.05

    def amplitude(g, angle):
        return abs((values * np.exp(-2j * np.pi * g * (x * np.cos(angle) + y * np.sin(angle)))).sum())

    g, angle = math.hypot(h / cell[0], k / cell[1]), math.atan2(k / cell[1], h / cell[0])
    turn = math.radians(DEMO.rotation_deg)
    around = [amplitude(g, angle + turn + math.radians(d)) for d in (20, 22.5, 25, -20, -22.5, -25)]
    return amplitude(g, angle + turn) / math.sqrt(np.mean(np.square(around)))


def test_random_packing_keeps_atoms_apart_and_knows_no_direction():
    side, rng = np.array([3.0, 3.5, 2.0]), np.random.default_rng(1)
    radius = np.repeat([0.13, 0.08, 0.11], [312, 312, 1035])  # the demo's 79 atoms per nm3
    place = random_packing(side, radius, rng)
    assert place.shape == (1659, 3) and (place >= 0).all() and (place < side).all()
    apart = place[:, None] - place[None]
    apart -= side * np.rint(apart / side)
    distance = np.sqrt((apart**2).sum(-1)) + np.eye(len(place))
    contact = radius[:, None] + radius[None]
    overlap = np.maximum(0, 1 - distance / contact)
    assert overlap.max() < 0.2
    assert overlap[overlap > 0].mean() < 0.02  # independent points overlap by a quarter on average
    # no long-range order: the structure factor at every small reciprocal vector of the box is that of a fluid
    index = np.array([(h, k) for h in range(-8, 9) for k in range(1, 9)])
    phase = 2 * np.pi * (place[:, :2] / side[:2]) @ index.T
    structure = np.abs(np.exp(1j * phase).sum(axis=0)) ** 2 / len(place)
    assert structure.max() < 15  # a crystal's is the number of atoms, 1659


def test_grains_differ_and_fill_the_cap_without_holes():
    atoms = place_atoms(DEMO, np.random.default_rng(0))
    cap = [a for a in atoms if a.element == "Cr"]
    u, v, number = (np.concatenate([getattr(a, f) for a in cap]) for f in ("u", "v", "number"))
    inside = (u > 1) & (u < 15) & (v > 0.5) & (v < 2.5)
    per_nm3 = number[inside].sum() / (14 * 2 * DEMO.thickness_nm)
    assert per_nm3 == pytest.approx(83.3, rel=0.02)


def test_electrons_are_counted_with_poisson_and_read_noise():
    detector = HaadfDetector(gain=50.0, offset=900.0, read_noise=2.0)
    values = detect(np.full((400, 400), 30.0), detector, np.random.default_rng(0)).astype(float)
    assert values.mean() == pytest.approx(900 + 50 * 30, rel=0.002)
    assert values.var() == pytest.approx(50**2 * (30 + 2**2), rel=0.02)


def test_the_detector_saturates_instead_of_wrapping_round():
    detector = HaadfDetector(gain=5000.0, offset=0.0, read_noise=3.0)
    values = detect(np.array([[0.0] * 50, [100.0] * 50]), detector, np.random.default_rng(0))
    assert values.dtype == np.uint16 and values[0].min() == 0 and (values[1] == 65535).all()


def test_the_dose_is_current_times_dwell():
    assert electrons_per_pixel(DEMO) == pytest.approx(100e-12 * 2e-6 / 1.602176634e-19, rel=1e-4)


# --- EDS


def test_expected_spectra_give_back_the_composition(simulation):
    """The quantifier, on noiseless spectra, must find what went in: both mean the same by a line's intensity."""
    from livestem.stages.kfactors import atomic_weight, builtin_k_factors
    from livestem.stages.lines import choose_lines
    from livestem.stages.spectrum_model import line_shapes

    emission, axis = simulation.emission, DEMO.eds.energy
    elements = simulation.plan.eds.elements
    families = choose_lines(elements, axis, 300.0)
    shapes = line_shapes(families, axis, DEMO.eds.resolution_mnka_ev)
    energy = axis.offset_kev + np.arange(axis.channels) * axis.scale_kev
    smooth = np.stack([np.exp(-(np.log(np.maximum(energy, 0.05) / c) ** 2)) for c in np.geomspace(0.2, 40, 12)])
    use = energy > 0.22
    design = np.concatenate([shapes, smooth.T], axis=1)[use]
    scale = np.abs(design).max(axis=0)
    solution = np.linalg.lstsq(design / scale, emission.spectra.T[use], rcond=None)[0] / scale[:, None]
    k = builtin_k_factors([f.line for f in families if not f.nuisance], 300.0)
    for number, material in enumerate(DEMO.classes):
        atoms = {
            f.element: solution[i, number] * k.of(f.line) / atomic_weight(f.element)
            for i, f in enumerate(families)
            if not f.nuisance
        }
        total = sum(v for e, v in atoms.items() if e not in DEMO.strays)
        found = {e: 100 * v / total for e, v in atoms.items()}
        for element, percent in (material.composition | DEMO.strays).items():
            assert found[element] == pytest.approx(percent, abs=0.5), (material.name, element)
        for element in set(found) - set(material.composition) - set(DEMO.strays):
            assert abs(found[element]) < 0.3, (material.name, element)


def test_spectra_are_distributions_with_the_stated_continuum(simulation):
    emission = simulation.emission
    assert emission.spectra.shape == (4, 4096) and (emission.spectra >= 0).all()
    assert np.allclose(emission.spectra.sum(axis=1), 1)
    assert (emission.cumulative[:, -1] == 1).all() and (np.diff(emission.cumulative, axis=1) >= 0).all()
    energy = -0.25 + 0.01 * np.arange(4096)
    assert emission.spectra[:, energy < 0.1].sum() == 0  # no zero peak, no photon of negative energy
    bare = msgspec.structs.replace(DEMO, eds=msgspec.structs.replace(DEMO.eds, background_share=0.0))
    lines = Simulation(bare).emission.brightness.sum()
    assert lines / emission.brightness.sum() == pytest.approx(1 - DEMO.eds.background_share)


def test_photons_come_from_their_own_pixels_class():
    classes = np.array([[0, 1], [1, 0]], np.int8).repeat(30, axis=0).repeat(30, axis=1)
    spectra = np.zeros((2, 100))
    spectra[0, 10:14], spectra[1, 80:90] = 0.25, 0.1
    rate = np.where(classes == 0, 3.0, 5.0)
    counts, channels = photons(rate, classes, np.cumsum(spectra, axis=1), np.random.default_rng(0))
    assert counts.dtype == channels.dtype == np.uint16 and counts.sum() == channels.size
    owner = np.repeat(classes.ravel(), counts.ravel())
    assert set(channels[owner == 0]) == set(range(10, 14)) and set(channels[owner == 1]) == set(range(80, 90))
    for number, mean in ((0, 3.0), (1, 5.0)):
        mine = counts[classes == number]
        assert mine.mean() == pytest.approx(mean, abs=0.2) and mine.var() == pytest.approx(mean, rel=0.12)
    share = np.bincount(channels[owner == 1], minlength=100)[80:90] / (owner == 1).sum()
    assert share == pytest.approx(np.full(10, 0.1), abs=0.012)  # 4 sigma of 9000 photons


def test_counts_per_pixel_is_the_fields_mean_per_frame(small):
    for wanted in (0.0, 0.04, 5.0):
        scan = Simulation(LAYERS, 1, 1, shape=(128, 128), eds_counts_per_pixel=wanted)
        scan.scene = small.scene  # its HAADF is of no interest here
        frame = scan.frame(0)
        assert frame.counts.mean() == pytest.approx(wanted, abs=4 * math.sqrt(max(wanted, 1e-12) / 128**2))


# --- the scan


def test_any_frame_can_be_made_again_alone(small):
    again = Simulation(LAYERS, seed=7, frames=5, shape=(64, 64))
    for number in (3, 0, 1):
        _same(again.frame(number), small.frame(number))
    assert not np.array_equal(small.frame(0).haadf, small.frame(1).haadf)
    assert not np.array_equal(small.frame(0).haadf, Simulation(LAYERS, 8, 2, shape=(64, 64)).frame(0).haadf)


def test_the_atoms_follow_from_the_seed(simulation):
    again = Simulation(DEMO, seed=7, frames=1)
    assert np.array_equal(again.scene.share, simulation.scene.share)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 80))
def test_tiles_of_any_height_rebuild_the_frames_in_time_order(small, rows):
    tiles = list(small.tiles(rows))
    assert [(t.frame, t.y, isinstance(t, EdsEvents)) for t in tiles] == sorted(
        (t.frame, t.y, isinstance(t, EdsEvents)) for t in tiles
    )
    for number in range(2):
        haadf = [t for t in tiles if isinstance(t, HaadfTile) and t.frame == number]
        eds = [t for t in tiles if isinstance(t, EdsEvents) and t.frame == number]
        assert all(t.counts.sum() == t.channels.size and t.x == 0 for t in eds)
        assert [t.y for t in haadf] == [t.y for t in eds] == list(range(0, 64, rows))
        frame = small.frame(number)
        assert np.array_equal(np.concatenate([t.values for t in haadf]), frame.haadf)
        assert np.array_equal(np.concatenate([t.counts for t in eds]), frame.counts)
        assert np.array_equal(np.concatenate([t.channels for t in eds]), frame.channels)


def test_tiles_can_be_asked_for_again(small):
    first, second = list(small.tiles(16)), list(small.tiles(16))
    assert len(first) == len(second) == 16
    assert np.array_equal(first[-1].channels, second[-1].channels)


def test_the_scan_id_is_a_name_and_follows_from_everything_that_decides_the_scan():
    thicker = msgspec.structs.replace(DEMO, thickness_nm=31.0)
    scans = [
        Simulation(DEMO, 0, 8),
        Simulation(DEMO, 1, 8),
        Simulation(DEMO, 0, 9),
        Simulation(DEMO, 0, 8, shape=(64, 64)),
        Simulation(DEMO, 0, 8, eds_counts_per_pixel=1.0),
        Simulation(thicker, 0, 8),
    ]
    ids = [s.scan_id for s in scans]
    assert len(set(ids)) == len(ids)
    assert all(check_name(i, "scan") for i in ids)
    assert Simulation(load_specimen("demo"), 0, 8, shape=(320, 320)).scan_id == ids[0]


def test_the_plan_states_the_microscope_and_gives_the_demos_grid(simulation):
    plan = simulation.plan
    assert plan.beam.energy_kv == 300 and plan.beam.convergence_mrad == 18 and plan.dwell_s == 2e-6
    assert plan.beam.collection_mrad == (50, 200) and plan.frames == 3 and plan.source == "simulator"
    assert plan.eds.energy.channels == 4096 and plan.eds.energy.offset_kev == -0.25
    assert plan.eds.elements == ("Cr", "Fe", "La", "O", "Sr", "Ti", "C", "Cu")
    grid = plan_grid(plan.haadf.sampling, plan.eds.sampling)
    assert (grid.rows, grid.cols, grid.chip_px) == (21, 21, 15) and grid.chip_nm == pytest.approx(0.75)
    assert 1 <= 10 * DEMO.eds.counts_per_pixel <= 50  # what scans end with


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"seed": -1}, "--seed"),
        ({"frames": 0}, "--frames"),
        ({"shape": (4, 4)}, "pixels a side"),
        ({"shape": (64, 100)}, "use 64 x 64"),
        ({"eds_counts_per_pixel": -1.0}, "EDS counts"),
        ({"eds_counts_per_pixel": float("nan")}, "EDS counts"),
    ],
)
def test_settings_that_make_no_scan_are_refused(wrong, says):
    with pytest.raises(UsageError, match=says):
        Simulation(DEMO, **wrong)


def test_impossible_tiles_and_frames_are_refused(small):
    with pytest.raises(UsageError, match="at least 1 row"):
        next(small.tiles(0))
    with pytest.raises(UsageError, match="no frame -1"):
        small.frame(-1)


# --- the truth


def test_chips_get_the_class_of_most_of_their_pixels(simulation):
    grid = plan_grid(simulation.plan.haadf.sampling, simulation.plan.eds.sampling)
    classes, purity = simulation.truth.class_of_chips(grid)
    assert classes.dtype == np.int16 and classes.shape == purity.shape == (21, 21)
    for row, col in np.ndindex(21, 21):
        pixels = simulation.truth.class_of_pixel[15 * row : 15 * row + 15, 15 * col : 15 * col + 15]
        counts = np.bincount(pixels.ravel(), minlength=4)
        assert classes[row, col] == counts.argmax() and purity[row, col] == counts.max() / 225
    assert set(np.unique(classes)) == {CR, LFO, DISORDERED, STO}
    assert 0.7 < (purity >= 0.8).mean() < 1


def test_a_grid_of_another_field_is_refused(small):
    with pytest.raises(UsageError, match="larger than the field"):
        small.truth.class_of_chips(Grid(rows=21, cols=21, chip_nm=0.75, chip_px=15, pixel_nm=0.05, haadf_px=15))


def test_the_truth_is_read_back_as_it_was_written(tmp_path, simulation):
    truth = simulation.truth
    arrays, facts = truth.save(tmp_path / "scan.truth")
    assert (arrays.name, facts.name) == ("scan.truth.npz", "scan.truth.json")
    back = Truth.load(tmp_path / "scan.truth")
    assert back.facts == truth.facts and np.array_equal(back.class_of_pixel, truth.class_of_pixel)
    assert back.facts.d_spacing_nm == (None, 0.3955, None, 0.3905)
    assert truth.save(arrays)[0] == arrays  # either file's own name serves as well


def test_a_truth_that_cannot_be_read_is_refused_in_one_line(tmp_path, simulation):
    with pytest.raises(UsageError, match="cannot read the truth"):
        Truth.load(tmp_path / "none")
    arrays, facts = simulation.truth.save(tmp_path / "some")
    facts.write_text("{}")
    with pytest.raises(UsageError, match="cannot read the truth"):
        Truth.load(tmp_path / "some")


def test_importing_the_simulator_loads_no_heavy_library():
    code = "import sys, livestem.simulator; print([m for m in ('exspy', 'hyperspy', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def _centres(simulation):
    return simulation.specimen.pixel_centres_nm(simulation.shape)


def _same(one, other):
    for a, b in zip(astuple(one), astuple(other), strict=True):
        assert np.array_equal(a, b)
