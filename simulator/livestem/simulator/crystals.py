"""Crystals and grains as lists of projected columns; a tilted column is an entry per atom.

Whatever chance decides, a grain's turn or a column's displacement, follows from the place and the seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from livestem.simulator.materials import Crystal, Grains
from livestem.simulator.parts import Floats

Box = tuple[float, float, float, float]  # u0, u1, v0, v1 in the specimen's frame, nm

_JITTER = 0.5  # of the grain size: seeds leave their places by at most this, so that grains are no bricks
_REACH = math.sqrt(0.5) + math.sqrt(2) * _JITTER  # no point is farther than this (in grain sizes) from a seed
_OVERLAP_NM = 0.6  # over which one grain passes into the next: boundaries lean by some degrees in a foil of 40 nm
_NEIGHBOURS = 4  # grains that may meet at a place
_LEAST = 0.02  # share of the depth that is laid at all
_GRAIN, _COLUMN = 20, 21  # what the random numbers are for; each has its own


@dataclass(frozen=True, kw_only=True)
class Atoms:
    """Projected atoms of one kind of column in one material.

    Attributes
    ----------
    unit : element to atoms in one unit of the column
    kernel : crystal and column in the kernels' table; None scatters without channelling
    thermal_nm : rms displacement along one direction, nm
    u, v : (N,) places, nm
    number : (N,) units at each place
    depth_nm : (N,) of the crystal there, nm
    """

    unit: dict[str, float]
    kernel: tuple[str, str] | None
    thermal_nm: float
    u: Floats
    v: Floats
    number: Floats
    depth_nm: Floats


def crystal_columns(crystal: Crystal, box: Box, anchor: tuple[float, float], seed: int) -> Iterator[Atoms]:
    """Yield the columns of a crystal with a lattice point at `anchor`."""
    turn = math.radians(crystal.turn_deg)
    i, j = _indices(crystal.cell_nm, box, anchor, turn)
    for number, site in enumerate(crystal.sites):
        a, b = (i + site.at[0]) * crystal.cell_nm[0], (j + site.at[1]) * crystal.cell_nm[1]
        u = anchor[0] + math.cos(turn) * a - math.sin(turn) * b
        v = anchor[1] + math.sin(turn) * a + math.cos(turn) * b
        if crystal.static_nm:
            u = u + crystal.static_nm * hashed_normal(i, j, (seed, _COLUMN, 2 * number))
            v = v + crystal.static_nm * hashed_normal(i, j, (seed, _COLUMN, 2 * number + 1))
        yield Atoms(
            unit=site.atoms,
            kernel=None if crystal.kernel is None else (crystal.kernel, site.column),
            thermal_nm=crystal.thermal_nm,
            u=u,
            v=v,
            number=np.full(u.size, 1 / crystal.period_nm),
            depth_nm=np.ones(u.size),
        )


def _indices(
    cell: tuple[float, float], box: Box, anchor: tuple[float, float], turn: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cells (i, j) of a turned lattice that reach into a box."""
    u, v = np.meshgrid(np.array(box[:2]) - anchor[0], np.array(box[2:]) - anchor[1])
    a = (math.cos(turn) * u + math.sin(turn) * v) / cell[0]
    b = (-math.sin(turn) * u + math.cos(turn) * v) / cell[1]
    i = np.arange(math.floor(a.min()) - 1, math.ceil(a.max()) + 1)
    j = np.arange(math.floor(b.min()) - 1, math.ceil(b.max()) + 1)
    grid_j, grid_i = np.meshgrid(j, i, indexing="ij")
    return grid_i.ravel(), grid_j.ravel()


