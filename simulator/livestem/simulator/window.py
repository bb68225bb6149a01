"""A rectangle on the specimen or in the session's frame."""

from __future__ import annotations

from dataclasses import dataclass

_ROUNDING_NM = 1e-6  # of sums of pixels


@dataclass(frozen=True)
class Window:
    """A rectangle of the session's frame, nm: from (y0, x0) to (y1, x1)."""

    y0: float
    x0: float
    y1: float
    x1: float

    def wider(self, by_nm: float) -> Window:
        """Return the window with a margin on every side."""
        return Window(self.y0 - by_nm, self.x0 - by_nm, self.y1 + by_nm, self.x1 + by_nm)

    def moved(self, y_nm: float, x_nm: float) -> Window:
        """Return the window at another place."""
        return Window(self.y0 + y_nm, self.x0 + x_nm, self.y1 + y_nm, self.x1 + x_nm)

    def upper(self, share: float) -> Window:
        """Return the upper part of the window, `share` of its height."""
        return Window(self.y0, self.x0, self.y0 + share * (self.y1 - self.y0), self.x1)

    def meets(self, other: Window) -> bool:
        """Return whether the two overlap."""
        return self.y0 < other.y1 and other.y0 < self.y1 and self.x0 < other.x1 and other.x0 < self.x1

    def holds(self, other: Window) -> bool:
        """Return whether `other` lies within, but for rounding."""
        wide = self.wider(_ROUNDING_NM)
        return wide.y0 <= other.y0 and wide.x0 <= other.x0 and other.y1 <= wide.y1 and other.x1 <= wide.x1

    @property
    def size_nm(self) -> tuple[float, float]:
        """(height, width), nm."""
        return self.y1 - self.y0, self.x1 - self.x0
