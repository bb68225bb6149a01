"""A score for a person: what each label map reached, and what was measured in the best ones, in 100 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from livestem.runtime.scoring import Deviation, MapScore, Measure, RegionScore, Score

_WIDTH = 100  # columns: what a terminal beside an instrument's windows has
_SHOWN = 8  # regions a map: the paper's way makes a hundred, and --json has them all
_TRACE = 0.5  # at.%: an element that is not in the class is worth a word from here on
_PURE = 7  # characters of the second number of a pair; a perfect classifier has none
_TIED = "\u00a0"  # a space at which no line breaks
_PM = 1000.0  # picometres in a nanometre


def report(score: Score, console: Console | None = None) -> None:
    """Print the tables of a score."""
    console = console or Console(highlight=False)
    if console.width > _WIDTH or not console.is_terminal:
        console.width = _WIDTH
    judged = "frames registered to the first" if score.registered else "frames summed as they came"
    pure = f"{score.pure_chips} of them pure ({score.pure_from:.0%} one class or more)"
    console.print(f"{score.scan_id}, {score.status}\n{score.chips} chips, {pure}; {judged}", markup=False)
    console.print(_maps(score))
    if any(found.accuracy_per_class for found in score.maps.values()):
        console.print(_classes(score))
    console.print(_regions(score))


def _maps(score: Score) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Label maps against the truth", padding=(0, 1, 0, 0))
    table.add_column("label map", no_wrap=True)
    heads = (f"{measure}\nall  pure" for measure in ("AMI", "Rand", "accuracy"))
    for head in ("\nregions", *heads, "boundary\nnm"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, found in score.maps.items():
        cells = ("  ".join(_pair(m)) for m in (found.ami, found.ari, found.accuracy))
        table.add_row(name, str(found.regions), *cells, _number(found.boundary_nm, 2))
    most = max(score.maps.values(), key=lambda found: found.chips, default=None)
    if most is not None:
        named = [found.accuracy for found in score.maps.values() if found.accuracy is not None]
        ceilings = (most.ami, most.ari, max(named, key=lambda m: m.ceiling or 0.0, default=None))
        table.add_section()
        cells = (f"{_number(None if m is None else m.ceiling)}{' ' * _PURE}" for m in ceilings)
        table.add_row("perfect classifier", "", *cells, _number(most.boundary_floor_nm, 2))
    return table


def _classes(score: Score) -> Table:
    table = Table("class", box=box.SIMPLE_HEAD, title="Share of each class's chips that few-shot found")
    named = {name: found.accuracy_per_class for name, found in score.maps.items() if found.accuracy_per_class}
    for name in named:
        table.add_column(f"{name.partition('.')[2]}\nall  pure", justify="right")
    table.add_column("perfect", justify="right")
    for one in next(iter(named.values())):
        pairs = ("  ".join(_pair(by_class[one])) for by_class in named.values())
        ceiling = max((by_class[one].ceiling or 0.0 for by_class in named.values()), default=None)
        table.add_row(one, *pairs, _number(ceiling))
    return table


def _regions(score: Score) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Measured less true, in each method's best joint map (± 1 sigma)")
    for head in ("region", "is", "pure"):
        table.add_column(head, no_wrap=True)
    table.add_column("composition, at.%", ratio=1)
    table.add_column("spacing, pm", min_width=18)
    for name in best_maps(score):
        table.add_section()
        table.add_row(f"[bold]{name}[/]")
        largest = sorted(score.regions[name], key=lambda region: -region.chips)
        for region in largest[:_SHOWN]:
            purity = "" if region.purity is None else f"{region.purity:.0%}"
            table.add_row(region.name, region.truth or "-", purity, _atoms(region), _spacing(region))
        if len(largest) > _SHOWN:
            table.add_row(f"{len(largest) - _SHOWN} smaller")
    return table


def best_maps(score: Score) -> list[str]:
    """Return the map of highest AMI of each method, of those that join modalities where there are any."""
    found: dict[str, list[str]] = {}
    for name in score.maps:
        found.setdefault(name.partition(".")[0], []).append(name)
    best = []
    for names in found.values():
        joint = [name for name in names if "+" in name] or names
        best.append(max(joint, key=lambda name: _or_least(score.maps[name])))
    return best


def _or_least(found: MapScore) -> float:
    return -1.0 if found.ami.all is None else found.ami.all


def _atoms(region: RegionScore) -> str:
    said = []
    for element, d in region.composition.items():
        if d.error is None:
            said.append(f"{element}{_TIED}not{_TIED}measured" if d.true else "")
        elif d.true or abs(d.error) >= _TRACE:
            said.append(f"{element}{_TIED}{d.error:+.1f}±{d.sigma or 0:.1f}")
    return "  ".join(part for part in said if part) or "-"


def _spacing(region: RegionScore) -> str:
    d = region.d_spacing_nm
    if d.measured is None:
        why = region.note.partition(":")[0] or "not measured"
        return why if d.true is None else f"missed: {why}"
    if d.error is None:
        return f"{_PM * d.measured:.1f}; has none"
    apparent = region.d_apparent_nm
    beside = "" if apparent.error is None else f"\n{_picometres(apparent)} of apparent"
    return f"{_picometres(d)}{beside}"


def _picometres(d: Deviation) -> str:
    assert d.error is not None
    return f"{_PM * d.error:+.2f}±{_PM * (d.sigma or 0):.2f}"


def _pair(measure: Measure | None) -> tuple[str, str]:
    return ("-", "-") if measure is None else (_number(measure.all), _number(measure.pure))


def _number(value: Any, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
