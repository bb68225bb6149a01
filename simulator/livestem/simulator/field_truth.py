"""The truth of a simulated scan: what its pixels really show, and what drift makes of a lattice.

A steady drift V shears what a scan shows: at the time t(p) of pixel p the beam stands at s = p + V t(p). A lattice
wave g of the specimen has the phase g.s = (g + (g.V) grad t).p in the picture, and the spacing of that wave is what
is measured. Wander is no shear; its mean over the scan counts as part of V.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from livestem.domain.truth import ClassFacts, Truth, TruthFacts
from livestem.simulator.dose import DoseMap
from livestem.simulator.geometry import Geometry
from livestem.simulator.materials import Crystal, Material
from livestem.simulator.motion import Motion, Raster, drifted
from livestem.simulator.parts import Floats

_FINER = 2  # steps a pixel of the map on which the sum's classes are looked up
_SAMPLED = 24  # frames of which the sum's truth is the majority: drift is slow beside a scan's frames


def truth_of(
    geometry: Geometry,
    raster: Raster,
    motion: Motion,
    done: float,
    scan_id: str,
    dose: DoseMap,
    frame_dose_e_nm2: float,
) -> Truth:
    """Return the truth of a scan.

    Parameters
    ----------
    geometry, raster, motion : the specimen, the scan, and the way of the beam
    done : float
        Frames that the beam has done, more than 0; of the last one, the upper rows if it is not whole.
    scan_id : its name
    dose : DoseMap
        What had fallen before the scan, by place on the specimen.
    frame_dose_e_nm2 : float
        What each of its frames adds.
    """
    specimen, frames = geometry.specimen, math.ceil(done)
    y, x = drifted(raster, motion, 0)
    first = geometry.class_at(y[:, None], x)
    down, across = motion.offset_nm(raster.frame_times_s(frames))
    facts = TruthFacts(
        scan_id=scan_id,
        specimen=specimen.digest,
        seed=geometry.seed,
        frames=frames,
        pixel_nm=(raster.pixel_nm, raster.pixel_nm),
        origin_nm=raster.origin_nm,
        classes=tuple(_facts(m, specimen.rotation_deg, raster, motion, frames) for m in specimen.classes),
        drift_nm=tuple((float(a), float(b)) for a, b in zip(down - down[0], across - across[0], strict=True)),
        dose_e_nm2=done * frame_dose_e_nm2,
    )
    visits = np.clip(math.floor(done) + ((done % 1) * raster.shape[0] > np.arange(raster.shape[0])), 0, frames)
    fallen = dose.at(y[:, None], x) + visits[:, None] * frame_dose_e_nm2
    return Truth(first, _summed(geometry, raster, motion, frames, first), fallen.astype(np.float32), facts)


def _summed(
    geometry: Geometry, raster: Raster, motion: Motion, frames: int, first: NDArray[np.int8]
) -> NDArray[np.int8]:
    """Return the class that most of a pixel's visits saw, the first frame's on a tie."""
    chosen = np.unique(np.linspace(0, frames - 1, min(frames, _SAMPLED)).round().astype(int))
    ways = [drifted(raster, motion, int(frame)) for frame in chosen]
    y0, x0 = min(float(y[0]) for y, _ in ways), min(float(x.min()) for _, x in ways)
    y1, x1 = max(float(y[-1]) for y, _ in ways), max(float(x.max()) for _, x in ways)
    step = raster.pixel_nm / _FINER
    fine = geometry.class_at(np.arange(y0, y1 + step, step)[:, None], np.arange(x0, x1 + step, step))
    votes = np.zeros((len(geometry.specimen.classes), *raster.shape), np.float32)
    rows, cols = np.indices(raster.shape, sparse=True)
    for y, x in ways:
        seen = fine[np.rint((y - y0) / step).astype(np.intp)[:, None], np.rint((x - x0) / step).astype(np.intp)]
        votes[seen, rows, cols] += 1
    votes[first, rows, cols] += 0.5
    return np.asarray(votes.argmax(axis=0), np.int8)


def _facts(material: Material, rotation_deg: float, raster: Raster, motion: Motion, frames: int) -> ClassFacts:
    structure = material.structure
    apparent = None
    if isinstance(structure, Crystal):
        start, end = raster.start_s, raster.start_s + frames * raster.frame_s
        (y0, y1), (x0, x1) = motion.offset_nm(np.array([start, end]))
        velocity = np.array([y1 - y0, x1 - x0]) / (end - start)
        apparent = apparent_spacings_nm(structure, rotation_deg + structure.turn_deg, raster, velocity)
    return ClassFacts(
        name=material.name,
        title=material.title,
        composition=material.composition,
        d_spacing_nm=structure.d_spacing_nm,
        d_apparent_nm=apparent,
    )


def apparent_spacings_nm(
    crystal: Crystal, turn_deg: float, raster: Raster, velocity_nm_s: Floats
) -> tuple[float, float]:
    """Return the spacings of a crystal's cell as a drifting scan shows them: along the fast, along the slow scan.

    Parameters
    ----------
    crystal : Crystal
    turn_deg : float
        Of its lattice against the fast scan, degrees.
    raster : Raster
        Gives the time of each pixel.
    velocity_nm_s : (2,) float64
        (y, x) at which the beam moves over the specimen beside its scan, nm/s.
    """
    turn = math.radians(turn_deg)
    along_u = np.array([math.sin(turn), math.cos(turn)]) / crystal.cell_nm[0]  # (y, x), 1/nm
    along_v = np.array([math.cos(turn), -math.sin(turn)]) / crystal.cell_nm[1]
    later = np.array([raster.shape[1] * raster.dwell_s, raster.dwell_s]) / raster.pixel_nm  # (y, x), s/nm
    seen = [g + (g @ velocity_nm_s) * later for g in (along_u, along_v)]
    fast, slow = sorted(seen, key=lambda g: abs(g[0]) / np.hypot(*g))
    return 1 / float(np.hypot(*fast)), 1 / float(np.hypot(*slow))
