"""A scan that somebody asks an instrument for, and what the instrument grants.

Where: `region_nm` in the session's frame, or `region_px` in pixels of an earlier scan (its finer modality's, which
the instrument converts), or neither for the instrument's own field. Regions are (y, x, height, width) from their
upper left corner, as everywhere y down and x right.

What is checked here is what can be known without an instrument. Whether a region lies within reach, and what dose,
area and time may be spent, is the instrument's to say: it refuses with a reason.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sized
from typing import Literal

import msgspec

from livestem.domain.names import check_name

Modality = Literal["haadf", "eds"]

REASON_CHARACTERS = 1000  # some sentences; it is kept with every scan
_SMALLEST_NM, _LARGEST_NM = 1e-4, 1e7  # a tenth of a picometre to the 10 mm of a stage: beyond, a unit was mistaken
_SHORTEST_S, _LONGEST_S = 1e-9, 60.0  # dwell: no detector is faster, no scan so slow; beyond, a unit was mistaken
_MOST = 2**31 - 1  # what frames and pixels are counted to on the wire


class ScanRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scan that is asked for; numpy's numbers are welcome.

    Attributes
    ----------
    region_nm : (y, x, height, width) in the session's frame, that of `Sampling.origin_nm`, nm; or None
    region_px : (y, x, height, width) in pixels of the finer modality of scan `of`; may reach beyond it; or None
    of : scan_id of the earlier scan whose pixels `region_px` counts
    frames : passes of the beam, at least 1
    dwell_s : time per pixel and frame, s; None leaves it to the instrument
    pixel_nm : side of a pixel, nm; None leaves it to the instrument
    modalities : what to measure
    reason : why, for the record; one line of at most 1000 characters

    Raises
    ------
    ValueError
        With one line, if no instrument could do this.

    Examples
    --------
    >>> ScanRequest(region_nm=(10, 20, 50, 50), frames=5, reason="boundary").modalities
    ('haadf', 'eds')
    >>> ScanRequest(frames=0)
    Traceback (most recent call last):
    ...
    ValueError: frames must be 1 to 2147483647, got 0
    """

    region_nm: tuple[float, float, float, float] | None = None
    region_px: tuple[int, int, int, int] | None = None
    of: str | None = None
    frames: int = 1
    dwell_s: float | None = None
    pixel_nm: float | None = None
    modalities: tuple[Modality, ...] = ("haadf", "eds")
    reason: str = ""

    def __post_init__(self) -> None:
        self._check_region()
        _set(self, "frames", _whole(self.frames, "frames", 1))
        for name, least, most in (("dwell_s", _SHORTEST_S, _LONGEST_S), ("pixel_nm", _SMALLEST_NM, _LARGEST_NM)):
            value = getattr(self, name)
            if value is not None:
                _set(self, name, _between(value, name, least, most))
        if not self.modalities:
            raise ValueError("a scan needs a modality: haadf, eds or both")
        if len(set(self.modalities)) < len(self.modalities) or not {"haadf", "eds"}.issuperset(self.modalities):
            raise ValueError(f"modalities are haadf and eds, each once at most, got {self.modalities!r:.80}")
        if len(self.reason) > REASON_CHARACTERS or not self.reason.isprintable():
            raise ValueError(f"the reason is one line of printable text, at most {REASON_CHARACTERS} characters")

    def _check_region(self) -> None:
        if self.region_nm is not None and self.region_px is not None:
            raise ValueError("region_nm and region_px are one choice; give one of them, or neither")
        if (self.region_px is None) != (self.of is None):
            raise ValueError("region_px counts the pixels of an earlier scan: give region_px and of (its scan_id)")
        if self.of is not None:
            check_name(self.of, "scan")
        if self.region_nm is not None:
            _set(self, "region_nm", _region_nm(self.region_nm))
        if self.region_px is not None:
            _set(self, "region_px", _region_px(self.region_px))


class ScanGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an instrument will do for a request; numpy's numbers are welcome.

    Attributes
    ----------
    scan_id : of the scan that will come
    duration_s : how long the beam will take for it, s, without what waits before it
    dose_e_nm2 : mean dose on the region, electrons per nm²; None where the beam current is not known
    queued : requests that come before it
    """

    scan_id: str
    duration_s: float
    dose_e_nm2: float | None = None
    queued: int = 0

    def __post_init__(self) -> None:
        check_name(self.scan_id, "scan")
        _set(self, "duration_s", _between(self.duration_s, "duration_s", 0.0))
        if self.dose_e_nm2 is not None:
            _set(self, "dose_e_nm2", _between(self.dose_e_nm2, "dose_e_nm2", 0.0))
        _set(self, "queued", _whole(self.queued, "queued", 0))


def _region_nm(region: tuple[float, ...]) -> tuple[float, ...]:
    _check_four(region, "region_nm")
    y, x, height, width = region
    corner = [_between(v, "y and x of region_nm", -_LARGEST_NM, _LARGEST_NM) for v in (y, x)]
    return *corner, *(_between(v, "height and width of region_nm", _SMALLEST_NM, _LARGEST_NM) for v in (height, width))


def _region_px(region: tuple[int, ...]) -> tuple[int, ...]:
    _check_four(region, "region_px")
    y, x, height, width = region
    corner = [_whole(v, "y and x of region_px", -_MOST) for v in (y, x)]
    return *corner, *(_whole(v, "height and width of region_px", 1) for v in (height, width))


def _check_four(region: Sized, what: str) -> None:
    if len(region) != 4:
        raise ValueError(f"{what} is (y, x, height, width), got {len(region)} numbers")


def _between(value: float, what: str, least: float, most: float = sys.float_info.max) -> float:
    plain = float(value)
    if not least <= plain <= most:  # nor is it, if it is not a number
        wanted = f"{least:g} to {most:g}" if most < sys.float_info.max else f"finite and at least {least:g}"
        raise ValueError(f"{what} must be {wanted}, got {plain:g}")
    return plain


def _whole(value: int, what: str, least: int) -> int:
    plain = operator.index(value)
    if not least <= plain <= _MOST:
        raise ValueError(f"{what} must be {least} to {_MOST}, got {plain}")
    return plain


def _set(struct: msgspec.Struct, name: str, value: object) -> None:
    msgspec.structs.force_setattr(struct, name, value)
