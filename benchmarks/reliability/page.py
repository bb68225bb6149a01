"""The tables of docs/reliability.md, from what the runs left in a folder: one JSON file each."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
from benchmarks.reliability.soak import HANDLES, THREADS, WARM, Soak

MARKS = {part: (f"<!-- {part} begin -->", f"<!-- {part} end -->") for part in ("cases", "matrix", "kills", "soak")}


def rewrite(page: Path, results: Path) -> list[str]:
    """Put the tables of all runs that `results` holds into the page; return the parts that were rewritten."""
    text, done = page.read_text(encoding="utf-8"), []
    for part, render in (("cases", cases), ("matrix", matrix), ("kills", kills), ("soak", soak)):
        path = results / f"{part}.json"
        if path.is_file():
            text = _between(text, *MARKS[part], render(msgspec.json.decode(path.read_bytes())))
            done.append(part)
    page.write_text(text, encoding="utf-8")
    return done


def cases(run: dict[str, Any]) -> str:
    """Return the table of the cases without sockets."""
    rows = [["in all", run["all"]], *sorted(run["by_fault"].items())]
    lines = [
        *_run(run),
        f"{run['all']['cases']} cases in {run['took_s']:.0f} s; {run['machine']}.",
        "",
        "| fault | cases | scans whole | tell what they lack | never reached the service | lost silently |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {r['cases']} | {r['whole']} | {r['told']} | {r['unheard']} | {r['silent']} |"
            for name, r in rows
        ),
    ]
    return "\n".join(lines)


def matrix(run: dict[str, Any]) -> str:
    """Return the table of the matrix: by the microscope's fault and by the network's."""
    outcomes = run["outcomes"]
    lines = [
        *_run(run),
        f"{len(outcomes)} cases in {run['took_s'] / 60:.0f} min; {run['machine']}.",
        "",
        "| fault | where | cases | same digest | exact list of what is missing | lost silently, or told wrongly "
        "| connections reset | bytes lost in them | time, median |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for outcome in outcomes:
        case = outcome["case"]
        groups[case["microscope"], "virtual microscope"].append(outcome)
        if case["blow"] is not None:
            groups[case["blow"], case["place"]].append(outcome)
    groups.pop(("none", "virtual microscope"), None)
    for (fault, where), found in groups.items():
        same = sum(o["same_digest"] for o in found)
        told = sum(not o["same_digest"] and not o["wrong"] for o in found)
        took = statistics.median(o["took_s"] for o in found)
        wrong = sum(bool(o["wrong"]) for o in found)
        resets, lost = (sum(o[key] for o in found) for key in ("resets", "lost_bytes"))
        lines.append(
            f"| {fault} | {where} | {len(found)} | {same} | {told} | {wrong} | {resets} | {lost} | {took:.1f} s |"
        )
    return "\n".join(lines)


def kills(run: dict[str, Any]) -> str:
    """Return the kill table."""
    lines = [
        *_run(run),
        f"{len(run['outcomes'])} kills in {run['took_s'] / 60:.0f} min; {run['machine']}.",
        "",
        "| killed | phase | kills | of them with the result in its folder | same digest | other digest "
        "| lost silently, or told wrongly |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for outcome in run["outcomes"]:
        groups[outcome["kill"]["victim"], outcome["kill"]["phase"]].append(outcome)
    for (victim, phase), found in sorted(groups.items()):
        same = sum(o["same_digest"] for o in found)
        wrong = sum(bool(o["wrong"]) for o in found)
        there = sum(o["result_there"] for o in found)
        lines.append(f"| {victim} | {phase} | {len(found)} | {there} | {same} | {len(found) - same} | {wrong} |")
    return "\n".join(lines)


def soak(run: dict[str, Any]) -> str:
    """Return the soak table: start, middle and end after the warm-up."""
    found = msgspec.convert(run["soak"], Soak)
    warm = found.warm
    third = max(1, len(warm) // 3)
    parts = {"start": warm[:third], "middle": warm[third : 2 * third], "end": warm[-third:]}
    lines = [
        *_run(run),
        f"{found.seconds / 60:.0f} min, {found.scans} scans, {found.subscribers} subscribers came "
        f"and went, {found.cuts} lines were cut; {run['machine']}. "
        f"The first {WARM:.0%} is warm-up. Medians of each third of the rest.",
        "",
        "| | start | middle | end |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what, name, digits in (
        ("memory_mib", "memory, MiB", 0),
        ("handles", "file handles", 0),
        ("threads", "threads", 0),
        ("live_s", "latency of live maps, at most, s", 3),
        ("finals_s", "finals, s", 3),
    ):
        values = [[v for s in part if (v := getattr(s, what)) is not None] for part in parts.values()]
        cells = (f"{statistics.median(v):.{digits}f}" if v else "-" for v in values)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    allowed = f"at most {found.allowed_mib:.0f} MiB, {HANDLES} handles, {THREADS} threads"
    verdict = "; ".join(found.leaks) or "no leak"
    lines += ["", f"Memory grew by {found.growth_mib:.1f} MiB in {(1 - WARM) * found.seconds / 60:.0f} min after it "
              f"({allowed} may be noise): {verdict}."]  # fmt: skip
    return "\n".join(lines)


def _run(run: dict[str, Any]) -> list[str]:
    """Return the command of a run, in a block."""
    return ["```sh", run["command"], "```", ""]


def _between(text: str, begin: str, end: str, content: str) -> str:
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"
