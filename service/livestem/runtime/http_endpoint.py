"""The HTTP endpoint, for supervisors and for Prometheus.

===================  =========================================================================
path                 answer
===================  =========================================================================
``/health``          200 if all is well, 503 if degraded; JSON says why
``/health/live``     200, or 503: restart it
``/health/ready``    200, or 503: wait
``/metrics``         200, the text format
===================  =========================================================================
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from livestem.domain.errors import TransportError
from livestem.runtime.health import Health

_QUIET_S = 5  # a peer that says nothing does not hold a thread for longer
_LONGEST_S = 10.0  # nor one that says something now and then: a scrape takes some milliseconds
_MOST = 32  # connections: each has a thread; the oldest makes room for one more


class _Server(ThreadingHTTPServer):
    """An HTTP server whose peers may leave when they like, and must when they stay too long."""

    daemon_threads = True
    request_queue_size = 128  # who comes while a burst is accepted waits, instead of for the system's next try
    health: Callable[[], Health]
    metrics: Callable[[Health], bytes]

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._since: dict[socket.socket, float] = {}  # oldest first; changed and looked through under the lock
        self._guard = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own, if need be instead of the oldest."""
        with self._guard:
            if len(self._since) >= _MOST:
                oldest = next(iter(self._since))
                del self._since[oldest]
                _hang_up(oldest)
            self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Forget a connection that is over."""
        with self._guard:
            self._since.pop(request, None)
        super().close_request(request)

    def service_actions(self) -> None:
        """End what has lasted too long; called twice a second."""
        now = time.monotonic()
        with self._guard:
            for request in [r for r, since in self._since.items() if now - since > _LONGEST_S]:
                _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a broken connection go unsaid; anything else is a bug and is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def _hang_up(request: socket.socket) -> None:
    """Have the thread of a connection come to its end, which closes it."""
    with contextlib.suppress(OSError):  # its peer has left already
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _QUIET_S

    def do_GET(self) -> None:  # noqa: N802 - the base class's name
        health = self.server.health()
        if self.path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, self.server.metrics(health))
            return
        good = {"/health": health.ok, "/health/live": health.live, "/health/ready": health.ready}.get(self.path)
        if good is None:
            self._answer(404, "text/plain", b"/metrics, /health, /health/live or /health/ready\n")
        else:
            self._answer(200 if good else 503, "application/json", json.dumps(health.as_json()).encode())

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: a scrape every few seconds is no news."""


class HttpEndpoint:
    """Binds at once, answers on its own thread once it is told how.

    Parameters
    ----------
    host, port : where to listen; port 0 takes a free one

    Raises
    ------
    TransportError
        If the port is in use.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as e:
            raise TransportError(
                f"http://{host}:{port} is in use by another program ({e.strerror}); stop it or give --http-port"
            ) from e
        self.port = int(self._server.server_address[1])
        self._thread: threading.Thread | None = None

    def serve(self, health: Callable[[], Health], metrics: Callable[[Health], bytes]) -> None:
        """Answer from now on; who has asked before waits for it."""
        self._server.health, self._server.metrics = health, metrics
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
