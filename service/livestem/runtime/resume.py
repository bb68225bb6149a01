"""A scan goes on where its journal ends: after a killed service, and when an unfinished one is sent again.

Rules
-----
- What was decided when the scan began holds: plan, parameters and arithmetic are those of the catalogue.
- The journal's messages are counted in again in the order in which they were received, so that sums, registration and
  digest are those of a service that was never stopped. A journal that cannot be read to its end is damaged: the scan
  can only begin anew.
- A further `scan_start` in the journal took back the end before it. A scan whose end is there, and of whose stream
  everything up to it is stored or lost for good, is over.
- What a sender need not repeat is what every open scan of its session has (`Opener.stored`): the smallest cursor, and
  nothing if one of them knows another epoch. A session without open scans takes the largest of its latest scans'.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from livestem.domain.errors import DiskFullError, LivestemError, SourceError, StoreError, WireError
from livestem.domain.life import NothingMoreComes, TileApplied
from livestem.domain.limits import Limits
from livestem.domain.parameters import Parameters
from livestem.domain.scan import ScanPlan
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.decision import Decider, Decision
from livestem.runtime.encoders import Arithmetic
from livestem.runtime.journal import JOURNAL, Journal, JournalRecording
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.store import KnownScan
from livestem.wire import messages as m


def stated(known: KnownScan) -> tuple[ScanPlan, Parameters, Arithmetic | None]:
    """Return what the catalogue says of a scan; StoreError if this livestem does not understand it."""
    try:
        plan = msgspec.json.decode(known.plan, type=ScanPlan)
        parameters = msgspec.json.decode(known.parameters, type=Parameters)
        arithmetic = None if known.arithmetic is None else msgspec.json.decode(known.arithmetic, type=Arithmetic)
    except msgspec.DecodeError as e:
        raise StoreError(
            f"what the store holds of this scan is of another livestem ({e}); use another --session"
        ) from e
    return plan, parameters, arithmetic


def alike(known: KnownScan, parameters: Parameters, now: Parameters) -> bool:
    """Return whether a scan that was processed with `parameters` would be processed alike now.

    A preset's recipe may change from one livestem to the next. Of a scan that an older one has processed, whose recipes
    had not the fields that they have today, the preset counts and not what it was made of then.
    """
    if parameters == now:
        return True
    recipe = msgspec.json.decode(known.parameters)["recipe"]
    older = recipe.keys() != set(now.recipe.__struct_fields__)
    return older and msgspec.structs.replace(parameters, recipe=now.recipe) == now


def opened(session: str, scan_id: str, plan: ScanPlan, decision: Decision, journal: Journal) -> OpenScan:
    """Return a scan of which nothing is counted in yet."""
    return OpenScan(
        session,
        scan_id,
        plan,
        decision.parameters,
        Accumulator(plan, decision.grid, decision.parameters.register),
        journal,
        borrowed=decision.borrowed,
        arithmetic=decision.arithmetic,
    )


def reopen(
    session: str,
    scan_id: str,
    known: KnownScan,
    folder: Path,
    decider: Decider,
    limits: Limits,
    alive: Callable[[], None] = lambda: None,
) -> OpenScan:
    """Return a scan as its journal has it, ready to go on; `status` is set if it is over.

    Parameters
    ----------
    session, scan_id : its name
    known : what the catalogue says of it
    folder : where its journal is
    decider, limits : of the service
    alive : called with every message that is counted in: a large scan takes a while

    Raises
    ------
    SourceError
        If its journal is not there or damaged.
    LivestemError
        If it cannot be resumed just now: the line says why.
    """
    plan, parameters, arithmetic = stated(known)
    decision = decider.again(plan, parameters, arithmetic)
    try:
        journal = Journal(folder / JOURNAL, reopen=True)
    except DiskFullError:
        raise
    except StoreError as e:
        raise SourceError(str(e)) from e
    scan = opened(session, scan_id, plan, decision, journal)
    try:
        _count_in(scan, limits, alive)
    except LivestemError:
        journal.abandon()
        raise
    epoch, seq = journal.cursor
    scan.watermark = m.Watermark(epoch=epoch, seq=seq)
    if scan.end is not None and scan.end.epoch == epoch and seq >= scan.end.seq:
        scan.on(NothingMoreComes())
    return scan


def _count_in(scan: OpenScan, limits: Limits, alive: Callable[[], None]) -> None:
    """Apply the messages of a scan's journal as they came."""
    with JournalRecording(scan.journal.path, limits) as journal:
        if (journal.plan, journal.scan_id) != (scan.plan, scan.scan_id):
            raise SourceError(f"{scan.journal.path} is the journal of another scan")
        for message in journal.received():
            alive()
            header = message.header
            assert isinstance(header, m.OfScan)
            scan.epoch = header.epoch
            if isinstance(header, m.ScanStart):
                scan.begin(header)
            elif isinstance(header, m.ScanEnd):
                scan.take_end(header, limits)
            else:
                try:
                    is_new = scan.accumulator.apply(message)
                except WireError as e:
                    raise SourceError(f"{scan.journal.path} is damaged: {e}") from e
                if is_new:
                    scan.on(TileApplied())
