"""Lattice spacings: known crystals at known noise, and the textures that must not pass for one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from virtual import altered

from livestem.domain.errors import StageError
from livestem.simulator import Simulation, load_specimen
from livestem.simulator.materials import Amorphous
from livestem.simulator.motion import Raster
from livestem.simulator.parts import Layer
from livestem.stages import spacing, spectrum2d
from livestem.stages.lattice_basis import basis_of, non_collinear
from livestem.stages.spacing import LatticeResult, lattice_of
from livestem.stages.spectral_peaks import FALSE_ALARM, significant_peaks

Image = NDArray[np.float64]
STO_NM = 0.3905
COLUMN_NM = 0.05  # standard deviation of an atomic column under a 0.1 nm probe
PEROVSKITE = ((0.0, 0.0, 1.0), (0.5, 0.5, 0.4))  # A and B column: unequal, so {100} is weak but there


def drawn(points: Image, weight: Image, n: int, pixel_nm: float) -> Image:
    """Gaussian columns at `points` (K, 2) (x, y) nm on n x n pixels."""
    t = (np.arange(n) + 0.5) * pixel_nm
    x = np.exp(-((t[:, None] - points[:, 0]) ** 2) / (2 * COLUMN_NM**2))
    y = np.exp(-((t[:, None] - points[:, 1]) ** 2) / (2 * COLUMN_NM**2))
    return (y * weight) @ x.T


def crystal(n: int, pixel_nm: float, vectors: Image, rotation_deg: float = 0.0, columns=PEROVSKITE) -> Image:
    c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    cell = np.asarray(vectors, float) @ np.array([[c, s], [-s, c]])
    side = n * pixel_nm
    reach = int(2 * side / np.hypot(*cell.T).min()) + 3
    h, k = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    points = np.concatenate([np.stack([h + x, k + y], axis=1) @ cell + 0.513 * side for x, y, _ in columns])
    weight = np.repeat([w for *_, w in columns], len(h))
    seen = (abs(points - side / 2) < side / 2 + 0.3).all(axis=1)
    return drawn(points[seen], weight[seen], n, pixel_nm)


def square(n: int, pixel_nm: float, a: float = STO_NM, rotation_deg: float = 0.0, columns=PEROVSKITE) -> Image:
    return crystal(n, pixel_nm, a * np.eye(2), rotation_deg, columns)


def glass(rng: np.random.Generator, n: int, pixel_nm: float, layers: int = 3, core_nm: float = 0.24) -> Image:
    """Layers of atoms thrown at random, none nearer than `core_nm` to one of its layer: a jammed glass."""
    side = n * pixel_nm + 0.6
    image = np.zeros((n, n))
    for _ in range(layers):
        placed: dict[tuple[int, int], tuple[float, float]] = {}
        cell = core_nm / np.sqrt(2)  # at most one atom fits
        for x, y in rng.random((int(4 * (side / core_nm) ** 2), 2)) * side:
            i, j = int(x / cell), int(y / cell)
            around = (placed.get((i + u, j + v)) for u in range(-2, 3) for v in range(-2, 3))
            if all(p is None or (p[0] - x) ** 2 + (p[1] - y) ** 2 >= core_nm**2 for p in around):
                placed[i, j] = (x, y)
        points = np.array(list(placed.values())) - 0.3
        image += drawn(points, rng.choice([1.0, 0.35], len(points)), n, pixel_nm)
    return image


def counted(rng: np.random.Generator, image: Image, counts: float) -> Image:
    """Poisson counts on a background of 30 % of the mean."""
    image = image / image.mean() + 0.3
    return rng.poisson(image * (counts / image.mean())).astype(float)


def jittered(rng: np.random.Generator, image: Image, pixel_nm: float, sigma_nm: float) -> Image:
    """Shift every row on its own, and let every row's brightness vary by 5 %."""
    x = np.arange(image.shape[1])
    rows = [np.interp(x + rng.normal() * sigma_nm / pixel_nm, x, row) for row in image]
    return np.array(rows) + rng.normal(size=(len(image), 1)) * 0.05 * image.mean()


