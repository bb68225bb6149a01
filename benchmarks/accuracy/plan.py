"""What is swept: which scans, how many frames of each, and with which presets at each number of frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SAMPLES = ("pristine-0dpa", "pristine-0.1dpa", "defective-0dpa", "defective-0.1dpa")  # with the paper's chips
# Real frames whose photons one simulated frame carries. Eight: 64 frames then reach 20 photons per pixel, the middle
# of the 1-50 that scans are summed to.
SERIES = {"real": 1, "eightfold": 8}
PUBLISHED = ("as_published", "graphem")  # they embed with VGG16: a network, minutes a scan
MAIN = ("eightfold", 16)  # the checkpoint of the tables of all methods: 5 photons per pixel
QUICK = ("eightfold", 4)
SEEDS = 3  # enough for a spread; each costs a quarter of an hour

_STEPS = {"real": (1, 4, 16, 64, 256), "eightfold": (1, 4, 16, 64)}
_PUBLISHED_AT = (MAIN, ("eightfold", 64))  # two doses for every seed ...
_ONCE = ("eightfold", 1)  # ... and a third for the first: a network and its graphs take minutes a scan


@dataclass(frozen=True)
class Scan:
    """One simulated scan and what is computed of it.

    Attributes
    ----------
    sample : a specimen's name
    seed : of the scan, and of the choice of support chips
    series : key of `SERIES`
    checkpoints : (frames, presets), frames rising
    shape : (rows, cols) of the scan; None: the specimen's own
    """

    sample: str
    seed: int
    series: str
    checkpoints: tuple[tuple[int, tuple[str, ...]], ...]
    shape: tuple[int, int] | None = None

    @property
    def real_frames(self) -> int:
        """Real frames whose photons each of this scan's frames carries."""
        return SERIES[self.series]


def full(seeds: int, published: tuple[str, ...]) -> Iterator[Scan]:
    """Yield the scans of the whole table, seed after seed, so that it is whole for some seeds whenever it is stopped.

    Parameters
    ----------
    seeds : int
        Seeds 0 .. seeds - 1.
    published : tuple of str
        Presets beside the default one; () without the network's weights.
    """
    for seed in range(seeds):
        for sample in SAMPLES:
            for series, steps in _STEPS.items():
                checkpoints = tuple((n, ("default", *_also(seed, series, n, published))) for n in steps)
                yield Scan(sample, seed, series, checkpoints)


def quick() -> Iterator[Scan]:
    """Yield the one scan of the quick form, which shows that all of it still runs and about where it stands."""
    series, frames = QUICK
    checkpoints = ((1, ("default",)), (frames, ("default",)))
    yield Scan("pristine-0.1dpa", 0, series, checkpoints)


def _also(seed: int, series: str, frames: int, published: tuple[str, ...]) -> tuple[str, ...]:
    at = (series, frames)
    return published if at in _PUBLISHED_AT or (seed == 0 and at == _ONCE) else ()
