"""The noiseless HAADF image of a specimen: every projected column its kernel.

Model. High-angle scattering is incoherent: the image is the sum over columns of cross-section times number of
atoms times a kernel [1]_. Columns of aligned crystals have the kernels that multislice gives them: how much more
(or less) than the sum of its atoms a column of that thickness scatters, because the probe is channelled along it, and
how its intensity spreads about the column. Tilted grains and amorphous matter scatter atom by atom: there too the
sum is plain, for what a second scattering takes from the detector another brings to it (multislice through random
atoms agrees within a tenth, up to a fifth of the beam). The source's image widens everything alike.

The image is made in blocks whose places follow from the specimen alone, one for the standard field and its usual
drift, its neighbours where a scan needs them. So a place has the same value to the last bit whatever window it is
seen through, and frame n does not depend on how many frames are to follow.

References
----------
.. [1] Pennycook and Jesson, Ultramicroscopy 37 (1991) 14.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict, defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livestem.simulator.atoms import place_atoms
from livestem.simulator.crystals import Atoms, Box
from livestem.simulator.geometry import Geometry
from livestem.simulator.instrument import ProbeBeam
from livestem.simulator.kernels import Kernel, cross_section_nm2, fits, incoherent, kernel
from livestem.simulator.parts import Floats
from livestem.simulator.specimen import Specimen
from livestem.simulator.window import Window

_STEP_NM = 0.0125  # of the scene: a quarter of a 0.05 nm pixel, a third of the sharpest Gaussian's sigma
_KEPT = 4  # blocks: a field, or where four meet; 20 MB each for the field of a usual scan
_ROOM_NM = 1.5  # that the first block leaves around the standard field: drift of a usual scan
_FIRST = -round(_ROOM_NM / _STEP_NM)  # sample at which block (0, 0) begins
_EDGE = 120  # samples, 1.5 nm: atoms are placed this far beyond a block: three sigmas of the broadest kernel
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in sigmas
_DEPTHS = np.arange(0.0, 201.0)  # nm, at which contrasts are looked up; between, linear as in the table itself


@dataclass(frozen=True)
class Scene:
    """Share of the beam that reaches the HAADF detector, on a grid finer than any scan's.

    Attributes
    ----------
    share : (H, W) float32
        Dimensionless; the sample (i, j) lies at ``(first + (i, j)) * step_nm`` in the session's frame.
    first : (row, col) of the first sample, counted from the frame's origin
    step_nm : of the grid, nm
    """

    share: NDArray[np.float32]
    first: tuple[int, int]
    step_nm: float = _STEP_NM

    def at(self, y_nm: Floats, x_nm: Floats) -> Floats:
        """Return the share at rows `y_nm` (H,), places `x_nm` (H, W); bilinear, clamped at the edge."""
        row, in_row = self._split(y_nm, 0)
        col, in_col = self._split(x_nm, 1)
        width = self.share.shape[1]
        flat, at = self.share.ravel(), row[:, None] * width + col
        upper = flat[at] * (1 - in_col) + flat[at + 1] * in_col
        lower = flat[at + width] * (1 - in_col) + flat[at + width + 1] * in_col
        return np.asarray(upper * (1 - in_row[:, None]) + lower * in_row[:, None])

    def _split(self, place: Floats, axis: int) -> tuple[NDArray[np.intp], Floats]:
        """Return sample and fraction; both follow from the place, not from where the scene begins."""
        at = np.clip(place / self.step_nm, self.first[axis], self.first[axis] + self.share.shape[axis] - 1.001)
        whole = np.floor(at)
        return whole.astype(np.intp) - self.first[axis], at - whole


class Blocks:
    """The blocks of one specimen's scene; the last few are kept, for the next scan of the session."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self._shape = _block_shape(geometry.specimen)
        self._kept: OrderedDict[tuple[int, int, bool], NDArray[np.float32]] = OrderedDict()

    def scene(self, window: Window, *, ordered: bool = True) -> Scene:
        """Return the scene of a window on the specimen; not `ordered`: as if the beam had left no crystal."""
        low = [math.floor(start / _STEP_NM) for start in (window.y0, window.x0)]
        high = [math.ceil(end / _STEP_NM) + 2 for end in (window.y1, window.x1)]
        share = np.empty((high[0] - low[0], high[1] - low[1]), np.float32)
        spans = [
            range((a - _FIRST) // n, (b - 1 - _FIRST) // n + 1) for a, b, n in zip(low, high, self._shape, strict=True)
        ]
        for i in spans[0]:
            for j in spans[1]:
                begin = [_FIRST + k * n for k, n in zip((i, j), self._shape, strict=True)]
                start = [max(a, b) for a, b in zip(low, begin, strict=True)]
                end = [min(a, b + n) for a, b, n in zip(high, begin, self._shape, strict=True)]
                here = tuple(slice(s - a, e - a) for s, e, a in zip(start, end, low, strict=True))
                there = tuple(slice(s - b, e - b) for s, e, b in zip(start, end, begin, strict=True))
                share[here] = self._block(i, j, ordered)[there]
        return Scene(share, (low[0], low[1]))

    def _block(self, i: int, j: int, ordered: bool) -> NDArray[np.float32]:
        key = (i, j, ordered)
        if key not in self._kept:
            first = _FIRST + i * self._shape[0], _FIRST + j * self._shape[1]
            self._kept[key] = _render_block(self.geometry, first, self._shape, ordered=ordered)
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


def render(geometry: Geometry, window: Window, *, ordered: bool = True) -> Scene:
    """Return the scene of a window on a specimen; not `ordered`: as if the beam had left no crystal."""
    return Blocks(geometry).scene(window, ordered=ordered)


def channelling_warnings(specimen: Specimen) -> tuple[str, ...]:
    """Return what is to be said of a beam for which no kernels were computed: its crystals do not channel."""
    if fits(specimen.beam) or not any(m.structure.channels for m in specimen.classes):
        return ()
    beam = specimen.beam
    return (
        f"crystals do not channel: HAADF kernels were computed for another beam than {beam.energy_kv:g} kV, "
        f"{beam.convergence_mrad:g} mrad and {beam.collection_mrad[0]:g}-{beam.collection_mrad[1]:g} mrad",
    )


def _block_shape(specimen: Specimen) -> tuple[int, int]:
    """Return the (rows, cols) of a block, so many that it and its edges make a quick Fourier transform."""
    from scipy.fft import next_fast_len

    rows, cols = (
        next_fast_len(math.ceil((side + 2 * _ROOM_NM) / _STEP_NM) + 2 * _EDGE, real=True) - 2 * _EDGE
        for side in specimen.field_nm
    )
    return rows, cols


def _render_block(
    geometry: Geometry, first: tuple[int, int], block: tuple[int, int], *, ordered: bool
) -> NDArray[np.float32]:
    """Return the share (rows, cols) of the block that begins at sample `first`.

    Notes
    -----
    Columns are laid on the grid with linear weights, which keeps their number and their centre exactly and
    widens them by at most a quarter of the squared step (2 % of the variance); then each kernel is one product
    in Fourier space. The edges keep what wraps around out of the block.
    """
    from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq

    specimen = geometry.specimen
    shape = block[0] + 2 * _EDGE, block[1] + 2 * _EDGE
    top, left = first[0] - _EDGE, first[1] - _EDGE
    around = Window(*(n * _STEP_NM for n in (top, left, top + shape[0], left + shape[1])))
    square = (fftfreq(shape[0], _STEP_NM)[:, None] ** 2 + rfftfreq(shape[1], _STEP_NM) ** 2).astype(np.float32)
    total = np.zeros((shape[0], shape[1] // 2 + 1), np.complex64)
    atoms = place_atoms(geometry, _box(geometry, around), ordered=ordered)
    for (found, thermal), parts in _by_kernel(atoms, specimen.beam, specimen.thickness_nm).items():
        grid = np.zeros(shape, np.float32)
        for part, weight in parts:
            y, x = specimen.to_field(part.u, part.v)
            _lay(grid, y / _STEP_NM - top, x / _STEP_NM - left, weight / _STEP_NM**2)
        total += rfft2(grid) * _transfer(square, found, thermal, specimen.beam)
    # Fourier's rounding may fall a little below 0, and no foil scatters more than the beam.
    share = np.clip(irfft2(total, shape), 0, 1)[_EDGE:-_EDGE, _EDGE:-_EDGE]
    return np.asarray(share, np.float32)


def _by_kernel(
    atoms: list[Atoms], beam: ProbeBeam, thickness_nm: float
) -> dict[tuple[Kernel, float], list[tuple[Atoms, Floats]]]:
    """Sort atoms by the kernel they share; beside each, what it adds to the share of the beam, nm^2."""
    groups: dict[tuple[Kernel, float], list[tuple[Atoms, Floats]]] = defaultdict(list)
    channels = fits(beam)
    for a in atoms:
        weight = a.number * sum(n * cross_section_nm2(e, beam) for e, n in a.unit.items())
        if a.kernel is None or not channels:
            groups[incoherent(thickness_nm, beam), a.thermal_nm].append((a, weight))
        else:
            contrast = np.interp(a.depth_nm, _DEPTHS, _contrasts(*a.kernel))
            shape = kernel(*a.kernel, thickness_nm)  # of the foil's mean depth everywhere: widths change little
            groups[shape, 0.0].append((a, weight * contrast))  # heat is in the computed kernel
    return groups


@functools.cache  # a handful of columns; the table never changes
def _contrasts(crystal: str, column: str) -> Floats:
    return np.array([kernel(crystal, column, float(depth)).contrast for depth in _DEPTHS])


def _transfer(square: NDArray[np.float32], found: Kernel, thermal_nm: float, beam: ProbeBeam) -> NDArray[np.float32]:
    """Return the kernel's Fourier transform at squared frequencies, 1/nm^2."""
    added = (beam.source_nm / _FWHM) ** 2 + thermal_nm**2
    core, tail = (np.float32(-2 * math.pi**2 * (s**2 + added)) for s in (found.core_nm, found.tail_nm))
    share = np.float32(found.tail_share)
    return np.asarray((1 - share) * np.exp(core * square) + share * np.exp(tail * square))


def _box(geometry: Geometry, window: Window) -> Box:
    """Return the box of the specimen's frame around a window."""
    y, x = np.meshgrid([window.y0, window.y1], [window.x0, window.x1])
    u, v = geometry.specimen.to_specimen(y, x)
    return float(u.min()), float(u.max()), float(v.min()), float(v.max())


def _lay(grid: NDArray[np.float32], row: Floats, col: Floats, weight: Floats) -> None:
    """Lay `weight` at fractional (row, col), shared linearly among four samples; drop what lies outside."""
    inside = (row >= 0) & (row < grid.shape[0] - 1) & (col >= 0) & (col < grid.shape[1] - 1)
    row, col, weight = row[inside], col[inside], weight[inside]
    top, left = row.astype(np.intp), col.astype(np.intp)
    down, right = row - top, col - left
    flat = grid.reshape(-1)
    for step_down, share_down in ((0, 1 - down), (1, down)):
        for step_right, share_right in ((0, 1 - right), (1, right)):
            at = (top + step_down) * grid.shape[1] + left + step_right
            np.add.at(flat, at, (weight * share_down * share_right).astype(np.float32))
