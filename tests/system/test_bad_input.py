"""A user's mistakes on the command line: one clear line that says what to do, exit code 1 or 2, and no debris."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from processes import CLI, Service, assert_one_clear_line, environment, run

from ports import free_pairs

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def bad(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are no scans, or not quite."""
    folder = tmp_path_factory.mktemp("bad")
    for good in written.iterdir():
        shutil.copy(good, folder)
    whole = (written / "eds.hspy").read_bytes()
    (folder / "truncated.hspy").write_bytes(whole[: len(whole) // 2])
    (folder / "truncated.emd").write_bytes(whole[: len(whole) // 2])
    (folder / "random.emd").write_bytes(os.urandom(50_000))
    (folder / "empty.emd").write_bytes(b"")
    (folder / "README.md").write_text("# no scan\n")
    (folder / "picture.png").write_bytes(_png())
    texts = {
        "outside.toml": '[[class]]\nname = "a"\nchips = [[0, 0]]\n[[class]]\nname = "b"\nchips = [[99, 99]]\n',
        "typo.toml": '[[class]]\nname = "a"\nchip = [[0, 0]]\n[[class]]\nname = "b"\nchips = [[1, 1]]\n',
        "alone.toml": '[[class]]\nname = "a"\nchips = [[0, 0]]\n',
        "both.toml": '[[class]]\nname = "a"\nchips = [[0, 0]]\n[[class]]\nname = "b"\nchips = [[0, 0]]\n',
        "unknown-key.toml": "publish_intervall_s = 1.0\n",
        "unknown-nested.toml": '[processing]\nelement = ["Fe"]\n',
        "bad-value.toml": "publish_interval_s = -1.0\n",
        "no.toml": "publish_interval_s = \n",
        "k.csv": "# convention: weight line\nline,k\nSi_Ka,1.0\n",
        "k-silent.csv": "line,k\nSi_Ka,1.0\n",
        "k-words.csv": "line,k\nSi_Ka,much\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def _png() -> bytes:
    """Return a whole picture, as any program may save it."""
    import matplotlib.image

    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, np.random.default_rng(0).random((16, 16, 3)), format="png")
    return buffer.getvalue()


# What is given to `batch` and `replay` alike, and what the one line must say.
FILES = {
    "text": (["README.md"], ["README.md"]),
    "picture": (["picture.png"], ["picture.png", "no scan"]),
    "random": (["random.emd"], ["random.emd", "copy it again"]),
    "empty": (["empty.emd"], ["empty.emd", "copy it again"]),
    "truncated": (["truncated.hspy"], ["truncated.hspy", "copy it again"]),
    "truncated-emd": (["truncated.emd"], ["truncated.emd", "copy it again"]),
    "missing": (["missing.emd"], ["missing.emd", "does not exist"]),
    "no-energy": (["uncalibrated.hspy"], ["uncalibrated.hspy", "--energy-axis"]),
    "two-fields": (["--haadf", "elsewhere.hspy", "--eds", "eds.hspy"], ["field"]),
    "two-fields-paths": (["elsewhere.hspy", "eds.hspy"], ["field"]),
    "not-finite": (["nan.hspy"], ["not finite", "y 3", "x 5"]),
    "infinite": (["inf.hspy"], ["not finite", "y 3", "x 5"]),
    "negative": (["negative.hspy"], ["negative", "y 4", "x 7"]),
    "nothing": ([], ["--haadf"]),
    "folder": (["."], ["recordings", "name one"]),
    "both-ways": (["eds.hspy", "--haadf", "haadf.hspy"], ["not both"]),
}
EARLY = {  # seen before the file is opened
    "element": (["--elements", "Xx"], ["Xx", "element"]),
    "support-key": (["--support", "typo.toml"], ["typo.toml", "chip"]),
    "support-alone": (["--support", "alone.toml"], ["two classes"]),
    "support-missing": (["--support", "none.toml"], ["none.toml"]),
    "config-key": (["--config", "unknown-key.toml"], ["unknown-key.toml", "publish_intervall_s"]),
    "config-nested": (["--config", "unknown-nested.toml"], ["element"]),
    "config-value": (["--config", "bad-value.toml"], ["publish_interval_s"]),
    "config-toml": (["--config", "no.toml"], ["no.toml", "line 1"]),
    "k-words": (["--k-factors", "k-words.csv"], ["k-words.csv"]),
    "k-silent": (["--k-factors", "k-silent.csv"], ["k-silent.csv", "# convention: weight line"]),
    "thickness": (["--thickness-nm", "-50"], ["thickness_nm", "positive"]),
    "chip-zero": (["--chip-px", "0"], ["chip", "positive"]),
    "chip-twice": (["--chip-px", "4", "--chip-nm", "4"], ["--chip-px", "--chip-nm"]),
    "clusters-zero": (["--clusters", "0"], ["clusters"]),
    "preset": (["--preset", "best"], ["preset"]),
    "pixel": (["--pixel-nm", "-1"], ["--pixel-nm"]),
    "dwell": (["--dwell-us", "0"], ["--dwell-us"]),
    "energy": (["--energy-axis", "0.01"], ["OFFSET:SCALE"]),
}
REFUSED = {  # seen when the scan is planned, by the service too
    "chip-large": (["--chip-px", "100"], ["chip", "32 x 32", "--chip-px 32"]),
    "no-line": (["--elements", "H,Si"], ["H has no", "leave it out"]),
    "line": (["--lines", "Fe_Kq"], ["Fe_Kq", "Ka"]),
    "support-outside": (["--support", "outside.toml"], ["[99, 99]", "8 x 8"]),
    "support-both": (["--support", "both.toml"], ["[0, 0]"]),
    "k-lacks": (["--k-factors", "k.csv", "--elements", "Si,Fe"], ["Fe_Ka"]),
    "density": (["--density", "6"], ["--thickness-nm"]),
    "clusters": (["--clusters", "1000000"], ["clusters", "64"]),
    "weights": (["--preset", "as_published"], ["livestem weights fetch"]),
}


def _assert_no_debris(folder: Path, before: set[str]) -> None:
    left = {path.name for path in folder.iterdir()} - before
    assert not left, f"left behind: {left}"


Told = dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def told(bad: Path) -> Told:
    """What `batch` said to each case; two at once, because starting Python is most of the work."""
    given = {case: arguments for case, (arguments, _) in FILES.items()}
    given |= {case: ["eds.hspy", *arguments] for case, (arguments, _) in (EARLY | REFUSED).items()}

    def batch(case: str) -> subprocess.CompletedProcess[str]:
        return run("batch", *given[case], "--out", f"out-{case}", cwd=bad)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(given, pool.map(batch, given), strict=True))


def _assert_no_result(bad: Path, case: str) -> None:
    assert not [path.name for path in bad.iterdir() if f"out-{case}" in path.name]


@pytest.mark.parametrize("case", FILES)
def test_batch_refuses_what_is_no_scan(told: Told, bad: Path, case: str):
    assert_one_clear_line(told[case], *FILES[case][1])
    _assert_no_result(bad, case)


@pytest.mark.parametrize("case", EARLY)
def test_batch_refuses_options_that_cannot_be_meant(told: Told, bad: Path, case: str):
    assert_one_clear_line(told[case], *EARLY[case][1], codes=(2,))
    _assert_no_result(bad, case)


@pytest.mark.parametrize("case", REFUSED)
def test_batch_says_why_a_scan_cannot_be_done(told: Told, bad: Path, case: str):
    done = told[case]
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("livestem: ")
    for word in REFUSED[case][1]:
        assert word in last
    _assert_no_result(bad, case)


@pytest.mark.parametrize("case", REFUSED)
def test_batch_says_it_in_one_line(told: Told, case: str):
    assert_one_clear_line(told[case])


@pytest.mark.parametrize("case", ["truncated", "negative"])
def test_replay_refuses_what_is_no_scan_before_it_sends(service: Service, bad: Path, case: str):
    given, words = FILES[case]
    done = run("replay", *given, "--speed", "max", "--acquisition", service.acquisition, cwd=bad)
    assert_one_clear_line(done, *words)
    service.assert_well()


@pytest.mark.parametrize("case", ["chip-large", "k-lacks", "weights"])
def test_the_service_refuses_a_scan_and_lives_on(service: Service, bad: Path, case: str):
    given, words = REFUSED[case]
    before = {path.name for path in service.store.iterdir()}
    done = run("replay", "eds.hspy", *given, "--speed", "max", "--acquisition", service.acquisition, cwd=bad)
    assert_one_clear_line(done, "refused", *words)
    _assert_no_debris(service.store, before)
    service.assert_well()


def test_a_good_scan_after_all_that(service: Service, bad: Path):
    flags = ("--speed", "max", "--chip-px", 4, "--elements", "Si,O,Fe")
    folder = service.replay_fully("--haadf", bad / "haadf.hspy", "--eds", bad / "eds.hspy", *flags)
    assert json.loads((folder / "result.json").read_bytes())["status"] == "complete"
    service.assert_well()


# --- the rest of the command line -------------------------------------------------------------------------


@pytest.mark.parametrize("speed", ["0", "abc", "nan"])
def test_a_speed_is_a_positive_number_or_max(bad: Path, speed: str):
    done = run("replay", bad / "eds.hspy", "--speed", speed, "--wait", 1)
    assert_one_clear_line(done, "--speed", "max", codes=(2,))


def test_a_recording_without_dwell_time_has_no_pace(bad: Path):
    assert_one_clear_line(run("replay", bad / "eds.hspy", "--wait", 1), "--dwell-us", "--speed max", codes=(2,))


@pytest.mark.parametrize(
    "arguments",
    [("batch", "eds.hspy"), ("batch", "eds.hspy", "--out", "o", "--chip-px", "abc"), ("batch", "--no-such"),
     ("nosuch",), ("simulate", "--frames", "0"), ("watch",)],
    ids=lambda a: " ".join(a),
)  # fmt: skip
def test_wrong_usage_exits_2_and_names_the_mistake(bad: Path, arguments: tuple[str, ...]):
    done = run(*arguments, cwd=bad)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stdout == "" and done.stderr


def test_wrong_usage_is_told_in_one_line(bad: Path):
    assert_one_clear_line(run("batch", "eds.hspy", "--out", "o", "--chip-px", "abc", cwd=bad), "--chip-px", codes=(2,))


def test_no_segmenter_is_running(bad: Path):
    port = free_pairs(1)[0]
    done = run("replay", bad / "eds.hspy", "--speed", "max", "--wait", 1, "--acquisition", f"tcp://127.0.0.1:{port}")
    assert_one_clear_line(done, "livestem serve", codes=(1,))
    done = run("listen", "--wait", 1, "--results", f"tcp://127.0.0.1:{port}")
    assert_one_clear_line(done, "livestem serve", codes=(1,))


def test_what_is_in_use_is_named(service: Service, bad: Path, tmp_path: Path):
    (free,) = free_pairs(1)
    serve = ("serve", "--results", f"tcp://127.0.0.1:{free}", "--http-port", 0)
    in_use = service.results
    for done, words in (
        (run("replay", bad / "eds.hspy", "--speed", "max", "--acquisition", in_use), [in_use, "in use"]),
        (run("serve", "--store", tmp_path / "a", "--results", in_use, "--http-port", 0), [in_use, "in use"]),
        (run(*serve[:3], "--http-port", service.http, "--store", tmp_path / "b"), ["--http-port", "in use"]),
        (run(*serve, "--store", service.store), ["--store", "in use"]),
    ):
        assert_one_clear_line(done, *words, codes=(1,))
    service.assert_well()


@pytest.mark.parametrize("host", ["0.0.0.0", "*"])
def test_no_socket_leaves_the_machine_without_keys(bad: Path, tmp_path: Path, host: str):
    endpoint = f"tcp://{host}:{free_pairs(1)[0]}"
    done = run("serve", "--results", endpoint, "--http-port", 0, "--store", tmp_path / "store")
    assert_one_clear_line(done, "127.0.0.1", codes=(2,))
    done = run("replay", bad / "eds.hspy", "--speed", "max", "--acquisition", endpoint, "--wait", 1)
    assert_one_clear_line(done, "127.0.0.1", codes=(2,))


@pytest.mark.parametrize("endpoint", ["localhost:5560", "tcp://127.0.0.1:99999"])
def test_an_endpoint_is_tcp_host_port(endpoint: str):
    assert_one_clear_line(run("listen", "--results", endpoint, "--wait", 1), "tcp://HOST:PORT", codes=(2,))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("serve", "--http-port", "99999", "--store", "s"), id="http-port"),
        pytest.param(("batch", "eds.hspy", "--out", "README.md/x"), id="out-below-a-file"),
        pytest.param(("demo", "--frames", "1", "--speed", "max", "--out", "README.md"), id="demo-out-is-a-file"),
        pytest.param(("batch", "eds.hspy", "--out", "README.md"), id="out-is-a-file"),
        pytest.param(("batch", "eds.hspy", "--out", "."), id="out-is-foreign"),
        pytest.param(("serve", "--http-port", "0", "--store", "README.md"), id="store-is-a-file"),
        pytest.param(("watch", "nowhere"), id="watch-nothing"),
        pytest.param(("simulate", "--sample", "moon", "--wait", "1"), id="no-such-sample"),
        pytest.param(("weights", "import", "README.md"), id="no-weights"),
        pytest.param(("replay", "eds.hspy", "--speed", "max", "--session", "a b"), id="session-name"),
        pytest.param(("replay", "eds.hspy", "--speed", "max", "--session", "CON"), id="reserved-name"),
    ],
)  # fmt: skip
def test_places_that_cannot_be_used(bad: Path, arguments: tuple[str, ...]):
    before = {path.name for path in bad.iterdir()}
    readme = (bad / "README.md").read_bytes()
    assert_one_clear_line(run(*arguments, cwd=bad))
    assert (bad / "README.md").read_bytes() == readme
    _assert_no_debris(bad, before)


