"""The container image, without an engine to build it: its install steps run in a clean environment.

The builder stage of the Dockerfile is read and done as it stands, ``COPY`` and ``RUN``, with its two folders
moved under a temporary one; only torch is left out (``EXTRAS=service``), for time. What comes out is the
wheel and the environment that the image would have, so this is also the test of the wheel: nothing here can
reach the checkout.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL_S = 900  # two environments out of a slow index

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(INSTALL_S),
    pytest.mark.skipif(os.name != "posix", reason="the steps of a Dockerfile are shell lines"),
]


# --- the Dockerfile -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile, such as ``RUN``, and its text with continuation lines joined."""

    word: str
    text: str


def stages() -> list[list[Step]]:
    """Return the instructions of the Dockerfile, stage by stage, each beginning with its ``FROM``."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    whole = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    found: list[list[Step]] = []
    for line in filter(None, re.sub(r"\\\n\s*", " ", whole).splitlines()):
        word, _, text = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Step(word, text.strip()))
    return found


def texts(stage: list[Step], word: str) -> list[str]:
    return [step.text for step in stage if step.word == word]


def environment(**more: str) -> dict[str, str]:
    """Return this environment without what leads back to the checkout, or colours what is read here."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"}
    kept = {k: v for k, v in os.environ.items() if k not in hidden and not k.startswith("LIVESTEM_")}
    return kept | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])} | more


@dataclass(frozen=True)
class Image:
    """What the builder stage made, under a temporary folder instead of ``/``."""

    root: Path

    def path(self, in_image: str) -> Path:
        return self.root / in_image.lstrip("/")

    @property
    def bin(self) -> Path:
        return self.path("/opt/livestem/bin")

    @property
    def wheel(self) -> Path:
        (wheel,) = self.path("/build/dist").glob("livestem-*.whl")
        return wheel


def copy(source: str, target: Path) -> None:
    """Do one ``COPY``, as .dockerignore lets it: no bytecode."""
    path = ROOT / source
    if path.is_dir():
        shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        shutil.copy2(path, target / path.name)


def build(stage: list[Step], root: Path, arguments: dict[str, str]) -> Image:
    """Do the instructions of a stage under `root`."""
    image = Image(root)
    variables = dict(arguments)
    (work,) = texts(stage, "WORKDIR")
    folder = image.path(work)
    folder.mkdir(parents=True)
    for step in stage:
        if step.word == "ARG" and "=" in step.text:
            name, _, default = step.text.partition("=")
            variables.setdefault(name, default)
        elif step.word == "ENV":
            variables |= dict(entry.split("=", 1) for entry in shlex.split(step.text))
        elif step.word == "COPY":
            *sources, target = step.text.split()
            for source in sources:
                copy(source, folder / target)
        elif step.word == "RUN":
            command = re.sub(r"--mount=\S+\s*", "", step.text)
            command = re.sub(rf"(?<![\w.])(/opt/livestem|{work})\b", lambda m: str(image.path(m[1])), command)
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=folder,
                env=environment(**variables),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"RUN {step.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    root = tmp_path_factory.mktemp("image")
    yield build(stages()[0], root, {"EXTRAS": "service"})
    shutil.rmtree(root)  # a gigabyte, which pytest would keep for its last three runs


