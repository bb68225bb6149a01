"""Notices: what happens in a service, one a line, in words for a person and in fields for a machine.

Events and their fields are stable: what is built on them may rely on them (docs/operations.md has the table). Any
record of the standard library's logging may be a notice: ``log.warning("...", extra=notice("messages_lost", ...))``.
"""

from __future__ import annotations

from typing import Literal

Event = Literal[
    "ready", "attached", "scan_accepted", "scan_refused", "scan_done", "scan_failed", "messages_lost", "scan_given_up",
    "scan_resumed", "scan_not_resumed", "adapter_refuses", "message_dropped", "degraded", "recovered", "thread_died",
    "failed", "stopping", "finals_left", "stopped", "key_removed", "key_ignored", "nobody_let_in",
]  # fmt: skip
Field = str | int | float | None


def notice(event: Event, **fields: Field) -> dict[str, object]:
    """Return what makes a log record a notice, for its `extra`."""
    return {"event": event, "fields": fields}
