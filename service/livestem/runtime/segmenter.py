"""The service: follows acquisition, scores live, finalises, publishes and stores.

==========  =================================================================================
thread      work
==========  =================================================================================
ingest      sockets of every adapter -> validation -> journal -> accumulator; acknowledgements
live        looks at running scans every `publish_interval_s`; publishes when something changed
finals      one scan at a time: methods, descriptors, result folder, publication
hub         the result sockets' requests and heartbeats
http        /health and /metrics
==========  =================================================================================
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from numpy.typing import NDArray

from livestem.client.connection import Connection
from livestem.client.hub import Hub
from livestem.domain import life
from livestem.domain.errors import LivestemError
from livestem.protocol.follower import Deliver, Effect, Lost, Refused, Tracking
from livestem.protocol.publisher import Publisher
from livestem.protocol.resend import Frames
from livestem.runtime.conclude import conclude, publish_finals
from livestem.runtime.encoders import Encoders
from livestem.runtime.ingest import Ingest, OpenScan
from livestem.runtime.live import LiveScorer
from livestem.runtime.metrics import HttpEndpoint, Metrics
from livestem.runtime.recipe import resolve
from livestem.runtime.results import write_result
from livestem.runtime.settings import Settings
from livestem.runtime.store import Store
from livestem.wire import messages as m

log = logging.getLogger(__name__)

COMMIT_S = 0.02  # the design's: the journal is committed every 20 ms ...
COMMIT_BYTES = 4 * 2**20  # ... or 4 MiB
ACK_S = 1.0  # acknowledged at least so often, so that the adapter knows we are alive
_REVISIONS_PER_START = 2**32  # more live maps than one start can publish in a century at 25 a second


class Segmenter:
    """A running service; close it to stop.

    Parameters
    ----------
    settings : Settings
    announce : callable, optional
        Called with one line for a person when something worth telling happens.

    Raises
    ------
    LivestemError
        If a port or the store is in use, or the preset's weights are missing.
    """

    def __init__(self, settings: Settings, announce: Callable[[str], None] = log.info) -> None:
        self.settings, self._announce = settings, announce
        self.metrics = Metrics()
        self.store = Store(settings.store_path)
        self._stop = threading.Event()
        self._finals: queue.Queue[tuple[OpenScan, life.Status] | None] = queue.Queue()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sessions_lock = threading.Lock()
        self._failure: str | None = None
        self._epoch = time.time_ns()
        self._encoders = Encoders(None if settings.weights is None else Path(settings.weights))
        self._ingest = Ingest(self.store, self._resolve, settings.limits, self.metrics, self._on_finalise)
        self._live = LiveScorer(self._encoders, self.store.starts * _REVISIONS_PER_START)
        try:
            self._hub = Hub(
                self._context,
                settings.results,
                self._epoch,
                stream="res",
                server="segmenter",
                limits=settings.limits,
            )
        except LivestemError:
            self.store.close()
            self._context.term()
            raise
        try:
            http = settings.http
            self.http = HttpEndpoint(http.host, http.port, self.metrics, self.health)
        except LivestemError:
            self._hub.close()
            self.store.close()
            self._context.term()
            raise
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._run_ingest, self._run_live, self._run_finals)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Drain and stop: finals under way are finished, journals closed, sockets freed."""
        self._stop.set()
        self._finals.put(None)
        for thread in self._threads:
            thread.join()
        self._ingest.close()
        self._hub.close()
        self.http.close()
        self.store.close()
        self._context.term()

    def health(self) -> dict[str, Any]:
        """Return what ``/health`` answers."""
        dead = [t.name for t in self._threads if not t.is_alive()] if not self._stop.is_set() else []
        reasons = [f"thread {name} has stopped" for name in dead] + ([self._failure] if self._failure else [])
        return {
            "status": "degraded" if reasons else "ok",
            "reasons": reasons,
            "open_scans": len(self._ingest.scans),
            "finals_waiting": self._finals.qsize(),
        }

    @property
    def failed(self) -> bool:
        """Whether a thread has died: the service should be restarted."""
        return self._failure is not None

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread's work; a bug in it is told loudly, in the log and by /health."""
        try:
            work()
        except BaseException as e:
            self._failure = f"{work.__name__.strip('_')}: {type(e).__name__}: {e}"
            log.exception("a thread of the service died; restart it")
            raise

    def _resolve(self, plan: Any) -> Any:
        grid, parameters = resolve(plan, self.settings.processing, allow_sender=self.settings.allow_processing)
        self._encoders.of(parameters)  # refuses now, not at the end of the scan, if weights are missing
        return grid, parameters

    # --- ingest -------------------------------------------------------------------------------------------

    def _run_ingest(self) -> None:
        adapters = [
            _Adapter(
                Connection(
                    self._context,
                    endpoint,
                    stream="acq",
                    role="service",
                    take="attach",
                    name="segmenter",
                    limits=self.settings.limits,
                    on_rejected=self._ingest.reject,
                )
            )
            for endpoint in self.settings.acquisition
        ]
        poller = zmq.Poller()
        for adapter in adapters:
            adapter.connection.register(poller)
        try:
            while not self._stop.is_set():
                poller.poll(COMMIT_S * 1000)
                for adapter in adapters:
                    self._serve(adapter)
                self._ingest.expire(time.monotonic(), self.settings.vanish_s)
                self.metrics.adapters.set(sum(bool(a.sessions) for a in adapters))
                self.metrics.subscribers.set(self._hub.subscribers)
        finally:
            for adapter in adapters:
                adapter.connection.close()

    def _serve(self, adapter: _Adapter) -> None:
        """Move one adapter's messages in; commit and acknowledge when it is time."""
        for effect in adapter.connection.pump():
            self._take(adapter, effect)
        now = time.monotonic()
        due = now - adapter.committed_at >= COMMIT_S and adapter.fresh
        if due or self._ingest.uncommitted_bytes >= COMMIT_BYTES or now - adapter.committed_at >= ACK_S:
            adapter.committed_at, adapter.fresh = now, False
            for session in adapter.sessions:
                self._acknowledge(adapter, session)

    def _acknowledge(self, adapter: _Adapter, session: str) -> None:
        ack = adapter.connection.follower.acknowledged(session)
        if ack is None:
            return
        self._ingest.commit(session, ack.epoch, ack.seq)
        adapter.connection.send(ack)
        self._ingest.settle(session, ack.seq)

    def _take(self, adapter: _Adapter, effect: Effect) -> None:
        if isinstance(effect, Deliver) and isinstance(effect.message.header, m.OfScan):
            adapter.fresh = True
            if effect.repaired:
                self.metrics.repairs.inc()
            self._open_session(effect.message.header.session)
            for verdict in self._ingest.apply(effect.message):
                self._on_verdict(adapter, verdict)
        elif isinstance(effect, Tracking):
            adapter.sessions = {effect.stream.session}
            self._announce(f"attached to session {effect.stream.session} at {adapter.connection.endpoint.endpoint}")
        elif isinstance(effect, Lost):
            log.error("session %s: messages %d to %d are gone for good", effect.session, effect.first, effect.last)
        elif isinstance(effect, Refused):
            log.error("the adapter refuses: %s", effect.reason)

    def _on_verdict(self, adapter: _Adapter, verdict: m.Verdict) -> None:
        adapter.connection.send(verdict)
        if verdict.accepted:
            text = f"scan {verdict.scan_id}: " + ", ".join(f"{k} {v}" for k, v in verdict.facts.items())
        else:
            text = f"scan {verdict.scan_id} refused: {verdict.reason}"
        self._announce(text)
        status = m.Status(level="info" if verdict.accepted else "error", text=text[:4096], scan_id=verdict.scan_id)
        self._hub.publish(verdict.session, status)

    def _open_session(self, session: str) -> None:
        with self._sessions_lock:
            if self._hub.publisher(session) is None:
                epoch = self._epoch

                def older(first: int, last: int) -> Any:
                    return self.store.results(session, epoch, first, last)

                def keep(seq: int, frames: Frames) -> None:
                    self.store.keep_result(session, epoch, seq, frames)

                publisher = Publisher(
                    session, "res", epoch, time.time_ns, limits=self.settings.limits, older=older, keep=keep
                )
                self._hub.add(publisher)

    def _on_finalise(self, scan: OpenScan, status: life.Status) -> None:
        self._finals.put((scan, status))

    # --- live ---------------------------------------------------------------------------------------------

    def _run_live(self) -> None:
        while not self._stop.wait(self.settings.publish_interval_s):
            for scan in list(self._ingest.scans.values()):
                with self.metrics.stage.labels(stage="live").time():
                    state = self._live.look(scan)
                if state is None:
                    continue
                arrays: tuple[NDArray[Any], ...] = ()
                if state.label_map is not None:
                    found = state.label_map
                    arrays = (found.labels,) if found.scores is None else (found.labels, found.scores)
                self._hub.publish(scan.session, state.header, arrays)
                self.metrics.live.inc()

    # --- finals -------------------------------------------------------------------------------------------

    def _run_finals(self) -> None:
        while (job := self._finals.get()) is not None:
            scan, status = job
            try:
                self._finish(scan, status)
            except LivestemError as e:
                self._fail(scan, str(e))
            self.metrics.open.set(len(self._ingest.scans))

    def _finish(self, scan: OpenScan, status: life.Status) -> None:
        began = time.perf_counter()
        result = conclude(scan, status, self._encoders)
        write_result(self.store.folder(scan.session, scan.scan_id), result)
        publish_finals(result, lambda header, *arrays: self._hub.publish(scan.session, header, arrays))
        self.store.finish(scan.session, scan.scan_id, status, result.finals.digest)
        took = time.perf_counter() - began
        self.metrics.scans.labels(status=status).inc()
        self.metrics.missing.set(len(result.missing))
        self.metrics.stage.labels(stage="finals").observe(took)
        self._announce(f"scan {scan.scan_id} {status}: finals in {took:.2f} s, digest {result.finals.digest[:16]}")

    def _fail(self, scan: OpenScan, reason: str) -> None:
        """Tell everybody that there are no finals; the journal stays, so that nothing is lost."""
        log.error("scan %s: no finals: %s", scan.scan_id, reason)
        self.store.finish(scan.session, scan.scan_id, "failed", None)
        self.metrics.scans.labels(status="failed").inc()
        accumulator = scan.accumulator
        done = m.ScanDone(
            scan_id=scan.scan_id,
            status="failed",
            coverage=accumulator.coverage(),
            missing_tiles=accumulator.missing(),
            input_digest=accumulator.input_digest(),
            digest="",
            timings_s={},
            reason=reason[:4096],
        )
        self._hub.publish(scan.session, done)
        self._announce(f"scan {scan.scan_id} failed: {reason}")


@dataclass
class _Adapter:
    """One acquisition adapter: its connection, and when its data were last committed."""

    connection: Connection
    sessions: set[str] = None  # type: ignore[assignment]
    committed_at: float = 0.0
    fresh: bool = False

    def __post_init__(self) -> None:
        self.sessions = set()
