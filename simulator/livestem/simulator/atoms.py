"""Where the atoms are: columns of crystals, grains, and random packings, as lists of places and numbers.

The beam sees a projection, so an entry is a place (u, v) in the specimen's frame, an element, and the number
of atoms there: a column of an aligned crystal is one entry, a tilted one is an entry per atom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.simulator.materials import Amorphous, Crystal, Grains
from livestem.simulator.specimen import Specimen

Floats = NDArray[np.float64]
_MARGIN_NM = 1.5  # atoms are placed this far beyond the field: wider than any probe's tail and any row's slip
_JITTER = 0.2  # of the grain size: seeds leave their places by at most this, so that grains differ
_REACH = math.sqrt(0.5) + math.sqrt(2) * _JITTER  # no point is farther than this (in grain sizes) from a seed
_SLAB_NM = 2.0  # depth that is packed at once: several atoms deep; the foil is a stack of such slabs
_SWEEPS = 40  # of relaxation: the mean overlap is then below 1 % of the contact distance (tested)
_RELIST = 4  # sweeps for which one list of neighbours serves ...
_SKIN = 1.2  # ... because it reaches this much farther than contact


@dataclass(frozen=True, kw_only=True)
class Atoms:
    """Projected atoms of one element in one material: (u, v) in nm, and how many at each place."""

    element: str
    thermal_nm: float
    u: Floats
    v: Floats
    number: Floats


def place_atoms(specimen: Specimen, rng: np.random.Generator) -> list[Atoms]:
    """Return all atoms in and closely around the field.

    Parameters
    ----------
    specimen : Specimen
    rng : numpy Generator
        For grains and random packings.
    """
    out: list[Atoms] = []
    for number, material in enumerate(specimen.classes):
        box = _box(specimen, number)
        structure = material.structure
        if isinstance(structure, Crystal):
            placed = _crystal(structure, box, _anchor(specimen, material.name), specimen.thickness_nm)
        elif isinstance(structure, Grains):
            placed = _grains(structure, box, specimen.thickness_nm, rng)
        else:
            placed = _amorphous(structure, box, specimen.thickness_nm, rng)
        for atoms in placed:
            mine = specimen.class_at(atoms.u, atoms.v) == number
            out.append(
                Atoms(
                    element=atoms.element,
                    thermal_nm=atoms.thermal_nm,
                    u=atoms.u[mine],
                    v=atoms.v[mine],
                    number=atoms.number[mine],
                )
            )
    return out


def _box(specimen: Specimen, number: int) -> tuple[float, float, float, float]:
    """Return (u0, u1, v0, v1) around a class in the field and its margin, nm."""
    height, width = specimen.field_nm
    y = np.linspace(-_MARGIN_NM, height + _MARGIN_NM, 256)
    x = np.linspace(-_MARGIN_NM, width + _MARGIN_NM, 256)
    u, v = specimen.to_specimen(*np.meshgrid(y, x, indexing="ij"))
    mine = specimen.class_at(u, v) == number
    if not mine.any():
        return (0.0, 0.0, 0.0, 0.0)
    step = max(y[1] - y[0], x[1] - x[0])
    u, v = u[mine], v[mine]
    return float(u.min() - step), float(u.max() + step), float(v.min() - step), float(v.max() + step)


def _anchor(specimen: Specimen, name: str) -> float:
    """Return the depth of a lattice plane: the layer's lower border, where a film continues its substrate."""
    tops = specimen.layer_tops_nm
    for i, layer in enumerate(specimen.layer):
        if layer.material == name:
            return tops[min(i + 1, len(tops) - 1)] if len(tops) > 1 else 0.0
    return tops[-1] if len(tops) > 1 else 0.0


def _lattice(
    cell: tuple[float, float], box: tuple[float, float, float, float], v_anchor: float
) -> tuple[Floats, Floats]:
    u0, u1, v0, v1 = box
    u = np.arange(math.floor(u0 / cell[0]), math.ceil(u1 / cell[0]) + 1) * cell[0]
    v = np.arange(math.floor((v0 - v_anchor) / cell[1]), math.ceil((v1 - v_anchor) / cell[1]) + 1) * cell[1]
    grid_v, grid_u = np.meshgrid(v + v_anchor, u, indexing="ij")
    return grid_u.ravel(), grid_v.ravel()


def _crystal(
    crystal: Crystal, box: tuple[float, float, float, float], v_anchor: float, thickness_nm: float
) -> list[Atoms]:
    corner_u, corner_v = _lattice(crystal.cell_nm, box, v_anchor)
    out = []
    for site in crystal.sites:
        u = corner_u + site.at[0] * crystal.cell_nm[0]
        v = corner_v + site.at[1] * crystal.cell_nm[1]
        for element, per_period in site.atoms.items():
            number = np.full(u.size, per_period * thickness_nm / crystal.period_nm)
            out.append(Atoms(element=element, thermal_nm=crystal.thermal_nm, u=u, v=v, number=number))
    return out


