"""The gap tracker: which reliable messages of one (session, epoch) have arrived, and which to ask for.

Rules
-----
1. `seq` starts at 1 and has no gaps at the sender; whatever is not here below the highest known one is a gap.
2. The highest known one comes from arrivals and from `last_seq` of unnumbered messages, so a lost tail shows.
3. A gap is asked for once it has been seen for `patience_s` (a PUB keeps order, so a real gap is never filled by
   waiting, but a resend may already be under way), again when nothing has come of it for `retry_s`, oldest first,
   one range at a time.
4. What the sender no longer has is `gone`: settled, and remembered as lost, once.

Everything is kept as ranges, so that neither a long gap nor a wrong number from a peer costs time or memory. Beyond
`MOST_RANGES` of them nothing more is taken from behind a gap: it is asked for again when the gap is filled.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

Range = tuple[int, int]  # first and last, inclusive

MOST_RANGES = 10_000  # a link that loses every second message for a minute makes a tenth of it


@dataclass
class GapTracker:
    """State of one stream of reliable messages, as its receiver sees it.

    Parameters
    ----------
    first : int
        The first seq that matters; everything before counts as settled.
    patience_s, retry_s : float
        Waiting before the first request for a gap, and between requests, s.
    """

    first: int = 1
    patience_s: float = 0.02
    retry_s: float = 0.5
    contiguous: int = field(init=False)
    last_known: int = field(init=False)
    lost: list[Range] = field(init=False, default_factory=list)
    _ahead: list[Range] = field(init=False, default_factory=list)  # settled beyond a gap: ascending, not touching
    _seen_at: float | None = field(init=False, default=None)
    _asked_at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.contiguous = self.first - 1
        self.last_known = self.first - 1

    def received(self, seq: int, now: float) -> bool:
        """Note an arrival; False if it was here already (a duplicate), or comes behind too many gaps."""
        behind_too_many = len(self._ahead) >= MOST_RANGES and seq > self.contiguous + 1
        if behind_too_many or not self._settle(seq, seq):
            self.announced(seq, now)
            return False
        self.announced(seq, now)
        return True

    def announced(self, last_seq: int, now: float) -> None:
        """Note how far the sender says it has come."""
        self.last_known = max(self.last_known, last_seq)
        if self.complete:
            self._seen_at = None
        elif self._seen_at is None:
            self._seen_at = now

    def gone(self, first: int, last: int) -> list[Range]:
        """Settle a range that the sender has let go; return what of it is thereby lost, in order."""
        lost = self._settle(first, min(last, self.last_known))  # what is not announced cannot be gone
        self.lost += lost
        return lost

    def answered(self, now: float, *, more: bool = False) -> None:
        """Note an answer to the last request: if it was its last, the next gap need not wait for `retry_s`."""
        self._asked_at = now if more else None

    def wanted(self, now: float) -> Range | None:
        """Return the range to ask for now, or None; asking is noted."""
        if self._seen_at is None or now - self._seen_at < self.patience_s:
            return None
        if self._asked_at is not None and now - self._asked_at < self.retry_s:
            return None
        if self.complete:
            return None
        self._asked_at = now
        return self.contiguous + 1, (self._ahead[0][0] - 1 if self._ahead else self.last_known)

    @property
    def complete(self) -> bool:
        """Whether everything that the sender has announced is settled."""
        return self.contiguous >= self.last_known

    @property
    def missing(self) -> list[Range]:
        """What the sender has announced and is not settled, in order."""
        return _holes([(self.first - 1, self.contiguous), *self._ahead, (self.last_known + 1, self.last_known + 1)])

    def _settle(self, first: int, last: int) -> list[Range]:
        """Count [first, last] as settled; return what of it was not before."""
        first = max(first, self.contiguous + 1)
        if first > last:
            return []
        # neighbours count as overlapping, so that ranges which touch become one
        start = bisect_left(self._ahead, first - 1, key=lambda r: r[1])
        stop = bisect_left(self._ahead, last + 2, key=lambda r: r[0])
        within = self._ahead[start:stop]
        new = _holes([(first - 1, first - 1), *within, (last + 1, last + 1)])
        ends = [first, last, *(end for r in within for end in r)]
        self._ahead[start:stop] = [(min(ends), max(ends))]
        if self._ahead[0][0] == self.contiguous + 1:
            self.contiguous = self._ahead.pop(0)[1]
        if self.complete:
            self._seen_at = None
        return new


def _holes(ranges: list[Range]) -> list[Range]:
    """Return what lies between ascending ranges."""
    return [(a[1] + 1, b[0] - 1) for a, b in zip(ranges, ranges[1:], strict=False) if a[1] + 1 < b[0]]
