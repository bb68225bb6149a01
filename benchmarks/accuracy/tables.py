"""Rows as tables in Markdown, and their place in the documentation.

Rules
-----
* A cell is the mean over seeds, with the standard deviation (n - 1) where there are several; ``-`` was not run.
* The best of a column is bold, as far as the digits shown tell; what no chips can reach stands in the last line.
* Only what lies between the two markers is rewritten.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from livestem.domain.errors import UsageError

from . import plan
from .sweep import Row

BEGIN, END = "<!-- generated tables: begin -->", "<!-- generated tables: end -->"
METHODS = {"fewshot": "Few-shot", "ward": "Ward", "louvain": "Louvain"}
# Maps of the tables of doses and classes: what a preset joins, and for few-shot what it joins it from.
SHOWN = (
    ("default", "fewshot.haadf"),
    ("default", "fewshot.lines"),
    ("default", "fewshot.haadf+lines"),
    ("default", "ward.haadf+lines"),
    ("default", "louvain.haadf+lines"),
    ("as_published", "fewshot.haadf+atomic"),
    ("as_published", "ward.haadf+atomic"),
    ("as_published", "louvain.haadf+atomic"),
)
_ENOUGH = 0.01  # of the measure: what a further dose must bring to be worth it; the spread over seeds is about that
_TOLD = 0.05  # share of a class: confusions below are borders

Value = Callable[[Row], float | None]


def accuracy(row: Row) -> float | None:
    """Return the share of chips with the right class; None of clusters."""
    return None if row.score.accuracy is None else row.score.accuracy.all


def ami(row: Row) -> float | None:
    """Return the adjusted mutual information over all chips."""
    return row.score.ami.all


def measure_of(name: str) -> Value:
    """Return what a map is judged by first: accuracy where its labels have names, else AMI."""
    return accuracy if name.startswith("fewshot.") else ami


def of(
    rows: Iterable[Row],
    *,
    sample: str | None = None,
    at: tuple[str, int] | None = None,
    preset: str | None = None,
    name: str | None = None,
) -> list[Row]:
    """Return the rows of a sample, a (series, frames), a preset and a map."""
    return [
        row
        for row in rows
        if sample in (None, row.sample)
        and at in (None, (row.series, row.frames))
        and preset in (None, row.preset)
        and name in (None, row.map)
    ]


def everything(rows: Sequence[Row], main: tuple[str, int]) -> str:
    """Return all tables; `main` is the (series, frames) at which all maps are compared."""
    there = of(rows, at=main)
    if not there:
        return f"Nothing was run to {main[1]} frames of series {main[0]}."
    seeds = sorted({row.seed for row in there})
    where = f"{main[1]} frames of series `{main[0]}`, {there[0].photons:.3g} photons per pixel, {_seeds(seeds)}"
    made_of = ", ".join(f"{sample} `{'` `'.join(_origins(there, sample))}`" for sample in _samples(there))
    weights = "" if {row.preset for row in there} == {"default"} else " --weights FILE"
    how = "--quick" if main == plan.QUICK else f"--seeds {len(seeds)}"
    made_by = f"```sh\npython -m benchmarks.accuracy{weights} {how}\n```"
    parts = [f"{made_by}\n\nOrigins (specimen and simulator): {made_of}.", f"## Every method\n\n{where}."]
    for method, title in METHODS.items():
        what = "accuracy" if method == "fewshot" else "AMI"
        parts.append(f"### {title}: {what}, all chips / pure chips\n\n{methods_table(there, method)}")
    parts += [
        f"## Dose\n\n{dose_tables(rows)}",
        f"## Which classes are found\n\n{classes_tables(there)}",
        "## More measures\n\nOf the maps of the first tables, all chips.",
        f"### Few-shot: AMI\n\n{measure_table(there, ami, ('fewshot',))}",
        f"### Adjusted Rand index\n\n{measure_table(there, lambda row: row.score.ari.all)}",
        f"### Boundary error, nm\n\n{boundary_table(there)}",
        f"### Regions found, fewest-most\n\n{regions_table(there)}",
    ]
    return "\n\n".join(parts)


def methods_table(rows: Sequence[Row], method: str) -> str:
    """Return one method's maps by sample, all chips and pure ones."""
    named = method == "fewshot"

    def pure(row: Row) -> float | None:
        part = row.score.accuracy if named else row.score.ami
        return None if part is None else part.pure

    def ceiling(row: Row) -> float | None:
        part = row.score.accuracy if named else row.score.ami
        return None if part is None else part.ceiling

    first = accuracy if named else ami
    samples, kinds = _samples(rows), _kinds(rows, (method,))
    lines = [["preset", "modality", *samples]]
    columns = [[_mean(of(rows, sample=s, preset=p, name=n), first) for p, n in kinds] for s in samples]
    best = [max((round(v, 2) for v in column if v is not None), default=None) for column in columns]
    for i, (preset, name) in enumerate(kinds):
        cells = []
        for sample, column, top in zip(samples, columns, best, strict=True):
            there, value = of(rows, sample=sample, preset=preset, name=name), column[i]
            text = f"{spread(there, first)} / {spread(there, pure, short=True)}"
            cells.append(f"**{text}**" if value is not None and round(value, 2) == top else text)
        lines.append([preset, name.partition(".")[2], *cells])
    perfect = [spread(of(rows, sample=s, name=kinds[0][1], preset=kinds[0][0]), ceiling, short=True) for s in samples]
    lines.append(["perfect classifier", "", *(f"{p} / 1.00" for p in perfect)])
    return markdown(lines)


