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

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Literal

import msgspec
import zmq

from livestem.client.hub import Hub
from livestem.client.line import server_key
from livestem.domain.errors import DiskFullError, LivestemError, SourceError
from livestem.domain.parameters import PRESETS
from livestem.protocol.publisher import Publisher
from livestem.runtime.decision import Decisions
from livestem.runtime.disk import RETRY_S
from livestem.runtime.encoders import Encoders
from livestem.runtime.finisher import Finisher
from livestem.runtime.http_endpoint import HttpEndpoint
from livestem.runtime.ingest import Ingest
from livestem.runtime.intake import Intake
from livestem.runtime.lag import Lag
from livestem.runtime.live import LiveScorer
from livestem.runtime.metrics import Metrics
from livestem.runtime.monitor import Monitor
from livestem.runtime.notices import Notices
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.settings import Settings
from livestem.runtime.store import Store
from livestem.runtime.warm_up import warm_up
from livestem.wire import messages as m

log = logging.getLogger(__name__)

# Bytes of results kept in memory for each session, so that a fresh gap is served without reading the store: the finals
# of some scans. What is older is read there.
_BUFFERED = 16 * 2**20
_BREATH_S = 0.001  # between looks that take longer than they may: ingest goes first
_TURN_S = 0.1  # between looks at what is being waited for
_REVISIONS_PER_START = 2**32  # more live maps than one start can publish in a century at 25 a second


