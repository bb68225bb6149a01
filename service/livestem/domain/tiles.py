"""Tiles: a rectangle of one frame of one modality, as a source hands it over and the segmenter counts it in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class HaadfTile:
    """Detector values of the rectangle at (y, x): `values` is (h, w), any real dtype; negative is legal."""

    frame: int
    y: int
    x: int
    values: NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class EdsEvents:
    """EDS photons of the rectangle at (y, x), a few bytes each.

    `counts` is (h, w) unsigned, photons per pixel; `channels` (sum of counts,) uint16 or uint32, the energy
    channel of every photon, pixel after pixel in row-major order.
    """

    frame: int
    y: int
    x: int
    counts: NDArray[np.unsignedinteger]
    channels: NDArray[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True)
class EdsDense:
    """EDS spectra of the rectangle at (y, x): `values` is (h, w, channels), whole numbers, not negative."""

    frame: int
    y: int
    x: int
    values: NDArray[np.integer]


Tile = HaadfTile | EdsEvents | EdsDense


def height(tile: Tile) -> int:
    """Return the rows of a tile."""
    return int((tile.counts if isinstance(tile, EdsEvents) else tile.values).shape[0])
