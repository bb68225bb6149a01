"""What a service tells the service manager that started it, by systemd's notification protocol.

One datagram a message, ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``, ``STATUS=words``, to the socket that $NOTIFY_SOCKET
names [1]_. Where nobody has set that, as on Windows and in a shell, nothing is told.

References
----------
.. [1] sd_notify(3), "Notes": the protocol may be implemented by anyone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

SOCKET = "NOTIFY_SOCKET"


class Supervisor:
    """Tells the service manager how we are.

    Parameters
    ----------
    environ : mapping
        Environment variables; without $NOTIFY_SOCKET nothing is told.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get(SOCKET, "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def tell(self, *assignments: str) -> None:
        """Send assignments such as ``READY=1``; a manager that does not listen is no fault of ours."""
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto("\n".join(assignments).encode(), self._address)
