"""Log lines: one a fact, in words or in JSON, whatever others have put into them."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from livestem.cli import logs
from livestem.cli.serve import Teller
from livestem.domain.names import one_line
from livestem.domain.notices import notice

NASTY = 'scan\n2026-01-01T00:00:00.000Z ERROR root: forged\r\x1b[2J\x07\u2028\u202e"}{"level": "x" µ'


def record(message: str, *values: object, error: bool = False, **more: object) -> logging.LogRecord:
    made = logging.LogRecord(
        "livestem.x", logging.WARNING, "x.py", 1, message, values, sys.exc_info() if error else None
    )
    made.created = 1_800_000_000.5
    made.__dict__.update(more)
    return made


def test_a_line_in_words_is_one_line_that_does_not_talk_to_the_terminal():
    line = logs.TextFormatter().format(record("refused: %s", NASTY))
    assert line.startswith("2027-01-15T08:00:00.500Z WARNING livestem.x: refused: scan\\n2026-")
    assert line.isprintable() and "µ" in line


def test_a_line_of_json_is_one_object_with_its_fields():
    line = logs.JsonFormatter().format(
        record("refused: %s", NASTY, **notice("scan_refused", scan_id="a", reason=NASTY, seconds=1.5))
    )
    assert line.isascii() and line.isprintable()
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.500Z", "level": "warning", "event": "scan_refused", "text": f"refused: {NASTY}",
        "logger": "livestem.x", "scan_id": "a", "reason": NASTY, "seconds": 1.5,
    }  # fmt: skip
    assert list(json.loads(line))[:4] == ["time", "level", "event", "text"]


def test_a_field_cannot_pass_for_what_is_not_its_to_say():
    line = json.loads(
        logs.JsonFormatter().format(record("x", event="degraded", fields={"level": "info", "time": "now"}))
    )
    assert (line["level"], line["time"]) == ("warning", "2027-01-15T08:00:00.500Z")


def test_a_fault_brings_its_traceback():
    try:
        raise KeyError("inside")
    except KeyError:
        made = record("died", error=True)
    line, *trace = logs.TextFormatter().format(made).splitlines()
    assert line.endswith("died") and trace[-1] == "KeyError: 'inside'"
    whole = json.loads(logs.JsonFormatter().format(made))
    assert whole["trace"].endswith("KeyError: 'inside'") and whole["event"] == "log"


@pytest.mark.parametrize("text", ["", "plain words, µm and ²", "a b"])
def test_what_prints_stays(text):
    assert one_line(text) == text


def test_the_teller_is_no_way_to_the_terminal_either():
    teller, out = Teller(), io.StringIO()
    teller._console.file = out
    teller(NASTY)
    assert out.getvalue().count("\n") == 1 and out.getvalue()[:-1].isprintable()
