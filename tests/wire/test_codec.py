"""The codec: what goes in comes out; each rule at its edge. What hostile peers send is in `hostile`."""

from __future__ import annotations

import math
import struct
from typing import Any

import hypothesis.extra.numpy as hnp
import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_examples import PLAN, examples, frames_of, sent

from livestem.domain.errors import WireError
from livestem.domain.limits import Limits
from livestem.wire import codec
from livestem.wire import messages as m
from livestem.wire.arrays import MOST_HAADF
from livestem.wire.codec import decode, encode, nest, topic_of, unnest

EXAMPLES = examples()
DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")
WITHIN = {
    d: {"min_value": 0 if "u" in d else -MOST_HAADF, "max_value": MOST_HAADF} for d in ("<u8", "<i8", "<f4", "<f8")
}
pack = msgspec.msgpack.encode


def checked(*frames: bytes) -> list[bytes]:
    """Return frames with their right check."""
    return [*frames, codec._check(frames)]


def raw(name: str, /, **changes: Any) -> list[bytes]:
    """Return the frames of an example whose header map was changed by somebody who does not use our encoder."""
    topic, head, *bodies, _ = frames_of(EXAMPLES[name])
    fields = msgspec.msgpack.decode(head)
    fields.update(changes)
    return checked(topic, pack({k: v for k, v in fields.items() if v is not ...}), *bodies)


def tile(body: bytes, **payload: Any) -> list[bytes]:
    """Return a haadf_tile of this one payload."""
    head = msgspec.msgpack.decode(frames_of(EXAMPLES["haadf_tile"])[1])
    head["payload"] = [{"dtype": "<u2", "shape": [1, 1], "codec": "raw"} | payload]
    return checked(b"acq.gold.haadf_tile", pack(head), body)


def events(counts: Any, channels: Any, **fields: Any) -> list[bytes]:
    """Return an eds_tile of events; the header's h and w fit unless told otherwise."""
    counts, channels = np.asarray(counts), np.asarray(channels)
    header = m.EdsRows(
        session="s", scan_id="a", frame=3, y=10, x=20, content="events",
        **({"h": counts.shape[0], "w": counts.shape[1]} | fields),
    )  # fmt: skip
    return encode(header, (counts, channels), stream="acq")


def dense(values: Any, **fields: Any) -> list[bytes]:
    values = np.asarray(values)
    size = {"h": values.shape[0], "w": values.shape[1]} | fields
    header = m.EdsRows(session="s", scan_id="a", frame=3, y=10, x=20, content="dense", **size)
    return encode(header, (values,), stream="acq")


def haadf(values: Any) -> list[bytes]:
    header = m.HaadfRows(session="s", scan_id="a", frame=3, y=10, x=20)
    return encode(header, (np.asarray(values),), stream="acq")


def rejected(frames: Any, reason: str, words: str = "", limits: Limits | None = None) -> None:
    with pytest.raises(WireError) as caught:
        decode(frames, *([limits] if limits else []))
    assert caught.value.reason == reason, caught.value
    assert words in caught.value.detail


# --- what goes in comes out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(EXAMPLES))
@pytest.mark.parametrize("kind", [bytes, memoryview, bytearray])
def test_every_type_comes_back(name: str, kind: type):
    frames = frames_of(EXAMPLES[name])
    message = decode([kind(f) for f in frames])
    assert msgspec.structs.replace(message.header, payload=()) == sent(EXAMPLES[name])
    assert message.nbytes == sum(map(len, frames))
    assert encode(message.header, message.arrays, stream=EXAMPLES[name][2], codec=EXAMPLES[name][3]) == frames
    for array in message.arrays:
        assert not array.flags.writeable, "a published array is never written again"


@settings(max_examples=150, deadline=None)
@given(
    values=st.sampled_from(DTYPES).flatmap(
        lambda d: hnp.arrays(
            np.dtype(d),
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
            elements=WITHIN.get(d),
        )
    ),
    way=st.sampled_from(["raw", "zstd"]),
    order=st.sampled_from(["C", "F", "reversed"]),
)
def test_haadf_of_every_dtype_comes_back(values: np.ndarray, way: str, order: str):
    laid = values[::-1, ::-1][::-1, ::-1] if order == "reversed" else np.asarray(values, order=order)
    header = m.HaadfRows(session="s", scan_id="a", frame=0, y=0, x=0)
    (found,) = decode(encode(header, (laid,), stream="acq", codec=way)).arrays
    assert found.dtype == values.dtype and found.tobytes() == values.tobytes()


