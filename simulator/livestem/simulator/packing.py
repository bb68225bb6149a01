"""Amorphous matter: atoms packed at random, without end and without a lattice.

One periodic block is packed and relaxed. Space is filled with copies of it, each shifted and mirrored by chance of
its own: every copy projects as another packing would, nothing repeats, and only along the seams of the copies
may atoms come closer than they should. A place's chance follows from the place and the seed, so two scans of one
specimen see the same atoms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.simulator.materials import Amorphous
from livestem.simulator.parts import Floats

_SIDE_NM = 6.0  # of a block along the foil: many atoms wide, and small enough to be packed in a second
_SLAB_NM = 2.0  # of a block along the beam: several atoms deep; the foil is a stack of such slabs
_EQUALS = 6000  # atoms in the block of equal spheres that serves all matter without stated radii
_LOOSE = 0.45  # share of space that atoms of matter without stated radii fill: dense, and far from jammed at 0.64
_FILLED, _STATED, _EQUAL, _DEALT = range(10, 14)  # what the random numbers are for; each has its own
_SWEEPS = 40  # of relaxation: the mean overlap is then below 1 % of the contact distance (tested)
_RELIST = 4  # sweeps for which one list of neighbours serves ...
_SKIN = 1.2  # ... because it reaches this much farther than contact


@dataclass(frozen=True)
class Block:
    """A periodic block of packed atoms.

    Attributes
    ----------
    elements : of the atoms
    kind : (N,) index into `elements`
    place : (N, 2) along the foil, nm, within 0..`side_nm`
    side_nm, slab_nm : of the block, along the foil and along the beam
    """

    elements: tuple[str, ...]
    kind: NDArray[np.intp]
    place: Floats
    side_nm: float
    slab_nm: float

    def fill(
        self, box: tuple[float, float, float, float], depth_nm: float, seed: int, purpose: int
    ) -> tuple[list[tuple[Floats, Floats]], float]:
        """Fill a box (u0, u1, v0, v1), nm, to a depth along the beam.

        Returns
        -------
        list of (u, v) by element, and the share of each atom that counts: slabs are whole, depths are not
        """
        u0, u1, v0, v1 = box
        side, slabs = self.side_nm, max(1, math.ceil(depth_nm / self.slab_nm))
        found: list[list[Floats]] = [[] for _ in self.elements]
        for i in range(math.floor(u0 / side), math.ceil(u1 / side)):
            for j in range(math.floor(v0 / side), math.ceil(v1 / side)):
                key = (_FILLED, purpose, i % 2**32, j % 2**32)  # keys are unsigned; negative cells wrap far away
                rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
                for _ in range(slabs):
                    mirror = rng.integers(0, 2, 2) * 2 - 1
                    copy = (self.place * mirror + rng.uniform(0, side, 2)) % side + (i * side, j * side)
                    inside = (copy[:, 0] >= u0) & (copy[:, 0] < u1) & (copy[:, 1] >= v0) & (copy[:, 1] < v1)
                    for k in range(len(self.elements)):
                        found[k].append(copy[inside & (self.kind == k)])
        placed = [np.concatenate(parts) if parts else np.empty((0, 2)) for parts in found]
        return [(p[:, 0], p[:, 1]) for p in placed], depth_nm / (slabs * self.slab_nm)


def stated_block(matter: Amorphous, seed: int, purpose: int) -> Block:
    """Pack a block of amorphous matter with the radii it states."""
    elements = tuple(sorted(matter.composition))
    side = np.array([_SIDE_NM, _SIDE_NM, _SLAB_NM])
    count = [round(matter.density[e] * float(side.prod())) for e in elements]
    kind = np.repeat(np.arange(len(elements)), count)
    radius = np.array([matter.radius_nm[e] for e in elements])[kind]
    place = random_packing(
        side, radius, np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STATED, purpose)))
    )
    return Block(elements, kind, place[:, :2], _SIDE_NM, _SLAB_NM)


def equal_block(density: Mapping[str, float], seed: int) -> Block:
    """Return a block of equal spheres, scaled to `density` (atoms per nm^3), elements dealt out by chance."""
    elements = tuple(sorted(density))
    total = sum(density.values())
    scale = (_EQUALS / total / (_SIDE_NM**2 * _SLAB_NM)) ** (1 / 3)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DEALT,)))
    share = np.cumsum([density[e] / total for e in elements])
    kind = np.searchsorted(share, rng.permutation(_EQUALS) / _EQUALS, side="right")
    return Block(elements, kind, scale * _equal_spheres(seed), scale * _SIDE_NM, scale * _SLAB_NM)


@functools.lru_cache(maxsize=4)  # seeds at a time; packing takes half a second, and all matter of a specimen shares it
def _equal_spheres(seed: int) -> Floats:
    side = np.array([_SIDE_NM, _SIDE_NM, _SLAB_NM])
    radius = (_LOOSE * float(side.prod()) * 3 / (4 * math.pi * _EQUALS)) ** (1 / 3)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_EQUAL,)))
    return random_packing(side, np.full(_EQUALS, radius), rng)[:, :2]


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
