"""Small specimens for the tests of the virtual microscope: parts of the demo's, so that a scene takes a moment."""

from __future__ import annotations

from typing import Any

import msgspec

from livestem.simulator import Specimen, load_specimen
from livestem.simulator.materials import Material
from livestem.simulator.parts import Border, Layer

DEMO = load_specimen("demo")
CR, LFO, DISORDERED, STO = range(4)
MATERIALS = {m.name: m for m in DEMO.material}


def altered(specimen: Specimen, **changes: Any) -> Specimen:
    """Return a specimen with other values; it is checked as one from a file is."""
    return msgspec.convert(msgspec.to_builtins(msgspec.structs.replace(specimen, **changes)), Specimen)


def of_layers(*layers: Layer, materials: tuple[Material, ...] = (), **changes: Any) -> Specimen:
    """Return the demo's microscope over nothing but these layers, not rotated, without wedge, skin and strays."""
    plain: dict[str, Any] = {
        "rotation_deg": 0.0, "wedge": (0.0, 0.0), "surface_nm": 0.0, "strays": {}, "field_nm": (4.0, 4.0),
        "inclusion": (), "domains": (), "particles": (),
    }  # fmt: skip
    used = {layer.material for layer in layers}
    materials = materials or tuple(m for m in DEMO.material if m.name in used)
    scan = msgspec.structs.replace(DEMO.scan, shape=(80, 80))
    return altered(DEMO, **plain | {"scan": scan, "layer": layers, "material": materials} | changes)


def still(specimen: Specimen) -> Specimen:
    """Return a specimen that does not drift, scanned without jitter and lag."""
    drift = msgspec.structs.replace(specimen.scan.drift, velocity_nm_s=(0.0, 0.0), wander_nm=0.0)
    scan = msgspec.structs.replace(specimen.scan, row_jitter_nm=0.0, flyback_nm=0.0, drift=drift)
    return altered(specimen, scan=scan)


BLOCK = of_layers(Layer(material="STO"))  # the substrate alone
FILM = of_layers(Layer(material="LFO", thickness_nm=2.0), Layer(material="STO"))
SMOOTH = Border()
