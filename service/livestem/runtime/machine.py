"""What the doctor finds about the machine itself: its Python, its memory, its limits."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import Literal

State = Literal["ok", "warn", "fail"]

_HANDLES = 1024  # 64 subscribers with two sockets each, four journals with their logs, and room for as much again


@dataclass(frozen=True)
class Check:
    """One finding; `advice` says what to do, and is empty where nothing is."""

    name: str
    state: State
    found: str
    advice: str = ""


def python() -> Check:
    """The interpreter: `requires-python` of the package."""
    wanted = (metadata("livestem")["Requires-Python"] or "").removeprefix(">=") or "3.11"
    found = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"
    if sys.version_info < tuple(map(int, wanted.split("."))):
        return Check("python", "fail", found, f"install Python {wanted} or newer")
    return Check("python", "ok", found)


def memory(scan_bytes: int) -> Check:
    """What this process may take, beside what the largest scan may (`scan_bytes`)."""
    limits = dict(_memory_limits())
    if not limits:
        return Check("memory", "ok", "not known on this system")
    what, least = min(limits.items(), key=lambda item: item[1])
    words = f"{least / 2**30:.1f} GiB ({what}); the largest scan may take {scan_bytes / 2**30:.1f}"
    if least < scan_bytes:
        todo = "lower limits.finals_bytes and accumulator_bytes: a scan is then refused that does not fit"
        return Check("memory", "warn", words, todo)
    return Check("memory", "ok", words)


def _memory_limits() -> Iterator[tuple[str, int]]:
    """Yield what bounds this process's memory, bytes."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield "of the machine", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup/memory.max")
    if group.is_file() and (text := group.read_text().strip()).isdigit():
        yield "of the container", int(text)
    most = _soft_limit("RLIMIT_AS")
    if most is not None:
        yield "ulimit -v", most


def handles() -> Check:
    """Open files and sockets that this process may have."""
    most = _soft_limit("RLIMIT_NOFILE")
    if most is None:
        return Check("file handles", "ok", "no limit known")
    if most < _HANDLES:
        return Check("file handles", "warn", f"{most}", f"ulimit -n {_HANDLES}: every subscriber takes two")
    return Check("file handles", "ok", f"{most}")


def _soft_limit(name: str) -> int | None:
    """Return a limit of this process, None where there is none or the system has no such thing."""
    if sys.platform == "win32":
        return None
    import resource

    soft: int = resource.getrlimit(getattr(resource, name))[0]
    return None if soft == resource.RLIM_INFINITY else soft
