"""What the virtual HAADF detector sees: kernels where the columns are, lattices where they should be and not else."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from virtual import BLOCK, DEMO, DISORDERED, LFO, MATERIALS, STO, altered, of_layers, still

from livestem.simulator import Simulation
from livestem.simulator.geometry import Geometry
from livestem.simulator.haadf import detect, electrons_per_pixel
from livestem.simulator.instrument import HaadfDetector
from livestem.simulator.kernels import cross_section_nm2, kernel
from livestem.simulator.parts import Layer
from livestem.simulator.scene import Scene, render
from livestem.simulator.window import Window


def sparse_crystal(column, kernel_name=None, thermal_nm=0.008):
    """Return a specimen of single columns 2 nm apart, 10 nm deep."""
    structure = msgspec.structs.replace(
        MATERIALS["STO"].structure,
        cell_nm=(2.0, 2.0),
        kernel=kernel_name,
        thermal_nm=thermal_nm,
        sites=(msgspec.structs.replace(MATERIALS["STO"].structure.sites[0], at=(0.5, 0.5), atoms=column),),
    )
    material = msgspec.structs.replace(MATERIALS["STO"], structure=structure)
    return of_layers(Layer(material="STO"), materials=(material,), thickness_nm=10.0)


def middle(scene, y, x, reach=0.99):
    """Return what of a scene lies within `reach` of (y, x), and the places of its rows and columns."""
    rows, cols = ((scene.first[k] + np.arange(scene.share.shape[k])) * scene.step_nm for k in (0, 1))
    r, c = np.abs(rows - y) <= reach, np.abs(cols - x) <= reach
    return scene.share[np.ix_(r, c)].astype(float), rows[r], cols[c]


def test_a_column_with_a_kernel_is_rendered_in_full_and_in_its_place():
    specimen = sparse_crystal({"Sr": 1.0}, "SrTiO3-001")
    share, y, x = middle(render(Geometry(specimen, 0), Window(0, 0, 4, 4)), 1.0, 1.0)
    number = 10.0 / 0.3905
    expected = number * cross_section_nm2("Sr", specimen.beam) * kernel("SrTiO3-001", "Sr", 10.0).contrast
    assert share.sum() * (y[1] - y[0]) ** 2 == pytest.approx(expected, rel=0.02)
    assert share.sum(axis=1) @ y / share.sum() == pytest.approx(1.0, abs=2e-4)
    assert share.sum(axis=0) @ x / share.sum() == pytest.approx(1.0, abs=2e-4)


def test_a_column_is_as_wide_as_its_kernel_and_the_source_make_it():
    specimen = sparse_crystal({"Sr": 1.0}, "SrTiO3-001")
    share, y, x = middle(render(Geometry(specimen, 0), Window(0, 0, 4, 4)), 1.0, 1.0)
    found = kernel("SrTiO3-001", "Sr", 10.0)
    source = specimen.beam.source_nm / 2.3548
    variance = found.tail_share * found.tail_nm**2 + (1 - found.tail_share) * found.core_nm**2 + source**2
    profile = share.sum(axis=0)
    assert profile @ (x - 1) ** 2 / profile.sum() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("thickness", [1.0, 30.0])
def test_atoms_without_a_column_scatter_as_their_number_times_cross_section(thickness):
    specimen = altered(of_layers(Layer(material="LFO-disordered")), thickness_nm=thickness)
    share = middle(render(Geometry(specimen, 0), Window(0, 0, 3, 3)), 1.5, 1.5, 1.4)[0]
    density = MATERIALS["LFO-disordered"].structure.density
    plain = thickness * sum(n * cross_section_nm2(e, specimen.beam) for e, n in density.items())
    assert share.mean() == pytest.approx(plain, rel=0.05) and share.min() >= 0


def test_no_foil_scatters_more_than_the_beam():
    specimen = altered(of_layers(Layer(material="STO")), thickness_nm=3000.0)
    share = middle(render(Geometry(specimen, 0), Window(0, 0, 1, 1)), 0.5, 0.5, 0.5)[0]
    assert share.max() == 1.0


def test_two_windows_on_one_specimen_show_the_same():
    geometry = Geometry(DEMO, 3)
    whole, part = render(geometry, Window(0, 0, 16, 16)), render(geometry, Window(4, 5, 9, 11))
    y, x = np.linspace(4.2, 8.8, 60), np.tile(np.linspace(5.2, 10.8, 70), (60, 1))
    assert np.array_equal(whole.at(y, x), part.at(y, x))


def test_blocks_meet_without_a_seam():
    """The field's own block ends 1.5 nm beyond it; the lattice goes on in the next."""
    scene = render(Geometry(BLOCK, 0), Window(0, 0, 4, 9))
    y, x = np.array([1.95]), np.arange(4.0, 7.0, 0.0125)[None]
    across = scene.at(y, x)[0]
    period = 0.3905 / 0.0125
    late = np.interp(np.arange(x.size - 63) + 2 * period, np.arange(x.size), across)
    assert np.abs(late - across[: late.size]).max() < 0.02 * np.ptp(across)


