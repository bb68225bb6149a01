"""``livestem replay``: recorded scans and journals through the wire."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from livestem.cli import options as o
from livestem.client.acquisition import Acquisition
from livestem.client.replay import TileSource, send_scan
from livestem.domain.errors import UsageError
from livestem.domain.scan import ScanPlan

Speed = Annotated[str, typer.Option("--speed", help="Times the recorded pace, or max.")]
Wait = Annotated[float, typer.Option("--wait", help="How long to wait for a segmenter, s.")]


def replay(
    paths: Annotated[list[Path] | None, typer.Argument(help="Recordings, an HAADF + EDS pair, or journals.")] = None,
    speed: Speed = "1",
    session: o.Session = None,
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
    acquisition: o.AcquisitionAt = o.ACQUISITION_AT,
    wait: Wait = 30.0,
) -> None:
    """Replay recorded scans through the same pipeline as a live session."""
    from livestem.cli.recordings import Options, opened, scans, with_processing

    times = parse_speed(speed)
    asked = o.processing(preset, config, support, chip_px, chip_nm, clusters, elements, lines, k_factors, strays)
    options = Options(haadf=haadf, eds=eds, image=image, dwell_us=dwell_us, pixel_nm=pixel_nm, energy_axis=energy_axis)
    groups = scans(paths or [], options)
    with opened(groups[0], options) as first:  # before anything is bound: a bad file starts nothing
        if times is not None and first.plan.dwell_s is None:
            raise UsageError("the recording does not know its dwell time; give --dwell-us, or --speed max")
    with Acquisition(session, o.endpoint(acquisition), recorded=True) as source:
        source.wait_for_service(wait)
        for group in groups:
            with opened(group, options) as recording:
                for warning in recording.warnings:
                    print(f"warning: {warning}", file=sys.stderr)
                send_with_bar(source, recording, with_processing(recording.plan, asked), times)


def send_with_bar(source: Acquisition, recording: TileSource, plan: ScanPlan, times: float | None) -> None:
    """Send one scan with a progress bar, then say what was sent."""
    from livestem.cli.progress import scan_bar

    with scan_bar(plan, recording.scan_id) as bar:
        writer = send_scan(source, recording, plan=plan, speed=times, on_tile=bar)
    sent = writer.totals.sent
    verdict = writer.verdict
    facts = "" if verdict is None else ", ".join(f"{k} {v}" for k, v in verdict.facts.items())
    print(
        f"sent {source.session}/{writer.scan_id}: {sent.frames} frames, {sent.haadf_tiles} HAADF and "
        f"{sent.eds_tiles} EDS tiles, {sent.eds_counts} EDS counts; {facts}"
    )


def parse_speed(text: str) -> float | None:
    """Return the factor of real time, or None for ``max``."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise UsageError(f"--speed takes a positive number or max, got {text!r}")
    return speed
