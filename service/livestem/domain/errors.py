"""Every error that livestem raises on purpose, by whose fault it is.

The message of each is one clear line that says what to do; the command line prints it and nothing else.
Any other exception is a bug of ours and crashes loudly.
"""

from __future__ import annotations

from typing import Literal, get_args

Reason = Literal[
    "check", "header", "version", "payload", "limit", "topic", "value", "conflict", "overlap", "outside",
    "unknown_scan", "finished", "forbidden",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)


class LivestemError(Exception):
    """Base of all errors that a user, a file or a peer can cause."""

    exit_code = 1


class UsageError(LivestemError):
    """The call is wrong: an option, a configuration key, a support file, a missing extra."""

    exit_code = 2


class SourceError(LivestemError):
    """A recording or an instrument's data cannot be used as a scan."""


class StageError(LivestemError):
    """A method cannot be applied to the data it was given."""


class UnavailableError(LivestemError):
    """What a scan was begun with is not here now; the scan stays open until it is."""


class StoreError(LivestemError):
    """The store cannot be opened, read or written."""


class DiskFullError(StoreError):
    """There is no room for it; what was to be written is kept, and can be written again."""


class RefusedError(LivestemError):
    """The service refused a scan, or an instrument a request; the message is its reason."""


class TransportError(LivestemError):
    """A peer cannot be reached, a port is in use, or an answer did not come in time."""


class WireError(LivestemError):
    """A message that breaks the wire's rules; it is dropped and counted under `reason`.

    Parameters
    ----------
    reason : str
        One word of `REASONS` (``livestem_rejected_total{reason}``): ``check``, ``header``, ``version``,
        ``payload``, ``limit``, ``topic``, ``value``, ``conflict``, ``overlap``, ``outside``,
        ``unknown_scan``, ``finished``, ``forbidden``.
    detail : str
        What was wrong, for the log.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
