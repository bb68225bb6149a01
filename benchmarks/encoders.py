"""Chips per second of each encoder as the service uses it, and what VGG16's precision changes: medians of one run.

Run: ``python benchmarks/encoders.py [--chips 1089] [--side 15] [--rounds 5] [--device cpu]``. VGG16 needs its weights
(``livestem weights fetch``) and the extra ``vgg16``; without them only the lattice descriptor is timed.

The picture is the virtual microscope's pristine-0dpa, eight frames. *Deviation* is the distance of a chip's embedding
from that of fp32 on the processor over the latter's length, median and largest; *AMI* how alike Ward's four clusters
are (1: the same).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Sampling, plan_grid
from livestem.runtime import weights
from livestem.simulator import Simulation, load_specimen
from livestem.stages.agreement import ami
from livestem.stages.chips import cut, windows
from livestem.stages.clahe import equalise
from livestem.stages.grey import percentile_range, to_grey
from livestem.stages.lattice import lattice_descriptors, margin_px
from livestem.stages.ward import ward_labels

FRAMES = 8
CLUSTERS = 4  # the specimen's classes


def rate(work: Callable[[], object], chips: int, rounds: int) -> float:
    """Return the median chips per second of `rounds` runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return chips / statistics.median(seconds)


def picture(size: int) -> NDArray[np.float64]:
    """Return a simulated HAADF of size x size pixels, mean per visit."""
    scan = Simulation(load_specimen("pristine-0dpa"), 0, FRAMES, modalities=("haadf",))
    total = np.zeros(scan.shape)
    for i in range(FRAMES):
        haadf = scan.frame(i).haadf
        assert haadf is not None
        total += haadf
    if min(total.shape) < size:
        raise SystemExit(f"the picture has {total.shape} pixels; ask for fewer or smaller chips")
    return total[:size, :size] / FRAMES


def compared(found: NDArray[np.float32], reference: NDArray[np.float32]) -> str:
    """Return how embeddings differ from the reference's, in words."""
    away = np.linalg.norm(found - reference, axis=1) / np.linalg.norm(reference, axis=1)
    alike = ami(ward_labels(found, CLUSTERS), ward_labels(reference, CLUSTERS))
    return f"deviation {np.median(away):.1e}, at most {away.max():.1e}; AMI {alike:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=1089, help="about so many chips, a square field of them")
    parser.add_argument("--side", type=int, default=15, help="pixels a chip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="where VGG16 runs, beside the processor in fp32")
    asked = parser.parse_args()
    rows = max(2, round(asked.chips**0.5))
    size = rows * asked.side
    grid = plan_grid(Sampling(shape=(size, size), pixel_nm=(0.05, 0.05)), None, chip_px=asked.side)
    image = picture(size)
    margin = margin_px(asked.side)
    print(f"{grid.chips} chips of {asked.side} px, medians of {asked.rounds}, chips/s")

    chips = windows(image, grid, asked.side, margin)
    found = rate(lambda: lattice_descriptors(chips, margin), grid.chips, asked.rounds)
    print(f"lattice           {found:9.0f}")
    whole = to_grey(image, percentile_range(image))
    found = rate(lambda: equalise(whole), grid.chips, asked.rounds)
    print(f"CLAHE, before it  {found:9.0f}")

    path = weights.find()
    if path is None:
        print("vgg16             no weights here: livestem weights fetch")
        return
    from livestem.stages.vgg16 import Vgg16

    tensors = weights.load(path)
    grey = cut(whole, grid, asked.side)
    reference = Vgg16(tensors).encode(grey)
    for device in dict.fromkeys(("cpu", asked.device)):
        for precision in ("fp32", "bf16"):
            encoder = Vgg16(tensors, device, precision)  # type: ignore[arg-type]
            found = rate(lambda e=encoder: e.encode(grey), grid.chips, asked.rounds)  # type: ignore[misc]
            print(f"vgg16 {device:6} {precision} {found:9.0f}   {compared(encoder.encode(grey), reference)}")


if __name__ == "__main__":
    main()
