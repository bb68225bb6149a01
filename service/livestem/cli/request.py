"""``livestem request``: ask an instrument for a scan."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import typer

from livestem.cli import options as o
from livestem.domain.errors import UsageError
from livestem.domain.request import ScanGrant, ScanRequest


def request(
    region_nm: Annotated[
        str | None, typer.Option("--region-nm", metavar="Y,X,H,W", help="Region in the session's frame, nm.")
    ] = None,
    region_px: Annotated[
        str | None, typer.Option("--region-px", metavar="Y,X,H,W", help="Region in pixels of the scan --of.")
    ] = None,
    of: Annotated[
        str | None, typer.Option("--of", metavar="SCAN", help="The earlier scan whose pixels --region-px counts.")
    ] = None,
    frames: Annotated[int, typer.Option("--frames", help="Passes of the beam.")] = 1,
    dwell_us: Annotated[
        float | None, typer.Option("--dwell-us", help="Time per pixel and frame, µs; the instrument's if not given.")
    ] = None,
    pixel_nm: Annotated[
        float | None, typer.Option("--pixel-nm", help="Side of a pixel, nm; the instrument's if not given.")
    ] = None,
    modalities: Annotated[str, typer.Option("--modalities", help="What to measure.")] = "haadf,eds",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    acquisition: o.AcquisitionAt = o.ACQUISITION_AT,
    keys: o.Keys = None,
    server_key: o.ServerKey = None,
    wait: Annotated[float, typer.Option("--wait", help="How long to wait for the instrument, s.")] = 10.0,
    as_json: o.AsJson = False,
) -> None:
    """Ask an instrument for a scan; without a region, of its whole field."""
    from livestem.client.instrument import Instrument

    asked = _request(
        region_nm=None if region_nm is None else _four(region_nm, "--region-nm", float),
        region_px=None if region_px is None else _four(region_px, "--region-px", int),
        of=of,
        frames=frames,
        dwell_s=None if dwell_us is None else dwell_us / 1e6,
        pixel_nm=pixel_nm,
        modalities=o.names(modalities),
        reason=reason,
    )
    with Instrument(o.endpoint(acquisition, server_key), name="livestem request", keys=keys) as instrument:
        grant = instrument.request_scan(asked, o.seconds(wait))
    print(json.dumps(msgspec.to_builtins(grant)) if as_json else _in_words(grant))


def _request(**given: Any) -> ScanRequest:
    try:
        return ScanRequest(**given)
    except ValueError as e:
        raise UsageError(str(e)) from e


def _four(text: str, option: str, kind: type[float] | type[int]) -> tuple[float, ...]:
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        of_which = "nm" if kind is float else "whole pixels"
        raise UsageError(f"{option} takes Y,X,HEIGHT,WIDTH in {of_which}, such as 10,20,64,64; got {text!r}")
    return numbers


def _in_words(grant: ScanGrant) -> str:
    dose = "dose not known" if grant.dose_e_nm2 is None else f"{grant.dose_e_nm2:.4g} electrons per nm²"
    before = "" if grant.queued == 0 else f", {grant.queued} before it"
    return f"granted {grant.scan_id}: {grant.duration_s:.3g} s of beam, {dose}{before}"
