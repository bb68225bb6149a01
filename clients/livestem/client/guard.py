"""Who comes in: a publisher's sockets are CURVE servers, and the allow-lists say whose keys they admit.

ZeroMQ asks about every connection whose handshake proves a key (RFC 27, ZAP); a small thread answers. What the holder
of the key may ask for is decided request by request (`protocol.permission`).

- A guarded publisher has a ZeroMQ context of its own: there is one ZAP handler in each, and its I/O thread does the
  strangers' handshakes, so they cost nobody else's sockets time.
- A peer without CURVE, or with a wrong server key, fails in ZeroMQ's handshake and is never asked about. If nobody
  answered, nobody would be let in (``ZAP_ENFORCE_DOMAIN``).
- A key in no list is answered 300, "not now": ZeroMQ's clients then try again after the handshake's time-out, so a key
  that is added needs no restart of anybody. After 400 they never would.
- The lists are read again when their files have changed. ZeroMQ cannot end one peer's connection, so if a key was
  removed, the owner of the sockets binds new ones: everybody's connections end, the others come back, and gap repair
  gives them what they missed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import zmq
from zmq.utils import z85

from livestem.client.keys import ALLOWED, Holder, Keys, allowed_files, read_allowed
from livestem.client.tally import Tally
from livestem.domain.errors import WireError
from livestem.domain.notices import notice
from livestem.protocol.permission import ADMITTED, Role, Stream, forbidden
from livestem.wire import messages as m

log = logging.getLogger(__name__)

_ZAP = "inproc://zeromq.zap.01"  # RFC 27's
_POLL_MS = 100  # how soon the thread sees that it is over; requests wake it at once


class Guard:
    """The door of one publisher. Thread-safe.

    Parameters
    ----------
    keys : Keys
        Our own pair, and the folder with the allow-lists.
    stream : {"acq", "res"}
        Whose sockets they are.
    on_rejected : callable, optional
        Called with a `WireError` (``forbidden``) for every connection that is not let in, on the guard's thread.

    Attributes
    ----------
    context : zmq.Context
        For the sockets to be guarded; closed with the guard.
    refused : Tally
        Connections that were not let in.
    """

    def __init__(self, keys: Keys, stream: Stream, on_rejected: Callable[[WireError], None] | None = None) -> None:
        self._keys, self._stream, self._on_rejected = keys, stream, on_rejected
        self.refused = Tally("connection")
        self._lock = threading.Lock()  # over reading the lists, which the thread and the hub both do
        self._seen: object = None
        self._left = False
        self._holders: dict[str, Holder] = {}
        self._look()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = self.context.socket(zmq.REP)
        self._zap.bind(_ZAP)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"guard-{stream}", daemon=True)
        self._thread.start()

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket of this guard's context admit nobody but the allow-lists' keys; before it is bound."""
        socket.curve_secretkey, socket.curve_publickey = self._keys.secret.encode(), self._keys.public.encode()
        socket.curve_server = True
        socket.setsockopt(zmq.ZAP_DOMAIN, self._stream.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def forbids(self, frame: zmq.Frame, request: m.Talk) -> str | None:
        """Return why the sender of a frame is not to be answered this request, or None."""
        holder = self._holders.get(str(frame.get("User-Id")))
        return forbidden(self._stream, request, frozenset() if holder is None else holder.roles)

    def somebody_left(self) -> bool:
        """Read the allow-lists again if they have changed; return whether a key was removed since this was asked."""
        self._look()
        with self._lock:
            left, self._left = self._left, False
        return left

    @property
    def alive(self) -> bool:
        """Whether connections are still judged."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop judging, and end the context: its sockets must be closed before."""
        self._over.set()
        self._thread.join()
        self.context.term()

    def _look(self) -> None:
        with self._lock:
            now = self._files()
            if now == self._seen:
                return
            self._seen, before = now, self._admitted()
            self._holders, wrong = read_allowed(self._keys.folder)
            self._left |= not before <= self._admitted()
        for words in wrong:
            log.warning("key not let in: %s", words, extra=notice("key_ignored", reason=words))
        if not self._admitted():
            wanted, folder = " or ".join(sorted(ADMITTED[self._stream])), str(self._keys.folder / ALLOWED)
            told = notice("nobody_let_in", folder=folder)
            log.warning("nobody is let in yet: no %s key in %s", wanted, folder, extra=told)

    def _files(self) -> list[tuple[Role, str, int, int]]:
        found = []
        for role, path in allowed_files(self._keys.folder):
            try:
                about = path.stat()
            except OSError:  # it has just gone, or cannot be read: then it is not let in
                continue
            found.append((role, path.name, about.st_mtime_ns, about.st_size))
        return found

    def _admitted(self) -> frozenset[str]:
        wanted = ADMITTED[self._stream]
        return frozenset(key for key, holder in self._holders.items() if holder.roles & wanted)

    def _run(self) -> None:
        with self._zap:
            while not self._over.is_set():
                if self._zap.poll(_POLL_MS):
                    self._zap.send_multipart(self._judge(self._zap.recv_multipart()))

    def _judge(self, asked: list[bytes]) -> list[bytes]:
        """Answer libzmq: version, request, domain, address, identity, mechanism, and for CURVE the key."""
        version, request_id, domain, address, _, mechanism, *credentials = asked
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and len(credentials) == 1 else ""
        if key not in self._admitted():
            self._look()  # it may have been added a moment ago
        if domain == self._stream.encode() and key in self._admitted():
            return [version, request_id, b"200", b"OK", key.encode(), b""]
        error = WireError("forbidden", f"{address.decode('ascii', 'replace')} has no key that is let in ({key[:8]}...)")
        self.refused.add(error)
        if self._on_rejected is not None:
            self._on_rejected(error)
        return [version, request_id, b"300", b"no key that is let in", b"", b""]
