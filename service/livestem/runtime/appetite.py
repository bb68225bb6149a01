"""What the finals of a scan take, estimated at its start: a scan that could not be finished is not begun.

Clusters of single chips hold all pairs of them. What a pair takes was measured, as the peak of the process above what
it held before, on fields of noise, in which there is no region to join chips to: the worst case of each way.

=========================================  ===========  =========================================================
clusters                                   bytes/pair   measured
=========================================  ===========  =========================================================
of regions, or of chips if there are none  45           41.4 (1024, 2304 and 4096 chips)
of chips, on the matrix                    60           57 with all features (`as_published`, 4096 chips)
of chips, by igraph                        120          115 (`as_published`, 4096 chips), 121 (`graphem`, 2304)
of chips, by networkx                      400          354 and two matrices (700 chips, all pairs joined)
=========================================  ===========  =========================================================

A scan whose regions are found, as those of real specimens are, takes 77 MiB for 8100 chips. A pair is counted twice,
as (a, b) and as (b, a): N chips have N^2. Beyond `exact_chips` only a sample of as many has pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from livestem.domain.errors import LivestemError
from livestem.domain.geometry import Grid
from livestem.domain.limits import Limits
from livestem.domain.parameters import Parameters, Preset
from livestem.domain.scan import ScanPlan

_FIXED = 64 * 2**20  # libraries that finals load
_NUMBERS = 24  # bytes a feature of a chip: as it is, standardised, joined
_EMBEDDING = {"lattice": 64, "vgg16": 512}  # features of the picture of a chip


def finals_bytes(chips: int, channels: int, recipe: Preset) -> int:
    """Estimate what the finals of a scan will take at most, beside its sums, bytes.

    Parameters
    ----------
    chips : int
    channels : int
        Of its energy axis; 0 without EDS.
    recipe : Preset
    """
    a_pair = 45
    if not {"ward", "louvain"} <= set(recipe.regions):
        a_pair = {"matrix": 60, "igraph": 120, "networkx": 400}[recipe.louvain_backend]
    return (
        _FIXED
        + a_pair * min(chips, recipe.exact_chips) ** 2
        + _NUMBERS * chips * (channels + _EMBEDDING[recipe.encoder])
    )


def check_chips(limits: Limits, plan: ScanPlan, grid: Grid, parameters: Parameters) -> None:
    """Refuse a scan of too many chips, or whose finals would take too much memory.

    Raises
    ------
    LivestemError
        With the chip size that would do.
    """
    channels = plan.eds.energy.channels if plan.eds is not None else 0

    def needed(chips: int) -> int:
        return finals_bytes(chips, channels, parameters.recipe)

    def fits(chips: int) -> bool:
        return chips <= limits.chips and needed(chips) <= limits.finals_bytes

    if grid.chips > limits.chips:
        way_out = _way_out(grid, fits)
        raise LivestemError(f"{grid.chips} chips, this service allows {limits.chips}; {way_out}")
    if not fits(grid.chips):
        asked, most = (f"{size / 2**30:.1f}" for size in (needed(grid.chips), limits.finals_bytes))
        what = f"the finals of {grid.chips} chips can take {asked} GiB with preset {parameters.preset}"
        raise LivestemError(f"{what}, this service allows {most}; {_way_out(grid, fits)}")


def _way_out(grid: Grid, fits: Callable[[int], bool]) -> str:
    """Return which chip size would do; chips stay whole numbers of the coarser modality's pixels."""
    unit = grid.chip_px // min(side for side in (grid.haadf_px, grid.eds_px) if side is not None)
    height, width = grid.rows * grid.chip_px, grid.cols * grid.chip_px
    sides = itertools.takewhile(lambda px: px <= min(height, width), itertools.count(grid.chip_px + unit, unit))
    px = next((px for px in sides if fits((height // px) * (width // px))), None)
    return "scan a smaller field" if px is None else f"use --chip-px {px} or more"
