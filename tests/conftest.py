"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_weights_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the user's cache of weights, here and from the commands that tests run: what it holds decides no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LIVESTEM_WEIGHTS", raising=False)
        patch.setenv("LIVESTEM_CACHE", str(tmp_path_factory.mktemp("no-weights")))
        yield


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Folder of the real recordings; skips where neither $LIVESTEM_DATA nor ../shared/data is there."""
    candidates = [os.environ.get("LIVESTEM_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for folder in candidates:
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("real recordings: neither $LIVESTEM_DATA nor ../shared/data exists here")
