"""How hostile messages are made: by the plain MessagePack package or byte by byte, never by our own encoder.

A maker is a function of a session's name. What it returns has a right check, unless the check is what is wrong.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np

Frames = list[bytes]
Make = Callable[[str], Frames]  # of a session's name

SCAN = "open"  # the scan that `wrong` cases are about: of `PLAN`, its frame 0 here, its frame 1 not yet
REFUSED = "refused"  # a scan that was refused
SIDE = 32
CHANNELS = 1024
_SAMPLING = {"shape": [SIDE, SIDE], "pixel_nm": [1.0, 1.0]}
PLAN: dict[str, Any] = {
    "haadf": {"sampling": _SAMPLING, "dtype": "<u2"},
    "eds": {"sampling": _SAMPLING, "energy": {"channels": CHANNELS, "scale_kev": 0.01}, "elements": ["Fe", "Ti"]},
    "frames": 2,
    "beam": {"energy_kv": 200.0},
}
TALK = ("hello", "probe", "attach", "ack", "verdict", "resend", "snapshot", "request_scan",
        "welcome", "attached", "resent", "gone", "snapshot_page", "refusal", "scan_granted")  # fmt: skip
_BODIES = {"haadf_tile": (bytes(2 * SIDE),), "eds_tile": (b"\x01\x02", bytes(6))}


def framed(*frames: bytes) -> Frames:
    """Return frames with their right check."""
    crc = 0
    for frame in frames:
        crc = zlib.crc32(frame, crc)
    return [*frames, crc.to_bytes(4, "little")]


def header(session: str, kind: str = "haadf_tile", **changes: Any) -> dict[str, Any]:
    """Return a legal header, with changes; a field that is changed to ``...`` is left out."""
    plain: dict[str, Any] = {"v": 1, "type": kind, "session": session, "epoch": 1, "sent_ns": 0, "payload": []}
    place = {"seq": 1, "scan_id": SCAN, "frame": 0, "y": 0, "x": 0}
    own: dict[str, dict[str, Any]] = {
        "haadf_tile": {**place, "payload": arrays(("<u2", [1, SIDE]))},
        "eds_tile": {
            **place,
            **{"h": 1, "w": 2, "content": "events", "payload": arrays(("|u1", [1, 2]), ("<u2", [3]))},
        },
        "scan_start": {"seq": 1, "scan_id": SCAN, "plan": PLAN},
        "scan_end": {
            **{"seq": 9, "scan_id": SCAN, "status": "complete", "frames": 2},
            **{"haadf_tiles": 2, "eds_tiles": 0, "eds_counts": 0},
        },
        "heartbeat": {"last_seq": 0},
    }
    found = plain | own.get(kind, {"request_id": "r"}) | changes
    return {k: v for k, v in found.items() if v is not ...}


def arrays(*described: tuple[str, Sequence[Any]], codec: str = "raw") -> list[dict[str, Any]]:
    """Return payload descriptions."""
    return [{"dtype": dtype, "shape": list(shape), "codec": codec} for dtype, shape in described]


def sent(session: str, kind: str = "haadf_tile", *bodies: bytes, topic: bytes | None = None, **changes: Any) -> Frames:
    """Return the frames of a message whose header and arrays were made by somebody who does not use our encoder."""
    default = () if kind not in ("haadf_tile", "eds_tile") else _BODIES[kind]
    return raw(session, msgpack.packb(header(session, kind, **changes)), *(bodies or default), kind=kind, topic=topic)


def raw(session: str, head: bytes, *bodies: bytes, kind: str = "haadf_tile", topic: bytes | None = None) -> Frames:
    """Return the frames of a message whose header is these bytes."""
    talk = kind in TALK
    own = b"" if talk else f"acq.{session}.{kind}".encode()
    return framed(own if topic is None else topic, head, *bodies)


def haadf(values: Any) -> Make:
    """Return a tile of these values."""
    values = np.asarray(values)
    described = arrays((values.dtype.str, values.shape))
    return lambda s: sent(s, "haadf_tile", values.tobytes(), payload=described)


def zstd(body: bytes, shape: Sequence[int] = (1, SIDE), dtype: str = "<u2") -> Make:
    """Return a tile of one compressed payload."""
    return lambda s: sent(s, "haadf_tile", body, payload=arrays((dtype, shape), codec="zstd"))


def eds(content: str, *values: Any, **changes: Any) -> Make:
    """Return an eds_tile of these arrays; the header's h and w fit unless told otherwise."""
    given = [np.asarray(v) for v in values]
    h, w = given[0].shape[:2] if given[0].ndim > 1 else (1, 1)
    described = arrays(*((v.dtype.str, v.shape) for v in given))
    fields = {"h": h, "w": w, "content": content, "payload": described} | changes
    return lambda s: sent(s, "eds_tile", *(v.tobytes() for v in given), **fields)


