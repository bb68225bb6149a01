"""From what is asked to what is done: the grid and the effective parameters of one scan."""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid, plan_grid
from livestem.domain.parameters import (
    PRESETS,
    Grey,
    LouvainBackend,
    LouvainWeights,
    Parameters,
    Preset,
    Processing,
    Register,
)
from livestem.domain.scan import ScanPlan
from livestem.domain.support import UNKNOWN

_MOST_KV = 5000.0  # no microscope has more than 3.5 MV
_SOFTEST_KEV = 0.2  # below lies the zero peak; lines are fitted from here on
_WIDEST_KEV = 1.0  # of a channel: detectors have a hundredth of it, and lines lie closer

Origin = Literal["user", "metadata", "automatic", "none"]

_WORDS: dict[str, tuple[str, ...]] = {
    "preset": tuple(PRESETS),
    "grey": get_args(Grey),
    "louvain_weights": get_args(LouvainWeights),
    "louvain_threshold": ("mode", "mean", "median", "or a number"),
    "louvain_backend": get_args(LouvainBackend),
    "register": get_args(Register),
}


def resolve(plan: ScanPlan, service: Processing, *, allow_sender: bool = True) -> tuple[Grid, Parameters]:
    """Return the grid and the effective parameters of a scan.

    Parameters
    ----------
    plan : ScanPlan
        Its `processing` wins over `service`, if the service allows it.
    service : Processing
        The service's flags over its configuration.
    allow_sender : bool
        Whether the sender's word counts.

    Raises
    ------
    LivestemError
        If the two together cannot be done: chip larger than the field, support chip outside the grid, a line
        that cannot be seen, a k-factor that is missing.
    """
    asked = plan.processing.over(service) if plan.processing is not None and allow_sender else service
    _check_instrument(plan)
    haadf, eds = (None if part is None else part.sampling for part in (plan.haadf, plan.eds))
    grid = plan_grid(haadf, eds, chip_px=asked.chip_px, chip_nm=asked.chip_nm)
    preset = asked.preset or "default"
    recipe = _recipe(PRESETS[preset], asked)
    lines = asked.lines or recipe.lines
    elements, origin = _elements(plan, asked, lines)
    grey, grey_range = _grey(plan, asked)
    parameters = Parameters(
        preset=preset,
        recipe=recipe,
        chip_px=grid.chip_px,
        chip_nm=grid.chip_nm,
        clusters=asked.clusters,
        elements=elements,
        elements_origin=origin,
        strays=asked.strays or (),
        lines=lines,
        k_factors=asked.k_factors or (plan.eds.k_factors if plan.eds else {}),
        absorption="uncorrected" if asked.thickness_nm is None else "corrected",
        thickness_nm=asked.thickness_nm,
        density_g_cm3=asked.density_g_cm3,
        support=asked.support,
        register="none" if plan.not_to_register else asked.register or "frames",
        reject=asked.reject or 0.0,
        modality_weights=asked.modality_weights or {},
        grey=grey,
        grey_range=grey_range,
        calibrate_region=asked.calibrate_region,
        d_nm=asked.d_nm,
    )
    if asked.support is not None:
        asked.support.indices(grid)  # refuses chips outside the grid
    if asked.density_g_cm3 is not None and asked.thickness_nm is None:
        raise UsageError("a density corrects nothing without a thickness; give --thickness-nm too")
    _check_fewshot(parameters)
    if asked.clusters is not None and asked.clusters > grid.chips:
        raise UsageError(f"{asked.clusters} clusters of {grid.chips} chips; use --clusters {grid.chips} or fewer")
    if plan.eds is not None and origin != "automatic":
        _check_lines(plan, parameters)
    return grid, parameters


def checked(**asked: object) -> Processing:
    """Build `Processing` from options, with one clear line for what is wrong."""
    for name, words in _WORDS.items():
        word = asked.get(name)
        if isinstance(word, str) and word not in words:
            raise UsageError(f"unknown {name} {word!r}; use {', '.join(words)}")
    try:
        return msgspec.convert(asked, Processing)
    except msgspec.ValidationError as e:
        raise UsageError(re.sub(r" - at `\$\.?([^`]*)`", r" (\1)", str(e))) from e


