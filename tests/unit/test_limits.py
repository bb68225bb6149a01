"""Every limit at its edge: what is just allowed passes, one more does what the table says.

A case is a function of a limit's value and of a folder; it returns whether what it tries is within the limit, and fails
if what happens beyond is not what the table promises. Each is tried at the edge and just beyond. A limit without a case
fails: add a line to `CASES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from lossy_link import ids
from scans import AXIS, SUPPORT, messages, plan, tiles
from test_ingest import ASKED, House
from wire_examples import examples, frames_of

from hostile_making import sent
from livestem.client import acquisition as client
from livestem.client.acquisition import Acquisition
from livestem.domain.errors import LivestemError, TransportError, WireError
from livestem.domain.geometry import Grid
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.parameters import PRESETS, Parameters
from livestem.protocol.effects import Deliver
from livestem.protocol.follower import Follower
from livestem.protocol.gaps import GapTracker
from livestem.protocol.publisher import Publisher
from livestem.protocol.track import Track
from livestem.runtime.accumulator import memory_bytes
from livestem.runtime.appetite import check_chips, finals_bytes
from livestem.runtime.recipe import resolve
from livestem.runtime.segmenter import Segmenter
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode
from ports import free_pairs

FIELD = plan()  # 24 x 24 pixels, 1024 channels, 36 chips of 4 px, two frames
STREAM = list(messages(FIELD, tiles(FIELD)))
LIVE = frames_of(examples()["segmentation"])
TILE = frames_of(examples()["eds_tile"])
ZSTD = frames_of(examples()["eds_tile dense zstd"])

Within = Callable[[Limits, Path], bool]


# --- messages ---------------------------------------------------------------------------------------------------------


def decoded(frames: list[bytes]) -> Within:
    def within(limits: Limits, folder: Path) -> bool:
        try:
            decode(frames, limits)
        except WireError as e:
            assert e.reason == "limit"
            return False
        return True

    return within


# --- scans ------------------------------------------------------------------------------------------------------------


def accepted(words: str, /, free: int | None = None, others: int = 0) -> Within:
    """A scan is taken, or refused with these words and nothing left behind."""

    def within(limits: Limits, folder: Path) -> bool:
        house = House(folder, limits)
        house.store.free = free or house.store.free
        for n in range(others):
            house.take([next(messages(FIELD, [], f"other{n}"))])
        (verdict,) = house.take(STREAM[:1])
        assert verdict.accepted == (folder / "s1" / "scan").exists()
        assert verdict.accepted or words in verdict.reason, verdict.reason
        return verdict.accepted

    return within


def counted(stream: list[Message]) -> Within:
    """All of a stream is applied or waits; or what is too much is dropped and counted, and nothing else is."""

    def within(limits: Limits, folder: Path) -> bool:
        house = House(folder, limits)
        house.take(stream)
        dropped = house.count("livestem_rejected_total", reason="limit")
        assert dropped in (0, 1)
        return not dropped

    return within


def sums() -> int:
    grid, parameters = resolved()
    return memory_bytes(FIELD, grid, parameters.register)


def finals() -> int:
    grid, parameters = resolved()
    return finals_bytes(grid.chips, AXIS.channels, parameters.recipe)


def resolved() -> tuple[Grid, Parameters]:
    return resolve(FIELD, ASKED)


def free_for(limits: Limits, folder: Path) -> bool:
    """Try with 1 GB free."""
    return accepted("free", free=10**9)(limits, folder)


def spare() -> int:
    """Return the largest `free_disk_bytes` with which a scan is taken where 1 GB is free.

    Beside it two frames of 24 x 24 pixels must have room: HAADF of two bytes each; of EDS a byte a pixel, and two for
    each photon, of which 100 000 come in a second, a microsecond a pixel.
    """
    pixels = 2 * 24 * 24
    return 10**9 - (2 * pixels + pixels + 2 * round(pixels * 1e5 * 1e-6))


# --- streams ----------------------------------------------------------------------------------------------------------


def publisher(limits: Limits, count: int) -> Publisher:
    found = Publisher("s1", "acq", 7, lambda: 0, limits=limits)
    for n in range(count):
        found.publish(m.HaadfRows(scan_id="a", frame=n, y=0, x=0), (np.zeros((4, 4), "<u2"),))
    return found


ONE = sum(map(len, next(iter(publisher(Limits(), 1).buffer._kept.values()))))  # bytes of such a message


def all_can_be_resent(limits: Limits, folder: Path) -> bool:
    """Three messages are kept; beyond, the oldest is gone."""
    asked = m.Resend(request_id="r", session="s1", epoch=7, first=1, last=3)
    said = [decode(out.frames).header for out in publisher(limits, 3).on_request(b"p", asked)]
    gone = [h for h in said if isinstance(h, m.Gone)]
    assert [(g.first, g.last) for g in gone] in ([], [(1, 1)])
    return not gone


def one_answer_holds_all(limits: Limits, folder: Path) -> bool:
    """An answer to `resend` ends once it has so many bytes, and says that there is no more in it."""
    asked = m.Resend(request_id="r", session="s1", epoch=7, first=1, last=3)
    answer = publisher(limits, 3).on_request(b"p", asked)
    said = [decode(out.frames).header for out in answer]
    assert [h.more for h in said if isinstance(h, m.Resent)][-1] is False
    return len(said) == 3


def nobody_is_let_go(limits: Limits, folder: Path) -> bool:
    """Three sessions are followed; beyond, the first is let go."""
    follower = Follower(role="observer", take="new", ids=ids("f"), limits=limits)
    follower.state = "following"
    for session in ("s1", "s2", "s3"):
        follower.published(decode(sent(session, "heartbeat")), 0.0)
    followed = [session for session in ("s1", "s2", "s3") if follower.gaps(session) is not None]
    assert followed in (["s1", "s2", "s3"], ["s2", "s3"])
    return len(followed) == 3


def nobody_is_published_no_more(limits: Limits, folder: Path) -> bool:
    """A fourth session is published; beyond, the first goes of those that have no open scan, once no finals wait."""
    gone: list[str] = []
    service = SimpleNamespace(
        settings=SimpleNamespace(limits=limits),
        _hub=SimpleNamespace(sessions=("s1", "s2", "s3"), let_go=gone.append),
        _ingest=SimpleNamespace(scans={("s1", "a"): SimpleNamespace(session="s1")}),
        _finisher=SimpleNamespace(waiting=1),
    )
    Segmenter._let_sessions_go(service)  # type: ignore[arg-type]
    assert gone == []
    service._finisher.waiting = 0
    Segmenter._let_sessions_go(service)  # type: ignore[arg-type]
    assert gone in ([], ["s2"])
    return not gone


def all_are_attached(limits: Limits, folder: Path) -> bool:
    attach = m.Attach(request_id="r", session="s1")
    answering = publisher(limits, 0)
    said = [decode(next(answering.on_request(peer, attach)).frames).header for peer in (b"1", b"2", b"3")]
    assert [type(h) for h in said[:2]] == [m.Attached] * 2
    return isinstance(said[2], m.Attached)


def all_is_held_back(limits: Limits, folder: Path) -> bool:
    """Two messages behind a gap are held back; what is too much is let go, asked for again, and not lost."""
    track = Track("s1", 7, GapTracker(1), True, limits)
    came = [Deliver(decode(frames)) for frames in publisher(Limits(), 3).buffer._kept.values()]
    for seq in (2, 3):
        assert track.arrived(came[seq - 1], seq, 0.0) == []
    held = len(track._held)
    delivered = [effect for seq in (1, 2, 3) for effect in track.arrived(came[seq - 1], seq, 1.0)]
    assert delivered == came
    return held == 2


@contextmanager
def source(limits: Limits) -> Iterator[Callable[[], int]]:
    """A recorded source that nobody acknowledges anything to; its function sends a tile and returns what is out."""
    (port,) = free_pairs(1)
    rows = m.HaadfRows(scan_id="a", frame=0, y=0, x=0)
    with Acquisition("s1", f"tcp://127.0.0.1:{port}", recorded=True, limits=limits) as acquisition:

        def send() -> int:
            acquisition.publish(rows, (np.zeros((4, 4), "<u2"),))
            return acquisition._publisher.buffer.unacknowledged_bytes

        yield send


def two_sent() -> int:
    """Return the bytes with which a third tile is sent at once: more than two take."""
    with source(Limits()) as send:
        send()
        return send() + 1


def nothing_waits(limits: Limits, folder: Path) -> bool:
    """A recorded source sends a third tile at once, or waits for an acknowledgement (of which there is none)."""
    with source(limits) as send:
        send(), send()
        try:
            send()
        except TransportError as e:
            assert "acknowledged nothing" in str(e)
            return False
        return True


# --- the table -------------------------------------------------------------------------------------------------------

OPEN_ENDED = list(messages(plan(frames=None), tiles(FIELD)))

# limit, the value at which the case is just within it (a function, if that is not known beforehand), the case
CASES: list[tuple[str, int | Callable[[], int], Within]] = [
    ("header_bytes", len(LIVE[1]), decoded(LIVE)),
    ("header_bytes", len(TILE[1]), decoded(TILE)),
    ("talk_bytes", len(TILE[1]), decoded(TILE)),
    ("message_bytes", sum(map(len, TILE)), decoded(TILE)),
    ("message_bytes", decode(ZSTD).arrays[0].nbytes, decoded(ZSTD)),
    ("message_frames", len(TILE), decoded(TILE)),
    ("pixels", 24 * 24, accepted("pixels")),
    ("channels", AXIS.channels, accepted("channels")),
    ("chips", 36, accepted("use --chip-px 5 or more")),
    ("classes", len(SUPPORT.names), accepted("classes")),
    ("planned_frames", 2, accepted("planned frames")),
    ("planned_frames", 2, counted(OPEN_ENDED[:8])),  # one tile of the second frame
    ("tiles", 12, counted(STREAM[:13])),
    ("accumulator_bytes", sums, accepted("bytes of memory")),
    ("finals_bytes", finals, accepted("use --chip-px 5 or more")),
    ("free_disk_bytes", spare, free_for),
    ("open_scans", 3, accepted("open scans", others=2)),
    ("waiting_tiles", 5, counted(STREAM[1:6])),
    ("waiting_bytes", sum(message.nbytes for message in STREAM[1:6]), counted(STREAM[1:6])),
    ("sessions", 3, nobody_is_let_go),
    ("sessions", 4, nobody_is_published_no_more),
    ("services", 3, all_are_attached),
    ("unacknowledged_bytes", two_sent, nothing_waits),
    ("resend_bytes", 3 * ONE, all_can_be_resent),
    ("snapshot_page_bytes", 2 * ONE + 1, one_answer_holds_all),
    ("held_bytes", 2 * ONE, all_is_held_back),
]
KEEPS_FREE = {"free_disk_bytes"}  # the more it is, the less is allowed


@pytest.mark.parametrize(("name", "edge", "within"), CASES, ids=[f"{c[0]} {n}" for n, c in enumerate(CASES)])
def test_at_the_edge_it_passes_and_beyond_the_table_holds(
    name: str, edge: int | Callable[[], int], within: Within, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "STALL_S", 0.05)
    at = edge() if callable(edge) else edge
    beyond = at + 1 if name in KEEPS_FREE else at - 1
    assert within(Limits(**{name: at}), tmp_path / "at")
    assert not within(Limits(**{name: beyond}), tmp_path / "beyond")


# Those that are kept by sockets: which file of the wire's tests tries them, and there which test.
BY_SOCKETS = {
    "subscribers": ("test_sockets.py", "test_only_so_many_clients_are_greeted"),
    "subscriber_queue": (
        "test_sockets.py",
        "test_a_reader_that_does_not_read_costs_its_queue_and_nobody_else_anything",
    ),
}


def test_far_from_the_limit_no_session_goes(tmp_path: Path):
    assert nobody_is_published_no_more(Limits(sessions=5), tmp_path)  # one place more than is needed


def test_every_limit_has_a_case():
    assert {name for name, *_ in CASES} | BY_SOCKETS.keys() == set(Limits.__struct_fields__)


@pytest.mark.parametrize("name", BY_SOCKETS)
def test_the_cases_that_are_elsewhere_are_there(name: str):
    file, test = BY_SOCKETS[name]
    text = (Path(__file__).parents[1] / "wire" / file).read_text(encoding="utf-8")
    (body,) = re.findall(rf"^def {test}\(.*?(?=^def |^@|\Z)", text, flags=re.M | re.S)
    assert f"Limits({name}=" in body


def test_the_docstring_is_the_table_of_all_limits_in_their_order():
    rows = re.findall(r"^    (\w+) {2,}(\S.*)$", Limits.__doc__ or "", flags=re.M)
    assert [name for name, _ in rows if name != "limit"] == list(Limits.__struct_fields__)


def test_the_docs_list_them_in_the_same_order():
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    table = text.partition("### `[limits]`")[2].partition("#### Memory")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.M) == list(Limits.__struct_fields__)


# --- memory of finals -------------------------------------------------------------------------------------------------


def largest(preset: str, channels: int = 2048, **changes: object) -> int:
    """Return how many chips the default limits allow."""
    recipe = msgspec.structs.replace(PRESETS[preset], **changes)
    return max(n for n in range(0, 20_000, 100) if finals_bytes(n, channels, recipe) <= DEFAULT_LIMITS.finals_bytes)


def test_so_many_chips_as_the_docs_say():
    for preset in PRESETS.values():
        assert finals_bytes(DEFAULT_LIMITS.chips, 4096, preset) <= DEFAULT_LIMITS.finals_bytes
    assert largest("graphem", louvain_backend="networkx") == 5_500


def test_one_legal_scan_fits_into_24_gib():
    """Its sums, the copy of them that finals are made of, the finals, and a process of 1 GiB."""
    rest = 2**30
    assert 2 * DEFAULT_LIMITS.accumulator_bytes + DEFAULT_LIMITS.finals_bytes + rest <= 24 * 2**30


@pytest.mark.parametrize(("side", "eds"), [(4, True), (4, False), (6, True), (8, True)])
def test_the_chip_size_that_would_fit_does(side: int, eds: bool):
    field = plan((240, 240), eds=eds)
    asked = msgspec.structs.replace(ASKED, chip_px=side, support=None)
    limits = Limits(chips=500)
    grid, parameters = resolve(field, asked)
    with pytest.raises(LivestemError, match=r"use --chip-px (\d+) or more") as caught:
        check_chips(limits, field, grid, parameters)
    px = int(re.findall(r"--chip-px (\d+)", str(caught.value))[0])
    check_chips(limits, field, *resolve(field, msgspec.structs.replace(asked, chip_px=px)))
    with pytest.raises(LivestemError):
        check_chips(limits, field, *resolve(field, msgspec.structs.replace(asked, chip_px=px - 1)))
