"""Independent steps of one computation on as many threads as the machine has cores.

It gains where a step is large products, sorts and sums of arrays, which let other threads run; many small steps take
turns and gain nothing (measured: regions of 2601 chips). Results are in the order of the items, whoever was first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], most: int | None = None) -> list[Result]:
    """Return ``[work(item) for item in items]``.

    Parameters
    ----------
    work : callable
        Called from several threads at once.
    items : sequence
        Taken up in this order.
    most : int, optional
        How many at once, if not one for each core.

    Raises
    ------
    Exception
        That of the first item which has one.
    """
    at_once = min(len(items), most or os.cpu_count() or 1)
    if at_once <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(at_once, "finals") as pool:
        return list(pool.map(work, items))


class Once:
    """What several threads need and one of them makes: who asks first makes it, the others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Hashable, Future[Any]] = {}

    def __call__(self, name: Hashable, make: Callable[[], Result]) -> Result:
        """Return what `make` returns, from the first call with this name on; or raise what that raised."""
        with self._lock:
            mine = name not in self._made
            made: Future[Result] = self._made.setdefault(name, Future())
        if mine:
            try:
                made.set_result(make())
            except Exception as e:
                made.set_exception(e)
        return made.result()
