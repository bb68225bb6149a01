"""The adapter of `live_latency`: an instrument at its own pace, of frames that were rendered before.

It notes when each message went to its socket, by the clock that all processes of this machine share, and writes that
as JSON when the scan is acknowledged: ``[[seq, seconds], ...]``, tiles only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from livestem.client import Acquisition
from livestem.domain.parameters import Processing
from livestem.domain.scan import ScanPlan
from livestem.domain.support import SupportClass, SupportSet
from livestem.domain.tiles import Tile
from livestem.domain.truth import Truth
from livestem.simulator import Simulation, load_specimen

SHAPE, COUNTS = (512, 512), 0.2  # pixels; EDS photons per pixel and frame: the middle of what the instrument has
ROWS = 16  # of a tile: one each 16 ms, so that a look has something new
RENDERED = 4  # frames, played to and fro: drift then never jumps
EXAMPLES = 3  # chips of a class
_PURE = 0.95  # share of a chip that an example has of its class
_TILE_TOPICS = (b".haadf_tile", b".eds_tile")


class Sent:
    """When each tile went to its socket; stands between the publisher and that."""

    def __init__(self) -> None:
        self._tiles: list[tuple[float, bytes]] = []

    def __call__(self, frames: list[bytes]) -> list[list[bytes]]:
        """Note a message and let it pass."""
        if frames[0].endswith(_TILE_TOPICS):
            self._tiles.append((time.perf_counter(), frames[1]))
        return [frames]

    def by_seq(self) -> list[tuple[int, float]]:
        """Return (seq, seconds) of every tile."""
        return [(msgspec.msgpack.decode(header)["seq"], at) for at, header in self._tiles]


def examples(truth: Truth, chip_px: int) -> SupportSet:
    """Return a support set of the topmost chips of each class, so that scoring begins early."""
    rows, cols = (side // chip_px for side in SHAPE)
    cut = truth.class_of_pixel[: rows * chip_px, : cols * chip_px].reshape(rows, chip_px, cols, chip_px)
    classes = []
    for number, facts in enumerate(truth.facts.classes):
        pure = np.argwhere((cut == number).mean(axis=(1, 3)) >= _PURE)
        if len(pure) >= EXAMPLES:
            chips = tuple((int(row), int(col)) for row, col in pure[:EXAMPLES])
            classes.append(SupportClass(name=facts.name, chips=chips))
    return SupportSet(classes=tuple(classes))


def to_and_fro(frames: int) -> Iterator[int]:
    """Yield which rendered frame stands for each frame."""
    turn = [*range(RENDERED), *range(RENDERED - 2, 0, -1)]
    for frame in range(frames):
        yield turn[frame % len(turn)]


def rendered(frames: int, chip_px: int, preset: str) -> tuple[ScanPlan, list[list[Tile]]]:
    """Return the plan of a scan of so many frames, and the tiles of the frames that are played."""
    simulation = Simulation(load_specimen("defective-0dpa"), 0, RENDERED, shape=SHAPE, eds_counts_per_pixel=COUNTS)
    plan = simulation.plan
    asked = Processing(
        preset=preset,  # type: ignore[arg-type]  # the command line's choice
        chip_px=chip_px,
        support=examples(simulation.truth, chip_px),
        strays=plan.processing.strays if plan.processing else (),
    )
    tiles = [list(simulation.tiles_of(frame, ROWS)) for frame in range(RENDERED)]
    return msgspec.structs.replace(plan, frames=frames, processing=asked), tiles


def main() -> None:
    """Render, say so on stdout, play, and write when each tile was sent."""
    asked = _parser().parse_args()
    plan, tiles = rendered(asked.frames, asked.chip_px, asked.preset)
    sent, per_frame = Sent(), plan.dwell_s * SHAPE[0] * SHAPE[1]
    with Acquisition("bench", asked.endpoint, link=sent) as acquisition:
        acquisition.wait_for_service()
        with acquisition.start_scan(plan, "scan") as scan:
            while scan.verdict is None:
                time.sleep(0.01)
            acquisition.raise_if_refused("scan")
            print("playing", flush=True)
            began = time.perf_counter()
            for frame, of in enumerate(to_and_fro(asked.frames)):
                for tile in tiles[of]:
                    swept = frame + min(1.0, (tile.y + ROWS) / SHAPE[0])  # a tile is sent when its last row is there
                    time.sleep(max(0.0, began + swept * per_frame - time.perf_counter()))
                    scan.tile(replace(tile, frame=frame))
        acquisition.wait_acknowledged()
    asked.out.write_bytes(msgspec.json.encode(sent.by_seq()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--chip-px", type=int, required=True)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    main()
