"""X-rays: the expected spectrum of every class, and photons drawn from it.

Model. A thin foil: the named line of an element gives ``I = m / k`` counts, m its mass per area and k its
weight k-factor (Cliff-Lorimer); so do the other shells, by their own k. Lines, their ratios, widths and
k-factors are those of ``livestem.stages``: simulator and quantification mean the same by an intensity. The
continuum is Kramers' ``(E0 - E) / E``, absorbed at low energy and detected as the lines are, and goes with
the foil's mass times Z, as scattering from nuclei does. Absorption within the foil is left out, and so is atomic
contrast: beam spreading and a few photons per pixel hide it. A class emits as much as its mass and its
k-factors say; the field's mean is what the specimen states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import UsageError
from livestem.simulator.materials import Material
from livestem.simulator.specimen import Specimen
from livestem.stages.kfactors import atomic_weight, builtin_k_factors, detector_efficiency
from livestem.stages.lines import choose_lines
from livestem.stages.spectrum_model import energies_kev, line_shapes

Floats = NDArray[np.float64]
_LOWEST_KEV = 0.2  # below lies the zero peak, which the pulse processor cuts; nothing is emitted there
_SOFT_KEV = 0.5  # continuum softer than this is absorbed: falls from 1/E to flat as in velox_sto_spectra.emd
_EFFICIENCY_POINTS = 256  # where the detector's efficiency is computed, spaced in log E; between, linear


@dataclass(frozen=True)
class Emission:
    """What each class emits.

    Attributes
    ----------
    brightness : (K,) float64, photons relative to the other classes
    spectra : (K, C) float64, share of each channel; rows sum to 1
    cumulative : (K, C) float64, running sums of `spectra`, the last exactly 1
    """

    brightness: Floats
    spectra: Floats
    cumulative: Floats


def emission(specimen: Specimen) -> Emission:
    """Return the expected spectra of a specimen's classes, in class order.

    Raises
    ------
    UsageError
        If an element shows no line on the energy axis.
    """
    axis, beam = specimen.eds.energy, specimen.beam.energy_kv
    elements = tuple(dict.fromkeys((*specimen.elements, *specimen.strays)))
    families = choose_lines(elements, axis, beam)
    k = builtin_k_factors([f.line for f in families], beam)
    shapes = line_shapes(families, axis, specimen.eds.resolution_mnka_ev)
    masses = [_mass(specimen, material) for material in specimen.classes]
    lines = np.array([shapes @ [m.get(f.element, 0.0) / k.of(f.line) for f in families] for m in masses])
    weight = np.array([sum(v * (SYMBOLS.index(e) + 1) for e, v in m.items()) for m in masses])
    continuum = weight[:, None] * _continuum(specimen)
    share = specimen.eds.background_share
    if share and not continuum.any():
        raise UsageError("background_share needs an energy axis that reaches above 0.2 keV")
    continuum *= share / (1 - share) * lines.sum() / max(float(continuum.sum()), np.finfo(float).tiny)
    total = lines + continuum
    brightness = total.sum(axis=1)
    spectra = total / brightness[:, None]
    cumulative = np.cumsum(spectra, axis=1)
    return Emission(brightness, spectra, cumulative / cumulative[:, -1:])


def photons(
    rate: Floats, classes: NDArray[np.int8], cumulative: Floats, rng: np.random.Generator
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Draw the photons of one frame.

    Parameters
    ----------
    rate : (H, W) float64
        Expected photons per pixel.
    classes : (H, W) int8
        Class of every pixel.
    cumulative : (K, C) float64
        Cumulative spectrum of every class, the last value 1.
    rng : numpy Generator

    Returns
    -------
    (H, W) uint16, (sum of counts,) uint16
        Photons per pixel, and the channel of each, pixel after pixel in row-major order.
    """
    counts = rng.poisson(rate).astype(np.uint16)
    of_class = np.repeat(classes.ravel(), counts.ravel())
    chance = rng.random(of_class.size)
    channels = np.empty(of_class.size, np.uint16)
    for number, spectrum in enumerate(cumulative):
        mine = of_class == number
        channels[mine] = np.searchsorted(spectrum, chance[mine], side="right")
    return counts, channels


def _mass(specimen: Specimen, material: Material) -> dict[str, float]:
    """Mass per area of each element, strays included, in units of the atomic mass per nm^2."""
    density = dict(material.structure.density)
    total = sum(density.values())
    for element, percent in specimen.strays.items():
        density[element] = density.get(element, 0.0) + total * percent / 100
    return {e: n * specimen.thickness_nm * atomic_weight(e) for e, n in density.items()}


def _continuum(specimen: Specimen) -> Floats:
    """Return the shape of the continuum, (C,)."""
    energy, beam = energies_kev(specimen.eds.energy), specimen.beam.energy_kv
    shown = (energy >= _LOWEST_KEV) & (energy < beam)
    out = np.zeros(energy.size)
    if shown.any():
        e = energy[shown]
        points = np.geomspace(e[0], e[-1], _EFFICIENCY_POINTS)
        efficiency = np.interp(e, points, [detector_efficiency(float(p)) for p in points])
        out[shown] = (beam - e) / e * -np.expm1(-e / _SOFT_KEV) * efficiency
    return out
