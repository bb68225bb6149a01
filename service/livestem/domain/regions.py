"""What is known about one region: the chips that share a label in one label map."""

from __future__ import annotations

import msgspec

SHORTEST_D_NM, LONGEST_D_NM = 0.12, 0.6
"""Spacings of unit cells that a probe of 0.1 nm can resolve: what is looked for, nm."""


class LatticePeak(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One significant peak of a region's power spectrum; +g and -g are one measurement.

    Attributes
    ----------
    d_nm, sigma_nm : spacing of the lattice planes and its standard error, nm
    angle_deg : direction of g from the fast-scan axis (x), degrees, 0 <= angle < 180
    snr : peak power over the speckle level of its own annulus
    """

    d_nm: float
    sigma_nm: float
    angle_deg: float
    snr: float


class Region(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Physical descriptors of one region; a value that the data do not allow is None, its reason in `notes`.

    Attributes
    ----------
    label, name : its value in the label map; the class's name, or ``R0``, ``R1``, ... for clusters
    chips, area_fraction, components : size; share of labelled chips; 4-connected parts
    counts : EDS photons in the region, all channels; None without EDS
    haadf_mean : mean detector value per visit; None without HAADF
    atomic_percent, atomic_percent_sigma : by element, counting statistics only; specimen elements sum to 100
    extraneous_percent : strays (Cu grid, Ga implant, ...) as a share of everything, atomic percent
    d_spacing_nm, d_spacing_sigma_nm : longest spacing of the basis that indexes the significant peaks
    d_fast_nm, d_slow_nm : of the two basis spacings, the one along the fast and the slow scan direction
    lattice_peaks : strongest first
    crystallinity : power of significant peaks over all power in the searched band, 0..1
    notes : field -> why it is None or uncertain
    """

    label: int
    name: str
    chips: int
    area_fraction: float
    components: int
    counts: int | None = None
    haadf_mean: float | None = None
    atomic_percent: dict[str, float | None] | None = None
    atomic_percent_sigma: dict[str, float | None] | None = None
    extraneous_percent: float | None = None
    d_spacing_nm: float | None = None
    d_spacing_sigma_nm: float | None = None
    d_fast_nm: float | None = None
    d_slow_nm: float | None = None
    lattice_peaks: tuple[LatticePeak, ...] = ()
    crystallinity: float | None = None
    notes: dict[str, str] = {}


class Difference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the composition of region `a` differs from that of `b`: ``100 (a - b) / b``, by element.

    Attributes
    ----------
    a, b : names of the two regions
    percent : by element; None where the data do not allow one
    sigma : counting statistics of both regions; k-factors cancel, absorption too where the thickness is the same
    notes : element -> why it is None
    """

    a: str
    b: str
    percent: dict[str, float | None]
    sigma: dict[str, float | None]
    notes: dict[str, str] = {}


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pixel's calibration on a known crystal.

    Attributes
    ----------
    region, d_nm : what was asked: a region, and its longest spacing, nm
    label_map : ``<method>.<modality>`` of the map that the region was taken from; None where none has it
    measured_nm, measured_sigma_nm : that spacing with the recorded pixel, nm
    factor, factor_sigma : true over recorded length; all lengths of descriptors are multiplied by it. The error is
        common to all of them and is not in their sigmas
    pixel_nm : calibrated HAADF pixel, nm
    reason : why there is no factor; None where there is one
    """

    region: str
    d_nm: float
    label_map: str | None = None
    measured_nm: float | None = None
    measured_sigma_nm: float | None = None
    factor: float | None = None
    factor_sigma: float | None = None
    pixel_nm: float | None = None
    reason: str | None = None
