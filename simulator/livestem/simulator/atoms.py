"""Where the atoms are: columns of crystals, grains, particles and random packings, as lists of places and numbers.

The beam sees a projection, so an entry is a place (u, v) in the specimen's frame and the number of columns' units
there: a column of an aligned crystal is one entry, a tilted one is an entry per atom, and so is an atom of a
packing. Whatever chance decides, a grain's turn or a column's displacement, follows from the place and the seed:
windows on one specimen agree where they overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from livestem.simulator.crystals import Atoms, Box, chance, crystal_columns, grain, grain_columns, leaned, only
from livestem.simulator.geometry import Geometry, Particle
from livestem.simulator.materials import Amorphous, Crystal, Grains, Material
from livestem.simulator.packing import Block, equal_block, stated_block

_WALL_NM = 0.15  # rms wander of a border through the foil's depth: a fraction of a cell (choice; no better is known)
_LEAST = 0.02  # share of the depth that is laid at all
_STEP_NM = 0.05  # classes are looked up this finely: an eighth of a unit cell
_CARBON_PER_NM3 = 100.0  # atoms in amorphous carbon of 2.0 g/cm3 (Robertson, Mater. Sci. Eng. R 37, 129, 2002)
_CARBON_NM = 0.01  # rms displacement of light atoms; the probe is three times as wide
_PARTICLE, _CARBON = 22, 99  # what the random numbers are for; each has its own


def place_atoms(geometry: Geometry, box: Box, *, ordered: bool = True) -> list[Atoms]:
    """Return all atoms in a box of the specimen's frame.

    Parameters
    ----------
    geometry : Geometry
    box : (u0, u1, v0, v1), nm
    ordered : bool
        False puts the atoms of crystals into random packings of the same density: what the beam leaves of them.
    """
    specimen, grid = geometry.specimen, _ClassGrid(geometry, box)
    out: list[Atoms] = []
    for label, material in enumerate(specimen.classes):
        on_top = [p for p in geometry.particles if p.label == label and _touches(p, box)]
        for particle in on_top:
            out += _particle(particle, material, geometry.seed, ordered=ordered)
        mine = grid.box_of(label)
        if mine is None:
            continue
        crystalline = not isinstance(material.structure, Amorphous)
        skin = 2 * specimen.surface_nm if ordered and crystalline else 0.0
        out += [grid.keep(atoms, label, 1.0, -skin) for atoms in _matter(material, mine, geometry, ordered=ordered)]
        if skin:
            out += [grid.keep(a, label, 0.0, skin) for a in _packed(material, mine, skin, geometry.seed, label)]
    if carbon := specimen.strays.get("C"):
        out += _carbon(geometry, grid, carbon)
    return [a for a in out if a.u.size]


class _ClassGrid:
    """Class and thickness of the foil on a fine grid, for millions of atoms at once.

    A border stands differently at different depths of the foil. What the beam sees in projection is its mean: near a
    border every column is of both classes, each as deep as its share, and the shares of all classes sum to 1.
    """

    def __init__(self, geometry: Geometry, box: Box) -> None:
        u0, u1, v0, v1 = (_STEP_NM * math.floor(side / _STEP_NM) for side in box)  # every window's grid is the same one
        self._origin = u0, v0
        self._specimen = geometry.specimen
        u = np.arange(u0, u1 + 2 * _STEP_NM, _STEP_NM)
        v = np.arange(v0, v1 + 2 * _STEP_NM, _STEP_NM)
        self.u, self.v = np.meshgrid(u, v)
        self.label = geometry.foil_class(self.u, self.v)
        self._shares: dict[int, NDArray[np.float32]] = {}

    def share(self, label: int) -> NDArray[np.float32]:
        """Return how much of the foil's depth is of a class, at every point of the grid."""
        from scipy.ndimage import gaussian_filter

        if label not in self._shares:
            mine = (self.label == label).astype(np.float32)
            self._shares[label] = gaussian_filter(mine, _WALL_NM / _STEP_NM)
        return self._shares[label]

    def box_of(self, label: int) -> Box | None:
        """Return the box around a class, or None where there is none of it."""
        mine = self.share(label) >= _LEAST
        if not mine.any():
            return None
        u, v = self.u[0][mine.any(axis=0)], self.v[:, 0][mine.any(axis=1)]
        return float(u[0]) - _STEP_NM, float(u[-1]) + _STEP_NM, float(v[0]) - _STEP_NM, float(v[-1]) + _STEP_NM

    def keep(self, atoms: Atoms, label: int, foils: float, more_nm: float) -> Atoms:
        """Keep the atoms in a class; they come for 1 nm, and leave for its share of `foils` foils and `more_nm`."""
        col = np.rint((atoms.u - self._origin[0]) / _STEP_NM).astype(np.intp)
        row = np.rint((atoms.v - self._origin[1]) / _STEP_NM).astype(np.intp)
        inside = (row >= 0) & (row < self.label.shape[0]) & (col >= 0) & (col < self.label.shape[1])
        inside[inside] = self.share(label)[row[inside], col[inside]] >= _LEAST
        kept = only(atoms, inside)
        share = self.share(label)[row[inside], col[inside]]
        deep = share * np.maximum(foils * self._specimen.foil_nm(kept.u, kept.v) + more_nm, 0.0)
        return replace(kept, number=kept.number * deep, depth_nm=kept.depth_nm * deep)


