"""Ingest against the corpus and against chance: nothing applied, all counted by reason, the scan unharmed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from scans import messages, tiles
from test_ingest import House

from hostile import BOMBS, BROKEN, ODD, WRONG, Case
from hostile_making import PLAN, REFUSED, SCAN, SIDE, sent
from hostile_strategies import mutated, structured
from livestem.domain.errors import WireError
from livestem.domain.geometry import plan_grid
from livestem.domain.scan import ScanPlan
from livestem.domain.tiles import HaadfTile
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.conclude import conclude
from livestem.runtime.encoders import Encoders
from livestem.runtime.journal import JournalRecording
from livestem.runtime.results import write_result
from livestem.runtime.settings import Settings
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

FIELD = msgspec.convert(PLAN, ScanPlan)
NOTHING_ASKED = {"elements": None, "chip_px": None, "support": None}
TILES = ("haadf_tile", "eds_tile", "eds_tile dense zstd")
OF_SCANS = (m.ScanStart, m.HaadfRows, m.EdsRows, m.ScanEnd)


class Victim:
    """A scan that is being received, and somebody who sends rubbish in its name."""

    def __init__(self, root: Path, frames: int = 1) -> None:
        self.house = House(root, **NOTHING_ASKED)
        stream = list(messages(FIELD, tiles(FIELD, rows=1), SCAN))
        here = 1 + frames * (len(stream) - 2) // 2
        self.house.take(stream[:here])
        self._rest = stream[here:]
        self.scan = self.house.ingest.scans["s1", SCAN]

    @property
    def digest(self) -> str:
        return self.scan.accumulator.input_digest()

    @property
    def rejected(self) -> dict[str, float]:
        """Messages dropped so far, by reason."""
        found = self.house.metrics.rejected.collect()[0].samples
        return {s.labels["reason"]: s.value for s in found if s.name.endswith("_total") and s.value}

    @property
    def fates(self) -> float:
        """What has become of messages so far, all fates together."""
        house = self.house
        tiles = sum(house.count("livestem_tiles_received_total", modality=k) for k in ("haadf", "eds"))
        ends = sum(scan.end is not None for scan in house.ingest.scans.values()) + len(house.finished)
        duplicates = house.count("livestem_tiles_duplicate_total")
        return tiles + ends + duplicates + len(house.ingest._early) + sum(self.rejected.values())

    def send(self, frames: list[bytes]) -> list[bool]:
        """Send frames as the intake takes them; return the verdicts."""
        try:
            message = decode(frames)
        except WireError as e:
            self.house.ingest.reject(e)
            return []
        return [verdict.accepted for verdict in self.house.ingest.apply(message)]

    def assert_unharmed(self) -> None:
        """Send the rest of the scan: it is complete, and as if nothing had been."""
        self.house.take(self._rest)
        ((scan, status),) = [(s, status) for s, status in self.house.finished if s is self.scan]
        assert status == "complete" and scan.accumulator.missing() == ()
        assert scan.accumulator.input_digest() == CLEAN
        with JournalRecording(scan.journal.path) as journal:
            assert len(list(journal.messages())) == len(tiles(FIELD, rows=1))


def _clean() -> str:
    grid = plan_grid(FIELD.sampling("haadf"), FIELD.sampling("eds"))
    accumulator = Accumulator(FIELD, grid, "frames")
    for message in list(messages(FIELD, tiles(FIELD, rows=1), SCAN))[1:-1]:
        accumulator.apply(message)
    return accumulator.input_digest()


CLEAN = _clean()


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A scan half of which is here; all that is sent to it meets what was sent before."""
    victim = Victim(tmp_path_factory.mktemp("victim"))
    yield victim
    victim.assert_unharmed()


def refused(victim: Victim) -> None:
    """Have a scan refused, under the name that the corpus knows."""
    assert victim.send(sent("s1", "scan_start", scan_id=REFUSED, plan=PLAN | {"processing": {"chip_px": 99}})) == [
        False
    ]


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_what_breaks_the_scans_rules_is_counted_and_not_applied(victim: Victim, case: Case):
    refused(victim)
    before, digest = victim.rejected, victim.digest
    victim.send(case.make("s1"))
    assert victim.digest == digest
    assert victim.rejected == before | {case.reason: before.get(case.reason, 0) + 1}


def test_what_is_broken_is_counted_and_not_applied(victim: Victim):
    digest, before = victim.digest, Counter(victim.rejected)
    cases = [case for case in BROKEN if not case.heavy]
    for case in cases:
        victim.send(case.make("s1"))
    assert victim.digest == digest
    assert Counter(victim.rejected) - before == Counter(case.reason for case in cases)


