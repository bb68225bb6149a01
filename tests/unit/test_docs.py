"""The words are true: examples run, commands exist, tables are those of the code."""

from __future__ import annotations

import doctest
import importlib
import io
import json
import queue
import re
import runpy
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgpack
import msgspec
import numpy as np
import pytest
import typer.main
from scans import plan

from livestem.cli.__main__ import app
from livestem.client import Acquisition, Endpoint, EnergyAxis, Subscriber
from livestem.domain.geometry import Sampling
from livestem.domain.limits import Limits
from livestem.domain.parameters import PRESETS, Parameters, Processing
from livestem.domain.regions import LatticePeak, Region
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.domain.scan import Beam, Eds, Haadf, ScanPlan
from livestem.domain.support import SupportClass, SupportSet
from livestem.runtime.segmenter import Segmenter
from livestem.runtime.settings import Http, Settings, load_settings, load_support
from livestem.wire import messages as m
from livestem.wire.codec import encode
from ports import free_pairs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
_FENCE = re.compile(r"^(?P<mark><!-- run -->\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```$", flags=re.M | re.S)
FINALS_S = 60.0  # of a small scan on a busy machine; it takes a second


def blocks(document: Path, *kinds: str) -> list[re.Match[str]]:
    return [b for b in _FENCE.finditer(document.read_text(encoding="utf-8")) if b["kind"] in kinds]


def at(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- a real service on loopback -----------------------------------------------------------------------------


@contextmanager
def serving(store: Path) -> Iterator[Settings]:
    """A segmenter on free ports of this machine, in this process."""
    data, results = free_pairs(2)
    settings = Settings(
        acquisition=(Endpoint(f"tcp://127.0.0.1:{data}"),),
        results=Endpoint(f"tcp://127.0.0.1:{results}"),
        http=Http(port=0),
        store=str(store),
    )
    segmenter = Segmenter(settings, lambda text: None)
    try:
        yield settings
    finally:
        segmenter.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """One for all tests that take it."""
    with serving(tmp_path_factory.mktemp("store")) as settings:
        yield settings


def moved(code: str, service: Settings) -> str:
    """Return code with the default endpoints replaced by the service's."""
    code = code.replace("tcp://127.0.0.1:5560", service.acquisition[0].endpoint)
    return code.replace("tcp://127.0.0.1:5570", service.results.endpoint)


def final(service: Settings, session: str, scan_id: str) -> m.ScanDone:
    """Wait for a scan's last word."""
    with Subscriber(service.results) as results:
        while True:
            message = results.receive(FINALS_S)
            assert message is not None, "no finals"
            header = message.header
            if isinstance(header, m.ScanDone) and (header.session, header.scan_id) == (session, scan_id):
                return header


# --- documents ----------------------------------------------------------------------------------------------


RUNNABLE = [d for d in DOCUMENTS if blocks(d, "python")]


@pytest.mark.parametrize("document", RUNNABLE, ids=at)
def test_the_python_of_a_document_runs_as_written(document: Path, tmp_path: Path):
    """In order: the README's script sends the scan whose finals its subscriber waits for."""
    with serving(tmp_path) as service:
        for block in blocks(document, "python"):
            assert block["mark"], "mark it <!-- run -->, or fence it as plain text"
            run_block(block["code"], document, service)


def run_block(text: str, document: Path, service: Settings) -> None:
    """Run one piece of a document; to one that only listens a scan is sent."""
    code = compile(moved(text, service), at(document), "exec")
    with ExitStack() as running, redirect_stdout(io.StringIO()):
        if "Acquisition" not in text:
            acquisition = running.enter_context(Acquisition(endpoint=service.acquisition[0]))
            acquisition.wait_for_service()
            running.enter_context(acquisition.start_scan(plan()))
        exec(code, {})


def test_the_readmes_scripts_are_as_short_as_it_says():
    script, subscriber = (b["code"].strip().splitlines() for b in blocks(ROOT / "README.md", "python"))
    assert len(script) <= 18
    assert len([line for line in subscriber if line]) <= 10


def test_the_plain_decoder_reads_every_codec_of_results():
    (block,) = blocks(DOCS / "wire.md", "python")
    namespace: dict[str, Any] = {}
    exec(block["code"].partition("sub = ")[0], namespace)
    labels = np.arange(6, dtype=np.int16).reshape(2, 3)
    header = m.Segmentation(
        session="s", scan_id="a", method="ward", modality="lines", classes=(), chip_nm=0.75, origin_nm=(0.0, 0.0)
    )
    frames = encode(header, (labels,), stream="res")
    plain, arrays = namespace["decode"](frames)
    assert plain["type"] == "segmentation" and plain == msgpack.unpackb(frames[1])
    np.testing.assert_array_equal(arrays[0], labels)
    frames[1] = frames[1][:-1] + bytes([frames[1][-1] ^ 1])
    with pytest.raises(ValueError, match="damaged"):
        namespace["decode"](frames)


COMMANDS = typer.main.get_command(app)


def command_lines() -> list[Any]:
    found = []
    for document in DOCUMENTS:
        for block in blocks(document, "sh", "powershell"):
            for line in block["code"].splitlines():
                called = re.search(r"(?:^|[/\\])livestem (.*)", line.partition("#")[0].strip())
                if called:
                    found.append(pytest.param(called[1].split(), id=f"{document.name}: {called[1]}"))
    return found


@pytest.mark.parametrize("words", command_lines())
def test_a_command_in_a_document_exists_with_its_options(words: list[str]):
    command: Any = COMMANDS
    assert isinstance(command, click.Group) or hasattr(command, "commands")
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("livestem", list(words))  # parses; runs nothing


@pytest.mark.parametrize("document", DOCUMENTS, ids=at)
def test_an_option_named_in_a_document_exists(document: Path):
    known = {"--help", "--version"}
    todo: list[Any] = [COMMANDS]
    while todo:
        command = todo.pop()
        todo += list(getattr(command, "commands", {}).values())
        known |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    ours = re.sub(r"`python [^`\n]*`", "", document.read_text(encoding="utf-8"))  # a benchmark's options are its own
    assert set(re.findall(r"`[^`\n]*?(--[a-z][a-z-]+)", ours)) <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=at)
