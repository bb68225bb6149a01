"""How much data speak for one phase rather than two: the evidence of normal samples of unknown mean and covariance.

Theory
------
The rows of one phase are normal; nothing is known of its mean, and of its covariance only about what it is (one in
every direction, in whitened features). Integrating both out leaves the *evidence* of a sample, in closed form [1]_:
how likely these rows are if they are of one phase, whichever that be. The gain of joining two samples, ::

    log p(A and B) - log p(A) - log p(B)

is a Bayes factor. Where it is negative they are better told as two phases: no threshold is to be tuned, and how
differently two samples scatter counts as much as how far apart they are. With covariances all equal and known, joining
the pair of the largest gain is Ward's method; this is its form for covariances that are neither [2]_.

Neighbouring chips share what their windows share, so N chips are fewer than N independent ones: every row counts as
`independent` of one.

References
----------
.. [1] K. P. Murphy, Conjugate Bayesian analysis of the Gaussian distribution (2007), section 9.
.. [2] C. Fraley, SIAM J. Sci. Comput. 20 (1998) 270 (agglomeration by the likelihood of normal clusters).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.stages.rows import Floats

_MEAN_PRIOR = 0.01  # of one observation: means of phases lie some ten noises about the field's mean
_MORE_FREEDOM = 2  # degrees beyond the columns: the weakest prior whose covariance has a mean
INDEPENDENT = 0.5
"""What a chip counts beside its neighbours: descriptors are taken from windows of twice its side."""
_BLOCK = 1024  # pairs at a time: tens of megabytes for thirty columns


@dataclass(frozen=True, eq=False)
class Samples:
    """What is kept of R samples of rows: enough to join any two.

    Attributes
    ----------
    count : (R,) rows
    mean : (R, D)
    spread : (R, D, D) sums of squares and products about the mean
    """

    count: Floats
    mean: Floats
    spread: Floats

    @classmethod
    def of(cls, rows: Floats, labels: NDArray[np.integer[Any]]) -> Samples:
        """Return the samples of (V, D) rows by label 0 .. R - 1, of which each occurs."""
        count = np.bincount(labels).astype(np.float64)
        mean = np.stack([np.bincount(labels, column) for column in rows.T], axis=1) / count[:, None]
        away = rows - mean[labels]
        spread = np.zeros((len(count), rows.shape[1], rows.shape[1]))
        for label in range(len(count)):
            mine = away[labels == label]
            spread[label] = mine.T @ mine
        return cls(count, mean, spread)

    @classmethod
    def singles(cls, rows: Floats) -> Samples:
        """Return every row as a sample of its own."""
        return cls(np.ones(len(rows)), rows.copy(), np.zeros((len(rows), rows.shape[1], rows.shape[1])))

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, which: Any) -> Samples:
        return Samples(self.count[which], self.mean[which], self.spread[which])

    def put(self, where: Any, others: Samples) -> None:
        """Replace some samples, in place."""
        self.count[where], self.mean[where], self.spread[where] = others.count, others.mean, others.spread

    def joined(self, other: Samples) -> Samples:
        """Return the samples joined one by one."""
        count = self.count + other.count
        between = self.mean - other.mean
        mean = (self.count[:, None] * self.mean + other.count[:, None] * other.mean) / count[:, None]
        weight = (self.count * other.count / count)[:, None, None]
        spread = self.spread + other.spread + weight * between[:, :, None] * between[:, None, :]
        return Samples(count, mean, spread)


def log_evidence(samples: Samples, independent: float = 1.0) -> Floats:
    """Return (R,) log evidence that each sample is of one phase, nats.

    Parameters
    ----------
    samples : Samples
        Of whitened rows, centred on the field's mean.
    independent : float
        What a row counts, 0 < independent <= 1.
    """
    from scipy.special import gammaln, multigammaln

    width = samples.mean.shape[1]
    n = samples.count * independent
    freedom = width + _MORE_FREEDOM
    after = freedom + n
    weight = _MEAN_PRIOR + n
    scatter = samples.spread * independent
    scatter += (_MEAN_PRIOR * n / weight)[:, None, None] * samples.mean[:, :, None] * samples.mean[:, None, :]
    # The prior covariance is one in every direction; its matrix is that times (freedom - width - 1) = 1.
    scatter[:, range(width), range(width)] += _MORE_FREEDOM - 1
    gammas = gammaln((after[:, None] - np.arange(width)) / 2).sum(axis=1) + width * (width - 1) / 4 * np.log(np.pi)
    return np.asarray(
        gammas
        - multigammaln(freedom / 2, width)
        - n * width / 2 * np.log(np.pi)
        - after / 2 * np.linalg.slogdet(scatter)[1]
        + width / 2 * (np.log(_MEAN_PRIOR) - np.log(weight))
    )


def gains(samples: Samples, evidence: Floats, pairs: NDArray[np.intp], independent: float = 1.0) -> Floats:
    """Return (P,) what joining each pair of samples gains, nats.

    Parameters
    ----------
    samples, evidence : R samples and their log evidence
    pairs : (P, 2) numbers of samples
    independent : float
        As in `log_evidence`.
    """
    out = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        a, b = pairs[start : start + _BLOCK].T
        joined = log_evidence(samples[a].joined(samples[b]), independent)
        out[start : start + _BLOCK] = joined - evidence[a] - evidence[b]
    return out
