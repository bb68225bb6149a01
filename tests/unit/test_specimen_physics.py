"""The lattice is in the image where the specimens say, drifts and blurs as physics says, and is gone where it should.

Windows on the four samples themselves, measured with the product's own `lattice_of`.
"""

from __future__ import annotations

import functools
import itertools
import math

import msgspec
import numpy as np
import pytest
from virtual import altered, of_layers, still

from livestem.domain.regions import LONGEST_D_NM, SHORTEST_D_NM
from livestem.simulator import Simulation, crystals, load_specimen
from livestem.simulator.crystals import chance
from livestem.simulator.geometry import Geometry
from livestem.simulator.materials import Amorphous, Crystal
from livestem.simulator.motion import Raster
from livestem.simulator.parts import Layer
from livestem.simulator.scene import render
from livestem.simulator.window import Window
from livestem.stages import spectrum2d
from livestem.stages.region_haadf import largest_square
from livestem.stages.spacing import AMORPHOUS, lattice_of
from livestem.stages.spectral_peaks import FALSE_ALARM, power_at, significant_peaks

SAMPLES = {n: load_specimen(n) for n in ("pristine-0dpa", "pristine-0.1dpa", "defective-0dpa", "defective-0.1dpa")}
SEED, FRAMES = 3, 8
LARGEST_NM = 4.5  # of a square: ten cells, so that a scene takes a tenth of a second
SETTLED = 60  # pixels left of a square that are scanned and not looked at: six times what the coils lag after flyback
OF_KIND = {
    kind: [(n, m.name) for n, s in SAMPLES.items() for m in s.classes if isinstance(m.structure, kind)]
    for kind in (Crystal, Amorphous)
}


@functools.cache
def geometry(sample):
    return Geometry(SAMPLES[sample], SEED)


@functools.cache
def patch(sample, name):
    """Return the mean of some frames of the largest square inside a class, and its scan."""
    specimen = SAMPLES[sample]
    pixel = specimen.field_nm[0] / specimen.scan.shape[0]
    y = (np.arange(specimen.scan.shape[0]) + 0.5) * pixel
    label = geometry(sample).class_at(y[:, None], y)
    top, left, side = largest_square(label == specimen.class_names.index(name))
    side = min(side, round(LARGEST_NM / pixel))
    origin = top * pixel, (left - SETTLED) * pixel
    raster = Raster(shape=(side, side + SETTLED), pixel_nm=pixel, origin_nm=origin, dwell_s=2e-6)
    scan = Simulation(specimen, SEED, FRAMES, raster=raster, modalities=("haadf",))
    assert (scan.truth.class_of_pixel[:, SETTLED:] == specimen.class_names.index(name)).mean() > 0.95
    return np.mean([scan.frame(n).haadf[:, SETTLED:] for n in range(FRAMES)], axis=0), scan


def structure_of(sample, name):
    return next(m.structure for m in SAMPLES[sample].classes if m.name == name)


def nodes(crystal, turn_deg, orders):
    """Return reciprocal lattice points (x, y), 1/nm, of a crystal turned against the scan."""
    turn = math.radians(turn_deg)
    h, k = np.array(orders, float).T / np.array(crystal.cell_nm)[:, None]
    return np.stack([h * math.cos(turn) - k * math.sin(turn), h * math.sin(turn) + k * math.cos(turn)], axis=1)


def spectrum_of(image, pixel_nm):
    return spectrum2d.spectrum_of(image, pixel_nm, (1 / LONGEST_D_NM, 1 / SHORTEST_D_NM))


def surprise(image, pixel_nm, g):
    """Return power at `g` over what speckle alone exceeds there once in a thousand patches."""
    spectrum = spectrum_of(image, pixel_nm)
    level = significant_peaks(spectrum)[1]
    cells = spectrum.cell_of(g)
    return power_at(spectrum, g) / level.mean[cells] / spectrum2d.ratio_at(FALSE_ALARM, level.cells[cells])


FIRST = [(1, 0), (0, 1), (1, 1), (1, -1)]


