"""The embeddings of one running scan that a network makes: which chips are embedded again, and how old they are.

Rules
-----
- A look may spend `BUDGET_S` on the network. How many chips that is follows from how long the last ones took; it is
  at least one of the encoder's batches.
- Three in four go to the chips that need it most: never embedded yet, else by how much their grey has changed since,
  and the more the less sure their class is. One in four goes to those that have waited longest, so that no chip waits
  for ever: with N chips and b a look, at most ``4 N / b`` looks.
- A chip whose grey is what it was when it was embedded is as good as embedded again.
- What waits is at most every chip once, whatever has come meanwhile. Finals embed everything.
- The *age* of a chip is the frames begun since it was embedded, 0 if nothing has come to it since; `NEVER` before.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from livestem.runtime.features import Encoder

BUDGET_S = 0.25  # a look: a person sees four maps a second move; more would be a longer wait for each
BATCH = 32  # chips that the encoder takes at once (`livestem.stages.vgg16`); fewer take as long
NEVER = 2**16 - 1
_OLDEST_SHARE = 4  # one in so many goes to who has waited longest
_SMOOTH = 0.3  # of a new measurement of the rate over those before: a hiccup does not halve the budget

Mask = NDArray[np.bool_]


class Embeddings:
    """What has been embedded of one scan.

    Parameters
    ----------
    chips : int
    clock : callable
        Seconds, steady.

    Attributes
    ----------
    rows : (N, D) float64; zeros where never embedded
    """

    def __init__(self, chips: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.rows = np.zeros((chips, 0))
        self._grey: NDArray[np.uint8] | None = None  # (N, p, p) as it was embedded
        self._since = np.full(chips, np.nan)  # when a chip changed that waits; NaN: it does not
        self._frame = np.full(chips, -1, np.int64)  # that was newest when it was embedded
        self._chip_s: float | None = None  # the network takes for one chip

    @property
    def waiting(self) -> Mask:
        """(N,) which chips have changed since they were embedded."""
        return np.asarray(~np.isnan(self._since))

    def mark(self, changed: Mask) -> None:
        """Note that chips have changed."""
        self._since[changed & ~self.waiting] = self._clock()

    def oldest(self, valid: Mask) -> float | None:
        """Return when the chip changed that has waited longest; None if none waits."""
        waits = self.waiting & valid
        return float(self._since[waits].min()) if waits.any() else None

    def ages(self, frame: int) -> NDArray[np.uint16]:
        """Return (N,) the age of every chip, in frames, when `frame` is the newest."""
        age = np.where(self.waiting, np.clip(frame - self._frame, 0, NEVER - 1), 0)
        return np.where(self._frame < 0, NEVER, age).astype(np.uint16)

    def renew(
        self, grey: NDArray[np.uint8], encoder: Encoder, valid: Mask, frame: int, margin: NDArray[np.floating] | None
    ) -> None:
        """Embed what the budget allows.

        Parameters
        ----------
        grey : (N, p, p) uint8
            All chips as they are now.
        valid : (N,) bool
            Which have data.
        frame : int
            The newest.
        margin : (N,), optional
            Of the last map: the largest score less the one after it, 0..1.
        """
        if self._grey is None:
            self._grey = np.zeros_like(grey)
        waits = np.flatnonzero(self.waiting & valid)
        change = np.abs(grey[waits].astype(np.int16) - self._grey[waits]).mean(axis=(1, 2))
        new = self._frame[waits] < 0
        same = waits[(change == 0) & ~new]
        self._since[same], self._frame[same] = np.nan, frame
        doubt = np.ones(len(waits)) if margin is None else 2.0 - margin[waits]
        need = np.where(new, np.inf, change * doubt)
        open_ones = new | (change > 0)
        chosen = self._chosen(waits[open_ones], need[open_ones])
        if not chosen.size:
            return
        began = self._clock()
        found = encoder.encode(grey[chosen])
        self._learn((self._clock() - began) / len(chosen))
        if not self.rows.shape[1]:
            self.rows = np.zeros((len(self._frame), found.shape[1]))
        self.rows[chosen], self._grey[chosen] = found, grey[chosen]
        self._since[chosen], self._frame[chosen] = np.nan, frame

    def _chosen(self, waits: NDArray[np.intp], need: NDArray[np.float64]) -> NDArray[np.intp]:
        most = BATCH if self._chip_s is None else max(BATCH, int(BUDGET_S / self._chip_s) // BATCH * BATCH)
        if len(waits) <= most:
            return waits
        first = np.argsort(self._since[waits], kind="stable")[: most // _OLDEST_SHARE]
        rest = np.setdiff1d(np.arange(len(waits)), first)
        needy = rest[np.argsort(-need[rest], kind="stable")[: most - len(first)]]
        return np.sort(waits[np.concatenate([first, needy])])

    def _learn(self, chip_s: float) -> None:
        """Take a measurement into the rate; a clock too coarse to see it allows everything."""
        before = chip_s if self._chip_s is None else self._chip_s
        self._chip_s = max((1 - _SMOOTH) * before + _SMOOTH * chip_s, 1e-7)
