"""What every message of version 1 carries: the header, its numbering, its payload descriptions."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from livestem.domain.names import check_name

VERSION: Final = 1

DType = Literal["|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8"]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Side = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Text = Annotated[str, Meta(max_length=4096)]
Key = Annotated[str, Meta(max_length=64)]


class Payload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One array frame: C-order little-endian buffer of `dtype` and `shape`, plain or one zstd frame."""

    dtype: DType
    shape: Annotated[tuple[Count, ...], Meta(max_length=4)]
    codec: Literal["raw", "zstd"] = "raw"


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What every message carries.

    Attributes
    ----------
    v : wire version
    session : the sitting it belongs to; empty in talk before `welcome`
    epoch : new at each start of the sender
    sent_ns : sender's wall clock, information only
    payload : one entry per array frame, in order
    """

    v: Literal[1] = VERSION
    session: Annotated[str, Meta(max_length=64)] = ""
    epoch: Count = 0
    sent_ns: Count = 0
    payload: Annotated[tuple[Payload, ...], Meta(max_length=4)] = ()

    def __post_init__(self) -> None:
        """Whatever names a scan beside its session: both become folders."""
        if self.session:
            check_name(self.session, "session")
        scan_id = getattr(self, "scan_id", None)
        if isinstance(scan_id, str):
            check_name(scan_id, "scan")


class Reliable(Header, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that is numbered, kept for resending, and never lost silently."""

    seq: Count = 0


class Unnumbered(Header, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that may be dropped; it says how far the numbered ones have come."""

    last_seq: Count = 0


class OfScan(Reliable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reliable message about one scan."""

    scan_id: str


def tag_of(header: Header | type[Header]) -> str:
    """Return the wire's name of a message type, such as ``scan_start``."""
    tag = header.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{header!r} is not a message type")
    return tag
