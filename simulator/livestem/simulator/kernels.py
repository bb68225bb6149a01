"""Kernels of the HAADF image: what multislice says of a column of atoms, and of atoms that stand in no column.

Rules
-----
Numbers come from ``haadf_kernels.json``, which ``tools/make_haadf_kernels.py`` writes; here they are only looked
up, interpolated in thickness, and scaled to another microscope. Contrasts and kernels of crystals belong to the
microscope of that file (`fits` says whether a beam is near); cross-sections and free space hold for any.

Theory
------
A HAADF image is the sum over atoms of cross-section times kernel, the kernel being the intensity that a probe
brings to the atom [1]_. In a column the crystal's potential gathers the probe on the atoms (contrast above 1) until
scattering has thinned it out; what it does not hold spreads to the neighbours (the tail). Without a column the probe
spreads as in free space: of a foil of thickness t it sees the mean over depth, which depends on t alpha^2 / lambda
alone, in units of lambda / alpha. So one table serves every microscope without aberrations.

References
----------
.. [1] Pennycook and Jesson, Ultramicroscopy 37 (1991) 14.
.. [2] Lenz, Z. Naturforsch. 9a (1954) 185: an atom's potential screened at a0 Z^(-1/3).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import msgspec
import numpy as np

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import UsageError
from livestem.simulator.instrument import NotNegative, Positive, ProbeBeam, Share

_FILE = "haadf_kernels.json"
_NEAR = 0.05  # relative; detectors' angles are known no better, and a kernel's width goes as lambda / alpha
_ELECTRON_KEV = 511.0
_HC_KEV_NM = 1.23984
_BOHR_NM = 0.0529177


@dataclass(frozen=True)
class Kernel:
    """How the image of one column, or of one atom, spreads; source size not included.

    Attributes
    ----------
    contrast : channelling: integrated intensity over atoms times cross-section
    core_nm : sigma of the narrow Gaussian, nm
    tail_share : of the integrated intensity, in the broad Gaussian
    tail_nm : sigma of the broad Gaussian, nm
    """

    contrast: float
    core_nm: float
    tail_share: float
    tail_nm: float


class _Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of column: `Kernel`'s numbers, one per thickness."""

    contrast: tuple[Positive, ...]
    core_nm: tuple[Positive, ...]
    tail_share: tuple[Share, ...]
    tail_nm: tuple[Positive, ...]


class _Crystal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A crystal's columns by thickness, and what they were computed with (see the script)."""

    thickness_nm: tuple[NotNegative, ...]
    columns: dict[str, _Column]
    picture_misfit: tuple[NotNegative, ...]
    mean_share: tuple[NotNegative, ...]
    cell_nm: tuple[Positive, Positive, Positive]
    thermal_nm: dict[str, Positive]
    thermal_source: str
    configurations: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_table(self.thickness_nm, [row for c in self.columns.values() for row in msgspec.structs.astuple(c)])


class _FreeSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A probe in free space, averaged over depths up to `depth` (lambda / alpha^2); lengths in lambda / alpha."""

    depth: tuple[NotNegative, ...]
    core: tuple[Positive, ...]
    tail_share: tuple[Share, ...]
    tail: tuple[Positive, ...]

    def __post_init__(self) -> None:
        _check_table(self.depth, [self.core, self.tail_share, self.tail])


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file: the microscope it was computed for, and the numbers."""

    made_by: str
    energy_kv: Positive
    convergence_mrad: Positive
    collection_mrad: tuple[Positive, Positive]
    potential: str
    cross_section_nm2: dict[str, Positive]
    free_space: _FreeSpace
    crystals: dict[str, _Crystal]


def cross_section_nm2(element: str, beam: ProbeBeam) -> float:
    """Return the cross-section for scattering onto the HAADF detector, nm^2 per atom.

    Parameters
    ----------
    element : str
        Symbol. Between the elements of the table the cross-section goes as a power of Z, fitted to its neighbours;
        beyond them, as between the last two.
    beam : ProbeBeam
        Energy and angles.

    Raises
    ------
    UsageError
        If there is no such element.

    Notes
    -----
    The table is exact for its own microscope: one atom's phase grating, averaged over the probe's angles. For another
    it is scaled by the screened Rutherford cross-section [2]_ between the detector's angles: within 8 % of a phase
    grating's at 200-300 kV and inner angles of 40-80 mrad; at 80 kV up to 35 % too large for Pt and Au, which one
    scattering event no longer describes.
    """
    if element not in SYMBOLS:
        raise UsageError(f"no element {element!r}; use a chemical symbol such as La")
    table = _table()
    z = SYMBOLS.index(element) + 1
    known = sorted((SYMBOLS.index(e) + 1, value) for e, value in table.cross_section_nm2.items())
    above = min(max(sum(k <= z for k, _ in known), 1), len(known) - 1)
    (z0, low), (z1, high) = known[above - 1 : above + 1]
    power = math.log(high / low) / math.log(z1 / z0)
    own = low * (z / z0) ** power
    here = _screened(z, beam.energy_kv, beam.collection_mrad)
    return float(own * here / _screened(z, table.energy_kv, table.collection_mrad))