class Segmenter:
    """A running service; close it to stop.

    Parameters
    ----------
    settings : Settings
    announce : callable, optional
        Called with one line for a person when something worth telling happens.
    open_store : callable, optional
        Opens the store of the settings; by default at once, or not at all.

    Raises
    ------
    LivestemError
        If a port or the store is in use, the store's disk is full, or the preset's weights are missing.
    """

    def __init__(
        self,
        settings: Settings,
        announce: Callable[[str], None] = lambda text: None,
        open_store: Callable[[], Store] | None = None,
    ) -> None:
        self.settings, self.tell = settings, Notices(announce)
        self.metrics = Metrics()
        self._stop = threading.Event()
        self._looking = threading.Lock()  # the live thread looks, and the finals thread once at a scan's end
        self._epoch = time.time_ns()
        keys = settings.own_keys()
        for adapter in settings.acquisition:
            server_key(adapter, keys)  # what is missing is said now
        self._encoders = Encoders.configured(settings)
        self._encoders.of(PRESETS[settings.processing.preset or "default"])  # what is missing is said now
        with ExitStack() as opened:  # closes what is open already if a later part cannot be opened
            self.store = opened.enter_context(open_store() if open_store else Store(settings.store_path))
            self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            opened.callback(self._context.term)
            self._hub = opened.enter_context(self._bind())
            self._finisher = Finisher(
                self.store, self._hub, self._encoders, self.metrics, self.tell, self._look, self._finished
            )
            decisions = Decisions(
                settings.processing, self._encoders, self.store.root, allow_sender=settings.allow_processing
            )
            self._ingest = Ingest(
                self.store,
                decisions,
                settings.limits,
                self.metrics,
                self._finisher.put,
                self._alive,
            )
            self.http = HttpEndpoint(settings.http.host, settings.http.port)
            opened.callback(self.http.close)
            self._opened = opened.pop_all()
        self._live = LiveScorer(self._encoders, self.store.starts * _REVISIONS_PER_START)
        self._intake = Intake(self._context, settings, self._ingest, self._on_verdict, self._open_session, self.tell)
        self.monitor = Monitor(self.store, self._hub, self._ingest, self._intake, self._finisher, settings.limits)
        self._threads = {
            name: self.monitor.thread(name, work)
            for name, work in (
                ("ingest", self._run_ingest),
                ("live", self._run_live),
                ("finals", self._finisher.run),
                ("warm-up", warm_up),
            )
        }
        for thread in self._threads.values():
            thread.start()
        self.http.serve(self.monitor.health, self.metrics.expose)

    def _bind(self) -> Hub:
        settings = self.settings
        return Hub(
            self._context,
            settings.results,
            self._epoch,
            stream="res",
            server="segmenter",
            limits=settings.limits,
            stored=self._stored,
            on_rejected=lambda e: self.metrics.rejected.labels(reason=e.reason).inc(),
            on_repaired=self.metrics.subscriber_gaps.inc,
            keys=settings.own_keys(),
        )

    def close(self) -> None:
        """Drain and stop: what was received is committed, finals get `drain_s`, journals and sockets are closed.

        Finals that take longer are left to the next start: their scan's journal has everything they need.
        """
        self.monitor.stopping = True
        self._stop.set()
        for name in ("ingest", "live"):  # ingest's last commit may end a scan
            self._threads[name].join()
        self._finisher.stop()
        self._threads["finals"].join(self.settings.drain_s)
        self._finisher.leave()
        self._ingest.close()
        self._opened.close()

    def _run_ingest(self) -> None:
        try:
            self._resume()
            self.monitor.resuming = False
            while not self._stop.is_set():
                self._intake.turn()
                self._alive()
        finally:
            self._intake.close()

    def _alive(self) -> None:
        self.monitor.turned = time.monotonic()

    def _resume(self) -> None:
        """Take up what an earlier start left open, the newest first; each goes on, or its finals are made."""
        for session, scan_id in self.store.open_scans():
            while self._finisher.waiting >= self.settings.limits.open_scans and not self._stop.wait(_TURN_S):
                self._alive()  # each scan that waits for its finals is held in memory
            if self._stop.is_set():
                return
            about = {"session": session, "scan_id": scan_id}
            self._open_session(session)
            try:
                scan = self._resumed(session, scan_id)
            except LivestemError as e:
                self.tell("scan_not_resumed", f"scan {scan_id} is not resumed: {e}", **about, reason=str(e))
                if isinstance(e, SourceError):
                    self._tell_broken(session, scan_id, str(e))
                continue
            if scan is None:
                return
            then = "waits for its sender" if scan.status is None else "is over, its finals are made"
            text = f"scan {scan_id} is resumed with {scan.life.tiles} tiles and {then}"
            self.tell("scan_resumed", text, **about, tiles=scan.life.tiles)

    def _resumed(self, session: str, scan_id: str) -> OpenScan | None:
        """Resume a scan as soon as there is room to open its journal; None if we are stopped before."""
        while not self._stop.is_set():
            try:
                return self._ingest.resume(session, scan_id)
            except DiskFullError as e:
                self._intake.block(e)  # until its first turns
                self._alive()
                self._stop.wait(RETRY_S)
        return None

    def _finished(self, scan: OpenScan) -> None:
        """A scan that was begun again while its finals were made is open, whatever they said."""
        key = scan.session, scan.scan_id
        if self._ingest.scans.get(key, scan) is not scan:
            self.store.reopen(*key)

    def _tell_broken(self, session: str, scan_id: str, reason: str) -> None:
        """Tell everybody that a scan has failed whose journal is damaged; sent again, it begins anew."""
        done = m.ScanDone(
            scan_id=scan_id,
            status="failed",
            coverage=m.Coverage(),
            missing_tiles=(),
            input_digest="",
            digest="",
            timings_s={},
            reason=reason[:4096],
        )
        with contextlib.suppress(DiskFullError):  # it is open until this can be kept
            self._hub.publish(session, done)

    def _on_verdict(self, verdict: m.Verdict) -> None:
        """Tell the person at the service, and everybody who follows, what was decided about a scan."""
        text = f"scan {verdict.scan_id}{'' if verdict.accepted else ' refused'}: {verdict.words}"
        about = {"session": verdict.session, "scan_id": verdict.scan_id}
        if verdict.accepted:
            self.tell("scan_accepted", text, **about)
        else:
            self.tell("scan_refused", text, **about, reason=verdict.reason)
        level: Literal["info", "error"] = "info" if verdict.accepted else "error"
        self._hub.publish(verdict.session, m.Status(level=level, text=text[:4096], scan_id=verdict.scan_id))

    def _open_session(self, session: str) -> None:
        """Begin the results of a session; called by the ingest thread alone."""
        if self._hub.publisher(session) is None:
            self._let_sessions_go()
            self._hub.add(self._publisher(session, self.store.epochs(session)))

    def _let_sessions_go(self) -> None:
        """Make room for one more session. One of which something may still be published is kept, whatever the limit."""
        if self._finisher.waiting:
            return
        open_ones = {scan.session for scan in self._ingest.scans.values()}
        idle = [session for session in self._hub.sessions if session not in open_ones]
        too_many = max(0, len(self._hub.sessions) + 1 - self.settings.limits.sessions)
        for session in idle[:too_many]:
            self._hub.let_go(session)

    def _stored(self, session: str) -> Publisher | None:
        """Return who answers for the results of a session that only the store knows."""
        earlier = self.store.epochs(session)
        return self._publisher(session, earlier) if earlier else None

    def _publisher(self, session: str, earlier: list[m.Stream]) -> Publisher:
        store, epoch = self.store, self._epoch
        limits = self.settings.limits
        return Publisher(
            session,
            "res",
            epoch,
            time.time_ns,
            limits=msgspec.structs.replace(limits, resend_bytes=min(limits.resend_bytes, _BUFFERED)),
            older=partial(store.results, session),
            keep=partial(store.keep_results, session, epoch),
            earlier=earlier,
        )

    def _tell_lag(self, scan: OpenScan, now: float) -> None:
        """Tell everybody, once, that the live maps of a scan lag, and once that they do no more."""
        lag = Lag.of(scan, now)
        if lag.too_much is not scan.lagging and (lag.too_much or lag.over):
            scan.lagging = lag.too_much
            text = f"{lag.words}; live maps are left out, no data are" if scan.lagging else "live maps keep up again"
            level: Literal["info", "warning"] = "warning" if scan.lagging else "info"
            self._hub.publish(scan.session, m.Status(level=level, text=text, scan_id=scan.scan_id))

    def _run_live(self) -> None:
        pause = self.settings.publish_interval_s
        while not self._stop.wait(pause):
            began = time.monotonic()
            for scan in list(self._ingest.scans.values()):
                self._look(scan)
            pause = max(_BREATH_S, began + self.settings.publish_interval_s - time.monotonic())

    def _look(self, scan: OpenScan) -> None:
        """Publish what is new about a scan, if anything is."""
        began = time.perf_counter()
        try:
            with self._looking:
                state = self._live.look(scan)
        except LivestemError as e:  # the next look may do better, and the finals tell for good
            log.warning("scan %s: no live map: %s", scan.scan_id, e)
            scan.looked_from = None
            return
        if state is None:
            return
        with self._hub.lock:
            if self._hub.publisher(scan.session) is None:
                return  # its finals were made meanwhile, and the session let go
            self._hub.publish(scan.session, state.header, state.arrays)
        scan.shown = time.monotonic()
        self._tell_lag(scan, scan.shown)
        scan.looked_from = None
        self.metrics.live.inc()
        self.metrics.stage.labels(stage="live").observe(time.perf_counter() - began)
        if state.arrived is not None:
            self.metrics.latency.observe(scan.shown - state.arrived)
