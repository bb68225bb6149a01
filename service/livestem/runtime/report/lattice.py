"""The lattice of a scan's regions: the largest square of each, and its power spectrum with the lattice peaks marked.

Rules
-----
* The squares and the spectra are those that the result's numbers were measured from.
* A significant peak and its mirror have a circle each, drawn through where the region's basis indexes them, broken
  where not. Every peak's spacing is written once, at one of the two.
* All spectra of a figure have one scale; grey is the logarithm of the power.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.regions import LONGEST_D_NM, SHORTEST_D_NM, Region
from livestem.runtime.drawing import draw_bar, grey_levels, new_figure, one_line
from livestem.runtime.map_colours import Legend
from livestem.runtime.report.composition import region_name
from livestem.runtime.report.maps import PAGE_IN
from livestem.runtime.report.numbers import measured
from livestem.runtime.report.scan import Scan, map_title
from livestem.stages.lattice_basis import basis_of, fitted, halves
from livestem.stages.region_haadf import HaadfChips, largest_square
from livestem.stages.spacing import MAX_PIXEL_NM, MIN_SIDE_NM
from livestem.stages.spectrum2d import spectrum_of

_MOST_REGIONS = 5  # of a map, the largest with a square: five beside each other are 3.5 cm each in print
_TEXT_PT = 7.0
_MARK = "#E69F00"  # Okabe and Ito's orange: seen on grey by everybody
_WRITTEN = 4  # spacings in a spectrum, of the strongest peaks; the table has the one that counts
_APART = (0.32, 0.2)  # of the half width: texts nearer than that would overlap
_RIM = 1.35  # shown beyond the outermost peak, so that its circle and text have room
_LEAST_1_NM = 5.0  # 1/nm shown at least: where {110} and {200} of a perovskite would be
_RANGE = (20.0, 99.9)  # percentiles of the spectrum's logarithm that are black and white
_OFF_NODE, _OFF_NODE_CELLS = 0.15, 0.5  # 1/nm, or cells of the spectrum if more, that a peak may lie off its node


@dataclass(frozen=True)
class Square:
    """A region and the (n, n) pixels of its largest square."""

    region: Region
    patch: NDArray[np.float64]


def draw_lattices(scan: Scan, legend: Legend) -> dict[str, Any]:
    """Return a figure for each method whose main map has regions with a square; nothing where no lattice can be seen.

    Returns
    -------
    dict of map name to figure
    """
    if scan.image is None or scan.pixel_nm is None or scan.pixel_nm > MAX_PIXEL_NM:
        return {}
    chips = HaadfChips.of(scan.image, None, scan.saved.grid)
    found = {}
    for name in scan.main_maps.values():
        squares = _squares(scan, name, chips)
        if squares:
            found[name] = _draw(scan, legend, name, squares)
    return found


def _squares(scan: Scan, name: str, chips: HaadfChips) -> list[Square]:
    assert scan.pixel_nm is not None
    labels, found = scan.saved.maps[name], []
    for region in scan.regions(name):
        row, col, side = largest_square((labels == region.label) & chips.whole)
        if side * chips.px * scan.pixel_nm >= MIN_SIDE_NM * (1 - 1e-9):
            y, x, n = row * chips.px, col * chips.px, side * chips.px
            found.append(Square(region, chips.image[y : y + n, x : x + n]))
    return found[:_MOST_REGIONS]


def _draw(scan: Scan, legend: Legend, name: str, squares: list[Square]) -> Any:
    assert scan.pixel_nm is not None
    columns = max(len(squares), 3)
    side = PAGE_IN / columns
    figure = new_figure(PAGE_IN, 2 * side + 0.5)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    figure.suptitle(one_line(map_title(name), 60), fontsize=_TEXT_PT + 1, x=0.005, ha="left")
    reach = _reach(squares, scan.pixel_nm)
    for k, square in enumerate(squares):
        place = scan.place(name, square.region.label, legend)
        above = figure.add_subplot(2, columns, k + 1)
        _draw_patch(above, square, scan.pixel_nm, legend.colours[place])
        above.set_title(one_line(region_name(square.region, legend, place), 26), fontsize=_TEXT_PT, pad=3)
        below = figure.add_subplot(2, columns, columns + k + 1)
        _draw_spectrum(below, square, scan.pixel_nm, reach)
        below.set_xlabel(_said(square.region), fontsize=_TEXT_PT - 0.5, labelpad=3)
    return figure


def _reach(squares: list[Square], pixel_nm: float) -> float:
    """Return the highest frequency shown, 1/nm."""
    outermost = max((1 / p.d_nm for s in squares for p in s.region.lattice_peaks), default=0.0)
    return min(max(_RIM * outermost, _LEAST_1_NM), 0.5 / pixel_nm)


def _draw_patch(axis: Any, square: Square, pixel_nm: float, colour: tuple[float, float, float]) -> None:
    grey, _ = grey_levels(square.patch)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2.5)
    draw_bar(axis, len(square.patch) * pixel_nm, points=_TEXT_PT - 1)


def _draw_spectrum(axis: Any, square: Square, pixel_nm: float, reach: float) -> None:
    spectrum = spectrum_of(square.patch, pixel_nm, (1 / LONGEST_D_NM, 1 / SHORTEST_D_NM))
    inside = np.abs(spectrum.frequency) <= reach
    power = np.log10(spectrum.power + np.finfo(float).tiny)[np.ix_(inside, inside)]
    low, high = np.percentile(power, _RANGE)
    first, last = spectrum.frequency[inside][[0, -1]] + np.array([-0.5, 0.5]) * spectrum.cell
    extent, white = (first, last, last, first), max(high, low + 1e-9)
    axis.imshow(power, cmap="gray", vmin=low, vmax=white, extent=extent, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    draw_bar(axis, last - first, unit="nm⁻¹", points=_TEXT_PT - 1)
    _mark(axis, square.region, last, spectrum.cell)


def _mark(axis: Any, region: Region, edge: float, cell: float) -> None:
    """Circle the peaks and their mirrors; write the spacings of the strongest, each at the upper one of the two."""
    from matplotlib.patches import Circle

    written: list[tuple[float, float]] = []
    for peak, indexed in zip(region.lattice_peaks, indexed_peaks(region, cell), strict=True):
        angle = np.radians(peak.angle_deg)  # from fast (right) towards slow (down): the mirror is the upper one
        x, y = -np.cos(angle) / peak.d_nm, -np.sin(angle) / peak.d_nm
        if max(abs(x), abs(y)) > edge:
            continue
        for sign in (1, -1):
            style = "-" if indexed else ":"
            axis.add_patch(Circle((sign * x, sign * y), 0.05 * edge, fill=False, color=_MARK, linewidth=0.9, ls=style))
        free = all(abs(x - u) > _APART[0] * edge or abs(y - v) > _APART[1] * edge for u, v in written)
        if free and len(written) < _WRITTEN:
            written.append((x, y))
            box = {"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 0.6}
            place = {"ha": "center", "va": "bottom", "fontsize": 5.5, "color": _MARK, "bbox": box}
            axis.text(x, y - 0.075 * edge, f"{peak.d_nm:.3f}", **place)


def indexed_peaks(region: Region, cell: float) -> list[bool]:
    """Return which of a region's lattice peaks lie on one basis; none where the region has no spacing.

    Parameters
    ----------
    region : Region
    cell : float
        Of the spectrum that they were found in, 1/nm.
    """
    peaks = region.lattice_peaks
    if region.d_spacing_nm is None or len(peaks) < 2:
        return [False] * len(peaks)
    angle, d = np.radians([p.angle_deg for p in peaks]), np.array([p.d_nm for p in peaks])
    g = np.stack([np.cos(angle), np.sin(angle)], axis=1) / d[:, None]
    sigma, tolerance = np.array([p.sigma_nm for p in peaks]) / d**2, max(_OFF_NODE, _OFF_NODE_CELLS * cell)
    basis = basis_of(g, sigma, tolerance=tolerance, longest_nm=LONGEST_D_NM)
    if basis is None:
        return [False] * len(peaks)
    finer = (fitted(vectors, g, sigma, tolerance) for vectors, _ in halves(basis.vectors))
    spacing = region.d_spacing_nm  # of the basis itself, or of half its cell, whose weak nodes were found later
    best = min([basis, *(b for b in finer if b)], key=lambda b: abs(b.spacings_nm[0] - spacing))
    return [bool(on) for on in best.indexed]


def _said(region: Region) -> str:
    """Return the spacing, or why there is none."""
    if region.d_spacing_nm is None:
        why = region.notes.get("d_spacing_nm", "no spacing").partition(":")[0]
        return one_line(why, 34)
    return f"d = {measured(region.d_spacing_nm, region.d_spacing_sigma_nm)} nm"
