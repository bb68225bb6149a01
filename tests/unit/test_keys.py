"""Keys on disk: made once, never overwritten, secrets for their owner alone, lists read by role; and the command."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import typer.main
import zmq.auth
from typer.testing import CliRunner

from crafted import CRAFTED
from livestem.cli.__main__ import app
from livestem.client.endpoints import Endpoint
from livestem.client.keys import Holder, load_keys, new_pair, public_key, read_allowed
from livestem.domain.errors import UsageError
from livestem.runtime.settings import Settings, load_settings


def refusal(call: object, *arguments: object) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pair_is_what_zeromq_writes_and_reads(tmp_path: Path):
    made = new_pair(tmp_path / "keys", "service")
    public, secret = zmq.auth.load_certificate(tmp_path / "keys" / "service.key_secret")
    assert (made.public.encode(), made.secret.encode()) == (public, secret)
    assert zmq.auth.load_certificate(tmp_path / "keys" / "service.key") == (public, None)
    assert zmq.curve_public(secret) == public
    assert load_keys(tmp_path / "keys") == load_keys(tmp_path / "keys" / "service.key_secret") == made
    assert made.secret not in repr(made)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no file modes")
def test_a_secret_is_its_owners_alone_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        new_pair(tmp_path / "keys", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys" / "a.key_secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == ["a.key", "a.key_secret"], "nothing is left over"


def test_nothing_is_overwritten(tmp_path: Path):
    first = new_pair(tmp_path, "a", "observer")
    assert "never overwritten" in refusal(new_pair, tmp_path, "a")
    (tmp_path / "a.key").unlink()
    assert "never overwritten" in refusal(new_pair, tmp_path, "a"), "the secret half alone"
    (tmp_path / "a.key_secret").unlink()
    assert "never overwritten" in refusal(new_pair, tmp_path, "a", "observer"), "the list's copy alone"
    assert list(read_allowed(tmp_path)[0]) == [first.public]


@pytest.mark.parametrize("name", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_name_makes_nothing(tmp_path: Path, name: str):
    assert "key name" in refusal(new_pair, tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists() and list(tmp_path.iterdir()) == []


def test_which_pair_is_ours(tmp_path: Path):
    assert "livestem keys new" in refusal(load_keys, tmp_path)
    new_pair(tmp_path, "a")
    assert load_keys(tmp_path).name == "a"
    new_pair(tmp_path, "b")
    assert "b.key_secret" in refusal(load_keys, tmp_path)
    assert load_keys(tmp_path / "b.key_secret").name == "b"
    assert "NAME.key_secret" in refusal(load_keys, tmp_path / "b.key")
    assert "cannot be read" in refusal(load_keys, tmp_path / "none.key_secret")


@pytest.mark.parametrize("text", ["", 'public-key = "short"', 'curve\n secret-key = "x"', "\xff\xfe"])
def test_a_file_that_is_no_key(tmp_path: Path, text: str):
    for name in ("a.key", "a.key_secret"):
        (tmp_path / name).write_text(text, encoding="latin-1")
    assert "a.key_secret" in refusal(load_keys, tmp_path)
    assert "a.key" in refusal(public_key, str(tmp_path / "a.key"))


def test_a_public_key_is_given_as_such_or_by_its_file(tmp_path: Path):
    made = new_pair(tmp_path, "a")
    assert public_key(made.public) == public_key(str(tmp_path / "a.key")) == made.public
    for wrong in ("", "x", made.public[:-1], made.public + "x", made.public[:-1] + "'"):
        assert "40 characters" in refusal(public_key, wrong)
    assert "cannot be read" in refusal(public_key, str(tmp_path / "none.key"))


def test_the_lists_are_read_by_role(tmp_path: Path):
    a, b = (new_pair(tmp_path / n, n) for n in "ab")
    for role, names in {"service": "a", "operator": "ab", "observer": "b"}.items():
        (tmp_path / "allowed" / role).mkdir(parents=True)
        for name in names:
            content = (tmp_path / name / f"{name}.key").read_bytes()
            (tmp_path / "allowed" / role / f"{name}.key").write_bytes(content)
    (tmp_path / "allowed" / "observer" / "again.key").write_bytes((tmp_path / "b" / "b.key").read_bytes())
    (tmp_path / "allowed" / "observer" / "broken.key").write_text("nothing")
    (tmp_path / "allowed" / "observer" / "a..b.key").write_bytes((tmp_path / "a" / "a.key").read_bytes())
    (tmp_path / "allowed" / "observer" / "notes.txt").write_text("no key")
    (tmp_path / "allowed" / "everybody").mkdir()
    (tmp_path / "allowed" / "everybody" / "c.key").write_bytes(b"")
    found, wrong = read_allowed(tmp_path)
    assert found == {
        a.public: Holder(("a",), frozenset(["service", "operator"])),
        b.public: Holder(("b", "again"), frozenset(["operator", "observer"])),
    }
    assert len(wrong) == 2 and "a..b.key" in wrong[0] and "broken.key" in wrong[1]
    assert read_allowed(tmp_path / "nowhere") == ({}, [])


# --- settings -----------------------------------------------------------------------------------------------


def test_the_keys_are_configured_or_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LIVESTEM_KEYS", raising=False)
    assert Settings().own_keys() is None
    one, other = new_pair(tmp_path / "one", "one"), new_pair(tmp_path / "other", "other")
    monkeypatch.setenv("LIVESTEM_KEYS", str(tmp_path / "one"))
    assert Settings().own_keys() == one
    assert Settings(keys=str(tmp_path / "other")).own_keys() == other
    assert Settings(keys="").own_keys() is None


def test_the_file_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`serve` takes its flag from the command line alone: the environment has the last word in `Settings`."""
    (option,) = [p for p in typer.main.get_command(app).commands["serve"].params if p.name == "keys"]  # type: ignore[attr-defined]
    assert option.envvar is None
    path = tmp_path / "c.toml"
    path.write_text("keys = 'nowhere'\n")
    monkeypatch.setenv("LIVESTEM_KEYS", str(tmp_path))
    done = CliRunner().invoke(app, ["serve", "--config", str(path)])
    assert isinstance(done.exception, UsageError) and "nowhere" in str(done.exception)


