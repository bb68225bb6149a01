"""The gap tracker: which reliable messages of one (session, epoch) have arrived, and which to ask for.

Rules
-----
1. `seq` starts at 1 and has no gaps at the sender; whatever is not here below the highest known one is a gap.
2. The highest known one comes from arrivals and from `last_seq` of unnumbered messages, so a lost tail shows.
3. A gap is asked for once it has been seen for `patience_s` (a PUB keeps order, so a real gap is never filled by
   waiting, but a resend may already be under way), again every `retry_s`, oldest first, one range at a time.
4. What the sender no longer has is `gone`: settled, and remembered as lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Range = tuple[int, int]  # first and last, inclusive


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
    _ahead: set[int] = field(init=False, default_factory=set)
    _seen_at: float | None = field(init=False, default=None)
    _asked_at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.contiguous = self.first - 1
        self.last_known = self.first - 1

    def received(self, seq: int, now: float) -> bool:
        """Note an arrival; False if it was here already (a duplicate)."""
        if seq <= self.contiguous or seq in self._ahead:
            return False
        self._ahead.add(seq)
        self._advance()
        self.announced(seq, now)
        return True

    def announced(self, last_seq: int, now: float) -> None:
        """Note how far the sender says it has come."""
        self.last_known = max(self.last_known, last_seq)
        if self.contiguous >= self.last_known:
            self._seen_at = None
        elif self._seen_at is None:
            self._seen_at = now

    def gone(self, first: int, last: int) -> None:
        """Settle a range that the sender has let go."""
        missing = [s for s in range(max(first, self.contiguous + 1), last + 1) if s not in self._ahead]
        if missing:
            self.lost.append((missing[0], missing[-1]))
        self._ahead.update(missing)
        self._advance()
        self._asked_at = None

    def answered(self) -> None:
        """Note that a request has been answered, so that the next gap need not wait for `retry_s`."""
        self._asked_at = None

    def wanted(self, now: float) -> Range | None:
        """Return the range to ask for now, or None; asking is noted."""
        if self._seen_at is None or now - self._seen_at < self.patience_s:
            return None
        if self._asked_at is not None and now - self._asked_at < self.retry_s:
            return None
        if self.contiguous >= self.last_known:
            return None
        self._asked_at = now
        first = self.contiguous + 1
        beyond = [s for s in self._ahead if s > first]
        return first, (min(beyond) - 1 if beyond else self.last_known)

    @property
    def complete(self) -> bool:
        """Whether everything that the sender has announced is settled."""
        return self.contiguous >= self.last_known

    def _advance(self) -> None:
        while self.contiguous + 1 in self._ahead:
            self.contiguous += 1
            self._ahead.remove(self.contiguous)
        if self.contiguous >= self.last_known:
            self._seen_at = None
