"""The page of security is true: its commands, as they stand, on three machines that are three folders here."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import assert_one_clear_line, end, run, start, wait_for

from ports import free_pairs

pytestmark = pytest.mark.system

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
HOSTS = ("scope", "segmenter", "desk")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the words of every command of the page with the machine it is for."""
    section = PAGE.read_text("utf-8").partition("### Step by step\n")[2].partition("\n### ")[0]
    for block in re.findall(r"^```sh\n(.*?)^```$", section, flags=re.M | re.S):
        host = ""
        for line in filter(None, block.splitlines()):
            if line.startswith("# "):
                host = line.removeprefix("# ")
            else:
                yield host, shlex.split(line)


def prepare(folder: Path, host: str, words: list[str]) -> None:
    """Do what a person does before anything is started."""
    here = folder / host
    here.mkdir(exist_ok=True)
    if words[0] == "mkdir":
        for name in words[2:]:
            (here / name).mkdir(parents=True, exist_ok=True)
    elif words[0] == "scp":
        there, _, source = words[1].partition(":")
        assert not source.endswith("_secret"), "no secret travels"
        shutil.copy(folder / there / source, here / words[2])
    else:
        assert words[:2] == ["livestem", "keys"]
        done = run(*words[1:], cwd=here)
        assert done.returncode == 0, done.stderr


def test_the_commands_of_the_page_open_to_whom_they_should(tmp_path: Path):
    scope, results, http = free_pairs(3)
    adapter, service = f"tcp://127.0.0.1:{scope}", f"tcp://127.0.0.1:{results}"
    places = {"tcp://0.0.0.0:5560": adapter, "tcp://scope:5560": adapter,
              "tcp://0.0.0.0:5570": service, "tcp://segmenter:5570": service}  # fmt: skip
    more = {"serve": ["--http-port", http, "--store", "store"], "simulate": ["--speed", "max"]}
    started: dict[str, subprocess.Popen[str]] = {}
    asked: list[str] = []
    try:
        for host, words in commands():
            if words[0] != "livestem" or words[1] == "keys":
                prepare(tmp_path, host, words)
                continue
            what, here = words[1], tmp_path / host
            words = [places.get(word, word) for word in words[1:]]
            if what == "request":  # the last: it ends by itself
                asked = words
                continue
            with (here / f"{what}.log").open("w") as log:
                flags = [str(flag) for flag in more.get(what, [])]
                started[what] = start(*words, *flags, cwd=here, stdout=log, stderr=subprocess.STDOUT)
        logs = {what: next(tmp_path.glob(f"*/{what}.log")) for what in started}
        assert started["listen"].wait(120) == 0, {what: path.read_text() for what, path in logs.items()}
        assert "done: complete" in logs["listen"].read_text()
        granted = run(*asked, "--json", cwd=tmp_path / "desk")
        assert granted.returncode == 0, granted.stderr
        name = json.loads(granted.stdout)["scan_id"]
        wait_for(lambda: list((tmp_path / "segmenter" / "store").glob(f"*/{name}/result.json")))

        # the same doors, dialled otherwise
        (tmp_path / "stranger").mkdir()
        assert run("keys", "new", "stranger", "--keys", "keys", cwd=tmp_path / "stranger").returncode == 0
        theirs = tmp_path / "desk" / "keys"
        where = ["listen", "--wait", 3, "--results", service]
        known = ["--server-key", theirs / "segmenter.key"]
        assert_one_clear_line(run(*where, cwd=tmp_path), "it wants keys")
        stranger = tmp_path / "stranger" / "keys"
        assert_one_clear_line(run(*where, *known, "--keys", stranger), "is our public key in its list")
        others = tmp_path / "segmenter" / "keys"  # a service may not ask for scans
        refused = run(*asked[:-2], "--keys", others, cwd=tmp_path / "desk")
        assert_one_clear_line(refused, "hello as operator is for operator")
        text = "".join(path.read_text() for path in logs.values())
        secrets = [p.read_text().split('secret-key = "')[1].split('"')[0] for p in tmp_path.rglob("*.key_secret")]
        assert len(secrets) == 4 and not any(secret in text for secret in secrets)
    finally:
        codes = {what: end(process, signal.SIGTERM) for what, process in started.items()}
    assert codes == {"simulate": 0, "serve": 0, "listen": 0}, {w: p.read_text() for w, p in logs.items()}


def test_a_folder_of_keys_says_what_is_wrong_with_it(tmp_path: Path):
    """Of every command that takes keys: one line, before anything is bound."""
    for command in (["serve", "--store", tmp_path / "s"], ["listen"], ["request"], ["simulate", "--frames", 1]):
        done = run(*command, "--keys", tmp_path / "nothing", cwd=tmp_path)
        assert_one_clear_line(done, "nothing")
    assert not (tmp_path / "s").exists()
    done = run("serve", "--results", "tcp://0.0.0.0:5999", "--store", tmp_path / "s", "--http-port", 0, cwd=tmp_path)
    assert_one_clear_line(done, "CURVE", "--keys")
