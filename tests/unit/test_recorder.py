"""A scan saved without a service is the scan that would have been sent, whole or not there at all."""

from __future__ import annotations

import numpy as np
import pytest
from virtual import FILM

from livestem.domain.errors import SourceError, UsageError
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.runtime.journal import JOURNAL, JournalRecording
from livestem.runtime.recorder import record
from livestem.simulator import Simulation


@pytest.fixture(scope="module")
def scan():
    return Simulation(FILM, seed=1, frames=2)


def test_a_saved_scan_gives_back_its_plan_and_every_tile(scan, tmp_path):
    seen = []
    path = record(scan, tmp_path / "scan", on_tile=seen.append)
    assert path == tmp_path / "scan" / JOURNAL and [p.name for p in path.parent.iterdir()] == [JOURNAL]
    with JournalRecording(path) as saved:
        assert (saved.plan, saved.scan_id) == (scan.plan, scan.scan_id)
        assert saved.end is not None and saved.end.status == "complete"
        tiles = list(saved.tiles())
    assert len(tiles) == len(seen) == len(list(scan.tiles()))
    for one, other in zip(tiles, scan.tiles(), strict=True):
        assert (one.frame, one.y, one.x) == (other.frame, other.y, other.x)
        if isinstance(other, HaadfTile):
            assert np.array_equal(one.values, other.values)
        else:
            assert isinstance(one, EdsEvents) and isinstance(other, EdsEvents)
            assert np.array_equal(one.counts, other.counts) and np.array_equal(one.channels, other.channels)


def test_what_is_there_is_not_overwritten(scan, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="is there already; choose another --save"):
        record(scan, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_source_that_breaks_leaves_nothing(scan, tmp_path):
    def broken(tile):
        raise SourceError("the disk of the recording is gone")

    with pytest.raises(SourceError, match="gone"):
        record(scan, tmp_path / "scan", on_tile=broken)
    assert list(tmp_path.iterdir()) == []
