"""What an adapter publishes: scans, their tiles, their ends (topic ``acq.<session>.<type>``)."""

from __future__ import annotations

from typing import Literal

from livestem.domain.scan import ScanPlan
from livestem.wire.header import Count, Index, Key, OfScan, Side, Text, Unnumbered


class ScanStart(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="scan_start"):
    """A scan begins: everything the instrument knows about it."""

    plan: ScanPlan


class HaadfRows(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="haadf_tile"):
    """HAADF of the rectangle at (y, x) of `frame`; payload: (h, w) in the plan's dtype."""

    frame: Index
    y: Index
    x: Index


class EdsRows(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="eds_tile"):
    """EDS of the rectangle at (y, x), `h` x `w` pixels, of `frame`.

    Payload of ``events``: counts per pixel (h, w), unsigned, then the channel of every photon (sum of counts,),
    unsigned, pixel after pixel. Payload of ``dense``: (h, w, channels), integer, not negative.
    """

    frame: Index
    y: Index
    x: Index
    h: Side
    w: Side
    content: Literal["events", "dense"]


class ScanEnd(OfScan, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="scan_end"):
    """A scan ends; the totals let the receiver prove that nothing is missing."""

    status: Literal["complete", "aborted"]
    frames: Index
    haadf_tiles: Count
    eds_tiles: Count
    eds_counts: Count
    reason: Text | None = None


class Heartbeat(Unnumbered, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="heartbeat"):
    """Sent every second by whoever publishes."""


class Echo(Unnumbered, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="echo"):
    """A nonce given to the ROUTER, back on the PUB: whoever hears it is subscribed."""

    nonce: Key