def test_a_toml_block_is_a_support_file(document: Path, tmp_path: Path):
    for block in blocks(document, "toml"):
        assert tomllib.loads(block["code"])
        path = tmp_path / "support.toml"
        path.write_text(block["code"], encoding="utf-8")
        assert len(load_support(path).names) == 2


@pytest.mark.parametrize("document", [ROOT / "README.md", DOCS / "configuration.md"], ids=at)
def test_the_k_factor_file_is_one(document: Path, tmp_path: Path):
    from livestem.runtime.quantification import read_k_factors

    (block,) = [b for b in blocks(document, "") if "_Ka," in b["code"]]
    path = tmp_path / "k.csv"
    path.write_text(block["code"], encoding="utf-8")
    assert len(read_k_factors(path)) == len(block["code"].strip().splitlines()) - 1  # the first states the convention


@pytest.mark.parametrize("module", ["acquisition", "subscriber", "endpoints", "connection", "hub", "replay"])
def test_the_clients_doctests_run(module: str):
    failed, _ = doctest.testmod(importlib.import_module(f"livestem.client.{module}"))
    assert failed == 0


def test_the_index_names_every_page():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = [*DOCS.glob("*.md"), *(DOCS / "decisions").glob("*.md"), *EXAMPLES.glob("*.py")]
    for page in pages:
        if page.name != "index.md":
            target = page.relative_to(DOCS).as_posix() if page.is_relative_to(DOCS) else f"../{at(page)}"
            assert f"({target})" in index, at(page)


def test_the_pictures_of_results_are_small():
    assert all((DOCS / "images" / f"{name}.png").stat().st_size < 300_000 for name in ("demo", "report"))


# --- tables -------------------------------------------------------------------------------------------------


def section(document: Path, heading: str) -> str:
    """Return the text under a heading, up to the next one."""
    text = document.read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, flags=re.M | re.S)
    assert found, f"{document.name} has no {heading!r}"
    return found[1]


