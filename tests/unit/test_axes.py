"""Axes are found by role and unit, never by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from written_files import axis

from livestem.domain.errors import SourceError
from livestem.sources.axes import find_roles, unit_of


def roles(*axes):
    return find_roles(axes, tuple(a["size"] for a in axes), "file.hspy")


@pytest.mark.parametrize("order", list(itertools.permutations(["frame", "y", "x", "energy"])))
def test_any_order_of_axes_is_understood_from_units_alone(order):
    kinds = {
        "frame": axis("width", 3, 0.5, "s"),
        "y": axis("z", 4, 0.002, "µm"),
        "x": axis("Time", 5, 0.002, "um"),
        "energy": axis("height", 6, 10.0, "eV", offset=-250.0, navigate=False),
    }
    found = roles(*(kinds[k] for k in order))
    assert found.frame == order.index("frame") and found.energy == order.index("energy")
    assert {found.y, found.x} == {order.index("y"), order.index("x")} and found.y < found.x
    assert found.pixel_nm == pytest.approx((2.0, 2.0))
    assert found.energy_kev == pytest.approx((-0.25, 0.01))
    assert found.frame_s == 0.5


@pytest.mark.parametrize(
    "unit, nm",
    [("m", 1e9), ("mm", 1e6), ("µm", 1e3), ("μm", 1e3), ("um", 1e3), ("[u_m]", 1e3), ("micron", 1e3),
     ("nm", 1), ("[n_m]", 1), (b"nm", 1), ("Å", 0.1), ("Å", 0.1), ("A", 0.1), ("angstrom", 0.1), ("pm", 1e-3)],
)  # fmt: skip
def test_lengths_in_every_unit(unit, nm):
    found = roles(axis("a", 4, 2.0, unit, navigate=False), axis("b", 5, 3.0, unit, navigate=False))
    assert found.pixel_nm == pytest.approx((2.0 * nm, 3.0 * nm))


@pytest.mark.parametrize("unit", ["", None, "px", "<undefined>", "pixels"])
def test_a_field_without_calibration_is_a_field_all_the_same(unit):
    found = roles(axis("Time", 7, 1.0, "s"), axis("y", 4, 1.0, unit), axis("x", 5, 1.0, unit))
    assert (found.frame, found.y, found.x, found.pixel_nm) == (0, 1, 2, None)
    stack = [axis(n, s, 1.0, unit, navigate=n == "f") for n, s in (("f", 7), ("y", 4), ("x", 5))]
    assert (roles(*stack).frame, roles(*stack).y, roles(*stack).x) == (0, 1, 2)


def test_an_energy_axis_without_calibration_is_the_only_signal_axis():
    field = [axis("y", 4), axis("x", 5)]
    found = roles(*field, axis("channel", 6, 1.0, None, navigate=False))
    assert found.energy == 2 and found.energy_kev is None


@pytest.mark.parametrize(
    "axes",
    [
        [axis("E", 6, 0.01, "keV")],  # a spectrum
        [axis("x", 5), axis("E", 6, 0.01, "keV", navigate=False)],  # a line of spectra
        [axis("t", 5, 1.0, "s"), axis("E", 6, 0.01, "keV", navigate=False)],
        [axis("kx", 5, 1.0, "1/nm"), axis("ky", 5, 1.0, "1/nm")],  # a diffraction pattern
        [axis("y", 4), axis("x", 4), axis("E", 6, 1.0, "eV"), axis("E2", 6, 1.0, "eV")],
    ],
)
def test_what_is_no_part_of_a_scan_is_left_out(axes):
    assert roles(*axes) is None


def test_a_volume_and_a_crooked_axis_are_refused_in_one_line():
    with pytest.raises(SourceError, match="three axes in lengths"):
        roles(axis("z", 3), axis("y", 4), axis("x", 5))
    crooked = axis("x", 3)
    crooked["axis"] = np.array([0.0, 1.0, 3.0])
    with pytest.raises(SourceError, match="non-uniform axis 'x'"):
        roles(axis("y", 4), crooked)


def test_a_stored_axis_of_even_steps_is_as_good_as_a_scale():
    even = {"name": "x", "size": 5, "units": "nm", "axis": np.linspace(3, 5, 5)}
    assert roles(axis("y", 4, 0.5), even).pixel_nm == pytest.approx((0.5, 0.5))


def test_an_axis_that_points_the_other_way_still_has_a_size():
    assert roles(axis("y", 4, -0.5), axis("x", 4, 0.5)).pixel_nm == (0.5, 0.5)


def test_units_have_one_spelling():
    assert unit_of({"units": " µm "}) == "um" and unit_of({}) == "" and unit_of({"units": "<undefined>"}) == ""
