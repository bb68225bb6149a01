"""``livestem simulate``: the virtual microscope as an instrument on the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from livestem.cli import options as o
from livestem.cli.replay import Speed, Wait, parse_speed, send_with_bar
from livestem.client.acquisition import Acquisition

Frames = Annotated[int, typer.Option("--frames", min=1, help="Frames of the scan.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of structure and noise.")]


def simulate(
    sample: Annotated[str, typer.Option("--sample", help="A specimen by name, or its TOML file.")] = "demo",
    frames: Frames = 10,
    seed: Seed = 0,
    speed: Speed = "1",
    session: o.Session = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Write what is really there: FILE.npz, FILE.json.")
    ] = None,
    acquisition: o.AcquisitionAt = o.ACQUISITION_AT,
    wait: Wait = 30.0,
) -> None:
    """Scan a virtual specimen and publish HAADF and EDS as a microscope would."""
    from livestem.simulator import Simulation, load_specimen

    times = parse_speed(speed)
    simulation = Simulation(load_specimen(sample), seed, frames)
    if truth is not None:
        simulation.truth.save(truth)
    with Acquisition(session, o.endpoint(acquisition), recorded=True) as source:
        source.wait_for_service(o.seconds(wait))
        send_with_bar(source, simulation, simulation.plan, times)
