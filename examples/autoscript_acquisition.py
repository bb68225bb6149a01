"""Thermo Fisher AutoScript TEM: HAADF frames, then EDS point by point on a coarse grid, live to livestem.

NOT RUN HERE: it needs the microscope's software (the package `autoscript_tem_microscope_client` and a microscope
server). It is written against what public scripts use of it; the calls are those of the lines marked `AutoScript:`.
The tests run everything else against a stand-in for the microscope.

What AutoScript gives and what it does not:

- `acquisition.acquire_stem_image` gives whole frames; each is published as it comes.
- `analysis.eds.acquire_spectrum` gives the spectrum at a resting beam, so the EDS grid here is coarse (every
  HAADF_PER_EDS-th pixel) and slow: 32 x 32 points of 0.1 s take two minutes. No public script reads the running
  spectrum image of Velox; record that with Velox and let `livestem watch FOLDER` publish the .emd it saves.
- The energy axis is not part of the spectrum: read width and offset off a spectrum saved by Velox once.

Run it beside `livestem serve`: python autoscript_acquisition.py --host MICROSCOPE --frames 20
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.client import Acquisition, Beam, Eds, EnergyAxis, Haadf, Sampling, ScanPlan, ScanWriter

SIZE = 512  # HAADF pixels a side
HAADF_PER_EDS = 16  # a whole number: both then sample one field
DWELL_S = 2e-6
LIVE_S = 0.1  # of one spectrum


def haadf_frame(microscope: Any, detector: Any) -> tuple[NDArray[Any], float]:
    """Take one frame; return it with its pixel size, nm."""
    image = microscope.acquisition.acquire_stem_image(detector, SIZE, DWELL_S)  # AutoScript: an AdornedImage
    pixel_nm = image.metadata.binary_result.pixel_size.x * 1e9  # metres there
    return np.asarray(image.data), pixel_nm


def spectrum_at(microscope: Any, settings: Any, x: float, y: float) -> NDArray[np.uint32]:
    """Rest the beam at (x, y), 0 to 1 of the field, and return a spectrum's counts."""
    microscope.optics.paused_scan_beam_position = [x, y]  # AutoScript
    spectrum = microscope.analysis.eds.acquire_spectrum(settings)  # AutoScript: an AdornedSpectrum
    # Public scripts read the buffer, whose byte order is known, instead of the converted data.
    return np.frombuffer(spectrum._raw_data, dtype="<u4")  # noqa: SLF001


def scan_plan(
    first: NDArray[Any], pixel_nm: float, frames: int, voltage_kv: float, energy: EnergyAxis | None
) -> ScanPlan:
    """State what the microscope knows."""
    field = Sampling(shape=(SIZE, SIZE), pixel_nm=(pixel_nm, pixel_nm))
    points = SIZE // HAADF_PER_EDS
    coarse = Sampling(shape=(points, points), pixel_nm=(pixel_nm * HAADF_PER_EDS,) * 2)
    return ScanPlan(
        haadf=Haadf(sampling=field, dtype=first.dtype.newbyteorder("<").str, frames=frames, detector="HAADF"),
        eds=None if energy is None else Eds(sampling=coarse, energy=energy, frames=1, live_time_s=points**2 * LIVE_S),
        frames=frames,
        dwell_s=DWELL_S,
        beam=Beam(energy_kv=voltage_kv),
        source="AutoScript",
    )


def publish_eds(scan: ScanWriter, microscope: Any, settings: Any) -> None:
    """Step the beam over the coarse grid; publish row by row."""
    points = SIZE // HAADF_PER_EDS
    places = (np.arange(points) + 0.5) / points  # centres
    for row, y in enumerate(places):
        spectra = [spectrum_at(microscope, settings, float(x), float(y)) for x in places]
        scan.eds_dense(np.stack(spectra)[None], frame=0, y=row)


def run(
    microscope: Any, acquisition: Acquisition, *, detector: Any, settings: Any, energy: EnergyAxis | None, frames: int
) -> ScanWriter:
    """Publish one scan: the frames, then the spectra (none without `energy`)."""
    voltage_kv = microscope.optics.acceleration_voltage.value / 1000.0  # AutoScript: volts there
    first, pixel_nm = haadf_frame(microscope, detector)  # says how large a pixel is
    with acquisition.start_scan(scan_plan(first, pixel_nm, frames, voltage_kv, energy)) as scan:
        scan.haadf(first, frame=0)
        for frame in range(1, frames):
            scan.haadf(haadf_frame(microscope, detector)[0], frame=frame)
        if energy is not None:
            publish_eds(scan, microscope, settings)
    return scan


def main() -> None:
    """Connect, publish one scan, leave once it is stored."""
    from autoscript_tem_microscope_client import TemMicroscopeClient
    from autoscript_tem_microscope_client.enumerations import DetectorType, EdsDetectorType, ExposureTimeType
    from autoscript_tem_microscope_client.structures import EdsAcquisitionSettings

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", required=True, help="the microscope server")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--channels", type=int, help="channels of a spectrum; without it no EDS is taken")
    parser.add_argument("--scale-kev", type=float, default=0.005)
    parser.add_argument("--offset-kev", type=float, default=0.0)
    options = parser.parse_args()

    settings = EdsAcquisitionSettings()
    settings.eds_detector = EdsDetectorType.SUPER_X
    settings.dispersion = round(options.scale_kev * 1000)  # eV a channel
    settings.shaping_time = 3e-6
    settings.exposure_time = LIVE_S
    settings.exposure_time_type = ExposureTimeType.LIVE_TIME
    energy = None
    if options.channels is not None:
        energy = EnergyAxis(channels=options.channels, scale_kev=options.scale_kev, offset_kev=options.offset_kev)

    microscope = TemMicroscopeClient()
    microscope.connect(options.host)
    try:
        with Acquisition() as acquisition:
            acquisition.wait_for_service()
            run(
                microscope,
                acquisition,
                detector=DetectorType.HAADF,
                settings=settings,
                energy=energy,
                frames=options.frames,
            )
            acquisition.wait_acknowledged()
    finally:
        microscope.disconnect()


if __name__ == "__main__":
    main()
