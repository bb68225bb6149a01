"""Loops that arrays cannot say: compiled when first called, and kept on disk for the next start.

The code of a loop is plain Python over arrays and numbers; Numba turns it into machine code that lets other threads run
meanwhile. It reorders no sums, so what is computed is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(loop: Loop) -> Loop:
    """Compile a function; where no folder can be written that would keep it, at each start anew."""
    how = {"nogil": True, "error_model": "numpy"}  # a quotient by zero is infinite, as it is in arrays
    try:
        found: Loop = njit(cache=True, **how)(loop)
    except RuntimeError:  # read-only everywhere, as in a container
        found = njit(**how)(loop)
    return found
