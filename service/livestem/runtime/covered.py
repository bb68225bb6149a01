"""Coverage maps: what of each chip came, and how often its place was visited.

Two questions, two maps of each modality:

- *coverage* tells what is missing where: of a chip's pixels in all expected frames, as the beam swept them, the share
  that came. Registration does not change it: a frame that was moved is not missing where it has left.
- *visits* tells how much the result of a chip rests on: visits of its place on the specimen, after registration, the
  mean over its pixels. Frames in part lower it, and so do shifts at the rim of the field.

Of an open-ended scan the frames that were begun are expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Grid
from livestem.runtime.accumulator import Accumulator
from livestem.stages.chips import cut
from livestem.wire import messages as m

Maps = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Covered:
    """The coverage maps of a scan.

    Attributes
    ----------
    coverage : modality -> (rows, cols), 0..1; 1 exactly where all came, 0 exactly where nothing did
    visits : modality -> (rows, cols), visits a pixel
    """

    coverage: Maps
    visits: Maps

    @classmethod
    def of(cls, accumulator: Accumulator) -> Covered:
        """Return the maps of what has come so far."""
        grid = accumulator.grid
        received, expected = accumulator.received(), accumulator.expected_frames()
        coverage = {k: _mean(grid, k, came) / np.float32(max(expected[k], 1)) for k, came in received.items()}
        return cls(coverage, {k: _mean(grid, k, visits) for k, visits in accumulator.exposures().items()})

    @property
    def whole(self) -> bool:
        """Whether nothing is missing of any chip."""
        return all(bool((share >= 1).all()) for share in self.coverage.values())

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return both maps of every modality: ``<modality>`` and ``<modality>.visits``."""
        return {**self.coverage, **{f"{k}.visits": visits for k, visits in self.visits.items()}}

    def as_json(self) -> dict[str, Any]:
        """Return the maps in short: the least covered chip, and how many have a part of what was expected, or none."""
        return {
            modality: {
                "least": round(float(share.min()), 6),
                "chips_in_part": int(((share > 0) & (share < 1)).sum()),
                "chips_without": int((share == 0).sum()),
            }
            for modality, share in self.coverage.items()
        }

    def message(self, scan_id: str, grid: Grid, origin_nm: tuple[float, float]) -> tuple[m.CoverageMap, Any, Any]:
        """Return the message about it and its arrays."""
        header = m.CoverageMap(
            scan_id=scan_id, modalities=tuple(self.coverage), chip_nm=grid.chip_nm, origin_nm=origin_nm
        )
        return header, np.stack(list(self.coverage.values())), np.stack(list(self.visits.values()))


def _mean(grid: Grid, modality: str, per_pixel: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return the mean over each chip's pixels, (rows, cols)."""
    side = grid.haadf_px if modality == "haadf" else grid.eds_px
    assert side is not None
    total = cut(per_pixel, grid, side).sum(axis=(1, 2), dtype=np.uint64)
    return np.asarray(total / side**2, np.float32).reshape(grid.shape)
