"""The rules of the house that no linter knows: layout, packaging, light imports, links, versions."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("service", "clients", "simulator")
SOURCES = sorted(path for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Import names of what the extras bring: a controller's machine has none of it and must not wait for it.
SCIENCE = {
    "community", "dask", "exspy", "h5py", "hyperspy", "igraph", "matplotlib", "networkx", "numba", "onnx",
    "rsciio", "safetensors", "scipy", "sklearn", "sparse", "torch", "torchvision", "zarr",
}  # fmt: skip
# Lines: clear files stay well below (style: about 300); this is where one must be divided.
MOST_LINES = 400


def at(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- layout -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_the_namespace_itself_has_no_init(root: str):
    namespace = ROOT / root / "livestem"
    assert namespace.is_dir()
    assert [at(p) for p in (ROOT / root).glob("*.py*")] == [], "modules belong into livestem/<package>/"
    assert [at(p) for p in namespace.glob("*.py*")] == [], "a file here would hide the other source roots"


def test_one_import_name_spans_the_source_roots():
    spec = importlib.util.find_spec("livestem")
    assert spec is not None and spec.origin is None, "livestem must be a namespace package"
    found = {Path(p).resolve() for p in spec.submodule_search_locations or ()}
    here = {(ROOT / root / "livestem").resolve() for root in SOURCE_ROOTS}
    assert here <= found, "the source roots are not all installed; run `make install`"


def test_no_package_is_in_two_roots():
    packages = [p.parent.name for root in SOURCE_ROOTS for p in (ROOT / root).glob("livestem/*/__init__.py")]
    assert len(packages) == len(set(packages))


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in SOURCES}
    assert [at(f) for f in folders if not (f / "__init__.py").is_file()] == []


@pytest.mark.parametrize("path", SOURCES, ids=at)
def test_a_module_opens_with_its_docstring_and_is_not_too_long(path: Path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "say what the module is for, its rules first"
    assert len(text.splitlines()) <= MOST_LINES, "divide it"


# --- light imports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["client", "protocol", "wire", "domain"])
def test_a_controllers_import_loads_no_science(package: str):
    code = f"import livestem.{package}, sys; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert SCIENCE.isdisjoint(done.stdout.split())


# --- packaging ----------------------------------------------------------------------------------------------


def requirements() -> list[Requirement]:
    """Every requirement of every extra, without the extras that only name others of ours."""
    named = [*PROJECT["dependencies"], *(r for rs in PROJECT["optional-dependencies"].values() for r in rs)]
    return [r for r in map(Requirement, named) if r.name != PROJECT["name"]]


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    stated = [line for line in lines if line and not line.startswith("#")]
    # A name and a version: no index, no file, no digest, no build of one machine (2.15.0+cpu), no marker.
    wrong = [line for line in stated if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==\d+(\.[a-z0-9]+)*", line)]
    assert wrong == []
    return dict(line.split("==") for line in stated)


def test_constraints_are_names_and_versions_each_once_and_in_order():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [line.split("==")[0] for line in lines if line and not line.startswith("#")]
    assert names == sorted(set(names)) == list(constraints())


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_tested_set_holds_every_requirement(requirement: Requirement):
    version = constraints()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


def test_the_tested_set_leaves_gpu_libraries_to_torch():
    assert [n for n in constraints() if re.match(r"nvidia-|cuda-|triton$", n)] == []


def test_all_is_every_extra():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(everything).extras == set(PROJECT["optional-dependencies"]) - {"all"}


def test_the_newest_entry_of_the_changelog_is_this_version():
    headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    released = [h for h in headings if h != "Unreleased"]
    assert released[0] == PROJECT["version"]


def test_the_licence_is_the_one_stated():
    assert PROJECT["license"] == "GPL-3.0-or-later"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "GNU GENERAL PUBLIC LICENSE" in text and "Version 3, 29 June 2007" in text


# --- files that people copy from ----------------------------------------------------------------------------


CONFIGS = sorted({*(ROOT / "configs").rglob("*.toml"), *(p for r in SOURCE_ROOTS for p in (ROOT / r).rglob("*.toml"))})


@pytest.mark.parametrize("path", CONFIGS, ids=at)
def test_a_toml_file_parses(path: Path):
    assert tomllib.loads(path.read_text(encoding="utf-8"))


EXAMPLES = sorted({*(ROOT / "examples").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")})


@pytest.mark.parametrize("path", EXAMPLES, ids=at)
def test_an_example_compiles(path: Path):
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^(```|~~~).*?^\1", flags=re.M | re.S)
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s+(\S+)", flags=re.M)


def anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, as code hosts make them."""
    text = _FENCED.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6}\s+(.*?)\s*$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=at)
def test_links_inside_the_project_lead_somewhere(document: Path):
    text = _FENCED.sub("", document.read_text(encoding="utf-8"))
    broken = []
    for target in (inline or reference for inline, reference in _LINK.findall(text)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        inside = place.is_relative_to(ROOT.resolve())
        if not (inside and place.exists()) or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


def test_decisions_are_numbered_without_gaps_and_keep_to_the_form():
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(r.name[:4]) for r in records] == list(range(len(records)))
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert text.startswith(f"# {record.name[:4]} "), at(record)
        for heading in ("## Context", "## Decision", "## Consequences"):
            assert heading in text, f"{at(record)} has no {heading!r}"


# --- one command each ---------------------------------------------------------------------------------------


def dry_run(*arguments: str) -> str:
    if shutil.which("make") is None:
        pytest.skip("no make here")
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_is_light():
    commands = dry_run("demo")
    assert "'.[service]'" in commands and "vgg16" not in commands and "[all]" not in commands
    assert commands.splitlines()[-1].split() == [".venv/bin/livestem", "demo"]


def test_the_papers_demo_installs_its_network():
    commands = dry_run("demo", "PRESET=as_published", "DEMO_ARGS=--json")
    assert "'.[service,vgg16]'" in commands
    assert commands.splitlines()[-1].split() == ".venv/bin/livestem demo --preset as_published --json".split()


def test_the_check_is_every_tool_and_every_test():
    commands = dry_run("check")
    tools = ("ruff check", "ruff format --check", "mypy -p livestem", "lint-imports", "-m pytest")
    places = [commands.index(tool) for tool in tools]
    assert "'.[all]'" in commands and places == sorted(places)


def test_ci_runs_the_check():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines and lines[-3:-1] == ["make check", "make accuracy-quick"]
    assert re.fullmatch(r"make soak SOAK_S=\d+", lines[-1])


def test_the_quick_form_of_the_accuracies_is_what_ci_runs():
    assert "-m benchmarks.accuracy --quick" in dry_run("accuracy-quick")
