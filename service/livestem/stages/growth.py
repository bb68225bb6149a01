"""The rounds in which neighbours are joined to regions (`regions.grow`), compiled.

A field of 2601 chips takes some three hundred of them, most with a few joins only: as steps of arrays they cost more
to call than to compute.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livestem.stages.compiled import compiled
from livestem.stages.evidence import Known
from livestem.stages.rows import Floats

Edges = NDArray[np.intp]


@compiled
def grown(gram: Floats, edge: Edges, known: Known) -> Edges:
    """Join neighbours round by round; return (N,) the row that each has gone into, or itself.

    Parameters
    ----------
    gram : (N, D + 1, D + 1)
        Of single rows (`evidence.Samples`); joined in place.
    edge : (P, 2)
        Neighbours, the smaller number first; used up.
    known : Known
    """
    count, width = len(gram), gram.shape[1]
    into, alone, gain = np.arange(count), np.empty(count), np.empty(len(edge))
    factor = np.empty((count, width, width))
    changed = np.ones(count, np.bool_)
    for i in range(count):
        alone[i] = _evidence(gram[i], gram[i], 0.0, known, factor[i])
    left = len(edge)
    while True:
        left = _renewed(edge, gain, left, into, changed, gram, alone, factor, known)
        joins = _mutual(edge, gain, left, count)
        if len(joins) == 0:
            break
        for i in range(count):
            changed[i] = False
        for i in joins:
            a, b = edge[i, 0], edge[i, 1]
            into[b] = a
            changed[a] = True
            for k in range(width):
                for j in range(width):
                    gram[a, k, j] += gram[b, k, j]
            alone[a] = _evidence(gram[a], gram[a], 0.0, known, factor[a])
    for i in range(count):  # who has gone into another has gone into an earlier one
        into[i] = into[into[i]]
    return into


@compiled
def _renewed(edge, gain, left, into, changed, gram, alone, factor, known):
    """Bring the first `left` edges up to date, in place; return how many are left: none within a region, no doubles."""
    count, kept, last = len(gram), 0, gram.shape[1] - 1
    size = 16
    while size < 2 * left:
        size *= 2
    seen = np.full(size, -1, np.int64)  # a table of the changed edges by their ends
    work = np.empty((last + 1, last + 1))
    for i in range(left):
        a, b = into[edge[i, 0]], into[edge[i, 1]]
        if a == b:
            continue
        if a > b:
            a, b = b, a
        if not (changed[a] or changed[b]):
            edge[kept, 0], edge[kept, 1], gain[kept] = a, b, gain[i]
            kept += 1
            continue
        key = a * count + b
        place = (key * 40503) % size
        while seen[place] >= 0 and seen[place] != key:
            place = (place + 1) % size
        if seen[place] == key:
            continue
        seen[place] = key
        if gram[b, last, last] == 1:
            joined = _evidence_with(gram[a, last, last], factor[a], gram[b, last], known, work[0])
        elif gram[a, last, last] == 1:
            joined = _evidence_with(gram[b, last, last], factor[b], gram[a, last], known, work[0])
        else:
            joined = _evidence(gram[a], gram[b], 1.0, known, work)
        edge[kept, 0], edge[kept, 1], gain[kept] = a, b, joined - alone[a] - alone[b]
        kept += 1
    return kept


@compiled
def _mutual(edge, gain, left, count):
    """Return the edges that gain and that both their ends like best; of equals the first, each end once."""
    best = np.full(count, -np.inf)
    for i in range(left):
        a, b = edge[i, 0], edge[i, 1]
        if gain[i] > best[a]:
            best[a] = gain[i]
        if gain[i] > best[b]:
            best[b] = gain[i]
    liked, many = np.empty(count, np.int64), 0
    for i in range(left):
        a, b = edge[i, 0], edge[i, 1]
        if gain[i] > 0 and gain[i] >= best[a] and gain[i] >= best[b]:
            best[a] = best[b] = np.inf  # taken
            liked[many] = i
            many += 1
    return liked[:many]


@compiled
def _evidence(a, b, times, known, factor):
    """Return the log evidence of the sample ``a + times b``, and leave its upper Cholesky factor, diagonal inverted."""
    size = len(factor)
    for k in range(size):
        for j in range(k, size):
            factor[k, j] = (a[k, j] + times * b[k, j]) * known.independent
        factor[k, k] += known.prior[k]
    determinant, log_determinant = 1.0, 0.0
    for k in range(size):
        determinant *= factor[k, k]
        if not 1e-100 < determinant < 1e100:
            log_determinant += np.log(determinant)
            determinant = 1.0
        scale = 1 / np.sqrt(factor[k, k])
        factor[k, k] = scale
        for j in range(k + 1, size):
            factor[k, j] *= scale
        for i in range(k + 1, size):
            share = factor[k, i]
            for j in range(i, size):
                factor[i, j] -= share * factor[k, j]
    n = int(np.rint(a[size - 1, size - 1] + times * b[size - 1, size - 1]))
    return known.rest[n] - known.half_after[n] * (log_determinant + np.log(determinant))


@compiled
def _evidence_with(rows, factor, row, known, work):
    """Return the log evidence of a sample joined with one row, from the factor of the sample."""
    size = len(row)
    for k in range(size):
        work[k] = row[k]
    length, determinant, log_determinant = 0.0, 1.0, 0.0
    for k in range(size):
        y = work[k] * factor[k, k]
        length += y * y
        determinant *= factor[k, k]
        if not 1e-100 < determinant < 1e100:
            log_determinant += np.log(determinant)
            determinant = 1.0
        for j in range(k + 1, size):
            work[j] -= y * factor[k, j]
    n = int(np.rint(rows)) + 1
    log_determinant = np.log1p(known.independent * length) - 2 * (np.log(determinant) + log_determinant)
    return known.rest[n] - known.half_after[n] * log_determinant
