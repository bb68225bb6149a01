"""One picture of one scan: the HAADF image and any number of label maps, side by side, to scale.

A class has one colour in all maps (the rules are in ``map_colours``). A chip without data is grey and
hatched: never a colour, never a zero. matplotlib is loaded when a picture is drawn, on a canvas of its own:
no window, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.runtime.map_colours import Colour, MapPanel, match_colours

__all__ = ["MapPanel", "bar_length_nm", "draw_overview"]

_NO_DATA_FACE, _NO_DATA_HATCH = "#D9D9D9", "#8C8C8C"
_PER_ROW = 4  # panels: more would be too small to read on a page
_PANEL_IN = 3.4  # inches: 20 chips are then 4 mm each
_LEGEND_LINE_IN = 0.19  # height of one legend line at 9 pt
_LEGEND_LINES = 6  # longest legend; the rest is counted in its last line
_GREY_PERCENTILES = (0.5, 98.0)  # black and white: hot pixels and column centres do not darken the rest
_BAR_SHARE = 0.28  # a scale bar is at most this share of the field's width
_DPI = 150


def draw_overview(
    haadf: NDArray[np.generic] | None,
    pixel_nm: float | None,
    panels: Sequence[MapPanel],
    path: str | Path,
    title: str,
    *,
    chip_nm: float | None = None,
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
    drawn = len(panels) + (haadf is not None)
    figure = _figure(drawn, title, _legend_lines(panels))
    axes = [figure.add_subplot(math.ceil(drawn / _PER_ROW), min(drawn, _PER_ROW), i + 1) for i in range(drawn)]
    extent_nm = _extent_nm(haadf, pixel_nm, panels, chip_nm)
    if haadf is not None:
        _draw_image(axes[0], haadf)
    for axis, panel, palette in zip(axes[drawn - len(panels) :], panels, colours, strict=True):
        _draw_map(axis, panel, palette)
        if haadf is not None and chip_nm and pixel_nm:  # same scale as the image, its dropped rim left white
            axis.set_xlim(-0.5, haadf.shape[1] * pixel_nm / chip_nm - 0.5)
            axis.set_ylim(haadf.shape[0] * pixel_nm / chip_nm - 0.5, -0.5)
    if extent_nm is not None:
        _draw_bar(axes[0], extent_nm)
    return _write(figure, Path(path))


def _figure(drawn: int, title: str, legend_lines: int) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError('the picture needs matplotlib; run: pip install "livestem[service]"') from None
    rows, cols = math.ceil(drawn / _PER_ROW), min(drawn, _PER_ROW)
    row = _PANEL_IN + 0.4 + _LEGEND_LINE_IN * (legend_lines + 1)  # panel, its title, its legend with a rim
    height = rows * row + 0.35  # and the headline
    figure = Figure(figsize=(cols * (_PANEL_IN + 0.15) + 0.1, height), layout="constrained")
    FigureCanvasAgg(figure)  # a canvas of its own: no window, no global state of pyplot
    figure.suptitle(title, fontsize=14, fontweight="bold")
    return figure


def _draw_image(axis: Any, image: NDArray[np.generic]) -> None:
    values = np.asarray(image, np.float64)
    finite = np.isfinite(values)
    low, high = np.percentile(values[finite], _GREY_PERCENTILES) if finite.any() else (0.0, 1.0)
    grey = np.clip((np.where(finite, values, low) - low) / max(high - low, np.finfo(float).tiny), 0, 1)
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
        Patch(facecolor=palette[v], edgecolor="black", linewidth=0.5, label=panel.name(v)) for v in shown
    ]
    if more:
        handles.append(Patch(facecolor="none", label=f"and {more} more"))
    if panel.is_partial:
        handles.append(_no_data_patch((1, 1)))
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
    axis.set_title(title, fontsize=11)
    axis.set_xticks([])
    axis.set_yticks([])
    if partial is not None:
        axis.add_patch(_no_data_patch(partial))


def _no_data_patch(shape: tuple[int, ...]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (-0.5, -0.5),
        shape[1],
        shape[0],
        facecolor=_NO_DATA_FACE,
        edgecolor=_NO_DATA_HATCH,
        hatch="////",
        linewidth=0,
        zorder=0,
        label="no data",
    )


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


def _draw_bar(axis: Any, width_nm: float) -> None:
    """Draw a scale bar of a round length at the lower left, white on black: it shows on any ground."""
    length = bar_length_nm(width_nm)
    share, left, bottom = length / width_nm, 0.05, 0.05
    text = f"{length:g} nm" if length < 1000 else f"{length / 1000:g} µm"
    box = {"facecolor": "black", "alpha": 0.65, "edgecolor": "none", "pad": 2.5}
    for colour, width, order in (("black", 7.0, 2), ("white", 4.0, 3)):
        axis.plot(
            [left, left + share],
            [bottom, bottom],
            transform=axis.transAxes,
            color=colour,
            linewidth=width,
            solid_capstyle="butt",
            zorder=order,
        )
    axis.text(
        left + share / 2,
        bottom + 0.035,
        text,
        transform=axis.transAxes,
        color="white",
        fontsize=10,
        ha="center",
        va="bottom",
        bbox=box,
        zorder=3,
    )


def bar_length_nm(width_nm: float) -> float:
    """Return the longest 1, 2 or 5 times a power of ten that is at most 28 % of `width_nm`, nm."""
    limit = _BAR_SHARE * width_nm
    power = 10.0 ** math.floor(math.log10(limit))
    return max(step * power for step in (1, 2, 5) if step * power <= limit)


def _write(figure: Any, path: Path) -> Path:
    try:
        # Without the program's version in it, equal results give equal files.
        figure.savefig(path, dpi=_DPI, format="png", metadata={"Software": None})
    except OSError as error:
        raise UsageError(f"cannot write the picture {path}: {error.strerror}") from None
    return path
