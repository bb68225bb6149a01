"""A network that misbehaves, in front of a publisher's PUB: it loses, doubles, spoils and reorders messages.

Rules
-----
1. Each message that carries data is struck on its own: ``drop`` loses it, ``dup`` sends it twice, ``corrupt`` flips one
   bit of a copy, anywhere in its frames; with ``reorder=N`` each copy lets a random number of messages, up to N,
   overtake it. So a message leaves at most N places late and, by the others' lateness, at most N places early.
2. Heartbeats and echoes are never harmed, because repair rests on them: without them a lost tail is not noticed. They
   also send off whatever is held back, so that nothing is held longer than from one heartbeat to the next.
3. Bytes are copied before they are spoilt: the publisher keeps the same ones for resending.
4. Chance is an argument: the same generator gives the same faults to the same messages. No clock, no socket.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from livestem.simulator.faults import Faults
from livestem.wire import messages as m

_DATA = frozenset(m.tag_of(t).encode() for t in m.ACQUISITION if issubclass(t, m.Reliable))


class _Held(NamedTuple):
    due: int  # leaves once so many messages with data have come
    number: int  # of its own coming
    frames: list[bytes]


class FaultyLink:
    """What stands between a publisher and the network: takes each message, returns what is sent now.

    Not thread-safe: a publisher calls it under the lock that orders its messages.

    Parameters
    ----------
    faults : Faults
        Of which `drop`, `dup`, `corrupt` and `reorder` are its business.
    rng : numpy.random.Generator

    Attributes
    ----------
    done : dict of str to int
        ``messages`` with data that came; how many of them were hit by ``drop`` and by ``dup``; copies with a flipped
        bit (``corrupt``); copies that left after one which had come later (``reorder``).
    """

    def __init__(self, faults: Faults, rng: np.random.Generator) -> None:
        self._faults, self._rng = faults, rng
        self._held: list[_Held] = []
        self._furthest = 0  # highest number that has left
        self.done = dict.fromkeys(("messages", "drop", "dup", "corrupt", "reorder"), 0)

    def __call__(self, frames: list[bytes]) -> list[list[bytes]]:
        """Take the frames of one message, its topic first; they are never changed.

        Returns
        -------
        list of list of bytes
            The messages that are sent now, in this order.
        """
        if frames[0].rpartition(b".")[2] not in _DATA:
            return [*self._leave(math.inf), frames]
        self.done["messages"] += 1
        number = self.done["messages"]
        for _ in range(self._copies()):
            late = int(self._rng.integers(self._faults.reorder + 1))
            self._held.append(_Held(number + late, number, self._perhaps_corrupt(frames)))
        return self._leave(number)

    def _copies(self) -> int:
        """Decide how often a message is sent; one that is dropped cannot be doubled."""
        if self._happens("drop"):
            return 0
        return 2 if self._happens("dup") else 1

    def _perhaps_corrupt(self, frames: list[bytes]) -> list[bytes]:
        if not self._happens("corrupt"):
            return frames
        return flip_bit(frames, int(self._rng.integers(8 * sum(map(len, frames)))))

    def _happens(self, fault: str) -> bool:
        happens = bool(self._rng.random() < getattr(self._faults, fault))
        self.done[fault] += happens
        return happens

    def _leave(self, now: float) -> list[list[bytes]]:
        """Send off what is due, the longest due first."""
        leaving = sorted((h for h in self._held if h.due <= now), key=lambda h: (h.due, h.number))
        self._held = [h for h in self._held if h.due > now]
        for held in leaving:
            self.done["reorder"] += held.number < self._furthest
            self._furthest = max(self._furthest, held.number)
        return [h.frames for h in leaving]


def flip_bit(frames: Sequence[bytes], bit: int) -> list[bytes]:
    """Return a copy of a message with one bit flipped, counted through all its frames."""
    flipped = [bytearray(f) for f in frames]
    index = bit // 8
    for frame in flipped:
        if index < len(frame):
            frame[index] ^= 1 << bit % 8
            return [bytes(f) for f in flipped]
        index -= len(frame)
    raise IndexError(f"bit {bit} of a message of {sum(map(len, frames))} bytes")
