"""The hostile corpus: what a faulty, foreign or wicked peer may send; one list for all tests.

A case is what is sent and what must become of it:

========  ====================================================================================================
kind      what must become of it
========  ====================================================================================================
broken    `decode` refuses it; dropped and counted under `reason`, at every door where it arrives
wrong     a whole message that breaks its scan's rules: ingest drops it and counts it under `reason`
bomb      a `scan_start` that is refused with a verdict before it costs anything
odd       a `scan_start` of nonsense where nothing depends on it: taken, and its scan ends as any other
talk      whole and allowed, and absurd: answered or ignored, never an error, never memory without bound
bytes     no ZeroMQ message: whoever sends it is left alone, nothing is counted
========  ====================================================================================================

Doors are where a peer can come in: ``acq`` (what a service's SUB hears), ``reply`` (what its DEALER is answered),
``router`` (what a ROUTER is asked), ``subscribe`` (what an XPUB is told), ``tcp`` (any port, HTTP's too). A SUB hears
only topics that it asked for, so a broken message comes to ``acq`` only if its first frame begins with ``acq.``.

Everything is made by the plain MessagePack package or byte by byte, never by our own encoder, and has a right check
unless the check is what is wrong: a wicked sender computes it, too.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgpack
import numpy as np
import zstandard

from hostile_making import (
    CHANNELS,
    PLAN,
    REFUSED,
    SCAN,
    SIDE,
    Frames,
    Make,
    arrays,
    eds,
    example,
    framed,
    haadf,
    head,
    header,
    many,
    moved,
    noise,
    planned,
    raw,
    sent,
    spoilt,
    supported,
    with_entry,
    with_fields,
    with_payload,
    zstd,
)  # fmt: skip
from livestem.domain.limits import DEFAULT_LIMITS

Kind = Literal["broken", "wrong", "bomb", "odd", "talk", "bytes"]


@dataclass(frozen=True)
class Case:
    """One thing that a peer may send.

    Attributes
    ----------
    name : what it is
    kind : what must become of it, as above
    make : its frames, for a session
    reason : what it is counted under; empty if it is not counted
    heavy : it takes megabytes, so it is not sent a thousand times
    """

    name: str
    kind: Kind
    make: Make
    reason: str = ""
    heavy: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def audible(self) -> bool:
        """Whether a SUB that asked for ``acq.`` hears it."""
        return self.make("s")[0].startswith(b"acq.")


# --- broken: the decoder refuses it -------------------------------------------------------------------------------

_BIG = DEFAULT_LIMITS.message_bytes
_TALK = DEFAULT_LIMITS.talk_bytes
_NAN, _INF = float("nan"), float("inf")
_ZEROS = zstandard.ZstdCompressor().compress(bytes(2**27))  # 4 kB that hold 128 MiB
_TILE = zstandard.ZstdCompressor().compress(bytes(2 * SIDE))
_LIAR = bytearray(zstandard.ZstdCompressor().compress(b"ab" * 100))  # 200 bytes, and says so in byte 5
# A frame with a window of 2 GiB (descriptor 0xA8: 2**(10 + 21)), no content size, one raw block of one byte.
_WINDOW = struct.pack("<I", zstandard.MAGIC_NUMBER) + b"\x00\xa8" + b"\x09\x00\x00" + b"x"
_SKIPPABLE = struct.pack("<II", 0x184D2A50, 2**31)  # says that 2 GiB follow which are to be skipped
_MAPS = b"\x80" * (_TALK - 64)  # empty maps: 64 bytes each, once decoded


_FRAMES: list[tuple[str, str, Make]] = [
    ("one frame", "header", lambda s: [f"acq.{s}.".encode()]),
    ("two frames", "header", lambda s: [f"acq.{s}.".encode(), b""]),
    ("no header", "header", lambda s: framed(f"acq.{s}.haadf_tile".encode())),
    ("an empty header", "header", lambda s: raw(s, b"")),
    ("more frames than allowed", "limit", many(DEFAULT_LIMITS.message_frames)),
    ("endless multipart", "limit", many(20_000)),
    ("a huge header", "limit", lambda s: raw(s, bytes(_TALK + 1))),
    ("noise", "check", lambda s: [f"acq.{s}.haadf_tile".encode(), *noise(200, 64, 4)]),
    ("no check", "check", lambda s: sent(s)[:-1]),
    ("a check of no bytes", "check", lambda s: [*sent(s)[:-1], b""]),
    ("a check too long", "check", lambda s: [*sent(s)[:-1], sent(s)[-1] + b"\0"]),
    ("a check the other way round", "check", lambda s: [*sent(s)[:-1], sent(s)[-1][::-1]]),
    ("the check of another message", "check", lambda s: [*sent(s)[:-1], sent(s, x=1)[-1]]),
    ("a flipped bit in the topic", "check", spoilt(0, lambda f: f[:-1] + bytes([f[-1] ^ 1]))),
    ("a flipped bit in the header", "check", spoilt(1, lambda f: f[:-1] + bytes([f[-1] ^ 1]))),
    ("a flipped bit in a payload", "check", spoilt(2, lambda f: f[:-1] + bytes([f[-1] ^ 1]))),
    ("a truncated topic", "topic", spoilt(0, lambda f: f[:-1], right=True)),
    ("a truncated header", "header", spoilt(1, lambda f: f[:-1], right=True)),
    ("a truncated payload", "payload", spoilt(2, lambda f: f[:-1], right=True)),
    ("a truncated last payload", "payload", spoilt(3, lambda f: f[:-1], right=True)),
    ("a payload too few", "payload", lambda s: framed(*sent(s, "eds_tile")[:-2])),
    ("a payload too many", "payload", lambda s: framed(*sent(s, "eds_tile")[:-1], b"")),
    ("payloads in another order", "payload", lambda s: framed(*(sent(s, "eds_tile")[i] for i in (0, 1, 3, 2)))),
    ("bytes moved to the next frame", "header", lambda s: moved(sent(s, "eds_tile"), 1)),
    ("bytes moved to the next payload", "payload", lambda s: moved(sent(s, "eds_tile"), 2)),
    ("bytes after the header", "header", spoilt(1, lambda f: f + b"\xc0", right=True)),
]  # fmt: skip

_HEADERS: list[tuple[str, str, Make]] = [
    ("no MessagePack", "header", head(b"\xc1\xc1\xc1")),
    ("nil for a header", "header", head(b"\xc0")),
    ("a list for a header", "header", head(b"\x93\x01\x02\x03")),
    ("a map as a key", "header", head(b"\x81\x80\xc0")),
    ("a number as a key", "header", with_entry(b"\x01", b"\x01")),
    ("an extension for a header", "header", head(b"\xc7\x04\x05abcd")),
    ("an extension in a field", "header", with_fields(frame=msgpack.ExtType(5, b"0"))),
    ("an extension as a key", "header", with_entry(b"\xd4\x05x", b"\x01")),
    ("a time in a field", "header", with_fields(sent_ns=msgpack.Timestamp(0))),
    ("a time beyond time", "header", with_entry(b"\xa1t", b"\xd7\xff" + b"\xff" * 8)),
    ("a map that claims 4e9 entries", "header", head(b"\xdf\xff\xff\xff\xff")),
    ("a list that claims 4e9 entries", "header", head(b"\xdd\xff\xff\xff\xff")),
    ("a text that claims 4e9 bytes", "header", with_entry(b"\xa1x", b"\xdb\xff\xff\xff\xff")),
    ("payloads that claim 4e9 entries", "header", with_entry(b"\xa7payload", b"\xdd\xff\xff\xff\xff")),
    ("lists within lists", "header", head(b"\x91" * 100_000)),
    ("maps within maps", "header", head(b"\x81\xa1a" * 100_000 + b"\xc0")),
    ("lists within a field", "header", with_entry(b"\xa5frame", b"\x91" * 100_000 + b"\xc0")),
    ("maps within an unknown field", "header", with_entry(b"\xa1x", b"\x81\xa1a" * 100_000 + b"\xc0")),
    ("a million maps for a header", "header", head(b"\xdd" + (_TALK - 64).to_bytes(4, "big") + _MAPS)),
    ("a million maps in a field", "header", head(b"\x81\xa1x\xdd" + (_TALK - 64).to_bytes(4, "big") + _MAPS)),
    ("a million maps for a version", "header", head(b"\x81\xa1v\xdd" + (_TALK - 64).to_bytes(4, "big") + _MAPS)),
    ("a million versions", "header", lambda s: sent(s, "hello", versions=[2] * 500_000, role="observer")),
    ("text that is no UTF-8", "header", with_entry(b"\xa6scan_i", b"\xa2\xff\xfe")),
    ("a key twice, the second wrong", "header", with_entry(b"\xa5frame", b"\xff")),
    ("a type twice", "header", with_entry(b"\xa4type", b"\xa8scan_end")),
    ("an unknown field", "header", with_fields(surprise=1)),
    ("an unknown field in a plan", "header", lambda s: sent(s, "scan_start", plan=PLAN | {"laser": 1})),
    ("a missing field", "header", with_fields(scan_id=...)),
    ("an unknown type", "header", with_fields(type="firmware_update")),
    ("no type", "header", with_fields(type=...)),
    ("a number for a type", "header", with_fields(type=1)),
    ("another version", "version", with_fields(v=7)),
    ("another version of an unknown type", "version", with_fields(v=2, type="telepathy", thought=1)),
    ("a text for a version", "version", with_fields(v="1")),
    ("a text for a number", "header", with_fields(frame="first")),
    ("a float for a number", "header", with_fields(frame=0.0)),
    ("a truth for a number", "header", with_fields(frame=True)),
    ("nil for a number", "header", with_fields(frame=None)),
    ("a negative frame", "header", with_fields(frame=-1)),
    ("a negative place", "header", with_fields(y=-1)),
    ("a frame of 2**31", "header", with_fields(frame=2**31)),
    ("a seq of 2**63", "header", with_fields(seq=2**63)),
    ("a seq of 2**64 - 1", "header", with_fields(seq=2**64 - 1)),
    ("a negative seq", "header", with_fields(seq=-(2**63))),
    ("a negative epoch", "header", with_fields(epoch=-1)),
    ("a last_seq of 2**64 - 1", "header", with_fields("heartbeat", last_seq=2**64 - 1)),
    ("a tile of no rows", "header", with_fields("eds_tile", h=0)),
    ("a tile of 2**31 rows", "header", with_fields("eds_tile", h=2**31)),
    ("an unknown content", "header", with_fields("eds_tile", content="sparse")),
    ("negative totals", "header", with_fields("scan_end", eds_counts=-1)),
    ("a path as a scan", "header", with_fields(scan_id="../../etc")),
    ("a path as a session", "header", lambda s: sent("../../etc")),
    ("a device as a scan", "header", with_fields(scan_id="CON")),
    ("no byte as a scan", "header", with_fields(scan_id="\0")),
    ("a name too long", "header", with_fields(scan_id="x" * 65)),
    ("a name of a megabyte", "header", with_fields(scan_id="x" * (_TALK // 2))),
    ("too many payloads announced", "header", with_fields(payload=arrays(*[("<u2", [1, 1])] * 5))),
    ("a resend of nothing", "header", lambda s: sent(s, "resend")),
    ("a resend backwards", "header", lambda s: sent(s, "resend", first=9, last=1)),
    ("too many rectangles", "header", lambda s: sent(s, "resend", scan_id=SCAN, frame=0, rectangles=[_SPOT] * 4097)),
    ("a key too long", "header", lambda s: sent(s, "probe", request_id="x" * 65, nonce="n")),
    ("a role that is none", "header", lambda s: sent(s, "hello", versions=[1], role="root")),
]  # fmt: skip
_SPOT = {"modality": "haadf", "y": 0, "x": 0, "h": 1, "w": 1}

_TOPICS: list[tuple[str, str, Make]] = [
    ("the topic of another session", "topic", lambda s: sent(s, topic=b"acq.somebody.haadf_tile")),
    ("the topic of another type", "topic", lambda s: sent(s, topic=f"acq.{s}.eds_tile".encode())),
    ("the topic of another family", "topic", lambda s: sent(s, topic=f"res.{s}.haadf_tile".encode())),
    ("a result among acquisition", "topic", lambda s: sent(s, "status", topic=f"acq.{s}.status".encode(),
                                                           last_seq=0, level="info", text="x", request_id=...)),
    ("a topic of a megabyte", "topic", lambda s: sent(s, topic=b"acq." + b"x" * 2**20)),
    ("talk with a topic", "topic", lambda s: sent(s, "probe", nonce="n", topic=f"acq.{s}.probe".encode())),
    ("no topic", "topic", lambda s: sent(s, topic=b"")),
]  # fmt: skip

_ARRAYS: list[tuple[str, str, Make]] = [
    ("Python objects", "header", with_payload([1, SIDE], "|O")),
    ("complex numbers", "header", with_payload([1, SIDE // 4], "<c16")),
    ("big-endian numbers", "header", with_payload([1, SIDE], ">u2")),
    ("records", "header", with_payload([1, 1], "<u2,<u2")),
    ("a dtype of a megabyte", "header", with_payload([1, 1], "<u2," * (_TALK // 8))),
    ("a negative shape", "header", with_payload([-1, SIDE])),
    ("a float shape", "header", with_payload([1.0, SIDE])),
    ("a shape of five axes", "header", with_payload([1] * 5)),
    ("an unknown codec", "header", with_payload([1, SIDE], codec="gzip")),
    ("no axes", "payload", with_payload([], body=bytes(2))),
    ("one axis", "payload", with_payload([SIDE])),
    ("three axes", "payload", with_payload([1, 1, SIDE])),
    ("an empty tile", "payload", with_payload([0, SIDE], body=b"")),
    ("an empty tile of absurd sides", "payload", with_payload([0, 2**62, 2**62], body=b"")),
    ("a shape whose product wraps to 0", "limit", with_payload([2**32, 2**31], body=b"")),
    ("a shape of 2**126", "limit", with_payload([2**63 - 1, 2**63 - 1])),
    ("more bytes than announced", "payload", with_payload([1, SIDE - 1])),
    ("fewer bytes than announced", "payload", with_payload([1, SIDE + 1])),
    ("a NaN", "value", haadf(np.full((1, SIDE), _NAN, "<f4"))),
    ("an infinity", "value", haadf(np.full((1, SIDE), -_INF, "<f8"))),
    ("more than any detector counts", "value", haadf(np.full((1, SIDE), 1e300, "<f8"))),
    ("more than any counter counts", "value", haadf(np.full((1, SIDE), 2**64 - 1, "<u8"))),
    ("a lying h", "payload", eds("events", np.eye(2, dtype="u1"), np.zeros(2, "<u2"), h=1)),
    ("a lying w", "payload", eds("events", np.eye(2, dtype="u1"), np.zeros(2, "<u2"), w=3)),
    ("h and w changed over", "payload", eds("dense", np.zeros((2, 4, 8), "u1"), h=4, w=2)),
    ("fewer photons than counts", "payload", eds("events", np.eye(2, dtype="u1"), np.zeros(1, "<u2"))),
    ("more photons than counts", "payload", eds("events", np.eye(2, dtype="u1"), np.zeros(3, "<u2"))),
    ("counts whose sum wraps to 0", "payload", eds("events", np.full((1, 2), 2**63, "<u8"), np.zeros(0, "<u2"))),
    ("counts whose sum wraps to 2", "payload", eds("events", np.array([[2**63, 2**63, 2]], "<u8"),
                                                    np.zeros(2, "<u2"))),
    ("negative counts", "payload", eds("events", np.full((1, 2), -1, "<i2"), np.zeros(0, "<u2"))),
    ("negative channels", "payload", eds("events", np.ones((1, 2), "u1"), np.full(2, -1, "<i2"))),
    ("float counts", "payload", eds("events", np.ones((1, 2), "<f4"), np.zeros(2, "<u2"))),
    ("channels of two axes", "payload", eds("events", np.ones((1, 2), "u1"), np.zeros((1, 2), "<u2"))),
    ("events without channels", "payload", eds("events", np.zeros((1, 2), "u1"))),
    ("negative spectra", "value", eds("dense", np.full((1, 1, 8), -1, "<i4"))),
    ("float spectra", "payload", eds("dense", np.ones((1, 1, 8), "<f4"))),
    ("spectra of two axes", "payload", eds("dense", np.ones((1, 8), "<u2"), h=1, w=8)),
    ("an array where none belongs", "payload", lambda s: sent(s, "scan_end", b"x", payload=arrays(("|u1", [1])))),
]  # fmt: skip

_BOMBS: list[tuple[str, str, Make]] = [
    ("a bomb of a terabyte", "limit", zstd(b"", (2**20, 2**20))),
    ("a bomb of 128 MiB in 4 kB", "limit", zstd(_ZEROS, (2**13, 2**13))),
    ("a bomb that says it is small", "payload", zstd(_ZEROS)),
    ("a bomb within a bomb", "payload", zstd(zstandard.ZstdCompressor().compress(_ZEROS))),
    ("a bomb with a window of 2 GiB", "payload", zstd(_WINDOW)),
    ("a frame that says nothing of its size", "payload",
     zstd(zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2 * SIDE)))),
    ("a frame that holds more than it says", "payload", zstd(bytes(_LIAR[:5]) + b"\x02" + bytes(_LIAR[6:]), (1, 1))),
    ("a frame that holds less than it says", "payload", zstd(bytes(_LIAR[:5]) + b"\xfe" + bytes(_LIAR[6:]), (1, 127))),
    ("a frame and something more", "payload", zstd(_TILE + b"x")),
    ("two frames of zstd", "payload", zstd(_TILE + _TILE)),
    ("half a frame", "payload", zstd(_TILE[:-1])),
    ("no frame", "payload", zstd(b"")),
    ("nonsense for zstd", "payload", zstd(b"nonsense")),
    ("a frame to be skipped", "payload", zstd(_SKIPPABLE)),
]  # fmt: skip


_PLANS: list[tuple[str, str, Make]] = [
    ("a plan of nothing", "header", planned(haadf=None, eds=None)),
    ("4096 words of a vendor", "header", planned(vendor={str(i): i for i in range(4096)})),
    ("a vendor that nests", "header", planned(vendor={"a": {"b": 1}})),
    ("4096 stages", "header", planned(stage={str(i): 0.0 for i in range(4096)})),
    ("a NaN in a plan", "value", planned(stage={"x": _NAN})),
    ("a NaN for a pixel", "header", planned(haadf__sampling__pixel_nm=[_NAN, 1.0])),
    ("a pixel of 1e308 nm", "header", planned(haadf__sampling__pixel_nm=[1e308, 1e308])),
    ("a pixel of nothing", "header", planned(haadf__sampling__pixel_nm=[0.0, 0.0])),
    ("a field of no rows", "header", planned(haadf__sampling__shape=[0, SIDE])),
    ("a field of -1 rows", "header", planned(haadf__sampling__shape=[-1, -1])),
    ("a dtype that is a program", "header", planned(haadf__dtype="(1,")),
    ("a dtype of many digits", "header", planned(haadf__dtype="1" * 5000 + "f4")),
    ("a dtype of many parts", "header", planned(haadf__dtype="f4," * 10_000)),
    ("a dtype of objects", "header", planned(haadf__dtype="O")),
    ("no frames", "header", planned(frames=0)),
    ("no channels", "header", planned(eds__energy__channels=0)),
    ("channels of no energy", "header", planned(eds__energy__scale_kev=0.0)),
    ("a dwell of less than nothing", "header", planned(dwell_s=-1.0)),
    ("k-factors of nothing", "header", planned(eds__k_factors={"Fe_Ka": 0.0})),
    ("100000 k-factors", "header", planned(eds__k_factors={f"X{i}": 1.0 for i in range(50_000)})),
    ("100000 elements", "header", planned(eds__elements=["Fe"] * 100_000)),
    ("a class without examples", "header", supported(example("a", 0), example("b", 1))),
    ("one class twice", "header", supported(*[example("a", 1)] * 2)),
    ("a class that is a path", "header", supported(example("../a", 1), example("b", 2))),
    ("examples of a path", "header",
     supported(example("a", 1) | {"scan": "../../etc"}, example("b", 2))),
    ("an unknown preset", "header", planned(processing={"preset": "everything"})),
    ("1e308 clusters", "header", planned(processing={"clusters": 1e308})),
    ("a chip of 2**64 pixels", "header", planned(processing={"chip_px": 2**64 - 1})),
]  # fmt: skip


# What other programs send: on a PUB by accident, or by a scanner of ports that speaks ZeroMQ.
_STRANGERS: list[tuple[str, str, Make]] = [
    ("a pickle", "header", head(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix.")),
    ("a pickled array", "header", lambda s: raw(s, pickle.dumps(np.arange(4)))),
    ("a pickled message", "check", lambda s: [f"acq.{s}.".encode(), pickle.dumps({"y": 1}), b""]),
    ("JSON", "header", lambda s: raw(s, json.dumps(header(s)).encode())),
    ("JSON without a check", "check", lambda s: [f"acq.{s}.haadf_tile".encode(), json.dumps(header(s)).encode(), b""]),
    ("a bridge of Karabo", "check", lambda s: [
        f"acq.{s}.".encode(), msgpack.packb({"source": "SPB/DET", "content": "array", "dtype": "uint16", "shape": [1]}),
        bytes(2),
    ]),
    ("a bridge of Karabo, whole", "header", lambda s: raw(
        s, msgpack.packb({"source": "SPB/DET", "content": "array", "dtype": "uint16", "shape": [1]}), bytes(2))),
    ("a stream of EIGER", "check", lambda s: [
        f"acq.{s}.".encode(), b'{"htype":"dimage-1.0","series":1,"frame":0}', b'{"htype":"dimage_d-1.0"}', bytes(64),
    ]),
    ("a request of HTTP", "check", lambda s: [b"acq. GET / HTTP/1.1", b"Host: localhost:5560", b""]),
    ("MessagePack of another language", "header", lambda s: raw(s, msgpack.packb([1, "tile", bytes(8)]))),
]  # fmt: skip


BROKEN: tuple[Case, ...] = tuple(
    Case(name, "broken", make, reason)
    for group in (_FRAMES, _HEADERS, _TOPICS, _ARRAYS, _BOMBS, _PLANS, _STRANGERS)
    for name, reason, make in group
) + tuple(
    Case(name, "broken", make, reason, heavy=True)
    for name, reason, make in [
        ("a message of 64 MiB and more", "limit", lambda s: sent(s, "haadf_tile", bytes(_BIG), payload=[])),
        ("a message of many payloads and 64 MiB", "limit", lambda s: sent(s, "eds_tile", *[bytes(_BIG // 2)] * 2)),
    ]
)


# --- wrong: whole messages that ingest refuses ----------------------------------------------------------------------


def _tile(y: int = 0, x: int = 0, h: int = 1, w: int = SIDE, frame: int = 1, dtype: str = "<u2", fill: int = 0) -> Make:
    body = np.full((h, w), fill, dtype).tobytes()
    return lambda s: sent(s, "haadf_tile", body, frame=frame, y=y, x=x, payload=arrays((dtype, (h, w))))


def _photons(channel: int, **changes: Any) -> Make:
    body = (b"\x01", np.array([channel], "<u8").tobytes())
    fields = {"frame": 1, "h": 1, "w": 1, "payload": arrays(("|u1", [1, 1]), ("<u8", [1]))} | changes
    return lambda s: sent(s, "eds_tile", *body, **fields)


def _spectra(channels: int) -> Make:
    described = arrays(("|u1", [1, 1, channels]))
    return lambda s: sent(s, "eds_tile", bytes(channels), frame=1, h=1, w=1, content="dense", payload=described)


def _heap(photons: int) -> Make:
    body = np.zeros(CHANNELS, "<u8")
    body[[3, 5]] = photons
    described = arrays(("<u8", [1, 1, CHANNELS]))
    return lambda s: sent(s, "eds_tile", body.tobytes(), frame=1, h=1, w=1, content="dense", payload=described)


_WRONG: list[tuple[str, str, Make]] = [
    ("a frame beyond the plan", "outside", _tile(frame=2)),
    ("a frame beyond all plans", "limit", _tile(frame=2**31 - 1)),
    ("a row below the field", "outside", _tile(y=SIDE)),
    ("a row far below the field", "outside", _tile(y=2**31 - 1)),
    ("a tile that hangs out below", "outside", _tile(y=SIDE - 1, h=2)),
    ("a tile that hangs out to the right", "outside", _tile(x=1)),
    ("a tile taller than the field", "outside", _tile(h=SIDE + 1)),
    ("a tile wider than the field", "outside", _tile(w=SIDE + 1)),
    ("a tile of a pixel far away", "outside", _tile(y=2**31 - 1, x=2**31 - 1, w=1)),
    ("a place that is taken, other content", "conflict", _tile(frame=0, fill=7)),
    ("a tile that overlaps two rows", "overlap", _tile(frame=0, y=0, h=2, fill=7)),
    ("a tile within another", "overlap", _tile(frame=0, w=SIDE - 1, fill=7)),
    ("another dtype than announced", "payload", _tile(dtype="<f4")),
    ("another sign than announced", "payload", _tile(dtype="<i2")),
    ("a channel beyond the axis", "outside", _photons(CHANNELS)),
    ("a channel of 2**64 - 1", "outside", _photons(2**64 - 1)),
    ("photons beyond the plan", "outside", _photons(0, frame=2)),
    ("photons outside the field", "outside", _photons(0, y=SIDE)),
    ("spectra of too few channels", "payload", _spectra(CHANNELS - 1)),
    ("spectra of too many channels", "payload", _spectra(CHANNELS + 1)),
    ("spectra of no channels", "payload", _spectra(0)),
    ("spectra of more photons than a scan may have", "limit", _heap(2**32)),
    ("spectra whose sum wraps to 0", "limit", _heap(2**63)),
    ("a tile of a scan that was refused", "unknown_scan", lambda s: sent(s, scan_id=REFUSED)),
    ("an end of a scan that was refused", "unknown_scan", lambda s: sent(s, "scan_end", scan_id=REFUSED)),
]  # fmt: skip
WRONG = tuple(Case(name, "wrong", make, reason) for name, reason, make in _WRONG)


# --- bombs: plans that must be refused before they cost anything ----------------------------------------------------

_PLAN_BOMBS: dict[str, Make] = {
    "a field of 2**64 rows": planned(haadf__sampling__shape=[2**64 - 1, SIDE], eds=None),
    "a field of 2**31 squared": planned(haadf__sampling__shape=[2**31, 2**31], eds=None),
    "a field of 2**31 squared, in spectra": planned(eds__sampling__shape=[2**31, 2**31], haadf=None),
    "a field as thin as a thread": planned(haadf__sampling__shape=[1, 2**40], eds=None),
    "fields that do not meet": planned(eds__sampling__origin_nm=[1e308, 0.0]),
    "fields of other sizes": planned(eds__sampling__shape=[SIDE, 2]),
    "fields turned against each other": planned(eds__sampling__rotation_deg=1e300),
    "pixels that are no squares": planned(haadf__sampling__pixel_nm=[1e-3, 1e6], eds=None),
    "pixels of 1 to 1e9": planned(haadf__sampling__pixel_nm=[1e-4, 1e-4]),
    "2**64 frames": planned(frames=2**64 - 1),
    "2**64 channels": planned(eds__energy__channels=2**64 - 1),
    "2**40 channels": planned(eds__energy__channels=2**40),
    "channels of 1e300 keV": planned(eds__energy__scale_kev=1e300),
    "channels of 1e-300 keV": planned(eds__energy__scale_kev=1e-300),
    "channels from -1e300 keV": planned(eds__energy__offset_kev=-1e300),
    "a beam of negative energy": planned(beam__energy_kv=-200.0),
    "a beam of 1e300 kV": planned(beam__energy_kv=1e300),
    "a million chips": planned(haadf__sampling__shape=[1000, 1000], eds=None, processing={"chip_px": 1}),
    "a chip larger than the field": planned(processing={"chip_px": 1000}),
    "a chip of 1e5 nm": planned(processing={"chip_nm": 1e5}),
    "a chip of 1e-5 nm": planned(haadf__sampling__shape=[4096, 4096], eds=None, processing={"chip_nm": 1e-5}),
    "65 classes": supported(*[{"name": f"c{i}", "chips": [[i % 8, i // 8]]} for i in range(65)]),
    "an example outside the field": supported(example("a", 2000), example("b", 1)),
    "an example at 2**63": supported({"name": "a", "chips": [[2**63, 2**64 - 1]]}, example("b", 2)),
    "examples of two classes": supported(example("a", 1), example("b", 1)),
    "examples of a scan that is not there": supported(example("a", 1) | {"scan": "nobody/nothing"}, example("b", 2)),
    "1e5 clusters": planned(processing={"clusters": 100_000}),
    "a line of no element": planned(processing={"lines": ["Xx_Ka"]}),
    "a k-factor for nothing": planned(processing={"elements": ["Fe", "Ti"], "k_factors": {"Fe_Ka": 1.0}}),
    "a second start of another plan": lambda s: sent(s, "scan_start", plan=PLAN | {"frames": 3}),
    "all elements are strays": planned(processing={"elements": ["Fe"], "strays": ["Fe"]}),
}  # fmt: skip
# Plans that state nonsense where nothing depends on it: their scans are taken, and end.
_ODD_PLANS: dict[str, Make] = {
    "a beam of no energy": planned(beam__energy_kv=0.0),
    "a take-off of 1e300 degrees": planned(eds__take_off_angle_deg=1e300),
    "an element that is none": planned(eds__elements=["Unobtainium"]),
    "elements that nobody sees": planned(eds__elements=["H", "He", "Li"]),
    "the same element a thousand times": planned(eds__elements=["Fe"] * 1000),
    "a line of no element in the metadata": planned(eds__lines=["Xx_Ka"]),
    "k-factors of six decades": planned(eds__k_factors={"Fe_Ka": 1e6, "Ti_Ka": 1e-6}),
    "less than no live time": planned(eds__live_time_s=-1.0, eds__real_time_s=-1e300),
    "a current of 1e300 pA": planned(beam__current_pa=1e300, dwell_s=1e300),
    "a cone turned inside out": planned(beam__convergence_mrad=-1e300, beam__collection_mrad=[1e300, -1e300]),
    "a grey range of next to nothing": planned(haadf__grey_range=[0.0, 1e-300]),
    "a grey range of everything": planned(haadf__grey_range=[-1e300, 1e300]),
    "a field far away": planned(haadf__sampling__origin_nm=[1e300, 1e300], eds__sampling__origin_nm=[1e300, 1e300]),
    "a field turned many times": planned(haadf__sampling__rotation_deg=1e300, eds__sampling__rotation_deg=1e300),
    "a stage at the end of the world": planned(stage={"x": 1e300, "\0": -1e300}),
    "words that are none": planned(sample="\0\n\x1b[2J", source="\u202e", recorded_at="never"),
    "a vendor's large numbers": planned(vendor={"": "\0" * 1000, "a": 2**64 - 1, "b": -(2**63), "c": 1e308}),
}
ODD = tuple(Case(name, "odd", make) for name, make in _ODD_PLANS.items())
BOMBS = tuple(Case(name, "bomb", make) for name, make in _PLAN_BOMBS.items())


# --- talk: whole, allowed and absurd --------------------------------------------------------------------------------

_MOST = 2**63 - 1
_REQUESTS: dict[str, Make] = {
    "an acknowledgement of what was never sent": lambda s: sent(s, "ack", seq=_MOST),
    "an acknowledgement of another epoch": lambda s: sent(s, "ack", seq=_MOST, epoch=_MOST),
    "a resend of everything there could be": lambda s: sent(s, "resend", first=1, last=_MOST),
    "a resend of what was never sent": lambda s: sent(s, "resend", first=_MOST, last=_MOST),
    "a resend of another epoch": lambda s: sent(s, "resend", first=1, last=_MOST, epoch=_MOST),
    "a resend of 4096 rectangles": lambda s: sent(s, "resend", scan_id=SCAN, frame=2**31 - 1, rectangles=[
        {"modality": "eds", "y": 2**31 - 1, "x": i, "h": 2**31 - 1, "w": 2**31 - 1} for i in range(4096)]),
    "a snapshot from nowhere": lambda s: sent(s, "snapshot", cursor=_MOST),
    "a snapshot of nobody": lambda s: sent("nobody", "snapshot"),
    "an attach to nobody": lambda s: sent("nobody", "attach"),
    "a hello in no version": lambda s: sent("", "hello", versions=[], role="service"),
    "a hello in other versions": lambda s: sent("", "hello", versions=[_MOST] * 16, role="operator", name="x" * 4096),
    "a verdict on nothing": lambda s: sent(s, "verdict", scan_id="nothing", accepted=True),
    "a request for a scan": lambda s: sent(
        s, "request_scan", request={"region_nm": [-1e7, 1e7, 1e7, 1e7], "frames": 2**31 - 1}),
    "an answer for a question": lambda s: sent(s, "gone", first=1, last=_MOST),
    "a welcome for a question": lambda s: sent(s, "welcome", version=1, streams=[]),
    "a probe of an empty nonce": lambda s: sent(s, "probe", nonce=""),
}  # fmt: skip
REQUESTS = tuple(Case(name, "talk", make) for name, make in _REQUESTS.items())


def stream(session: str, first: int = 1, last: int = 0, epoch: int = 1) -> dict[str, Any]:
    """Return where a stream stands."""
    return {"session": session, "epoch": epoch, "first_seq": first, "last_seq": last}


def nested(frames: Sequence[bytes]) -> bytes:
    """Return frames as the payload of a `resent`."""
    return msgpack.packb(list(frames))


def resent(session: str, inner: bytes, **changes: Any) -> Frames:
    """Return a `resent` with these bytes in it."""
    fields = {"seq": 1, "more": False, "payload": arrays(("|u1", [len(inner)]))} | changes
    return sent(session, "resent", inner, **fields)


def page(session: str, inner: bytes, **changes: Any) -> Frames:
    """Return a page of a snapshot with these bytes in it."""
    return sent(session, "snapshot_page", inner, payload=arrays(("|u1", [len(inner)])), **changes)


def _russian(session: str, depth: int = 64) -> Frames:
    """A `resent` within a `resent`, and so on: what is within one must be a numbered message, not talk."""
    frames = sent(session)
    for _ in range(depth):
        frames = resent(session, nested(frames))
    return frames


# What a publisher may answer; a follower that did not ask takes no notice, and one that did is not misled.
_REPLIES: dict[str, tuple[str, Make]] = {
    "a resent within a resent": ("payload", _russian),
    "a resent that is another message": ("payload", lambda s: resent(s, nested(sent(s, seq=2)))),
    "a resent of nothing": ("payload", lambda s: resent(s, b"")),
    "a resent that is no list": ("payload", lambda s: resent(s, b"\xc0")),
    "a resent of a list that claims 2e9": ("payload", lambda s: resent(s, b"\xdd\x7f\xff\xff\xff")),
    "a resent of a million frames": ("payload", lambda s: resent(s, b"\xdd\x00\x0f\x42\x40" + b"\xc4\x00" * 10**6)),
    "a resent of lists within lists": ("payload", lambda s: resent(s, b"\x91" * 100_000)),
    "a resent heartbeat": ("payload", lambda s: resent(s, nested(sent(s, "heartbeat")))),
    "a resent of a broken message": ("check", lambda s: resent(s, nested([*sent(s)[:-1], bytes(4)]))),
    "a resent with a seq of 2**63 - 1": ("", lambda s: resent(s, nested(sent(s, seq=_MOST)), seq=_MOST)),
    "gone are 2**63 messages": ("", lambda s: sent(s, "gone", first=0, last=_MOST)),
    "gone backwards": ("", lambda s: sent(s, "gone", first=_MOST, last=0)),
    "attached where nobody asked": ("", lambda s: sent(s, "attached", stream=stream(s, _MOST, _MOST))),
    "a welcome with a thousand streams": ("", lambda s: sent("", "welcome", version=1, streams=[
        stream(f"s{i}") for i in range(1000)])),
    "a welcome in another version": ("", lambda s: sent("", "welcome", version=_MOST, streams=[])),
    "a refusal of what nobody asked": ("", lambda s: sent(s, "refusal", reason="no")),
    "a page where nobody asked": ("", lambda s: page(s, nested(sent(s)), watermark=_MOST, cursor=_MOST)),
    "a request for an answer": ("", lambda s: sent(s, "attach")),
}  # fmt: skip
REPLIES = tuple(Case(name, "talk", make, reason) for name, (reason, make) in _REPLIES.items())

# What a publisher may publish beside its data.
_ANNOUNCED: dict[str, Make] = {
    "a heartbeat of 2**63 - 1 messages": lambda s: sent(s, "heartbeat", last_seq=_MOST),
    "a heartbeat of epoch 2**63 - 1": lambda s: sent(s, "heartbeat", epoch=_MOST),
    "a heartbeat of an epoch gone by": lambda s: sent(s, "heartbeat", epoch=0),
    "a heartbeat of a session nobody has": lambda s: sent("invented", "heartbeat"),
    "a heartbeat of no session": lambda s: sent("", "heartbeat", topic=b"acq..heartbeat"),
    "an echo of nobody's nonce": lambda s: sent(s, "echo", last_seq=_MOST, nonce="nobody", request_id=...),
    "a tile of a session nobody has": lambda s: sent("invented"),
    "a tile of another epoch": lambda s: sent(s, epoch=_MOST),
}
ANNOUNCED = tuple(Case(name, "talk", make) for name, make in _ANNOUNCED.items())

CORPUS = (*BROKEN, *WRONG, *BOMBS, *ODD, *REQUESTS, *REPLIES, *ANNOUNCED)


# --- bytes: no ZeroMQ message at all --------------------------------------------------------------------------------


def greeting(mechanism: bytes = b"NULL", version: tuple[int, int] = (3, 1), *, server: bool = False) -> bytes:
    """Return the 64 bytes with which a ZMTP 3 peer begins."""
    return b"\xff" + bytes(8) + b"\x7f" + bytes(version) + mechanism.ljust(20, b"\0") + bytes([server]) + bytes(31)


def ready(socket_type: bytes) -> bytes:
    """Return the command with which a NULL handshake ends."""
    body = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", len(socket_type)) + socket_type
    return bytes([4, len(body)]) + body


def _zmtp(socket_type: bytes, *more: bytes) -> bytes:
    return greeting() + ready(socket_type) + b"".join(more)


_LONG = b"\x02" + struct.pack(">Q", 2**62)  # a frame of 2**62 bytes is to come
TCP: dict[str, bytes] = {
    "nothing": b"",
    "noise": noise(500)[0],
    "zeros": bytes(4096),
    "a request of HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a request of HTTP for metrics": b"GET /metrics HTTP/1.0\r\n\r\n",
    "a path of HTTP that leaves": b"GET /../../../etc/passwd HTTP/1.1\r\n\r\n",
    "a post of HTTP": b"POST /health HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\nx",
    "a method that is none": b"\xff\xfe / HTTP/1.1\r\n\r\n",
    "a line of HTTP that has no end": b"GET /" + b"a" * 2**17,
    "a header of HTTP that has no end": b"GET / HTTP/1.1\r\nX: " + b"a" * 2**17,
    "a thousand headers of HTTP": b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 1000 + b"\r\n",
    "an upgrade to HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
    "a hello of SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a query of Redis": b"*1\r\n$4\r\nPING\r\n",
    "a greeting of ZMTP 1": b"\x01\x00",
    "a greeting of ZMTP 2": b"\xff" + bytes(8) + b"\x7f\x01\x01\x00\x00",
    "half a greeting of ZMTP 3": greeting()[:20],
    "a greeting of ZMTP 9": greeting(version=(9, 9)),
    "a greeting with an unknown mechanism": greeting(b"MAGIC"),
    "a greeting with PLAIN": greeting(b"PLAIN") + b"\x04\x0d\x05HELLO\x01u\x01p",
    "a greeting with CURVE": greeting(b"CURVE") + b"\x04\xc8\x05HELLO" + bytes(194),
    "a REQ": _zmtp(b"REQ", b"\x01\x00", b"\x00\x05hello"),
    "a PUSH": _zmtp(b"PUSH", b"\x00\x05hello"),
    "a PAIR": _zmtp(b"PAIR", b"\x00\x05hello"),
    "a PUB": _zmtp(b"PUB", b"\x00\x05hello"),
    "a socket of no type": _zmtp(b"TELEPHONE"),
    "a command that is none": greeting() + b"\x04\x05\x04WHAT",
    "a ready that lies of its length": greeting() + b"\x04\x10\x05READY\x0bSocket-Type\xff\xff\xff\xff",
    "a SUB whose frame has no end": _zmtp(b"SUB", _LONG, b"x" * 1000),
    "a DEALER whose frame has no end": _zmtp(b"DEALER", _LONG, b"x" * 1000),
    "a DEALER whose message has no end": _zmtp(b"DEALER", b"\x01\x01x" * 20_000),
    "a SUB that subscribes to 2**16 bytes": _zmtp(
        b"SUB", b"\x02" + struct.pack(">Q", 2**16 + 1) + b"\x01" + b"a" * 2**16
    ),
    "a SUB with flags that are none": _zmtp(b"SUB", b"\xf8\x01\x01"),
}

# What an XPUB may be told: by a SUB, subscriptions; by an XSUB, anything.
SUBSCRIPTIONS: dict[str, Frames] = {
    "everything": [b"\x01"],
    "no longer what was never subscribed": [b"\x00res.nobody."],
    "a long topic": [b"\x01" + b"a" * 4000],
    "neither the one nor the other": [b"\x02what"],
    "nothing": [b""],
    "many frames": [b"\x01a"] * 100,
    "a message": framed(b"res.s.heartbeat", msgpack.packb({"v": 1})),
}


# --- families: a legal message, changed in every possible place -----------------------------------------------------


def truncations(frames: Frames) -> Iterator[Frames]:
    """Yield a message with one frame cut at every place, its check as it was; then without each frame."""
    for i, frame in enumerate(frames):
        for cut in range(len(frame)):
            yield [*frames[:i], frame[:cut], *frames[i + 1 :]]
    for i in range(len(frames)):
        yield [f for j, f in enumerate(frames) if j != i]


def flips(frames: Frames, *, only: int | None = None) -> Iterator[Frames]:
    """Yield a message with every bit flipped in turn (of one frame only, perhaps), its check as it was."""
    for i, frame in enumerate(frames):
        if only is not None and i != only:
            continue
        for bit in range(8 * len(frame)):
            spoilt = bytearray(frame)
            spoilt[bit // 8] ^= 1 << bit % 8
            yield [*frames[:i], bytes(spoilt), *frames[i + 1 :]]
