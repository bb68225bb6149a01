"""Clusters of very many chips, of which a sample answers for all.

Pairs of chips are too many from some ten thousand chips on. So a random sample of them is clustered as all would be,
threshold and number of clusters included, and then every other chip goes where it would have gone:

=============  ==================================================================================================
of the sample  every other chip
=============  ==================================================================================================
Ward's tree    joins the cluster of the nearest mean
communities    joins the community where it raises modularity most, by its edges to the sample: Louvain's own move;
               without an edge, that of the chip of the sample which it resembles most
=============  ==================================================================================================

Chips are taken block by block, so that memory grows with the chips and not with their pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.stages.agreement import number_by_appearance
from livestem.stages.features import unit_rows
from livestem.stages.louvain import Communities, Weights
from livestem.stages.louvain_matrix import merged
from livestem.stages.rows import Mask, valid_rows

_BLOCK = 2048  # chips at a time: 134 MB of similarities to a sample of 8192, 66 MB of spectra of 4096 channels

Chips = NDArray[np.intp]


def sample(valid: Mask, most: int, seed: int) -> Chips:
    """Choose chips at random.

    Parameters
    ----------
    valid : (N,) bool
        Chips with data.
    most : int
        How many are chosen; all with data if they are no more.
    seed : int

    Returns
    -------
    (S,) int
        Chip numbers, rising.
    """
    chips = np.flatnonzero(valid)
    if len(chips) <= most:
        return chips
    return np.sort(np.random.default_rng(seed).choice(chips, most, replace=False))


def to_nearest_means(
    x: NDArray[Any], valid: Mask, chosen: Chips, labels: NDArray[np.integer[Any]]
) -> NDArray[np.int16]:
    """Give every chip the cluster of the nearest mean; those of the sample keep theirs.

    Parameters
    ----------
    x : (N, D) real
        One row per chip.
    valid : (N,) bool
        Chips with data.
    chosen : (S,) chips of the sample
    labels : (S,) their clusters 0 .. C - 1, of which each occurs

    Returns
    -------
    (N,) int16
        By first appearance; -1 for chips without data.

    Raises
    ------
    StageError
        If a row is not finite.
    """
    rows, _ = valid_rows(x[chosen], None)
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(int(labels.max()) + 1)])
    centre = means.mean(axis=0)  # far from the origin a matrix product cancels
    means -= centre
    square = (means**2).sum(axis=1)
    found = np.full(len(valid), -1)
    for chips in _blocks(np.flatnonzero(valid)):
        block, _ = valid_rows(x[chips], None)
        found[chips] = (square - 2.0 * ((block - centre) @ means.T)).argmin(axis=1)
    found[chosen] = labels
    return number_by_appearance(found)


def to_communities(
    parts: Sequence[NDArray[Any]], valid: Mask, chosen: Chips, of_sample: Communities, weights: Weights
) -> NDArray[np.int16]:
    """Give every chip a community of the sample's; see the top of this module.

    Parameters
    ----------
    parts : sequence of (N, D_m) real
        The rows of each modality; their similarities are averaged.
    valid : (N,) bool
        Chips with data in all of them.
    chosen : (S,) chips of the sample
    of_sample : Communities
        Of these chips, in their order.
    weights : "similarity" or "binary"
        What an edge weighs.

    Returns
    -------
    (N,) int16
        By first appearance; -1 for chips without data.

    Raises
    ------
    StageError
        If a row is not finite.
    """
    labels = of_sample.labels.astype(np.int64)
    units = [_units(part, chosen) for part in parts]

    def joined(chips: Chips) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        similarity = np.zeros((len(chosen), len(chips)), np.float32)
        for unit, part in zip(units, parts, strict=True):
            similarity += unit @ _units(part, chips).T
        similarity /= len(parts)
        edge = similarity >= of_sample.threshold
        weight = edge if weights == "binary" else edge * np.maximum(similarity, 0)
        return similarity, np.asarray(weight, np.float32)

    degree = np.zeros(len(chosen))
    for places in _blocks(np.arange(len(chosen))):
        edges = joined(chosen[places])[1]
        edges[places, np.arange(len(places))] = 0.0  # no chip is joined to itself
        degree[places] = edges.sum(axis=0, dtype=np.float64)
    share = np.bincount(labels, degree) / max(float(degree.sum()), np.finfo(np.float64).tiny)
    found = np.full(len(valid), -1)
    for chips in _blocks(np.flatnonzero(valid)):
        similarity, edges = joined(chips)
        to = merged(edges, labels)
        gain = to - share[:, None] * to.sum(axis=0)
        found[chips] = np.where(to.any(axis=0), gain.argmax(axis=0), labels[similarity.argmax(axis=0)])
    found[chosen] = labels
    return number_by_appearance(found)


def _units(x: NDArray[Any], chips: Chips) -> NDArray[np.float32]:
    """Return the rows of some chips, of length one: half the memory and the time, and seven digits are enough here."""
    return unit_rows(x[chips]).astype(np.float32)


def _blocks(chips: Chips) -> Iterator[Chips]:
    return (chips[start : start + _BLOCK] for start in range(0, len(chips), _BLOCK))
