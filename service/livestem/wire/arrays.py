"""What each message type demands of its arrays, beyond dtype and size: shapes that agree, values that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from livestem.domain.errors import WireError
from livestem.wire import messages as m

Arrays = tuple[NDArray[Any], ...]

# Of detector values: no converter has so many bits, and sums of them over 100 000 frames still fit into 64.
MOST_HAADF = 2**40


def check_arrays(header: m.Header, arrays: Arrays) -> None:
    """Raise `WireError` (``payload`` or ``value``) unless `arrays` are what `header` must carry."""
    rule = _RULES.get(type(header))
    if rule is not None:
        rule(header, arrays)
    elif arrays:
        raise WireError("payload", f"a {m.tag_of(header)} carries no arrays")


def first_bad(values: NDArray[Any]) -> tuple[int, ...] | None:
    """Return the index of the first value that is not finite, or None."""
    if values.dtype.kind != "f":
        return None
    bad = ~np.isfinite(values)
    return tuple(int(i) for i in np.argwhere(bad)[0]) if bad.any() else None


def haadf_fault(values: NDArray[Any]) -> tuple[str, tuple[int, ...]] | None:
    """Return what is wrong with the first value that no detector gives, and its index; or None."""
    if values.dtype.itemsize <= 4 and values.dtype.kind != "f":
        return None
    good = (values <= MOST_HAADF) & (values >= -MOST_HAADF)  # nor is it, if it is not a number
    if good.all():
        return None
    bad = tuple(int(i) for i in np.argwhere(~good)[0])
    return ("beyond 2**40" if np.isfinite(values[bad]) else "not finite"), bad


def _haadf(header: m.Header, arrays: Arrays) -> None:
    assert isinstance(header, m.HaadfRows)
    (values,) = _exactly(1, arrays)
    if values.ndim != 2 or not values.size:
        raise WireError("payload", f"a haadf_tile is (h, w), got {values.shape}")
    fault = haadf_fault(values)
    if fault is not None:
        raise WireError("value", f"HAADF is {fault[0]} at frame {header.frame}, {_place(header, fault[1])}")


def _eds(header: m.Header, arrays: Arrays) -> None:
    assert isinstance(header, m.EdsRows)
    if header.content == "dense":
        (values,) = _exactly(1, arrays)
        if values.ndim != 3 or values.shape[:2] != (header.h, header.w) or values.dtype.kind not in "ui":
            raise WireError("payload", f"dense EDS is (h, w, channels) of integers, got {values.shape}")
        if values.dtype.kind == "i" and values.size and values.min() < 0:
            bad = tuple(int(i) for i in np.argwhere(values < 0)[0])
            raise WireError("value", f"negative EDS counts at frame {header.frame}, {_place(header, bad)}")
        return
    counts, channels = _exactly(2, arrays)
    if counts.shape != (header.h, header.w) or counts.dtype.kind != "u" or channels.dtype.kind != "u":
        raise WireError("payload", f"EDS events are unsigned counts (h, w) and channels, got {counts.shape}")
    # no pixel can hold more than all photons: asked first, because the sum of 64-bit counts could wrap round
    most = int(counts.max(initial=0))
    if channels.ndim != 1 or most > channels.size or int(counts.sum(dtype=np.uint64)) != channels.size:
        raise WireError("payload", f"{channels.size} channels do not match the counts per pixel")


def _labels(header: m.Header, arrays: Arrays) -> None:
    assert isinstance(header, m.Segmentation | m.Live)
    if isinstance(header, m.Live) and header.method is None:
        _exactly(0, arrays)
        return
    if isinstance(header, m.Live) and header.oldest_frames is not UNSET:
        *arrays_before, ages = _exactly(3, arrays)
        if ages.dtype != np.uint16 or ages.shape != arrays[0].shape:
            raise WireError("payload", f"ages are uint16 (rows, cols), got {ages.dtype} {ages.shape}")
        arrays = tuple(arrays_before)
    if not 1 <= len(arrays) <= 2:
        raise WireError("payload", f"a {m.tag_of(header)} carries labels and perhaps scores")
    labels = arrays[0]
    if labels.ndim != 2 or labels.dtype != np.int16:
        raise WireError("payload", f"labels are int16 (rows, cols), got {labels.dtype} {labels.shape}")
    if len(arrays) == 2:
        scores = arrays[1]
        if scores.dtype != np.float32 or scores.shape != (len(header.classes), *labels.shape):
            raise WireError("payload", f"scores are float32 (classes, rows, cols), got {scores.shape}")
        if first_bad(scores) is not None:
            raise WireError("value", "a score is not finite")


def _coverage(header: m.Header, arrays: Arrays) -> None:
    assert isinstance(header, m.CoverageMap)
    shares, visits = _exactly(2, arrays)
    for array in (shares, visits):
        if array.dtype != np.float32 or array.ndim != 3 or array.shape != (len(header.modalities), *shares.shape[1:]):
            raise WireError("payload", f"a coverage_map is float32 (modalities, rows, cols), got {array.shape}")
        if first_bad(array) is not None or (array < 0).any():
            raise WireError("value", "coverage and visits are finite, none is negative")
    if (shares > 1).any():
        raise WireError("value", "coverage is 0 to 1")


def _shifts(header: m.Header, arrays: Arrays) -> None:
    estimates, moved, determined = _exactly(3, arrays)
    frames = determined.shape[:1]
    for array, dtype, shape in (
        (estimates, "<f4", (*frames, 2)),
        (moved, "<i4", (*frames, 2)),
        (determined, "|u1", frames),
    ):
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise WireError("payload", f"a registration has {dtype} of {shape}, got {array.dtype} of {array.shape}")
    if first_bad(estimates) is not None:
        raise WireError("value", "a shift is not finite")


def _nested(header: m.Header, arrays: Arrays) -> None:
    last_page = isinstance(header, m.SnapshotPage) and header.cursor is None  # the newest live ones, or nothing
    for blob in arrays if last_page else _exactly(1, arrays):
        if blob.dtype != np.uint8 or blob.ndim != 1:
            raise WireError("payload", "a nested message is one uint8 array")


def _exactly(n: int, arrays: Arrays) -> Arrays:
    if len(arrays) != n:
        raise WireError("payload", f"{len(arrays)} arrays where {n} belong")
    return arrays


def _place(tile: m.HaadfRows | m.EdsRows, index: tuple[int, ...]) -> str:
    return f"y {tile.y + index[0]}, x {tile.x + index[1]}"


_RULES: dict[type[m.Header], Callable[[m.Header, Arrays], None]] = {
    m.HaadfRows: _haadf,
    m.EdsRows: _eds,
    m.Live: _labels,
    m.CoverageMap: _coverage,
    m.Registration: _shifts,
    m.Segmentation: _labels,
    m.Resent: _nested,
    m.SnapshotPage: _nested,
}
