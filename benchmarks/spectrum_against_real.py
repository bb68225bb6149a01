"""A real spectrum of SrTiO3 and the simulated one over one another: positions, widths, background.

Run: ``python benchmarks/spectrum_against_real.py RECORDING [--out spectrum_against_real.png]`` with Velox's
spectra of SrTiO3 (4096 channels of 0.005 keV from -0.25 keV, 200 kV, Super-X at 18 degrees).

The crystal, the beam and the detector are given. Four facts about the recording are measured on it first, as
nobody wrote them down: the thickness (O K is absorbed, Ti K is not), the strays, the continuum's share, and the
zero peak's share and width. Everything else is prediction. Both spectra then hold the same number of counts.

What differs, and why: the recording's axis is 0.2 % short at 14 keV, and exspy has one Sr Ka where there are two;
the humps of its continuum lie where coherent bremsstrahlung of [001] puts them (n * 1.24 keV nm / 0.39 nm * 0.695 /
1.21 = 1.8, 3.6 keV); 2.77 keV is the escape peak of Ti Ka; below 0.3 keV this detector counts less than a clean one;
and its Cu comes from thick parts of the holder, which absorb Cu L.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.scan import EnergyAxis
from livestem.simulator.absorption import absorption_per_nm, mass_density, transmitted
from livestem.simulator.eds import emission
from livestem.simulator.photons import EmissionMap, brightness_of
from livestem.simulator.specimen import Specimen
from livestem.stages.kfactors import atomic_weight, builtin_k_factors
from livestem.stages.lines import choose_lines
from livestem.stages.quantify import build_operator, fit
from livestem.stages.spectrum_model import align, energies_kev

Floats = NDArray[np.float64]
BEAM_KV, TAKE_OFF_DEG = 200.0, 18.0  # as the recording states them
AXIS = EnergyAxis(channels=4096, scale_kev=0.005, offset_kev=-0.25)
CELL_NM = 0.3905  # SrTiO3, cubic, 293 K
ATOMS = {e: n / CELL_NM**3 for e, n in {"Sr": 1, "Ti": 1, "O": 3}.items()}  # per nm^3
STRAYS = "Cu", "Nb", "Al", "Si"  # seen in the recording: grid, dopant, holder
LINES = {"O Ka": 0.525, "Sr La": 1.81, "Ti Ka": 4.51, "Ti Kb": 4.93, "Sr Ka": 14.16}  # keV, where to look
# Continuum without lines, keV
BANDS = (0.2, 0.25), (0.62, 0.66), (1.15, 1.35), (2.4, 2.65), (3, 4), (5.2, 5.8), (6.6, 7.4), (9.2, 13.5), (17, 20)
SIDE = 64  # pixels of the simulated frame; only its sum matters


@dataclass(frozen=True)
class Facts:
    """What is measured on the recording: thickness, nm, resolution and noise, eV, shares, strays in atoms per 100."""

    thickness_nm: float
    resolution_ev: float
    noise_ev: float
    background_share: float
    zero_peak_share: float
    strays: dict[str, float]


def recorded(path: Path) -> Floats:
    """Return the sum of the detector's segments, (C,) counts."""
    import hyperspy.api as hs

    return np.asarray(max(hs.load(path), key=lambda s: s.data.sum()).data, np.float64)


