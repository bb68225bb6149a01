"""The HAADF detector: electrons in, 16-bit numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livestem.simulator.instrument import HaadfDetector, ProbeBeam
from livestem.simulator.parts import Floats

_ELECTRONS_PER_PA_S = 6.2415e6


def electrons_per_pixel(beam: ProbeBeam, dwell_s: float) -> float:
    """Return the electrons that the beam sends through one pixel in one frame."""
    return beam.current_pa * dwell_s * _ELECTRONS_PER_PA_S


def detect(electrons: Floats, detector: HaadfDetector, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return what the detector writes for the expected `electrons` (H, W): Poisson, read noise, 16 bit.

    Values saturate at 0 and 65535.
    """
    seen = rng.poisson(electrons) + rng.standard_normal(electrons.shape, np.float32) * detector.read_noise
    return np.clip(np.rint(detector.offset + detector.gain * seen), 0, 65535).astype(np.uint16)
