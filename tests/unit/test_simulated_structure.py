"""Where the virtual specimen's matter is: classes and thickness at every place, atoms of crystals, grains, packings."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import BLOCK, CR, DEMO, DISORDERED, LFO, MATERIALS, STO, altered, of_layers

from livestem.simulator.atoms import place_atoms
from livestem.simulator.crystals import hashed_normal
from livestem.simulator.geometry import Geometry
from livestem.simulator.packing import equal_block, random_packing
from livestem.simulator.parts import Border, Domains, Inclusion, Layer, Particles
from livestem.simulator.waves import Waves


def atoms_of(specimen, box, element, seed=0, **how):
    """Return u, v and number of an element's atoms in a box."""
    found = [a for a in place_atoms(Geometry(specimen, seed), box, **how) if element in a.unit]
    u, v, number = (
        np.concatenate([getattr(a, f) * (a.unit[element] if f == "number" else 1) for a in found])
        for f in ("u", "v", "number")
    )
    inside = (u >= box[0]) & (u < box[1]) & (v >= box[2]) & (v < box[3])
    return u[inside], v[inside], number[inside]


# --- smooth chance


def test_waves_have_the_rms_and_the_correlation_that_they_promise():
    at = np.linspace(0, 400, 8001)
    lag = 40  # of 0.05: one correlation length of 2
    rows = np.stack([Waves(3.0, 2.0, np.random.default_rng(seed))(at) for seed in range(60)])
    assert rows.std() == pytest.approx(3.0, rel=0.05) and abs(rows.mean()) < 0.1
    correlation = np.mean(rows[:, :-lag] * rows[:, lag:]) / np.mean(rows**2)
    assert correlation == pytest.approx(math.exp(-0.5), abs=0.04)
    assert not Waves(0.0, 2.0, np.random.default_rng(0))(at).any()


def test_hashed_numbers_are_normal_independent_and_know_their_place():
    i, j = (a.ravel() for a in np.meshgrid(np.arange(-150, 150), np.arange(-150, 150)))
    z = hashed_normal(i, j, (7, 1))
    assert z.mean() == pytest.approx(0, abs=4 / 300) and z.std() == pytest.approx(1, abs=0.01)
    assert abs(np.mean(z**4) - 3) < 0.15
    grid = z.reshape(300, 300)
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    assert np.array_equal(hashed_normal(i[50:60], j[50:60], (7, 1)), z[50:60])
    assert abs(np.corrcoef(z, hashed_normal(i, j, (8, 1)))[0, 1]) < 0.02


# --- classes


@given(st.floats(-20, 40), st.floats(-20, 40))
def test_field_and_specimen_coordinates_are_each_others_inverse(y, x):
    u, v = DEMO.to_specimen(np.array([y]), np.array([x]))
    assert np.allclose(DEMO.to_field(u, v), [[y], [x]], atol=1e-9)
    middle = np.array(DEMO.field_nm) / 2
    assert math.hypot(u[0] - middle[1], v[0] - middle[0]) == pytest.approx(math.hypot(y - middle[0], x - middle[1]))


def test_classes_lie_where_the_file_says():
    u = np.array([8.0, 8.0, 0.5, 8.7, 8.7, 8.0])
    v = np.array([-5.0, 2.0, 5.0, 5.0, 14.9, 15.2])
    assert Geometry(DEMO, 0).foil_class(u, v).tolist() == [CR, CR, LFO, DISORDERED, STO, STO]


def test_a_polygon_holds_what_matplotlib_says_it_holds():
    from matplotlib.path import Path

    rng = np.random.default_rng(0)
    corners = ((0.0, 0.0), (4.0, 1.0), (3.0, 5.0), (2.0, 2.0), (-1.0, 4.0))  # not convex
    u, v = rng.uniform(-2, 6, (2, 4000))
    inside = Inclusion(within="A", material="B", corners_nm=corners).holds(u, v)
    assert np.array_equal(inside, Path(corners).contains_points(np.stack([u, v], axis=1)))


