"""``livestem serve``: the segmenter."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from livestem.cli import options as o


def serve(
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
    store: o.Store = None,
    acquisition: Annotated[
        list[str] | None, typer.Option("--acquisition", help="Endpoint of an adapter to attach to; may be repeated.")
    ] = None,
    results: Annotated[str | None, typer.Option("--results", help="Endpoint to publish results at.")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="Port of /health and /metrics.")] = None,
) -> None:
    """Run the segmenter: attach to an instrument, segment live, cluster at scan end, publish and store."""
    from livestem.domain.errors import LivestemError
    from livestem.runtime.segmenter import Segmenter
    from livestem.runtime.settings import load_settings

    settings = load_settings(config)
    asked = o.processing(preset, config, support, chip_px, chip_nm, clusters, elements, lines, k_factors, strays)
    changes: dict[str, object] = {"processing": asked}
    if store is not None:
        changes["store"] = str(store)
    if acquisition:
        changes["acquisition"] = tuple(o.endpoint(text) for text in acquisition)
    if results is not None:
        changes["results"] = o.endpoint(results)
    if http_port is not None:
        changes["http"] = msgspec.structs.replace(settings.http, port=http_port)
    settings = msgspec.structs.replace(settings, **changes)

    announce = _teller()
    segmenter = Segmenter(settings, announce)
    announce(
        f"ready: attaching to {', '.join(e.endpoint for e in settings.acquisition)}, results at "
        f"{settings.results.endpoint}, health at http://{settings.http.host}:{segmenter.http.port}/health, "
        f"store {Path(settings.store_path)}"
    )
    try:
        while not segmenter.failed:
            threading.Event().wait(0.5)
        raise LivestemError("the service stopped because of a fault of ours; its log says more")
    except KeyboardInterrupt:
        announce("stopping: finishing what is under way")
    finally:
        segmenter.close()


def _teller() -> Teller:
    return Teller()


class Teller:
    """Prints one line a fact, with the time; safe from any thread."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=True)

    def __call__(self, text: str) -> None:
        """Print a line."""
        import datetime

        self._console.print(f"{datetime.datetime.now():%H:%M:%S} {text}", markup=False)
