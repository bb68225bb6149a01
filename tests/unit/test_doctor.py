"""The doctor: every finding has its state and its advice; nothing is changed by looking; what was measured is kept."""

from __future__ import annotations

import json
import os
import socket
import sqlite3

import msgspec
import pytest

from livestem.cli.__main__ import app
from livestem.client.endpoints import Endpoint
from livestem.client.keys import new_pair
from livestem.domain.errors import UsageError
from livestem.domain.limits import Limits
from livestem.domain.parameters import Processing
from livestem.runtime import checkup, machine, tuning
from livestem.runtime.health import Vitals, judge
from livestem.runtime.http_endpoint import HttpEndpoint
from livestem.runtime.settings import Http, Settings
from livestem.runtime.store import Store
from livestem.runtime.tuning import Choice, Measured
from ports import free_pairs


@pytest.fixture
def settings(tmp_path) -> Settings:
    """A configuration whose ports are free and whose store is not there yet."""
    results, http = free_pairs(2)
    return Settings(results=Endpoint(f"tcp://127.0.0.1:{results}"), http=Http(port=http), store=str(tmp_path / "store"))


def findings(settings: Settings) -> dict[str, checkup.Check]:
    found = list(checkup.examine(settings))
    assert len({check.name for check in found}) == len(found)
    assert all(check.advice for check in found if check.state != "ok"), "what is wrong has a way out"
    assert not any(check.advice for check in found if check.state == "ok")
    return {check.name: check for check in found}


def test_a_good_machine_is_good_and_is_left_as_it_was(settings):
    found = findings(settings)
    assert {check.state for check in found.values()} <= {"ok", "warn"}, found
    assert not settings.store_path.exists() and "will be made" in found["store"].found
    assert all(found[f"port of {what}"].state == "ok" for what in ("http", "results", "results' requests"))


@pytest.mark.parametrize("free", [10**12, 0])
def test_a_running_service_is_asked_how_it_is(settings, free):
    health = judge(Vitals(disk_free_bytes=free, attached=1), Limits())
    endpoint = HttpEndpoint(settings.http.host, settings.http.port)
    endpoint.serve(lambda: health, lambda health: b"")
    try:
        found = findings(settings)["service"]
    finally:
        endpoint.close()
    assert found.state == ("ok" if free else "warn") and "1 of 1 adapters" in found.found
    assert ("make room" in found.advice) is (not free)


def test_a_port_that_a_stranger_has(settings):
    host, number = settings.results.endpoint.removeprefix("tcp://").split(":")
    with socket.create_server((host, int(number))), socket.create_server((host, settings.http.port)) as silent:
        silent.listen()
        found = findings(settings)
        assert [found[f"port of {what}"].state for what in ("http", "results", "results' requests")] == [
            "fail", "fail", "ok"
        ]  # fmt: skip
        assert checkup.port("x", settings.results.endpoint, taken_by_us=True).state == "ok"
    assert checkup.port("x", "tcp://203.0.113.1:5570", taken_by_us=False).state == "fail", "not this machine's"


def test_a_store_that_cannot_be_written(settings, tmp_path):
    (tmp_path / "store").write_text("a file")
    found = findings(settings)["store"]
    assert found.state == "fail" and "cannot be written" in found.found


def test_a_store_in_use_and_one_of_a_newer_livestem(settings):
    with Store(settings.store_path):
        assert findings(settings)["catalogue"].state == "warn"
        (ours,) = (c for c in checkup.store_checks(settings, in_use_by_us=True) if c.name == "catalogue")
        assert ours.state == "ok" and "in use" in ours.found
    assert findings(settings)["catalogue"].state == "ok"
    db = sqlite3.connect(settings.store_path / "catalog.sqlite")
    db.execute("PRAGMA user_version=999")
    db.close()
    assert findings(settings)["catalogue"].state == "fail"
    (settings.store_path / "catalog.sqlite").write_bytes(b"nonsense" * 100)
    assert findings(settings)["catalogue"].state == "fail"


def test_a_full_disk_a_slow_one_and_a_clock_that_is_off(settings, monkeypatch):
    full = msgspec.structs.replace(settings, limits=Limits(free_disk_bytes=2**60))
    assert findings(full)["disk"].state == "fail"
    monkeypatch.setattr(checkup, "_write_sample", lambda folder: (2.0, -90.0))
    found = findings(settings)
    assert (found["store"].state, found["clock"].state) == ("warn", "warn") and "-90 s" in found["clock"].found


def test_what_is_not_installed_is_said_and_matters_only_where_it_is_needed(settings, monkeypatch):
    missing = {"torch", "hyperspy"}
    monkeypatch.setattr(checkup, "_installed", lambda name: name not in missing)
    found = findings(settings)
    assert (found["packages [service]"].state, found["packages [vgg16]"].state) == ("fail", "ok")
    assert 'pip install "livestem[service]"' in found["packages [service]"].advice
    published = msgspec.structs.replace(settings, processing=Processing(preset="as_published"))
    assert findings(published)["packages [vgg16]"].state == "fail"


