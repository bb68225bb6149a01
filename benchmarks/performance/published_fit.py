"""The published way to line intensities and compositions: exspy's model, fitted by HyperSpy chip by chip.

The tests of quantification use it as their oracle, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.stages.kfactors import KFactors
from livestem.stages.quantify import LineOperator


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


def published_percent(found: list[Any], operator: LineOperator, k: KFactors) -> NDArray[np.float64]:
    """Return exspy's Cliff-Lorimer of the named lines, (N, E) atomic percent."""
    import hyperspy.api as hs

    named = [(f, s) for f, s in zip(operator.families, found, strict=True) if not f.nuisance]
    signal = hs.signals.Signal1D(np.zeros((named[0][1].data.size, 8)))
    signal.set_signal_type("EDS_TEM")
    factors = [k.of(f.line) for f, _ in named]
    shares = signal.quantification([s for _, s in named], "CL", factors, navigation_mask=None)
    return np.stack([np.ravel(share.data) for share in shares], axis=1)
