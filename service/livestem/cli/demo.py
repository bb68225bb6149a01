"""``livestem demo``: a virtual microscope, the segmenter and a subscriber, on real sockets, in one command."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import typer

from livestem.cli import ending
from livestem.cli import options as o
from livestem.cli.heard import Heard
from livestem.client.acquisition import Acquisition
from livestem.client.endpoints import Endpoint
from livestem.client.replay import send_scan
from livestem.client.subscriber import Subscriber
from livestem.domain.errors import LivestemError, TransportError, UsageError
from livestem.domain.parameters import Processing
from livestem.domain.support import SupportClass, SupportSet

if TYPE_CHECKING:
    from livestem.simulator import Simulation

EXAMPLES = 4  # chips a class, as the paper
_PURE = 0.95  # examples are chips of one class, as a microscopist would choose them
_PATIENCE_S = 120.0  # for the finals: as_published on two slow cores takes half of it


@o.asks_for_processing
def demo(
    asked: o.Asked,
    sample: Annotated[str, typer.Option("--sample", help="A specimen by name, or its TOML file.")] = "demo",
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of the scan.")] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of structure and noise.")] = 0,
    speed: Annotated[str, typer.Option("--speed", help="Times real time, or max.")] = "0.25",
    out: Annotated[Path, typer.Option("--out", help="Folder for the result and the picture.")] = Path("livestem-demo"),
    dwell_us: o.DwellUs = None,
) -> None:
    """Simulate a scan, segment it live, cluster it, and show the result as a table and a picture."""
    from rich.console import Console

    from livestem.cli.demo_report import report
    from livestem.cli.replay import parse_speed
    from livestem.runtime.recipe import resolve
    from livestem.simulator import Simulation, load_specimen, save_truth

    console = Console(highlight=False)
    times = parse_speed(speed)
    console.print(f"simulating {sample}, {frames} frames")
    simulation = Simulation(load_specimen(sample), seed, frames)
    specimen = simulation.specimen
    known = Processing(elements=specimen.elements, strays=tuple(specimen.strays))
    wanted = asked.processing.over(known.over(simulation.plan.processing or Processing()))
    plan = msgspec.structs.replace(simulation.plan, processing=wanted)
    if dwell_us is not None:
        plan = msgspec.structs.replace(plan, dwell_s=dwell_us * 1e-6)
    if wanted.support is None:
        grid, _ = resolve(plan, wanted)
        wanted = msgspec.structs.replace(wanted, support=examples(simulation, grid, seed))
        plan = msgspec.structs.replace(plan, processing=wanted)

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"{out} cannot be made: {e.strerror or e}; choose another --out") from e
    began = time.perf_counter()
    with ending.unfinished(f"what was received is in {out / 'store'}"):
        heard = _run(simulation, plan, times, out / "store", console)
    folder = out / "store" / heard.session / simulation.scan_id
    save_truth(simulation.truth, folder / "truth")
    report(console, simulation, heard, folder, out / "overview.png")
    console.print(
        f"\n{heard.live} live maps, finals {heard.finals_s:.2f} s after the last tile, "
        f"{time.perf_counter() - began:.1f} s in all\npicture  {out / 'overview.png'}\nresult   {folder}"
    )


def examples(simulation: Simulation, grid: Any, seed: int) -> SupportSet:
    """Choose examples of every class as a microscopist would: a few clear chips of the field as it was at first."""
    labels, purity = simulation.truth.class_of_chips(grid, registered=True)
    rng = np.random.default_rng(seed)
    classes = []
    for label, name in enumerate(simulation.truth.names):
        there = np.argwhere((labels == label) & (purity >= _PURE))
        if not len(there):
            raise LivestemError(f"no chip shows {name} alone; use a smaller --chip-px")
        chosen = rng.permutation(len(there))[:EXAMPLES]
        chips = tuple((int(r), int(c)) for r, c in sorted(map(tuple, there[chosen])))
        classes.append(SupportClass(name=name, chips=chips))
    return SupportSet(classes=tuple(classes))


def _run(simulation: Simulation, plan: Any, times: float | None, store: Path, console: Any) -> Heard:
    """Serve, listen and send on sockets of this machine."""
    from livestem.cli.progress import scan_bar
    from livestem.runtime.segmenter import Segmenter
    from livestem.runtime.settings import Http, Settings

    data_port, results_port = free_port_pairs(2)
    acquisition = Endpoint(f"tcp://127.0.0.1:{data_port}")
    settings = Settings(
        acquisition=(acquisition,),
        results=Endpoint(f"tcp://127.0.0.1:{results_port}"),
        http=Http(port=0),
        keys="",  # all of it is in this process
        store=str(store),
    )
    segmenter = Segmenter(settings, lambda text: console.print(f"  {text}", markup=False))
    heard = Heard()
    try:
        with Acquisition(None, acquisition, recorded=True) as source, Subscriber(settings.results) as results:
            results.wait_subscribed(10.0)
            source.wait_for_service(10.0)
            heard.session = source.session
            with scan_bar(plan, simulation.scan_id, console) as bar:
                sender = _Sender(lambda: send_scan(source, simulation, plan=plan, speed=times, on_tile=bar))
                while sender.is_alive():
                    heard.take(results.receive(timeout_s=0.1))
            sender.raise_if_failed()
            sent = time.perf_counter()
            with console.status("clustering the scan"):
                while heard.done is None and time.perf_counter() - sent < _PATIENCE_S:
                    heard.take(results.receive(timeout_s=1.0))
            heard.finals_s = time.perf_counter() - sent
    finally:
        segmenter.close()
    if heard.done is None:
        raise LivestemError(f"no finals came within {_PATIENCE_S:g} s; the log says more (livestem -v demo)")
    if heard.done.status == "failed":
        raise LivestemError(heard.done.reason or "the scan has no finals")
    return heard


class _Sender(threading.Thread):
    """Sends the scan beside the listener; keeps what went wrong."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(name="sender", daemon=True)
        self._work = work
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except Exception as e:
            self._error = e  # raised where somebody sees it

    def raise_if_failed(self) -> None:
        """Raise what the work raised."""
        if self._error is not None:
            raise self._error


def free_port_pairs(count: int) -> list[int]:
    """Return ports p that are free together with p + 1; another program may still be quicker."""
    found: list[int] = []
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
        if all(abs(port - p) > 1 for p in found):
            found.append(port)
        if len(found) == count:
            return found
    raise TransportError("no free ports on this machine; stop a program and try again")