def test_weights_that_are_needed_broken_or_neither(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("LIVESTEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LIVESTEM_WEIGHTS", raising=False)
    published = msgspec.structs.replace(settings, processing=Processing(preset="as_published"))
    assert (findings(settings)["weights"].state, findings(published)["weights"].state) == ("ok", "fail")
    (tmp_path / "w.safetensors").write_bytes(b"no")
    broken = {"weights": str(tmp_path / "w.safetensors")}
    assert findings(msgspec.structs.replace(settings, **broken))["weights"].state == "warn"
    assert findings(msgspec.structs.replace(published, **broken))["weights"].state == "fail"


def test_keys_that_are_missing_and_keys_that_others_can_read(settings, tmp_path, monkeypatch):
    monkeypatch.delenv("LIVESTEM_KEYS", raising=False)
    assert findings(settings)["keys"].state == "ok"
    opened = msgspec.structs.replace(settings, results=Endpoint("tcp://0.0.0.0:5570"))
    assert checkup.keys(opened).state == "fail"
    new_pair(tmp_path / "keys", "segmenter")
    opened = msgspec.structs.replace(opened, keys=str(tmp_path / "keys"))
    assert checkup.keys(opened).state == "ok"
    if os.name != "nt":
        (tmp_path / "keys" / "segmenter.key_secret").chmod(0o644)
        assert "chmod 600" in checkup.keys(opened).advice
    new_pair(tmp_path / "keys", "second")
    assert "several secret keys" in checkup.keys(opened).found


def test_a_machine_that_is_too_small(settings, monkeypatch):
    monkeypatch.setattr(machine, "_memory_limits", lambda: iter([("of the container", 2**30)]))
    monkeypatch.setattr(machine, "_soft_limit", lambda name: 256)
    found = findings(settings)
    assert "of the container" in found["memory"].found
    assert (found["memory"].state, found["file handles"].state) == ("warn", "warn")


def test_the_command_says_so_by_its_exit_code(settings, tmp_path, capsys):
    config = tmp_path / "c.toml"
    text = f'results = {{ endpoint = "{settings.results.endpoint}" }}\n[http]\nport = {settings.http.port}\n'
    config.write_text(text)
    arguments = ["doctor", "--config", str(config), "--store", str(tmp_path / "store")]
    assert not app([*arguments, "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert {check["name"] for check in told["checks"]} >= {"configuration", "store"} and "choice" not in told
    config.write_text(text + "nonsense = 1\n")
    assert app(arguments, standalone_mode=False) == 1
    out = capsys.readouterr().out
    assert "nonsense" in out and "A service can run here: not yet" in out and "Traceback" not in out


# --- tuning -------------------------------------------------------------------------------------------------


def row(device: str, precision: str, speed: float) -> Measured:
    return Measured(device, precision, 2, speed)


@pytest.mark.parametrize(
    ("rows", "choice"),
    [
        ((), Choice()),
        ((row("cpu", "fp32", 100), row("cpu", "bf16", 115)), Choice()),
        ((row("cpu", "fp32", 100), row("cpu", "bf16", 130)), Choice("cpu", "bf16")),
        ((row("cpu", "fp32", 100), row("cpu", "bf16", 30), row("cuda", "fp32", 9000)), Choice("cuda", "fp32")),
    ],
)
def test_the_default_gives_way_to_what_is_clearly_quicker(rows, choice):
    assert tuning.choose(rows) == choice


def test_what_was_chosen_is_taken_where_nobody_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVESTEM_CACHE", str(tmp_path / "cache"))
    assert Settings().encoder_runs_on() == ("cpu", "fp32")
    tuning.keep(tmp_path / "cache", Choice("cuda:1", "bf16"), (row("cpu", "fp32", 1.5),))
    assert tuning.stored(tmp_path / "cache") == Choice("cuda:1", "bf16")
    assert Settings().encoder_runs_on() == ("cuda:1", "bf16")
    assert Settings(device="cpu").encoder_runs_on() == ("cpu", "fp32")
    assert Settings(precision="fp32").encoder_runs_on() == ("cpu", "fp32")
    earlier = '[choice]\ndevice = "cuda"\n[[measured]]\nlive_chips_per_s = 2.0\n'
    (tmp_path / "cache" / tuning.FILE).write_text(earlier)
    assert Settings().encoder_runs_on() == ("cuda", "fp32")
    (tmp_path / "cache" / tuning.FILE).write_text("[choice]\ndevice = 1\n")
    with pytest.raises(UsageError, match=r"tuned\.toml cannot be used .*; delete it") as caught:
        Settings().encoder_runs_on()
    assert "\n" not in str(caught.value)


def test_measuring_measures(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(tuning, "_MEASURED_S", 0.0)
    monkeypatch.setattr(tuning, "_choices", lambda: iter([Choice()]))
    (found,) = tuning.measure()
    assert found.choice == Choice() and found.chips_per_s > 0
