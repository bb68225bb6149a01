"""Whether a scan may begin here, and what its sender is told.

A scan is refused before it costs anything: no folder, no memory. Its sender gets one clear line.
"""

from __future__ import annotations

import numpy as np

from livestem.domain.errors import LivestemError
from livestem.domain.geometry import Grid
from livestem.domain.limits import Limits
from livestem.domain.parameters import Parameters
from livestem.domain.scan import ScanPlan
from livestem.runtime.accumulator import memory_bytes
from livestem.runtime.appetite import check_chips
from livestem.runtime.sums import MOST_PHOTONS
from livestem.wire import messages as m

COUNTS_PER_S = 100_000  # a detector's rate on a thick specimen; far beyond, it is dead for most of the time
COUNTS_PER_PIXEL = 5  # what recordings that we know hold for a pixel and frame

Facts = dict[str, str | int | float | bool | None]


def check_open(limits: Limits, others: int) -> None:
    """Refuse a scan beside as many open ones as there may be; `LivestemError` with the limit."""
    if others >= limits.open_scans:
        raise LivestemError(f"{others + 1} open scans, this service allows {limits.open_scans}")


def check_limits(limits: Limits, plan: ScanPlan, grid: Grid, parameters: Parameters) -> None:
    """Refuse a scan that would go beyond a limit.

    Raises
    ------
    LivestemError
        With the limit and what was asked.
    """
    for what, value, most in (
        ("pixels", max(_pixels(plan)), limits.pixels),
        ("channels", plan.eds.energy.channels if plan.eds else 0, limits.channels),
        ("classes", len(parameters.support.names) if parameters.support else 0, limits.classes),
        ("planned frames", plan.frames or 0, limits.planned_frames),
        ("bytes of memory", memory_bytes(plan, grid, parameters.register), limits.accumulator_bytes),
    ):
        if value > most:
            raise LivestemError(f"{value} {what}, this service allows {most}")
    check_chips(limits, plan, grid, parameters)


def check_disk(limits: Limits, plan: ScanPlan, free: int) -> None:
    """Refuse a scan whose journal would leave less than `free_disk_bytes` free.

    Raises
    ------
    LivestemError
        With what it needs and what is free.
    """
    needed = journal_bytes(plan)
    if free < limits.free_disk_bytes + needed:
        raise LivestemError(
            f"only {free // 2**20} MiB free on the store's disk; this scan may take {needed // 2**20} MiB, and "
            f"{limits.free_disk_bytes // 2**20} MiB are to stay free; make room or move the store"
        )


def journal_bytes(plan: ScanPlan) -> int:
    """Estimate what a planned scan will take in its journal, bytes.

    HAADF is taken as it comes, uncompressed. EDS is taken as events: a byte for the photons of a pixel and two for the
    channel of each; `COUNTS_PER_S` of them in the dwell time, or `COUNTS_PER_PIXEL` where that is not stated, and
    never more than a scan may have. An open-ended scan is taken for one frame: nobody knows more, and
    `free_disk_bytes` is what it may use.
    """
    total = 0
    for modality in plan.modalities:
        rows, cols = plan.sampling(modality).shape
        visits = rows * cols * plan.frames_of(modality, 1)
        if modality == "haadf" and plan.haadf is not None:
            total += visits * np.dtype(plan.haadf.dtype).itemsize
        else:
            photons = COUNTS_PER_PIXEL if plan.dwell_s is None else COUNTS_PER_S * plan.dwell_s
            total += visits + 2 * round(min(visits * photons, MOST_PHOTONS))
    return total


def facts_of(grid: Grid, parameters: Parameters, plan: ScanPlan) -> Facts:
    """Return what a person wants to read when a scan begins."""
    pixels = grid.chip_px**2 if grid.eds_px is None else grid.eds_px**2
    return {
        "preset": parameters.preset,
        "rows": grid.rows,
        "cols": grid.cols,
        "chip_px": grid.chip_px,
        "chip_nm": round(grid.chip_nm, 4),
        "pixels_per_chip": pixels,
        "elements": ",".join(parameters.elements),
        "frames": plan.frames,
        "register": parameters.register,
    }


def verdict(start: m.ScanStart, *, accepted: bool, reason: str = "", facts: Facts | None = None) -> m.Verdict:
    """Return the answer to a `scan_start`."""
    return m.Verdict(
        request_id=f"{start.scan_id[:40]}-{start.seq}",
        session=start.session,
        epoch=start.epoch,
        seq=start.seq,
        scan_id=start.scan_id,
        accepted=accepted,
        reason=reason[:4096],
        facts=facts or {},
    )


def _pixels(plan: ScanPlan) -> list[int]:
    shapes = [plan.sampling(modality).shape for modality in plan.modalities]
    return [rows * cols for rows, cols in shapes]
