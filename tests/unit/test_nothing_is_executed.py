"""Nothing that arrives is unpickled or executed: no module of ours can, by its imports and its calls."""

from __future__ import annotations

import ast
import io
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for root in ("service", "clients", "simulator", "examples") for p in (ROOT / root).rglob("*.py"))

# Modules that make objects, and so run code, of bytes; or that run text.
UNPICKLERS = {
    "_pickle", "cloudpickle", "code", "codeop", "dbm", "dill", "joblib", "jsonpickle", "marshal", "pickle", "runpy",
    "shelve", "xmlrpc", "yaml",
}  # fmt: skip
# Looked at, and harmless, each in its place.
NAMED = {
    # the name of the error that torch's `weights_only` reader raises, to tell it as a bad file
    ("service/livestem/runtime/weight_files.py", "from pickle import UnpicklingError"),
    # of a constant in the calls of `extra`
    ("service/livestem/runtime/weight_files.py", "import_module(module)"),
    # of RosettaSciIO's own table of readers, by the file's suffix
    ("service/livestem/sources/generic.py", "importlib.import_module(api)"),
}
# Calls that run text or a shell, wherever they come from.
RUNNERS = {"eval", "exec", "compile", "__import__", "execfile", "breakpoint"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
# Readers that unpickle unless they are told otherwise, and the word that tells them.
READERS = {
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "np.lib.format.read_array": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}
# Readers that cannot be told.
FORBIDDEN = {"pd.read_pickle", "pandas.read_pickle", "recv_pyobj", "send_pyobj", "np.loads", "torch.jit.load"}


def dotted(node: ast.AST) -> str:
    """Return a call's name as it is written: ``np.load``."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def imports(node: ast.AST) -> Iterator[str]:
    """Yield the packages that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (name.name.partition(".")[0] for name in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield (node.module or "").partition(".")[0]


def sins(source: str, where: str = "") -> list[str]:
    """Return what a module does that it must not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, ast.stmt | ast.expr) else ""
        if UNPICKLERS & set(imports(node)) and (where, text) not in NAMED:
            found.append(text)
        if isinstance(node, ast.Call):
            found += [text] if _sinful(node) and (where, text) not in NAMED else []
        if isinstance(node, ast.keyword) and (node.arg, ast.unparse(node.value)) in _TOLD_WRONGLY:
            found.append(f"{node.arg}={ast.unparse(node.value)}")
    return found


_TOLD_WRONGLY = {("allow_pickle", "True"), ("weights_only", "False"), ("shell", "True")}


def _sinful(call: ast.Call) -> bool:
    name = dotted(call.func)
    if name in RUNNERS | SHELLS or FORBIDDEN & {name, name.rpartition(".")[2]}:
        return True
    if name in ("importlib.import_module", "import_module"):
        return not all(isinstance(a, ast.Constant) for a in call.args)
    if name not in READERS:
        return False
    word, value = READERS[name]
    return (word, str(value)) not in {(k.arg, ast.unparse(k.value)) for k in call.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_runs_nothing_that_it_reads(path: Path):
    assert sins(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()) == []


def test_the_sources_are_looked_at():
    assert len(SOURCES) > 150
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert "np.load(" in text and "torch.load(" in text, "else two rows of the table test nothing"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal",
        "from pickle import loads",
        "from shelve import open",
        "def f():\n    import dill.source",
        "import yaml\nyaml.load(x)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=allowed)",
        "numpy.load(path, mmap_mode='r')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "exec(text, {})",
        "compile(text, 'x', 'exec')",
        "__import__(name)",
        "importlib.import_module(name)",
        "os.system(line)",
        "subprocess.run(line, shell=True)",
        "socket.recv_pyobj()",
        "np.lib.format.read_array(file)",
    ],
)
def test_each_sin_is_seen(source: str):
    assert sins(textwrap.dedent(source))


@pytest.mark.parametrize(
    "source",
    ["import json", "np.load(path, allow_pickle=False)", "torch.load(path, weights_only=True)", "re.compile(text)",
     "importlib.import_module('torch')", "subprocess.run([a, b])", "model.eval()"],
)  # fmt: skip
def test_what_is_harmless_is_not(source: str):
    assert sins(source) == []


def test_an_array_of_objects_cannot_be_read():
    """What the rule rests on: numpy refuses what would run code."""
    file = io.BytesIO()
    np.save(file, np.array([object], dtype=object), allow_pickle=True)
    file.seek(0)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(file, allow_pickle=False)
