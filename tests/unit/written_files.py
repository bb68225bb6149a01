"""Small recordings written on the spot, so that the sources are tested where no real recording is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def axis(name: str, size: int, scale: float = 1.0, units: str | None = "nm", **more: Any) -> dict[str, Any]:
    described = {"name": name, "size": size, "scale": scale, "offset": 0.0, "navigate": True, **more}
    return described if units is None else {**described, "units": units}


def write_hspy(
    path: Path, data: np.ndarray, axes: list[dict[str, Any]], metadata: dict[str, Any] | None = None
) -> Path:
    """Write one signal; `metadata` is HyperSpy's tree."""
    import rsciio.hspy

    rsciio.hspy.file_writer(
        str(path),
        {
            "data": data, "axes": axes, "original_metadata": {}, "attributes": {"_lazy": False, "ragged": False},
            "metadata": {"General": {"title": ""}, "Signal": {"signal_type": ""}, **(metadata or {})},
            "package_info": {"package": "hyperspy", "package_version": "2.5"},
            "learning_results": {}, "models": {}, "tmp_parameters": {},
        },
    )  # fmt: skip
    return path


def write_haadf(path: Path, data: np.ndarray, pixel_nm: float | None = 1.0, title: str = "HAADF") -> Path:
    units = None if pixel_nm is None else "nm"
    frame = [axis("Time", data.shape[0], 1.0, "s")] if data.ndim == 3 else []
    rest = [axis(n, s, pixel_nm or 1.0, units, navigate=False) for n, s in zip("yx", data.shape[-2:], strict=True)]
    return write_hspy(path, data, [*frame, *rest], {"General": {"title": title}})


def write_eds(path: Path, data: np.ndarray, pixel_nm: float | None = 1.0, energy_units: str | None = "keV") -> Path:
    units = None if pixel_nm is None else "nm"
    frame = [axis("Time", data.shape[0], 1.0, "s")] if data.ndim == 4 else []
    field = [axis(n, s, pixel_nm or 1.0, units) for n, s in zip("yx", data.shape[-3:-1], strict=True)]
    energy = axis("Energy", data.shape[-1], 0.01, energy_units, offset=-0.2, navigate=False)
    metadata = {"General": {"title": "EDS"}, "Signal": {"signal_type": "EDS_TEM"}}
    return write_hspy(path, data, [*frame, *field, energy], metadata)


def velox_stream(cube: np.ndarray, last_mark: bool = True) -> np.ndarray:
    """Photons of (frames, rows, cols, channels) as Velox streams them."""
    words: list[int] = []
    for spectrum in cube.reshape(-1, cube.shape[-1]):
        words += [*np.repeat(np.arange(spectrum.size), spectrum).tolist()[::-1], 65535]
    return np.array(words if last_mark else words[:-1], dtype=np.uint16)


def write_velox(
    path: Path,
    haadf: np.ndarray,
    streams: list[np.ndarray],
    channels: int,
    extra: dict[str, np.ndarray] | None = None,
    chunked: bool = True,
) -> Path:
    """Write a version 11 file: images (frames, rows, cols), one stream per detector, elemental maps in `extra`."""
    detectors = {
        "Detector-0": {"DetectorName": "HAADF", "DetectorType": "ScanningDetector", "Inserted": "true",
                       "CollectionAngleRange": {"begin": "0.05", "end": "0.2"}},
        "Detector-1": {"DetectorName": "SuperX1", "DetectorType": "AnalyticalDetector", "Inserted": "true",
                       "ElevationAngle": "0.3141592653589793", "Dispersion": "10", "OffsetEnergy": "-250",
                       "RealTime": "2", "LiveTime": "1"},
    }  # fmt: skip
    statement = {
        "Core": {}, "Instrument": {}, "Stage": {"Position": {"x": "1e-6", "y": "0", "z": "0"}, "AlphaTilt": "0"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1709189884"}},
        "Optics": {"AccelerationVoltage": "300000", "BeamConvergence": "0.025"},
        "Scan": {"DwellTime": "2e-6", "FrameTime": "1"}, "Detectors": detectors, "CustomProperties": {},
        "BinaryResult": {"PixelSize": {"width": "5e-11", "height": "5e-11"}, "PixelUnitX": "m", "PixelUnitY": "m",
                         "Offset": {"x": "0", "y": "0"}, "Detector": "SuperX"},
    }  # fmt: skip

    def metadata(index: int) -> np.ndarray:
        result = {**statement["BinaryResult"], "DetectorIndex": str(index)}
        text = json.dumps({**statement, "BinaryResult": result}).encode().ljust(60000, b"\0")
        return np.frombuffer(text, dtype=np.uint8)[:, None]

    def texts(group: h5py.Group, name: str, value: dict[str, Any]) -> None:
        group.create_dataset(name, data=[json.dumps(value)], dtype=h5py.string_dtype())

    with h5py.File(path, "w") as file:
        texts(file, "Version", {"format": "Velox", "version": "11"})
        for number, (title, picture) in enumerate({**(extra or {}), "HAADF": haadf}.items()):
            group = file.create_group(f"Data/Image/{number:032x}")
            stack = picture[None] if picture.ndim == 2 else picture
            group.create_dataset(
                "Data", data=stack.transpose(1, 2, 0), chunks=(*stack.shape[1:], 1) if chunked else None
            )
            group["Metadata"] = metadata(0)
            reference = f"SharedProperties/ImageSeriesDataReference/{number:032x}"
            texts(file, reference, {"dataPath": f"/Data/Image/{number:032x}"})
            texts(file, f"Displays/ImageDisplay/{number:032x}", {"data": f"/{reference}", "id": title})
        settings = {"elementSelection": [8, 22, 38]}
        texts(file, "SharedProperties/EDSSpectrumQuantificationSettings/a", settings)
        file.create_group("Data/SpectrumImage/a")
        texts(file["Data/SpectrumImage/a"], "SpectrumImageSettings", {"endFramePosition": str(len(haadf))})
        for number, stream in enumerate(streams):
            group = file.create_group(f"Data/SpectrumStream/{number:032x}")
            group["Data"] = stream[:, None]
            group["Metadata"] = metadata(1)
            texts(group, "AcquisitionSettings", {"bincount": str(channels), "StreamEncoding": "uint16"})
    return path
