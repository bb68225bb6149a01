"""What tiles hold, against the plain way: every value looked at, one after the other."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scans import messages, plan, tiles

from livestem.runtime import journal as of_journal
from livestem.runtime import pieces as of_pieces
from livestem.runtime.journal import Journal, JournalRecording
from livestem.runtime.pieces import Photons, nonzero, pieces
from livestem.stages.photons import checksum_of_photons, checksum_of_values, count_photons
from livestem.wire import messages as m


@given(
    dtype=st.sampled_from(["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8"]),
    size=st.integers(0, 300),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    offset=st.integers(0, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_not_nought_is_found_at_any_address_in_any_integer(
    dtype: str, size: int, share: float, offset: int, seed: int
) -> None:
    rng, item = np.random.default_rng(seed), np.dtype(dtype).itemsize
    buffer = bytearray(offset + size * item)
    values = np.frombuffer(buffer, dtype=dtype, offset=offset)
    values[:] = rng.integers(1, 127, size) * (rng.random(size) < share) * 256 ** rng.integers(0, item, size)
    assert np.array_equal(nonzero(values), np.flatnonzero(values))


@pytest.mark.parametrize("at_once", [1, 7 * 9, 2**22])
def test_dense_spectra_become_lists_however_many_rows_are_looked_through_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_pieces, "_AT_ONCE", at_once)
    spectra = np.random.default_rng(1).poisson(0.3, (5, 7, 9)).astype("<u2")
    tile = m.EdsRows(scan_id="s", frame=0, y=2, x=1, h=5, w=7, content="dense")
    back = np.zeros((8, 9, 9), int)
    for piece in pieces(tile, (spectra,)):
        assert isinstance(piece, Photons) and piece.number is not None
        h, w = piece.shape
        y, x = np.divmod(piece.of_each(np.arange(h * w)), w)
        np.add.at(back, (piece.y + y, piece.x + x, piece.channel), piece.number)
        assert np.array_equal(piece.counts, back[piece.y : piece.y + h, piece.x : piece.x + w].sum(axis=2).ravel())
        assert piece.photons == piece.counts.sum()
    assert np.array_equal(back[2:7, 1:8], spectra) and back.sum() == spectra.sum()


def mixed(place: int, value: int) -> int:
    """One term of the checksum, in Python's integers."""
    word = (place * 0x9E3779B97F4A7C15 + value * 0xC2B2AE3D27D4EB4F) % 2**64
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def test_a_checksum_of_many_values_is_the_sum_of_each_ones() -> None:
    rng = np.random.default_rng(2)
    places: NDArray[np.uint64] = rng.integers(0, 2**64, 4000, dtype=np.uint64)
    values = rng.integers(0, 2**64, places.size, dtype=np.uint64)
    terms = zip(places.tolist(), values.tolist(), strict=True)
    expected = sum(mixed(place, value) for place, value in terms) % 2**64
    assert int(checksum_of_values(places, values)) == expected


def test_photons_are_counted_and_summed_as_lists_of_single_ones_would_be() -> None:
    rng = np.random.default_rng(3)
    entries = rng.integers(0, 4, 50).astype("u1")
    channel = rng.integers(0, 9, entries.sum()).astype("<u2")
    places: NDArray[np.uint64] = rng.integers(0, 2**40, 50).astype(np.uint64)
    row = rng.integers(-1, 3, 50)
    for number in (None, rng.integers(1, 300, channel.size).astype("<u2")):
        piece = Photons(0, 0, (5, 10), entries, channel, number)
        times = [1] * channel.size if number is None else number.tolist()
        single = [*zip(np.repeat(np.arange(50), entries).tolist(), channel.tolist(), times, strict=True)]
        expected = sum(mixed(int(places[pixel]), c) * n for pixel, c, n in single) % 2**64
        assert int(checksum_of_photons(places, *piece.lists)) == expected
        spectra, counted = np.ones((3, 9), np.uint32), np.ones((3, 9), np.uint32)
        for pixel, c, n in single:
            if row[pixel] >= 0:
                counted[row[pixel], c] += n
        count_photons(spectra, row, *piece.lists)
        assert np.array_equal(spectra, counted)


def test_a_journal_of_another_page_size_is_read_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    of, path = plan(), tmp_path / "journal.sqlite"
    stream = list(messages(of, tiles(of)))
    monkeypatch.setattr(of_journal, "_SCHEMA", of_journal._SCHEMA.replace("16384", "4096"))  # noqa: SLF001
    begun = Journal(path)
    for message in stream[:3]:
        begun.append(message)
    begun.commit(1, 3)
    begun.close()
    monkeypatch.undo()
    gone_on = Journal(path, reopen=True)
    for message in stream[3:]:
        gone_on.append(message)
    gone_on.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA page_size").fetchone() == (4096,)
    with JournalRecording(path) as recording:
        assert [found.frames[1] for found in recording.received()] == [bytes(sent.frames[1]) for sent in stream]
