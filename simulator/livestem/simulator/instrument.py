"""The microscope's settings in a specimen's file: probe, scan, HAADF detector, EDS detector."""

from __future__ import annotations

from typing import Annotated

import msgspec

from livestem.domain.scan import EnergyAxis

_MOST = 1e9  # of anything: keeps infinity out
Positive = Annotated[float, msgspec.Meta(gt=0, le=_MOST)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]
_PIXELS = Annotated[int, msgspec.Meta(ge=8, le=8192)]  # below 8 there is no field; above 8192 no microscope


class ProbeBeam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The probe.

    Attributes
    ----------
    energy_kv, current_pa : of the beam
    convergence_mrad, collection_mrad : half-angles of the probe and of the HAADF detector (inner, outer)
    source_nm : FWHM of the source's image, nm
    tail_share, tail_nm : share of the current in the probe's broad part, and that part's sigma, nm
    """

    energy_kv: Positive
    convergence_mrad: Positive
    collection_mrad: tuple[Positive, Positive]
    current_pa: Positive
    source_nm: NotNegative
    tail_share: Annotated[float, msgspec.Meta(ge=0, le=1)]
    tail_nm: Positive

    def __post_init__(self) -> None:
        inner, outer = self.collection_mrad
        if not self.convergence_mrad < inner < outer:
            raise ValueError(
                "collection_mrad must be (inner, outer) with convergence_mrad < inner < outer, "
                f"got {inner:g}, {outer:g} and {self.convergence_mrad:g}"
            )


class ScanSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Probe positions (rows, cols), dwell time, s, and the rms sideways slip of a row, nm."""

    shape: tuple[_PIXELS, _PIXELS]
    dwell_s: Positive
    row_jitter_nm: NotNegative = 0.0


class HaadfDetector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Detector value = offset + gain * electrons, 16 bit; `read_noise` in electrons rms."""

    gain: Positive
    offset: NotNegative
    read_noise: NotNegative


class EdsDetector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy axis, FWHM at Mn Ka (eV), mean counts per pixel and frame, continuum's share of them."""

    channels: Annotated[int, msgspec.Meta(ge=16, le=65536)]
    scale_kev: Positive
    offset_kev: Annotated[float, msgspec.Meta(ge=-10, le=10)]  # no axis begins farther from zero
    resolution_mnka_ev: Annotated[float, msgspec.Meta(ge=122, le=200)]  # what stages can model
    counts_per_pixel: NotNegative
    background_share: Annotated[float, msgspec.Meta(ge=0, lt=1)]

    @property
    def energy(self) -> EnergyAxis:
        """The energy axis as the scan's plan states it."""
        return EnergyAxis(channels=self.channels, scale_kev=self.scale_kev, offset_kev=self.offset_kev)
