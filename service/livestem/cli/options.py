"""Options that several commands share, and what they become."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from livestem.client.endpoints import ACQUISITION, RESULTS, Endpoint
from livestem.client.keys import KEYS_ENVIRONMENT
from livestem.domain.errors import UsageError
from livestem.domain.names import check_name
from livestem.domain.parameters import Processing

if TYPE_CHECKING:
    from livestem.runtime.settings import Settings

Preset = Annotated[
    str | None, typer.Option("--preset", help="default, as_published (VGG16, the paper's text) or graphem (its code).")
]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file; every key has a default.")]
Support = Annotated[Path | None, typer.Option("--support", help="Support file: classes and their example chips.")]
ChipPx = Annotated[int | None, typer.Option("--chip-px", help="Side of a chip, pixels of the finer modality.")]
ChipNm = Annotated[float | None, typer.Option("--chip-nm", help="Side of a chip, nm.")]
Clusters = Annotated[
    int | None, typer.Option("--clusters", help="Clusters for Ward; suggested from the data if not given.")
]
Elements = Annotated[
    str | None, typer.Option("--elements", help="Of the specimen, such as La,Fe,O; else found in the data.")
]
Lines = Annotated[str | None, typer.Option("--lines", help="X-ray lines to quantify with, such as La_La,Fe_Ka.")]
KFactors = Annotated[
    Path | None, typer.Option("--k-factors", help="CSV `line,k` that states its convention, or a Velox export.")
]
Strays = Annotated[str | None, typer.Option("--strays", help="Elements that are not of the specimen, such as Cu,C.")]
GreyMode = Annotated[
    str | None,
    typer.Option("--grey", help="What becomes black and white for VGG16: given, fixed, survey, percentile or clahe."),
]
GreyRange = Annotated[str | None, typer.Option("--grey-range", help="LOW:HIGH, detector values that become 0 and 255.")]
Survey = Annotated[Path | None, typer.Option("--survey", help="Survey image whose percentiles become 0 and 255.")]
Ensembles = Annotated[
    str | None, typer.Option("--ensembles", help="How modalities are joined, such as ward=vector,louvain=mean.")
]
LouvainWeights = Annotated[str | None, typer.Option("--louvain-weights", help="Of edges: similarity or binary.")]
LouvainThreshold = Annotated[
    str | None, typer.Option("--louvain-threshold", help="Edges below are dropped: mode, mean, median or a number.")
]
LouvainBackend = Annotated[
    str | None, typer.Option("--louvain-backend", help="matrix; or igraph; or networkx: the slow reference.")
]
CalibrateRegion = Annotated[
    str | None, typer.Option("--calibrate-region", help="A class or cluster whose lattice is known; with --d-nm.")
]
DNm = Annotated[float | None, typer.Option("--d-nm", help="Its longest spacing, nm: 0.3905 for SrTiO3.")]
ThicknessNm = Annotated[
    float | None, typer.Option("--thickness-nm", help="Of the specimen, nm: corrects compositions for its absorption.")
]
Density = Annotated[
    float | None, typer.Option("--density", help="Of the specimen, for that correction; else estimated.")
]
Register = Annotated[
    str | None,
    typer.Option("--register", help="frames: undo drift by the HAADF (default); none: sum them as they come."),
]
Reject = Annotated[
    float | None, typer.Option("--reject", help="Call chips like no class unknown; wrongly this share, such as 0.01.")
]
ModalityWeights = Annotated[
    str | None, typer.Option("--modality-weights", help="Of few-shot's mean of scores, such as haadf=0.45,eds=0.55.")
]
DwellUs = Annotated[float | None, typer.Option("--dwell-us", help="Dwell time, µs, where the file does not know it.")]
PixelNm = Annotated[float | None, typer.Option("--pixel-nm", help="Pixel size, nm, where the file does not know it.")]
EnergyAxis = Annotated[
    str | None, typer.Option("--energy-axis", help="OFFSET:SCALE in keV, where the file does not know it.")
]
Haadf = Annotated[Path | None, typer.Option("--haadf", help="File with the HAADF image.")]
Eds = Annotated[Path | None, typer.Option("--eds", help="File with the EDS spectrum image.")]
Image = Annotated[str | None, typer.Option("--image", help="Which image is the HAADF, where there are several.")]
Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        callback=lambda name: legal(name, "session"),  # before anything is read or made
        help="Name of the session; a fresh one by default.",
    ),
]
AcquisitionAt = Annotated[
    str, typer.Option("--acquisition", help="ZeroMQ endpoint that acquisition data are published at.")
]
ResultsAt = Annotated[str, typer.Option("--results", help="ZeroMQ endpoint that results are published at.")]
Store = Annotated[
    Path | None, typer.Option("--store", help="Folder of results; $LIVESTEM_STORE, else ./livestem-store.")
]
Device = Annotated[str | None, typer.Option("--device", help="Where VGG16 runs: cpu, cuda or cuda:1.")]
Precision = Annotated[str | None, typer.Option("--precision", help="Of VGG16's arithmetic: fp32 or bf16.")]
KEYS_HELP = "Folder of keys, or the secret key in it: nobody else gets in."
Keys = Annotated[Path | None, typer.Option("--keys", envvar=KEYS_ENVIRONMENT, help=KEYS_HELP)]
ServerKey = Annotated[
    str | None,
    typer.Option(
        "--server-key", envvar="LIVESTEM_SERVER_KEY", help="Public key of whom we connect to, or its NAME.key."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]

ACQUISITION_AT = ACQUISITION.endpoint
RESULTS_AT = RESULTS.endpoint


def legal(name: str | None, what: str) -> str | None:
    """Return a name given on the command line, if there is one; it may become a folder."""
    try:
        return None if name is None else check_name(name, what)
    except ValueError as e:
        raise UsageError(str(e)) from e


def endpoint(text: str, server_key: str | None = None) -> Endpoint:
    """Return an endpoint given on the command line, with the key of whom we meet there."""
    try:
        return Endpoint(text, server_key=server_key)
    except ValueError as e:
        raise UsageError(str(e)) from e


def seconds(value: float) -> float:
    """Return a waiting time given on the command line."""
    if not 0 <= value < 1e6:
        raise UsageError(f"--wait takes seconds, 0 to a million, got {value:g}")
    return value


def names(text: str | None) -> tuple[str, ...] | None:
    """Return a comma-separated list; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def weights(text: str | None) -> dict[str, float] | None:
    """Return ``name=number,...``; None stays None."""
    parts = names(text)
    if parts is None:
        return None
    try:
        return {name: float(number) for name, number in (part.split("=") for part in parts)}
    except ValueError as e:
        raise UsageError(f"--modality-weights takes haadf=NUMBER,eds=NUMBER, got {text!r}") from e


