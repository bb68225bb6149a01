"""A TCP proxy on loopback that does to a connection what networks do: delays it, cuts it, leaves it half open.

=============  ====================================================================================================
blow           what the two ends see
=============  ====================================================================================================
``delay``      every byte comes so much later
``cut``        the connection is reset; what was on its way is gone; a new one may be made at once
``mute up``    what the dialling end sends is held, nobody is told; after a while the connection is reset and what was
               held is gone
``mute down``  likewise what the listening end sends
``flutter``    reset again and again, every tenth of a second: messages overtake each other by reconnection
=============  ====================================================================================================

One thread moves all bytes of one proxy. It buffers at most `_MOST` bytes a direction, so that a slow end slows the
other, as TCP does.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Blow = Literal["delay", "cut", "mute up", "mute down", "flutter"]
BLOWS: tuple[Blow, ...] = ("delay", "cut", "mute up", "mute down", "flutter")

_TICK_S = 0.01
_CHUNK = 65536
_MOST = 2**20
_FLUTTER_S = 0.1
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of nothing: closing sends RST


@dataclass
class _Flow:
    """One direction of one connection: bytes that came, and when they may go on."""

    source: socket.socket
    target: socket.socket
    upward: bool  # from who connected to who listens
    held: deque[tuple[float, bytes]] = field(default_factory=deque)
    size: int = 0


class Proxy:
    """Listens at one port of this machine and passes everything on to another.

    Parameters
    ----------
    listen, target : int
        Ports on 127.0.0.1.

    Attributes
    ----------
    resets : connections that were reset by a blow
    lost : bytes that were held of connections that ended
    delayed : bytes that came later by a blow
    """

    def __init__(self, listen: int, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._flows: list[_Flow] = []
        self._selector = selectors.DefaultSelector()
        self._delay_s = 0.0
        self._silent: bool | None = None  # which direction is silent: upward (True), downward (False), none
        self._reset_at: float | None = None
        self._flutter_until = 0.0
        self.resets = self.lost = self.delayed = 0
        self._listener = socket.create_server(("127.0.0.1", listen), backlog=64)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{listen}", daemon=True)
        self._thread.start()

    @property
    def resting(self) -> bool:
        """Whether no blow is under way that ends by itself."""
        return self._reset_at is None

    def strike(self, blow: Blow, seconds: float) -> None:
        """Do something to every connection, for so long; returns at once."""
        with self._lock:
            now = time.monotonic()
            if blow == "delay":
                self._delay_s, self._reset_at = seconds, None
            elif blow == "cut":
                self._reset()
            elif blow in ("mute up", "mute down"):
                self._silent, self._reset_at = blow == "mute up", now + seconds
            else:
                self._flutter_until, self._reset_at = now + seconds, now

    def calm(self) -> None:
        """End what `strike` began."""
        with self._lock:
            self._delay_s, self._silent, self._reset_at, self._flutter_until = 0.0, None, None, 0.0

    def close(self) -> None:
        """Stop, and cut what is open."""
        self._stop.set()
        self._thread.join()
        self._reset()
        self._listener.close()
        self._selector.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            ready = self._selector.select(_TICK_S)
            with self._lock:
                self._keep_time(time.monotonic())
                for key, _ in ready:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._flows:
                        self._read(key.data)
                for flow in list(self._flows):
                    if flow in self._flows:
                        self._write(flow)

    def _keep_time(self, now: float) -> None:
        if self._reset_at is not None and now >= self._reset_at:
            self._reset()
            self._silent = None
            self._reset_at = now + _FLUTTER_S if now < self._flutter_until else None

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target), timeout=1)
        except OSError:  # nobody listens there just now, as nobody would without a proxy
            near.close()
            return
        for source, target, upward in ((near, far, True), (far, near, False)):
            source.setblocking(False)
            flow = _Flow(source, target, upward)
            self._flows.append(flow)
            self._selector.register(source, selectors.EVENT_READ, flow)

    def _read(self, flow: _Flow) -> None:
        if flow.size > _MOST:
            time.sleep(_TICK_S / 10)  # it stays readable: do not spin
            return
        try:
            data = flow.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(flow)
            return
        flow.held.append((time.monotonic() + self._delay_s, data))
        self.delayed += len(data) if self._delay_s else 0
        flow.size += len(data)

    def _write(self, flow: _Flow) -> None:
        if self._silent is flow.upward:
            return
        while flow.held and flow.held[0][0] <= time.monotonic():
            due, data = flow.held.popleft()
            try:
                sent = flow.target.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._drop(flow)
                return
            flow.size -= sent
            if sent < len(data):
                flow.held.appendleft((due, data[sent:]))
                return

    def _drop(self, flow: _Flow) -> None:
        """Close both directions of a connection."""
        for other in [f for f in self._flows if f.source in (flow.source, flow.target)]:
            self._flows.remove(other)
            self.lost += other.size
            self._selector.unregister(other.source)
            with contextlib.suppress(OSError):
                other.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            other.source.close()

    def _reset(self) -> None:
        for flow in list(self._flows):
            if flow in self._flows:
                self.resets += 1
                self._drop(flow)
