"""``livestem serve``: the segmenter."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from livestem.cli import options as o


@o.asks_for_processing
def serve(
    asked: o.Asked,
    store: o.Store = None,
    device: o.Device = None,
    precision: o.Precision = None,
    acquisition: Annotated[
        list[str] | None, typer.Option("--acquisition", help="Endpoint of an adapter to attach to; may be repeated.")
    ] = None,
    results: Annotated[str | None, typer.Option("--results", help="Endpoint to publish results at.")] = None,
    http_port: Annotated[
        int | None, typer.Option("--http-port", min=0, max=65535, help="Port of /health and /metrics.")
    ] = None,
) -> None:
    """Run the segmenter: attach to an instrument, segment live, cluster at scan end, publish and store."""
    from livestem.domain.errors import LivestemError
    from livestem.runtime.segmenter import Segmenter
    from livestem.runtime.settings import load_settings

    settings = load_settings(asked.config)
    changes: dict[str, object] = {"processing": asked.processing}
    if store is not None:
        changes["store"] = str(store)
    if acquisition:
        changes["acquisition"] = tuple(o.endpoint(text) for text in acquisition)
    if results is not None:
        changes["results"] = o.endpoint(results)
    if http_port is not None:
        changes["http"] = msgspec.structs.replace(settings.http, port=http_port)
    settings = o.on_device(msgspec.structs.replace(settings, **changes), device, precision)

    announce, stop = Teller(), _stop_on_signals()
    segmenter = Segmenter(settings, announce)
    try:
        announce(
            f"ready: attaching to {', '.join(e.endpoint for e in settings.acquisition)}, results at "
            f"{settings.results.endpoint}, health at http://{settings.http.host}:{segmenter.http.port}/health, "
            f"store {Path(settings.store_path)}"
        )
        while not stop.wait(0.5):
            if segmenter.monitor.failed:
                raise LivestemError("the service stopped because of a fault of ours; its log says more")
        announce("stopping: finishing what is under way")
    finally:
        segmenter.close()


def _stop_on_signals() -> threading.Event:
    """Return what SIGTERM and Ctrl-C set, wherever they catch us; a second one does not wait."""
    stop = threading.Event()

    def asked(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
    return stop


class Teller:
    """Prints one line a fact, with the time; safe from any thread."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=True)

    def __call__(self, text: str) -> None:
        """Print a line."""
        import datetime

        self._console.print(f"{datetime.datetime.now():%H:%M:%S} {text}", markup=False)
