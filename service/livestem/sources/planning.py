"""From the signals of the files to a `ScanPlan`: which give HAADF and EDS, on what field, with what facts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from livestem.domain.errors import SourceError, UsageError
from livestem.domain.geometry import Sampling
from livestem.domain.scan import Eds, EnergyAxis, Haadf, ScanPlan
from livestem.sources.checks import check_eds, checked_haadf
from livestem.sources.fingerprint import scan_name
from livestem.sources.generic import merged_facts
from livestem.sources.pair import calibrate, choose_eds, choose_picture
from livestem.sources.signals import Picture, Signals, SpectrumImage


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user says about a recording; None leaves it to the file."""

    image: str | None = None
    dwell_us: float | None = None
    pixel_nm: float | None = None
    energy_axis: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for value, flag in ((self.dwell_us, "--dwell-us"), (self.pixel_nm, "--pixel-nm")):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{flag} must be a positive number, got {value:g}")
        if self.energy_axis is not None:
            offset, scale = self.energy_axis
            if not (math.isfinite(offset) and math.isfinite(scale) and scale > 0):
                raise UsageError(f"--energy-axis is OFFSET:SCALE in keV with SCALE > 0, got {offset:g}:{scale:g}")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The two signals of a scan, None where it lacks one, and what to tell the user about them."""

    haadf: Picture | None
    eds: SpectrumImage | None
    warnings: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Files in use, HAADF first."""
        return list(dict.fromkeys(s.path for s in (self.haadf, self.eds) if s is not None))

    @property
    def frames(self) -> int:
        """Frames of the longer of the two."""
        return max(int(s.shape[0]) for s in (self.haadf, self.eds) if s is not None)


def choose(signals: Mapping[Path, Signals], haadf: Path | None, eds: Path | None, image: str | None) -> Chosen:
    """Choose HAADF and EDS among what the files hold.

    Parameters
    ----------
    signals : what each file holds
    haadf, eds : the file to take that modality from, and nothing else unless both are one file
    image : see `pair`

    Raises
    ------
    SourceError
        If a file lacks what it is named for, nothing is a scan, or the choice is not clear.
    """
    only_eds = eds if eds != haadf else None
    only_haadf = haadf if eds != haadf else None
    pictures = [p for f, s in signals.items() if haadf in (None, f) and f != only_eds for p in s.pictures]
    spectra = [x for f, s in signals.items() if eds in (None, f) and f != only_haadf for x in s.spectra]
    spectrum, of_eds = choose_eds(spectra)
    picture, of_haadf = choose_picture(pictures, spectrum, image)
    if haadf is not None and picture is None:
        raise SourceError(f"{haadf.name} holds no image; give the HAADF's file with --haadf")
    if eds is not None and spectrum is None:
        raise SourceError(f"{eds.name} holds no EDS spectrum image; give the EDS's file with --eds")
    if picture is None and spectrum is None:
        names = " and ".join(f.name for f in signals)
        raise SourceError(f"{names} holds no scan: neither an HAADF image nor an EDS spectrum image")
    chosen = Chosen(haadf=picture, eds=spectrum)
    of_files = [w for f in chosen.paths for w in signals[f].warnings]
    warnings = (*of_files, *of_eds, *of_haadf, *_frame_notes(picture, spectrum))
    return Chosen(haadf=picture, eds=spectrum, warnings=warnings)


def plan_scan(signals: Mapping[Path, Signals], chosen: Chosen, wishes: Wishes) -> tuple[ScanPlan, list[str]]:
    """Check the data and state the facts.

    Returns
    -------
    plan : ScanPlan
    warnings

    Raises
    ------
    SourceError
        If a calibration is missing, the two are not one field, or the data are refused (see `checks`).
    """
    # EDS files carry more about the acquisition than exported images do
    order = [s.path for s in (chosen.eds, chosen.haadf) if s is not None]
    facts = merged_facts([signals[path].facts for path in order])
    at_haadf, at_eds, warnings = calibrate(chosen.haadf, chosen.eds, wishes.pixel_nm, facts.rotation_deg)
    beam, plan_haadf, plan_eds = facts.beam, None, None
    if chosen.eds is not None and at_eds is not None:
        plan_eds = _plan_eds(chosen.eds, at_eds, wishes, chosen.frames)
        check_eds(chosen.eds)
    if chosen.haadf is not None and at_haadf is not None:
        dtype, clipped = checked_haadf(chosen.haadf)
        warnings += clipped
        frames = chosen.haadf.shape[0]
        plan_haadf = Haadf(
            sampling=at_haadf,
            dtype=dtype,
            frames=None if frames == chosen.frames else frames,
            detector=chosen.haadf.title,
        )
        beam = msgspec.structs.replace(beam, collection_mrad=chosen.haadf.collection_mrad)
    plan = ScanPlan(
        haadf=plan_haadf,
        eds=plan_eds,
        frames=chosen.frames,
        dwell_s=facts.dwell_s if wishes.dwell_us is None else wishes.dwell_us * 1e-6,
        beam=beam,
        stage=facts.stage,
        sample=facts.sample,
        source=" + ".join(path.name for path in chosen.paths),
        recorded_at=facts.recorded_at,
    )
    return plan, warnings


def scan_id_of(chosen: Chosen, wishes: Wishes) -> str:
    """Return the name of the scan, from its content and the choices made."""
    signals = {"haadf": chosen.haadf, "eds": chosen.eds}
    selection = {
        "image": None if chosen.haadf is None else chosen.haadf.number,
        "dwell_us": wishes.dwell_us,
        "pixel_nm": wishes.pixel_nm,
        "energy_axis": None if wishes.energy_axis is None else list(wishes.energy_axis),
    }
    return scan_name({role: s.path for role, s in signals.items() if s is not None}, selection)


def _plan_eds(spectrum: SpectrumImage, sampling: Sampling, wishes: Wishes, frames: int) -> Eds:
    energy = wishes.energy_axis or spectrum.energy_kev
    if energy is None:
        raise SourceError(
            f"the EDS of {spectrum.path.name} has no energy calibration; give it with --energy-axis OFFSET:SCALE in keV"
        )
    return Eds(
        sampling=sampling,
        energy=EnergyAxis(channels=spectrum.shape[3], offset_kev=energy[0], scale_kev=energy[1]),
        frames=None if spectrum.shape[0] == frames else spectrum.shape[0],
        detectors=spectrum.detectors,
        live_time_s=spectrum.live_time_s,
        real_time_s=spectrum.real_time_s,
        take_off_angle_deg=spectrum.take_off_angle_deg,
        energy_resolution_mnka_ev=spectrum.energy_resolution_mnka_ev,
        elements=spectrum.elements,
        lines=spectrum.lines,
    )


def _frame_notes(picture: Picture | None, spectrum: SpectrumImage | None) -> list[str]:
    if picture is None or spectrum is None or picture.shape[0] == spectrum.shape[0]:
        return []
    counts = {"HAADF": picture.shape[0], "EDS": spectrum.shape[0]}
    few, many = sorted(counts, key=lambda m: counts[m])
    if counts[few] == 1:
        return [f"the {few} is one picture of all {counts[many]} {many} frames; it counts as frame 0"]
    return [f"the {few} has {counts[few]} frames and the {many} {counts[many]}; the last ones lack {few}"]
