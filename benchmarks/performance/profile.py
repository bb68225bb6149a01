"""Where the time of one live scan goes, from its first tile to its last final: py-spy on a service at work.

The scan is that of `live_latency`, 34 x 34 chips at the instrument's pace. py-spy reads the stacks of the service's
threads from outside; the service runs on. Seconds are of one core: samples over their rate.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.performance.live_latency import play
from benchmarks.performance.rest import at_rest
from benchmarks.performance.samples import Place, by_place
from benchmarks.performance.table import Cell, Table
from benchmarks.reliability.processes import Service

from livestem.domain.errors import LivestemError

NAME = "profile"
PLAYED_S, QUICK_S = 30.0, 2.0
RATE = 100  # samples a second
CHIP_PX = 15  # 34 x 34 chips
MOST = 20  # rows; the rest is one
_BEGIN_S, _END_S = 1.0, 60.0  # py-spy has said by then that it may not; it has written by then what it has


class UnprofiledError(LivestemError):
    """There is no py-spy here, or it may not read other processes."""


def measure(runs: int, quick: bool) -> Table:
    """Play one scan, however many runs are asked for: a profile has no median."""
    with tempfile.TemporaryDirectory() as folder:
        raw, cpu_s = Path(folder) / "samples", [0.0]

        @contextmanager
        def sampled(service: Service) -> Iterator[None]:
            before = at_rest(service)
            with recorded(service.process.pid, raw):
                yield
                cpu_s[0] = service.metric("process_cpu_seconds_total") - before

        played_s = QUICK_S if quick else PLAYED_S
        play(played_s, CHIP_PX, beside=sampled)
        found = by_place(raw.read_text("utf-8").splitlines())
    return table(found, cpu_s[0], played_s)


@contextmanager
def recorded(pid: int, raw: Path) -> Iterator[None]:
    """Record the stacks of a process's threads.

    Parameters
    ----------
    pid : of the process
    raw : where folded stacks are written, in the end

    Raises
    ------
    UnprofiledError
        With what to do.
    """
    program = shutil.which("py-spy") or shutil.which("py-spy", path=sysconfig.get_path("scripts"))
    if program is None:
        raise UnprofiledError("py-spy is not installed: pip install py-spy")
    command = [program, "record", "--nonblocking", "--format", "raw", "--threads", "--rate", str(RATE)]
    command += ["--duration", "3600", "--output", str(raw), "--pid", str(pid)]
    said = raw.with_name(f"{raw.name}.said")
    with said.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_BEGIN_S)
            raise UnprofiledError(_refused(said))
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # it writes what it has
        process.wait(_END_S)
    if not raw.is_file() or not raw.stat().st_size:
        raise UnprofiledError(_refused(said))


def _refused(said: Path) -> str:
    last = said.read_text("utf-8", "replace").strip().splitlines()[-1:]
    return f"py-spy could not read the service; run as root, or allow ptrace: {' '.join(last)}"


def table(found: Mapping[Place, int], cpu_s: float, played_s: float) -> Table:
    """Return where the samples were.

    Parameters
    ----------
    found : samples by place
    cpu_s : processor seconds of the service meanwhile, by its own metric
    played_s : how long the beam was on
    """
    total = sum(found.values())
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    rows: list[tuple[Cell, ...]] = [
        (f"`{place.function}`", f"{100 * count / total:.1f} %", count / RATE, place.thread)
        for place, count in ordered[:MOST]
    ]
    rest = sum(count for _, count in ordered[MOST:])
    if rest:
        rows.append((f"{len(ordered) - MOST} others", f"{100 * rest / total:.1f} %", rest / RATE, None))
    threads = Counter[str]()
    for place, count in found.items():
        threads[place.thread] += count
    told = ", ".join(f"{name} {count / RATE:.1f} s" for name, count in threads.most_common())
    return Table(
        name=NAME,
        title="Where the time goes",
        command=f"python -m benchmarks.performance {NAME}",
        columns=("function", "of all", "s of a core", "thread"),
        rows=tuple(rows),
        runs=1,
        notes=(
            f"The beam was on for {played_s:.0f} s. By thread: {told}.",
            f"All samples: {total / RATE:.1f} s; the service's own processor time meanwhile: {cpu_s:.1f} s.",
        ),
        facts={"samples": {f"{p.thread}: {p.function}": n for p, n in ordered}, "cpu_s": cpu_s},
    )
