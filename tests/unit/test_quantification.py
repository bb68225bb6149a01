"""EDS of one scan: what is asked for is done, and every value that the data do not allow is null with a reason."""

from __future__ import annotations

import math

import numpy as np
import pytest

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Sampling
from livestem.domain.scan import Beam, Eds, EnergyAxis, ScanPlan
from livestem.runtime.quantification import build_quantifier
from livestem.runtime.recipe import checked, resolve
from livestem.stages.kfactors import relative_yield
from livestem.stages.lines import choose_lines
from livestem.stages.spectrum_model import energies_kev, line_shapes

AXIS = EnergyAxis(channels=4096, scale_kev=0.005, offset_kev=-0.25)
BEAM = 300.0


def a_spectrum(counts: float, axis: EnergyAxis = AXIS, seed: int = 0, **weights: float) -> np.ndarray:
    """Poisson counts of a compound of these weight fractions over bremsstrahlung."""
    energy = energies_kev(axis).clip(0.05)
    mean = (BEAM - energy) / energy * np.exp(-0.05 / energy**2)
    mean *= 0.3 / mean.sum()
    if weights:
        families = choose_lines(weights, axis, BEAM)
        lines = line_shapes(families, axis, 130.0) @ [
            weights[f.element] * relative_yield(f.line, BEAM) for f in families
        ]
        mean += 0.7 * lines / lines.sum()
    return np.random.default_rng(seed).poisson(counts * mean)


LFO = {"La": 0.572, "Fe": 0.230, "O": 0.198}


def a_plan(axis: EnergyAxis = AXIS, **facts: object) -> ScanPlan:
    eds = Eds(sampling=Sampling(shape=(12, 12), pixel_nm=(0.5, 0.5)), energy=axis, **facts)
    return ScanPlan(eds=eds, beam=Beam(energy_kv=BEAM))


def quantified(total: np.ndarray, plan: ScanPlan | None = None, **asked: object):
    plan = plan or a_plan()
    parameters = resolve(plan, checked(**asked))[1]
    return build_quantifier(plan, parameters, total)


def test_a_compound_has_its_composition_and_says_that_absorption_is_uncorrected():
    total = a_spectrum(4e5, **LFO)
    quantifier = quantified(total, elements=("La", "Fe", "O"))
    region = quantifier.regions(total[None])[0]
    for element, percent in (("La", 20.0), ("Fe", 20.0), ("O", 60.0)):
        assert abs(region.atomic_percent[element] - percent) < 4 * region.sigma[element]
    assert quantifier.parameters.absorption == "uncorrected" and quantifier.foil is None
    assert region.extraneous_percent is None and not region.notes


def test_a_thickness_corrects_regions_and_the_atomic_modality_alike():
    total = a_spectrum(4e5, **LFO)
    plain = quantified(total, a_plan(take_off_angle_deg=18.0), elements=("La", "Fe", "O"))
    asked = {"elements": ("La", "Fe", "O"), "thickness_nm": 100.0, "density_g_cm3": 6.6}
    thick = quantified(total, a_plan(take_off_angle_deg=18.0), **asked)
    assert thick.parameters.absorption == "corrected" and thick.foil.take_off_deg == 18.0 and not thick.warnings
    seen, corrected = plain.regions(total[None])[0].atomic_percent, thick.regions(total[None])[0].atomic_percent
    assert corrected["O"] - seen["O"] > 5 and corrected["La"] < seen["La"]
    chips = thick.composition(thick.fit(total[None], final=True)).atomic_percent[0]
    assert chips == pytest.approx(list(corrected.values()))


@pytest.mark.parametrize("stated", [None, 0.0, -18.0, 120.0, math.nan])
def test_without_a_take_off_angle_a_usual_one_is_taken_and_said(stated):
    quantifier = quantified(
        a_spectrum(4e5, **LFO), a_plan(take_off_angle_deg=stated), elements=("La", "Fe", "O"), thickness_nm=50.0
    )
    assert any("corrected for 20 degrees" in w for w in quantifier.warnings)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"thickness_nm": 0.0}, "thickness_nm must be positive"),
        ({"thickness_nm": -5.0}, "thickness_nm must be positive"),
        ({"thickness_nm": math.nan}, "thickness_nm must be positive"),
        ({"thickness_nm": 1e5}, "at most 10000"),
        ({"density_g_cm3": 0.0, "thickness_nm": 5.0}, "density_g_cm3 must be positive"),
        ({"density_g_cm3": 50.0, "thickness_nm": 5.0}, "at most 30"),
        ({"density_g_cm3": 5.0}, "give --thickness-nm too"),
    ],
)
def test_a_foil_that_cannot_be_is_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        resolve(a_plan(), checked(elements=("Fe",), **asked))


# --- null with a reason ---------------------------------------------------------------------------------------


