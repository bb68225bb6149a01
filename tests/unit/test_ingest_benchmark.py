"""The benchmarks of ingest and start-up: what they send, what the bare ways do with it, and how they sum it up."""

import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest
from benchmarks.performance import ingest, start_up
from benchmarks.performance.ingest_source import (
    DENSE_ROWS,
    SIDE,
    Seen,
    Sent,
    Uncompressed,
    bare_sqlite,
    bare_zmq,
    plan_of,
    tiles_of,
)
from benchmarks.performance.table import Timed

from livestem.client.tilecheck import check_tile
from livestem.domain.tiles import EdsDense, EdsEvents, HaadfTile
from livestem.wire import messages as m
from livestem.wire.codec import decode, unnest

SENT = Sent(tiles=10, events=1000, nbytes=5_000_000, beam_s=2.0, ours_s=0.5, zmq_s=0.1, sqlite_s=0.4)


@pytest.mark.parametrize("kind", ["haadf", "0.04"])
def test_a_frame_is_whole_and_legal(kind: str):
    plan, (frame, _) = plan_of(kind, 2), tiles_of(kind, np.random.default_rng(0))
    for tile in frame:
        check_tile(plan, tile)
    rows = sum(len(t.values) for t in frame if isinstance(t, HaadfTile))
    assert rows == SIDE
    photons = sum(t.channels.size for t in frame if isinstance(t, EdsEvents))
    assert photons == pytest.approx(0.0 if kind == "haadf" else float(kind) * SIDE * SIDE, rel=0.1)


def test_dense_spectra_have_the_photons_that_are_claimed():
    frame, _ = tiles_of("dense", np.random.default_rng(0))
    assert len(frame) == DENSE_ROWS and all(isinstance(t, EdsDense) for t in frame)
    assert int(frame[0].values.sum()) == pytest.approx(5 * SIDE, rel=0.1)


def test_the_bare_ways_move_the_very_messages(tmp_path: Path):
    seen = Seen()
    with Uncompressed("bench", f"ipc://{tmp_path / 'a'}", recorded=False, link=seen) as acquisition:
        values = np.zeros((1, 4, 1000), np.uint8)
        header = m.EdsRows(scan_id="scan", frame=0, y=0, x=0, h=1, w=4, content="dense")
        acquisition.publish(header, (values,), codec="zstd")
        acquisition.publish(
            m.ScanEnd(scan_id="scan", status="complete", frames=1, haadf_tiles=0, eds_tiles=1, eds_counts=0)
        )
    (frames,) = seen.frames
    assert len(frames[2]) == values.nbytes, "as it is"
    assert bare_zmq(seen.frames * 3) > 0 and bare_sqlite(seen.frames * 3, tmp_path) > 0
    with sqlite3.connect(tmp_path / "bare.sqlite") as base:
        kept = [row for (row,) in base.execute("SELECT message FROM messages")]
    base.close()
    assert len(kept) == 3 and decode(unnest(np.frombuffer(kept[0], np.uint8))).header.scan_id == "scan"


def test_the_median_is_of_each_way_and_ratios_are_theirs():
    slow, quick = (msgspec.structs.replace(SENT, ours_s=s) for s in (4.0, 0.25))
    middle = ingest._median([slow, SENT, quick])
    assert middle == SENT
    assert ingest._cells(middle) == (4.0, 0.2, 0.8, 2000.0, 20.0, 10.0)


def test_start_up_is_told_in_times_of_a_bare_python():
    assert start_up._row("x", Timed((0.4,)), Timed((0.1,)), [30.0, 10.0, 20.0]) == ("x", 4.0, 0.4, 0.0, 20.0)
    assert start_up._row("x", Timed((0.4,)), Timed((0.1,)), None)[-1] is None
