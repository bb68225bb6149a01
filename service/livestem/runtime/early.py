"""What comes before the `scan_start` of its scan, kept until that comes: a start can be late, or be repaired.

Policy when full (`waiting_tiles` messages, `waiting_bytes`): the oldest goes and is counted. It is not lost: when the
scan's numbers are all settled, what it lacks is asked for by place (`livestem.protocol.repair`).
"""

from __future__ import annotations

from collections import deque

from livestem.domain.limits import Limits
from livestem.wire import messages as m
from livestem.wire.codec import Message


class Early:
    """Messages of scans that have not begun, oldest first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[Message] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, message: Message) -> int:
        """Keep a message; return how many went for it."""
        self._waiting.append(message)
        self._bytes += message.nbytes
        gone = 0
        while len(self._waiting) > self._limits.waiting_tiles or self._bytes > self._limits.waiting_bytes:
            self._bytes -= self._waiting.popleft().nbytes
            gone += 1
        return gone

    def of(self, session: str, scan_id: str) -> list[Message]:
        """Take out what waits for this scan, in the order in which it came."""
        taken = [e for e in self._waiting if _is_of(e, session, scan_id)]
        self._waiting = deque(e for e in self._waiting if not _is_of(e, session, scan_id))
        self._bytes -= sum(e.nbytes for e in taken)
        return taken


def _is_of(message: Message, session: str, scan_id: str) -> bool:
    header = message.header
    return isinstance(header, m.OfScan) and (header.session, header.scan_id) == (session, scan_id)
