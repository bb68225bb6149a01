"""Clusters of a completed scan, by Ward's method and as Louvain communities: of chips, or of regions of like chips.

Of chips, as published: every chip by itself. Of regions, by default: neighbours are grown to regions first, regions are
joined to phases by the evidence (`stages.regions`, `stages.phases`), and then every chip goes to the phase whose mean
it resembles most, chips on borders to the one they show more of. Where a scan has no region to speak of, where its
regions show one phase only (the evidence says one unless it is sure of two, and coarse maps have few chips), or more
clusters are asked for than there are regions, chips are clustered by themselves, and communities of fewer than four
are given to the nearest. Of more chips than `exact_chips` a sample of as many is clustered, and the others go where
they would have gone (`stages.sampled`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from livestem.runtime.label_map import Facts, Joined, LabelMap
from livestem.runtime.side_by_side import Once, side_by_side
from livestem.stages import ensemble, fewshot, louvain, ward
from livestem.stages.agreement import number_by_appearance
from livestem.stages.phases import PhaseTree, communities_of_regions, phase_tree
from livestem.stages.regions import Regions, find_regions
from livestem.stages.sampled import sample, to_communities, to_nearest_means

_LEAST = 4  # chips of a community where the preset merges tiny ones, as many as make a solid region
_SMALL = 4096  # chips: up to here a matrix of all their pairs is small (134 MB), and several may be there at once
_CHIPS_A_COLUMN = 10  # of the features: with fewer chips a covariance is guesswork, and everything looks like one phase

Labels = NDArray[np.int16]


class Clusters:
    """Clusters the modalities and ensembles of one scan; what several maps need is computed once.

    Parameters
    ----------
    every : sequence of Joined
        All of them.
    """

    def __init__(self, every: Sequence[Joined]) -> None:
        self._every = every
        self._single = {joined.name: joined for joined in every if len(joined.parts) == 1}
        self._once = Once()

    def ward_maps(self) -> list[LabelMap]:
        """Return Ward's clusters of each."""
        return self._each(self._ward)

    def louvain_maps(self) -> list[LabelMap]:
        """Return Louvain communities of each."""
        return self._each(self._louvain)

    def _each(self, cluster: Callable[[Joined], LabelMap]) -> list[LabelMap]:
        """Cluster each, as many at once as there are cores, unless their matrices are large: the widest first."""
        at_once = 1 if any(joined.grid.chips > _SMALL for joined in self._every) else None
        order = sorted(range(len(self._every)), key=lambda i: _turn(self._every[i]))
        found = side_by_side(cluster, [self._every[i] for i in order], at_once)
        return [found[order.index(i)] for i in range(len(order))]

    def _ward(self, joined: Joined) -> LabelMap:
        return self._once(("ward", joined.name), lambda: self._ward_of(joined))

    def _ward_of(self, joined: Joined) -> LabelMap:
        recipe = joined.parameters.recipe
        if len(joined.parts) > 1 and recipe.ensembles["ward"] == "vector":
            labels = ensemble.vector_vote(*(self._ward(self._single[p]).labels.ravel() for p in joined.parts))
            return LabelMap(joined.as_map(labels), facts=joined.way("ward"))
        support = joined.parameters.support
        wanted = joined.parameters.clusters or (len(support.names) if support else None)
        found = self._of(joined) if "ward" in recipe.regions else None
        if found is None or (wanted or 1) > found[1].regions:
            labels, facts = _ward_of_chips(joined, wanted)
        else:
            regions, tree = found
            labels = _every_chip(joined, regions.chips(tree.cut(wanted or tree.suggested)))
            facts = {"clusters": int(labels.max()) + 1, "regions": tree.regions}
        return LabelMap(joined.as_map(labels), facts=facts | {"suggested": wanted is None} | joined.way("ward"))

    def _louvain(self, joined: Joined) -> LabelMap:
        found = self._of(joined) if "louvain" in joined.parameters.recipe.regions else None
        if found is None:
            return self._louvain_of_chips(joined)
        regions, tree = found
        communities = communities_of_regions(tree, joined.parameters.seed)
        labels = _every_chip(joined, regions.chips(communities.labels))
        facts: Facts = {
            "communities": int(labels.max()) + 1,
            "modularity": communities.modularity,
            "regions": tree.regions,
        }
        return LabelMap(joined.as_map(labels), facts=facts | joined.way("louvain"))

    def _of(self, joined: Joined) -> tuple[Regions, PhaseTree] | None:
        """Return the regions of a scan and their tree; None where they show no more than one phase."""
        return self._once(("regions", joined.name), lambda: _regions_of(joined))

    def _louvain_of_chips(self, joined: Joined) -> LabelMap:
        recipe, valid = joined.parameters.recipe, joined.valid
        chosen = sample(valid, recipe.exact_chips, joined.parameters.seed)
        sampled = len(chosen) < np.count_nonzero(valid)
        # one chip is one community, and so are chips that do not differ: standardised, they have no direction either
        if not any(np.ptp(f.rows[chosen], axis=0).any() for f in joined.features):
            return LabelMap(joined.as_map(valid.astype(np.int16) - 1), facts={"communities": 1})
        mean = len(joined.parts) > 1 and recipe.ensembles["louvain"] == "mean"
        parts = [self._single[p] for p in joined.parts] if mean else [joined]
        affinities = (
            louvain.similarity_matrix(part.rows()[chosen]) if sampled else self._similarity(part) for part in parts
        )
        similarity = ensemble.mean_affinity([*affinities])
        found = louvain.communities(
            similarity,
            recipe.louvain_threshold,
            recipe.louvain_weights,
            joined.parameters.seed,
            recipe.louvain_backend,
            valid=None if sampled else valid,
            starts=recipe.louvain_starts,
        )
        labels = found.labels
        if sampled:
            rows = [part.rows() for part in parts]
            labels = to_communities(rows, valid, chosen, found, recipe.louvain_weights)
        labels = _without_tiny(joined, labels) if recipe.regions else labels
        facts: Facts = {
            "communities": int(labels.max()) + 1,
            "modularity": found.modularity,
            "threshold": found.threshold,
            "edges": found.edges,
        }
        facts |= {"sample": len(chosen)} if sampled else {}
        return LabelMap(joined.as_map(labels), facts=facts | joined.way("louvain"))

    def _similarity(self, joined: Joined) -> NDArray[np.float64]:
        return self._once(("similarity", joined.name), lambda: louvain.similarity_matrix(joined.rows(), joined.valid))