@pytest.mark.parametrize(("sample", "name"), OF_KIND[Crystal])
def test_a_crystals_lattice_is_measured_as_its_file_states_it(sample, name):
    image, scan = patch(sample, name)
    crystal = structure_of(sample, name)
    found = lattice_of(image, scan.raster.pixel_nm)
    assert found.reason is None
    assert (found.d_fast_nm, found.d_slow_nm) == pytest.approx(crystal.cell_nm, rel=0.01)
    assert found.d_spacing_nm == pytest.approx(crystal.d_spacing_nm, rel=0.01)


@pytest.mark.parametrize(("sample", "name"), OF_KIND[Crystal])
def test_every_peak_of_a_crystal_is_a_point_of_its_turned_lattice(sample, name):
    """Places, not only lengths; those beyond Nyquist are folded back, as they are sampled."""
    image, scan = patch(sample, name)
    turn = SAMPLES[sample].rotation_deg + structure_of(sample, name).turn_deg
    spectrum = spectrum_of(image, scan.raster.pixel_nm)
    found = significant_peaks(spectrum)[0].g
    points = nodes(structure_of(sample, name), turn, list(itertools.product(range(-5, 6), repeat=2)))
    sampled = 1 / scan.raster.pixel_nm
    points = (points + sampled / 2) % sampled - sampled / 2
    off = [np.hypot(*(points - g).T).min() for g in found]
    assert len(found) >= 4 and max(off[:8]) < 0.5 * spectrum.cell  # strongest first
    assert max(off) < spectrum.cell  # the faintest rise little above the noise
    assert (surprise(image, scan.raster.pixel_nm, nodes(structure_of(sample, name), turn, FIRST))[2:] > 1).all()


@pytest.mark.parametrize(("sample", "name"), OF_KIND[Amorphous])
def test_amorphous_matter_has_no_lattice_and_nothing_where_the_crystal_had_it(sample, name):
    image, scan = patch(sample, name)
    found = lattice_of(image, scan.raster.pixel_nm)
    assert found.reason == AMORPHOUS and found.d_spacing_nm is None and not found.peaks
    film = structure_of(sample, "LFO")
    second = [(2, 0), (0, 2), (2, 1), (1, 2), (2, 2), (2, -2)]
    g = nodes(film, SAMPLES[sample].rotation_deg, FIRST + second)
    assert (surprise(image, scan.raster.pixel_nm, g) < 1).all()


@pytest.mark.parametrize(("sample", "name"), OF_KIND[Amorphous])
def test_amorphous_matter_is_darker_and_smoother_than_its_crystal_but_not_empty(sample, name):
    """Speckle of many overlapping atoms: some per cent beyond shot noise, where columns are tens of per cent."""
    scatter = {}
    for which in (name, "LFO"):
        _, scan = patch(sample, which)
        y, x = scan.raster.centres_nm()
        share = scan.scene.at(y, np.tile(x[SETTLED:], (y.size, 1)))
        scatter[which] = share.mean(), share.std() / share.mean()
    (dark, speckle), (bright, contrast) = scatter[name], scatter["LFO"]
    assert 0.3 * bright < dark < bright
    assert 0.005 < speckle < 0.15 < contrast


@pytest.mark.parametrize("velocity", [(0.3, 0.0), (0.0, 2.0), (-0.2, 0.15)])
def test_the_product_measures_what_the_truth_says_that_drift_makes_of_the_lattice(velocity):
    """In picometres, beside the error that the measurement states of itself."""
    plain = still(of_layers(Layer(material="STO"), field_nm=(10.0, 10.0), rotation_deg=3.0))
    drift = msgspec.structs.replace(plain.scan.drift, velocity_nm_s=velocity)
    specimen = altered(plain, scan=msgspec.structs.replace(plain.scan, drift=drift))
    raster = Raster(shape=(200, 200), pixel_nm=0.05, origin_nm=(0.0, 0.0), dwell_s=8e-6)
    scan = Simulation(specimen, SEED, 1, raster=raster, modalities=("haadf",))
    found = lattice_of(scan.frame(0).haadf, raster.pixel_nm)
    facts = scan.truth.facts.classes[0]
    measured = 1e3 * np.array([found.d_fast_nm, found.d_slow_nm])
    assert measured == pytest.approx(1e3 * np.array(facts.d_apparent_nm), abs=0.3)
    assert np.abs(measured - 1e3 * facts.d_spacing_nm).max() > 1.0  # else drift would not have shown


