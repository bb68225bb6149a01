"""What a scanned field really is: class of every pixel, the facts of every class, drift and dose.

Rules
-----
* Places are those of the scan's own pixels, (y, x). A scan that drifts does not see one field: `class_of_pixel`
  is what the first frame saw, `class_of_sum` what most visits of a pixel saw when frames are summed as they come.
  Frames that were registered to the first are judged by the first, sums without registration by the second.
* A class is its index in ``facts.classes``; -1 marks pixels of which nobody knows (a truth made by hand).
* A chip is what most of its pixels are, the lower class on a tie; its purity is that class's share of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid
from livestem.domain.names import check_name

FORMAT = 2  # of the facts; 1 knew neither drift nor dose
_MOST_CLASSES = 127  # what int8 holds
_ROUNDING = 0.5  # at.% that a composition written with few digits may lack of 100
_SAME_PIXEL = 0.01  # as two modalities' pixels: what calibrations differ by


class ClassFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one class.

    Attributes
    ----------
    name, title : identifier and free text
    composition : atomic percent of the specimen's own elements, strays not counted; {} if not known
    d_spacing_nm : longest lattice spacing, nm; None where there is no one lattice
    d_apparent_nm : (fast, slow), the two basis spacings as this scan shows them when it drifts steadily, nm; None
        where that is not known
    """

    name: str
    title: str = ""
    composition: dict[str, float] = {}
    d_spacing_nm: float | None = None
    d_apparent_nm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "class")
        if unknown := [e for e in self.composition if e not in SYMBOLS]:
            raise ValueError(f"class {self.name}: unknown element {', '.join(unknown)}; use symbols such as Fe or O")
        percents = self.composition.values()
        if self.composition and not (min(percents) >= 0 and abs(sum(percents) - 100) <= _ROUNDING):
            raise ValueError(f"class {self.name}: its composition sums to {sum(percents):g} at.%, not to 100")
        if not all(_positive(d) for d in (self.d_spacing_nm, *(self.d_apparent_nm or ()))):
            raise ValueError(f"class {self.name}: lattice spacings must be positive nanometres")


class TruthFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of the scan beside its maps.

    Attributes
    ----------
    pixel_nm, origin_nm : (y, x) of a pixel and of the first pixel's corner, nm
    classes : in the order of their numbers
    scan_id : of the scan; "" if it has no name (a truth made by hand)
    specimen : digest of the specimen; "" if there is none
    seed, frames : of the scan
    drift_nm : of every frame, (y, x) of its first pixel against the first frame's, nm; () if not known
    dose_e_nm2 : electrons per nm^2 that this scan put on the field, the mean over it; None if not known
    """

    pixel_nm: tuple[float, float]
    classes: tuple[ClassFacts, ...]
    origin_nm: tuple[float, float] = (0.0, 0.0)
    scan_id: str = ""
    specimen: str = ""
    seed: int = 0
    frames: int = 1
    drift_nm: tuple[tuple[float, float], ...] = ()
    dose_e_nm2: float | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"this truth has format {self.format}, and this livestem reads {FORMAT}; write it again")
        if not all(_positive(p) for p in self.pixel_nm):
            raise ValueError(f"pixel_nm must be positive, got {self.pixel_nm}")
        names = [c.name for c in self.classes]
        if not 1 <= len(names) <= _MOST_CLASSES or len(set(names)) < len(names):
            raise ValueError(f"a truth has 1 to {_MOST_CLASSES} classes of different names, got {', '.join(names)}")
        if self.frames < 1 or len(self.drift_nm) not in (0, self.frames):
            raise ValueError(f"{len(self.drift_nm)} drifts for {self.frames} frames; give one a frame, or none")
        if not all(math.isfinite(v) for place in (self.origin_nm, *self.drift_nm) for v in place):
            raise ValueError("origin_nm and drift_nm must be finite")
        if self.dose_e_nm2 is not None and not 0 <= self.dose_e_nm2 < math.inf:
            raise ValueError(f"dose_e_nm2 must be 0 or more, got {self.dose_e_nm2:g}")


@dataclass(frozen=True)
class Truth:
    """The truth of one scan.

    Attributes
    ----------
    class_of_pixel : (H, W) int8
        At the first frame's places; -1 where not known.
    class_of_sum : (H, W) int8
        The class that most visits of a pixel saw, frames summed without registration; equal to `class_of_pixel`
        without drift.
    dose_e_nm2 : (H, W) float32
        Electrons per nm^2 that fell on each pixel's place before the scan's end, this scan included; NaN where
        not known.
    facts : TruthFacts

    Raises
    ------
    ValueError
        If the maps do not fit each other or the facts.
    """

    class_of_pixel: NDArray[np.int8]
    class_of_sum: NDArray[np.int8]
    dose_e_nm2: NDArray[np.float32]
    facts: TruthFacts

    def __post_init__(self) -> None:
        shape = self.class_of_pixel.shape
        if len(shape) != 2 or not self.class_of_pixel.size:
            raise ValueError(f"class_of_pixel must be a map (H, W), got shape {shape}")
        for name, part, dtype in (
            ("class_of_pixel", self.class_of_pixel, np.int8),
            ("class_of_sum", self.class_of_sum, np.int8),
            ("dose_e_nm2", self.dose_e_nm2, np.float32),
        ):
            if part.shape != shape or part.dtype != dtype:
                raise ValueError(f"{name} must be {np.dtype(dtype)} of shape {shape}, got {part.dtype} of {part.shape}")
        lowest, highest = _range(self.class_of_pixel, self.class_of_sum)
        if lowest < -1 or highest >= len(self.names):
            raise ValueError(f"the maps hold classes {lowest} to {highest}, and there are {len(self.names)} classes")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, ..."""
        return tuple(c.name for c in self.facts.classes)

    def classes(self, *, registered: bool) -> NDArray[np.int8]:
        """Return the (H, W) map that a result is judged by: of frames registered to the first, or of their sum."""
        return self.class_of_pixel if registered else self.class_of_sum

    def shares_of_chips(self, grid: Grid, *, registered: bool) -> NDArray[np.float64]:
        """Return how much of each chip belongs to each class.

        Parameters
        ----------
        grid : Grid
            Laid over a scan of this field.
        registered : bool
            Whether the scan's frames were registered to the first.

        Returns
        -------
        (rows, cols, K) float64
            Shares 0..1 of the chip's pixels; they sum to 1 where all its pixels are known.

        Raises
        ------
        UsageError
            If the grid does not fit the field.
        """
        side = self.chip_px(grid)
        part = self.classes(registered=registered)[self.area(grid)]
        chips = part.reshape(grid.rows, side, grid.cols, side)
        return np.stack([(chips == c).mean(axis=(1, 3)) for c in range(len(self.names))], axis=-1)

    def class_of_chips(self, grid: Grid, *, registered: bool = False) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """Return what most of each chip is, and how much of it.

        Returns
        -------
        (rows, cols) int16, (rows, cols) float64
            Class of most pixels, the lower one on a tie, -1 where none is known; its share of the chip's pixels.

        Raises
        ------
        UsageError
            If the grid does not fit the field.
        """
        share = self.shares_of_chips(grid, registered=registered)
        purity = share.max(axis=-1)
        return np.where(purity > 0, share.argmax(axis=-1), -1).astype(np.int16), purity

    def chip_px(self, grid: Grid) -> int:
        """Return the side of a chip in pixels of this truth; UsageError if the grid does not fit the field."""
        pixel = self.facts.pixel_nm[1]
        sides = [side for side in (grid.haadf_px, grid.eds_px) if side is not None] or [grid.chip_px]
        side = min(sides, key=lambda s: abs(s * pixel - grid.chip_nm))  # the modality that the truth samples as
        top, left = _first(grid, side)
        have = self.class_of_pixel.shape
        if top + grid.rows * side > have[0] or left + grid.cols * side > have[1]:
            raise UsageError(
                f"a grid of {grid.rows} x {grid.cols} chips of {side} px is larger than the field of "
                f"{have[0]} x {have[1]} px; lay it over this scan's own field"
            )
        if any(abs(side * p / grid.chip_nm - 1) > _SAME_PIXEL for p in self.facts.pixel_nm):
            raise UsageError(
                f"chips of {grid.chip_nm:.4g} nm are not {side} pixels of {pixel:.4g} nm; "
                "this truth belongs to a scan of another pixel size"
            )
        return side

    def area(self, grid: Grid) -> tuple[slice, slice]:
        """Return the pixels that the grid covers; UsageError if it does not fit the field."""
        side = self.chip_px(grid)
        top, left = _first(grid, side)
        return np.s_[top : top + grid.rows * side, left : left + grid.cols * side]


def _first(grid: Grid, side: int) -> tuple[int, int]:
    """Return (row, col) of the first chip's first pixel, where chips have `side` pixels."""
    y, x = grid.origin
    return y * side // grid.chip_px, x * side // grid.chip_px


def _positive(value: float | None) -> bool:
    return value is None or 0 < value < math.inf


def _range(*maps: NDArray[Any]) -> tuple[int, int]:
    return min(int(m.min()) for m in maps), max(int(m.max()) for m in maps)