def kernel(crystal: str, column: str, thickness_nm: float) -> Kernel:
    """Return the kernel of a kind of column.

    Parameters
    ----------
    crystal, column : str
        As `known_crystals` names them, such as "SrTiO3-001" and "Ti+O".
    thickness_nm : float
        Of the crystal; between computed thicknesses numbers go linearly, beyond the last they stay.

    Raises
    ------
    UsageError
        If the crystal or the column is not known.
    """
    crystals = _table().crystals
    if crystal not in crystals:
        raise UsageError(f"no HAADF kernel for crystal {crystal!r}; use one of {', '.join(crystals)}")
    columns = crystals[crystal].columns
    if column not in columns:
        raise UsageError(f"no column {column!r} in {crystal}; use one of {', '.join(columns)}")
    return Kernel(*_between(thickness_nm, crystals[crystal].thickness_nm, msgspec.structs.astuple(columns[column])))


def incoherent(thickness_nm: float, beam: ProbeBeam) -> Kernel:
    """Return the kernel of atoms that stand in no column: amorphous matter, or a crystal off its zone axis.

    Parameters
    ----------
    thickness_nm : float
        Of the matter; the probe is in focus where it enters.
    beam : ProbeBeam
        Energy and convergence.

    Notes
    -----
    Contrast 1 by definition. The widths are those of the probe's diffraction and of its cone averaged over depth
    (rms about alpha t / sqrt(12) in thick matter); thermal motion and multiple scattering are not in them. Multislice
    through atoms at random places gives the same widths within 6 % (LaFeO3 and C to 50 nm; Pt at 20 nm: 18 % more),
    and a detector's signal within 10 % of the sum over atoms, even where that is 0.18 of the beam: what is scattered
    twice makes up for what is lost.
    """
    wavelength = _wavelength_nm(beam.energy_kv)
    alpha = beam.convergence_mrad * 1e-3
    free = _table().free_space
    depth = thickness_nm * alpha**2 / wavelength
    core, share, tail = _between(depth, free.depth, (free.core, free.tail_share, free.tail))
    return Kernel(1.0, core * wavelength / alpha, share, tail * wavelength / alpha)


def known_crystals() -> dict[str, tuple[str, ...]]:
    """Return the columns of each crystal that `kernel` knows."""
    return {name: tuple(crystal.columns) for name, crystal in _table().crystals.items()}


def fits(beam: ProbeBeam) -> bool:
    """Return whether crystals' kernels were computed for a beam like this: within 5 % in energy and every angle."""
    table = _table()
    pairs = (
        (beam.energy_kv, table.energy_kv),
        (beam.convergence_mrad, table.convergence_mrad),
        *zip(beam.collection_mrad, table.collection_mrad, strict=True),
    )
    return all(abs(here / there - 1) <= _NEAR for here, there in pairs)


@functools.cache
def _table() -> _Table:
    """Return the file that comes with livestem; it never changes."""
    return msgspec.json.decode(resources.files(__package__).joinpath(_FILE).read_bytes(), type=_Table)


def _between(at: float, places: Sequence[float], rows: Sequence[Sequence[float]]) -> list[float]:
    return [float(np.interp(at, places, row)) for row in rows]


def _check_table(places: Sequence[float], rows: Sequence[Sequence[float]]) -> None:
    if not places or places[0] != 0 or any(b <= a for a, b in zip(places, places[1:], strict=False)):
        raise ValueError("thicknesses must rise from 0")
    if any(len(row) != len(places) for row in rows):
        raise ValueError("every row needs one number per thickness")


def _wavelength_nm(energy_kv: float) -> float:
    return _HC_KEV_NM / math.sqrt(energy_kv**2 + 2 * energy_kv * _ELECTRON_KEV)


def _screened(z: int, energy_kv: float, collection_mrad: tuple[float, float]) -> float:
    """Return the screened Rutherford cross-section between two angles, up to a factor that depends on Z alone."""
    momentum_speed = (energy_kv**2 + 2 * energy_kv * _ELECTRON_KEV) / (energy_kv + _ELECTRON_KEV)
    screen = _wavelength_nm(energy_kv) * z ** (1 / 3) / (2 * math.pi * _BOHR_NM)
    inner, outer = (1 / ((angle * 1e-3) ** 2 + screen**2) for angle in collection_mrad)
    return float((inner - outer) / momentum_speed**2)
