"""What of every chip of a scan came: a map for each modality of which something is missing."""

from __future__ import annotations

from typing import Any

from livestem.runtime.drawing import draw_share, new_figure
from livestem.runtime.report.maps import PAGE_IN
from livestem.runtime.report.scan import Scan, modality_title

_COLUMNS = 4  # as the label maps have, so that chips are as large in both
_SCALE_IN = 0.5  # height of a title and of the scale
_TEXT_PT = 7.0


def draw_coverage(scan: Scan) -> Any | None:
    """Return the figure, or None if every chip is whole, or the result does not say."""
    missing = {modality: share for modality, share in scan.coverage.items() if share.min() < 1}
    if not missing:
        return None
    rows, cols = scan.saved.grid.shape
    side = PAGE_IN / _COLUMNS
    figure = new_figure(len(missing) * side, min(max(rows / cols, 0.4), 2.5) * side + _SCALE_IN)
    for i, (modality, share) in enumerate(missing.items(), 1):
        axis = figure.add_subplot(1, len(missing), i)
        draw_share(axis, share, points=_TEXT_PT)
        axis.set_title(f"{modality_title(modality)}: {share.mean():.1%} received", fontsize=_TEXT_PT, pad=3)
    return figure
