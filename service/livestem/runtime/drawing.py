"""What pictures share: a canvas without a window, grey images, hatched holes, scale bars, labels, PNG bytes.

matplotlib is loaded when something is drawn, each figure on a canvas of its own: no window, no global state.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError

NO_DATA_FACE, NO_DATA_HATCH = "#D9D9D9", "#8C8C8C"
_GREY_PERCENTILES = (0.5, 98.0)  # black and white: hot pixels and column centres do not darken the rest
_BAR_SHARE = 0.28  # a scale bar is at most this share of the field's width
_LONGEST_LABEL = 24  # characters of a name in a picture; tables have it in full


def new_figure(width_in: float, height_in: float) -> Any:
    """Return an empty figure, inches.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError('the picture needs matplotlib; run: pip install "livestem[service]"') from None
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)  # a canvas of its own: no window, no global state of pyplot
    return figure


def png(figure: Any, dpi: int) -> bytes:
    """Return a figure as a PNG file: equal figures give equal bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name may be in any script
        figure.savefig(buffer, dpi=dpi, format="png", metadata={"Software": None})
    return buffer.getvalue()


def one_line(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Return free text as one short line that matplotlib does not take for mathematics."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    short = line if len(line) <= longest else f"{line[: longest - 1]}…"
    return short.replace("$", r"\$")


def grey_levels(image: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return an image stretched to 0..1, and where it is finite."""
    values = np.asarray(image, np.float64)
    finite = np.isfinite(values)
    low, high = np.percentile(values[finite], _GREY_PERCENTILES) if finite.any() else (0.0, 1.0)
    span = max(high - low, np.finfo(float).tiny)
    return np.clip((np.where(finite, values, low) - low) / span, 0, 1), finite


def no_data_patch(shape: tuple[int, ...]) -> Any:
    """Return the hatched ground of `shape` (rows, cols) cells that shows through where there are no data."""
    from matplotlib.patches import Rectangle

    return Rectangle(
        (-0.5, -0.5),
        shape[1],
        shape[0],
        facecolor=NO_DATA_FACE,
        edgecolor=NO_DATA_HATCH,
        hatch="////",
        linewidth=0,
        zorder=0,
        label="no data",
    )


def draw_share(axis: Any, share: NDArray[np.floating[Any]], *, points: float = 10.0) -> None:
    """Draw which share of each chip came, 0..1: dark is little, hatched is nothing; the scale stands below.

    Parameters
    ----------
    axis : matplotlib Axes
    share : (rows, cols)
    points : float
        Size of the scale's text.
    """
    if not share.all():
        axis.add_patch(no_data_patch(share.shape))
    there = np.ma.masked_equal(share, 0)
    image = axis.imshow(there, cmap="cividis", vmin=0.0, vmax=1.0, interpolation="nearest", zorder=1)
    below = axis.inset_axes((0.0, -0.08, 1.0, 0.04))  # as a legend stands: panels beside this one stay level with it
    scale = axis.figure.colorbar(image, cax=below, orientation="horizontal")
    scale.set_ticks([0.0, 0.5, 1.0], labels=["0", "half", "all"])
    scale.ax.tick_params(labelsize=points, width=0.5, length=2)
    scale.outline.set_linewidth(0.5)
    axis.set_xticks([])
    axis.set_yticks([])


def bar_length(width: float) -> float:
    """Return the longest 1, 2 or 5 times a power of ten that is at most 28 % of `width`, in its unit."""
    limit = _BAR_SHARE * width
    power = 10.0 ** math.floor(math.log10(limit))
    return max(step * power for step in (1, 2, 5) if step * power <= limit)


def length_text(nm: float) -> str:
    """Return a length for a person: nm, or µm from 1000 nm on, or pm below 0.1 nm."""
    if nm >= 1000:
        return f"{nm / 1000:g} µm"
    return f"{nm:g} nm" if nm >= 0.1 else f"{1000 * nm:g} pm"


def draw_bar(axis: Any, width: float, *, unit: str = "nm", points: float = 10.0) -> None:
    """Draw a scale bar of a round length at the lower left, white on black: it shows on any ground.

    Parameters
    ----------
    axis : matplotlib Axes
    width : float
        What its width stands for.
    unit : str
        ``nm``, which larger and smaller units stand in for, or another that is written as it is.
    points : float
        Size of the text; the bar is as much thinner as it is smaller.
    """
    length = bar_length(width)
    share, left, bottom = length / width, 0.05, 0.05
    text = length_text(length) if unit == "nm" else f"{length:g} {unit}"
    for colour, thickness, order in (("black", 0.7 * points, 2), ("white", 0.4 * points, 3)):
        axis.plot(
            [left, left + share],
            [bottom, bottom],
            transform=axis.transAxes,
            color=colour,
            linewidth=thickness,
            solid_capstyle="butt",
            zorder=order,
        )
    axis.text(
        left + share / 2,
        bottom + 0.035,
        text,
        transform=axis.transAxes,
        color="white",
        fontsize=points,
        ha="center",
        va="bottom",
        bbox={"facecolor": "black", "alpha": 0.65, "edgecolor": "none", "pad": 0.25 * points},
        zorder=3,
    )
