"""The monitor: guards the threads of a service, and takes its vitals when somebody asks how it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from livestem.client.hub import Hub
from livestem.domain.limits import Limits
from livestem.domain.notices import notice
from livestem.runtime.catalogue import size_of
from livestem.runtime.finisher import Finisher
from livestem.runtime.health import Health, Vitals, judge
from livestem.runtime.ingest import Ingest
from livestem.runtime.intake import Intake
from livestem.runtime.lag import Lag
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 60.0  # the store's size is news once a minute
_LOOK_SHARE = 0.01  # of one core, at most: a store of a million files takes seconds to look through


class Monitor:
    """Watches the parts of a service.

    Parameters
    ----------
    store, hub, ingest, intake, finisher : the parts
    limits : Limits
    """

    def __init__(
        self, store: Store, hub: Hub, ingest: Ingest, intake: Intake, finisher: Finisher, limits: Limits
    ) -> None:
        self._store, self._hub, self._ingest, self._intake = store, hub, ingest, intake
        self._finisher, self._limits = finisher, limits
        self._dead: list[str] = []
        self._under_way: set[str] = set()
        self._size = _Size(store.root)
        self.turned = time.monotonic()  # set by ingest at every turn
        self.stopping, self.resuming = False, True

    def thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Return a thread, not yet started, whose death is told."""
        self._under_way.add(name)
        return threading.Thread(target=self._guarded, args=(name, work), name=name, daemon=True)

    def is_alive(self, name: str) -> bool:
        """Return whether a thread's work goes on."""
        return name in self._under_way

    @property
    def failed(self) -> bool:
        """Whether a thread has died: the service should be restarted."""
        return bool(self._dead) or not (self._hub.alive or self.stopping)

    def health(self) -> Health:
        """Look at the service and judge."""
        return judge(self.look(), self._limits)

    def look(self) -> Vitals:
        """Take the vitals of the service."""
        now = time.monotonic()
        scans = list(self._ingest.scans.values())
        lost_hub = [] if self._hub.alive or self.stopping else ["the result sockets' thread died; the log says why"]
        return Vitals(
            dead=(*self._dead, *lost_hub),
            quiet_s=0.0 if self.stopping else now - min(self.turned, self._hub.turned),
            warm=not (self.is_alive("warm-up") or self.resuming),
            stopping=self.stopping,
            blocked=self._intake.blocked or self._finisher.held,
            disk_free_bytes=self._store.free_bytes(),
            store_bytes=self._size.bytes(),
            resend_bytes=self._hub.resend_bytes,
            open_scans=len(scans),
            finals_waiting=self._finisher.waiting,
            adapters=self._intake.configured,
            attached=self._intake.attached,
            subscriptions=self._hub.subscribers,
            silent_s=max((now - scan.heard for scan in scans), default=0.0),
            lag=max((Lag.of(scan, now) for scan in scans), key=lambda lag: lag.seconds / lag.allowed_s, default=Lag()),
            result_age_s=max((now - scan.shown for scan in scans), default=0.0),
            missing_open=sum(map(_missing, scans)),
        )

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Do a thread's work; a bug in it is told loudly, in the log and by /health."""
        try:
            work()
        except BaseException as e:
            self._dead.append(f"the {name} thread died: {type(e).__name__}: {e}")
            log.exception("a thread of the service died; restart it", extra=notice("thread_died", thread=name))
        finally:
            self._under_way.discard(name)


def _missing(scan: OpenScan) -> int:
    with scan.lock:
        return scan.accumulator.holes()


class _Size:
    """How large a folder is, looked up rarely: a store holds a handful of files for every scan ever made."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._bytes, self._again = 0, 0.0

    def bytes(self) -> int:
        """Return the bytes of all files, as they were at most a minute ago, or longer where looking takes long."""
        with self._lock:
            began = time.monotonic()
            if began >= self._again:
                self._bytes = size_of(self._root)
                took = time.monotonic() - began
                self._again = began + max(_LOOK_S, took / _LOOK_SHARE)
            return self._bytes
