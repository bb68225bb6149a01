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
BROKEN = """
import decoder
def target(data):
    assert b"firmware" not in data, "as if the decoder had a bug"
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


def test_what_is_found_is_printed_kept_and_can_be_tried_again(tmp_path: Path):
    found = run("-c", BROKEN, "--seconds", 20, "--found", tmp_path)
    assert found.returncode != 0 and "as if the decoder had a bug" in found.stdout  # where atheris writes it
    (kept,) = tmp_path.glob("crash-*")
    assert f"failing input: {kept.read_bytes().hex()}" in found.stderr
    again = run(DECODER, kept)
    assert again.returncode == 0, "the decoder itself has no such bug"
