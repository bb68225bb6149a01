"""Names cannot leave the store: a crafted one is refused at every door, before anything is made."""

from __future__ import annotations

import contextlib
import copy
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
from typer.testing import CliRunner
from wire_examples import examples, sent

from crafted import CRAFTED
from hostile_making import framed
from livestem.cli.__main__ import app
from livestem.client import Acquisition, Subscriber
from livestem.domain.errors import LivestemError, UsageError, WireError
from livestem.domain.names import check_name
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.domain.support import SupportClass
from livestem.runtime.settings import load_support
from livestem.runtime.store import Store
from livestem.wire import messages as m
from livestem.wire.codec import decode

crafted = pytest.mark.parametrize("name", CRAFTED.values(), ids=CRAFTED)
NAMES = {"session", "scan_id", "of"}  # fields that name something which is a folder, wherever they are
MAY_BE_EMPTY = {"session"}  # of talk that is about none


@crafted
def test_it_is_no_name(name: str):
    with pytest.raises(ValueError, match="name"):
        check_name(name, "any")


@pytest.mark.parametrize("name", ["a", "A-1_b", "x" * 64, "NULL", "com", "COM10", "-", "_"])
def test_a_plain_one_is(name: str):
    assert check_name(name, "any") == name


# --- the wire -----------------------------------------------------------------------------------------------


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every field that names a folder."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, child in items:
        if key in NAMES and isinstance(child, str):
            yield (*path, key)
        yield from places(child, (*path, key))


def headers() -> dict[str, tuple[dict[str, Any], str]]:
    """Return a header of every type as plain values, and its stream."""
    return {tag: (msgspec.to_builtins(sent(e)), e[2]) for tag, e in examples().items()}


DOORS = [
    pytest.param(tag, path, id=f"{tag}: {'.'.join(map(str, path))}")
    for tag, (header, _) in headers().items()
    for path in places(header)
]


def test_every_message_that_names_a_scan_is_here():
    reached = {door.values[0] for door in DOORS}
    assert {m.tag_of(t) for t in (*m.ACQUISITION, *m.RESULTS, *m.TALK)} <= {h["type"] for h, _ in headers().values()}
    assert len(DOORS) > len(reached) >= len(headers()) - 2


@pytest.mark.parametrize(("tag", "path"), DOORS)
def test_the_wire_refuses_it(tag: str, path: tuple[Any, ...]):
    """By the header, and before the arrays are looked at."""
    header, stream = headers()[tag]
    for name in CRAFTED.values():
        if (not name and path[-1] in MAY_BE_EMPTY) or name == "\ud800":  # which no MessagePack can hold
            continue
        changed = copy.deepcopy(header) | {"payload": []}
        inner: Any = changed
        for step in path[:-1]:
            inner[step] = list(inner[step]) if isinstance(inner[step], tuple) else inner[step]
            inner = inner[step]
        inner[path[-1]] = name
        topic = f"{stream}.{changed['session']}.{changed['type']}".encode() if stream else b""
        with pytest.raises(WireError) as caught:
            decode(framed(topic, msgspec.msgpack.encode(changed)))
        assert caught.value.reason == "header", (name, caught.value)
        assert "name" in caught.value.detail or f".{path[-1]}`" in caught.value.detail, (name, caught.value)


def test_a_name_that_is_no_unicode_is_refused():
    header = msgspec.msgpack.encode({"type": "attach", "v": 1, "request_id": "1", "session": "ab"})
    with pytest.raises(WireError, match="header"):
        decode(framed(b"", header.replace(b"\xa2ab", b"\xa2\xed\xa0")))


# --- files --------------------------------------------------------------------------------------------------


@crafted
def test_the_store_refuses_it(tmp_path: Path, name: str):
    with Store(tmp_path / "store") as store:
        before = sorted(tmp_path.rglob("*"))
        for session, scan_id in ((name, "a"), ("a", name)):
            with pytest.raises(ValueError, match="name"):
                store.folder(session, scan_id)
            with pytest.raises(ValueError, match="name"):
                store.begin(session, scan_id, b"", b"")
        assert sorted(tmp_path.rglob("*")) == before


