"""Whether a scan may begin here, and what its sender is told.

A scan is refused before it costs anything: no folder, no memory. Its sender gets one clear line.
"""

from __future__ import annotations

from livestem.domain.errors import LivestemError
from livestem.domain.geometry import Grid
from livestem.domain.limits import Limits
from livestem.domain.parameters import Parameters
from livestem.domain.scan import ScanPlan
from livestem.runtime.accumulator import memory_bytes
from livestem.wire import messages as m

Facts = dict[str, str | int | float | bool | None]


def check_limits(limits: Limits, plan: ScanPlan, grid: Grid, parameters: Parameters, *, open_scans: int) -> None:
    """Refuse a scan that would go beyond a limit.

    Parameters
    ----------
    open_scans : int
        That are open already.

    Raises
    ------
    LivestemError
        With the limit and what was asked.
    """
    for what, value, most in (
        ("open scans", open_scans + 1, limits.open_scans),
        ("pixels", max(_pixels(plan)), limits.pixels),
        ("channels", plan.eds.energy.channels if plan.eds else 0, limits.channels),
        ("chips (use a larger --chip-px)", grid.chips, limits.chips),
        ("classes", len(parameters.support.names) if parameters.support else 0, limits.classes),
        ("planned frames", plan.frames or 0, limits.planned_frames),
        ("bytes of memory", memory_bytes(plan, grid, parameters.register), limits.accumulator_bytes),
    ):
        if value > most:
            raise LivestemError(f"{value} {what}, this service allows {most}")


def check_disk(limits: Limits, free: int) -> None:
    """Refuse a scan while less than `free_disk_bytes` are free.

    Raises
    ------
    LivestemError
        With what is free.
    """
    if free < limits.free_disk_bytes:
        raise LivestemError(f"only {free // 2**20} MiB free on the store's disk; make room or move the store")


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
        scan_id=start.scan_id,
        accepted=accepted,
        reason=reason[:4096],
        facts=facts or {},
    )


def _pixels(plan: ScanPlan) -> list[int]:
    shapes = [plan.sampling(modality).shape for modality in plan.modalities]
    return [rows * cols for rows, cols in shapes]
