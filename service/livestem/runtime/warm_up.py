"""What the first scan would otherwise wait for: libraries and tables that take seconds to load.

And how the libraries work beside the service's own threads: products of matrices take one thread. Those of live maps
are small, and a library's own threads wait for the next one by spinning, which took a core that ingest needs.
"""

from __future__ import annotations

import logging

import numpy as np

from livestem.domain.scan import EnergyAxis
from livestem.runtime.pieces import Photons
from livestem.runtime.sums import EdsSum
from livestem.stages.kfactors import builtin_k_factors
from livestem.stages.lattice import lattice_descriptors
from livestem.stages.lines import choose_lines, named_lines
from livestem.stages.regions import grow

_BEAM_KV = 300.0  # any will do
_ATTEMPTS = 40  # more than there are loops

log = logging.getLogger(__name__)


def warm_up() -> None:
    """Load the libraries of the finals, exspy's element data, compiled loops; one thread for products of matrices.

    The stages load these where they use them, so that a client or a short command need not; a test compares the two.
    """
    import h5py  # noqa: F401
    import igraph  # noqa: F401
    import rsciio.hspy  # noqa: F401
    import scipy.cluster.hierarchy
    import scipy.ndimage
    import scipy.spatial.distance
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")  # of all that are loaded by now, for good
    families = choose_lines(("O",), EnergyAxis(channels=1024, scale_kev=0.01))
    builtin_k_factors(named_lines(families), _BEAM_KV)
    compile_loops()


def compile_loops() -> None:
    """Compile the loops, or read what an earlier start has compiled.

    On a full disk each attempt fails at what it cannot keep, and has compiled one loop more.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _call_each()
        except OSError as e:
            log.warning("compiled loops are not kept, the next start compiles them anew: %s", e)


def _call_each() -> None:
    grow(np.zeros((2, 1)), np.array([[0, 1]]))
    lattice_descriptors(np.zeros((1, 8, 8)), 2)
    one = EdsSum((1, 1), 1, np.zeros((1, 1), np.int32), 1)
    photon = Photons(0, 0, (1, 1), np.ones(1, np.uint8), np.zeros(1, np.uint8))
    one.receive(0, photon)
    one.add(photon)
