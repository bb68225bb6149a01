"""A start on a full disk: what was open there is worth waiting for, so the service waits for room instead of leaving.

While it waits it answers `/health` as a running one that is blocked (reason `store`), and follows no adapter: those
keep their data. The store is tried again every second.
"""

from __future__ import annotations

import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

from livestem.domain.errors import DiskFullError, StoreError
from livestem.runtime.disk import RETRY_S
from livestem.runtime.health import Health, Vitals, judge
from livestem.runtime.http_endpoint import HttpEndpoint
from livestem.runtime.metrics import Metrics
from livestem.runtime.notices import Notices
from livestem.runtime.settings import Settings
from livestem.runtime.store import Store
from livestem.runtime.supervisor import Supervisor

_PATIENCE = f"EXTEND_TIMEOUT_USEC={round(30 * RETRY_S * 1e6)}"  # to a service manager: we have not hung, at every try


def open_store(settings: Settings, tell: Notices, stop: threading.Event) -> Store | None:
    """Open the store of a service as soon as there is room for that.

    Parameters
    ----------
    settings : Settings
    tell : Notices
        Told once that there is no room, and once that there is.
    stop : threading.Event
        Ends the wait.

    Returns
    -------
    Store or None
        None if it was stopped while it waited.

    Raises
    ------
    LivestemError
        If the store cannot be opened for another reason, or the port of `/health` is in use.
    """
    supervisor = Supervisor()
    with ExitStack() as waiting:
        told = False
        while not stop.is_set():
            try:
                store = Store(settings.store_path)
            except StoreError as e:
                if not (told or isinstance(e, DiskFullError)):
                    raise  # later on, somebody else has it: to make room, perhaps
                if not told:
                    text = f"{e}; until then nothing is taken from the adapters, and nothing is lost"
                    _answer(settings, text, waiting)
                    tell("degraded", f"degraded: {text}", reason="store")
                    told = True
                supervisor.tell(_PATIENCE)
                stop.wait(RETRY_S)
                continue
            if told:
                tell("recovered", "recovered: store", reason="store")
            return store
    return None


def _answer(settings: Settings, why: str, waiting: ExitStack) -> None:
    """Answer at the port of `/health` for as long as we wait."""

    def health() -> Health:
        free = shutil.disk_usage(_there(settings.store_path)).free
        vitals = Vitals(warm=False, blocked=why, disk_free_bytes=free, adapters=len(settings.acquisition))
        return judge(vitals, settings.limits)

    http = HttpEndpoint(settings.http.host, settings.http.port)
    waiting.callback(http.close)
    http.serve(health, Metrics().expose)


def _there(path: Path) -> Path:
    """Return a folder, or the nearest above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