# --- known crystals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "pixel_nm", "rotation_deg", "counts"),
    [(60, 0.05, 0, 20), (60, 0.05, 13, 5), (75, 0.05, 45, 2), (100, 0.0355, 7, 3), (60, 0.071, 30, 10)],
)
def test_strontium_titanate_has_its_cell_though_110_is_strongest(n, pixel_nm, rotation_deg, counts):
    rng = np.random.default_rng(n)
    found = lattice_of(counted(rng, square(n, pixel_nm, rotation_deg=rotation_deg), counts), pixel_nm)
    assert found.reason is None
    assert found.peaks[0].d_nm == pytest.approx(STO_NM / np.sqrt(2), abs=0.002)
    assert found.d_spacing_nm == pytest.approx(STO_NM, abs=5 * found.d_spacing_sigma_nm)
    assert found.d_spacing_nm == pytest.approx(STO_NM, rel=0.005)
    assert 0.5 < found.crystallinity <= 1


def test_fast_and_slow_are_told_apart():
    image = crystal(80, 0.05, [[0.36, 0], [0, 0.42]])
    found = lattice_of(counted(np.random.default_rng(1), image, 20), 0.05)
    assert found.d_fast_nm == pytest.approx(0.36, abs=0.001)
    assert found.d_slow_nm == pytest.approx(0.42, abs=0.001)
    assert found.d_spacing_nm == found.d_slow_nm
    turned = lattice_of(image.T, 0.05)
    assert (turned.d_fast_nm, turned.d_slow_nm) == pytest.approx((found.d_slow_nm, found.d_fast_nm), rel=3e-3)


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.integers(6, 20), st.integers(-20, 20))
def test_a_peak_lies_where_its_wave_says_wherever_that_is_between_cells(x, y, col, row):
    n, pixel_nm = 90, 0.05
    wave = np.array([col + x, row + y])
    i, j = np.mgrid[:n, :n] / n
    tone = np.cos(2 * np.pi * (wave[0] * j + wave[1] * i))
    image = tone + 0.01 * np.random.default_rng(0).normal(size=(n, n))
    found = significant_peaks(spectrum2d.spectrum_of(image, pixel_nm, (1 / 0.6, 1 / 0.12)))[0].g
    if 1 / 0.6 + 0.5 < np.hypot(*wave) / (n * pixel_nm) < 1 / 0.12 - 0.5:
        assert found[0] * n * pixel_nm == pytest.approx(wave, abs=0.02)


def test_a_peak_midway_between_four_cells_does_not_pull_the_lattice():
    # {110} of 0.3905 nm at 0 degrees on 4.5 nm: 11.52 cells along either axis
    found = lattice_of(counted(np.random.default_rng(20), square(90, 0.05), 20), 0.05)
    orders = STO_NM / np.sqrt([1, 2, 4, 5, 8, 9, 10])
    assert all(abs(orders / p.d_nm - 1).min() < 5 * p.sigma_nm / p.d_nm for p in found.peaks)
    assert (found.d_fast_nm, found.d_slow_nm) == pytest.approx((STO_NM, STO_NM), rel=1e-3)


def test_hexagonal_planes_are_root_three_halves_of_the_distance():
    image = crystal(90, 0.05, 0.27 * np.array([[1, 0], [0.5, np.sqrt(0.75)]]), 11, ((0.0, 0.0, 1.0),))
    found = lattice_of(counted(np.random.default_rng(2), image, 10), 0.05)
    assert found.d_spacing_nm == pytest.approx(0.27 * np.sqrt(0.75), rel=0.003)
    angles = np.sort([p.angle_deg for p in found.peaks[:3]])
    assert np.diff(angles) == pytest.approx([60, 60], abs=1)


@pytest.mark.parametrize("sigma_nm", [0.02, 0.03])
def test_row_jitter_makes_streaks_but_no_peaks_of_its_own(sigma_nm):
    rng = np.random.default_rng(3)
    image = jittered(rng, counted(rng, square(100, 0.05, rotation_deg=9), 20), 0.05, sigma_nm)
    found = lattice_of(image, 0.05)
    assert found.d_spacing_nm == pytest.approx(STO_NM, rel=0.01)
    orders = STO_NM / np.sqrt([1, 2, 4, 5, 8, 9, 10])
    assert all(abs(orders / p.d_nm - 1).min() < 0.03 for p in found.peaks)


def test_a_lattice_along_the_scan_is_not_cut_out_with_the_axes():
    rng = np.random.default_rng(4)
    found = lattice_of(jittered(rng, counted(rng, square(100, 0.05), 20), 0.05, 0.02), 0.05)
    assert found.d_fast_nm == pytest.approx(STO_NM, rel=0.01)
    assert found.d_slow_nm == pytest.approx(STO_NM, rel=0.01)
    assert any(min(p.angle_deg, 180 - p.angle_deg) < 1 for p in found.peaks)
    assert any(abs(p.angle_deg - 90) < 1 for p in found.peaks)


