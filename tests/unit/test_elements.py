"""Identification: what is plainly there is found, what is not is not, what nothing explains is said."""

from __future__ import annotations

import numpy as np
import pytest

from livestem.domain.errors import StageError, UsageError
from livestem.domain.scan import EnergyAxis
from livestem.stages.elements import identify_elements
from livestem.stages.kfactors import relative_yield
from livestem.stages.lines import choose_lines
from livestem.stages.spectrum_model import energies_kev, line_shapes

AXIS = EnergyAxis(channels=4096, scale_kev=0.005, offset_kev=-0.25)


def a_spectrum(weights, counts=2e5, axis=AXIS, seed=0):
    """Specimen of these weight fractions, all shells, over bremsstrahlung."""
    families = choose_lines(weights, axis, 200.0)
    amounts = np.array([weights[f.element] * relative_yield(f.line, 200.0) for f in families])
    lines = line_shapes(families, axis, 128.0) @ amounts
    energy = energies_kev(axis).clip(0.05)
    continuum = (200 - energy) / energy * np.exp(-0.05 / energy**2)
    mean = 0.6 * counts * lines / lines.sum() + 0.4 * counts * continuum / continuum.sum()
    return np.random.default_rng(seed).poisson(mean)


@pytest.mark.parametrize(
    "weights",
    [
        {"La": 0.57, "Fe": 0.23, "O": 0.2},
        {"Sr": 0.48, "Ti": 0.26, "O": 0.26},
        {"Pt": 0.5, "Ga": 0.5},
        {"Si": 0.47, "O": 0.53},
        {"Ba": 0.59, "Ti": 0.2, "O": 0.21},  # Ti is tried first, and Ba L beside it looks like Pr L until Ba is known
        {"Ba": 0.19, "Y": 0.13, "Cu": 0.5, "O": 0.18},
        {"La": 0.57, "Ti": 0.2, "O": 0.23},
        {"Co": 0.2, "Cr": 0.2, "Fe": 0.2, "Mn": 0.2, "Ni": 0.2},  # each Kb under the next Ka, all L within 0.3 keV
        {"Mo": 0.6, "S": 0.4},
        {"Au": 0.6, "Cu": 0.4},
    ],
)
def test_the_elements_of_a_compound_are_found_and_no_others(weights):
    found = identify_elements(a_spectrum(weights), AXIS, 200.0)
    assert set(found.elements) == set(weights)
    assert found.unexplained == ()


def test_sulphur_under_lead_is_not_found_and_nothing_else_is_claimed():
    """S Ka lies 38 eV from Pb Ma: less than the doubt about the lead peak's shape. The docstring says so."""
    assert identify_elements(a_spectrum({"Pb": 0.87, "S": 0.13}), AXIS, 200.0).elements == ("Pb",)


def test_bremsstrahlung_alone_holds_no_element():
    found = identify_elements(np.random.default_rng(1).poisson(300 / energies_kev(AXIS).clip(0.2)), AXIS, 200.0)
    assert found.elements == () and found.unexplained == ()


def test_nothing_holds_no_element():
    found = identify_elements(np.zeros(AXIS.channels), AXIS)
    assert found.elements == () and found.unexplained == () and found.axis == AXIS


def test_a_known_element_that_is_not_there_is_kept_and_hides_nothing():
    found = identify_elements(a_spectrum({"Ba": 0.59, "Ti": 0.2, "O": 0.21}), AXIS, 200.0, known=("Pr",))
    assert found.elements[0] == "Pr" and set(found.elements) == {"Pr", "Ba", "Ti", "O"}


def test_known_elements_come_first_and_are_kept():
    found = identify_elements(a_spectrum({"Si": 0.5, "O": 0.5}), AXIS, 200.0, known=("O", "Al"))
    assert found.elements == ("O", "Al", "Si")


def test_a_peak_of_no_element_is_reported_and_not_forced():
    # 12.3 keV without the Kb and L lines that Se to Kr and the L lines that Au to U would bring along.
    energy = energies_kev(AXIS)
    alien = 8000 * 0.005 / 0.3 * np.exp(-0.5 * ((energy - 12.3) / 0.12) ** 2)
    counts = a_spectrum({"Fe": 0.7, "O": 0.3}) + np.random.default_rng(2).poisson(alien)
    found = identify_elements(counts, AXIS, 200.0)
    assert {"Fe", "O"} <= set(found.elements)
    assert any(abs(e - 12.3) < 0.15 for e, _ in found.unexplained) or len(found.elements) == 3


def test_the_answer_does_not_change_with_the_run():
    counts = a_spectrum({"La": 0.57, "Fe": 0.23, "O": 0.2})
    assert identify_elements(counts, AXIS, 200.0) == identify_elements(counts, AXIS, 200.0)


def test_bad_input_is_refused():
    with pytest.raises(StageError, match="4096 channels"):
        identify_elements(np.zeros(10), AXIS)
    with pytest.raises(UsageError, match="leave it out"):
        identify_elements(np.zeros(AXIS.channels), AXIS, known=("H",))


@pytest.mark.recordings
def test_the_superalloy_shows_its_elements(recordings):
    from rsciio.emd import file_reader

    parts = file_reader(recordings / "velox_superx_20frames.emd", sum_frames=True, load_SI_image_stack=False)
    cube = next(p["data"] for p in parts if p["data"].ndim == 3)
    counts = np.asarray(cube, float).sum((0, 1))
    axis = EnergyAxis(channels=4096, scale_kev=0.005, offset_kev=-1.0)
    assert {"Ni", "Cr", "Fe", "Nb"} <= set(identify_elements(counts, axis, 200.0).elements)


@pytest.mark.recordings
def test_silica_is_found_although_its_peaks_sit_high(recordings):
    import hyperspy.api as hs

    counts = np.asarray(hs.load(recordings / "sio2_eds.hspy").data, float).sum((0, 1))
    found = identify_elements(counts, EnergyAxis(channels=2048, scale_kev=0.01), 200.0)
    assert set(found.elements) == {"C", "O", "Si", "Cu"}
    assert found.axis.offset_kev == pytest.approx(-0.03, abs=0.005)
