"""The label maps of one scan over its HAADF: a row for each method, a column for each modality, one legend.

A colour is one place everywhere (``map_colours``); the image shows through it. Chips without data are hatched.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.runtime.drawing import draw_bar, grey_levels, new_figure, no_data_patch, one_line
from livestem.runtime.map_colours import OTHERS, Colour, Legend, MapPanel
from livestem.runtime.report.scan import Scan, method_title, modality_title

PAGE_IN = 7.1  # width of a journal's page between its margins
_COLUMNS = 4  # maps beside each other, with the legend: more would be too small to read in print
_TITLE_PT, _TEXT_PT = 8.0, 7.0
_TITLE_IN = 0.18  # height of a map's title
_SHADE = 0.3  # of black or white that the image mixes into a colour: enough to see it, too little for another colour
_DEPTH = 1.5  # standard deviations of the image's texture that mix in all of it
_LINE_IN = 0.155  # height of a line of the legend; its last lines count what finds no room, and name no data
_BELOW_LINES = 6  # of the legend, at most, where it stands below its figure
_PIXELS = 16  # of a chip where there is no image under it


def draw_maps(scan: Scan, legend: Legend) -> dict[str, Any]:
    """Return the figures of all label maps of a scan, by name: one, or two where ensembles find no room in it.

    More than three single modalities or ensembles go on in further rows.
    """
    everything = list(dict.fromkeys(m for found in scan.methods.values() for m in found))
    if len(everything) < _COLUMNS:
        return {"maps": _draw(scan, legend, everything)}
    single, joint = ([m for m in everything if ("+" in m) is way] for way in (False, True))
    parts = {"maps": single, "maps-ensembles": joint}
    return {name: _draw(scan, legend, part) for name, part in parts.items() if part}


def _draw(scan: Scan, legend: Legend, modalities: list[str]) -> Any:
    """Return the figure of the maps of these modalities: the image at the top left, the legend where it leaves room."""
    lines = _lines(scan, modalities)
    columns = 1 + max(map(len, lines))
    below = len(lines) == 1 and scan.image is not None  # one row only: the legend has no room beside it
    side = PAGE_IN / _COLUMNS
    height, width = scan.saved.grid.shape if scan.image is None else scan.image.shape
    tall = min(max(height / width, 0.4), 2.5) * side + _TITLE_IN
    legend_lines = min(_BELOW_LINES, 1 + math.ceil((len(legend.colours) + 2) / columns))
    heights = [tall] * len(lines) + [legend_lines * _LINE_IN] * below
    figure = new_figure(columns * side, sum(heights) + 0.1)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    if scan.image is not None:
        _draw_image(figure.add_subplot(grid[0, 0]), scan)
    first = int(scan.image is not None)
    place = grid[first, :] if below else grid[first:, 0]
    _draw_legend(figure.add_subplot(place), scan, legend, sum(heights[first:]), columns if below else 1)
    for r, cells in enumerate(lines):
        for k, (method, modality) in enumerate(cells):
            index = scan.methods[method].get(modality)
            if index is not None:
                axis = figure.add_subplot(grid[r, 1 + k])
                _draw_map(axis, scan, scan.panels[index], legend.palette(index))
                _entitle(axis, scan.panels[index], method, modality)
    return figure


def _lines(scan: Scan, modalities: list[str]) -> list[list[tuple[str, str]]]:
    """Return which maps stand beside each other: the modalities of a method, or all methods of one modality."""
    if len(modalities) == 1:
        cells = [(method, modalities[0]) for method, found in scan.methods.items() if modalities[0] in found]
        return [cells[i : i + _COLUMNS - 1] for i in range(0, len(cells), _COLUMNS - 1)]
    chunks = [modalities[i : i + _COLUMNS - 1] for i in range(0, len(modalities), _COLUMNS - 1)]
    lines = [[(method, m) for m in chunk] for chunk in chunks for method in scan.methods]
    return [cells for cells in lines if any(modality in scan.methods[method] for method, modality in cells)]


def _entitle(axis: Any, panel: MapPanel, method: str, modality: str) -> None:
    what = one_line(f"{method_title(method)}: {modality_title(modality)}", 40)
    axis.set_title(f"{what} ({len(panel.present)})", fontsize=_TEXT_PT, pad=3)


def _draw_image(axis: Any, scan: Scan) -> None:
    assert scan.image is not None and scan.pixel_nm is not None
    grey, finite = grey_levels(scan.image)
    _bare(axis, scan.image.shape, partial=not finite.all())
    axis.imshow(np.dstack([grey, grey, grey, finite]), interpolation="antialiased", zorder=1)
    axis.set_title("HAADF", fontsize=_TEXT_PT, pad=3)
    draw_bar(axis, scan.image.shape[1] * scan.pixel_nm, points=_TEXT_PT)


def _draw_map(axis: Any, scan: Scan, panel: MapPanel, palette: dict[int, Colour]) -> None:
    rgba = overlay(scan, panel, palette)
    _bare(axis, rgba.shape[:2], partial=panel.is_partial)
    axis.imshow(rgba, interpolation="antialiased", zorder=1)
    pixel = scan.pixel_nm if scan.image is not None else scan.saved.grid.chip_nm / _PIXELS
    assert pixel is not None
    draw_bar(axis, rgba.shape[1] * pixel, points=_TEXT_PT - 1)


def overlay(scan: Scan, panel: MapPanel, palette: dict[int, Colour]) -> NDArray[np.float64]:
    """Return the map over the image, (H, W, 4) in the image's pixels; transparent where a chip has no data."""
    grid = scan.saved.grid
    chips = np.zeros((*panel.labels.shape, 4))
    for label, colour in palette.items():
        chips[panel.labels == label] = (*colour, 1.0)
    if scan.image is None or grid.haadf_px is None:
        return np.asarray(np.kron(chips, np.ones((_PIXELS, _PIXELS, 1))), np.float64)
    grey, finite = grey_levels(scan.image)
    out = np.dstack([grey, grey, grey, finite])
    px = grid.haadf_px
    top, left = (origin * px // grid.chip_px for origin in grid.origin)
    area = out[top : top + grid.rows * px, left : left + grid.cols * px]
    whole = np.kron(chips, np.ones((px, px, 1)))
    light = _SHADE * _texture(area[..., 0], px)[..., None]
    area[..., :3] = whole[..., :3] + np.maximum(light, 0) - abs(light) * whole[..., :3]
    area[..., 3] = whole[..., 3]
    return out


def _texture(grey: NDArray[np.float64], px: int) -> NDArray[np.float64]:
    """Return how much lighter than its surroundings each pixel is, -1..1: brightness would turn colours into others."""
    from scipy.ndimage import gaussian_filter

    local = grey - gaussian_filter(grey, px)
    depth = _DEPTH * float(local.std())
    return np.asarray(np.clip(local / depth, -1, 1) if depth else local, np.float64)


def _bare(axis: Any, shape: tuple[int, ...], *, partial: bool) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_linewidth(0.5)
    if partial:
        axis.add_patch(no_data_patch(shape))


def _draw_legend(axis: Any, scan: Scan, legend: Legend, height_in: float, columns: int) -> None:
    """Draw what the colours mean, classes first, the others by size; what finds no room is counted."""
    from matplotlib.patches import Patch

    axis.set_axis_off()
    entries, more = legend_entries(legend, columns * (int(height_in / _LINE_IN) - 1) - 2)
    handles: list[Any] = [_swatch(Patch, colour, text) for colour, text in entries]
    if more:
        handles.append(_swatch(Patch, OTHERS, f"{more} smaller regions"))
    if any(panel.is_partial for panel in scan.panels):
        handles.append(no_data_patch((1, 1)))
    axis.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 1.0),
        fontsize=_TEXT_PT,
        frameon=False,
        handlelength=1.2,
        handleheight=1.0,
        borderaxespad=0.3,
        title="Colours",
        title_fontproperties={"size": _TITLE_PT, "weight": "bold"},
        alignment="left",
        ncols=columns,
    )


def legend_entries(legend: Legend, most: int) -> tuple[list[tuple[Colour, str]], int]:
    """Return colour and name of the places that a legend of `most` lines shows, and how many it leaves out."""
    named = {place: place_name(legend, place) for place in sorted(legend.colours)}
    classes = [place for place in named if legend.names[place]]
    rest = [p for p in sorted(legend.numbers, key=lambda p: legend.numbers[p]) if legend.colours[p] != OTHERS]
    shown = [*classes, *rest][:most]
    return [(legend.colours[place], one_line(named[place])) for place in shown], len(named) - len(shown)


def place_name(legend: Legend, place: int) -> str:
    """Return a class's name, or ``region 1``, ``region 2``, ... of the places that are no class, the largest first."""
    return legend.names[place] or f"region {legend.numbers[place]}"


def _swatch(patch: Any, colour: Colour, text: str) -> Any:
    return patch(facecolor=colour, edgecolor="black", linewidth=0.4, label=text)