def test_a_100_below_the_search_level_is_found_where_it_must_lie():
    rng, spacings, seen = np.random.default_rng(5), Counter(), 0
    image = square(60, 0.05, rotation_deg=8, columns=((0, 0, 1.0), (0.5, 0.5, 0.88)))
    for _ in range(12):
        found = lattice_of(counted(rng, image, 20), 0.05)
        spacings[round(found.d_spacing_nm, 2)] += 1
        seen += any(p.d_nm > 0.35 for p in found.peaks)
    assert spacings[0.39] >= 9 > seen


def test_equal_columns_are_the_smaller_cell():
    image = square(60, 0.05, rotation_deg=8, columns=((0, 0, 1.0), (0.5, 0.5, 1.0)))
    rng = np.random.default_rng(6)
    found = [lattice_of(counted(rng, image, 20), 0.05).d_spacing_nm for _ in range(12)]
    assert found == pytest.approx([STO_NM / np.sqrt(2)] * 12, rel=0.005)


def test_errors_are_as_large_as_stated():
    rng, pulls, peak_pulls = np.random.default_rng(7), [], []
    image = square(60, 0.05, rotation_deg=10)
    for _ in range(60):
        found = lattice_of(counted(rng, image, 10), 0.05)
        pulls += [(d - STO_NM) / found.d_spacing_sigma_nm for d in (found.d_fast_nm, found.d_slow_nm)]
        offs = [(p.d_nm - STO_NM / np.sqrt(2), p.sigma_nm) for p in found.peaks]
        peak_pulls += [off / sigma for off, sigma in offs if abs(off) < 0.03]
    assert 0.7 < np.std(pulls) < 1.3 and abs(np.mean(pulls)) < 0.3
    assert 0.7 < np.std(peak_pulls) < 1.3 and abs(np.mean(peak_pulls)) < 0.35


def test_a_sheared_and_wavy_scan_keeps_its_lattice_and_shows_the_shear():
    y, x = np.mgrid[:200, :200].astype(float)
    wave = 1.5 * np.sin(2 * np.pi * y / 170)  # px: a sample that sways during the frame
    phase = 2 * np.pi * 0.05 / STO_NM
    u, v = phase * (x + wave), phase * 1.02 * y  # drift along the slow scan compresses it by 2 %
    image = np.exp(3 * (np.cos(u) + np.cos(v) - 2)) + 0.4 * np.exp(3 * (-np.cos(u) - np.cos(v) - 2))
    found = lattice_of(counted(np.random.default_rng(19), image, 5), 0.05)
    assert found.d_fast_nm == pytest.approx(STO_NM, rel=0.003)
    assert found.d_slow_nm == pytest.approx(STO_NM / 1.02, rel=0.003)


def test_twins_are_one_measurement():
    found = lattice_of(counted(np.random.default_rng(8), square(90, 0.05, rotation_deg=20), 50), 0.05)
    g = [np.array([np.cos(a), np.sin(a)]) / p.d_nm for p in found.peaks for a in [np.radians(p.angle_deg)]]
    assert all(0 <= p.angle_deg < 180 for p in found.peaks)
    assert all(np.hypot(*(a + b)) > 0.3 and np.hypot(*(a - b)) > 0.3 for i, a in enumerate(g) for b in g[:i])
    assert [p.snr for p in found.peaks] == sorted((p.snr for p in found.peaks), reverse=True)


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(1e-3, 1e6), level=st.floats(-1e3, 1e3), seed=st.integers(0, 99))
def test_the_detectors_gain_and_offset_do_not_matter(gain, level, seed):
    image = counted(np.random.default_rng(seed), square(50, 0.05, rotation_deg=seed), 20)
    first, second = lattice_of(image, 0.05), lattice_of(gain * (image + level), 0.05)
    assert second.reason == first.reason
    assert second.d_spacing_nm == pytest.approx(first.d_spacing_nm, rel=1e-6)
    assert len(second.peaks) == len(first.peaks)


def test_the_scale_is_the_pixels():
    image = counted(np.random.default_rng(9), square(90, 0.05, rotation_deg=3), 20)
    coarse, fine = lattice_of(image, 0.05), lattice_of(image, 0.048)
    assert fine.d_spacing_nm / coarse.d_spacing_nm == pytest.approx(0.96, rel=1e-4)


