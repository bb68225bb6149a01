"""Line families: exspy's numbers, the stated choice of the named line, and errors that say what to do."""

from __future__ import annotations

import pytest

from livestem.domain.errors import UsageError
from livestem.domain.scan import EnergyAxis
from livestem.stages.lines import choose_lines, fwhm_kev, named_lines, split_line, xray_lines

VELOX = EnergyAxis(channels=4096, scale_kev=0.01, offset_kev=-0.25)


def test_the_published_elements_get_the_published_lines():
    published = "Al_Ka C_Ka Cr_Ka Cu_Ka Fe_Ka Ga_Ka La_La N_Ka O_Ka Pt_La Sr_Ka Ti_Ka".split()
    families = choose_lines((line.split("_")[0] for line in published), VELOX, 300.0)
    assert list(named_lines(families)) == published


@pytest.mark.parametrize(("line", "ratio"), [("La_La", 2.01), ("Pt_La", 1.95), ("Fe_Ka", 1.13)])
def test_families_sum_to_the_known_multiples_of_their_named_line(line, ratio):
    (family,) = (f for f in choose_lines((), VELOX, 300.0, lines=(line,)) if not f.nuisance)
    assert sum(family.weights) == pytest.approx(ratio, abs=0.005)
    assert family.weights[0] == 1.0
    assert family.energies_kev[0] == family.energy_kev


def test_other_shells_are_fitted_as_nuisance_so_that_overlaps_are_resolved():
    nuisance = {f.line for f in choose_lines(("O", "Cr", "Ti", "Ga", "La"), VELOX, 300.0) if f.nuisance}
    assert {"Cr_La", "Ti_La", "Ga_La", "La_Ma", "La_Ka"} <= nuisance
    assert "O_La" not in nuisance


def test_weights_are_relative_to_the_named_line_even_where_it_is_not_the_strongest():
    titanium = next(f for f in choose_lines(("Ti",), VELOX, 300.0) if f.shell == "L")
    table = xray_lines("Ti")
    weight = dict(zip(titanium.members, titanium.weights, strict=True))
    assert titanium.line == "Ti_La"
    assert weight["Ll"] == pytest.approx(table["Ll"][1] / table["La"][1])


@pytest.mark.parametrize(
    ("element", "axis", "beam", "line"),
    [
        ("La", VELOX, 300.0, "La_La"),  # Ka at 33 keV is inside the axis, but silicon barely stops it
        ("Sr", VELOX, 20.0, "Sr_La"),  # Ka at 14 keV has an overvoltage below 2
        ("Sr", EnergyAxis(channels=1000, scale_kev=0.01), 200.0, "Sr_La"),  # Ka beyond the axis
        ("Zn", VELOX, 15.0, "Zn_La"),
        ("Fe", VELOX, None, "Fe_Ka"),
        ("Ca", EnergyAxis(channels=200, scale_kev=0.01), 200.0, "Ca_Ll"),  # no La tabulated: the strongest
    ],
)
def test_the_named_line_follows_the_rule(element, axis, beam, line):
    assert named_lines(choose_lines((element,), axis, beam)) == (line,)


def test_an_explicit_line_wins_and_brings_its_element():
    families = choose_lines(("Fe",), VELOX, 300.0, lines=("Sr_La", "Fe_La"))
    assert named_lines(families) == ("Fe_La", "Sr_La")
    assert {"Fe_Ka", "Sr_Ka"} == {f.line for f in families if f.nuisance}


@pytest.mark.parametrize(
    ("elements", "lines", "message"),
    [
        (("Xx",), (), "unknown element 'Xx'"),
        (("H",), (), "leave it out"),
        ((), ("Fe_Kz",), "Fe has .*Ka.*La"),
        ((), ("iron",), "such as Fe_Ka"),
        ((), ("Pt_Ka",), "outside"),
        ((), ("Fe_Ka", "Fe_La"), "one line of Fe"),
    ],
)
def test_a_wrong_request_says_what_to_do(elements, lines, message):
    with pytest.raises(UsageError, match=message):
        choose_lines(elements, VELOX, 300.0, lines)


def test_repeated_elements_count_once():
    assert choose_lines(("Fe", "Fe"), VELOX, 300.0) == choose_lines(("Fe",), VELOX, 300.0)


def test_widths_are_those_of_exspy():
    from exspy._misc.eds.utils import get_FWHM_at_Energy

    for energy in (0.277, 0.525, 1.74, 5.8987, 9.44, 17.0):
        assert fwhm_kev(energy, 132.0) == pytest.approx(get_FWHM_at_Energy(132.0, energy), rel=1e-4)
    with pytest.raises(UsageError, match="120 to 150"):
        fwhm_kev(0.277, 100.0)


def test_a_line_name_splits_into_element_and_line():
    assert split_line("La_Lb2") == ("La", "Lb2")
