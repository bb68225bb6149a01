"""The adapter of `ingest`: sends one kind of tiles as fast as they are acknowledged; then the bare ways, same bytes.

Prints JSON, `Sent`. The bare ways move the very messages that the service got: pyzmq from one socket to another over
loopback TCP, and SQLite into a table as the journal's, with its commits.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from livestem.client import Acquisition
from livestem.domain.geometry import Sampling
from livestem.domain.parameters import Processing
from livestem.domain.scan import Beam, Eds, EnergyAxis, Haadf, ScanPlan
from livestem.domain.support import SupportClass, SupportSet
from livestem.domain.tiles import EdsDense, EdsEvents, HaadfTile, Tile
from livestem.runtime.journal import COMMIT_BYTES
from livestem.wire import messages as m
from livestem.wire.codec import nest

SIDE, CHANNELS, ROWS, DWELL_S = 512, 4096, 16, 2e-6
DENSE_ROWS = 64  # of a field of dense spectra: 134 MB
DENSE_COUNTS = 5.0  # photons per pixel in them
RENDERED = 2  # frames that are drawn; the others repeat them
SUPPORT = SupportSet(
    classes=tuple(SupportClass(name=f"c{k}", chips=((0, 2 * k), (0, 2 * k + 1), (1, 2 * k))) for k in range(4))
)


class Sent(msgspec.Struct, frozen=True):
    """What was sent, and how long each way took.

    Attributes
    ----------
    tiles, events, nbytes : messages with tiles, photons in them, bytes of all frames
    beam_s : what the instrument takes for that
    ours_s : from the first tile sent to the acknowledgement of `scan_end`: validated, journalled, counted in
    zmq_s, sqlite_s : the bare ways
    """

    tiles: int
    events: int
    nbytes: int
    beam_s: float
    ours_s: float
    zmq_s: float
    sqlite_s: float


def plan_of(kind: str, frames: int) -> ScanPlan:
    """Return the plan of a scan of one kind: ``haadf``, ``dense``, or EDS photons per pixel and frame."""
    shape = (DENSE_ROWS if kind == "dense" else SIDE, SIDE)
    sampling = Sampling(shape=shape, pixel_nm=(0.05, 0.05))
    eds = Eds(
        sampling=sampling,
        energy=EnergyAxis(channels=CHANNELS, scale_kev=0.01, offset_kev=-0.25),
        elements=("O", "Ti", "Fe", "Sr", "La"),
    )
    return ScanPlan(
        frames=frames,
        dwell_s=DWELL_S,
        beam=Beam(energy_kv=300.0),
        haadf=None if kind == "dense" else Haadf(sampling=sampling, dtype="uint16"),
        eds=None if kind == "haadf" else eds,
        processing=Processing(support=SUPPORT, register="none", chip_px=10),
    )


def tiles_of(kind: str, rng: np.random.Generator) -> list[list[Tile]]:
    """Return the tiles of `RENDERED` frames, drawn before anything is timed."""
    frames: list[list[Tile]] = []
    for frame in range(RENDERED):
        tiles: list[Tile] = []
        if kind == "dense":
            for y in range(DENSE_ROWS):
                share = DENSE_COUNTS / CHANNELS
                tiles.append(EdsDense(frame=frame, y=y, x=0, values=_counts(rng, share, (1, SIDE, CHANNELS))))
        else:
            for y in range(0, SIDE, ROWS):
                picture = rng.integers(0, 60_000, (ROWS, SIDE)).astype(np.uint16)
                tiles.append(HaadfTile(frame=frame, y=y, x=0, values=picture))
                if kind != "haadf":
                    counts = _counts(rng, float(kind), (ROWS, SIDE))
                    channels = rng.integers(20, 1500, int(counts.sum())).astype(np.uint16)
                    tiles.append(EdsEvents(frame=frame, y=y, x=0, counts=counts, channels=channels))
        frames.append(tiles)
    return frames


def _counts(rng: np.random.Generator, mean: float, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return rng.poisson(mean, shape).astype(np.uint8)


class Uncompressed(Acquisition):
    """Sends every payload as it is: what is to be measured is ingest, and not a compressor."""

    def publish(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...] = (), *, codec: str = "raw") -> None:
        """Publish, whatever codec is asked for, without any."""
        super().publish(header, arrays)


class Seen:
    """Keeps every message of tiles on its way to the socket."""

    def __init__(self) -> None:
        self.frames: list[list[bytes]] = []

    def __call__(self, frames: list[bytes]) -> list[list[bytes]]:
        """Note a message and let it pass."""
        if frames[0].endswith((b".haadf_tile", b".eds_tile")):
            self.frames.append([bytes(f) for f in frames])
        return [frames]


def ours(endpoint: str, kind: str, frames: int, seen: Seen) -> float:
    """Send the scan; return the seconds from its first tile to the acknowledgement of its end."""
    drawn = tiles_of(kind, np.random.default_rng(0))
    with Uncompressed("bench", endpoint, recorded=True, link=seen) as acquisition:
        acquisition.wait_for_service()
        with acquisition.start_scan(plan_of(kind, frames), "scan") as scan:
            while scan.verdict is None:
                time.sleep(0.01)
            acquisition.raise_if_refused("scan")
            began = time.perf_counter()
            for frame in range(frames):
                for tile in drawn[frame % RENDERED]:
                    scan.tile(replace(tile, frame=frame))
        acquisition.wait_acknowledged()
        return time.perf_counter() - began


def bare_zmq(messages: list[list[bytes]]) -> float:
    """Return the seconds that pyzmq takes from a PUSH to a PULL that does nothing."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")

        def drain() -> None:
            for _ in messages:
                pull.recv_multipart(copy=False)

        reader = threading.Thread(target=drain)
        reader.start()
        began = time.perf_counter()
        for frames in messages:
            push.send_multipart(frames, copy=False)
        reader.join()
        took = time.perf_counter() - began
    context.term()
    return took


