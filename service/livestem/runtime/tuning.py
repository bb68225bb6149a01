"""Where VGG16 runs quickest here: measured by `livestem doctor --tune`, kept, and taken where nobody says otherwise.

The choice is the quickest of what was measured, if it is clearly quicker than the default: device and precision belong
to the `numerics` of every result, and are not to be changed for nothing. It lies beside the weights, as ``tuned.toml``;
flags and configuration win over it, and deleting it brings the default back.
"""

from __future__ import annotations

import math
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from livestem.domain.errors import LivestemError, UsageError
from livestem.stages.vgg16 import BATCH, GPU_BATCH, TENSOR_SHAPES, Vgg16

Precision = Literal["fp32", "bf16"]

FILE = "tuned.toml"
_CLEARLY = 1.2  # times as quick as the default; less is within what other programs on the machine take and give
_CHIP_PX = 15  # of the default chip at 0.05 nm; the network sees 32 whatever it is
_MEASURED_S = 2.0  # a combination is measured for so long; a slow one for one batch
_SEED = 0


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the encoder runs, and how."""

    device: str = "cpu"
    precision: Precision = "fp32"


DEFAULT = Choice()


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Throughput of one choice, with every core, as live maps and finals have it."""

    device: str
    precision: Precision
    threads: int
    chips_per_s: float

    @property
    def choice(self) -> Choice:
        """What was measured."""
        return Choice(self.device, self.precision)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    choice: Choice
    measured: tuple[dict[str, object], ...] = ()  # for who reads it; earlier versions wrote other fields


def stored(folder: Path) -> Choice | None:
    """Return the choice that was kept, or None.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File).choice
    except (OSError, ValueError) as e:
        raise UsageError(f"{path} cannot be used ({e}); delete it, or run: livestem doctor --tune") from e


def keep(folder: Path, choice: Choice, measured: tuple[Measured, ...]) -> Path:
    """Write a choice and what it rests on; return the file.

    Raises
    ------
    LivestemError
        If it cannot be written.
    """
    lines = ["# Measured by `livestem doctor --tune`. Flags and configuration win over it; without it: cpu, fp32.", ""]
    lines += ["[choice]", *_table(msgspec.to_builtins(choice))]
    for row in measured:
        lines += ["", "[[measured]]", *_table(msgspec.to_builtins(row))]
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".partial")
        draft.write_text("\n".join(lines) + "\n", "utf-8")
        draft.replace(path)
    except OSError as e:
        raise LivestemError(f"{path} cannot be written: {e.strerror or e}; set $LIVESTEM_CACHE to a folder") from e
    return path


def choose(measured: tuple[Measured, ...]) -> Choice:
    """Return the quickest choice, or the default where none is clearly quicker."""
    speeds = {row.choice: row.chips_per_s for row in measured}
    best = max(speeds, key=lambda choice: speeds[choice], default=DEFAULT)
    return best if speeds.get(best, 0.0) > _CLEARLY * speeds.get(DEFAULT, 0.0) else DEFAULT


def measure() -> Iterator[Measured]:
    """Measure every choice of this machine, the default first; weights do not matter for speed, so any will do.

    Raises
    ------
    UsageError
        If torch is missing.
    """
    rng = np.random.default_rng(_SEED)
    # He's initialisation keeps activations of order one: numbers that vanish or overflow have speeds of their own.
    tensors = {
        name: (rng.standard_normal(shape) * np.sqrt(2 / math.prod(shape[1:]))).astype(np.float32)
        for name, shape in TENSOR_SHAPES.items()
    }
    threads = Vgg16(tensors).workers  # says what to do where torch is missing
    for choice in _choices():
        encoder = Vgg16(tensors, choice.device, choice.precision)
        count = BATCH * threads if choice.device == "cpu" else GPU_BATCH  # whole batches, one for each thread
        chips = rng.integers(0, 256, (count, _CHIP_PX, _CHIP_PX)).astype(np.uint8)
        yield Measured(choice.device, choice.precision, encoder.workers, _chips_per_s(encoder, chips))


def _choices() -> Iterator[Choice]:
    import torch

    for device in ("cpu", *(f"cuda:{i}" if i else "cuda" for i in range(torch.cuda.device_count()))):
        yield Choice(device, "fp32")
        yield Choice(device, "bf16")


def _chips_per_s(encoder: Vgg16, chips: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    encoder.encode(chips)  # the first batch plans and compiles
    began, done = time.perf_counter(), 0
    while not done or time.perf_counter() - began < _MEASURED_S:
        encoder.encode(chips)
        done += len(chips)
    return round(done / (time.perf_counter() - began), 1)


def _table(values: Mapping[str, object]) -> list[str]:
    return [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in values.items()]
