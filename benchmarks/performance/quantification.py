"""Line intensities of a paper-like scan: livestem's one operator beside HyperSpy and exspy, chip by chip.

The scan is the paper's largest: 2601 chips of 4096 channels, Poisson draws of four phases (SrTiO3, LaFeO3 of two
kinds, a Pt cap) with strays, 1000 counts a chip, quantified with the eleven lines of its code. Timed from spectra to
line intensities, in one process on one thread, in turn:

- livestem: the operator built and all chips fitted, *live* (unconstrained) and *final* (not negative), and final with
  the covariance of every chip, which the others do not give;
- ``multifit(bounded=True)``: what the published code does, on a few chips, times all chips; beside final;
- ``multifit(optimizer="lstsq")``: HyperSpy's linear fit, unconstrained, on some chips, likewise; beside live.

Making exspy's model is left out of its times. Agreement is in at.% of compositions with the same k-factors, on spectra
of known composition with so many counts that only the methods differ; exspy weights all channels alike, or, *weighted*,
by livestem's noise.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from benchmarks.performance.published_fit import published_intensities, published_model, published_percent
from benchmarks.performance.table import Cell, Table, Timed, timed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from livestem.domain.parameters import GRAPHEM_LINES
from livestem.domain.scan import EnergyAxis
from livestem.stages.composition import cliff_lorimer
from livestem.stages.kfactors import atomic_weight, builtin_k_factors, relative_yield
from livestem.stages.lines import LineFamily, choose_lines, named_lines
from livestem.stages.quantify import LineOperator, build_operator, fit, line_intensities
from livestem.stages.spectrum_model import energies_kev, line_shapes

NAME = "quantification"
Floats = NDArray[np.float64]
AXIS = EnergyAxis(channels=4096, scale_kev=0.01, offset_kev=-0.25)  # the paper's
BEAM_KV, RESOLUTION_EV = 300.0, 130.0
COUNTS = 1000.0  # a chip of 10 x 10 pixels at 10 counts each, of the 1 to 50 that scans reach
BACKGROUND = 0.25  # share of bremsstrahlung, as in real recordings
STRAYS = {"C": 0.02, "Cu": 0.01, "Ga": 0.01, "Al": 0.005, "N": 0.002}
PHASES = (  # weight fractions
    {"Sr": 0.477, "Ti": 0.261, "O": 0.262},
    {"La": 0.572, "Fe": 0.230, "O": 0.198},
    {"La": 0.520, "Fe": 0.230, "O": 0.250},
    {"Pt": 0.97, "C": 0.03},
)
CHIPS, BOUNDED, LSTSQ = 2601, 2, 130  # all; those that are fitted in the two published ways
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "bounded": ("`multifit(bounded=True)`, as published", {"bounded": True}),
    "lstsq": ('`multifit(optimizer="lstsq")`', {"optimizer": "lstsq"}),
}
_TOLERANCE = 0.5  # at.% between exspy's compositions and ours, with the same weights


def measure(runs: int, quick: bool) -> Table:
    """Time all ways; `quick` has 60 chips, of which one is fitted bounded."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # exspy says of every line that it lies outside somewhere
    rng = np.random.default_rng(0)
    chips, fitted = (60, {"bounded": 1, "lstsq": 2}) if quick else (CHIPS, {"bounded": BOUNDED, "lstsq": LSTSQ})
    families = choose_lines((), AXIS, BEAM_KV, GRAPHEM_LINES)
    means = np.array([expected_spectrum(families, STRAYS | phase) for phase in PHASES])
    spectra = rng.poisson(COUNTS * means[rng.integers(len(PHASES), size=chips)]).astype(np.uint16)

    def operator() -> LineOperator:
        return build_operator(families, AXIS, spectra.mean(0), RESOLUTION_EV, BEAM_KV)

    works = {
        "live": lambda: line_intensities(operator(), spectra),
        "final": lambda: line_intensities(operator(), spectra, nonnegative=True),
        "final, with covariances": lambda: fit(operator(), spectra, nonnegative=True),
    }
    ours: dict[str, list[float]] = {name: [] for name in works}
    theirs: dict[str, list[float]] = {name: [] for name in fitted}
    with threadpool_limits(limits=1):
        for _ in range(runs):
            for name, times in timed(works, 1).items():
                ours[name] += times.seconds
            for name, some in fitted.items():
                theirs[name].append(published_s(spectra[:some], operator(), WAYS[name][1]) / some * chips)
    agreement = [] if quick else [*compositions(rng)]
    return table(chips, fitted, _medians(ours), _medians(theirs), agreement)