# --- a folder that holds something else, a result that is there already -------------------------------------


def test_an_earlier_result_is_replaced_and_foreign_files_are_not(bad: Path, tmp_path: Path):
    out, flags = tmp_path / "out", ("--chip-px", 8, "--elements", "Si,O,Fe")
    assert run("batch", bad / "eds.hspy", "--out", out, *flags).returncode == 0
    assert run("batch", bad / "second.hspy", "--out", out, *flags).returncode == 0
    assert json.loads((out / "result.json").read_bytes())["source"] == "second.hspy"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    assert_one_clear_line(run("batch", bad / "eds.hspy", "--out", tmp_path / "thesis"), "--out", codes=(2,))
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    before = (out / "result.json").read_bytes()
    assert run("batch", bad / "nan.hspy", "--out", out).returncode == 1
    assert (out / "result.json").read_bytes() == before  # a failure leaves the earlier result


# --- journals ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def journal(bad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("journal") / "out"
    done = run("batch", bad / "eds.hspy", "--out", out, "--chip-px", 8, "--elements", "Si,O,Fe")
    assert done.returncode == 0, done.stderr
    return out / "journal.sqlite"


def _damaged(journal: Path, path: Path, sql: str) -> Path:
    shutil.copy(journal, path)
    db = sqlite3.connect(path)
    db.executescript(sql)
    db.close()
    return path


