"""Log lines: one a fact, for a person (``text``) or for a machine (``json``, one object a line).

Times are UTC in ISO 8601. What others have written (names, reasons, titles) cannot begin a line of its own or talk to
the terminal: every character that does not print is escaped. Only the traceback of a fault of ours has lines of its own
in ``text``; in ``json`` it is the field ``trace``.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import threading
from typing import Literal

from livestem.domain.names import one_line
from livestem.domain.notices import notice

log = logging.getLogger(__name__)

Format = Literal["text", "json"]


class TextFormatter(logging.Formatter):
    """``2026-11-23T01:50:00.123Z WARNING livestem.runtime.intake: words``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line, with the traceback of a fault under it."""
        line = f"{_time(record)} {record.levelname} {record.name}: {one_line(record.getMessage())}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class JsonFormatter(logging.Formatter):
    """``{"time": ..., "level": ..., "event": ..., "text": ...}`` and more; `event` is ``log`` where none is stated."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one JSON object."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "text": record.getMessage(),
            "logger": record.name,
        }
        line = {**line, **getattr(record, "fields", {}), **line}  # in this order, and no field is taken for another
        if record.exc_info is not None:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII: no character of another's begins a line or talks to a terminal


def configure(verbose: bool) -> None:
    """Log to stderr in words: warnings and errors, or everything."""
    _configure(logging.StreamHandler(sys.stderr), TextFormatter(), logging.INFO if verbose else logging.WARNING)
    logging.getLogger().handlers[0].addFilter(lambda record: not hasattr(record, "told"))  # by the command itself


def configure_json() -> None:
    """Log to stdout as JSON: everything, and also what ends a thread."""
    _configure(logging.StreamHandler(sys.stdout), JsonFormatter(), logging.INFO)
    threading.excepthook = _log_death


def _configure(handler: logging.Handler, formatter: logging.Formatter, level: int) -> None:
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _log_death(death: threading.ExceptHookArgs) -> None:
    name = "" if death.thread is None else death.thread.name
    log.critical("the %s thread died", name, exc_info=death.exc_value, extra=notice("thread_died", thread=name))


def _time(record: logging.LogRecord) -> str:
    at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
