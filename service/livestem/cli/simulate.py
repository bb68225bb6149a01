"""``livestem simulate``: the virtual microscope as an instrument on the wire, or a scan of it in a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livestem.cli import ending
from livestem.cli import options as o
from livestem.cli.replay import Speed, Wait, aborted, parse_speed, say, send_with_bar, told
from livestem.client.acquisition import Acquisition, new_session
from livestem.client.endpoints import Endpoint
from livestem.domain.errors import LivestemError, UsageError
from livestem.domain.request import ScanRequest
from livestem.domain.tiles import Tile, height

if TYPE_CHECKING:
    from livestem.simulator import Simulation, VirtualMicroscope
    from livestem.simulator.faults import Faults

_POLL_S = 0.5  # between looks at the queue of requests; the specimen drifts on meanwhile

Fault = Annotated[
    str | None,
    typer.Option("--fault", help="Misbehave: drop=0.01,dup=0.01,reorder=8,corrupt=0.001,stall=2s,abort@frame=3, ..."),
]
Save = Annotated[
    Path | None, typer.Option("--save", help="Write the scan into this new folder instead, for replay; truth beside.")
]
Requests = Annotated[
    bool, typer.Option("--requests", help="Stay, and scan what others ask for (livestem request), until Ctrl-C.")
]
Counts = Annotated[
    float | None, typer.Option("--counts", min=0, help="EDS photons per pixel and frame; the specimen's if not given.")
]


def simulate(
    sample: Annotated[str, typer.Option("--sample", help="A specimen by name, or its TOML file.")] = "demo",
    frames: Annotated[
        int, typer.Option("--frames", min=0, help="Frames of the scan; 0 with --requests waits for the first request.")
    ] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of structure and noise.")] = 0,
    counts: Counts = None,
    speed: Speed = "1",
    session: o.Session = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="Write what is really there: FILE.npz, FILE.json; FILE-SCAN of requested scans."),
    ] = None,
    save: Save = None,
    fault: Fault = None,
    requests: Requests = False,
    acquisition: o.AcquisitionAt = o.ACQUISITION_AT,
    keys: o.Keys = None,
    wait: Wait = 30.0,
) -> None:
    """Scan a virtual specimen and publish HAADF and EDS as a microscope would."""
    from livestem.simulator import Simulation, VirtualMicroscope, load_specimen
    from livestem.simulator.faults import Faults, parse_faults

    times = parse_speed(speed)
    faults = Faults() if fault is None else parse_faults(fault)
    _check(save, fault, faults, requests, frames)
    if truth is not None and not truth.parent.is_dir():
        raise UsageError(f"there is no folder {truth.parent} for the truth; make it, or choose another --truth")
    specimen = load_specimen(sample)
    if requests:
        microscope = VirtualMicroscope(specimen, seed, eds_counts_per_pixel=counts)
        if frames:
            microscope.request(ScanRequest(frames=frames, reason="the standard field"))
        instrument = _Instrument(microscope, faults, times, truth)
        with ending.regular():
            instrument.serve(session, o.endpoint(acquisition), o.seconds(wait), keys)
        return
    simulation = Simulation(specimen, seed, frames, eds_counts_per_pixel=counts)
    for warning in simulation.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if save is not None:
        _save(simulation, save, truth)
        return
    _send(simulation, faults, times, session or new_session(), o.endpoint(acquisition), o.seconds(wait), truth, keys)


def _check(save: Path | None, fault: str | None, faults: Faults, requests: bool, frames: int) -> None:
    """Refuse what does not go together, before anything is made."""
    if save is not None and (fault is not None or requests):
        raise UsageError("--save writes a scan without a network; --fault and --requests need one: leave them out")
    if requests and faults.strikes:
        raise UsageError(
            "with --requests only drop, dup, corrupt and reorder can be asked for: the instrument must live"
        )
    if not frames and not requests:
        raise UsageError("--frames must be at least 1; 0 waits for requests, with --requests")


def _save(simulation: Simulation, folder: Path, truth: Path | None) -> None:
    from livestem.cli.progress import scan_bar
    from livestem.runtime.recorder import record

    with scan_bar(simulation.plan, simulation.scan_id) as bar:
        journal = record(simulation, folder, on_tile=bar)
    _write_truth(simulation, truth or folder / "truth", simulation.frames)
    megabytes = journal.stat().st_size / 1e6
    print(f"saved {simulation.scan_id}: {journal}, {megabytes:.1f} MB; send it with: livestem replay {folder}")


def _write_truth(simulation: Simulation, path: Path, frames: float) -> None:
    """Write what the scan shows, if the beam has done any of it."""
    from livestem.simulator import save_truth

    if frames:
        save_truth(simulation.truth_after(frames), path)


def _send(
    simulation: Simulation,
    faults: Faults,
    times: float | None,
    session: str,
    at: Endpoint,
    wait_s: float,
    truth: Path | None,
    keys: Path | None,
) -> None:
    """Send one scan, whatever is to happen to it."""
    from livestem.cli.progress import scan_bar
    from livestem.simulator.faulty_link import FaultyLink
    from livestem.simulator.faulty_source import send_with_faults

    sources: list[Acquisition] = []  # one after the other, if its program is to start again

    def heard() -> bool:
        return bool(sources) and sources[-1].all_acknowledged

    def opened(link: FaultyLink) -> Acquisition:
        source = Acquisition(session, at, recorded=True, link=link, keys=keys, tell=say)
        sources.append(source)
        try:
            source.wait_for_service(wait_s)
        except LivestemError:
            source.close()
            raise
        return source

    beam = _Beam(simulation)
    try:
        with scan_bar(simulation.plan, simulation.scan_id) as bar:

            def sent(tile: Tile) -> None:
                beam(tile)
                bar(tile)

            with ending.unfinished(aborted(simulation.scan_id, heard)):
                writer = send_with_faults(opened, simulation, faults, speed=times, on_tile=sent, seed=simulation.seed)
    finally:
        if truth is not None:
            _write_truth(simulation, truth, beam.seen)
    print(told(session, writer))


class _Instrument:
    """A microscope that stays, with what it was told on the command line."""

    def __init__(self, microscope: VirtualMicroscope, faults: Faults, times: float | None, truth: Path | None) -> None:
        self._microscope, self._faults, self._times, self._truth = microscope, faults, times, truth

    def serve(self, session: str | None, at: Endpoint, wait_s: float, keys: Path | None) -> None:
        """Scan what waits and what is asked for, until Ctrl-C."""
        import numpy as np

        from livestem.simulator.faulty_link import FaultyLink

        microscope = self._microscope
        link = FaultyLink(self._faults, np.random.default_rng(microscope.seed))
        asked = microscope.request
        with Acquisition(session, at, recorded=True, link=link, on_request=asked, keys=keys, tell=say) as source:
            source.wait_for_service(wait_s)
            print(
                f"session {source.session}: {microscope.specimen.title}; scans on request at {at.endpoint}", flush=True
            )
            while True:
                try:
                    scan = microscope.next_scan(_POLL_S)
                except LivestemError as e:  # drift has made impossible what was granted
                    print(f"livestem: {e}", file=sys.stderr, flush=True)
                    continue
                if scan is None:
                    microscope.rest(_POLL_S)
                else:
                    self._scan(source, scan)

    def _scan(self, source: Acquisition, scan: Simulation) -> None:
        """Scan, and account for what the beam has done; a scan that nobody takes does not end the session."""
        beam = _Beam(scan)
        print(f"scan {scan.scan_id}: {scan.frames} frames of {scan.shape[0]} x {scan.shape[1]} pixels", flush=True)
        try:
            send_with_bar(source, scan, scan.plan, self._times, beam)
        except LivestemError as e:
            print(f"livestem: {e}", file=sys.stderr, flush=True)
        finally:
            self._microscope.scanned(scan, beam.seen)
            self._write(scan, beam.seen)

    def _write(self, scan: Simulation, frames: float) -> None:
        """Write the truth of a scan, and the dose of all so far, if they are wanted."""
        from livestem.simulator.truth import save_dose

        if self._truth is not None:
            try:
                _write_truth(scan, self._truth.with_name(f"{self._truth.name}-{scan.scan_id}"), frames)
                save_dose(
                    self._microscope.dose, self._microscope.stage, self._truth.with_name(f"{self._truth.name}-dose")
                )
            except LivestemError as e:
                print(f"livestem: {e}", file=sys.stderr, flush=True)


class _Beam:
    """How much of a scan the beam has done.

    Attributes
    ----------
    seen : frames that it has seen, the newest in part; a scan that is begun anew is seen anew
    """

    def __init__(self, scan: Simulation) -> None:
        self._rows = scan.shape[0]
        self.seen = 0.0

    def __call__(self, tile: Tile) -> None:
        self.seen = max(self.seen, tile.frame + (tile.y + height(tile)) / self._rows)
