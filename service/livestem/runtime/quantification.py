"""EDS of one scan, quantified: elements -> lines -> operator -> intensities -> atomic percent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.parameters import Parameters
from livestem.domain.scan import EnergyAxis, ScanPlan
from livestem.stages.absorption import DEFAULT_TAKE_OFF_DEG, Foil
from livestem.stages.composition import Composition, cliff_lorimer
from livestem.stages.descriptors import RegionComposition
from livestem.stages.elements import Identified, identify_elements
from livestem.stages.kfactors import KFactors, builtin_k_factors
from livestem.stages.ktable import read_k_factors as _read_k_factors
from livestem.stages.lines import LineFamily, choose_lines, named_lines
from livestem.stages.quantify import Fit, LineOperator, build_operator, fit, line_intensities
from livestem.stages.spectrum_model import align

_ENOUGH_COUNTS = 5_000  # below, automatic identification would see noise; live work then waits for more


@dataclass(frozen=True)
class Quantifier:
    """One operator for every spectrum of a scan.

    Attributes
    ----------
    parameters : with the elements that are really fitted
    warnings : what a person should know about them
    """

    parameters: Parameters
    operator: LineOperator
    k_factors: KFactors
    foil: Foil | None = None
    warnings: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of the quantified lines, also of those that cannot be determined."""
        return named_lines(self.operator.families)

    def fit(self, spectra: NDArray[Any], *, final: bool) -> Fit:
        """Fit (N, C) counts; finals allow no negative intensity."""
        return fit(self.operator, spectra, nonnegative=final)

    def intensities(self, spectra: NDArray[Any], *, final: bool) -> NDArray[np.float64]:
        """Fit (N, C) counts without their errors, which take most of the time of `fit`; (N, families)."""
        return line_intensities(self.operator, spectra, nonnegative=final)

    def named(self, intensities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, L) intensities of the quantified lines that can be determined."""
        return intensities[:, self._determined]

    @property
    def named_determined(self) -> tuple[str, ...]:
        """Names of `named`'s columns."""
        families = self.operator.families
        return tuple(f.line for f, kept in zip(families, self._determined, strict=True) if kept)

    @property
    def _determined(self) -> list[bool]:
        operator = self.operator
        return [not f.nuisance and bool(d) for f, d in zip(operator.families, operator.determined, strict=True)]

    def composition(self, fitted: Fit) -> Composition:
        """Return atomic percent of every spectrum."""
        in_total = self.parameters.recipe.strays_in_total
        strays = self.parameters.strays
        return cliff_lorimer(fitted, self.k_factors, strays, strays_in_total=in_total, foil=self.foil)

    def regions(self, spectra: NDArray[Any]) -> list[RegionComposition]:
        """Quantify regions by their summed (R, C) spectra."""
        found = self.composition(self.fit(spectra, final=True))
        return [self._region(found, i, int(counts)) for i, counts in enumerate(spectra.sum(axis=1))]

    def _region(self, found: Composition, row: int, counts: int) -> RegionComposition:
        notes: dict[str, str] = {}
        percent: dict[str, float | None] = {}
        sigma: dict[str, float | None] = {}
        for i, element in enumerate(found.elements):
            known = bool(found.determined[i] and found.valid[row])
            percent[element] = float(found.atomic_percent[row, i]) if known else None
            sigma[element] = float(found.sigma[row, i]) if known else None
            if not known:
                why = found.reasons[i] or "too few counts"
                notes[f"atomic_percent.{element}"] = why
        strays = self.parameters.strays
        extraneous = float(found.extraneous_percent[row]) if strays and found.valid[row] else None
        return RegionComposition(
            counts=counts,
            atomic_percent=percent,
            sigma=sigma,
            extraneous_percent=extraneous,
            notes=notes,
        )


def read_k_factors(path: Path) -> dict[str, float]:
    """Read a k-factor file: line -> weight k-factor. See `livestem.stages.ktable.read_k_factors`."""
    return dict(_read_k_factors(path).values)


def quantifier_parts(plan: ScanPlan, parameters: Parameters) -> tuple[tuple[LineFamily, ...], KFactors]:
    """Return the line families and k-factors of a scan whose elements are known.

    Raises
    ------
    UsageError
        If a line cannot be seen or lacks a k-factor.
    """
    assert plan.eds is not None
    beam = plan.beam.energy_kv
    wanted = (*parameters.elements, *parameters.strays)
    families = choose_lines(wanted, plan.eds.energy, beam, parameters.lines or None)
    lines = named_lines(families)
    if not parameters.k_factors:
        return families, builtin_k_factors(lines, beam)
    table = KFactors(values=parameters.k_factors, source="given")
    for line in lines:
        table.of(line)
    return families, table


