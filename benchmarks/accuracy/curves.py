"""Accuracy against dose as a picture: few-shot above, clusters below, one column for each sample."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .sweep import Row
from .tables import SHOWN, measure_of, of

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = ("#56B4E9", "#E69F00", "#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#999999")
_STYLES = {"eightfold": "-", "real": "--"}
_INCHES, _DPI = (13.0, 6.6), 90  # four columns that can be read, in well under 200 kB


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the maps of `SHOWN` against photons per pixel.

    Parameters
    ----------
    rows : sequence of Row
    path : Path
        A PNG; its folder is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    samples = list(dict.fromkeys(row.sample for row in rows))
    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(samples), sharex=True, sharey="row", squeeze=False)
    for column, sample in enumerate(samples):
        inside = of(rows, sample=sample)
        for (preset, name), colour in zip(SHOWN, _COLOURS, strict=True):
            axis = axes[0 if name.startswith("fewshot.") else 1, column]
            for series, style in _STYLES.items():
                _curve(axis, [r for r in inside if r.series == series], preset, name, colour, style)
        _ceilings(axes[:, column], inside)
        axes[0, column].set_title(sample)
        axes[1, column].set_xlabel("EDS photons per pixel")
    axes[0, 0].set_ylabel("few-shot: share of chips right")
    axes[1, 0].set_ylabel("clusters: AMI with the truth")
    for axis in axes[:, -1]:
        axis.legend(fontsize=7, loc="lower right")
    figure.suptitle("solid: eightfold frames (hardly any drift); dashed: real frames; dotted: ceiling")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)


def _curve(axis: Any, rows: Sequence[Row], preset: str, name: str, colour: str, style: str) -> None:
    """Draw the mean over seeds, and the band between the lowest and the highest."""
    value, points = measure_of(name), []
    for frames in sorted({row.frames for row in rows}):
        there = [row for row in rows if row.frames == frames and (row.preset, row.map) == (preset, name)]
        known = [v for row in there if (v := value(row)) is not None]
        if known:
            points.append((there[0].photons, statistics.fmean(known), min(known), max(known)))
    if not points:
        return
    photons, mean, low, high = zip(*points, strict=True)
    label = f"{preset} {name}" if style == "-" else None
    axis.plot(photons, mean, style, color=colour, marker="o", markersize=3, linewidth=1.3, label=label)
    axis.fill_between(photons, low, high, color=colour, alpha=0.12, linewidth=0)


def _ceilings(axes: Any, rows: Sequence[Row]) -> None:
    """Draw what a perfect classifier reaches, and the axes' common form."""
    for axis, tops in zip(
        axes,
        (
            [r.score.accuracy.ceiling for r in rows if r.score.accuracy is not None],
            [r.score.ami.ceiling for r in rows],
        ),
        strict=True,
    ):
        known = [t for t in tops if t is not None]
        if known:
            axis.axhline(statistics.fmean(known), color="#666666", linestyle=":", linewidth=1)
        axis.set_xscale("log")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.25)
