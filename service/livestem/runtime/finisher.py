"""The finals of scans that are over, one at a time: computed, stored, published, told.

A full disk is waited out with the outcome in hand. When the service stops, what is under way and what waits gets a
bounded time; what is left then has its journal, and must not be stored late by a thread that goes on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from livestem.client.hub import Hub
from livestem.domain import life
from livestem.domain.errors import DiskFullError, LivestemError, UnavailableError
from livestem.runtime.conclude import conclude, final_messages, summary
from livestem.runtime.disk import RETRY_S
from livestem.runtime.encoders import Encoders
from livestem.runtime.metrics import Metrics
from livestem.runtime.notices import Notices
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.results import MISSING_TOLD, ScanResult, write_result
from livestem.runtime.store import Store
from livestem.wire import messages as m


class Finisher:
    """Makes finals; one thread runs it.

    Parameters
    ----------
    store, hub, encoders, metrics, tell : of the service
    look : callable
        Publishes what is new about a scan, a last time before its finals.
    finished : callable
        Told of a scan whose finals are stored.

    Attributes
    ----------
    held : why finals that are computed cannot be written just now
    """

    def __init__(
        self,
        store: Store,
        hub: Hub,
        encoders: Encoders,
        metrics: Metrics,
        tell: Notices,
        look: Callable[[OpenScan], None],
        finished: Callable[[OpenScan], None],
    ) -> None:
        self._store, self._hub, self._encoders = store, hub, encoders
        self._metrics, self._tell, self._look, self._finished = metrics, tell, look, finished
        self._queue: queue.Queue[tuple[OpenScan, life.Status] | None] = queue.Queue()
        self._stop = threading.Event()
        self._storing, self._left = threading.Lock(), 0
        self.held: str | None = None

    def put(self, scan: OpenScan, status: life.Status) -> None:
        """Take a scan that is over."""
        self._queue.put((scan, status))

    @property
    def waiting(self) -> int:
        """Scans whose finals wait or are under way."""
        return self._queue.unfinished_tasks

    def stop(self) -> None:
        """Let `run` end once the scans that wait are done; a full disk is waited out no more."""
        self._stop.set()
        self._queue.put(None)

    def leave(self) -> None:
        """Store nothing from now on, and say what is left."""
        with self._storing:
            self._left = self.waiting - 1  # without the word of `stop`
        if self._left:
            text = f"{self._left} scans are left without finals; the next start makes them"
            self._tell("finals_left", text, scans=self._left)

    def run(self) -> None:
        """Make finals until there are no more."""
        while (job := self._queue.get()) is not None:
            scan, status = job
            began = time.perf_counter()
            with ThreadPoolExecutor(1, "last-look") as beside:  # the last live map is out before the finals
                looked = beside.submit(self._look, scan)
                outcome = self._concluded(scan, status)
                looked.result()
            while not self._settled(scan, outcome, began):
                if self._stop.wait(RETRY_S):
                    return

    def _concluded(self, scan: OpenScan, status: life.Status) -> ScanResult | LivestemError:
        try:
            return conclude(scan, status, self._encoders)
        except LivestemError as e:
            return e

    def _settled(self, scan: OpenScan, outcome: ScanResult | LivestemError, began: float) -> bool:
        """Store and publish an outcome; False if it has to wait: there is no room for it, or nobody wants it now."""
        with self._storing:
            if self._left:
                return False
            try:
                self._settle(scan, outcome, began)
            except DiskFullError as e:
                self.held = f"{e}; until then the finals of scan {scan.scan_id} wait"
                return False
            self.held = None
            self._queue.task_done()
        return True

    def _settle(self, scan: OpenScan, outcome: ScanResult | LivestemError, began: float) -> None:
        try:
            if isinstance(outcome, UnavailableError):
                about = {"session": scan.session, "scan_id": scan.scan_id, "reason": str(outcome)}
                self._tell("scan_not_resumed", f"scan {scan.scan_id} stays open: {outcome}", **about)
            elif isinstance(outcome, LivestemError):
                raise outcome
            else:
                self._finish(scan, outcome, began)
        except DiskFullError:
            raise
        except LivestemError as e:
            self._fail(scan, str(e))

    def _finish(self, scan: OpenScan, result: ScanResult, began: float) -> None:
        write_result(self._store.folder(scan.session, scan.scan_id), result)
        self._hub.publish_all(scan.session, final_messages(result))
        self._finished(scan)
        took = time.perf_counter() - began
        self._metrics.scans.labels(status=result.status).inc()
        self._metrics.missing.labels(scan="finished").set(len(result.missing))
        for stage, seconds in {**result.finals.timings_s, "finals": took}.items():
            self._metrics.stage.labels(stage=stage).observe(seconds)
        self._tell(
            "scan_done",
            f"{summary(result)}; finals in {took:.2f} s",
            session=scan.session,
            scan_id=scan.scan_id,
            status=result.status,
            digest=result.finals.digest,
            missing=len(result.missing),
            seconds=round(took, 3),
        )

    def _fail(self, scan: OpenScan, reason: str) -> None:
        """Tell everybody that there are no finals; the journal stays, so that nothing is lost."""
        accumulator = scan.accumulator
        done = m.ScanDone(
            scan_id=scan.scan_id,
            status="failed",
            coverage=accumulator.coverage(),
            missing_tiles=accumulator.missing()[:MISSING_TOLD],
            input_digest=accumulator.input_digest(),
            digest="",
            timings_s={},
            reason=reason[:4096],
        )
        self._hub.publish(scan.session, done)
        self._metrics.scans.labels(status="failed").inc()
        about = {"session": scan.session, "scan_id": scan.scan_id, "reason": reason}
        self._tell("scan_failed", f"scan {scan.scan_id} failed: {reason}", **about)
