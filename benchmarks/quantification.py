"""Line intensities of a paper-like scan: livestem's one operator beside HyperSpy and exspy, chip by chip.

Run: ``python benchmarks/quantification.py [--chips 2601] [--bounded 2] [--lstsq 130] [--runs 3]``, about two minutes.

The scan is the paper's largest: 2601 chips of 4096 channels, Poisson draws of four phases (SrTiO3, LaFeO3 of two
kinds, a Pt cap) with strays, 1000 counts a chip, quantified with the eleven lines of its code. Timed from spectra to
line intensities, in one process on one thread:

- livestem: the operator built and all chips fitted, *live* (unconstrained) and *final* (not negative), and final with
  the covariance of every chip, which the others do not give;
- ``multifit(bounded=True)``: what the published code does, on `--bounded` chips, times all chips; beside final;
- ``multifit(optimizer="lstsq")``: HyperSpy's linear fit, unconstrained, on `--lstsq` chips, likewise; beside live.

Making exspy's model is left out of its times. Agreement is in at.% of compositions with the same k-factors, on spectra
of known composition with so many counts that only the methods differ; exspy weights all channels alike, or, *weighted*,
by livestem's noise. The tests use `published_model`, `published_intensities` and `published_percent` as their oracle.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.parameters import GRAPHEM_LINES
from livestem.domain.scan import EnergyAxis
from livestem.stages.composition import cliff_lorimer
from livestem.stages.kfactors import KFactors, atomic_weight, builtin_k_factors, relative_yield
from livestem.stages.lines import LineFamily, choose_lines, named_lines
from livestem.stages.quantify import LineOperator, build_operator, fit, line_intensities
from livestem.stages.spectrum_model import energies_kev, line_shapes

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


def expected_spectrum(
    families: tuple[LineFamily, ...], weights: Mapping[str, float], axis: EnergyAxis = AXIS
) -> Floats:
    """Return the mean spectrum (C,) of weight fractions, of sum 1, over bremsstrahlung under an absorbing window."""
    amounts = [weights.get(f.element, 0.0) * relative_yield(f.line, BEAM_KV) for f in families]
    lines = line_shapes(families, axis, RESOLUTION_EV) @ amounts
    energy = energies_kev(axis).clip(0.05)
    continuum = (BEAM_KV - energy).clip(0) / energy * np.exp(-0.05 / energy**2)
    return np.asarray((1 - BACKGROUND) * lines / lines.sum() + BACKGROUND * continuum / continuum.sum())


def published_model(spectra: NDArray[Any], operator: LineOperator, beam_kv: float, *, weighted: bool = False) -> Any:
    """Return exspy's model of N spectra (N, C) with the operator's axis, window, resolution and lines."""
    import hyperspy.api as hs

    axis, window = operator.axis, operator.window
    signal = hs.signals.Signal1D(np.asarray(spectra, np.float64)[:, window])
    signal.set_signal_type("EDS_TEM")
    measured = signal.axes_manager.signal_axes[0]
    measured.scale, measured.units = axis.scale_kev, "keV"
    measured.offset = axis.offset_kev + window.start * axis.scale_kev
    signal.set_microscope_parameters(beam_energy=beam_kv, energy_resolution_MnKa=operator.resolution_mnka_ev)
    if weighted:
        noise = np.broadcast_to(1.0 / operator.weights, signal.data.shape).copy()
        signal.set_noise_variance(signal._deepcopy_with_new_data(noise))  # noqa: SLF001 (HyperSpy documents no other way)
    signal.set_elements([f.element for f in operator.families])
    signal.set_lines([f.line for f in operator.families], only_one=False)
    model = signal.create_model(auto_background=False)
    model.add_polynomial_background(order=6)  # exspy's own default
    return model


def published_intensities(model: Any, operator: LineOperator, **how: Any) -> list[Any]:
    """Return the line intensities that ``multifit(**how)`` finds, one signal for each of the operator's families."""
    model.multifit(show_progressbar=False, **how)
    lines = [f.line for f in operator.families]
    found = {s.metadata.Sample.xray_lines[0]: s for s in model.get_lines_intensity(lines)}
    return [found[line] for line in lines]


