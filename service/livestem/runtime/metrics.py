"""Prometheus metrics: every one the service has.

Rules
-----
* Base units: seconds, bytes. ``_total`` on counters and on nothing else.
* Labels come from closed lists, and every label value is there from the start, so that a rate is 0 and not unknown
  before the first event. Never a session, a scan, or anything else that a peer can choose.
* Counters and histograms are told of events; gauges are read off one look at the service (`Vitals`) when somebody asks.

docs/operations.md has the table; a test compares the two.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from livestem.domain import life
from livestem.domain.errors import REASONS
from livestem.runtime.health import REASON_NAMES, Health

M = TypeVar("M", Counter, Gauge, Histogram)

FINALS_STAGES = ("quantify", "embed", "fewshot", "ward", "louvain", "agreement", "descriptors")
STAGES = ("commit", "live", "finals", *FINALS_STAGES)
STATUSES = (*get_args(life.Status), "failed")
# A commit takes milliseconds, a live map is due within a tenth of a second, finals take seconds, with VGG16 a minute.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Every metric of the service; one registry each, so that tests do not share numbers."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge of its birth beside every counter tells nobody anything
        self.registry = CollectorRegistry()
        self._of_the_stream()
        self._of_the_work()
        self._of_the_service()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _of_the_stream(self) -> None:
        self.tiles = self._counter("livestem_tiles_received", "Tiles counted in, each once", modality=("haadf", "eds"))
        self.duplicates = self._counter("livestem_tiles_duplicate", "Tiles that were here already")
        self.counts = self._counter("livestem_eds_counts", "EDS photons counted in")
        self.bytes = self._counter("livestem_received_bytes", "Bytes of acquisition messages received")
        self.rejected = self._counter(
            "livestem_rejected", "Messages and connections refused, by reason", reason=REASONS
        )
        self.repairs = self._counter("livestem_gap_repairs", "Acquisition messages that came by resend")
        self.subscriber_gaps = self._counter("livestem_subscriber_gaps", "Messages sent again to subscribers")
        self.missing = self._gauge(
            "livestem_tiles_missing",
            "Missing rectangles: of open scans in frames before the newest, and of the last finished scan",
            scan=("open", "finished"),
        )
        self._adapters = self._gauge("livestem_adapters_configured", "Acquisition adapters of the configuration")
        self._attached = self._gauge("livestem_adapters_attached", "Acquisition adapters attached to")
        self._subscriptions = self._gauge("livestem_subscriptions", "Subscriptions to results")
        self._resend = self._gauge("livestem_resend_buffer_bytes", "Results kept in memory to be sent again")

    def _of_the_work(self) -> None:
        self.scans = self._counter("livestem_scans", "Scans finished, by how", status=STATUSES)
        self.live = self._counter("livestem_live_maps", "Live messages published")
        self.latency = self._histogram(
            "livestem_live_latency_seconds",
            "From the arrival of the oldest tile that a live message is the first to include, to its publication",
            _LATENCY,
        )
        self.stage = self._histogram(
            "livestem_stage_duration_seconds",
            "Time of one run of a stage: a journal's commit, a live map, a scan's finals and their parts",
            _SECONDS,
            stage=STAGES,
        )
        self._age = self._gauge(
            "livestem_result_age_seconds",
            "Age of the newest live message of an open scan, the oldest such; 0 while no scan is open",
        )
        self._lag = self._gauge(
            "livestem_live_lag_seconds",
            "Age of the oldest data of an open scan that are in no live map yet, the oldest such",
        )
        self._open = self._gauge("livestem_open_scans", "Scans being received or finalised")
        self._waiting = self._gauge("livestem_finals_waiting", "Scans whose finals wait or are under way")

    def _of_the_service(self) -> None:
        self._store = self._gauge("livestem_store_bytes", "Size of the store's files, looked at once a minute at most")
        self._free = self._gauge("livestem_disk_free_bytes", "Free space of the store's disk")
        self._ready = self._gauge("livestem_ready", "Whether the service would take a scan now, 0 or 1")
        self._degraded = self._gauge(
            "livestem_degraded", "Whether a reason to call a person holds, 0 or 1", reason=REASON_NAMES
        )
        build = Gauge("livestem_build_info", "Always 1; which livestem this is", ["version"], registry=self.registry)
        build.labels(version=_version()).set(1)

    def expose(self, health: Health) -> bytes:
        """Return all metrics in the text format; the gauges are those of this look at the service."""
        vitals = health.vitals
        self.missing.labels(scan="open").set(vitals.missing_open)
        self._adapters.set(vitals.adapters)
        self._attached.set(vitals.attached)
        self._subscriptions.set(vitals.subscriptions)
        self._resend.set(vitals.resend_bytes)
        self._age.set(vitals.result_age_s)
        self._lag.set(vitals.lag.seconds)
        self._open.set(vitals.open_scans + vitals.finals_waiting)
        self._waiting.set(vitals.finals_waiting)
        self._store.set(vitals.store_bytes)
        self._free.set(vitals.disk_free_bytes)
        self._ready.set(health.ready)
        for name in REASON_NAMES:
            self._degraded.labels(reason=name).set(name in health.reasons)
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, **labels: tuple[str, ...]) -> Counter:
        return _filled(Counter(name, text, tuple(labels), registry=self.registry), labels)

    def _gauge(self, name: str, text: str, **labels: tuple[str, ...]) -> Gauge:
        return _filled(Gauge(name, text, tuple(labels), registry=self.registry), labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], **labels: tuple[str, ...]) -> Histogram:
        return _filled(Histogram(name, text, tuple(labels), buckets=buckets, registry=self.registry), labels)


def _filled(metric: M, labels: dict[str, tuple[str, ...]]) -> M:
    """Return a metric that has every value of its label from the start."""
    for label, values in labels.items():
        for value in values:
            metric.labels(**{label: value})
    return metric


def _version() -> str:
    try:
        return version("livestem")
    except PackageNotFoundError:  # sources on a path, nothing installed
        return "unknown"
