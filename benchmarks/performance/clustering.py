"""Clusters of chips: ours, beside what the paper's scripts and others call, on the same chips.

Chips are four phases: spectra of Poisson counts (Ward: 4051 channels) and embeddings (communities: 64 numbers), as wide
apart as makes their similarities half of all pairs' edges. Networkx with python-louvain takes a minute and runs once.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from benchmarks.performance.table import Table, Timed, timed
from numpy.typing import NDArray

from livestem.stages.agreement import ami
from livestem.stages.louvain import Communities, communities, similarity_matrix
from livestem.stages.ward import ward_labels

NAME = "clustering"
CLUSTERS = 4
_CHANNELS = 4051  # of the paper's spectra
_COUNTS = 400  # photons of a chip
_GOAL = 5.0  # times as fast as igraph from a list of edges, and as scikit-learn


def measure(runs: int, quick: bool) -> Table:
    """Time them."""
    chips, channels = (150, 300) if quick else (2601, _CHANNELS)
    spectra, similarity = counts(chips, channels), similarity_matrix(embeddings(chips))
    ward = timed(
        {"ours": lambda: ward_labels(spectra, CLUSTERS), "theirs": lambda: scikit_learn(spectra)}, runs, warm=int(quick)
    )
    one = functools.partial(communities, similarity)
    graphs = timed(
        {
            "matrix": one,
            "igraph": lambda: one(backend="igraph"),
            "matrix, 10": lambda: one(starts=10),
            "igraph, 10": lambda: igraph_each_time(similarity, 10),
        },
        runs,
        warm=0,
    )
    reference: list[Communities] = []
    once = timed({"networkx": lambda: reference.append(one(backend="networkx"))}, 1, warm=0)["networkx"]
    mine = one()
    alike = ami(ward_labels(spectra, CLUSTERS), scikit_learn(spectra))
    rows = (
        _row("Ward, scikit-learn", ward["ours"], ward["theirs"]),
        _row("communities, igraph from a list, one order", graphs["matrix"], graphs["igraph"]),
        _row("communities, igraph, at most ten orders", graphs["matrix, 10"], graphs["igraph, 10"]),
        _row("communities, networkx + python-louvain, one order", graphs["matrix"], once),
    )
    met = [name for name, _, _, ratio in rows if float(ratio) >= _GOAL]
    return Table(
        name=NAME,
        title="Clusters of chips",
        command="python -m benchmarks.performance clustering",
        columns=("beside", "ours, s", "theirs, s", "times as fast"),
        rows=rows,
        notes=(
            f"{chips} chips, {channels} channels, {mine.edges} edges. Ward: AMI with scikit-learn {alike:.3f}. "
            f"Modularity: ours {mine.modularity:.4f}, python-louvain {reference[0].modularity:.4f}. "
            "Networkx ran once. Ten orders: ours stop at three of more than 1024 chips, where these agree.",
            f"Goal, {_GOAL:g} times as fast: met beside {', '.join(met) or 'none'}.",
        ),
        facts={"modularity": [mine.modularity, reference[0].modularity], "ami": alike},
    )


def counts(chips: int, channels: int) -> NDArray[np.int64]:
    """Return spectra (chips, channels) of four phases, each chip's phase by chance."""
    rng = np.random.default_rng(1)
    shape = rng.gamma(0.3, size=(CLUSTERS, channels))
    return rng.poisson(_COUNTS * (shape / shape.sum(axis=1, keepdims=True))[rng.integers(0, CLUSTERS, chips)])


def embeddings(chips: int, width: int = 64) -> NDArray[np.float64]:
    """Return embeddings (chips, width) of four phases that overlap."""
    rng = np.random.default_rng(2)
    return rng.normal(size=(CLUSTERS, width))[rng.integers(0, CLUSTERS, chips)] + rng.normal(size=(chips, width))


def scikit_learn(spectra: NDArray[Any]) -> NDArray[np.int64]:
    """Return Ward's clusters as the paper's scripts ask for them."""
    from sklearn.cluster import AgglomerativeClustering

    return np.asarray(AgglomerativeClustering(n_clusters=CLUSTERS, linkage="ward").fit_predict(spectra))


def igraph_each_time(similarity: NDArray[np.float64], orders: int) -> None:
    """Find communities in some orders, a graph for each: what livestem did before."""
    for seed in range(42, 42 + orders):
        communities(similarity, seed=seed, backend="igraph")


def _row(name: str, ours: Timed, theirs: Timed) -> tuple[str, float, float, float]:
    return name, ours.median, theirs.median, theirs.median / ours.median