# --- what is no lattice -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "pixel_nm"), [(36, 0.05), (50, 0.071), (60, 0.0355)])
def test_a_glass_is_amorphous(n, pixel_nm):
    rng = np.random.default_rng(n)
    reasons = Counter()
    for i in range(24):
        image = counted(rng, glass(rng, n, pixel_nm, layers=1 + i % 4), (1e4, 20)[i % 2])
        reasons[lattice_of(jittered(rng, image, pixel_nm, 0.02) if i % 3 else image, pixel_nm).reason] += 1
    assert reasons[None] == 0 and reasons[spacing.AMORPHOUS] >= 23


def test_noise_and_streaks_keep_to_the_false_alarm_probability():
    rng = np.random.default_rng(10)
    images = [rng.normal(size=(40, 40)) + rng.normal(size=(40, 1)) * (i % 2) for i in range(200)]
    alarms = sum(lattice_of(image, 0.05).reason != spacing.AMORPHOUS for image in images)
    assert alarms <= 2  # 0.2 expected at the stated probability of 1e-3
    assert FALSE_ALARM == 1e-3


def test_amorphous_film_under_the_virtual_microscope_raises_no_alarm():
    """Of 225 patches; benchmarks/descriptors.py looks at a thousand larger ones. One alarm in a hundred is allowed."""
    specimen, frames = load_specimen("defective-0.1dpa"), 4
    film = next(m for m in specimen.material if isinstance(m.structure, Amorphous))
    nothing_else = {"inclusion": (), "domains": (), "particles": (), "surface_nm": 0.0}
    alone = altered(specimen, material=(film,), layer=(Layer(material=film.name),), **nothing_else)
    raster = Raster(shape=(675, 675), pixel_nm=0.05, origin_nm=(0.0, 0.0), dwell_s=2e-6)
    scan = Simulation(alone, 0, frames, raster=raster, modalities=("haadf",))
    total = sum(scan.frame(i).haadf.astype(float) for i in range(frames))
    patches = total.reshape(15, 45, 15, 45).swapaxes(1, 2).reshape(-1, 45, 45)
    reasons = Counter(lattice_of(patch, 0.05).reason for patch in patches)
    assert sum(reasons.values()) == 225 and reasons[None] <= 2
    assert reasons[spacing.AMORPHOUS] >= 222


def test_an_amorphous_patch_is_hardly_crystalline():
    rng = np.random.default_rng(11)
    found = lattice_of(counted(rng, glass(rng, 60, 0.05), 20), 0.05)
    assert found == LatticeResult(crystallinity=0.0, reason=spacing.AMORPHOUS)


def test_fringes_are_a_single_direction():
    y, x = np.mgrid[:60, :60] * 0.05
    fringes = 1 + 0.4 * np.cos(2 * np.pi * (0.8 * x + 0.6 * y) / 0.22)
    found = lattice_of(counted(np.random.default_rng(12), fringes, 20), 0.05)
    assert found.reason == spacing.SINGLE_DIRECTION and found.d_spacing_nm is None
    assert found.peaks[0].d_nm == pytest.approx(0.22, rel=0.003)
    assert found.peaks[0].angle_deg == pytest.approx(np.degrees(np.arctan2(0.6, 0.8)), abs=0.5)
    assert found.crystallinity > 0.2


def test_two_grains_have_no_common_basis():
    image = square(80, 0.05) + square(80, 0.05, rotation_deg=28)
    found = lattice_of(counted(np.random.default_rng(13), image, 20), 0.05)
    assert found.reason == spacing.SEVERAL_GRAINS and found.peaks


def test_a_coarse_pixel_is_beyond_nyquist():
    # columns are sharper than these pixels: their harmonics would fold into the band and look like a lattice
    found = lattice_of(counted(np.random.default_rng(14), square(60, 0.15), 50), 0.15)
    assert found == LatticeResult(reason=spacing.BEYOND_NYQUIST)


def test_a_small_patch_says_so_and_a_larger_one_has_peaks_before_it_has_a_spacing():
    assert lattice_of(square(35, 0.05), 0.05) == LatticeResult(reason=spacing.TOO_SMALL)
    rng = np.random.default_rng(21)
    for side in (36, 43):
        found = lattice_of(counted(rng, square(side, 0.05, rotation_deg=9), 20), 0.05)
        assert found.reason == spacing.TOO_SMALL and found.d_spacing_nm is None
        assert found.peaks and found.crystallinity > 0.3
    assert lattice_of(counted(rng, square(44, 0.05, rotation_deg=9), 20), 0.05).reason is None


