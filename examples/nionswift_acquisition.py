"""Nion Swift: HAADF rows as the probe makes them, live to livestem. For Swift's *Run Script*.

NOT RUN HERE: it needs the microscope's software (Nion Swift with nionswift-instrumentation, and livestem's base
install in the same environment). It is written against the instrumentation kit's documentation and code; the calls
are those of the lines marked `Swift:`. The tests run everything else against a stand-in.

The scan device fires an event at every partial read-out of a channel; its metadata say how many rows are valid so
far. New rows are published at once, so that labels follow within a frame. The kit has no EDS of its own: where your
detector's plug-in gives the running total of the field, hand it to `scan.eds_cumulative` after each frame.

Open it in Swift's Run Script window and run it beside `livestem serve`.
"""

from __future__ import annotations

import math
import queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.client import Acquisition, Beam, Haadf, Sampling, ScanPlan, ScanWriter

FRAMES = 20
CHANNEL = 0  # of the scan device: HAADF on most columns
PATIENCE_S = 60.0  # a partial read-out comes every 50 to 100 ms; so long without one, the scan has stopped

Partial = tuple[NDArray[np.float32], int]  # the frame so far, and its valid rows


def scan_plan(parameters: Any, frames: int, beam_kv: float | None) -> ScanPlan:
    """State what Swift's frame parameters say."""
    rows, cols = parameters.size
    pixel_nm = parameters.fov_nm / max(rows, cols)  # Swift: the field of view is that of the longer side
    field = Sampling(
        shape=(int(rows), int(cols)),
        pixel_nm=(pixel_nm, pixel_nm),
        rotation_deg=math.degrees(parameters.rotation_rad),
    )
    return ScanPlan(
        haadf=Haadf(sampling=field, dtype="<f4", detector="HAADF"),
        frames=frames,
        dwell_s=parameters.pixel_time_us * 1e-6,
        beam=Beam(energy_kv=beam_kv),
        source="Nion Swift",
    )


def publish_partials(scan: ScanWriter, partials: queue.Queue[Partial], frames: int, rows: int) -> None:
    """Publish the rows of every partial read-out that are new."""
    frame = done = 0
    while frame < frames:
        image, valid = partials.get(timeout=PATIENCE_S)
        if valid > done:
            scan.haadf(np.ascontiguousarray(image[done:valid], dtype="<f4"), frame=frame, y=done)
            done = valid
        if done == rows:
            frame, done = frame + 1, 0


def run(scan_device: Any, acquisition: Acquisition, *, frames: int, beam_kv: float | None = None) -> ScanWriter:
    """Play the scan device for `frames` frames and publish them."""
    parameters = scan_device.get_current_frame_parameters()  # Swift
    plan = scan_plan(parameters, frames, beam_kv)
    partials: queue.Queue[Partial] = queue.Queue()

    def arrived(xdata: Any) -> None:  # on Swift's thread: copy and leave
        partials.put((np.array(xdata.data, dtype="<f4"), int(xdata.metadata["scan"]["valid_rows"])))

    scan_device.set_enabled_channels([CHANNEL])  # Swift
    channel = scan_device.data_channels[CHANNEL]
    listener = channel.data_channel_updated_event.listen(arrived)  # Swift: kept, or it is let go
    try:
        with acquisition.start_scan(plan) as scan:
            scan_device.start_playing(parameters)  # Swift
            publish_partials(scan, partials, frames, plan.sampling("haadf").shape[0])
    finally:
        scan_device.stop_playing()  # Swift
        listener.close()
    return scan


def main() -> None:
    """Find the scan device, publish one scan, leave once it is stored."""
    from nion.utils import Registry

    stem_controller = Registry.get_component("stem_controller")
    beam_kv = stem_controller.GetVal("EHT") / 1000.0  # Swift: volts there
    with Acquisition() as acquisition:
        acquisition.wait_for_service()
        run(stem_controller.scan_controller, acquisition, frames=FRAMES, beam_kv=beam_kv)
        acquisition.wait_acknowledged()


def script_main(api_broker: Any) -> None:
    """Start point of Swift's Run Script."""
    main()


if __name__ == "__main__":
    main()
