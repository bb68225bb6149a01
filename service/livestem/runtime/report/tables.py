"""The tables of a report: plain text in cells; the page escapes it.

What the data do not allow is a dash, its reason beside.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from livestem.domain.regions import Region
from livestem.runtime.drawing import length_text
from livestem.runtime.map_colours import Colour, Legend
from livestem.runtime.report.composition import elements_of, quantified, region_name
from livestem.runtime.report.numbers import DASH, measured, plain, rounded
from livestem.runtime.report.scan import Scan, map_title, method_title, modality_title
from livestem.stages.descriptors import difference

_MOST_COLUMNS = 7  # regions of a map, the largest: the published way makes a hundred, and result.json has them all
_MOST_COMPARED = 5  # regions compared pairwise: ten rows
_LEAST_COMPARED = 1.0  # at.%: of less, a percent difference says how little there is, not how regions differ
_CLEAR = 3.0  # sigmas from which a difference is set in bold
_LONGEST_VALUE = 600  # characters of a parameter: a support set of a hundred chips


@dataclass(frozen=True)
class Cell:
    """One cell: text, the colour it names, whether it stands out."""

    text: str
    colour: Colour | None = None
    bold: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: heads, rows of cells or plain text, and what must be said of it."""

    caption: str
    head: tuple[Cell | str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    note: str = ""


def facts(scan: Scan) -> Table:
    """Return what a scan is and how it was processed, in short."""
    saved, found = scan.saved, scan.facts
    grid = saved.grid
    per_chip = "" if found.counts is None else f"; {found.counts / grid.chips:.0f} per chip"
    covered = ", ".join(f"{k.upper()} {v:.1%}" for k, v in found.coverage.items() if v is not None)
    said = found.parameters
    rows = {
        "Scan": f"{saved.scan_id} of session {saved.session}, {saved.status}",
        "End": found.reason or ("as planned" if saved.status == "complete" else "not stated"),
        "Source": found.source or "not stated",
        "Chips": f"{grid.rows} × {grid.cols} of {length_text(float(f'{grid.chip_nm:.4g}'))} ({grid.chip_px} px)",
        "EDS counts": "no EDS" if found.counts is None else f"{plain(found.counts)}{per_chip}",
        "Data received": covered or "not stated",
        "Method": f"preset {said.get('preset', 'not stated')}, HAADF embedding {found.encoder or 'not stated'}",
        "Elements": _listed(said.get("elements")) + _strays(said.get("strays")),
        "Frames": f"registration: {said.get('register', 'none')}{_reason(found.registration)}",
        "Absorption": f"{said.get('absorption', 'uncorrected')}{_thickness(said.get('thickness_nm'))}",
        "Digest": found.digest,
    }
    if found.calibration:
        rows["Lengths"] = _calibration(found.calibration)
    return Table(caption="", head=(), rows=tuple(rows.items()))


def agreement(scan: Scan) -> Table | None:
    """Return the adjusted mutual information of every pair of maps, a column for each method (the paper's Table I)."""
    found = scan.facts.agreement
    pairs = list(dict.fromkeys(pair for values in found.values() for pair in values))
    if not pairs:
        return None
    rows = [(_pair_title(p), *(rounded(values.get(p), 2) for values in found.values())) for p in pairs]
    return Table(
        caption="Agreement between modalities: adjusted mutual information",
        head=("pair", *(method_title(m) for m in found)),
        rows=tuple(rows),
        note="1 is the same partition, 0 what chance gives.",
    )


def regions(scan: Scan, name: str, legend: Legend) -> Table | None:
    """Return the descriptors of a map's regions: a column for each, the largest first."""
    every = scan.regions(name)
    if not every:
        return None
    shown = every[:_MOST_COLUMNS]
    rows = {
        "chips": [str(r.chips) for r in shown],
        "area, %": [f"{100 * r.area_fraction:.1f}" for r in shown],
        "parts": [str(r.components) for r in shown],
    }
    rows |= {f"{element}, at.%": [_percent(r, element) for r in shown] for element in elements_of(shown)}
    if any(r.extraneous_percent is not None for r in shown):
        rows["strays, at.% of all"] = [rounded(r.extraneous_percent, 1) for r in shown]
    if any(r.haadf_mean is not None for r in shown):
        rows |= {
            "HAADF, mean": [plain(r.haadf_mean) for r in shown],
            "spacing d, nm": [_spacing(r) for r in shown],
            "crystallinity": [rounded(r.crystallinity, 2) for r in shown],
        }
    rest = sum(r.chips for r in every[_MOST_COLUMNS:])
    more = f"{len(every) - _MOST_COLUMNS} smaller regions hold {rest} chips; result.json has them all. " if rest else ""
    return Table(
        caption=f"Regions: {map_title(name)}",
        head=("", *(_region_cell(scan, name, region, legend) for region in shown)),
        rows=tuple((key, *values) for key, values in rows.items()),
        note=f"{more}± is one standard deviation of counting statistics.",
    )


def differences(scan: Scan, name: str, legend: Legend) -> Table | None:
    """Return the percent differences in composition between the largest regions of a map; None without a pair."""
    shown = quantified(scan.regions(name))[:_MOST_COMPARED]
    found = {(a.label, b.label): _compared(a, b) for a, b in combinations(shown, 2)}
    elements = [e for e in elements_of(shown) if any(e in values for values in found.values())]
    called = {r.label: region_name(r, legend, scan.place(name, r.label, legend)) for r in shown}
    rows = [
        (f"{called[a]} against {called[b]}", *(_difference(values.get(e)) for e in elements))
        for (a, b), values in found.items()
        if values
    ]
    if not rows:
        return None
    return Table(
        caption=f"Percent differences in atomic percent: {map_title(name)}",
        head=("a against b", *elements),
        rows=tuple(rows),
        note="100 (a − b) / b ± one standard deviation, of elements of which both have "
        f"{_LEAST_COMPARED:g} at.% or more; bold beyond {_CLEAR:g} standard deviations. k-factors cancel in the ratio.",
    )


def methods(scan: Scan) -> Table:
    """Return what each method found on each map."""
    rows = []
    for panel in scan.panels:
        known = scan.facts.maps.get(panel.title, {})
        said = ", ".join(f"{key} {_value(value)}" for key, value in known.items() if value is not None)
        rows.append((map_title(panel.title), str(len(panel.present)), said or DASH))
    return Table(caption="Label maps", head=("map", "regions", "as computed"), rows=tuple(rows))


def parameters(scan: Scan) -> list[Table]:
    """Return everything that the numbers depend on: parameters, numerics, digests, times."""
    found = scan.facts
    digests = {"digest": found.digest, "input_digest": found.input_digest, "livestem": found.livestem}
    times = {stage: f"{seconds:.3g} s" for stage, seconds in found.timings_s.items()}
    parts = {"Parameters": found.parameters, "Numerics": found.numerics, "Digests": digests, "Times": times}
    return [
        Table(caption=caption, head=("key", "value"), rows=tuple((key, _value(v)) for key, v in part.items()))
        for caption, part in parts.items()
        if part
    ]


def comparison(scans: list[Scan]) -> Table:
    """Return several results beside each other, a column for each."""
    methods = list(dict.fromkeys(method for scan in scans for method in scan.methods))
    rows: dict[str, list[str]] = {
        "sample": [scan.title for scan in scans],
        "scan": [scan.saved.scan_id for scan in scans],
        "status": [scan.saved.status for scan in scans],
        "chips": [f"{scan.saved.grid.rows} × {scan.saved.grid.cols}" for scan in scans],
        "chip": [length_text(float(f"{scan.saved.grid.chip_nm:.4g}")) for scan in scans],
        "counts per chip": [_counts_per_chip(scan) for scan in scans],
        "preset": [str(scan.facts.parameters.get("preset", DASH)) for scan in scans],
    }
    for method in methods:
        rows[f"regions, {method_title(method)}"] = [_regions_found(scan, method) for scan in scans]
    for method in methods:
        for pair in dict.fromkeys(p for scan in scans for p in scan.facts.agreement.get(method, {})):
            agreed = [scan.facts.agreement.get(method, {}).get(pair) for scan in scans]
            rows[f"AMI {_pair_title(pair)}, {method_title(method)}"] = [rounded(value, 2) for value in agreed]
    return Table(
        caption="The results beside each other",
        head=("", *(str(i) for i in range(1, len(scans) + 1))),
        rows=tuple((key, *values) for key, values in rows.items()),
        note="Regions are those of each method's main map: the first that joins modalities, else the first.",
    )


def _counts_per_chip(scan: Scan) -> str:
    return DASH if scan.facts.counts is None else plain(scan.facts.counts // scan.saved.grid.chips)


def _regions_found(scan: Scan, method: str) -> str:
    name = scan.main_maps.get(method)
    return DASH if name is None else str(len(scan.panels[list(scan.saved.maps).index(name)].present))


def classes(scans: list[Scan], legends: list[Legend]) -> Table | None:
    """Return the classes of several results beside each other; None where no class is in two of them."""
    held: dict[str, dict[int, tuple[Region, Colour]]] = {}
    for i, (scan, legend) in enumerate(zip(scans, legends, strict=True)):
        name = scan.main_maps.get("fewshot")
        for region in scan.regions(name) if name else []:
            held.setdefault(region.name, {})[i] = region, legend.colours[scan.place(str(name), region.label, legend)]
    shared = {name: found for name, found in held.items() if len(found) > 1}
    if not shared:
        return None
    elements = elements_of([region for found in shared.values() for region, _ in found.values()])
    rows: list[tuple[Cell | str, ...]] = [
        (
            Cell(name, colour), str(i + 1), f"{100 * region.area_fraction:.1f}",
            *(_percent(region, e) for e in elements), _spacing(region),
        )
        for name, found in shared.items()
        for i, (region, colour) in found.items()
    ]  # fmt: skip
    head = ("class", "result", "area, %", *(f"{e}, at.%" for e in elements), "d, nm")
    return Table(caption="Classes that several results have", head=head, rows=tuple(rows))


def _region_cell(scan: Scan, name: str, region: Region, legend: Legend) -> Cell:
    place = scan.place(name, region.label, legend)
    title = scan.class_titles.get(region.name)
    text = region_name(region, legend, place) + (f": {title}" if title else "")
    return Cell(text, legend.colours[place])


def _compared(a: Region, b: Region) -> dict[str, tuple[float, float | None]]:
    """Return the percent differences of the elements that both regions really have."""
    held, found = (a.atomic_percent or {}, b.atomic_percent or {}), difference(a, b)
    return {
        e: (percent, found.sigma[e])
        for e, percent in found.percent.items()
        if percent is not None and all((h[e] or 0.0) >= _LEAST_COMPARED for h in held)
    }


def _percent(region: Region, element: str) -> str:
    return measured((region.atomic_percent or {}).get(element), (region.atomic_percent_sigma or {}).get(element))


def _spacing(region: Region) -> str:
    if region.d_spacing_nm is None:
        return f"{DASH} ({region.notes.get('d_spacing_nm', 'no spacing').partition(':')[0]})"
    return measured(region.d_spacing_nm, region.d_spacing_sigma_nm)


def _difference(found: tuple[float, float | None] | None) -> Cell | str:
    if found is None:
        return DASH
    value, sigma = found
    text = measured(value, sigma)
    signed = f"−{text[1:]}" if value < 0 else f"+{text}"
    return Cell(signed, bold=sigma is not None and abs(value) > _CLEAR * sigma)


def _pair_title(pair: str) -> str:
    return " / ".join(modality_title(part) for part in pair.split("-"))


def _thickness(nm: Any) -> str:
    return f", {_value(nm)} nm thick" if nm is not None else ""


def _reason(found: dict[str, Any] | None) -> str:
    return f" ({found['reason']})" if found and found.get("reason") else ""


def _calibration(found: dict[str, Any]) -> str:
    """Return how lengths were calibrated, or why not."""
    on = f"on {found.get('region')}, {_value(found.get('d_nm'))} nm"
    if found.get("factor") is None:
        return f"not calibrated {on}: {found.get('reason')}"
    return f"calibrated {on}: factor {measured(found['factor'], found.get('factor_sigma'))}, common to all"


def _listed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) and value else "none named"


def _strays(value: Any) -> str:
    return f"; strays {' '.join(map(str, value))}" if isinstance(value, list) and value else ""


def _value(value: Any) -> str:
    """Return a value of ``result.json`` as text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… (result.json has it all)"
