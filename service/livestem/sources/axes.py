"""What the axes of a recorded array are, by role and unit and never by name.

Vendors call the rows ``height``, ``y`` or ``z`` and the energy ``Energy``, ``X-ray energy`` or ``z``; what
they agree on is units. The rules, in this order:

1. energy: the one axis in eV, keV or MeV. Without one, the only signal axis of an array that is a spectrum
   image by its signal axes (``navigate = False``): an energy axis that lacks its calibration.
2. field: the two axes with a length unit, slow scan (y) before fast scan (x) in array order. Without any, the
   two signal axes of an image, else the last two axes left: a field that lacks its calibration.
3. frame: the one axis left, if there is one.

An array that does not fit (a single spectrum, a line scan, a diffraction pattern) is no part of a scan: None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from livestem.domain.errors import SourceError

# nm per unit; A and [n_m] are how EMD files of the NCEM kind write Å and nm
_LENGTH_NM = {"m": 1e9, "cm": 1e7, "mm": 1e6, "um": 1e3, "micron": 1e3, "microns": 1e3, "micrometer": 1e3,
              "nm": 1.0, "nanometer": 1.0, "Å": 0.1, "A": 0.1, "Angstrom": 0.1,
              "angstrom": 0.1, "pm": 1e-3}  # fmt: skip
_ENERGY_KEV = {"eV": 1e-3, "keV": 1.0, "MeV": 1e3}
_TIME_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}
_NO_UNIT = frozenset(["", "none", "px", "pixel", "pixels", "undefined", "<undefined>", "unitless", "1", "a.u."])
_UNIFORM = 1e-3  # steps of a stored axis may differ by this share of a step: what float32 storage leaves
_MICRO = str.maketrans({"µ": "u", "μ": "u", "Å": "Å"})  # micro sign, Greek mu; Ångström sign, A with ring


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which axis of an array is what, and its calibration where it has one.

    Attributes
    ----------
    frame, y, x, energy : position in the array; None where there is none
    pixel_nm : (y, x) nm, or None if uncalibrated
    energy_kev : (offset, scale) keV, or None if there is no energy axis or it is uncalibrated
    frame_s : time per frame, s, where the frame axis is a time
    """

    frame: int | None
    y: int
    x: int
    energy: int | None
    pixel_nm: tuple[float, float] | None
    energy_kev: tuple[float, float] | None
    frame_s: float | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """Axes in the order (frame,) y, x (, energy)."""
        return tuple(a for a in (self.frame, self.y, self.x, self.energy) if a is not None)


def find_roles(axes: Sequence[Mapping[str, Any]], shape: tuple[int, ...], where: str) -> Roles | None:
    """Find the roles of an array's axes.

    Parameters
    ----------
    axes : one mapping per array axis, in array order
        RosettaSciIO's description: ``size``, ``scale``, ``offset``, ``units``, ``navigate``; or ``axis``, the
        positions themselves.
    shape : shape of the array
    where : str
        Whose axes these are, for the messages.

    Returns
    -------
    Roles or None
        None if the array is neither an image nor a spectrum image of a scan.

    Raises
    ------
    SourceError
        If it is one, but in three lengths or on a non-uniform axis.
    """
    if len(axes) != len(shape) or not 2 <= len(shape) <= 4:
        return None
    kinds = [_kind(a) for a in axes]
    energy = _energy_axis(axes, kinds)
    if energy == -1 or (energy is not None and len(shape) < 3):
        return None
    left = [i for i in range(len(shape)) if i != energy]
    field = _field_axes(axes, kinds, left, where)
    if field is None:
        return None
    rest = [i for i in left if i not in field]
    if len(rest) > 1:
        return None
    y, x = field
    frame = rest[0] if rest else None
    return Roles(
        frame=frame, y=y, x=x, energy=energy,
        pixel_nm=_pixel_nm(axes[y], axes[x], where),
        energy_kev=None if energy is None else _energy_kev(axes[energy], where),
        frame_s=None if frame is None else _frame_s(axes[frame]),
    )  # fmt: skip