def _grains(
    grains: Grains, box: tuple[float, float, float, float], thickness_nm: float, rng: np.random.Generator
) -> list[Atoms]:
    """Voronoi cells of jittered seeds; every cell one zone, one direction, one tilt."""
    from scipy.spatial import cKDTree

    size = grains.grain_nm
    u0, u1, v0, v1 = box
    seed_u, seed_v = _lattice((size, size), (u0 - size, u1 + size, v0 - size, v1 + size), 0.0)
    seeds = np.stack([seed_u, seed_v], axis=1) + rng.uniform(-_JITTER, _JITTER, (seed_u.size, 2)) * size
    tree = cKDTree(seeds)
    out = []
    for i, (u, v) in enumerate(seeds):
        zone = grains.zones[rng.integers(len(grains.zones))]
        turn, lean = rng.uniform(0, 2 * math.pi, 2)
        tilt = math.radians(rng.normal(0, grains.tilt_deg))
        reach = _REACH * size
        for atoms in _crystal(zone, (-reach, reach, -reach, reach), 0.0, thickness_nm):
            at_u = u + math.cos(turn) * atoms.u - math.sin(turn) * atoms.v
            at_v = v + math.sin(turn) * atoms.u + math.cos(turn) * atoms.v
            inside = (at_u >= u0) & (at_u <= u1) & (at_v >= v0) & (at_v <= v1)
            at = np.stack([at_u[inside], at_v[inside]], axis=1)
            mine = tree.query(at)[1] == i
            out.append(_tilt(atoms, at[mine], math.tan(tilt), lean, thickness_nm, zone.period_nm))
    return out


def _tilt(atoms: Atoms, at: Floats, slope: float, lean: float, thickness_nm: float, period_nm: float) -> Atoms:
    """Lay the columns `at` down: a tilted column is seen as the row of its atoms."""
    layers = max(1, round(thickness_nm / period_nm))
    slip = ((np.arange(layers) + 0.5) / layers - 0.5) * thickness_nm * slope
    number = atoms.number[0] if atoms.number.size else 0.0
    return Atoms(
        element=atoms.element,
        thermal_nm=atoms.thermal_nm,
        u=(at[:, :1] + slip * math.cos(lean)).ravel(),
        v=(at[:, 1:] + slip * math.sin(lean)).ravel(),
        number=np.full(at.shape[0] * layers, number / layers),
    )


def _amorphous(
    matter: Amorphous, box: tuple[float, float, float, float], thickness_nm: float, rng: np.random.Generator
) -> list[Atoms]:
    """Stack shifted and mirrored copies of one packed slab: each projects as another random packing would."""
    u0, u1, v0, v1 = box
    if u1 <= u0:
        return []
    slabs = max(1, round(thickness_nm / _SLAB_NM))
    side = np.array([u1 - u0, v1 - v0, thickness_nm / slabs])
    elements = sorted(matter.composition)
    count = [round(matter.density[e] * float(side.prod())) for e in elements]
    kind = np.repeat(np.arange(len(elements)), count)
    place = random_packing(side, np.array([matter.radius_nm[e] for e in elements])[kind], rng)[:, :2]
    copies = []
    for _ in range(slabs):
        flip = rng.integers(0, 2, 2) * 2 - 1
        copies.append((place * flip + rng.uniform(0, 1, 2) * side[:2]) % side[:2])
    out = []
    for k, element in enumerate(elements):
        at = np.concatenate([copy[kind == k] for copy in copies]) + (u0, v0)
        out.append(
            Atoms(
                element=element,
                thermal_nm=matter.thermal_nm,
                u=at[:, 0],
                v=at[:, 1],
                number=np.ones(at.shape[0]),
            )
        )
    return out


def random_packing(side_nm: Floats, radius_nm: Floats, rng: np.random.Generator) -> Floats:
    """Pack spheres at random into a periodic box.

    Parameters
    ----------
    side_nm : (3,) float64
        Sides of the box, nm.
    radius_nm : (N,) float64
        Hard-core radius of every sphere, nm.
    rng : numpy Generator

    Returns
    -------
    (N, 3) float64
        Places, nm. Pairs keep the sum of their radii apart, but for a few per cent of overlap.

    Notes
    -----
    Points begin independent and uniform; each sweep pushes every overlapping pair apart by its overlap, half
    each (soft spheres, steepest descent [1]_). Unlike noise on a lattice it has no long-range order at all.

    References
    ----------
    .. [1] O'Hern et al., Phys. Rev. E 68 (2003) 011306.
    """
    from scipy.spatial import cKDTree

    place = rng.uniform(0, 1, (radius_nm.size, 3)) * side_nm
    reach = 2 * float(radius_nm.max(initial=0.0))
    if radius_nm.size < 2 or reach >= 0.5 * float(side_nm.min()):
        return place  # nothing to keep apart, or a sliver thinner than two atoms
    for sweep in range(_SWEEPS):
        if sweep % _RELIST == 0:
            tree = cKDTree(place, boxsize=side_nm)
            first, second = tree.query_pairs(_SKIN * reach, output_type="ndarray").T
        apart = place[first] - place[second]
        apart -= side_nm * np.rint(apart / side_nm)
        distance = np.maximum(np.sqrt((apart * apart).sum(axis=1)), 1e-9)
        overlap = radius_nm[first] + radius_nm[second] - distance
        hit = overlap > 0
        push = apart[hit] * (0.5 * overlap[hit] / distance[hit])[:, None]
        for axis in range(3):
            place[:, axis] += np.bincount(first[hit], push[:, axis], place.shape[0])
            place[:, axis] -= np.bincount(second[hit], push[:, axis], place.shape[0])
        place %= side_nm
        place = np.where(place < side_nm, place, 0.0)  # a tiny negative number modulo the side rounds up to the side
    return place
