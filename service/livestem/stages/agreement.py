"""Label maps as partitions of the chips: how they are numbered, and how far two of them agree.

The names of labels carry no meaning here: two maps agree fully if they draw the same borders. So labels are
numbered by first appearance (row-major), which makes equal partitions equal arrays, and agreement is the
adjusted mutual information (AMI): 1 for equal partitions, about 0 for independent ones, whatever the
numbers of labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError

_MOST_LABELS = int(np.iinfo(np.int16).max)
_MEASURED = (
    "haadf",
    "eds",
    "atomic",
    "lines",
)  # the order of the paper's table: image, spectra, what they say


def number_by_appearance(labels: NDArray[np.integer[Any]], valid: NDArray[np.bool_] | None = None) -> NDArray[np.int16]:
    """Renumber labels 0, 1, ... in the order in which they first appear, row-major; negative ones become -1.

    Parameters
    ----------
    labels : any shape, int
        Labels; with `valid`, those of the valid chips only, (V,).
    valid : (N,) bool, optional
        The chips that the labels belong to: the result is (N,), -1 elsewhere.

    Returns
    -------
    int16
        The same partition.

    Raises
    ------
    StageError
        If there are more labels than an int16 map can hold.
    """
    flat = np.asarray(labels).ravel()
    known = flat >= 0
    values, first, inverse = np.unique(flat[known], return_index=True, return_inverse=True)
    if len(values) > _MOST_LABELS:
        raise StageError(f"{len(values)} labels do not fit into a label map; use larger chips")
    rank = np.empty(len(values), np.int16)
    rank[np.argsort(first)] = np.arange(len(values), dtype=np.int16)
    named = np.full(flat.shape, -1, np.int16)
    named[known] = rank[inverse.ravel()]
    if valid is None:
        return named.reshape(np.shape(labels))
    out = np.full(valid.shape, -1, np.int16)
    out[valid] = named
    return out


def ami(a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]]) -> float | None:
    """Return the adjusted mutual information of two label maps over the chips labelled in both.

    Parameters
    ----------
    a, b : int, same shape
        Label maps; negative marks a chip without data.

    Returns
    -------
    float or None
        At most 1; None if fewer than two chips are labelled in both. Two maps of one label each agree fully
        (1), scikit-learn's convention.

    Raises
    ------
    StageError
        If the maps differ in shape.

    References
    ----------
    .. [1] N. X. Vinh, J. Epps and J. Bailey, J. Mach. Learn. Res. 11 (2010) 2837.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    a, b = labelled_in_both(a, b)
    return min(float(adjusted_mutual_info_score(a, b)), 1.0) if a.size > 1 else None


def labelled_in_both(
    a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """Return the labels (N,) of the chips that both label maps know, from each.

    Raises
    ------
    StageError
        If the maps differ in shape.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise StageError(f"label maps of {a.shape} and {b.shape} chips cannot be compared; use one grid")
    both = (a >= 0) & (b >= 0)
    return a[both], b[both]


def pairwise(maps: Mapping[str, NDArray[np.integer[Any]]]) -> dict[str, float | None]:
    """Agreement of every pair of label maps that one method made.

    Parameters
    ----------
    maps : mapping
        Modality or ensemble (``haadf``, ``lines``, ``haadf+lines``) -> label map.

    Returns
    -------
    dict
        ``"haadf-lines": AMI``, whatever the order of `maps`: modalities before ensembles, modalities as
        haadf, eds, atomic, lines, then others by name; ensembles by their number of parts, then by their
        parts' order. None where one of the two tells nothing apart: a single label agrees with everything, by no
        merit of its own.

    Raises
    ------
    StageError
        If the maps differ in shape.
    """
    found = {}
    for a, b in combinations(sorted(maps, key=_place), 2):
        told = all(len(np.unique(labels)) > 1 for labels in labelled_in_both(maps[a], maps[b]))
        found[f"{a}-{b}"] = ami(maps[a], maps[b]) if told else None
    return found


def _place(modality: str) -> tuple[int, list[tuple[int, str]]]:
    parts = modality.split("+")
    return len(parts), [(_MEASURED.index(p) if p in _MEASURED else len(_MEASURED), p) for p in parts]
