"""Sockets as they leave the process: bound (here) or connected (`line`), so that strangers and cut lines cost little.

==================  ==========================================================================================
option              why
==================  ==========================================================================================
MAXMSGSIZE          a frame far beyond the limits is never given memory: its sender loses the connection. What is
                    a little beyond is read, and refused by name (`wire.codec`). Who binds is only ever talked to
RCVHWM              so many requests wait for us, of each peer; the others wait where they come from
HANDSHAKE_IVL       who does not finish a handshake is let go; who was refused tries again after so long
BACKLOG             after a rebind everybody comes back at once
TCP_KEEPALIVE*,     a line that was cut without a word (half-open) is noticed by the system on both sides; what only a
TCP_MAXRT           publisher's silence tells, `line` notices. Who has stopped reading for so long loses its connection
                    too, and with it what waits there for it; gap repair gives it back
==================  ==========================================================================================

ZeroMQ's own heartbeats stay off. Where messages wait unread up to RCVHWM and the connection is then reset, the next
heartbeat ends the whole process: "Assertion failed: !_io_error (src/stream_engine_base.cpp)", libzmq 4.3.5.
"""

from __future__ import annotations

import socket as system
import sys

import zmq

from livestem.client.endpoints import refuse_open_bind
from livestem.client.guard import Guard
from livestem.domain.errors import TransportError
from livestem.domain.limits import Limits

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

_ROOM = 2  # times the limit: what is beyond it by less is still refused by name instead of by hanging up
_WAITING = 200  # a service that was cut off for a while asks and acknowledges some ten times a second
_HANDSHAKE_MS = 5_000  # takes milliseconds, on two busy cores some hundred
_BACKLOG = 1_024  # two connections of each of 500 subscribers
_UNBIND_MS = 1_000  # takes less than one
_MOMENT_MS = 10  # a message that is half sent is over by then, or its reader is asleep
_IDLE_S, _AGAIN_S, _TRIES = 10, 5, 2  # of the system's own words on an idle line: 20 s in all
_UNHEARD_MS = 20_000  # for what was sent: the largest message needs 27 Mbit/s to be through by then


def bound(
    context: Context,
    kind: int,
    endpoint: str,
    limits: Limits,
    guard: Guard | None,
    *,
    domain: str,
    places: int | None,
    queue: int,
) -> Socket:
    """Return a socket that is bound, guarded if there is a guard.

    Parameters
    ----------
    domain, places
        As `Guard.secure`'s.
    queue : int
        Messages kept for one slow peer before the socket drops for it.

    Raises
    ------
    TransportError
        If the endpoint is in use; the message says what to do.
    UsageError
        If it is open to the network and there are no keys.
    """
    if guard is None or guard.allowed is None:
        refuse_open_bind(endpoint)
    _refuse_taken_path(endpoint)
    socket = context.socket(kind)
    common(socket, limits.talk_bytes)
    socket.setsockopt(zmq.RCVHWM, _WAITING)
    socket.setsockopt(zmq.SNDHWM, queue)
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)
    if guard is not None:
        guard.secure(socket, domain, places)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as e:
        if guard is not None:
            guard.let_go(domain)
        socket.close(linger=0)
        why = "is in use by another program" if e.errno == zmq.EADDRINUSE else f"cannot be bound ({e.strerror})"
        raise TransportError(f"{endpoint} {why}; stop that program or choose another endpoint") from e
    return socket


def _refuse_taken_path(endpoint: str) -> None:
    """Raise `TransportError` if somebody listens at an ``ipc://`` path: ZeroMQ would take it away without a word.

    The file that a killed program has left behind is nobody's, and ZeroMQ replaces it.
    """
    if not endpoint.startswith("ipc://") or sys.platform == "win32":  # there are no such paths there
        return
    path = endpoint.removeprefix("ipc://")
    with system.socket(system.AF_UNIX, system.SOCK_STREAM) as probe:
        try:
            probe.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError:  # not there, left behind, or no path that could be bound: ZeroMQ will tell
            return
    raise TransportError(f"{endpoint} is in use by another program; stop that program or choose another endpoint")


def unbind(socket: Socket, linger_ms: int = 0) -> None:
    """Close a bound socket and all its connections; its endpoint is free when this returns.

    What is queued is given `linger_ms` to leave, behind our back. It is always given a moment, and ZeroMQ's own unbind
    is not asked for: either ends connections in the middle of a message, and libzmq 4.3.5 ends the whole process when
    the other side of one hangs up just then ("Resource temporarily unavailable (src/session_base.cpp)").
    """
    monitor = socket.get_monitor_socket(zmq.EVENT_CLOSED | zmq.EVENT_CLOSE_FAILED)
    try:
        socket.close(linger=max(_MOMENT_MS, linger_ms))
        monitor.poll(_UNBIND_MS)  # else a successor could find the port taken, or lose its ipc file to us
    finally:
        monitor.close(linger=0)


def common(socket: Socket, most_bytes: int) -> None:
    """Set what every socket needs, bound or connecting; `most_bytes` is the largest frame that may be sent to it."""
    socket.setsockopt(zmq.MAXMSGSIZE, _ROOM * most_bytes)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _AGAIN_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _TRIES)
    socket.setsockopt(zmq.TCP_MAXRT, _UNHEARD_MS)
