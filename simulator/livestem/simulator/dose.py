"""What the beam has done to the specimen: electrons per nm^2 at every place.

Doses are kept in the specimen's own frame, since drift carries a scan over places that its pixels do not name. Every
scan is kept as the rectangle it was, so that the smallest counts in full and none is lost at the edge of a map.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from livestem.simulator.parts import Floats
from livestem.simulator.window import Window


class DoseMap:
    """Electrons per nm^2, place by place; nothing has fallen yet."""

    def __init__(self) -> None:
        self._fallen: list[tuple[Window, float]] = []

    def add(self, window: Window, dose_e_nm2: float) -> None:
        """Add a dose all over a window."""
        if dose_e_nm2 > 0 and min(window.size_nm) > 0:
            self._fallen.append((window, dose_e_nm2))

    def at(self, y_nm: Floats, x_nm: Floats) -> Floats:
        """Return the dose at places that broadcast."""
        total = np.zeros(np.broadcast_shapes(np.shape(y_nm), np.shape(x_nm)))
        for window, dose in self._fallen:
            inside = (y_nm >= window.y0) & (y_nm < window.y1) & (x_nm >= window.x0) & (x_nm < window.x1)
            total += np.where(inside, dose, 0.0)
        return total

    def highest(self, window: Window) -> float:
        """Return the highest dose in a window."""
        fallen = [(w, dose) for w, dose in self._fallen if w.meets(window)]
        rows = np.unique([window.y0, *(max(w.y0, window.y0) for w, _ in fallen)])
        cols = np.unique([window.x0, *(max(w.x0, window.x0) for w, _ in fallen)])
        found = np.zeros((rows.size, cols.size))  # between these edges the dose is the same
        for w, dose in fallen:
            inside = np.ix_((rows >= w.y0) & (rows < w.y1), (cols >= w.x0) & (cols < w.x1))
            found[inside] += dose
        return float(found.max())

    def on_grid(self, window: Window, step_nm: float) -> NDArray[np.float32]:
        """Return the dose (rows, cols) at the middles of cells of `step_nm` over a window."""
        y = np.arange(window.y0 + step_nm / 2, window.y1, step_nm)
        x = np.arange(window.x0 + step_nm / 2, window.x1, step_nm)
        return self.at(y[:, None], x).astype(np.float32)

    @property
    def digest(self) -> str:
        """Content digest; "" where nothing has fallen yet."""
        return hashlib.sha256(repr(self._fallen).encode()).hexdigest()[:16] if self._fallen else ""

    def copy(self) -> DoseMap:
        """Return the map as it is now."""
        other = DoseMap()
        other._fallen = list(self._fallen)
        return other
