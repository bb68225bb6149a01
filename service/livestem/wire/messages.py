"""Every message of version 1: small, frozen, tagged, strict. Arrays travel beside them as raw frames.

Three families:

- *acquisition* (topic ``acq.<session>.<type>``): what an adapter publishes;
- *results* (topic ``res.<session>.<type>``): what a service publishes;
- *talk* (empty topic): requests and replies between a ROUTER and its DEALERs, each with a `request_id`.

`seq` numbers the reliable messages of one (session, epoch) without gaps; the others carry `last_seq` instead,
so that losing them makes no gap and losing the tail is noticed.
"""

from __future__ import annotations

import msgspec

from livestem.wire.acquisition import Echo, EdsRows, HaadfRows, Heartbeat, ScanEnd, ScanStart
from livestem.wire.header import VERSION, Header, OfScan, Payload, Reliable, Unnumbered, tag_of
from livestem.wire.results import (
    Agreement,
    Coverage,
    CoverageMap,
    Descriptors,
    Live,
    MissingTile,
    Registration,
    ScanDone,
    Segmentation,
    Status,
    Suggestion,
    Watermark,
)
from livestem.wire.talk import (
    Ack,
    Attach,
    Attached,
    Coming,
    Gone,
    Hello,
    Probe,
    Rectangle,
    Refusal,
    RequestScan,
    Resend,
    Resent,
    ScanGranted,
    Snapshot,
    SnapshotPage,
    Stream,
    Talk,
    Verdict,
    Welcome,
)

__all__ = [
    "ACQUISITION",
    "Ack",
    "Agreement",
    "AnyHeader",
    "Attach",
    "Attached",
    "Coming",
    "Coverage",
    "CoverageMap",
    "Descriptors",
    "Echo",
    "EdsRows",
    "Gone",
    "HaadfRows",
    "Header",
    "Heartbeat",
    "Hello",
    "Live",
    "MissingTile",
    "OfScan",
    "Payload",
    "Probe",
    "RESULTS",
    "Rectangle",
    "Refusal",
    "Registration",
    "Reliable",
    "RequestScan",
    "Resend",
    "Resent",
    "ScanDone",
    "ScanEnd",
    "ScanGranted",
    "ScanStart",
    "Segmentation",
    "Snapshot",
    "SnapshotPage",
    "Status",
    "Stream",
    "Suggestion",
    "TALK",
    "Talk",
    "Unnumbered",
    "VERSION",
    "Verdict",
    "Watermark",
    "Welcome",
    "schema",
    "tag_of",
]

ACQUISITION = (ScanStart, HaadfRows, EdsRows, ScanEnd, Heartbeat, Echo)
RESULTS = (
    Live, CoverageMap, Registration, Segmentation, Agreement, Descriptors, ScanDone, Suggestion, Status,
    Heartbeat, Echo,
)  # fmt: skip
TALK = (
    Hello, Welcome, Probe, Attach, Attached, Ack, Verdict, Resend, Resent, Gone, Coming, Snapshot, SnapshotPage,
    Refusal, RequestScan, ScanGranted,
)  # fmt: skip

AnyHeader = (
    ScanStart | HaadfRows | EdsRows | ScanEnd | Heartbeat | Echo
    | Live | CoverageMap | Registration | Segmentation | Agreement | Descriptors | ScanDone | Suggestion | Status
    | Hello | Welcome | Probe | Attach | Attached | Ack | Verdict | Resend | Resent | Gone | Coming
    | Snapshot | SnapshotPage | Refusal | RequestScan | ScanGranted
)  # fmt: skip


def schema() -> dict[str, object]:
    """Return the JSON Schema of every header of this version, for clients in other languages."""
    (ref,), components = msgspec.json.schema_components((AnyHeader,), ref_template="#/$defs/{name}")
    return {"$id": f"livestem-wire-v{VERSION}", "version": VERSION, "header": ref, "$defs": components}
