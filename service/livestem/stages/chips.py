"""Cut images into the squares that get labels.

Rules
-----
* Chips follow the grid: row-major from its origin, side by side; partial chips at the right and bottom are
  dropped. `chip_px` is the side in pixels of the modality at hand (`grid.haadf_px` or `grid.eds_px`).
* A HAADF value is a mean **per visit**: the sum over frames over the number of visits of that pixel, so
  that a partial frame or a registration shift does not brighten or darken anything.
* A pixel that was never visited is NaN, never zero: zero is a legal detector value. What cuts or describes
  chips lets NaN through or leaves it out, and `coverage` says how much of a chip is real.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.domain.geometry import Grid

Scalar = TypeVar("Scalar", bound=np.generic)


def mean_per_visit(frames_sum: NDArray[Any], exposure: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean detector value of every pixel.

    Parameters
    ----------
    frames_sum : (H, W), any real dtype
        Detector values summed over the visits of each pixel.
    exposure : (H, W), whole numbers
        Visits per pixel, >= 0.

    Returns
    -------
    (H, W) float64
        ``frames_sum / exposure``; NaN where a pixel was never visited.

    Raises
    ------
    StageError
        If the shapes differ or an exposure is negative.
    """
    _check_image(frames_sum)
    if frames_sum.shape != exposure.shape:
        raise StageError(f"image {frames_sum.shape} and exposure {exposure.shape} must have one shape")
    if np.any(exposure < 0):
        raise StageError("exposure counts visits and cannot be negative")
    mean = np.full(frames_sum.shape, np.nan)
    np.divide(frames_sum, exposure, out=mean, where=exposure > 0)
    return mean


def cut(image: NDArray[Scalar], grid: Grid, chip_px: int) -> NDArray[Scalar]:
    """Return the chips of an image.

    Parameters
    ----------
    image : (H, W), any dtype
        One modality's image (or mask).
    grid : Grid
    chip_px : int
        Side of a chip in pixels of `image`, p.

    Returns
    -------
    (rows * cols, p, p), dtype of `image`
        Row-major, C-contiguous; a copy of the covered part, the only one made.

    Raises
    ------
    StageError
        If the image is not two-dimensional, or too small for the grid.
    """
    return np.array(_blocks(image, grid, chip_px), order="C").reshape(grid.chips, chip_px, chip_px)


def windows(
    image: NDArray[Scalar], grid: Grid, chip_px: int, margin_px: int, chips: NDArray[np.intp] | None = None
) -> NDArray[Scalar]:
    """Return the overlapping windows around the chips: each chip with `margin_px` more on every side.

    Beyond the edge of the field the picture is mirrored, its edge pixel included, so that the chip itself
    always lies in the middle of its window; a window reads nothing farther than `margin_px` from its chip.

    Parameters
    ----------
    image : (H, W), any dtype
    grid : Grid
    chip_px : int
        Side of a chip in pixels of `image`, p.
    margin_px : int
        Pixels around the chip, m >= 0. The context of `lattice` is half a chip.
    chips : (K,) int, optional
        Which chips; by default all of them.

    Returns
    -------
    (rows * cols or K, p + 2 m, p + 2 m), dtype of `image`
        Row-major, or in the order of `chips`; C-contiguous.

    Raises
    ------
    StageError
        As `cut`; or if `margin_px` is negative.
    """
    if margin_px < 0:
        raise StageError(f"a window's margin cannot be negative, got {margin_px} px")
    top, left, bottom, right = _extent(image, grid, chip_px)
    side = chip_px + 2 * margin_px
    row, col = np.divmod(np.arange(grid.chips) if chips is None else chips, grid.cols)
    if not row.size:
        return np.zeros((0, side, side), image.dtype)
    # cut the needed part first: pixels beyond it but inside the field still serve as margin
    top, bottom = top + int(row.min()) * chip_px, top + (int(row.max()) + 1) * chip_px
    y0, x0 = max(0, top - margin_px), max(0, left - margin_px)
    y1, x1 = min(image.shape[0], bottom + margin_px), min(image.shape[1], right + margin_px)
    pad = (
        (y0 - (top - margin_px), bottom + margin_px - y1),
        (x0 - (left - margin_px), right + margin_px - x1),
    )
    padded = np.pad(image[y0:y1, x0:x1], pad, mode="symmetric")
    view = np.lib.stride_tricks.sliding_window_view(padded, (side, side))[::chip_px, ::chip_px]
    if chips is not None:
        return np.asarray(view[row - row.min(), col])
    return np.ascontiguousarray(view).reshape(grid.chips, side, side)


def coverage(exposure: NDArray[Any], grid: Grid, chip_px: int) -> NDArray[np.float64]:
    """Return the share of each chip's pixels that were visited at least once.

    Parameters
    ----------
    exposure : (H, W), whole numbers
        Visits per pixel, in pixels of the modality at hand.
    grid : Grid
    chip_px : int
        Side of a chip in those pixels.

    Returns
    -------
    (rows * cols,) float64
        0 .. 1, row-major; exactly 1 for a chip that is whole, exactly 0 for one without data.

    Raises
    ------
    StageError
        As `cut`.
    """
    top, left, bottom, right = _extent(exposure, grid, chip_px)
    visited = (exposure[top:bottom, left:right] > 0).reshape(grid.rows, chip_px, -1)
    of_column = visited.sum(axis=1, dtype=np.uint32)  # whole rows first: long sums
    return np.asarray(of_column.reshape(grid.chips, chip_px).sum(axis=1) / chip_px**2)


def _blocks(image: NDArray[Scalar], grid: Grid, chip_px: int) -> NDArray[Scalar]:
    """Return a (rows, cols, p, p) view of the covered part."""
    top, left, bottom, right = _extent(image, grid, chip_px)
    covered = image[top:bottom, left:right]
    return covered.reshape(grid.rows, chip_px, grid.cols, chip_px).swapaxes(1, 2)


def _extent(image: NDArray[Scalar], grid: Grid, chip_px: int) -> tuple[int, int, int, int]:
    """Return (top, left, bottom, right) of the grid in pixels of `image`."""
    _check_image(image)
    if chip_px < 1:
        raise StageError(f"a chip must be at least 1 px wide, got {chip_px}")
    # the origin is stated in pixels of the finer modality
    top, left = (o * chip_px // grid.chip_px for o in grid.origin)
    bottom, right = top + grid.rows * chip_px, left + grid.cols * chip_px
    if top < 0 or left < 0 or bottom > image.shape[0] or right > image.shape[1]:
        raise StageError(
            f"the grid of {grid.rows} x {grid.cols} chips of {chip_px} px needs an image of "
            f"{bottom} x {right} px or more, got {image.shape[0]} x {image.shape[1]}"
        )
    return top, left, bottom, right


def _check_image(image: NDArray[Scalar]) -> None:
    if image.ndim != 2:
        raise StageError(f"an image is two-dimensional, got shape {image.shape}")
