"""EDS photons as events, in one canonical form whatever the file held.

A frame of events is `counts` (photons per pixel) and `channels` (one channel number per photon), pixel after
pixel in row-major order. Within a pixel the photons are **sorted by channel**: their order of arrival is not
in every format, and a canonical order makes the same measurement the same bytes from any of them.

Counts are uint16, or uint32 where a pixel holds more than 65 535 photons; channels uint16, or uint32 beyond
65 536 channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import SourceError

_UINT16 = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class FrameEvents:
    """The photons of one frame, or of a band of its rows: `counts` (rows, cols), `channels` (photons,)."""

    counts: NDArray[np.unsignedinteger]
    channels: NDArray[np.unsignedinteger]

    @cached_property
    def _row_starts(self) -> NDArray[np.int64]:
        per_row = self.counts.sum(axis=1, dtype=np.int64)
        return np.concatenate(([0], np.cumsum(per_row)))

    def rows(self, y0: int, y1: int) -> FrameEvents:
        """Return the photons of the rows y0 .. y1 - 1, as views."""
        start, stop = self._row_starts[y0], self._row_starts[y1]
        return FrameEvents(narrow(self.counts[y0:y1]), self.channels[start:stop])


def narrow(counts: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
    """Return `counts` as uint16, or as uint32 where they need it."""
    fits = counts.size == 0 or int(counts.max()) <= _UINT16
    return counts.astype(np.uint16 if fits else np.uint32, copy=False)


def from_photons(
    pixels: NDArray[np.integer], channels: NDArray[np.integer], shape: tuple[int, int], n_channels: int
) -> FrameEvents:
    """Put photons in canonical order.

    Parameters
    ----------
    pixels, channels : (N,) integers
        Row-major pixel and energy channel of every photon, in any order.
    shape : (rows, cols)
    n_channels : int
        Channels of the energy axis; every channel must be below it.
    """
    keys = pixels.astype(np.int64) * n_channels + channels
    keys.sort()
    pixel, channel = np.divmod(keys, n_channels)
    counts = np.bincount(pixel, minlength=shape[0] * shape[1]).reshape(shape)
    return FrameEvents(narrow(counts), channel.astype(channel_dtype(n_channels)))


def from_dense(values: NDArray[np.generic]) -> FrameEvents:
    """Turn spectra (rows, cols, channels) of whole, non-negative numbers into events."""
    rows, cols, n_channels = values.shape
    flat = np.ascontiguousarray(values).reshape(-1)
    filled = np.flatnonzero(flat)
    times = flat[filled].astype(np.int64)
    channels = (filled % n_channels).astype(channel_dtype(n_channels))
    counts = np.zeros(rows * cols, dtype=np.int64)
    np.add.at(counts, filled // n_channels, times)
    if times.size and times.max() > 1:
        channels = np.repeat(channels, times)
    return FrameEvents(narrow(counts.reshape(rows, cols)), channels)


def channel_dtype(n_channels: int) -> type[np.uint16] | type[np.uint32]:
    """Return the dtype of channel numbers for an energy axis of `n_channels`."""
    return np.uint16 if n_channels <= _UINT16 + 1 else np.uint32


def check_counts(values: NDArray[np.generic], where: str, frame: int, y0: int) -> None:
    """Refuse what cannot be photon counts.

    Parameters
    ----------
    values : (rows, cols, channels)
    where : str
        What is being read, for the message: ``EDS of file.hspy``.
    frame, y0 : int
        Place of the first row.

    Raises
    ------
    SourceError
        At the first value that is not finite, negative or not a whole number, by its place.
    """
    if values.dtype.kind in "ub":
        return
    if values.dtype.kind not in "if":
        raise SourceError(f"{where} has values of type {values.dtype}; EDS counts must be whole numbers")
    rules = [("negative", np.less(values, 0))]
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        rules = [
            ("not finite", ~finite),
            *rules,
            ("not a whole number", finite & (values != np.rint(values))),
        ]
    for what, bad in rules:
        if bad.any():
            y, x, channel = np.argwhere(bad)[0]
            raise SourceError(
                f"{where} is {what} ({values[y, x, channel]:g}) at frame {frame}, y {y0 + y}, x {x}, "
                f"channel {channel}; give counts as recorded, not processed ones"
            )