def published_percent(found: list[Any], operator: LineOperator, k: KFactors) -> Floats:
    """Return exspy's Cliff-Lorimer of the named lines, (N, E) atomic percent."""
    import hyperspy.api as hs

    named = [(f, s) for f, s in zip(operator.families, found, strict=True) if not f.nuisance]
    signal = hs.signals.Signal1D(np.zeros((named[0][1].data.size, 8)))
    signal.set_signal_type("EDS_TEM")
    factors = [k.of(f.line) for f, _ in named]
    shares = signal.quantification([s for _, s in named], "CL", factors, navigation_mask=None)
    return np.stack([np.ravel(share.data) for share in shares], axis=1)


def seconds(work: Callable[[], object], runs: int) -> list[float]:
    """Return how long each of some runs took."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def agreement(rng: np.random.Generator) -> str:
    """Return how far compositions are apart and from the truth, on a spectrum of 400 000 counts of each phase."""
    rows = ["at.%, largest of the elements    true     bounded      lstsq   weighted   livestem's sigma"]
    ways: tuple[tuple[bool, dict[str, Any]], ...] = (
        (False, {"bounded": True}), (False, {"optimizer": "lstsq"}), (True, {"optimizer": "lstsq"})
    )  # fmt: skip
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
        apart = [float(np.abs(other - ours.atomic_percent[0]).max()) for other in compared]
        name = " ".join(f"{e} {share:.1f}" for e, share in zip(ours.elements, compared[0], strict=True))
        rows.append(f"{name:26}" + "".join(f"{a:11.2f}" for a in apart) + f"{ours.sigma[0].max():14.2f}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=2601)
    parser.add_argument("--bounded", type=int, default=2, help="chips fitted by multifit(bounded=True)")
    parser.add_argument("--lstsq", type=int, default=130, help="chips fitted by multifit(optimizer='lstsq')")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # exspy says of every line that it lies outside somewhere
    rng = np.random.default_rng(asked.seed)
    families = choose_lines((), AXIS, BEAM_KV, GRAPHEM_LINES)
    means = np.array([expected_spectrum(families, STRAYS | phase) for phase in PHASES])
    spectra = rng.poisson(COUNTS * means[rng.integers(len(PHASES), size=asked.chips)]).astype(np.uint16)

    def operator() -> LineOperator:
        return build_operator(families, AXIS, spectra.mean(0), RESOLUTION_EV, BEAM_KV)

    def took(work: Callable[[], object], runs: int = max(7, asked.runs)) -> float:
        return statistics.median(seconds(work, runs))

    fit(operator(), spectra, nonnegative=True)  # loads what is loaded once
    live = took(lambda: line_intensities(operator(), spectra))
    final = took(lambda: line_intensities(operator(), spectra, nonnegative=True))
    errors = took(lambda: fit(operator(), spectra, nonnegative=True))
    print(
        f"{asked.chips} chips, {AXIS.channels} channels, {len(GRAPHEM_LINES)} lines in {len(families)} families, ",
        end="",
    )
    print(f"{COUNTS:.0f} counts a chip; medians of {asked.runs} runs, of livestem's of {max(7, asked.runs)}\n")
    print(f"livestem live                   {live:9.3f} s\nlivestem final                  {final:9.3f} s")
    print(f"livestem final with covariances {errors:9.3f} s")
    ways: tuple[tuple[str, int, float, dict[str, Any]], ...] = (
        ("multifit(bounded=True)", asked.bounded, final, {"bounded": True}),
        ('multifit(optimizer="lstsq")', asked.lstsq, live, {"optimizer": "lstsq"}),
    )
    for name, chips, ours, how in ways:
        times = []
        for _ in range(asked.runs):
            model = published_model(spectra[:chips], operator(), BEAM_KV)
            times += seconds(partial(published_intensities, model, operator(), **how), 1)
        total = statistics.median(times) / chips * asked.chips
        print(f"{name:31} {total:9.1f} s {total / ours:8.0f}x {'final' if ours == final else 'live'}", end="")
        print(f"   from {chips} chips at {1e3 * total / asked.chips:.1f} ms")
    print("\n" + agreement(rng))


if __name__ == "__main__":
    main()
