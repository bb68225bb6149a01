"""``result.hspy``: what HyperSpy opens with ``hs.load``: HAADF, coverage, label maps, scores, region spectra.

Written by RosettaSciIO's own writer, a signal at a time, so that HyperSpy itself need not be imported.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Sampling

if TYPE_CHECKING:
    from livestem.runtime.features import Collected
    from livestem.runtime.finals import Finals
    from livestem.runtime.registration import Registration
    from livestem.runtime.results import ScanResult

Signal = dict[str, Any]


class _Axis(NamedTuple):
    """An axis: the size of a step, and where the centre of the first element is."""

    name: str
    scale: float
    offset: float
    units: str = ""

    def described(self, index: int, size: int, *, navigate: bool) -> Signal:
        """Return the axis as RosettaSciIO takes it."""
        return {
            "_type": "UniformDataAxis",
            "name": self.name,
            "units": self.units,
            "scale": float(self.scale),
            "offset": float(self.offset),
            "size": size,
            "navigate": navigate,
            "index_in_array": index,
            "is_binned": self.units == "keV",
        }


def write_hspy(path: Path, result: ScanResult) -> None:
    """Write every signal of a result into one file, one experiment each."""
    import h5py
    from rsciio.hspy import file_writer

    with tempfile.TemporaryDirectory() as scratch, h5py.File(path, "w") as out:
        out.attrs["file_format"] = "HyperSpy"
        for i, signal in enumerate(_signals(result)):
            part = Path(scratch) / f"{i}.hspy"
            file_writer(str(part), signal, compression="gzip", show_progressbar=False)
            with h5py.File(part) as single:
                out.attrs["file_format_version"] = single.attrs["file_format_version"]
                experiments = out.require_group("Experiments")
                for title in single["Experiments"]:
                    single.copy(f"Experiments/{title}", experiments)


def _signals(result: ScanResult) -> Iterator[Signal]:
    finals, registration = result.finals, result.registration
    data, plan = finals.data, finals.data.plan
    about = {"session": result.session, "scan_id": result.scan_id, "digest": finals.digest}
    if data.haadf is not None and plan.haadf is not None:
        axes = _pixel_axes(plan.haadf.sampling)
        moved = {} if registration is None else {"registration": _shifts(registration)}
        yield _signal("HAADF", data.haadf.astype(np.float32), axes, 0, finals, about | moved)
    for name, part, exposure in (("HAADF", plan.haadf, data.haadf_exposure), ("EDS", plan.eds, data.eds_exposure)):
        if part is not None and exposure is not None:
            axes = _pixel_axes(part.sampling)
            yield _signal(f"{name} exposure", exposure, axes, 0, finals, about)
    chips = _chip_axes(finals)
    for modality, share in result.covered.coverage.items():
        yield _signal(f"{modality.upper()} coverage", share, chips, 0, finals, about)
    for (method, modality), found in finals.maps.items():
        title = f"{method}.{modality}"
        classes = {**about, "classes": list(found.classes)}
        yield _signal(f"{title} labels", found.labels, chips, 0, finals, classes)
        if found.scores is not None:
            yield _signal(f"{title} scores", found.scores, [_Axis("class", 1.0, 0.0), *chips], 1, finals, classes)
        if data.spectra is not None and plan.eds is not None:
            spectra, labels = _region_spectra(found.labels, data)
            energy = plan.eds.energy
            axes = [_Axis("region", 1.0, 0.0), _Axis("Energy", energy.scale_kev, energy.offset_kev, "keV")]
            names = [region.name for region in finals.regions[method, modality]]
            extra = {**about, "labels": labels, "regions": names}
            yield _signal(f"{title} spectra", spectra, axes, 1, finals, extra, signal_type="EDS_TEM")


def _pixel_axes(sampling: Sampling) -> list[_Axis]:
    return [_Axis(*part, "nm") for part in zip("yx", sampling.pixel_nm, sampling.origin_nm, strict=True)]


def _shifts(registration: Registration) -> dict[str, Any]:
    """Return the shifts of all frames as HyperSpy keeps them: arrays, in pixels of the HAADF."""
    header, estimates, moved, determined = registration.message("scan")
    return {"estimates_px": estimates, "haadf_px": moved, "determined": determined, "drift_nm": header.drift_nm}


def _chip_axes(finals: Finals) -> list[_Axis]:
    """Return the axes of label maps; HyperSpy's offset is the centre of the first element, here of the first chip."""
    grid, plan = finals.data.grid, finals.data.plan
    origin = plan.sampling(plan.modalities[0]).origin_nm
    to_centre = (grid.chip_px - 1) / 2 * grid.pixel_nm
    return [_Axis(name, grid.chip_nm, start + to_centre, "nm") for name, start in zip("yx", origin, strict=True)]


def _region_spectra(labels: NDArray[np.int16], data: Collected) -> tuple[NDArray[np.int64], list[int]]:
    flat = labels.ravel()
    present = [int(k) for k in np.unique(flat[flat >= 0])]
    return np.stack([data.spectrum_of(flat == k) for k in present]), present


def _signal(
    title: str,
    data: NDArray[Any],
    axes: list[_Axis],
    navigation: int,
    finals: Finals,
    about: dict[str, Any],
    signal_type: str = "",
) -> Signal:
    """Return a signal as RosettaSciIO takes it; the first `navigation` axes are HyperSpy's navigation axes."""
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
    sizes = zip(axes, data.shape, strict=True)
    return {
        "data": data,
        "axes": [axis.described(i, int(size), navigate=i < navigation) for i, (axis, size) in enumerate(sizes)],
        "metadata": metadata,
        "original_metadata": {},
        "learning_results": {},
        "models": {},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "livestem", "package_version": _version()},
        "tmp_parameters": {},
    }


@functools.cache
def _version() -> str:
    return version("livestem")


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
