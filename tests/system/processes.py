"""Real livestem processes for the system tests: started on free loopback ports, ended by their own pid.

Nothing here imports the service: what a test learns, it learns as a user does, from exit codes, stdout, stderr,
files, sockets and HTTP.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ports import free_pairs

CLI = (sys.executable, "-m", "livestem.cli")
START_S = 60.0  # a service imports the science in two seconds; a busy machine of two cores takes ten times that
RUN_S = 120.0  # one command, to its end; the slowest here needs a tenth of it


def environment(**more: str) -> dict[str, str]:
    """Return a new user's environment: no store, no weights, no terminal, nothing of this machine's configuration."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LIVESTEM_") or k == "LIVESTEM_CACHE"}  # conftest's
    return kept | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200", "NO_COLOR": "1"} | more


def run(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = RUN_S
) -> subprocess.CompletedProcess[str]:
    """Run a livestem command to its end."""
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def start(
    *arguments: object,
    cwd: Path | None = None,
    stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.PIPE,
    within: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start a livestem command, perhaps within another that becomes it; the caller ends it."""
    return subprocess.Popen(
        [*within, *CLI, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=stdout,
        stderr=stderr,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
    )


def end(process: subprocess.Popen[str], with_signal: int = signal.SIGTERM, timeout: float = 30.0) -> int:
    """End a process that a test started, by its own pid; return its exit code."""
    if process.poll() is None:
        process.send_signal(with_signal)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout)
        raise
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def wait_for(
    what: Callable[[], Any],
    timeout: float = START_S,
    otherwise: str = "it did not happen in time",
    pause: float = 0.05,
) -> Any:
    """Return what `what` returns once that is true; it is asked every `pause` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(pause)
    return found


class Service:
    """A running ``livestem serve`` with its own store and ports.

    Parameters
    ----------
    folder : where its store and its log go
    *flags : further flags of ``serve``
    within : a command that becomes ``serve``
    after : an earlier one that has ended, whose store and ports it takes over
    """

    def __init__(
        self,
        folder: Path,
        *flags: object,
        store: Path | None = None,
        within: Sequence[str] = (),
        after: Service | None = None,
    ) -> None:
        self.folder, self.store = folder, store or folder / "store"
        folder.mkdir(parents=True, exist_ok=True)
        if after is not None:
            self.store, self.acquisition, self.results, self.http = (
                after.store, after.acquisition, after.results, after.http
            )  # fmt: skip
        else:
            data, results, self.http = free_pairs(3)
            self.acquisition, self.results = f"tcp://127.0.0.1:{data}", f"tcp://127.0.0.1:{results}"
        self.log = folder / "serve.log"
        self._flags, self._within = flags, within
        self.restart()

    def restart(self) -> None:
        """Start it (again, once it has been killed): the same command, the same store, the same ports."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it as `restart`, and do not wait until it is well."""
        with self.log.open("a", encoding="utf-8") as log:
            self.process = start(
                "serve",
                *("--store", self.store, "--acquisition", self.acquisition, "--results", self.results),
                *("--http-port", self.http),
                *self._flags,
                stdout=log,
                stderr=subprocess.STDOUT,
                within=self._within,
            )

    def wait_ready(self) -> None:
        """Return once it answers; what does not is ended."""
        try:
            wait_for(self._answers, otherwise=f"no /health within {START_S:g} s: {self.log.read_text('utf-8')}")
        except BaseException:
            end(self.process, signal.SIGKILL)
            raise

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self.process)

    def replay(self, *arguments: object, timeout: float = RUN_S) -> subprocess.CompletedProcess[str]:
        """Replay to this service, to the end of sending."""
        return run("replay", *arguments, "--acquisition", self.acquisition, "--wait", 20, timeout=timeout)

    def replay_fully(self, *arguments: object) -> Path:
        """Replay to this service; return the result folder once it is complete."""
        done = self.replay(*arguments)
        assert done.returncode == 0, done.stderr
        sent = re.search(r"^sent (\S+)/(\S+):", done.stdout, re.MULTILINE)
        assert sent is not None, done.stdout
        return self.finished(sent[1], sent[2])

    def finished(self, session: str, scan_id: str) -> Path:
        """Return a scan's folder once its result is there."""
        folder = self.store / session / scan_id
        wait_for((folder / "result.json").is_file, otherwise=f"no result of {session}/{scan_id}: {self.words()}")
        wait_for(self._settled, otherwise="the service did not come to rest")
        return folder

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status code and the content of /health."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/health", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric, summed over the labels that are not given; 0 if it has not been counted yet."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{k}="{v}"' in (found[1] or "") for k, v in labels.items()):
                total += float(found[2])
        return total

    def words(self) -> str:
        """Return what the service has said so far."""
        return self.log.read_text("utf-8")

    def assert_well(self) -> None:
        """Alive, healthy, and without a traceback in its log."""
        assert self.process.poll() is None, self.words()
        code, state = self.health()
        assert (code, state["status"]) == (200, "ok"), state
        assert "Traceback" not in self.words()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.words()
        try:
            return self.health()[0] == 200
        except (OSError, ValueError):
            return False

    def _settled(self) -> bool:
        state = self.health()[1]
        return state["open_scans"] == 0 and state["finals_waiting"] == 0 and self.metric("livestem_open_scans") == 0


class Listener:
    """A running ``livestem listen --json`` whose lines go to a file."""

    def __init__(self, service: Service, path: Path, *flags: object) -> None:
        self.path = path
        with path.open("w", encoding="utf-8") as out:
            self.process = start("listen", "--json", "--results", service.results, *flags, stdout=out)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self.process)

    def lines(self) -> list[dict[str, Any]]:
        """Return the whole messages heard so far."""
        text = self.path.read_text("utf-8")
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def until_done(self, scans: int = 1) -> list[dict[str, Any]]:
        """Return the messages once so many scans are done."""

        def done() -> bool:
            return sum(line["type"] == "scan_done" for line in self.lines()) >= scans

        wait_for(done, otherwise="no scan_done was heard")
        return self.lines()


def own_lines(stderr: str) -> list[str]:
    """Return what livestem says on stderr when it gives up: without warnings about data, without progress."""
    return [line for line in stderr.splitlines() if line.strip() and not line.startswith(("warning: ", "rec-"))]


def assert_one_clear_line(done: subprocess.CompletedProcess[str], *words: str, codes: tuple[int, ...] = (1, 2)) -> None:
    """A user's mistake: exit code 1 or 2, one line that names it and says what to do, no traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in codes, (done.returncode, done.stdout, done.stderr)
    lines = own_lines(done.stderr)
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("livestem: ")
    assert len(lines[0]) < 400  # a line that a person reads, not a dump
    for word in words:
        assert word.casefold() in lines[0].casefold(), lines[0]


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder."""
    return (p for p in folder.rglob("*") if p.is_file())
