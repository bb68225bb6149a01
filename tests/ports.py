"""Where tests of sockets meet: free ports of loopback, for tests that run side by side.

Asking the system for any port (0) and giving it back invites a race: another test, or any connection that goes out,
may be given it next. These come from below the range that systems give away by themselves, and each worker has a part.
"""

from __future__ import annotations

import itertools
import os
import socket

LONGEST_PATH = 90  # of a unix socket: the system allows 107 bytes, the router's suffix needs some
_FIRST, _EACH, _WORKERS = 20_000, 1_000, 12  # the systems' own begin at 32 768 (Linux) or 49 152
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
# Two runs beside each other begin at different places.
_turns = itertools.count(2 * int.from_bytes(os.urandom(2), "big"), 2)


def free_pairs(count: int) -> list[int]:
    """Return ports of which each, and the one after it, is free just now; none of them was lately returned."""
    found: list[int] = []
    for turn in itertools.islice(_turns, _EACH):
        port = _FIRST + _worker * _EACH + turn % _EACH
        if _is_free(port) and _is_free(port + 1):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports on this machine")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
