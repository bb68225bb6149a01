"""One picture of one scan: the HAADF image, what is missing, and any number of label maps, side by side, to scale.

A class has one colour in all maps (the rules are in ``map_colours``). A chip without data is grey and
hatched: never a colour, never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.runtime.drawing import draw_bar, draw_share, grey_levels, new_figure, no_data_patch, one_line, png
from livestem.runtime.map_colours import Colour, MapPanel, match_colours

__all__ = ["MapPanel", "draw_overview"]

_PER_ROW = 4  # panels: more would be too small to read on a page
_PANEL_IN = 3.4  # inches: 20 chips are then 4 mm each
_LEGEND_LINE_IN = 0.19  # height of one legend line at 9 pt
_LEGEND_LINES = 6  # longest legend; the rest is counted in its last line
_LONGEST_TITLE = 120  # characters: what fits over four panels
_DPI = 150


def draw_overview(
    haadf: NDArray[np.generic] | None,
    pixel_nm: float | None,
    panels: Sequence[MapPanel],
    path: str | Path,
    title: str,
    *,
    chip_nm: float | None = None,
    coverage: Mapping[str, NDArray[np.floating[Any]]] | None = None,
) -> Path:
    """Draw the HAADF image and label maps into one PNG.

    Parameters
    ----------
    haadf : (H, W) array or None
        Image, any real dtype; values that are not finite are drawn as no data.
    pixel_nm : float or None
        Its pixel, nm; None if unknown: then nothing has a scale.
    panels : sequence of MapPanel
        All over one grid of chips.
    path : str or Path
        PNG to write; its folder must exist.
    title : str
        Headline.
    chip_nm : float, optional
        Side of a chip, nm, from the field's top left corner. Without it the maps fill the image's width.
    coverage : mapping, optional
        Modality -> (rows, cols), which share of each chip came, 0..1; a map in which something is missing is drawn.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    UsageError
        If matplotlib is not installed or the file cannot be written.
    ValueError
        If there is nothing to draw, or the maps lie over different grids.
    """
    if haadf is None and not panels:
        raise ValueError("nothing to draw: neither an image nor a map")
    if len({p.labels.shape for p in panels}) > 1:
        raise ValueError("the maps lie over different grids")
    colours = match_colours(panels)
    missing = {modality: share for modality, share in (coverage or {}).items() if share.min() < 1}
    drawn = len(panels) + len(missing) + (haadf is not None)
    figure = _figure(drawn, title, _legend_lines(panels))
    axes = [figure.add_subplot(math.ceil(drawn / _PER_ROW), min(drawn, _PER_ROW), i + 1) for i in range(drawn)]
    extent_nm = _extent_nm(haadf, pixel_nm, panels, chip_nm)
    if haadf is not None:
        _draw_image(axes[0], haadf)
    for axis, (modality, share) in zip(axes[haadf is not None :], missing.items(), strict=False):
        _frame(axis, f"{modality.upper()} coverage: {share.mean():.1%}", None)
        draw_share(axis, share)
    for axis, panel, palette in zip(axes[drawn - len(panels) :], panels, colours, strict=True):
        _draw_map(axis, panel, palette)
        if haadf is not None and chip_nm and pixel_nm:  # same scale as the image, its dropped rim left white
            axis.set_xlim(-0.5, haadf.shape[1] * pixel_nm / chip_nm - 0.5)
            axis.set_ylim(haadf.shape[0] * pixel_nm / chip_nm - 0.5, -0.5)
    if extent_nm is not None:
        draw_bar(axes[0], extent_nm)
    return _write(figure, Path(path))


def _figure(drawn: int, title: str, legend_lines: int) -> Any:
    rows, cols = math.ceil(drawn / _PER_ROW), min(drawn, _PER_ROW)
    row = _PANEL_IN + 0.4 + _LEGEND_LINE_IN * (legend_lines + 1)  # panel, its title, its legend with a rim
    height = rows * row + 0.35  # and the headline
    figure = new_figure(cols * (_PANEL_IN + 0.15) + 0.1, height)
    figure.suptitle(one_line(title, _LONGEST_TITLE), fontsize=14, fontweight="bold")
    return figure


def _draw_image(axis: Any, image: NDArray[np.generic]) -> None:
    grey, finite = grey_levels(image)
    _frame(axis, "HAADF", image.shape if not finite.all() else None)
    axis.imshow(np.dstack([grey, grey, grey, finite]), interpolation="antialiased", zorder=1)


def _draw_map(axis: Any, panel: MapPanel, palette: dict[int, Colour]) -> None:
    from matplotlib.patches import Patch

    rgba = np.zeros((*panel.labels.shape, 4))
    for label, colour in palette.items():
        rgba[panel.labels == label] = (*colour, 1.0)
    _frame(axis, panel.title, panel.labels.shape if panel.is_partial else None)
    axis.imshow(rgba, interpolation="nearest", zorder=1)
    shown, more = _legend_entries(panel)
    handles: list[Any] = [
        Patch(facecolor=palette[v], edgecolor="black", linewidth=0.5, label=one_line(panel.name(v))) for v in shown
    ]
    if more:
        handles.append(Patch(facecolor="none", label=f"and {more} more"))
    if panel.is_partial:
        handles.append(no_data_patch((1, 1)))
    axis.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncol=2,
        fontsize=9,
        frameon=False,
        handlelength=1.2,
        handleheight=1.0,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def _legend_entries(panel: MapPanel) -> tuple[list[int], int]:
    """Return the labels that the legend shows (if not all fit, the largest) and how many it leaves out."""
    room = 2 * _LEGEND_LINES - panel.is_partial
    if len(panel.present) <= room:
        return list(panel.present), 0
    chips = {v: int(np.count_nonzero(panel.labels == v)) for v in panel.present}
    largest = sorted(chips, key=lambda v: (-chips[v], v))[: room - 1]
    return sorted(largest), len(chips) - len(largest)


def _legend_lines(panels: Sequence[MapPanel]) -> int:
    entries = [_legend_entries(p) for p in panels]
    lengths = [len(shown) + (more > 0) + p.is_partial for p, (shown, more) in zip(panels, entries, strict=True)]
    return math.ceil(max(lengths, default=0) / 2)


def _frame(axis: Any, title: str, partial: tuple[int, ...] | None) -> None:
    """Give a panel its title and, if it has holes (`partial`: its rows, cols), a hatched ground."""
    axis.set_title(one_line(title, _LONGEST_TITLE), fontsize=11)
    axis.set_xticks([])
    axis.set_yticks([])
    if partial is not None:
        axis.add_patch(no_data_patch(partial))


def _extent_nm(
    haadf: NDArray[np.generic] | None,
    pixel_nm: float | None,
    panels: Sequence[MapPanel],
    chip_nm: float | None,
) -> float | None:
    """Width of the first panel, nm; None if unknown."""
    if haadf is not None:
        return haadf.shape[1] * pixel_nm if pixel_nm else None
    return panels[0].labels.shape[1] * chip_nm if chip_nm else None


def _write(figure: Any, path: Path) -> Path:
    try:
        path.write_bytes(png(figure, _DPI))
    except OSError as error:
        raise UsageError(f"cannot write the picture {path}: {error.strerror}") from None
    return path
