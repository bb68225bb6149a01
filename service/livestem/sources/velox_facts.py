"""What a Velox file states about its acquisition, in SI units and radians, into our units."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from livestem.domain.elements import SYMBOLS
from livestem.domain.scan import Beam
from livestem.sources.facts import lookup, number_or_none, positive
from livestem.sources.signals import Facts


def statement_of(file: Any, streams: list[Any]) -> dict[str, Any]:
    """Return what Velox states about the acquisition: the stream's own metadata, else the first image's."""
    groups = [*streams, *file.get("Data/Image", {}).values()]
    for group in groups:
        if "Metadata" in group:
            text = bytes(np.asarray(group["Metadata"][:, 0])).split(b"\0", 1)[0]
            return dict(json.loads(text.decode("utf-8", "replace")))
    return {}


def facts_of_statement(statement: Mapping[str, Any], images: Facts) -> Facts:
    """Return the facts of the acquisition; what Velox does not state is taken from the images."""
    optics = statement.get("Optics") or {}
    volts = positive(optics.get("AccelerationVoltage"))
    ampere = positive(optics.get("LastMeasuredScreenCurrent"))
    convergence = positive(optics.get("BeamConvergence"))
    rotation = number_or_none(lookup(statement, "Scan.ScanRotation"))
    start = positive(lookup(statement, "Acquisition.AcquisitionStartDatetime.DateTime"))
    return replace(
        images,
        beam=Beam(
            energy_kv=volts / 1e3 if volts else None,
            current_pa=ampere * 1e12 if ampere else None,
            convergence_mrad=convergence * 1e3 if convergence else None,
        ),
        dwell_s=positive(lookup(statement, "Scan.DwellTime")),
        rotation_deg=math.degrees(rotation) if rotation is not None else 0.0,
        stage=_stage(statement),
        recorded_at=datetime.fromtimestamp(start, UTC).isoformat() if start else images.recorded_at,
    )


def _stage(statement: Mapping[str, Any]) -> dict[str, float]:
    """Metres and radians in the file."""
    found = {axis: (number_or_none(lookup(statement, f"Stage.Position.{axis}")), 1e6) for axis in "xyz"}
    for name in ("alpha", "beta"):
        found[name] = (number_or_none(lookup(statement, f"Stage.{name.title()}Tilt")), 180 / math.pi)
    return {name: value * factor for name, (value, factor) in found.items() if value is not None}


def detectors_of(statement: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the EDS detectors that were inserted."""
    every = (statement.get("Detectors") or {}).values()
    found = [d for d in every if d.get("DetectorType") == "AnalyticalDetector" and d.get("Inserted") != "false"]
    return [d for d in found if "Dispersion" in d] or found


def take_off_of(detectors: list[Mapping[str, Any]]) -> float | None:
    """Return the mean elevation of the detectors, degrees."""
    found = [positive(d.get("ElevationAngle")) for d in detectors]
    return mean([math.degrees(e) for e in found if e is not None])


def energy_of(detectors: list[Mapping[str, Any]], statement: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return (offset, scale) in keV of the detector that recorded; the file has eV."""
    name = str(lookup(statement, "BinaryResult.Detector") or "")
    chosen = [d for d in detectors if name in str(d.get("DetectorName"))] or detectors
    for detector in chosen:
        scale, offset = positive(detector.get("Dispersion")), number_or_none(detector.get("OffsetEnergy"))
        if scale is not None and offset is not None:
            return offset / 1e3, scale / 1e3
    return None


def times_of(detectors: list[Mapping[str, Any]], facts: Facts, frames: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Return the beam-on time of all frames, and the live part of it.

    The detectors' own RealTime and LiveTime are those of their last read-out, so only their ratio is used.
    """
    if facts.dwell_s is None:
        return {}
    real = facts.dwell_s * frames * shape[0] * shape[1]
    shares = []
    for detector in detectors:
        live, whole = positive(detector.get("LiveTime")), positive(detector.get("RealTime"))
        if live is not None and whole is not None:
            shares.append(min(1.0, live / whole))
    share = mean(shares)
    return {"real_time_s": real, "live_time_s": None if share is None else real * share}


def elements_of(file: Any) -> tuple[str, ...]:
    """Return the elements selected for quantification; version 11 of the format moved them."""
    for name in (
        "SharedProperties/EDSSpectrumQuantificationSettings",
        "Operations/ImageQuantificationOperation",
    ):
        for entry in (file.get(name) or {}).values():
            numbers = [int(z) for z in load_json(entry).get("elementSelection") or []]
            if numbers:
                return tuple(SYMBOLS[z - 1] for z in numbers if 1 <= z <= len(SYMBOLS))
    return ()


def collection_of(statement: Mapping[str, Any], title: str) -> tuple[float, float] | None:
    """Return (inner, outer) of the detector whose image has this title, mrad."""
    for detector in (statement.get("Detectors") or {}).values():
        if detector.get("DetectorName") == title:
            angles = detector.get("CollectionAngleRange") or {}
            inner, outer = number_or_none(angles.get("begin")), positive(angles.get("end"))
            if inner is not None and outer is not None and outer > inner:
                return inner * 1e3, outer * 1e3
    return None


def mean(values: list[float]) -> float | None:
    """Return the mean, None of nothing."""
    return sum(values) / len(values) if values else None


def load_json(dataset: Any) -> dict[str, Any]:
    """Return the JSON text that Velox keeps as a dataset of one string."""
    raw = dataset[0]
    return dict(json.loads(raw.decode("utf-8") if isinstance(raw, bytes) else raw))