def test_places_between_samples_are_interpolated_and_beyond_the_edge_clamped():
    share = np.arange(12, dtype=np.float32).reshape(3, 4)
    scene = Scene(share, (20, 40), 0.5)
    got = scene.at(np.array([10.25, 10.5]), np.array([[20.0, 20.75], [20.5, 20.5]]))
    assert np.allclose(got, [[2.0, 3.5], [5.0, 5.0]])
    assert scene.at(np.array([-5.0]), np.array([[-5.0]])) == 0.0
    assert scene.at(np.array([99.0]), np.array([[99.0]])) == pytest.approx(11.0, abs=0.01)


@pytest.fixture(scope="module")
def demo():
    return Simulation(still(DEMO), seed=7, frames=3)


def test_the_brightness_follows_the_mass(demo):
    y, x = demo.raster.centres_nm()
    share = demo.scene.at(y, np.tile(x, (y.size, 1)))
    mean = [share[demo.truth.class_of_pixel == k].mean() for k in range(4)]
    assert mean[LFO] > mean[STO] and mean[LFO] > mean[DISORDERED]  # channelling: a crystal is brighter than its glass
    assert all(0.01 < m < 0.25 for m in mean)


def test_lattice_peaks_stand_where_the_cell_says_and_are_gone_in_the_disordered_region(demo):
    image = np.mean([demo.frame(i).haadf for i in range(3)], axis=0)
    side = 60
    patches = {LFO: image[170 : 170 + side, 5 : 5 + side], STO: image[258:318, 60 : 60 + side]}
    for number, patch in patches.items():
        cell = DEMO.classes[number].structure.cell_nm
        for h, k in ((1, 0), (0, 1), (1, 1), (1, -1)):
            assert _contrast(patch, cell, h, k) > 8
    disordered = image[84:132, 142 : 142 + side]
    assert (demo.truth.class_of_pixel[84:132, 142:202] == DISORDERED).all()
    for h, k in ((1, 0), (0, 1), (1, 1), (1, -1)):
        assert _contrast(disordered, DEMO.classes[LFO].structure.cell_nm, h, k) < 4  # speckle: exp(-4^2)


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


def test_electrons_are_counted_with_poisson_and_read_noise():
    detector = HaadfDetector(gain=50.0, offset=900.0, read_noise=2.0)
    values = detect(np.full((400, 400), 30.0), detector, np.random.default_rng(0)).astype(float)
    assert values.mean() == pytest.approx(900 + 50 * 30, rel=0.002)
    assert values.var() == pytest.approx(50**2 * (30 + 2**2), rel=0.02)


def test_the_detector_saturates_instead_of_wrapping_round():
    detector = HaadfDetector(gain=5000.0, offset=0.0, read_noise=3.0)
    values = detect(np.array([[0.0] * 50, [100.0] * 50]), detector, np.random.default_rng(0))
    assert values.dtype == np.uint16 and values[0].min() == 0 and (values[1] == 65535).all()


def test_the_electrons_are_current_times_dwell():
    assert electrons_per_pixel(DEMO.beam, 2e-6) == pytest.approx(100e-12 * 2e-6 / 1.602176634e-19, rel=1e-4)


def test_a_film_of_carbon_lies_over_everything():
    bare, dirty = (
        middle(render(Geometry(altered(BLOCK, strays=s), 0), Window(0, 0, 4, 4)), 2, 2, 1.9)[0].mean()
        for s in ({}, {"C": 20.0})
    )
    atoms = 0.2 * sum(MATERIALS["STO"].structure.density.values()) * BLOCK.thickness_nm
    assert dirty - bare == pytest.approx(atoms * cross_section_nm2("C", BLOCK.beam) * (1 - bare), rel=0.1)


def test_a_beam_without_kernels_sees_no_channelling_and_says_so():
    slow = altered(BLOCK, beam=msgspec.structs.replace(BLOCK.beam, energy_kv=200.0))
    bare = MATERIALS["STO"]
    plain = altered(
        slow,
        material=(msgspec.structs.replace(bare, structure=msgspec.structs.replace(bare.structure, kernel=None)),),
    )
    shares = [render(Geometry(s, 0), Window(0, 0, 2, 2)).share for s in (slow, plain)]
    assert np.array_equal(*shares)
    assert "do not channel" in Simulation(slow).warnings[0] and "200 kV" in Simulation(slow).warnings[0]
    assert Simulation(plain).warnings == Simulation(BLOCK).warnings == ()
