"""The grey range of a survey image, for scans whose chips are to look like it."""

from __future__ import annotations

import numpy as np

from livestem.client.replay import TileSource
from livestem.domain.errors import UsageError
from livestem.domain.tiles import HaadfTile
from livestem.stages.grey import percentile_range


def survey_range(source: TileSource) -> tuple[float, float]:
    """Return the values that become 0 and 255: exact percentiles of a scan's mean HAADF.

    Raises
    ------
    UsageError
        If the scan has no HAADF, or only one value.
    """
    if source.plan.haadf is None:
        raise UsageError("the survey image holds no HAADF; name a file that does")
    total = np.zeros(source.plan.haadf.sampling.shape)
    visits = np.zeros(total.shape)
    for tile in source.tiles():
        if isinstance(tile, HaadfTile):
            height, width = tile.values.shape
            area = np.s_[tile.y : tile.y + height, tile.x : tile.x + width]
            total[area] += tile.values.astype(np.float64)
            visits[area] += 1
    found = percentile_range(total[visits > 0] / visits[visits > 0])
    if found.low == found.high:
        raise UsageError(f"every pixel of the survey image is {found.low:g}; it gives no grey range")
    return found.low, found.high
