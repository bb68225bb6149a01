"""What `livestem doctor` looks at: whether this machine can run a service, and what to do where it cannot.

Rules
-----
* Nothing is changed: a store that is not there stays so, a port that is tried is free again, a running service is
  asked and not disturbed.
* A check that fails says what to do. ``fail``: a service would not start, or would lose what it is for; ``warn``: it
  runs, and somebody should know; ``ok`` else. What is missing and not needed is ``ok``.
* No check needs more than the base install: a missing extra is a finding and no crash.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import sqlite3
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import zmq

from livestem.client.endpoints import refuse_open_bind
from livestem.client.keys import SECRET, read_allowed
from livestem.domain.errors import LivestemError, StoreError, UsageError
from livestem.domain.parameters import PRESETS
from livestem.runtime import machine, store, weights
from livestem.runtime.machine import Check
from livestem.runtime.settings import Settings

_ASK_S = 3.0  # a service answers in a millisecond
_SLOW_S = 0.5  # a commit is due every 20 ms; a disk that takes so long for one holds acknowledgements up
_SAMPLE_BYTES = 4 * 2**20  # a commit is at most so large
_SKEW_S = 2.0  # FAT keeps times to two seconds; more is another clock
_MADE = 1_767_225_600  # 2026-01-01: a clock before livestem was written is not set


def examine(settings: Settings) -> Iterator[Check]:
    """Yield every finding about this machine and a configuration, in the order that they are best mended."""
    yield machine.python()
    yield from packages(settings)
    service = ask(settings.http.host, settings.http.port)
    yield running(settings, service)
    for what, endpoint in (("results", settings.results.endpoint), ("results' requests", settings.results.talk)):
        yield port(what, endpoint, taken_by_us=service is not None)
    yield from store_checks(settings, in_use_by_us=service is not None)
    yield keys(settings)
    yield weights_check(settings)
    yield device(settings)
    limits = settings.limits
    yield machine.memory(2 * limits.accumulator_bytes + limits.finals_bytes)  # docs/configuration.md#memory
    yield machine.handles()
    yield Check("ipc", "ok", "ipc:// can be used" if zmq.has("ipc") else "no ipc:// here; tcp:// does everything")


def packages(settings: Settings) -> Iterator[Check]:
    """Yield what is installed of each extra that a service can use."""
    needed = ["service"] + (["vgg16"] if _needs_vgg16(settings) else [])
    for extra in ("service", "vgg16"):
        missing = [name for name in _requirements(extra) if not _installed(name)]
        if not missing:
            yield Check(f"packages [{extra}]", "ok", f"livestem {version('livestem')}: all there")
        elif extra in needed:
            todo = f'pip install "livestem[{extra}]"'
            yield Check(f"packages [{extra}]", "fail", f"missing: {', '.join(missing)}", todo)
        else:
            yield Check(f"packages [{extra}]", "ok", f"not there: {', '.join(missing)}; this preset does not need them")


def _needs_vgg16(settings: Settings) -> bool:
    return PRESETS[settings.processing.preset or "default"].encoder != "lattice"


def _requirements(extra: str) -> list[str]:
    """Return the names of an extra's packages; the base install's have brought us here."""
    stated = requires("livestem") or []
    return [re.split(r"[^\w.-]", line)[0] for line in stated if re.search(rf"extra == ['\"]{extra}['\"]", line)]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def ask(host: str, number: int) -> dict[str, Any] | None:
    """Return what the service at an HTTP port says of its health; None if there is no livestem."""
    try:
        with urllib.request.urlopen(f"http://{host}:{number}/health", timeout=_ASK_S) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            try:
                found = json.load(error)
            except ValueError:
                return None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "status" in found and "adapters" in found else None


def running(settings: Settings, service: dict[str, Any] | None) -> Check:
    """The HTTP port: free, or a service's whose health is told."""
    at = f"http://{settings.http.host}:{settings.http.port}"
    if service is None:
        return port("http", f"tcp://{settings.http.host}:{settings.http.port}", taken_by_us=False)
    adapters = service["adapters"]
    words = f"a service runs at {at}, {adapters['attached']} of {adapters['configured']} adapters attached"
    if service["status"] == "ok":
        return Check("service", "ok", words)
    return Check("service", "warn", f"{words}: degraded", "; ".join(service["reasons"].values()))