def first_column(text: str) -> list[str]:
    """Return the names in backticks of a table's first column."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


PARTS = [
    m.Payload, m.Stream, m.Watermark, m.Coverage, m.MissingTile, m.Rectangle, ScanPlan, Haadf, Eds, EnergyAxis, Beam,
    Sampling, Processing, SupportSet, SupportClass, Region, LatticePeak, ScanRequest, ScanGrant,
]  # fmt: skip
MESSAGES = list(dict.fromkeys((*m.ACQUISITION, *m.RESULTS, *m.TALK)))


def of_the_type(kind: type[m.Header]) -> list[str]:
    """Return the fields that a message type adds to what all of its family have."""
    family = next(f for f in (m.Reliable, m.Unnumbered, m.Talk) if issubclass(kind, f))
    return [f for f in kind.__struct_fields__ if f not in family.__struct_fields__]


@pytest.mark.parametrize("kind", MESSAGES, ids=m.tag_of)
def test_the_wire_page_has_every_field_of_a_message(kind: type[m.Header]):
    text = section(DOCS / "wire.md", f"`{m.tag_of(kind)}`")
    assert first_column(text) == of_the_type(kind)
    assert ("*Reliable.*" in text) == issubclass(kind, m.Reliable)
    assert ("*Unnumbered.*" in text) == issubclass(kind, m.Unnumbered)


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_the_wire_page_has_every_field_of_a_part(kind: Any):
    assert first_column(section(DOCS / "wire.md", kind.__name__)) == list(kind.__struct_fields__)


def test_the_wire_page_describes_every_type_of_the_schema():
    defined = set(m.schema()["$defs"])  # type: ignore[call-overload]
    described = {kind.__name__ for kind in (*MESSAGES, *PARTS)}
    assert defined == described


def test_the_wire_page_has_the_header_and_the_version():
    page = DOCS / "wire.md"
    assert sorted(first_column(section(page, "Header"))) == sorted(["type", *m.Header.__struct_fields__])
    assert page.read_text(encoding="utf-8").startswith(f"# The wire, version {m.VERSION}\n")


def test_the_wire_page_has_every_reason_of_rejection():
    from livestem.domain.errors import WireError

    stated = re.search(r"reason : str\n(.*?)detail", WireError.__doc__ or "", flags=re.S)
    assert stated
    reasons = set(re.findall(r"``([a-z_]+)``", stated[1]))
    assert set(first_column(section(DOCS / "wire.md", "Reasons of rejection"))) == reasons


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("Keys", Settings), ("`[http]`", Http), ("`[processing]`", Processing), ("`[limits]`", Limits)],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_the_configuration_page_has_every_key(heading: str, kind: Any):
    tables = {"http", "processing", "limits"}
    expected = [f for f in kind.__struct_fields__ if not (kind is Settings and f in tables)]
    assert sorted(first_column(section(DOCS / "configuration.md", heading))) == sorted(expected)


def test_the_configuration_page_has_the_limits_defaults():
    text = section(DOCS / "configuration.md", "`[limits]`")
    stated = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", text, flags=re.M))
    assert {k: int(v) for k, v in stated.items()} == msgspec.structs.asdict(Limits())


def test_the_example_configuration_is_every_key_at_its_default():
    path = ROOT / "configs" / "service.toml"
    assert load_settings(path) == Settings()
    text = path.read_text(encoding="utf-8")
    for kind in (Settings, Http, Processing, Limits):
        for key in kind.__struct_fields__:
            assert re.search(rf"^(# )?\[*(processing\.)?{key}\b", text, flags=re.M), key


def test_the_comments_of_the_example_configuration_are_legal_too(tmp_path: Path):
    text = (ROOT / "configs" / "service.toml").read_text(encoding="utf-8")
    path = tmp_path / "all.toml"
    path.write_text(re.sub(r"^# (?=[a-z_]+ = |\[\[)", "", text, flags=re.M).replace("support.classes", "x"))
    with pytest.raises(Exception, match="unknown field `x`"):  # the only one that is made wrong here
        load_settings(path)


def test_the_facilitys_configuration_is_legal():
    settings = load_settings(ROOT / "configs" / "facility.toml")
    assert len(settings.acquisition) == 2 and not settings.allow_processing


def test_the_methods_page_and_the_readme_have_every_preset():
    for page in (DOCS / "methods.md", ROOT / "README.md"):
        text = section(page, "Presets")
        assert all(f"`{name}`" in text for name in PRESETS), at(page)


def test_the_results_page_has_every_parameter_and_every_key_of_a_region():
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in Parameters.__struct_fields__)


def test_the_results_page_has_every_key_of_a_real_result(service: Settings):
    example = runpy.run_path(str(EXAMPLES / "own_source.py"))
    with Acquisition(endpoint=service.acquisition[0]) as acquisition:
        acquisition.wait_for_service()
        with acquisition.start_scan(example["plan"](1)) as scan:
            example["hand_over"](scan, "dense", 1, 0)
        acquisition.wait_acknowledged()
    final(service, acquisition.session, scan.scan_id)
    folder = service.store_path / acquisition.session / scan.scan_id
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert sorted(first_column(section(DOCS / "results.md", "result.json"))) == sorted(result)
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in text for key in (*result["grid"], *result["numerics"], *result["parameters"]))
    assert sorted(first_column(section(DOCS / "results.md", "Results"))) == sorted(p.name for p in folder.iterdir())


# --- examples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["events", "dense", "cumulative"])
def test_the_own_source_sends_a_scan_that_the_subscriber_hears(way: str, service: Settings):
    sent = subprocess.run(
        [
            sys.executable, str(EXAMPLES / "own_source.py"), "--eds", way, "--frames", "2",
            "--acquisition", service.acquisition[0].endpoint,
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (sent.returncode, sent.stderr) == (0, "")
    session, _, scan_id = sent.stdout.split()[1].partition("/")
    done = final(service, session, scan_id)
    assert done.status == "complete" and (done.coverage.haadf, done.coverage.eds) == (1.0, 1.0)
    heard = subprocess.run(
        [sys.executable, str(EXAMPLES / "subscriber.py"), service.results.endpoint],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (heard.returncode, heard.stderr) == (0, "")
    assert "ward.haadf+lines: " in heard.stdout and heard.stdout.splitlines()[-1].split()[1] == "complete"


def test_the_three_ways_of_eds_are_one_measurement(service: Settings):
    example = runpy.run_path(str(EXAMPLES / "own_source.py"))
    digests = set()
    for way in ("events", "dense", "cumulative"):
        with Acquisition(endpoint=service.acquisition[0]) as acquisition:
            acquisition.wait_for_service()
            with acquisition.start_scan(example["plan"](2)) as scan:
                example["hand_over"](scan, way, 2, 0)
            acquisition.wait_acknowledged()
        digests.add(final(service, acquisition.session, scan.scan_id).input_digest)
    assert len(digests) == 1


VENDORS = {
    "autoscript_acquisition.py": "autoscript_tem_microscope_client",
    "pyjem_acquisition.py": "PyJEM",
    "nionswift_acquisition.py": "nion",
}


@pytest.mark.parametrize(("name", "package"), VENDORS.items())
def test_a_vendors_example_says_that_it_was_not_run_and_needs_the_vendor_only_in_main(name: str, package: str):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert "NOT RUN HERE: it needs the microscope's software" in text.partition('"""\n')[0]
    imports = [line for line in text.splitlines() if re.match(rf"\s*(from|import) {package}\b", line)]
    assert imports and all(line.startswith("    ") for line in imports)
    with pytest.raises(ModuleNotFoundError, match=package):
        runpy.run_path(str(EXAMPLES / name))["main"]()


