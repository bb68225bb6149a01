"""The lattice descriptor: crystals, glasses and noise with a known answer; invariances; degenerate chips."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from livestem.domain.errors import StageError
from livestem.domain.geometry import Grid
from livestem.stages.chips import windows
from livestem.stages.lattice import DESCRIPTOR_NAMES, lattice_descriptors, margin_px

COLUMN = {name: i for i, name in enumerate(DESCRIPTOR_NAMES)}


def crystal(side, period, angle=0.0, phase=(0.0, 0.0), symmetry=4):
    """A projected lattice as `symmetry` plane waves (2: fringes)."""
    y, x = np.mgrid[:side, :side].astype(float)
    image = np.zeros((side, side))
    for i in range(symmetry // 2):
        t = angle + 2 * np.pi * i / symmetry
        image += np.cos(2 * np.pi * ((x + phase[0]) * np.cos(t) + (y + phase[1]) * np.sin(t)) / period)
    return image


def glass(side, seed):
    return gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 1.2, mode="wrap")


def column(chips, name, margin=0):
    return lattice_descriptors(np.asarray(chips), margin)[:, COLUMN[name]]


def by_hand(window, margin):
    """One window, bin by bin, from the words of the module's docstring."""
    q = len(window)
    core = window[margin : q - margin, margin : q - margin].ravel()
    z = (core - core.mean()) / core.std()
    taper = np.hanning(2 * q + 1)[1::2]  # sin^2 at pixel centres
    hann = np.outer(taper, taper) / taper.sum() ** 2
    spectrum = np.fft.fft2((window - (window * hann).sum()) * hann)  # the whole plane: no mirror weights
    edges = 1.5 / q * (0.5 * q / 1.5) ** (np.arange(7) / 6)
    rings = [[] for _ in range(6)]
    for i, j in itertools.product(range(q), range(q)):
        fy, fx = np.fft.fftfreq(q)[[i, j]]
        k = np.hypot(fy, fx)
        if edges[0] < k <= 0.5:
            ring = max(n for n in range(6) if k > edges[n])
            rings[ring].append((abs(spectrum[i, j]) ** 2, np.arctan2(fy, fx)))
    total = sum(p for ring in rings for p, _ in ring)
    power = [np.log(sum(p for p, _ in ring) / total + 1e-3) for ring in rings]
    angular = [sum(abs(sum(p * np.exp(1j * m * t) for p, t in ring)) for ring in rings) / total for m in (2, 4, 6)]
    return [
        core.mean(),
        core.std() ** 0.5,
        np.arcsinh((z**3).mean()),
        np.log((z**4).mean()),
        *power,
        *angular,
    ]


@pytest.mark.parametrize(("side", "margin"), [(8, 0), (9, 2), (15, 0), (29, 7), (30, 7)])
def test_agrees_with_a_plain_computation_bin_by_bin(side, margin):
    window = np.random.default_rng(side).normal(100, 20, (side, side)) + 40 * crystal(side, 5.5, 0.3)
    got = lattice_descriptors(window[None], margin)[0]
    np.testing.assert_allclose(got[:-2], by_hand(window, margin), rtol=2e-5, atol=2e-5)


def test_peak_and_entropy_of_a_single_wave_and_of_noise():
    fringes = crystal(32, 8.0, symmetry=2)  # exactly four periods: the Hann window spreads it over 3 x 3 bins
    noise = np.random.default_rng(0).normal(size=(32, 32))
    peak, entropy = column([fringes, noise], "peak"), column([fringes, noise], "entropy")
    assert np.exp(peak[0]) == pytest.approx((2 / 3) ** 2, abs=1e-3)  # (1 / (1 + 2/4)) along each axis
    one_axis = -sum(s * np.log(s) for s in (2 / 3, 1 / 6, 1 / 6))
    assert entropy[0] == pytest.approx(2 * one_axis, abs=1e-2)
    assert peak[1] < np.log(0.03) and entropy[1] > 5


@pytest.mark.parametrize(("symmetry", "fold"), [(2, 2), (4, 4), (6, 6)])
def test_angular_order_names_the_symmetry(symmetry, fold):
    chips = [crystal(48, 7.0, angle, symmetry=symmetry) for angle in np.linspace(0, 1, 7)]
    others = {2: (), 4: (2, 6), 6: (2, 4)}[symmetry]  # fringes are ordered in every even fold
    assert (column(chips, f"angular_{fold}") > 0.85).all()
    for other in others:
        assert (column(chips, f"angular_{other}") < 0.25).all()


