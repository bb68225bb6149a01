"""Convolutions of 3 x 3 on small maps with few multiplications: Winograd's minimal filtering as products of matrices.

Rules
-----
* One dimension: four neighbouring outputs of a filter of three taps need six products instead of twelve,
  ``y = A [(G w) * (B x)]`` with small constant matrices. Of a map of two values with zeros around, two outputs need
  three. Two dimensions: the same along rows and columns, so 36 products instead of 144, and 9 instead of 36.
* Every product is summed over the channels in, for every channel out: for each of the 36 (or 9) places one product of
  matrices, (tiles and chips, channels in) by (channels in, channels out). There the time goes, at the rate of a
  library's matrix product.
* A map of n x n is n / 4 by n / 4 tiles; the zeros around it are columns that B does not have.
* Maps are (n, n, chips * channels), chip before channel. No step but the pooling between two convolutions copies one.
* The transforms of the weights are made once, in float64. Interpolation at 0, 1, -1, 2, -2 and infinity keeps the
  numbers small: embeddings differ from those of plain sums by about 4e-6 of the largest, as float32 allows.

References
----------
.. [1] Winograd, Arithmetic Complexity of Computations, SIAM (1980).
.. [2] Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308 (2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]

# F(4, 3) of [2]: six inputs, three taps, four outputs.
_B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=np.float64,
)
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=np.float64) / 24
_A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=np.float64)

# Two values between zeros: y0 = w1 (x0 + x1) + (w2 - w1) x1 and y1 = w1 (x0 + x1) + (w0 - w1) x0.
_B2 = np.array([[1, 1], [0, 1], [1, 0]], dtype=np.float64)
_G2 = np.array([[0, 1, 0], [0, -1, 1], [1, -1, 0]], dtype=np.float64)
_A2 = np.array([[1, 1, 0], [1, 0, 1]], dtype=np.float64)


class Forms(NamedTuple):
    """One dimension of a map of n values, of t tiles with p products and q outputs each."""

    inputs: Floats  # (t, p, n), B with the zeros around the map left out
    weights: Floats  # (p, 3), G
    outputs: Floats  # (q, p), A


def forms_of(side: int) -> Forms:
    """Return the matrices for maps of a side.

    Raises
    ------
    StageError
        If `side` is neither 2 nor a multiple of 4.
    """
    if side == 2:
        return Forms(_B2[None], _G2, _A2)
    if side < 4 or side % 4:
        raise StageError(f"minimal filtering takes maps of 2 or a multiple of 4 values a side, got {side}")
    inputs = np.zeros((side // 4, 6, side + 2))  # with the zeros at both ends
    for tile in range(side // 4):
        inputs[tile, :, 4 * tile : 4 * tile + 6] = _B
    return Forms(inputs[:, :, 1:-1], _G, _A)


class Filtered:
    """One convolution of 3 x 3 with its bias and ReLU, zeros around the map, on the processor in float32.

    Parameters
    ----------
    weight : (out, in, 3, 3) float32
    bias : (out,) float32
    side : int
        n of the maps.
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32], side: int) -> None:
        import torch

        forms = forms_of(side)
        tiles, products, _ = forms.inputs.shape
        outputs = len(forms.outputs)
        taps = np.einsum("ay,bx,oiyx->abio", forms.weights, forms.weights, weight.astype(np.float64))
        columns_out = np.zeros((tiles, outputs, products, tiles))
        for tile in range(tiles):
            columns_out[tile, :, :, tile] = forms.outputs

        def held(values: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

        self._side, self._tiles, self._products, self._width = side, tiles, products, len(bias)
        self._taps = held(taps.reshape(products**2, weight.shape[1], self._width))
        self._bias = held(bias)
        # Rows of the map become (tile, product), columns (product, tile): the tiles of a row then stand beside the
        # chips, and for every row of tiles each place is one matrix with even strides.
        self._rows_in = held(forms.inputs.reshape(tiles * products, side))
        self._columns_in = held(forms.inputs.transpose(1, 0, 2).reshape(products * tiles, side))
        self._columns_out = held(columns_out.reshape(tiles * outputs, products * tiles))
        self._rows_out = held(forms.outputs)

    def __call__(self, maps: torch.Tensor, chips: int) -> torch.Tensor:
        """Return (n, n, chips * out) of (n, n, chips * in), both float32."""
        import torch

        side, tiles, products = self._side, self._tiles, self._products
        rows = (self._rows_in @ maps.reshape(side, -1)).reshape(tiles * products, side, -1)
        places = (self._columns_in @ rows).reshape(tiles, products**2, tiles * chips, -1)
        summed = torch.empty(tiles, products**2, tiles * chips, self._width)
        for row in range(tiles):
            torch.bmm(places[row], self._taps, out=summed[row])
        columns = self._columns_out @ summed.reshape(tiles * products, products * tiles, -1)
        found = self._rows_out @ columns.reshape(tiles, products, -1)
        return found.reshape(-1, self._width).add_(self._bias).relu_().reshape(side, side, -1)


def halved(maps: torch.Tensor) -> torch.Tensor:
    """Return the maxima (n / 2, n / 2, ...) of 2 x 2 of maps (n, n, ...)."""
    import torch

    rows = torch.maximum(maps[0::2], maps[1::2])
    return torch.maximum(rows[:, 0::2], rows[:, 1::2])
