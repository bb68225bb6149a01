"""Options that several commands share, and what they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from livestem.client.endpoints import ACQUISITION, RESULTS, Endpoint
from livestem.domain.errors import UsageError
from livestem.domain.parameters import Processing

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
KFactors = Annotated[Path | None, typer.Option("--k-factors", help="CSV `line,k`, weight k-factors.")]
Strays = Annotated[str | None, typer.Option("--strays", help="Elements that are not of the specimen, such as Cu,C.")]
DwellUs = Annotated[float | None, typer.Option("--dwell-us", help="Dwell time, µs, where the file does not know it.")]
PixelNm = Annotated[float | None, typer.Option("--pixel-nm", help="Pixel size, nm, where the file does not know it.")]
EnergyAxis = Annotated[
    str | None, typer.Option("--energy-axis", help="OFFSET:SCALE in keV, where the file does not know it.")
]
Haadf = Annotated[Path | None, typer.Option("--haadf", help="File with the HAADF image.")]
Eds = Annotated[Path | None, typer.Option("--eds", help="File with the EDS spectrum image.")]
Image = Annotated[str | None, typer.Option("--image", help="Which image is the HAADF, where there are several.")]
Session = Annotated[str | None, typer.Option("--session", help="Name of the session; a fresh one by default.")]
AcquisitionAt = Annotated[
    str, typer.Option("--acquisition", help="ZeroMQ endpoint that acquisition data are published at.")
]
ResultsAt = Annotated[str, typer.Option("--results", help="ZeroMQ endpoint that results are published at.")]
Store = Annotated[
    Path | None, typer.Option("--store", help="Folder of results; $LIVESTEM_STORE, else ./livestem-store.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]

ACQUISITION_AT = ACQUISITION.endpoint
RESULTS_AT = RESULTS.endpoint


def endpoint(text: str) -> Endpoint:
    """Return an endpoint given on the command line."""
    try:
        return Endpoint(text)
    except ValueError as e:
        raise UsageError(str(e)) from e


def names(text: str | None) -> tuple[str, ...] | None:
    """Return a comma-separated list; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def processing(
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
        support=None if support is None else load_support(support),
    )
    return flags.over(load_settings(config).processing)