def measure_table(rows: Sequence[Row], value: Value, methods: tuple[str, ...] = tuple(METHODS)) -> str:
    """Return one measure of all maps by sample."""
    samples = _samples(rows)
    lines = [["preset", "map", *samples]]
    for preset, name in _kinds(rows, methods):
        cells = (spread(of(rows, sample=s, preset=preset, name=name), value) for s in samples)
        lines.append([preset, name, *cells])
    return markdown(lines)


def boundary_table(rows: Sequence[Row]) -> str:
    """Return the boundary errors of the maps of `SHOWN` by sample, and those of the best map of chips."""
    samples = _samples(rows)
    lines = [["preset", "map", *samples]]
    for preset, name in SHOWN:
        cells = (spread(of(rows, sample=s, preset=preset, name=name), lambda r: r.score.boundary_nm) for s in samples)
        lines.append([preset, name, *cells])
    floor = (spread(of(rows, sample=s), lambda r: r.score.boundary_floor_nm, short=True) for s in samples)
    lines.append(["best map of chips", "", *floor])
    return markdown(lines)


def regions_table(rows: Sequence[Row]) -> str:
    """Return the fewest and most labels of Louvain's maps, and of Ward's where votes multiply them."""
    samples = _samples(rows)
    lines = [["preset", "map", *samples]]
    for preset, name in _kinds(rows, ("ward", "louvain")):
        found = [[row.score.regions for row in of(rows, sample=s, preset=preset, name=name)] for s in samples]
        given = [{len(row.classes) for row in of(rows, sample=s)} for s in samples]
        if name.startswith("ward.") and all(set(f) <= g for f, g in zip(found, given, strict=True)):
            continue
        lines.append([preset, name, *(_range(f) for f in found)])
    lines.append(["truth", "", *(_range([len(row.classes) for row in of(rows, sample=s)]) for s in samples)])
    return markdown(lines)


def classes_tables(rows: Sequence[Row]) -> str:
    """Return, sample by sample, how much of each class each map finds, and what it takes the rest for."""
    kinds = [(p, n) for p, n in SHOWN if of(rows, preset=p, name=n) and "+" in n]
    parts = []
    for sample in _samples(rows):
        classes = of(rows, sample=sample)[0].classes
        lines = [["class", "chips", *(f"{p}: {METHODS[n.partition('.')[0]].lower()}" for p, n in kinds)]]
        sums = [_confusion(of(rows, sample=sample, preset=p, name=n), len(classes)) for p, n in kinds]
        for i, title in enumerate(classes):
            chips = next((sum(s[i]) for s in sums if sum(s[i])), 0)
            lines.append([title, str(chips), *(_found(s[i], i, classes) for s in sums)])
        parts.append(f"`{sample}`:\n\n{markdown(lines)}")
    return "\n\n".join(parts)


