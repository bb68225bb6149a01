"""Which elements a spectrum shows.

Theory
------
Elements are added one at a time. The spectrum is fitted with the families of those known so far; the most
significant peak of what is left (a matched filter with the detector's own width) asks for an explanation.
Every element with a strong K, L or M line near that peak is a candidate, and is tried as *one* column: the
shell of that line and all harder ones, in the ratios that physics predicts (cross section, yield,
efficiency). The candidate that explains most of the misfit wins. A heavy element whose M line happens to lie
on the peak would also have to show its L lines, so the simplest explanation wins by itself; ties go to the
lighter element. Softer shells give no evidence, because specimens and supports absorb them.

Rules
-----
1. A peak counts if it stands `SIGNIFICANCE` standard errors above the fit, the error including what a few
   per cent of wrong line shape would leave near strong peaks.
2. A candidate is accepted if it takes at least half of the peak away.
3. What was first taken for one element may later turn out to be another's (Pr where Ba was not yet known): in
   the end each element found must still be missed when it alone is left out, or it is dropped for good.
4. Peaks that no element explains (escape and sum peaks, say) are reported, never forced on an element.
5. The energy axis is aligned on what is known after each addition, for recordings whose peaks sit off.

This is a help for recordings that name no elements, not a judgement: traces below 0.2 % of the
counts and elements whose every line hides under another's are not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import UsageError
from livestem.domain.scan import EnergyAxis
from livestem.stages.kfactors import DEFAULT_BEAM_KV, relative_yield
from livestem.stages.lines import SOFTEST_KEV, LineFamily, choose_lines, fwhm_kev
from livestem.stages.spectrum_model import (
    FWHM_PER_SIGMA,
    Floats,
    align,
    background_shapes,
    checked_counts,
    energies_kev,
    fit_mean,
    fit_window,
    line_shapes,
    nonnegative_fit,
)

SIGNIFICANCE = 6.0  # of thousands of channels, none in a thousand spectra passes by chance
MOST_ELEMENTS = 20  # no specimen holds more; ends the search on spectra that are no EDS spectra
_SHAPE_DOUBT = 0.05  # a Gaussian misses tails and incomplete charge collection of this share of its height
_SHAPE_REACH_KEV = 0.15  # and that as far as a hard peak's width
_NEAR = 0.6  # a line explains a peak within 0.6 of its width (35 eV at carbon, 75 at iron): axes sit 30 eV off
_STRONG = 0.3  # beside the named line, those of this relative strength may be what is seen (Lb1, where La hides)
_LEAST_SHARE = 0.002  # of all counts in the window: less is a trace, or a tail of something else
_MISSED = 9.0  # chi2 by which an element's absence must show: three standard errors of its counts, all else refitted
_SIMPLER = 0.9  # an element lighter than the best and 90 % as good is preferred
_INERT = frozenset("He Ne Ar Kr Xe Rn Tc Pm Po At Fr Ra Ac Pa".split())  # gases and short-lived: never in a specimen


@dataclass(frozen=True)
class Identified:
    """What was found.

    Attributes
    ----------
    elements : symbols, the known ones first, then in the order found (strongest evidence first)
    unexplained : (energy in keV, counts above the fit) of peaks that no element explains
    axis : EnergyAxis, aligned on `families`
    resolution_mnka_ev : detector resolution that goes with it, eV
    families : the lines of the elements
    """

    elements: tuple[str, ...]
    unexplained: tuple[tuple[float, float], ...]
    axis: EnergyAxis
    resolution_mnka_ev: float
    families: tuple[LineFamily, ...]


@dataclass(frozen=True)
class _State:
    """The spectrum, and what it was fitted with."""

    spectrum: Floats  # (C,)
    axis: EnergyAxis
    resolution: float
    beam: float
    window: slice
    families: tuple[LineFamily, ...]  # L
    design: Floats  # (C', P); the first L columns are the families'
    model: Floats  # (C',)
    noise: Floats  # (C',) standard error per channel

    @property
    def left(self) -> Floats:
        return self.spectrum[self.window] - self.model


def identify_elements(
    spectrum: ArrayLike,
    axis: EnergyAxis,
    beam_energy_kv: float | None = None,
    known: tuple[str, ...] = (),
    resolution_mnka_ev: float | None = None,
) -> Identified:
    """Identify the elements of a summed spectrum.

    Parameters
    ----------
    spectrum : (C,) array
        Counts (a sum, not a mean: significance is counting statistics).
    axis : EnergyAxis
    beam_energy_kv : float, optional
        Beam energy, kV; 200 where unknown.
    known : tuple of str
        Elements that are surely there.
    resolution_mnka_ev : float, optional
        Detector resolution, where the search for it begins, eV.

    Returns
    -------
    Identified

    Raises
    ------
    StageError
        If the spectrum does not fit the axis, or is negative or not finite.
    UsageError
        If a known element has no line in the axis.
    """
    counts = checked_counts(spectrum, axis, 1).astype(np.float64)
    beam = DEFAULT_BEAM_KV if beam_energy_kv is None else beam_energy_kv
    found = list(dict.fromkeys(known))
    unexplained: list[tuple[float, float]] = []
    dropped: set[str] = set()
    state = _fit(counts, axis, resolution_mnka_ev, beam, tuple(found))
    while True:
        peak = _next_peak(state, unexplained) if len(found) < MOST_ELEMENTS else None
        if peak is not None:
            element = _explain(state, peak[0], {*found, *dropped})
            if element is None:
                unexplained.append(peak)
                continue
            found.append(element)
        else:
            spare = _not_missed(state, found[len(set(known)) :])
            if spare is None:
                break
            found.remove(spare)
            dropped.add(spare)
        unexplained.clear()  # what stood alone may be another line of this element
        state = _fit(counts, axis, resolution_mnka_ev, beam, tuple(found))
    return Identified(
        elements=tuple(found),
        unexplained=tuple(unexplained),
        axis=state.axis,
        resolution_mnka_ev=state.resolution,
        families=state.families,
    )


def _fit(
    counts: Floats, axis: EnergyAxis, resolution_mnka_ev: float | None, beam: float, found: tuple[str, ...]
) -> _State:
    families = choose_lines(found, axis, beam)
    axis, resolution = align(families, axis, counts, resolution_mnka_ev, beam)
    window = fit_window((), axis, beam)  # the whole axis: peaks are looked for everywhere
    lines = line_shapes(families, axis, resolution)[window]
    design = np.hstack([lines, background_shapes(axis, window, beam)])
    coefficients, model = fit_mean(design, counts[window])
    peaks = lines @ coefficients[: len(families)]
    reach = max(1, round(_SHAPE_REACH_KEV / axis.scale_kev))
    near = np.lib.stride_tricks.sliding_window_view(np.pad(peaks, reach, mode="edge"), 2 * reach + 1).max(1)
    doubt = _SHAPE_DOUBT * near * np.sqrt(reach)  # correlated over the width, unlike counting noise
    noise = np.sqrt(np.maximum(model, 1.0) + doubt**2)
    return _State(counts, axis, resolution, beam, window, families, design, model, noise)


def _next_peak(state: _State, unexplained: list[tuple[float, float]]) -> tuple[float, float] | None:
    energy = energies_kev(state.axis)[state.window]
    step = state.axis.scale_kev
    sigma = np.array([fwhm_kev(e, state.resolution) for e in energy.tolist()]) / FWHM_PER_SIGMA
    reach = np.maximum(1, (3 * sigma / step).astype(np.intp))
    offset = np.arange(-reach.max(), reach.max() + 1)
    channel = np.arange(len(energy))[:, None] + offset  # of each peak that may be, those around its middle
    inside = (np.abs(offset) <= reach[:, None]) & (channel >= 0) & (channel < len(energy))
    channel = np.clip(channel, 0, len(energy) - 1)
    away = (energy[channel] - energy[:, None]) / sigma[:, None]
    shape = np.where(inside, np.exp(-0.5 * away**2), 0.0) * (step / (sigma * np.sqrt(2 * np.pi)))[:, None]
    weighed = shape / (state.noise**2)[channel]
    information = (shape * weighed).sum(axis=1)
    area = (weighed * state.left[channel]).sum(axis=1) / information
    score = area * np.sqrt(information)
    score[energy - 2 * sigma < max(SOFTEST_KEV, energy[0])] = -np.inf  # half a peak on the zero peak's flank is none
    for taken, _ in unexplained:
        score[np.abs(energy - taken) < 2 * FWHM_PER_SIGMA * sigma] = -np.inf
    best = int(score.argmax())
    least = _LEAST_SHARE * state.spectrum[state.window].sum()
    if score[best] < SIGNIFICANCE or area[best] < least:
        return None
    return float(energy[best]), float(area[best])


def _not_missed(state: _State, elements: list[str]) -> str | None:
    """Return the element that the others replace best, if they replace it within `_MISSED`."""
    spectrum = state.spectrum[state.window] / state.noise
    scaled = state.design / state.noise[:, None]
    owners = np.array([f.element for f in state.families] + [""] * (scaled.shape[1] - len(state.families)))
    whole = nonnegative_fit(scaled, spectrum)[1]
    missed = {e: nonnegative_fit(scaled[:, owners != e], spectrum)[1] - whole for e in elements}
    least = min(missed, key=lambda e: missed[e], default=None)
    return least if least is not None and missed[least] < _MISSED else None


def _explain(state: _State, energy_kev: float, tried: set[str]) -> str | None:
    scores: dict[str, float] = {}
    for element in SYMBOLS:
        if element in tried or element in _INERT:
            continue
        try:
            families = choose_lines((element,), state.axis, state.beam)
        except UsageError:
            continue  # no line inside the axis
        near = [family for family in families if _could_be(family, state, energy_kev)]
        if near:
            softest = min(f.energy_kev for f in near)
            scores[element] = _gain(state, tuple(f for f in families if f.energy_kev >= softest), energy_kev)
    best = max(scores.values(), default=0.0)
    if best <= 0:
        return None
    return next(element for element in SYMBOLS if scores.get(element, 0.0) >= _SIMPLER * best)


def _could_be(family: LineFamily, state: _State, energy_kev: float) -> bool:
    lines = zip(family.energies_kev, family.weights, strict=True)
    return any(w >= _STRONG and abs(e - energy_kev) < _NEAR * _width(state, e) for e, w in lines)


def _gain(state: _State, families: tuple[LineFamily, ...], energy_kev: float) -> float:
    """Misfit (chi2) that an element takes away, its shells in physical ratios; 0 if it leaves the peak."""
    yields = np.array([_expected(family, state.beam) for family in families])
    column = line_shapes(families, state.axis, state.resolution)[state.window] @ yields
    weights = 1.0 / state.noise**2
    # The background adapts, so that a shell that is not there cannot hide in it, nor a broad misfit pass as
    # a line.
    design = np.column_stack([column, state.design])
    before = float((state.left**2 * weights).sum())
    counted = state.spectrum[state.window]
    coefficients, after = nonnegative_fit(design * np.sqrt(weights)[:, None], counted * np.sqrt(weights))
    left = counted - design @ coefficients
    at = np.abs(energies_kev(state.axis)[state.window] - energy_kev) < _width(state, energy_kev) / 2
    if coefficients[0] <= 0 or left[at].sum() > 0.5 * state.left[at].sum():
        return 0.0
    return before - after


def _expected(family: LineFamily, beam: float) -> float:
    try:
        return relative_yield(family.line, beam)
    except UsageError:
        return 0.0  # a shell the model cannot predict says nothing for or against


def _width(state: _State, energy_kev: float) -> float:
    return fwhm_kev(energy_kev, state.resolution)