def test_a_flat_patch_has_no_contrast():
    assert lattice_of(np.full((40, 40), 7.0), 0.05) == LatticeResult(reason=spacing.NO_CONTRAST)


def test_a_slope_alone_is_no_lattice():
    y, x = np.mgrid[:50, :50].astype(float)
    rng = np.random.default_rng(15)
    assert lattice_of(3 * x - 2 * y + rng.normal(size=(50, 50)), 0.05).reason == spacing.AMORPHOUS


@pytest.mark.parametrize(
    ("patch", "pixel_nm"),
    [
        (np.zeros((40, 41)), 0.05),
        (np.zeros(40), 0.05),
        (np.full((40, 40), np.nan), 0.05),
        (np.zeros((40, 40)), 0.0),
        (np.zeros((40, 40)), float("nan")),
    ],
)
def test_bad_input_is_refused(patch, pixel_nm):
    with pytest.raises(StageError):
        lattice_of(patch, pixel_nm)


# --- parts --------------------------------------------------------------------------------------------------


def test_the_level_of_white_noise_is_its_variance():
    n = 128
    noise = np.random.default_rng(16).normal(size=(n, n))
    spectrum = spectrum2d.spectrum_of(noise, 0.05, (1.7, 8.3))
    expected = (spectrum2d.hann(n) ** 2).sum() ** 2
    for quantile in (0.25, 0.5):
        level = spectrum2d.level_of(spectrum, np.empty((0, 2)), 0.3, quantile)
        # a little above: what chance puts into a line counts as its streak, what it takes away does not
        assert 0.95 < np.median(level.mean[spectrum.searched]) / expected < 1.25


def test_the_threshold_is_that_of_an_f_distribution():
    rng = np.random.default_rng(17)
    cells = 8
    ratio = rng.exponential(size=200_000) / rng.exponential(size=(200_000, cells)).mean(axis=1)
    bar = float(spectrum2d.ratio_at(1e-3, np.asarray(float(cells))))
    assert (ratio > bar).mean() == pytest.approx(1e-3, rel=0.25)
    assert spectrum2d.ratio_at(1e-3, np.asarray(1e9)) == pytest.approx(np.log(1e3), rel=1e-3)


def test_the_basis_is_found_through_sums_and_differences():
    g = np.array([[1.0, 1.0], [1.0, -1.0], [2.0, 1.0]]) * 2.56  # {110} and {210} only: {100} is their difference
    basis = basis_of(g, np.full(3, 0.001), tolerance=0.1, longest_nm=0.6)
    assert basis.spacings_nm == pytest.approx((1 / 2.56, 1 / 2.56))
    assert basis.indexed.all()


def test_a_stray_peak_is_left_out_of_the_basis():
    g = np.array([[1.0, 0], [0, 1], [1, 1], [1, -1], [0.37, 1.41]]) * 2.56
    basis = basis_of(g, np.full(5, 0.001), tolerance=0.1, longest_nm=0.6)
    assert basis.indexed.tolist() == [True] * 4 + [False]
    assert basis.spacings_nm[0] == pytest.approx(1 / 2.56)


def test_a_misfit_widens_the_error():
    g = np.array([[1.0, 0], [0, 1], [1, 1], [1, -1], [2.01, 0.01]]) * 2.56
    good = basis_of(np.rint(g / 2.56) * 2.56, np.full(5, 1e-3), tolerance=0.1, longest_nm=0.6)
    bent = basis_of(g, np.full(5, 1e-3), tolerance=0.1, longest_nm=0.6)
    assert bent.sigmas_nm[0] > 2 * good.sigmas_nm[0]


def test_collinear_peaks_span_nothing():
    g = np.array([[2.0, 1.0], [4.0, 2.05], [-2.0, -1.0]])
    assert not non_collinear(g)
    assert basis_of(g[:2], np.full(2, 1e-3), tolerance=0.1, longest_nm=0.6) is None


def test_results_compare_by_value():
    image = counted(np.random.default_rng(18), square(60, 0.05), 20)
    assert lattice_of(image, 0.05) == replace(lattice_of(image, 0.05))
