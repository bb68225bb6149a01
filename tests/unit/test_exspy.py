"""exspy as oracle: its model fitted with multifit, its line intensities, its Cliff-Lorimer; made and real spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.performance.published_fit import published_intensities, published_model, published_percent
from benchmarks.performance.quantification import BEAM_KV, expected_spectrum

from livestem.domain.scan import EnergyAxis
from livestem.stages.composition import cliff_lorimer
from livestem.stages.kfactors import atomic_weight, builtin_k_factors
from livestem.stages.lines import choose_lines, named_lines
from livestem.stages.quantify import build_operator, fit
from livestem.stages.spectrum_model import align


def compared(spectra, axis, elements, beam, *, weighted=False, **how):
    """Return ours, its sigma and exspy's atomic percent, (N, E) each, and the line intensities of both, (N, L)."""
    families = choose_lines(elements, axis, beam)
    total = spectra.sum(0).astype(np.float64)
    aligned, resolution = align(families, axis, total, None, beam)
    operator = build_operator(families, aligned, total, resolution, beam)
    k = builtin_k_factors(named_lines(families), beam)
    fitted = fit(operator, spectra, nonnegative=True)
    ours = cliff_lorimer(fitted, k)
    model = published_model(spectra, operator, beam, weighted=weighted)
    found = published_intensities(model, operator, **(how or {"bounded": True}))
    theirs = published_percent(found, operator, k)
    lines = fitted.intensities, np.stack([np.ravel(s.data) for s in found], axis=1)
    return ours.atomic_percent, ours.sigma, theirs, lines


@pytest.mark.parametrize("how", [{"bounded": True}, {"optimizer": "lstsq"}], ids=["bounded", "lstsq"])
@pytest.mark.parametrize(
    "weights",
    [
        {"La": 0.572, "Fe": 0.230, "O": 0.198},
        {"Sr": 0.477, "Ti": 0.261, "O": 0.262},
        {"La": 0.50, "Ti": 0.18, "Cr": 0.12, "O": 0.20},  # La Lb1 on Ti Kb, La Lb2 on Cr Ka, Cr L on O K
    ],
    ids=lambda w: "".join(w),
)
def test_a_known_composition_comes_back_from_both(weights, how):
    axis = EnergyAxis(channels=2048, scale_kev=0.01, offset_kev=-0.25)
    mean = expected_spectrum(choose_lines(weights, axis, BEAM_KV), weights, axis)
    spectra = np.random.default_rng(4).poisson(4e5 * mean, (2, axis.channels))
    ours, sigma, theirs, (mine, exspys) = compared(spectra, axis, tuple(weights), BEAM_KV, **how)
    atoms = np.array([w / atomic_weight(e) for e, w in weights.items()])
    assert (np.abs(ours - 100 * atoms / atoms.sum()) < 4 * sigma).all()
    assert (np.abs(ours - theirs) < np.maximum(0.5, sigma)).all()
    named = len(weights)
    np.testing.assert_allclose(mine[:, :named], exspys[:, :named], rtol=0.03)


def sums(recordings: Path, name: str) -> np.ndarray:
    """Return the (1, C) sum of a recording's EDS."""
    import hyperspy.api as hs
    from rsciio.emd import file_reader

    if name == "superx":
        parts = file_reader(recordings / "velox_superx_20frames.emd", sum_frames=True, load_SI_image_stack=False)
        cube = next(p["data"] for p in parts if p["data"].ndim == 3)
        return np.asarray(cube, np.float64).sum((0, 1))[None]
    if name == "silica":
        return np.asarray(hs.load(recordings / "sio2_eds.hspy").data, np.float64).sum((0, 1))[None]
    titanate = max(hs.load(recordings / "velox_sto_spectra.emd"), key=lambda s: s.data.sum())
    return np.asarray(titanate.data, np.float64)[None]


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("name", "axis", "elements"),
    [
        ("titanate", EnergyAxis(channels=4096, scale_kev=0.005, offset_kev=-0.25), ("Sr", "Ti", "O", "Cu", "C")),
        ("silica", EnergyAxis(channels=2048, scale_kev=0.01), ("C", "O", "Si", "Cu")),
        ("superx", EnergyAxis(channels=4096, scale_kev=0.005, offset_kev=-1.0), ("Ni", "Cr", "Fe", "Nb", "Ti", "Al")),
    ],
)
def test_real_spectra_have_one_composition_in_both(recordings, name, axis, elements):
    """With the same weights. exspy's default weights all channels alike, and is 1.9 at.% away in the titanate."""
    spectra = sums(recordings, name)
    ours, sigma, theirs, _ = compared(spectra, axis, elements, 200.0, weighted=True, optimizer="lstsq")
    assert (np.abs(ours - theirs) < np.maximum(0.5, sigma)).all()
