"""Live scoring: what is known of a running scan, and that looking costs ingest nothing."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scans import ASKED, TRUTH, messages, plan, tiles
from test_ingest import House

from livestem.runtime.embeddings import BATCH, NEVER
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Collected, eds_features, haadf_feature
from livestem.runtime.finals import fewshot_map
from livestem.runtime.live import LiveScorer
from livestem.runtime.quantification import build_quantifier


class Fake:
    """An encoder that counts what it is asked, and embeds a chip by its mean and spread."""

    digest, precision, device, convolutions = "fake", "fp32", "cpu", "none"

    def __init__(self):
        self.chips = 0

    def encode(self, chips):
        self.chips += len(chips)
        return np.stack([chips.mean(axis=(1, 2)), chips.std(axis=(1, 2)), np.ones(len(chips))], axis=1)


class FakeEncoders(Encoders):
    def __init__(self):
        super().__init__()
        self.fake = Fake()

    def of(self, recipe, begun_with=None):
        return None if recipe.encoder == "lattice" else self.fake


def running(tmp_path, shape=(24, 24), **asked):
    house = House(tmp_path, **{**msgspec.structs.asdict(ASKED), **asked})
    of = plan(shape)
    stream = list(messages(of, tiles(of)))
    house.take(stream[:1])
    return house, stream[1:-1], next(iter(house.ingest.scans.values()))


def test_nothing_new_nothing_said(tmp_path):
    house, rest, scan = running(tmp_path)
    scorer = LiveScorer(FakeEncoders(), 100)
    assert scorer.look(scan) is None
    house.take(rest[:2])
    assert scorer.look(scan).header.revision == 101
    assert scorer.look(scan) is None


def test_data_that_were_shown_before_they_were_committed_are_claimed_afterwards(tmp_path):
    house, rest, scan = running(tmp_path)
    scorer = LiveScorer(FakeEncoders(), 0)
    house.take(rest)
    before = scorer.look(scan)
    assert before.header.watermark.seq == 0 and scorer.look(scan) is None
    house.ingest.commit("s1", 7, rest[-1].header.seq)
    after = scorer.look(scan)
    assert after.header.watermark.seq == rest[-1].header.seq
    assert after.header.revision == before.header.revision + 1 and after.label_map is before.label_map
    assert scorer.look(scan) is None


def test_what_is_stored_while_a_look_lasts_is_claimed_by_it_and_what_came_later_is_not(tmp_path):
    house, rest, scan = running(tmp_path, preset="as_published")
    encoders = FakeEncoders()
    scorer, quick = LiveScorer(encoders, 0), encoders.fake.encode

    def slow(chips):
        encoders.fake.encode = quick
        house.ingest.commit("s1", 7, rest[3].header.seq)
        house.take(rest[4:6])
        house.ingest.commit("s1", 7, rest[5].header.seq)
        return quick(chips)

    encoders.fake.encode = slow
    house.take(rest[:4])
    assert scorer.look(scan).header.watermark.seq == rest[3].header.seq
    assert scan.watermark.seq == rest[5].header.seq
    assert scorer.look(scan).header.watermark.seq == rest[5].header.seq


def test_a_look_knows_when_the_oldest_tile_came_that_is_new_in_it(tmp_path):
    house, rest, scan = running(tmp_path)
    scorer = LiveScorer(FakeEncoders(), 0)
    house.take(rest[:1])
    first = scan.arrived
    assert first == scan.heard
    house.take(rest[1:4])
    assert scan.heard > first
    assert scorer.look(scan).arrived == first and scan.arrived is None
    house.take(rest[:2])  # which are here already
    assert scan.arrived is None
    house.take(rest[4:5])
    assert scorer.look(scan).arrived == scan.heard


def test_scores_begin_when_every_class_has_a_chip_and_end_right(tmp_path):
    house, rest, scan = running(tmp_path)
    scorer = LiveScorer(FakeEncoders(), 0)
    seen = []
    for message in rest:
        house.take([message])
        house.ingest.commit("s1", 7, message.header.seq)
        seen.append(scorer.look(scan))
    assert [s.header.revision for s in seen] == list(range(1, len(rest) + 1))
    assert [s.header.watermark.seq for s in seen] == [message.header.seq for message in rest]
    covered = [s.header.coverage.haadf + s.header.coverage.eds for s in seen]
    assert covered == sorted(covered) and covered[-1] == 2.0
    first = seen[0]
    assert first.header.method == "fewshot" and first.header.modality == "haadf"
    assert (first.label_map.labels[2:] == -1).all(), "rows that were not swept have no label"
    assert seen[1].header.modality == "haadf+lines"
    last = seen[-1]
    assert np.array_equal(last.label_map.labels, TRUTH)
    assert last.header.chips_done == last.header.chips == 36 and last.header.counts == scan.accumulator.eds.counts


def test_while_the_scan_runs_eds_weighs_by_the_counts_that_are_in(tmp_path):
    """Half of the frames: half the weight; at the end the live scores are the final ones."""
    weights = {"haadf": 0.45, "eds": 0.55}
    house, rest, scan = running(tmp_path, preset="as_published", modality_weights=weights)
    encoders = FakeEncoders()
    scorer = LiveScorer(encoders, 0)
    house.take(rest[: len(rest) // 2])
    half = scorer.look(scan)
    assert half.header.modality == "haadf+atomic"
    data = Collected.of(scan.accumulator, final=False)
    features = {"haadf": haadf_feature(data, scan.parameters, encoders.fake)}
    quantifier = build_quantifier(data.plan, scan.parameters, data.total, final=False)
    features |= eds_features(data, ("atomic",), quantifier, final=False)
    one, other = (fewshot_map((part,), features, data, scan.parameters).scores for part in ("haadf", "atomic"))
    assert half.label_map.scores == pytest.approx((0.45 * one + 0.275 * other) / 0.725, abs=1e-6)
    house.take(rest[len(rest) // 2 :])
    last = scorer.look(scan).label_map
    data = Collected.of(scan.accumulator, final=True)
    assert data.counted() == pytest.approx(np.ones(36))
    features = {"haadf": haadf_feature(data, scan.parameters, encoders.fake)}
    features |= eds_features(data, ("atomic",), quantifier, final=True)
    final = fewshot_map(("haadf", "atomic"), features, data, scan.parameters)
    assert np.array_equal(last.labels, final.labels) and last.scores == pytest.approx(final.scores, abs=1e-3)


def test_an_open_ended_scan_weighs_by_the_chips_that_are_ahead(tmp_path):
    of = plan(frames=None)
    house = House(tmp_path, **msgspec.structs.asdict(ASKED))
    stream = list(messages(of, tiles(plan())))[:-1]
    house.take(stream[:1] + [x for x in stream[1:] if x.header.frame == 0 or x.header.y == 0])
    (scan,) = house.ingest.scans.values()
    counted = Collected.of(scan.accumulator, final=False).counted().reshape(6, 6)
    assert (counted[:2] == 1.0).all() and (counted[2:] == 0.5).all()


def test_without_a_support_set_progress_is_still_told(tmp_path):
    house, rest, scan = running(tmp_path, support=None)
    house.take(rest[:2])
    state = LiveScorer(FakeEncoders(), 0).look(scan)
    assert state.header.method is None and state.label_map is None
    assert state.header.coverage.haadf == pytest.approx(1 / 6)


def test_a_network_embeds_changed_chips_within_its_budget_tells_their_age_and_catches_up(tmp_path):
    house, rest, scan = running(tmp_path, shape=(96, 96), preset="as_published")
    encoders, now = FakeEncoders(), [100.0]
    quick = encoders.fake.encode
    encoders.fake.encode = lambda chips: (now.__setitem__(0, now[0] + 0.01 * len(chips)), quick(chips))[1]
    scorer = LiveScorer(encoders, 0, clock=lambda: now[0])
    first = [message for message in rest if message.header.frame == 0]
    house.take(first)
    looks = [scorer.look(scan)]
    assert encoders.fake.chips == BATCH, "a quarter of a second at 10 ms a chip, and at least a batch"
    assert scan.stale_from == 100.0
    while scan.stale_from is not None:
        looks.append(scorer.look(scan))
        assert encoders.fake.chips <= len(looks) * BATCH
    assert encoders.fake.chips == 576
    assert scorer.look(scan) is None, "nothing waits, nothing new"
    mapped = [state for state in looks if state.label_map is not None]
    assert (mapped[0].ages == NEVER).any() and (mapped[-1].ages == 0).all()
    house.take([message for message in rest if message.header.frame == 1])
    later = scorer.look(scan)
    assert later.header.oldest_frames == 1 and set(np.unique(later.ages)) == {0, 1}
    assert [array.dtype.str for array in later.arrays] == ["<i2", "<f4", "<u2"]
