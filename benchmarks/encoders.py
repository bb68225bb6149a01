"""Chips per second of each encoder as the service uses it: medians of one run.

Run: ``python benchmarks/encoders.py [--chips 1089] [--side 15] [--rounds 5]``. VGG16 needs its weights
(``livestem weights fetch``) and the extra ``vgg16``; without them only the lattice descriptor is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from livestem.domain.geometry import Sampling, plan_grid
from livestem.runtime import weights
from livestem.stages.chips import cut, windows
from livestem.stages.lattice import lattice_descriptors, margin_px


def rate(work: Callable[[], object], chips: int, rounds: int) -> float:
    """Return the median chips per second of `rounds` runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return chips / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", type=int, default=1089, help="about so many chips, a square field of them")
    parser.add_argument("--side", type=int, default=15, help="pixels a chip")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    rows = max(2, round(asked.chips**0.5))
    size = rows * asked.side
    grid = plan_grid(Sampling(shape=(size, size), pixel_nm=(0.05, 0.05)), None, chip_px=asked.side)
    image = np.random.default_rng(0).normal(1000.0, 100.0, (size, size))
    margin = margin_px(asked.side)
    print(f"{grid.chips} chips of {asked.side} px, medians of {asked.rounds}, chips/s")

    chips = windows(image, grid, asked.side, margin)
    found = rate(lambda: lattice_descriptors(chips, margin), grid.chips, asked.rounds)
    print(f"lattice     {found:9.0f}")

    path = weights.find()
    if path is None:
        print("vgg16       no weights here: livestem weights fetch")
        return
    from livestem.stages.vgg16 import Vgg16

    tensors = weights.load(path)
    grey = cut(np.clip(image / 8, 0, 255).astype(np.uint8), grid, asked.side)
    for precision in ("fp32", "bf16"):
        encoder = Vgg16(tensors, precision=precision)  # type: ignore[arg-type]
        found = rate(lambda e=encoder: e.encode(grey), grid.chips, asked.rounds)  # type: ignore[misc]
        print(f"vgg16 {precision}  {found:9.0f}")


if __name__ == "__main__":
    main()
