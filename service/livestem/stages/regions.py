"""Regions of like chips: neighbours joined as long as they are better told as one phase than as two.

Why regions. A chip is one noisy sample; a phase differs from the next by its mean and by how it scatters, which no
chip shows by itself. A region of some chips shows both. So chips are joined to regions first, and regions, near or
far, to phases (`phases`), both by the evidence (`evidence`).

Rules
-----
- In each round every region chooses the neighbour that gains the most; pairs that choose each other and gain are
  joined, all at once. Growing at one pace keeps a region from creeping across a border through the mixed chips on it.
- Noise differs between phases: a speckled cap scatters ten times as much as a quiet crystal. It is measured twice:
  over the field, which gives rough phases, and then inside each of these, where regions are grown anew.
- **Solid** regions make phases: they have some chips off the edges. An *edge* is a chip whose
  opposite neighbours differ by more than counting noise allows in what mixes linearly (intensities, detector level):
  it shows two phases at once, and is of neither. Of more than a thousand the largest make phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.stages.evidence import INDEPENDENT, Evidence, Samples
from livestem.stages.features import neighbour_pairs, neighbour_whitening, whiten_by_neighbours
from livestem.stages.phases import phase_tree
from livestem.stages.rows import Floats, Mask, valid_rows

_LEAST = 4  # chips off the edges in a solid region: fewer have no scatter of their own
_MOST = 1024  # solid regions, the largest: phases are found in their pairs, and a field of 2601 chips has 100 to 300
_INNER = 0.25  # share of a solid region's chips off the edges: a thin layer has that, a row along a border has not
_LEAST_ROUGH = 30  # chips of a rough phase whose own noise is measured: a covariance of twenty columns needs them
_ONCE_IN = 0.999  # quantile of counting noise beyond which opposite neighbours are not of one phase
_ACROSS = ((0, 1), (1, 0), (1, 1), (1, -1))  # half of the eight directions; the others are their opposites

Labels = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a field.

    Attributes
    ----------
    labels : (N,) region of each chip; -1 for chips without data
    rows : (N, D) the whitened features they were grown on, centred
    samples : of the R regions
    solid : (R,) bool; which of them are of one phase, and have an inside
    """

    labels: Labels
    rows: Floats
    samples: Samples
    solid: Mask

    def chips(self, phases: NDArray[np.integer[Any]]) -> Labels:
        """Return (N,) the phase of every chip, given those of the solid regions in order; -1 elsewhere."""
        of_region = np.full(len(self.samples) + 1, -1)  # one more, for the label -1
        of_region[:-1][self.solid] = phases
        return of_region[self.labels]


def find_regions(
    features: NDArray[Any], mixing: NDArray[Any], shape: tuple[int, int], valid: Mask | None = None
) -> Regions:
    """Group neighbouring chips into regions.

    Parameters
    ----------
    features : (N, D) real
        Standardised features of all chips, row-major.
    mixing : (N, M) real
        Those features that mix linearly, on a scale of even noise: on them edges are found.
    shape : (rows, cols)
        The grid, rows * cols = N.
    valid : (N,) bool, optional
        Chips with data.

    Raises
    ------
    StageError
        As `neighbour_whitening`.
    """
    _, mask = valid_rows(features, valid)
    rows = whiten_by_neighbours(features, shape, mask)
    rows[mask] -= rows[mask].mean(axis=0)
    pairs = neighbour_pairs(shape, mask)
    off_edge = ~edges(whiten_by_neighbours(mixing, shape, mask), shape, mask)
    rough = _regions(grow(rows, pairs, INDEPENDENT), rows, mask, off_edge)
    if not rough.solid.any():
        return rough
    tree = phase_tree(rough.samples[rough.solid])
    phases = rough.chips(tree.cut(tree.suggested))
    labels = rough.labels.copy()
    for phase in range(tree.suggested):
        inside = phases == phase
        if np.count_nonzero(inside) < _LEAST_ROUGH:
            continue
        own = neighbour_whitening(np.asarray(features, np.float64), shape, inside).apply(features, inside)
        own[inside] -= own[inside].mean(axis=0)
        within = pairs[inside[pairs].all(axis=1)]
        labels[inside] = len(mask) * (phase + 1) + grow(own, within)[inside]  # numbers that no other phase has
    return _regions(labels, rows, mask, off_edge)


def _regions(labels: Labels, rows: Floats, mask: Mask, off_edge: Mask) -> Regions:
    """Return the regions of (N,) labels, numbered anew; those with enough chips off the edges are solid."""
    numbered = np.full(len(mask), -1)
    numbered[mask] = np.unique(labels[mask], return_inverse=True)[1].ravel()
    samples = Samples.of(rows[mask], numbered[mask])
    inner = np.bincount(numbered[mask], off_edge[mask])
    solid = (inner >= _LEAST) & (inner > _INNER * samples.count)
    small = np.argsort(np.where(solid, -samples.count, np.inf), kind="stable")[_MOST:]
    solid[small] = False
    return Regions(numbered, rows, samples, solid)


def grow(rows: Floats, pairs: NDArray[np.intp], independent: float = 1.0) -> Labels:
    """Join neighbours round by round; see the top of this module.

    Parameters
    ----------
    rows : (N, D) float64
        Whitened, centred features.
    pairs : (P, 2)
        Neighbouring chips.
    independent : float
        What a chip counts.

    Returns
    -------
    (N,) int
        The region of each chip, named by its first one; a chip in no pair is a region of its own.
    """
    from livestem.stages.growth import grown  # loads Numba: only when asked for

    into = np.arange(len(rows))
    members, ends = np.unique(np.asarray(pairs, np.intp), return_inverse=True)
    samples = Samples.singles(rows[members])
    known = Evidence.among(samples, independent).known
    into[members] = members[grown(samples.gram, np.sort(ends.reshape(-1, 2), axis=1), known)]
    return into


def edges(mixing: Floats, shape: tuple[int, int], valid: Mask) -> Mask:
    """Return (N,) which chips lie between chips that differ by more than noise.

    Parameters
    ----------
    mixing : (N, M) float64
        Whitened features that mix linearly.
    shape : (rows, cols)
    valid : (N,) bool
        A chip without data is compared with nothing.
    """
    from scipy.stats import chi2

    padded = np.pad(mixing.reshape(*shape, -1), ((1, 1), (1, 1), (0, 0)), mode="edge")
    there = np.pad(valid.reshape(shape), 1, mode="edge")
    rows, cols = shape
    furthest = np.zeros(shape)
    for dy, dx in _ACROSS:
        ahead = np.s_[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + cols]
        behind = np.s_[1 - dy : 1 - dy + rows, 1 - dx : 1 - dx + cols]
        squared = ((padded[ahead] - padded[behind]) ** 2).sum(axis=-1) / 2  # of two chips' noise: chi-square
        furthest = np.maximum(furthest, np.where(there[ahead] & there[behind], squared, 0.0))
    return np.asarray((furthest > chi2.ppf(_ONCE_IN, mixing.shape[1])).ravel() & valid)
