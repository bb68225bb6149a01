"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Folder of the real recordings; skips where neither $LIVESTEM_DATA nor ../shared/data is there."""
    candidates = [os.environ.get("LIVESTEM_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for folder in candidates:
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("real recordings: neither $LIVESTEM_DATA nor ../shared/data exists here")
