"""The table of a scan's life, cell by cell."""

from __future__ import annotations

import pytest

from livestem.domain.life import EndArrived, Finalise, Finalised, NothingMoreComes, ScanLife, TileApplied

RECEIVING = ScanLife(tiles=1)
ENDING = ScanLife(phase="ending", tiles=1, expected=3)
FINALISING = ScanLife(phase="finalising", tiles=3, expected=3)
DONE = ScanLife(phase="done", tiles=3, expected=3)

TABLE = [
    (RECEIVING, TileApplied(), "receiving", None),
    (RECEIVING, EndArrived(tiles=1), "finalising", "complete"),
    (RECEIVING, EndArrived(tiles=1, aborted=True), "finalising", "aborted"),
    (RECEIVING, EndArrived(tiles=3), "ending", None),
    (RECEIVING, NothingMoreComes(), "finalising", "incomplete"),
    (RECEIVING, Finalised(), "receiving", None),
    (ENDING, TileApplied(), "ending", None),
    (ScanLife(phase="ending", tiles=2, expected=3), TileApplied(), "finalising", "complete"),
    (ENDING, NothingMoreComes(), "finalising", "incomplete"),
    (ScanLife(phase="ending", tiles=1, expected=3, aborted=True), NothingMoreComes(), "finalising", "aborted"),
    *((state, event, state.phase, None) for state in (FINALISING, DONE)
      for event in (TileApplied(), EndArrived(tiles=9), NothingMoreComes())),
    (FINALISING, Finalised(), "done", None),
    (DONE, Finalised(), "done", None),
]  # fmt: skip


@pytest.mark.parametrize(("state", "event", "phase", "status"), TABLE)
def test_table(state, event, phase, status):
    after, effects = state.on(event)
    assert after.phase == phase
    assert effects == (() if status is None else (Finalise(status),))
