"""Pictures of specimens beside their truth, and the power spectrum of every class with its lattice marked.

Run: ``python benchmarks/specimen_pictures.py [NAME or FILE.toml ...] [--frames 10] [--seed 0] [--out .]``; with
``--overview FILE`` one picture of all instead, images over classes, as the documentation has it.

One PNG for each specimen. Above: HAADF of the first frame, HAADF of all frames, each moved back by the truth's drift in
whole pixels, and the true classes. Below, for each class, the largest square that it fills and the square's power
spectrum (Hann window, in decades above the median), with what the specimen's file leads one to expect: circles where a
crystal's reciprocal lattice has points, the innermost labelled with their spacings, nm; rings at the spacings of a
polycrystal's zones; for amorphous matter a dashed ring at the first maximum of its structure factor, from the places of
the packed atoms and not from the image. Nothing that is drawn over a spectrum has been fitted to it.

A person who writes a specimen sees here whether it is what was meant.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from livestem.runtime.map_colours import Colour, MapPanel, match_colours
from livestem.runtime.picture import bar_length_nm
from livestem.simulator import Simulation, load_specimen
from livestem.simulator.instrument import ProbeBeam
from livestem.simulator.kernels import cross_section_nm2
from livestem.simulator.materials import Amorphous, Crystal, Material
from livestem.simulator.packing import stated_block
from livestem.stages.region_haadf import largest_square
from livestem.stages.spectrum2d import spectrum_of

Floats = NDArray[np.float64]
SAMPLES = "pristine-0dpa", "pristine-0.1dpa", "defective-0dpa", "defective-0.1dpa"
GREY = 0.5, 99.5  # percentiles that are black and white
BAND = 1.0, 8.0  # 1/nm: 1 nm is more than any cell, 0.125 nm the finest that the probe resolves
DECADES = 3.5  # of a spectrum, above its median
FAINT = 0.01  # of the strongest point: fainter lattice points are not marked
LABELLED = 4  # spacings; more would hide what they mark
LEAST_PX = 24  # a side of a square: below, there is no spectrum to see
MOST_SQUARES = 3  # pairs of square and spectrum in a row


def mean_of(scan: Simulation) -> Floats:
    """Return the mean of all frames (H, W) where the first saw the field; what no frame saw is the median."""
    total, visits = np.zeros(scan.shape), np.zeros(scan.shape)
    for number, drift in enumerate(scan.truth.facts.drift_nm):
        moves = [round(d / scan.raster.pixel_nm) for d in drift]
        to = tuple(slice(max(0, m), n + min(0, m)) for m, n in zip(moves, scan.shape, strict=True))
        at = tuple(slice(max(0, -m), n - max(0, m)) for m, n in zip(moves, scan.shape, strict=True))
        total[to] += _haadf(scan, number)[at]
        visits[to] += 1
    seen = visits > 0
    total[seen] /= visits[seen]
    total[~seen] = np.median(total[seen])
    return total


def _haadf(scan: Simulation, number: int) -> NDArray[np.uint16]:
    haadf = scan.frame(number).haadf
    assert haadf is not None  # the scan measures nothing else
    return haadf


def lattice_points(crystal: Crystal, turn_deg: float, beam: ProbeBeam) -> list[tuple[float, float]]:
    """Return the points (x, y), 1/nm, of a crystal's reciprocal lattice that its columns' intensities do not cancel."""
    (a, b), reach, turn = crystal.cell_nm, BAND[1], math.radians(turn_deg)
    mass = [sum(n * cross_section_nm2(e, beam) for e, n in site.atoms.items()) for site in crystal.sites]
    high, wide = math.ceil(a * reach), math.ceil(b * reach)
    found = []
    for h, k in itertools.product(range(-high, high + 1), range(-wide, wide + 1)):
        phases = [np.exp(2j * np.pi * (h * site.at[0] + k * site.at[1])) for site in crystal.sites]
        share = abs(np.dot(mass, phases) / sum(mass)) ** 2
        x, y = h / a, k / b
        if BAND[0] <= math.hypot(x, y) <= reach and share > FAINT:
            found.append((x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)))
    return found


def first_ring(matter: Amorphous, seed: int, beam: ProbeBeam) -> float:
    """Return where the structure factor of a packing, atoms weighted as they scatter, is largest, 1/nm."""
    block = stated_block(matter, seed, 0)
    weight = np.array([cross_section_nm2(e, beam) for e in block.elements])[block.kind]
    bins = round(block.side_nm / 0.02)
    edges = np.linspace(0, block.side_nm, bins + 1)
    density = np.histogram2d(block.place[:, 0], block.place[:, 1], bins=[edges, edges], weights=weight)[0]
    power = np.abs(np.fft.fft2(density)) ** 2
    step = 1 / block.side_nm
    f = np.fft.fftfreq(bins) * bins * step
    ring = np.rint(np.hypot(f[:, None], f) / (2 * step)).astype(int).ravel()  # twice the block's own step: less noise
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring)
    q = np.arange(mean.size) * 2 * step
    inside = (q >= BAND[0]) & (q <= BAND[1])
    return float(q[inside][mean[inside].argmax()])


def draw(scan: Simulation, path: Path) -> None:
    """Write the picture of a scan."""
    truth, pixel = scan.truth, scan.raster.pixel_nm
    image = mean_of(scan)
    panel = MapPanel(title="", labels=truth.class_of_pixel.astype(np.int16), names=truth.names)
    colours = match_colours([panel])[0]
    shown = [(k, *largest_square(truth.class_of_pixel == k)) for k in colours]
    rows = 1 + math.ceil(len(shown) / MOST_SQUARES)
    figure = Figure(figsize=(18, 6 + 3.4 * (rows - 1)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 2 * MOST_SQUARES, height_ratios=[6] + [3.2] * (rows - 1))
    maps = [figure.add_subplot(grid[0, 2 * i : 2 * i + 2]) for i in range(3)]
    _image(maps[0], _haadf(scan, 0), pixel, "HAADF, first frame")
    _image(maps[1], image, pixel, f"HAADF, mean of {scan.frames} frames")
    _classes(maps[2], panel, colours)
    for place, (k, top, left, side) in enumerate(shown):
        row, col = divmod(place, MOST_SQUARES)
        patch, power = (figure.add_subplot(grid[1 + row, 2 * col + i]) for i in range(2))
        corner, colour = (left * pixel, top * pixel), colours[k]
        maps[1].add_patch(Rectangle(corner, side * pixel, side * pixel, fill=False, edgecolor=colour, linewidth=1.5))
        square = image[top : top + side, left : left + side]
        _image(patch, square, pixel, f"{truth.names[k]}: {side * pixel:.1f} nm")
        for spine in patch.spines.values():
            spine.set(edgecolor=colour, linewidth=3)
        _spectrum(power, square, scan, scan.specimen.classes[k])
    specimen = scan.specimen
    figure.suptitle(
        f"{specimen.title}: seed {scan.seed}, foil {specimen.thickness_nm:g} nm, pixel {1e3 * pixel:.1f} pm"
    )
    figure.savefig(path, dpi=110)


def overview(scans: list[Simulation], path: Path) -> None:
    """Write one picture of several scans: the mean image of each over its classes."""
    figure = Figure(figsize=(4 * len(scans), 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(scans), squeeze=False)
    for (above, below), scan in zip(axes.T, scans, strict=True):
        panel = MapPanel(title="", labels=scan.truth.class_of_pixel.astype(np.int16), names=scan.truth.names)
        _image(above, mean_of(scan), scan.raster.pixel_nm, scan.specimen.name)
        _classes(below, panel, match_colours([panel])[0])
    figure.savefig(path, dpi=50)


def _image(axis: Any, image: NDArray[Any], pixel_nm: float, title: str) -> None:
    low, high = np.percentile(image, GREY)
    height, width = (n * pixel_nm for n in image.shape)
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, extent=(0, width, height, 0), interpolation="nearest")
    bar = bar_length_nm(width)
    axis.plot([0.05 * width, 0.05 * width + bar], [0.95 * height] * 2, color="black", linewidth=6)
    axis.plot([0.05 * width, 0.05 * width + bar], [0.95 * height] * 2, color="white", linewidth=3.5)
    box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}
    axis.text(0.05 * width, 0.92 * height, f"{bar:g} nm", color="white", fontsize=9, va="bottom", bbox=box)
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))  # the bar must not widen the picture
    axis.set_title(title, fontsize=11)


def _classes(axis: Any, panel: MapPanel, colours: dict[int, Colour]) -> None:
    picture = np.ones((*panel.labels.shape, 3))
    for k, colour in colours.items():
        picture[panel.labels == k] = colour
        share = (panel.labels == k).mean()
        axis.plot([], [], "s", color=colour, label=f"{panel.name(k)}  {share:.0%}")
    axis.imshow(picture, interpolation="nearest")
    axis.legend(loc="lower right", fontsize=9)
    axis.set(xticks=[], yticks=[])
    axis.set_title("truth", fontsize=11)


def _spectrum(axis: Any, square: Floats, scan: Simulation, material: Material) -> None:
    """Draw a square's power spectrum and mark what its material should show."""
    axis.set(xlim=(-BAND[1], BAND[1]), ylim=(BAND[1], -BAND[1]), aspect="equal", xticks=[], yticks=[])
    if len(square) < LEAST_PX:
        axis.text(0, 0, "too small", ha="center")
        return
    spectrum = spectrum_of(square, scan.raster.pixel_nm, BAND)
    level = np.log10(spectrum.power / np.median(spectrum.power[spectrum.searched]))
    f, half = spectrum.frequency, spectrum.cell / 2
    extent = (f[0] - half, f[-1] + half, f[-1] + half, f[0] - half)
    axis.imshow(level, cmap="magma", vmin=0, vmax=DECADES, extent=extent, interpolation="nearest")
    axis.set_facecolor("black")
    structure, beam = material.structure, scan.specimen.beam
    title = "amorphous"
    if isinstance(structure, Crystal):
        _mark_lattice(axis, lattice_points(structure, scan.specimen.rotation_deg + structure.turn_deg, beam))
        title = "cell {:.4f} x {:.4f} nm".format(*structure.cell_nm)
    elif isinstance(structure, Amorphous):
        _mark_ring(axis, first_ring(structure, scan.seed, beam), "--")
    else:
        lengths = {round(math.hypot(*g), 2) for zone in structure.zones for g in lattice_points(zone, 0.0, beam)}
        for q in sorted(lengths)[:LABELLED]:
            _mark_ring(axis, q, ":")
        title = f"grains of {structure.grain_nm:g} nm"
    axis.set_title(f"{title}; edge {BAND[1]:g} /nm", fontsize=10)


