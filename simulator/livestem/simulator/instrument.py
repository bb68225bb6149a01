"""The microscope's settings in a specimen's file: probe, scan, drift, HAADF detector, EDS detector, limits."""

from __future__ import annotations

from typing import Annotated

import msgspec

from livestem.domain.scan import EnergyAxis

_MOST = 1e12  # of anything: keeps infinity out
Positive = Annotated[float, msgspec.Meta(gt=0, le=_MOST)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_PIXELS = Annotated[int, msgspec.Meta(ge=8, le=8192)]  # below 8 there is no field; above 8192 no microscope
_SLIP = Annotated[float, msgspec.Meta(ge=0, le=10)]  # nm; a beam that far off its place is no scan
_SPEED = Annotated[float, msgspec.Meta(ge=-100, le=100)]  # nm/s; a stage that fast is moving, not drifting


class ProbeBeam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The probe.

    Attributes
    ----------
    energy_kv, current_pa : of the beam
    convergence_mrad, collection_mrad : half-angles of the probe and of the HAADF detector (inner, outer)
    source_nm : FWHM of the source's image, nm
    """

    energy_kv: Positive
    convergence_mrad: Positive
    collection_mrad: tuple[Positive, Positive]
    current_pa: Annotated[float, msgspec.Meta(gt=0, le=1e6)]  # a microampere would melt the gun's apertures
    source_nm: NotNegative

    def __post_init__(self) -> None:
        inner, outer = self.collection_mrad
        if not self.convergence_mrad < inner < outer:
            raise ValueError(
                "collection_mrad must be (inner, outer) with convergence_mrad < inner < outer, "
                f"got {inner:g}, {outer:g} and {self.convergence_mrad:g}"
            )


class Drift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the specimen creeps under the beam; it goes on between scans.

    Attributes
    ----------
    velocity_nm_s : (y, x) steady part, nm/s
    wander_nm, wander_s : rms of a random part along each direction, nm, and the time in which it changes, s
    """

    velocity_nm_s: tuple[_SPEED, _SPEED] = (0.0, 0.0)
    wander_nm: _SLIP = 0.0
    wander_s: Annotated[float, msgspec.Meta(ge=1, le=1e6)] = 60.0  # what is faster is vibration


class ScanSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The scan and what distorts it.

    Attributes
    ----------
    shape : probe positions (rows, cols) of the standard field
    dwell_s : time per pixel and frame, s
    row_jitter_nm : rms sideways slip of a row, nm
    flyback_nm, flyback_s : lag of the beam at the start of a row, nm, and the time in which it settles, s
    drift : of the specimen
    """

    shape: tuple[_PIXELS, _PIXELS]
    dwell_s: Positive
    row_jitter_nm: _SLIP = 0.0
    flyback_nm: _SLIP = 0.0
    flyback_s: Positive = 20e-6
    drift: Drift = Drift()


class HaadfDetector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Detector value = offset + gain * electrons, 16 bit; `read_noise` in electrons rms."""

    gain: Positive
    offset: NotNegative
    read_noise: NotNegative


class EdsDetector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The EDS detector.

    Attributes
    ----------
    channels, scale_kev, offset_kev : energy axis
    resolution_mnka_ev, noise_ev : FWHM at Mn Ka and of the zero peak, eV
    counts_per_pixel : mean photons over the standard field, per pixel and frame, zero peak not counted
    background_share : the continuum's share of them
    zero_peak_share : the zero peak's share of all counts at that rate; what else is asked for, its rate is the same
    take_off_deg : angle between the foil and the way to the detector, degrees
    self_absorption : whether the foil absorbs its own X-rays
    delocalisation_nm : sigma of the place of emission about the probe, nm: spread of the beam, long-range excitation
    """

    channels: Annotated[int, msgspec.Meta(ge=16, le=65536)]
    scale_kev: Positive
    offset_kev: Annotated[float, msgspec.Meta(ge=-10, le=10)]  # no axis begins farther from zero
    resolution_mnka_ev: Annotated[float, msgspec.Meta(ge=122, le=200)]  # what stages can model
    counts_per_pixel: NotNegative
    background_share: Share
    zero_peak_share: Share = 0.0
    noise_ev: Annotated[float, msgspec.Meta(ge=20, le=200)] = 60.0
    take_off_deg: Annotated[float, msgspec.Meta(gt=0, le=90)] = 22.0
    self_absorption: bool = True
    delocalisation_nm: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.0

    @property
    def energy(self) -> EnergyAxis:
        """The energy axis as the scan's plan states it."""
        return EnergyAxis(channels=self.channels, scale_kev=self.scale_kev, offset_kev=self.offset_kev)


class StageLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a scan may ask for at most; None is no limit.

    Attributes
    ----------
    area_nm2 : of one scan's region
    time_s : of one scan
    dose_e_nm2 : electrons per nm^2 that any place has had, with the new scan's
    """

    area_nm2: Positive | None = None
    time_s: Positive | None = None
    dose_e_nm2: Positive | None = None