@pytest.mark.parametrize("case", BOMBS, ids=str)
def test_a_plan_that_is_a_bomb_is_refused_and_leaves_nothing_behind(victim: Victim, case: Case):
    before = sorted(victim.house.store.root.rglob("*"))
    assert victim.send(case.make("s1")) == [False]
    assert sorted(victim.house.store.root.rglob("*")) == before


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders.configured(Settings())


@pytest.mark.parametrize("case", ODD, ids=str)
def test_a_plan_of_nonsense_is_a_scan_like_any_other(case: Case, tmp_path: Path, encoders: Encoders):
    house = House(tmp_path, **NOTHING_ASKED)
    start = decode(case.make("s1"))
    plan = start.header.plan
    assert [v.accepted for v in house.take([start, *list(messages(plan, tiles(plan), "bomb"))[1:]])] == [True]
    ((scan, status),) = house.finished
    assert status == "complete"
    result = conclude(scan, status, encoders)
    write_result(scan.journal.path.parent, result)
    assert result.finals.maps


def test_a_result_of_two_measurements_under_one_name_says_so(tmp_path: Path, encoders: Encoders):
    """The first half of one run, and all of another: what is kept is of both, and whole."""
    house = House(tmp_path, **NOTHING_ASKED)
    one, other = (list(messages(FIELD, tiles(FIELD, seed=seed))) for seed in (0, 1))
    half = len(one) // 2
    house.take([*one[:half], *other[1:]])
    ((scan, status),) = house.finished
    warnings = conclude(scan, status, encoders).warnings
    assert status == "complete" and any(w.startswith(f"{half - 1} tiles were refused") for w in warnings)


EXTREMES = {
    "all zero": lambda rng, shape: np.zeros(shape),
    "as bright as can be": lambda rng, shape: np.full(shape, 2.0**40),
    "one pixel as bright as can be": lambda rng, shape: np.eye(*shape) * 2.0**40,
    "as dark and as bright": lambda rng, shape: rng.choice([-(2.0**40), 2.0**40], shape),
    "next to nothing": lambda rng, shape: rng.choice([0.0, 5e-324, 1e-308], shape),
    "a chessboard": lambda rng, shape: np.indices(shape).sum(0) % 2 * 2.0**40,
}


@pytest.mark.parametrize("name", EXTREMES)
def test_values_at_the_edge_are_a_scan_like_any_other(name: str, tmp_path: Path, encoders: Encoders):
    plan = msgspec.structs.replace(FIELD, eds=None, haadf=msgspec.structs.replace(FIELD.haadf, dtype="<f8"))
    house, rng = House(tmp_path, **NOTHING_ASKED), np.random.default_rng(0)
    frames = [HaadfTile(frame=f, y=0, x=0, values=EXTREMES[name](rng, (SIDE, SIDE))) for f in range(2)]
    house.take(messages(plan, frames))
    ((scan, status),) = house.finished
    write_result(scan.journal.path.parent, conclude(scan, status, encoders))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A scan whose every pixel is here: nothing that comes can be new. What one message leaves, the next one meets."""
    victim = Victim(tmp_path_factory.mktemp("chance"), frames=2)
    yield victim
    victim.assert_unharmed()


@settings(max_examples=300, deadline=None)
@given(frames=mutated() | structured())
def test_whatever_comes_by_chance_is_counted(filled: Victim, frames: list[bytes]):
    _send_and_account(filled, frames)


@settings(max_examples=300, deadline=None)
@given(frames=mutated(TILES) | structured(TILES))
def test_whatever_comes_in_the_name_of_a_scan_is_counted_and_not_applied(filled: Victim, frames: list[bytes]):
    digest = filled.digest
    _send_and_account(filled, _renamed(frames))
    assert filled.digest == digest


def _renamed(frames: list[bytes]) -> list[bytes]:
    """Return a tile of the examples as one of the open scan, if it can be read at all."""
    try:
        message = decode(frames)
    except WireError:
        return frames
    header = msgspec.structs.replace(message.header, session="s1", scan_id=SCAN)
    return encode(header, message.arrays, stream="acq")


def _send_and_account(victim: Victim, frames: list[bytes]) -> None:
    """Every message is dropped under a reason, answered, a duplicate, waits for its start, or is part of a scan."""
    with contextlib.suppress(WireError):
        if not isinstance(decode(frames).header, OF_SCANS):
            return  # talk and heartbeats are not for ingest
    before = victim.fates
    assert victim.send(frames) or victim.fates > before
