"""What one would do instead: the published pipeline on the chips of one scan, step by step as its code does it.

The steps are those of GraphEM (github.com/pnnl/GraphEM): VGG16 one chip at a time, Ward's clusters by scikit-learn and
communities of a graph of cosine similarities, on three modalities, and again on their three pairs, all cores allowed.
Where a choice was open the quicker one is taken: torch instead of Keras, igraph's own Louvain instead of the package
`louvain`. Its few-shot scores are not timed; region descriptors it has none. The fit of line intensities, chip by chip
with HyperSpy's ``multifit(bounded=True)``, takes hours: some chips are fitted, and all the others are reckoned with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from benchmarks.performance.published_fit import published_intensities, published_model
from numpy.typing import NDArray

from livestem.domain.errors import LivestemError
from livestem.domain.parameters import GRAPHEM_LINES, Parameters
from livestem.runtime import weights
from livestem.runtime.features import Collected, eds_features, grey_picture, grey_range
from livestem.runtime.quantification import Quantifier, build_quantifier
from livestem.stages import louvain
from livestem.stages.chips import cut
from livestem.stages.lines import choose_lines
from livestem.stages.quantify import build_operator
from livestem.stages.vgg16 import BGR_MEAN, SIDE, TENSOR_SHAPES

Seconds = dict[str, float]
EMBED, WARD, COMMUNITIES, FIT = (
    "VGG16, one chip at a time",
    "Ward, three modalities and pairs",
    "communities, three modalities and pairs",
    "fit of line intensities, chip by chip",
)


@dataclass(frozen=True)
class Chips:
    """What the scripts read of a scan.

    Attributes
    ----------
    images : (N, p, p) uint8
    spectra : (N, C) counts above 0.2 keV, per visit
    atoms : (N, E) atomic percent
    raw : (N, channels) counts of every channel, which are fitted
    quantifier : of the scan
    """

    images: NDArray[np.uint8]
    spectra: NDArray[np.float64]
    atoms: NDArray[np.float64]
    raw: NDArray[Any]
    quantifier: Quantifier

    @classmethod
    def of(cls, data: Collected, parameters: Parameters) -> Chips:
        """Return the chips of a completed scan that lacks nothing, with the parameters of ``as_published``."""
        if data.haadf is None or data.spectra is None or data.total is None or data.grid.haadf_px is None:
            raise LivestemError("the published pipeline needs HAADF and EDS")
        quantifier = build_quantifier(data.plan, parameters, data.total)
        assert quantifier is not None  # the specimen's elements are known
        features = eds_features(data, ("eds", "atomic"), quantifier, final=True)
        picture = grey_picture(data, parameters, grey_range(data, parameters))
        images = cut(picture, data.grid, data.grid.haadf_px)
        return cls(images, features["eds"].rows, features["atomic"].rows, np.asarray(data.spectra), quantifier)


def pipeline(chips: Chips, clusters: int) -> Seconds:
    """Run all but the fit; return what each step took, seconds."""
    took: Seconds = {}
    encode = one_at_a_time()
    encode(chips.images[0])
    with _timed(took, EMBED):
        embedded = np.stack([encode(image) for image in chips.images])
    modalities = {"haadf": embedded, "atom": chips.atoms, "eds": chips.spectra}
    with _timed(took, WARD):
        ward(modalities, clusters)
    with _timed(took, COMMUNITIES):
        communities(modalities)
    return took


def ward(modalities: dict[str, NDArray[Any]], clusters: int) -> dict[str, NDArray[Any]]:
    """Return (N,) labels of every modality by scikit-learn, and of every pair by vector voting."""
    from sklearn.cluster import AgglomerativeClustering

    found = {name: AgglomerativeClustering(n_clusters=clusters).fit(rows).labels_ for name, rows in modalities.items()}
    for a, b in combinations(modalities, 2):
        _, found[f"{a}+{b}"] = np.unique(found[a] * clusters + found[b], return_inverse=True)
    return found


def communities(modalities: dict[str, NDArray[Any]]) -> dict[str, list[int]]:
    """Return the community of each chip, for every modality and for the mean similarities of every pair."""
    from scipy.spatial.distance import pdist, squareform

    similar = {name: squareform(1 - pdist(rows, metric="cosine")) for name, rows in modalities.items()}
    similar |= {f"{a}+{b}": (similar[a] + similar[b]) / 2 for a, b in combinations(modalities, 2)}
    return {name: _communities(matrix) for name, matrix in similar.items()}


def one_at_a_time() -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return what embeds one (p, p) chip with torchvision's VGG16; its weights, or random ones where there are none."""
    import torch
    import torchvision

    with torch.device("meta"):  # the classifier, most of the network, is not needed
        trunk = torchvision.models.vgg16(init_weights=False).features
    trunk = trunk.to_empty(device="cpu").eval().requires_grad_(False)
    trunk.load_state_dict({name.removeprefix("features."): torch.tensor(value) for name, value in tensors().items()})
    mean = torch.tensor(BGR_MEAN).reshape(1, 3, 1, 1)

    def encode(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            grey = torch.from_numpy(image.astype(np.float32))[None, None]
            resized = torch.nn.functional.interpolate(grey, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
            return np.asarray(trunk(resized - mean).numpy().ravel())

    return encode


def tensors() -> weights.Tensors:
    """Return VGG16's weights; where there are none, random ones that keep the size of what passes through.

    How long a network takes is not in its weights.
    """
    path = weights.find()
    if path is not None:
        return weights.load(path)
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        if len(shape) == 4
        else np.zeros(shape, np.float32)
        for name, shape in TENSOR_SHAPES.items()
    }


def fit_s(chips: Chips, beam_kv: float, sample: int) -> float:
    """Return the seconds that ``multifit(bounded=True)`` would take on all chips, from `sample` of them.

    The lines are the eleven of the published code.
    """
    measured = chips.quantifier.operator
    families = choose_lines((), measured.axis, beam_kv, GRAPHEM_LINES)
    operator = build_operator(families, measured.axis, chips.raw.mean(0), measured.resolution_mnka_ev, beam_kv)
    chosen = np.linspace(0, len(chips.raw) - 1, sample).astype(int)
    model = published_model(chips.raw[chosen], operator, beam_kv)
    took: Seconds = {}
    with _timed(took, FIT):
        published_intensities(model, operator, bounded=True)
    return took[FIT] / sample * len(chips.raw)


def _communities(similar: NDArray[np.float64]) -> list[int]:
    import igraph

    adjacent = (similar >= louvain.threshold(similar, "mode")).astype(int)
    np.fill_diagonal(adjacent, 0)
    graph = igraph.Graph.Adjacency(adjacent, mode="undirected")
    return list(graph.community_multilevel().membership)


@contextmanager
def _timed(took: Seconds, step: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    took[step] = time.perf_counter() - began
