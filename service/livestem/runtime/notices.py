"""Tells what happens in a service: to a person at once, and to the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from livestem.domain.notices import Event, Field, notice

log = logging.getLogger(__name__)

_LEVELS: dict[Event, int] = {
    "scan_refused": logging.WARNING,
    "scan_failed": logging.ERROR,
    "scan_not_resumed": logging.ERROR,
    "degraded": logging.WARNING,
    "finals_left": logging.WARNING,
}


class Notices:
    """Tells notices; safe from any thread if `announce` is.

    Parameters
    ----------
    announce : callable
        Takes a line for a person; what it was given is marked as `told` in the log.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce

    def __call__(self, event: Event, text: str, **fields: Field) -> None:
        """Tell that something has happened."""
        self._announce(text)
        log.log(_LEVELS.get(event, logging.INFO), "%s", text, extra={**notice(event, **fields), "told": True})