def border_depths(border, seed, field=40.0):
    """Return the depth of the border of a two-layer specimen along u."""
    specimen = of_layers(
        Layer(material="LFO", thickness_nm=10.0, border=border), Layer(material="STO"), field_nm=(field, field)
    )
    u, v = np.meshgrid(np.linspace(0, field, 200), np.arange(0, field, 0.02))
    return (Geometry(specimen, seed).foil_class(u, v) == 0).sum(axis=0) * 0.02


def test_borders_are_as_rough_and_as_stepped_as_they_say_and_each_seed_has_its_own():
    assert np.ptp(border_depths(Border(), 0)) < 0.021
    rough = [border_depths(Border(roughness_nm=0.5, correlation_nm=2.0), seed) for seed in range(12)]
    assert np.std(rough) == pytest.approx(0.5, rel=0.25) and np.mean(rough) == pytest.approx(10.0, abs=0.3)
    assert not np.array_equal(rough[0], rough[1])
    stepped = border_depths(Border(step_nm=0.39, terrace_nm=8.0), 3)
    jumps = np.abs(np.diff(stepped))
    assert set(np.round(jumps[jumps > 0.1], 2)) <= {0.38, 0.4} and 2 <= (jumps > 0.1).sum() <= 9


def test_domains_take_their_share_of_their_layer_and_stand_upright():
    domains = Domains(within="LFO", material="D", width_nm=2.0, share=0.4, roughness_nm=0.3)
    specimen = of_layers(
        Layer(material="LFO", thickness_nm=30.0),
        Layer(material="STO"),
        materials=(MATERIALS["LFO"], msgspec.structs.replace(MATERIALS["LFO"], name="D"), MATERIALS["STO"]),
        domains=(domains,),
        field_nm=(40.0, 60.0),
        scan=msgspec.structs.replace(DEMO.scan, shape=(80, 120)),
    )
    assert specimen.class_names == ("LFO", "D", "STO")
    u, v = np.meshgrid(np.arange(-50, 150, 0.05), np.arange(0, 40, 0.5))
    label = np.stack([Geometry(specimen, seed).foil_class(u, v) for seed in range(6)])
    film, below = label[:, v < 29.9], label[:, v > 30.1]
    assert (film == 1).mean() == pytest.approx(0.4, abs=0.04) and (below == 2).all()
    walls_down = np.mean(label[:, 1:50] != label[:, :49]) / 0.5  # per nm of depth, against per nm along the film
    walls_along = np.mean(label[:, :50, 1:] != label[:, :50, :-1]) / 0.05
    assert walls_down < 0.5 * walls_along
    width = 0.05 * (film == 1).sum() / (np.diff((label[:, :59] == 1).astype(int), axis=2) == 1).sum()
    assert width == pytest.approx(2.0, rel=0.1)


def test_an_outline_wanders_but_keeps_its_area():
    def area(roughness, seed):
        inclusion = msgspec.structs.replace(DEMO.inclusion[0], roughness_nm=roughness)
        y = np.linspace(0, 16, 320)
        flat = altered(DEMO, inclusion=(inclusion,))
        return Geometry(flat, seed).class_at(y[:, None], y) == DISORDERED

    smooth, rough = area(0.0, 0), np.stack([area(0.4, seed) for seed in range(10)])
    assert rough.mean() == pytest.approx(smooth.mean(), rel=0.15)
    assert not np.array_equal(rough[0], rough[1]) and (rough.any(axis=0) & ~smooth).any()


