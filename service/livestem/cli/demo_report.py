"""The demo's result for a person: tables on the terminal, one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from livestem.cli.heard import Heard
from livestem.cli.listen import drift_in_words
from livestem.wire import messages as m

if TYPE_CHECKING:
    from livestem.runtime.picture import MapPanel
    from livestem.simulator import Simulation
    from livestem.wire.codec import Message

_SHOWN = 8  # regions a map; the paper's way makes a hundred communities, and the result file holds them all


def report(console: Any, simulation: Simulation, heard: Heard, folder: Path, picture: Path) -> None:
    """Print the tables and draw the picture."""
    from livestem.runtime.results import read_grid

    grid = read_grid(folder / "result.json")
    moved = heard.registration
    truth, _ = simulation.truth.class_of_chips(grid, registered=moved is not None and moved.determined > 0)
    if moved is not None:
        console.print(f"{moved.determined + 1} frames registered; drift {drift_in_words(moved.drift_nm)}")
    console.print(_scores(heard, truth, simulation.truth.names))
    console.print(_agreements(heard))
    console.print(_regions(heard))
    _draw(simulation, heard, truth, grid, picture)


def _scores(heard: Heard, truth: Any, names: tuple[str, ...]) -> Any:
    from rich.table import Table

    from livestem.runtime.finals import ami

    table = Table("method", "modality", "regions", "AMI against truth", "accuracy", title="Label maps")
    for (method, modality), message in heard.maps.items():
        labels = message.arrays[0]
        known = (labels >= 0) & (truth >= 0)
        accuracy = f"{np.mean(labels[known] == truth[known]):.3f}" if method == "fewshot" and known.any() else "-"
        table.add_row(method, modality, str(int(labels.max(initial=-1)) + 1), _number(ami(labels, truth)), accuracy)
    return table


def _agreements(heard: Heard) -> Any:
    from rich.table import Table

    pairs = list(dict.fromkeys(pair for found in heard.agreement.values() for pair in found))
    table = Table("AMI between", *heard.agreement, title="Agreement of the modalities")
    for pair in pairs:
        table.add_row(pair, *(_number(found.get(pair)) for found in heard.agreement.values()))
    return table


def _regions(heard: Heard) -> Any:
    from rich.table import Table

    table = Table("region", "chips", "composition, at.%", "d, nm", title="Regions of the joint maps")
    for (method, modality), regions in heard.regions.items():
        if "+" not in modality:
            continue
        table.add_section()
        table.add_row(f"[bold]{method}.{modality}[/]", "", "", "")
        largest = sorted(regions, key=lambda region: -region.chips)
        for region in largest[:_SHOWN]:
            percent, sigma = region.atomic_percent or {}, region.atomic_percent_sigma or {}
            atoms = "  ".join(
                f"{e} {v:.1f}±{sigma.get(e) or 0:.1f}" for e, v in percent.items() if v is not None and v >= 0.5
            )
            spacing = (
                f"{region.d_spacing_nm:.5f}±{region.d_spacing_sigma_nm or 0:.5f}"
                if region.d_spacing_nm is not None
                else region.notes.get("d_spacing_nm", "-").partition(":")[0]
            )
            table.add_row(region.name, str(region.chips), atoms or "-", spacing)
        if len(regions) > _SHOWN:
            rest = sum(region.chips for region in largest[_SHOWN:])
            table.add_row(f"{len(regions) - _SHOWN} smaller", str(rest), "", "")
    return table


def _draw(simulation: Simulation, heard: Heard, truth: Any, grid: Any, picture: Path) -> None:
    from livestem.runtime.picture import MapPanel, draw_overview

    names = simulation.truth.names
    panels = [MapPanel(title="truth", labels=truth, names=names)]
    if heard.last_live is not None:
        panels.append(_panel("few-shot, live", heard.last_live))
    for (method, modality), message in heard.maps.items():
        if "+" in modality:
            panels.append(_panel(f"{method}, {modality}", message))
    frame = simulation.frame(0).haadf
    draw_overview(
        frame,
        grid.pixel_nm,
        panels,
        picture,
        f"{simulation.specimen.title}: {simulation.frames} frames",
        chip_nm=grid.chip_nm,
        coverage=_shares(heard),
    )


def _shares(heard: Heard) -> dict[str, Any]:
    """Return what of each chip came, by modality."""
    if heard.coverage is None:
        return {}
    header = heard.coverage.header
    assert isinstance(header, m.CoverageMap)
    return dict(zip(header.modalities, heard.coverage.arrays[0], strict=True))


def _panel(title: str, message: Message) -> MapPanel:
    from livestem.runtime.picture import MapPanel

    header = message.header
    assert isinstance(header, m.Live | m.Segmentation)
    return MapPanel(title=title, labels=message.arrays[0], names=header.classes)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
