"""``livestem batch``: recorded scans to result folders, without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from livestem.cli import options as o

if TYPE_CHECKING:
    from livestem.runtime.results import ScanResult


def batch(
    out: Annotated[Path, typer.Option("--out", help="Result folder; with several scans, one folder each in it.")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Recordings, an HAADF + EDS pair, or journals.")] = None,
    haadf: o.Haadf = None,
    eds: o.Eds = None,
    image: o.Image = None,
    dwell_us: o.DwellUs = None,
    pixel_nm: o.PixelNm = None,
    energy_axis: o.EnergyAxis = None,
    preset: o.Preset = None,
    config: o.Config = None,
    support: o.Support = None,
    chip_px: o.ChipPx = None,
    chip_nm: o.ChipNm = None,
    clusters: o.Clusters = None,
    elements: o.Elements = None,
    lines: o.Lines = None,
    k_factors: o.KFactors = None,
    strays: o.Strays = None,
    as_json: o.AsJson = False,
) -> None:
    """Process recorded scans with the service's own pipeline: the same digest, the same label maps."""
    from livestem.cli.progress import scan_bar
    from livestem.cli.recordings import Options, opened, scans, with_processing
    from livestem.runtime.batch import run_batch
    from livestem.runtime.settings import load_settings

    asked = o.processing(preset, config, support, chip_px, chip_nm, clusters, elements, lines, k_factors, strays)
    settings = msgspec.structs.replace(load_settings(config), processing=asked)
    options = Options(haadf=haadf, eds=eds, image=image, dwell_us=dwell_us, pixel_nm=pixel_nm, energy_axis=energy_axis)
    groups = scans(paths or [], options)
    for group in groups:
        with opened(group, options) as recording:
            for warning in recording.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            folder = out if len(groups) == 1 else out / recording.scan_id
            plan = with_processing(recording.plan, asked)
            with scan_bar(plan, recording.scan_id) as bar:
                result = run_batch(recording, plan, settings, folder, on_tile=bar, on_accepted=_accepted)
        tell(result, folder, as_json)


def tell(result: ScanResult, folder: Path, as_json: bool) -> None:
    """Say what came out: a line of JSON, or what a person wants to know."""
    if as_json:
        from livestem.runtime.results import result_json

        print(json.dumps(msgspec.to_builtins(result_json(result)) | {"folder": str(folder)}))
        return
    print(f"{result.session}/{result.scan_id}: {result.status}, result in {folder}")
    print(f"  input digest {result.input_digest}\n  digest       {result.finals.digest}")
    for (method, modality), regions in result.finals.regions.items():
        print(f"  {method}.{modality}: {len(regions)} regions")
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _accepted(verdict: Any) -> None:
    facts = ", ".join(f"{k} {v}" for k, v in verdict.facts.items())
    print(f"{verdict.scan_id}: {facts}", file=sys.stderr)