def test_particles_lie_on_the_foil_apart_from_one_another_and_hide_it():
    specimen = of_layers(
        Layer(material="STO"),
        materials=(MATERIALS["STO"], MATERIALS["Cr"]),
        particles=(Particles(material="Cr", number=9, radius_nm=2.0, spread=0.2),),
        field_nm=(30.0, 30.0),
        reach_nm=10.0,
        thickness_nm=5.0,
    )
    geometry = Geometry(specimen, 0)
    assert specimen.class_names == ("STO", "Cr") and len(geometry.particles) > 10
    for n, p in enumerate(geometry.particles):
        assert all(math.hypot(p.u - q.u, p.v - q.v) > p.radius_nm + q.radius_nm for q in geometry.particles[:n])
    one = geometry.particles[0]
    crossed = geometry.crossed_nm(np.array([one.v]), np.array([one.u, one.u + 0.8 * one.radius_nm]))[:, 0]
    assert crossed[0] == pytest.approx([5.0, 5.0])  # the foil goes on below
    assert crossed[1] == pytest.approx([2 * one.radius_nm, 1.2 * one.radius_nm], rel=1e-5)
    assert geometry.class_at(np.array([one.v]), np.array([one.u])) == [1]
    small = altered(specimen, particles=(Particles(material="Cr", number=9, radius_nm=0.2),))  # hardly one lacks room
    counts = [len(Geometry(small, seed).particles) for seed in range(60)]
    assert np.mean(counts) == pytest.approx(9 * (50 / 30) ** 2, abs=3 * 5 / math.sqrt(60))


def test_a_wedge_is_as_thick_as_its_slopes_say():
    specimen = of_layers(Layer(material="STO"), thickness_nm=20.0, wedge=(0.5, -0.25), field_nm=(8.0, 8.0))
    crossed = Geometry(specimen, 0).crossed_nm(np.array([4.0, 8.0]), np.array([4.0, 0.0]))
    assert crossed[0] == pytest.approx(np.array([[20, 21], [22, 23]]))


# --- atoms


def test_crystals_have_their_density_and_their_columns_the_right_places():
    box = (0.0, 0.3905 * 10, 0.0, 0.3905 * 10)
    for element, per_nm3 in (("Sr", 16.79), ("Ti", 16.79), ("O", 50.38)):
        u, v, number = atoms_of(BLOCK, box, element)
        assert number.sum() / (3.905**2 * BLOCK.thickness_nm) == pytest.approx(per_nm3, rel=0.02)
    u, v, _ = atoms_of(BLOCK, box, "Sr")
    assert np.allclose(np.round(u / 0.3905), u / 0.3905) and np.allclose(np.round(v / 0.3905), v / 0.3905)


def test_windows_agree_where_they_overlap():
    """Grains, packings and displaced columns are those of the place, not of the window that asks."""
    loose = msgspec.structs.replace(
        MATERIALS["STO"], structure=msgspec.structs.replace(MATERIALS["STO"].structure, static_nm=0.02)
    )
    specimen = altered(DEMO, material=tuple(loose if m.name == "STO" else m for m in DEMO.material))
    for element in ("Cr", "Fe", "Sr"):
        core = (5.0, 8.0, 1.0, 15.0)
        small = atoms_of(specimen, (4.0, 9.0, 0.0, 16.0), element, seed=5)
        large = atoms_of(specimen, (-3.0, 14.0, -2.0, 18.0), element, seed=5)
        cut = []
        for u, v, number in (small, large):
            inside = (u > core[0]) & (u < core[1]) & (v > core[2]) & (v < core[3])
            order = np.lexsort((v[inside], u[inside]))
            cut.append(np.stack([u, v, number])[:, inside][:, order])
        assert cut[0].shape[1] > 100
        if cut[0].shape == cut[1].shape:
            assert np.allclose(*cut, atol=1e-9)
        else:  # a raster's rounding may put an atom on either side of a border
            assert abs(cut[0].shape[1] - cut[1].shape[1]) < 0.01 * cut[0].shape[1]
            assert cut[0][2].sum() == pytest.approx(cut[1][2].sum(), rel=0.01)


