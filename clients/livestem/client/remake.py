"""Tiles that are asked for again after the resend buffer has let them go, made anew by a source that can.

Requests come on the hub's thread and are only noted there, so that heartbeats go on; the thread that sends serves them,
between tiles and while it waits, one frame at a time. What is made is published under new numbers: data are known by
their place, so whoever has some of them already takes no harm.

Policy: of each asker the newest request for a frame counts; when `MOST_WAITING` wait, a further one is not taken, and
its asker asks again. What the source cannot make is told as `gone`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

import msgspec
from numpy.typing import NDArray

from livestem.client.tilecheck import as_messages
from livestem.domain.errors import SourceError
from livestem.domain.tiles import Tile
from livestem.protocol.places import gone_places, outside, overlap, rectangle_of
from livestem.wire import messages as m

log = logging.getLogger(__name__)

MOST_WAITING = 16  # a service asks for one frame of each scan at a time

TilesOf = Callable[[int], Iterable[Tile]]


class Publish(Protocol):
    """Sends a reliable message."""

    def __call__(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...], codec: str) -> object:
        """Send it now."""


class Remaker:
    """Takes requests from one thread, serves them on another.

    Parameters
    ----------
    publish : callable
        Sends a message under a new number; called by `serve`.
    tell : callable
        Sends a word to one asker; called by `serve`.
    """

    def __init__(self, publish: Publish, tell: Callable[[bytes, m.Talk], None]) -> None:
        self._publish, self._tell = publish, tell
        self._sources: dict[str, TilesOf] = {}  # by scan
        self._asked: dict[tuple[bytes, str, int], m.Resend] = {}  # by asker, scan and frame
        self._lock = threading.Lock()

    @property
    def waiting(self) -> bool:
        """Whether something is to be served."""
        return bool(self._asked)

    def offer(self, scan_id: str, tiles_of: TilesOf) -> None:
        """Make tiles of this scan again from now on; ``tiles_of(frame)`` yields those of a frame, as they were."""
        with self._lock:
            self._sources[scan_id] = tiles_of

    def withdraw(self, scan_id: str) -> None:
        """Make no more of this scan."""
        with self._lock:
            self._sources.pop(scan_id, None)

    def take(self, peer: bytes, request: m.Resend) -> Literal["coming", "gone"] | None:
        """Note a request; say whether it will be served, or None if it is not taken."""
        assert request.scan_id is not None and request.frame is not None
        key = peer, request.scan_id, request.frame
        with self._lock:
            if request.scan_id not in self._sources:
                return "gone"
            if key not in self._asked and len(self._asked) >= MOST_WAITING:
                return None
            self._asked[key] = request
            return "coming"

    def serve(self) -> None:
        """Serve the oldest request, if there is one."""
        with self._lock:
            if not self._asked:
                return
            key = next(iter(self._asked))
            request = self._asked.pop(key)
            tiles_of = self._sources.get(key[1])
        made: list[m.Rectangle] = []
        try:
            if tiles_of is not None:
                self._make(request, tiles_of, made)
        except SourceError as e:
            log.warning("frame %d of scan %s cannot be read again: %s", key[2], key[1], e)
        absent = outside(request.rectangles, made)
        if absent:
            self._tell(key[0], gone_places(msgspec.structs.replace(request, rectangles=absent)))

    def _make(self, request: m.Resend, tiles_of: TilesOf, made: list[m.Rectangle]) -> None:
        assert request.scan_id is not None and request.frame is not None
        for tile in tiles_of(request.frame):
            for header, arrays, codec in as_messages(request.scan_id, tile):
                assert isinstance(header, m.HaadfRows | m.EdsRows)
                place = rectangle_of(header, arrays)
                if any(overlap(place, asked) for asked in request.rectangles):
                    self._publish(header, arrays, codec)
                    made.append(place)
