"""From regions to phases, by the evidence (`evidence`), in two ways. Neither has a threshold to tune.

Tree
    Any two regions, near or far, are joined, the pair of the largest gain first. Cut at k phases; where nobody says k,
    joining stops when it would clearly lose. With equal, known covariances this is Ward's method on regions; as it
    stands it is its form for phases that differ in how they scatter as well [1]_.
Communities
    Regions are nodes; an edge weighs the probability that its two regions are one phase, times the chips on both sides,
    so that a region counts as the complete graph of its chips; Louvain finds communities. Modularity cannot see
    communities that are small beside the whole graph [2]_, and parts a graph that is nearly all one. So each community
    is searched for communities of its own as long as the evidence tells them apart, and those that it does not tell
    apart are joined again.

References
----------
.. [1] C. Fraley, SIAM J. Sci. Comput. 20 (1998) 270.
.. [2] S. Fortunato and M. Barthelemy, Proc. Natl. Acad. Sci. 104 (2007) 36: the resolution limit, and its remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError
from livestem.stages.evidence import INDEPENDENT, Evidence, Samples
from livestem.stages.louvain_graph import modularity, partition
from livestem.stages.rows import Floats

_CAUTION = 10.0  # nats that count as none: the rows that judge regions are those they were grown on


@dataclass(frozen=True, eq=False)
class PhaseTree:
    """R regions joined step by step.

    Attributes
    ----------
    samples : of the R regions, before any join
    pair_gain : (R, R) what joining each two of them would gain, nats, above the diagonal; minus infinity elsewhere
    joins : (R - 1, 2) regions; the second goes into the first
    gain : (R - 1,) what each join gained, nats
    """

    samples: Samples
    pair_gain: Floats
    joins: NDArray[np.intp]
    gain: Floats

    @property
    def regions(self) -> int:
        """Number of regions joined."""
        return len(self.joins) + 1

    @property
    def suggested(self) -> int:
        """Number of phases at which every join would clearly lose, 1 .. R."""
        return 1 + int(np.count_nonzero(self.gain < -_CAUTION))

    def cut(self, phases: int) -> NDArray[np.int64]:
        """Return (R,) the phase of every region, 0 .. phases - 1.

        Raises
        ------
        StageError
            If `phases` is outside 1 .. R.
        """
        if not 1 <= phases <= self.regions:
            raise StageError(f"{phases} phases of {self.regions} regions are impossible; ask for 1 to {self.regions}")
        into = np.arange(self.regions)
        for first, second in self.joins[: self.regions - phases]:
            into[into == second] = first
        return np.unique(into, return_inverse=True)[1].ravel().astype(np.int64)


def phase_tree(samples: Samples) -> PhaseTree:
    """Join regions until one is left, the pair of the largest gain first; of equals the first.

    Parameters
    ----------
    samples : Samples
        Of R >= 1 regions, of whitened, centred rows.
    """
    joined, count = samples[np.arange(len(samples))], len(samples)  # a copy: joined in place
    evidence = Evidence.among(samples, INDEPENDENT)
    alone = evidence.of(joined)
    pair_gain = _all_gains(evidence, joined, alone)
    gain, best = pair_gain.copy(), pair_gain.max(axis=1)  # of each region with a later one
    joins = np.zeros((max(count - 1, 0), 2), np.intp)
    gained = np.zeros(len(joins))
    for i in range(len(joins)):
        a = int(best.argmax())
        b = int(gain[a].argmax())
        joins[i], gained[i] = (a, b), gain[a, b]
        joined.join(a, b)
        alone[a] += alone[b] + gained[i]
        anew = best == np.maximum(gain[:, a], gain[:, b])  # whose best was one of the two
        gain[b, :] = gain[:, b] = -np.inf
        others = np.flatnonzero(np.isfinite(gain[a]) | np.isfinite(gain[:, a]))
        pairs = np.stack([np.minimum(a, others), np.maximum(a, others)], axis=1)
        gain[pairs[:, 0], pairs[:, 1]] = evidence.gains(joined, alone, pairs)
        anew[[a, b]] = True
        best = np.maximum(best, gain[:, a])
        best[anew] = gain[anew].max(axis=1)
    return PhaseTree(samples, pair_gain, joins, gained)


def _all_gains(evidence: Evidence, samples: Samples, alone: Floats) -> Floats:
    """Return (R, R) what joining each pair gains, above the diagonal; minus infinity elsewhere."""
    gain = np.full((len(samples), len(samples)), -np.inf)
    pairs = np.stack(np.triu_indices(len(samples), k=1), axis=1)
    gain[pairs[:, 0], pairs[:, 1]] = evidence.gains(samples, alone, pairs)
    return gain


@dataclass(frozen=True, eq=False)
class RegionCommunities:
    """Communities of R regions.

    Attributes
    ----------
    labels : (R,) community of each region, 0, 1, ...
    modularity : of this partition of the graph of all regions
    """

    labels: NDArray[np.int64]
    modularity: float


def communities_of_regions(of: PhaseTree, seed: int = 42) -> RegionCommunities:
    """Find the communities among regions; see the top of this module.

    Parameters
    ----------
    of : PhaseTree
        Of the R regions; only what it knows of them before any join counts.
    seed : int
        Of the order in which Louvain visits nodes.
    """
    from scipy.special import expit

    samples = of.samples
    weight = expit(of.pair_gain / _CAUTION)
    weight = weight + weight.T
    np.fill_diagonal(weight, 0.5)  # the chips of a region among themselves: each pair once
    weight *= np.outer(samples.count, samples.count)
    groups = _split(samples, weight, np.arange(len(samples)), seed)
    tree = phase_tree(_joined(samples, groups))
    labels = np.zeros(len(samples), np.int64)
    for members, label in zip(groups, tree.cut(tree.suggested), strict=True):
        labels[members] = label
    return RegionCommunities(labels, modularity(weight, labels))


def _split(samples: Samples, weight: Floats, nodes: NDArray[np.intp], seed: int) -> list[NDArray[np.intp]]:
    """Return the communities of some nodes, and theirs, as long as the evidence tells them apart."""
    found = partition(weight[np.ix_(nodes, nodes)], seed)
    groups = [nodes[found == k] for k in range(int(found.max()) + 1)]
    if _evidence(samples, groups) <= _evidence(samples, [nodes]) + _CAUTION:
        return [nodes]
    return [inner for group in groups for inner in _split(samples, weight, group, seed)]


def _evidence(samples: Samples, groups: list[NDArray[np.intp]]) -> float:
    """Return the log evidence that each group is one phase."""
    return float(Evidence.among(samples, INDEPENDENT).of(_joined(samples, groups)).sum())


def _joined(samples: Samples, groups: list[NDArray[np.intp]]) -> Samples:
    """Return the groups as samples."""
    return Samples(np.stack([samples.gram[group].sum(axis=0) for group in groups]))
