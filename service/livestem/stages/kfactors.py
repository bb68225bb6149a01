"""Weight k-factors: how many counts of a line one gram of an element gives, beside one gram of silicon.

Convention
----------
``C_a / C_b = (k_a / k_b) * I_a / I_b`` with C in *weight* fractions and I the counts of the *named line*
alone (not of its family); all k are normalised to Si Ka = 1. Only ratios count, so tables of another normalisation
will do; tables for family sums or for atomic fractions are converted when they are read (`livestem.stages.ktable`).

The built-in table is computed: ``k = y(Si Ka) / y(line)`` with the yield per gram

    y = Q * omega * a * epsilon / A

- Q, vacancies: the relativistic empirical cross section of Casnati et al. [1]_ with the subshell that emits
  the line: K, L3 (four electrons, fed by Coster-Kronig transitions from L1 and L2) or M5 (six electrons);
- omega, fluorescence yield of that subshell: K from Bambynek's fit [2]_, L3 and M4,5 from the fit [3]_ to
  Krause's tables [4]_, and L3 below germanium from these tables themselves;
- a, the line's share among the lines of that subshell, by exspy's weights;
- epsilon, a windowless 0.45 mm silicon detector with a 50 nm dead layer (Super-X, as [5]_ describes it),
  absorption by exspy's tables, from which the subshell's edge is read as well;
- A, atomic weight.

Compared: Pt La / Fe Ka is 3 % below the vendor's pair shipped with exspy, and thick SrTiO3 reads Sr / Ti = 1.09.
Beside a Velox table (Spectra 300, 200 kV [6]_, both normalised to Si Ka) K lines are 13 % lower for O, the same for Al,
15 to 23 % higher for Ti to Cu, and La La 39 % higher: that is how far computed tables are apart. Standards are better,
and `livestem.stages.ktable` reads them.

References
----------
.. [1] Casnati, Tartari, Baraldi, J. Phys. B 15 (1982) 155.
.. [2] Hubbell et al., J. Phys. Chem. Ref. Data 23 (1994) 339, eq. 1 (after Bambynek 1984).
.. [3] Cohen, Nucl. Instrum. Methods B 22 (1987) 55; Johansson and Campbell, PIXE (1988).
.. [4] Krause, J. Phys. Chem. Ref. Data 8 (1979) 307.
.. [5] von Harrach et al., J. Phys.: Conf. Ser. 241 (2010) 012015.
.. [6] k-factors-Spectra300UTK200keV.csv, published with pyTEMlib (Duscher et al., MIT licence), 2025.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from livestem.domain.elements import SYMBOLS
from livestem.domain.errors import UsageError
from livestem.stages.lines import split_line, xray_lines

REFERENCE_LINE = "Si_Ka"
DEFAULT_BEAM_KV = 200.0  # where the recording states none; from 200 to 300 kV they change by less than 7 %

_REST_KEV = 510.998950  # electron rest energy
_RYDBERG_KEV = 13.605693e-3
_BOHR_CM = 5.29177211e-9
_SILICON = 2.329  # g/cm3
_THICK_CM, _DEAD_CM = 0.045, 50e-7  # sensitive depth and dead layer
# (omega / (1 - omega))^(1/4) as polynomials in Z
_YIELD = {
    "K": (0.0370, 0.03112, 5.44e-5, -1.25e-6),
    "L": (0.177650, 2.98937e-3, 8.91297e-5, -2.67184e-7),
    "M": (-0.325820, 9.01791e-3, 3.80983e-5, -4.62897e-7),
}
_ELECTRONS = {"K": 2, "L": 4, "M": 6}  # in K, L3, M5
# Krause's L3 yields where their fit, made for heavier elements, is too high: by 11 % for Ga, four times for Ti
_SOFT_L_YIELD = {
    "Ca": 0.00033, "Sc": 0.00084, "Ti": 0.0015, "V": 0.0026, "Cr": 0.0037, "Mn": 0.0050,
    "Fe": 0.0063, "Co": 0.0077, "Ni": 0.0093, "Cu": 0.011, "Zn": 0.012, "Ga": 0.013,
}  # fmt: skip
# Vacancies of L1 and L2 that end in L3, and their electrons: f13 + f12 f23 and f23, middle of Krause's tables
_L1_TO_L3, _L2_TO_L3 = 0.38, 0.15
# Lines that end in the emitting subshell (IUPAC: the hole is in K, L3, M5), by Siegbahn name
_SUBSHELL_LINES = {"K": ("Ka", "Kb"), "L": ("La", "Ll", "Lb2"), "M": ("Ma", "Mz")}


@dataclass(frozen=True)
class KFactors:
    """Weight k-factors by line, for intensities of named lines.

    Attributes
    ----------
    values : line to k
    source : where they come from, for the record
    """

    values: Mapping[str, float]
    source: str

    def of(self, line: str) -> float:
        """Return the k-factor of a line.

        Raises
        ------
        UsageError
            If the table lacks it.
        """
        if line not in self.values:
            raise UsageError(
                f"the k-factors ({self.source}) lack {line} of {line.partition('_')[0]}: "
                f"add a line '{line},k', name another line of this element, or leave the element out"
            )
        return self.values[line]


def builtin_k_factors(lines: Iterable[str], beam_energy_kv: float | None = None) -> KFactors:
    """Compute k-factors from physics.

    Parameters
    ----------
    lines : iterable of str
        Named lines, such as ``Fe_Ka``; lines of the emitting subshells K, L3 and M5 (Ka Kb La Ll Lb2 Ma Mz).
    beam_energy_kv : float, optional
        Beam energy in kV; `DEFAULT_BEAM_KV` if unknown.

    Returns
    -------
    KFactors
        Normalised to Si Ka.

    Raises
    ------
    UsageError
        If a line is unknown, not excited, or of a subshell that the model does not describe.
    """
    beam = DEFAULT_BEAM_KV if beam_energy_kv is None else beam_energy_kv
    reference = relative_yield(REFERENCE_LINE, beam)
    values = {line: reference / relative_yield(line, beam) for line in lines}
    return KFactors(values=values, source=f"computed at {beam:g} kV (Casnati, Krause), normalised to Si Ka")


@functools.cache
def relative_yield(line: str, beam_energy_kv: float) -> float:
    """Return the counts of a line per gram of its element, in units that are the same for all lines.

    Parameters
    ----------
    line : str
    beam_energy_kv : float

    Returns
    -------
    float
        Positive.

    Raises
    ------
    UsageError
        If the line is unknown, not excited, or of a subshell that the model does not describe.
    """
    element, member = split_line(line)
    shell = member[0]
    if member not in _SUBSHELL_LINES[shell]:
        raise UsageError(
            f"no built-in k-factor for {line}: the model knows {', '.join(_SUBSHELL_LINES[shell])} of this "
            "shell; give a k-factor file or name one of those"
        )
    known = xray_lines(element)
    energy, weight = known[member]
    edge = edge_kev(element, shell)
    if beam_energy_kv <= edge:
        raise UsageError(f"{line} needs a beam above its edge at {edge:.3g} keV, not {beam_energy_kv:g} kV")
    share = weight / sum(known[m][1] for m in _SUBSHELL_LINES[shell] if m in known)
    vacancies = _vacancies(shell, edge, beam_energy_kv)
    z = SYMBOLS.index(element) + 1
    return vacancies * _fluorescence(shell, z) * share * detector_efficiency(energy) / atomic_weight(element)


def detector_efficiency(energy_kev: float) -> float:
    """Share of photons that the windowless silicon detector counts, 0 to 1."""
    mass = mass_absorption("Si", (energy_kev,))[0]
    return math.exp(-mass * _SILICON * _DEAD_CM) * -math.expm1(-mass * _SILICON * _THICK_CM)


@functools.cache
def edge_kev(element: str, shell: str) -> float:
    """Absorption edge of K, L3 or M5, keV: the largest rise of absorption just above the shell's main line.

    The search ends 30 % above the line (no edge of a tabulated line is farther), on a grid of 0.1 %.
    """
    known = xray_lines(element)
    start = next(known[m][0] for m in _SUBSHELL_LINES[shell] if m in known)
    grid = start * np.exp(np.arange(0.0, math.log(1.3), 1e-3))
    rise = np.diff(np.log(mass_absorption(element, grid.tolist())))
    steps = np.flatnonzero(rise > 0.5 * rise.max()) if rise.max() > 0 else np.array([0])
    return float(grid[steps[0] + 1])  # the first: L3 lies below L2, M5 below M4


@functools.cache
def atomic_weight(element: str) -> float:
    """Atomic weight, g/mol."""
    from exspy.material import elements  # loads HyperSpy: only when asked for

    return float(elements[element].General_properties.atomic_weight)


def _vacancies(shell: str, edge: float, beam: float) -> float:
    direct = _ELECTRONS[shell] * _per_electron(edge, beam)
    if shell != "L":
        return direct
    # L1 and L2 lie up to 20 % above L3; their own cross sections are close enough to L3's per electron.
    return direct + (2 * _L1_TO_L3 + 2 * _L2_TO_L3) * _per_electron(edge, beam)


def _per_electron(edge: float, beam: float) -> float:
    """Ionisation cross section per electron of a subshell, cm2 [1]_ (eqs. 5 to 8)."""
    over, kinetic, bound = beam / edge, beam / _REST_KEV, edge / _REST_KEV
    root = kinetic * (2 + kinetic) * (1 + bound) ** 2
    gryzinski = ((2 + bound) / (2 + kinetic)) * ((1 + kinetic) / (1 + bound)) ** 2
    gryzinski *= ((bound + kinetic) * (2 + kinetic) * (1 + bound) ** 2 / (root + bound * (2 + bound))) ** 1.5
    psi = (edge / _RYDBERG_KEV) ** (-0.0318 + 0.3160 / over - 0.1135 / over**2)
    phi = 10.57 * math.exp(-1.736 / over + 0.317 / over**2)
    section: float = _BOHR_CM**2 * gryzinski * (_RYDBERG_KEV / edge) ** 2 * phi * psi * math.log(over) / over
    return section


def _fluorescence(shell: str, z: int) -> float:
    if shell == "L" and SYMBOLS[z - 1] in _SOFT_L_YIELD:
        return _SOFT_L_YIELD[SYMBOLS[z - 1]]
    root = sum(c * z**power for power, c in enumerate(_YIELD[shell]))
    if root <= 0:
        raise UsageError(f"{SYMBOLS[z - 1]} gives no {shell} lines worth counting; name another line of it")
    odds: float = root**4
    return odds / (1 + odds)


def mass_absorption(element: str, energies_kev: Sequence[float]) -> list[float]:
    """Return the mass absorption coefficients of an element at energies in keV, cm2/g (Chantler's, as exspy has them).

    Raises
    ------
    UsageError
        If they are not tabulated: hydrogen, helium, and what lies beyond uranium.
    """
    from exspy.material import mass_absorption_coefficient  # loads HyperSpy: only when asked for

    try:
        return [float(v) for v in np.ravel(mass_absorption_coefficient(element, list(energies_kev)))]
    except AttributeError as error:  # exspy looks the element up as an attribute of its table
        raise UsageError(
            f"no absorption is tabulated for {element}; give a k-factor file, or leave it out of the elements"
        ) from error
