"""What runs a service is right about it: compose file and systemd unit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from livestem.client.endpoints import ACQUISITION_PORT, RESULTS_PORT
from livestem.runtime.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
UNIT = CONFIGS / "systemd" / "livestem.service"


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