def test_the_autoscript_example_publishes_frames_and_spectra(service: Settings):
    example = runpy.run_path(str(EXAMPLES / "autoscript_acquisition.py"))
    size, channels = example["SIZE"], 1024
    rng = np.random.default_rng(0)

    def image(detector: str, pixels: int, dwell_s: float) -> Any:
        assert (detector, pixels, dwell_s) == ("HAADF", size, example["DWELL_S"])
        result = SimpleNamespace(pixel_size=SimpleNamespace(x=5e-11))
        data = rng.poisson(500, (size, size)).astype(np.uint16)
        return SimpleNamespace(data=data, metadata=SimpleNamespace(binary_result=result))

    def spectrum(settings: str) -> Any:
        assert settings == "settings" and all(0 < v < 1 for v in optics.paused_scan_beam_position)
        return SimpleNamespace(_raw_data=rng.poisson(0.1, channels).astype("<u4").tobytes())

    optics = SimpleNamespace(acceleration_voltage=SimpleNamespace(value=300e3))
    microscope = SimpleNamespace(
        optics=optics,
        acquisition=SimpleNamespace(acquire_stem_image=image),
        analysis=SimpleNamespace(eds=SimpleNamespace(acquire_spectrum=spectrum)),
    )
    with Acquisition(endpoint=service.acquisition[0]) as acquisition:
        acquisition.wait_for_service()
        energy = EnergyAxis(channels=channels, scale_kev=0.01)
        scan = example["run"](microscope, acquisition, detector="HAADF", settings="settings", energy=energy, frames=2)
        acquisition.wait_acknowledged()
    assert scan.plan.beam.energy_kv == 300.0
    done = final(service, acquisition.session, scan.scan_id)
    assert (done.status, done.coverage.haadf, done.coverage.eds) == ("complete", 1.0, 1.0)


