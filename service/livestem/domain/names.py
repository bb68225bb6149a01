"""Names that travel and become folders: short, plain, and never one that a file system reserves; others' free text."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
# Windows reserves these in every folder, with any extension and in any case.
_RESERVED = frozenset(["CON", "PRN", "AUX", "NUL", *(f"COM{i}" for i in range(10)), *(f"LPT{i}" for i in range(10))])


def check_name(name: str, what: str) -> str:
    """Return `name` if it is a legal session, scan or class name.

    Raises
    ------
    ValueError
        If it is not 1-64 of ``A-Za-z0-9_-`` or is a reserved file name.
    """
    if not _NAME.match(name) or name.upper() in _RESERVED:
        raise ValueError(f"{what} name {name[:80]!r} must be 1-64 letters, digits, - or _, and no reserved file name")
    return name


def one_line(text: str) -> str:
    r"""Return free text so that it stays on its line and does not talk to a terminal: what does not print is escaped.

    >>> print(one_line("all well\n\x1b[2Jok"))
    all well\n\x1b[2Jok
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
