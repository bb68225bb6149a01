"""A specimen as data: layers of materials, inclusions in them, and the microscope's settings.

A specimen is a TOML file, decoded strictly: a key that is not known here is an error. It states no fact
twice: composition and density of a crystal follow from its sites, the pixel from field and scan shape.

Two frames of coordinates, both in nm. *Field*: x along the fast scan, y along the slow scan, from the top
left corner. *Specimen*: u along the layers, v down through them; the same origin, turned about the middle of
the field by ``rotation_deg``. The class of a point is the index of its material in order of depth, inclusions
after the layer that holds them.
"""

from __future__ import annotations

import hashlib
import math
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.domain.names import check_name
from livestem.simulator.instrument import (
    EdsDetector,
    HaadfDetector,
    NotNegative,
    Positive,
    ProbeBeam,
    ScanSettings,
)
from livestem.simulator.materials import Material, check_elements

_Field = Annotated[float, msgspec.Meta(gt=0.5, le=64)]  # nm; a cell at least; beyond, memory for the fine grid
_PACKAGED = "specimens"  # folder of the specimens that come with the package


class Layer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer of one material; `thickness_nm` None: down to the bottom (the last layer)."""

    material: str
    thickness_nm: Positive | None = None


class Inclusion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A polygon of another material inside a layer; corners are (u, v), nm."""

    within: str
    material: str
    corners_nm: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.corners_nm) < 3 or abs(_area(self.corners_nm)) < 1e-6:
            raise ValueError(f"the polygon of {self.material} encloses no area; give at least three corners")

    def holds(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return where the points lie inside the polygon (even-odd rule)."""
        inside = np.zeros(np.broadcast(u, v).shape, bool)
        for (u0, v0), (u1, v1) in zip(self.corners_nm, self.corners_nm[1:] + self.corners_nm[:1], strict=True):
            if v0 != v1:  # a level edge crosses no ray along u
                inside ^= ((v0 > v) != (v1 > v)) & (u < u0 + (v - v0) / (v1 - v0) * (u1 - u0))
        return inside


class Specimen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is known about a simulated field before its noise.

    Attributes
    ----------
    name, title : identifier and free text
    thickness_nm : of the foil along the beam, nm
    field_nm : (y, x) extent of the field, nm
    rotation_deg : of the layers against the fast scan, degrees, positive down to the right
    strays : atoms per 100 atoms of the specimen, everywhere
    layer, inclusion, material : the structure, from the surface down
    """

    name: str
    title: str
    thickness_nm: Positive
    field_nm: tuple[_Field, _Field]
    beam: ProbeBeam
    scan: ScanSettings
    haadf: HaadfDetector
    eds: EdsDetector
    layer: tuple[Layer, ...]
    material: tuple[Material, ...]
    inclusion: tuple[Inclusion, ...] = ()
    strays: dict[str, NotNegative] = {}
    rotation_deg: Annotated[float, msgspec.Meta(ge=-45, le=45)] = 0.0

    def __post_init__(self) -> None:
        check_name(self.name, "specimen")
        check_elements(self.strays)
        _check_materials(self)
        _check_layers(self)
        _check_inclusions(self)

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
        """Materials by depth, an inclusion's after its layer's; one that occurs twice is one class."""
        order: dict[str, None] = {}
        for layer in self.layer:
            order[layer.material] = None
            order.update(dict.fromkeys(i.material for i in self.inclusion if i.within == layer.material))
        by_name = {m.name: m for m in self.material}
        return tuple(by_name[name] for name in order)

    @property
    def elements(self) -> tuple[str, ...]:
        """The specimen's own elements, without strays, sorted."""
        return tuple(sorted({e for m in self.classes for e in m.structure.density}))

    @property
    def layer_tops_nm(self) -> tuple[float, ...]:
        """Depth v at which each layer begins; the first one's is minus infinity."""
        depth = np.cumsum([layer.thickness_nm or 0.0 for layer in self.layer])
        return (-math.inf, *(float(d) for d in depth[:-1]))

    def pixel_centres_nm(self, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return y (rows,) and x (cols,) of the middles of `shape` pixels over the field, nm."""
        y, x = (
            (np.arange(n, dtype=np.float64) + 0.5) * (side / n) for n, side in zip(shape, self.field_nm, strict=True)
        )
        return y, x

    def to_specimen(
        self, y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (u, v) of field points (y, x), nm."""
        return self._turn(x, y, -math.radians(self.rotation_deg))

    def to_field(
        self, u: NDArray[np.float64], v: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (y, x) of specimen points (u, v), nm."""
        x, y = self._turn(u, v, math.radians(self.rotation_deg))
        return y, x

    def class_at(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return the class of specimen points (u, v), nm."""
        number = {name: i for i, name in enumerate(self.class_names)}
        layer = np.searchsorted(self.layer_tops_nm[1:], v, side="right")
        out = np.array([number[part.material] for part in self.layer], np.int8)[layer]
        for inclusion in self.inclusion:
            out[(out == number[inclusion.within]) & inclusion.holds(u, v)] = number[inclusion.material]
        return out

    def _turn(
        self, a: NDArray[np.float64], b: NDArray[np.float64], angle: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        half_b, half_a = self.field_nm[0] / 2, self.field_nm[1] / 2
        cos, sin = math.cos(angle), math.sin(angle)
        return (
            half_a + cos * (a - half_a) - sin * (b - half_b),
            half_b + sin * (a - half_a) + cos * (b - half_b),
        )


def packaged_specimens() -> tuple[str, ...]:
    """Return the names of the specimens that come with the package."""
    folder = resources.files(__package__) / _PACKAGED
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_specimen(name_or_path: str | Path) -> Specimen:
    """Return a specimen that comes with the package, or one read from a TOML file.

    Parameters
    ----------
    name_or_path : str or Path
        A name of `packaged_specimens`, or the path of a file (anything with a ``.toml`` ending).

    Raises
    ------
    UsageError
        If there is no such specimen, it cannot be read, or it is impossible; one line that says why.
    """
    if Path(name_or_path).suffix == ".toml":
        try:
            content = Path(name_or_path).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read specimen {name_or_path}: {error.strerror}") from None
    elif str(name_or_path) in packaged_specimens():
        content = (resources.files(__package__) / _PACKAGED / f"{name_or_path}.toml").read_bytes()
    else:
        known = ", ".join(packaged_specimens())
        raise UsageError(f"no specimen {str(name_or_path)!r}; use one of {known}, or the path of a .toml file")
    try:
        return msgspec.toml.decode(content, type=Specimen)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
        raise UsageError(f"specimen {name_or_path}: {error}") from None


def _check_materials(specimen: Specimen) -> None:
    names = [m.name for m in specimen.material]
    if len(set(names)) < len(names):
        raise ValueError(f"materials repeat: {', '.join(names)}")
    used = {layer.material for layer in specimen.layer} | {i.material for i in specimen.inclusion}
    if missing := sorted(used - set(names)):
        raise ValueError(f"no material named {', '.join(missing)}; there are {', '.join(names)}")
    if unused := [n for n in names if n not in used]:
        raise ValueError(f"material {', '.join(unused)} is in no layer and no inclusion")


def _check_layers(specimen: Specimen) -> None:
    if not specimen.layer:
        raise ValueError("a specimen needs at least one layer")
    for layer in specimen.layer[:-1]:
        if layer.thickness_nm is None:
            raise ValueError(f"layer {layer.material} needs thickness_nm: only the last reaches to the bottom")
    if specimen.layer[-1].thickness_nm is not None:
        raise ValueError(f"the last layer, {specimen.layer[-1].material}, reaches to the bottom: no thickness_nm")
    above = sum(layer.thickness_nm or 0.0 for layer in specimen.layer)
    if above >= specimen.field_nm[0]:
        raise ValueError(
            f"layers of {above:g} nm leave nothing of {specimen.layer[-1].material} in a field of "
            f"{specimen.field_nm[0]:g} nm; make the field larger or the layers thinner"
        )


def _check_inclusions(specimen: Specimen) -> None:
    layers = {layer.material for layer in specimen.layer}
    for inclusion in specimen.inclusion:
        if inclusion.within not in layers:
            raise ValueError(f"{inclusion.material} lies within {inclusion.within}, which is no layer")
        if inclusion.material in layers:
            raise ValueError(f"{inclusion.material} is a layer and an inclusion; give the inclusion its own name")
        corners = np.array(inclusion.corners_nm)
        y, x = specimen.to_field(corners[:, 0], corners[:, 1])
        height, width = specimen.field_nm
        if not ((y >= 0) & (y <= height) & (x >= 0) & (x <= width)).all():
            raise ValueError(f"a corner of {inclusion.material} lies outside the field of {height:g} x {width:g} nm")
        u, v = np.meshgrid(*(np.linspace(c.min(), c.max(), 66)[1:-1] for c in corners.T))
        if not (specimen.class_at(u, v) == specimen.class_names.index(inclusion.material)).any():
            raise ValueError(f"the polygon of {inclusion.material} does not lie in the layer {inclusion.within}")


def _area(corners: tuple[tuple[float, float], ...]) -> float:
    u, v = np.array(corners).T
    return 0.5 * float(np.dot(u, np.roll(v, -1)) - np.dot(v, np.roll(u, -1)))