def _matter(material: Material, box: Box, geometry: Geometry, *, ordered: bool) -> Iterator[Atoms]:
    """Yield the atoms of a material over a box, for 1 nm of depth."""
    structure, specimen = material.structure, geometry.specimen
    if isinstance(structure, Amorphous) or not ordered:
        yield from _packed(
            material, box, specimen.thickness_nm, geometry.seed, specimen.class_names.index(material.name)
        )
    elif isinstance(structure, Crystal):
        yield from crystal_columns(structure, box, _anchor(geometry, material.name), geometry.seed)
    else:
        yield from grain_columns(structure, box, specimen.thickness_nm, geometry.seed)


def _anchor(geometry: Geometry, name: str) -> tuple[float, float]:
    """Return a lattice point (u, v): on the layer's mean lower border, where a film continues its substrate."""
    tops, layers = geometry.specimen.layer_tops_nm, geometry.specimen.layer
    within = {p.material: p.within for p in geometry.specimen.within}
    home = within.get(name, name)
    number = next((i for i, layer in enumerate(layers) if layer.material == home), 0)
    return 0.0, tops[min(number + 1, len(tops) - 1)] if len(tops) > 1 else 0.0


def _particle(particle: Particle, material: Material, seed: int, *, ordered: bool) -> Iterator[Atoms]:
    """Yield the atoms of a particle: each column as deep as the sphere is there."""
    rng = chance(seed, _PARTICLE, round(particle.u * 1000), round(particle.v * 1000))
    middle, r = np.array([particle.u, particle.v]), particle.radius_nm
    box = (particle.u - r, particle.u + r, particle.v - r, particle.v + r)
    structure = material.structure
    if isinstance(structure, Amorphous) or not ordered:
        found, slip = list(_packed(material, box, 2 * r, seed, particle.label)), np.zeros((1, 2))
    else:
        found, slip = grain(structure, middle, r, 2 * r, rng)
    for atoms in found:
        deep = 2 * np.sqrt(np.maximum(r**2 - (atoms.u - particle.u) ** 2 - (atoms.v - particle.v) ** 2, 0.0))
        within = only(replace(atoms, number=atoms.number * deep, depth_nm=deep), deep > 0)
        yield leaned(within, slip)


def _packed(material: Material, box: Box, depth_nm: float, seed: int, purpose: int) -> Iterator[Atoms]:
    """Yield the atoms of a random packing of a material `depth_nm` deep, counted for 1 nm."""
    structure = material.structure
    thermal = structure.zones[0].thermal_nm if isinstance(structure, Grains) else structure.thermal_nm
    if isinstance(structure, Amorphous):
        block = stated_block(structure, seed, purpose)
    else:
        block = equal_block(structure.density, seed)
    yield from _filled(block, box, depth_nm, thermal, seed, purpose)


def _filled(block: Block, box: Box, depth_nm: float, thermal_nm: float, seed: int, purpose: int) -> Iterator[Atoms]:
    """Yield the atoms of a packing `depth_nm` deep, counted for 1 nm."""
    places, share = block.fill(box, depth_nm, seed, purpose)
    for element, (u, v) in zip(block.elements, places, strict=True):
        number, one = np.full(u.size, share / depth_nm), np.ones(u.size)
        yield Atoms(unit={element: 1.0}, kernel=None, thermal_nm=thermal_nm, u=u, v=v, number=number, depth_nm=one)


def _carbon(geometry: Geometry, grid: _ClassGrid, percent: float) -> Iterator[Atoms]:
    """Yield the contamination on the foil: the carbon among the strays, as a film over everything."""
    specimen = geometry.specimen
    block = equal_block({"C": _CARBON_PER_NM3}, geometry.seed)
    for label, material in enumerate(specimen.classes):
        box = grid.box_of(label)
        per_nm = sum(material.structure.density.values()) * percent / 100 / _CARBON_PER_NM3  # nm of film per nm of foil
        if box is not None:
            depth = per_nm * specimen.thickness_nm
            for film in _filled(block, box, depth, _CARBON_NM, geometry.seed, _CARBON):
                yield grid.keep(replace(film, number=per_nm * film.number), label, 1.0, 0.0)


def _touches(particle: Particle, box: Box) -> bool:
    u0, u1, v0, v1 = box
    r = particle.radius_nm
    return u0 - r < particle.u < u1 + r and v0 - r < particle.v < v1 + r
