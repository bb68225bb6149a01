"""What a `scan_start` means for a store: a scan begins, goes on, or is here already.

====================== ===================================== ==========================================================
the store's word       plan and parameters                   then
====================== ===================================== ==========================================================
unknown                any                                   it begins
open                   the same plan                         it goes on with its own parameters, whatever is asked now
open                   another plan                          refused
complete               the same                              it is here already: what comes is known
incomplete, aborted,   the same                              it goes on: what comes is added to its journal, and its
failed                                                       finals are made again from all of it
failed                 others                                it begins anew
any other              others                                refused
====================== ===================================== ==========================================================

A tile of an incomplete scan that was finished without its end opens it again, too: its source was only away.

Where a scan cannot go on because its journal is damaged, it begins anew; what it had is kept beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from livestem.domain.errors import LivestemError, SourceError, StoreError
from livestem.domain.limits import Limits
from livestem.domain.notices import notice
from livestem.domain.support import SupportSet
from livestem.runtime.admission import check_disk, check_limits, check_open
from livestem.runtime.decision import Decider, Decision
from livestem.runtime.journal import JOURNAL, Journal, cursor_of
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.resume import alike, opened, reopen, stated
from livestem.runtime.store import KnownScan
from livestem.wire import messages as m
from livestem.wire.codec import Message

log = logging.getLogger(__name__)

Key = tuple[str, str]  # session, scan_id


class ScanStore(Protocol):
    """Where scans are kept: the store of a service, or the one folder of a batch run."""

    def known(self, session: str, scan_id: str) -> KnownScan | None:
        """Return what is known of a scan, or None."""

    def folder(self, session: str, scan_id: str) -> Path:
        """Return a scan's folder."""

    def begin(
        self,
        session: str,
        scan_id: str,
        plan: bytes,
        parameters: bytes,
        arithmetic: bytes | None,
        fill: Callable[[Path], None],
    ) -> Path:
        """Make a scan's folder, `fill` it, enter the scan; return the folder."""

    def reopen(self, session: str, scan_id: str) -> None:
        """Note that a scan goes on."""

    def open_scans(self) -> list[Key]:
        """Return the scans that are open."""

    def latest(self, session: str, most: int) -> list[str]:
        """Return the names of a session's latest scans, the newest first."""

    def keep_support(self, support: SupportSet) -> None:
        """Keep a version of a support set."""

    def free_bytes(self) -> int:
        """Return the free disk space, bytes."""


@dataclass(frozen=True)
class Course:
    """What is to be done about a `scan_start`.

    Attributes
    ----------
    already : its status, if nothing is to be done
    known : what the catalogue says, if it is to go on
    decision : what was decided now, if it came to that
    """

    already: str | None = None
    known: KnownScan | None = None
    decision: Decision | None = None