_LAST = "(SELECT MAX(n) FROM messages WHERE type = 'eds_tile')"


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        pytest.param("PRAGMA application_id = 7;", "no livestem journal", id="stranger"),
        pytest.param("PRAGMA user_version = 99;", "update", id="newer"),
        pytest.param("DELETE FROM messages WHERE type = 'scan_start';", "scan_start", id="no-start"),
        pytest.param("DROP TABLE messages;", "cannot be read", id="no-table"),
        pytest.param(f"UPDATE messages SET message = zeroblob(length(message)) WHERE n = {_LAST};",
                     "damaged.sqlite", id="zeroed"),
        pytest.param(f"UPDATE messages SET message = substr(message, 1, length(message) - 4) || x'00000000' "
                     f"WHERE n = {_LAST};",
                     "damaged.sqlite", id="flipped"),
    ],
)  # fmt: skip
def test_a_damaged_journal_is_named(journal: Path, tmp_path: Path, sql: str, word: str):
    damaged = _damaged(journal, tmp_path / "damaged.sqlite", sql)
    assert_one_clear_line(run("batch", damaged, "--out", tmp_path / "out"), word, codes=(1,))
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.sqlite"]


def test_half_a_journal_is_named_and_the_service_lives_on(service: Service, journal: Path, tmp_path: Path):
    half = tmp_path / "half.sqlite"
    half.write_bytes(journal.read_bytes()[: journal.stat().st_size // 2])
    assert_one_clear_line(service.replay(half, "--speed", "max"), "half.sqlite", codes=(1,))
    (tmp_path / "text.sqlite").write_text("SQLite no format 3")
    assert_one_clear_line(service.replay(tmp_path / "text.sqlite", "--speed", "max"), "text.sqlite", codes=(1,))
    service.assert_well()


def test_an_unfinished_scans_journal_is_not_called_complete(journal: Path, tmp_path: Path):
    sql = f"DELETE FROM messages WHERE type = 'scan_end' OR n = {_LAST};"
    unfinished = _damaged(journal, tmp_path / "unfinished.sqlite", sql)
    done = run("batch", unfinished, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_bytes())
    assert result["missing_tiles"] and result["coverage"]["eds"] < 1
    assert result["status"] == "incomplete"


# --- a missing extra -----------------------------------------------------------------------------------------

# What the base install does not bring; the service's and the encoder's extras.
SERVICE = "exspy h5py hyperspy igraph matplotlib networkx prometheus_client community rsciio sklearn scipy sparse zarr"
VGG16 = "torch torchvision onnx"
_WITHOUT = """
import sys
hidden = set(sys.argv[1].split())
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
sys.argv = ["livestem", *sys.argv[2:]]
from livestem.cli.__main__ import main
main()
"""


def _without(hidden: str, *arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT, hidden, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**env), capture_output=True, encoding="utf-8", timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["serve", "batch eds.hspy --out out", "replay eds.hspy", "simulate", "demo"])
def test_a_missing_extra_gives_the_pip_line(bad: Path, command: str):
    before = {path.name for path in bad.iterdir()}
    done = _without(f"{SERVICE} {VGG16}", *command.split(), cwd=bad)
    assert_one_clear_line(done, 'pip install "livestem[service]"', codes=(2,))
    _assert_no_debris(bad, before)


def test_the_base_install_can_listen_and_help(bad: Path):
    hidden = f"{SERVICE} {VGG16}"
    port = free_pairs(1)[0]
    done = _without(hidden, "listen", "--wait", 1, "--results", f"tcp://127.0.0.1:{port}", cwd=bad)
    assert_one_clear_line(done, "livestem serve", codes=(1,))
    assert _without(hidden, "--help", cwd=bad).returncode == 0


def test_the_command_is_the_installed_one_too():
    """``python -m livestem.cli`` and ``livestem`` are one program."""
    installed = Path(sys.executable).with_name("livestem")
    if not installed.is_file():
        pytest.skip("livestem's script is not beside this Python")
    for command in ([str(installed)], list(CLI)):
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, env=environment(), timeout=60)
        assert done.returncode == 0 and "replay" in done.stdout
