"""``python -m benchmarks.performance``: how fast livestem is, beside what one would do instead.

Each benchmark is a module of this package that has ``NAME`` and ``measure(runs, quick) -> Table``. It runs in a process
of its own, so that none warms or burdens another, and leaves a JSON file in --out; ``page`` writes docs/performance.md
from these files. ``--quick`` is for seeing that everything runs: small, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from benchmarks.performance.table import Table, machine

from livestem.domain.errors import LivestemError

ROOT = Path(__file__).parents[2]
BENCHMARKS: tuple[str, ...] = (
    "finalise",
    "live_latency",
    "ingest",
    "embedding",
    "quantification",
    "subscribers",
    "profile",
    "start_up",
    "clustering",
    "scale",
)
RUNS = 5  # the least of which a median tells anything


def main() -> int:
    """Run what is asked for."""
    asked = _parser().parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    wanted = asked.benchmark or [*BENCHMARKS]
    if asked.alone:
        try:
            _measure(wanted[0], asked)
        except LivestemError as e:
            print(e, file=sys.stderr)
            return 1
        return 0
    failed = []
    for name in [name for name in wanted if name != "page"]:
        print(f"== {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.performance", name, "--alone", *_again(asked)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    if "page" in wanted:
        from benchmarks.performance.page import rewrite

        print(f"{asked.page}: {', '.join(rewrite(asked.page, asked.out))}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _measure(name: str, asked: argparse.Namespace) -> None:
    began = time.perf_counter()
    found: Table = importlib.import_module(f"benchmarks.performance.{name}").measure(asked.runs, asked.quick)
    table = msgspec.structs.replace(
        found, took_s=time.perf_counter() - began, machine=machine(), runs=found.runs or asked.runs
    )
    (asked.out / f"{name}.json").write_bytes(msgspec.json.encode(table))
    print(f"\n{table.title}\n\n{table.markdown()}\n")


def _again(asked: argparse.Namespace) -> list[str]:
    return ["--runs", str(asked.runs), "--out", str(asked.out), *(["--quick"] if asked.quick else [])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.performance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benchmark", nargs="*", choices=[*BENCHMARKS, "page", []], help="by default all of them")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of which medians are taken (default {RUNS})")
    parser.add_argument("--quick", action="store_true", help="small: only to see that everything runs")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "performance", help="results, one file each")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md", help="its tables are rewritten")
    return parser


if __name__ == "__main__":
    sys.exit(main())