def test_static_disorder_displaces_columns_by_its_rms():
    structure = msgspec.structs.replace(MATERIALS["STO"].structure, static_nm=0.015)
    specimen = of_layers(
        Layer(material="STO"),
        materials=(msgspec.structs.replace(MATERIALS["STO"], structure=structure),),
        field_nm=(20.0, 20.0),
    )
    u, v, _ = atoms_of(specimen, (0.0, 20.0, 0.0, 20.0), "Sr")
    for at in (u, v):
        away = at - 0.3905 * np.round(at / 0.3905)
        assert away.std() == pytest.approx(0.015, rel=0.05) and abs(away.mean()) < 0.001


def test_a_turned_lattice_is_turned():
    structure = msgspec.structs.replace(MATERIALS["STO"].structure, turn_deg=5.0)
    specimen = of_layers(
        Layer(material="STO"), materials=(msgspec.structs.replace(MATERIALS["STO"], structure=structure),)
    )
    u, v, _ = atoms_of(specimen, (0.0, 4.0, 0.0, 4.0), "Sr")
    first = np.argmin(np.hypot(u - 2, v - 2))
    near = np.argsort(np.hypot(u - u[first], v - v[first]))[1:5]
    angles = np.degrees(np.arctan2(v[near] - v[first], u[near] - u[first])) % 90
    assert np.allclose(angles, 5.0, atol=1e-6)


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


def test_blocks_fill_any_box_at_their_density_without_repeating():
    block = equal_block({"O": 50.0, "Sr": 25.0}, seed=0)
    box, depth = (-8.0, 17.0, 3.0, 20.0), 5.0
    (oxygen, strontium), share = block.fill(box, depth, 0, purpose=1)
    volume = 25 * 17 * depth
    assert oxygen[0].size * share / volume == pytest.approx(50, rel=0.02)
    assert strontium[0].size * share / volume == pytest.approx(25, rel=0.03)
    u, v = oxygen
    period = np.exp(2j * np.pi * u / block.side_nm).sum()
    assert abs(period) ** 2 / u.size < 15  # one block over and over would give thousands
    other, _ = block.fill(box, depth, 0, purpose=2)
    assert not np.array_equal(other[0][0][:50], u[:50])


def test_grains_differ_and_fill_the_cap_without_holes():
    u, v, number = atoms_of(DEMO, (1.0, 15.0, 0.5, 2.3), "Cr")
    assert number.sum() / (14 * 1.8 * DEMO.thickness_nm) == pytest.approx(83.3, rel=0.03)
    density, *_ = np.histogram2d(u, v, bins=(14, 3), weights=number)
    assert density.min() > 0.5 * density.mean()


@pytest.mark.parametrize("surface_nm", [0.0, 2.0])
def test_amorphous_faces_take_their_atoms_from_the_crystal(surface_nm):
    specimen = altered(BLOCK, surface_nm=surface_nm)
    box = (-0.01, 3.895, -0.01, 3.895)  # ten cells
    u, v, number = atoms_of(specimen, box, "Sr")
    assert number.sum() / (3.905**2 * BLOCK.thickness_nm) == pytest.approx(16.79, rel=0.03)
    on_lattice = np.hypot(u - 0.3905 * np.round(u / 0.3905), v - 0.3905 * np.round(v / 0.3905)) < 1e-6
    share = number[on_lattice].sum() / number.sum()
    assert share == pytest.approx(1 - 2 * surface_nm / BLOCK.thickness_nm, abs=0.04)


def test_what_the_beam_leaves_has_the_same_atoms_and_no_lattice():
    u, v, number = atoms_of(BLOCK, (0.0, 3.905, 0.0, 3.905), "Sr", ordered=False)
    assert number.sum() / (3.905**2 * BLOCK.thickness_nm) == pytest.approx(16.79, rel=0.06)
    on_lattice = np.hypot(u - 0.3905 * np.round(u / 0.3905), v - 0.3905 * np.round(v / 0.3905)) < 0.01
    assert on_lattice.mean() < 0.02
