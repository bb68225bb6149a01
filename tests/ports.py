"""Where tests of sockets meet: free ports of loopback, for tests and runs of tests that are side by side.

Asking the system for any port (0) and giving it back invites a race: another test, or any connection that goes out, may
be given it next. These come from below the range that systems give away by themselves, and whoever has chosen one holds
the UDP port of the same number for a while, which tells others that it is taken before anybody listens there.
"""

from __future__ import annotations

import atexit
import itertools
import os
import socket
from collections import deque

LONGEST_PATH = 90  # of a unix socket: the system allows 107 bytes, the router's suffix needs some
_FIRST, _ALL = 20_000, 12_000  # the systems' own begin at 32 768 (Linux) or 49 152
_turns = itertools.count(2 * int.from_bytes(os.urandom(2), "big"), 2)
_held: deque[socket.socket] = deque(maxlen=100)  # the newest: what was chosen earlier is in use, or was
atexit.register(lambda: [sign.close() for sign in _held])


def free_pairs(count: int) -> list[int]:
    """Return ports of which each, and the one after it, is free just now; none of them was lately returned."""
    found: list[int] = []
    for turn in itertools.islice(_turns, _ALL):
        port = _FIRST + turn % _ALL
        if _is_free(port) and _is_free(port + 1) and _hold(port):
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


def _hold(port: int) -> bool:
    """Take the UDP port; False if another process holds it."""
    sign = socket.socket(type=socket.SOCK_DGRAM)
    try:
        sign.bind(("127.0.0.1", port))
    except OSError:
        sign.close()
        return False
    if len(_held) == _held.maxlen:
        _held.popleft().close()
    _held.append(sign)
    return True
