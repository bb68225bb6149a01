"""The parts a specimen is made of: layers with their borders, and what lies in and on them; all lengths in nm.

Depths and outlines are given as their means; roughness is drawn from the scan's seed (``geometry``).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.simulator.instrument import NotNegative, Positive

Floats = NDArray[np.float64]


class Border(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lower border of a layer.

    Attributes
    ----------
    roughness_nm, correlation_nm : rms height and the length over which it changes, nm
    step_nm, terrace_nm : height of the surface steps it follows, and their mean distance, nm
    """

    roughness_nm: NotNegative = 0.0
    correlation_nm: Positive = 5.0
    step_nm: NotNegative = 0.0
    terrace_nm: Positive = 20.0


class Layer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer of one material; `thickness_nm` None: down to the bottom (the last layer)."""

    material: str
    thickness_nm: Positive | None = None
    border: Border = Border()


class Inclusion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A polygon of another material inside a layer.

    Attributes
    ----------
    within, material : the layer's, and its own
    corners_nm : (u, v) of the corners, nm
    roughness_nm, correlation_nm : rms displacement of its outline and the length over which it changes, nm
    """

    within: str
    material: str
    corners_nm: tuple[tuple[float, float], ...]
    roughness_nm: NotNegative = 0.0
    correlation_nm: Positive = 2.0

    def __post_init__(self) -> None:
        if len(self.corners_nm) < 3 or abs(_area(self.corners_nm)) < 1e-6:
            raise ValueError(f"the polygon of {self.material} encloses no area; give at least three corners")

    def holds(self, u: Floats, v: Floats) -> NDArray[np.bool_]:
        """Return where the points lie inside the smooth polygon (even-odd rule)."""
        inside = np.zeros(np.broadcast(u, v).shape, bool)
        for (u0, v0), (u1, v1) in zip(self.corners_nm, self.corners_nm[1:] + self.corners_nm[:1], strict=True):
            if v0 != v1:  # a level edge crosses no ray along u
                inside ^= ((v0 > v) != (v1 > v)) & (u < u0 + (v - v0) / (v1 - v0) * (u1 - u0))
        return inside


class Domains(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Columnar domains of another material, upright through a layer: vertical striations.

    Attributes
    ----------
    within, material : the layer's, and their own
    width_nm : mean width of a domain, nm
    share : of the layer's area
    roughness_nm, correlation_nm : rms sideways wander of their walls and the depth over which it changes, nm
    """

    within: str
    material: str
    width_nm: Positive
    share: Annotated[float, msgspec.Meta(gt=0, le=0.8)]  # beyond, the domains would touch
    roughness_nm: NotNegative = 0.0
    correlation_nm: Positive = 3.0


class Particles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Spheres of a material that lie on the foil, at random places all over the reach of the stage.

    Attributes
    ----------
    material : their own
    number : of particles in the standard field, on average
    radius_nm, spread : mean radius, nm, and its relative standard deviation
    """

    material: str
    number: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    radius_nm: Positive
    spread: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0


def _area(corners: tuple[tuple[float, float], ...]) -> float:
    u, v = np.array(corners).T
    return 0.5 * float(np.dot(u, np.roll(v, -1)) - np.dot(v, np.roll(u, -1)))
