"""The wire does not change by accident: golden messages, the committed schema, other people's MessagePack."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import make_golden
import msgpack
import numpy as np
import pytest
import zstandard
from wire_examples import EPOCH, SENT_NS, examples, frames_of, sent

from livestem.wire import messages as m
from livestem.wire import schema
from livestem.wire.codec import decode

EXAMPLES = examples()
KEPT = make_golden.load(m.VERSION)
EVERY_TYPE = {m.tag_of(t) for t in (*m.ACQUISITION, *m.RESULTS, *m.TALK)}


# --- golden messages ----------------------------------------------------------------------------------------


def test_there_is_a_golden_message_of_every_type():
    assert {name.split()[0] for name in KEPT} == EVERY_TYPE, "run python tests/wire/make_golden.py"
    assert set(KEPT) == set(EXAMPLES)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_golden_message_says_what_it_always_said(name: str):
    message = decode(KEPT[name])
    header, arrays = message.header, message.arrays
    described = tuple(m.Payload(dtype=a.dtype.str, shape=a.shape, codec=EXAMPLES[name][3]) for a in EXAMPLES[name][1])
    expected = sent(EXAMPLES[name])
    assert header == type(expected)(**{f: getattr(expected, f) for f in expected.__struct_fields__ if f != "payload"},
                                    payload=described)  # fmt: skip
    assert len(arrays) == len(EXAMPLES[name][1])
    for found, wanted in zip(arrays, EXAMPLES[name][1], strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", sorted(n for n in EXAMPLES if "zstd" not in n))
def test_todays_encoder_says_what_the_golden_bytes_say(name: str):
    assert make_golden.said(frames_of(EXAMPLES[name])) == make_golden.said(KEPT[name]), "a change needs a new VERSION"


@pytest.mark.parametrize("version", sorted(schema.history()))
def test_every_version_that_was_ever_spoken_can_be_read(version: str):
    kept = make_golden.load(int(version))
    assert kept, f"no golden messages of version {version}"
    for frames in kept.values():
        assert decode(frames).header.v == int(version)


def test_the_script_never_rewrites_a_golden_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(make_golden, "GOLDEN", tmp_path)
    assert make_golden.main() == 0
    assert make_golden.load(m.VERSION) == {n: frames_of(e) for n, e in EXAMPLES.items()}
    path = make_golden.folder(m.VERSION)
    written = json.loads(path.read_text())
    written["probe"][1] = written["hello"][1]
    path.write_text(json.dumps(written))
    assert make_golden.main() == 1
    assert "probe" in capsys.readouterr().err
    assert json.loads(path.read_text()) == written


# --- schema -------------------------------------------------------------------------------------------------


def test_the_committed_schema_is_what_the_code_generates():
    assert schema.SCHEMA.read_text(encoding="utf-8") == schema.text(), "run python -m livestem.wire.schema"


def test_the_messages_are_those_of_their_version():
    assert schema.changed_without_a_new_version() is None
    assert str(m.VERSION) in schema.history(), "run python -m livestem.wire.schema"


def test_the_history_has_every_version_once_and_in_order():
    assert list(schema.history()) == [str(v) for v in range(1, m.VERSION + 1)]


def test_a_change_of_the_messages_needs_a_new_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(schema, "SCHEMA", tmp_path / "schema.json")
    monkeypatch.setattr(schema, "HISTORY", tmp_path / "history.json")
    assert schema.main() == 0
    before = schema.HISTORY.read_text()
    changed = m.schema()
    changed["$defs"]["Ack"]["properties"]["seq"]["maximum"] = 5  # type: ignore[index]
    monkeypatch.setattr(schema, "schema", lambda: changed)
    assert schema.main() == 1
    assert "raise VERSION" in capsys.readouterr().err
    assert schema.HISTORY.read_text() == before


def test_a_better_docstring_needs_no_new_version(monkeypatch: pytest.MonkeyPatch):
    changed = m.schema()
    changed["$defs"]["Ack"]["description"] = "Better words."  # type: ignore[index]
    monkeypatch.setattr(schema, "schema", lambda: changed)
    assert schema.changed_without_a_new_version() is None
    assert schema.text() != schema.SCHEMA.read_text(encoding="utf-8")


def test_a_new_version_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schema, "SCHEMA", tmp_path / "schema.json")
    monkeypatch.setattr(schema, "HISTORY", tmp_path / "history.json")
    schema.HISTORY.write_text('{"0": "old"}')
    assert schema.main() == 0
    assert schema.history() == {"0": "old", "1": schema.digest()}


def test_the_schema_names_every_type_and_allows_no_unknown_field():
    definitions: dict[str, Any] = m.schema()["$defs"]  # type: ignore[assignment]
    tags = {d["properties"]["type"]["enum"][0] for d in definitions.values() if "type" in d.get("properties", {})}
    assert tags == EVERY_TYPE
    for name, definition in definitions.items():
        if "properties" in definition:
            assert definition["additionalProperties"] is False, name


def test_the_digest_is_the_same_in_every_process():
    code = "import runpy; from livestem.wire import schema; print(schema.digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == schema.history()[str(m.VERSION)], "the digest differs between processes"


# --- other people's MessagePack -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(KEPT))
def test_any_messagepack_library_can_read_it(name: str):
    """Nothing of livestem in here: topic | header | payload* | check, as the design describes them."""
    topic, head, *bodies, check = KEPT[name]
    assert int.from_bytes(check, "little") == zlib.crc32(b"".join([topic, head, *bodies]))
    header = msgpack.unpackb(head)
    assert (header["v"], header["session"], header["epoch"], header["sent_ns"]) == (1, "gold", EPOCH, SENT_NS)
    assert header["type"] == name.split()[0]
    if topic:
        family, session, tag = topic.decode("ascii").split(".")
        assert family in ("acq", "res") and (session, tag) == (header["session"], header["type"])
    arrays = []
    for described, body in zip(header["payload"], bodies, strict=True):
        if described["codec"] == "zstd":
            body = zstandard.ZstdDecompressor().decompress(body)
        arrays.append(np.frombuffer(body, described["dtype"]).reshape(described["shape"]))
    for found, wanted in zip(arrays, EXAMPLES[name][1], strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_plain_messagepack_reads_the_fields():
    header = msgpack.unpackb(KEPT["scan_start"][1])
    assert header["seq"] == 7 and header["scan_id"] == "scan-1"
    assert header["plan"]["haadf"]["sampling"]["shape"] == [4, 6]
    assert header["plan"]["vendor"] == {"mode": "STEM", "spot": 6, "gain": 0.5, "blanked": False, "note": None}
    nested = msgpack.unpackb(KEPT["resent"][2])
    assert nested == KEPT["haadf_tile"]