def _turn(joined: Joined) -> tuple[bool, int]:
    """Return what comes first: of many columns; last, ensembles that vote on what others have found."""
    votes = len(joined.parts) > 1 and not joined.parameters.recipe.regions
    return votes, -sum(feature.rows.shape[1] for feature in joined.features)


def _regions_of(joined: Joined) -> tuple[Regions, PhaseTree] | None:
    """Return regions and their tree; the spectra are the last part of an ensemble."""
    rows, mixing = joined.phase_rows(), joined.features[-1].phase
    if rows is None or mixing is None or not _enough(rows[joined.valid]):
        return None
    # what mixes linearly: the spectra's intensities where there are any, else of the picture the level alone
    mixing = mixing if joined.parts != ("haadf",) else mixing[:, :1]
    regions = find_regions(rows, mixing, joined.grid.shape, joined.valid)
    if not regions.solid.any():
        return None
    tree = phase_tree(regions.samples[regions.solid])
    return (regions, tree) if tree.suggested > 1 else None


def _enough(rows: NDArray[np.float64]) -> bool:
    """Return whether there are chips enough to tell phases by how they scatter, and whether they differ at all."""
    return len(rows) >= _CHIPS_A_COLUMN * rows.shape[1] and bool(np.ptp(rows, axis=0).any())


def _ward_of_chips(joined: Joined, wanted: int | None) -> tuple[Labels, Facts]:
    rows, valid = joined.rows(), joined.valid
    chosen = sample(valid, joined.parameters.recipe.exact_chips, joined.parameters.seed)
    sampled = len(chosen) < np.count_nonzero(valid)
    tree = ward.ward_tree(rows[chosen]) if sampled else ward.ward_tree(rows, valid)
    differing = int(np.count_nonzero(tree.merges[:, 2] > 0)) + 1  # equal chips cannot be told apart
    clusters = min(wanted or ward.suggest_clusters(tree), differing)
    labels, facts = tree.cut(clusters), Facts(clusters=clusters)
    if sampled:
        return to_nearest_means(rows, valid, chosen, labels), facts | {"sample": len(chosen)}
    return labels, facts


def _every_chip(joined: Joined, phases: NDArray[np.integer]) -> Labels:
    """Give every chip the phase of the nearest mean, and settle the borders; (N,) by first appearance."""
    nearest = _nearest(joined, phases)
    settled = joined.settled(nearest)
    labels = number_by_appearance(nearest if settled is None else settled.labels)
    if labels.max() < phases.max():  # a phase lost its last chip to another: those that were sure keep theirs
        labels = number_by_appearance(np.where(phases >= 0, phases, nearest))
    return labels


def _nearest(joined: Joined, phases: NDArray[np.integer]) -> Labels:
    """Return (N,) the phase whose mean each chip resembles most; `phases` is -1 where a chip counts for none."""
    rows, valid = joined.rows(), joined.valid
    examples: Sequence[Sequence[int]] = [np.flatnonzero(phases == k).tolist() for k in range(int(phases.max()) + 1)]
    return fewshot.predict(fewshot.softmax_scores(rows, fewshot.prototypes(rows, examples, valid), valid), valid)


def _without_tiny(joined: Joined, labels: Labels) -> Labels:
    """Give the chips of communities of fewer than `_LEAST` to those of the nearest mean, if there are larger ones."""
    size = np.bincount(labels[labels >= 0])
    kept = np.where((labels >= 0) & (size[np.maximum(labels, 0)] >= _LEAST), labels, -1)
    if not (kept >= 0).any() or not ((kept < 0) & (labels >= 0)).any():
        return labels
    kept = number_by_appearance(kept)
    return number_by_appearance(np.where(kept >= 0, kept, _nearest(joined, kept)))