@settings(max_examples=150, deadline=None)
@given(
    counts=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 5)),
    count_type=st.sampled_from(["|u1", "<u2", "<u4", "<u8"]),
    channel_type=st.sampled_from(["|u1", "<u2", "<u4"]),
    way=st.sampled_from(["raw", "zstd"]),
)
def test_events_come_back(counts: np.ndarray, count_type: str, channel_type: str, way: str):
    channels = np.arange(counts.sum()).astype(channel_type)
    header = m.EdsRows(
        session="s", scan_id="a", frame=0, y=0, x=0, h=counts.shape[0], w=counts.shape[1], content="events"
    )
    found = decode(encode(header, (counts.astype(count_type), channels), stream="acq", codec=way)).arrays
    np.testing.assert_array_equal(found[0], counts)
    np.testing.assert_array_equal(found[1], channels)


def test_no_photon_at_all_is_a_tile():
    for way in ("raw", "zstd"):
        header = m.EdsRows(session="s", scan_id="a", frame=0, y=0, x=0, h=2, w=3, content="events")
        nothing = (np.zeros((2, 3), "u1"), np.zeros(0, "<u2"))
        message = decode(encode(header, nothing, stream="acq", codec=way))
        assert [a.shape for a in message.arrays] == [(2, 3), (0,)]


def test_a_big_endian_array_travels_little_endian():
    (found,) = decode(haadf(np.array([[1, 258]], ">u2"))).arrays
    assert found.dtype.str == "<u2" and found.tolist() == [[1, 258]]


def test_negative_haadf_is_legal():
    assert decode(haadf(np.array([[-5, 3]], "<i2"))).arrays[0].min() == -5


@pytest.mark.parametrize("values", [np.zeros((1, 1), bool), np.zeros((1, 1), "c8"), np.zeros((1, 1), "f2"),
                                    np.array([["a"]]), np.array([[{}]])])  # fmt: skip
def test_a_dtype_that_cannot_travel_is_refused_by_the_sender(values: np.ndarray):
    with pytest.raises(WireError, match="cannot be sent"):
        haadf(values)


def test_a_number_that_is_not_finite_is_refused_by_the_sender():
    plan = msgspec.structs.replace(PLAN, vendor={"gain": math.nan})
    with pytest.raises(WireError, match="not finite"):
        encode(m.ScanStart(session="s", scan_id="a", plan=plan), stream="acq")


def test_nested_frames_come_back():
    frames = frames_of(EXAMPLES["haadf_tile"])
    assert unnest(nest([memoryview(f) for f in frames])) == frames


# --- frames and limits --------------------------------------------------------------------------------------


def test_too_few_frames():
    for n in range(3):
        rejected([b""] * n, "header", f"{n} frames")


def test_too_many_frames():
    frames = frames_of(EXAMPLES["eds_tile"])
    assert len(frames) == 5
    decode(frames, Limits(message_frames=5))
    rejected(frames, "limit", limits=Limits(message_frames=4))
    rejected([b""] * 9, "limit", "9 frames")


def test_a_header_over_the_limit():
    frames = frames_of(EXAMPLES["scan_start"])
    decode(frames, Limits(header_bytes=len(frames[1])))
    rejected(frames, "limit", limits=Limits(header_bytes=len(frames[1]) - 1))


def test_a_message_over_the_limit():
    frames = frames_of(EXAMPLES["eds_tile"])
    size = sum(map(len, frames))
    decode(frames, Limits(message_bytes=size))
    rejected(frames, "limit", limits=Limits(message_bytes=size - 1))


