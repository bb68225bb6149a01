"""The benchmark of live latency: what it makes of times that are known, and that its scan can be scored at once."""

import msgspec
import numpy as np
import pytest
from benchmarks.performance.live_latency import GOAL_S, judged
from benchmarks.performance.live_listener import Heard
from benchmarks.performance.live_source import SHAPE, Sent, examples, to_and_fro

from livestem.domain.truth import ClassFacts, Truth, TruthFacts

SENT = [(seq, 0.01 * seq) for seq in range(2, 200)]


def heard(lag_s, every=4, slower=0.0):
    return [Heard(at + lag_s + slower * at, seq, True) for seq, at in SENT[::every]]


def test_a_tile_is_as_late_as_the_first_map_that_includes_it():
    found = judged(SENT, heard(0.05), 0.4)
    assert min(found.latency_s) == pytest.approx(0.05) and max(found.latency_s) == pytest.approx(0.08)
    assert found.cpu == 0.4 and found.never == 1  # the last tile came after the last map
    assert found.maps_per_s == pytest.approx(25, rel=0.1)
    assert abs(found.growth) < 0.2


def test_a_service_that_falls_behind_is_seen_to():
    found = judged(SENT, heard(0.05, slower=0.5), 1.0)
    assert max(found.latency_s) > GOAL_S and found.growth > 10


def test_tiles_before_the_first_map_and_maps_without_labels_do_not_count():
    late = [msgspec.structs.replace(h, scored=h.seq > 100) for h in heard(0.05)]
    assert len(judged(SENT, late, 0.0).latency_s) < 100
    with pytest.raises(RuntimeError, match="no live map"):
        judged(SENT, [msgspec.structs.replace(h, scored=False) for h in late], 0.0)


def test_what_is_sent_is_noted_by_its_number():
    sent = Sent()
    for topic, seq in ((b"acq.bench.scan_start", 1), (b"acq.bench.haadf_tile", 2), (b"acq.bench.eds_tile", 3)):
        frames = [topic, msgspec.msgpack.encode({"seq": seq}), b""]
        assert sent(frames) == [frames]
    assert [seq for seq, _ in sent.by_seq()] == [2, 3]


def test_frames_are_played_to_and_fro():
    assert [*to_and_fro(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]


def test_examples_are_the_topmost_pure_chips_of_each_class():
    classes = np.zeros(SHAPE, np.int8)
    classes[20:, 5:] = 1
    classes[500:, 500:] = 2  # too small for three
    facts = TruthFacts(pixel_nm=(0.1, 0.1), classes=tuple(ClassFacts(name=n, title=n) for n in ("a", "b", "c")))
    support = examples(Truth(classes, classes, np.zeros(SHAPE, np.float32), facts), 10)
    assert [(c.name, c.chips) for c in support.classes] == [
        ("a", ((0, 0), (0, 1), (0, 2))),
        ("b", ((2, 1), (2, 2), (2, 3))),
    ]
