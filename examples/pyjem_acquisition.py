"""JEOL PyJEM: STEM frames of one detector, live to livestem; EDS where your station's software gives a total.

NOT RUN HERE: it needs the microscope's software (PyJEM with TEMCenter). It is written against what public scripts
use of it; the calls are those of the lines marked `PyJEM:`. The tests run everything else against a stand-in.

What PyJEM gives and what it does not:

- `detector.Detector(NAME).snapshot_rawdata()` scans and gives one frame, as bytes or as nested lists, 16 bits a pixel.
- Its public part has no EDS. Two ways remain: let Analysis Station record, and `livestem watch FOLDER` publish the
  .pts and .img it saves; or pass `running_total`, a function of your own that returns the counts so far of the whole
  field, (rows, cols, channels): it is read after each frame and its increase is published.
- The pixel size is not part of the image: give it, from the magnification's calibration.

Run it beside `livestem serve`: python pyjem_acquisition.py --pixel-nm 0.05 --frames 20
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.client import Acquisition, Beam, Eds, EnergyAxis, Haadf, Sampling, ScanPlan, ScanWriter

SIZE = 512  # pixels a side
FULL_FRAME = 0  # PyJEM's scan mode


def haadf_frame(detector: Any) -> NDArray[np.uint16]:
    """Scan once and return the frame."""
    raw = detector.snapshot_rawdata()  # PyJEM: bytes, or lists in some versions
    flat = np.frombuffer(raw, dtype="<u2") if isinstance(raw, bytes | bytearray) else np.asarray(raw, dtype="<u2")
    return flat.reshape(SIZE, SIZE)


def run(
    detector: Any,
    acquisition: Acquisition,
    *,
    frames: int,
    dwell_us: float,
    pixel_nm: float,
    beam_kv: float | None,
    energy: EnergyAxis | None = None,
    running_total: Callable[[], NDArray[Any]] | None = None,
) -> ScanWriter:
    """Publish one scan; with `energy` and `running_total` also its EDS, sampled as the HAADF is."""
    detector.set_scanmode(FULL_FRAME)  # PyJEM
    detector.set_imaging_area(SIZE, SIZE)  # PyJEM
    detector.set_exposuretime_value(dwell_us)  # PyJEM: µs a pixel
    field = Sampling(shape=(SIZE, SIZE), pixel_nm=(pixel_nm, pixel_nm))
    plan = ScanPlan(
        haadf=Haadf(sampling=field, dtype="<u2", detector="ADF"),
        eds=Eds(sampling=field, energy=energy) if energy is not None and running_total is not None else None,
        frames=frames,
        dwell_s=dwell_us * 1e-6,
        beam=Beam(energy_kv=beam_kv),
        source="PyJEM",
    )
    with acquisition.start_scan(plan) as scan:
        for frame in range(frames):
            scan.haadf(haadf_frame(detector), frame=frame)
            if plan.eds is not None and running_total is not None:
                scan.eds_cumulative(running_total(), frame=frame)
    return scan


def main() -> None:
    """Connect, publish one scan, leave once it is stored."""
    from PyJEM import TEM3, detector

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--detector", default="ADF1", help="as TEMCenter names it")
    parser.add_argument("--pixel-nm", type=float, required=True)
    parser.add_argument("--dwell-us", type=float, default=10.0)
    parser.add_argument("--frames", type=int, default=20)
    options = parser.parse_args()

    TEM3.connect()
    beam_kv = TEM3.HT3().GetHtValue() / 1000.0  # PyJEM: volts there
    with Acquisition() as acquisition:
        acquisition.wait_for_service()
        run(
            detector.Detector(options.detector),
            acquisition,
            frames=options.frames,
            dwell_us=options.dwell_us,
            pixel_nm=options.pixel_nm,
            beam_kv=beam_kv,
        )
        acquisition.wait_acknowledged()


if __name__ == "__main__":
    main()
