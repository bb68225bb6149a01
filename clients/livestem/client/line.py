"""A line to a publisher: one socket that connects, with our key if the other side has one, and is kept alive.

ZeroMQ dials again by itself where nobody answers, a connection breaks or a handshake takes too long. It gives up for
good where the other side speaks another mechanism: keys on one side only. An adapter that was started without its keys
by mistake, and then with them, would never be followed again; so such a line is hung up and dialled anew every second.

A line can also be cut without a word to either side (half-open). Who uses it tells when words are due and when one was
heard; after `_SILENT_S` without any it is dialled anew. Where nobody is there to speak, that costs a try now and then.
"""

from __future__ import annotations

import contextlib
import struct
import time

import zmq

from livestem.client.endpoints import Endpoint
from livestem.client.keys import Keys, public_key
from livestem.client.sockets import Context, common
from livestem.domain.errors import TransportError, UsageError
from livestem.domain.limits import Limits

_SILENT_S = 20.0  # the largest message needs 27 Mbit/s to be through by then; `vanish_s` is well above
_REDIAL_S = 1.0  # a person restarts something meanwhile; a try costs both sides a millisecond
_GIVES_UP = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


class Line:
    """One connecting socket.

    Parameters
    ----------
    context : zmq.Context
    kind : int
        ``zmq.SUB`` or ``zmq.DEALER``.
    endpoint : Endpoint
    keys : Keys or None
        Our own, if the endpoint has a server key.
    limits : Limits

    Attributes
    ----------
    socket : zmq.Socket
        Set its options, then `dial`.
    mismatched : bool
        Whether handshakes have failed as they do where one side has keys and the other has none.

    Raises
    ------
    UsageError
        If there is a server key and we have none of our own, or it cannot be read.
    """

    def __init__(self, context: Context, kind: int, endpoint: Endpoint, keys: Keys | None, limits: Limits) -> None:
        server = server_key(endpoint, keys)
        self.socket = context.socket(kind)
        common(self.socket, limits.message_bytes)
        self.socket.setsockopt(zmq.LINGER, 0)  # what waits for a line that is hung up would keep the context for ever
        if server is not None and keys is not None:
            self.socket.curve_serverkey = server.encode()
            self.socket.curve_publickey, self.socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
        # who dials without a key may be hung up on before it knows why
        telling = _GIVES_UP if server is not None else _GIVES_UP | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        self._monitor = self.socket.get_monitor_socket(telling)
        self._where, self._redial_at = "", 0.0
        self._due_since: float | None = None  # that we wait for a word
        self.mismatched = False

    def dial(self, where: str) -> None:
        """Connect; that nobody is there yet is no error.

        Raises
        ------
        TransportError
            If it is no address.
        """
        try:
            self.socket.connect(where)
        except zmq.ZMQError as e:
            raise TransportError(f"{where} is no address to connect to ({e.strerror})") from e
        self._where = where

    def due(self) -> None:
        """Say that the other side has to say something, from now on."""
        if self._due_since is None:
            self._due_since = time.monotonic()

    def heard(self) -> None:
        """Say that something was heard."""
        self._due_since = None

    def tend(self) -> bool:
        """Dial again what ZeroMQ has given up; return whether the other side is silent, and was dialled again.

        To be called now and then, after what has arrived was taken.
        """
        with contextlib.suppress(zmq.Again):
            while True:
                about, _ = self._monitor.recv_multipart(zmq.NOBLOCK)
                self.mismatched = True
                (event,) = struct.unpack_from("=H", about)
                if event & _GIVES_UP and not self._redial_at:
                    self._redial_at = time.monotonic() + _REDIAL_S
        now = time.monotonic()
        silent = self._due_since is not None and now - self._due_since > _SILENT_S
        if silent or (self._redial_at and now >= self._redial_at):
            self.redial()
        return silent

    def redial(self) -> None:
        """Hang up and dial anew; what was on its way is lost."""
        self._redial_at, self._due_since = 0.0, None
        with contextlib.suppress(zmq.ZMQError):  # it may have gone already
            self.socket.disconnect(self._where)
        self.socket.connect(self._where)

    def close(self, linger_ms: int = 0) -> None:
        """Hang up."""
        if not self.socket.closed:
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
            self.socket.close(linger=linger_ms)


def server_key(endpoint: Endpoint, keys: Keys | None) -> str | None:
    """Return the public key of whom we meet at an endpoint, or None.

    Raises
    ------
    UsageError
        If it has one and we have none of our own, or it cannot be read.
    """
    if endpoint.server_key is None:
        return None
    if keys is None:
        raise UsageError(
            f"{endpoint.endpoint} has a server key, which takes a key of our own: give --keys "
            "(make one: livestem keys new NAME)"
        )
    return public_key(endpoint.server_key)


def advice(endpoint: Endpoint, mismatched: bool) -> str:
    """Return what to look at about keys if nobody answers at an endpoint; "" if nothing."""
    if endpoint.server_key is None:
        return "; it wants keys (--keys and --server-key), or is no publisher" if mismatched else ""
    if mismatched:
        return "; it has no keys: start it with --keys, or leave out --server-key"
    return "; is our public key in its list, and is --server-key its own?"
