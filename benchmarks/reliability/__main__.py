"""``python -m benchmarks.reliability``: whatever happens, the same digest, or the word on what is missing.

Each part leaves its results as JSON in --out, so that a run can be made in pieces; the page is written from them.
The exit code is 1 if anything was lost silently, differed, or leaked.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run what is asked for."""
    asked = _parser().parse_args()
    parts = asked.part or ["cases", "matrix", "kills"]
    asked.out.mkdir(parents=True, exist_ok=True)
    failed = [part for part in parts if part != "page" and not _PARTS[part](asked)]
    if "page" in parts:
        from benchmarks.reliability.page import rewrite

        print(f"{asked.page}: {', '.join(rewrite(asked.page, asked.out))}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _cases(asked: argparse.Namespace) -> bool:
    from benchmarks.reliability.drawn import run_cases

    began = time.perf_counter()
    tally = run_cases(asked.cases, asked.seed)
    command = f"python -m benchmarks.reliability cases --cases {asked.cases} --seed {asked.seed}"
    _write(asked, "cases", began, command=command, all=tally.all, by_fault=tally.by_fault)
    print(f"{tally.all.cases} cases: {tally.all.whole} scans whole, {tally.all.told} told, {tally.all.silent} silent")
    return not tally.all.silent


def _matrix(asked: argparse.Namespace) -> bool:
    from benchmarks.reliability.matrix import every_case, run_matrix, some_cases

    cases = some_cases() if asked.quick else list(every_case())
    command = f"python -m benchmarks.reliability matrix{' --quick' if asked.quick else ''}"
    return _real(asked, "matrix", command, lambda folder, told: run_matrix(cases, folder, told))


def _kills(asked: argparse.Namespace) -> bool:
    from benchmarks.reliability.kills import run_kills

    command = f"python -m benchmarks.reliability kills --kills {asked.kills} --seed {asked.seed}"
    return _real(asked, "kills", command, lambda folder, told: run_kills(asked.kills, folder, asked.seed, told))


def _real(
    asked: argparse.Namespace, part: str, command: str, run: Callable[[Path, Callable[[Any], None]], object]
) -> bool:
    """Run a part with real processes, and write each outcome as it comes."""
    began = time.perf_counter()
    outcomes: list[Any] = []

    def told(outcome: Any) -> None:
        _say(outcome)
        outcomes.append(outcome)
        _write(asked, part, began, command=command, outcomes=outcomes)

    with tempfile.TemporaryDirectory(prefix=f"livestem-{part}-") as folder:
        run(Path(folder), told)
    return not any(outcome.wrong for outcome in outcomes)


def _soak(asked: argparse.Namespace) -> bool:
    from benchmarks.reliability.page import soak as table
    from benchmarks.reliability.soak import soak

    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="livestem-soak-") as folder:
        found = soak(asked.soak, Path(folder), asked.seed, told=_note)
    command = f"python -m benchmarks.reliability soak --soak {asked.soak:g}"
    _write(asked, "soak", began, command=command, soak=found)
    print(table(json.loads((asked.out / "soak.json").read_bytes())))
    for line in (*found.wrong, *found.leaks):
        print(line, file=sys.stderr)
    return not found.wrong and not found.leaks


_PARTS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "cases": _cases,
    "matrix": _matrix,
    "kills": _kills,
    "soak": _soak,
}


def _write(asked: argparse.Namespace, part: str, began: float, **found: Any) -> None:
    """Write what is there so far: a run that is broken off has its results up to then."""
    found["took_s"] = round(time.perf_counter() - began, 1)
    found["machine"] = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    (asked.out / f"{part}.json").write_bytes(msgspec.json.encode(found))


def _say(outcome: Any) -> None:
    """Tell of one outcome: thinly, unless something is wrong."""
    what = outcome.case if hasattr(outcome, "case") else outcome.kill
    _note(f"{what}: {outcome.status}, {outcome.took_s:.1f} s" + "".join(f"\n  WRONG: {w}" for w in outcome.wrong))


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="*", choices=[*_PARTS, "page", []], help="by default cases, matrix and kills")
    parser.add_argument("--cases", type=int, default=10_000, help="cases without sockets (default 10000)")
    parser.add_argument("--kills", type=int, default=100, help="kills of real processes (default 100)")
    parser.add_argument("--soak", type=float, default=3600.0, help="seconds of the soak (default 3600)")
    parser.add_argument("--quick", action="store_true", help="a small part of the matrix")
    parser.add_argument("--seed", type=int, default=1, help="draws the cases and the moments of the kills (default 1)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "reliability", help="results, one file each part")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "reliability.md", help="its tables are rewritten")
    return parser


if __name__ == "__main__":
    sys.exit(main())
