"""Colours of label maps: the same class, and the same region, looks the same in every map of every scan.

Rules
-----
1. The reference of a scan is the fullest of its maps whose labels have names (not just cluster numbers), else
   the fullest of all; the first on a tie. Its labels are the first *places*. Classes of one name are one place
   in all scans.
2. In another map a label of the same name is the same place. A cluster is the place that it looks most like
   (largest Jaccard index), if more than half of its chips lie there, it holds at least a quarter of that place, and
   no other cluster of its map looks more like it. What is left are new places, which the maps after it are compared
   with, too.
3. Classes get their colours first, in order; then the other places of each scan, the largest first: Okabe and
   Ito's palette [1]_, which colour-blind readers can tell apart, then its tints and shades, 23 in all. Places
   beyond share one grey, so that a colour never means two things in one scan.
4. The label ``unknown`` (a chip far from every class) is white.

References
----------
.. [1] Okabe and Ito, Color Universal Design (2008), https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from livestem.domain.support import UNKNOWN

Colour = tuple[float, float, float]  # red, green, blue, 0..1
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_MIXES = ((0.0, 1.0), (0.45, 1.0), (0.35, 0.0))  # (share, of white 1 or black 0): palette, tints, shades
_CLUSTER = re.compile(r"R\d+")  # how clusters are called: a number, which means something else in each map
_LEAST_SHARE = 0.25  # of a place that a cluster must hold to be it: a few chips at its border are something else
OTHERS: Colour = (0.62, 0.62, 0.62)  # beside it the hatched grey of no data is light
_WHITE: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class MapPanel:
    """A label map to draw.

    Attributes
    ----------
    title : what it shows
    labels : (rows, cols) int16, row-major chips; -1 is no data
    names : of the labels 0, 1, ...; a label without one is called ``R<label>``
    """

    title: str
    labels: NDArray[np.int16]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or not np.issubdtype(self.labels.dtype, np.integer):
            raise ValueError(f"{self.title}: labels must be whole numbers in rows and columns")

    @property
    def present(self) -> tuple[int, ...]:
        """Labels that occur, ascending, without no data."""
        return tuple(int(v) for v in np.unique(self.labels) if v >= 0)

    @property
    def is_partial(self) -> bool:
        """True if a chip has no data."""
        return bool((self.labels < 0).any())

    @property
    def is_classified(self) -> bool:
        """True if a label that occurs has a name of its own."""
        return any(not _CLUSTER.fullmatch(self.name(v)) for v in self.present)

    def name(self, label: int) -> str:
        """Return the name of a label."""
        return self.names[label] if label < len(self.names) else f"R{label}"


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What the colours of one scan's maps mean.

    Attributes
    ----------
    places : for each map label -> place, a number of its own for each class or region of the scan
    colours : place -> colour
    names : place -> class name, or "" where no class has it
    numbers : place that is no class -> 1, 2, ..., the largest first
    """

    places: tuple[dict[int, int], ...]
    colours: dict[int, Colour]
    names: dict[int, str]
    numbers: dict[int, int]

    def palette(self, panel: int) -> dict[int, Colour]:
        """Return label -> colour of one map."""
        return {label: self.colours[place] for label, place in self.places[panel].items()}


def match_colours(panels: Sequence[MapPanel]) -> list[dict[int, Colour]]:
    """Return the colour of each label of each map of one scan, as the rules above say.

    Parameters
    ----------
    panels : sequence of MapPanel
        All of one shape.

    Returns
    -------
    list of dict, label -> (red, green, blue), 0..1
    """
    (legend,) = match_scans([panels])
    return [legend.palette(i) for i in range(len(panels))]


