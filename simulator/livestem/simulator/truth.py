"""What the simulated field really is: class of every pixel and chip, composition and lattice of a class.

The truth of a scan without drift: a drifting or faulty scan is measured against the field it began with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid
from livestem.simulator.specimen import Specimen

_FORMAT = 1  # of the .json beside the .npz


class TruthFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of each class, in class order; the ``.json`` beside the map.

    Attributes
    ----------
    names, titles : of the classes
    composition : atomic percent of the specimen's own elements, strays not counted
    d_spacing_nm : longest lattice spacing, nm; None where there is no one lattice
    pixel_nm : (y, x) of the class map
    specimen : digest of the specimen
    """

    names: tuple[str, ...]
    titles: tuple[str, ...]
    composition: tuple[dict[str, float], ...]
    d_spacing_nm: tuple[float | None, ...]
    pixel_nm: tuple[float, float]
    specimen: str
    format: int = _FORMAT


@dataclass(frozen=True)
class Truth:
    """The class of every pixel, (H, W) int8, and the facts of the classes."""

    class_of_pixel: NDArray[np.int8]
    facts: TruthFacts

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, ..."""
        return self.facts.names

    def class_of_chips(self, grid: Grid) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """Return what most of each chip is, and how much of it.

        Parameters
        ----------
        grid : Grid
            Laid over a scan of this field.

        Returns
        -------
        (rows, cols) int16, (rows, cols) float64
            Class of most pixels, the lower one on a tie; its share of the chip's pixels, 0..1.

        Raises
        ------
        UsageError
            If the grid does not fit the field.
        """
        side = grid.haadf_px or grid.eds_px or grid.chip_px
        top, left = (start * side // grid.chip_px for start in grid.origin)
        height, width = grid.rows * side, grid.cols * side
        part = self.class_of_pixel[top : top + height, left : left + width]
        if part.shape != (height, width):
            have = self.class_of_pixel.shape
            raise UsageError(
                f"a grid of {grid.rows} x {grid.cols} chips of {side} px is larger than the field of "
                f"{have[0]} x {have[1]} px; lay it over this scan's own field"
            )
        chips = part.reshape(grid.rows, side, grid.cols, side)
        share = np.stack([(chips == c).mean(axis=(1, 3)) for c in range(len(self.names))])
        return share.argmax(axis=0).astype(np.int16), share.max(axis=0)

    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Write ``<path>.npz`` (the map) and ``<path>.json`` (the facts); return both paths."""
        arrays, facts = _paths(path)
        with arrays.open("wb") as file:
            np.savez_compressed(file, class_of_pixel=self.class_of_pixel)
        facts.write_bytes(msgspec.json.format(msgspec.json.encode(self.facts)) + b"\n")
        return arrays, facts

    @classmethod
    def load(cls, path: str | Path) -> Truth:
        """Read what `save` wrote.

        Raises
        ------
        UsageError
            If a file is missing or is not a truth.
        """
        arrays, facts = _paths(path)
        try:
            known = msgspec.json.decode(facts.read_bytes(), type=TruthFacts)
            with np.load(arrays, allow_pickle=False) as file:
                return cls(file["class_of_pixel"].astype(np.int8), known)
        except (OSError, KeyError, ValueError) as error:  # msgspec's and numpy's errors are ValueErrors
            raise UsageError(f"cannot read the truth {facts} and {arrays.name}: {error}") from None


def truth_of(specimen: Specimen, shape: tuple[int, int]) -> Truth:
    """Return the truth of the field of `specimen`, sampled at the middle of `shape` (rows, cols) pixels."""
    pixel = specimen.field_nm[0] / shape[0], specimen.field_nm[1] / shape[1]
    y, x = specimen.pixel_centres_nm(shape)
    classes = specimen.classes
    facts = TruthFacts(
        names=specimen.class_names,
        titles=tuple(m.title for m in classes),
        composition=tuple(m.composition for m in classes),
        d_spacing_nm=tuple(m.structure.d_spacing_nm for m in classes),
        pixel_nm=pixel,
        specimen=specimen.digest,
    )
    return Truth(specimen.class_at(*specimen.to_specimen(*np.meshgrid(y, x, indexing="ij"))), facts)


def _paths(path: str | Path) -> tuple[Path, Path]:
    stem = Path(path)
    if stem.suffix in (".npz", ".json"):
        stem = stem.with_suffix("")
    return stem.with_name(stem.name + ".npz"), stem.with_name(stem.name + ".json")
