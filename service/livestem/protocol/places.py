"""Which kept message holds which rectangle of which frame, and what rectangles leave of one another.

Rules
-----
1. A tile is known by (scan, frame, modality, rectangle). Sent again under another number it is found under the newest.
2. A message that has been let go is found no more.
3. The `scan_start` of a scan is kept for as long as the scan has not ended, and after that for as long as its
   `scan_end` is kept: a service that comes in the middle of a scan could do nothing with the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from livestem.wire import messages as m

# Pairs of a rectangle asked for and a kept tile that one request may compare: a tenth of a second, in which nothing
# else is answered. What is beyond comes when it is asked for again.
MOST_PAIRS = 200_000


class Places:
    """The places of a stream's kept messages.

    Attributes
    ----------
    starts : numbers of the `scan_start` messages that are not to be let go
    """

    def __init__(self) -> None:
        self.starts: set[int] = set()
        self._tiles: dict[tuple[str, int], dict[m.Rectangle, int]] = {}  # (scan, frame) -> rectangle -> seq
        self._of: dict[int, tuple[str, int, m.Rectangle]] = {}
        self._begun: dict[str, int] = {}
        self._ended: dict[int, str] = {}

    def add(self, header: m.Header, arrays: Sequence[NDArray[Any]]) -> None:
        """Note where a numbered message belongs; one that is not of a scan's data belongs nowhere."""
        if isinstance(header, m.ScanStart):
            self.starts.discard(self._begun.get(header.scan_id, 0))
            self._begun[header.scan_id] = header.seq
            self.starts.add(header.seq)
        elif isinstance(header, m.ScanEnd):
            self._ended[header.seq] = header.scan_id
        elif isinstance(header, m.HaadfRows | m.EdsRows):
            place = rectangle_of(header, arrays)
            self._tiles.setdefault((header.scan_id, header.frame), {})[place] = header.seq
            self._of[header.seq] = header.scan_id, header.frame, place

    def forget(self, seq: int) -> None:
        """Note that a message has been let go."""
        if seq in self._ended:
            scan_id = self._ended.pop(seq)
            if scan_id not in self._ended.values():  # it has not been begun again, and ended
                self.starts.discard(self._begun.pop(scan_id, 0))
        if seq in self._of:
            scan_id, frame, place = self._of.pop(seq)
            tiles = self._tiles[scan_id, frame]
            if tiles[place] == seq:
                del tiles[place]
            if not tiles:
                del self._tiles[scan_id, frame]

    def find(
        self, scan_id: str, frame: int, rectangles: Sequence[m.Rectangle]
    ) -> tuple[list[int], tuple[m.Rectangle, ...]]:
        """Return the messages that hold some of these rectangles, oldest first, and what of these nobody holds."""
        tiles = self._tiles.get((scan_id, frame), {})
        asked = rectangles[: max(1, MOST_PAIRS // max(1, len(tiles)))]
        held = {place: seq for place, seq in tiles.items() if any(overlap(place, r) for r in asked)}
        return sorted(held.values()), outside(asked, held)


def rectangle_of(tile: m.HaadfRows | m.EdsRows, arrays: Sequence[NDArray[Any]]) -> m.Rectangle:
    """Return the rectangle that a tile's message covers."""
    if isinstance(tile, m.EdsRows):
        return m.Rectangle(modality="eds", y=tile.y, x=tile.x, h=tile.h, w=tile.w)
    h, w = arrays[0].shape
    return m.Rectangle(modality="haadf", y=tile.y, x=tile.x, h=h, w=w)


def gone_places(request: m.Resend, *, more: bool = False) -> m.Gone:
    """Return the word that nobody has the rectangles of a request any more."""
    assert request.scan_id is not None and request.frame is not None
    return m.Gone(
        request_id=request.request_id,
        session=request.session,
        first=0,
        last=0,
        more=more,
        scan_id=request.scan_id,
        frame=request.frame,
        rectangles=request.rectangles,
    )


def coming(request: m.Resend) -> m.Coming:
    """Return the word that the rectangles of a request are made anew."""
    assert request.scan_id is not None and request.frame is not None
    rid = request.request_id
    return m.Coming(request_id=rid, scan_id=request.scan_id, frame=request.frame, rectangles=request.rectangles)


def overlap(a: m.Rectangle, b: m.Rectangle) -> bool:
    """Return whether two rectangles share a pixel."""
    return a.modality == b.modality and a.y < b.y + b.h and b.y < a.y + a.h and a.x < b.x + b.w and b.x < a.x + a.w


def outside(rectangles: Iterable[m.Rectangle], covers: Iterable[m.Rectangle]) -> tuple[m.Rectangle, ...]:
    """Return what of `rectangles` none of `covers` covers, in rectangles."""
    known = set(covers)
    left = [r for r in rectangles if r not in known]
    for cover in known:
        if any(overlap(r, cover) for r in left):
            left = [piece for r in left for piece in (_without(r, cover) if overlap(r, cover) else (r,))]
    return tuple(left)


def _without(a: m.Rectangle, b: m.Rectangle) -> list[m.Rectangle]:
    """Return `a` without `b`, which overlaps it: what is above and below in full width, then left and right."""
    top, bottom = max(a.y, b.y), min(a.y + a.h, b.y + b.h)
    left, right = max(a.x, b.x), min(a.x + a.w, b.x + b.w)
    edges = (
        (a.y, top, a.x, a.x + a.w),
        (bottom, a.y + a.h, a.x, a.x + a.w),
        (top, bottom, a.x, left),
        (top, bottom, right, a.x + a.w),
    )
    return [
        m.Rectangle(modality=a.modality, y=y, x=x, h=y1 - y, w=x1 - x) for y, y1, x, x1 in edges if y < y1 and x < x1
    ]