@pytest.fixture(scope="module")
def bare(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` of an environment with the wheel and none of its extras: a controller's machine."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, env=environment())
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constrained = ["--constraint", ROOT / "constraints.txt", image.wheel]
    subprocess.run([*install, *constrained], check=True, env=environment(), cwd=folder)
    return folder / "bin"


def call(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=120)


def imported(binaries: Path, module: str, cwd: Path) -> tuple[Path, set[str]]:
    """Import `module` in an environment; return its file and the top-level names that are then loaded."""
    loaded_names = "{n.split('.')[0] for n in sys.modules}"
    code = f"import json, sys, {module} as m; print(json.dumps([m.__file__, *{loaded_names}]))"
    done = call(binaries / "python", "-c", code, cwd=cwd)
    assert done.returncode == 0, done.stderr
    file, *loaded = json.loads(done.stdout)
    return Path(file), set(loaded)


# --- the wheel ----------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_file_of_the_packages(image: Image):
    """Code and data alike: the schema, the specimens; whatever a package reads has to travel with it."""
    expected = {
        path.relative_to(image.path("/build") / root).as_posix()
        for root in ("service", "clients", "simulator")
        for path in (image.path("/build") / root / "livestem").rglob("*")
        if path.is_file()
    }
    specimens = image.path("/build") / "configs" / "specimens"
    expected |= {
        f"livestem/simulator/specimens/{path.relative_to(specimens).as_posix()}" for path in specimens.rglob("*.toml")
    }
    with zipfile.ZipFile(image.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert any(re.fullmatch(r"livestem/simulator/specimens/.+\.toml", name) for name in held)
    assert any(re.fullmatch(r"livestem/wire/.*schema\.json", name) for name in held)
    assert "livestem/__init__.py" not in held


def test_the_wheel_says_its_licence(image: Image):
    with zipfile.ZipFile(image.wheel) as wheel:
        (licence,) = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
        assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


# --- the image's environment --------------------------------------------------------------------------------


def test_the_command_line_answers(image: Image, tmp_path: Path):
    done = call(image.bin / "livestem", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "serve", "replay", "batch", "watch", "listen", "weights"):
        assert command in done.stdout


def test_the_entry_point_is_the_service(image: Image, tmp_path: Path):
    (entry,) = texts(stages()[-1], "ENTRYPOINT")
    program, *arguments = json.loads(entry)
    done = call(image.bin / program, *arguments, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--preset" in done.stdout and "--store" in done.stdout


def test_the_packages_come_from_the_wheel(image: Image, tmp_path: Path):
    for package in ("client", "simulator", "stages"):  # one of each source root
        file, _ = imported(image.bin, f"livestem.{package}", tmp_path)
        assert file.is_relative_to(image.root), "an editable install is not an image"


def test_the_environment_has_what_its_packages_need(image: Image, tmp_path: Path):
    done = call(image.bin / "python", "-m", "pip", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_packaged_specimens_are_found(image: Image, tmp_path: Path):
    code = "from livestem.simulator.specimen_file import packaged_specimens as p; print(*p())"
    done = call(image.bin / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checkout = (path.stem for path in (ROOT / "configs" / "specimens").glob("*.toml"))
    assert done.stdout.split() == sorted(checkout)
    code = "from livestem.simulator import load_specimen as load; print(load('pristine-0dpa').title)"  # it has a base
    done = call(image.bin / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# --- a controller's machine: the base install ---------------------------------------------------------------


def test_the_base_install_has_a_client_and_no_science(bare: Path, tmp_path: Path):
    file, loaded = imported(bare, "livestem.client", tmp_path)
    assert file.is_relative_to(bare.parent)
    assert loaded.isdisjoint({"scipy", "sklearn", "hyperspy", "exspy", "torch", "matplotlib"})
    done = call(bare / "python", "-m", "pip", "list", "--format=json", cwd=tmp_path)
    installed = {package["name"].lower() for package in json.loads(done.stdout)}
    assert installed.isdisjoint({"scipy", "scikit-learn", "hyperspy", "torch", "matplotlib", "h5py"})


def test_the_base_install_has_a_command_line(bare: Path, tmp_path: Path):
    for arguments in (["--help"], ["listen", "--help"], ["serve", "--help"]):
        done = call(bare / "livestem", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_one_line_with_the_way_out(bare: Path, tmp_path: Path):
    (tmp_path / "scan.hspy").write_bytes(b"")
    done = call(bare / "livestem", "batch", "scan.hspy", "--out", "result", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "pip install" in line and "livestem[service]" in line
    assert not (tmp_path / "result").exists()


# --- what the image promises --------------------------------------------------------------------------------


def test_the_image_is_nobodys_root_and_keeps_its_store_in_the_volume():
    final = stages()[-1]
    (user,) = texts(final, "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number: a name does not prove non-root to an orchestrator"
    assert any(f"--uid {user.split(':')[0]} " in run for run in texts(final, "RUN"))
    variables = dict(entry.split("=", 1) for text in texts(final, "ENV") for entry in shlex.split(text))
    (volume,) = texts(final, "VOLUME")
    assert Path(variables["LIVESTEM_STORE"]).is_relative_to(volume)
    words = [step.word for step in final]
    assert words.index("RUN") < words.index("USER") < words.index("ENTRYPOINT"), "root only while building"


def test_the_image_has_every_extra_that_the_service_can_use():
    assert "EXTRAS=service,vgg16" in texts(stages()[0], "ARG")


def test_the_builder_is_sent_what_it_copies():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = {source for text in texts(stages()[0], "COPY") for source in text.split()[:-1]}
    assert {f"!{source}" for source in copied} <= set(ignored)


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_check_asks_the_services_own_endpoint(status: int | None, healthy: bool):
    (check,) = texts(stages()[-1], "HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + 3 :])
    assert command[0] == "python" and "http://127.0.0.1:9570/health" in command[-1]

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" and status else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the test looks at the exit status."""

    with HTTPServer(("127.0.0.1", 0), Health) as server:  # an ephemeral port: 9570 may be somebody's
        command[-1] = command[-1].replace("9570", str(server.server_port))
        if status is None:
            server.server_close()  # nobody listens
        else:
            threading.Thread(target=server.handle_request, daemon=True).start()
        done = subprocess.run(command, env=environment(), capture_output=True, check=False, timeout=30)
    assert (done.returncode == 0) is healthy
