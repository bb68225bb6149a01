"""How a command ends when it is told to: Ctrl-C, SIGTERM, on Windows also Ctrl-Break.

================================================  ===========================================  =====
command                                           the first signal                             exits
================================================  ===========================================  =====
serve                                             drains: see `livestem.runtime.segmenter`     0
listen, watch, simulate --requests                leaves; stopping is how they end             0
any other; listen and watch with --scans          leaves its work unfinished, says what is     130
                                                  kept
================================================  ===========================================  =====

A second signal does not wait for anything: the process is gone, with exit code 130. What has been acknowledged is in
the journal even then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # what shells give a command that Ctrl-C has ended: 128 and the number of SIGINT
# A shell starts background jobs with SIGINT ignored, so it is set like the others. SIGBREAK is Windows' alone.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)]


class StoppedError(Exception):
    """A command was stopped before its work was done; the message says what is kept.

    Neither an error of livestem, which a command may survive, nor a `KeyboardInterrupt`, whose words the option parser
    loses.

    Parameters
    ----------
    kept : callable
        Returns what is kept; asked when it is told, after everybody had their last word.
    """

    def __init__(self, kept: Callable[[], str]) -> None:
        super().__init__()
        self._kept = kept

    def __str__(self) -> str:
        return f"stopped; {self._kept()}"


class _Told:
    """What the first signal does, and that there was one."""

    def __init__(self, stop: threading.Event | None) -> None:
        self._stop, self._already = stop, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._already:
            os._exit(INTERRUPTED)
        self._already = True
        if self._stop is None:
            raise KeyboardInterrupt
        self._stop.set()


def interrupt_on_signals() -> None:
    """Let the first signal raise `KeyboardInterrupt` in the main thread."""
    _listen(None)


def stop_on_signals() -> threading.Event:
    """Return what the first signal sets from now on, wherever it catches us."""
    stop = threading.Event()
    _listen(stop)
    return stop


def _listen(stop: threading.Event | None) -> None:
    told = _Told(stop)
    for number in _SIGNALS:
        signal.signal(number, told)


@contextmanager
def regular() -> Iterator[None]:
    """Take an interruption for the regular end of what is done here."""
    try:
        yield
    except (KeyboardInterrupt, StoppedError) as e:
        print(f"livestem: {str(e) or 'stopped'}", file=sys.stderr)


@contextmanager
def unfinished(kept: str | Callable[[], str]) -> Iterator[None]:
    """Say what an interruption leaves of the work that is done here."""
    try:
        yield
    except KeyboardInterrupt as e:
        raise StoppedError(lambda: kept if isinstance(kept, str) else kept()) from e
