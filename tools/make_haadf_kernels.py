"""Compute the kernels of the virtual microscope's HAADF image by multislice; run by hand, result committed.

    pip install abtem==1.0.11 pyfftw scipy           # this script's needs; livestem itself needs none of them
    OMP_NUM_THREADS=1 python tools/make_haadf_kernels.py      # 25 minutes on one core; --quick five

Writes ``simulator/livestem/simulator/haadf_kernels.json``, which `livestem.simulator.kernels` reads. Seeds are
fixed: the same versions give the same file. Crystals stand in `haadf_crystals`, the physics in `haadf_multislice`.

Theory
------
High-angle scattering comes from close to the nucleus, so an atom at R gives sigma |psi(R)|^2 to the detector, with
psi the wave that reaches it [1]_. Averaged over depth and over the columns of one kind this is that column's kernel
against the probe's place: channelling, spreading to the neighbours and thermal motion are in it, and no periodic
picture has to be unmixed. Its shape is fitted with two Gaussians by least squares over the plane, which is least
squares over the picture's frequencies.

How bright it is the detector decides: its picture of the cell is fitted with the kernels of the kinds of columns,
each with one factor, and an even ground. The factors (0.6 to 1.1) hold what the model leaves out: interference
along a column, second scattering, losses beyond the detector. The ground (0 to 7 %) is the far wings of an atom's
own image, and goes to the tails.

A probe in free space depends on thickness only through t alpha^2 / lambda, and its width scales with
lambda / alpha; so one table serves every microscope without aberrations.

References
----------
.. [1] Pennycook and Jesson, Ultramicroscopy 37 (1991) 14.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import abtem
import numpy as np
from haadf_crystals import CRYSTALS, Crystal
from haadf_multislice import (
    COLLECTION_MRAD,
    CONVERGENCE_MRAD,
    ENERGY_KV,
    WAVELENGTH,
    Floats,
    Sums,
    cross_section,
    propagate,
)
from scipy.optimize import least_squares, nnls
from scipy.special import j0

OUTPUT = Path(__file__).parents[1] / "simulator/livestem/simulator/haadf_kernels.json"
THICKNESSES_NM = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0)
RUNS_TO = {100.0: 1, 20.0: 2, 5.0: 8}  # phonon configurations up to each thickness: thin columns have too few atoms
# for a mean; one displaced atom in a layer changes its signal by 25 % (seen), n of them by 25 % / sqrt(n)
MISFIT, SPREAD = 0.05, 0.15  # of the picture, rms, that no kernels explain (seen); of the factors among columns (seen
# between Sr and Ti+O). Together they keep a weak column, such as O beside Sr, from taking up the misfit
ELEMENTS = ("C", "N", "O", "Al", "Si", "Ti", "Cr", "Fe", "Cu", "Ga", "Sr", "La", "Pt", "Au")
DEPTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)  # in lambda / alpha^2;
# the last is 100 nm at 300 kV and 35 mrad


@dataclass(frozen=True)
class Fit:
    """What one thickness gives: kernels of the columns, and how well they rebuild the detector's picture."""

    kernels: dict[str, tuple[float, float, float, float]]  # contrast, core nm, tail share, tail nm
    misfit: float  # rms over the cell of the picture less the kernels, by the picture's rms


def two_gaussians(
    value: Floats, area: Floats, gaussian: Callable[[float], Floats], start: float, largest: float
) -> tuple[float, float, float]:
    """Return core sigma, tail share and tail sigma of the two Gaussians nearest to `value`, which has integral 1.

    `gaussian(sigma)` gives one of integral 1 where `value` is known; `area` weighs the places.
    """

    def miss(parameters: Floats) -> Floats:
        core, share, wider = parameters
        model = (1 - share) * gaussian(core) + share * gaussian(core * wider)
        return (np.sqrt(area) * (model - value) * start).ravel()

    best = least_squares(miss, (start, 0.3, 3.0), bounds=((start / 4, 0, 1.3), (start * 4, 1, largest / start)))
    core, share, wider = best.x
    return float(core), float(share), float(min(core * wider, largest))


