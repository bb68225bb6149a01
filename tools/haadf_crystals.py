"""Crystals for `make_haadf_kernels`: rectangular cells along the beam, their columns, their thermal motion.

Lengths are in angstrom here, as in abTEM; what is written for livestem is in nm. Both sides of a cell are mirrors
through the origin (exact for the projected lattice, which is all that a picture shows).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUPERCELL = 15.0  # angstrom, at least: the kernel's tail is lost beyond half of it. With 23 instead, the detector's
# mean share at 5 and 20 nm is 1 % lower, at 50 nm 6 % higher (SrTiO3 at rest, where errors do not average out)
STEP = 0.33  # angstrom, of the probe's places. The image holds nothing finer than lambda / (2 alpha) = 0.55, so half of
# that would be exact; between 0.27 and 0.33 the probe transfers below 5 %, before thermal motion
PENG = "Peng, Ren, Dudarev and Whelan, Acta Cryst. A52 (1996) 456, B at 280 K times 293/280"
ABRAMOV = "Abramov, Tsirelson, Zavodnik, Ivanov and Brown, Acta Cryst. B51 (1995) 942, 296 K"
CHOICE = "choice: B such as room-temperature refinements of orthoferrites give; octahedral tilts left out"
_ROOM = 293 / 280

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Crystal:
    """A crystal along a zone axis.

    Attributes
    ----------
    cell : sides of the cell, angstrom, the last along the beam
    sites : element and place of each atom, fractions of the cell
    columns : places of the columns of each kind, fractions in the plane
    b_factor : 8 pi^2 <u^2> of each element, angstrom^2
    source : of the B factors
    slices : of one cell: one per atomic layer, or one for the layers of 0.25 nm
    """

    cell: tuple[float, float, float]
    sites: tuple[tuple[str, float, float, float], ...]
    columns: dict[str, tuple[tuple[float, float], ...]]
    b_factor: dict[str, float]
    source: str
    slices: int

    @property
    def repeat(self) -> tuple[int, int]:
        """Cells in the supercell."""
        return math.ceil(SUPERCELL / self.cell[0]), math.ceil(SUPERCELL / self.cell[1])

    @property
    def side(self) -> tuple[float, float]:
        """Sides of the supercell, angstrom."""
        return self.repeat[0] * self.cell[0], self.repeat[1] * self.cell[1]

    @property
    def kinds(self) -> NDArray[np.str_]:
        """The kind of every column of `column_places`."""
        return np.array([kind for kind, group in self.columns.items() for _ in group] * math.prod(self.repeat))

    def column_places(self) -> Floats:
        """Return where the columns of the supercell stand, (columns, 2), angstrom: those of one cell, cell by cell."""
        return self._repeated([at for group in self.columns.values() for at in group])

    def slice_atoms(
        self, index: int, rng: np.random.Generator
    ) -> tuple[dict[str, Floats], dict[str, NDArray[np.intp]]]:
        """Return the displaced atoms of one slice of the supercell, (N, 2) per element, and their columns (N,)."""
        cell = np.array([at for group in self.columns.values() for at in group])
        places, columns = {}, {}
        for element, b_factor in self.b_factor.items():
            here = [s[1:3] for s in self.sites if s[0] == element and int(s[3] * self.slices + 1e-6) == index]
            if here:
                still = self._repeated(here)
                places[element] = still + rng.normal(0, math.sqrt(b_factor / (8 * math.pi**2)), still.shape)
                nearest = [int(np.argmin(np.abs((cell - at + 0.5) % 1 - 0.5).sum(1))) for at in here]
                columns[element] = np.add.outer(np.arange(math.prod(self.repeat)) * len(cell), nearest).ravel()
        return places, columns

    def wedge(self) -> tuple[Floats, Floats]:
        """Return the probe's places that symmetry leaves, (P, 2), angstrom, and the area of the cell each stands for.

        A quarter of the cell, for its sides are mirrors; half of that where they are equal (the diagonal is a mirror
        too) or where the cell is centred.
        """
        square = self.cell[0] == self.cell[1]
        centred = not square and any({(0.0, 0.0), (0.5, 0.5)} <= set(group) for group in self.columns.values())
        halves = [math.ceil(side / STEP / 2) for side in self.cell[:2]]
        halves[0] += halves[0] % 2 if centred else 0
        indices = [np.arange(half + 1) for half in halves]
        counts = [np.where(np.isin(i, (0, half)), 1, 2) for i, half in zip(indices, halves, strict=True)]
        row, col = np.meshgrid(*indices, indexing="ij")
        count = np.outer(*counts).astype(float)
        if square:
            count *= np.sign(row - col) + 1
        if centred:
            count *= np.sign(halves[0] / 2 - row) + 1
        kept = count > 0
        places = np.column_stack([row[kept], col[kept]]) * (np.array(self.cell[:2]) / (2 * np.array(halves)))
        return places, count[kept] / count.sum() * self.cell[0] * self.cell[1]

    def _repeated(self, fractions: list[tuple[float, float]]) -> Floats:
        corners = np.stack(np.meshgrid(*(np.arange(n) for n in self.repeat), indexing="ij"), -1).reshape(-1, 1, 2)
        return np.asarray((corners + np.array(fractions)).reshape(-1, 2) * np.array(self.cell[:2]))


def _perovskite(a: str, b: str, cell: tuple[float, float, float], b_factor: dict[str, float], source: str) -> Crystal:
    sites = ((a, 0, 0, 0), ("O", 0.5, 0.5, 0), (b, 0.5, 0.5, 0.5), ("O", 0.5, 0, 0.5), ("O", 0, 0.5, 0.5))
    columns = {a: ((0, 0),), f"{b}+O": ((0.5, 0.5),), "O": ((0.5, 0), (0, 0.5))}
    return Crystal(cell, sites, columns, b_factor, source, slices=2)


_BASES = {
    "bcc": ((0, 0, 0), (0.5, 0.5, 0.5)),
    "fcc": ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)),
}


def _metal(element: str, lattice: str, a: float, axes: tuple[tuple[float, float, float], ...], b: float) -> Crystal:
    """Return a bcc or fcc metal of lattice constant `a` in the rectangular cell whose sides are `axes`, times a."""
    span = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    points = (span + np.array(_BASES[lattice])).reshape(-1, 3) @ np.linalg.inv(np.array(axes))
    inside = np.abs(points[np.all((points > -1e-6) & (points < 1 - 1e-6), axis=1)])
    sites = tuple((element, float(x), float(y), float(z)) for x, y, z in inside)
    columns = tuple(sorted({(round(x, 6), round(y, 6)) for _, x, y, _ in sites}))
    sides = a * np.linalg.norm(np.array(axes), axis=1)
    layers = len({round(z, 6) for *_, z in sites})
    slices = layers if sides[2] / layers > 1 else 1  # layers of bcc [111] are 0.08 nm apart
    cell = (float(sides[0]), float(sides[1]), float(sides[2]))
    return Crystal(cell, sites, {element: columns}, {element: b * _ROOM}, PENG, slices)


_001 = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_110 = ((0, 0, 1), (-1, 1, 0), (1, 1, 0))
_111 = ((1, 1, -2), (-1, 1, 0), (0.5, 0.5, 0.5))
_110_FCC = ((0, 0, 1), (-0.5, 0.5, 0), (0.5, 0.5, 0))
_111_FCC = ((0.5, 0.5, -1), (-0.5, 0.5, 0), (1, 1, 1))
CRYSTALS = {
    "SrTiO3-001": _perovskite("Sr", "Ti", (3.905, 3.905, 3.905), {"Sr": 0.6214, "Ti": 0.4398, "O": 0.7323}, ABRAMOV),
    # pseudo-cubic, strained to SrTiO3: 0.3905 nm across and along the beam, 0.3952 nm along the growth direction
    "LaFeO3-001": _perovskite("La", "Fe", (3.905, 3.952, 3.905), {"La": 0.50, "Fe": 0.35, "O": 0.60}, CHOICE),
    # lattice constants: Wyckoff, Crystal Structures 1 (1963)
    "Cr-001": _metal("Cr", "bcc", 2.885, _001, b=0.239),
    "Cr-111": _metal("Cr", "bcc", 2.885, _111, b=0.239),
    "Cr-110": _metal("Cr", "bcc", 2.885, _110, b=0.239),
    "Pt-001": _metal("Pt", "fcc", 3.924, _001, b=0.3557),
    "Pt-110": _metal("Pt", "fcc", 3.924, _110_FCC, b=0.3557),
    "Pt-111": _metal("Pt", "fcc", 3.924, _111_FCC, b=0.3557),
}
