"""What is watched is there: every metric of a real service that has done a scan, its labels, its units, its words.

One service runs in this process, takes one scan from a hostile-minded sender, and is scraped over HTTP as Prometheus
would; all else is compared with that scrape.
"""

from __future__ import annotations

import functools
import re
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import zmq
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from scans import ASKED, plan, tiles

from livestem.client import Acquisition, Endpoint, Subscriber
from livestem.client.replay import send_scan
from livestem.domain.errors import REASONS
from livestem.domain.notices import Event
from livestem.domain.tiles import Tile
from livestem.runtime.health import REASON_NAMES
from livestem.runtime.metrics import STAGES, STATUSES
from livestem.runtime.segmenter import Segmenter
from livestem.runtime.settings import Http, Settings
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode
from ports import free_pairs

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
FINALS_S = 60.0  # of a small scan on a busy machine; it takes a second
SESSION, SCAN = "le_99", "total-sum-inf"  # what a label or a metric might be taken for
UNITS = ("seconds", "bytes", "info", "total")
CLOSED = {
    "modality": {"haadf", "eds"},
    "reason": {*REASONS, *REASON_NAMES},
    "scan": {"open", "finished"},
    "stage": set(STAGES),
    "status": set(STATUSES),
    "version": {version("livestem")},
}
# Counted things, which need no unit.
THINGS = {
    "livestem_tiles_missing", "livestem_adapters_configured", "livestem_adapters_attached", "livestem_subscriptions",
    "livestem_open_scans", "livestem_finals_waiting", "livestem_ready", "livestem_degraded",
}  # fmt: skip


class Source:
    """Two frames of a small scan; tells of itself with words that must not become labels."""

    scan_id = SCAN
    plan = msgspec.structs.replace(
        plan(), sample='x"} 1\nlivestem_evil{a="', source="\x1b[31m{}", processing=msgspec.structs.replace(ASKED)
    )

    def tiles(self, rows_per_tile: int | None = None) -> Iterator[Tile]:
        return iter(tiles(self.plan))


class Weather:
    """A link that loses the first tile, doubles the second and adds a stranger's message."""

    def __init__(self) -> None:
        self._tiles = 0

    def __call__(self, frames: list[bytes]) -> Iterator[list[bytes]]:
        self._tiles += frames[0].endswith(b".haadf_tile")
        if self._tiles == 1 and frames[0].endswith(b".haadf_tile"):
            return
        yield frames
        if self._tiles == 2 and frames[0].endswith(b".haadf_tile"):
            yield frames
            yield [frames[0], b"GET /evil HTTP/1.1", b""]