@dataclass(frozen=True)
class Asked:
    """What flags and configuration ask for, flags first, and the configuration's file."""

    processing: Processing
    config: Path | None = None


_PROCESSING: dict[str, object] = {
    "preset": Preset,
    "config": Config,
    "support": Support,
    "chip_px": ChipPx,
    "chip_nm": ChipNm,
    "clusters": Clusters,
    "elements": Elements,
    "lines": Lines,
    "k_factors": KFactors,
    "strays": Strays,
    "grey": GreyMode,
    "grey_range": GreyRange,
    "survey": Survey,
    "ensembles": Ensembles,
    "louvain_weights": LouvainWeights,
    "louvain_threshold": LouvainThreshold,
    "louvain_backend": LouvainBackend,
    "calibrate_region": CalibrateRegion,
    "d_nm": DNm,
    "thickness_nm": ThicknessNm,
    "density_g_cm3": Density,
    "register": Register,
    "reject": Reject,
    "modality_weights": ModalityWeights,
}
_RECORDING: dict[str, object] = {
    "haadf": Haadf,
    "eds": Eds,
    "image": Image,
    "dwell_us": DwellUs,
    "pixel_nm": PixelNm,
    "energy_axis": EnergyAxis,
}


def asks_for_processing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how a scan is processed; it takes them as one ``asked: Asked``."""
    return _with_options(
        command, "asked", _PROCESSING, lambda given: Asked(processing(**given), config=given["config"])
    )


def asks_for_recording(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how files are understood; it takes them as one ``files: FileOptions``."""
    from livestem.cli.recordings import FileOptions

    return _with_options(command, "files", _RECORDING, lambda given: FileOptions(**given))


