"""``livestem serve``: the segmenter."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from livestem.cli import ending, logs
from livestem.cli import options as o
from livestem.domain.names import one_line

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from livestem.runtime.segmenter import Segmenter
    from livestem.runtime.settings import Settings
    from livestem.runtime.store import Store

log = logging.getLogger(__name__)

_POLL_S = 0.5  # until a thread's death, or a signal where those do not wake us (Windows), is noticed
_LOOK_S = 5.0  # between looks at the service's health, for its log and for a watchdog

LogFormat = Annotated[logs.Format, typer.Option("--log-format", help="text, or json: one object a line, on stdout.")]


@ending.regular()
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
    keys: Annotated[Path | None, typer.Option("--keys", help=o.KEYS_HELP)] = None,  # after the file, the environment
    server_key: Annotated[
        str | None, typer.Option("--server-key", help="Public key of the adapters of --acquisition, or its NAME.key.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option("--http-port", min=0, max=65535, help="Port of /health and /metrics.")
    ] = None,
    log_format: LogFormat = "text",
) -> None:
    """Run the segmenter: attach to an instrument, segment live, cluster at scan end, publish and store."""
    from livestem.domain.errors import UsageError
    from livestem.runtime.settings import load_settings

    settings = load_settings(asked.config)
    changes: dict[str, object] = {"processing": asked.processing}
    if store is not None:
        changes["store"] = str(store)
    if acquisition:
        changes["acquisition"] = tuple(o.endpoint(text, server_key) for text in acquisition)
    elif server_key is not None:
        raise UsageError("--server-key is of the adapters of --acquisition: give that too, or write both into the file")
    if keys is not None:
        changes["keys"] = str(keys)
    if results is not None:
        changes["results"] = o.endpoint(results)
    if http_port is not None:
        changes["http"] = msgspec.structs.replace(settings.http, port=http_port)
    settings = o.on_device(msgspec.structs.replace(settings, **changes), device, precision)
    if log_format == "json":
        logs.configure_json()
    _run(settings, quiet=log_format == "json")


def _run(settings: Settings, *, quiet: bool) -> None:
    """Run the segmenter until somebody stops it; what ends it otherwise is in the log, too."""
    from livestem.domain.errors import LivestemError
    from livestem.domain.notices import notice
    from livestem.runtime.notices import Notices
    from livestem.runtime.room import open_store
    from livestem.runtime.segmenter import Segmenter

    announce = (lambda text: None) if quiet else Teller()
    stop = ending.stop_on_signals()

    def opened() -> Store:
        store = open_store(settings, Notices(announce), stop)
        if store is None:
            raise ending.StoppedError(lambda: "nothing was begun, what was open still is")
        return store

    try:
        segmenter = Segmenter(settings, announce, opened)
        try:
            _watch(segmenter, stop)
        finally:
            segmenter.close()
        segmenter.tell("stopped", "stopped")
    except LivestemError as e:
        log.error("%s", e, extra={**notice("failed"), "told": True})  # by the command line, in its one line
        raise


def _watch(segmenter: Segmenter, stop: threading.Event) -> None:
    """Tell how the service is, in its log and to whoever started it, until it is to stop."""
    from livestem.domain.errors import LivestemError
    from livestem.runtime.supervisor import Supervisor

    settings, supervisor = segmenter.settings, Supervisor()
    segmenter.tell(
        "ready",
        f"ready: attaching to {', '.join(e.endpoint for e in settings.acquisition)}, results at "
        f"{settings.results.endpoint}, health at http://{settings.http.host}:{segmenter.http.port}/health, "
        f"store {Path(settings.store_path)}",
        results=settings.results.endpoint,
        http_port=segmenter.http.port,
        store=str(settings.store_path),
    )
    supervisor.tell("READY=1")
    known: Mapping[Any, str] = {}
    next_look = time.monotonic()
    while not stop.wait(_POLL_S):
        if segmenter.monitor.failed:
            raise LivestemError("the service stopped because of a fault of ours; its log says more")
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + _LOOK_S
            health = segmenter.monitor.health()
            known = _changes(segmenter, known, health.reasons)
            if health.live:
                supervisor.tell("WATCHDOG=1")
    supervisor.tell("STOPPING=1")
    text = f"stopping: finals under way get {settings.drain_s:g} s; a second signal does not wait for them"
    segmenter.tell("stopping", text)


def _changes(segmenter: Segmenter, before: Mapping[Any, str], now: Mapping[Any, str]) -> Mapping[Any, str]:
    """Tell which reasons to be degraded are new, and which are over."""
    for reason in now.keys() - before.keys():
        segmenter.tell("degraded", f"degraded: {now[reason]}", reason=reason)
    for reason in before.keys() - now.keys():
        segmenter.tell("recovered", f"recovered: {reason}", reason=reason)
    return now


class Teller:
    """Prints one line a fact, with the time; safe from any thread."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=True)

    def __call__(self, text: str) -> None:
        """Print a line."""
        import datetime

        self._console.print(f"{datetime.datetime.now():%H:%M:%S} {one_line(text)}", markup=False)
