"""What a scan is before its data come: the facts that the instrument states at its start."""

from __future__ import annotations

import math
import re
from typing import Annotated

import msgspec
import numpy as np

from livestem.domain.geometry import Sampling
from livestem.domain.parameters import Names, Numbers, Processing, check_k_factors

DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")  # what travels on the wire
VENDOR_ENTRIES = 64  # room for what we cannot foresee, bounded so that a header stays small
_NUMPYS = re.compile(r"[<>=|]?[A-Za-z]+\d{0,3}")  # a plain type; numpy reads far more into a text than that


class EnergyAxis(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy of EDS channel i is ``offset_kev + i * scale_kev``, keV."""

    channels: int
    scale_kev: float
    offset_kev: float = 0.0

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError("an energy axis needs at least one channel")
        if not (math.isfinite(self.scale_kev) and self.scale_kev > 0 and math.isfinite(self.offset_kev)):
            raise ValueError(f"bad energy axis: {self.scale_kev} keV per channel from {self.offset_kev} keV")


class Haadf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HAADF image of a scan.

    `dtype` is numpy's name of a real little-endian type, kept in its short form (``<u2``); `frames` the passes that
    hold HAADF, if not all of them do (some vendors keep one picture of a whole EDS scan); `grey_range` maps to 0 and
    255.
    """

    sampling: Sampling
    dtype: str
    frames: int | None = None
    detector: str | None = None
    grey_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        try:
            dtype = np.dtype(self.dtype if _NUMPYS.fullmatch(self.dtype) else "")
        except TypeError as e:
            raise ValueError(f"HAADF dtype {self.dtype[:40]!r} is none of numpy's; use one such as <u2 or <f4") from e
        if dtype.str not in DTYPES:
            raise ValueError(f"HAADF dtype {dtype.str} cannot travel; convert to one of {', '.join(DTYPES)}")
        msgspec.structs.force_setattr(self, "dtype", dtype.str)
        _check_frames(self.frames)
        if self.grey_range is not None and not -math.inf < self.grey_range[0] < self.grey_range[1] < math.inf:
            raise ValueError(f"grey_range must rise and be finite, got {self.grey_range}")


class Eds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The EDS spectrum image of a scan, all detectors summed; `frames` as for `Haadf`."""

    sampling: Sampling
    energy: EnergyAxis
    frames: int | None = None
    detectors: Names = ()
    live_time_s: float | None = None
    real_time_s: float | None = None
    take_off_angle_deg: float | None = None
    energy_resolution_mnka_ev: float | None = None
    elements: Names = ()  # as the metadata name them; () if unknown
    lines: Names = ()
    k_factors: Numbers = {}

    def __post_init__(self) -> None:
        _check_frames(self.frames)
        check_k_factors(self.k_factors)
        resolution = self.energy_resolution_mnka_ev
        if resolution is not None and not 10.0 <= resolution <= 1000.0:  # calorimeters reach 10 eV
            raise ValueError(f"energy_resolution_mnka_ev must be 10 to 1000 eV at Mn Ka, got {resolution}")


def _check_frames(frames: int | None) -> None:
    if frames is not None and frames < 1:
        raise ValueError("a modality has at least 1 frame, or null for as many as the scan")


class Beam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The probe; every value None where the source does not know it."""

    energy_kv: float | None = None
    current_pa: float | None = None
    convergence_mrad: float | None = None
    collection_mrad: tuple[float, float] | None = None  # HAADF inner, outer


class ScanPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything `scan_start` states about a scan except its name.

    Attributes
    ----------
    frames : passes of the beam planned, or None if open-ended
    dwell_s : time per pixel and frame, s
    stage : x, y, z (µm) and alpha, beta tilt (degrees), by those names
    processing : what the sender asks of the segmenter, or None
    vendor : scalars we have no name for
    """

    haadf: Haadf | None = None
    eds: Eds | None = None
    frames: int | None = 1
    dwell_s: float | None = None
    beam: Beam = Beam()
    stage: Numbers = {}
    sample: str | None = None
    source: str | None = None
    recorded_at: str | None = None
    processing: Processing | None = None
    vendor: Annotated[dict[str, str | int | float | bool | None], msgspec.Meta(max_length=VENDOR_ENTRIES)] = {}

    def __post_init__(self) -> None:
        if self.haadf is None and self.eds is None:
            raise ValueError("a scan needs HAADF, EDS or both")
        if self.frames is not None and self.frames < 1:
            raise ValueError("frames must be at least 1, or null for an open-ended scan")
        for part in (self.haadf, self.eds):
            if part is not None and part.frames is not None and self.frames is not None and part.frames > self.frames:
                raise ValueError(f"a modality of {part.frames} frames in a scan of {self.frames}")
        if self.dwell_s is not None and not (math.isfinite(self.dwell_s) and self.dwell_s > 0):
            raise ValueError("dwell_s must be positive")
        if len(self.vendor) > VENDOR_ENTRIES:
            raise ValueError(f"vendor holds {len(self.vendor)} entries, at most {VENDOR_ENTRIES}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Measured modalities, ``haadf`` before ``eds``."""
        return tuple(m for m in ("haadf", "eds") if getattr(self, m) is not None)

    def frames_of(self, modality: str, seen: int) -> int:
        """Return the frames expected of a modality, from 0 on; `seen` decides where the plan is open-ended."""
        part = self.haadf if modality == "haadf" else self.eds
        stated = None if part is None else part.frames
        return stated or self.frames or seen

    @property
    def not_to_register(self) -> str | None:
        """Why frames cannot be registered to each other, in words; None if they can."""
        if self.haadf is None:
            return "the scan has no HAADF"
        if self.frames == 1:
            return "the scan has one frame"
        parts = [part for part in (self.haadf, self.eds) if part is not None]
        if any(part.frames not in (None, self.frames) for part in parts):
            return "HAADF and EDS do not come frame by frame together"
        return None

    def sampling(self, modality: str) -> Sampling:
        """Return the sampling of ``haadf`` or ``eds``; KeyError if the scan lacks it."""
        part = self.haadf if modality == "haadf" else self.eds if modality == "eds" else None
        if part is None:
            raise KeyError(modality)
        return part.sampling
