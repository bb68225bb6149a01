"""The paper's way with the real VGG16 weights: the same digest live and in batch; without weights one clear line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from processes import Service, assert_one_clear_line, run

pytestmark = pytest.mark.system

MODALITIES = {"haadf", "eds", "atomic", "haadf+eds", "haadf+atomic"}


@pytest.fixture(scope="module")
def weights(recordings: Path) -> Path:
    file = recordings / "vgg16_imagenet_features.safetensors"
    if importlib.util.find_spec("torch") is None or not file.is_file():
        pytest.skip("torch (the extra vgg16) or the recordings' VGG16 weights are not here")
    return file


@pytest.mark.recordings
def test_batch_and_replay_agree_with_the_real_network(weights: Path, recordings: Path, tmp_path: Path):
    file, flags = recordings / "velox_v11_16x16.emd", ("--preset", "as_published")
    done = run("batch", file, *flags, "--out", tmp_path / "batch", env={"LIVESTEM_WEIGHTS": str(weights)})
    assert done.returncode == 0, done.stderr
    config = tmp_path / "serve.toml"
    config.write_text(f"weights = {json.dumps(str(weights))}\n")
    with Service(tmp_path, "--config", config) as service:
        live = service.replay_fully(file, *flags, "--speed", "max")
        service.assert_well()
    results = [json.loads((folder / "result.json").read_bytes()) for folder in (tmp_path / "batch", live)]
    assert results[0]["digest"] == results[1]["digest"]
    assert results[0]["input_digest"] == results[1]["input_digest"]
    assert (live / "labels.npz").read_bytes() == (tmp_path / "batch" / "labels.npz").read_bytes()
    with np.load(live / "labels.npz") as labels:
        assert {name.partition(".")[2] for name in labels.files} == MODALITIES
    assert results[0]["encoder"] == "vgg16"
    assert results[0]["numerics"]["encoder"].endswith(
        "ac0a901d030434268e4ef5287f2320c86987c2cbab0323b2ab3c93cc2cbdbab3"
    )
    assert {results[0]["maps"][f"louvain.{m}"].get("ensemble") for m in MODALITIES} == {None, "mean"}


def test_serve_says_at_its_start_that_weights_are_missing(tmp_path: Path):
    import subprocess

    try:
        done = run(
            *("serve", "--preset", "as_published", "--store", tmp_path / "store", "--http-port", 0),
            *("--results", "ipc://" + str(tmp_path / "r")),
            env={"LIVESTEM_CACHE": str(tmp_path)},
            timeout=15,
        )
    except subprocess.TimeoutExpired:
        pytest.fail("it serves, and will refuse every scan")
    assert_one_clear_line(done, "livestem weights fetch")


def test_weights_that_are_none_are_named(tmp_path: Path):
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    done = run("weights", "import", tmp_path / "w.safetensors", env={"LIVESTEM_CACHE": str(tmp_path / "cache")})
    assert_one_clear_line(done, "w.safetensors")
    assert not list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else True
