"""What watches a service is right about it: the dashboard, the alert rules, and what Prometheus scrapes.

Every query is parsed and asked of the scrape of a real service that has done a scan (`test_monitoring`), as a
Prometheus that also scrapes itself has it: by label sets (`label_sets`), not by values. One that would find nothing
fails here, and so does a legend that would stay empty or stand for two lines.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from label_sets import Vector, label_sets
from test_monitoring import scrape  # noqa: F401  (the fixture)

from livestem.runtime.settings import HTTP_PORT

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
DASHBOARD = json.loads((CONFIGS / "grafana" / "livestem.json").read_text("utf-8"))
RULES = yaml.safe_load((CONFIGS / "prometheus" / "rules.yml").read_text("utf-8"))
PROMETHEUS = yaml.safe_load((CONFIGS / "prometheus" / "prometheus.yml").read_text("utf-8"))
TARGETS = {
    job["job_name"]: {"job": job["job_name"], "instance": job["static_configs"][0]["targets"][0]}
    for job in PROMETHEUS["scrape_configs"]
}
OF_COUNTERS = {"rate", "increase", "irate", "resets"}
OF_GAUGES = {"changes", "predict_linear", "deriv", "delta", "max_over_time", "min_over_time", "avg_over_time"}


# --- queries ------------------------------------------------------------------------------------------------


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Return every query by where it is."""
    found = {f"{p['title']} {t['refId']}": t["expr"] for p in panels() for t in p["targets"]}
    found |= {f"annotation {a['name']}": a["expr"] for a in DASHBOARD["annotations"]["list"]}
    found |= {rule["alert"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}
    return found


def parsed(query: str) -> Any:
    return promql.parse(re.sub(r"\$__(rate_)?interval", "5m", query))


def parts(node: Any) -> Iterator[Any]:
    """Yield the expressions that an expression is made of."""
    for name in ("expr", "lhs", "rhs", "args", "vector_selector"):
        found = getattr(node, name, None)
        yield from found if isinstance(found, list) else [] if found is None else [found]


def selectors(node: Any, functions: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield every vector selector of a query, with the functions around it, the innermost last."""
    if isinstance(node, promql.VectorSelector):
        yield node, functions
        return
    if isinstance(node, promql.Call):
        functions = (*functions, node.func.name)
    for part in parts(node):
        yield from selectors(part, functions)


@pytest.fixture(scope="module")
def samples(scrape) -> dict[str, tuple[str, dict[str, set[str]]]]:  # noqa: F811
    """Return every sample's name, with the type of its metric and the values of its labels."""
    found: dict[str, tuple[str, dict[str, set[str]]]] = {"up": ("gauge", {})}
    for family in scrape.values():
        for sample in family.samples:
            _, labels = found.setdefault(sample.name, (family.type, {}))
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@pytest.fixture(scope="module")
def series(scrape) -> Vector:  # noqa: F811
    """Return the label sets that Prometheus has: with its own labels, and beside the service's process its own."""
    samples = [{"__name__": s.name, **s.labels} for family in scrape.values() for s in family.samples]
    up = {"__name__": "up"}
    process = [labels for labels in samples if labels["__name__"].startswith("process_")]
    return [labels | TARGETS["livestem"] for labels in [up, *samples]] + [
        labels | TARGETS["prometheus"] for labels in [up, *process]
    ]


def answer(query: str, series: Vector) -> Vector:
    """Return the label sets that a query can answer with."""
    found = label_sets(parsed(query), series)
    assert found, f"finds nothing, whatever the values: {query}"
    return found


@pytest.mark.parametrize("query", [pytest.param(query, id=where) for where, query in queries().items()])
def test_a_query_finds_what_it_asks_for(query, samples, series):
    seen = list(selectors(parsed(query)))
    assert seen
    for selector, functions in seen:
        assert selector.name in samples, f"the service has no {selector.name}"
        kind, labels = samples[selector.name]
        for matcher in selector.matchers.matchers:
            values = labels.get(matcher.name, {target.get(matcher.name, "") for target in TARGETS.values()})
            wanted = set(matcher.value.split("|"))
            assert wanted <= values, f"{selector.name} has no {matcher.name} of {wanted - values}"
        inner = functions[-1] if functions else ""
        if kind == "counter" or selector.name.endswith(("_bucket", "_sum", "_count")):
            assert inner in OF_COUNTERS, f"{selector.name} only rises: take its rate"
        else:
            assert inner in {"", *OF_GAUGES}, f"{selector.name} is a gauge: {inner} makes no sense of it"
        if selector.name.endswith("_bucket"):
            assert "histogram_quantile" in functions
    answer(query, series)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("livestem_tiles_lost", "no livestem_tiles_lost"),
        ('rate(livestem_rejected_total{reason="bad"}[5m])', "no reason of"),
        ('livestem_ready{reason="disk"}', "no reason of"),
        ("livestem_scans_total", "only rises"),
        ("rate(livestem_open_scans[5m])", "is a gauge"),
        ("sum by (scan_id) (livestem_open_scans)", "nothing has"),
        ("histogram_quantile(0.5, sum by (stage) (rate(livestem_stage_duration_seconds_bucket[5m])))", "finds nothing"),
        ("livestem_adapters_attached / livestem_degraded", "finds nothing"),
        (
            "livestem_result_age_seconds > 30 and sum by (instance) (rate(livestem_tiles_received_total[1m])) > 0",
            "finds nothing",
        ),
        ('livestem_tiles_missing{scan="open"} and on (reason) livestem_degraded', "nothing has {'reason'}"),
        (
            'sum by (scan) (livestem_open_scans) / on (scan) livestem_tiles_missing{scan="open"}',
            "nothing has {'scan'}",
        ),
        (
            'rate(livestem_scans_total{status="complete"}[5m]) / rate(livestem_scans_total{status="failed"}[5m])',
            "finds nothing",
        ),
        ("livestem_ready * on (instance) livestem_degraded", "are the same"),
    ],
)
def test_a_query_that_would_find_nothing_is_found_out(query, words, samples, series):
    with pytest.raises(AssertionError, match=words):
        test_a_query_finds_what_it_asks_for(query, samples, series)