def unit_of(axis: Mapping[str, Any]) -> str:
    """Return the unit of an axis in one spelling; an empty string where it has none."""
    raw = axis.get("units")
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw if raw is not None else "")
    text = re.sub(r"^\[(.*)\]$", r"\1", text.strip()).replace("_", "").translate(_MICRO)
    return "" if text.lower() in _NO_UNIT else text


def _kind(axis: Mapping[str, Any]) -> str:
    unit = unit_of(axis)
    for kind, table in (("length", _LENGTH_NM), ("energy", _ENERGY_KEV), ("time", _TIME_S)):
        if unit in table:
            return kind
    return "other" if unit else "none"


def _energy_axis(axes: Sequence[Mapping[str, Any]], kinds: list[str]) -> int | None:
    """Index of the energy axis, None if the array is a picture, -1 if it is neither."""
    found = [i for i, kind in enumerate(kinds) if kind == "energy"]
    if found:
        return found[0] if len(found) == 1 else -1
    signal = _signal(axes)
    if len(axes) < 3 or len(signal) != 1:
        return None
    return signal[0] if kinds[signal[0]] == "none" else -1


def _signal(axes: Sequence[Mapping[str, Any]]) -> list[int]:
    return [i for i, a in enumerate(axes) if a.get("navigate") is not None and not a["navigate"]]


def _field_axes(
    axes: Sequence[Mapping[str, Any]], kinds: list[str], left: list[int], where: str
) -> tuple[int, int] | None:
    lengths = [i for i in left if kinds[i] == "length"]
    if len(lengths) > 2:
        raise SourceError(f"{where} has three axes in lengths; give one slice of it, a scan is a plane")
    if len(lengths) == 2:
        return lengths[0], lengths[1]
    plain = [i for i in left if kinds[i] in ("none", "length")]
    if len(plain) < 2:
        return None
    signal = [i for i in _signal(axes) if i in plain]
    chosen = signal if len(signal) == 2 else plain[-2:]
    return chosen[0], chosen[1]


def _pixel_nm(y: Mapping[str, Any], x: Mapping[str, Any], where: str) -> tuple[float, float] | None:
    sizes = []
    for axis in (y, x):
        factor = _LENGTH_NM.get(unit_of(axis))
        step = _step(axis, where)
        if factor is None or step is None:
            return None
        sizes.append(abs(step) * factor)  # a negative step is an axis that points the other way
    return sizes[0], sizes[1]


def _energy_kev(axis: Mapping[str, Any], where: str) -> tuple[float, float] | None:
    factor = _ENERGY_KEV.get(unit_of(axis))
    step = _step(axis, where)
    if factor is None or step is None or step < 0:
        return None
    stored = axis.get("axis")
    offset = float(axis.get("offset") or 0.0) if stored is None else float(np.asarray(stored).flat[0])
    return (offset * factor, step * factor) if math.isfinite(offset) else None


def _frame_s(axis: Mapping[str, Any]) -> float | None:
    factor, scale = _TIME_S.get(unit_of(axis)), axis.get("scale")
    if factor is None or scale is None or not float(scale) > 0:
        return None
    return float(scale) * factor


def _step(axis: Mapping[str, Any], where: str) -> float | None:
    """Return the step of a uniform axis in its own unit; None if it states none."""
    scale = axis.get("scale")
    stored = axis.get("axis")
    if stored is not None:
        steps = np.diff(np.asarray(stored, dtype=np.float64))
        if steps.size == 0 or np.ptp(steps) > _UNIFORM * abs(steps.mean()):
            raise SourceError(
                f"{where} has a non-uniform axis {axis.get('name', '')!r}; resample it to even steps first"
            )
        return float(steps.mean())
    if "expression" in axis:
        raise SourceError(f"{where} has a computed axis {axis.get('name', '')!r}; convert it to a uniform one first")
    if scale is None or not math.isfinite(float(scale)) or float(scale) == 0:
        return None
    return float(scale)
