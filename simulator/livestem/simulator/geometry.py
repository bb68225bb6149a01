"""What lies where: one specimen of the family that a file describes, as its seed has made it.

Everything here is a function of place, defined beyond the field as well as in it: a scan may look anywhere the
stage lets it, drift carries it further, and two scans of one specimen see one structure.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.simulator.parts import Border, Domains, Floats
from livestem.simulator.specimen import Specimen
from livestem.simulator.waves import Waves

_FAR_NM = 500.0  # steps and domains are laid so far to both sides: beyond the reach of any stage, which is 200 nm
_TABLE_NM = 0.02  # of a border's depth along u: a twentieth of a unit cell
_LEAST_NM = 1.0  # of a particle above the foil: thinner, and a pixel is what the foil is there
_VARIED = 0.25  # relative spread of the width of domains, and of terraces and gaps: striations are no grating
_BORDER, _OUTLINE, _WALL, _PARTICLE = range(4)  # what the random numbers are for; each has its own


@dataclass(frozen=True)
class Particle:
    """A sphere on the foil: class, middle (u, v) and radius, nm."""

    label: int
    u: float
    v: float
    radius_nm: float


class Geometry:
    """One specimen.

    Parameters
    ----------
    specimen : Specimen
    seed : int
        Of the structure, 0 or more.
    """

    def __init__(self, specimen: Specimen, seed: int) -> None:
        self.specimen = specimen
        self.seed = seed
        self._number = {name: i for i, name in enumerate(specimen.class_names)}
        self._borders = [
            _Edge(depth, layer.border, self._rng(_BORDER, i))
            for i, (layer, depth) in enumerate(zip(specimen.layer, specimen.layer_tops_nm[1:], strict=False))
        ]
        self._outlines = [
            tuple(Waves(p.roughness_nm, p.correlation_nm, rng, axes=2) for _ in "uv")
            for i, p in enumerate(specimen.inclusion)
            for rng in [self._rng(_OUTLINE, i)]
        ]
        self._walls = [_Walls(d, self._rng(_WALL, i)) for i, d in enumerate(specimen.domains)]
        self.particles = self._scatter()

    def class_at(self, y: Floats, x: Floats) -> NDArray[np.int8]:
        """Return the class of field points (y, x), nm, which broadcast; a particle hides the foil under it."""
        u, v = self.specimen.to_specimen(*np.broadcast_arrays(y, x))
        out = self.foil_class(u, v)
        for label in {p.label for p in self.particles}:
            out[self.height_nm(label, u, v) >= _LEAST_NM] = label
        return out

    def foil_class(self, u: Floats, v: Floats) -> NDArray[np.int8]:
        """Return the class of the foil at specimen points (u, v), nm, of one shape."""
        layer = np.zeros(np.shape(u), np.intp)
        for border in self._borders:
            layer += v >= border.depth_nm(u)  # of crossing borders the lower counts: the layer between is gone
        out = np.array([self._number[part.material] for part in self.specimen.layer], np.int8)[layer]
        home = out.copy()
        for domains, walls in zip(self.specimen.domains, self._walls, strict=True):
            there = home == self._number[domains.within]
            out[there] = np.where(walls.hold(u[there], v[there]), self._number[domains.material], out[there])
        for inclusion, (along, down) in zip(self.specimen.inclusion, self._outlines, strict=True):
            there = home == self._number[inclusion.within]
            a, b = u[there], v[there]
            held = inclusion.holds(a + along(a, b), b + down(a, b))
            out[there] = np.where(held, self._number[inclusion.material], out[there])
        return out

    def height_nm(self, label: int, u: Floats, v: Floats) -> Floats:
        """Return how thick the particles of class `label` lie over specimen points (u, v), nm."""
        height = np.zeros(np.shape(u))
        if not height.size:
            return height
        middle_u, middle_v = (u.min() + u.max()) / 2, (v.min() + v.max()) / 2
        reach = math.hypot(u.max() - middle_u, v.max() - middle_v)
        for p in self.particles:
            if p.label == label and math.hypot(p.u - middle_u, p.v - middle_v) < reach + p.radius_nm:
                inside = p.radius_nm**2 - (u - p.u) ** 2 - (v - p.v) ** 2
                height += 2 * np.sqrt(np.maximum(inside, 0.0))
        return height

    def thicknesses_nm(self) -> tuple[float, float]:
        """Return the least and the most that the beam can cross within the reach of the stage, nm."""
        specimen = self.specimen
        (height, width), reach = specimen.field_nm, specimen.reach_nm
        y, x = np.meshgrid([-reach, height + reach], [-reach, width + reach])
        foil = specimen.foil_nm(*specimen.to_specimen(y, x))
        return float(foil.min()), float(foil.max()) + max((2 * p.radius_nm for p in self.particles), default=0.0)

    def crossed_nm(self, y: Floats, x: Floats) -> NDArray[np.float32]:
        """Return how much of every class the beam crosses at rows `y` (H,) and columns `x` (W,): (K, H, W), nm."""
        u, v = self.specimen.to_specimen(*np.meshgrid(y, x, indexing="ij"))
        foil, label = self.specimen.foil_nm(u, v), self.foil_class(u, v)
        out = np.zeros((len(self._number), *u.shape), np.float32)
        for k in range(len(self._number)):
            out[k] = foil * (label == k) + self.height_nm(k, u, v)
        return out

    def _scatter(self) -> tuple[Particle, ...]:
        """Lay the particles one by one; one that would touch another is left out."""
        specimen = self.specimen
        (height, width), reach = specimen.field_nm, specimen.reach_nm
        room = (width + 2 * reach) * (height + 2 * reach)
        laid: list[Particle] = []
        for i, kind in enumerate(specimen.particles):
            rng = self._rng(_PARTICLE, i)
            for _ in range(rng.poisson(kind.number * room / (height * width))):
                u, v = rng.uniform(-reach, width + reach), rng.uniform(-reach, height + reach)
                radius = kind.radius_nm * max(0.2, rng.normal(1, kind.spread))
                if all(math.hypot(u - p.u, v - p.v) > radius + p.radius_nm for p in laid):
                    laid.append(Particle(self._number[kind.material], u, v, radius))
        return tuple(laid)

    def _rng(self, purpose: int, index: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, purpose, index)))


class _Edge:
    """A rough and stepped border at a mean depth."""

    def __init__(self, depth_nm: float, border: Border, rng: np.random.Generator) -> None:
        rough = Waves(border.roughness_nm, border.correlation_nm, rng)
        count = math.ceil(2 * _FAR_NM / border.terrace_nm) if border.step_nm else 0
        steps = np.cumsum(border.terrace_nm * _varied(rng, count)) - _FAR_NM
        heights = np.concatenate([[0.0], np.cumsum(rng.choice((-border.step_nm, border.step_nm), count))])
        self._u = np.arange(-_FAR_NM, _FAR_NM, _TABLE_NM)
        terrace = heights[np.searchsorted(steps, self._u)]
        terrace -= heights[np.searchsorted(steps, 0.0)]  # the mean depth holds where the field begins
        self._depth = depth_nm + rough(self._u) + terrace

    def depth_nm(self, u: Floats) -> Floats:
        return np.asarray(np.interp(u, self._u, self._depth))


class _Walls:
    """Upright domains: between every odd wall and the next."""

    def __init__(self, domains: Domains, rng: np.random.Generator) -> None:
        period = domains.width_nm / domains.share
        count = math.ceil(2 * _FAR_NM / period)
        widths = domains.width_nm * _varied(rng, count)
        gaps = (period - domains.width_nm) * _varied(rng, count)
        start = -_FAR_NM - rng.uniform(0, period)
        self._walls = start + np.cumsum(np.fromiter(itertools.chain(*zip(gaps, widths, strict=True)), float))
        # walls lean and bend with depth, and neighbours alike: what strains one column strains the next
        self._bend = Waves(domains.roughness_nm, domains.correlation_nm, rng, axes=2)

    def hold(self, u: Floats, v: Floats) -> NDArray[np.bool_]:
        return np.asarray(np.searchsorted(self._walls, u + self._bend(u, v)) % 2 == 1)


def _varied(rng: np.random.Generator, count: int) -> Floats:
    """Return `count` factors around 1, never below a quarter."""
    return np.maximum(rng.normal(1, _VARIED, count), 0.25)
