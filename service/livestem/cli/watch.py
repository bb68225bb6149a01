"""``livestem watch``: what the vendor's software saves into a folder, published once it is complete."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from livestem.cli import ending
from livestem.cli import options as o
from livestem.cli.recordings import FileOptions, opened, with_processing
from livestem.cli.replay import Wait, say, send_with_bar
from livestem.client.acquisition import Acquisition
from livestem.domain.errors import RefusedError, SourceError, TransportError, UsageError


@o.asks_for_processing
@o.asks_for_recording
def watch(
    asked: o.Asked,
    files: FileOptions,
    folder: Annotated[Path, typer.Argument(help="Folder to watch, with everything below it.")],
    session: o.Session = None,
    existing: Annotated[bool, typer.Option("--existing", help="Publish what is there already, too.")] = False,
    settle: Annotated[float, typer.Option("--settle", min=0.1, help="How long a file must not have changed, s.")] = 2.0,
    scans: Annotated[int | None, typer.Option("--scans", min=1, help="Leave after so many scans.")] = None,
    acquisition: o.AcquisitionAt = o.ACQUISITION_AT,
    keys: o.Keys = None,
    wait: Wait = 30.0,
) -> None:
    """Publish every recording that appears in a folder, as fast as the segmenter takes it."""
    import rsciio  # noqa: F401  (what is not installed is said now, not at the first file)

    from livestem.sources import Watched

    if files.haadf is not None or files.eds is not None:
        raise UsageError("--haadf and --eds name files; a watched folder's pairs are found by their names")
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; make it, or name another")
    watched = Watched(folder, clock=time.monotonic, settle_s=settle, existing=existing)
    left, wait = scans, o.seconds(wait)
    ends = ending.regular() if scans is None else ending.unfinished(f"fewer than {scans} scans have been published")
    with ends, Acquisition(session, o.endpoint(acquisition), recorded=True, keys=keys, tell=say) as source:
        print(f"watching {folder}, publishing at {acquisition}", file=sys.stderr)
        while left is None or left > 0:
            for group in watched.poll():
                try:
                    with opened(group, files) as recording:
                        _wait(source, wait)
                        send_with_bar(source, recording, with_processing(recording.plan, asked.processing), None)
                        left = None if left is None else left - 1
                except (SourceError, RefusedError) as e:
                    watched.failed(group)
                    print(f"livestem: {group[0].name} skipped: {e}", file=sys.stderr)
            time.sleep(min(settle, 1.0) / 4)


def _wait(source: Acquisition, wait: float) -> None:
    """Wait for a segmenter for as long as it takes, and say so: what was saved meanwhile is not to be missed."""
    while True:
        try:
            source.wait_for_service(wait)
            return
        except TransportError as e:
            print(f"livestem: {e}; waiting", file=sys.stderr)
