"""Frames of the virtual microscope, of which the true drift is known: found again, and the lattice kept."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from virtual import DEMO, altered

from livestem.domain.geometry import plan_grid
from livestem.domain.parameters import Processing
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.recipe import resolve
from livestem.simulator import Simulation, Specimen, load_specimen
from livestem.simulator.frames import cut
from livestem.stages.spacing import lattice_of
from livestem.wire import messages as m
from livestem.wire.codec import Message

FRAMES = 12
USUAL_PA = 100.0


def drifting(specimen: Specimen, velocity_nm_s: tuple[float, float], current_pa: float) -> Specimen:
    """Return a specimen that creeps so fast, scanned with twice the usual slip of rows."""
    drift = msgspec.structs.replace(specimen.scan.drift, velocity_nm_s=velocity_nm_s)
    scan = msgspec.structs.replace(specimen.scan, row_jitter_nm=0.02, drift=drift)
    return altered(specimen, scan=scan, beam=msgspec.structs.replace(specimen.beam, current_pa=current_pa))


def accumulated(simulation: Simulation, register: str) -> Accumulator:
    plan = simulation.plan
    made = Accumulator(plan, plan_grid(plan.haadf.sampling, None), register)
    for number in range(simulation.frames):
        for tile in cut(simulation.frame(number), simulation.shape[0]):
            header = m.HaadfRows(
                session="s", epoch=1, sent_ns=0, seq=1, scan_id="s", frame=tile.frame, y=tile.y, x=tile.x
            )
            made.apply(Message(header, (tile.values,), ()))
    made.finish()
    return made


SPECIMENS = {
    "demo": (DEMO, None, (0.15, -0.2)),
    "nanoparticles": (load_specimen("nanoparticles"), (320, 320), (-0.2, 0.15)),
}


@pytest.mark.parametrize("share", [1.0, 0.02])
@pytest.mark.parametrize("name", list(SPECIMENS))
def test_the_true_drift_is_found_to_a_fraction_of_a_pixel(name, share):
    specimen, shape, velocity = SPECIMENS[name]
    simulation = Simulation(
        drifting(specimen, velocity, share * USUAL_PA), 1, FRAMES, shape=shape, modalities=("haadf",)
    )
    found = accumulated(simulation, "frames").registration
    assert found.determined == FRAMES - 1
    truth = np.array(simulation.truth.facts.drift_nm) / simulation.raster.pixel_nm
    assert np.hypot(*truth[-1]) > 4, "else there is nothing to register"
    residual = np.array([s.estimate_px for s in found.shifts]) - truth
    assert np.sqrt(np.mean(residual**2)) < 0.25
    rounded = np.array([s.haadf_px for s in found.shifts]) - truth
    assert np.sqrt(np.mean(rounded**2)) < 0.5


@pytest.mark.parametrize("share", [1.0, 0.02])
def test_the_registered_sum_keeps_the_lattice_that_the_plain_sum_loses(share):
    simulation = Simulation(drifting(DEMO, (0.45, 0.6), share * USUAL_PA), 1, 2 * FRAMES, modalities=("haadf",))
    assert np.hypot(*simulation.truth.facts.drift_nm[-1]) > 2.5, "nm"
    patch, pixel = np.s_[150:214, 200:264], simulation.raster.pixel_nm
    single = simulation.frame(0).haadf[patch].astype(float)
    registered, summed = (accumulated(simulation, way).haadf.mean()[patch] for way in ("frames", "none"))
    found = lattice_of(registered, pixel)
    assert found.d_spacing_nm == pytest.approx(0.39, abs=0.005) and found.crystallinity > 0.8
    assert lattice_of(summed, pixel).crystallinity < (0.6 if share == 1 else 0.2)
    assert summed.std() < 0.4 * registered.std()
    if share == 1:
        assert registered.std() > 0.8 * single.std(), "but for rounding and slipped rows, as in one frame"


def test_every_preset_registers_unless_told_otherwise():
    plan = Simulation(DEMO, 0, 2).plan
    for preset in ("default", "as_published", "graphem"):
        assert resolve(plan, Processing(preset=preset))[1].register == "frames"
        assert resolve(plan, Processing(preset=preset, register="none"))[1].register == "none"
