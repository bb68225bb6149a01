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

How it is computed
------------------
All that counts of a sample is the Gram matrix of its rows with a one appended, ``sum [x 1]^T [x 1]``: joining samples
is adding these. With the prior on its diagonal its determinant is that of the scatter about the mean, times the weight
of the mean: one Cholesky factor of D + 1 columns is all that a pair of samples costs. What depends on the number of
rows alone is looked up.

References
----------
.. [1] K. P. Murphy, Conjugate Bayesian analysis of the Gaussian distribution (2007), section 9.
.. [2] C. Fraley, SIAM J. Sci. Comput. 20 (1998) 270 (agglomeration by the likelihood of normal clusters).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livestem.stages.rows import Floats

_MEAN_PRIOR = 0.01  # of one observation: means of phases lie some ten noises about the field's mean
_MORE_FREEDOM = 2  # degrees beyond the columns: the weakest prior whose covariance has a mean
INDEPENDENT = 0.5
"""What a chip counts beside its neighbours: descriptors are taken from windows of twice its side."""
_BLOCK = 256  # pairs at a time: half a megabyte for sixteen columns stays in a core's own cache


@dataclass(frozen=True, eq=False)
class Samples:
    """What is kept of R samples of rows: enough to join any two.

    Attributes
    ----------
    gram : (R, D + 1, D + 1) sums of products of the rows' columns, the last of which is one
    """

    gram: Floats

    @classmethod
    def of(cls, rows: Floats, labels: NDArray[np.integer[Any]]) -> Samples:
        """Return the samples of (V, D) rows by label 0 .. R - 1, of which each occurs."""
        ordered = _with_one(rows)[np.argsort(labels, kind="stable")]
        ends = np.cumsum(np.bincount(labels))
        begins = np.concatenate([[0], ends[:-1]])
        return cls(np.stack([ordered[a:b].T @ ordered[a:b] for a, b in zip(begins, ends, strict=True)]))

    @classmethod
    def singles(cls, rows: Floats) -> Samples:
        """Return every row as a sample of its own."""
        one = _with_one(rows)
        return cls(one[:, :, None] * one[:, None, :])

    @property
    def count(self) -> NDArray[np.intp]:
        """(R,) rows of each."""
        return np.rint(self.gram[:, -1, -1]).astype(np.intp)

    @property
    def width(self) -> int:
        """Columns, D."""
        return int(self.gram.shape[1]) - 1

    def __len__(self) -> int:
        return len(self.gram)

    def __getitem__(self, which: Any) -> Samples:
        return Samples(self.gram[which])

    def join(self, into: Any, others: Any) -> None:
        """Add some samples to others, in place."""
        self.gram[into] += self.gram[others]


def _with_one(rows: Floats) -> Floats:
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


class Known(NamedTuple):
    """What the evidence of a sample needs to know beside its Gram matrix G of n rows and one.

    It is ``rest[n] - half_after[n] log det(independent G + diag(prior))``.

    Attributes
    ----------
    independent : what a row counts
    prior : (D + 1,)
    rest, half_after : (most + 1,) by the number of rows
    """

    independent: float
    prior: Floats
    rest: Floats
    half_after: Floats


class Evidence:
    """The log evidence of samples of some width; what depends on their number of rows alone is computed once.

    Parameters
    ----------
    width : int
        Columns, D.
    most : int
        Rows of the largest sample, of all together for instance.
    independent : float
        What a row counts, 0 < independent <= 1.
    """

    def __init__(self, width: int, most: int, independent: float = 1.0) -> None:
        from scipy.special import gammaln

        n = np.arange(most + 1) * independent
        freedom, weight = width + _MORE_FREEDOM, _MEAN_PRIOR + n
        after = freedom + n

        def log_gamma(degrees: NDArray[np.floating[Any]]) -> Floats:  # of D dimensions, but for a factor that cancels
            return np.asarray(gammaln((degrees[:, None] - np.arange(width)) / 2).sum(axis=1))

        # The prior covariance is one in every direction; its matrix is that times (freedom - width - 1) = 1.
        prior = np.array([_MORE_FREEDOM - 1.0] * width + [_MEAN_PRIOR])
        rest = (
            log_gamma(after)
            - log_gamma(np.full(1, float(freedom)))
            - n * width / 2 * np.log(np.pi)
            + width / 2 * (np.log(_MEAN_PRIOR) - np.log(weight))
            + after / 2 * np.log(weight)  # of the mean, which the determinant has beside the scatter
        )
        self.known = Known(float(independent), prior, rest, after / 2)

    @classmethod
    def among(cls, samples: Samples, independent: float = 1.0) -> Evidence:
        """Return the evidence for some samples, and whatever is joined of them."""
        return cls(samples.width, int(samples.count.sum()), independent)

    def of(self, samples: Samples) -> Floats:
        """Return (R,) log evidence that each sample is of one phase, nats; rows whitened, and centred on the field."""
        starts = range(0, len(samples), _BLOCK)
        return np.concatenate([self._of(samples.gram[a : a + _BLOCK]) for a in starts] or [np.zeros(0)])

    def gains(self, samples: Samples, alone: Floats, pairs: NDArray[np.intp]) -> Floats:
        """Return (P,) what joining each pair of samples gains, nats.

        Parameters
        ----------
        samples : R samples
        alone : (R,) the log evidence of each
        pairs : (P, 2) numbers of samples
        """
        joined = np.empty(len(pairs))
        for start in range(0, len(pairs), _BLOCK):
            first, second = pairs[start : start + _BLOCK].T
            gram = samples.gram[first]
            gram += samples.gram[second]
            joined[start : start + _BLOCK] = self._of(gram)
        return np.asarray(joined - alone[pairs[:, 0]] - alone[pairs[:, 1]])

    def _of(self, gram: Floats) -> Floats:
        known, count = self.known, np.rint(gram[:, -1, -1]).astype(np.intp)
        factor = np.linalg.cholesky(gram * known.independent + np.diag(known.prior))  # positive definite, by the prior
        log_determinant = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        return np.asarray(known.rest[count] - known.half_after[count] * log_determinant)
