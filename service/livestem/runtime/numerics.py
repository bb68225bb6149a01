"""What a label map may depend on in its last bits, and the digest that says whether two results are one."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.parameters import Parameters
from livestem.runtime.features import Encoder

_LIBRARIES = ("livestem", "numpy", "scipy", "scikit-learn", "igraph", "exspy", "torch")


def numerics_of(encoder: Encoder | None) -> dict[str, Any]:
    """Return what computed a result: the encoder's digest, precision and device, the processor, library versions."""
    versions = {}
    for name in _LIBRARIES:
        if name == "torch" and encoder is None:
            continue
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    network = {"convolutions": encoder.convolutions} if encoder else {}
    return {
        "encoder": encoder.digest if encoder else "lattice",
        "precision": encoder.precision if encoder else "fp64",
        "device": encoder.device if encoder else "cpu",
        **network,
        "isa": _isa(),
        "versions": versions,
    }


def _isa() -> str:
    """Return the processor's family and the widest vector instructions that numpy uses on it."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return f"{machine}+{found[-1]}" if found else machine


def digest_of(
    maps: Mapping[tuple[str, str], NDArray[np.int16]], parameters: Parameters, numerics: dict[str, Any]
) -> str:
    """SHA-256 of the label maps, what they were made with, and by which numerics; no floats of the data."""
    digest = hashlib.sha256()
    for method, modality in sorted(maps):
        labels = np.ascontiguousarray(maps[method, modality], dtype="<i2")
        digest.update(f"{method}.{modality} {labels.dtype.str} {labels.shape}".encode())
        digest.update(labels.tobytes())
    digest.update(msgspec.json.encode(parameters, order="sorted"))
    digest.update(msgspec.json.encode(numerics, order="sorted"))
    return digest.hexdigest()