def dose_tables(rows: Sequence[Row]) -> str:
    """Return, series by series, the maps of `SHOWN` at every number of frames (heads: frames, photons per pixel)."""
    parts = []
    for series in dict.fromkeys(row.series for row in rows):
        inside = [row for row in rows if row.series == series]
        steps = {row.frames: row for row in sorted(inside, key=lambda r: r.frames)}
        heads = [f"{n}: {row.photons:.2g}" for n, row in steps.items()]
        lines = [["sample", "preset", "map", *heads, "enough at"]]
        for sample in _samples(inside):
            for preset, name in SHOWN:
                cells = [of(inside, sample=sample, at=(series, n), preset=preset, name=name) for n in steps]
                if any(cells):
                    means = [_mean(c, measure_of(name)) for c in cells]
                    line = [sample, preset, name, *(spread(c, measure_of(name)) for c in cells)]
                    lines.append([*line, _enough(list(steps), means)])
        drift = (spread(of(inside, at=(series, n)), lambda r: r.drift_nm, short=True) for n in steps)
        lines.append(["drift, nm", "", "", *drift, ""])
        parts.append(f"### Series `{series}`\n\n{markdown(lines)}")
    return "\n\n".join(parts)


def spread(rows: Sequence[Row], value: Value, *, short: bool = False) -> str:
    """Return the mean over rows and, unless `short`, the standard deviation."""
    known = [v for row in rows if (v := value(row)) is not None]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):.2f}"
    return mean if short or len(known) < 2 else f"{mean} ± {statistics.stdev(known):.2f}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose first line is its head."""
    text = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([text[0], "|" + " --- |" * len(lines[0]), *text[1:]])


def around(page: Path) -> tuple[str, str]:
    """Return what stands before and after the tables of a page, the markers with it.

    Raises
    ------
    UsageError
        If it cannot be read or has not both markers once, in order.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as e:
        raise UsageError(f"{page} cannot be read: {e.strerror or e}; choose another --page") from e
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise UsageError(f"{page} needs the lines {BEGIN} and {END}, once each and in this order")
    return before + begin, end + after


def splice(page: Path, tables: str) -> None:
    """Put the tables between the markers of a page; `UsageError` as `around`."""
    before, after = around(page)
    page.write_text(f"{before}\n\n{tables}\n\n{after}", encoding="utf-8")


def _enough(steps: Sequence[int], means: Sequence[float | None]) -> str:
    """Return the fewest frames whose mean is about the best; that of rows with one step says nothing."""
    known = [(n, mean) for n, mean in zip(steps, means, strict=True) if mean is not None]
    if len(known) < len(steps):
        return ""
    best = max(mean for _, mean in known)
    return str(next(n for n, mean in known if mean >= best - _ENOUGH))


def _found(counts: Sequence[int], label: int, classes: Sequence[str]) -> str:
    """Return the share found, and the classes that took a part worth telling."""
    total = sum(counts)
    if not total:
        return "-"
    taken = sorted((-n, i) for i, n in enumerate(counts) if i != label and n >= _TOLD * total)
    return ", ".join([f"{counts[label] / total:.2f}", *(f"{classes[i]} {-n / total:.2f}" for n, i in taken)])


def _confusion(rows: Sequence[Row], classes: int) -> list[list[int]]:
    return [[sum(row.confusion[i][j] for row in rows) for j in range(classes)] for i in range(classes)]


def _mean(rows: Sequence[Row], value: Value) -> float | None:
    known = [v for row in rows if (v := value(row)) is not None]
    return statistics.fmean(known) if known else None


def _samples(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.sample for row in rows))


def _kinds(rows: Iterable[Row], methods: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (preset, map) of these methods, method by method, in the order of the rows."""
    there = dict.fromkeys((row.preset, row.map) for row in rows)
    return [(p, n) for method in methods for p, n in there if n.startswith(f"{method}.")]


def _range(values: Sequence[int]) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def _origins(rows: Iterable[Row], sample: str) -> list[str]:
    return list(dict.fromkeys(row.origin for row in of(rows, sample=sample)))


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
