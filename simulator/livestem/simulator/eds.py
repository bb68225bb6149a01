"""X-rays: the expected spectrum of every class of a specimen at every thickness that occurs.

Model. The named line of an element gives ``I = m / k`` counts, m its mass per area and k its weight k-factor
(Cliff-Lorimer); so do the other shells that the axis shows, by their own k. Lines, their ratios, widths and
k-factors are those of ``livestem.stages``: simulator and quantification mean the same by an intensity. Of each
line, a companion as well as a named one, the foil lets out what ``absorption`` says. The continuum is that of
``continuum``, absorbed and detected likewise; how much of it there is, the specimen states, since hardly a
microscope is free of stray electrons. The zero peak is the noise of the electronics, recorded as photons of no
energy, as Velox does. Strays are everywhere; they emit, absorb and scatter like the rest.

Left out: escape peaks (0.6 % of Ti Ka, at 2.77 keV, in velox_sto_spectra.emd), sum peaks (0.05 % of the counts at
1 kcps and 0.5 us of pulse-pair resolution), the tail of incomplete charge collection, fluorescence, and atomic
contrast: beam spreading and a few photons per pixel hide it. A class emits as much as its mass and its k-factors
say; the field's mean is what the specimen states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import UsageError
from livestem.domain.scan import EnergyAxis
from livestem.simulator.absorption import absorption_per_nm, mass_density, thickness_nodes, transmitted
from livestem.simulator.alias import Alias, alias
from livestem.simulator.continuum import bremsstrahlung, broadened, efficiency
from livestem.simulator.materials import Material
from livestem.simulator.specimen import Specimen
from livestem.stages.kfactors import builtin_k_factors
from livestem.stages.lines import LineFamily, choose_lines
from livestem.stages.spectrum_model import FWHM_PER_SIGMA, energies_kev, line_shapes

Floats = NDArray[np.float64]
_ERROR = 0.004  # of any line between two thicknesses; interpolation is a line, absorption nearly one
_SHARE_KEV = 0.2, 20.0  # where background_share counts: above the zero peak, below what silicon lets through
_ZERO_TAIL = 5.0  # sigmas of the zero peak that the axis must reach below to show it


@dataclass(frozen=True)
class Emission:
    """What each of K classes emits at T thicknesses of the foil.

    Attributes
    ----------
    thickness_nm : (T,) float64, rising, above 0; between them, photons *per nm* change linearly (the error of
        any line is below 0.5 %), below the first and above the last they are constant
    brightness : (K, T) float64, photons of a foil all of this class, the zero peak not counted, relative to the
        other classes and thicknesses
    spectra : (K, T, C) float64, share of each channel; rows sum to 1
    zero_peak : (C,) float64, share of each channel; sums to 1, or all zero if the axis does not show it
    elements : symbols of the specimen's elements, then the strays'
    lines : named line of every family, those that are quantified first
    """

    thickness_nm: Floats
    brightness: Floats
    spectra: Floats
    zero_peak: Floats
    elements: tuple[str, ...]
    lines: tuple[str, ...]

    @cached_property
    def channels(self) -> Alias:
        """Tables that draw channels. Rows: class 0 at all thicknesses, class 1, ..., and last the zero peak."""
        return alias(np.vstack([*self.spectra, self.zero_peak]))


@dataclass(frozen=True)
class _Foil:
    """One class as the detector sees it, per nm of foil and before absorption.

    `lines` (C, M) counts per channel of each line, `continuum` (C,); `line_x` (M,) and `continuum_x` (C,) their
    absorption, 1/nm.
    """

    lines: Floats
    continuum: Floats
    line_x: Floats
    continuum_x: Floats

    @property
    def strongest_x(self) -> float:
        """Absorption of the line that the foil absorbs most, of those it emits, 1/nm."""
        return float(self.line_x[self.lines.any(axis=0)].max())

    def at(self, thickness_nm: float) -> tuple[Floats, Floats]:
        """Return lines and continuum, (C,) each, of a foil of this thickness."""
        lines = self.lines @ transmitted(self.line_x * thickness_nm)
        return thickness_nm * lines, thickness_nm * self.continuum * transmitted(self.continuum_x * thickness_nm)


def emission(specimen: Specimen, thickness_nm: Sequence[float]) -> Emission:
    """Return the expected spectra of a specimen's classes, in class order.

    Parameters
    ----------
    specimen : Specimen
    thickness_nm : sequence of float
        Thicknesses of the foil that occur, nm, overlays included; the extremes are enough.

    Raises
    ------
    UsageError
        If an element shows no line on the energy axis, no thickness is given or one is not a positive number, or
        there is to be a continuum where the axis shows none.
    """
    if not len(thickness_nm) or not (np.isfinite(thickness_nm).all() and max(thickness_nm) > 0 <= min(thickness_nm)):
        raise UsageError(f"X-rays need a foil of some thickness, got {list(thickness_nm)} nm")
    axis, resolution = specimen.eds.energy, specimen.eds.resolution_mnka_ev
    elements = tuple(dict.fromkeys((*specimen.elements, *specimen.strays)))
    families = choose_lines(elements, axis, specimen.beam.energy_kv)
    foils = _foils(specimen, families)
    nodes = thickness_nodes(thickness_nm, max(f.strongest_x for f in foils), _ERROR)
    level = _continuum_level(specimen, foils)
    total = np.empty((len(foils), nodes.size, axis.channels))
    for k, foil in enumerate(foils):
        for n, thickness in enumerate(nodes):
            lines, continuum = foil.at(float(thickness))
            total[k, n] = lines + broadened(level * continuum, axis, resolution)
    brightness = total.sum(axis=2)
    return Emission(
        thickness_nm=nodes,
        brightness=brightness,
        spectra=total / brightness[..., None],
        zero_peak=zero_peak(axis, specimen.eds.noise_ev),
        elements=elements,
        lines=tuple(f.line for f in families),
    )


def zero_peak(axis: EnergyAxis, noise_ev: float) -> Floats:
    """Return the share (C,) of the zero peak in each channel: a Gaussian of FWHM `noise_ev` about 0 keV.

    All zero if the axis begins above the peak's lower tail.
    """
    sigma = noise_ev / 1e3 / FWHM_PER_SIGMA
    edges = axis.offset_kev + (np.arange(axis.channels + 1) - 0.5) * axis.scale_kev
    if edges[0] > -_ZERO_TAIL * sigma or edges[-1] < _ZERO_TAIL * sigma:
        return np.zeros(axis.channels)
    share = np.diff(ndtr(edges / sigma))
    return np.asarray(share / share.sum())


def _foils(specimen: Specimen, families: tuple[LineFamily, ...]) -> list[_Foil]:
    eds, beam = specimen.eds, specimen.beam.energy_kv
    # Each line by itself, named by its family's line: the foil absorbs every line at its own energy.
    single = tuple(
        replace(f, members=(m,), energies_kev=(e,), weights=(w,))
        for f in families
        for m, e, w in zip(f.members, f.energies_kev, f.weights, strict=True)
    )
    k = builtin_k_factors([f.line for f in families], beam)
    shapes = line_shapes(single, eds.energy, eds.resolution_mnka_ev)
    line_kev = np.array([line.energies_kev[0] for line in single])
    kev = energies_kev(eds.energy)
    counted = efficiency(kev)
    shown = np.flatnonzero(counted)
    above = 90 + eds.take_off_deg  # the detectors look at the side of the foil where the beam enters
    radiated = {e: bremsstrahlung(kev[shown], SYMBOLS.index(e) + 1, beam, above) for e in {f.element for f in families}}
    foils = []
    for material in specimen.classes:
        atoms = _atoms(specimen, material)
        mass = mass_density(atoms)
        counts = np.array([mass.get(line.element, 0.0) / k.of(line.line) for line in single])
        continuum, continuum_x, line_x = np.zeros(kev.size), np.zeros(kev.size), np.zeros(line_kev.size)
        continuum[shown] = counted[shown] * sum(n * radiated[e] for e, n in atoms.items())
        if eds.self_absorption:
            line_x = absorption_per_nm(mass, line_kev, eds.take_off_deg)
            continuum_x[shown] = absorption_per_nm(mass, kev[shown], eds.take_off_deg)
        foils.append(_Foil(shapes * counts, continuum, line_x, continuum_x))
    return foils


def _atoms(specimen: Specimen, material: Material) -> dict[str, float]:
    """Atoms of each element per nm^3, strays included."""
    density = dict(material.structure.density)
    total = sum(density.values())
    for element, percent in specimen.strays.items():
        density[element] = density.get(element, 0.0) + total * percent / 100
    return density


def _continuum_level(specimen: Specimen, foils: list[_Foil]) -> float:
    """Factor that gives the continuum its share of the counts from all classes at the nominal thickness."""
    share = specimen.eds.background_share
    if not share:
        return 0.0
    kev = energies_kev(specimen.eds.energy)
    counted = (kev >= _SHARE_KEV[0]) & (kev <= _SHARE_KEV[1])
    parts = [foil.at(specimen.thickness_nm) for foil in foils]
    lines, continuum = (float(sum(p[i][counted].sum() for p in parts)) for i in (0, 1))
    if not continuum > 0:
        raise UsageError("background_share needs an energy axis that reaches above 0.2 keV and below the beam's energy")
    return share / (1 - share) * lines / continuum
