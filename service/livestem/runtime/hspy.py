"""``result.hspy``: what HyperSpy opens with ``hs.load``: HAADF, label maps, scores, region spectra.

Written by RosettaSciIO's own writer, a signal at a time, so that HyperSpy itself need not be imported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from livestem.runtime.finals import Finals

Signal = dict[str, Any]


def write_hspy(path: Path, finals: Finals, session: str, scan_id: str) -> None:
    """Write every signal of a result into one file, one experiment each."""
    import h5py
    from rsciio.hspy import file_writer

    with tempfile.TemporaryDirectory() as scratch, h5py.File(path, "w") as out:
        out.attrs["file_format"] = "HyperSpy"
        for i, signal in enumerate(_signals(finals, session, scan_id)):
            part = Path(scratch) / f"{i}.hspy"
            file_writer(str(part), signal, compression="gzip", show_progressbar=False)
            with h5py.File(part) as single:
                out.attrs["file_format_version"] = single.attrs["file_format_version"]
                experiments = out.require_group("Experiments")
                for title in single["Experiments"]:
                    single.copy(f"Experiments/{title}", experiments)


def _signals(finals: Finals, session: str, scan_id: str) -> Iterator[Signal]:
    data, grid = finals.data, finals.data.grid
    about = {"session": session, "scan_id": scan_id, "digest": finals.digest}
    chip_axes = (("y", grid.chip_nm), ("x", grid.chip_nm))
    if data.haadf is not None and data.plan.haadf is not None:
        sampling = data.plan.haadf.sampling
        axes = _axes(data.haadf.shape, [(n, p, "nm") for n, p in zip("yx", sampling.pixel_nm, strict=True)], 0)
        yield _signal("HAADF", data.haadf.astype(np.float32), axes, "", finals, about)
    for (method, modality), found in finals.maps.items():
        title = f"{method}.{modality}"
        axes = _axes(found.labels.shape, [(n, p, "nm") for n, p in chip_axes], 0)
        classes = list(found.classes)
        yield _signal(f"{title} labels", found.labels, axes, "", finals, {**about, "classes": classes})
        if found.scores is not None:
            named = [("class", 1.0, ""), *((n, p, "nm") for n, p in chip_axes)]
            axes = _axes(found.scores.shape, named, 1)
            yield _signal(f"{title} scores", found.scores, axes, "", finals, {**about, "classes": classes})
        if data.spectra is not None and data.plan.eds is not None:
            spectra, labels = _region_spectra(found.labels, data.spectra)
            energy = data.plan.eds.energy
            axes = _axes(spectra.shape, [("region", 1.0, ""), ("Energy", energy.scale_kev, "keV")], 1)
            axes[1]["offset"] = energy.offset_kev
            names = [r.name for r in finals.regions[method, modality]]
            extra = {**about, "labels": labels, "regions": names}
            yield _signal(f"{title} spectra", spectra, axes, "EDS_TEM", finals, extra)


def _region_spectra(labels: NDArray[np.int16], spectra: NDArray[np.uint32]) -> tuple[NDArray[np.int64], list[int]]:
    flat = labels.ravel()
    present = [int(k) for k in np.unique(flat[flat >= 0])]
    return np.stack([spectra[flat == k].sum(axis=0, dtype=np.int64) for k in present]), present


def _axes(shape: tuple[int, ...], named: list[tuple[str, float, str]], navigation: int) -> list[Signal]:
    """Return axes in array order; the first `navigation` of them are HyperSpy's navigation axes."""
    return [
        {
            "_type": "UniformDataAxis",
            "name": name,
            "units": units,
            "scale": float(scale),
            "offset": 0.0,
            "size": int(size),
            "navigate": i < navigation,
            "index_in_array": i,
            "is_binned": units == "keV",
        }
        for i, (size, (name, scale, units)) in enumerate(zip(shape, named, strict=True))
    ]


def _signal(
    title: str,
    data: NDArray[Any],
    axes: list[Signal],
    signal_type: str,
    finals: Finals,
    about: dict[str, Any],
) -> Signal:
    metadata: Signal = {
        "General": {"title": title},
        "Signal": {"signal_type": signal_type},
        "livestem": about,
    }
    if signal_type == "EDS_TEM":
        metadata["Acquisition_instrument"] = {"TEM": _instrument(finals)}
        if finals.quantifier is not None:
            metadata["Sample"] = {
                "elements": [*finals.parameters.elements, *finals.parameters.strays],
                "xray_lines": list(finals.quantifier.lines),
            }
    return {
        "data": data,
        "axes": axes,
        "metadata": metadata,
        "original_metadata": {},
        "learning_results": {},
        "models": {},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "livestem", "package_version": version("livestem")},
        "tmp_parameters": {},
    }


def _instrument(finals: Finals) -> Signal:
    plan = finals.data.plan
    assert plan.eds is not None
    resolution = plan.eds.energy_resolution_mnka_ev
    if resolution is None and finals.quantifier is not None:
        resolution = finals.quantifier.operator.resolution_mnka_ev
    eds = {
        "energy_resolution_MnKa": resolution,
        "live_time": plan.eds.live_time_s,
        "real_time": plan.eds.real_time_s,
        "elevation_angle": plan.eds.take_off_angle_deg,
    }
    tem: Signal = {"Detector": {"EDS": {k: v for k, v in eds.items() if v is not None}}}
    if plan.beam.energy_kv is not None:
        tem["beam_energy"] = plan.beam.energy_kv
    if plan.beam.current_pa is not None:
        tem["beam_current"] = plan.beam.current_pa / 1000.0  # HyperSpy: nA
    return tem
