"""X-ray lines as families: what a spectrum is made of, and which line of an element is counted.

Rules
-----
1. A *family* is one shell (K, L or M) of one element: its lines keep fixed ratios, so it has one unknown.
   Ratios and energies are exspy's (energies: Chantler et al. 2005; weights: the EPQ library).
2. The unknown is the intensity of the family's *named* line, never the family's sum: weights are relative to
   the named line (for Ti La, whose tabulated weight is 0.694, they are divided by it).
3. Each element has one named line for quantification. Unless the user names it: the first of Ka, La, Ma (or
   of that shell the strongest line tabulated, for Ca L and a few heavy M shells that have no alpha) that
   lies inside the axis, below `HARDEST_KEV` and below half the beam energy (overvoltage above 2, as exspy's
   ``add_lines(only_one=True)``); failing that, the first that lies inside the axis and below the beam
   energy.
4. The other shells of an element that the axis shows are fitted too, as *nuisance* families, so that overlaps
   are resolved (Cr L under O K, Ga L under La M); they take no part in the composition.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import UsageError
from livestem.domain.scan import EnergyAxis

SOFTEST_KEV = 0.2  # below lies the zero (strobe) peak of the pulse processor, and no line we can tell from it
HARDEST_KEV = 20.0  # 0.45 mm of silicon stops 34 % at 20 keV and 11 % at 30 keV: beyond, L lines count better
MNKA_KEV = 5.8987  # Mn Ka, where makers state their resolution (the value exspy tabulates)
DEFAULT_MNKA_EV = 130.0  # resolution at Mn Ka where the recording states none: HyperSpy's default for EDS


@dataclass(frozen=True)
class LineFamily:
    """One shell of one element: one unknown of the fit.

    Attributes
    ----------
    element : symbol
    line : named line, e.g. ``Fe_Ka``; the family's coefficient is this line's intensity
    energy_kev : energy of the named line, keV
    members : names of all lines of the shell, the named one first
    energies_kev : their energies, keV
    weights : their intensities relative to the named line (first is 1)
    nuisance : True if fitted only to resolve overlaps
    """

    element: str
    line: str
    energy_kev: float
    members: tuple[str, ...]
    energies_kev: tuple[float, ...]
    weights: tuple[float, ...]
    nuisance: bool = False

    @property
    def shell(self) -> str:
        """``K``, ``L`` or ``M``."""
        return self.line.partition("_")[2][0]


def fwhm_kev(energy_kev: float, mnka_ev: float | None = None) -> float:
    """Width of a peak in a silicon detector.

    Parameters
    ----------
    energy_kev : float
        Photon energy, keV.
    mnka_ev : float, optional
        Full width at half maximum at Mn Ka, eV; `DEFAULT_MNKA_EV` if not known.

    Returns
    -------
    float
        Full width at half maximum, keV.

    Raises
    ------
    UsageError
        If the resolution leaves no width at this energy (the electronic noise would be imaginary).

    References
    ----------
    .. [1] Fiori and Newbury, SEM/1978/I, p. 401; Goldstein et al., Scanning Electron Microscopy and X-ray
       Microanalysis, 3rd ed. (2003), p. 315. HyperSpy and exspy use the same.
    """
    reference = DEFAULT_MNKA_EV if mnka_ev is None else mnka_ev
    squared = 2.5e3 * (energy_kev - MNKA_KEV) + reference * reference  # eV^2; 2.5 eV: Fano statistics in Si
    if not (math.isfinite(reference) and squared > 0):
        raise UsageError(
            f"an energy resolution of {reference:g} eV at Mn Ka leaves no peak width at {energy_kev:g} keV; "
            "state the detector's real one (usually 120 to 150 eV)"
        )
    return math.sqrt(squared) / 1e3


def choose_lines(
    elements: Iterable[str],
    axis: EnergyAxis,
    beam_energy_kv: float | None = None,
    lines: Iterable[str] | None = None,
) -> tuple[LineFamily, ...]:
    """Choose the line families that explain a spectrum of these elements.

    Parameters
    ----------
    elements : iterable of str
        Symbols, each counted once.
    axis : EnergyAxis
        Only lines between `SOFTEST_KEV` (or the axis' start) and the axis' end are used.
    beam_energy_kv : float, optional
        Only lines below it are excited; None means that the axis is the only limit.
    lines : iterable of str, optional
        Named lines the user insists on (``La_La``); they also add their elements. One per element.

    Returns
    -------
    tuple of LineFamily
        The named family of every element, in the order given, then the nuisance families, alike.

    Raises
    ------
    UsageError
        If an element or a line is unknown, cannot be seen, or an element has two named lines.
    """
    chosen = _explicit(lines or (), axis, beam_energy_kv)
    wanted = tuple(dict.fromkeys((*elements, *chosen)))
    named = []
    for element in wanted:
        line = chosen.get(element) or _best_line(element, axis, beam_energy_kv)
        named.append(_family(element, line, nuisance=False))
    nuisance = [
        _family(family.element, alpha, nuisance=True)
        for family in named
        for alpha in _alphas(family.element)
        if alpha[0] != family.shell and _seen(xray_lines(family.element)[alpha][0], axis, beam_energy_kv)
    ]
    return (*named, *nuisance)


def named_lines(families: Iterable[LineFamily]) -> tuple[str, ...]:
    """Names of the lines that are quantified, nuisance families left out."""
    return tuple(f.line for f in families if not f.nuisance)


def xray_lines(element: str) -> Mapping[str, tuple[float, float]]:
    """Lines of an element.

    Parameters
    ----------
    element : str
        Symbol.

    Returns
    -------
    mapping of str to (energy, weight)
        Line (``Ka``) to its energy in keV and its tabulated weight within the shell; empty for H and He.

    Raises
    ------
    UsageError
        If there is no such element.
    """
    if element not in SYMBOLS:
        raise UsageError(f"unknown element {element!r}; use symbols such as Fe or O")
    return _database().get(element, MappingProxyType({}))


def split_line(line: str) -> tuple[str, str]:
    """Split ``Fe_Ka`` into element and line of a shell.

    Raises
    ------
    UsageError
        If there is no such line; the message names the element's lines.
    """
    element, _, member = line.partition("_")
    if element not in SYMBOLS:
        raise UsageError(f"unknown line {line!r}: write element_line, such as Fe_Ka or La_La")
    known = xray_lines(element)
    if member not in known:
        raise UsageError(f"unknown line {line!r}: {element} has {', '.join(sorted(known)) or 'no lines'}")
    return element, member


def in_range_kev(axis: EnergyAxis) -> tuple[float, float]:
    """First and last energy of an axis that lines may use, keV."""
    return max(SOFTEST_KEV, axis.offset_kev), axis.offset_kev + (axis.channels - 1) * axis.scale_kev


def _explicit(lines: Iterable[str], axis: EnergyAxis, beam_energy_kv: float | None) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for line in dict.fromkeys(lines):
        element, member = split_line(line)
        if element in chosen:
            raise UsageError(f"{line} and {element}_{chosen[element]}: name one line of {element} to quantify it")
        energy = xray_lines(element)[member][0]
        if not _seen(energy, axis, beam_energy_kv):
            raise UsageError(f"{line} lies at {energy:g} keV, outside {_range_text(axis, beam_energy_kv)}")
        chosen[element] = member
    return chosen


def _best_line(element: str, axis: EnergyAxis, beam_energy_kv: float | None) -> str:
    known = xray_lines(element)
    seen = [a for a in _alphas(element) if _seen(known[a][0], axis, beam_energy_kv)]
    if not seen:
        raise UsageError(
            f"{element} has no K, L or M line inside {_range_text(axis, beam_energy_kv)}; leave it out of the elements"
        )
    limit = min(HARDEST_KEV, math.inf if beam_energy_kv is None else beam_energy_kv / 2)
    return next((a for a in seen if known[a][0] < limit), seen[0])


def _alphas(element: str) -> tuple[str, ...]:
    known = xray_lines(element)
    shells = [[m for m in known if m[0] == shell] for shell in "KLM"]
    # In sorted order, so that equal weights choose the same line everywhere.
    return tuple(
        alpha if (alpha := f"{members[0][0]}a") in members else max(sorted(members), key=lambda m: known[m][1])
        for members in shells
        if members
    )


def _seen(energy_kev: float, axis: EnergyAxis, beam_energy_kv: float | None) -> bool:
    low, high = in_range_kev(axis)
    return low <= energy_kev <= high and (beam_energy_kv is None or energy_kev < beam_energy_kv)


def _range_text(axis: EnergyAxis, beam_energy_kv: float | None) -> str:
    low, high = in_range_kev(axis)
    return f"{low:g} to {min(high, beam_energy_kv or math.inf):g} keV"


def _family(element: str, named: str, *, nuisance: bool) -> LineFamily:
    known = xray_lines(element)
    members = [named, *sorted(m for m in known if m[0] == named[0] and m != named)]
    return LineFamily(
        element=element,
        line=f"{element}_{named}",
        energy_kev=known[named][0],
        members=tuple(members),
        energies_kev=tuple(known[m][0] for m in members),
        weights=tuple(known[m][1] / known[named][1] for m in members),
        nuisance=nuisance,
    )


@functools.cache
def _database() -> Mapping[str, Mapping[str, tuple[float, float]]]:
    # exspy loads HyperSpy, about 3 s: only when the first line is asked for.
    from exspy.material import elements

    table = elements.as_dictionary()
    return MappingProxyType(
        {
            symbol: MappingProxyType(
                {
                    name: (float(entry["energy (keV)"]), float(entry["weight"]))
                    for name, entry in properties.get("Atomic_properties", {}).get("Xray_lines", {}).items()
                    if name[0] in "KLM" and entry["weight"] > 0
                }
            )
            for symbol, properties in table.items()
            if symbol in SYMBOLS
        }
    )
