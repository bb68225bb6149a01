"""Prometheus metrics and the HTTP endpoint that answers ``/metrics`` and ``/health``."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from livestem.domain.errors import TransportError

# Live maps are due within a tenth of a second, finals within some seconds: buckets around both.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Every metric of the service; one registry each, so that tests do not share numbers."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge of its birth beside every counter tells nobody anything
        self.registry = CollectorRegistry()
        self.tiles = self._counter("livestem_tiles_received", "Tiles counted in", "modality")
        self.duplicates = self._counter("livestem_tiles_duplicate", "Tiles that were here already")
        self.counts = self._counter("livestem_eds_counts", "EDS photons counted in")
        self.bytes = self._counter("livestem_received_bytes", "Bytes of acquisition messages received")
        self.rejected = self._counter("livestem_rejected", "Messages dropped", "reason")
        self.repairs = self._counter("livestem_gap_repairs", "Messages that came by resend")
        self.missing = self._gauge("livestem_tiles_missing", "Missing bands of rows in finished scans, last scan")
        self.scans = self._counter("livestem_scans", "Scans finished", "status")
        self.open = self._gauge("livestem_open_scans", "Scans being received or finalised")
        self.adapters = self._gauge("livestem_adapters_attached", "Acquisition adapters attached to")
        self.subscribers = self._gauge("livestem_subscriptions", "Subscriptions to results")
        self.live = self._counter("livestem_live_maps", "Live messages published")
        self.stage = Histogram(
            "livestem_stage_duration_seconds", "Time of one run of a stage", ["stage"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    def expose(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)


class _Server(ThreadingHTTPServer):
    """An HTTP server whose peers may leave when they like."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a broken connection go unsaid; anything else is a bug and is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class HttpEndpoint:
    """Answers ``/metrics`` and ``/health`` on its own thread.

    Parameters
    ----------
    host, port : where to listen
    metrics : Metrics
    health : callable
        Returns {"status": "ok" | "degraded", ...}, JSON-able.

    Raises
    ------
    TransportError
        If the port is in use.
    """

    def __init__(self, host: str, port: int, metrics: Metrics, health: Callable[[], dict[str, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # s; a peer that says nothing does not hold a thread

            def do_GET(self) -> None:  # noqa: N802 - the base class's name
                if self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, metrics.expose())
                elif self.path == "/health":
                    state = health()
                    code = 200 if state["status"] == "ok" else 503
                    self._answer(code, "application/json", json.dumps(state).encode())
                else:
                    self._answer(404, "text/plain", b"/metrics or /health\n")

            def _answer(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing: a scrape every few seconds is no news."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as e:
            raise TransportError(
                f"http://{host}:{port} is in use by another program ({e.strerror}); stop it or give --http-port"
            ) from e
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
