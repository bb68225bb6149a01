"""The command: sweep, write results as they come, rewrite the tables and the picture of the documentation."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from livestem.domain.errors import LivestemError, UsageError
from livestem.domain.parameters import PRESETS
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Encoder

from . import __doc__ as about
from . import plan, tables
from .sweep import Done, Remembering, Row, keys_of, rows_of

ROOT = Path(__file__).parents[2]
_FAILED, _USAGE = 1, 2  # exit codes: a scan failed; wrongly called


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    asked = _parser().parse_args(arguments)
    asked.results = asked.results or Path("build", "accuracy-quick.jsonl" if asked.quick else "accuracy.jsonl")
    warnings.filterwarnings("ignore", module=r"hyperspy\.|exspy\.|rsciio\.")  # they warn of their own future
    try:
        return _quick(asked) if asked.quick else _full(asked)
    except LivestemError as e:
        print(e, file=sys.stderr)
        return _USAGE


def _quick(asked: argparse.Namespace) -> int:
    scans = list(plan.quick())
    rows, failed = _sweep(scans, None, asked)
    print(tables.everything(planned(rows, scans), plan.QUICK))
    return _FAILED if failed else 0


def _full(asked: argparse.Namespace) -> int:
    from .curves import draw

    if asked.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {asked.seeds}")
    tables.around(asked.page)  # half an hour before it is written
    encoder = _encoder(asked.weights)
    published = plan.PUBLISHED if encoder is not None else ()
    rows, failed = _sweep(list(plan.full(asked.seeds, published)), encoder, asked)
    rows = planned(rows, plan.full(asked.seeds, plan.PUBLISHED))  # those of an earlier run with weights, too
    tables.splice(asked.page, tables.everything(rows, plan.MAIN))
    draw(rows, asked.page.parent / "images" / "accuracy.png")
    return _FAILED if failed else 0


def _sweep(scans: Sequence[plan.Scan], encoder: Encoder | None, asked: argparse.Namespace) -> tuple[list[Row], int]:
    """Run what the results file lacks, and add it there; return all its rows, and how many scans failed."""
    rows = read(asked.results) if asked.resume else []
    done = {(row.key, row.origin) for row in rows}
    began, failed = time.perf_counter(), 0
    with _results(asked.results, asked.resume) as file:
        for i, scan in enumerate(scans):
            say = f"[{i + 1}/{len(scans)}] {scan.sample} seed {scan.seed} {scan.series}"
            try:
                for finals in rows_of(scan, encoder, done):
                    file.write(msgspec.json.encode(finals) + b"\n")
                    file.flush()
                    rows += finals
            except LivestemError as e:
                failed += 1
                print(f"{say}: {e}", file=sys.stderr)
                continue
            print(f"{say}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return rows, failed


def planned(rows: Sequence[Row], scans: Iterable[plan.Scan]) -> list[Row]:
    """Return the rows that these scans would give: none of other seeds, older specimens or simulators."""
    keys: set[Done] = set()
    for scan in scans:
        with suppress(LivestemError):  # a specimen that cannot be read has no rows; the sweep has said why
            keys |= keys_of(scan)
    return [row for row in rows if (row.key, row.origin) in keys]


def read(path: Path) -> list[Row]:
    """Read a results file, one line for each finals; [] if there is none. A last line that was cut off is removed.

    Raises
    ------
    UsageError
        If it holds something else.
    """
    if not path.is_file():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    try:
        rows = [row for line in whole.splitlines() for row in msgspec.json.decode(line, type=list[Row])]
    except msgspec.DecodeError as e:
        raise UsageError(f"{path} holds no rows of this benchmark ({e}); leave --resume out to begin anew") from e
    if whole != text:
        path.write_bytes(whole)
    return rows


def _results(path: Path, resume: bool) -> BinaryIO:
    """Open the results file, new or to go on with."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab" if resume else "wb")
    except OSError as e:
        raise UsageError(f"{path} cannot be written: {e.strerror or e}; choose another --results") from e


def _encoder(weights: Path | None) -> Encoder | None:
    """Return VGG16; without weights None, and a line that says what is left out and how to have it."""
    try:
        found = Encoders(weights).of(PRESETS[plan.PUBLISHED[0]])
    except LivestemError as e:
        if weights is not None:
            raise
        print(f"left out, {' and '.join(plan.PUBLISHED)}: {e}", file=sys.stderr)
        return None
    assert found is not None
    return Remembering(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one small scan, default preset, under a minute")
    parser.add_argument("--weights", type=Path, help="VGG16 weights, if not where livestem looks for them")
    parser.add_argument("--seeds", type=int, default=plan.SEEDS, help=f"seeds 0, 1, ... (default {plan.SEEDS})")
    parser.add_argument("--results", type=Path, help="rows; by default build/accuracy.jsonl, or accuracy-quick.jsonl")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "accuracy.md", help="its tables are rewritten")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped; methods are the same")
    return parser


if __name__ == "__main__":
    sys.exit(main())