def ask_again(settings: Settings) -> None:
    """Ask for the first result of the session once more, as a subscriber with a gap would."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(settings.results.talk)
        hello = m.Hello(request_id="hello", versions=(m.VERSION,), role="observer", session=SESSION)
        dealer.send_multipart(encode(hello))
        assert dealer.poll(10_000)
        welcome = decode(dealer.recv_multipart()).header
        assert isinstance(welcome, m.Welcome)
        (stream,) = [stream for stream in welcome.streams if stream.session == SESSION]
        again = m.Resend(request_id="again", session=SESSION, epoch=stream.epoch, first=1, last=1)
        dealer.send_multipart(encode(again))
        assert dealer.poll(10_000)


def families(segmenter: Segmenter) -> dict[str, Metric]:
    with urllib.request.urlopen(f"http://127.0.0.1:{segmenter.http.port}/metrics", timeout=10) as answer:
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


@pytest.fixture(scope="module")
def scrape() -> dict[str, Metric]:
    """What a service that has done a scan answers to a scrape, by family."""
    return scraped()


@functools.cache  # one scan for every module that looks at it
def scraped() -> dict[str, Metric]:
    with tempfile.TemporaryDirectory() as store:
        return scan_and_scrape(store)


def scan_and_scrape(store: str) -> dict[str, Metric]:
    data, results = free_pairs(2)
    settings = Settings(
        acquisition=(Endpoint(f"tcp://127.0.0.1:{data}"),),
        results=Endpoint(f"tcp://127.0.0.1:{results}"),
        http=Http(port=0),
        store=store,
    )
    segmenter = Segmenter(settings, lambda text: None)
    try:
        with (
            Acquisition(SESSION, settings.acquisition[0], recorded=True, link=Weather()) as source,
            Subscriber(settings.results, name='a"b\n') as subscriber,
        ):
            subscriber.wait_subscribed(10.0)
            source.wait_for_service(20.0)
            send_scan(source, Source(), speed=None)
            while True:
                message = subscriber.receive(FINALS_S)
                assert message is not None, "no finals"
                if isinstance(message.header, m.ScanDone):
                    assert message.header.status == "complete", message.header.reason
                    break
            ask_again(settings)
            for thread in threading.enumerate():
                if thread.name == "warm-up":
                    thread.join(FINALS_S)
            return families(segmenter)
    finally:
        segmenter.close()


def ours(scrape: dict[str, Metric]) -> list[Metric]:
    return [family for name, family in scrape.items() if name.startswith("livestem_")]


def value(scrape: dict[str, Metric], name: str, **labels: str) -> float:
    """Return the sum of a sample over the labels that are not given."""
    found = [
        sample.value
        for family in scrape.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, f"no {name} {labels}"
    return sum(found)


def test_a_scan_has_been_counted(scrape):
    assert value(scrape, "livestem_tiles_received_total", modality="haadf") == 6
    assert value(scrape, "livestem_scans_total", status="complete") == value(scrape, "livestem_scans_total") == 1
    assert value(scrape, "livestem_rejected_total") == 1
    assert value(scrape, "livestem_gap_repairs_total") >= 1
    assert value(scrape, "livestem_subscriber_gaps_total") >= 1
    assert value(scrape, "livestem_tiles_missing") == 0
    maps = value(scrape, "livestem_live_maps_total")
    assert maps == value(scrape, "livestem_stage_duration_seconds_count", stage="live") >= 1
    assert 1 <= value(scrape, "livestem_live_latency_seconds_count") <= maps
    assert 0 < value(scrape, "livestem_live_latency_seconds_sum") < FINALS_S * maps
    for stage in STAGES:
        assert value(scrape, "livestem_stage_duration_seconds_count", stage=stage) >= 1, stage
    assert value(scrape, "livestem_adapters_configured") == value(scrape, "livestem_adapters_attached") == 1
    assert value(scrape, "livestem_store_bytes") > 1000 and value(scrape, "livestem_disk_free_bytes") > 0
    assert value(scrape, "livestem_resend_buffer_bytes") > 1000
    assert value(scrape, "livestem_open_scans") == value(scrape, "livestem_result_age_seconds") == 0
    assert value(scrape, "livestem_ready") == 1 and value(scrape, "livestem_degraded") == 0
    assert value(scrape, "livestem_build_info") == 1


def test_the_process_and_its_python_are_there(scrape):
    assert {"python_info", "python_gc_collections"} <= scrape.keys()
    if Path("/proc/self/stat").exists():  # what the collector reads
        assert value(scrape, "process_resident_memory_bytes") > 1e7 and value(scrape, "process_open_fds") > 3


def test_labels_come_from_closed_lists_and_every_value_is_there_from_the_start(scrape):
    for family in ours(scrape):
        seen: dict[str, set[str]] = {}
        for sample in family.samples:
            assert not {SESSION, SCAN} & {*sample.labels.values(), sample.name}
            for label, found in sample.labels.items():
                seen.setdefault(label, set()).add(found)
        buckets = seen.pop("le", set())
        assert len(buckets) <= 20 and all(re.fullmatch(r"[\d.]+|\+Inf", bound) for bound in buckets)
        for label, values in seen.items():
            assert values <= CLOSED[label], family.name
            whole = {"livestem_rejected": set(REASONS), "livestem_degraded": set(REASON_NAMES)}.get(family.name)
            assert values == (whole or CLOSED[label]), family.name


def test_the_page_has_every_metric_with_its_type_and_labels(scrape):
    rows = re.findall(r"^\| `(livestem_\w+)` \| (\w+) \| (?:`(\w+)`)? ?\|", PAGE.read_text("utf-8"), flags=re.M)
    described = {name: (kind, {label} - {""}) for name, kind, label in rows}
    found = {}
    for family in ours(scrape):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[family.name + ("_total" if family.type == "counter" else "")] = family.type, labels
    assert len(rows) == len(described) and described == found


def test_the_page_has_every_event_of_the_log():
    rows = re.findall(r"^\| `(\w+)` \| (?:`[a-z_]+`(?:, )?)* ?\| ", PAGE.read_text("utf-8"), flags=re.M)
    assert {*get_args(Event), "log"} <= set(rows)


def test_the_page_has_what_to_do_for_every_reason():
    table = PAGE.read_text("utf-8").partition("| reason | means | do |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, flags=re.M)) == REASON_NAMES


def test_metrics_keep_to_the_habits_of_prometheus(scrape):
    """What `promtool check metrics` would say, for ours."""
    for family in ours(scrape):
        assert family.documentation and not family.documentation.endswith("."), family.name
        assert re.fullmatch(r"livestem(_[a-z]+)+", family.name), family.name
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert names == {family.name + "_total"}
        else:
            assert not any(name.endswith(("_total", "_created")) for name in names), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
            assert names == {family.name + end for end in ("_bucket", "_sum", "_count")}
        if family.type == "gauge" and family.name not in THINGS:
            assert family.name.endswith(UNITS), family.name
        assert not re.search(r"milli|micro|nano|_ms|_mb|_mib|kilo|minute|hour|percent", family.name), family.name