@pytest.mark.parametrize("static_nm", [0.01, 0.02])
def test_static_disorder_lowers_higher_orders_as_debye_and_waller_say(static_nm):
    """Amplitudes fall by exp(-2 pi^2 s^2 g^2), columns displaced by s rms along one direction."""
    film = next(m for m in SAMPLES["pristine-0dpa"].material if m.name == "LFO")
    a, b = film.structure.cell_nm
    orders = [(1, 1), (2, 0), (0, 2), (2, 2), (1, 3)]
    g = nodes(film.structure, 0.0, orders)
    amplitude = []
    for disorder in (0.0, static_nm):
        structure = msgspec.structs.replace(film.structure, static_nm=disorder)
        material = msgspec.structs.replace(film, structure=structure)
        specimen = of_layers(Layer(material="LFO"), materials=(material,))
        scene = render(Geometry(specimen, SEED), Window(0.0, 0.0, 36 * b, 36 * a))
        y, x = ((scene.first[i] + np.arange(scene.share.shape[i])) * scene.step_nm for i in (0, 1))
        down, across = (np.exp(-2j * np.pi * np.outer(g[:, i], s)) for i, s in ((1, y), (0, x)))
        for wave, place, side in ((down, y, 36 * b), (across, x, 36 * a)):
            wave *= np.where((place > 0) & (place < side), np.sin(np.pi * place / side) ** 2, 0)  # Hann
        amplitude.append(np.abs(np.einsum("ky,yx,kx->k", down, scene.share, across, optimize=True)))
    expected = np.exp(-2 * (np.pi * static_nm) ** 2 * (g**2).sum(axis=1))
    assert amplitude[1] / amplitude[0] == pytest.approx(expected, rel=0.06)


def test_neighbouring_grains_have_orientations_of_their_own_and_one_grain_has_one():
    specimen = still(altered(SAMPLES["pristine-0dpa"], rotation_deg=0.0))
    size, jitter = specimen.classes[0].structure.grain_nm, crystals._JITTER
    raster = Raster(shape=(360, 360), pixel_nm=0.05, origin_nm=(-28.5, -3.5), dwell_s=2e-6)  # far above the film
    scan = Simulation(specimen, SEED, FRAMES, raster=raster, modalities=("haadf",))
    image = np.mean([scan.frame(n).haadf for n in range(FRAMES)], axis=0)
    seen = {}
    for cell in itertools.product(range(3), range(-5, -2)):
        middle = (np.array(cell) + chance(SEED, crystals._GRAIN, *cell).uniform(-jitter, jitter, 2)) * size
        left, top = (np.rint((middle - raster.origin_nm[::-1]) / raster.pixel_nm)).astype(int) - 20
        squares = [image[top : top + 40, left + shift : left + shift + 40] for shift in (-6, 6)]
        found = [lattice_of(square, raster.pixel_nm).peaks for square in squares]
        if all(found):
            assert _turned(*found) < 3.0  # one grain
            seen[cell] = found[0]
    assert len(seen) >= 4  # the others are tilted until nothing of their lattice is left
    pairs = [(a, b) for a, b in itertools.combinations(seen, 2) if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1]
    turned = [_turned(seen[a], seen[b]) > 3.0 for a, b in pairs]
    assert len(pairs) >= 3 and sum(turned) >= 0.75 * len(pairs)


def _turned(peaks, others):
    """Return how far the strongest of the peaks is from the nearest direction of the others, degrees."""
    return min(abs((peaks[0].angle_deg - other.angle_deg + 90) % 180 - 90) for other in others)
