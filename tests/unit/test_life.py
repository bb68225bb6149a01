"""The tables of a scan's life, cell by cell: its phases, and which words keep it open."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from livestem.domain.life import LOST, Beam, EndArrived, Finalise, Finalised, NothingMoreComes, ScanLife, TileApplied

RECEIVING = ScanLife(tiles=1)
ENDING = ScanLife(phase="ending", tiles=1, expected=3)
FINALISING = ScanLife(phase="finalising", tiles=3, expected=3)
DONE = ScanLife(phase="done", tiles=3, expected=3)

TABLE = [
    (RECEIVING, TileApplied(), "receiving", None),
    (RECEIVING, EndArrived(tiles=1), "finalising", "complete"),
    (RECEIVING, EndArrived(tiles=1, aborted=True), "finalising", "aborted"),
    (RECEIVING, EndArrived(tiles=3), "ending", None),
    (RECEIVING, NothingMoreComes(), "finalising", "incomplete"),
    (RECEIVING, Finalised(), "receiving", None),
    (ENDING, TileApplied(), "ending", None),
    (ScanLife(phase="ending", tiles=2, expected=3), TileApplied(), "finalising", "complete"),
    (ENDING, NothingMoreComes(), "finalising", "incomplete"),
    (ScanLife(phase="ending", tiles=1, expected=3, aborted="why"), NothingMoreComes(), "finalising", "aborted"),
    *((state, event, state.phase, None) for state in (FINALISING, DONE)
      for event in (TileApplied(), EndArrived(tiles=9), NothingMoreComes())),
    (FINALISING, Finalised(), "done", None),
    (DONE, Finalised(), "done", None),
]  # fmt: skip


@pytest.mark.parametrize(("state", "event", "phase", "status"), TABLE)
def test_table(state, event, phase, status):
    after, effects = state.on(event)
    assert after.phase == phase
    assert [effect.status for effect in effects] == ([] if status is None else [status])


@pytest.mark.parametrize(
    ("state", "event", "reason"),
    [
        (RECEIVING, EndArrived(1), None),
        (RECEIVING, EndArrived(1, True, "sample drifted away"), "aborted: sample drifted away"),
        (RECEIVING, EndArrived(1, True), "aborted: no reason given"),
        (RECEIVING, EndArrived(1, True, "a\n\x1b[2Jb"), "aborted: a\\n\\x1b[2Jb"),  # it is printed on terminals
        (RECEIVING, NothingMoreComes("its source vanished"), "its source vanished"),
        (ENDING, NothingMoreComes(), LOST),
        (RECEIVING.on(EndArrived(3, True, "stop"))[0], NothingMoreComes("its source vanished"), "aborted: stop"),
    ],
)
def test_every_end_has_its_reason(state, event, reason):
    (effect,) = state.on(event)[1]
    assert isinstance(effect, Finalise) and effect.reason == reason


# --- which words keep a scan open -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Open:
    """What is known of an open scan."""

    scan_id: str
    epoch: int = 1
    ended_by: int | None = None


A, B = Open("a"), Open("b")


def beam(*moves: tuple[int, int, str]) -> Beam:
    made = Beam()
    for epoch, seq, scan_id in moves:
        made.moved(epoch, seq, scan_id)
    return made


@pytest.mark.parametrize(
    ("moves", "word_of", "scan", "counts"),
    [
        ([(1, 5, "a")], 1, A, True),  # the beam pauses: heartbeats are enough
        ([(1, 5, "a")], 2, A, False),  # another start of the sender, or another adapter
        ([(1, 5, "a"), (1, 6, "b")], 1, A, False),  # left for a further scan
        ([(1, 5, "a"), (1, 6, "b")], 1, B, True),
        ([(1, 6, "b"), (1, 5, "a")], 1, B, True),  # what is late does not take the beam back
        ([(1, 6, "b"), (1, 5, "a")], 1, A, False),
        ([(1, 5, "a"), (1, 6, "b"), (1, 7, "a")], 1, A, True),  # the beam itself has gone back
        ([(1, 5, "a"), (2, 1, "a")], 2, Open("a", epoch=2), True),  # begun anew, and taken up again
        ([(1, 5, "a"), (2, 1, "b")], 2, A, False),  # begun anew with another scan
        ([(1, 5, "a"), (2, 1, "b")], 1, A, True),  # two adapters in one session, each at its own
        ([(1, 5, "a"), (2, 1, "b")], 2, B, True),
        ([(1, 5, "a"), (2, 9, "a")], 1, Open("a", epoch=2), True),  # two adapters at one scan
        ([(1, 5, "a"), (1, 6, "b")], 1, Open("a", ended_by=1), True),  # its losses are being repaired
        ([(1, 5, "a"), (2, 1, "b")], 2, Open("a", ended_by=1), False),  # by nobody any more
        ([], 1, A, True),  # the service has started again, and the beam pauses
        ([], 2, A, False),
        ([(1, 9, "b")], 1, A, False),  # the service has started again, and the sender has gone on
    ],
)
def test_which_words_keep_a_scan_open(moves, word_of, scan, counts):
    assert beam(*moves).counts_for(word_of, scan) is counts


@pytest.mark.parametrize(
    ("moves", "scan", "reason"),
    [
        ([(1, 5, "a")], A, "its source vanished: nothing heard for 60 s"),
        ([(1, 5, "a"), (2, 1, "b")], A, "its source vanished: nothing heard for 60 s"),
        ([(1, 5, "a"), (1, 6, "b")], A, "scan b began, and nothing more of this one came for 60 s"),
        (
            [(1, 5, "a"), (1, 6, "b")],
            Open("a", ended_by=1),
            "it ended, and its source vanished before what was lost on the way came again",
        ),
        ([], A, "its source vanished: nothing heard for 60 s"),
    ],
)
def test_a_scan_that_nobody_ended_says_why_it_is_over(moves, scan, reason):
    assert beam(*moves).why(scan, 60.0) == reason
