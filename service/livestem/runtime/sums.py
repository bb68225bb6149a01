"""The sums over frames, each piece at the shift of its frame, and how often each pixel was visited.

What a shift moves out of the field is dropped, and counted; what it uncovers has fewer visits. EDS counts and integer
HAADF add up exactly in any order; float HAADF must be added in frame order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.runtime.pieces import Photons, Piece, Strip, Whole, landing
from livestem.runtime.received import Occupancy, as_words
from livestem.stages.photons import checksum_of_photons, checksum_of_values, count_photons

_COUNTS = np.uint64(2**63)  # sets a pixel's number of photons apart from a photon's channel, in the checksum
_NOWHERE: Whole = (0, 0)
Rectangle = tuple[slice, slice]
MOST_PHOTONS = 2**32 - 1  # of a scan: an hour at a million a second; no channel of a chip can then wrap round


@dataclass(frozen=True, eq=False)
class Changed:
    """What of one modality has changed.

    Attributes
    ----------
    chips : (N + 1,) bool; the last stands for what is in the field but outside the grid
    rows : (H,) bool, rows of the field's pixels
    """

    chips: NDArray[np.bool_]
    rows: NDArray[np.bool_]

    @classmethod
    def none(cls, chips: int, rows: int) -> Changed:
        """Return that nothing has."""
        return cls(np.zeros(chips + 1, dtype=bool), np.zeros(rows, dtype=bool))

    def mark(self, chips: NDArray[np.int32], rows: slice) -> None:
        """Note that the pixels of these chips, in these rows, have changed."""
        self.chips[chips] = True
        self.rows[rows] = True

    def take(self) -> Changed:
        """Return what is marked, and forget it."""
        taken = Changed(self.chips.copy(), self.rows.copy())
        self.chips[:] = self.rows[:] = False
        return taken

    def __bool__(self) -> bool:
        """Whether anything has."""
        return bool(self.rows.any())


class HaadfSum:
    """HAADF summed over frames, with exposure.

    Attributes
    ----------
    occupancy : what came
    exposure : (H, W) uint32 visits of each pixel of the field
    left : visits that shifts moved out of the field
    """

    def __init__(self, shape: tuple[int, int], dtype: str) -> None:
        self.occupancy = Occupancy(shape)
        self.exposure = np.zeros(shape, dtype=np.uint32)
        self.left = 0
        self.dtype = np.dtype(dtype)
        self.exact = self.dtype.kind in "ui"  # in any order
        self._sum = np.zeros(shape, dtype=np.int64 if self.exact else np.float64)

    def receive(self, frame: int, piece: Piece) -> None:
        """Add a piece to the checksum of what came."""
        assert isinstance(piece, Strip)
        places = self.occupancy.places_of(frame, piece.y, piece.x, *piece.shape)
        self.occupancy.add(int(checksum_of_values(places, as_words(piece.values))))

    def add(self, piece: Piece, shift: Whole = _NOWHERE) -> None:
        """Add a piece that occupancy has granted, moved by `shift`."""
        assert isinstance(piece, Strip)
        to, of = landing(self.exposure.shape, piece, shift)
        inside = piece.values[of]
        self.exposure[to] += 1
        self._sum[to] += inside
        self.left += piece.values.size - inside.size

    def renew(self, of: HaadfSum, waiting: Iterable[tuple[Piece, Whole]], changed: Changed) -> None:
        """Bring this copy `of` a sum, with what waits on top, up to date in the rows that have changed."""
        self.exposure[changed.rows] = of.exposure[changed.rows]
        self._sum[changed.rows] = of._sum[changed.rows]
        for piece, shift in waiting:
            assert isinstance(piece, Strip)
            to, part = landing(self.exposure.shape, piece, shift)
            anew = changed.rows[to[0]]
            self.exposure[to][anew] += 1
            self._sum[to][anew] += piece.values[part][anew]

    def empty(self) -> HaadfSum:
        """Return a sum of the same field with nothing in it."""
        rows, cols = self.exposure.shape
        return HaadfSum((rows, cols), self.dtype.str)

    def total(self) -> NDArray[np.float64]:
        """Return the sum over frames, float64."""
        return self._sum.astype(np.float64)

    def mean(self, rows: NDArray[np.bool_] | slice = slice(None)) -> NDArray[np.float64]:
        """Return the mean per visit, of some `rows`; 0 where there was none."""
        return np.asarray(self._sum[rows] / np.maximum(self.exposure[rows], 1), np.float64)

    def copy(self) -> HaadfSum:
        """Return a copy of the sums; what came is not copied."""
        made = copy.copy(self)
        vars(made).update(exposure=self.exposure.copy(), _sum=self._sum.copy())
        return made


class EdsSum:
    """EDS counts by chip and channel, with exposure.

    Attributes
    ----------
    occupancy, exposure : as for `HaadfSum`
    spectra : (N + 1, C) uint32 counts by chip; the last row holds what is in the field but outside the grid
    counts : photons received
    """

    def __init__(self, shape: tuple[int, int], channels: int, chip_of_pixel: NDArray[np.int32], chips: int) -> None:
        self.occupancy = Occupancy(shape)
        self.exposure = np.zeros(shape, dtype=np.uint32)
        self.counts = 0
        self._chip_of_pixel = chip_of_pixel
        self._spectra = np.zeros((chips + 2, channels), dtype=np.uint32)  # the last row: what has left the field

    @property
    def spectra(self) -> NDArray[np.uint32]:
        """(N + 1, C) counts by chip."""
        return self._spectra[:-1]

    @property
    def channels(self) -> int:
        """Channels of the energy axis."""
        return int(self._spectra.shape[1])

    @property
    def left(self) -> int:
        """Photons that shifts moved out of the field."""
        return int(self._spectra[-1].sum(dtype=np.uint64))

    def receive(self, frame: int, piece: Piece) -> None:
        """Add a piece to the checksum of what came, and count its photons."""
        assert isinstance(piece, Photons)
        places = self.occupancy.places_of(frame, piece.y, piece.x, *piece.shape)
        counts = piece.counts
        self.occupancy.add(int(checksum_of_values(places, counts | _COUNTS)))
        self.occupancy.add(int(checksum_of_photons(places, *piece.lists)))
        self.counts += int(counts.sum(dtype=np.uint64))

    def add(self, piece: Piece, shift: Whole = _NOWHERE) -> None:
        """Add a piece that occupancy has granted, moved by `shift`."""
        assert isinstance(piece, Photons)
        to, of = landing(self.exposure.shape, piece, shift)
        chips = self._chips(piece, to, of)
        self.exposure[to] += 1
        count_photons(self._spectra, chips.ravel(), *piece.lists)

    def _chips(self, piece: Photons, to: Rectangle, of: Rectangle) -> NDArray[np.int64]:
        """Return (h, w) the row of the spectra of each pixel of a piece."""
        chips = np.full(piece.shape, len(self._spectra) - 1, dtype=np.int64)
        chips[of] = self._chip_of_pixel[to]
        return chips

    def renew(self, of: EdsSum, waiting: Iterable[tuple[Piece, Whole]], changed: Changed) -> None:
        """Bring this copy `of` a sum, with what waits on top, up to date in the chips and rows that have changed."""
        chips, counted = np.flatnonzero(changed.chips), np.append(changed.chips, False)
        self.exposure[changed.rows] = of.exposure[changed.rows]
        self._spectra[chips] = of._spectra[chips]
        for piece, shift in waiting:
            assert isinstance(piece, Photons)
            to, part = landing(self.exposure.shape, piece, shift)
            self.exposure[to][changed.rows[to[0]]] += 1
            chips = self._chips(piece, to, part)
            anew = counted[chips]
            if anew.any():
                count_photons(self._spectra, np.where(anew, chips, -1).ravel(), *piece.lists)

    def empty(self) -> EdsSum:
        """Return a sum of the same field with nothing in it."""
        rows, cols = self.exposure.shape
        return EdsSum((rows, cols), self.channels, self._chip_of_pixel, len(self._spectra) - 2)

    def copy(self) -> EdsSum:
        """Return a copy of the sums; what came is not copied."""
        made = copy.copy(self)
        vars(made).update(exposure=self.exposure.copy(), _spectra=self._spectra.copy())
        return made


Sum = HaadfSum | EdsSum
