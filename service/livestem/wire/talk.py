"""Requests and replies between a ROUTER and its DEALERs: each with a `request_id`, each harmless to repeat."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from livestem.domain.names import check_name
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.wire.header import Count, Header, Index, Key, Side, Text


class Talk(Header, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request or its reply; the reply repeats the `request_id`, and asking twice does no harm."""

    request_id: Key


class Hello(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="hello"):
    """First words of a client: the versions it speaks, newest first."""

    versions: Annotated[tuple[Count, ...], Meta(max_length=16)]
    role: Literal["service", "observer", "operator"]
    name: Text = ""


class Stream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one session's reliable messages stand: [`first_seq`, `last_seq`] can be asked for."""

    session: str
    epoch: Count
    first_seq: Count
    last_seq: Count

    def __post_init__(self) -> None:
        if self.session:  # as in a header
            check_name(self.session, "session")


class Welcome(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="welcome"):
    """Answer to `hello`: the version to speak, and every session's stream (an adapter has one)."""

    version: Count
    streams: tuple[Stream, ...]
    server: Text = ""


class Probe(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="probe"):
    """Asks for `nonce` on the PUB, as proof of subscription."""

    nonce: Key


class Attach(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="attach"):
    """A service takes responsibility: from now on it acknowledges what it has stored."""


class Attached(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="attached"):
    """Answer to `attach`, with where its session stands."""

    stream: Stream


class Ack(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ack"):
    """Everything of `epoch` up to `seq` is in the service's journal. Not answered.

    Attributes
    ----------
    blocked : why the service can store nothing just now, for a person; unset or None while it can
    """

    seq: Count
    blocked: Text | None | UnsetType = UNSET


class Verdict(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="verdict"):
    """What the service decided about a scan, from `scan_start` on. Not answered, and repeated.

    Attributes
    ----------
    seq : of the `scan_start` of `epoch` that is judged: an earlier attempt under the same name is another one
    """

    scan_id: str
    accepted: bool
    reason: Text = ""
    facts: dict[str, str | int | float | bool | None] = {}
    seq: Count | UnsetType = UNSET

    @property
    def words(self) -> str:
        """What a person reads: the facts of an accepted scan, the reason of a refused one."""
        return ", ".join(f"{k} {v}" for k, v in self.facts.items()) if self.accepted else self.reason


class Rectangle(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rectangle of one modality, pixels."""

    modality: Literal["haadf", "eds"]
    y: Index
    x: Index
    h: Side
    w: Side


class Resend(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resend"):
    """Asks for messages again: [`first`, `last`] of `epoch`, or the rectangles of a frame of a scan."""

    first: Count | None = None
    last: Count | None = None
    scan_id: str | None = None
    frame: Index | None = None
    rectangles: Annotated[tuple[Rectangle, ...], Meta(max_length=4096)] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        by_seq = self.first is not None and self.last is not None and self.first <= self.last
        by_place = self.scan_id is not None and self.frame is not None and bool(self.rectangles)
        if by_seq == by_place:
            raise ValueError("resend takes first <= last, or scan_id, frame and rectangles")


class Resent(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resent"):
    """One message again: its frames as they were sent, nested behind this header as byte payloads."""

    seq: Count
    more: bool


class Gone(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="gone"):
    """The sender has let [`first`, `last`] go: an explicit hole.

    Of what was asked for by place: nobody has these `rectangles` of a frame any more; `first` and `last` are 0.
    """

    first: Count
    last: Count
    more: bool = False
    scan_id: str | UnsetType = UNSET
    frame: Index | UnsetType = UNSET
    rectangles: Annotated[tuple[Rectangle, ...], Meta(max_length=4096)] | UnsetType = UNSET


class Coming(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="coming"):
    """The sender has let these go and makes them again: they come as new messages, what it cannot make as `gone`."""

    scan_id: str
    frame: Index
    rectangles: Annotated[tuple[Rectangle, ...], Meta(max_length=4096)]


class Snapshot(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="snapshot"):
    """Asks for the state: `cursor` from the page before, None for the first."""

    cursor: Count | None = None


class SnapshotPage(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="snapshot_page"):
    """One message of a session's state, nested as in `resent`; `cursor` asks for the next, None ends it.

    After the last page, apply what has seq > `watermark` of this message's `epoch`.
    """

    watermark: Count
    cursor: Count | None = None


class RequestScan(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="request_scan"):
    """Asks an instrument for a scan; `session` and `epoch` are those of its stream in `welcome`.

    One `request_id`, one scan: asked again, it is answered as before.
    """

    request_id: Annotated[str, Meta(min_length=1, max_length=64)]
    request: ScanRequest


class ScanGranted(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="scan_granted"):
    """Answer to `request_scan`: the scan will come; if not, the answer is a `refusal`."""

    grant: ScanGrant


class Refusal(Talk, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="refusal"):
    """The request cannot be served, and why."""

    reason: Text
