"""Filling the holes of a scan by place, once its numbers are settled: what to ask for, when, and when to stop.

Every message up to a scan's `scan_end` has come or is known to be gone, and tiles are still missing: their messages
were let go before we came, or came before their `scan_start` and found no room. Whoever can read the scan again makes
them anew. They are asked for frame by frame, so that only one frame is under way at a time:

=========  ====================================  ==========================================================
state      on                                    then
=========  ====================================  ==========================================================
asking     a new tile                            patience and tries begin anew
asking     the last `resent` of an answer        ask at once for what the frame still lacks
asking     `gone`, or a refusal                  these are lost, and not asked for again
asking     `coming`                              promised: these are left alone for `PROMISED_S` without a tile
asking     nothing for `RETRY_S`                 ask again
asking     `TRIES` requests without a new tile   over: nobody answers, or answers make no sense
any        a frame lacks nothing that may come   the next frame
any        no frame left                         over
=========  ====================================  ==========================================================

While nothing is heard of the sender nothing is asked and no try counts: when it is gone for good is for others to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from livestem.protocol.places import outside
from livestem.wire import messages as m

RETRY_S = 1.0  # a busy sender answers within some hundred milliseconds
TRIES = 10  # ten seconds without a word about it, from a sender that is there
PROMISED_S = 30.0  # without a tile: reading a frame again may take seconds, and others may wait before us
MOST_RECTANGLES = 4096  # the wire's, for one request

Holes = Callable[[int], Sequence[m.Rectangle]]


@dataclass
class _Asking:
    """How far one frame is."""

    lost: list[m.Rectangle] = field(default_factory=list)
    promised: list[m.Rectangle] = field(default_factory=list)
    asked_at: float | None = None
    came_at: float = float("-inf")  # the last new tile, or promise
    tries: int = 0
    news: bool = True  # something has been heard of it since we looked last


class Repair:
    """What is still asked for of one scan.

    Parameters
    ----------
    frames : iterable of int
        Those that lack something.
    """

    def __init__(self, frames: Iterable[int]) -> None:
        self._frames = deque(frames)
        self._at = _Asking()

    @property
    def over(self) -> bool:
        """Whether everything that can be had is here."""
        return not self._frames

    @property
    def frame(self) -> int | None:
        """The frame that is asked for just now; None once it is over."""
        return self._frames[0] if self._frames else None

    def wanted(self, holes: Holes, now: float) -> tuple[int, tuple[m.Rectangle, ...]] | None:
        """Return the (frame, rectangles) to ask for now, or None; asking is noted.

        Parameters
        ----------
        holes : callable
            Returns what a frame lacks.
        now : float
            Any clock that rises, s.
        """
        while self._frames:
            at = self._at
            if now - at.came_at >= PROMISED_S:
                at.promised = []
            waits = at.asked_at is not None and now - at.asked_at < RETRY_S
            if waits and not at.news:
                return None
            at.news = False
            lacking = outside(holes(self._frames[0]), at.lost)
            due = outside(lacking, at.promised)
            if not lacking:
                self._frames.popleft()
                self._at = _Asking()
            elif waits or not due:
                return None
            elif at.tries < TRIES:
                at.asked_at, at.tries = now, at.tries + 1
                return self._frames[0], due[:MOST_RECTANGLES]
            else:
                self._frames.clear()
        return None

    def tile_came(self, frame: int, now: float) -> None:
        """Note a tile that was not here before."""
        at = self._at
        if frame == self.frame:
            at.came_at, at.tries, at.news = now, 0, True
            at.asked_at = None if at.asked_at is None else now

    def answered(self, answer: m.Talk, asked: m.Resend, now: float) -> None:
        """Take an answer to a request: `resent`, `gone`, `coming` or `refusal`."""
        if asked.frame != self.frame:
            return
        at = self._at
        at.news = True
        if isinstance(answer, m.Coming):
            at.promised += answer.rectangles
            at.came_at = now
        elif isinstance(answer, m.Gone):
            at.lost += answer.rectangles or ()
        elif isinstance(answer, m.Refusal):
            at.lost += asked.rectangles
        if isinstance(answer, m.Resent | m.Gone):
            at.asked_at = now if answer.more else None
