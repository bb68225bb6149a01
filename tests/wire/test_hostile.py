"""The decoder against the corpus and against chance: nothing but `WireError`, under its reason, without cost."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given, settings
from wire_examples import examples, frames_of

import hostile
from hostile import BROKEN, Case
from hostile_strategies import broken_bytes, mutated, structured
from livestem.domain.errors import WireError
from livestem.domain.limits import DEFAULT_LIMITS
from livestem.wire import codec
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

MIB = 2**20
EXAMPLES = {name: frames_of(example) for name, example in examples().items()}
REASONS = {"limit", "check", "header", "version", "topic", "payload", "value"}
# Decoding may take so many times the bytes that came: a header of numbers becomes Python's objects, thirty bytes each.
MOST_TIMES = 40
WHOLE = [case for case in (*hostile.WRONG, *hostile.REQUESTS, *hostile.REPLIES, *hostile.ANNOUNCED) if not case.heavy]


def test_names_are_each_given_once():
    names = [case.name for case in hostile.CORPUS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("case", BROKEN, ids=str)
def test_what_is_broken_is_refused_under_its_reason(case: Case):
    with pytest.raises(WireError) as caught:
        decode(case.make("s"))
    assert caught.value.reason == case.reason, caught.value


def test_every_reason_of_the_decoder_has_a_case():
    assert {case.reason for case in BROKEN} == REASONS


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_what_is_whole_is_decoded(case: Case):
    """It is for others to refuse: ingest, publisher, follower; what is decoded can be sent on as it came."""
    message = decode(case.make("s"))
    stream = "" if isinstance(message.header, m.Talk) else "acq"
    again = decode(encode(message.header, message.arrays, stream=stream))
    assert again.header == message.header


@pytest.mark.parametrize("case", [c for c in BROKEN if not c.heavy], ids=str)
def test_what_is_broken_costs_no_more_than_its_own_bytes(case: Case):
    frames = case.make("s")
    allowed = MOST_TIMES * sum(map(len, frames)) + MIB
    assert _peak(frames) < allowed


@pytest.mark.parametrize("case", [c for c in BROKEN if "bomb" in c.name or c.reason == "limit"], ids=str)
def test_a_bomb_is_refused_before_it_goes_off(case: Case, monkeypatch: pytest.MonkeyPatch):
    whole = codec.zstandard.ZstdDecompressor

    def watched() -> object:
        decompressor = whole()

        class Watched:
            def decompress(self, body: bytes, *, max_output_size: int, **more: object) -> bytes:
                assert max_output_size <= DEFAULT_LIMITS.message_bytes and case.reason != "limit"
                return decompressor.decompress(body, max_output_size=max_output_size, **more)

        return Watched()

    monkeypatch.setattr(codec.zstandard, "ZstdDecompressor", watched)
    with pytest.raises(WireError):
        decode(case.make("s"))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_truncated_message_is_never_applied(name: str):
    frames = EXAMPLES[name]
    for cut in hostile.truncations(frames):
        with pytest.raises(WireError) as caught:
            decode(cut)
        assert caught.value.reason in {"check", "header"}


def test_no_flipped_bit_is_ever_applied():
    flips = 0
    for spoilt in hostile.flips(EXAMPLES["eds_tile"]):
        with pytest.raises(WireError, match="check"):
            decode(spoilt)
        flips += 1
    assert flips > 1500


@pytest.mark.parametrize("name", ["scan_start", "haadf_tile", "eds_tile", "resend", "live"])
def test_a_flipped_bit_of_a_header_with_a_right_check_is_another_message_or_none(name: str):
    """A hostile sender computes the check of whatever it sends: what then decodes obeys every rule."""
    decoded = 0
    for spoilt in hostile.flips(EXAMPLES[name], only=1):
        decoded += _only_wire_errors(hostile.framed(*spoilt[:-1]))
    assert decoded < 8 * len(EXAMPLES[name][1])


@settings(max_examples=400, deadline=None)
@given(broken_bytes())
def test_random_frames_are_refused(frames: list[bytes]):
    with pytest.raises(WireError):
        decode(frames)


@settings(max_examples=1000, deadline=None)
@given(mutated())
def test_a_changed_message_with_a_right_check_raises_nothing_else(frames: list[bytes]):
    _only_wire_errors(frames)


@settings(max_examples=500, deadline=None)
@given(structured())
def test_a_message_with_one_field_replaced_raises_nothing_else(frames: list[bytes]):
    _only_wire_errors(frames)


@settings(max_examples=100, deadline=None)
@given(structured())
def test_a_message_with_one_field_replaced_costs_no_more_than_its_bytes(frames: list[bytes]):
    assert _peak(frames) < MOST_TIMES * sum(map(len, frames)) + MIB


def _only_wire_errors(frames: list[bytes]) -> bool:
    """Decode; return whether it could be. What can be decoded can be encoded."""
    try:
        message = decode(frames)
    except WireError as e:
        assert e.reason in REASONS
        return False
    stream = frames[0].split(b".")[0].decode()
    encode(message.header, message.arrays, stream=stream)
    return True


def _peak(frames: list[bytes]) -> int:
    """Return what decoding takes at most, bytes."""
    tracemalloc.start()
    try:
        with contextlib.suppress(WireError):
            decode(frames)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
