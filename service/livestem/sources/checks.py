"""What is checked before anything is published: finite HAADF, whole EDS counts, clipped detectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from livestem.domain.errors import SourceError
from livestem.sources.signals import Picture, SpectrumImage

# Share of pixels at an end of the detector's range above which it is called clipped: single hot pixels and a
# few bright particles stay below it.
_CLIPPED = 0.01
_CHECK_ROWS = 64  # rows checked at once: a block of a few MiB


def checked_haadf(picture: Picture) -> tuple[str, list[str]]:
    """Return the dtype that the HAADF travels in, and warnings; every frame of a float image is looked at."""
    kind, dtype = picture.dtype.kind, picture.dtype
    if kind == "b":
        return np.dtype(np.uint8).str, []
    if kind in "ui":
        return dtype.newbyteorder("<").str, _clipping(picture)
    lossless = True
    for frame in range(picture.shape[0]):
        for y in range(0, picture.shape[1], _CHECK_ROWS):
            values = picture.rows(frame, y, min(picture.shape[1], y + _CHECK_ROWS))
            _check_finite(values, picture, frame, y)
            with np.errstate(over="ignore"):
                lossless = lossless and bool((values.astype(np.float32) == values).all())
    return np.dtype(np.float32 if lossless else np.float64).newbyteorder("<").str, []


def _check_finite(values: Any, picture: Picture, frame: int, y0: int) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        y, x = np.argwhere(bad)[0]
        raise SourceError(
            f"HAADF of {picture.path.name} is not finite at frame {frame}, y {y0 + y}, x {x}; "
            "export it again without masked pixels"
        )


def _clipping(picture: Picture) -> list[str]:
    """Tell of pixels at the ends of an integer range; the first frame speaks for all."""
    values = picture.rows(0, 0, picture.shape[1])
    ends = np.iinfo(picture.dtype.str)
    shares = {int(end): float((values == end).mean()) for end in (ends.min, ends.max)}
    clipped = [f"{share:.1%} of its pixels are {end}" for end, share in shares.items() if share > _CLIPPED]
    if not clipped:
        return []
    return [f"the HAADF of {picture.path.name} is clipped: {' and '.join(clipped)}; grey values there say nothing"]


def check_eds(spectrum: SpectrumImage) -> None:
    """Read what may hold values that are no counts once, so that it is refused before it is published."""
    if spectrum.counted:
        return
    for frame in range(spectrum.shape[0]):
        for y in range(0, spectrum.shape[1], _CHECK_ROWS):
            spectrum.photons.events(frame, y, min(spectrum.shape[1], y + _CHECK_ROWS))
