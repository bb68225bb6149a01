"""What a scan is processed with: what may be asked (`Processing`) and what was done (`Parameters`).

Whose word counts: the sender's `processing` over the service's flags over its configuration over the preset.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Literal

import msgspec

from livestem.domain.elements import SYMBOLS
from livestem.domain.regions import LONGEST_D_NM, SHORTEST_D_NM
from livestem.domain.support import SupportSet

_MOST_REJECTED = 0.5  # beyond, most chips of every class would be unknown
_MOST = 10**6  # chips, pixels or nanometres: no field is larger; and k-factors span three decades, not twelve
_CHOICES = (frozenset({"chip_px", "chip_nm"}), frozenset({"grey", "grey_range"}))  # that have several fields

_NAMES = 1024  # elements, lines, detectors: more than any scan has

Names = Annotated[tuple[str, ...], msgspec.Meta(max_length=_NAMES)]
Numbers = Annotated[dict[str, float], msgspec.Meta(max_length=_NAMES)]
PresetName = Literal["default", "as_published", "graphem"]
Grey = Literal["given", "fixed", "survey", "percentile", "clahe"]
EnsembleWay = Literal["joint", "vector", "mean"]
LouvainWeights = Literal["similarity", "binary"]
LouvainThreshold = Literal["mode", "mean", "median"] | float
LouvainBackend = Literal["matrix", "igraph", "networkx"]

WAYS: dict[str, tuple[EnsembleWay, ...]] = {"ward": ("joint", "vector"), "louvain": ("joint", "mean")}
"""How a method can be asked to join modalities; few-shot joins as its scores are: means of softmax, features else."""
Register = Literal["frames", "none"]


class Processing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a sender, a flag or a configuration file asks for; None leaves it to the next in line.

    Attributes
    ----------
    chip_px, chip_nm : one choice
    k_factors : line -> weight k-factor, normalised to one line
    strays : elements fitted but not part of the specimen's 100 %
    thickness_nm, density_g_cm3 : of the specimen: the first corrects for its absorption
    grey, grey_range : one choice: what becomes 0 and 255 for a network; see `Parameters`
    ensembles : method -> how modalities are joined (`WAYS`)
    louvain_weights, louvain_threshold, louvain_backend : as in `Preset`
    calibrate_region, d_nm : one choice: a region, and the longest lattice spacing it is known to have, nm
    """

    preset: PresetName | None = None
    chip_px: int | None = None
    chip_nm: float | None = None
    clusters: int | None = None
    elements: Names | None = None
    lines: Names | None = None
    k_factors: Numbers | None = None
    strays: Names | None = None
    thickness_nm: float | None = None
    density_g_cm3: float | None = None
    support: SupportSet | None = None
    grey: Grey | None = None
    grey_range: tuple[float, float] | None = None
    ensembles: dict[str, EnsembleWay] | None = None
    louvain_weights: LouvainWeights | None = None
    louvain_threshold: LouvainThreshold | None = None
    louvain_backend: LouvainBackend | None = None
    calibrate_region: str | None = None
    d_nm: float | None = None
    register: Register | None = None
    reject: float | None = None  # share of a class's chips that may be called unknown by chance; 0 = never
    modality_weights: dict[str, float] | None = None  # haadf, eds -> weight in few-shot's mean of scores

    def __post_init__(self) -> None:
        for symbol in (*(self.elements or ()), *(self.strays or ())):
            if symbol not in SYMBOLS:
                raise ValueError(f"unknown element {symbol!r}; use symbols such as Fe or O")
        for number, name in ((self.chip_px, "chip_px"), (self.chip_nm, "chip_nm"), (self.clusters, "clusters")):
            if number is not None and not 0 < number <= _MOST:
                raise ValueError(f"{name} must be positive and at most {_MOST:g}, got {number:g}")
        for size, name, most in ((self.thickness_nm, "thickness_nm", 1e4), (self.density_g_cm3, "density_g_cm3", 30.0)):
            if size is not None and not 0 < size <= most:  # no beam crosses 10 µm, and nothing is denser than osmium
                raise ValueError(f"{name} must be positive and at most {most:g}, got {size:g}")
        if self.reject is not None and not 0 <= self.reject <= _MOST_REJECTED:
            raise ValueError(f"reject is a share of chips, 0 (never) to {_MOST_REJECTED}, got {self.reject:g}")
        twice = [line for line, times in Counter(self.lines or ()).items() if times > 1]
        if twice:
            raise ValueError(f"line {twice[0]} is named twice; name each line once")
        check_k_factors(self.k_factors or {})
        _check_grey(self.grey, self.grey_range)
        for method, way in (self.ensembles or {}).items():
            if way not in WAYS.get(method, ()):
                known = "; ".join(f"{name}: {', '.join(ways)}" for name, ways in WAYS.items())
                raise ValueError(f"{method} cannot join modalities by {way}; possible are {known}")
        cut = self.louvain_threshold
        if isinstance(cut, int | float) and not -1 <= cut <= 1:
            raise ValueError(f"louvain_threshold is a cosine, -1 to 1, or mode, mean, median; got {cut:g}")
        if (self.calibrate_region is None) != (self.d_nm is None):
            raise ValueError("calibrate_region and d_nm go together: a region, and the spacing it is known to have")
        if self.d_nm is not None and not SHORTEST_D_NM <= self.d_nm <= LONGEST_D_NM:
            raise ValueError(f"d_nm must be {SHORTEST_D_NM:g} to {LONGEST_D_NM:g} nm, got {self.d_nm:g}")
        check_modality_weights(self.modality_weights)

    def over(self, other: Processing) -> Processing:
        """Return `self` with its gaps filled from `other`; what is one choice is taken from one of the two."""
        mine = {f: v for f in self.__struct_fields__ if (v := getattr(self, f)) is not None}
        for choice in _CHOICES:
            if choice & mine.keys():
                mine = dict.fromkeys(choice, None) | mine
        return msgspec.structs.replace(other, **mine)


