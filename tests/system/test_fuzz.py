"""The decoder under coverage-guided fuzzing, for some seconds; `make fuzz` does it for longer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris, of the extra [fuzz], has wheels for Linux on x86_64 only")

pytestmark = pytest.mark.system

DECODER = Path(__file__).parents[1] / "fuzz" / "decoder.py"
SECONDS = 10  # two hundred thousand inputs
LEAST = 2000  # on a machine that is a hundred times as busy
# By chance alone one of 16 million inputs finds it; who is told of every step that is new needs some thousands.
BROKEN = """
import atheris, decoder
@atheris.instrument_func
def target(data):
    if len(data) > 2 and data[0] == 0x4C:
        if data[1] == 0x53:
            assert data[2] != 0x21, "as if the decoder had a bug"
asked = decoder.arguments()
decoder.seeds(asked.found)
asked.inputs = [str(asked.found)]
decoder.fuzz(asked, target)
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, cwd=DECODER.parent)


def test_nothing_is_found_in_some_seconds(tmp_path: Path):
    done = run(DECODER, "--seconds", SECONDS, "--found", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    (runs,) = re.findall(r"^Done (\d+) runs", done.stderr, flags=re.M)
    assert int(runs) >= LEAST and list(tmp_path.iterdir()) == []
    covered = {what: int(n) for what, n in re.findall(r"^#\d+\s+(INITED|DONE)\s+cov: (\d+)", done.stderr, flags=re.M)}
    assert covered["DONE"] > covered["INITED"] > 100, "it is guided, and comes further than what it begins with"


def test_what_is_found_is_printed_kept_and_can_be_tried_again(tmp_path: Path):
    found = run("-c", BROKEN, "--seconds", 20, "--found", tmp_path)
    assert found.returncode != 0 and "as if the decoder had a bug" in found.stdout  # where atheris writes it
    (kept,) = tmp_path.glob("crash-*")
    assert f"failing input: {kept.read_bytes().hex()}" in found.stderr
    again = run(DECODER, kept)
    assert again.returncode == 0, "the decoder itself has no such bug"
