"""Answers that are under way: one for each peer, at its pace, whatever the others do."""

from __future__ import annotations

from collections.abc import Iterator

from livestem.protocol.publisher import Out
from livestem.protocol.replies import SLICE, STALLED_S, WAITING, Delivery, Replies


class Bench:
    """Peers whose queues take so many messages; what is made is counted."""

    def __init__(self, **room: int) -> None:
        self.room = {name.encode(): n for name, n in room.items()}
        self.sent: list[tuple[bytes, bytes]] = []
        self.made = 0
        self.replies = Replies(self.deliver)
        self.now = 0.0

    def deliver(self, out: Out) -> Delivery:
        assert out.peer is not None
        if out.peer not in self.room:
            return "away"
        if not self.room[out.peer]:
            return "full"
        self.room[out.peer] -= 1
        self.sent.append((out.peer, bytes(out.frames[0])))
        return "sent"

    def answer(self, peer: bytes, name: str, n: int) -> Iterator[Out]:
        for i in range(n):
            self.made += 1
            yield Out([f"{name}{i}".encode()], peer)

    def ask(self, peer: bytes, name: str, n: int) -> None:
        self.replies.begin(peer, (Out, name, ""), self.answer(peer, name, n), self.now)

    def turn(self) -> bool:
        return self.replies.turn(self.now)


def test_a_long_answer_is_given_in_slices_and_others_are_not_kept_waiting():
    bench = Bench(a=1000, b=1000)
    bench.ask(b"a", "x", 3 * SLICE)
    bench.ask(b"b", "y", 2)
    assert bench.turn()
    assert len(bench.sent) == SLICE + 2 and bench.sent[-1] == (b"b", b"y1")
    while bench.turn():
        pass
    assert [name for peer, name in bench.sent if peer == b"a"] == [f"x{i}".encode() for i in range(3 * SLICE)]
    assert not bench.replies.busy


def test_nothing_is_made_for_a_peer_that_takes_nothing():
    bench = Bench(a=3)
    bench.ask(b"a", "x", 500)
    assert bench.turn() and not bench.turn()
    assert len(bench.sent) == 3 and bench.made == 4, "its queue, and one more"
    bench.room[b"a"] = 2
    assert bench.turn()
    assert [name for _, name in bench.sent] == [b"x0", b"x1", b"x2", b"x3", b"x4"], "nothing is left out"
    bench.now = STALLED_S / 2
    assert not bench.turn() and bench.replies.busy
    bench.now = STALLED_S + 1
    assert not bench.turn() and not bench.replies.busy, "it asks again when it wakes"
    bench.room[b"a"] = 9
    bench.ask(b"a", "z", 1)
    assert bench.turn() and bench.sent[-1] == (b"a", b"z0")


def test_a_peer_that_has_gone_is_forgotten():
    bench = Bench()
    bench.ask(b"gone", "x", 5)
    bench.turn()
    assert not bench.replies.busy and bench.made == 1


def test_one_answer_at_a_time_and_the_newest_of_a_kind():
    bench = Bench(a=1)
    bench.ask(b"a", "x", 3)
    bench.ask(b"a", "y", 3)
    bench.turn()
    bench.ask(b"a", "x", 2)  # asked again: the first may have been lost on the way
    bench.room[b"a"] = 100
    bench.turn()
    assert [name for _, name in bench.sent] == [b"x0", b"x1", b"x0", b"x1", b"y0", b"y1", b"y2"]


def test_what_waits_is_bounded():
    bench = Bench(a=0)
    for n in range(3 * WAITING):
        bench.ask(b"a", f"s{n}-", 1)
    bench.turn()
    bench.room[b"a"] = 1000
    while bench.turn():
        pass
    assert len(bench.sent) == WAITING
