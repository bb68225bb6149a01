"""Composition of a scan's regions as bars, with what counting statistics leave open; a panel for each method."""

from __future__ import annotations

from typing import Any

from livestem.domain.regions import Region
from livestem.runtime.drawing import new_figure, one_line
from livestem.runtime.map_colours import Legend
from livestem.runtime.report.maps import PAGE_IN, place_name
from livestem.runtime.report.scan import Scan, map_title

MOST_REGIONS = 8  # of a map, the largest: more bars would be too thin to read in print
_PANEL_IN = 1.7  # height of a panel
_TEXT_PT = 7.0
_GROUP = 0.82  # of the distance between two elements that their bars fill


def draw_composition(scan: Scan, legend: Legend) -> Any | None:
    """Return the figure of the regions' compositions; None where no region has one."""
    maps = {name: shown for name in scan.main_maps.values() if (shown := quantified(scan.regions(name)))}
    if not maps:
        return None
    figure = new_figure(PAGE_IN, _PANEL_IN * len(maps))
    for i, (name, regions) in enumerate(maps.items()):
        axis = figure.add_subplot(len(maps), 1, i + 1)
        _draw_bars(axis, scan, legend, name, regions)
        axis.set_title(one_line(map_title(name), 60), fontsize=_TEXT_PT + 1, loc="left", pad=3)
    return figure


def quantified(regions: list[Region]) -> list[Region]:
    """Return the largest regions that have a composition."""
    return [r for r in regions if any(v is not None for v in (r.atomic_percent or {}).values())][:MOST_REGIONS]


def elements_of(regions: list[Region]) -> list[str]:
    """Return the elements of which any of these regions has a value, in the result's order."""
    named = dict.fromkeys(e for region in regions for e in region.atomic_percent or {})
    return [e for e in named if any((r.atomic_percent or {}).get(e) is not None for r in regions)]


def _draw_bars(axis: Any, scan: Scan, legend: Legend, name: str, regions: list[Region]) -> None:
    elements = elements_of(regions)
    width = _GROUP / len(regions)
    for k, region in enumerate(regions):
        place = scan.place(name, region.label, legend)
        at = [i - _GROUP / 2 + (k + 0.5) * width for i in range(len(elements))]
        percent, sigma = region.atomic_percent or {}, region.atomic_percent_sigma or {}
        for x, element in zip(at, elements, strict=True):
            value, error = percent.get(element), sigma.get(element)
            if value is None:
                axis.text(x, 0, " not determined", rotation=90, ha="center", va="bottom", fontsize=5, color="0.35")
                continue
            axis.bar(x, value, width, color=legend.colours[place], edgecolor="black", linewidth=0.4)
            if error is not None:
                axis.errorbar(x, value, error, ecolor="black", elinewidth=0.8, capsize=1.8, capthick=0.8, fmt="none")
    axis.set_xticks(range(len(elements)), elements, fontsize=_TEXT_PT)
    axis.set_xlim(-0.55, len(elements) - 0.45)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("atomic %", fontsize=_TEXT_PT)
    axis.tick_params(axis="y", labelsize=_TEXT_PT)
    axis.spines[["top", "right"]].set_visible(False)
    _name_the_bars(axis, scan, legend, name, regions)


def _name_the_bars(axis: Any, scan: Scan, legend: Legend, name: str, regions: list[Region]) -> None:
    from matplotlib.patches import Patch

    handles = []
    for region in regions:
        place = scan.place(name, region.label, legend)
        text = one_line(region_name(region, legend, place), 30)
        handles.append(Patch(facecolor=legend.colours[place], edgecolor="black", linewidth=0.4, label=text))
    axis.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=_TEXT_PT - 0.5, frameon=False,
        handlelength=1.2, handleheight=1.0,
    )  # fmt: skip


def region_name(region: Region, legend: Legend, place: int) -> str:
    """Return a region's name, with what it is called in the legend where that is another."""
    place_called = place_name(legend, place)
    return region.name if region.name == place_called else f"{region.name} ({place_called})"
