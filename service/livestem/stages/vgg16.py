"""The paper's encoder `vgg16`: 512 numbers per chip from the convolutional trunk of VGG16.

Rules
-----
* Chip in 8-bit grey -> bilinear resize to 32 x 32 (half-pixel centres, no antialias, edges repeated) ->
  three equal channels, in the order B, G, R -> minus `BGR_MEAN`, values stay 0 .. 255 -> 13 convolutions of
  3 x 3 with ReLU, 2 x 2 maximum after each of five blocks -> the last map is 1 x 1 x 512.
* Batches have a fixed size; the last one is filled up with zeros and cut. A convolution's last bits depend
  on the batch size (other blocking, other order of sums), so only a fixed size makes an embedding
  independent of how chips are grouped. Equal `digest`, device, precision and library give equal bits.
* On the processor in ``fp32`` all but the first block is minimal filtering (`livestem.stages.minimal_filtering`):
  about twice as quick as plain sums. Elsewhere torch's own convolutions run. Which, is `convolutions`.
* A batch on the processor is one thread's work; as many are under way as torch may use threads. So neither the number
  of threads nor who else is embedding changes a bit, and nobody's chips wait for more than a batch of others'.
* ``bf16`` is for processors and GPUs with bfloat16 units: weights and activations are rounded to 8 bits of
  mantissa, the resize and the mean subtraction stay in float32. It is another encoder as far as results are
  concerned and is recorded as such.

torch is an extra: importing this module does not load it.

References
----------
.. [1] Simonyan & Zisserman, arXiv:1409.1556 (2014), configuration D.
.. [2] Ter-Petrosyan et al., arXiv:2411.09896 (2024).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import StageError, UnavailableError, UsageError
from livestem.stages.minimal_filtering import Filtered, halved

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]

SIDE = 32  # px: five halvings leave a 1 x 1 map
FEATURES = 512
BGR_MEAN = (103.939, 116.779, 123.68)  # of the photographs the network was trained on
BATCH = 32  # chips: beyond, a CPU gains nothing; a single dirty chip of a live scan costs one batch
GPU_BATCH = 512  # chips: fills a GPU's units also where maps are small; 20 MB of activations a layer

# Output channels of the convolutions, block by block (configuration D); every block ends in a maximum.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    index, channels = 0, 3
    for block in _BLOCKS:
        for width in block:
            shapes[f"features.{index}.weight"] = (width, channels, 3, 3)
            shapes[f"features.{index}.bias"] = (width,)
            index, channels = index + 2, width  # a ReLU follows each convolution
        index += 1  # and a maximum each block
    return shapes


TENSOR_SHAPES: Mapping[str, tuple[int, ...]] = _shapes()
"""Names and shapes of the 26 tensors, as in ``torchvision.models.vgg16()``; weights are (out, in, y, x)."""


def tensors_digest(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """Return the SHA-256 that names a set of weights.

    Parameters
    ----------
    tensors : name -> float32 array

    Returns
    -------
    str
        Hexadecimal; over, in sorted order of names, the UTF-8 name and then the C-order little-endian bytes.
    """
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(tensors[name], dtype="<f4").tobytes())
    return sha.hexdigest()


class Vgg16:
    """The encoder with its weights on a device.

    Parameters
    ----------
    tensors : name -> float32 array
        The 26 tensors of `TENSOR_SHAPES`; see `livestem.runtime.weights`.
    device : str
        As torch names it: ``cpu``, ``cuda``, ``cuda:1``.
    precision : {"fp32", "bf16"}
    workers : int, optional
        Batches under way at a time on the processor; by default as many as torch may use threads.

    Attributes
    ----------
    digest : str
        `tensors_digest` of the weights.
    device, precision : as given
    convolutions : ``filtered`` or ``direct``
    workers : as given; 1 on a GPU

    Raises
    ------
    UsageError
        If torch is missing or has no such device.
    StageError
        If a tensor is missing, superfluous, or has the wrong shape.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[np.float32]],
        device: str = "cpu",
        precision: Precision = "fp32",
        workers: int | None = None,
    ) -> None:
        torch = _torch()
        check_tensors(tensors)
        if precision not in ("fp32", "bf16"):
            raise UsageError(f"precision must be fp32 or bf16, got {precision!r}")
        self.digest = tensors_digest(tensors)
        self.device = device
        self.precision = precision
        self.convolutions = "filtered" if (device, precision) == ("cpu", "fp32") else "direct"
        self._pool: ThreadPoolExecutor | None = None
        self.workers = (workers or torch.get_num_threads()) if device == "cpu" else 1
        if device == "cpu":
            self._pool = ThreadPoolExecutor(self.workers, "embed", initializer=_one_thread)
        self._dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self._mean = torch.tensor(BGR_MEAN).reshape(1, 3, 1, 1)
        try:
            if self.convolutions == "filtered":
                self._trunk: Callable[[Any], Any] = _FilteredTrunk(tensors)
            else:
                self._trunk = _trunk(tensors).to(device=device, dtype=self._dtype, memory_format=torch.channels_last)
            self._mean = self._mean.to(device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            reason = str(error).splitlines()[0]
            raise UsageError(f"torch cannot use device {device!r} ({reason}); use --device cpu") from error

    def encode(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed chips.

        Parameters
        ----------
        chips : (N, p, p) uint8
            8-bit grey, see `livestem.stages.grey`; any p >= 1.

        Returns
        -------
        (N, 512) float32
            Not negative (a ReLU is last), dimensionless.

        Raises
        ------
        StageError
            If `chips` is not (N, p, p) uint8.
        UnavailableError
            If the device fails or has no memory left. No other device is taken: its numbers would be others.
        """
        if chips.ndim != 3 or chips.shape[1] != chips.shape[2] or chips.shape[1] < 1:
            raise StageError(f"chips must be (N, p, p), got {chips.shape}")
        if chips.dtype != np.uint8:
            raise StageError(f"chips must be 8-bit grey (uint8), got {chips.dtype}; map them with grey.to_grey")
        size = BATCH if self._pool is not None else GPU_BATCH
        out = np.empty((len(chips), FEATURES), dtype=np.float32)

        def embed(start: int) -> None:
            out[start : start + size] = self._batch(chips[start : start + size], size)

        starts = range(0, len(chips), size)
        if self._pool is not None:
            _at_most(self.workers, self._pool, embed, starts)
            return out
        # cuDNN may otherwise choose another algorithm, or TF32, from run to run
        with _torch().backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            try:
                for start in starts:
                    embed(start)
            except RuntimeError as error:  # of torch: out of memory, a device that was reset or has gone
                raise UnavailableError(
                    f"device {self.device!r} failed while embedding ({str(error).splitlines()[0]}); "
                    "restart the service when it is back"
                ) from error
        return out

    def _batch(self, chips: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Embed up to `size` chips as a batch of that size; to the device and back once."""
        torch = _torch()
        batch = np.zeros((size, *chips.shape[1:]), dtype=np.uint8)
        batch[: len(chips)] = chips
        with torch.inference_mode():
            features = self._trunk(self._input(torch.from_numpy(batch)))
            rows: NDArray[np.float32] = features.reshape(size, FEATURES)[: len(chips)].float().cpu().numpy()
        return rows

    def _input(self, grey: torch.Tensor) -> torch.Tensor:
        """Return (N, 3, 32, 32) network input of (N, p, p) greys."""
        torch = _torch()
        values = grey.to(self.device).float()[:, None]
        resized = torch.nn.functional.interpolate(
            values, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False
        )
        centred = resized - self._mean
        return centred.to(dtype=self._dtype, memory_format=torch.channels_last)


class _FilteredTrunk:
    """The trunk for the processor: its first block by torch, whose maps are too large for filtering to pay there."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        first, self._blocks = len(_BLOCKS[0]), []
        names = [name.removesuffix(".weight") for name in TENSOR_SHAPES if name.endswith(".weight")]
        held = [(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names]
        self._first = _trunk(tensors)[: 2 * first + 1].to(memory_format=_torch().channels_last)
        rest, side = iter(held[first:]), SIDE // 2
        for block in _BLOCKS[1:]:
            self._blocks.append([Filtered(*next(rest), side) for _ in block])
            side //= 2

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return (N, 512) of (N, 3, 32, 32)."""
        chips = len(values)
        maps = self._first(values).permute(2, 3, 0, 1).contiguous()
        maps = maps.reshape(*maps.shape[:2], -1)
        for block in self._blocks:
            for convolution in block:
                maps = convolution(maps, chips)
            maps = halved(maps)
        return maps.reshape(chips, FEATURES)


def _at_most(under_way: int, pool: ThreadPoolExecutor, work: Callable[[int], None], items: Iterable[int]) -> None:
    """Work on all items in a pool, so many at a time: who comes meanwhile does not wait for the whole queue."""
    pending: set[Future[None]] = set()
    for item in items:
        if len(pending) >= under_way:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
        pending.add(pool.submit(work, item))
    for future in pending:
        future.result()


def _one_thread() -> None:
    """Give this thread one thread of the numerical libraries, whatever others have."""
    from threadpoolctl import threadpool_limits

    _torch().get_num_threads()  # a thread's first question sets the default, which would undo the limit later
    threadpool_limits(limits=1, user_api="openmp")


def check_tensors(tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Check names, shapes and dtype of VGG16's tensors.

    Raises
    ------
    StageError
        Naming the first tensor that is missing, superfluous, or of another shape or dtype.
    """
    for name, shape in TENSOR_SHAPES.items():
        if name not in tensors:
            raise StageError(f"VGG16 weights lack the tensor {name}")
        found = tensors[name]
        if found.shape != shape or found.dtype != np.float32:
            raise StageError(f"VGG16 tensor {name} must be {shape} float32, got {found.shape} {found.dtype}")
    extra = sorted(set(tensors) - set(TENSOR_SHAPES))
    if extra:
        raise StageError(f"VGG16 weights hold a tensor that is not of the trunk: {extra[0]}")


def _trunk(tensors: Mapping[str, NDArray[np.float32]]) -> torch.nn.Sequential:
    torch = _torch()
    layers: list[Any] = []
    channels = 3
    for block in _BLOCKS:
        for width in block:
            layers += [torch.nn.Conv2d(channels, width, kernel_size=3, padding=1), torch.nn.ReLU()]
            channels = width
        layers.append(torch.nn.MaxPool2d(kernel_size=2, stride=2))
    trunk = torch.nn.Sequential(*layers)
    state = {name.removeprefix("features."): torch.tensor(value) for name, value in tensors.items()}
    trunk.load_state_dict(state, strict=True)
    return trunk.eval().requires_grad_(False)


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UsageError(
            'encoder vgg16 needs torch; run: pip install "livestem[vgg16]" (or use --preset default)'
        ) from error
    return torch