def published_s(spectra: NDArray[Any], operator: LineOperator, how: Mapping[str, Any]) -> float:
    """Return the seconds that exspy's fit of some spectra takes, its model made before."""
    model = published_model(spectra, operator, BEAM_KV)
    began = time.perf_counter()
    published_intensities(model, operator, **how)
    return time.perf_counter() - began


def compositions(rng: np.random.Generator) -> Iterator[tuple[str, list[float], float]]:
    """Yield a phase, how far our composition is from the true one and exspy's (bounded, lstsq, weighted), our sigma."""
    ways = ((False, WAYS["bounded"][1]), (False, WAYS["lstsq"][1]), (True, WAYS["lstsq"][1]))
    for phase in PHASES[:3]:
        families = choose_lines(phase, AXIS, BEAM_KV)
        spectrum = rng.poisson(4e5 * expected_spectrum(families, phase))[None]
        operator = build_operator(families, AXIS, spectrum[0], RESOLUTION_EV, BEAM_KV)
        k = builtin_k_factors(named_lines(families), BEAM_KV)
        ours = cliff_lorimer(fit(operator, spectrum, nonnegative=True), k)
        atoms = np.array([phase[e] / atomic_weight(e) for e in ours.elements])
        compared = [100 * atoms / atoms.sum()]
        for weighted, how in ways:
            model = published_model(spectrum, operator, BEAM_KV, weighted=weighted)
            compared.append(published_percent(published_intensities(model, operator, **how), operator, k)[0])
        name = " ".join(f"{e} {share:.1f}" for e, share in zip(ours.elements, compared[0], strict=True))
        apart = [float(np.abs(other - ours.atomic_percent[0]).max()) for other in compared]
        yield name, apart, float(ours.sigma[0].max())


def expected_spectrum(
    families: tuple[LineFamily, ...], weights: Mapping[str, float], axis: EnergyAxis = AXIS
) -> Floats:
    """Return the mean spectrum (C,) of weight fractions, of sum 1, over bremsstrahlung under an absorbing window."""
    amounts = [weights.get(f.element, 0.0) * relative_yield(f.line, BEAM_KV) for f in families]
    lines = line_shapes(families, axis, RESOLUTION_EV) @ amounts
    energy = energies_kev(axis).clip(0.05)
    continuum = (BEAM_KV - energy).clip(0) / energy * np.exp(-0.05 / energy**2)
    return np.asarray((1 - BACKGROUND) * lines / lines.sum() + BACKGROUND * continuum / continuum.sum())


def table(
    chips: int,
    fitted: Mapping[str, int],
    ours: Mapping[str, Timed],
    theirs: Mapping[str, Timed],
    agreement: list[tuple[str, list[float], float]],
) -> Table:
    """Return what was measured, with the goals."""
    live, final = ours["live"].median, ours["final"].median
    rows: list[tuple[Cell, ...]] = [
        (f"livestem, {name}", t.median / live, t.median / final, t.median, t.spread) for name, t in ours.items()
    ]
    for name, t in theirs.items():
        what = f"{WAYS[name][0]} (from {fitted[name]} chips)"
        rows.append((what, t.median / live, t.median / final, t.median, t.spread))
    notes = [
        f"{chips} chips, {AXIS.channels} channels, {len(GRAPHEM_LINES)} lines, {COUNTS:.0f} counts a chip.",
    ]
    if agreement:
        # unweighted least squares is another estimate; with the same weights only the methods are compared
        agree = all(apart[-1] <= max(_TOLERANCE, sigma) for _, apart, sigma in agreement)
        told = "; ".join(
            f"{name}: {', '.join(f'{a:.2f}' for a in apart)} (sigma {sigma:.2f})" for name, apart, sigma in agreement
        )
        notes += [
            "Our composition beside the true one, and exspy's of bounded, lstsq and lstsq with our weights, at.%, "
            f"largest of the elements: {told}. Goal, {_TOLERANCE:g} at.% or a sigma with the same weights: "
            f"{'met' if agree else 'missed'}."
        ]
    return Table(
        name=NAME,
        title="Quantification: spectra to line intensities",
        command=f"python -m benchmarks.performance {NAME}",
        columns=("what", "times livestem's live", "times its final", "s", "±"),
        rows=tuple(rows),
        notes=tuple(notes),
        facts={"ours": {k: t.seconds for k, t in ours.items()}, "theirs": {k: t.seconds for k, t in theirs.items()}},
    )


def _medians(seconds: Mapping[str, list[float]]) -> dict[str, Timed]:
    return {name: Timed(tuple(times)) for name, times in seconds.items()}
