"""The pixel from a crystal that is known: one region's measured spacing against what it must be.

Rules
-----
* The known length is the crystal's longest spacing, as `spacing.LatticeResult.d_spacing_nm` defines it.
* Drift moves the lines of a scan against each other, not the pixels within a line: it changes the slow components of
  a lattice vector and leaves the fast ones. A lattice that is square (as SrTiO3 on its axis is) is therefore measured
  by its fast components alone, ``1 / sqrt(b1x^2 + b2x^2)``, which holds under any drift and rotation. Of another
  lattice only its longest spacing is known, drift and all.
* A factor beyond `MOST` either way is no calibration of a microscope but another spacing of the crystal, such as
  {110} where {100} was too weak: nothing is calibrated, and the reason says so.
* The factor's error is common to all lengths of a result; it stands beside them and is not in their sigmas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from livestem.domain.regions import Calibration
from livestem.stages.spacing import LatticeResult

MOST = 1.25
"""Microscopes are off by some percent; sqrt(2), the next spacing of a cubic crystal, is well beyond."""

_METHODS = ("fewshot", "ward", "louvain")  # classes that somebody named are what is meant by a name, if there are any


def candidates(asked: str, names: Mapping[tuple[str, str], Sequence[str]]) -> list[tuple[tuple[str, str], int]]:
    """Return where a region of that name may be measured: (map, place among its regions), best first.

    Parameters
    ----------
    asked : str
        ``NAME``, or ``METHOD.MODALITY/NAME`` for one map only.
    names : (method, modality) -> names of its regions
    """
    only, _, wanted = asked.rpartition("/")
    known = [key for key in names if not only or ".".join(key) == only]
    known.sort(key=lambda key: (_METHODS.index(key[0]), -key[1].count("+")))
    found = [(key, list(names[key]).index(wanted)) for key in known if wanted in names[key]]
    classes = [(key, place) for key, place in found if key[0] == "fewshot"]
    return classes or found[:1]  # a class is the same in all maps; a cluster's number means something in one only


def calibrate(
    asked: str, d_nm: float, pixel_nm: float, measured: Iterable[tuple[tuple[str, str], LatticeResult]]
) -> Calibration:
    """Compare the first of the lattices that has a spacing with what it must be.

    Parameters
    ----------
    asked : str
        Name of the region, for the record.
    d_nm : float
        Its longest spacing, nm.
    pixel_nm : float
        HAADF pixel as recorded, nm.
    measured : iterable of ((method, modality), LatticeResult)
        With the recorded pixel, best first; taken only as far as needed.

    Returns
    -------
    Calibration
        `factor` None where there is none; `reason` says why.
    """
    reason = "no label map has a region of this name with HAADF"
    for number, (key, lattice) in enumerate(measured):
        spacing = lattice.drift_free_nm or lattice.d_spacing_nm
        sigma = lattice.drift_free_sigma_nm or lattice.d_spacing_sigma_nm
        if spacing is None or sigma is None:
            reason = reason if number else f"its lattice in {'.'.join(key)} has no spacing: {lattice.reason}"
            continue
        factor = d_nm / spacing
        found = Calibration(
            region=asked, d_nm=d_nm, label_map=".".join(key), measured_nm=spacing, measured_sigma_nm=sigma
        )
        if not 1 / MOST <= factor <= MOST:
            return replace(found, reason=f"{spacing:.4g} nm were measured; is {d_nm:g} nm its longest spacing?")
        return replace(found, factor=factor, factor_sigma=factor * sigma / spacing, pixel_nm=pixel_nm * factor)
    return Calibration(region=asked, d_nm=d_nm, reason=reason)