def check_nulls(region, *elements: str) -> None:
    """Every element given is null with a reason; nothing is nan; what is not null is a number between 0 and 100."""
    for element, percent in region.atomic_percent.items():
        if element in elements:
            assert percent is None and region.sigma[element] is None
            assert region.notes[f"atomic_percent.{element}"]
        else:
            assert 0 <= percent <= 100 and math.isfinite(region.sigma[element])
            assert f"atomic_percent.{element}" not in region.notes


@pytest.mark.parametrize("thickness_nm", [None, 60.0])
@pytest.mark.parametrize("counts", [0, 1, 3])
def test_a_region_of_a_few_counts_is_null_or_has_an_error(counts, thickness_nm):
    """An empty region, and one chip with a photon or three: null, or a number whose error says what it is worth."""
    quantifier = quantified(a_spectrum(4e5, **LFO), elements=tuple(LFO), strays=("Cu",), thickness_nm=thickness_nm)
    for seed in range(20):
        spectrum = np.zeros(AXIS.channels, np.int64)
        np.add.at(spectrum, np.random.default_rng(seed).integers(60, 2000, counts), 1)
        region = quantifier.regions(spectrum[None])[0]
        assert region.counts == counts
        if counts == 0:
            check_nulls(region, *LFO)
            assert region.notes["atomic_percent.O"] == "too few counts" and region.extraneous_percent is None
        else:
            check_nulls(region, *(e for e, v in region.atomic_percent.items() if v is None))


def test_a_region_that_shows_nothing_but_strays_is_null():
    quantifier = quantified(a_spectrum(4e5, **LFO, Cu=0.2), elements=tuple(LFO), strays=("Cu",))
    region = quantifier.regions(a_spectrum(3000, seed=3, Cu=1.0)[None])[0]
    for element in LFO:
        percent, sigma = region.atomic_percent[element], region.sigma[element]
        assert (percent is None and region.notes[f"atomic_percent.{element}"]) or sigma > 5


def test_one_element_is_all_of_it_and_exactly():
    quantifier = quantified(a_spectrum(1e5, Cr=1.0), elements=("Cr",))
    region = quantifier.regions(a_spectrum(500, seed=1, Cr=1.0)[None])[0]
    assert region.atomic_percent == {"Cr": 100.0} and region.sigma == {"Cr": 0.0}


def test_an_element_that_hides_under_another_is_null_with_the_reason():
    """N in SrTiO3: its one line lies under Ti Ll."""
    total = a_spectrum(4e5, Sr=0.48, Ti=0.26, O=0.26)
    region = quantified(total, elements=("Sr", "Ti", "O", "N")).regions(total[None])[0]
    check_nulls(region, "N")
    assert "Ti_Ll" in region.notes["atomic_percent.N"]


def test_no_counts_at_all_quantify_to_null():
    region = quantified(np.zeros(AXIS.channels), elements=("Fe", "O")).regions(np.zeros(AXIS.channels, np.int64)[None])[
        0
    ]
    check_nulls(region, "Fe", "O")


def test_nothing_is_identified_in_a_few_counts():
    assert quantified(a_spectrum(500, **LFO)) is None


# --- elements -------------------------------------------------------------------------------------------------


def test_elements_of_the_metadata_are_completed_and_said():
    quantifier = quantified(a_spectrum(4e5, **LFO), a_plan(elements=("Fe",)))
    assert set(quantifier.parameters.elements) == set(LFO) and quantifier.parameters.elements_origin == "automatic"
    assert any("beside those the recording names (Fe): " in w for w in quantifier.warnings)


def test_a_peak_that_nothing_explains_is_a_warning_with_its_energy():
    alien = 12000 * 0.005 / 0.3 * np.exp(-0.5 * ((energies_kev(AXIS) - 12.3) / 0.12) ** 2)  # no Kb, no other shell
    total = a_spectrum(4e5, **LFO) + np.random.default_rng(1).poisson(alien)
    (warning,) = (w for w in quantified(total).warnings if "unexplained" in w)
    assert "12.3" in warning and "--elements" in warning


def test_elements_that_the_user_names_are_taken_as_they_are():
    quantifier = quantified(a_spectrum(4e5, **LFO), a_plan(elements=("Nb",)), elements=("La", "Fe", "O", "Cr"))
    assert quantifier.parameters.elements == ("La", "Fe", "O", "Cr") and not quantifier.warnings


def test_a_shifted_axis_is_corrected_and_reported():
    shifted = EnergyAxis(channels=4096, scale_kev=0.005, offset_kev=-0.28)
    total = a_spectrum(4e5, axis=shifted, **LFO)
    quantifier = quantified(total, elements=tuple(LFO))
    assert quantifier.operator.axis.offset_kev == pytest.approx(-0.28, abs=0.001)
    assert any("peaks sit 0.030 keV high" in w for w in quantifier.warnings)
    found = quantifier.regions(total[None])[0].atomic_percent
    assert found["O"] == pytest.approx(60.0, abs=1.0)
