"""``livestem watch``: what the vendor's software saves into a folder, published once it is complete."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from livestem.cli import options as o
from livestem.cli.replay import Wait, send_with_bar
from livestem.client.acquisition import Acquisition
from livestem.domain.errors import RefusedError, SourceError, UsageError


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder to watch, with everything below it.")],
    session: o.Session = None,
    existing: Annotated[bool, typer.Option("--existing", help="Publish what is there already, too.")] = False,
    settle: Annotated[float, typer.Option("--settle", min=0.1, help="How long a file must not have changed, s.")] = 2.0,
    scans: Annotated[int | None, typer.Option("--scans", min=1, help="Leave after so many scans.")] = None,
    dwell_us: o.DwellUs = None,
    pixel_nm: o.PixelNm = None,
    energy_axis: o.EnergyAxis = None,
    image: o.Image = None,
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
    acquisition: o.AcquisitionAt = o.ACQUISITION_AT,
    wait: Wait = 30.0,
) -> None:
    """Publish every recording that appears in a folder, as fast as the segmenter takes it."""
    from livestem.cli.recordings import Options, opened, with_processing
    from livestem.sources import Watched

    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; make it, or name another")
    asked = o.processing(preset, config, support, chip_px, chip_nm, clusters, elements, lines, k_factors, strays)
    options = Options(image=image, dwell_us=dwell_us, pixel_nm=pixel_nm, energy_axis=energy_axis)
    watched = Watched(folder, clock=time.monotonic, settle_s=settle, existing=existing)
    left = scans
    with Acquisition(session, o.endpoint(acquisition), recorded=True) as source:
        print(f"watching {folder}, publishing at {acquisition}", file=sys.stderr)
        while left is None or left > 0:
            for group in watched.poll():
                try:
                    with opened(group, options) as recording:
                        source.wait_for_service(wait)
                        send_with_bar(source, recording, with_processing(recording.plan, asked), None)
                        left = None if left is None else left - 1
                except (SourceError, RefusedError) as e:
                    watched.failed(group)
                    print(f"livestem: {group[0].name} skipped: {e}", file=sys.stderr)
            time.sleep(min(settle, 1.0) / 4)
