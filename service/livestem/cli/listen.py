"""``livestem listen``: a subscriber for people and for shell scripts."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livestem.cli import ending
from livestem.cli import options as o
from livestem.domain.names import one_line

if TYPE_CHECKING:
    from livestem.protocol.effects import Lost
    from livestem.wire.codec import Message


def listen(
    as_json: o.AsJson = False,
    results: o.ResultsAt = o.RESULTS_AT,
    keys: o.Keys = None,
    server_key: o.ServerKey = None,
    scans: Annotated[int | None, typer.Option("--scans", help="Leave after so many finished scans.")] = None,
    session: Annotated[
        str | None,
        typer.Option("--session", help="Only this one, also of an earlier start. [default: since the start]"),
    ] = None,
    history: Annotated[bool, typer.Option(help="Begin with what the service already knows.")] = True,
    wait: Annotated[float, typer.Option("--wait", help="How long to wait for a service, s.")] = 30.0,
) -> None:
    """Follow a segmenter: live progress, then the finals of every scan."""
    from livestem.client.subscriber import Subscriber
    from livestem.wire import messages as m

    ends = ending.regular() if scans is None else ending.unfinished(f"fewer than {scans} scans have finished")
    left, losses = scans, 0
    at, name = o.endpoint(results, server_key), "livestem listen"
    with ends, Subscriber(at, history=history, session=session, name=name, keys=keys) as subscriber:
        subscriber.wait_subscribed(o.seconds(wait))
        for message in subscriber:
            for gone in subscriber.lost[losses:]:
                losses += 1
                print(f"warning: {loss_in_words(gone)}", file=sys.stderr)
            line = as_line(message) if as_json else _safe(in_words(message))
            if line is not None and not _told(line):
                return
            if left is not None and isinstance(message.header, m.ScanDone):
                left -= 1
                if left <= 0:
                    return


def _safe(line: str | None) -> str | None:
    """Return a line that does not talk to the terminal, whatever others have put into it."""
    return None if line is None else one_line(line)


def _told(line: str) -> bool:
    """Print a line; False if nobody reads any more (`livestem listen | head`)."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor at exit
        return False
    return True


def as_line(message: Message) -> str | None:
    """Return a message as one line of JSON: its header, and label maps as nested lists; no heartbeats."""
    import msgspec

    from livestem.wire import messages as m

    header = message.header
    if isinstance(header, m.Heartbeat):
        return None
    line: dict[str, Any] = msgspec.to_builtins(header)
    del line["payload"]
    if message.arrays and isinstance(header, m.Live | m.Segmentation):
        line["labels"] = message.arrays[0].tolist()
    return json.dumps(line)


def in_words(message: Message) -> str | None:
    """Return a message as a person would put it, or None if it is not worth a line."""
    from livestem.wire import messages as m

    header = message.header
    if isinstance(header, m.Live):
        return _live(header)
    if isinstance(header, m.CoverageMap):
        shares = zip(header.modalities, message.arrays[0], strict=True)
        parts = ", ".join(f"{k} {100 * share.mean():.1f} %, least {100 * share.min():.1f} %" for k, share in shares)
        return f"{header.scan_id}  coverage of chips: {parts}"
    if isinstance(header, m.Registration):
        return f"{header.scan_id}  {header.determined + 1} frames registered, drift {drift_in_words(header.drift_nm)}"
    if isinstance(header, m.Segmentation):
        labels = message.arrays[0]
        regions = int(labels.max(initial=-1)) + 1
        return f"{header.scan_id}  {header.method}.{header.modality}: {regions} regions on {labels.shape} chips"
    if isinstance(header, m.Agreement):
        pairs = (f"{method} {k} {_number(v)}" for method, ps in header.agreement.items() for k, v in ps.items())
        return f"{header.scan_id}  AMI: " + ", ".join(pairs)
    if isinstance(header, m.Descriptors):
        return f"{header.scan_id}  {header.method}.{header.modality}: " + "; ".join(map(_region, header.regions))
    if isinstance(header, m.ScanDone):
        extra = f" ({header.reason})" if header.reason else ""
        return f"{header.scan_id}  done: {header.status}{extra}, digest {header.digest[:16] or 'none'}"
    return f"{header.level}: {header.text}" if isinstance(header, m.Status) else None


def loss_in_words(gone: Lost) -> str:
    """Return what a person must know of messages that nothing will bring back."""
    which = f"message {gone.first}" if gone.first == gone.last else f"messages {gone.first} to {gone.last}"
    return f"nobody keeps {which} of session {gone.session} any more; see `livestem store list` for its scans"


def _live(live: Any) -> str:
    frames = f"/{live.frames}" if live.frames else ""
    covered = " ".join(
        f"{k} {100 * v:.0f} %" for k, v in (("haadf", live.coverage.haadf), ("eds", live.coverage.eds)) if v is not None
    )
    counts = "" if live.counts is None else f", {live.counts} counts"
    scored = f", few-shot on {live.modality}" if live.method else ""
    aged = f", oldest chip {live.oldest_frames} frames" if live.oldest_frames else ""
    drift = "" if live.drift_nm is None else f", drift {drift_in_words(live.drift_nm)}"
    return (
        f"{live.scan_id}  live {live.revision}: frame {live.frame + 1}{frames}, {covered}{counts}, "
        f"{live.chips_done}/{live.chips} chips{aged}{drift}{scored}"
    )


def drift_in_words(drift_nm: tuple[float, float]) -> str:
    """Return a shift (y, x) as a person reads it: how far, and by how much down and right."""
    y, x = drift_nm
    return f"{math.hypot(y, x):.2f} nm ({y:+.2f} down, {x:+.2f} right)"


def _region(region: Any) -> str:
    percent = region.atomic_percent or {}
    atoms = " ".join(f"{e} {v:.1f}" for e, v in percent.items() if v is not None)
    spacing = f", d {region.d_spacing_nm:.4f} nm" if region.d_spacing_nm is not None else ""
    return f"{region.name} {region.chips} chips{': ' + atoms if atoms else ''}{spacing}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