def test_crystal_glass_and_noise_are_told_apart_by_order_alone():
    """At the paper's sizes (15 px chips of 0.05 nm, 0.39 nm cells), without level and contrast."""
    rng = np.random.default_rng(5)
    noise = 0.3 * rng.normal(size=(150, 30, 30))
    cells = [
        crystal(30, 7.8, 0.02, rng.uniform(0, 8, 2)) + crystal(30, 5.52, 0.8, rng.uniform(0, 8, 2)) for _ in range(50)
    ]
    glasses = [3 * glass(30, i) for i in range(50)]
    chips = np.concatenate([cells, glasses, 0 * noise[100:]]) + noise
    features = lattice_descriptors(chips, 7)[:, 2:]
    features = (features - features.mean(0)) / features.std(0)
    truth = np.repeat([0, 1, 2], 50)
    prototypes = np.stack([features[truth == c][:4].mean(0) for c in range(3)])
    found = ((features[:, None] - prototypes) ** 2).sum(-1).argmin(1)
    assert (found == truth).mean() > 0.98


def test_context_tells_crystal_from_glass_better_than_the_chip_alone():
    """A field of 20 x 20 chips of 15 px, crystal on the left, glass on the right, under noise."""
    rng = np.random.default_rng(1)
    lattice = crystal(300, 7.8, 0.02) + crystal(300, 5.52, 0.8)
    image = np.where(np.arange(300) < 150, lattice, 4 * glass(300, 2)) + rng.normal(size=(300, 300))
    grid = Grid(rows=20, cols=20, chip_nm=0.75, chip_px=15, pixel_nm=0.05)
    truth = np.arange(400) % 20 >= 10
    error = {}
    for margin in (0, margin_px(15)):
        rows = lattice_descriptors(windows(image, grid, 15, margin), margin)[:, 4:]  # order alone
        rows = (rows - rows.mean(0)) / rows.std(0)
        near = [((rows - rows[truth == c][:4].mean(0)) ** 2).sum(1) for c in (False, True)]
        error[margin] = ((near[1] < near[0]) != truth).mean()
    assert error[7] < 0.03 and error[7] < 0.5 * error[0]


def test_moments_come_from_the_chip_alone():
    image = np.random.default_rng(1).random((40, 40))
    grid = Grid(rows=4, cols=4, chip_nm=1.0, chip_px=10, pixel_nm=0.1)
    alone, inside = (lattice_descriptors(windows(image, grid, 10, m), m) for m in (0, 5))
    np.testing.assert_array_equal(alone[:, :4], inside[:, :4])


@given(st.floats(0.01, 1000), st.floats(-5000, 5000), st.integers(4, 24), st.integers(0, 99))
def test_gain_and_offset_change_level_and_contrast_only(gain, offset, side, seed):
    chips = np.random.default_rng(seed).normal(100, 10, (3, side, side))
    a, b = lattice_descriptors(chips), lattice_descriptors(chips * gain + offset)
    np.testing.assert_allclose(b[:, 0], a[:, 0] * gain + offset, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(b[:, 1], a[:, 1] * np.sqrt(gain), rtol=1e-4)
    np.testing.assert_allclose(b[:, 2:], a[:, 2:], atol=1e-3)


@given(side=st.integers(4, 30), seed=st.integers(0, 99))
def test_mirrors_and_quarter_turns_of_a_chip_are_the_same_chip(side, seed):
    chip = np.random.default_rng(seed).normal(size=(side, side))
    same = [chip, chip.T, chip[::-1], chip[:, ::-1], np.rot90(chip)]
    rows = lattice_descriptors(np.stack(same))
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), atol=1e-4)


def test_a_row_does_not_depend_on_the_other_chips_bit_for_bit():
    chips = np.random.default_rng(2).normal(1000, 30, (700, 21, 21)).astype(np.float32)
    together = lattice_descriptors(chips, 3)
    alone = np.concatenate([lattice_descriptors(chips[i : i + 1], 3) for i in range(0, 700, 23)])
    np.testing.assert_array_equal(together[::23], alone)
    order = np.random.default_rng(3).permutation(700)
    np.testing.assert_array_equal(lattice_descriptors(chips[order], 3), together[order])