@crafted
def test_a_support_set_refuses_it(tmp_path: Path, name: str):
    for fields in ({"name": name}, {"name": "a", "scan": f"{name}/a"}, {"name": "a", "scan": f"a/{name}"}):
        with pytest.raises(ValueError, match="name"):
            SupportClass(chips=((0, 0),), **fields)
    if name != "\ud800":
        path = tmp_path / "support.toml"
        path.write_text(
            f"[[class]]\nname = 'a'\nchips = [[0, 0]]\nscan = {msgspec.json.encode(name + '/a').decode()}\n"
        )
        with pytest.raises(UsageError, match="name"):
            load_support(path)


@pytest.mark.parametrize("scan", ["a", "a/b/c", "/a/b", "a//b", "../a", "a/..", "a/b/"])
def test_an_earlier_scan_is_a_session_and_a_scan(scan: str):
    with pytest.raises(ValueError, match="session/scan_id"):
        SupportClass(name="a", chips=((0, 0),), scan=scan)


# --- the library and the commands ---------------------------------------------------------------------------


@crafted
def test_the_library_refuses_it(tmp_path: Path, name: str):
    where = f"ipc://{tmp_path}/a"
    if name:  # an empty one is a fresh one
        with pytest.raises(UsageError, match="name"):
            Acquisition(name, where)
    with pytest.raises(UsageError, match="name"):
        Subscriber(where, session=name)
    with pytest.raises(ValueError, match="name"):
        ScanRequest(region_px=(0, 0, 1, 1), of=name)
    with pytest.raises(ValueError, match="name"):
        ScanGrant(scan_id=name, duration_s=1.0)


def naming() -> list[Any]:
    """Return every command that is given a name, with the option that takes it."""
    found, todo = [], [([], typer.main.get_command(app))]
    while todo:
        words, command = todo.pop()
        todo += [([*words, name], child) for name, child in getattr(command, "commands", {}).items()]
        for option in ("--session", "--of"):
            if any(option in parameter.opts for parameter in command.params):
                found.append(pytest.param(words, option, id=f"{' '.join(words)} {option}"))
    return found


ENOUGH = {"watch": ["."], "request": ["--region-px", "0,0,1,1"]}  # what a command needs to come so far


@pytest.mark.parametrize(("words", "option"), naming())
def test_a_command_refuses_it(words: list[str], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in CRAFTED.values():
        if "\0" in name or name == "\ud800":  # no operating system hands such a word over
            continue
        done = CliRunner().invoke(app, [*words, *ENOUGH.get(words[-1], []), f"{option}={name}"])
        assert isinstance(done.exception, LivestemError), (name, done.exception, done.output)
        assert "name" in str(done.exception) and "\n" not in str(done.exception).rstrip("\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["list"], ["backup", "--all", "copy"], ["prune", "--older-than", "0h", "--yes"]])
def test_a_store_whose_catalogue_leads_outside_is_left_alone(command: list[str], tmp_path: Path):
    """A store that somebody sent: its rows are names too."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "result.json").write_text("mine")
    store = tmp_path / "store"
    with Store(store) as opened:
        opened.begin("a", "b", b"", b"")
    with contextlib.closing(sqlite3.connect(store / "catalog.sqlite")) as db, db:
        db.execute("UPDATE scans SET session = '..', scan_id = 'outside', status = 'complete'")
    done = CliRunner().invoke(app, ["store", *(w.replace("copy", str(tmp_path / "copy")) for w in command),
                                    "--store", str(store)])  # fmt: skip
    assert isinstance(done.exception, LivestemError) and "tampered" in str(done.exception)
    assert (tmp_path / "outside" / "result.json").read_text() == "mine" and not (tmp_path / "copy").exists()


@crafted
def test_a_store_is_not_asked_for_it(name: str, tmp_path: Path):
    if "\0" in name or name == "\ud800":
        return
    with Store(tmp_path / "store") as store:
        store.begin("there", "is", b"", b"")
    words = ["store", "backup", "--store", str(tmp_path / "store"), "--", name, str(tmp_path / "copy")]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, LivestemError) and not (tmp_path / "copy").exists()


def test_the_commands_that_take_names_are_known():
    found = {" ".join([*p.values[0], p.values[1]]) for p in naming()}
    assert found >= {"replay --session", "simulate --session", "watch --session", "listen --session", "request --of"}