def bare_sqlite(messages: list[list[bytes]], folder: Path) -> float:
    """Return the seconds that SQLite takes to insert the messages, with the journal's commits and nothing else."""
    base = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=NORMAL")
    base.execute("CREATE TABLE messages (n INTEGER PRIMARY KEY, type TEXT, frame INTEGER, message BLOB)")
    began = time.perf_counter()
    for batch in _batches(messages):
        base.execute("BEGIN")
        base.executemany("INSERT INTO messages (type, frame, message) VALUES ('tile', 0, ?)", ((b,) for b in batch))
        base.execute("COMMIT")
    took = time.perf_counter() - began
    base.close()
    return took


def _batches(messages: list[list[bytes]]) -> Iterator[list[bytes]]:
    waiting: list[bytes] = []
    for frames in messages:
        waiting.append(nest(frames))
        if sum(map(len, waiting)) >= COMMIT_BYTES:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def main() -> None:
    """Do all three, and print what each took."""
    asked = _parser().parse_args()
    seen = Seen()
    ours_s = ours(asked.endpoint, asked.kind, asked.frames, seen)
    plan = plan_of(asked.kind, asked.frames)
    shape = plan.sampling(plan.modalities[0]).shape
    drawn = tiles_of(asked.kind, np.random.default_rng(0))
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        sent = Sent(
            tiles=len(seen.frames),
            events=sum(_events(t) for f in range(asked.frames) for t in drawn[f % RENDERED]),
            nbytes=sum(len(part) for frames in seen.frames for part in frames),
            beam_s=asked.frames * shape[0] * shape[1] * DWELL_S,
            ours_s=ours_s,
            zmq_s=bare_zmq(seen.frames),
            sqlite_s=bare_sqlite(seen.frames, Path(folder)),
        )
    print(msgspec.json.encode(sent).decode())


def _events(tile: Tile) -> int:
    if isinstance(tile, HaadfTile):
        return 0
    return int(tile.channels.size if isinstance(tile, EdsEvents) else tile.values.sum())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    return parser


if __name__ == "__main__":
    main()
