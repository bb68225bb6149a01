"""What a service publishes: live state, finals, and what it is doing (topic ``res.<session>.<type>``)."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from livestem.domain.regions import Region
from livestem.wire.header import Count, Index, Key, OfScan, Side, Text, Unnumbered


class Watermark(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the acquisition a result includes: its epoch, and every seq up to `seq`."""

    epoch: Count
    seq: Count


class Coverage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Share of the expected pixels received, 0..1, by modality; None where the scan lacks it."""

    haadf: float | None = None
    eds: float | None = None


class Live(Unnumbered, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="live"):
    """The state of a running scan; newest wins, by (scan_id, revision).

    Payload, if `method` is set: labels (rows, cols) int16, then scores (classes, rows, cols) float32; then, if
    `oldest_frames` is, ages (rows, cols) uint16: frames begun since each chip was embedded, 0 if nothing has come to it
    since, 65535 if it never was.

    Attributes
    ----------
    revision : rises, even across restarts of the service
    frame : newest frame seen, from 0
    frames : planned, or None
    counts : EDS photons so far
    chips_done : chips whose every pixel was visited at least once
    drift_nm : (y, x) shift of the newest registered frame against the first; None before there is one
    oldest_frames : the largest age of a chip that has been embedded; unset where every map has every chip as it is
    """

    scan_id: str
    revision: Count
    watermark: Watermark
    coverage: Coverage
    frame: Index
    frames: Index | None
    counts: Count | None
    chips_done: Count
    chips: Count
    method: Key | None = None
    modality: Key | None = None
    classes: tuple[str, ...] = ()
    drift_nm: tuple[float, float] | None = None
    oldest_frames: Count | UnsetType = UNSET


class Registration(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="registration"):
    """Where each frame was moved to lie on those before it; sent with the finals of a scan that was registered.

    Payload: shifts as estimated (frames, 2) float32 and as the HAADF was moved (frames, 2) int32, both (y, x) in
    pixels of the HAADF; then (frames,) uint8, 1 where the images told the shift and 0 where drift was followed.

    Attributes
    ----------
    pixel_nm : (y, x) of the HAADF
    drift_nm : (y, x) shift of the last frame, as estimated
    determined : frames beyond the first whose shift the images told
    """

    pixel_nm: tuple[float, float]
    drift_nm: tuple[float, float]
    determined: Count


class Segmentation(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="segmentation"):
    """Final label map of one method on one modality or ensemble.

    Payload: labels (rows, cols) int16, -1 = no data; then, if the method scores, (classes, rows, cols) float32.
    """

    method: Key
    modality: Key
    classes: tuple[str, ...]
    chip_nm: float
    origin_nm: tuple[float, float]
    parameters: dict[str, str | int | float | bool | None] = {}


class Agreement(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="agreement"):
    """Adjusted mutual information of every pair of modalities and ensembles, by method."""

    agreement: dict[str, dict[str, float | None]]


class Descriptors(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="descriptors"):
    """Physical descriptors of every region of one label map."""

    method: Key
    modality: Key
    regions: tuple[Region, ...]


class MissingTile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rectangle of a frame that never came: rows [y, y + h), columns [x, x + w).

    Attributes
    ----------
    w : None: up to the right edge; so of full rows neither `x` nor `w` is sent
    """

    modality: Key
    frame: Index
    y: Index
    h: Side
    x: Index = 0
    w: Side | None = None


class CoverageMap(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="coverage_map"):
    """What of every chip came, sent with the finals.

    Payload: (modalities, rows, cols) float32, the share of a chip's expected pixels that came, 0..1; then likewise
    float32, visits a pixel after registration.

    Attributes
    ----------
    modalities : measured ones, ``haadf`` before ``eds``
    """

    modalities: tuple[Key, ...]
    chip_nm: float
    origin_nm: tuple[float, float]


class ScanDone(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="scan_done"):
    """A scan's finals are published and stored; the last reliable message about it.

    Attributes
    ----------
    reason : why it is not complete, or, if it failed, why there are no finals
    """

    status: Literal["complete", "incomplete", "aborted", "failed"]
    coverage: Coverage
    missing_tiles: tuple[MissingTile, ...]
    input_digest: str
    digest: str
    timings_s: dict[str, float]
    warnings: tuple[Text, ...] = ()
    reason: Text | None = None


class Suggestion(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="suggestion"):
    """Where to measure next: the field at (y, x) nm of `size_nm`, and why."""

    origin_nm: tuple[float, float]
    size_nm: tuple[float, float]
    reason: Text


class Status(Unnumbered, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="status"):
    """What the service is doing, in words a person may read."""

    level: Literal["info", "warning", "error"]
    text: Text
    scan_id: str | None = None
