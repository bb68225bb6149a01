"""The vgg16 encoder against plain references: numpy for the resize, one chip at a time for the trunk."""

from __future__ import annotations

import builtins
import hashlib
import sys

import numpy as np
import pytest

from livestem.domain.errors import StageError, UsageError
from livestem.stages import vgg16
from livestem.stages.vgg16 import TENSOR_SHAPES, Vgg16, check_tensors, tensors_digest


def random_tensors(seed=0):
    """He initialisation: activations keep their size through 13 layers."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape) if len(shape) == 4 else rng.normal(0, 0.1, shape)
        ).astype(np.float32)
        for name, shape in TENSOR_SHAPES.items()
    }


@pytest.fixture(scope="module")
def tensors():
    return random_tensors()


@pytest.fixture(scope="module")
def encoder(tensors):
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy core wait for each other, ten times longer than they work
    yield Vgg16(tensors)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def small_batches(request, monkeypatch):
    """Save time where the size of a batch is not the point."""
    if "real_batch" not in request.fixturenames:
        monkeypatch.setattr(vgg16, "BATCH", 4)


@pytest.fixture
def real_batch():
    return vgg16.BATCH


def chips_of(n, side=15, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


def resize_by_hand(chip, side=32):
    """Bilinear, half-pixel centres, edges repeated, no antialias; float64."""
    p = len(chip)
    at = np.clip((np.arange(side) + 0.5) * p / side - 0.5, 0, p - 1)
    low = np.floor(at).astype(int)
    high, t = np.minimum(low + 1, p - 1), at - low
    rows = chip[low] * (1 - t)[:, None] + chip[high] * t[:, None]
    return rows[:, low] * (1 - t) + rows[:, high] * t


def trunk_by_hand(tensors, chip):
    """One chip, functional calls, float64, straight down configuration D."""
    import torch
    from torch.nn import functional

    grey = torch.from_numpy(resize_by_hand(chip.astype(np.float64)))
    x = torch.stack([grey - mean for mean in (103.939, 116.779, 123.68)])[None]
    for block in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
        for i in block:
            weight, bias = (torch.from_numpy(tensors[f"features.{i}.{part}"]).double() for part in ("weight", "bias"))
            x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
        x = functional.max_pool2d(x, 2)
    return x.reshape(512).numpy()


def test_names_and_shapes_are_torchvisions():
    theirs_of = pytest.importorskip("torchvision.models.vgg")
    features = theirs_of.make_layers(theirs_of.cfgs["D"])  # vgg16().features, without its 500 MB of classifier
    theirs = {f"features.{n}": tuple(v.shape) for n, v in features.state_dict().items()}
    assert dict(TENSOR_SHAPES) == theirs


@pytest.mark.parametrize("side", [1, 2, 7, 10, 15, 20, 31, 32, 33, 64])
def test_the_resize_is_bilinear_with_half_pixel_centres(encoder, side):
    import torch

    chips = chips_of(4, side)
    got = encoder._input(torch.from_numpy(chips)).numpy() + np.reshape(vgg16.BGR_MEAN, (1, 3, 1, 1))
    want = np.stack([resize_by_hand(c.astype(float)) for c in chips])
    for channel in range(3):
        np.testing.assert_allclose(got[:, channel], want, atol=1e-4)
    torchs = torch.nn.functional.interpolate(
        torch.from_numpy(chips).float()[:, None],
        (32, 32),
        mode="bilinear",
        align_corners=False,
        antialias=False,
    )
    np.testing.assert_array_equal(
        encoder._input(torch.from_numpy(chips)).numpy(),
        (torchs - torch.tensor(vgg16.BGR_MEAN).reshape(1, 3, 1, 1)).numpy(),
    )


@pytest.mark.parametrize("side", [10, 15])
def test_embeddings_are_those_of_a_plain_network_one_chip_at_a_time(encoder, tensors, side):
    chips = chips_of(3, side)
    want = np.stack([trunk_by_hand(tensors, chip) for chip in chips])
    got = encoder.encode(chips)
    assert got.shape == (3, 512) and got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * want.max())


def test_embeddings_are_those_of_torchvisions_trunk(encoder, tensors):
    import torch

    theirs_of = pytest.importorskip("torchvision.models.vgg")
    features = theirs_of.make_layers(theirs_of.cfgs["D"]).eval()
    features.load_state_dict({n.removeprefix("features."): torch.from_numpy(v) for n, v in tensors.items()})
    chips = chips_of(4)
    with torch.inference_mode():
        want = features(encoder._input(torch.from_numpy(chips))).reshape(4, 512).numpy()
    np.testing.assert_allclose(encoder.encode(chips), want, rtol=1e-4, atol=1e-4 * want.max())


def test_how_chips_are_grouped_does_not_matter_bit_for_bit(encoder, real_batch):
    chips = chips_of(real_batch + 3)
    together = encoder.encode(chips)
    for i in (0, real_batch):
        np.testing.assert_array_equal(encoder.encode(chips[i : i + 1])[0], together[i])
    np.testing.assert_array_equal(encoder.encode(chips[::-1]), together[::-1])


def test_every_order_and_split_gives_the_same_bits(encoder):
    chips = chips_of(11)
    together = encoder.encode(chips)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(11)
        parts = [encoder.encode(part) for part in np.split(chips[order], [1, 3, 8])]
        np.testing.assert_array_equal(np.concatenate(parts), together[order])


def test_the_number_of_threads_does_not_matter_bit_for_bit(encoder):
    import torch

    chips, threads = chips_of(9), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = encoder.encode(chips)
        torch.set_num_threads(2)
        np.testing.assert_array_equal(encoder.encode(chips), one)
    finally:
        torch.set_num_threads(threads)


def test_strided_chips_are_read_as_they_look(encoder):
    image = chips_of(1, 60)[0]
    view = np.lib.stride_tricks.sliding_window_view(image, (15, 15))[::15, ::15].reshape(16, 15, 15)
    np.testing.assert_array_equal(encoder.encode(view[::2]), encoder.encode(view)[::2])


def test_half_precision_is_close_and_is_another_encoder(encoder, tensors):
    half = Vgg16(tensors, precision="bf16")
    chips = chips_of(8)
    a, b = encoder.encode(chips), half.encode(chips)
    assert b.dtype == np.float32 and not np.array_equal(a, b)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999
    assert (half.digest, half.precision) == (encoder.digest, "bf16")


def test_no_chips_give_no_rows(encoder):
    assert encoder.encode(np.empty((0, 15, 15), np.uint8)).shape == (0, 512)


@pytest.mark.parametrize(
    ("chips", "message"),
    [
        (np.zeros((2, 15, 15)), "8-bit grey"),
        (np.zeros((15, 15), np.uint8), r"\(N, p, p\)"),
        (np.zeros((2, 15, 14), np.uint8), r"\(N, p, p\)"),
    ],
)
def test_bad_chips_are_answered_in_one_line(encoder, chips, message):
    with pytest.raises(StageError, match=message):
        encoder.encode(chips)


def test_the_digest_is_of_names_and_bytes():
    tensors = {"b": np.array([1.5], np.float32), "a": np.array([[2.0], [3.0]], np.float32)}
    want = hashlib.sha256(b"a" + np.array([2, 3], "<f4").tobytes() + b"b" + np.array([1.5], "<f4").tobytes())
    assert tensors_digest(tensors) == want.hexdigest()
    big_endian = {n: v.astype(">f4") for n, v in tensors.items()}
    assert tensors_digest(big_endian) == want.hexdigest()
    assert tensors_digest({**tensors, "b": -tensors["b"]}) != want.hexdigest()


def test_wrong_tensors_are_named(tensors):
    name = "features.28.weight"
    with pytest.raises(StageError, match=f"lack the tensor {name}"):
        check_tensors({n: v for n, v in tensors.items() if n != name})
    with pytest.raises(StageError, match=f"{name} must be"):
        check_tensors({**tensors, name: tensors[name][:, ::2]})
    with pytest.raises(StageError, match="float64"):
        check_tensors({**tensors, name: tensors[name].astype(np.float64)})
    with pytest.raises(StageError, match="not of the trunk: classifier.0.bias"):
        check_tensors({**tensors, "classifier.0.bias": tensors[name]})


def test_a_device_or_precision_that_is_none_is_a_wrong_usage(tensors):
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match="cannot use device 'quantum'"):
        Vgg16(tensors, device="quantum")
    with pytest.raises(UsageError, match="fp32 or bf16"):
        Vgg16(tensors, precision="fp8")


def test_without_torch_the_line_says_what_to_install(tensors, monkeypatch):
    real_import = builtins.__import__

    def no_torch(name, *args, **kwargs):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'")
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_torch)
    with pytest.raises(UsageError, match=r'pip install "livestem\[vgg16\]"') as caught:
        Vgg16(tensors)
    assert caught.value.exit_code == 2


@pytest.mark.recordings
def test_the_real_weights_give_what_a_plain_network_gives(recordings):
    pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.numpy").load_file
    path = recordings / "vgg16_imagenet_features.safetensors"
    if not path.exists():
        pytest.skip("the recordings hold no VGG16 weights")
    tensors = load_file(path)
    encoder = Vgg16(tensors)
    assert encoder.digest == "ac0a901d030434268e4ef5287f2320c86987c2cbab0323b2ab3c93cc2cbdbab3"
    chips = chips_of(2)
    chips[1] = 128
    want = np.stack([trunk_by_hand(tensors, chip) for chip in chips])
    np.testing.assert_allclose(encoder.encode(chips), want, rtol=1e-3, atol=1e-4 * want.max())
    assert (want.max(axis=1) > 1).all()
