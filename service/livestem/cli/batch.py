"""``livestem batch``: recorded scans to result folders, without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from livestem.cli import ending
from livestem.cli import options as o
from livestem.cli.recordings import FileOptions, opened, scans, with_processing

if TYPE_CHECKING:
    from livestem.runtime.results import ScanResult


@o.asks_for_processing
@o.asks_for_recording
def batch(
    asked: o.Asked,
    files: FileOptions,
    out: Annotated[Path, typer.Option("--out", help="Result folder; with several scans, one folder each in it.")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Recordings, an HAADF + EDS pair, or journals.")] = None,
    device: o.Device = None,
    precision: o.Precision = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Results of earlier scans, for a support set that has chips of them."),
    ] = None,
    as_json: o.AsJson = False,
) -> None:
    """Process recorded scans with the service's own pipeline: the same digest, the same label maps."""
    from livestem.cli.progress import scan_bar
    from livestem.runtime.batch import run_batch
    from livestem.runtime.settings import load_settings

    settings = o.on_device(load_settings(asked.config), device, precision)
    where = settings.store if store is None else str(store)
    settings = msgspec.structs.replace(settings, processing=asked.processing, store=where)
    groups = scans(paths or [], files)
    for group in groups:
        with opened(group, files) as recording:
            for warning in recording.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            folder = out if len(groups) == 1 else out / recording.scan_id
            plan = with_processing(recording.plan, asked.processing)
            kept = f"nothing is kept of {recording.scan_id}; results of scans before it stay in {out}"
            with ending.unfinished(kept), scan_bar(plan, recording.scan_id) as bar:
                result = run_batch(recording, plan, settings, folder, on_tile=bar, on_accepted=_accepted)
        tell(result, folder, as_json)


def tell(result: ScanResult, folder: Path, as_json: bool) -> None:
    """Say what came out: a line of JSON, or what a person wants to know."""
    if as_json:
        from livestem.runtime.results import result_json

        print(json.dumps(msgspec.to_builtins(result_json(result)) | {"folder": str(folder)}))
        return
    from livestem.runtime.conclude import summary

    print(f"{summary(result)}\n  result       {folder}")
    print(f"  input digest {result.input_digest}\n  digest       {result.finals.digest}")
    for (method, modality), regions in result.finals.regions.items():
        print(f"  {method}.{modality}: {len(regions)} regions")
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _accepted(verdict: Any) -> None:
    print(f"{verdict.scan_id}: {verdict.words}", file=sys.stderr)
