"""From line intensities to composition: Cliff-Lorimer ratios with full covariance.

``C_a / C_b = (k_a / k_b) * I_a / I_b`` with weight fractions C and intensities of named lines; the ratios
and ``sum C = 1`` have the closed solution ``C_a = k_a I_a / sum k I``. Dividing by atomic weights A gives
atomic fractions ``f_a = x_a / sum x`` with ``x = k I / A``. Their errors follow from the intensities'
covariance V by ``J V J'`` with ``df_a / dI_b = (k_b / A_b) (delta_ab - f_a) / sum x``: counting statistics
only; errors of k and of absorption are systematic and are not in them.

Whose 100 %: the specimen's elements; strays (support film, ion-beam gallium, scattered copper) stand beside,
as a share of all atoms seen. With `strays_in_total` the 100 % are all of them, as in the published method.

Absorption in the specimen is corrected where the foil is given (`livestem.stages.absorption`): then k I is multiplied
and its covariance propagated by the correction's derivative. Otherwise results say ``absorption: uncorrected``: O Ka
in a perovskite is transmitted to 0.86 at 50 nm, so oxygen reads low by that much.

References
----------
.. [1] Cliff and Lorimer, J. Microsc. 103 (1975) 203.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import UsageError
from livestem.stages.absorption import Foil, correct_absorption
from livestem.stages.kfactors import KFactors, atomic_weight
from livestem.stages.quantify import Fit
from livestem.stages.spectrum_model import Floats


@dataclass(frozen=True)
class Composition:
    """Composition of N spectra in E specimen elements.

    Attributes
    ----------
    elements : E symbols, in the order of the fit
    atomic_percent : (N, E) float64; zero where not `valid` or not `determined`
    sigma : (N, E) float64, counting statistics, atomic percent
    extraneous_percent : (N,) float64; atoms of strays in percent of all atoms
    extraneous_sigma : (N,) float64
    valid : (N,) bool; False where too few counts carry a composition
    determined : (E,) bool; False where only lines that hide under others show the element
    reasons : E texts, empty where determined
    absorption : ``corrected`` for the foil's absorption, or ``uncorrected``
    """

    elements: tuple[str, ...]
    atomic_percent: Floats
    sigma: Floats
    extraneous_percent: Floats
    extraneous_sigma: Floats
    valid: NDArray[np.bool_]
    determined: NDArray[np.bool_]
    reasons: tuple[str, ...]
    absorption: str = "uncorrected"


def cliff_lorimer(
    fit: Fit,
    k_factors: KFactors,
    strays: Iterable[str] = (),
    *,
    strays_in_total: bool = False,
    foil: Foil | None = None,
) -> Composition:
    """Turn fitted intensities into atomic percent.

    Parameters
    ----------
    fit : Fit
        N spectra; nuisance families are ignored.
    k_factors : KFactors
        Weight k-factors of the named lines of all determined elements.
    strays : iterable of str
        Elements of the fit that are not part of the specimen; others are ignored.
    strays_in_total : bool
        Count strays among the 100 %.
    foil : Foil, optional
        Correct for its absorption; None leaves it uncorrected.

    Returns
    -------
    Composition
        A spectrum is valid if the atoms it shows exceed their own standard error. Specimen elements sum to
        100 % (with `strays_in_total`: to 100 % less the extraneous).

    Raises
    ------
    UsageError
        If a k-factor is missing, every element is a stray, or the absorption cannot be corrected.
    """
    columns = [i for i, family in enumerate(fit.families) if not family.nuisance]
    elements = [fit.families[i].element for i in columns]
    stray = np.array([element in set(strays) for element in elements], dtype=bool)
    if stray.all():
        raise UsageError("every element is a stray; a composition needs at least one element of the specimen")
    determined = fit.determined[columns]
    per_count = np.array(
        [k_factors.of(fit.families[i].line) if known else 0.0 for i, known in zip(columns, determined, strict=True)]
    )
    everything = np.ones(len(columns))
    members = everything if strays_in_total else ~stray * 1.0
    mass = fit.intensities[:, columns] * per_count
    derivative = np.diag(per_count)
    if foil is not None:
        energies = tuple(fit.families[i].energy_kev for i in columns)
        mass, slope = correct_absorption(foil, tuple(elements), energies, mass, members)
        derivative = slope * per_count
    weights = np.array([atomic_weight(element) for element in elements])
    atoms, derivative = mass / weights, derivative / weights[:, None]
    counted = fit.covariance[np.ix_(range(len(atoms)), columns, columns)]
    covariance = derivative @ counted @ np.swapaxes(derivative, -1, -2)
    share, share_sigma, valid = _shares(atoms, covariance, members)
    outside, outside_sigma, any_atoms = _shares(atoms, covariance, everything, group=stray * 1.0)
    specimen = np.flatnonzero(~stray)
    return Composition(
        elements=tuple(elements[i] for i in specimen),
        atomic_percent=100.0 * share[:, specimen],
        sigma=100.0 * share_sigma[:, specimen],
        extraneous_percent=100.0 * np.where(any_atoms, outside[:, 0], 0.0),
        extraneous_sigma=100.0 * np.where(any_atoms, outside_sigma[:, 0], 0.0),
        valid=valid,
        determined=determined[specimen],
        reasons=tuple(fit.reasons[columns[i]] for i in specimen),
        absorption="uncorrected" if foil is None else "corrected",
    )


def _shares(
    atoms: Floats, covariance: Floats, members: Floats, group: Floats | None = None
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Shares ``P atoms / (members . atoms)`` with errors; P: a row per element, or the one row `group`."""
    parts = np.eye(len(members)) if group is None else group[None, :]
    total = atoms @ members
    error = np.sqrt(np.einsum("i,nij,j->n", members, covariance, members).clip(0))
    valid = (total > 0) & (total > error)
    safe = np.where(valid, total, 1.0)
    share = np.where(valid[:, None], atoms @ parts.T / safe[:, None], 0.0)
    jacobian = (parts[None] - share[:, :, None] * members) / safe[:, None, None]
    variance = np.einsum("nei,nij,nej->ne", jacobian, covariance, jacobian, optimize=True)
    return share, np.where(valid[:, None], np.sqrt(variance.clip(0)), 0.0), valid
