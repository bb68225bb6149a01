"""Progress bars: on a terminal only, so that a log file holds lines and not a bar's thousand states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import HaadfTile, Tile, height


@contextmanager
def status(words: str) -> Iterator[None]:
    """Show that something takes its time, on stderr, if that is a terminal."""
    with Console(stderr=True).status(words):
        yield


@contextmanager
def scan_bar(plan: ScanPlan, title: str, console: Console | None = None) -> Iterator[Callable[[Tile], None]]:
    """Show how much of a scan has been sent; yields what to call with every tile.

    Lines printed to the same `console` meanwhile stand above the bar; by default it is one of its own on stderr.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = console or Console(stderr=True)
    rows = {m: plan.sampling(m).shape[0] * plan.frames_of(m, 1) for m in plan.modalities}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("frame {task.fields[frame]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(title, total=sum(rows.values()), frame=0)

        def sent(tile: Tile) -> None:
            whole = tile.x == 0 or isinstance(tile, HaadfTile)
            progress.update(task, advance=height(tile) if whole else 0, frame=tile.frame + 1)

        yield sent
