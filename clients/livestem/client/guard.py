"""Who comes in: with keys only those of the allow-lists (CURVE), and never more than there are places.

ZeroMQ asks about every connection whose handshake proves a key, or that says that it has none (RFC 27, ZAP); a small
thread answers. What the holder of a key may ask for is decided request by request (`protocol.permission`).

- A guarded publisher has a ZeroMQ context of its own: there is one ZAP handler in each, and its I/O thread does the
  strangers' handshakes, so they cost nobody else's sockets time.
- Where there are keys, a peer without CURVE, or with a wrong server key, fails in ZeroMQ's handshake and is never asked
  about. If nobody answered, nobody would be let in (``ZAP_ENFORCE_DOMAIN``).
- A key in no list, and a connection for which there is no place, is answered 300, "not now": ZeroMQ's clients then try
  again after the handshake's time-out, so a key that is added, or a place that is free, needs no restart of anybody.
  After 400 they never would.
- The ZAP domain tells the sockets of one publisher apart: each has `Places` of its own.
- The lists are read again when their files have changed (`Allowed`). ZeroMQ cannot end one peer's connection, so if a
  key was removed, the owner of the sockets binds new ones: everybody's connections end, the others come back, and gap
  repair gives them what they missed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import zmq
from zmq.utils import z85

from livestem.client.allowed import Allowed
from livestem.client.keys import Keys
from livestem.client.places import Places
from livestem.client.tally import Tally
from livestem.domain.errors import WireError
from livestem.protocol.permission import Stream
from livestem.wire import messages as m

_ZAP = "inproc://zeromq.zap.01"  # RFC 27's
_POLL_MS = 100  # how soon the thread sees that it is over, and who has gone; requests wake it at once


class Guard:
    """The door of one publisher. Thread-safe.

    Parameters
    ----------
    keys : Keys or None
        Our own pair, and the folder with the allow-lists; None lets in whoever can reach us.
    stream : {"acq", "res"}
        Whose sockets they are.
    on_rejected : callable, optional
        Called with a `WireError` (``forbidden``, ``limit``) for every connection that is not let in, on the guard's
        thread.

    Attributes
    ----------
    context : zmq.Context
        For the sockets to be guarded; closed with the guard.
    refused : Tally
        Connections that were not let in.
    """

    def __init__(
        self, keys: Keys | None, stream: Stream, on_rejected: Callable[[WireError], None] | None = None
    ) -> None:
        self.allowed = None if keys is None else Allowed(keys, stream)
        self._on_rejected = on_rejected
        self.refused = Tally("connection")
        self._places: dict[bytes, Places | None] = {}  # ZAP domain -> of its socket
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = self.context.socket(zmq.REP)
        self._zap.bind(_ZAP)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"guard-{stream}", daemon=True)
        self._thread.start()

    def secure(self, socket: zmq.Socket[bytes], domain: str, places: int | None) -> None:
        """Make a socket of this guard's context admit nobody whom we do not let in; before it is bound.

        Parameters
        ----------
        domain : str
            Names the socket among this guard's.
        places : int or None
            Connections that it may have; None for any number.
        """
        if self.allowed is not None:
            keys = self.allowed.keys
            socket.curve_secretkey, socket.curve_publickey = keys.secret.encode(), keys.public.encode()
            socket.curve_server = True
        socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._places[domain.encode()] = None if places is None else Places(socket, places)

    def let_go(self, domain: str) -> None:
        """Guard a socket no more; before it is closed."""
        places = self._places.pop(domain.encode(), None)
        if places is not None:
            places.close()

    def wanted(self, domain: str) -> bool:
        """Return whether all places of a socket are taken, and somebody waits outside."""
        places = self._places.get(domain.encode())
        return places is not None and places.wanted

    def forbids(self, frame: zmq.Frame, request: m.Talk) -> str | None:
        """Return why the sender of a frame is not to be answered this request, or None; without keys always None."""
        return None if self.allowed is None else self.allowed.forbids(str(frame.get("User-Id")), request)

    @property
    def alive(self) -> bool:
        """Whether connections are still judged."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop judging, and end the context: its sockets must be closed before."""
        self._over.set()
        self._thread.join()
        self.context.term()

    def _run(self) -> None:
        with self._zap:
            while not self._over.is_set():
                if self._zap.poll(_POLL_MS):
                    self._zap.send_multipart(self._judge(self._zap.recv_multipart()))
                for places in list(self._places.values()):
                    if places is not None:
                        places.look()

    def _judge(self, asked: list[bytes]) -> list[bytes]:
        """Answer libzmq: version, request, domain, address, identity, mechanism, and for CURVE the key."""
        version, request_id, domain, address, _, mechanism, *credentials = asked
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and len(credentials) == 1 else ""
        error = self._refusal(domain, address.decode("ascii", "replace"), key)
        if error is None:
            return [version, request_id, b"200", b"OK", key.encode(), b""]
        self.refused.add(error)
        if self._on_rejected is not None:
            self._on_rejected(error)
        return [version, request_id, b"300", error.reason.encode(), b"", b""]

    def _refusal(self, domain: bytes, address: str, key: str) -> WireError | None:
        """Return why a connection is not let in, or None: then it has a place."""
        if self.allowed is not None and not self.allowed.admits(key):
            return WireError("forbidden", f"{address} has no key that is let in ({key[:8]}...)")
        places = self._places.get(domain)
        if places is not None and not places.take():
            return WireError("limit", f"{address} finds all places of {domain.decode()} taken (`subscribers`)")
        return None