def check_k_factors(table: dict[str, float]) -> None:
    """Raise ValueError unless every k-factor is a number that a detector can have."""
    for line, k in table.items():
        if not 1 / _MOST <= k <= _MOST:
            raise ValueError(f"the k-factor of {line} must be positive, {1 / _MOST:g} to {_MOST:g}, got {k:g}")


def _check_grey(grey: Grey | None, grey_range: tuple[float, float] | None) -> None:
    if grey_range is None:
        if grey in ("fixed", "survey"):
            raise ValueError(f"grey {grey} needs a grey_range: the values that become 0 and 255")
        return
    if grey in ("given", "percentile"):
        raise ValueError(f"grey {grey} finds its own range; leave grey_range out")
    low, high = grey_range
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"grey_range runs upwards between finite values, got {low:g} to {high:g}")


def check_modality_weights(weights: dict[str, float] | None) -> None:
    """Raise ValueError unless weights are positive, finite numbers for haadf and eds."""
    if weights is None:
        return
    if set(weights) != {"haadf", "eds"}:
        raise ValueError(f"modality_weights are of haadf and eds, got {', '.join(sorted(weights)) or 'none'}")
    if not all(0 < w < float("inf") for w in weights.values()):
        raise ValueError("modality_weights must be positive; a modality alone has a map of its own")


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way of doing it all, named; what a user sets beside it wins.

    Attributes
    ----------
    encoder : embedding of HAADF chips
    eds_modalities : what EDS is turned into
    ensembles : modalities joined with haadf, and how, by method
    fewshot : ``softmax`` over negative distances (published) or ``calibrated``
    whitened : whether joined features are whitened by the differences of neighbouring chips
    regions : methods that join regions of like chips by the evidence for one phase, instead of single chips
    borders : whether chips on borders are decided by what of each phase they show (few-shot, and maps of regions)
    louvain_weights : edges keep the similarity, or are all 1
    louvain_threshold : edges below are dropped: a rule or a number
    louvain_backend : the matrix itself, a graph by igraph, or networkx with python-louvain: the slow reference
    louvain_starts : orders of the chips that are tried, the best of which is kept: one alone falls up to 0.01 short
    exact_chips : of more chips a sample of as many is clustered, where single chips are, and the others follow it
    strays_in_total : whether strays are inside the 100 %
    lines : X-ray lines used if the user names none; () = one named line per element
    """

    encoder: Literal["lattice", "vgg16"]
    eds_modalities: tuple[str, ...]
    ensembles: dict[str, EnsembleWay]
    fewshot: Literal["calibrated", "softmax"]
    whitened: bool = False
    regions: tuple[str, ...] = ()
    borders: bool = False
    louvain_weights: LouvainWeights
    louvain_threshold: LouvainThreshold
    louvain_backend: LouvainBackend = "matrix"
    louvain_starts: int = 1
    exact_chips: int = 8192
    strays_in_total: bool
    lines: tuple[str, ...] = ()


_PUBLISHED_WAYS: dict[str, EnsembleWay] = {"fewshot": "mean", "ward": "vector", "louvain": "mean"}

# The eleven lines of GraphEM's scripts (no Cr, although the paper's text names it).
GRAPHEM_LINES = (
    "Al_Ka", "C_Ka", "Cu_Ka", "Fe_Ka", "Ga_Ka", "La_La", "N_Ka", "O_Ka", "Pt_La", "Sr_Ka", "Ti_Ka",
)  # fmt: skip

PRESETS: dict[str, Preset] = {
    "default": Preset(
        encoder="lattice",
        eds_modalities=("lines",),
        ensembles={"fewshot": "joint", "ward": "joint", "louvain": "joint"},
        fewshot="calibrated",
        whitened=True,
        regions=("ward", "louvain"),
        borders=True,
        louvain_weights="similarity",
        louvain_threshold="mean",
        strays_in_total=False,
    ),
    "as_published": Preset(
        encoder="vgg16",
        eds_modalities=("eds", "atomic"),
        ensembles=_PUBLISHED_WAYS,
        fewshot="softmax",
        louvain_weights="similarity",
        louvain_threshold="mode",
        louvain_starts=10,
        strays_in_total=True,
    ),
    "graphem": Preset(
        encoder="vgg16",
        eds_modalities=("eds", "atomic"),
        ensembles=_PUBLISHED_WAYS,
        fewshot="softmax",
        louvain_weights="binary",
        louvain_threshold="mode",
        louvain_starts=10,
        strays_in_total=True,
        lines=GRAPHEM_LINES,
    ),
}


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The effective scientific parameters of one result: everything that its numbers depend on.

    Attributes
    ----------
    clusters : for Ward; None = as many as the support set has classes, or as the data suggest
    elements, elements_origin : the specimen's, and who named them (``user``, ``metadata``, ``automatic``, or the
        earlier scan of the ``support`` set)
    strays : fitted, and kept apart from the specimen
    lines : named X-ray lines asked for; () = chosen per element
    k_factors : given by the user or the recording, weight, relative; {} = the built-in table
    absorption : whether the specimen's own absorption is corrected: it is where `thickness_nm` is given
    density_g_cm3 : of the specimen; None = exspy's estimate from the composition
    borrowed : earlier scan whose chips are examples -> digest of its input
    reject : share of a class's chips that few-shot may call unknown by chance; 0 = it never does
    modality_weights : of haadf and eds in few-shot's mean of scores; {} = equal
    register : ``frames`` if each frame was laid on the mean of those before it; ``none`` also where nothing was to be
    grey, grey_range : what becomes 0 and 255 for a network: exact percentiles, the range the recording gave, one fixed
        by the user or that of a survey image; with ``clahe`` one of these (no range: percentiles), then equalised
    calibrate_region, d_nm : a region of the result and the longest lattice spacing it is known to have, nm
    seed : of igraph's generator
    """

    preset: PresetName
    recipe: Preset
    chip_px: int
    chip_nm: float
    clusters: int | None = None
    elements: tuple[str, ...] = ()
    elements_origin: Literal["user", "metadata", "automatic", "support", "none"] = "none"
    strays: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    k_factors: dict[str, float] = {}
    support: SupportSet | None = None
    borrowed: dict[str, str] = {}
    reject: float = 0.0
    modality_weights: dict[str, float] = {}
    register: Register = "none"
    absorption: Literal["uncorrected", "corrected"] = "uncorrected"
    thickness_nm: float | None = None
    density_g_cm3: float | None = None
    grey: Grey = "percentile"
    grey_range: tuple[float, float] | None = None
    calibrate_region: str | None = None
    d_nm: float | None = None
    seed: int = 42
