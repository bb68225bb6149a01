"""Where a program's time goes: stack samples of its threads, added up by thread and by the project's own functions.

A sample is charged to the innermost frame that is the project's: what NumPy or SQLite do for `Journal.commit` is its
time. Each sample is one thread's that was running; waiting threads are not sampled. So the shares of a thread are of
one core.

References
----------
.. [1] py-spy, https://github.com/benfred/py-spy: reads the stacks of another process, which runs on undisturbed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

_FRAME = re.compile(r"(?P<function>\S+) \((?P<file>(?:[A-Za-z]:)?[^():]+\.py)(?::\d+)?\)$")
_OURS = ("client", "protocol", "wire", "domain", "runtime", "stages", "sources", "cli", "simulator")
_ELSEWHERE = "elsewhere"


class Place(NamedTuple):
    """A thread, and a function in it as ``folder/file.py function``."""

    thread: str
    function: str


def by_place(lines: Iterable[str]) -> Counter[Place]:
    """Return the samples of each place.

    Parameters
    ----------
    lines : iterable of str
        Folded stacks, outermost frame first: ``thread (1): name;frame (file.py:1);... count``.
    """
    found: Counter[Place] = Counter()
    for line in filter(None, map(str.strip, lines)):
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        name = thread.rpartition(": ")[2] if ": " in thread else "main"
        ours = next((place for frame in reversed(frames) if (place := _ours(frame))), _ELSEWHERE)
        found[Place(name, ours)] += int(count)
    return found


def _ours(frame: str) -> str | None:
    """Return a frame as ``folder/file.py function`` if it is the project's."""
    match = _FRAME.match(frame)
    if match is None:
        return None
    parts = match["file"].replace("\\", "/").split("/")
    return f"{'/'.join(parts[-2:])} {match['function']}" if len(parts) > 1 and parts[-2] in _OURS else None
