"""From detector values to 8-bit grey, which is what a network trained on photographs expects.

Rules
-----
* Which values become 0 and 255 changes the embedding, so the mapping is data: a `GreyRange`, recorded with
  the result (`GreyRange.parameters`) and given again to get the same greys.
* ``grey = floor(255 * (value - low) / (high - low) + 0.5)``, clipped to 0 .. 255, in float64: halves round up
  (not to even), so that every grey but the first and last is equally wide.
* Percentiles are exact and by **nearest rank**: of n finite values sorted upwards, percentile q is the one
  at rank ``max(1, ceil(q / 100 * n))``. No interpolation: the result is a value of the image, equal on
  every machine.
* CLAHE is done to the grey picture, not in its place: `livestem.stages.clahe`.
* Values that are not finite (pixels never visited) take no part in a range and become 0.
"""

from __future__ import annotations

import math
from fractions import Fraction

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError

# 0.1 % at either end: the black and white that a hot pixel or a torn scan line would otherwise set alone,
# and still only 262 of 512 x 512 pixels.
LOW_PERCENTILE = 0.1
HIGH_PERCENTILE = 99.9


class GreyRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The detector values that become black and white, and where they come from.

    Attributes
    ----------
    low, high : detector values (per visit) that become 0 and 255; finite, low <= high
    rule : how they were chosen, in words: ``fixed``, ``survey image``, ``percentiles 0.1 to 99.9, ...``
    """

    low: float
    high: float
    rule: str = "fixed"

    def __post_init__(self) -> None:
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"a grey range needs finite values, got {self.low} to {self.high}")
        if self.low > self.high:
            raise ValueError(f"a grey range runs upwards, got {self.low:g} to {self.high:g}")

    def parameters(self) -> dict[str, float | str]:
        """Return the mapping as plain values for a result's record; ``GreyRange(**...)`` gives it back."""
        return {"low": self.low, "high": self.high, "rule": self.rule}


def percentile_range(
    image: NDArray[np.generic], *, low: float = LOW_PERCENTILE, high: float = HIGH_PERCENTILE
) -> GreyRange:
    """Return the range between two exact percentiles of an image.

    Parameters
    ----------
    image : any shape, any real dtype
        Detector values per visit; values that are not finite are left out.
    low, high : float
        Percentiles, 0 <= low < high <= 100; 0 and 100 are the smallest and largest value.

    Returns
    -------
    GreyRange
        Its `rule` names the percentiles.

    Raises
    ------
    StageError
        If the percentiles are out of order, or no value is finite.
    """
    if not 0 <= low < high <= 100:
        raise StageError(f"grey percentiles must rise within 0 .. 100, got {low:g} and {high:g}")
    values = np.asarray(image, dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        raise StageError("the image holds no finite value, so it has no grey range; wait for data")
    ranks = [nearest_rank(q, values.size) - 1 for q in (low, high)]
    picked = np.partition(values, ranks)[ranks]
    rule = f"percentiles {low:g} to {high:g}, nearest rank"
    return GreyRange(float(picked[0]), float(picked[1]), rule)


def nearest_rank(percentile: float, count: int) -> int:
    """Return the rank, 1 .. count, of a percentile among `count` sorted values.

    The percentile is taken as the decimal it is written as (99.9 is 999/10), and the product is exact: in
    binary arithmetic 99.9 % of 1000 is 999.0000000000001, which would be rank 1000.
    """
    return max(1, math.ceil(Fraction(repr(float(percentile))) * count / 100))


def to_grey(image: NDArray[np.generic], grey_range: GreyRange) -> NDArray[np.uint8]:
    """Map detector values to 0 .. 255.

    Parameters
    ----------
    image : any shape, any real dtype
        Detector values per visit.
    grey_range : GreyRange
        Where ``low == high`` (a constant image), the limit of an ever steeper ramp: 0 up to `low`, 255 above.

    Returns
    -------
    uint8, shape of `image`
        Halves round up; values outside the range are clipped; values that are not finite become 0, except
        +infinity, which is 255.
    """
    values = np.asarray(image, dtype=np.float64)
    span = grey_range.high - grey_range.low
    if span == 0:
        return np.where(values > grey_range.high, 255, 0).astype(np.uint8)
    scaled = np.clip(np.nan_to_num(values, nan=grey_range.low), grey_range.low, grey_range.high)
    scaled -= grey_range.low
    scaled *= 255.0  # before the division, so that whole numbers meet halves exactly
    scaled /= span
    scaled += 0.5
    return np.asarray(np.floor(scaled, out=scaled).astype(np.uint8))
