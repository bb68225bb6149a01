"""Dropped messages: all counted by reason, few told."""

from __future__ import annotations

import logging
from collections import Counter

from livestem.domain.errors import WireError
from livestem.domain.notices import notice

log = logging.getLogger(__name__)


class Tally:
    """Counts what is dropped; says so for the first, the tenth, the hundredth of each reason.

    A peer that talks nonsense must not fill the log's disk.

    Parameters
    ----------
    what : str
        What is dropped, for the log: ``acquisition message``, ``request``.
    """

    def __init__(self, what: str) -> None:
        self.by_reason: Counter[str] = Counter()
        self._what = what

    def add(self, error: WireError) -> None:
        """Count one."""
        self.by_reason[error.reason] += 1
        count = self.by_reason[error.reason]
        if str(count).rstrip("0") == "1":
            told = notice("message_dropped", what=self._what, reason=error.reason, count=count)
            log.warning("%s dropped: %.300s (%d so far for this reason)", self._what, error, count, extra=told)