def match_scans(scans: Sequence[Sequence[MapPanel]]) -> list[Legend]:
    """Return what colours mean in several scans, each of maps of one shape: a class looks the same in all.

    Parameters
    ----------
    scans : sequence of sequences of MapPanel

    Returns
    -------
    list of Legend
        One for each scan.
    """
    references = [_reference(panels) for panels in scans]
    classes: dict[str, int] = {}
    for panels, first in zip(scans, references, strict=True):
        for panel in [panels[first], *panels] if panels else []:
            for name in (*panel.names, *(panel.name(v) for v in panel.present)):
                if not _CLUSTER.fullmatch(name):
                    classes.setdefault(name, len(classes))
    legends = []
    for panels, first in zip(scans, references, strict=True):
        found = _Places(classes)
        order = sorted(range(len(panels)), key=lambda i: i != first)
        places = {i: found.take(panels[i]) for i in order}
        legends.append(
            Legend(
                places=tuple(places[i] for i in range(len(panels))),
                colours=found.colours(),
                names={place: found.name(place) for place in found.size},
                numbers={place: i for i, place in enumerate(found.others(), 1)},
            )
        )
    return legends


def _reference(panels: Sequence[MapPanel]) -> int:
    fullest = [(p.is_classified, int(np.count_nonzero(p.labels >= 0))) for p in panels]
    return fullest.index(max(fullest)) if panels else -1


@dataclass
class _Places:
    """The places of one scan, as its maps come: classes by name, others by where they are."""

    classes: dict[str, int]  # name -> place
    size: dict[int, int] = field(default_factory=dict)  # place -> chips of its largest region
    _where: dict[int, NDArray[np.bool_]] = field(default_factory=dict)  # place -> chips that first were it

    def take(self, panel: MapPanel) -> dict[int, int]:
        """Return the place of every label of a map; what is nowhere yet becomes a place."""
        members = {v: (panel.labels == v).ravel() for v in panel.present}
        found = {v: self.classes[panel.name(v)] for v in panel.present if panel.name(v) in self.classes}
        found |= self._alike({v: m for v, m in members.items() if v not in found}, set(found.values()))
        for label, member in members.items():
            place = found.setdefault(label, len(self.classes) + len(self.others()))
            self._where.setdefault(place, member)
            self.size[place] = max(self.size.get(place, 0), int(member.sum()))
        return found

    def name(self, place: int) -> str:
        """Return the class of a place, or ""."""
        return next((name for name, number in self.classes.items() if number == place), "")

    def colours(self) -> dict[int, Colour]:
        """Return the colour of every place."""
        named = [place for name, place in self.classes.items() if name != UNKNOWN]
        slots = {place: slot for slot, place in enumerate([*named, *self.others()])}
        return {p: _colour(slots[p]) if p in slots else _WHITE for p in self.size}

    def others(self) -> list[int]:
        """Return the places that are no class, the largest first."""
        places = [place for place in self.size if place >= len(self.classes)]
        return sorted(places, key=lambda place: (-self.size[place], place))

    def _alike(self, members: dict[int, NDArray[np.bool_]], taken: set[int]) -> dict[int, int]:
        """Return the place that each of these clusters looks most like, each place once."""
        places = [place for place in self._where if place not in taken]
        if not places or not members:
            return {}
        here = np.stack([self._where[place] for place in places]).astype(np.float32)
        there = np.stack(list(members.values())).astype(np.float32)
        both = there @ here.T
        chips = there.sum(axis=1)[:, None]
        jaccard = both / (chips + here.sum(axis=1)[None] - both)
        pairs = np.argwhere((2 * both > chips) & (both >= _LEAST_SHARE * here.sum(axis=1)[None]))
        order = np.lexsort((pairs[:, 1], pairs[:, 0], -jaccard[pairs[:, 0], pairs[:, 1]]))
        labels, found = list(members), dict[int, int]()
        for row, column in pairs[order].tolist():
            if labels[row] not in found and places[column] not in found.values():
                found[labels[row]] = places[column]
        return found


def _colour(slot: int) -> Colour:
    return _COLOURS[slot] if slot < len(_COLOURS) else OTHERS


def _mixed(hexadecimal: str, mix: float, towards: float) -> Colour:
    red, green, blue = ((1 - mix) * int(hexadecimal[i : i + 2], 16) / 255 + mix * towards for i in (1, 3, 5))
    return red, green, blue


# 23 different ones: there is no darker black
_COLOURS = tuple(dict.fromkeys(_mixed(colour, *mix) for mix in _MIXES for colour in _OKABE_ITO))
