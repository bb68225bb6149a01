"""From result folders to a report on disk: the page, and its figures as PNG files in a folder beside it.

Both appear whole or not at all. An earlier report is replaced, anything else in its place is left alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from livestem.domain.errors import StoreError, UsageError
from livestem.runtime.drawing import png
from livestem.runtime.map_colours import Legend, match_scans
from livestem.runtime.report import tables
from livestem.runtime.report.composition import draw_composition
from livestem.runtime.report.coverage import draw_coverage
from livestem.runtime.report.drift import registration
from livestem.runtime.report.lattice import draw_lattices
from livestem.runtime.report.maps import draw_maps
from livestem.runtime.report.page import GENERATOR, Block, Picture, Section, page
from livestem.runtime.report.scan import Scan, map_title, read_scan
from livestem.runtime.report.tables import Table

_DPI = 220  # dots per inch of a figure as wide as a printed page: what journals ask of halftones is 200 to 300
_MM = 25.4  # in an inch
_MAPS = (
    "Label maps over the HAADF. A row for each method, a column for each modality; the number of regions in brackets. "
    "One colour is one class or region in all maps: a cluster has the colour of the class or region that it looks most "
    "like, if more than half of its chips lie there and it holds a quarter of it. The image's texture shows through."
)
_BARS = (
    "Composition of the largest regions, atomic percent, from the summed spectrum of each. Error bars: one standard "
    "deviation of counting statistics; k-factors and absorption are not in them."
)
_SQUARES = (
    "Lattices: {}. Above, the largest square of whole chips in each region; below, its power spectrum (logarithmic, "
    "one scale). Circles: significant lattice peaks, broken where the basis does not index them; numbers: spacings, nm."
)
_COVERAGE = (
    "Coverage: the share of what was expected of each chip that came, as the beam swept the field. Hatched: nothing "
    "came. Of an open-ended scan, the frames that were begun are expected."
)
_DRIFT = (
    "Registration: how far each frame was moved onto those before it. Hollow: frames whose own shift could not be told."
)


@dataclass(frozen=True)
class Written:
    """What was written where: the page, the figures, and the scans that are in it."""

    page: Path
    figures: tuple[Path, ...]
    scans: tuple[Scan, ...]


def write_report(results: list[Path], out: Path) -> Written:
    """Write a report of results.

    Parameters
    ----------
    results : list of Path
        Result folders, or the ``result.json`` in them.
    out : Path
        HTML file; figures are written to ``<stem>-figures`` beside it.

    Returns
    -------
    Written

    Raises
    ------
    UsageError
        If a result cannot be read, or something else than an earlier report is in the way.
    StoreError
        If the report cannot be written.
    """
    folder = out.with_name(f"{out.stem}-figures")
    _refuse_foreign(out, folder)
    scans = [read_scan(path) for path in results]
    legends = match_scans([scan.panels for scan in scans])
    sections = [
        _section(scan, legend, i if len(scans) > 1 else 0)
        for i, (scan, legend) in enumerate(zip(scans, legends, strict=True), 1)
    ]
    if len(scans) > 1:
        sections.insert(0, _beside_each_other(scans, legends))
        title, lead = f"{len(scans)} scans", ", ".join(scan.title for scan in scans)
    else:
        title, lead = scans[0].title, f"{scans[0].saved.scan_id}, session {scans[0].saved.session}"
    made = f"Made by livestem {version('livestem')} from the results' own files; equal results give an equal report."
    text = page(title, lead, sections, made)
    pictures = [block for section in sections for block in section.blocks if isinstance(block, Picture)]
    figures = _write(out, folder, text, pictures)
    return Written(out, figures, tuple(scans))


def _beside_each_other(scans: list[Scan], legends: list[Legend]) -> Section:
    found = [tables.comparison(scans), tables.classes(scans, legends)]
    return Section("Comparison", tuple(table for table in found if table is not None))


def _section(scan: Scan, legend: Legend, number: int) -> Section:
    prefix = f"{number}-" if number else ""
    heading = f"{number}. {scan.title}" if number else ""  # the page's title says it
    return Section(heading, tuple(_blocks(scan, legend, prefix)), scan.facts.warnings)


def _blocks(scan: Scan, legend: Legend, prefix: str) -> Iterator[Block]:
    def picture(name: str, figure: Any, caption: str) -> Picture:
        return Picture(f"{prefix}{name}.png", png(figure, _DPI), _MM * float(figure.get_figwidth()), caption)

    yield tables.facts(scan)
    covered = draw_coverage(scan)
    if covered is not None:
        yield "Coverage"
        yield picture("coverage", covered, _COVERAGE)
    yield "Label maps"
    for name, figure in draw_maps(scan, legend).items():
        yield picture(name, figure, _MAPS)
    yield from _present([tables.agreement(scan), tables.methods(scan)])
    yield "Regions"
    bars = draw_composition(scan, legend)
    if bars is not None:
        yield picture("composition", bars, _BARS)
    for name in scan.main_maps.values():
        yield from _present([tables.regions(scan, name, legend), tables.differences(scan, name, legend)])
    lattices = draw_lattices(scan, legend)
    if lattices:
        yield "Lattices"
    for name, figure in lattices.items():
        yield picture(f"lattice-{name.partition('.')[0]}", figure, _SQUARES.format(map_title(name)))
    moved, drift = registration(scan)
    if moved is not None:
        yield "Registration"
    if drift is not None:
        yield picture("drift", drift, _DRIFT)
    yield from _present([moved])
    yield "Parameters, digests, times"
    yield from tables.parameters(scan)


def _present(found: list[Table | None]) -> Iterator[Table]:
    return (table for table in found if table is not None)


def _refuse_foreign(out: Path, folder: Path) -> None:
    """Raise `UsageError` if anything but an earlier report is where the new one goes."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {out} must end with .html")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}; make it, or choose another --out")
    if out.exists() and not (out.is_file() and GENERATOR.encode() in out.read_bytes()[:1024]):
        raise UsageError(f"{out} is there already and is no livestem report; choose another --out")
    if folder.exists() and not (folder.is_dir() and all(p.suffix == ".png" for p in folder.iterdir())):
        raise UsageError(f"{folder} is there already and holds more than a report's figures; choose another --out")


def _write(out: Path, folder: Path, text: str, pictures: list[Picture]) -> tuple[Path, ...]:
    """Write figures, then the page, each whole; an earlier report's figures go."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for picture in pictures:
            (partial / picture.name).write_bytes(picture.png)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        whole = out.with_name(f".{out.name}.partial")
        whole.write_text(text, encoding="utf-8")
        os.replace(whole, out)
    except OSError as e:
        raise StoreError(f"the report cannot be written to {out}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return tuple(folder / picture.name for picture in pictures)