@pytest.mark.parametrize("as_bytes", [True, False])
def test_the_pyjem_example_publishes_frames_and_a_running_total(as_bytes: bool, service: Settings):
    example = runpy.run_path(str(EXAMPLES / "pyjem_acquisition.py"))
    example["run"].__globals__["SIZE"] = 64
    rng = np.random.default_rng(0)
    calls: list[tuple[Any, ...]] = []

    def snapshot() -> bytes | list[list[int]]:
        frame = rng.poisson(500, (64, 64)).astype("<u2")
        return frame.tobytes() if as_bytes else frame.tolist()

    detector = SimpleNamespace(
        set_scanmode=lambda *a: calls.append(a),
        set_imaging_area=lambda *a: calls.append(a),
        set_exposuretime_value=lambda *a: calls.append(a),
        snapshot_rawdata=snapshot,
    )
    total = np.zeros((64, 64, 512), np.uint32)

    def running_total() -> np.ndarray[Any, Any]:
        total[:] += rng.poisson(0.01, total.shape).astype(np.uint32)
        return total

    with Acquisition(endpoint=service.acquisition[0]) as acquisition:
        acquisition.wait_for_service()
        scan = example["run"](
            detector, acquisition, frames=2, dwell_us=10.0, pixel_nm=0.5, beam_kv=200.0,
            energy=EnergyAxis(channels=512, scale_kev=0.02), running_total=running_total,
        )  # fmt: skip
        acquisition.wait_acknowledged()
    assert calls == [(0,), (64, 64), (10.0,)]
    assert scan.totals.sent.eds_counts == total.sum()
    assert final(service, acquisition.session, scan.scan_id).status == "complete"


class SwiftScan:
    """Stands in for Swift's scan device: fires partial read-outs of each frame, as the kit's code does."""

    def __init__(self, frames: int, cuts: tuple[int, ...]) -> None:
        self.frames, self.cuts = frames, cuts
        self.calls: list[str] = []
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        event = SimpleNamespace(listen=self._listen)
        self.data_channels = [SimpleNamespace(data_channel_updated_event=event)]

    def get_current_frame_parameters(self) -> Any:
        return SimpleNamespace(size=(64, 64), fov_nm=32.0, rotation_rad=0.0, pixel_time_us=2.0)

    def set_enabled_channels(self, channels: list[int]) -> None:
        assert channels == [0]

    def start_playing(self, parameters: Any) -> None:
        threading.Thread(target=self._play, daemon=True).start()

    def stop_playing(self) -> None:
        self.calls.append("stop")

    def _listen(self, arrived: Any) -> Any:
        self._arrived.put(arrived)
        return SimpleNamespace(close=lambda: self.calls.append("close"))

    def _play(self) -> None:
        arrived = self._arrived.get()
        rng = np.random.default_rng(0)
        for _ in range(self.frames):
            whole = rng.normal(size=(64, 64)).astype("f4")
            buffer = np.zeros_like(whole)
            for valid in self.cuts:
                buffer[:valid] = whole[:valid]
                arrived(SimpleNamespace(data=buffer, metadata={"scan": {"valid_rows": valid}}))
            buffer[:] = np.nan  # what was handed over must have been copied


def test_the_nion_example_publishes_rows_as_they_come(service: Settings):
    example = runpy.run_path(str(EXAMPLES / "nionswift_acquisition.py"))
    device = SwiftScan(frames=3, cuts=(10, 10, 37, 64))
    with Acquisition(endpoint=service.acquisition[0]) as acquisition:
        acquisition.wait_for_service()
        scan = example["run"](device, acquisition, frames=3, beam_kv=100.0)
        acquisition.wait_acknowledged()
    assert device.calls == ["stop", "close"]
    assert (scan.totals.sent.frames, scan.totals.sent.haadf_tiles) == (3, 9)
    assert scan.plan.sampling("haadf").pixel_nm == (0.5, 0.5)
    done = final(service, acquisition.session, scan.scan_id)
    assert (done.status, done.coverage.haadf, done.coverage.eds) == ("complete", 1.0, None)
