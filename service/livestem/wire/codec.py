"""Frames <-> message: ``topic | header | payload* | check``.

Order of the checks on arrival, cheapest and safest first: number and size of frames, crc32 of everything
before `check`, topic, header (strict types), payloads against `shape` and the limits *before* they are
decompressed, then what the message type demands of its arrays. The first failure raises `WireError` with the
reason it is counted under; nothing of a failed message is ever applied.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from livestem.domain.errors import Reason, WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.wire import messages as m
from livestem.wire.arrays import check_arrays

Buffer = bytes | memoryview
Arrays = tuple[NDArray[Any], ...]

# Level 1: at ingest rates time matters more than the last few per cent; dense EDS is mostly zeros anyway.
_ZSTD_LEVEL = 1
_ACQUISITION = frozenset(m.tag_of(t) for t in m.ACQUISITION)
_RESULTS = frozenset(m.tag_of(t) for t in m.RESULTS)
_HOT = (m.HaadfRows, m.EdsRows)  # headers without floats, so without anything that might not be finite
# What msgspec raises on bytes that are no message: also text that is no UTF-8, and nesting without end.
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(m.AnyHeader, strict=True)


# The frames of a message within another; bounded here, because a list of millions takes ten times its bytes.
_nested = msgspec.msgpack.Decoder(Annotated[list[bytes], msgspec.Meta(max_length=1024)])


class _Stated(msgspec.Struct):
    """The version that a header states; everything else in it is skipped, so that it costs nothing."""

    v: int | str | float | None = None


_stated = msgspec.msgpack.Decoder(_Stated)


@dataclass(frozen=True)
class Message:
    """A decoded message: its header, its arrays (read-only views of the frames) and the frames as they came."""

    header: m.Header
    arrays: Arrays
    frames: tuple[Buffer, ...]

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return sum(len(f) for f in self.frames)


def topic_of(header: m.Header, stream: str) -> bytes:
    """Return the topic of a published message, such as ``acq.s1.haadf_tile``; `stream` is ``acq`` or ``res``."""
    return f"{stream}.{header.session}.{m.tag_of(header)}".encode()


def encode(
    header: m.Header, arrays: Sequence[NDArray[Any]] = (), *, stream: str = "", codec: str = "raw"
) -> list[bytes]:
    """Turn a header and its arrays into frames.

    Parameters
    ----------
    header : Header
        Its `payload` is filled in here.
    arrays : sequence of ndarray
        Sent C-order and little-endian.
    stream : {"", "acq", "res"}
        What it is published as; empty for talk on a ROUTER or DEALER.
    codec : {"raw", "zstd"}
        How the arrays travel.

    Returns
    -------
    list of bytes
        The frames, `check` last.

    Raises
    ------
    WireError
        ``value`` if a number in the header is not finite, ``payload`` if an array's dtype cannot travel: better
        told here than refused by every receiver.
    """
    _check_finite(header)
    payloads, buffers = [], []
    for array in arrays:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        data = array.tobytes()
        if codec == "zstd":
            data = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
        payloads.append({"dtype": array.dtype.str, "shape": array.shape, "codec": codec})
        buffers.append(data)
    try:
        described = msgspec.convert(payloads, tuple[m.Payload, ...])
    except msgspec.ValidationError as e:
        raise WireError("payload", f"an array of {[a.dtype.name for a in arrays]} cannot be sent: {e}") from e
    full = msgspec.structs.replace(header, payload=described)
    frames = [topic_of(full, stream) if stream else b"", _encoder.encode(full), *buffers]
    return [*frames, _check(frames)]


def decode(frames: Sequence[Buffer], limits: Limits = DEFAULT_LIMITS) -> Message:
    """Turn frames into a message, or raise.

    Raises
    ------
    WireError
        With the reason it is to be counted under: ``limit``, ``check``, ``header``, ``version``, ``topic``,
        ``payload`` or ``value``.
    """
    if not 3 <= len(frames) <= limits.message_frames:
        raise WireError("limit" if len(frames) > 3 else "header", f"{len(frames)} frames")
    topic, head, *bodies, check = frames
    if len(head) > most_header_bytes(topic, limits) or sum(len(f) for f in frames) > limits.message_bytes:
        raise WireError("limit", f"{len(head)} header bytes, {sum(len(f) for f in frames)} in all")
    if bytes(check) != _check(frames[:-1]):
        raise WireError("check", "crc32 does not match")
    header = _decode_header(head)
    _check_topic(bytes(topic), header)
    if len(bodies) != len(header.payload):
        raise WireError("payload", f"{len(bodies)} arrays, {len(header.payload)} announced")
    _check_sizes(header.payload, limits)
    arrays = tuple(_decode_array(p, body) for p, body in zip(header.payload, bodies, strict=True))
    check_arrays(header, arrays)
    return Message(header, arrays, tuple(frames))


def most_header_bytes(topic: Buffer, limits: Limits) -> int:
    """Return what the header of a message may take: results hold lists of regions, nothing else is as long.

    Decoded, a header takes up to some twenty times its bytes, and whoever reaches a socket can send one.
    """
    return limits.header_bytes if bytes(topic[:4]) == b"res." else min(limits.header_bytes, limits.talk_bytes)


def nest(frames: Sequence[Buffer]) -> NDArray[np.uint8]:
    """Pack a whole message into one payload of another (`resent`, `snapshot_page`): a MessagePack list of bins."""
    return np.frombuffer(_encoder.encode(list(frames)), dtype=np.uint8)


def unnest(array: NDArray[np.uint8]) -> list[bytes]:
    """Undo `nest`; WireError if it is no list of byte strings."""
    try:
        frames: list[bytes] = _nested.decode(array.data)
    except _BROKEN as e:
        raise WireError("payload", f"nested message: {e}") from e
    return frames


def _check(frames: Sequence[Buffer]) -> bytes:
    crc = 0
    for frame in frames:
        crc = zlib.crc32(frame, crc)
    return crc.to_bytes(4, "little")


def _decode_header(head: Buffer) -> m.Header:
    try:
        header: m.Header = _decoder.decode(head)
    except _BROKEN as e:
        raise WireError(_why(head), str(e)) from e
    _check_finite(header)
    return header


def _why(head: Buffer) -> Reason:
    """Tell a stranger's version from a broken header."""
    try:
        return "header" if _stated.decode(head).v in (None, m.VERSION) else "version"
    except _BROKEN:
        return "header"


