"""The rounds in which neighbours are joined to regions (`regions.grow`), compiled.

A field of 2601 chips takes some three hundred of them, most with a few joins only: as steps of arrays they cost more
to call than to compute. Late in the growth nearly all edges are of a large region and the single chips around it: one
Cholesky factor serves a region and all of these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livestem.stages.compiled import compiled
from livestem.stages.evidence import Known
from livestem.stages.rows import Floats, Mask

Numbers = NDArray[np.intp]


class _Field(NamedTuple):
    """N rows on their way into regions; a region goes by the number of its first row.

    Attributes
    ----------
    gram : (N, D + 1, D + 1) of every region
    factor : (N, D + 1, D + 1) its upper Cholesky factor, with the inverse on the diagonal
    log_det, alone : (N,) log determinant of the factor's matrix, log evidence
    into : (N,) what each row was joined to, or itself
    changed : (N,) bool; whether the last round changed it
    """

    gram: Floats
    factor: Floats
    log_det: Floats
    alone: Floats
    into: Numbers
    changed: Mask


@compiled
def grown(gram: Floats, edge: Numbers, known: Known) -> Numbers:
    """Join neighbours round by round; return (N,) the first row of the region that each has come to.

    Parameters
    ----------
    gram : (N, D + 1, D + 1)
        Of single rows (`evidence.Samples`); joined in place.
    edge : (P, 2)
        Neighbours, the smaller number first; used up.
    known : Known
    """
    count, width = len(gram), gram.shape[1]
    field = _Field(
        gram, np.empty_like(gram), np.empty(count), np.empty(count), np.arange(count), np.ones(count, np.bool_)
    )
    for region in range(count):
        _weigh(field, region, known)
    gain, left = np.empty(len(edge)), len(edge)
    while True:
        left = _renewed(field, edge, gain, left, known)
        chosen = _mutual(edge, gain, left, count)
        if len(chosen) == 0:
            break
        for region in range(count):
            field.changed[region] = False
        for i in chosen:
            a, b = edge[i, 0], edge[i, 1]
            for k in range(width):
                for j in range(width):
                    gram[a, k, j] += gram[b, k, j]
            field.into[b], field.changed[a] = a, True
            _weigh(field, a, known)
    into = field.into
    for row in range(count):  # who was joined to another was joined to an earlier one
        into[row] = into[into[row]]
    return into


@compiled
def _renewed(field: _Field, edge: Numbers, gain: Floats, left: int, known: Known) -> int:
    """Bring the first `left` edges up to date, in place; return how many are left: none within a region, no doubles."""
    size = 16
    while size < 2 * left:
        size *= 2
    seen = np.full(size, -1, np.int64)
    into, changed, alone = field.into, field.changed, field.alone
    gram, factor, log_det = field.gram, field.factor, field.log_det
    work, kept = np.empty_like(field.gram[0]), 0
    for i in range(left):
        a, b = into[edge[i, 0]], into[edge[i, 1]]
        if a == b:
            continue
        if a > b:
            a, b = b, a
        new = gain[i]
        if changed[a] or changed[b]:
            if _met(seen, a * len(into) + b):
                continue
            new = _joined(gram, factor, log_det, a, b, known, work) - alone[a] - alone[b]
        edge[kept, 0], edge[kept, 1], gain[kept] = a, b, new
        kept += 1
    return kept


@compiled
def _met(seen: Numbers, key: int) -> bool:
    """Return whether a table holds a key, which it does from now on; it is never more than half full."""
    place = (key * 40503) & (len(seen) - 1)
    while seen[place] >= 0 and seen[place] != key:
        place = (place + 1) & (len(seen) - 1)
    if seen[place] == key:
        return True
    seen[place] = key
    return False


@compiled
def _mutual(edge: Numbers, gain: Floats, left: int, count: int) -> Numbers:
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
def _weigh(field: _Field, region: int, known: Known) -> None:
    """Take down what joining a region needs."""
    gram, factor = field.gram[region], field.factor[region]
    for k in range(len(gram)):
        for j in range(len(gram)):
            factor[k, j] = gram[k, j]
    field.log_det[region] = _factorise(factor, known)
    field.alone[region] = _evidence(gram[-1, -1], field.log_det[region], known)


@compiled
def _joined(gram: Floats, factor: Floats, log_det: Floats, a: int, b: int, known: Known, work: Floats) -> float:
    """Return the log evidence of two regions joined; `work` is (D + 1, D + 1), and overwritten."""
    in_a, in_b = gram[a, -1, -1], gram[b, -1, -1]
    if in_b == 1:
        found = log_det[a] + _added(factor[a], gram[b, -1], known, work[0])
    elif in_a == 1:
        found = log_det[b] + _added(factor[b], gram[a, -1], known, work[0])
    else:
        _sum(work, gram[a], gram[b])
        found = _factorise(work, known)
    return _evidence(in_a + in_b, found, known)


@compiled
def _evidence(rows: float, log_det: float, known: Known) -> float:
    count = int(np.rint(rows))
    evidence: float = known.rest[count] - known.half_after[count] * log_det
    return evidence


@compiled
def _factorise(gram: Floats, known: Known) -> float:
    """Return the log determinant of a Gram matrix with the prior, and leave its factor in the upper triangle."""
    size = len(gram)
    for k in range(size):
        for j in range(k, size):
            gram[k, j] *= known.independent
        gram[k, k] += known.prior[k]
    determinant, log_det = 1.0, 0.0
    for k in range(size):
        determinant *= gram[k, k]
        if not 1e-100 < determinant < 1e100:  # a logarithm takes as long as ten products
            log_det += np.log(determinant)
            determinant = 1.0
        inverse = 1 / np.sqrt(gram[k, k])
        gram[k, k] = inverse
        for j in range(k + 1, size):
            gram[k, j] *= inverse
        for i in range(k + 1, size):
            share = gram[k, i]
            for j in range(i, size):
                gram[i, j] -= share * gram[k, j]
    return log_det + float(np.log(determinant))


@compiled
def _added(factor: Floats, row: Floats, known: Known, work: Floats) -> float:
    """Return what one more row adds to the log determinant of a sample (the determinant lemma); (D + 1,) `work`."""
    size, length = len(row), 0.0
    for k in range(size):
        work[k] = row[k]
    for k in range(size):
        solved = work[k] * factor[k, k]
        length += solved * solved
        for j in range(k + 1, size):
            work[j] -= solved * factor[k, j]
    return float(np.log1p(known.independent * length))


@compiled
def _sum(to: Floats, a: Floats, b: Floats) -> None:
    """Write the upper triangle of a sum."""
    for k in range(len(to)):
        for j in range(k, len(to)):
            to[k, j] = a[k, j] + b[k, j]
