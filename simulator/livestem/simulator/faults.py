"""Faults on request: what a real network does to messages, and a real instrument to a scan.

Rules
-----
1. The network's faults (``drop``, ``dup``, ``corrupt``, ``reorder``) are probabilities and bounds; what they do to each
   message is `faulty_link`'s business.
2. The instrument's faults strike in the middle of a frame; frames count from 0. ``stall`` stops the beam and goes on;
   ``abort`` is an operator's; at ``restart`` the program dies, comes back under the same session, and scans again from
   the beginning; at ``vanish`` it dies, says nothing, and does not come back. `faulty_source` does them.
3. What was asked for happens, or is refused beforehand: a fault that another one or the end of the scan would keep from
   happening is a mistake of who asks. Only of abort and vanish the later may be asked for in vain: a scan ends once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from livestem.domain.errors import UsageError

POSSIBLE = (
    "drop=0.01, dup=0.01, corrupt=0.001, reorder=8, stall=2s, stall=2s@frame=1, "
    "abort@frame=3, restart@frame=2, vanish@frame=4"
)
_MOST_PLACES = 1000  # a service asks again for what is late by 20 ms, so whatever is later than this counts as lost
_LONGEST_STALL_S = 3600.0  # longer than an hour nobody waits for a beam
_MOST_FRAMES = 2**31 - 1  # what a frame's number may be on the wire
_UNITS_S = {"s": 1.0, "ms": 1e-3}
_ITEM = re.compile(r"(?P<name>[^=@]+)(=(?P<value>[^=@]*))?(@frame=(?P<frame>[^=@]*))?")


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Which faults are asked for; none by default.

    Parameters
    ----------
    drop, dup, corrupt : float
        Probability for each message with data, 0 to 1.
    reorder : int
        Places that a message may leave late, 0 (in order) to 1000.
    stall_s : float
        How long the beam stops, s; 0 if it does not.
    stall_frame : int, optional
        In the middle of which frame it does; by default in the middle of the scan.
    abort_frame, restart_frame, vanish_frame : int, optional
        In the middle of which frame that happens, if at all. A scan ends once: by abort or by vanishing, and nothing
        else happens in a later frame.

    Raises
    ------
    UsageError
        If a value is outside its range, or one fault would keep another from happening.
    """

    drop: float = 0.0
    dup: float = 0.0
    corrupt: float = 0.0
    reorder: int = 0
    stall_s: float = 0.0
    stall_frame: int | None = None
    abort_frame: int | None = None
    restart_frame: int | None = None
    vanish_frame: int | None = None

    def __post_init__(self) -> None:
        for name in ("drop", "dup", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"fault {name} is a probability of 0 to 1, got {getattr(self, name):g}")
        if not 0 <= self.reorder <= _MOST_PLACES:
            raise UsageError(f"fault reorder is 0 to {_MOST_PLACES} places, got {self.reorder}")
        if not 0 <= self.stall_s <= _LONGEST_STALL_S:
            raise UsageError(f"fault stall lasts 0 to {_LONGEST_STALL_S:g} s, got {self.stall_s:g} s")
        if self.stall_frame is not None and not self.stall_s:
            raise UsageError("fault stall needs to last; write stall=2s@frame=1")
        for name, frame in self._moments().items():
            if not 0 <= frame <= _MOST_FRAMES:
                raise UsageError(f"fault {name} happens in a frame, which count from 0; got frame {frame}")
        self._check_ends()

    @property
    def strikes(self) -> bool:
        """Whether something is to happen to the instrument, not only to the network."""
        return self.stall_s > 0 or bool(self._moments())

    def within(self, frames: int | None) -> Faults:
        """Return the faults of a scan of so many frames: the stall has its place, and the scan one end, the earlier.

        Parameters
        ----------
        frames : int or None
            As planned; None if the scan is open-ended, whose middle is not known: it stalls in frame 0.

        Raises
        ------
        UsageError
            If one is to happen in a frame that the scan does not have.
        """
        for name, frame in self._moments().items():
            if frames is not None and frame >= frames:
                raise UsageError(
                    f"fault {name}@frame={frame} of a scan with frames 0 to {frames - 1}; give more --frames"
                )
        once = self
        if self.abort_frame is not None and self.vanish_frame is not None:
            aborts = self.abort_frame < self.vanish_frame
            once = replace(self, vanish_frame=None) if aborts else replace(self, abort_frame=None)
        if not self.stall_s or self.stall_frame is not None:
            return once
        last = min(f for f in ((frames or 1) // 2, once.abort_frame, once.vanish_frame) if f is not None)
        return replace(once, stall_frame=last)

    def _moments(self) -> dict[str, int]:
        moments = {name: getattr(self, f"{name}_frame") for name in ("stall", "restart", "abort", "vanish")}
        return {name: frame for name, frame in moments.items() if frame is not None}

    def _check_ends(self) -> None:
        moments = self._moments()
        ends = {name: moments.pop(name) for name in ("abort", "vanish") if name in moments}
        if len(ends) == 2 and ends["abort"] == ends["vanish"]:
            raise UsageError("a scan ends once: ask for fault abort and fault vanish in different frames, or for one")
        for end, last in ends.items():
            for name, frame in moments.items():
                if frame > last:
                    raise UsageError(f"fault {name}@frame={frame} would never happen: {end}@frame={last} comes before")


NO_FAULTS = Faults()


def parse_faults(text: str) -> Faults:
    """Return the faults of a comma-separated list.

    Parameters
    ----------
    text : str
        Such as ``drop=0.01,dup=0.01,reorder=8,corrupt=0.001,stall=2s,restart@frame=2,vanish@frame=4``. A stall takes
        ``s`` or ``ms``, and may have its frame too: ``stall=500ms@frame=1``.

    Raises
    ------
    UsageError
        If that is no such list; one line says what is wrong with which fault.

    Examples
    --------
    >>> parse_faults("drop=0.01,abort@frame=3").abort_frame
    3
    """
    given: dict[str, Any] = {}
    for item in text.split(","):
        item = item.strip()
        found = _ITEM.fullmatch(item)
        if found is None or found["name"] not in _READERS:
            raise UsageError(f"{item!r} is no fault; possible are {POSSIBLE}")
        fields = _READERS[found["name"]](item, found["value"], found["frame"])
        twice = given.keys() & fields.keys()
        if twice:
            raise UsageError(f"fault {found['name']} is given twice; once is enough")
        given |= fields
    return Faults(**given)


def _probability(item: str, value: str | None, frame: str | None) -> dict[str, Any]:
    name = item.partition("=")[0]
    example = f"{item!r}: write a probability of 0 to 1, such as {name}=0.01"
    number = math.nan if value is None or frame is not None else _float(value)
    if not 0 <= number <= 1:
        raise UsageError(example)
    return {name: number}


def _places(item: str, value: str | None, frame: str | None) -> dict[str, Any]:
    number = None if value is None or frame is not None else _whole(value)
    if number is None:
        raise UsageError(f"{item!r}: write how many places late, a whole number, such as reorder=8")
    return {"reorder": number}


def _stall(item: str, value: str | None, frame: str | None) -> dict[str, Any]:
    found = re.fullmatch(r"(?P<number>[^a-z]*)(?P<unit>[a-z]+)", value or "")
    seconds = math.nan if found is None else _float(found["number"]) * _UNITS_S.get(found["unit"], math.nan)
    if not 0 < seconds < math.inf:
        raise UsageError(f"{item!r}: write how long, in s or ms, such as stall=2s or stall=500ms@frame=1")
    return {"stall_s": seconds, "stall_frame": None if frame is None else _frame(item, frame)}


def _moment(item: str, value: str | None, frame: str | None) -> dict[str, Any]:
    name = re.split("[=@]", item, maxsplit=1)[0]
    if value is not None or frame is None:
        raise UsageError(f"{item!r}: say in which frame, such as {name}@frame=3")
    return {f"{name}_frame": _frame(item, frame)}


_READERS: dict[str, Callable[[str, str | None, str | None], dict[str, Any]]] = {
    **dict.fromkeys(("drop", "dup", "corrupt"), _probability),
    "reorder": _places,
    "stall": _stall,
    **dict.fromkeys(("abort", "restart", "vanish"), _moment),
}


def _frame(item: str, text: str) -> int:
    number = _whole(text)
    if number is None:
        raise UsageError(f"{item!r}: a frame is a whole number, counted from 0")
    return number


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
