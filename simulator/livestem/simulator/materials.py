"""Materials of a specimen: how their atoms are arranged; composition and density follow.

Three arrangements: a ``crystal`` seen along a zone axis, ``grains`` of crystals in random directions,
and ``amorphous`` matter, whose atoms only keep their distances. Another one is another tagged Struct with a
``density`` and a builder in ``atoms``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from livestem.domain.elements import SYMBOLS
from livestem.domain.names import check_name
from livestem.simulator.instrument import NotNegative, Positive
from livestem.simulator.kernels import known_crystals

Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_SAME_DENSITY = 0.01  # zones of one material differ by rounding only


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A column of atoms: place in the cell (fractions along u, v) and atoms of each element per period."""

    at: tuple[Fraction, Fraction]
    atoms: Annotated[dict[str, Positive], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        check_elements(self.atoms)

    @property
    def column(self) -> str:
        """Name of the column in the kernels' table: its elements, heaviest first, such as ``Ti+O``."""
        return "+".join(sorted(self.atoms, key=SYMBOLS.index, reverse=True))


class Crystal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="crystal"):
    """A crystal along a zone axis.

    Attributes
    ----------
    cell_nm : (u, v) sides of the rectangular projected cell, nm
    period_nm : repeat along the beam, nm
    thermal_nm : rms displacement of the atoms along one direction by heat, nm
    static_nm : rms displacement of whole columns along one direction by defects, nm
    turn_deg : rotation of the lattice against the layers, degrees, positive down to the right
    kernel : name of the computed HAADF kernels (``kernels``); None: as scattering without channelling
    sites : the columns of one cell
    """

    cell_nm: tuple[Positive, Positive]
    period_nm: Positive
    thermal_nm: Positive
    static_nm: NotNegative = 0.0
    turn_deg: Annotated[float, msgspec.Meta(ge=-45, le=45)] = 0.0
    kernel: str | None = None
    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if not self.sites:
            raise ValueError("a crystal needs at least one site")
        if self.kernel is not None:
            for site in self.sites:
                check_kernel(self.kernel, site.column)

    @property
    def density(self) -> dict[str, float]:
        """Atoms of each element per nm^3."""
        volume = self.cell_nm[0] * self.cell_nm[1] * self.period_nm
        total: dict[str, float] = {}
        for site in self.sites:
            for element, number in site.atoms.items():
                total[element] = total.get(element, 0.0) + number / volume
        return total

    @property
    def channels(self) -> bool:
        """Whether its columns have computed HAADF kernels."""
        return self.kernel is not None

    @property
    def d_spacing_nm(self) -> float | None:
        """Longest spacing of the lattice, nm."""
        return max(self.cell_nm)


class Grains(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="grains"):
    """Columnar grains of about `grain_nm`, each along one of `zones`, turned at random, tilted a little."""

    grain_nm: Positive
    tilt_deg: Annotated[float, msgspec.Meta(ge=0, le=10)]  # beyond, columns are no columns
    zones: tuple[Crystal, ...]

    def __post_init__(self) -> None:
        if not self.zones:
            raise ValueError("grains need at least one zone")
        first = self.zones[0].density
        for zone in self.zones[1:]:
            same = zone.density.keys() == first.keys() and all(
                abs(zone.density[e] / first[e] - 1) < _SAME_DENSITY for e in first
            )
            if not same:
                raise ValueError("the zones of a material differ in density: one of their cells is wrong")

    @property
    def density(self) -> dict[str, float]:
        """Atoms of each element per nm^3."""
        return self.zones[0].density

    @property
    def channels(self) -> bool:
        """Whether its columns have computed HAADF kernels."""
        return any(zone.channels for zone in self.zones)

    @property
    def d_spacing_nm(self) -> float | None:
        """None: a region of several grains has no one lattice."""
        return None


class Amorphous(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="amorphous"):
    """Random dense packing: atoms of `composition` (at.%) that keep the sum of their `radius_nm` apart."""

    composition: dict[str, Positive]
    atoms_per_nm3: Positive
    thermal_nm: Positive
    radius_nm: dict[str, Positive]

    def __post_init__(self) -> None:
        check_elements(self.composition)
        if abs(sum(self.composition.values()) - 100) > 0.1:
            raise ValueError(f"the composition sums to {sum(self.composition.values()):g} %, not to 100")
        if self.composition.keys() != self.radius_nm.keys():
            raise ValueError("composition and radius_nm must name the same elements")
        if self.packing > _DENSEST:
            raise ValueError(
                f"atoms fill {self.packing:.0%} of the space, and random packing reaches {_DENSEST:.0%}; "
                "lower radius_nm or atoms_per_nm3"
            )

    @property
    def packing(self) -> float:
        """Share of the space that the hard cores fill."""
        return sum(n * 4.18879 * self.radius_nm[e] ** 3 for e, n in self.density.items())

    @property
    def density(self) -> dict[str, float]:
        """Atoms of each element per nm^3."""
        return {e: self.atoms_per_nm3 * share / 100 for e, share in self.composition.items()}

    @property
    def channels(self) -> bool:
        """Whether its columns have computed HAADF kernels."""
        return False

    @property
    def d_spacing_nm(self) -> float | None:
        """None: there is no lattice."""
        return None


_DENSEST = 0.60  # random close packing of spheres is 0.64; relaxation comes close to it, not there

Structure = Crystal | Grains | Amorphous


class Material(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named class of the specimen: `name` an identifier, `title` free text."""

    name: str
    title: str
    structure: Structure

    def __post_init__(self) -> None:
        check_name(self.name, "material")

    @property
    def composition(self) -> dict[str, float]:
        """Atomic percent of each element."""
        density = self.structure.density
        total = sum(density.values())
        return {e: 100 * n / total for e, n in density.items()}


def check_elements(symbols: Iterable[str]) -> None:
    """Raise ValueError if one of the `symbols` is no element."""
    if unknown := [s for s in symbols if s not in SYMBOLS]:
        raise ValueError(f"unknown element {', '.join(unknown)}; use symbols such as Fe or O")


def check_kernel(crystal: str, column: str) -> None:
    """Raise ValueError if there is no computed kernel for a column of a crystal."""
    known = known_crystals()
    if crystal not in known:
        raise ValueError(f"no kernel {crystal}; there are {', '.join(known)}; without one the crystal does not channel")
    if column not in known[crystal]:
        raise ValueError(f"kernel {crystal} has no column {column}; it has {', '.join(known[crystal])}")
