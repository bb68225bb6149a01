"""Start-up: until a command answers, until the service is ready, and what both hold in memory at rest.

Beside a bare Python, and beside what a script of the field imports first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from benchmarks.performance.table import Cell, Table, Timed, timed
from benchmarks.reliability.processes import Service, wait_for

NAME = "start_up"
_PYTHON = (sys.executable, "-c")
_COMMANDS = {
    "python -c pass": (*_PYTHON, "pass"),
    "import livestem.client": (*_PYTHON, "import livestem.client"),
    "livestem --help": (sys.executable, "-m", "livestem.cli", "--help"),
    "import hyperspy.api": (*_PYTHON, "import hyperspy.api"),
}
_BARE = next(iter(_COMMANDS))
_READY = "livestem serve, until ready"
_WAIT_S = 120.0


def measure(runs: int, quick: bool) -> Table:
    """Start everything in turn, `runs` times."""
    commands = {name: command for name, command in _COMMANDS.items() if not quick or "hyperspy" not in name}
    memory: dict[str, list[float]] = {}
    works: dict[str, Callable[[], object]] = {name: partial(_run, command) for name, command in commands.items()}
    works[_READY] = partial(_serve, memory.setdefault(_READY, []))
    found = timed(works, runs, warm=0 if quick else 1)
    for name, command in commands.items():
        if command[1] == "-c":
            memory[name] = [_memory_mib(command)]
    return Table(
        name=NAME,
        title="Start-up",
        command=f"python -m benchmarks.performance {NAME}",
        columns=("what", "times a bare Python", "seconds", "spread, s", "memory at rest, MiB"),
        rows=tuple(_row(name, times, found[_BARE], memory.get(name)) for name, times in found.items()),
        notes=("Memory is the resident set; of the service, when it is ready and nothing has come yet.",),
    )


def _row(name: str, times: Timed, bare: Timed, memory: list[float] | None) -> tuple[Cell, ...]:
    held = None if not memory else sorted(memory)[len(memory) // 2]
    return name, times.median / bare.median, times.median, times.spread, held


def _run(command: tuple[str, ...]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _memory_mib(command: tuple[str, ...]) -> float:
    """Return the resident set of a Python that has done that, and waits."""
    waiting = (*command[:2], f"{command[2]}\nimport os, psutil\nprint(psutil.Process(os.getpid()).memory_info().rss)")
    told = subprocess.run(waiting, check=True, stdout=subprocess.PIPE, env=os.environ)
    return int(told.stdout) / 2**20


def _serve(memory: list[float]) -> None:
    """Start a service, wait until it is ready, note its memory, end it."""
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        wait_for(lambda: _is_ready(service.http), _WAIT_S, "the service was not ready in time", pause=0.02)
        memory.append(psutil.Process(service.process.pid).memory_info().rss / 2**20)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        time.sleep(0.02)
        return False