@pytest.fixture
def no_decompression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a test fail if anything is decompressed."""

    def refuse(*args: object) -> None:
        raise AssertionError("decompressed before it was checked")

    monkeypatch.setattr(codec.zstandard, "ZstdDecompressor", refuse)


@pytest.mark.usefixtures("no_decompression")
@pytest.mark.parametrize("shape", [[1, 1], [1, 3], [0, 1], [2**31, 2**31]])
def test_a_compressed_size_that_is_not_the_announced_one(shape: list[int]):
    with pytest.raises(WireError) as caught:
        decode(tile(zstandard.ZstdCompressor().compress(bytes(4)), codec="zstd", shape=shape))
    assert caught.value.reason in ("payload", "limit")


@pytest.mark.parametrize("shape", [[2**63 - 1, 0], [2**62, 0, 2**62, 2**62], [0, 2**40, 2**40]])
def test_an_empty_array_with_absurd_sides(shape: list[int]):
    rejected(tile(b"", shape=shape), "payload")


# --- headers ------------------------------------------------------------------------------------------------


def test_an_unknown_field():
    rejected(raw("haadf_tile", colour="red"), "header", "colour")


def test_an_unknown_type():
    rejected(raw("haadf_tile", type="haadf"), "header")
    rejected(raw("haadf_tile", type=...), "header")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_another_version_is_told_from_a_broken_header(name: str):
    rejected(raw(name, v=2), "version")
    rejected(raw(name, v=0), "version")
    rejected(raw(name, v=2, new_in_two=1), "version")
    rejected(raw(name, v="1"), "version")
    rejected(raw(name, epoch=-1), "header")


@pytest.mark.parametrize("field", ["scan_id", "frame", "y", "x"])
def test_a_missing_field(field: str):
    rejected(raw("haadf_tile", **{field: ...}), "header", field)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("haadf_tile", "frame", 1.0),
        ("haadf_tile", "frame", "1"),
        ("haadf_tile", "frame", True),
        ("haadf_tile", "frame", None),
        ("haadf_tile", "frame", -1),
        ("haadf_tile", "frame", 2**31),
        ("haadf_tile", "seq", 2**63),
        ("haadf_tile", "seq", 0.0),
        ("eds_tile", "h", 0),
        ("eds_tile", "content", "sparse"),
        ("scan_end", "eds_counts", -1),
        ("hello", "versions", "1"),
        ("hello", "role", "admin"),
        ("hello", "name", "x" * 4097),
        ("hello", "request_id", "x" * 65),
        ("suggestion", "origin_nm", [1.0]),
        ("suggestion", "origin_nm", ["1.0", 2.0]),
    ],
)  # fmt: skip
def test_types_are_strict(name: str, field: str, value: Any):
    rejected(raw(name, **{field: value}), "header", field)


def test_a_whole_number_is_a_float_but_no_float_is_a_whole_number():
    header = decode(raw("suggestion", origin_nm=[1, 2])).header
    assert isinstance(header, m.Suggestion) and header.origin_nm == (1.0, 2.0)


BAD_NAMES = ["CON", "con", "nul", "Aux", "COM1", "lpt9", "a/b", "a\\b", "..", "a.b", "", " ", "a b", "a\n", "x" * 65,
             "é", "a:b", "a*", "\0"]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_not_be_a_folder(name: str):
    rejected(raw("scan_end", scan_id=name), "header", "scan" if len(name) < 65 else "")
    if name:
        rejected(raw("scan_end", session=name), "header")
    else:
        rejected(raw("scan_end", session=name), "topic")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["live", "segmentation", "agreement", "scan_done", "suggestion", "verdict"])
def test_a_header_number_that_is_not_finite(name: str, value: float):
    changes: dict[str, Any] = {
        "live": {"coverage": {"haadf": value}},
        "segmentation": {"parameters": {"gap": value}},
        "agreement": {"agreement": {"ward": {"a-b": value}}},
        "scan_done": {"timings_s": {"ward": value}},
        "suggestion": {"size_nm": [1.0, value]},
        "verdict": {"facts": {"gb": value}},
    }[name]
    rejected(raw(name, **changes), "value", "not finite")


def test_a_plan_that_could_not_be():
    plan = msgspec.to_builtins(PLAN)
    rejected(raw("scan_start", plan={**plan, "haadf": None, "eds": None}), "header", "needs HAADF")
    rejected(raw("scan_start", plan={**plan, "dwell_s": -1.0}), "header", "dwell_s")
    rejected(raw("scan_start", plan={**plan, "frames": 0}), "header", "frames")
    rejected(raw("scan_start", plan={**plan, "vendor": {str(i): i for i in range(65)}}), "header", "vendor")
    rejected(raw("scan_start", plan={**plan, "vendor": {"nested": {"a": 1}}}), "header", "vendor")
    rejected(raw("scan_start", plan={**plan, "stage": {"x": math.nan}}), "value", "not finite")


@pytest.mark.parametrize("place", [b"\xa4type", b"name", b"tem pc", b"hello", b"r-1"])
def test_text_that_is_no_utf8(place: bytes):
    topic, head, check = frames_of(EXAMPLES["hello"])
    spoilt = head.replace(place, place[:-1] + b"\xff")
    assert spoilt != head
    with pytest.raises(WireError) as caught:
        decode(checked(topic, spoilt))
    assert caught.value.reason == "header"


# --- topics -------------------------------------------------------------------------------------------------


def with_topic(name: str, topic: bytes) -> list[bytes]:
    _, *rest, _ = frames_of(EXAMPLES[name])
    return checked(topic, *rest)


@pytest.mark.parametrize(
    "topic",
    [b"", b"acq.gold.eds_tile", b"acq.other.haadf_tile", b"res.gold.haadf_tile", b"acq.gold.haadf_tile.", b"acq",
     b"acq.gold", b"ACQ.gold.haadf_tile", b"\xff\xfe", b"x" * 1000],
)  # fmt: skip
def test_a_topic_that_is_not_the_headers(topic: bytes):
    rejected(with_topic("haadf_tile", topic), "topic")


def test_a_heartbeat_is_of_both_families():
    for family in (b"acq", b"res"):
        decode(with_topic("heartbeat", family + b".gold.heartbeat"))
    rejected(with_topic("live", b"acq.gold.live"), "topic")


@pytest.mark.parametrize("name", sorted(n for n in EXAMPLES if isinstance(EXAMPLES[n][0], m.Talk)))
def test_talk_has_no_topic(name: str):
    rejected(with_topic(name, topic_of(sent(EXAMPLES[name]), "acq")), "topic", "talk")


# --- payloads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["O", "|O", "c8", "<c16", ">u2", ">f4", "<f2", "|b1", "|S1", "<U1", "<M8[s]", "u2", ""]
)
def test_a_dtype_that_is_not_in_the_list(dtype: str):
    rejected(tile(b"ab", dtype=dtype), "header", "dtype")


def test_a_codec_that_is_not_in_the_list():
    rejected(tile(b"ab", codec="gzip"), "header", "codec")


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"ab", {"shape": [1, 2]}),
        (b"abc", {}),
        (b"", {}),
        (b"ab", {"shape": [1, 1, 1]}),
        (b"ab", {"shape": [1]}),
        (b"ab", {"shape": []}),
        (b"", {"shape": [0, 1]}),
    ],
)
def test_a_shape_that_is_not_the_datas(body: bytes, payload: dict[str, Any]):
    rejected(tile(body, **payload), "payload")


def test_a_shape_of_too_many_axes_or_below_nothing():
    rejected(tile(b"ab", shape=[1] * 5), "header", "shape")
    rejected(tile(b"ab", shape=[-1, -1]), "header", "shape")


def test_arrays_that_were_not_announced():
    topic, head, body, _ = frames_of(EXAMPLES["haadf_tile"])
    rejected(checked(topic, head, body, body), "payload", "announced")
    rejected(checked(topic, head), "payload", "announced")


@pytest.mark.parametrize("name", sorted(n for n in EXAMPLES if not EXAMPLES[n][1]))
def test_a_message_without_arrays_has_none(name: str):
    frames = encode(sent(EXAMPLES[name]), (np.zeros(3, "u1"),), stream=EXAMPLES[name][2])
    rejected(frames, "payload", "no arrays")


def test_the_header_says_h_and_w_and_so_must_the_counts():
    decode(events(np.eye(2, dtype="u1"), np.zeros(2, "u2")))
    counts = np.eye(2, dtype="u1")
    rejected(events(counts, np.zeros(2, "u2"), h=1), "payload")
    rejected(events(counts, np.zeros(2, "u2"), w=4), "payload")
    rejected(events(counts, np.zeros(2, "u2"), h=1, w=4), "payload")
    rejected(dense(np.zeros((2, 2, 4), "u1"), h=1), "payload")
    rejected(dense(np.zeros((2, 2, 4), "u1"), h=4, w=1), "payload")


@pytest.mark.parametrize("photons", [0, 1, 3, 1000])
def test_as_many_channels_as_counts(photons: int):
    rejected(events(np.eye(2, dtype="u1"), np.zeros(photons, "u2")), "payload", "channels")


@pytest.mark.parametrize(
    ("counts", "channels"),
    [("<i2", "<u2"), ("<u2", "<i2"), ("<f4", "<u2"), ("<u2", "<f8")],
)
def test_events_are_unsigned(counts: str, channels: str):
    rejected(events(np.eye(2).astype(counts), np.zeros(2, channels)), "payload", "unsigned")


def test_channels_have_one_axis():
    rejected(events(np.eye(2, dtype="u1"), np.zeros((1, 2), "u2")), "payload")


def test_dense_spectra_are_whole_numbers():
    rejected(dense(np.zeros((1, 1, 4), "<f4")), "payload", "integers")
    rejected(dense(np.zeros((1, 1), "<u2")), "payload", "integers")
    decode(dense(np.zeros((1, 1, 4), "<i4")))


def test_a_negative_count_is_named_by_its_place():
    values = np.zeros((2, 3, 4), "<i4")
    values[1, 2, 3] = -1
    rejected(dense(values), "value", "frame 3, y 11, x 22")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_haadf_that_is_not_finite_is_named_by_its_place(value: float, dtype: str):
    values = np.zeros((2, 3), dtype)
    values[1, 2] = value
    rejected(haadf(values), "value", "frame 3, y 11, x 22")


@pytest.mark.parametrize("dtype", ["<i8", "<u8", "<f4", "<f8"])
def test_haadf_that_no_detector_gives_is_named_by_its_place(dtype: str):
    values = np.full((2, 3), MOST_HAADF, dtype)
    decode(haadf(values))
    values[1, 2] *= 2
    rejected(haadf(values), "value", "frame 3, y 11, x 22")


def result(*arrays: np.ndarray, classes: tuple[str, ...] = ("a", "b")) -> list[bytes]:
    header = m.Segmentation(
        session="s", scan_id="a", method="ward", modality="haadf", classes=classes, chip_nm=1.0, origin_nm=(0.0, 0.0)
    )
    return encode(header, arrays, stream="res")


def test_label_maps():
    labels, scores = np.zeros((2, 3), "<i2"), np.zeros((2, 2, 3), "<f4")
    decode(result(labels))
    decode(result(labels, scores))
    rejected(result(), "payload")
    rejected(result(labels, scores, scores), "payload")
    rejected(result(labels.astype("<i4")), "payload", "int16")
    rejected(result(labels[0]), "payload", "int16")
    rejected(result(labels, scores.astype("<f8")), "payload", "float32")
    rejected(result(labels, scores[:1]), "payload", "float32")
    rejected(result(labels, scores, classes=("a",)), "payload", "float32")
    scores[1, 1, 1] = np.nan
    rejected(result(labels, scores), "value")


def test_a_live_message_without_a_method_has_no_map():
    live = m.Live(
        session="s", scan_id="a", revision=1, watermark=m.Watermark(epoch=1, seq=1), coverage=m.Coverage(), frame=0,
        frames=None, counts=None, chips_done=0, chips=1,
    )  # fmt: skip
    decode(encode(live, stream="res"))
    rejected(encode(live, (np.zeros((1, 1), "<i2"),), stream="res"), "payload")


def test_nested_messages_are_one_array_of_bytes():
    resent = m.Resent(request_id="r", seq=1, more=False)
    rejected(encode(resent), "payload")
    rejected(encode(resent, (np.zeros(3, "<i2"),)), "payload", "uint8")
    rejected(encode(resent, (np.zeros((1, 3), "u1"),)), "payload", "uint8")
    rejected(encode(m.SnapshotPage(request_id="r", watermark=1, cursor=1), (np.zeros(1, "u1"),) * 2), "payload")
    rejected(encode(m.SnapshotPage(request_id="r", watermark=1), (np.zeros(1, "u1"), np.zeros(1, "<i2"))), "payload")
    decode(encode(m.SnapshotPage(request_id="r", watermark=1), (np.zeros(1, "u1"),) * 4))  # one for each open scan
    decode(encode(m.SnapshotPage(request_id="r", watermark=1)))


@pytest.mark.parametrize(
    "blob", [b"", b"\xc0", b"\x91\xa1a", b"\x91\x01", b"\x92\xc4\x01a", struct.pack(">BI", 0xDD, 2**31)]
)
def test_bytes_that_are_no_nested_message(blob: bytes):
    with pytest.raises(WireError) as caught:
        unnest(np.frombuffer(blob, np.uint8))
    assert caught.value.reason == "payload"