def wrapped(offset: Floats, sigma: float, side: tuple[float, float]) -> Floats:
    """Return a Gaussian of integral 1 at `offset` (..., 2), repeated with the supercell."""
    total = np.ones(offset.shape[:-1])
    for axis in (0, 1):
        copies = [np.exp(-(((offset[..., axis] + n * side[axis]) / sigma) ** 2) / 2) for n in (-2, -1, 0, 1, 2)]
        total *= np.sum(copies, axis=0) / (sigma * math.sqrt(2 * math.pi))
    return total


def brightness(columns: Floats, picture: Floats, area: Floats) -> tuple[Floats, float]:
    """Return the factor of each kind of column and the even ground, by which `columns` (P, K) make `picture` (P,)."""
    root = np.sqrt(area)
    common = float(picture @ area / (columns.sum(1) @ area))
    trust = MISFIT * math.sqrt(picture**2 @ area / len(area)) / SPREAD
    kinds = columns.shape[1]
    parts = np.column_stack([columns, np.ones(len(area))]) * root[:, None]
    factor, _ = nnls(
        np.vstack([parts, trust * np.eye(kinds, kinds + 1)]),
        np.concatenate([picture * root, np.full(kinds, trust * common)]),
    )
    return factor[:-1], float(factor[-1] * area.sum() / (picture @ area))


def fit(crystal: Crystal, sums: Sums, share: Floats, sections: dict[str, float]) -> Fit:
    """Turn the sums of one thickness (means over configurations) into kernels; `sections` in angstrom^2."""
    places, area = crystal.wedge()
    kinds = crystal.kinds
    seen = {k: sum(s * sums.at_atoms[e][:, kinds == k] for e, s in sections.items()) for k in crystal.columns}
    single = {k: sum(s * sums.atoms[e][kinds == k].mean() for e, s in sections.items()) for k in crystal.columns}
    factor, ground = brightness(np.column_stack([seen[k].sum(1) for k in seen]), share, area)
    kernels, picture = {}, np.zeros(len(places))
    for k, own in zip(crystal.columns, factor, strict=True):
        of_kind = len(crystal.columns[k])
        integral = float(area @ seen[k].sum(1)) / of_kind
        offset = places[:, None] - crystal.column_places()[kinds == k][None]

        def gaussian(sigma: float, offset: Floats = offset) -> Floats:
            return wrapped(offset, sigma, crystal.side)

        core, tail_share, tail = two_gaussians(
            seen[k] / integral, area[:, None] / of_kind, gaussian, start=0.35, largest=5.0
        )
        contrast = own * integral / single[k] / (1 - ground)
        tail_share = tail_share * (1 - ground) + ground
        kernels[k] = (float(contrast), core / 10, tail_share, tail / 10)
        shape = (1 - tail_share) * gaussian(core) + tail_share * gaussian(tail)
        picture += contrast * single[k] * shape.sum(1)
    return Fit(kernels, float(np.sqrt(area @ (picture - share) ** 2 / (area @ share**2))))


def surface(crystal: Crystal, sections: dict[str, float]) -> Fit:
    """Return the kernels at the entrance: the probe in free space, widened by thermal motion."""
    unit = WAVELENGTH / (CONVERGENCE_MRAD * 1e-3) / 10
    free = free_space((0.0,))
    kernels = {}
    for column, (at, *_) in crystal.columns.items():
        elements = [e for e, x, y, _ in crystal.sites if math.hypot(x - at[0], y - at[1]) < 1e-3]
        squared = [crystal.b_factor[e] / (8 * math.pi**2) / 100 for e in elements]
        thermal = float(np.average(squared, weights=[sections[e] for e in elements]))
        core = math.hypot(free["core"][0] * unit, math.sqrt(thermal))
        kernels[column] = (1.0, core, free["tail_share"][0], free["tail"][0] * unit)
    return Fit(kernels, 0.0)