@pytest.mark.parametrize("side", [*range(1, 12), 16, 33, 64])
@pytest.mark.parametrize("kind", ["noise", "zero", "constant", "step", "spike", "saturated"])
def test_every_feature_is_finite_for_every_size_and_kind(side, kind):
    rng = np.random.default_rng(side)
    chip = {
        "noise": rng.normal(size=(side, side)),
        "zero": np.zeros((side, side)),
        "constant": np.full((side, side), 1e7 / 3),
        "step": np.where(np.arange(side) < side / 2, 0, 65535)[:, None] * np.ones(side),
        "spike": np.where(np.arange(side * side).reshape(side, side) == side * side // 2, 3.1e6, 0.1),
        "saturated": rng.choice([0.0, 65535.0], (side, side)),
    }[kind].astype(np.float32)
    rows = lattice_descriptors(chip[None])
    assert rows.shape == (1, len(DESCRIPTOR_NAMES)) and rows.dtype == np.float32
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("value", [0.0, 1e-30, 1 / 3, 65535.0, -1e30])
def test_a_flat_chip_has_a_level_and_nothing_else(value):
    row = lattice_descriptors(np.full((1, 15, 15), value))[0]
    assert row[COLUMN["level"]] == pytest.approx(value, rel=1e-6)
    rest = [i for n, i in COLUMN.items() if n != "level" and not n.startswith("power")]
    np.testing.assert_allclose(row[rest], 0, atol=1e-6 * abs(value) ** 0.5)
    np.testing.assert_allclose(row[COLUMN["power_1"] : COLUMN["power_6"] + 1], np.log(1e-3), rtol=1e-6)


def test_unvisited_pixels_are_neutral_and_chips_without_data_are_zero():
    rng = np.random.default_rng(4)
    chips = rng.normal(500, 1, (4, 12, 12))
    gappy = chips.copy()
    gappy[0, 0, :5] = np.nan  # a few pixels of context
    gappy[1, 3:9, 3:9] = np.nan  # the whole chip, but not its context
    gappy[2] = np.nan
    rows, whole = lattice_descriptors(gappy, 3), lattice_descriptors(chips, 3)
    assert np.isfinite(rows).all()
    assert not rows[1].any() and not rows[2].any()
    np.testing.assert_array_equal(rows[3], whole[3])
    np.testing.assert_array_equal(rows[0, :4], whole[0, :4])
    assert np.isnan(gappy[2]).all()  # the caller's array is left alone


@settings(max_examples=20)
@given(st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, ">u2"]))
def test_any_real_dtype_will_do(dtype):
    chips = np.random.default_rng(0).integers(0, 100, (2, 10, 10))
    np.testing.assert_array_equal(lattice_descriptors(chips.astype(dtype)), lattice_descriptors(chips))


def test_no_chips_give_no_rows():
    assert lattice_descriptors(np.empty((0, 9, 9))).shape == (0, len(DESCRIPTOR_NAMES))


@pytest.mark.parametrize(
    ("shape", "margin", "message"),
    [((3, 4), 0, r"\(N, q, q\)"), ((1, 4, 5), 0, r"\(N, q, q\)"), ((1, 0, 0), 0, r"\(N, q, q\)")]
    + [((1, 4, 4), m, "leaves no chip") for m in (-1, 2, 9)],
)
def test_bad_input_is_answered_in_one_line(shape, margin, message):
    with pytest.raises(StageError, match=message):
        lattice_descriptors(np.zeros(shape), margin)


@pytest.mark.recordings
def test_a_real_picture_gives_finite_features_that_vary(recordings):
    import hyperspy.api as hs

    image = hs.load(recordings / "sio2_haadf.hspy").data
    grid = Grid(rows=32, cols=32, chip_nm=34.2, chip_px=4, pixel_nm=8.552)
    rows = lattice_descriptors(windows(image, grid, 4, margin_px(4)), margin_px(4))
    assert np.isfinite(rows).all()
    assert (rows.std(axis=0) > 0).sum() >= 12  # 8 px windows leave some annuli without a bin