def test_every_metric_of_ours_is_looked_at(samples):
    named = {selector.name for query in queries().values() for selector, _ in selectors(parsed(query))}
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples if name.startswith("livestem_")}
    assert ours - {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} == {"livestem_build_info"}


# --- the dashboard ------------------------------------------------------------------------------------------


def test_the_panels_cover_their_rows_and_do_not_overlap():
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] and at["x"] + at["w"] <= 24
        for place in itertools.product(range(at["y"], at["y"] + at["h"]), range(at["x"], at["x"] + at["w"])):
            assert place not in taken, f"{panel['title']} lies on {taken[place]}"
            taken[place] = panel["title"]
    assert len(taken) == 24 * (max(y for y, _ in taken) + 1), "there are holes"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("panel", panels(), ids=lambda p: p["title"])
def test_a_panel_says_what_it_shows_in_which_unit(panel):
    assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
    source = yaml.safe_load((CONFIGS / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    uid = source["datasources"][0]["uid"]
    assert {part["datasource"]["uid"] for part in (panel, *panel["targets"])} == {uid}
    seconds = [t for t in panel["targets"] if re.search(r"_seconds(?!_total|_count)", t["expr"])]
    assert not seconds or panel["fieldConfig"]["defaults"]["unit"] == "s"
    sizes = [t for t in panel["targets"] if "_bytes" in t["expr"]]
    assert not sizes or panel["fieldConfig"]["defaults"]["unit"] in ("bytes", "Bps")


def legends(panel: dict[str, Any], series: Vector) -> list[str]:
    """Return what a panel writes beside its lines, one for each."""
    found = []
    for target in panel["targets"]:
        for labels in answer(target["expr"], series):
            asked = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert asked <= labels.keys(), f"the legend asks for {asked - labels.keys()}: {target['expr']}"
            found.append(re.sub(r"\{\{(\w+)\}\}", lambda label: labels[label[1]], target["legendFormat"]))  # noqa: B023
    return found


@pytest.mark.parametrize("panel", panels(), ids=lambda p: p["title"])
def test_every_line_of_a_panel_has_a_legend_of_its_own(panel, series):
    found = legends(panel, series)
    assert len(set(found)) == len(found), found
    assert all(found) or len(found) == 1


@pytest.mark.parametrize(
    ("query", "legend", "words"),
    [
        ("sum by (instance) (livestem_degraded)", "{{reason}}", "asks for {'reason'}"),
        ("livestem_ready", "{{scan}}", "asks for"),
        ("process_resident_memory_bytes", "of the process", "of the process"),
        ("livestem_tiles_missing", "{{job}}", "livestem"),
    ],
)
def test_a_legend_that_says_too_little_is_found_out(query, legend, words, series):
    with pytest.raises(AssertionError, match=words):
        test_every_line_of_a_panel_has_a_legend_of_its_own(
            {"targets": [{"expr": query, "legendFormat": legend}]}, series
        )


# --- rules --------------------------------------------------------------------------------------------------


def test_rules_say_who_is_called_and_what_for(series):
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"]
        assert f"| `{rule['alert']}` |" in page, "the page says what to do"
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert all(named <= labels.keys() for labels in answer(rule["expr"], series)), rule["alert"]


def test_promtool_finds_nothing_to_say():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here")
    done = subprocess.run(
        [promtool, "check", "config", CONFIGS / "prometheus" / "prometheus.yml"],  # and the rules it names
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_prometheus_asks_where_the_service_answers_and_reads_the_rules():
    (job,) = [job for job in PROMETHEUS["scrape_configs"] if job["job_name"] == "livestem"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{HTTP_PORT}"]}]
    assert [(CONFIGS / "prometheus" / name).is_file() for name in PROMETHEUS["rule_files"]] == [True]
