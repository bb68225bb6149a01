"""What is decided about a scan before its data come: its grid, its parameters, its examples, what embeds it.

Decided once, when the scan begins, from its plan and the service's configuration. A scan that is resumed keeps what
was decided then, however the service is configured now.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from livestem.domain.errors import LivestemError
from livestem.domain.geometry import Grid, plan_grid
from livestem.domain.parameters import Parameters, Processing
from livestem.domain.scan import ScanPlan
from livestem.runtime.borrowed import Borrowed, borrow
from livestem.runtime.encoders import Arithmetic, Encoders
from livestem.runtime.recipe import resolve


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a scan is processed with. `borrowed` are its examples from earlier scans, if it has any."""

    grid: Grid
    parameters: Parameters
    arithmetic: Arithmetic | None = None
    borrowed: Borrowed | None = None


class Decider(Protocol):
    """Who decides."""

    def decide(self, plan: ScanPlan) -> Decision:
        """Decide about a scan that begins; raises `LivestemError` to refuse it."""

    def again(self, plan: ScanPlan, parameters: Parameters, arithmetic: Arithmetic | None) -> Decision:
        """Return what was decided about a scan that is resumed; raises `LivestemError` if it cannot be had now."""


class Decisions:
    """Decides for a service or a batch run.

    Parameters
    ----------
    service : Processing
        What the service asks for.
    encoders : Encoders
    store : Path
        Where earlier scans are.
    allow_sender : bool
        Whether a sender may choose parameters.
    """

    def __init__(self, service: Processing, encoders: Encoders, store: Path, *, allow_sender: bool = True) -> None:
        self._service, self._encoders, self._store, self._allow_sender = service, encoders, store, allow_sender

    def decide(self, plan: ScanPlan) -> Decision:
        """See `Decider`."""
        grid, parameters = resolve(plan, self._service, allow_sender=self._allow_sender)
        arithmetic = self._encoders.arithmetic(parameters.recipe)  # refuses now, not at the end, if weights are missing
        parameters, borrowed = borrow(plan, grid, parameters, arithmetic.encoder, self._store)
        return Decision(grid=grid, parameters=parameters, arithmetic=arithmetic, borrowed=borrowed)

    def again(self, plan: ScanPlan, parameters: Parameters, arithmetic: Arithmetic | None) -> Decision:
        """See `Decider`. That its encoder is here is not asked for: the scan can be received without."""
        haadf, eds = (None if part is None else part.sampling for part in (plan.haadf, plan.eds))
        grid = plan_grid(haadf, eds, chip_px=parameters.chip_px)
        if grid.chip_nm != parameters.chip_nm:
            raise LivestemError(f"its chips were of {parameters.chip_nm:g} nm and would be of {grid.chip_nm:g} nm now")
        encoder = parameters.recipe.encoder if arithmetic is None else arithmetic.encoder
        same, borrowed = borrow(plan, grid, parameters, encoder, self._store)
        if same != parameters:
            raise LivestemError("the earlier scans that its examples are from have changed since it began")
        return Decision(grid=grid, parameters=parameters, arithmetic=arithmetic, borrowed=borrowed)
