"""What is done with every single photon and value that comes, compiled: checksums, and spectra of chips.

One pass over the data, without the arrays as long as they that NumPy would make at every step, and without holding up
other threads. The lists are as in `runtime.pieces`: of each pixel how many of the following entries are its, of each
entry the channel and, unless it is one, the number of photons.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livestem.stages.compiled import compiled

Words = NDArray[np.uint64]
Entries = NDArray[np.int64]
Channels = NDArray[np.uint32]

_PLACE, _VALUE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd and without pattern: any would do
# The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit in changes half of the bits out.
_FIRST, _SECOND, _LAST = np.uint64(30), np.uint64(27), np.uint64(31)
_MIX, _MIX_AGAIN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@compiled
def _mixed(place: np.uint64, value: np.uint64) -> np.uint64:
    """Return a word that knows a value and its place."""
    word = place * _PLACE + value * _VALUE
    word = (word ^ (word >> _FIRST)) * _MIX
    word = (word ^ (word >> _SECOND)) * _MIX_AGAIN
    return word ^ (word >> _LAST)


@compiled
def checksum_of_values(places: Words, values: Words) -> np.uint64:
    """Return the sum, modulo 2^64, of a word for each of (n,) values at (n,) places: the same in any order."""
    total = np.uint64(0)
    for i in range(len(places)):
        total += _mixed(places[i], values[i])
    return total


@compiled
def checksum_of_photons(places: Words, entries: Entries, channel: Channels, number: Words) -> np.uint64:
    """Return the sum of a word for each photon's channel and pixel.

    Parameters
    ----------
    places : (n,) of the pixels
    entries : (n,) that add up to N
    channel : (N,)
    number : (N,), or (0,) for one each
    """
    total, at = np.uint64(0), 0
    for pixel in range(len(places)):
        for _ in range(entries[pixel]):
            word = _mixed(places[pixel], np.uint64(channel[at]))
            total += word * number[at] if len(number) else word
            at += 1
    return total


@compiled
def count_photons(
    spectra: NDArray[np.uint32], row: Entries, entries: Entries, channel: Channels, number: Words
) -> None:
    """Add photons to the spectra, in place.

    Parameters
    ----------
    spectra : (R, C)
    row : (n,) the spectrum of each pixel; -1 for none
    entries, channel, number : as for `checksum_of_photons`; channels below C
    """
    at = 0
    for pixel in range(len(row)):
        into = row[pixel]
        if into < 0:
            at += entries[pixel]
            continue
        for _ in range(entries[pixel]):
            spectra[into, channel[at]] += np.uint32(number[at]) if len(number) else np.uint32(1)
            at += 1