def build_quantifier(
    plan: ScanPlan, parameters: Parameters, total: NDArray[Any], *, final: bool = True
) -> Quantifier | None:
    """Build the quantifier of a scan from its summed spectrum; None if no element can be told.

    Parameters
    ----------
    plan, parameters : of the scan
    total : (C,) counts of the whole field
    final : whether to align the energy axis on the lines, which takes too long for live work

    Notes
    -----
    Elements that the user named are taken as they are. Otherwise those of the metadata are completed by
    automatic identification, and peaks that no element explains become warnings.
    """
    assert plan.eds is not None
    axis, resolution = plan.eds.energy, plan.eds.energy_resolution_mnka_ev
    beam = plan.beam.energy_kv
    warnings: list[str] = []
    found: Identified | None = None
    named = (*parameters.elements, *parameters.strays)
    if parameters.elements_origin == "automatic":
        if total.sum() < _ENOUGH_COUNTS:
            return None
        known = _visible(named, axis, beam)
        if known != named:
            hidden = ", ".join(e for e in named if e not in known)
            warnings.append(f"the recording names {hidden}, of which this energy axis shows no line")
        found = _identified(total, axis, plan, known)
        parameters = msgspec.structs.replace(
            parameters, elements=tuple(e for e in found.elements if e not in parameters.strays)
        )
        warnings += _unexplained(found)
        beside = "" if not known else f" beside those the recording names ({', '.join(known)})"
        added = ", ".join(e for e in found.elements if e not in known)
        if added or not known:
            warnings.append(f"elements found automatically{beside}: {added or 'none'}")
    if not parameters.elements:
        return None
    families, k_factors = quantifier_parts(plan, parameters)
    if final and total.sum() >= _ENOUGH_COUNTS:
        if parameters.elements_origin == "user":
            found = _identified(total, axis, plan, _visible(named, axis, beam))
            warnings += _unnamed(found, named)
        if found is not None and found.families == families and beam is not None:  # None: taken for some voltage
            axis, resolution = found.axis, found.resolution_mnka_ev
        else:
            axis, resolution = align(families, axis, total, resolution, beam)
        warnings += _shift_warning(plan.eds.energy, axis)
    operator = build_operator(families, axis, total.astype(np.float64), resolution, beam)
    foil = foil_of(plan, parameters)
    if foil is not None and foil.take_off_deg != plan.eds.take_off_angle_deg:
        warnings.append(f"no take-off angle is recorded; absorption is corrected for {foil.take_off_deg:g} degrees")
    return Quantifier(parameters, operator, k_factors, foil, tuple(warnings))


def foil_of(plan: ScanPlan, parameters: Parameters) -> Foil | None:
    """Return what absorption is corrected for; None where no thickness is given."""
    assert plan.eds is not None
    if parameters.thickness_nm is None:
        return None
    stated = plan.eds.take_off_angle_deg
    take_off = stated if stated is not None and 0 < stated < 90 else DEFAULT_TAKE_OFF_DEG
    return Foil(parameters.thickness_nm, take_off, parameters.density_g_cm3)


def _unexplained(found: Identified) -> list[str]:
    return [
        f"unexplained peak at {energy:.2f} keV ({counts:.0f} counts); name its element with --elements"
        for energy, counts in found.unexplained
    ]


def _unnamed(found: Identified, named: tuple[str, ...]) -> list[str]:
    """Return warnings of what the spectrum shows beside the elements that the user named."""
    others = ", ".join(e for e in found.elements if e not in named)
    missing = f"the spectrum also shows {others}, which are not in the 100 %; name them with --elements or --strays"
    return [*([missing] if others else []), *_unexplained(found)]


def _shift_warning(stated: EnergyAxis, found: EnergyAxis) -> list[str]:
    """Return a warning if the peaks sit more than a channel off the stated axis; the fit follows the peaks."""
    shift = stated.offset_kev - found.offset_kev
    if abs(shift) < stated.scale_kev:
        return []
    side = "high" if shift > 0 else "low"
    return [f"the peaks sit {abs(shift):.3f} keV {side} on the recording's energy axis; lines were fitted there"]


def _identified(total: NDArray[Any], axis: EnergyAxis, plan: ScanPlan, known: tuple[str, ...]) -> Identified:
    assert plan.eds is not None
    return identify_elements(total, axis, plan.beam.energy_kv, known, plan.eds.energy_resolution_mnka_ev)


def _visible(elements: tuple[str, ...], axis: EnergyAxis, beam_energy_kv: float | None) -> tuple[str, ...]:
    """Return the elements that have a line inside the axis and below the beam's energy."""
    found = []
    for element in elements:
        with suppress(UsageError):
            choose_lines((element,), axis, beam_energy_kv)
            found.append(element)
    return tuple(found)
