"""Small scans for tests: plans, tiles, and a way to put them through the wire's own encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from livestem.client.tilecheck import Totals, as_messages
from livestem.domain.geometry import Sampling
from livestem.domain.parameters import Processing
from livestem.domain.scan import Beam, Eds, EnergyAxis, Haadf, ScanPlan
from livestem.domain.support import SupportClass, SupportSet
from livestem.domain.tiles import EdsDense, EdsEvents, HaadfTile, Tile
from livestem.protocol.publisher import Publisher
from livestem.runtime.store import KnownScan
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode

AXIS = EnergyAxis(channels=1024, scale_kev=0.01, offset_kev=-0.1)


SUPPORT = SupportSet(
    classes=(
        SupportClass(name="iron", chips=((0, 0), (3, 1), (5, 2))),
        SupportClass(name="titanium", chips=((0, 5), (3, 4), (5, 3))),
    )
)
ASKED = Processing(elements=("Fe", "Ti"), chip_px=4, clusters=2, support=SUPPORT)
TRUTH = np.repeat([[0, 0, 0, 1, 1, 1]], 6, axis=0)  # of `tiles`, in chips of 4 px


def plan(
    shape: tuple[int, int] = (24, 24), frames: int | None = 2, *, haadf: str | None = "<u2", eds: bool = True
) -> ScanPlan:
    """Return a plan of 1 nm pixels."""
    sampling = Sampling(shape=shape, pixel_nm=(1.0, 1.0))
    return ScanPlan(
        haadf=None if haadf is None else Haadf(sampling=sampling, dtype=haadf),
        eds=Eds(sampling=sampling, energy=AXIS) if eds else None,
        frames=frames,
        dwell_s=1e-6,
        beam=Beam(energy_kv=200.0),
    )


def tiles(plan: ScanPlan, seed: int = 0, rows: int = 8) -> list[Tile]:
    """Return the tiles of a field whose left half is Fe and right half is Ti, brighter on the right."""
    rng = np.random.default_rng(seed)
    height, width = plan.sampling(plan.modalities[0]).shape
    found: list[Tile] = []
    for frame in range(plan.frames or 1):
        for y in range(0, height, rows):
            h = min(rows, height - y)
            right = np.broadcast_to(np.arange(width) >= width // 2, (h, width))
            if plan.haadf is not None:
                values = rng.poisson(np.where(right, 400, 200)).astype(plan.haadf.dtype)
                found.append(HaadfTile(frame=frame, y=y, x=0, values=values))
            if plan.eds is not None:
                counts = rng.poisson(6.0, (h, width)).astype(np.uint8)
                energy = np.where(np.repeat(right.ravel(), counts.ravel()), 4.510, 6.404)
                energy = rng.normal(energy, 0.055)
                channels = np.clip(np.round((energy - AXIS.offset_kev) / AXIS.scale_kev), 0, 1023).astype(np.uint16)
                found.append(EdsEvents(frame=frame, y=y, x=0, counts=counts, channels=channels))
    return found


def messages(
    plan: ScanPlan, parts: list[Tile], scan_id: str = "scan", session: str = "s1", epoch: int = 7
) -> Iterator[Message]:
    """Yield the messages of a whole scan as they come off the wire."""
    publisher = Publisher(session, "acq", epoch, lambda: 0)
    totals = Totals()
    yield decode(publisher.publish(m.ScanStart(scan_id=scan_id, plan=plan)))
    for part in parts:
        for header, arrays, codec in as_messages(scan_id, part):
            totals.add(header, arrays)
            yield decode(publisher.publish(header, arrays, codec=codec))
    sent = totals.sent
    end = m.ScanEnd(
        scan_id=scan_id,
        status="complete",
        frames=sent.frames,
        haadf_tiles=sent.haadf_tiles,
        eds_tiles=sent.eds_tiles,
        eds_counts=sent.eds_counts,
    )
    yield decode(publisher.publish(end))


def dense(tile: EdsEvents) -> EdsDense:
    """Return the same photons as spectra."""
    h, w = tile.counts.shape
    values = np.zeros((h * w, AXIS.channels), np.uint8)
    np.add.at(values, (np.repeat(np.arange(h * w), tile.counts.ravel()), tile.channels), 1)
    return EdsDense(frame=tile.frame, y=tile.y, x=tile.x, values=values.reshape(h, w, -1))


class FolderStore:
    """A store in a temporary folder that remembers what it was told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scans: dict[tuple[str, str], KnownScan] = {}
        self.free = 10**12

    def known(self, session: str, scan_id: str) -> KnownScan | None:
        return self.scans.get((session, scan_id))

    def folder(self, session: str, scan_id: str) -> Path:
        return self.root / session / scan_id

    def begin(
        self,
        session: str,
        scan_id: str,
        plan: bytes,
        parameters: bytes,
        arithmetic: bytes | None = None,
        fill: Callable[[Path], None] = lambda folder: None,
    ) -> Path:
        folder = self.folder(session, scan_id)
        folder.mkdir(parents=True)
        fill(folder)
        self.scans[session, scan_id] = KnownScan(plan, parameters, "open", arithmetic)
        return folder

    def reopen(self, session: str, scan_id: str) -> None:
        self.finish(session, scan_id, "open")

    def finish(self, session: str, scan_id: str, status: str) -> None:
        self.scans[session, scan_id] = replace(self.scans[session, scan_id], status=status)

    def open_scans(self) -> list[tuple[str, str]]:
        return [key for key, known in self.scans.items() if known.status == "open"]

    def latest(self, session: str, most: int) -> list[str]:
        return [scan_id for of, scan_id in self.scans if of == session][-most:]

    def keep_support(self, support: SupportSet) -> None:
        pass

    def free_bytes(self) -> int:
        return self.free
