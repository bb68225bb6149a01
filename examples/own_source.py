"""A detector of your own as a source: numpy arrays to `livestem serve`. Runs anywhere; needs the base install only.

Start `livestem serve` in one terminal and this in another. It shows the three ways in which EDS can be handed over;
a real detector has one of them:

- events: a count per pixel, and the channel of every photon (a few bytes a photon);
- dense: whole spectra of some rows;
- cumulative: the running total of the whole field, which is what vendors' live interfaces give. The publisher
  takes the differences, and each snapshot stands for one frame.

HAADF goes in bands of rows here; whole frames go the same way (y = 0).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.client import Acquisition, Beam, Eds, EnergyAxis, Haadf, Sampling, ScanPlan, ScanWriter

ROWS, COLS, BAND = 64, 64, 16  # pixels; rows handed over at once
FIELD = Sampling(shape=(ROWS, COLS), pixel_nm=(0.5, 0.5))
ENERGY = EnergyAxis(channels=1024, scale_kev=0.01)
SI_KA, TI_KA = 174, 451  # channels of 1.74 and 4.51 keV
PHOTONS = 1.0  # a pixel and frame


def plan(frames: int) -> ScanPlan:
    """State what is known before the scan; what is left out is left to the service."""
    return ScanPlan(
        haadf=Haadf(sampling=FIELD, dtype="<u2", detector="HAADF"),
        eds=Eds(sampling=FIELD, energy=ENERGY, elements=("Si", "Ti"), energy_resolution_mnka_ev=130.0),
        frames=frames,
        dwell_s=10e-6,
        beam=Beam(energy_kv=200.0),
        sample="silicon on titanium, invented",
        source="own_source.py",
    )


def measure(frames: int, seed: int) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.uint16]]]:
    """Yield (HAADF, EDS) of each frame: silicon above, brighter titanium below. Your detector goes here."""
    rng = np.random.default_rng(seed)
    below = np.arange(ROWS)[:, None] >= ROWS // 2
    channel = np.arange(ENERGY.channels)
    peaks = [np.exp(-(((channel - centre) / 4.0) ** 2) / 2) for centre in (SI_KA, TI_KA)]
    expected = [PHOTONS * (0.9 * peak / peak.sum() + 0.1 / ENERGY.channels) for peak in peaks]
    spectra = np.where(np.broadcast_to(below, (ROWS, COLS))[..., None], expected[1], expected[0])
    for _ in range(frames):
        haadf = rng.poisson(np.where(below, 900.0, 400.0), (ROWS, COLS))
        yield haadf.astype(np.uint16), rng.poisson(spectra).astype(np.uint16)


def hand_over(scan: ScanWriter, way: str, frames: int, seed: int) -> None:
    """Publish every frame as it comes."""
    total: NDArray[Any] = np.zeros((ROWS, COLS, ENERGY.channels), np.uint32)
    for frame, (haadf, eds) in enumerate(measure(frames, seed)):
        for y in range(0, ROWS, BAND):
            band = eds[y : y + BAND]
            scan.haadf(haadf[y : y + BAND], frame=frame, y=y)
            if way == "dense":
                scan.eds_dense(band, frame=frame, y=y)
            elif way == "events":
                channels = np.broadcast_to(np.arange(ENERGY.channels, dtype=np.uint16), band.shape)
                photons = np.repeat(channels.ravel(), band.ravel())  # pixel after pixel
                scan.eds_events(band.sum(axis=2).astype(np.uint16), photons, frame=frame, y=y)
        total += eds
        if way == "cumulative":
            scan.eds_cumulative(total)


def main() -> None:
    """Publish one scan and leave once the service has stored it."""
    parser = argparse.ArgumentParser(description="Publish an invented scan.")
    parser.add_argument("--acquisition", default="tcp://127.0.0.1:5560", help="endpoint to publish at")
    parser.add_argument("--eds", choices=("events", "dense", "cumulative"), default="cumulative")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with Acquisition(endpoint=options.acquisition) as acquisition:
        acquisition.wait_for_service()
        with acquisition.start_scan(plan(options.frames)) as scan:
            hand_over(scan, options.eds, options.frames, options.seed)
        acquisition.wait_acknowledged()  # before the endpoint goes, what nobody has stored would go with it
        if scan.verdict is not None and not scan.verdict.accepted:
            parser.exit(1, f"the service refused the scan: {scan.verdict.reason}\n")
    print(f"sent {acquisition.session}/{scan.scan_id}")


if __name__ == "__main__":
    main()