def _mark_lattice(axis: Any, points: list[tuple[float, float]]) -> None:
    for x, y in points:
        axis.add_patch(Circle((x, y), 0.35, fill=False, edgecolor="cyan", linewidth=0.7))
    half = [(x, y) for x, y in points if x > 1e-6 or (abs(x) <= 1e-6 and y > 0)]
    for x, y in sorted(half, key=lambda g: math.hypot(*g))[:LABELLED]:
        axis.text(x + 0.4, y, f"{1 / math.hypot(x, y):.3f}", color="white", fontsize=7, va="center", clip_on=True)


def _mark_ring(axis: Any, q: float, style: str) -> None:
    axis.add_patch(Circle((0, 0), q, fill=False, edgecolor="cyan", linewidth=0.7, linestyle=style))
    axis.text(0, -q, f"{1 / q:.3f}", color="white", fontsize=7, ha="center", va="bottom", clip_on=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", nargs="*", default=SAMPLES, help="specimens by name, or their TOML files")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(), help="folder, made if it is not there")
    parser.add_argument("--overview", type=Path, metavar="FILE", help="one picture of all")
    asked = parser.parse_args()
    specimens = [load_specimen(sample) for sample in asked.samples]
    scans = [Simulation(specimen, asked.seed, asked.frames, modalities=("haadf",)) for specimen in specimens]
    if asked.overview is not None:
        overview(scans, asked.overview)
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    for scan in scans:
        path = asked.out / f"{scan.specimen.name}.png"
        draw(scan, path)
        print(path, flush=True)


if __name__ == "__main__":
    main()