def facts_of(spectrum: Floats) -> Facts:
    """Measure what the recording does not state."""
    energy = energies_kev(AXIS)
    families = choose_lines(("Sr", "Ti", "O", *STRAYS), AXIS, BEAM_KV)
    axis, resolution = align(families, AXIS, spectrum, None, BEAM_KV)
    operator = build_operator(families, axis, spectrum, resolution, BEAM_KV)
    result = fit(operator, spectrum[None])
    k = builtin_k_factors([f.line for f in families], BEAM_KV)
    atoms = {
        f.element: n * k.of(f.line) / atomic_weight(f.element)
        for f, n in zip(families, result.intensities[0], strict=True)
        if not f.nuisance
    }
    continuum = operator.design[:, len(families) :] @ operator.mean_coefficients[len(families) :]
    zero = energy < 0.12
    _, noise = peak(spectrum, 0.0)
    return Facts(
        thickness_nm=_thickness(atoms["O"] / atoms["Ti"] / 3),
        resolution_ev=float(resolution),
        noise_ev=1e3 * noise,
        background_share=float(continuum.sum() / operator.mean_model.sum()),
        zero_peak_share=float(spectrum[zero].sum() / spectrum.sum()),
        strays={e: max(0.0, float(20 * atoms[e] / atoms["Ti"])) for e in STRAYS},  # Ti is 20 of 100 atoms
    )


def simulated(facts: Facts, counts: float, rng: np.random.Generator) -> Floats:
    """Draw a spectrum (C,) of about so many counts from a foil with these facts."""
    specimen = strontium_titanate(facts)
    emitted = emission(specimen, [facts.thickness_nm])
    crossed = np.full((1, 1, 1), facts.thickness_nm)
    per_pixel = counts / SIDE**2
    per_brightness = per_pixel * (1 - facts.zero_peak_share) / float(brightness_of(emitted, crossed)[0, 0])
    window = EmissionMap(emitted, crossed, (0.0, 0.0), 1.0, per_brightness, per_pixel * facts.zero_peak_share)
    _, channels = window.draw(np.zeros(SIDE), np.zeros((SIDE, SIDE)), rng)
    return np.bincount(channels, minlength=AXIS.channels).astype(np.float64)


def strontium_titanate(facts: Facts) -> Specimen:
    """Return a foil of SrTiO3 under the recording's conditions."""
    sites = [
        {"at": (0.0, 0.0), "atoms": {"Sr": 1}},
        {"at": (0.5, 0.5), "atoms": {"Ti": 1, "O": 1}},
        {"at": (0.5, 0.0), "atoms": {"O": 1}},
        {"at": (0.0, 0.5), "atoms": {"O": 1}},
    ]
    crystal = {"type": "crystal", "cell_nm": (CELL_NM, CELL_NM), "period_nm": CELL_NM, "thermal_nm": 0.008}
    detector = {
        "channels": AXIS.channels,
        "scale_kev": AXIS.scale_kev,
        "offset_kev": AXIS.offset_kev,
        "resolution_mnka_ev": facts.resolution_ev,
        "noise_ev": facts.noise_ev,
        "take_off_deg": TAKE_OFF_DEG,
        "counts_per_pixel": 1.0,
        "background_share": facts.background_share,
    }
    content = {
        "name": "sto",
        "title": "SrTiO3",
        "thickness_nm": facts.thickness_nm,
        "field_nm": (8.0, 8.0),
        "beam": {  # of the recording; only the energy matters to X-rays
            "energy_kv": BEAM_KV,
            "current_pa": 320.0,
            "convergence_mrad": 30.0,
            "collection_mrad": (50.0, 200.0),
            "source_nm": 0.07,
        },
        "scan": {"shape": (SIDE, SIDE), "dwell_s": 2e-6},
        "haadf": {"gain": 1.0, "offset": 0.0, "read_noise": 0.0},
        "eds": detector,
        "layer": [{"material": "STO"}],
        "material": [{"name": "STO", "title": "SrTiO3", "structure": {**crystal, "sites": sites}}],
        "strays": facts.strays,
    }
    return msgspec.convert(content, Specimen)