def _recipe(preset: Preset, asked: Processing) -> Preset:
    """Return a preset with what is asked beside it; who shapes the graph of chips wants communities of chips."""
    graph = (asked.louvain_weights, asked.louvain_threshold, asked.louvain_backend)
    of_chips = any(wish is not None for wish in graph) or (asked.ensembles or {}).get("louvain") == "mean"
    wishes = {
        "regions": tuple(method for method in preset.regions if method != "louvain") if of_chips else None,
        "louvain_weights": asked.louvain_weights,
        "louvain_threshold": asked.louvain_threshold,
        "louvain_backend": asked.louvain_backend,
        "ensembles": None if asked.ensembles is None else preset.ensembles | asked.ensembles,
    }
    return msgspec.structs.replace(preset, **{name: wish for name, wish in wishes.items() if wish is not None})


def _grey(plan: ScanPlan, asked: Processing) -> tuple[Grey, tuple[float, float] | None]:
    """Return how values become grey, and the range if it does not come from the image itself."""
    given = None if plan.haadf is None else plan.haadf.grey_range
    if asked.grey == "given" and plan.haadf is not None and given is None:
        raise UsageError("the recording gives no grey range; leave --grey out, or say --grey percentile")
    if asked.grey in ("given", "clahe"):
        return asked.grey, asked.grey_range or given
    if asked.grey == "percentile":
        return "percentile", None
    if asked.grey_range is not None:
        return asked.grey or "fixed", asked.grey_range
    return ("percentile", None) if given is None else ("given", given)


def _check_fewshot(parameters: Parameters) -> None:
    """Refuse what this preset's few-shot does not do."""
    preset, recipe, support = parameters.preset, parameters.recipe, parameters.support
    if parameters.modality_weights and recipe.ensembles["fewshot"] != "mean":
        raise UsageError(
            f"preset {preset} joins modalities by their noise, not by weights; leave --modality-weights out, "
            "or use --preset as_published"
        )
    if not parameters.reject:
        return
    if recipe.fewshot != "calibrated":
        raise UsageError(f"preset {preset} calls no chip unknown; leave --reject out, or use --preset default")
    if support is not None and UNKNOWN in support.names:
        raise UsageError(f"with --reject, {UNKNOWN} is the class of all other chips; give class {UNKNOWN} another name")
    if support is not None and sum(len(c.chips) for c in support.classes) == len(support.names):
        raise UsageError("--reject needs to see how chips of a class differ; give a class two chips or more")


def _elements(plan: ScanPlan, asked: Processing, lines: tuple[str, ...]) -> tuple[tuple[str, ...], Origin]:
    if plan.eds is None:
        return (), "none"
    strays = asked.strays or ()
    if asked.elements is not None:
        return tuple(e for e in dict.fromkeys(asked.elements) if e not in strays), "user"
    if lines:
        named = dict.fromkeys(line.partition("_")[0] for line in lines)
        return tuple(e for e in named if e not in strays), "user"
    return tuple(e for e in plan.eds.elements if e not in strays), "automatic"


def _check_instrument(plan: ScanPlan) -> None:
    """Refuse what no microscope is: a unit was mistaken, and no method could make sense of it."""
    beam_kv = plan.beam.energy_kv or 0.0  # not known is legal, and some write 0 for it
    if not 0 <= beam_kv <= _MOST_KV:
        raise UsageError(f"a beam energy of {beam_kv:g} kV is none of a microscope; state it in kV, or leave it out")
    if plan.eds is not None:
        axis = plan.eds.energy
        first, last = axis.offset_kev, axis.offset_kev + (axis.channels - 1) * axis.scale_kev
        if not (first < _MOST_KV and last > _SOFTEST_KEV and axis.scale_kev <= _WIDEST_KEV):
            raise UsageError(
                f"an energy axis from {first:g} to {last:g} keV shows no X-ray line; state its channels in keV"
            )


def _check_lines(plan: ScanPlan, parameters: Parameters) -> None:
    """Refuse now what the quantification would refuse at the end of the scan."""
    from livestem.runtime.quantification import quantifier_parts

    if not parameters.elements:
        raise UsageError("no element of the specimen is left beside the strays; give --elements")
    quantifier_parts(plan, parameters)
