"""The resend buffer: sent messages, kept until they are acknowledged and as long as there is room.

Policy when full: the oldest *acknowledged* message goes first; only if none is left does the oldest
unacknowledged one go, and that loss is counted. A recorded source never comes to that: it waits for
acknowledgements (`unacknowledged_bytes`) long before. What the owner pins is not let go, unless nothing else is left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence

Frames = Sequence[bytes]


class ResendBuffer:
    """Messages by seq, bounded in bytes.

    Parameters
    ----------
    max_bytes : int
        What may be kept in all.
    last_seq : int
        That was sent before, and is not kept here.
    """

    def __init__(self, max_bytes: int, last_seq: int = 0) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[int, Frames] = OrderedDict()
        self._bytes = 0
        self._acked = 0
        self.last_seq = last_seq
        self.unacknowledged_bytes = 0
        self.forgotten_unacknowledged = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of the messages that are kept."""
        return self._bytes

    @property
    def first_seq(self) -> int:
        """Oldest seq that can still be resent; `last_seq` + 1 if none."""
        return next(iter(self._kept), self.last_seq + 1)

    def add(self, seq: int, frames: Frames, pinned: Container[int] = ()) -> list[int]:
        """Keep a message just sent; `seq` rises by one each time. Return those that are let go for it."""
        if seq != self.last_seq + 1:
            raise ValueError(f"seq {seq} after {self.last_seq}")
        self.last_seq = seq
        self._kept[seq] = frames
        size = _size(frames)
        self._bytes += size
        self.unacknowledged_bytes += size
        forgotten = []
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            forgotten.append(self._forget_oldest(pinned))
        return forgotten

    def acknowledge(self, seq: int) -> None:
        """Note that everything up to `seq` is safe at the receiver; late or repeated acks do no harm."""
        for s in range(max(self._acked + 1, self.first_seq), min(seq, self.last_seq) + 1):
            self.unacknowledged_bytes -= _size(self._kept.get(s, ()))
        self._acked = max(self._acked, min(seq, self.last_seq))

    @property
    def acknowledged(self) -> int:
        """Highest acknowledged seq."""
        return self._acked

    def get(self, seq: int) -> Frames | None:
        """Return a message's frames, or None if it was let go or never sent."""
        return self._kept.get(seq)

    def range(self, first: int, last: int) -> Iterator[tuple[int, Frames | None]]:
        """Yield (seq, frames) of [first, last] as far as sent; None for frames that were let go."""
        for seq in range(max(first, 1), min(last, self.last_seq) + 1):
            yield seq, self._kept.get(seq)

    def _forget_oldest(self, pinned: Container[int]) -> int:
        newest = self.last_seq
        seq = next((s for s in self._kept if s not in pinned and s != newest), next(iter(self._kept)))
        size = _size(self._kept.pop(seq))
        self._bytes -= size
        if seq > self._acked:
            self.unacknowledged_bytes -= size
            self.forgotten_unacknowledged += 1
        return seq


def _size(frames: Frames) -> int:
    return sum(len(f) for f in frames)
