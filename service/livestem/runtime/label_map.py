"""Label maps, and what every method that makes one needs to know of the modalities it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Grid
from livestem.domain.parameters import Parameters
from livestem.runtime.features import Feature
from livestem.stages.features import join, neighbour_whitening
from livestem.stages.mixing import Linear, Settled, settle

Key = tuple[str, str]  # method, modality
Facts = dict[str, str | int | float | bool | None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelMap:
    """One method on one modality: labels (rows, cols) int16, scores (classes, rows, cols) or None, and facts."""

    labels: NDArray[np.int16]
    scores: NDArray[np.float32] | None = None
    classes: tuple[str, ...] = ()
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Joined:
    """The modalities that one map is made of.

    Attributes
    ----------
    parts : their names, in a fixed order
    features : of each
    grid : Grid
    parameters : Parameters
    """

    parts: tuple[str, ...]
    features: tuple[Feature, ...]
    grid: Grid
    parameters: Parameters

    @classmethod
    def of(cls, parts: tuple[str, ...], features: Mapping[str, Feature], grid: Grid, parameters: Parameters) -> Joined:
        """Pick the features of some modalities."""
        return cls(parts, tuple(features[p] for p in parts), grid, parameters)

    @property
    def name(self) -> str:
        """Name of the modality or ensemble, such as ``haadf+lines``."""
        return "+".join(self.parts)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(N,) which chips have data in every part."""
        return np.asarray(np.all([f.valid for f in self.features], axis=0), bool)

    def rows(self) -> Floats:
        """Return (N, D) the features side by side, whitened if the preset says so.

        Chips borrowed from other scans come after the grid's: they have no neighbours.
        """
        rows = join([f.rows for f in self.features]) if len(self.features) > 1 else self.features[0].rows
        if not self.parameters.recipe.whitened:
            return rows
        chips, valid = self.grid.chips, self.valid
        return neighbour_whitening(rows[:chips], self.grid.shape, valid[:chips]).apply(rows, valid)

    def phase_rows(self) -> Floats | None:
        """Return (N, P) the columns that tell phases; None if a part has none."""
        phase = [f.phase for f in self.features if f.phase is not None]
        return join(phase) if len(phase) == len(self.features) else None

    def settled(self, labels: NDArray[np.integer[Any]]) -> Settled | None:
        """Return a map with its borders settled; None if the preset leaves them as they are."""
        if not self.parameters.recipe.borders or any(f.linear is None for f in self.features):
            return None
        of = dict(zip(self.parts, self.features, strict=True))
        picture, spectra = of.get("haadf"), of.get("lines")
        level = None if picture is None or picture.linear is None else picture.linear[:, 0]
        counts = None if spectra is None else spectra.linear
        texture = None if picture is None else picture.rows[:, 1:]  # all that is not the level
        return settle(labels, Linear(level, counts), texture, self.grid.shape, self.valid)

    def way(self, method: str) -> Facts:
        """Return how the parts are joined, for the map's facts; nothing for a single modality."""
        return {"ensemble": self.parameters.recipe.ensembles[method]} if len(self.parts) > 1 else {}

    def as_map(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.int16]:
        """Return (N,) labels as (rows, cols) int16."""
        return np.ascontiguousarray(labels.reshape(self.grid.shape), dtype=np.int16)
