"""What is missing of a frame, in rectangles: exactly, none twice, none in pieces; of a hostile frame a short list."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from livestem.domain.geometry import Sampling, plan_grid
from livestem.domain.scan import Haadf, ScanPlan
from livestem.protocol.places import gone_places
from livestem.protocol.repair import MOST_RECTANGLES, Repair
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.received import MOST_HOLES, Hole, Occupancy
from livestem.wire import messages as m
from livestem.wire.codec import Message

masks = array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(lambda shape: arrays(np.bool_, shape))


def filled(shape: tuple[int, int], seen: NDArray[np.bool_]) -> Occupancy:
    """Return what is here of frame 0, come pixel by pixel."""
    here = Occupancy(shape)
    for y, x in np.argwhere(seen).tolist():
        here.claim(0, y, x, 1, 1, 0)
    return here


def gaps(row: NDArray[np.bool_]) -> set[tuple[int, int]]:
    """Return the (first, end) of what is not here of a row, found pixel by pixel."""
    edges = [x for x, (a, b) in enumerate(pairwise([True, *row.tolist(), True])) if a != b]
    return set(zip(edges[::2], edges[1::2], strict=True))


@given(masks)
def test_they_are_what_never_came_each_as_large_as_it_can_be(seen: NDArray[np.bool_]):
    times = np.zeros(seen.shape, int)
    holes = filled(seen.shape, seen).holes(0)
    for y, x, h, w in holes:
        times[y : y + h, x : x + w] += 1
        assert h > 0 and all((x, x + w) in gaps(row) for row in seen[y : y + h]), "a whole gap of each row"
        beside = [seen[i] for i in (y - 1, y + h) if 0 <= i < len(seen)]
        assert all((x, x + w) not in gaps(row) for row in beside), "and of no row beside"
    np.testing.assert_array_equal(times, ~seen)
    assert holes == sorted(holes)


@given(arrays(np.bool_, st.integers(1, 30)))
def test_of_full_rows_they_are_bands_without_columns(rows: NDArray[np.bool_]):
    here = filled((len(rows), 3), np.repeat(rows[:, None], 3, axis=1))
    told = [msgspec.to_builtins(tile) for tile in here.missing("haadf", 1)]
    assert told == [{"modality": "haadf", "frame": 0, "y": y, "h": end - y} for y, end in sorted(gaps(rows))]


def test_a_quadrant_that_is_missing_is_told_and_asked_for_exactly_and_only_once_if_it_is_gone():
    sampling = Sampling(shape=(16, 16), pixel_nm=(0.1, 0.1))
    plan = ScanPlan(haadf=Haadf(sampling=sampling, dtype="<u2"), frames=2)
    made = Accumulator(plan, plan_grid(sampling, None, chip_px=4))
    corners = [(frame, y, x) for frame in (0, 1) for y in (0, 8) for x in (0, 8)]
    for frame, y, x in corners[:-1]:
        tile = m.HaadfRows(scan_id="scan", frame=frame, y=y, x=x)
        made.apply(Message(tile, (np.full((8, 8), 7, "<u2"),), ()))
    assert made.missing() == (m.MissingTile(modality="haadf", frame=1, y=8, x=8, h=8, w=8),)
    assert made.coverage().haadf == 0.875 and made.scattered() == 0
    wanted = m.Rectangle(modality="haadf", y=8, x=8, h=8, w=8)
    repair = Repair(made.lacking_frames(2))
    assert repair.wanted(made.lacking, 0.0) == (1, (wanted,))
    asked = m.Resend(request_id="r", scan_id="scan", frame=1, rectangles=(wanted,))
    repair.answered(gone_places(asked), asked, 0.0)
    assert repair.wanted(made.lacking, 0.0) is None and repair.over


def test_a_frame_that_is_too_scattered_is_told_in_whole_rows():
    side = 2 * int(MOST_HOLES**0.5)
    board = np.indices((side, side)).sum(axis=0) % 2 == 0
    board[0] = True
    here = filled((side, side), board)
    assert here.holes(0) == [Hole(1, 0, side - 1, side)] and here.scattered(1) == 1
    assert here.scattered(0) == 0, "of a frame that does not count"
    board[2:] = True
    few = filled((side, side), board)
    assert len(few.holes(0)) == side // 2 and few.scattered(1) == 0


def test_as_many_as_may_be_are_told_exactly_and_fit_into_one_request():
    comb = np.zeros((2, 2 * MOST_HOLES + 1), bool)
    comb[0], comb[1, ::2] = True, True
    assert len(filled(comb.shape, comb).holes(0)) == MOST_HOLES <= MOST_RECTANGLES
    assert len(set(filled(comb.shape, comb).missing("eds", 1))) == MOST_HOLES
