"""The benchmark of subscribers: the crowd hears everything, and goals are reckoned."""

import msgspec
import pytest
import zmq
from benchmarks.performance.crowd import crowd
from benchmarks.performance.subscribers import Heard, before, median, table

ONE = Heard(p50_s=0.05, p99_s=0.08, cpu=0.5, ingest_s=1.0, lacked=0, megabytes=0.0)
PATIENCE_MS = 20_000


def test_everybody_in_a_crowd_receives_everything():
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.xpub_verbose = True  # every subscriber's word, not the first one's alone
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        with crowd(f"tcp://127.0.0.1:{port}", 3) as received:
            for _ in range(3):
                assert publisher.poll(PATIENCE_MS), "a subscriber did not come"
                publisher.recv()
            for topic in (b"res.s.live", b"res.s.live", b"res.s.scan_done"):
                publisher.send_multipart([topic, b"1234"])
        assert [(r.messages, r.live, r.done) for r in received] == [(3, 2, 1)] * 3
        assert received[0].nbytes == 2 * 10 + 15 + 3 * 4


def test_a_crowd_of_nobody_costs_nothing():
    with crowd("tcp://127.0.0.1:9", 0) as received:
        pass
    assert received == []


def test_what_was_lacked_is_added_up_and_the_rest_are_medians():
    several = [msgspec.structs.replace(ONE, p50_s=p, lacked=n) for p, n in ((0.01, 0), (0.02, 1), (0.09, 1))]
    assert median(several) == msgspec.structs.replace(ONE, p50_s=0.02, lacked=2)


@pytest.mark.parametrize(("times", "lacked", "word"), [(1.1, 0, "met"), (1.3, 0, "missed"), (1.1, 2, "missed")])
def test_the_goal_is_reckoned(times, lacked, word):
    many = msgspec.structs.replace(ONE, p50_s=0.05 * times, lacked=lacked)
    found = table({1: ONE, 64: many})
    assert found.rows[1][:4] == ("64 subscribers", pytest.approx(times), 1.0, 1.0)
    assert f"by 64: {word}, {times:.2f}; p99 below 100 ms: met, 80 ms" in found.notes[1]
    assert ("LACKED" in found.notes[0]) is bool(lacked)


def test_two_subscribers_of_a_service_hear_the_same():
    found = before(2, seconds=1.0, frames=1)
    assert found.lacked == 0 and found.megabytes > 0
    assert 0 < found.p50_s <= found.p99_s and found.ingest_s > 0
