"""Where vgg16 runs: threads of a processor, and a GPU, whose place a fake takes: torch's moves to it are counted."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from livestem.domain.errors import UnavailableError, UsageError
from livestem.runtime import tuning
from livestem.stages import vgg16
from livestem.stages.vgg16 import TENSOR_SHAPES, Vgg16

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    return {
        name: (rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)).astype(np.float32)
        for name, shape in TENSOR_SHAPES.items()
    }


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(vgg16, "BATCH", 4)
    monkeypatch.setattr(vgg16, "GPU_BATCH", 6)


class FakeGpu:
    """A device of torch's that is the processor, counts what chips are moved to it, and can fail."""

    def __init__(self) -> None:
        self.moved: list[tuple[int, ...]] = []
        self.error: Exception | None = None

    def move(self, real, value, *args, **kwargs):
        args = tuple("cpu" if a == "cuda" else a for a in args)
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        if isinstance(value, torch.Tensor) and value.dtype == torch.uint8:
            self.moved.append(tuple(value.shape))
            if self.error is not None:
                raise self.error
        return real(value, *args, **kwargs)


@pytest.fixture
def gpu(monkeypatch):
    fake = FakeGpu()
    for owner in (torch.Tensor, torch.nn.Module):
        monkeypatch.setattr(owner, "to", lambda v, *a, real=owner.to, **k: fake.move(real, v, *a, **k))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    return fake


def chips_of(n):
    return np.random.default_rng(1).integers(0, 256, (n, 15, 15), dtype=np.uint8)


def test_the_number_of_workers_does_not_matter_bit_for_bit(tensors):
    chips = chips_of(11)
    one, three = (Vgg16(tensors, workers=n).encode(chips) for n in (1, 3))
    np.testing.assert_array_equal(three, one)


def test_each_worker_has_one_thread_and_others_keep_theirs(tensors):
    seen, before = [], torch.get_num_threads()
    encoder = Vgg16(tensors, workers=2)
    encoder._pool.submit(lambda: seen.append((torch.get_num_threads(), threading.get_ident()))).result()
    assert seen[0][0] == 1 and seen[0][1] != threading.get_ident()
    assert torch.get_num_threads() == before


def test_several_who_embed_at_once_get_what_each_gets_alone(tensors):
    encoder, chips = Vgg16(tensors, workers=2), chips_of(11)
    alone, found = encoder.encode(chips), {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: encoder.encode(chips[i:])})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [0, 1, 2]
    for i, rows in found.items():
        np.testing.assert_array_equal(rows, alone[i:])


def test_no_more_batches_wait_than_are_worked_on():
    asked, most, lock = [], [0], threading.Lock()

    class Pool:
        def submit(self, work, item):
            future = vgg16.Future()
            with lock:
                asked.append((future, item))
                most[0] = max(most[0], sum(not f.done() for f, _ in asked))
            threading.Thread(target=lambda: future.set_result(work(item))).start()
            return future

    done = []
    vgg16._at_most(2, Pool(), done.append, range(20))
    assert sorted(done) == list(range(20)) and most[0] <= 2


def test_an_error_of_a_batch_reaches_who_asked(tensors):
    encoder = Vgg16(tensors, workers=2)

    def fails(chips, size):
        raise MemoryError("no room")

    encoder._batch = fails
    with pytest.raises(MemoryError, match="no room"):
        encoder.encode(chips_of(9))


def test_a_gpu_gets_larger_batches_each_moved_once_and_gives_the_same_embeddings(tensors, gpu):
    chips = chips_of(13)
    on_gpu = Vgg16(tensors, "cuda")
    found = on_gpu.encode(chips)
    assert gpu.moved == [(6, 15, 15)] * 3
    assert (on_gpu.device, on_gpu.convolutions) == ("cuda", "direct")
    assert found.dtype == np.float32 and found.shape == (13, 512)
    want = Vgg16(tensors).encode(chips)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * want.max())
    np.testing.assert_array_equal(on_gpu.encode(chips[::-1]), found[::-1])


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device lost\nmore"), torch.OutOfMemoryError("CUDA out of memory. Tried")]
)
def test_a_gpu_that_fails_is_told_in_one_line_and_no_other_takes_its_place(tensors, gpu, error):
    encoder = Vgg16(tensors, "cuda")
    gpu.error = error
    with pytest.raises(UnavailableError, match=r"device 'cuda' failed while embedding \(CUDA") as caught:
        encoder.encode(chips_of(2))
    assert "\n" not in str(caught.value) and "restart the service" in str(caught.value)
    gpu.error = None
    assert encoder.encode(chips_of(2)).shape == (2, 512)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_a_wrong_usage(tensors):
    with pytest.raises(UsageError, match="cannot use device 'cuda'.*use --device cpu") as caught:
        Vgg16(tensors, "cuda")
    assert "\n" not in str(caught.value)


def test_tuning_measures_a_gpu_that_is_there(gpu, monkeypatch):
    monkeypatch.setattr(tuning, "_MEASURED_S", 0.0)
    monkeypatch.setattr(tuning, "BATCH", 4)
    monkeypatch.setattr(tuning, "GPU_BATCH", 6)
    monkeypatch.setattr(tuning, "_choices", lambda real=tuning._choices: (c for c in real() if c.precision == "fp32"))
    measured = tuple(tuning.measure())
    assert [row.device for row in measured] == ["cpu", "cuda"]
    assert gpu.moved and {shape[0] for shape in gpu.moved} == {4, 6}
