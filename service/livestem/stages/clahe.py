"""CLAHE: contrast that is equalised tile by tile and limited, on 8-bit grey, as OpenCV computes it.

Rules
-----
* A picture is cut into `TILES` x `TILES` tiles. If its sides are not both multiples of that, it is first continued at
  the bottom and right by reflection (without repeating the edge) to the next multiple in *both* directions, a whole
  step of `TILES` pixels in the one that was a multiple already.
* A tile's histogram is cut at ``max(1, floor(CLIP_LIMIT * pixels / 256))``. What was cut off is given back evenly to
  all 256 greys; the rest that does not share out goes to single greys, evenly spaced from 0.
* A tile's table is its cumulated histogram times ``255 / pixels`` in float32, rounded, halves to even.
* A pixel's new grey is the bilinear mean, in float32, of what the tables of the four nearest tile centres say.
* Not OpenCV's, which has no such pixels: those never visited take no part in a histogram (its `pixels` are the visited
  ones), and stay 0. A tile without any visited pixel changes nothing.

Every step is in the order and precision of OpenCV's own code for processors, so that greys are the same, bit for bit.

References
----------
.. [1] K. Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV (1994) 474.
.. [2] OpenCV, ``cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))``, which pyCHIP calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError

CLIP_LIMIT, TILES = 2.0, 8  # pyCHIP's
_GREYS = 256


def equalise(grey: NDArray[np.uint8], visited: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Equalise a picture's contrast.

    Parameters
    ----------
    grey : (H, W) uint8
    visited : (H, W) bool, optional
        Pixels that were measured; without it all.

    Returns
    -------
    (H, W) uint8

    Raises
    ------
    StageError
        If the picture is not (H, W) uint8, or `visited` has another shape.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise StageError(f"CLAHE takes an 8-bit picture, got {grey.shape} {grey.dtype}; map it with grey.to_grey")
    if visited is not None and visited.shape != grey.shape:
        raise StageError(f"a mask of {visited.shape} does not fit a picture of {grey.shape} pixels")
    seen = np.ones(grey.shape, bool) if visited is None else visited
    padding = _padding(grey.shape)
    tables = _tables(np.pad(grey, padding, mode="reflect"), np.pad(seen, padding, mode="reflect"))
    height, width = (side + after for side, (_, after) in zip(grey.shape, padding, strict=True))
    out = _interpolated(grey, tables, height // TILES, width // TILES)
    out[~seen] = 0
    return out


def _padding(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    if not any(side % TILES for side in shape):
        return [(0, 0)] * len(shape)
    return [(0, TILES - side % TILES) for side in shape]


def _tables(grey: NDArray[np.uint8], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the table (TILES, TILES, 256) of every tile, whole numbers 0 .. 255."""
    height, width = (side // TILES for side in grey.shape)
    tables = np.empty((TILES, TILES, _GREYS), np.float32)
    for row, col in np.ndindex(TILES, TILES):
        tile = np.s_[row * height : (row + 1) * height, col * width : (col + 1) * width]
        histogram = np.bincount(grey[tile][seen[tile]], minlength=_GREYS)
        tables[row, col] = _table(histogram) if histogram.any() else np.arange(_GREYS)
    return tables


def _table(histogram: NDArray[np.intp]) -> NDArray[np.float32]:
    pixels = int(histogram.sum())
    limit = max(1, int(CLIP_LIMIT * pixels / _GREYS))
    clipped = np.minimum(histogram, limit)
    share, rest = divmod(pixels - int(clipped.sum()), _GREYS)
    clipped += share
    if rest:
        clipped[:: max(_GREYS // rest, 1)][:rest] += 1
    scale = np.float32(_GREYS - 1) / np.float32(pixels)
    out: NDArray[np.float32] = np.rint(clipped.cumsum().astype(np.float32) * scale)
    return out


def _interpolated(grey: NDArray[np.uint8], tables: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Return the greys that tables of tiles of (height, width) pixels give, interpolated between tile centres."""
    top, bottom, below = _neighbours(grey.shape[0], height)
    left, right, beside = _neighbours(grey.shape[1], width)
    out = np.empty_like(grey)
    one = np.float32(1)
    for y, row in enumerate(grey):  # a row at a time: four tables of every pixel at once would not fit a cache
        upper = tables[top[y], left, row] * (one - beside) + tables[top[y], right, row] * beside
        lower = tables[bottom[y], left, row] * (one - beside) + tables[bottom[y], right, row] * beside
        out[y] = np.rint(upper * (one - below[y]) + lower * below[y])
    return out


def _neighbours(pixels: int, side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return, for every pixel along an axis, the tiles before and after it, and the weight of the one after."""
    place = np.arange(pixels, dtype=np.float32) * (np.float32(1) / np.float32(side)) - np.float32(0.5)
    before = np.floor(place)
    weight = place - before
    first = before.astype(np.intp)
    return np.maximum(first, 0), np.minimum(first + 1, TILES - 1), weight
