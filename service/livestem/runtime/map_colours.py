"""Colours of label maps: the same class looks the same in every map of a scan.

Rules
-----
1. The reference is the fullest of the maps whose labels have names (not just cluster numbers), else the
   fullest of all; the first on a tie.
2. In another map a label of the same name takes the reference's colour. A cluster takes the colour of the
   class that holds most of its chips, if that is more than half of them and no cluster with more took it.
3. Everything else takes colours of its own: Okabe and Ito's palette [1]_, which colour-blind readers can tell
   apart, then its tints and shades, 23 in all; after that colours repeat.

References
----------
.. [1] Okabe and Ito, Color Universal Design (2008), https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # red, green, blue, 0..1
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_MIXES = ((0.0, 1.0), (0.45, 1.0), (0.35, 0.0))  # (share, of white 1 or black 0): palette, tints, shades
_CLUSTER = re.compile(r"R\d+")  # how clusters are called: a number, which means something else in each map


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


def match_colours(panels: Sequence[MapPanel]) -> list[dict[int, Colour]]:
    """Return the colour of each label of each map, as the rules above say.

    Parameters
    ----------
    panels : sequence of MapPanel
        All of one shape.

    Returns
    -------
    list of dict, label -> (red, green, blue), 0..1
    """
    if not panels:
        return []
    reference = max(panels, key=lambda p: (p.is_classified, np.count_nonzero(p.labels >= 0)))  # first on a tie
    classes = dict.fromkeys((*reference.names, *(reference.name(v) for v in reference.present)))
    slot_of = {name: slot for slot, name in enumerate(classes)}
    matched = [_match(panel, reference, slot_of) for panel in panels]
    out = []
    for panel, slots in zip(panels, matched, strict=True):
        free = iter(range(len(slot_of), len(slot_of) + len(panel.present)))
        out.append({v: _colour(slots[v] if v in slots else next(free)) for v in panel.present})
    return out


def _match(panel: MapPanel, reference: MapPanel, slot_of: dict[str, int]) -> dict[int, int]:
    """Return the palette slot of each label that is, or mostly lies in, a class of the reference."""
    if panel is reference:
        return {v: slot_of[panel.name(v)] for v in panel.present}
    slots = {
        v: slot_of[name] for v in panel.present if (name := panel.name(v)) in slot_of and not _CLUSTER.fullmatch(name)
    }
    overlaps = []
    for label in panel.present:
        under = reference.labels[panel.labels == label]
        values, counts = np.unique(under[under >= 0], return_counts=True)
        if label not in slots and counts.size and 2 * counts.max() > under.size:
            best = int(values[counts.argmax()])
            overlaps.append((-int(counts.max()), label, slot_of[reference.name(best)]))
    taken = set(slots.values())
    for _, label, slot in sorted(overlaps):
        if slot not in taken:
            slots[label] = slot
            taken.add(slot)
    return slots


def _colour(slot: int) -> Colour:
    return _COLOURS[slot % len(_COLOURS)]


def _mixed(hexadecimal: str, mix: float, towards: float) -> Colour:
    red, green, blue = ((1 - mix) * int(hexadecimal[i : i + 2], 16) / 255 + mix * towards for i in (1, 3, 5))
    return red, green, blue


# 23 different ones: there is no darker black
_COLOURS = tuple(dict.fromkeys(_mixed(colour, *mix) for mix in _MIXES for colour in _OKABE_ITO))
