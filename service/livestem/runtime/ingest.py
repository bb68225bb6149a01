"""Ingest: validated messages in; journal and accumulators fed; verdicts and finished scans out.

One thread owns it. It never waits for compute: a tile is checked, journalled, added and marked dirty, and what
follows from it is an effect for others. A message that breaks a rule is dropped and counted under its reason.

When a scan is over that nobody ends, `livestem.domain.life` says. Where a further scan finds `open_scans` of them, the
one of which nothing has been heard for longest is finished at once, if that is at least `SPARED_S`: an abandoned scan
has what it will have, the beam is on the new one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

from livestem.client.tally import Tally
from livestem.domain import life
from livestem.domain.errors import LivestemError, SourceError, StoreError, WireError
from livestem.domain.limits import Limits
from livestem.domain.notices import notice
from livestem.runtime.admission import Facts, check_open, facts_of, verdict
from livestem.runtime.decision import Decider
from livestem.runtime.early import Early
from livestem.runtime.mending import Mending, Wanted
from livestem.runtime.metrics import Metrics
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.opening import Key, Opener, ScanStore, other_plan
from livestem.runtime.remembered import Remembered
from livestem.runtime.vigil import Vigil
from livestem.wire import messages as m
from livestem.wire.codec import Message

log = logging.getLogger(__name__)

SPARED_S = 10.0  # of silence: ten heartbeats missed, or what was late has long been repaired

# Scans that are over or were refused: those of some months. A peer may invent them by the thousand; a tile of what is
# forgotten waits for its scan_start as any early one does.
SETTLED = 10_000


class Ingest:
    """Applies acquisition messages.

    Parameters
    ----------
    store : ScanStore
    decider : Decider
        Decides how a scan is processed, or that it is refused.
    limits : Limits
    metrics : Metrics
    on_finalise : callable
        Called with (scan, status) when a scan is over and its journal closed.
    alive : callable, optional
        Called now and then while a long journal is counted in.
    """

    def __init__(
        self,
        store: ScanStore,
        decider: Decider,
        limits: Limits,
        metrics: Metrics,
        on_finalise: Callable[[OpenScan, life.Status], None],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._limits, self._metrics = store, limits, metrics
        self._opener = Opener(store, decider, limits, alive)
        self._on_finalise = on_finalise
        self.scans: dict[Key, OpenScan] = {}
        self._settled: Remembered[Key, Literal["refused", "done", "cut off"]] = Remembered(SETTLED)
        self._broken: set[str] = set()  # sessions of which a journal was damaged: all is to be sent again
        self._dropped = Tally("acquisition message")
        self._early = Early(limits)
        self.mending = Mending(self.scans)
        self._vigil = Vigil(self.scans)

    def apply(self, message: Message, *, repaired: bool = False) -> list[m.Verdict]:
        """Take one reliable acquisition message; return what the sender must be told. Then `register`."""
        self._metrics.bytes.inc(message.nbytes)
        self._metrics.repairs.inc(repaired)
        header = message.header
        assert isinstance(header, m.OfScan)
        self._vigil.moved(header)
        try:
            if isinstance(header, m.ScanStart):
                return self._start(message, header)
            if isinstance(header, m.HaadfRows | m.EdsRows):
                self._tile(message, header)
            elif isinstance(header, m.ScanEnd):
                self._end(message, header)
        except WireError as e:
            self.reject(e)
        return []

    @property
    def due(self) -> bool:
        """Whether a frame is to be registered."""
        return any(scan.accumulator.due for scan in self.scans.values())

    def register(self) -> None:
        """Register the frames that are whole. It takes as long as a look: what has come is best stored before."""
        for scan in self.scans.values():
            scan.accumulator.advance(scan.lock)

    def reject(self, error: WireError) -> None:
        """Count a dropped message."""
        self._metrics.rejected.labels(reason=error.reason).inc()
        self._dropped.add(error)

    def commit(self, session: str, epoch: int, seq: int) -> None:
        """Make everything of a session durable, and note how much of its sender's stream the maps now include.

        Raises
        ------
        StoreError
            If it cannot be written; nothing is lost, and it can be tried again.
        """
        for scan in self._of(session):
            with self._metrics.stage.labels(stage="commit").time():
                if scan.epoch == epoch:
                    scan.journal.commit(epoch, seq)
                    scan.stored(m.Watermark(epoch=epoch, seq=seq))
                else:
                    scan.journal.flush()

    def hand_over(self) -> None:
        """Close the journals of the scans that are over, and hand those on; StoreError as `commit`."""
        for scan in [s for s in self.scans.values() if s.status is not None]:
            self._hand_over(scan)

    @property
    def uncommitted_bytes(self) -> int:
        """Bytes that no commit has covered yet."""
        return sum(s.journal.uncommitted_bytes for s in self.scans.values())

    def settle(self, session: str, epoch: int, contiguous: int) -> None:
        """Finish the scans whose every message up to their end has come or is lost, where nobody can be asked again."""
        for scan in self._of(session):
            if scan.end is not None and scan.end.epoch == epoch and contiguous >= scan.end.seq:
                self._on(scan, life.NothingMoreComes())

    def mend(self, session: str, epoch: int, contiguous: int) -> list[Wanted]:
        """Return what to ask a sender for by place; finish the scans of which all that can be had is here."""
        wanted, over = self.mending.turn(session, epoch, contiguous, time.monotonic())
        for scan in over:
            self._on(scan, life.NothingMoreComes())
        return wanted

    def heard(self, session: str, epoch: int) -> None:
        """Note a word of a sender, a heartbeat perhaps: it keeps open what its beam is at (`livestem.domain.life`)."""
        self._vigil.heard(session, epoch)

    def expire(self, now: float, vanish_s: float) -> None:
        """Finish the scans for which nothing has been heard for `vanish_s`."""
        for scan in self._vigil.silent(now, vanish_s):
            self._give_up(scan, vanish_s)

    def resume(self, session: str, scan_id: str) -> OpenScan:
        """Take up a scan of an earlier start of the service; if it is over, it is handed on at once.

        Raises
        ------
        SourceError
            If its journal is not there or damaged.
        LivestemError
            If it cannot be resumed just now.
        """
        check_open(self._limits, len(self.scans))
        try:
            scan = self._opener.resume(session, scan_id)
        except SourceError:
            self._broken.add(session)
            raise
        self._take_in(scan)
        return scan

    def stored(self, session: str, epoch: int) -> int:
        """Return the seq up to which a session's sender need not repeat anything."""
        if session in self._broken:
            return 0
        return self._opener.stored(session, epoch, self._of(session), self._settled.keys())

    def listen_again(self) -> None:
        """Say that nobody was listened to until now: no silence before this counts."""
        self._vigil.heard_now()

    def close(self) -> None:
        """Close the journals of unfinished scans; they can be resumed, and replayed."""
        for scan in self.scans.values():
            try:
                scan.journal.close()
            except StoreError as e:
                log.error("scan %s: %s; what was not acknowledged is not kept", scan.scan_id, e)
                scan.journal.abandon()

    def _of(self, session: str) -> list[OpenScan]:
        return [s for s in self.scans.values() if s.session == session]

    def _give_up(self, scan: OpenScan, silent_s: float) -> None:
        """Finish a scan of which nothing more will come."""
        why = self._vigil.why(scan, silent_s)
        told = notice("scan_given_up", session=scan.session, scan_id=scan.scan_id, reason=why)
        log.warning("scan %s: %s; finishing with what is there", scan.scan_id, why, extra=told)
        self._on(scan, life.NothingMoreComes(why))

    def _make_room(self) -> None:
        """Finish the scan that has been silent for longest, if all places are taken and it is silent long enough."""
        scan = self._vigil.quietest()
        if len(self.scans) < self._limits.open_scans or scan is None:
            return
        silent_s = time.monotonic() - scan.heard
        if silent_s >= SPARED_S:
            self._give_up(scan, round(silent_s))

    def _start(self, message: Message, start: m.ScanStart) -> list[m.Verdict]:
        key = start.session, start.scan_id
        try:
            facts = self._begin(message, start)
        except LivestemError as e:
            self._settled[key] = "refused"
            return [verdict(start, accepted=False, reason=str(e))]
        for early in self._early.of(*key):
            self.apply(early)
        return [verdict(start, accepted=True, facts=facts)]

    def _begin(self, message: Message, start: m.ScanStart) -> Facts:
        key = start.session, start.scan_id
        scan = self.scans.get(key)
        if scan is None:
            course = self._opener.course(start)
            if course.already is not None:
                self._settled[key] = "done"
                return {"already": course.already}
            if course.known is not None and course.known.status == "open" and self._settled.get(key) == "done":
                return {"already": "over, its finals are being computed"}
            self._make_room()
            scan = self._opener.open(course, message, start, len(self.scans))
            if scan is None:
                self._settled[key] = "done"
                return {"already": "over"}
            self._take_in(scan)
        elif scan.plan != start.plan:
            raise other_plan(start)
        elif scan.status is None and scan.begin(start):
            scan.journal.append(message)
        return facts_of(scan.grid, scan.parameters, scan.plan) | ({"kept": scan.life.tiles} if scan.life.tiles else {})

    def _take_in(self, scan: OpenScan) -> None:
        scan.heard = time.monotonic()
        self.scans[scan.session, scan.scan_id] = scan
        self._settled.pop((scan.session, scan.scan_id), None)
        if scan.status is not None:
            self._over(scan)

    def _tile(self, message: Message, tile: m.HaadfRows | m.EdsRows) -> None:
        scan = self._open(message)
        if scan is None:
            return
        if tile.frame >= self._limits.planned_frames:
            raise WireError("limit", f"frame {tile.frame}, this service allows {self._limits.planned_frames}")
        if scan.life.tiles >= self._limits.tiles:
            raise WireError("limit", f"{scan.life.tiles} tiles of one scan; send larger ones")
        counts = scan.accumulator.counts or 0
        with scan.lock:
            try:
                is_new = scan.accumulator.receive(message)
            except WireError as e:
                scan.contradictions += e.reason in ("conflict", "overlap")
                raise
            if is_new and scan.arrived is None:
                scan.arrived = scan.heard
        if not is_new:
            self._metrics.duplicates.inc()
            return
        scan.journal.append(message)
        self._metrics.tiles.labels(modality="haadf" if isinstance(tile, m.HaadfRows) else "eds").inc()
        self._metrics.counts.inc((scan.accumulator.counts or 0) - counts)
        if scan.repair is not None:
            scan.repair.tile_came(tile.frame, time.monotonic())
        self._on(scan, life.TileApplied())

    def _end(self, message: Message, end: m.ScanEnd) -> None:
        scan = self._open(message)
        if scan is None or scan.ended_by == end.epoch:
            return  # one from another epoch counts: of a source that began again its new start is asked for what lacks
        scan.journal.append(message)
        if scan.take_end(end, self._limits):
            self._over(scan)

    def _open(self, message: Message) -> OpenScan | None:
        """Return the scan a message belongs to; keep the message if its start has not come yet."""
        key = _key(message)
        scan, settled = self.scans.get(key), self._settled.get(key)
        if scan is not None:
            return scan
        if settled is None:
            known = self._store.known(*key)
            if known is not None and known.status != "open":  # finished before this start of ours
                settled = self._settled[key] = "cut off" if known.status == "incomplete" else "done"
        if settled == "cut off":
            scan = self._reopened(*key)
            if scan is not None:
                return scan
            settled = self._settled[key] = "done"
        if settled is None:
            for _ in range(self._early.add(message)):
                self.reject(WireError("limit", f"{len(self._early)} tiles wait for their scan_start"))
        elif settled == "done":
            self._metrics.duplicates.inc()
        else:
            raise WireError("unknown_scan", f"scan {key[1]} was refused")
        return None

    def _reopened(self, session: str, scan_id: str) -> OpenScan | None:
        """Open a scan again that was finished without its end, and of which something comes now; None if it has one."""
        self._make_room()
        try:
            scan = self._opener.late(session, scan_id, len(self.scans))
        except LivestemError as e:
            raise WireError("finished", f"scan {scan_id} was finished, its source had been silent too long: {e}") from e
        if scan is not None:
            self._take_in(scan)
            told = notice("scan_resumed", session=session, scan_id=scan_id, tiles=scan.life.tiles)
            log.warning("scan %s goes on: its source is back", scan_id, extra=told)
        return scan

    def _on(self, scan: OpenScan, event: life.Event) -> None:
        if scan.on(event):
            self._over(scan)

    def _over(self, scan: OpenScan) -> None:
        self._settled[scan.session, scan.scan_id] = "done" if scan.end is not None else "cut off"
        try:
            self._hand_over(scan)
        except StoreError as e:  # tried again by `hand_over`, whose caller waits
            log.warning("scan %s is over, but %s", scan.scan_id, e)

    def _hand_over(self, scan: OpenScan) -> None:
        assert scan.status is not None
        scan.journal.close()
        self._on_finalise(scan, scan.status)
        del self.scans[scan.session, scan.scan_id]  # last, so that it is open or waits for its finals at every moment
        if not self._of(scan.session):
            self._vigil.forget(scan.session)


def _key(message: Message) -> Key:
    header = message.header
    assert isinstance(header, m.OfScan)
    return header.session, header.scan_id
