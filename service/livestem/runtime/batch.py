"""The same pipeline without a network: a source's messages are encoded, decoded and applied in this process.

Everything between the source and the label maps is the code that the service runs, so the digest is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from livestem.client.replay import TileSource, hand_over
from livestem.client.scan_writer import ScanWriter
from livestem.domain import life
from livestem.domain.errors import LivestemError, RefusedError, StoreError, UsageError
from livestem.domain.limits import Limits
from livestem.domain.scan import ScanPlan
from livestem.domain.support import SupportSet
from livestem.domain.tiles import Tile
from livestem.protocol.publisher import Publisher
from livestem.runtime.conclude import conclude
from livestem.runtime.decision import Decision, Decisions
from livestem.runtime.encoders import Encoders
from livestem.runtime.ingest import Ingest
from livestem.runtime.journal import COMMIT_BYTES
from livestem.runtime.metrics import Metrics
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.results import FILES, ScanResult, write_result
from livestem.runtime.settings import Settings
from livestem.runtime.store import KnownScan
from livestem.wire import messages as m
from livestem.wire.codec import decode

SESSION = "batch"
_EPOCH = 1  # one sender, which starts once


class _Folder:
    """A store of one scan."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def known(self, session: str, scan_id: str) -> KnownScan | None:
        return None

    def folder(self, session: str, scan_id: str) -> Path:
        return self._folder

    def begin(
        self,
        session: str,
        scan_id: str,
        plan: bytes,
        parameters: bytes,
        arithmetic: bytes | None,
        fill: Callable[[Path], None],
    ) -> Path:
        fill(self._folder)
        return self._folder

    def reopen(self, session: str, scan_id: str) -> None:
        """Nothing: no scan is known before."""

    def open_scans(self) -> list[tuple[str, str]]:
        return []

    def latest(self, session: str, most: int) -> list[str]:
        return []

    def keep_support(self, support: SupportSet) -> None:
        """Nothing: the result's parameters hold it."""

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free


class _Decisions(Decisions):
    """Keeps why a scan was refused: the verdict has its words only; here its exit code counts, too."""

    refusal: LivestemError | None = None

    def decide(self, plan: ScanPlan) -> Decision:
        try:
            return super().decide(plan)
        except LivestemError as e:
            self.refusal = e
            raise


class _Line:
    """Carries a writer's messages straight into ingest."""

    def __init__(self, ingest: Ingest, session: str, limits: Limits) -> None:
        self._ingest, self._limits, self._session = ingest, limits, session
        keep_one = msgspec.structs.replace(limits, resend_bytes=1)  # nobody will ask again
        self._publisher = Publisher(session, "acq", _EPOCH, lambda: 0, limits=keep_one)
        self._verdicts: dict[str, m.Verdict] = {}

    def publish(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...] = (), *, codec: str = "raw") -> None:
        frames = self._publisher.publish(header, arrays, codec=codec)
        for verdict in self._ingest.apply(decode(frames, self._limits)):
            self._verdicts[verdict.scan_id] = verdict
        self._ingest.register()
        if self._ingest.uncommitted_bytes >= COMMIT_BYTES:
            self._ingest.commit(self._session, _EPOCH, self._publisher.buffer.last_seq)

    def verdict(self, scan_id: str) -> m.Verdict | None:
        return self._verdicts.get(scan_id)

    def settle(self) -> None:
        """Say that everything published has arrived: nothing more will come. StoreError if it cannot be written."""
        last = self._publisher.buffer.last_seq
        self._ingest.commit(self._session, _EPOCH, last)
        self._ingest.settle(self._session, _EPOCH, last)
        self._ingest.hand_over()


def run_batch(
    source: TileSource,
    plan: ScanPlan,
    settings: Settings,
    out: Path,
    *,
    session: str = SESSION,
    on_tile: Callable[[Tile], None] = lambda tile: None,
    on_accepted: Callable[[m.Verdict], None] = lambda verdict: None,
) -> ScanResult:
    """Process one scan into a result folder.

    Parameters
    ----------
    source : TileSource
    plan : ScanPlan
        The source's, with what the user asks for in `processing`.
    settings : Settings
    out : Path
        The result folder; appears whole or not at all. An earlier result in it is replaced.
    on_tile, on_accepted : callables
        Told of progress.

    Raises
    ------
    LivestemError
        If the scan is refused, the source breaks, or the folder cannot be written.
    """
    refuse_foreign(out)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as e:
        raise StoreError(f"{out} cannot be made: {e.strerror or e}; choose another --out") from e
    try:
        result = _process(source, plan, settings, partial, session, on_tile, on_accepted)
        write_result(partial, result)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def refuse_foreign(out: Path) -> None:
    """Raise `UsageError` if `out` holds anything but an earlier result."""
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if names and not (names <= FILES and _is_result(out / "result.json")):
        raise UsageError(f"{out} is there already and holds more than a livestem result; choose another --out")


def _is_result(path: Path) -> bool:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return False
    return isinstance(found, dict) and {"format", "livestem", "digest"} <= found.keys()


def _process(
    source: TileSource,
    plan: ScanPlan,
    settings: Settings,
    folder: Path,
    session: str,
    on_tile: Callable[[Tile], None],
    on_accepted: Callable[[m.Verdict], None],
) -> ScanResult:
    encoders = Encoders.configured(settings)
    finished: list[tuple[OpenScan, life.Status]] = []
    decisions = _Decisions(settings.processing, encoders, settings.store_path)
    ingest = Ingest(
        _Folder(folder), decisions, settings.limits, Metrics(), lambda scan, status: finished.append((scan, status))
    )
    line = _Line(ingest, session, settings.limits)
    try:
        line.publish(m.ScanStart(scan_id=source.scan_id, plan=plan))
        verdict = line.verdict(source.scan_id)
        assert verdict is not None
        if not verdict.accepted:
            raise decisions.refusal or RefusedError(verdict.reason)
        on_accepted(verdict)
        with ScanWriter(line, plan, source.scan_id) as writer:
            hand_over(source, writer, after=on_tile)
        line.settle()
    finally:
        ingest.close()
    ((scan, status),) = finished
    return conclude(scan, status, encoders)