def port(what: str, endpoint: str, *, taken_by_us: bool) -> Check:
    """A place to bind to: free, or who has it."""
    name = f"port of {what}"
    if not endpoint.startswith("tcp://"):
        return Check(name, "ok", f"{endpoint} is a path")
    host, _, number = endpoint.removeprefix("tcp://").rpartition(":")
    host = host.strip("[]").replace("*", "0.0.0.0")
    try:
        with socket.create_server((host, int(number)), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return Check(name, "ok", f"{endpoint} is free")
    except OSError as e:
        if e.errno != errno.EADDRINUSE:
            return Check(name, "fail", f"{endpoint}: {e.strerror or e}", "configure an address of this machine")
        if taken_by_us:
            return Check(name, "ok", f"{endpoint} is in use while a service runs")
        return Check(name, "fail", f"{endpoint} is in use", "stop the program that has it, or configure another port")


def store_checks(settings: Settings, *, in_use_by_us: bool) -> Iterator[Check]:
    """Yield what is to be said of the store: written to, large enough, of a format we read, in use."""
    root = settings.store_path
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    try:
        took, skew = _write_sample(there)
    except OSError as e:
        todo = "make it writable for this user, or configure another store"
        yield Check("store", "fail", f"{there} cannot be written: {e.strerror or e}", todo)
        return
    what = str(root) if root.exists() else f"{root} will be made in {there}"
    slow = took > _SLOW_S
    words = f"{what}; {_SAMPLE_BYTES // 2**20} MiB are safe on it in {1000 * took:.0f} ms"
    yield Check("store", "warn" if slow else "ok", words, "use a quicker, local disk" if slow else "")
    free, wanted = shutil.disk_usage(there).free, settings.limits.free_disk_bytes
    room = f"{free / 1e9:.1f} GB free, scans are refused below {wanted / 1e9:.1f} GB"
    yield Check("disk", "ok" if free >= wanted else "fail", room, "" if free >= wanted else "make room")
    yield from _catalogue(root, in_use_by_us)
    now = time.time()
    if now < _MADE or abs(skew) > _SKEW_S:
        words = f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC; the store's disk is {skew:+.0f} s from it"
        yield Check("clock", "warn", words, "set the clock, and have it kept (NTP): names and logs carry its times")
    else:
        yield Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)))


def _write_sample(folder: Path) -> tuple[float, float]:
    """Write a commit's worth and take it away again; return how long it took, and by how much its time is off, s."""
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        file.write(bytes(_SAMPLE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        took = time.perf_counter() - began
        return took, os.fstat(file.fileno()).st_mtime - time.time()


def _catalogue(root: Path, in_use_by_us: bool) -> Iterator[Check]:
    path = root / store.CATALOG
    if not path.is_file():
        return
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            found = store.check_catalogue(db, root)
        finally:
            db.close()
    except sqlite3.Error as e:
        yield Check("catalogue", "fail", f"{path}: {e}", "bring back the copy you have of it")
        return
    except StoreError as e:
        found_out, _, todo = str(e).rpartition("; ")  # each of our errors ends with what to do
        yield Check("catalogue", "fail", found_out, todo)
        return
    used = store.is_in_use(root)
    older = f", to become {store.FORMAT} at the next start" if found < store.FORMAT else ""
    words = f"format {found}{older}{', in use' if used else ''}"
    stranger = used and not in_use_by_us
    todo = "another livestem has this store; stop it, or configure another" if stranger else ""
    yield Check("catalogue", "warn" if stranger else "ok", words, todo)


def keys(settings: Settings) -> Check:
    """Our keys and whom they let in, where sockets leave this machine or somebody has configured some."""
    try:
        own = settings.own_keys()
        if own is None:
            refuse_open_bind(settings.results.endpoint)
            return Check("keys", "ok", "none: every socket stays on this machine")
    except UsageError as e:
        return Check("keys", "fail", str(e), "see docs/security.md")
    allowed, wrong = read_allowed(own.folder)
    words = f"{own.name} in {own.folder}, {len(allowed)} let in"
    secret = own.folder / f"{own.name}{SECRET}"
    if os.name != "nt" and secret.stat().st_mode & 0o077:
        wrong.append(f"others can read {secret}: chmod 600 it")
    return Check("keys", "warn" if wrong else "ok", words, "; ".join(wrong))


def weights_check(settings: Settings) -> Check:
    """The weights of VGG16, where the preset needs them."""
    needed = _needs_vgg16(settings)
    for place in weights.status(None if settings.weights is None else Path(settings.weights)):
        if place.state == "ready":
            return Check("weights", "ok", f"{place.where}, {place.detail}")
        if place.state == "broken":
            return Check("weights", "fail" if needed else "warn", place.detail, "livestem weights fetch")
    if needed:
        return Check("weights", "fail", "none here", "livestem weights fetch, or import FILE without a network")
    return Check("weights", "ok", "none here; this preset does not need them")


def device(settings: Settings) -> Check:
    """Where VGG16 runs: whether torch is there and has the device."""
    wanted, precision = settings.encoder_runs_on()
    if not _installed("torch"):
        return Check("device", "ok", "no torch here; only as_published and graphem need it")
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    words = f"{wanted}, {precision}; torch {torch.__version__}, {', '.join(gpus) or 'no GPU'}"
    number = int(wanted.partition(":")[2] or 0)
    if wanted.startswith("cuda") and number >= len(gpus):
        return Check("device", "fail", words, 'configure device = "cpu", or install torch for this GPU')
    return Check("device", "ok", words)


def configured(load: Callable[[], Settings]) -> tuple[Settings, Check]:
    """Load a configuration; the defaults stand in for one that cannot be used."""
    try:
        settings = load()
    except LivestemError as e:
        return Settings(), Check("configuration", "fail", str(e), "correct it; the rest is about the defaults")
    return settings, Check("configuration", "ok", "can be used")
