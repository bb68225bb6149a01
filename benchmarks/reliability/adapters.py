"""Sources of scans without sockets: the product's publisher and remaker, and what survives a kill of their program.

A recorded source sends its scan again; of an instrument's scan that was broken off nothing is left but what had been
acknowledged. A scan is a column of one-pixel tiles whose value tells which one it is, so that a tile that was taken
for another, or whose content was spoilt on the way, is found out at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from benchmarks.reliability.link import Link
from benchmarks.reliability.served import SESSION, Served
from numpy.typing import NDArray

from livestem.client.remake import Remaker
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.tiles import HaadfTile
from livestem.protocol.desk import Desk
from livestem.protocol.publisher import Publisher
from livestem.wire import messages as m
from livestem.wire.codec import encode

WINDOW = 6  # messages that a recorded source keeps unacknowledged


@dataclass(frozen=True)
class Scan:
    """A scan of so many tiles."""

    name: str
    tiles: int

    def value(self, tile: int) -> int:
        """Return what a tile's one pixel holds."""
        return hash((int(self.name[4:]), tile)) % 60_000 + 1

    def tiles_of(self, frame: int) -> Iterator[HaadfTile]:
        """Yield the tiles once more."""
        for tile in range(self.tiles):
            yield HaadfTile(frame=frame, y=tile, x=0, values=np.array([[self.value(tile)]], dtype="<u2"))

    def messages(self) -> Iterator[tuple[m.OfScan, tuple[NDArray[Any], ...]]]:
        """Yield what is sent, end and all."""
        for tile in range(self.tiles):
            header = m.HaadfRows(scan_id=self.name, frame=0, y=tile, x=0)
            yield header, (np.array([[self.value(tile)]], dtype="<u2"),)
        totals = {"frames": 1, "haadf_tiles": self.tiles, "eds_tiles": 0, "eds_counts": 0}
        yield m.ScanEnd(scan_id=self.name, status="complete", **totals), ()  # type: ignore[arg-type]


class Adapter:
    """A source of scans, one after the other.

    A recorded one waits for acknowledgements, ends when its last scan is acknowledged, and after a kill sends the scan
    at hand again. An instrument never waits; a scan that a kill broke off stays broken off.
    """

    def __init__(self, link: Link, scans: Sequence[Scan], *, recorded: bool, limits: Limits = DEFAULT_LIMITS) -> None:
        self.scans, self.recorded = list(scans), recorded
        self._link, self._limits = link, limits
        self._at = 0  # the scan at hand
        self._hub: Served | None = None
        self.sent: dict[tuple[str, int], tuple[int, int]] = {}  # tile -> (epoch, seq) of its newest sending
        self.excused: set[tuple[str, int]] = set()  # tiles that nobody can have: let go, or died with the program
        self.finished = False

    def start(self, epoch: int) -> None:
        """Start the program."""
        self._remaker = Remaker(self._send, self._tell)
        for scan in self.scans if self.recorded else ():
            self._remaker.offer(scan.name, scan.tiles_of)
        self._publisher = Publisher(
            SESSION, "acq", epoch, lambda: 0, limits=self._limits, remake=self._remaker.take if self.recorded else None
        )
        desk = Desk("acquisition")
        desk.published[SESSION] = self._publisher
        self._hub = Served(self._link, epoch, desk, "acq")
        self._left = list(self.scans[self._at].messages()) if self._at < len(self.scans) else []
        self._end_seq: int | None = None

    def kill(self) -> None:
        """Kill it: what was never acknowledged is gone with it, unless it is a recording."""
        if self._hub is None:
            return
        self._excuse_forgotten()
        if not self.recorded and self._at < len(self.scans):
            scan, acked = self.scans[self._at], self._publisher.buffer.acknowledged
            for tile in range(scan.tiles):
                epoch, seq = self.sent.get((scan.name, tile), (0, 0))
                if epoch != self._publisher.epoch or seq > acked:
                    self.excused.add((scan.name, tile))
            self._at += 1
        if not self.recorded:  # and of scans before it
            acked, epoch = self._publisher.buffer.acknowledged, self._publisher.epoch
            self.excused |= {key for key, (e, seq) in self.sent.items() if e == epoch and seq > acked}
        self._hub = None

    def step(self, now: float) -> None:
        """Do what the program does in one moment."""
        if self._hub is None:
            return
        self._hub.tick(now)
        self._remaker.serve()
        buffer = self._publisher.buffer
        if self._left and (not self.recorded or buffer.last_seq - buffer.acknowledged < WINDOW):
            self._send_next()
        elif not self._left and self._at < len(self.scans) and (not self.recorded or self._acknowledged):
            self._at += 1
            self._left = list(self.scans[self._at].messages()) if self._at < len(self.scans) else []
        if self.recorded and self._at == len(self.scans):
            self.finished, self._hub = True, None  # what `replay` does once everything is acknowledged
        elif self._at == len(self.scans):
            self.finished = True

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self._hub is not None

    def hear(self, request: m.Talk) -> None:
        """Take a request from the ROUTER."""
        if self._hub is not None:
            self._hub.request(request)

    @property
    def sent_all(self) -> tuple[int, int] | None:
        """Return the epoch and the last seq of a program that has sent all and still runs; None otherwise."""
        return None if self._hub is None else (self._publisher.epoch, self._publisher.buffer.last_seq)

    def close_books(self) -> None:
        """Note what the buffer has let go of by the end."""
        if self._hub is not None:
            self._excuse_forgotten()

    @property
    def _acknowledged(self) -> bool:
        return self._publisher.buffer.acknowledged >= self._publisher.buffer.last_seq

    def _send_next(self) -> None:
        self._send(*self._left.pop(0))

    def _tell(self, peer: bytes, word: m.Talk) -> None:
        origin = {"session": SESSION, "epoch": self._publisher.epoch}
        self._link.send("reply", encode(msgspec.structs.replace(word, **origin)))

    def _send(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...], codec: str = "raw") -> None:
        self._link.send("pub", self._publisher.publish(header, arrays, codec=codec))
        if isinstance(header, m.HaadfRows):
            self.sent[header.scan_id, header.y] = self._publisher.epoch, self._publisher.buffer.last_seq
        self._excuse_forgotten()

    def _excuse_forgotten(self) -> None:
        """A tile that the full buffer let go of before it was acknowledged cannot be had again."""
        buffer, epoch = self._publisher.buffer, self._publisher.epoch
        for key, (e, seq) in self.sent.items():
            if e == epoch and buffer.acknowledged < seq < buffer.first_seq and not self.recorded:
                self.excused.add(key)
