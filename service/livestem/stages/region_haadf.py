"""The HAADF of a region: its mean per visit, and the largest square in which a lattice can be measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.domain.geometry import Grid
from livestem.stages.spacing import (
    BEYOND_NYQUIST,
    MAX_PIXEL_NM,
    MIN_CELL_NM,
    NO_CONTRAST,
    SEVERAL_GRAINS,
    TOO_SMALL,
    LatticeResult,
    lattice_of,
)


def largest_square(member: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return (row, col, side) of the largest all-true square, the first in row-major order on ties.

    Parameters
    ----------
    member : (rows, cols) bool

    Returns
    -------
    (int, int, int)
        Its top left chip and its side; (0, 0, 0) where nothing is true.
    """
    # A summed-area table counts the true chips of every square of a side at once, and a square of one side
    # holds one of each lesser side, so the largest side is found by bisection.
    table = np.zeros((member.shape[0] + 1, member.shape[1] + 1), np.int64)
    table[1:, 1:] = member.cumsum(axis=0).cumsum(axis=1)
    best, low, high = (0, 0, 0), 1, min(member.shape)
    while low <= high:
        side = (low + high) // 2
        inside = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
        full = np.flatnonzero(inside == side * side)
        if len(full):
            row, col = divmod(int(full[0]), inside.shape[1])
            best, low = (row, col, side), side + 1
        else:
            high = side - 1
    return best


@dataclass(frozen=True, kw_only=True)
class HaadfChips:
    """The HAADF of a scan, cut to the grid.

    Attributes
    ----------
    image : (rows * px, cols * px) float64
        Mean detector value per visit; anything at unvisited pixels.
    px, pixel_nm : side of a chip in pixels; pixel, nm
    sums, visits : (rows, cols) float64
        Of every chip: detector values of all visits, number of visits.
    whole : (rows, cols) bool
        Chips whose pixels were all visited.
    """

    image: NDArray[np.float64]
    px: int
    pixel_nm: float
    sums: NDArray[np.float64]
    visits: NDArray[np.float64]
    whole: NDArray[np.bool_]
    _measured: dict[tuple[int, int, int], LatticeResult] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        image: NDArray[np.floating],
        visits: NDArray[np.integer] | NDArray[np.floating] | None,
        grid: Grid,
    ) -> HaadfChips:
        """Cut the mean image (H, W) and its visits (H, W), None for one each, to the chips of a grid.

        Raises
        ------
        StageError
            If the grid was laid without HAADF, or its pixels do not cover the grid.
        """
        px = _covered(image, visits, grid)
        top, left = (origin * px // grid.chip_px for origin in grid.origin)
        area = np.s_[top : top + grid.rows * px, left : left + grid.cols * px]
        mean = image[area].astype(np.float64)
        weight = np.ones_like(mean) if visits is None else visits[area].astype(np.float64)
        exposed = (weight > 0) & np.isfinite(mean)

        def per_chip(values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
            out: NDArray[np.float64] = values.reshape(grid.rows, px, grid.cols, px).sum(axis=(1, 3))
            return out

        return cls(
            image=mean,
            px=px,
            pixel_nm=grid.chip_nm / px,
            sums=per_chip(np.where(exposed, mean, 0.0) * np.where(exposed, weight, 0.0)),
            visits=per_chip(np.where(exposed, weight, 0.0)),
            whole=per_chip(exposed) == px * px,
        )

    def mean_of(self, member: NDArray[np.bool_]) -> float | None:
        """Return the mean per visit of the chips of a (rows, cols) mask; None if none was visited."""
        visits = float(self.visits[member].sum())
        return float(self.sums[member].sum() / visits) if visits else None

    def lattice_in(self, member: NDArray[np.bool_]) -> LatticeResult:
        """Measure the lattice in the largest square of fully visited chips; `reason` has the numbers.

        Regions of several maps have the same square, and each square is measured once.
        """
        square = largest_square(member & self.whole)
        if square not in self._measured:
            self._measured[square] = self._lattice_of(*square)
        return self._measured[square]

    def _lattice_of(self, row: int, col: int, side: int) -> LatticeResult:
        px = self.px
        patch = self.image[row * px : (row + side) * px, col * px : (col + side) * px]
        found = lattice_of(patch, self.pixel_nm) if side else LatticeResult(reason=TOO_SMALL)
        return found if found.reason is None else replace(found, reason=self._explained(found.reason, side))

    def _explained(self, reason: str, side: int) -> str:
        """Return the reason with the numbers that a user needs to change it."""
        if reason == TOO_SMALL:
            needed = math.ceil(MIN_CELL_NM / self.pixel_nm - 1e-6)
            return (
                f"{reason}: its largest square of fully exposed chips is {side * self.px} px "
                f"({side * self.px * self.pixel_nm:.3g} nm); a spacing needs {needed} px "
                f"({MIN_CELL_NM} nm)"
            )
        if reason == BEYOND_NYQUIST:
            return f"{reason}: pixels of {self.pixel_nm:.3g} nm; a lattice needs {MAX_PIXEL_NM} nm or finer"
        if reason == SEVERAL_GRAINS:
            return f"{reason}: no single basis holds 80 % of the peaks' power"
        if reason == NO_CONTRAST:
            return f"{reason}: all HAADF values of the square are equal"
        return reason


def _covered(image: NDArray[np.floating], visits: NDArray[np.integer] | NDArray[np.floating] | None, grid: Grid) -> int:
    """Return the side of a chip in HAADF pixels, once image, visits and grid are known to fit."""
    if grid.haadf_px is None:
        raise StageError("this grid was laid without HAADF; give no HAADF image, or plan the grid with it")
    if visits is not None and visits.shape != image.shape:
        raise StageError(f"exposure of {visits.shape} does not fit the HAADF of {image.shape} pixels")
    last = tuple(
        origin * grid.haadf_px // grid.chip_px + chips * grid.haadf_px
        for origin, chips in zip(grid.origin, grid.shape, strict=True)
    )
    if image.ndim != 2 or image.shape[0] < last[0] or image.shape[1] < last[1]:
        raise StageError(f"the grid covers {last[0]} x {last[1]} HAADF pixels; the image has {image.shape}")
    return grid.haadf_px