class Opener:
    """Opens scans: new ones, and those that go on.

    Parameters
    ----------
    store, decider, limits : of the service
    alive : callable
        Called now and then while a long journal is counted in.
    """

    def __init__(
        self, store: ScanStore, decider: Decider, limits: Limits, alive: Callable[[], None] = lambda: None
    ) -> None:
        self._store, self._decider, self._limits, self._alive = store, decider, limits, alive

    def course(self, start: m.ScanStart) -> Course:
        """Return what is to be done about a start of a scan that is not open here; `LivestemError` to refuse it."""
        known = self._store.known(start.session, start.scan_id)
        if known is None:
            return Course(decision=self._decider.decide(start.plan))
        plan, parameters, _ = stated(known)
        if known.status == "open":
            if plan != start.plan:
                raise other_plan(start)
            return Course(known=known)
        decision = self._decider.decide(start.plan)
        if plan == start.plan and alike(known, parameters, decision.parameters):
            return Course(already="complete") if known.status == "complete" else Course(known=known, decision=decision)
        if known.status == "failed":
            return Course(decision=decision)
        raise LivestemError(
            f"session {start.session} holds this scan already, processed otherwise; use another --session"
        )

    def open(self, course: Course, message: Message, start: m.ScanStart, others: int) -> OpenScan | None:
        """Open a scan as was found to be right, beside so many others.

        Returns
        -------
        OpenScan or None
            None if this is the start that it began with, and it has ended as its result says: nothing is new.

        Raises
        ------
        LivestemError
            To refuse it.
        """
        check_open(self._limits, others)
        scan = None if course.known is None else self._continued(course.known, start)
        if scan is None:
            return self._new(course.decision or self._decider.decide(start.plan), message, start)
        if scan.begin(start):
            scan.journal.append(message)
        elif course.known is not None and scan.status == course.known.status:
            scan.journal.abandon()
            return None
        return self._marked(scan)

    def resume(self, session: str, scan_id: str) -> OpenScan:
        """Open a scan again as its journal has it; errors as of `livestem.runtime.resume.reopen`."""
        known = self._store.known(session, scan_id)
        assert known is not None
        return self._reopened(session, scan_id, known)

    def late(self, session: str, scan_id: str, others: int) -> OpenScan | None:
        """Open a scan that was finished without its end, because something of it has come after all.

        Returns
        -------
        OpenScan or None
            None if it has ended by its own word, or is not known.

        Raises
        ------
        LivestemError
            If it cannot be had now.
        """
        known = self._store.known(session, scan_id)
        if known is None or known.status not in ("open", "incomplete"):
            return None
        check_open(self._limits, others)
        scan = self._reopened(session, scan_id, known)
        if scan.end is not None:
            scan.journal.abandon()
            return None
        return self._marked(scan)

    def _marked(self, scan: OpenScan) -> OpenScan:
        """Note in the catalogue that a scan is open again."""
        try:
            self._store.reopen(scan.session, scan.scan_id)
        except StoreError:
            scan.journal.abandon()
            raise
        return scan

    def stored(self, session: str, epoch: int, scans: Collection[OpenScan], settled: Collection[Key]) -> int:
        """Return the seq up to which a session's sender need not repeat anything.

        Parameters
        ----------
        session, epoch : of the sender
        scans : of that session that are open here
        settled : scans of which all is here, whatever the catalogue says yet
        """
        here = {*settled, *((session, scan.scan_id) for scan in scans)}
        if any(key[0] == session and key not in here for key in self._store.open_scans()):
            return 0
        if scans:
            return min(seq if known == epoch else 0 for known, seq in (scan.journal.cursor for scan in scans))
        latest = self._store.latest(session, self._limits.open_scans)
        cursors = [cursor_of(self._store.folder(session, scan_id) / JOURNAL) for scan_id in latest]
        return max((seq for known, seq in cursors if known == epoch), default=0)

    def _continued(self, known: KnownScan, start: m.ScanStart) -> OpenScan | None:
        try:
            return self._reopened(start.session, start.scan_id, known)
        except SourceError as e:
            told = notice("scan_not_resumed", session=start.session, scan_id=start.scan_id, reason=str(e))
            log.error("scan %s begins anew, what it had is kept beside it: %s", start.scan_id, e, extra=told)
            return None

    def _reopened(self, session: str, scan_id: str, known: KnownScan) -> OpenScan:
        folder = self._store.folder(session, scan_id)
        return reopen(session, scan_id, known, folder, self._decider, self._limits, self._alive)

    def _new(self, decision: Decision, message: Message, start: m.ScanStart) -> OpenScan:
        parameters, arithmetic = decision.parameters, decision.arithmetic
        check_limits(self._limits, start.plan, decision.grid, parameters)
        check_disk(self._limits, start.plan, self._store.free_bytes())
        begun: list[OpenScan] = []

        def fill(folder: Path) -> None:
            """Whatever the catalogue calls open has a journal with its start."""
            scan = opened(start.session, start.scan_id, start.plan, decision, Journal(folder / JOURNAL))
            begun.append(scan)
            scan.begin(start)
            scan.journal.append(message)
            scan.journal.flush()

        try:
            self._store.begin(
                start.session,
                start.scan_id,
                msgspec.json.encode(start.plan),
                msgspec.json.encode(parameters),
                None if arithmetic is None else msgspec.json.encode(arithmetic),
                fill,
            )
            if parameters.support is not None:
                self._store.keep_support(parameters.support)
        except StoreError:
            for scan in begun:
                scan.journal.abandon()
            raise
        return begun[0]


def other_plan(start: m.ScanStart) -> LivestemError:
    """Return the error that refuses a scan of a name that is taken by one that is open."""
    return LivestemError(
        f"scan {start.scan_id} of session {start.session} is open with another plan; "
        "begin this one under a new name, or in another --session"
    )
