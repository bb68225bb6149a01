"""Which lines a spectrum can tell: not those that others explain, nor those under doubtful companions.

Rules
-----
1. A line outside the channels of the fit is not determined.
2. A line whose shape the other columns explain to 99 % is not: its error would be ten times what it is alone.
3. Ratios within a family are doubtful, by half below 1 keV and by a tenth above. A line that is no more than this doubt
   about another family's companion at its place is not determined (N K under Ti Ll in SrTiO3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livestem.stages.lines import LineFamily, fwhm_kev
from livestem.stages.spectrum_model import FWHM_PER_SIGMA, Floats

RCOND = 1e-10  # eigenvalues of the scaled normal matrix below this are round-off
_TOLERANCE = 0.01  # a line whose column the others explain to 99 % has ten times the error it would have alone
# Soft L and M ratios change with chemistry and self-absorption, hard ones agree between tables to about 10 %.
_RATIO_DOUBT_SOFT, _RATIO_DOUBT_HARD, _SOFT_KEV = 0.5, 0.1, 1.0


def determined_lines(
    families: tuple[LineFamily, ...],
    design: Floats,
    weights: Floats,
    coefficients: Floats,
    resolution_mnka_ev: float,
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Say which families are determined, and why others are not.

    Parameters
    ----------
    families : L line families
    design : (C', P) float64
        Their columns, then the background's.
    weights : (C',) float64
    coefficients : (P,) float64
        Of the scan's mean.
    resolution_mnka_ev : float

    Returns
    -------
    determined : (L,) bool
    reasons : L texts, empty where determined
    """
    reasons = [""] * len(families)
    scaled = design * np.sqrt(weights)[:, None]
    norms = np.linalg.norm(scaled, axis=0)
    scaled = scaled / np.where(norms > 0, norms, 1.0)
    gram = scaled.T @ scaled
    for j, family in enumerate(families):
        if norms[j] == 0:
            reasons[j] = f"{family.line} lies outside the channels of the fit"
            continue
        others = np.delete(np.arange(len(gram)), j)
        explained = gram[j, others] @ np.linalg.pinv(gram[np.ix_(others, others)], RCOND, True) @ gram[others, j]
        if 1.0 - explained < _TOLERANCE:
            twin = families[max(range(len(families)), key=lambda i: (i != j) * abs(gram[i, j]))]
            reasons[j] = f"{family.line} cannot be told from {twin.line} and the background"
        else:
            reasons[j] = _hidden(j, families, coefficients, resolution_mnka_ev)
    return np.array([not reason for reason in reasons], dtype=bool), tuple(reasons)


def _hidden(j: int, families: tuple[LineFamily, ...], coefficients: Floats, resolution_mnka_ev: float) -> str:
    """Reason if a line is no more than what doubtful ratios of another family could put in its place."""
    line = families[j]
    width = fwhm_kev(line.energy_kev, resolution_mnka_ev)
    doubt = _RATIO_DOUBT_SOFT if line.energy_kev < _SOFT_KEV else _RATIO_DOUBT_HARD
    for i, family in enumerate(families):
        members = zip(family.members[1:], family.energies_kev[1:], family.weights[1:], strict=True)
        for member, energy, weight in members if i != j else ():
            distance = abs(energy - line.energy_kev)
            overlap = np.exp(-((distance * FWHM_PER_SIGMA / width) ** 2) / 4)  # of two equal Gaussians
            if distance < width / 2 and coefficients[j] < doubt * weight * overlap * coefficients[i]:
                return (
                    f"{line.line} ({line.energy_kev:.3f} keV) hides under {family.element}_{member} "
                    f"({energy:.3f} keV), whose own strength is not known well enough"
                )
    return ""
