"""Fields, pixels and the grid of chips.

Place is given in nanometres from the session's origin, y down (slow scan), x right (fast scan); arrays are
indexed (y, x). A chip is a square of the *field*, so HAADF and EDS may sample it differently: one of them is
the finer, and its pixels per chip are a whole multiple of the other's.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError

_SQUARE = 0.01  # pixels count as square up to 1 %: what vendors' calibrations differ between axes
_SMALLEST_NM, _LARGEST_NM = 1e-4, 1e6  # a tenth of a picometre to a millimetre: beyond, a unit was mistaken
_SAME_FIELD = 0.5  # two modalities see one field if their sizes differ by less than half a coarse pixel


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one modality samples the field.

    Attributes
    ----------
    shape : (rows, cols), in pixels
    pixel_nm : (y, x) size of a pixel, nm
    origin_nm : (y, x) of the first pixel's corner in the session's frame, nm
    rotation_deg : scan rotation, degrees counter-clockwise
    """

    shape: tuple[int, int]
    pixel_nm: tuple[float, float]
    origin_nm: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 0.0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a field of {self.shape[0]} x {self.shape[1]} pixels is empty")
        if not all(_SMALLEST_NM <= p <= _LARGEST_NM for p in self.pixel_nm):
            raise ValueError(f"pixel_nm must be {_SMALLEST_NM:g} to {_LARGEST_NM:g} nm, got {self.pixel_nm}")
        if not all(math.isfinite(v) for v in (*self.origin_nm, self.rotation_deg)):
            raise ValueError("origin_nm and rotation_deg must be finite")

    @property
    def size_nm(self) -> tuple[float, float]:
        """(y, x) extent of the field, nm."""
        return self.shape[0] * self.pixel_nm[0], self.shape[1] * self.pixel_nm[1]


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The chips of a field: `rows` x `cols` squares, row-major from `origin`; partial chips are dropped.

    Attributes
    ----------
    rows, cols : chips
    chip_nm : side of a chip, nm
    chip_px : side of a chip in pixels of the finer modality
    pixel_nm : pixel of the finer modality, nm
    origin : (y, x) of the first chip, pixels of the finer modality
    haadf_px, eds_px : side of a chip in pixels of that modality; None where the scan lacks it
    """

    rows: int
    cols: int
    chip_nm: float
    chip_px: int
    pixel_nm: float
    origin: tuple[int, int] = (0, 0)
    haadf_px: int | None = None
    eds_px: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    @property
    def chips(self) -> int:
        """Number of chips."""
        return self.rows * self.cols

    def chip_of_pixel(self, shape: tuple[int, int], chip_px: int) -> NDArray[np.int32]:
        """Return the index of the chip that each pixel of a modality belongs to.

        Parameters
        ----------
        shape : (rows, cols) of the modality, in pixels
        chip_px : side of a chip in its pixels (`haadf_px` or `eds_px`)

        Returns
        -------
        (rows, cols) int32
            Row-major chip index; `chips` (one past the last) for pixels outside the grid.
        """
        row = np.arange(shape[0]) // chip_px
        col = np.arange(shape[1]) // chip_px
        index = row[:, None] * self.cols + col[None, :]
        index[(row >= self.rows)[:, None] | (col >= self.cols)[None, :]] = self.chips
        return index.astype(np.int32)


def default_chip_px(sampling: Sampling) -> int:
    """Return the chip side, in pixels, where the user names none.

    Pixels up to 0.1 nm resolve a lattice: 0.75 nm, which holds at least one unit cell of a perovskite.
    Coarser ones do not: about 32 chips on the short side, and at least 4 px for a texture.
    """
    pixel = sampling.pixel_nm[1]
    if pixel <= 0.1:
        return max(1, round(0.75 / pixel))
    return max(4, round(min(sampling.shape) / 32))


def sampling_ratio(haadf: Sampling, eds: Sampling) -> tuple[int, int]:
    """Return (HAADF pixels, EDS pixels) of the smallest common square.

    Raises
    ------
    StageError
        If the two do not cover one field, or their pixels are not a whole multiple of each other.
    """
    fine, coarse = sorted((haadf, eds), key=lambda s: s.pixel_nm[1])
    slack = _SAME_FIELD * coarse.pixel_nm[1]
    pairs = zip((*haadf.size_nm, *haadf.origin_nm), (*eds.size_nm, *eds.origin_nm), strict=True)
    if any(abs(a - b) > slack for a, b in pairs) or haadf.rotation_deg != eds.rotation_deg:
        raise StageError(
            f"HAADF covers {_size(haadf)} and EDS {_size(eds)}: these are two fields; give recordings of the same field"
        )
    exact = coarse.pixel_nm[1] / fine.pixel_nm[1]
    ratio = round(exact)
    if abs(exact - ratio) > 0.02 * ratio:
        raise StageError(
            f"HAADF pixels of {haadf.pixel_nm[1]:.4g} nm and EDS pixels of {eds.pixel_nm[1]:.4g} nm are not "
            "a whole multiple of each other; rebin one of them first"
        )
    return (ratio, 1) if fine is haadf else (1, ratio)


def plan_grid(
    haadf: Sampling | None,
    eds: Sampling | None,
    *,
    chip_px: int | None = None,
    chip_nm: float | None = None,
) -> Grid:
    """Lay the grid of chips over a field.

    Parameters
    ----------
    haadf, eds : Sampling or None
        The modalities of the scan; at least one.
    chip_px : int, optional
        Side of a chip in pixels of the finer modality; wins over `chip_nm`.
    chip_nm : float, optional
        Side of a chip in nm. Neither: `default_chip_px`.

    Raises
    ------
    StageError
        If a chip does not fit into the field or into the pixels of both modalities, or the pixels are not
        square.
    """
    present = [s for s in (haadf, eds) if s is not None]
    if not present:
        raise StageError("a scan needs HAADF, EDS or both")
    for s in present:
        if abs(s.pixel_nm[0] / s.pixel_nm[1] - 1) > _SQUARE:
            raise StageError(
                f"pixels of {s.pixel_nm[0]:.4g} x {s.pixel_nm[1]:.4g} nm are not square; rebin the recording"
            )
    per_haadf, per_eds = sampling_ratio(haadf, eds) if haadf and eds else (1, 1)
    unit = max(per_haadf, per_eds)  # chips are whole numbers of the coarser modality's pixels
    fine = min(present, key=lambda s: s.pixel_nm[1])
    pixel = fine.pixel_nm[1]
    side = _side_px(fine, unit, chip_px, chip_nm)
    usable = [min(s.shape[axis] * (1 if s is fine else unit) for s in present) for axis in (0, 1)]
    rows, cols = usable[0] // side, usable[1] // side
    if rows < 1 or cols < 1:
        raise StageError(
            f"a chip of {side} px is larger than the field of {usable[0]} x {usable[1]} px; "
            f"use --chip-px {max(unit, min(usable) // unit * unit)} or less"
        )
    return Grid(
        rows=rows,
        cols=cols,
        chip_nm=side * pixel,
        chip_px=side,
        pixel_nm=pixel,
        haadf_px=side * per_haadf // unit if haadf else None,
        eds_px=side * per_eds // unit if eds else None,
    )


def _side_px(fine: Sampling, unit: int, chip_px: int | None, chip_nm: float | None) -> int:
    if chip_px is not None:
        if chip_px < 1:
            raise StageError(f"--chip-px must be at least 1, got {chip_px}")
        if chip_px % unit:
            raise StageError(
                f"HAADF and EDS are sampled 1:{unit}, so a chip must be a multiple of {unit} px; got {chip_px}"
            )
        return chip_px
    wanted = default_chip_px(fine) if chip_nm is None else max(1, round(chip_nm / fine.pixel_nm[1]))
    return max(1, round(wanted / unit)) * unit


def _size(sampling: Sampling) -> str:
    size, origin = sampling.size_nm, sampling.origin_nm
    turned = f", turned by {sampling.rotation_deg:g} degrees" if sampling.rotation_deg else ""
    at = f" at ({origin[0]:.4g}, {origin[1]:.4g}) nm" if any(origin) else ""
    return f"{size[0]:.4g} x {size[1]:.4g} nm{at}{turned}"