def test_a_configuration_with_keys(tmp_path: Path):
    path = tmp_path / "c.toml"
    key = new_pair(tmp_path, "a").public
    path.write_text(f"keys = 'here'\n[[acquisition]]\nendpoint = 'tcp://scope:5560'\nserver_key = '{key}'\n")
    settings = load_settings(path)
    assert (settings.keys, settings.acquisition) == ("here", (Endpoint("tcp://scope:5560", server_key=key),))
    path.write_text(f"results = {{ endpoint = 'tcp://0.0.0.0:5570', server_key = '{key}' }}\n")
    assert "bound here" in refusal(load_settings, path)


# --- the command --------------------------------------------------------------------------------------------


def keys(*words: object) -> tuple[int, str, str]:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["keys", *map(str, words)])
    error = "" if done.exception is None or isinstance(done.exception, SystemExit) else str(done.exception)
    return done.exit_code, done.stdout, error


def test_the_command_makes_and_lists_and_never_tells_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIVESTEM_KEYS", str(tmp_path / "keys"))
    code, made, _ = keys("new", "service")
    own = load_keys(tmp_path / "keys")
    assert code == 0 and own.public in made
    assert keys("new", "viewer", "--role", "observer")[0] == 0
    assert keys("new", "desk", "--role", "operator")[0] == 0
    (tmp_path / "keys" / "desk.key_secret").unlink()  # it has gone to its own machine
    (tmp_path / "keys" / "allowed" / "observer" / "desk.key").write_bytes((tmp_path / "keys" / "desk.key").read_bytes())
    code, text, _ = keys("list", "--json")
    rows = {row["name"]: row for row in json.loads(text)}
    assert code == 0 and {n: (r["own"], r["roles"]) for n, r in rows.items()} == {
        "service": (True, []), "viewer": (True, ["observer"]), "desk": (False, ["operator", "observer"])
    }  # fmt: skip
    assert rows["service"]["public_key"] == own.public
    code, table, _ = keys("list", "--keys", tmp_path / "keys" / "service.key_secret")
    assert code == 0 and own.public in table and "operator, observer" in table
    secrets = [load_keys(p).secret for p in (tmp_path / "keys").glob("*.key_secret")]
    assert not any(secret in told for secret in secrets for told in (made, text, table))


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_a_listed_key_is_never_cut(columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """People compare them."""
    monkeypatch.setenv("COLUMNS", columns)
    name = "x" * 60
    runner = CliRunner()
    assert runner.invoke(app, ["keys", "new", name, "--keys", str(tmp_path)]).exit_code == 0
    listed = runner.invoke(app, ["keys", "list", "--keys", str(tmp_path)]).stdout
    (row,) = json.loads(runner.invoke(app, ["keys", "list", "--json", "--keys", str(tmp_path)]).stdout)
    assert len(row["public_key"]) == 40 and row["public_key"] in listed and name in listed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["new", "a"], "--keys FOLDER"),
        (["list"], "--keys FOLDER"),
        (["list", "--keys", "nowhere"], "no folder nowhere"),
        (["new", "a", "--role", "king"], "service, operator or observer"),
        (["new", "../a", "--keys", "here"], "key name"),
    ],
)
def test_the_command_says_what_is_wrong(words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LIVESTEM_KEYS", raising=False)
    monkeypatch.chdir(tmp_path)
    code, _, error = keys(*words)
    assert code != 0 and told in error and "\n" not in error
    assert list(tmp_path.iterdir()) == []