def free_space(depths: tuple[float, ...]) -> dict[str, list[float]]:
    """Return the kernel of a probe in free space, averaged over depths up to each; lengths in lambda / alpha."""
    angle = (np.arange(1500) + 0.5) / 1500
    radius = np.concatenate([np.arange(0.01, 4, 0.02), np.arange(4.05, 90, 0.1)])  # the cone of depth 64 and more
    area = 2 * np.pi * radius * np.where(radius < 4, 0.02, 0.1)
    waves = j0(2 * np.pi * radius[:, None] * angle) * angle / 1500 * 2 * np.pi / math.sqrt(math.pi)
    step, total, depth = 0.0625, np.zeros(len(radius)), 0.0
    table: dict[str, list[float]] = {"depth": list(depths), "core": [], "tail_share": [], "tail": []}
    for end in depths:
        while depth < end - 1e-9:
            total += np.abs(waves @ np.exp(-1j * math.pi * (depth + step / 2) * angle**2)) ** 2 * step
            depth += step
        mean = total / end if end else np.abs(waves.sum(1)) ** 2
        core, share, tail = two_gaussians(
            mean / (mean @ area), area, lambda s: np.exp(-((radius / s) ** 2) / 2) / (2 * math.pi * s**2), 0.25, 40.0
        )
        for key, value in (("core", core), ("tail_share", share), ("tail", tail)):
            table[key].append(round(value, 5))
    return table


def crystal_table(crystal: Crystal, runs_to: dict[float, int], sections: dict[str, float]) -> dict[str, object]:
    """Return a crystal's kernels by thickness from so many phonon configurations up to each of `runs_to` (nm)."""
    places, area = crystal.wedge()
    runs: dict[float, list[tuple[Sums, Floats]]] = {}
    for seed, end in enumerate(end for end, number in runs_to.items() for _ in range(number)):
        reach = tuple(t for t in THICKNESSES_NM if t <= end)
        for thickness, sums, share in propagate(crystal, places, seed, reach):
            runs.setdefault(round(thickness, 4), []).append((sums, share))
    own = {element: sections[element] * 100 for element in crystal.b_factor}
    means = {thickness: mean(of) for thickness, of in runs.items()}
    fits = [surface(crystal, own), *(fit(crystal, *of, own) for of in means.values())]
    names = ("contrast", "core_nm", "tail_share", "tail_nm")
    return {
        "thickness_nm": [0.0, *means],
        "columns": {
            column: {name: [round(f.kernels[column][i], 5) for f in fits] for i, name in enumerate(names)}
            for column in crystal.columns
        },
        "picture_misfit": [round(f.misfit, 4) for f in fits],
        "mean_share": [0.0, *(round(float(share @ area / area.sum()), 5) for _, share in means.values())],
        "cell_nm": [round(side / 10, 5) for side in crystal.cell],
        "thermal_nm": {e: round(math.sqrt(b / (8 * math.pi**2)) / 10, 5) for e, b in crystal.b_factor.items()},
        "thermal_source": crystal.source,
        "configurations": [0, *(len(of) for of in runs.values())],
    }


def mean(runs: list[tuple[Sums, Floats]]) -> tuple[Sums, Floats]:
    """Return the mean over configurations."""
    at_atoms = {e: np.mean([r.at_atoms[e] for r, _ in runs], axis=0) for e in runs[0][0].at_atoms}
    atoms = {e: np.mean([r.atoms[e] for r, _ in runs], axis=0) for e in runs[0][0].atoms}
    return Sums(at_atoms, atoms), np.mean([share for _, share in runs], axis=0)


def main() -> None:
    """Compute what is asked for and write it into the data file, which keeps its other crystals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crystals", nargs="*", default=list(CRYSTALS), choices=list(CRYSTALS))
    parser.add_argument("--quick", action="store_true", help="one phonon configuration up to 20 nm: a trial")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    sections = {element: cross_section(element) for element in ELEMENTS}
    table = {
        "made_by": f"tools/make_haadf_kernels.py with abTEM {abtem.__version__}",
        "energy_kv": ENERGY_KV,
        "convergence_mrad": CONVERGENCE_MRAD,
        "collection_mrad": COLLECTION_MRAD,
        "potential": "Lobato and Van Dyck, Acta Cryst. A70 (2014) 636",
        "cross_section_nm2": {element: float(f"{value:.5g}") for element, value in sections.items()},
        "free_space": free_space(DEPTHS),
        "crystals": json.loads(asked.output.read_text())["crystals"] if asked.output.exists() else {},
    }
    for name in asked.crystals:
        start = time.process_time()
        table["crystals"][name] = crystal_table(CRYSTALS[name], {20.0: 1} if asked.quick else RUNS_TO, sections)
        asked.output.write_text(json.dumps(table, indent=1) + "\n")
        print(f"{name}: {time.process_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