def _with_options(
    command: Callable[..., None], name: str, options: dict[str, object], gather: Callable[[dict[str, Any]], object]
) -> Callable[..., None]:
    """Replace the parameter `name` of a command by `options`, all None by default."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        command(**{name: gather({option: given.pop(option) for option in options}), **given})

    signature = inspect.signature(command, eval_str=True)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name != name:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        parameters += [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for option, annotation in options.items()
        ]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return wrapper


def processing(
    *,
    preset: str | None,
    config: Path | None,
    support: Path | None,
    chip_px: int | None,
    chip_nm: float | None,
    clusters: int | None,
    elements: str | None,
    lines: str | None,
    k_factors: Path | None,
    strays: str | None,
    grey: str | None,
    grey_range: str | None,
    survey: Path | None,
    ensembles: str | None,
    louvain_weights: str | None,
    louvain_threshold: str | None,
    louvain_backend: str | None,
    calibrate_region: str | None,
    d_nm: float | None,
    thickness_nm: float | None,
    density_g_cm3: float | None,
    register: str | None,
    reject: float | None,
    modality_weights: str | None,
) -> Processing:
    """Return what flags and configuration ask for, flags first.

    Raises
    ------
    UsageError
        With one line for what is wrong: an unknown element, key, preset, or a file that cannot be used.
    """
    from livestem.runtime.recipe import checked
    from livestem.runtime.settings import load_settings, load_support

    if chip_px is not None and chip_nm is not None:
        raise UsageError("--chip-px and --chip-nm are one choice; give one of them")
    table = None
    if k_factors is not None:
        from livestem.runtime.quantification import read_k_factors

        table = read_k_factors(k_factors)
    flags = checked(
        preset=preset,
        chip_px=chip_px,
        chip_nm=chip_nm,
        clusters=clusters,
        elements=names(elements),
        lines=names(lines),
        k_factors=table,
        strays=names(strays),
        thickness_nm=thickness_nm,
        density_g_cm3=density_g_cm3,
        support=None if support is None else load_support(support),
        **_grey(grey, grey_range, survey),
        ensembles=_ensembles(ensembles),
        louvain_weights=louvain_weights,
        louvain_threshold=_number(louvain_threshold),
        louvain_backend=louvain_backend,
        calibrate_region=calibrate_region,
        d_nm=d_nm,
        register=register,
        reject=reject,
        modality_weights=weights(modality_weights),
    )
    return flags.over(load_settings(config).processing)


def on_device(settings: Settings, device: str | None, precision: str | None) -> Settings:
    """Return settings whose encoder runs where the flags say."""
    flags = {"device": device, "precision": precision}
    changed = msgspec.to_builtins(settings) | {name: flag for name, flag in flags.items() if flag is not None}
    try:
        return msgspec.convert(changed, type(settings))
    except msgspec.ValidationError as e:
        raise UsageError(f"{e}; --device takes cpu, cuda or cuda:N, --precision fp32 or bf16") from e


def _grey(mode: str | None, limits: str | None, survey: Path | None) -> dict[str, object]:
    """Return what ``--grey``, ``--grey-range`` and ``--survey`` ask for."""
    if limits is not None and survey is not None:
        raise UsageError("--grey-range and --survey are one choice; give one of them")
    if limits is not None:
        try:
            low, high = (float(part) for part in limits.split(":"))
        except ValueError as e:
            raise UsageError(f"--grey-range takes LOW:HIGH, such as 200:4000, got {limits!r}") from e
        return {"grey": mode or "fixed", "grey_range": (low, high)}
    if survey is not None:
        from livestem.cli.recordings import FileOptions, opened
        from livestem.runtime.survey import survey_range

        with opened((survey,), FileOptions()) as image:
            return {"grey": mode or "survey", "grey_range": survey_range(image)}
    return {"grey": mode}


def _ensembles(text: str | None) -> dict[str, str] | None:
    """Return ``method=way`` pairs."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in names(text) or ()]
    if not all(equals for _, equals, _ in pairs):
        raise UsageError(f"--ensembles takes METHOD=WAY, such as ward=vector,louvain=mean, got {text!r}")
    return {method: way for method, _, way in pairs}


def _number(text: str | None) -> str | float | None:
    """Return the number that a text is, or the text."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
