"""Fixtures of the system tests: one service per module, ended by its own pid."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Service, environment


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on free ports; a module's tests share it, and it must be well when they are through."""
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running
        running.assert_well()


_WRITE = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, hyperspy.api as hs, exspy

energy = np.arange(1024) * 0.01
line = lambda kev: np.exp(-0.5 * ((energy - kev) / 0.06) ** 2) / 15
left = np.arange(32)[None, :, None] < 16
rate = 0.02 + 30 * np.where(left, line(1.74) + line(0.525), line(6.4) + 0.3 * line(0.525))

def navigation(signal_axes, pixel):
    for axis, name in zip(signal_axes, "xy"):
        axis.name, axis.units, axis.scale = name, "nm", pixel

def save(signal, name, title):
    signal.metadata.General.title = title
    signal.save(f"{sys.argv[1]}/{name}.hspy", overwrite=True)

def eds(name, seed=0, calibrated=True, spoil=None):
    counts = np.random.default_rng(seed).poisson(rate * np.ones((32, 1, 1))).astype("i4")
    if spoil is not None:
        counts[4, 7, 9] = spoil
    signal = exspy.signals.EDSTEMSpectrum(counts if spoil is not None else counts.astype("u2"))
    navigation(signal.axes_manager.navigation_axes, 1.0)
    if calibrated:
        axis = signal.axes_manager.signal_axes[0]
        axis.name, axis.units, axis.scale, axis.offset = "Energy", "keV", 0.01, 0.0
    save(signal, name, "EDS")

def haadf(name, pixel=1.0, spoil=None):
    values = np.random.default_rng(1).normal(100 + 50 * left[..., 0] * np.ones((32, 1)), 5).astype("f4")
    if spoil is not None:
        values[3, 5] = spoil
    signal = hs.signals.Signal2D(values)
    navigation(signal.axes_manager.signal_axes, pixel)
    save(signal, name, "HAADF")

eds("eds"), eds("second", seed=1), eds("uncalibrated", calibrated=False), eds("negative", spoil=-2)
haadf("haadf"), haadf("elsewhere", pixel=5.0), haadf("nan", spoil=np.nan), haadf("inf", spoil=np.inf)
"""


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small recordings as HyperSpy writes them, good ones and bad ones (Si-O left, Fe-O right).

    Field 32 x 32 pixels of 1 nm: ``eds`` and ``haadf`` are a pair, ``second`` another EDS scan;
    ``uncalibrated`` has no energy axis, ``negative`` a count of -2 at y 4, x 7, ``elsewhere`` is another field,
    ``nan`` and ``inf`` have that at y 3, x 5.
    """
    folder = tmp_path_factory.mktemp("written")
    done = subprocess.run(
        [sys.executable, "-c", _WRITE, str(folder)], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder
