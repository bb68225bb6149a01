"""What live scoring has of a running scan, kept from look to look: a look renews what has changed, and no more.

=====================  ==========================================================================================
what                   is taken anew
=====================  ==========================================================================================
the copy of the sums   in the rows, and of the chips, that have changed
lattice descriptors    of chips that have changed, and of those around them: their windows overlap
line intensities       of chips that have changed; with a new operator of all, a part at every look
operator of the fit    when there are twice the photons it was built on; when all is in, or the scan over
=====================  ==========================================================================================

So what is known of a chip is what a look at everything would say, but for an operator whose weights are of fewer
photons: intensities are unbiased with any. With the last tile of a scan it is that one, too, for all chips at once.
What is relative to the whole field (standards, whitening, calibration) is taken anew at every look.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Grid
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.features import Collected, Feature, eds_features, lattice_feature, lattice_rows
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.quantification import Quantifier, build_quantifier
from livestem.runtime.sums import Changed
from livestem.stages.lattice import margin_px
from livestem.stages.quantify import Fit

Chips = NDArray[np.bool_]
Floats = NDArray[np.float64]

_FEW = 256  # chips that a look fits with a new operator beside those that have changed; all would take four looks' time
_LOOKS = 16  # or as many as bring a large field up to date in so many looks


class Followed:
    """A copy of a scan's sums, and what its chips say.

    Parameters
    ----------
    scan : OpenScan

    Attributes
    ----------
    parameters : of the scan; elements once found automatically stay
    stale : by modality, (N,) chips of which the newest data are in the copy, and not yet in what is known of them
    """

    def __init__(self, scan: OpenScan) -> None:
        accumulator, grid = scan.accumulator, scan.grid
        self.parameters = scan.parameters
        self._haadf = accumulator.haadf and accumulator.haadf.empty()
        self._eds = accumulator.eds and accumulator.eds.empty()
        self._picture = None if self._haadf is None else self._haadf.mean()
        self.stale = {k: np.zeros(grid.chips, dtype=bool) for k in accumulator.changed}
        self._photons, self._whole = 0, False  # that are in, and whether nothing more is to come
        self._descriptors: NDArray[np.float64] | None = None
        self._quantifier: Quantifier | None = None
        self._built_on = (0, False)  # those of the operator
        self._fitted: Fit | Floats | None = None  # or intensities alone
        self._behind = np.zeros(grid.chips, dtype=bool)  # chips fitted with an earlier operator

    def renew(self, accumulator: Accumulator, changed: Mapping[str, Changed], *, over: bool) -> None:
        """Bring the copy up to date; the caller holds the scan's lock."""
        waiting = list(accumulator.waiting())
        self._whole = over or accumulator.whole
        if self._haadf is not None and accumulator.haadf is not None and changed["haadf"]:
            self._haadf.renew(accumulator.haadf, [(p, s) for k, p, s in waiting if k == "haadf"], changed["haadf"])
        if self._eds is not None and accumulator.eds is not None and changed["eds"]:
            self._eds.renew(accumulator.eds, [(p, s) for k, p, s in waiting if k == "eds"], changed["eds"])
            self._photons = accumulator.eds.counts
        for modality, marks in changed.items():
            self.stale[modality] |= marks.chips[:-1]
        if self._haadf is not None and self._picture is not None:
            marks = changed["haadf"]
            self._picture[marks.rows] = self._haadf.mean(marks.rows)
            side = accumulator.grid.haadf_px
            if self.parameters.recipe.encoder == "lattice" and side is not None:
                self.stale["haadf"] |= around(marks, accumulator.grid, side)

    def collected(self, scan: OpenScan) -> Collected:
        """Return the copy as it is now; it holds until the next `renew`."""
        return Collected(
            scan.plan,
            scan.grid,
            haadf=self._picture,
            haadf_exposure=None if self._haadf is None else self._haadf.exposure,
            spectra=None if self._eds is None else self._eds.spectra[:-1],
            eds_exposure=None if self._eds is None else self._eds.exposure,
            borrowed=scan.borrowed,
        )

    def lattice(self, data: Collected) -> Feature:
        """Return what the lattice descriptors say."""
        chips = np.flatnonzero(self.stale["haadf"])
        rows = lattice_rows(data, chips)
        if self._descriptors is None:
            self._descriptors = np.zeros((data.grid.chips, rows.shape[1]))
        self._descriptors[chips] = rows
        self.stale["haadf"][:] = False
        valid = data.valid("haadf")
        return lattice_feature(self._descriptors, valid) if valid.any() else Feature(self._descriptors, valid)

    def spectral(self, data: Collected, name: str) -> Feature | None:
        """Return what an EDS modality says; None if it cannot be told yet."""
        if name != "eds":
            self._fit(data)
        return eds_features(data, (name,), self._quantifier, final=False, fitted=self._fitted).get(name)

    def _fit(self, data: Collected) -> None:
        """Fit what is stale; everything with a new operator, if it is time for one."""
        assert self._eds is not None and data.spectra is not None
        stale = self.stale["eds"]
        if (stale.any() or self._whole) and self._is_time():
            # No channel wraps round (`MOST_PHOTONS`), and this way takes half the time of 64-bit sums.
            total = self._eds.spectra.sum(axis=0, dtype=np.uint32).astype(np.int64)
            self._operate(build_quantifier(data.plan, self.parameters, total, final=False))
        if self._quantifier is None:
            return
        if self.parameters.elements_origin == "automatic":
            found = self._quantifier.parameters
            self.parameters = msgspec.structs.replace(found, elements_origin="metadata")
        if self._fitted is None:
            self._fitted = self._measured(self._quantifier, data.spectra)
            self._behind[:] = False
        else:
            behind = np.flatnonzero(self._behind & ~stale)[: max(_FEW, len(stale) // _LOOKS)]
            chips = np.concatenate([np.flatnonzero(stale), behind])
            if chips.size:
                put(self._fitted, self._measured(self._quantifier, data.spectra[chips]), chips)
            self._behind[chips] = False
        stale[:] = False

    def _measured(self, quantifier: Quantifier, spectra: NDArray[np.integer]) -> Fit | Floats:
        """Fit (N, C) spectra; only compositions need the errors, which take longest."""
        if "atomic" in self.parameters.recipe.eds_modalities:
            return quantifier.fit(spectra, final=False)
        return quantifier.intensities(spectra, final=False)

    def _operate(self, quantifier: Quantifier | None) -> None:
        """Take a new operator; what was fitted with an earlier one stands if it has the same meaning."""
        before, self._quantifier = self._quantifier, quantifier
        self._built_on = self._photons, self._whole
        if self._whole or before is None or quantifier is None or not _alike(before, quantifier):
            self._fitted = None
        self._behind[:] = True

    def _is_time(self) -> bool:
        """Whether the operator is to be built anew (see the module)."""
        photons, whole = self._built_on
        return self._quantifier is None or self._whole != whole or self._photons >= 2 * photons


def around(changed: Changed, grid: Grid, chip_px: int) -> Chips:
    """Return (N,) which chips have a pixel that has changed in the window that the lattice descriptor looks at.

    The windows of the last row and column reach beyond the grid.
    """
    marked = np.pad(changed.chips[:-1].reshape(grid.shape), 1)
    if changed.chips[-1]:
        margin = margin_px(chip_px)
        reached = np.flatnonzero(changed.rows)
        first = (reached - margin) // chip_px
        last = (reached + margin) // chip_px
        rows = np.zeros(grid.rows, dtype=bool)
        for row in (first, reached // chip_px, last):
            rows[np.unique(row[(row >= 0) & (row < grid.rows)])] = True
        marked[1:-1, -1] |= rows
        marked[-1, 1:-1] |= rows[-1]
    near = [marked[y : y + grid.rows, x : x + grid.cols] for y in range(3) for x in range(3)]
    return np.asarray(np.any(near, axis=0).ravel())


def _alike(a: Quantifier, b: Quantifier) -> bool:
    """Return whether two operators give the same lines."""
    same = a.operator.families == b.operator.families
    return same and bool(np.array_equal(a.operator.determined, b.operator.determined))


def put(fitted: Fit | Floats, part: Fit | Floats, chips: NDArray[np.intp]) -> None:
    """Put what was fitted of some chips to their places."""
    if isinstance(fitted, Fit) and isinstance(part, Fit):
        fitted.intensities[chips] = part.intensities
        fitted.covariance[chips] = part.covariance
        fitted.counts[chips] = part.counts
    elif not isinstance(fitted, Fit) and not isinstance(part, Fit):
        fitted[chips] = part
