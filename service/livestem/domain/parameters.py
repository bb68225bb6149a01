"""What a scan is processed with: what may be asked (`Processing`) and what was done (`Parameters`).

Whose word counts: the sender's `processing` over the service's flags over its configuration over the preset.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from livestem.domain.elements import SYMBOLS
from livestem.domain.support import SupportSet

PresetName = Literal["default", "as_published", "graphem"]


class Processing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a sender, a flag or a configuration file asks for; None leaves it to the next in line."""

    preset: PresetName | None = None
    chip_px: int | None = None
    chip_nm: float | None = None
    clusters: int | None = None
    elements: tuple[str, ...] | None = None
    lines: tuple[str, ...] | None = None
    k_factors: dict[str, float] | None = None  # line -> weight k-factor, normalised to one line
    strays: tuple[str, ...] | None = None  # elements fitted but not part of the specimen's 100 %
    support: SupportSet | None = None

    def __post_init__(self) -> None:
        for symbol in (*(self.elements or ()), *(self.strays or ())):
            if symbol not in SYMBOLS:
                raise ValueError(f"unknown element {symbol!r}; use symbols such as Fe or O")
        for number, name in ((self.chip_px, "chip_px"), (self.chip_nm, "chip_nm"), (self.clusters, "clusters")):
            if number is not None and not number > 0:
                raise ValueError(f"{name} must be positive, got {number}")

    def over(self, other: Processing) -> Processing:
        """Return `self` with its gaps filled from `other`; a chip size is one choice, however it is given."""
        mine = {f: v for f in self.__struct_fields__ if (v := getattr(self, f)) is not None}
        if "chip_px" in mine or "chip_nm" in mine:
            other = msgspec.structs.replace(other, chip_px=None, chip_nm=None)
        return msgspec.structs.replace(other, **mine)
