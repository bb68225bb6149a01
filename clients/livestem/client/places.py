"""How many connections a bound socket may have, counted without those that never prove who they are.

ZeroMQ's monitor tells of every connection by its file handle, but not whose handshake has ended well. Two bounds make
up for that, and neither is ever too low:

===============================  =====================================================================================
connection                       here
===============================  =====================================================================================
open, older than a handshake     yes: ZeroMQ ends it when its handshake takes longer (``HANDSHAKE_IVL``)
may take
open, younger                    at most as many as were let in meanwhile: each of those was let in after it was opened
closed                           no; had it been let in a moment ago, its place may be free only when that time is over
===============================  =====================================================================================

So a stranger who is not let in takes no place, and who is let in can have no more than there are.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import deque

import zmq
from zmq.utils.monitor import parse_monitor_message

_TOLD = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
_LATE_S = 1.0  # so much later than it should may ZeroMQ's timer end a handshake, on busy cores


class Places:
    """The places of one socket, for as long as it is open. Thread-safe.

    Parameters
    ----------
    socket : zmq.Socket
        Before it is bound, in a context with one I/O thread: then what the monitor tells is in order.
    most : int
        Connections.
    """

    def __init__(self, socket: zmq.Socket[bytes], most: int) -> None:
        self._socket, self._most = socket, most
        self._young_s = int(socket.getsockopt(zmq.HANDSHAKE_IVL)) / 1000 + _LATE_S
        self._lock = threading.Lock()  # over the monitor, which the guard reads and the socket's owner closes
        # an address of its own, because that of a monitor that was closed is free only some time later
        self._monitor = socket.get_monitor_socket(_TOLD, f"inproc://places-{uuid.uuid4().hex}")
        self._opened: dict[int, float] = {}  # file handle -> when
        self._let_in: deque[float] = deque()  # when, of those that may be young
        self._turned_away = -self._young_s - time.monotonic()

    def take(self) -> bool:
        """Give a place to a connection that is about to come in; return whether there is one."""
        self.look()
        with self._lock:
            now = time.monotonic()
            if self._here(now) >= self._most:
                self._turned_away = now
                return False
            self._let_in.append(now)
            return True

    @property
    def wanted(self) -> bool:
        """Whether all places are taken and somebody has just been turned away: they try again and again."""
        with self._lock:
            now = time.monotonic()
            return now - self._turned_away < self._young_s and self._here(now) >= self._most

    def look(self) -> None:
        """Hear who has come and gone; to be called often, for ZeroMQ's thread waits where nobody does."""
        with self._lock, contextlib.suppress(zmq.Again):
            while not self._monitor.closed:
                told = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
                if told["event"] == zmq.EVENT_ACCEPTED:
                    self._opened[told["value"]] = time.monotonic()
                elif told["event"] == zmq.EVENT_DISCONNECTED:
                    self._opened.pop(told["value"], None)

    def close(self) -> None:
        """Count no more; before the socket is closed, by its owner."""
        with self._lock:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)

    def _here(self, now: float) -> int:
        while self._let_in and now - self._let_in[0] > self._young_s:
            self._let_in.popleft()
        young = sum(now - opened <= self._young_s for opened in self._opened.values())
        return len(self._opened) - young + min(young, len(self._let_in))