def _check_finite(header: m.Header) -> None:
    if not isinstance(header, _HOT):
        _check_numbers(msgspec.to_builtins(header))


def _check_numbers(value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise WireError("value", "a number in the header is not finite")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for child in children:
        _check_numbers(child)


def _check_topic(topic: bytes, header: m.Header) -> None:
    if isinstance(header, m.Talk):
        if topic:
            raise WireError("topic", f"talk with a topic: {topic[:80]!r}")
        return
    tag = m.tag_of(header)
    streams = [s for s, tags in (("acq", _ACQUISITION), ("res", _RESULTS)) if tag in tags]
    if topic not in [topic_of(header, stream) for stream in streams]:
        raise WireError("topic", f"{topic[:80]!r} on a {tag} of session {header.session!r}")


def _check_sizes(payloads: Sequence[m.Payload], limits: Limits) -> None:
    total = sum(_nbytes(p) for p in payloads)
    if total > limits.message_bytes:
        raise WireError("limit", f"{total} bytes when decompressed")


def _nbytes(payload: m.Payload) -> int:
    return math.prod(payload.shape) * np.dtype(payload.dtype).itemsize


def _decode_array(payload: m.Payload, body: Buffer) -> NDArray[Any]:
    size = _nbytes(payload)
    if payload.codec == "zstd":
        body = _decompress(body, size)
    if len(body) != size:
        raise WireError("payload", f"{len(body)} bytes for {payload.dtype} {payload.shape}")
    try:
        array = np.frombuffer(body, dtype=payload.dtype).reshape(payload.shape)
    except ValueError as e:  # no bytes because one side is 0, and the others beyond what an array may have
        raise WireError("payload", f"{payload.shape}: {e}") from e
    array.flags.writeable = False
    return array


def _decompress(body: Buffer, size: int) -> bytes:
    try:
        if zstandard.frame_content_size(body) != size:
            raise WireError("payload", "zstd frame of another size than announced")
        # one frame and nothing after it; it gives exactly `size` bytes or fails
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=max(size, 1), allow_extra_data=False)
    except zstandard.ZstdError as e:
        raise WireError("payload", f"zstd: {e}") from e
