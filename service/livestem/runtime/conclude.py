"""From a scan whose data are in to its result: the same for the service and for batch runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from livestem.domain import life
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.covered import Covered
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Collected
from livestem.runtime.finals import Finals, finalise
from livestem.runtime.journal import JournalRecording
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.recount import count_in
from livestem.runtime.results import MISSING_TOLD, ScanResult
from livestem.wire import messages as m

Final = tuple[m.Reliable, Sequence[NDArray[Any]]]  # a header and its arrays, not numbered yet

_LONGEST_REASON = 4096  # what a text on the wire may have; the source's own words may have as much


def conclude(scan: OpenScan, status: life.Status, encoders: Encoders) -> ScanResult:
    """Compute the finals of a finished scan.

    What was measured decides its status: a scan is complete if its end came and nothing of its plan is missing,
    whatever the sender says of it; only that it was aborted is taken on its word.
    """
    with scan.lock:  # its last live map may be made meanwhile
        accumulator = _settled(scan)
        data = Collected.of(accumulator, final=True, borrowed=scan.borrowed)
    missing = accumulator.missing()
    if status != "aborted":
        status = "incomplete" if missing or scan.end is None else "complete"
    if status == "complete":
        reason = None
    else:
        reason = scan.reason or _ended_early(scan.plan.frames, accumulator.frames_stated)
    finals = finalise(data, scan.parameters, encoders.of(scan.parameters.recipe, scan.arithmetic))
    return ScanResult(
        session=scan.session,
        scan_id=scan.scan_id,
        status=status,
        reason=reason,
        coverage=accumulator.coverage(),
        missing=missing,
        scattered=accumulator.scattered(),
        covered=Covered.of(accumulator),
        last_frame=_last_frame(accumulator),
        counts=accumulator.counts,
        input_digest=accumulator.input_digest(),
        registration=accumulator.registration,
        finals=finals,
        contradictions=scan.contradictions,
    )


def _last_frame(accumulator: Accumulator) -> str | None:
    """Return how far the last frame came, for a person; None if it is whole, or has holes."""
    last, swept = accumulator.last_swept()
    if not swept:
        return None
    rows = dict.fromkeys(swept.values())
    if len(rows) == 1:
        where = "row {} of {}".format(*next(iter(rows)))
    else:
        where = ", ".join(f"row {row} of {of} ({modality})" for modality, (row, of) in swept.items())
    return f"frame {last}, the last one, is here up to {where}"


def _settled(scan: OpenScan) -> Accumulator:
    """Return what a scan has collected, every frame in its place.

    If data came too late to take part in the registration of their frame, the scan is counted in once more from its
    journal, frame by frame, so that the result does not depend on when its data came.
    """
    scan.accumulator.finish()
    if scan.accumulator.late:
        with JournalRecording(scan.journal.path) as journal:
            again = count_in(journal, scan.grid, scan.parameters.register)
        again.frames_stated = scan.accumulator.frames_stated
        scan.accumulator = again
    return scan.accumulator


def _ended_early(planned: int | None, stated: int) -> str:
    """Return why a scan is incomplete of which all came that was sent, for a person."""
    if planned is not None and stated < planned:
        return f"its source ended it after {stated} of {planned} planned frames"
    return "its source ended it without all rows of its frames"


def summary(result: ScanResult) -> str:
    """Return one line about a result, with the counts per chip that its compositions rest on."""
    chips = result.finals.data.grid.chips
    per_chip = "" if result.counts is None else f", {result.counts / chips:.0f} counts per chip"
    why = f" ({result.reason})" if result.reason else ""
    return f"scan {result.scan_id} {result.status}{why}: {chips} chips{per_chip}, digest {result.finals.digest[:16]}"


def final_messages(result: ScanResult) -> list[Final]:
    """Return a result as messages: coverage, shifts of frames, maps, agreement, descriptors, and `scan_done` last.

    They belong together: a scan has all of its finals or none.
    """
    finals: Finals = result.finals
    scan_id, grid = result.scan_id, finals.data.grid
    plan = finals.data.plan
    origin = plan.sampling(plan.modalities[0]).origin_nm
    coverage, *shares = result.covered.message(scan_id, grid, origin)
    messages: list[Final] = [(coverage, shares)]
    if result.registration is not None:
        header, estimates, moved, determined = result.registration.message(scan_id)
        messages.append((header, [estimates, moved, determined]))
    for (method, modality), found in finals.maps.items():
        segmentation = m.Segmentation(
            scan_id=scan_id,
            method=method,
            modality=modality,
            classes=found.classes,
            chip_nm=grid.chip_nm,
            origin_nm=origin,
            parameters=found.facts,
        )
        messages.append((segmentation, [found.labels] if found.scores is None else [found.labels, found.scores]))
    messages.append((m.Agreement(scan_id=scan_id, agreement=finals.agreement), []))
    for (method, modality), regions in finals.regions.items():
        messages.append((m.Descriptors(scan_id=scan_id, method=method, modality=modality, regions=regions), []))
    done = m.ScanDone(
        scan_id=scan_id,
        status=result.status,  # type: ignore[arg-type]
        coverage=result.coverage,
        missing_tiles=result.missing[:MISSING_TOLD],
        input_digest=result.input_digest,
        digest=finals.digest,
        timings_s=finals.timings_s,
        warnings=result.warnings,
        reason=result.reason and result.reason[:_LONGEST_REASON],
    )
    return [*messages, (done, [])]
