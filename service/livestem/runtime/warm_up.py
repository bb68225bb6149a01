"""What the first scan would otherwise wait for: libraries and tables that take seconds to load."""

from __future__ import annotations

from importlib import import_module

from livestem.domain.scan import EnergyAxis
from livestem.stages.kfactors import builtin_k_factors
from livestem.stages.lines import choose_lines, named_lines

# The stages load these where they use them, so that a client or a short command need not; a test compares the two.
_LIBRARIES = (
    "h5py",
    "igraph",
    "rsciio.hspy",
    "scipy.cluster.hierarchy",
    "scipy.ndimage",
    "scipy.spatial.distance",
    "scipy.stats",
    "sklearn.metrics",
    "threadpoolctl",
)
_BEAM_KV = 300.0  # any will do


def warm_up() -> None:
    """Load the libraries of the finals, and exspy's element data."""
    families = choose_lines(("O",), EnergyAxis(channels=1024, scale_kev=0.01))
    builtin_k_factors(named_lines(families), _BEAM_KV)
    for name in _LIBRARIES:
        import_module(name)