def grain_columns(grains: Grains, box: Box, thickness_nm: float, seed: int) -> Iterator[Atoms]:
    """Voronoi cells of jittered seeds; every cell one zone, one direction, one tilt.

    Where grains meet they overlap in projection: each is there to its share of the depth, and the shares sum to 1.
    """
    from scipy.spatial import cKDTree

    size = grains.grain_nm
    u0, u1, v0, v1 = box
    cells = [
        (i, j)
        for i in range(math.floor(u0 / size) - 2, math.ceil(u1 / size) + 3)  # two beyond: a grain reaches so far
        for j in range(math.floor(v0 / size) - 2, math.ceil(v1 / size) + 3)
    ]
    chances = [chance(seed, _GRAIN, i, j) for i, j in cells]
    jitter = np.array([rng.uniform(-_JITTER, _JITTER, 2) for rng in chances])
    seeds = (np.array(cells) + jitter) * size
    tree = cKDTree(seeds)
    for number, (middle, rng) in enumerate(zip(seeds, chances, strict=True)):
        columns, slip = grain(grains, middle, _REACH * size + _OVERLAP_NM, thickness_nm, rng)
        for atoms in columns:
            away, nearest = tree.query(np.stack([atoms.u, atoms.v], axis=1), k=_NEIGHBOURS)
            weight = np.exp((away[:, :1] ** 2 - away**2) / (size * _OVERLAP_NM))
            share = np.where(nearest == number, weight, 0.0).sum(axis=1) / weight.sum(axis=1)
            partly = replace(atoms, number=atoms.number * share, depth_nm=atoms.depth_nm * share)
            yield leaned(only(partly, share >= _LEAST), slip)


def grain(
    matter: Grains | Crystal, middle: Floats, reach_nm: float, thickness_nm: float, rng: np.random.Generator
) -> tuple[list[Atoms], Floats]:
    """Return a grain's columns within `reach_nm` of its middle for 1 nm of depth, and its tilt.

    The tilt is the sideways place (L, 2) of the atoms of a column, nm; a single row if the beam sees no tilt.
    """
    zones, tilt_deg = (matter.zones, matter.tilt_deg) if isinstance(matter, Grains) else ((matter,), 0.0)
    zone = zones[rng.integers(len(zones))]
    turn, lean = rng.uniform(0, 2 * math.pi, 2)
    slope = math.tan(math.radians(rng.normal(0, tilt_deg)))
    layers = max(1, round(thickness_nm / zone.period_nm))
    slip = ((np.arange(layers) + 0.5) / layers - 0.5) * thickness_nm * slope
    if float(np.abs(slip).max()) < zone.thermal_nm:  # for the beam the column stands upright
        slip = np.zeros(1)
    columns = []
    for atoms in crystal_columns(zone, (-reach_nm, reach_nm, -reach_nm, reach_nm), (0.0, 0.0), 0):
        near = only(atoms, np.hypot(atoms.u, atoms.v) <= reach_nm)
        u = middle[0] + math.cos(turn) * near.u - math.sin(turn) * near.v
        v = middle[1] + math.sin(turn) * near.u + math.cos(turn) * near.v
        columns.append(replace(near, u=u, v=v))
    return columns, slip[:, None] * (math.cos(lean), math.sin(lean))


def leaned(atoms: Atoms, slip: Floats) -> Atoms:
    """Lay tilted columns down: the beam sees a row of atoms, and is not channelled along it."""
    if len(slip) == 1:
        return atoms
    return replace(
        atoms,
        kernel=None,
        u=(atoms.u[:, None] + slip[:, 0]).ravel(),
        v=(atoms.v[:, None] + slip[:, 1]).ravel(),
        number=np.repeat(atoms.number / len(slip), len(slip)),
        depth_nm=np.repeat(atoms.depth_nm, len(slip)),
    )


def hashed_normal(i: NDArray[np.int64], j: NDArray[np.int64], key: tuple[int, ...]) -> Floats:
    """Return (N,) normal numbers that follow from the cells (i, j) and a key alone.

    Notes
    -----
    SplitMix64's finalizer [1]_ on the indices gives two uniform numbers, Box and Muller's way the normal one.

    References
    ----------
    .. [1] Steele, Lea, Flood, OOPSLA 2014, p. 453.
    """
    state = np.zeros(i.shape, np.uint64)
    for part in (*(np.full(i.shape, k % 2**64, np.uint64) for k in key), i.astype(np.uint64), j.astype(np.uint64)):
        state = _mix(state + part + np.uint64(0x9E3779B97F4A7C15))
    first = (_mix(state + np.uint64(1)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    second = (_mix(state + np.uint64(2)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.asarray(np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * math.pi * second))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def chance(seed: int, purpose: int, i: int, j: int) -> np.random.Generator:
    """Return the random numbers of a place: they follow from its cell, the purpose and the seed alone."""
    key = (purpose, i % 2**32, j % 2**32)  # keys are unsigned
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def only(atoms: Atoms, kept: NDArray[np.bool_]) -> Atoms:
    """Return some of the atoms."""
    return replace(atoms, u=atoms.u[kept], v=atoms.v[kept], number=atoms.number[kept], depth_nm=atoms.depth_nm[kept])
