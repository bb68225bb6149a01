"""Embedding: chips a second of each encoder, beside one chip at a time and beside what the processor can multiply.

VGG16 as the service uses it, with every core, and one chip at a time with torchvision's own trunk, as the published
scripts do. The machine's rate is that of large products of matrices, in fp32 and in bf16, measured in the same run.
*Work* is what plain convolutions would need: minimal filtering needs fewer products, so its share of a rate is what
plain sums would have to reach to be as quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from benchmarks.performance.published import one_at_a_time, tensors
from benchmarks.performance.table import Cell, Table, Timed, timed
from numpy.typing import NDArray

from livestem.domain.geometry import Sampling, plan_grid
from livestem.runtime import weights
from livestem.simulator import Simulation, load_specimen
from livestem.stages.agreement import ami
from livestem.stages.chips import cut, windows
from livestem.stages.grey import percentile_range, to_grey
from livestem.stages.lattice import lattice_descriptors, margin_px
from livestem.stages.vgg16 import SIDE, TENSOR_SHAPES, Vgg16
from livestem.stages.ward import ward_labels

NAME = "embedding"
_FRAMES, _CHIP_PX = 8, 15
_CLUSTERS = 4  # the specimen's classes
_ALONE = 100  # chips that are embedded one at a time
_MATRIX = 3072  # rows and columns: large enough for the processor's best rate
_POOLED_AFTER = (2, 4, 7, 10, 13)  # convolutions of VGG16 before each halving of the side
RATES = {"fp32": "float32", "bf16": "bfloat16"}
LATTICE, ALONE = "lattice descriptor, no network", "VGG16 one chip at a time, fp32"
BATCHED = {precision: f"VGG16 as the service embeds, {precision}" for precision in RATES}


def measure(runs: int, quick: bool) -> Table:
    """Time all; `quick` has 64 chips, and small matrices."""
    side = _CHIP_PX * (8 if quick else 33)
    image = picture(side)
    grid = plan_grid(Sampling(shape=(side, side), pixel_nm=(0.05, 0.05)), None, chip_px=_CHIP_PX)
    grey = cut(to_grey(image, percentile_range(image)), grid, _CHIP_PX)
    margin = margin_px(_CHIP_PX)
    around = windows(image, grid, _CHIP_PX, margin)
    encoders = {precision: Vgg16(tensors(), "cpu", precision) for precision in BATCHED}  # type: ignore[arg-type]
    alone, few = one_at_a_time(), grey[: 8 if quick else _ALONE]
    size = 256 if quick else _MATRIX
    works: dict[str, Callable[[], object]] = {
        ALONE: lambda: [alone(chip) for chip in few],
        **{BATCHED[p]: lambda e=e: e.encode(grey) for p, e in encoders.items()},  # type: ignore[misc]
        LATTICE: lambda: lattice_descriptors(around, margin),
        **{precision: product(size, dtype) for precision, dtype in RATES.items()},
    }
    took = timed(works, runs)
    rates = {precision: 2 * size**3 / took.pop(precision).median for precision in RATES}
    chips = dict.fromkeys(took, len(grey)) | {ALONE: len(few)}
    return table(chips, took, rates, apart(encoders["bf16"].encode(grey), encoders["fp32"].encode(grey)))


def table(chips: Mapping[str, int], took: Mapping[str, Timed], rates: Mapping[str, float], deviation: str) -> Table:
    """Return what was measured.

    Parameters
    ----------
    chips, took : of each row
    rates : floating point operations a second of products of matrices, by precision
    deviation : of bf16, in words
    """
    per_s = {name: chips[name] / t.median for name, t in took.items()}
    work = 2 * multiplications()
    rows: list[tuple[Cell, ...]] = []
    for name, found in per_s.items():
        shares: list[Cell] = [None if name == LATTICE else found * work / rate for rate in rates.values()]
        rows.append((name, found / per_s[ALONE], *shares, found, 1e3 / found))
    told = " and ".join(f"{rate / 1e9:.0f} GFLOP/s in {precision}" for precision, rate in rates.items())
    return Table(
        name=NAME,
        title="Embedding",
        command=f"python -m benchmarks.performance {NAME}",
        columns=("what", "times one at a time", *(f"of the {p} rate" for p in rates), "chips/s", "ms a chip"),
        rows=tuple(rows),
        notes=(
            f"This machine multiplies matrices at {told}; VGG16's trunk on {SIDE} x {SIDE} is {work / 1e6:.0f} MFLOP a "
            "chip, by plain sums. In fp32 the service's needs fewer (minimal filtering), so its share can be beyond "
            "what plain sums reach.",
            f"bf16 beside fp32: {deviation}.",
            *(("There are no VGG16 weights here: these are random ones.",) if weights.find() is None else ()),
        ),
        facts={"chips_per_s": per_s, "flop_per_s": dict(rates)},
    )


def multiplications() -> int:
    """Return the multiplications of VGG16's trunk for one chip, by plain sums."""
    kernels = [shape for shape in TENSOR_SHAPES.values() if len(shape) == 4]
    total = 0
    for halvings, (begin, end) in enumerate(pairwise((0, *_POOLED_AFTER))):
        total += sum(int(np.prod(shape)) for shape in kernels[begin:end]) * (SIDE >> halvings) ** 2
    return total


def product(size: int, dtype: str) -> Callable[[], object]:
    """Return what multiplies two (size, size) matrices with every core."""
    import torch

    draw = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, size, generator=draw).to(getattr(torch, dtype)) for _ in range(2))
    return lambda: a @ b


def picture(side: int) -> NDArray[np.float64]:
    """Return a simulated HAADF of side x side pixels, mean per visit."""
    scan = Simulation(load_specimen("pristine-0dpa"), 0, _FRAMES, modalities=("haadf",))
    total = np.zeros(scan.shape)
    for i in range(_FRAMES):
        haadf = scan.frame(i).haadf
        assert haadf is not None
        total += haadf
    return total[:side, :side] / _FRAMES


def apart(found: NDArray[Any], reference: NDArray[Any]) -> str:
    """Return how embeddings differ from the reference's, in words."""
    away = np.linalg.norm(found - reference, axis=1) / np.linalg.norm(reference, axis=1)
    alike = ami(ward_labels(found, _CLUSTERS), ward_labels(reference, _CLUSTERS))
    told = "undefined" if alike is None else f"{alike:.3f}"
    return f"{np.median(away):.1e} of its length away in the median, {away.max():.1e} at most; AMI of Ward's {told}"
