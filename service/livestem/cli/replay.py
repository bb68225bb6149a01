"""``livestem replay``: recorded scans and journals through the wire."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from livestem.cli import ending
from livestem.cli import options as o
from livestem.cli.recordings import FileOptions, opened, scans, with_processing
from livestem.client.acquisition import Acquisition
from livestem.client.replay import TileSource, send_scan
from livestem.client.scan_writer import ScanWriter
from livestem.domain.errors import UsageError
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import Tile

Speed = Annotated[str, typer.Option("--speed", help="Times the recorded pace, or max.")]
Wait = Annotated[float, typer.Option("--wait", help="How long to wait for a segmenter, s.")]


@o.asks_for_processing
@o.asks_for_recording
def replay(
    asked: o.Asked,
    files: FileOptions,
    paths: Annotated[list[Path] | None, typer.Argument(help="Recordings, an HAADF + EDS pair, or journals.")] = None,
    speed: Speed = "1",
    session: o.Session = None,
    acquisition: o.AcquisitionAt = o.ACQUISITION_AT,
    keys: o.Keys = None,
    wait: Wait = 30.0,
) -> None:
    """Replay recorded scans through the same pipeline as a live session."""
    times = parse_speed(speed)
    groups = scans(paths or [], files)
    with opened(groups[0], files) as first:  # before anything is bound: a bad file starts nothing
        if times is not None and first.plan.dwell_s is None:
            raise UsageError("the recording does not know its dwell time; give --dwell-us, or --speed max")
    with Acquisition(session, o.endpoint(acquisition), recorded=True, keys=keys, tell=say) as source:
        source.wait_for_service(o.seconds(wait))
        for group in groups:
            with opened(group, files) as recording:
                for warning in recording.warnings:
                    print(f"warning: {warning}", file=sys.stderr)
                send_with_bar(source, recording, with_processing(recording.plan, asked.processing), times)


def send_with_bar(
    source: Acquisition,
    recording: TileSource,
    plan: ScanPlan,
    times: float | None,
    on_tile: Callable[[Tile], None] = lambda tile: None,
) -> None:
    """Send one scan with a progress bar, then say what was sent."""
    from livestem.cli.progress import scan_bar

    with scan_bar(plan, recording.scan_id) as bar:

        def sent(tile: Tile) -> None:
            on_tile(tile)
            bar(tile)

        with ending.unfinished(aborted(recording.scan_id, lambda: source.all_acknowledged)):
            writer = send_scan(source, recording, plan=plan, speed=times, on_tile=sent)
    print(told(source.session, writer), flush=True)


def aborted(scan_id: str, heard: Callable[[], bool]) -> Callable[[], str]:
    """Return what tells how a scan ends that is broken off here: `heard` says whether the service knows of it."""

    def words() -> str:
        if heard():
            return f"the service keeps what it has of {scan_id}, as an aborted scan"
        return f"the service was not there to hear it: what it has of {scan_id} it will finish as an incomplete scan"

    return words


def say(text: str) -> None:
    """Tell a person at a source what it waits for; above the progress bar, if there is one."""
    print(f"livestem: {text}", file=sys.stderr, flush=True)


def told(session: str, writer: ScanWriter) -> str:
    """Return what was sent and what the service says, in one line."""
    sent, verdict = writer.totals.sent, writer.verdict
    return (
        f"sent {session}/{writer.scan_id}: {sent.frames} frames, {sent.haadf_tiles} HAADF and "
        f"{sent.eds_tiles} EDS tiles, {sent.eds_counts} EDS counts; {verdict.words if verdict else ''}"
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