def head(head: bytes) -> Make:
    """Return a tile whose header is these bytes."""
    return lambda s: raw(s, head, bytes(2 * SIDE))


def with_fields(kind: str = "haadf_tile", **changes: Any) -> Make:
    """Return a message with changed fields."""
    return lambda s: sent(s, kind, **changes)


def with_payload(shape: Any, dtype: Any = "<u2", body: bytes = bytes(2 * SIDE), **more: Any) -> Make:
    """Return a tile with one payload that is described so."""
    described = [{"dtype": dtype, "shape": shape, "codec": "raw"} | more]
    return lambda s: sent(s, "haadf_tile", body, payload=described)


def with_entry(key: bytes, value: bytes, kind: str = "haadf_tile") -> Make:
    """Return a header with one more entry, written byte by byte: what no packer writes."""

    def make(session: str) -> Frames:
        head = msgpack.packb(header(session, kind))
        assert head[0] & 0xF0 == 0x80 and head[0] != 0x8F, "a map of at most 14 entries"
        bodies = _BODIES.get(kind, ())
        return raw(session, bytes([head[0] + 1]) + head[1:] + key + value, *bodies, kind=kind)

    return make


def spoilt(frame: int, change: Callable[[bytes], bytes], kind: str = "eds_tile", *, right: bool = False) -> Make:
    """Change one frame of a legal message; its check is wrong then, or computed anew."""

    def make(session: str) -> Frames:
        frames = sent(session, kind)
        frames[frame] = change(frames[frame])
        return framed(*frames[:-1]) if right else frames

    return make


def planned(**changes: Any) -> Make:
    """Return a scan_start of an altered plan; ``part__field`` reaches into a part."""
    return lambda s: sent(s, "scan_start", scan_id="bomb", plan=altered(PLAN, changes))


def altered(plan: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a plan with changes; the key ``a__b`` is field b of part a, and ``...`` leaves a field out."""
    found = dict(plan)
    for key, value in changes.items():
        first, _, rest = key.partition("__")
        if rest:
            found[first] = altered(found.get(first) or {}, {rest: value})
        elif value is ...:
            found.pop(first, None)
        else:
            found[first] = value
    return found


def supported(*classes: dict[str, Any]) -> Make:
    """Return a scan_start whose sender asks for few-shot with these classes."""
    return planned(processing={"support": {"classes": list(classes)}})


def example(name: str, chips: int) -> dict[str, Any]:
    """Return a class with so many examples in the first row."""
    return {"name": name, "chips": [[0, i] for i in range(chips)]}


def noise(*sizes: int) -> Frames:
    """Return frames of random bytes, the same ones each time."""
    rng = np.random.default_rng(5)
    return [rng.bytes(size) for size in sizes]


def moved(frames: Frames, to: int) -> Frames:
    """Move a byte from one frame to the one before it: the check covers them end to end and does not see it."""
    moved = [*frames]
    moved[to], moved[to + 1] = moved[to] + moved[to + 1][:1], moved[to + 1][1:]
    return moved


def many(n: int) -> Make:
    """Return a message of many frames."""
    return lambda s: framed(f"acq.{s}.haadf_tile".encode(), *[b"x"] * n)