def peak(spectrum: Floats, near_kev: float) -> tuple[float, float]:
    """Return position and FWHM of a peak, keV: a parabola through the logarithm of its upper 40 %."""
    energy = energies_kev(AXIS)
    smooth = np.convolve(spectrum, np.ones(5) / 5, "same")
    around = np.flatnonzero(np.abs(energy - near_kev) < 0.06)
    top = int(around[smooth[around].argmax()])
    low = smooth < 0.6 * smooth[top]
    first, last = top - int(low[top::-1].argmax()) + 1, top + int(low[top:].argmax())
    x, counts = energy[first:last] - energy[top], spectrum[first:last].clip(1)
    curve, slope, _ = np.polyfit(x, np.log(counts), 2, w=np.sqrt(counts))
    return float(energy[top] - slope / (2 * curve)), float(np.sqrt(-4 * np.log(2) / curve))


def table(real: Floats, drawn: Floats) -> str:
    """Return positions, widths and the continuum of both spectra as text."""
    rows = ["line    real keV  simulated   d eV   real FWHM eV  simulated   ratio"]
    for name, near in LINES.items():
        (x, width), (other, other_width) = peak(real, near), peak(drawn, near)
        rows.append(
            f"{name:6} {x:9.4f} {other:10.4f} {1e3 * (other - x):6.1f}"
            f" {1e3 * width:14.1f} {1e3 * other_width:10.1f} {other_width / width:7.3f}"
        )
    rows += ["", "continuum, keV      real  simulated  ratio"]
    energy = energies_kev(AXIS)
    for low, high in BANDS:
        inside = (energy >= low) & (energy < high)
        n, m = real[inside].sum(), drawn[inside].sum()
        rows.append(
            f"{low:5.2f} .. {high:5.2f} {n:11.0f} {m:10.0f} {m / n:6.2f} +- {np.sqrt(1 / n + 1 / m) * m / n:.2f}"
        )
    return "\n".join(rows)


def draw_picture(real: Floats, drawn: Floats, facts: Facts, out: Path) -> None:
    """Write a picture of both spectra, logarithmic, whole and its soft part."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    energy = energies_kev(AXIS)
    figure, panels = plt.subplots(2, 1, figsize=(12, 10), layout="constrained")
    for panel, (low, high), channels in zip(panels, ((-0.15, 5.5), (-0.25, 20.2)), (2, 6), strict=True):
        for counts, colour, name in ((real, "black", "recorded"), (drawn, "tab:red", "simulated")):
            bins = counts[: len(counts) // channels * channels].reshape(-1, channels).sum(1)
            centres = energy[: len(bins) * channels].reshape(-1, channels).mean(1)
            panel.step(centres, bins.clip(0.5), where="mid", color=colour, lw=0.8, label=name)
        panel.set(xlim=(low, high), yscale="log", ylabel=f"counts per {5 * channels} eV", xlabel="energy, keV")
        for name, x in LINES.items():
            if low < x < high:
                panel.text(x, panel.get_ylim()[1], name, ha="center", va="bottom", fontsize=8)
    panels[0].legend()
    figure.suptitle(
        f"SrTiO3, {BEAM_KV:g} kV, Super-X: {real.sum():.0f} counts each; foil of {facts.thickness_nm:.0f} nm from O K"
    )
    figure.savefig(out, dpi=100)


def _thickness(oxygen_left: float) -> float:
    """Thickness at which this share of O K, beside Ti K, leaves the foil, nm."""
    oxygen, titanium = absorption_per_nm(mass_density(ATOMS), [LINES["O Ka"], LINES["Ti Ka"]], TAKE_OFF_DEG)
    thickness = np.arange(1.0, 1000.0)
    share = transmitted(oxygen * thickness) / transmitted(titanium * thickness)
    return float(np.interp(-oxygen_left, -share, thickness))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, help="velox_sto_spectra.emd")
    parser.add_argument("--out", type=Path, default=Path("spectrum_against_real.png"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    real = recorded(asked.recording)
    facts = facts_of(real)
    drawn = simulated(facts, real.sum(), np.random.default_rng(asked.seed))
    print(f"measured on the recording: {facts}\n")
    print(table(real, drawn))
    draw_picture(real, drawn, facts, asked.out)
    print(f"\npicture: {asked.out}")


if __name__ == "__main__":
    main()
