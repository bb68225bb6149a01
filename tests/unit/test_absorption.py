"""Absorption in the specimen: exspy as oracle, errors against Monte Carlo, a foil of known thickness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestem.domain.errors import UsageError
from livestem.domain.scan import EnergyAxis
from livestem.stages.absorption import Foil, correct_absorption, transmitted
from livestem.stages.composition import cliff_lorimer
from livestem.stages.kfactors import KFactors, atomic_weight, mass_absorption
from livestem.stages.lines import choose_lines, named_lines
from livestem.stages.quantify import Fit

ELEMENTS = ("Fe", "La", "O", "Sr")
FAMILIES = choose_lines(ELEMENTS, EnergyAxis(channels=2000, scale_kev=0.01), 300.0)
LINES = named_lines(FAMILIES)
K = KFactors(dict(zip(LINES, (1.75, 4.47, 0.97, 6.26), strict=True)), "the test")
COUNTS = np.array([[900.0, 800.0, 1500.0, 40.0], [20.0, 900.0, 400.0, 700.0], [500.0, 3.0, 2500.0, 300.0]])


def a_fit(counts, covariance=None) -> Fit:
    full = np.zeros((len(counts), len(FAMILIES)))
    full[:, : len(LINES)] = counts
    if covariance is None:
        covariance = np.apply_along_axis(np.diag, 1, np.abs(full))
    determined = np.array([i < len(LINES) for i in range(len(FAMILIES))])
    return Fit(FAMILIES, full, covariance, full.sum(1), determined, ("",) * len(FAMILIES))


@pytest.mark.parametrize(("thickness_nm", "take_off_deg"), [(30.0, 35.0), (100.0, 18.0)])
def test_exspy_finds_the_same_composition(thickness_nm, take_off_deg):
    import hyperspy.api as hs

    signal = hs.signals.Signal1D(np.zeros((len(COUNTS), 2000)))
    signal.set_signal_type("EDS_TEM")
    intensities = []
    for column, line in zip(COUNTS.T, LINES, strict=True):
        one = hs.signals.BaseSignal(column.copy()).T
        one.metadata.set_item("Sample.elements", [line.split("_")[0]])
        one.metadata.set_item("Sample.xray_lines", [line])
        intensities.append(one)
    theirs, _ = signal.quantification(
        intensities, "CL", [K.of(line) for line in LINES], absorption_correction=True, take_off_angle=take_off_deg,
        thickness=thickness_nm, navigation_mask=None, convergence_criterion=1e-5, max_iterations=100,
        show_progressbar=False,
    )  # fmt: skip
    ours = cliff_lorimer(a_fit(COUNTS), K, foil=Foil(thickness_nm, take_off_deg))
    assert ours.absorption == "corrected"
    np.testing.assert_allclose(ours.atomic_percent, np.transpose([s.data for s in theirs]), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.floats(1.0, 300.0), st.floats(15.0, 80.0), st.lists(st.floats(1.0, 1e3), min_size=4, max_size=4))
def test_what_a_foil_lets_out_is_corrected_back(thickness_nm, take_off_deg, atoms):
    """The definition, the other way round: known atoms, their photons dimmed by the foil they make."""
    density = 6.0
    mass = np.array(atoms) * [atomic_weight(e) for e in ELEMENTS]
    mu = np.array([mass_absorption(e, [f.energy_kev for f in FAMILIES[:4]]) for e in ELEMENTS])
    x = mass / mass.sum() @ mu * density * thickness_nm * 1e-7 / np.sin(np.radians(take_off_deg))
    counts = mass * transmitted(x) / [K.of(line) for line in LINES]
    found = cliff_lorimer(a_fit(counts[None]), K, foil=Foil(thickness_nm, take_off_deg, density))
    np.testing.assert_allclose(found.atomic_percent[0], 100 * np.array(atoms) / sum(atoms), atol=1e-4)


@pytest.mark.parametrize("density_g_cm3", [None, 6.6])
def test_errors_are_those_of_monte_carlo(density_g_cm3):
    rng = np.random.default_rng(1)
    mean = np.concatenate([COUNTS[0] * 20, np.zeros(len(FAMILIES) - 4)])
    covariance = np.diag(mean)
    foil = Foil(150.0, 18.0, density_g_cm3)
    draws = rng.multivariate_normal(mean, covariance, 20000)[:, :4]
    many = cliff_lorimer(a_fit(draws, np.broadcast_to(covariance, (20000, *covariance.shape))), K, ("Sr",), foil=foil)
    said = cliff_lorimer(a_fit(mean[None, :4], covariance[None]), K, ("Sr",), foil=foil)
    np.testing.assert_allclose(said.sigma[0], many.atomic_percent.std(0), rtol=0.03)
    plain = cliff_lorimer(a_fit(mean[None, :4], covariance[None]), K, ("Sr",))
    assert abs(plain.sigma[0, 2] / said.sigma[0, 2] - 1) > 0.05  # the correction's own error is not negligible
    assert said.extraneous_sigma[0] == pytest.approx(many.extraneous_percent.std(), rel=0.03)


def test_oxygen_of_a_perovskite_reads_low_by_what_the_foil_keeps():
    """Science's number: O K of LaFeO3 is transmitted to 0.86 at 50 nm (22 degrees) and 0.74 at 100 nm."""
    mass = np.array([[20.0 * atomic_weight("Fe"), 20.0 * atomic_weight("La"), 60.0 * atomic_weight("O"), 0.0]])
    energies = tuple(f.energy_kev for f in FAMILIES[:4])
    for thickness_nm, share in ((50.0, 0.86), (100.0, 0.74)):
        out, _ = correct_absorption(Foil(thickness_nm, 22.0, 6.65), ELEMENTS, energies, mass, np.ones(4))
        assert mass[0, 2] / out[0, 2] == pytest.approx(share, abs=0.03)


def test_a_thin_foil_changes_nothing_and_strays_are_not_part_of_it():
    plain, thin = (cliff_lorimer(a_fit(COUNTS), K, foil=foil) for foil in (None, Foil(1e-6)))
    np.testing.assert_allclose(plain.atomic_percent, thin.atomic_percent, atol=1e-5)
    np.testing.assert_allclose(plain.sigma, thin.sigma, rtol=1e-5)
    without = COUNTS * [1, 1, 1, 0]
    seen, alone = (cliff_lorimer(a_fit(c), K, ("Sr",), foil=Foil(100.0)).atomic_percent for c in (COUNTS, without))
    np.testing.assert_allclose(seen, alone, rtol=1e-9)


def test_a_spectrum_without_atoms_is_masked_and_never_nan():
    counts = [[0, 0, 0, 0], [-5, 1, 1, 0], [0, 0, 0, 50], [100, -20, 100, 0]]
    found = cliff_lorimer(a_fit(np.array(counts, float)), K, strays=("Sr",), foil=Foil(100.0))
    assert list(found.valid) == [False, False, False, True]
    for numbers in (found.atomic_percent, found.sigma, found.extraneous_percent, found.extraneous_sigma):
        assert np.isfinite(numbers).all()


def test_a_foil_of_a_millimetre_is_refused_or_settles_but_never_nan():
    try:
        found = cliff_lorimer(a_fit(COUNTS), K, foil=Foil(1e6))
    except UsageError as error:
        assert "does not settle" in str(error)
    else:
        assert np.isfinite(found.atomic_percent).all() and np.isfinite(found.sigma).all()


def test_absorption_that_nobody_has_tabulated_says_so():
    with pytest.raises(UsageError, match="no absorption is tabulated for Np"):
        mass_absorption("Np", [1.0])
