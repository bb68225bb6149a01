"""The linear operator: known intensities come back, unbiased, with honest errors; overlaps are resolved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestem.domain.errors import StageError
from livestem.domain.scan import EnergyAxis
from livestem.stages.lines import choose_lines
from livestem.stages.quantify import build_operator, fit, line_intensities
from livestem.stages.spectrum_model import align, background_shapes, energies_kev, line_shapes

AXIS = EnergyAxis(channels=2000, scale_kev=0.01, offset_kev=-0.25)
BEAM = 300.0


def expected_spectrum(elements, intensities, background=2.0, axis=AXIS, resolution=130.0):
    """Poisson means from known intensities over bremsstrahlung under an absorbing window (not a spline)."""
    families = choose_lines(elements, axis, BEAM)
    amounts = np.array([intensities.get(f.line, 0.0) for f in families])
    energy = energies_kev(axis).clip(0.05)
    continuum = background * (BEAM - energy) / BEAM / energy * np.exp(-0.05 / energy**2)
    return families, amounts, line_shapes(families, axis, resolution) @ amounts + continuum


OVERLAPS = {  # all that the specification lists
    "O under Cr L": (("O", "Cr"), {"O_Ka": 300, "Cr_La": 600, "Cr_Ka": 900}),
    "O beside Ti L": (("O", "Ti", "Cr"), {"O_Ka": 300, "Ti_La": 60, "Ti_Ka": 600, "Cr_La": 200, "Cr_Ka": 900}),
    "N under Ti Ll": (("N", "Ti"), {"N_Ka": 300, "Ti_La": 60, "Ti_Ka": 600}),
    "La L on Ti K": (("La", "Ti"), {"La_La": 500, "Ti_Ka": 400, "La_Ma": 800, "Ti_La": 50}),  # and La Lb1 on Ti Kb
    "Pt L beside Ga K": (("Pt", "Ga"), {"Pt_La": 300, "Ga_Ka": 500, "Pt_Ma": 900, "Ga_La": 300}),
    "Sr L on Si K": (("Sr", "Si"), {"Sr_La": 700, "Sr_Ka": 250, "Si_Ka": 150}),
    "La Lb2 on Cr K": (("La", "Cr"), {"La_La": 900, "Cr_Ka": 200, "La_Ma": 500, "Cr_La": 90}),
    "La M beside Ga L": (("La", "Ga"), {"La_Ma": 700, "La_La": 500, "Ga_La": 200, "Ga_Ka": 300}),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_known_intensities_come_back_with_honest_errors(name):
    elements, intensities = OVERLAPS[name]
    families, truth, mean = expected_spectrum(elements, intensities)
    operator = build_operator(families, AXIS, mean, 130.0, BEAM)
    draws = np.random.default_rng(1).poisson(mean, (1000, AXIS.channels))
    result = fit(operator, draws)
    present = operator.determined & (truth > 0)
    assert present[[f.line in intensities for f in families]].all()
    pulls = ((result.intensities - truth) / result.sigma)[:, present]
    # 1000 draws: the mean is known to 0.03, the width to 0.02; the background is not of our own shape.
    assert np.abs(pulls.mean(0)).max() < 0.1
    assert np.abs(pulls.std(0) - 1).max() < 0.1


@pytest.mark.parametrize("nonnegative", [False, True])
def test_intensities_alone_are_those_of_the_fit(nonnegative):
    families, _, mean = expected_spectrum(*OVERLAPS["La L on Ti K"])
    operator = build_operator(families, AXIS, mean, 130.0, BEAM)
    draws = np.random.default_rng(9).poisson(mean / 30, (20, AXIS.channels))
    draws[3] = 0
    alone = line_intensities(operator, draws, nonnegative=nonnegative)
    np.testing.assert_array_equal(alone, fit(operator, draws, nonnegative=nonnegative).intensities)
    plain = draws[:, operator.window] @ operator.response.T
    np.testing.assert_allclose(line_intensities(operator, draws), plain, atol=1e-9)


def test_weights_come_from_the_mean_so_that_a_few_counts_are_not_biased():
    families, truth, mean = expected_spectrum(("O", "Fe", "La"), {"O_Ka": 4, "Fe_Ka": 5, "La_La": 3}, 0.02)
    draws = np.random.default_rng(2).poisson(mean, (4000, AXIS.channels))
    result = fit(build_operator(families, AXIS, draws.mean(0), 130.0, BEAM), draws)
    for column, family in enumerate(families[:3]):
        error = result.intensities[:, column].std() / np.sqrt(len(draws))
        assert abs(result.intensities[:, column].mean() - truth[column]) < 4 * error, family.line
    said, seen = np.sqrt((result.sigma[:, :3] ** 2).mean(0)), result.intensities[:, :3].std(0)
    np.testing.assert_allclose(said, seen, rtol=0.1)


def test_covariances_match_the_scatter_of_the_draws():
    families, _, mean = expected_spectrum(*OVERLAPS["Sr L on Si K"])
    draws = np.random.default_rng(3).poisson(mean, (2000, AXIS.channels))
    result = fit(build_operator(families, AXIS, mean, 130.0, BEAM), draws)
    seen, said = np.cov(result.intensities.T), result.covariance.mean(0)
    scale = np.sqrt(np.outer(np.diag(said), np.diag(said)))
    assert np.abs((seen - said) / scale).max() < 0.12


def test_photons_add_one_by_one():
    families, _, mean = expected_spectrum(*OVERLAPS["O under Cr L"])
    operator = build_operator(families, AXIS, mean, 130.0, BEAM)
    rng = np.random.default_rng(4)
    spectrum, more = rng.poisson(mean), np.bincount([200, 700], minlength=AXIS.channels)
    both = fit(operator, [spectrum + more]).intensities
    parts = fit(operator, [spectrum]).intensities + fit(operator, [more]).intensities
    np.testing.assert_allclose(both, parts, atol=1e-9)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_a_chip_gets_the_same_bits_alone_and_in_any_batch(nonnegative):
    families, _, mean = expected_spectrum(*OVERLAPS["Sr L on Si K"])
    operator = build_operator(families, AXIS, mean, 130.0, BEAM)
    draws = np.random.default_rng(8).poisson(mean / 50, (40, AXIS.channels))
    batch = fit(operator, draws, nonnegative=nonnegative)
    for row in (0, 7, 39):
        alone = fit(operator, draws[row : row + 1].astype(np.uint16), nonnegative=nonnegative)
        np.testing.assert_array_equal(alone.intensities[0], batch.intensities[row])
        np.testing.assert_array_equal(alone.covariance[0], batch.covariance[row])


def test_a_line_above_the_beam_is_not_determined():
    families, _, mean = expected_spectrum(("O", "Fe"), {"O_Ka": 900, "Fe_Ka": 700})
    operator = build_operator(families, AXIS, mean, 130.0, 5.0)
    assert "outside the channels" in operator.reasons[1] and operator.determined[0]
    assert fit(operator, [mean], nonnegative=True).intensities[0, 1] == 0


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e4))
def test_the_operator_does_not_depend_on_the_scale_of_the_mean(scale):
    families, _, mean = expected_spectrum(*OVERLAPS["O under Cr L"])
    one, other = (build_operator(families, AXIS, mean * s, 130.0, BEAM) for s in (1.0, scale))
    np.testing.assert_allclose(one.response, other.response, rtol=1e-6, atol=1e-9)


def test_finals_are_not_negative_and_agree_with_plain_nnls():
    from scipy.optimize import nnls

    families, _, mean = expected_spectrum(("O", "Fe", "Cr"), {"O_Ka": 5, "Fe_Ka": 5}, 0.05)
    operator = build_operator(families, AXIS, mean, 130.0, BEAM)
    draws = np.random.default_rng(5).poisson(mean, (60, AXIS.channels))
    live, final = fit(operator, draws), fit(operator, draws, nonnegative=True)
    assert (live.intensities < 0).any() and (final.intensities >= 0).all()
    np.testing.assert_array_equal(live.covariance, final.covariance)
    untouched = (live.intensities >= 0).all(1)
    np.testing.assert_array_equal(live.intensities[untouched], final.intensities[untouched])
    # Oracle: lines >= 0, background free (as a difference of two non-negative parts).
    root = np.sqrt(operator.weights)
    lines, rest = np.split(operator.design * root[:, None], [len(families)], axis=1)
    for row in np.flatnonzero(~untouched)[:10]:
        oracle = nnls(np.hstack([lines, rest, -rest]), draws[row][operator.window] * root, maxiter=2000)[0]
        np.testing.assert_allclose(
            final.intensities[row][operator.determined],
            oracle[: len(families)][operator.determined],
            atol=1e-6,
        )


def test_nitrogen_in_strontium_titanate_is_not_determined_and_says_why():
    present = {"Sr_Ka": 3e3, "Sr_La": 7e3, "Ti_Ka": 7e3, "Ti_La": 400, "O_Ka": 4e3}
    families, _, mean = expected_spectrum(("Sr", "Ti", "O", "N"), present)
    operator = build_operator(families, AXIS, mean, 130.0, BEAM)
    nitrogen = [f.line for f in families].index("N_Ka")
    assert not operator.determined[nitrogen]
    assert "Ti_Ll" in operator.reasons[nitrogen]
    result = fit(operator, [np.round(mean)])
    assert result.intensities[0, nitrogen] == 0 and not result.covariance[0, nitrogen].any()
    assert result.determined[:nitrogen].all()


def test_a_nitride_is_determined():
    families, _, mean = expected_spectrum(("Ti", "N"), {"Ti_Ka": 3e3, "Ti_La": 100, "N_Ka": 2e3})
    assert build_operator(families, AXIS, mean, 130.0, BEAM).determined[1]


def test_the_same_family_twice_is_not_determined_and_the_others_are_unharmed():
    families, truth, mean = expected_spectrum(("Fe", "Ti"), {"Fe_Ka": 900, "Ti_Ka": 700})
    doubled = (*families, families[0])
    result = fit(build_operator(doubled, AXIS, mean, 130.0, BEAM), [mean])
    assert list(result.determined) == [False, *[True] * (len(families) - 1), False]
    assert "Fe_Ka cannot be told from Fe_Ka" in result.reasons[0]
    assert result.intensities[0, 1] == pytest.approx(truth[1], rel=0.01)


def test_an_empty_spectrum_has_zero_intensity_and_an_error():
    families, _, mean = expected_spectrum(*OVERLAPS["La L on Ti K"])
    result = fit(build_operator(families, AXIS, mean, 130.0, BEAM), np.zeros((1, AXIS.channels)))
    assert not result.intensities.any() and (result.sigma[0, result.determined] > 0).all()


def test_an_operator_before_the_first_photon_is_usable():
    families, _, mean = expected_spectrum(*OVERLAPS["La L on Ti K"])
    result = fit(build_operator(families, AXIS, np.zeros(AXIS.channels)), [mean])
    assert np.isfinite(result.intensities).all() and np.isfinite(result.covariance).all()


def test_no_spectra_give_no_intensities():
    families, _, mean = expected_spectrum(*OVERLAPS["La L on Ti K"])
    result = fit(build_operator(families, AXIS, mean), np.zeros((0, AXIS.channels)), nonnegative=True)
    assert result.intensities.shape == (0, len(families))


@pytest.mark.parametrize(
    ("spectra", "message"),
    [
        (np.zeros((2, 10)), "2000 channels"),
        (np.zeros(2000), "2000 channels"),
        (np.full((1, 2000), -1.0), "negative"),
        (np.full((1, 2000), np.nan), "negative or infinite"),
        (np.full((1, 2000), np.inf), "negative or infinite"),
        (np.full((1, 2000), "x"), "must be numbers"),
    ],
)
def test_spectra_that_are_none_are_refused(spectra, message):
    families, _, mean = expected_spectrum(*OVERLAPS["La L on Ti K"])
    with pytest.raises(StageError, match=message):
        fit(build_operator(families, AXIS, mean), spectra)


def test_an_axis_without_lines_is_refused():
    with pytest.raises(StageError, match="ends at"):
        build_operator((), EnergyAxis(channels=10, scale_kev=0.01), np.zeros(10))
    families = choose_lines(("O", "N", "C"), EnergyAxis(channels=53, scale_kev=0.0101), BEAM)
    with pytest.raises(StageError, match="fewer elements"):
        build_operator(families * 10, EnergyAxis(channels=53, scale_kev=0.0101), np.ones(53))


def test_the_named_gaussian_has_unit_area_and_backgrounds_are_positive():
    families = choose_lines(("O", "Fe"), AXIS, BEAM)
    areas = line_shapes(families, AXIS, 130.0).sum(0)
    np.testing.assert_allclose(areas, [sum(f.weights) for f in families], rtol=1e-6)
    assert (background_shapes(AXIS, slice(45, 1900), BEAM) >= 0).all()


@pytest.mark.parametrize(("shift_kev", "resolution"), [(0.03, 145.0), (-0.02, 128.0), (0.0, 130.0)])
def test_align_finds_a_shifted_axis_and_its_resolution(shift_kev, resolution):
    elements, intensities = ("O", "Si", "Cu"), {"O_Ka": 2e4, "Si_Ka": 3e4, "Cu_Ka": 2e4, "Cu_La": 1e3}
    true_axis = EnergyAxis(channels=2000, scale_kev=0.01, offset_kev=-0.25 - shift_kev)
    families, _, mean = expected_spectrum(elements, intensities, axis=true_axis, resolution=resolution)
    counts = np.random.default_rng(6).poisson(mean)
    axis, found = align(families, AXIS, counts, None, BEAM)
    assert axis.offset_kev == pytest.approx(true_axis.offset_kev, abs=1e-3)
    assert found == pytest.approx(resolution, abs=1.5)
    assert align((), AXIS, counts) == (AXIS, 130.0)


@pytest.mark.recordings
def test_strontium_titanate_has_its_lines(recordings):
    import hyperspy.api as hs

    signal = hs.load(recordings / "velox_sto_spectra.emd")[0]
    measured = signal.axes_manager.signal_axes[0]
    axis = EnergyAxis(channels=measured.size, scale_kev=measured.scale, offset_kev=measured.offset)
    families = choose_lines(("Sr", "Ti", "O", "Cu", "C"), axis, 200.0)
    aligned, resolution = align(families, axis, signal.data, None, 200.0)
    operator = build_operator(families, aligned, signal.data, resolution, 200.0)
    result = fit(operator, signal.data[None], nonnegative=True)
    found = dict(zip([f.line for f in families], result.intensities[0], strict=True))
    assert abs(aligned.offset_kev - axis.offset_kev) < 0.01
    assert found["Sr_La"] == pytest.approx(34000, rel=0.03)
    # Four fifths of all counts are lines; the model explains the sum to within a per cent.
    residual = signal.data[operator.window] - operator.mean_model
    assert abs(residual.sum()) < 0.01 * signal.data.sum()
