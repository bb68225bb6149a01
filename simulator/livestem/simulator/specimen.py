"""A specimen as data: layers of materials, what lies in and on them, and the microscope's settings.

It states no fact twice: composition and density of a crystal follow from its sites, the pixel from field and
scan shape, the carbon that the image shows from the carbon among the strays.

Two frames of coordinates, both in nm. *Field*: x along the fast scan, y along the slow scan, from the top
left corner of the standard field; a scan may lie anywhere within `reach_nm` of that field. *Specimen*: u along
the layers, v down through them; the same origin, turned about the middle of the field by ``rotation_deg``. The
class of a point is the index of its material in order of depth: a layer, then what lies within it; particles
that lie on top of everything come last.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import Annotated

import msgspec
import numpy as np

from livestem.domain.names import check_name
from livestem.simulator.instrument import (
    EdsDetector,
    HaadfDetector,
    NotNegative,
    Positive,
    ProbeBeam,
    ScanSettings,
    StageLimits,
)
from livestem.simulator.materials import Material, check_elements
from livestem.simulator.parts import Border, Domains, Floats, Inclusion, Layer, Particles

_Field = Annotated[float, msgspec.Meta(gt=0.5, le=64)]  # nm; a cell at least; beyond, memory for the fine grid
_MOST_ROUGH = 0.5  # of a layer's thickness: rougher, and it would be torn


class Specimen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is known about a simulated specimen before chance and noise.

    Attributes
    ----------
    name, title : identifier and free text
    thickness_nm : of the foil along the beam in the middle of the standard field, nm
    wedge : change of that thickness per nm along (v, u), dimensionless
    surface_nm : depth of the layer on each face of the foil that preparation has made amorphous, nm
    critical_dose_e_nm2 : dose at which order has fallen to 1/e, electrons per nm^2; None: no damage
    field_nm : (y, x) extent of the standard field, nm
    reach_nm : how far beyond that field, on every side, the stage lets a scan go
    rotation_deg : of the layers against the fast scan, degrees, positive down to the right
    chip_px : side of a chip that scans with the standard pixel ask for; None leaves it to the service
    strays : atoms per 100 atoms of the specimen, everywhere
    layer, inclusion, domains, particles, material : the structure, from the surface down
    """

    name: str
    title: str
    thickness_nm: Positive
    wedge: tuple[float, float] = (0.0, 0.0)
    surface_nm: NotNegative = 0.0
    critical_dose_e_nm2: Positive | None = None
    field_nm: tuple[_Field, _Field]
    reach_nm: Annotated[float, msgspec.Meta(ge=0, le=200)] = 0.0
    rotation_deg: Annotated[float, msgspec.Meta(ge=-45, le=45)] = 0.0
    chip_px: Annotated[int, msgspec.Meta(ge=1, le=512)] | None = None
    beam: ProbeBeam
    scan: ScanSettings
    haadf: HaadfDetector
    eds: EdsDetector
    limits: StageLimits = StageLimits()
    layer: tuple[Layer, ...]
    material: tuple[Material, ...]
    inclusion: tuple[Inclusion, ...] = ()
    domains: tuple[Domains, ...] = ()
    particles: tuple[Particles, ...] = ()
    strays: dict[str, NotNegative] = {}

    def __post_init__(self) -> None:
        check_name(self.name, "specimen")
        check_elements(self.strays)
        _check_materials(self)
        _check_layers(self)
        _check_parts(self)
        _check_inclusions(self)
        _check_thickness(self)

    @property
    def digest(self) -> str:
        """Content digest, so that a scan says which specimen made it."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the materials in the order of their classes."""
        return tuple(m.name for m in self.classes)

    @property
    def classes(self) -> tuple[Material, ...]:
        """Materials by depth, with what lies within a layer after it; one that occurs twice is one class."""
        order: dict[str, None] = {}
        for layer in self.layer:
            order[layer.material] = None
            order.update(dict.fromkeys(p.material for p in self.within if p.within == layer.material))
        order.update(dict.fromkeys(p.material for p in self.particles))
        by_name = {m.name: m for m in self.material}
        return tuple(by_name[name] for name in order)

    @property
    def within(self) -> tuple[Domains | Inclusion, ...]:
        """What lies within layers."""
        return (*self.domains, *self.inclusion)

    @property
    def parts(self) -> tuple[Layer | Domains | Inclusion | Particles, ...]:
        """Everything that is of a material."""
        return (*self.layer, *self.within, *self.particles)

    @property
    def elements(self) -> tuple[str, ...]:
        """The specimen's own elements, without strays, sorted."""
        return tuple(sorted({e for m in self.classes for e in m.structure.density}))

    @property
    def layer_tops_nm(self) -> tuple[float, ...]:
        """Mean depth v at which each layer begins; the first one's is minus infinity."""
        depth = np.cumsum([layer.thickness_nm or 0.0 for layer in self.layer])
        return (-math.inf, *(float(d) for d in depth[:-1]))

    def to_specimen(self, y: Floats, x: Floats) -> tuple[Floats, Floats]:
        """Return (u, v) of field points (y, x), nm."""
        return self._turn(x, y, -math.radians(self.rotation_deg))

    def to_field(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Return (y, x) of specimen points (u, v), nm."""
        x, y = self._turn(u, v, math.radians(self.rotation_deg))
        return y, x

    def foil_nm(self, u: Floats, v: Floats) -> Floats:
        """Return the thickness of the foil at specimen points (u, v), nm."""
        slope_v, slope_u = self.wedge
        middle_v, middle_u = self.field_nm[0] / 2, self.field_nm[1] / 2
        thickness = self.thickness_nm + slope_v * (v - middle_v) + slope_u * (u - middle_u)
        return np.maximum(thickness, 0.0)  # beyond the reach of the stage a wedge comes to its edge

    def _turn(self, a: Floats, b: Floats, angle: float) -> tuple[Floats, Floats]:
        half_b, half_a = self.field_nm[0] / 2, self.field_nm[1] / 2
        cos, sin = math.cos(angle), math.sin(angle)
        return (
            half_a + cos * (a - half_a) - sin * (b - half_b),
            half_b + sin * (a - half_a) + cos * (b - half_b),
        )


def _check_materials(specimen: Specimen) -> None:
    names = [m.name for m in specimen.material]
    if len(set(names)) < len(names):
        raise ValueError(f"materials repeat: {', '.join(names)}")
    used = {part.material for part in specimen.parts}
    if missing := sorted(used - set(names)):
        raise ValueError(f"no material named {', '.join(missing)}; there are {', '.join(names)}")
    if unused := [n for n in names if n not in used]:
        raise ValueError(f"material {', '.join(unused)} is in no layer, inclusion, domain or particle")


def _check_layers(specimen: Specimen) -> None:
    if not specimen.layer:
        raise ValueError("a specimen needs at least one layer")
    for layer in specimen.layer[:-1]:
        if layer.thickness_nm is None:
            raise ValueError(f"layer {layer.material} needs thickness_nm: only the last reaches to the bottom")
    if specimen.layer[-1].thickness_nm is not None:
        raise ValueError(f"the last layer, {specimen.layer[-1].material}, reaches to the bottom: no thickness_nm")
    if specimen.layer[-1].border != Border():
        raise ValueError(f"the last layer, {specimen.layer[-1].material}, has no lower border")
    above = sum(layer.thickness_nm or 0.0 for layer in specimen.layer)
    if above >= specimen.field_nm[0]:
        raise ValueError(
            f"layers of {above:g} nm leave nothing of {specimen.layer[-1].material} in a field of "
            f"{specimen.field_nm[0]:g} nm; make the field larger or the layers thinner"
        )
    for upper, lower in itertools.pairwise(specimen.layer):
        thinnest = min(t for t in (upper.thickness_nm, lower.thickness_nm) if t is not None)
        if upper.border.roughness_nm > _MOST_ROUGH * thinnest:
            raise ValueError(
                f"a border of {upper.border.roughness_nm:g} nm rms tears a layer of {thinnest:g} nm; make it smoother"
            )


def _check_parts(specimen: Specimen) -> None:
    """Check that what lies within a layer names one, and has a name of its own."""
    layers = {layer.material for layer in specimen.layer}
    for part in specimen.within:
        if part.within not in layers:
            raise ValueError(f"{part.material} lies within {part.within}, which is no layer")
    for name in (p.material for p in (*specimen.within, *specimen.particles)):
        if name in layers:
            raise ValueError(f"{name} is a layer and lies within or on one; give the other its own name")
    homes: dict[str, str] = {}
    for part in specimen.within:
        if homes.setdefault(part.material, part.within) != part.within:
            raise ValueError(f"{part.material} lies within two layers; give each its own name")
    if clash := {p.material for p in specimen.particles} & homes.keys():
        raise ValueError(f"{', '.join(sorted(clash))} lies within a layer and on top; give each its own name")


def _check_inclusions(specimen: Specimen) -> None:
    height, width = specimen.field_nm
    tops = (*specimen.layer_tops_nm, math.inf)
    for inclusion in specimen.inclusion:
        corners = np.array(inclusion.corners_nm)
        y, x = specimen.to_field(corners[:, 0], corners[:, 1])
        if not ((y >= 0) & (y <= height) & (x >= 0) & (x <= width)).all():
            raise ValueError(f"a corner of {inclusion.material} lies outside the field of {height:g} x {width:g} nm")
        u, v = np.meshgrid(*(np.linspace(c.min(), c.max(), 66)[1:-1] for c in corners.T))
        depth = v[inclusion.holds(u, v)]
        home = [i for i, layer in enumerate(specimen.layer) if layer.material == inclusion.within]
        if not any(((depth >= tops[i]) & (depth < tops[i + 1])).any() for i in home):
            raise ValueError(f"the polygon of {inclusion.material} does not lie in the layer {inclusion.within}")


def _check_thickness(specimen: Specimen) -> None:
    if not all(math.isfinite(slope) for slope in specimen.wedge):
        raise ValueError("the slopes of wedge must be finite")
    y = np.array([0.0, specimen.field_nm[0]])[:, None]
    x = np.array([0.0, specimen.field_nm[1]])
    thinnest = float(specimen.foil_nm(*specimen.to_specimen(*np.broadcast_arrays(y, x))).min())
    if thinnest <= 2 * specimen.surface_nm:
        raise ValueError(
            f"the foil is {thinnest:g} nm thin at a corner of the field, and its faces are amorphous to "
            f"{specimen.surface_nm:g} nm each; lower surface_nm or wedge, or raise thickness_nm"
        )
