"""Facts of an acquisition out of HyperSpy's metadata tree, which every RosettaSciIO reader fills.

Units there: beam energy kV, beam current nA, angles degrees, convergence mrad, stage mm, times s. Readers may
leave any of them out, and some write 0 for what they do not know: 0 nA, 0 s are no facts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from livestem.domain.elements import SYMBOLS
from livestem.domain.scan import Beam

_RADIANS_BELOW = math.pi / 2  # no detector sits 1.6 degrees over the specimen: such a number is in radians
_LINE = re.compile(r"[A-Z][a-z]?_[KLM][a-z]?[0-9]?\Z")
_STAGE_MM = ("x", "y", "z")


def lookup(tree: object, path: str) -> Any:
    """Return the value at a dotted path of nested mappings, or None."""
    for key in path.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def positive(value: object) -> float | None:
    """Return `value` as a float if it is a finite number above zero, else None."""
    number = number_or_none(value)
    return number if number is not None and number > 0 else None


def number_or_none(value: object) -> float | None:
    """Return `value` as a finite float, else None."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def instrument(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the microscope's branch, whether it is kept as a TEM or as a SEM."""
    for kind in ("TEM", "SEM"):
        branch = lookup(metadata, f"Acquisition_instrument.{kind}")
        if isinstance(branch, Mapping):
            return branch
    return {}


def beam_of(metadata: Mapping[str, Any]) -> Beam:
    """Return what the metadata say about the probe."""
    branch = instrument(metadata)
    current_na = positive(branch.get("beam_current"))
    return Beam(
        energy_kv=positive(branch.get("beam_energy")),
        current_pa=None if current_na is None else current_na * 1e3,
        convergence_mrad=positive(branch.get("convergence_angle")),
    )


def stage_of(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return the stage: x, y, z in µm, alpha and beta tilt in degrees."""
    stage = instrument(metadata).get("Stage")
    if not isinstance(stage, Mapping):
        return {}
    found = {axis: (number_or_none(stage.get(axis)), 1e3) for axis in _STAGE_MM}
    found["alpha"] = (number_or_none(stage.get("tilt_alpha")), 1.0)
    found["beta"] = (number_or_none(stage.get("tilt_beta")), 1.0)
    return {name: value * factor for name, (value, factor) in found.items() if value is not None}


def eds_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of an EDS signal, as the fields of `SpectrumImage`."""
    eds = lookup(instrument(metadata), "Detector.EDS") or {}
    elevation = number_or_none(eds.get("elevation_angle"))
    if elevation is not None and 0 < elevation < _RADIANS_BELOW:
        elevation = math.degrees(elevation)
    detector = eds.get("detector_type")
    elements = lookup(metadata, "Sample.elements")
    lines = lookup(metadata, "Sample.xray_lines")
    return {
        "detectors": (detector,) if isinstance(detector, str) and detector else (),
        "live_time_s": positive(eds.get("live_time")),
        "real_time_s": positive(eds.get("real_time")),
        "take_off_angle_deg": elevation or None,
        "energy_resolution_mnka_ev": positive(eds.get("energy_resolution_MnKa")),
        "elements": tuple(str(e) for e in _list(elements) if str(e) in SYMBOLS),
        "lines": tuple(str(line) for line in _list(lines) if _LINE.match(str(line))),
    }


def recorded_at(metadata: Mapping[str, Any]) -> str | None:
    """Return date and time as the file states them, ISO 8601, without a zone where it names none."""
    date, time = lookup(metadata, "General.date"), lookup(metadata, "General.time")
    if not isinstance(date, str) or not date:
        return None
    return f"{date}T{time}" if isinstance(time, str) and time else date


def sample_of(metadata: Mapping[str, Any]) -> str | None:
    """Return the specimen's name."""
    for key in ("Sample.description", "Sample.name"):
        value = lookup(metadata, key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _list(value: object) -> list[Any]:
    return [] if value is None or isinstance(value, (str, bytes)) else list(value)  # type: ignore[call-overload]
