"""Where registration moved the frames of a scan: the shifts over the frames, as the result states them."""

from __future__ import annotations

from typing import Any

import msgspec

from livestem.runtime.drawing import new_figure
from livestem.runtime.report.maps import PAGE_IN
from livestem.runtime.report.numbers import DASH
from livestem.runtime.report.scan import Scan
from livestem.runtime.report.tables import Table

_HEIGHT_IN = 1.8
_TEXT_PT = 7.0
_COLOURS = {"slow (y)": "#0072B2", "fast (x)": "#D55E00"}  # Okabe and Ito's blue and vermilion
_SYMBOLS_UP_TO = 60  # frames: beyond, symbols would run together

_Vector = tuple[float, float]


class _Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of the key ``registration``; a result may lack any of it."""

    reason: str | None = None
    frames: int | None = None
    determined: int | None = None
    drift_nm: _Vector | None = None
    shifts_nm: tuple[_Vector | None, ...] = ()
    frame_determined: tuple[bool, ...] = ()


def registration(scan: Scan) -> tuple[Table | None, Any | None]:
    """Return what registration did as a table and as a figure; None for what the result does not say."""
    try:
        found = msgspec.convert(scan.facts.registration, _Registration)
    except ValueError:  # none, or told in a form of another version
        return None, None
    if found.reason is not None:
        return None, None  # the facts say it
    rows: dict[str, str] = {
        "frames": DASH if found.frames is None else str(found.frames),
        "shift determined in": DASH if found.determined is None else f"{found.determined} frames",
        "drift over the scan (y, x)": _vector(found.drift_nm),
        "largest shift (y, x)": _vector(max((s for s in found.shifts_nm if s), key=_length, default=None)),
    }
    table = Table(caption="Registration of frames", head=("", ""), rows=tuple(rows.items()))
    known = [i for i, shift in enumerate(found.shifts_nm) if shift is not None]
    return table, _draw(found, known) if len(known) > 1 else None


def _draw(found: _Registration, known: list[int]) -> Any:
    figure = new_figure(PAGE_IN, _HEIGHT_IN)
    axis = figure.add_subplot(1, 1, 1)
    shifts = [shift for shift in found.shifts_nm if shift is not None]
    determined = found.frame_determined if len(found.frame_determined) == len(found.shifts_nm) else None
    doubtful = [] if determined is None else [k for k, i in enumerate(known) if not determined[i]]
    few = len(known) <= _SYMBOLS_UP_TO
    for part, (name, colour) in enumerate(_COLOURS.items()):
        values = [shift[part] for shift in shifts]
        axis.plot(known, values, color=colour, linewidth=1.0, marker="os"[part] if few else None, ms=2.5, label=name)
        if doubtful:
            at = [known[k] for k in doubtful]
            axis.plot(at, [values[k] for k in doubtful], "o", mfc="white", mec=colour, ms=4, mew=0.8, ls="none")
    axis.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    axis.set_xlabel("frame", fontsize=_TEXT_PT)
    axis.set_ylabel("shift, nm", fontsize=_TEXT_PT)
    axis.tick_params(labelsize=_TEXT_PT)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=_TEXT_PT, frameon=False, loc="best")
    return figure


def _vector(nm: _Vector | None) -> str:
    return DASH if nm is None else f"{nm[0]:+.3f}, {nm[1]:+.3f} nm".replace("-", "−")


def _length(shift: _Vector) -> float:
    return shift[0] ** 2 + shift[1] ** 2
