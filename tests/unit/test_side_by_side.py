"""Steps on several threads: in order, each once, and an error is nobody's secret."""

import threading

import pytest

from livestem.runtime.side_by_side import Once, side_by_side

PATIENCE_S = 10.0


def test_results_are_in_the_order_of_the_items_whoever_was_first():
    second = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second.wait(PATIENCE_S), "the second item did not begin while the first one waited"
        elif item == 1:
            second.set()
        return item * 10

    assert side_by_side(work, [0, 1, 2], most=2) == [0, 10, 20]


def test_one_at_a_time_is_this_thread():
    here = threading.current_thread()
    assert side_by_side(lambda _: threading.current_thread(), [1, 2], most=1) == [here, here]
    assert side_by_side(lambda _: threading.current_thread(), [1], most=8) == [here]
    assert side_by_side(str, []) == []


def test_the_first_items_error_is_raised():
    def work(item: int) -> int:
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 1"):
        side_by_side(work, [1, 2, 3], most=2)


def test_who_asks_first_makes_it_and_the_others_wait():
    once, asked, made = Once(), threading.Barrier(4), []

    def make() -> str:
        made.append(threading.current_thread())
        return "made"

    def ask(_: int) -> str:
        asked.wait(PATIENCE_S)
        return once("it", make)

    assert side_by_side(ask, range(4), most=4) == ["made"] * 4
    assert len(made) == 1
    assert once("another", lambda: "other") == "other"


def test_what_could_not_be_made_fails_for_everybody():
    once, tried = Once(), []

    def fail() -> None:
        tried.append(1)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            once("it", fail)
    assert len(tried) == 1
