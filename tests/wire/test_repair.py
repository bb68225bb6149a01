"""Repair by place: what is asked for and when, what a publisher answers, what a source makes again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestem.client.remake import MOST_WAITING, Remaker
from livestem.domain.errors import SourceError
from livestem.domain.geometry import Sampling
from livestem.domain.limits import Limits
from livestem.domain.scan import Haadf, ScanPlan
from livestem.domain.tiles import HaadfTile, Tile
from livestem.protocol.places import Places, outside, overlap
from livestem.protocol.publisher import Publisher
from livestem.protocol.repair import MOST_RECTANGLES, PROMISED_S, RETRY_S, TRIES, Repair
from livestem.protocol.verdicts import AGAIN_S, TIMES, WAITED_S, Verdicts
from livestem.wire import messages as m
from livestem.wire.codec import decode

Rect = m.Rectangle
SIDE = 8
PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(SIDE, SIDE), pixel_nm=(0.1, 0.1)), dtype="<u2"), frames=2)
WHOLE = Rect(modality="haadf", y=0, x=0, h=SIDE, w=SIDE)


def rows(y: int, h: int = 1, modality: Any = "haadf") -> Rect:
    return Rect(modality=modality, y=y, x=0, h=h, w=SIDE)


def pixels(rectangles: Any) -> set[tuple[str, int, int]]:
    return {(r.modality, y, x) for r in rectangles for y in range(r.y, r.y + r.h) for x in range(r.x, r.x + r.w)}


sides = st.integers(0, 5)
rects = st.builds(
    Rect, modality=st.sampled_from(["haadf", "eds"]), y=sides, x=sides, h=st.integers(1, 4), w=st.integers(1, 4)
)


@given(st.lists(rects, max_size=5), st.lists(rects, max_size=5))
def test_what_rectangles_leave_of_one_another(asked: list[Rect], covers: list[Rect]):
    left = outside(asked, covers)
    assert pixels(left) == pixels(asked) - pixels(covers)
    assert all(overlap(a, b) == bool(pixels([a]) & pixels([b])) for a in asked for b in covers)


# --- the publisher's side -----------------------------------------------------------------------------------


def sending(limits: Limits | None = None, **kwargs: Any) -> Publisher:
    return Publisher("s1", "acq", 7, lambda: 0, limits=limits or Limits(), **kwargs)


def tile(publisher: Publisher, frame: int, y: int, scan_id: str = "a") -> None:
    publisher.publish(m.HaadfRows(scan_id=scan_id, frame=frame, y=y, x=0), (np.full((1, SIDE), y, "<u2"),))


def ask(publisher: Publisher, *rectangles: Rect, frame: int = 0, epoch: int = 0) -> list[m.Talk]:
    request = m.Resend(request_id="r", session="s1", epoch=epoch, scan_id="a", frame=frame, rectangles=rectangles)
    answers = [decode(out.frames).header for out in publisher.on_request(b"p", request)]
    assert all(isinstance(a, m.Talk) and a.request_id == "r" and a.session == "s1" for a in answers)
    return answers  # type: ignore[return-value]


def filled(**kwargs: Any) -> Publisher:
    """A scan of two frames of four rows; seq 2 to 5 and 6 to 9."""
    publisher = sending(**kwargs)
    publisher.publish(m.ScanStart(scan_id="a", plan=PLAN))
    for frame in (0, 1):
        for y in range(4):
            tile(publisher, frame, y)
    return publisher


def test_what_is_kept_is_resent_whatever_epoch_is_named():
    for epoch in (0, 7, 99):
        (first, last) = ask(filled(), rows(1), rows(3), frame=1, epoch=epoch)
        assert [(first.seq, first.more), (last.seq, last.more)] == [(7, True), (9, False)]  # type: ignore[attr-defined]


def test_what_is_not_kept_is_gone_and_said_first():
    gone, resent = ask(filled(), rows(3, 3))
    assert isinstance(gone, m.Gone) and gone.more and (gone.scan_id, gone.frame, gone.first) == ("a", 0, 0)
    assert gone.rectangles == (rows(4, 2),)
    assert isinstance(resent, m.Resent) and (resent.seq, resent.more) == (5, False)
    (gone,) = ask(filled(), rows(0), frame=5)
    assert isinstance(gone, m.Gone) and not gone.more


def test_what_a_source_makes_again_is_coming():
    asked = []

    def remake(peer: bytes, request: m.Resend) -> Any:
        asked.append((peer, request.rectangles))
        return answer

    answer: Any = "coming"
    publisher = filled(remake=remake)
    coming, resent = ask(publisher, rows(3, 3))
    assert isinstance(coming, m.Coming) and coming.rectangles == (rows(4, 2),) and isinstance(resent, m.Resent)
    assert asked == [(b"p", (rows(4, 2),))]
    answer = None
    assert ask(publisher, rows(6)) == [], "not taken: asked again"


def test_one_answer_is_no_longer_than_a_burst():
    publisher = filled(limits=Limits(snapshot_page_bytes=1))
    (only,) = ask(publisher, rows(0, 4))
    assert isinstance(only, m.Resent) and not only.more


def test_sent_again_it_is_found_under_its_newest_number_and_forgotten_with_it():
    places, arrays = Places(), (np.zeros((1, SIDE), "<u2"),)
    for seq in (2, 9):
        places.add(m.HaadfRows(scan_id="a", frame=0, y=0, x=0, seq=seq), arrays)
    assert places.find("a", 0, [WHOLE])[0] == [9]
    places.forget(2)
    assert places.find("a", 0, [WHOLE])[0] == [9]
    places.forget(9)
    assert places.find("a", 0, [WHOLE]) == ([], (WHOLE,)) and not places._tiles and not places._of


def test_the_start_of_a_scan_is_kept_while_anything_of_it_is():
    publisher = filled(limits=Limits(resend_bytes=1500))
    kept = [seq for seq in range(1, 10) if publisher.buffer.get(seq) is not None]
    assert kept[0] == 1 and kept[1] > 2 and publisher.state.first_seq == 1
    publisher.publish(m.ScanEnd(scan_id="a", status="complete", frames=2, haadf_tiles=8, eds_tiles=0, eds_counts=0))
    for y in range(20):
        tile(publisher, 0, y, "b")
    assert publisher.buffer.get(10) is None and publisher.buffer.get(1) is None, "gone with its end"
    assert publisher._places.starts == set()


def test_a_buffer_too_small_for_what_it_pins_lets_that_go_too():
    publisher = sending(Limits(resend_bytes=1))
    for name in "abc":
        publisher.publish(m.ScanStart(scan_id=name, plan=PLAN))
    assert [publisher.buffer.get(seq) is not None for seq in (1, 2, 3)] == [False, False, True]


def test_acknowledgements_pass_over_what_was_let_go():
    publisher = filled(limits=Limits(resend_bytes=1500))
    for seq in (3, 9, 5):
        list(publisher.on_request(b"p", m.Ack(request_id="r", session="s1", epoch=7, seq=seq)))
    assert publisher.buffer.acknowledged == 9 and publisher.buffer.unacknowledged_bytes == 0


def test_the_slowest_of_several_services_counts_until_it_is_forgotten():
    publisher = filled()

    def acknowledges(peer: bytes, seq: int, **kwargs: Any) -> None:
        list(publisher.on_request(peer, m.Ack(request_id="r", session="s1", epoch=7, seq=seq, **kwargs)))

    acknowledges(b"fast", 9)
    assert publisher.buffer.acknowledged == 9
    tile(publisher, 0, 5)
    list(publisher.on_request(b"slow", m.Attach(request_id="r", session="s1")))
    acknowledges(b"fast", 10)
    assert publisher.buffer.acknowledged == 9 and publisher.buffer.unacknowledged_bytes > 0
    acknowledges(b"slow", 3, blocked="the disk is full")
    assert publisher.blocked == "the disk is full"
    acknowledges(b"fast", 10)
    assert publisher.blocked == "the disk is full", "one that can store does not speak for the other"
    publisher.forget(b"slow")
    assert publisher.buffer.acknowledged == 10 and publisher.blocked is None
    acknowledges(b"slow", 10, blocked="the disk is full")
    acknowledges(b"slow", 10)
    assert publisher.blocked is None


# --- what is made again ---------------------------------------------------------------------------------------


class Sender:
    """A source that can be read again, and what it says."""

    def __init__(self) -> None:
        self.sent: list[m.Rectangle] = []
        self.told: list[tuple[bytes, m.Gone]] = []
        self.remaker = Remaker(self._publish, lambda peer, word: self.told.append((peer, word)))  # type: ignore[arg-type]

    def _publish(self, header: Any, arrays: tuple[Any, ...], codec: str) -> None:
        self.sent.append(Rect(modality="haadf", y=header.y, x=header.x, h=arrays[0].shape[0], w=arrays[0].shape[1]))

    def tiles_of(self, frame: int) -> Iterator[Tile]:
        for y in range(0, SIDE, 2):
            yield HaadfTile(frame=frame, y=y, x=0, values=np.zeros((2, SIDE), "<u2"))

    def take(self, *rectangles: Rect, peer: bytes = b"p", frame: int = 0, scan_id: str = "a") -> Any:
        request = m.Resend(request_id="r", session="s1", scan_id=scan_id, frame=frame, rectangles=rectangles)
        return self.remaker.take(peer, request)


def test_only_what_is_asked_for_is_made_and_what_cannot_be_is_gone():
    sender = Sender()
    assert sender.take(rows(1)) == "gone", "nobody has said how"
    sender.remaker.offer("a", sender.tiles_of)
    assert sender.take(rows(1), rows(5, 5)) == "coming" and sender.remaker.waiting
    assert sender.sent == [], "not on the thread that asks"
    sender.remaker.serve()
    assert sender.sent == [rows(0, 2), rows(4, 2), rows(6, 2)] and not sender.remaker.waiting
    ((peer, gone),) = sender.told
    assert (peer, gone.rectangles, gone.frame) == (b"p", (rows(8, 2),), 0)
    sender.remaker.withdraw("a")
    assert sender.take(rows(1)) == "gone"


def test_the_newest_request_for_a_frame_counts_and_so_many_wait():
    sender = Sender()
    sender.remaker.offer("a", sender.tiles_of)
    assert sender.take(rows(0)) == sender.take(rows(2)) == "coming"
    for frame in range(1, MOST_WAITING):
        assert sender.take(rows(0), frame=frame) == "coming"
    assert sender.take(rows(0), frame=MOST_WAITING) is None
    sender.remaker.serve()
    assert sender.sent == [rows(2, 2)]
    assert sender.take(rows(0), frame=MOST_WAITING) == "coming"


def test_a_source_that_breaks_or_is_withdrawn_meanwhile_has_nothing():
    sender = Sender()

    def broken(frame: int) -> Iterator[Tile]:
        yield next(sender.tiles_of(frame))
        raise SourceError("the file has gone")

    sender.remaker.offer("a", broken)
    sender.take(WHOLE)
    sender.remaker.serve()
    assert sender.sent == [rows(0, 2)] and sender.told[0][1].rectangles == (rows(2, 6),)
    sender.take(WHOLE)
    sender.remaker.withdraw("a")
    sender.remaker.serve()
    assert sender.told[1][1].rectangles == (WHOLE,)
    sender.remaker.serve()  # nothing waits


# --- the service's side -----------------------------------------------------------------------------------------


class Scan:
    """What a service lacks of a scan, row by row, and its repair, on a clock that is set."""

    def __init__(self, lacking: dict[int, set[int]]) -> None:
        self.lacking = lacking
        self.repair = Repair(sorted(lacking))
        self.now = 0.0

    def holes(self, frame: int) -> tuple[Rect, ...]:
        return tuple(rows(y) for y in sorted(self.lacking[frame]))

    def wanted(self) -> tuple[int, tuple[Rect, ...]] | None:
        return self.repair.wanted(self.holes, self.now)

    def come(self, frame: int, y: int) -> None:
        self.lacking[frame].discard(y)
        self.repair.tile_came(frame, self.now)

    def answer(self, kind: type[m.Talk], frame: int, *rectangles: Rect, **more: Any) -> None:
        asked = m.Resend(request_id="r", scan_id="a", frame=frame, rectangles=rectangles or (WHOLE,))
        place = {"scan_id": "a", "frame": frame, "rectangles": rectangles} if kind is not m.Resent else {"seq": 1}
        if kind is m.Gone:
            place |= {"first": 0, "last": 0}
        self.repair.answered(kind(request_id="r", **place, **more), asked, self.now)


def test_frame_by_frame_until_nothing_is_lacking():
    scan = Scan({1: {0, 3}, 4: {2}})
    assert scan.wanted() == (1, (rows(0), rows(3)))
    assert scan.wanted() is None, "one request is under way"
    scan.come(1, 0)
    assert scan.wanted() is None
    scan.come(1, 3)
    assert scan.wanted() == (4, (rows(2),)), "at once"
    scan.come(4, 2)
    assert scan.wanted() is None and scan.repair.over


def test_a_lost_answer_is_asked_for_again_and_given_up_at_last():
    scan = Scan({0: {0}, 1: {0}})
    for _ in range(TRIES):
        assert scan.wanted() == (0, (rows(0),))
        scan.now += RETRY_S / 2
        assert scan.wanted() is None
        scan.now += RETRY_S / 2
    assert scan.wanted() is None and scan.repair.over, "nobody answers: no further frame is asked for"


def test_the_rest_of_a_burst_is_asked_for_at_once():
    scan = Scan({0: {0, 1}})
    scan.wanted()
    scan.come(0, 0)
    scan.answer(m.Resent, 0, more=True)
    assert scan.wanted() is None
    scan.answer(m.Resent, 0, more=False)
    assert scan.wanted() == (0, (rows(1),))


def test_what_is_gone_is_not_asked_for_again():
    scan = Scan({0: {0, 1}, 1: {5}})
    scan.wanted()
    scan.answer(m.Gone, 0, rows(0), more=False)
    assert scan.wanted() == (0, (rows(1),))
    scan.answer(m.Gone, 0, rows(1), more=False)
    assert scan.wanted() == (1, (rows(5),))
    asked = m.Resend(request_id="r", scan_id="a", frame=1, rectangles=(rows(5),))
    scan.repair.answered(m.Refusal(request_id="r", reason="not here"), asked, scan.now)
    scan.now += RETRY_S
    assert scan.wanted() is None and scan.repair.over


def test_what_is_promised_is_waited_for_and_asked_for_again_when_it_does_not_come():
    scan = Scan({0: {0, 1, 2}})
    scan.wanted()
    scan.answer(m.Coming, 0, rows(0), rows(1))
    scan.answer(m.Resent, 0, more=False)
    scan.come(0, 2)
    scan.now += PROMISED_S - 1
    assert scan.wanted() is None
    scan.come(0, 0)
    scan.now += PROMISED_S - 1
    assert scan.wanted() is None, "a tile shows that it is at it"
    scan.answer(m.Gone, 0, rows(7))  # a late word about something else
    scan.now += 1
    assert scan.wanted() == (0, (rows(1),))
    scan.answer(m.Coming, 0, rows(1))
    scan.answer(m.Gone, 0, rows(1))  # what was promised could not be made
    assert scan.wanted() is None and scan.repair.over


def test_words_about_another_frame_change_nothing():
    scan = Scan({3: {0}})
    scan.wanted()
    scan.answer(m.Gone, 2, WHOLE)
    scan.repair.tile_came(2, 5.0)
    scan.now += RETRY_S
    assert scan.wanted() == (3, (rows(0),))


def test_a_request_names_no_more_rectangles_than_the_wire_takes():
    holes = tuple(rows(y) for y in range(0, 3 * MOST_RECTANGLES, 2))
    repair = Repair([0])
    asked = repair.wanted(lambda frame: holes, 0.0)
    assert asked is not None and asked[1] == holes[:MOST_RECTANGLES]


@pytest.mark.parametrize("seed", range(200))
def test_over_a_lossy_link_everything_that_can_be_had_comes_and_the_rest_is_known(seed: int):
    """A publisher with a small buffer, a source that has lost some rows, and a way on which any word may be lost."""
    chance = random.Random(seed)
    sender, frames = Sender(), range(3)
    unreadable = {(f, y) for f in frames for y in range(0, SIDE, 2) if chance.random() < 0.3}

    def tiles_of(frame: int) -> Iterator[Tile]:
        return (t for t in sender.tiles_of(frame) if (frame, t.y) not in unreadable)

    sender.remaker.offer("a", tiles_of)
    publisher = sending(Limits(resend_bytes=chance.choice([1, 2000, 10**6])), remake=sender.remaker.take)
    for frame in frames:
        for each in sender.tiles_of(frame):
            publisher.publish(m.HaadfRows(scan_id="a", frame=frame, y=each.y, x=0), (each.values,))  # type: ignore
    kept = {
        (h.frame, h.y) for s in range(1, publisher.buffer.last_seq + 1)
        if (f := publisher.buffer.get(s)) is not None and isinstance(h := decode(f).header, m.HaadfRows)
    }  # fmt: skip
    lacking = {f: {y for y in range(SIDE) if chance.random() < 0.7} for f in frames}
    can_be_had = {
        (f, y) for f in frames for y in range(SIDE) if (f, y - y % 2) not in unreadable or (f, y - y % 2) in kept
    }
    expected = {f: {y for y in ys if (f, y) not in can_be_had} for f, ys in lacking.items()}
    scan, loss = Scan(lacking), chance.choice([0.0, 0.2])
    asked: m.Resend | None = None

    def arrives() -> bool:
        return scan.now > 60 or chance.random() >= loss

    def tile_comes(header: m.HaadfRows, height: int) -> None:
        for y in range(header.y, header.y + height):
            if y in scan.lacking[header.frame]:
                scan.come(header.frame, y)

    while not scan.repair.over and scan.now < 600:
        wanted = scan.wanted()
        if wanted is not None:
            asked = m.Resend(request_id="r", session="s1", scan_id="a", frame=wanted[0], rectangles=wanted[1])
            for out in publisher.on_request(b"p", asked) if arrives() else ():
                message = decode(out.frames)
                if arrives() and isinstance(message.header, m.Talk):
                    if isinstance(message.header, m.Resent):
                        nested = decode(publisher.buffer.get(message.header.seq) or ()).header
                        assert isinstance(nested, m.HaadfRows)
                        tile_comes(nested, 2)
                    scan.repair.answered(message.header, asked, scan.now)
        before = len(sender.told)
        frame = next(iter(sender.remaker._asked), (b"", "", 0))[2]
        sender.remaker.serve()
        for place in sender.sent:  # published: the stream's own numbers repair what is lost of it
            tile_comes(m.HaadfRows(scan_id="a", frame=frame, y=place.y, x=0), place.h)
        sender.sent.clear()
        for _, gone in sender.told[before:]:
            if arrives() and asked is not None:
                scan.repair.answered(gone, asked, scan.now)
        scan.now += 0.1
    assert scan.repair.over
    assert lacking == expected


# --- verdicts -------------------------------------------------------------------------------------------------


def verdict(seq: int = 5, epoch: int = 7, **kwargs: Any) -> m.Verdict:
    return m.Verdict(request_id="v", session="s1", epoch=epoch, scan_id="a", accepted=True, seq=seq, **kwargs)


def test_a_verdict_is_said_again_until_its_scan_goes_on():
    verdicts, now = Verdicts(), 100.0
    verdicts.said(verdict(), now)
    said = 1
    while said < TIMES + 4:
        assert verdicts.due(now + AGAIN_S / 2) == []
        now += AGAIN_S
        assert verdicts.due(now) == [verdict()]
        said += 1
    verdicts.came(m.ScanStart(scan_id="a", plan=PLAN, seq=5, epoch=7))
    verdicts.came(m.HaadfRows(scan_id="a", frame=0, y=0, x=0, seq=9, epoch=6))
    verdicts.came(m.HaadfRows(scan_id="b", frame=0, y=0, x=0, seq=9, epoch=7))
    assert verdicts.due(now + AGAIN_S) == [verdict()], "none of these has heard it"
    verdicts.came(m.HaadfRows(scan_id="a", frame=0, y=0, x=0, seq=6, epoch=7))
    assert verdicts.due(now + 2 * AGAIN_S) == []


def test_a_verdict_is_said_three_times_at_least_and_for_a_minute_at_most():
    verdicts = Verdicts()
    verdicts.said(verdict(), 0.0)
    verdicts.came(m.HaadfRows(scan_id="a", frame=0, y=0, x=0, seq=6, epoch=7))
    assert [len(verdicts.due(s * AGAIN_S)) for s in range(1, 5)] == [1, 1, 0, 0]
    verdicts.said(verdict(), 0.0)
    said = sum(len(verdicts.due(s * AGAIN_S)) for s in range(1, 200))
    assert said == WAITED_S / AGAIN_S


def test_a_later_verdict_takes_the_place_of_an_earlier_one():
    verdicts = Verdicts()
    verdicts.said(verdict(5), 0.0)
    verdicts.said(verdict(8), 0.1)
    assert verdicts.due(0.1 + AGAIN_S) == [verdict(8)]
