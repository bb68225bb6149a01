"""Fixtures of the system tests: one service per module, ended by its own pid."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from processes import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on free ports; a module's tests share it, and it must be well when they are through."""
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running
        running.assert_well()
