"""What watches and runs a service is right about it: dashboard, alert rules, compose file, systemd unit.

Every query is parsed, and every metric, label and label value in it looked for in the scrape of a real service that has
done a scan (`test_monitoring`): a panel that would stay empty fails here.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from test_monitoring import scrape  # noqa: F401  (the fixture)

from livestem.client.endpoints import ACQUISITION_PORT, RESULTS_PORT
from livestem.runtime.settings import HTTP_PORT, Settings, load_settings

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
DASHBOARD = json.loads((CONFIGS / "grafana" / "livestem.json").read_text("utf-8"))
RULES = yaml.safe_load((CONFIGS / "prometheus" / "rules.yml").read_text("utf-8"))
PROMETHEUS = yaml.safe_load((CONFIGS / "prometheus" / "prometheus.yml").read_text("utf-8"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
UNIT = CONFIGS / "systemd" / "livestem.service"
ADDED = {"job", "instance"}  # by Prometheus, to everything it scrapes
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


def groupings(node: Any) -> Iterator[set[str]]:
    """Yield the labels of every ``by (...)`` and ``on (...)``."""
    modifier = getattr(node, "modifier", None)
    labels = getattr(modifier, "labels", None) or getattr(getattr(modifier, "matching", None), "labels", None)
    if labels:
        yield set(labels)
    for part in parts(node):
        yield from groupings(part)


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


@pytest.mark.parametrize("query", [pytest.param(query, id=where) for where, query in queries().items()])
def test_a_query_finds_what_it_asks_for(query, samples):
    tree = parsed(query)
    seen = list(selectors(tree))
    assert seen
    known: set[str] = set(ADDED)
    for selector, functions in seen:
        assert selector.name in samples, f"the service has no {selector.name}"
        kind, labels = samples[selector.name]
        known |= labels.keys()
        for matcher in selector.matchers.matchers:
            values = labels.get(matcher.name, {"livestem", "prometheus"} if matcher.name in ADDED else set())
            wanted = set(matcher.value.split("|"))
            assert wanted <= values, f"{selector.name} has no {matcher.name} of {wanted - values}"
        inner = functions[-1] if functions else ""
        if kind == "counter" or selector.name.endswith(("_bucket", "_sum", "_count")):
            assert inner in OF_COUNTERS, f"{selector.name} only rises: take its rate"
        else:
            assert inner in {"", *OF_GAUGES}, f"{selector.name} is a gauge: {inner} makes no sense of it"
        if selector.name.endswith("_bucket"):
            assert "histogram_quantile" in functions
            assert any("le" in labels for labels in groupings(tree)), "quantiles need le"
    for labels in groupings(tree):
        assert labels <= known, f"nothing has {labels - known}"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("livestem_tiles_lost", "no livestem_tiles_lost"),
        ('rate(livestem_rejected_total{reason="bad"}[5m])', "no reason of"),
        ('livestem_ready{reason="disk"}', "no reason of"),
        ("livestem_scans_total", "only rises"),
        ("rate(livestem_open_scans[5m])", "is a gauge"),
        ("sum by (scan_id) (livestem_open_scans)", "nothing has"),
        ("histogram_quantile(0.5, sum by (stage) (rate(livestem_stage_duration_seconds_bucket[5m])))", "need le"),
    ],
)
def test_a_query_that_would_find_nothing_is_found_out(query, words, samples):
    with pytest.raises(AssertionError, match=words):
        test_a_query_finds_what_it_asks_for(query, samples)


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
    for target in panel["targets"]:
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            tree = parsed(target["expr"])
            of = set().union(*groupings(tree)) or {m for s, _ in selectors(tree) for m in LABELS[s.name]}
            assert label in of, target["expr"]
        assert target["legendFormat"] or len(panel["targets"]) == 1
    seconds = [t for t in panel["targets"] if re.search(r"_seconds(?!_total|_count)", t["expr"])]
    assert not seconds or panel["fieldConfig"]["defaults"]["unit"] == "s"
    sizes = [t for t in panel["targets"] if "_bytes" in t["expr"]]
    assert not sizes or panel["fieldConfig"]["defaults"]["unit"] in ("bytes", "Bps")


LABELS = {
    "livestem_tiles_received_total": ("modality",),
    "livestem_tiles_missing": ("scan",),
    "livestem_degraded": ("reason",),
    "livestem_scans_total": ("status",),
}


# --- rules --------------------------------------------------------------------------------------------------


def test_rules_say_who_is_called_and_what_for(samples):
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"]
        assert f"| `{rule['alert']}` |" in page, "the page says what to do"
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        tree = parsed(rule["expr"])
        left = {label for s, _ in selectors(tree) for label in samples[s.name][1]} | ADDED
        assert named <= (set().union(*groupings(tree)) or left)


def test_prometheus_asks_where_the_service_answers_and_reads_the_rules():
    (job,) = [job for job in PROMETHEUS["scrape_configs"] if job["job_name"] == "livestem"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{HTTP_PORT}"]}]
    assert [(CONFIGS / "prometheus" / name).is_file() for name in PROMETHEUS["rule_files"]] == [True]


# --- compose ------------------------------------------------------------------------------------------------

SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_all_share_one_network_and_only_it_has_ports():
    holder = SERVICES["net"]
    assert "network_mode" not in holder
    assert all(service["network_mode"] == "service:net" for name, service in SERVICES.items() if name != "net")
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"net"}
    published = {int(port.rsplit(":", 1)[1]) for port in holder["ports"]}
    assert published == {RESULTS_PORT, RESULTS_PORT + 1, 3000}, "never metrics, never Prometheus"
    assert all(re.match(r"127\.0\.0\.1:|\$\{LIVESTEM_ADDRESS:-127\.0\.0\.1\}:", port) for port in holder["ports"])
    assert ACQUISITION_PORT not in published, "the adapter binds, the service connects"


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_bounded_pinned_and_can_do_little(name):
    service = SERVICES[name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), "a version, not a moving name"
    assert service["mem_limit"] and service["pids_limit"] and service["restart"] == "unless-stopped"
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert service["healthcheck"].get("test") or name == "net"


def test_the_image_is_this_version_and_its_health_check_the_images_own():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert {SERVICES[name]["image"] for name in ("net", "livestem")} == {f"livestem:{version}"}
    (check,) = re.findall(r"CMD (\[\"python\".*\])\n", (ROOT / "Dockerfile").read_text("utf-8"))
    assert SERVICES["livestem"]["healthcheck"]["test"] == ["CMD", *json.loads(check)]


def test_what_is_mounted_is_there_and_what_is_kept_has_a_volume():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            if not source.startswith("./"):
                assert source in COMPOSE["volumes"] and not mode
                continue
            assert mode == ["ro"] and target.startswith("/")
            assert (ROOT / source).exists() or source == "./keys", source
    livestem = SERVICES["livestem"]
    assert "store:/var/lib/livestem" in livestem["volumes"]
    assert livestem["environment"]["HOME"] == "/var/lib/livestem", "HyperSpy needs a home that can be written"
    assert f"./keys:{livestem['environment']['LIVESTEM_KEYS']}:ro" in livestem["volumes"]


def test_the_containers_configuration_leaves_the_container_with_keys_only():
    settings = load_settings(CONFIGS / "compose.toml")
    assert settings.results.endpoint == f"tcp://0.0.0.0:{RESULTS_PORT}"
    keys = SERVICES["livestem"]["environment"]["LIVESTEM_KEYS"]
    assert all(adapter.server_key.startswith(f"{keys}/") for adapter in settings.acquisition)
    assert not settings.http.exposed


def test_a_drain_has_the_time_it_takes():
    seconds = int(SERVICES["livestem"]["stop_grace_period"].removesuffix("s"))
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text("utf-8"), flags=re.M)
    assert min(seconds, int(stop)) >= Settings().drain_s + 30


def test_docker_reads_the_compose_file(tmp_path):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("no docker compose here")
    done = subprocess.run(
        [docker, "compose", "--file", ROOT / "compose.yaml", "config", "--quiet"],
        env={"PATH": str(Path(docker).parent), "HOME": str(tmp_path), "GRAFANA_PASSWORD": "x"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- systemd ------------------------------------------------------------------------------------------------


def test_systemd_finds_nothing_to_say(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd here")
    unit = tmp_path / "livestem.service"
    text = UNIT.read_text("utf-8")
    unit.write_text(text.replace("/opt/livestem/bin/livestem", shutil.which("true") or ""))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, timeout=60)
    if "Failed to" in done.stderr and "bus" in done.stderr:
        pytest.skip("no systemd can be asked here")
    assert (done.returncode, done.stderr) == (0, "")
    options = subprocess.run([analyze, "security", "--help"], capture_output=True, text=True, timeout=60).stdout
    if "--offline" in options:
        checked = [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", unit]
        assert subprocess.run(checked, capture_output=True, timeout=60).returncode == 0, "more exposed than 2.0"


def test_the_unit_is_told_when_the_service_is_ready_and_when_it_hangs():
    text = UNIT.read_text("utf-8")
    stated = dict(re.findall(r"^(\w+)=(.*)$", text, flags=re.M))
    assert (stated["Type"], stated["Restart"], stated["StateDirectory"]) == ("notify", "on-failure", "livestem")
    assert int(stated["WatchdogSec"]) >= 30 and stated["MemoryMax"] and stated["RestartPreventExitStatus"] == "2"
    assert "HOME=/var/lib/livestem" in text
