"""A scan into a journal without a service: what `replay` sends later is what the source would have sent now."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from livestem.client.replay import TileSource, hand_over
from livestem.client.scan_writer import ScanWriter
from livestem.domain.errors import StoreError, UsageError
from livestem.domain.limits import DEFAULT_LIMITS
from livestem.domain.tiles import Tile
from livestem.protocol.publisher import Publisher
from livestem.runtime.journal import COMMIT_BYTES, JOURNAL, Journal
from livestem.wire import messages as m
from livestem.wire.codec import decode

_SESSION = "recorded"
_EPOCH = 1  # one sender, which starts once


class _Tape:
    """Where a `ScanWriter`'s messages go: encoded as on the wire, into a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        keep_one = msgspec.structs.replace(DEFAULT_LIMITS, resend_bytes=1)  # nobody will ask again
        self._publisher = Publisher(_SESSION, "acq", _EPOCH, lambda: 0, limits=keep_one)

    def publish(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...] = (), *, codec: str = "raw") -> None:
        self._journal.append(decode(self._publisher.publish(header, arrays, codec=codec)))
        if self._journal.uncommitted_bytes >= COMMIT_BYTES:
            self.settle()

    def settle(self) -> None:
        self._journal.commit(_EPOCH, self._publisher.buffer.last_seq)

    def verdict(self, scan_id: str) -> m.Verdict | None:
        return None


def record(
    source: TileSource,
    folder: Path,
    *,
    on_tile: Callable[[Tile], None] = lambda tile: None,
) -> Path:
    """Write a scan as ``journal.sqlite`` into a new folder.

    Parameters
    ----------
    source : TileSource
    folder : Path
        Appears whole or not at all.

    Returns
    -------
    Path
        Of the journal.

    Raises
    ------
    UsageError
        If there is something at `folder` already.
    LivestemError
        If the source breaks or the disk is full.
    """
    if folder.exists():
        raise UsageError(f"{folder} is there already; choose another --save")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        journal = Journal(partial / JOURNAL)
        try:
            _write(source, _Tape(journal), on_tile)
        finally:
            journal.close()
        partial.rename(folder)
    except OSError as e:
        raise StoreError(f"{folder} cannot be written: {e.strerror or e}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / JOURNAL


def _write(source: TileSource, tape: _Tape, on_tile: Callable[[Tile], None]) -> None:
    tape.publish(m.ScanStart(scan_id=source.scan_id, plan=source.plan))
    with ScanWriter(tape, source.plan, source.scan_id) as writer:
        hand_over(source, writer, after=on_tile)
    tape.settle()
