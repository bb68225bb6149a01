"""A scan goes on where its journal ends: whenever the service was killed, the result is that of one that was not."""

from __future__ import annotations

import shutil
import zipfile

import msgspec
import numpy as np
import pytest
from make_golden_store import ASKED as GOLDEN_ASKED
from make_golden_store import GOLDEN, TAKEN, small
from scans import messages, plan, tiles
from test_ingest import ASKED, House

from livestem.domain.errors import LivestemError, SourceError, UnavailableError
from livestem.domain.limits import Limits
from livestem.runtime.conclude import conclude
from livestem.runtime.encoders import Arithmetic, Encoders
from livestem.runtime.journal import JournalRecording
from livestem.runtime.store import Store
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

ROOMY = Limits(free_disk_bytes=0)


@pytest.fixture
def start(tmp_path):
    """Start services one after the other on one store; each new start kills the one before."""
    running = []

    def begin(**changes) -> House:
        if running:
            kill(running.pop())
        running.append(House(tmp_path, ROOMY, store=Store(tmp_path), **changes))
        return running[-1]

    yield begin
    kill(running.pop())


def kill(house):
    """End a service as `kill -9` does: what is not committed is gone, and nothing is folded in."""
    for scan in house.ingest.scans.values():
        scan.journal.abandon()
    house.store.close()


def resumed(house):
    """Resume what is open, as a service does when it starts; return what would be sent from which seq on."""
    for session, scan_id in house.store.open_scans():
        house.ingest.resume(session, scan_id)
    return house.ingest.stored("s1", 7)


def result(house):
    ((scan, status),) = house.finished
    found = conclude(scan, status, Encoders())
    return found.status, found.input_digest, found.finals.digest


def feed(house, stream, *, commit_every=3):
    """Apply messages, committing now and then as if all before had come."""
    for i, message in enumerate(stream):
        house.take([message])
        if i % commit_every == commit_every - 1:
            house.ingest.commit("s1", 7, message.header.seq)


def restarted(stream, epoch=8):
    """Return a stream as its sender would send it after a restart of its own."""
    for message in stream:
        header = msgspec.structs.replace(message.header, epoch=epoch)
        yield decode(encode(header, message.arrays, stream="acq"))


@pytest.mark.parametrize(("haadf", "register"), [("<u2", "none"), ("<f4", "none"), ("<f4", "frames")])
def test_killed_anywhere_the_digest_is_the_same(start, tmp_path, haadf, register):
    """Killed once after some message; what was not committed is sent again from the cursor on."""
    of = plan(haadf=haadf, frames=3)
    stream = list(messages(of, tiles(of)))
    whole = House(tmp_path / "whole", register=register)
    whole.take(stream)
    wanted = result(whole)
    for killed_after in range(1, len(stream), 4):
        house = start(register=register)
        feed(house, stream[:killed_after])
        house = start(register=register)
        stored = resumed(house)
        assert killed_after - 3 <= stored <= killed_after or stored == 0
        house.take(stream[stored:])
        assert result(house) == wanted, killed_after
        shutil.rmtree(tmp_path / "s1")
        house.store._execute("DELETE FROM scans")


def test_it_keeps_its_own_parameters_however_the_service_is_started(start):
    stream = list(messages(plan(), tiles(plan())))
    feed(start(chip_px=6), stream[:7])
    house = start(chip_px=4)
    assert resumed(house) == 6
    (scan,) = house.ingest.scans.values()
    assert (scan.parameters.chip_px, scan.grid.chip_px, scan.life.tiles) == (6, 6, 5)
    (verdict,) = house.take(stream[:1])
    assert verdict.accepted and (verdict.facts["chip_px"], verdict.facts["kept"]) == (6, 5)
    house.take(stream[1:])
    ((scan, status),) = house.finished
    assert status == "complete" and scan.parameters.chip_px == 6


def test_an_open_scan_is_not_open_for_another_plan(start):
    feed(start(), messages(plan(), tiles(plan())[:4]))
    other = list(messages(plan(frames=3), []))[:1]
    for resume in (True, False):
        house = start()
        if resume:
            resumed(house)
        (verdict,) = house.take(other)
        assert not verdict.accepted and "another plan" in verdict.reason and "--session" in verdict.reason


def test_a_scan_that_had_all_it_would_get_is_over_at_once(start):
    """Its end was there, and what was missing was gone for good; or it was complete and not handed on."""
    stream = list(messages(plan(), tiles(plan())))
    for missing in (stream[3:4], []):
        feed(start(), [x for x in stream if x not in missing], commit_every=1)
        house = start()
        resumed(house)
        assert [status for _, status in house.finished] == ["incomplete" if missing else "complete"]
        assert not house.ingest.scans
        house.store._execute("DELETE FROM scans")


def test_a_repair_under_way_goes_on(start):
    """Its end was there, and what was missing was still being asked for."""
    stream = list(messages(plan(), tiles(plan())))
    house = start()
    house.take([x for x in stream if x is not stream[3]])
    house.ingest.commit("s1", 7, 3)
    house = start()
    assert resumed(house) == 3 and not house.finished
    house.take(stream[3:])
    assert [status for _, status in house.finished] == ["complete"]


@pytest.mark.parametrize("ended", ["aborted", "silent", "lost"])
def test_an_unfinished_scan_that_is_sent_again_is_made_whole(start, tmp_path, ended):
    """Reopened from its journal: what it had is known, what it lacked is added, the end before is taken back."""
    stream = list(messages(plan(), tiles(plan())))
    wanted = House(tmp_path / "whole")
    wanted.take(stream)
    house = start()
    first = [x for x in stream[:-1] if x is not stream[3]]
    if ended == "aborted":
        header = msgspec.structs.replace(stream[-1].header, status="aborted", haadf_tiles=5)
        first.append(decode(encode(header, stream="acq")))
    elif ended == "lost":
        first.append(stream[-1])
    feed(house, first)
    house.ingest.settle("s1", 7, 10**6)
    house.ingest.expire(10**9, 60)
    ((scan, status),) = house.finished
    assert status == ("aborted" if ended == "aborted" else "incomplete")
    house.store.keep_results("s1", 1, [done(scan.scan_id, status)])
    for restart in (False, True):
        again = start() if restart else house
        again.finished.clear()
        (verdict,) = again.take(restarted(stream, epoch=9))
        assert verdict.accepted and verdict.facts["kept"] == 11 + restart
        assert result(again) == result(wanted)
        assert again.store.known("s1", "scan").status == "open", "until its finals are stored"
        again.store.keep_results("s1", 2 + restart, [done(scan.scan_id, "incomplete")])
    house = start()
    house.store.keep_results("s1", 4, [done(scan.scan_id, "complete")])
    (verdict,) = house.take(restarted(stream, epoch=10))
    assert verdict.facts == {"already": "complete"} and not house.finished


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("stored", [False, True])
def test_what_comes_of_a_scan_that_was_given_up_opens_it_again(start, tmp_path, stored, restart):
    """A line that was cut for longer than `vanish_s`: the source goes on where it is, and starts nothing anew."""
    stream = list(messages(plan(), tiles(plan())))
    wanted = House(tmp_path / "whole")
    wanted.take(stream)
    house = start()
    feed(house, stream[:6])
    house.ingest.expire(10**9, 60)
    assert [status for _, status in house.finished] == ["incomplete"]
    if stored:
        house.store.keep_results("s1", 1, [done("scan", "incomplete")])
    if restart:
        house = start()
        resumed(house)
    house.finished.clear()
    house.take(stream[4:])
    assert result(house) == result(wanted)
    assert house.store.known("s1", "scan").status == "open"
    assert house.count("livestem_tiles_duplicate_total") == 2


def test_what_comes_of_a_scan_that_has_ended_does_not_open_it(start):
    stream = list(messages(plan(), tiles(plan())))
    house = start()
    feed(house, [x for x in stream if x is not stream[3]], commit_every=1)
    house.ingest.settle("s1", 7, 10**6)
    house.store.keep_results("s1", 1, [done("scan", "incomplete")])
    house = start()
    house.take([*stream[4:6], *stream[4:6]])
    assert not house.finished and not house.ingest.scans
    assert house.count("livestem_tiles_duplicate_total") == 4


def done(scan_id, status):
    """Return a `scan_done` as the publisher numbers it."""
    from livestem.protocol.publisher import Publisher

    kept = []
    header = m.ScanDone(
        scan_id=scan_id, status=status, coverage=m.Coverage(), missing_tiles=(), input_digest="", digest="d",
        timings_s={},
    )  # fmt: skip
    Publisher("s1", "res", 1, lambda: 0, keep=kept.extend).publish_all([(header, ())])
    return kept[0]


def test_a_scan_begun_again_is_not_over_by_its_old_end(start):
    """Aborted, sent again, killed in the middle: the abort is taken back in the journal, too."""
    stream = list(messages(plan(), tiles(plan())))
    aborted = decode(
        encode(msgspec.structs.replace(stream[-1].header, status="aborted", haadf_tiles=1, eds_tiles=1), stream="acq")
    )
    house = start()
    feed(house, [*stream[:3], aborted])
    assert [status for _, status in house.finished] == ["aborted"]
    house.store.keep_results("s1", 1, [done("scan", "aborted")])
    feed(house, list(restarted(stream))[:6], commit_every=1)
    house.ingest.commit("s1", 8, 6)
    house = start()
    resumed(house)
    assert not house.finished
    house.take(list(restarted(stream))[6:])
    assert [status for _, status in house.finished] == ["complete"]


@pytest.mark.parametrize("damage", ["truncated", "text", "gone", "other"])
def test_a_damaged_journal_is_set_aside_and_the_scan_begun_anew(start, tmp_path, damage, caplog):
    stream = list(messages(plan(), tiles(plan())))
    feed(start(), stream[:9])
    house = start()
    path = tmp_path / "s1" / "scan" / "journal.sqlite"
    for log in path.parent.glob("journal.sqlite-*"):
        log.unlink()
    if damage == "gone":
        path.unlink()
    elif damage == "other":
        from livestem.runtime.journal import Journal

        path.unlink()
        other = Journal(path)
        other.append(next(messages(plan(frames=1), [])))
        other.close()
    else:
        path.write_bytes(b"hello" * 100 if damage == "text" else path.read_bytes()[:5000])
    with pytest.raises(SourceError) as caught:
        house.ingest.resume("s1", "scan")
    assert "\n" not in str(caught.value) and "journal.sqlite" in str(caught.value)
    assert house.ingest.stored("s1", 7) == 0, "it has to be sent from its beginning"
    (verdict,) = house.take(stream)
    assert verdict.accepted and "kept" not in verdict.facts
    assert [status for _, status in house.finished] == ["complete"]
    assert (tmp_path / "s1" / "scan.1").is_dir() and "kept beside it" in caplog.text


def test_what_a_sender_repeats_is_what_the_least_advanced_scan_lacks(start):
    """Two scans open at once, and one whose sender has begun anew since."""
    a, b = (list(messages(plan(), tiles(plan()), name)) for name in "ab")
    house = start()
    house.take(a[:6])
    house.ingest.commit("s1", 7, 5)
    house.take(b[:3])
    assert house.ingest.stored("s1", 7) == 0, "of b nothing is committed with its place in the stream"
    house.ingest.scans["s1", "b"].journal.commit(7, 9)
    house = start()
    assert resumed(house) == 5
    assert house.ingest.stored("s1", 8) == 0 and house.ingest.stored("s2", 7) == 0
    house.take(restarted(b[:4]))
    house.ingest.commit("s1", 8, 4)
    house = start()
    assert resumed(house) == 0, "a and b know different epochs"


def test_of_a_session_at_rest_nothing_is_repeated(start):
    stream = list(messages(plan(), tiles(plan())))
    feed(house := start(), stream, commit_every=1)
    house.store.keep_results("s1", 1, [done("scan", "complete")])
    house = start()
    assert resumed(house) == len(stream) - 1
    house.take(stream[-1:])  # comes once more, without its start
    assert house.count("livestem_tiles_duplicate_total") == 1 and not house.finished


def test_more_are_not_resumed_than_may_be_open(start):
    house = start()
    for name in "abc":
        feed(house, list(messages(plan(), tiles(plan()), name))[:4])
    house = start()
    house.ingest._limits = msgspec.structs.replace(ROOMY, open_scans=2)
    assert [name for _, name in house.store.open_scans()] == ["c", "b", "a"]
    for name in "cb":
        house.ingest.resume("s1", name)
    with pytest.raises(LivestemError, match="this service allows 2"):
        house.ingest.resume("s1", "a")
    assert house.store.known("s1", "a").status == "open"


def test_what_embedded_a_scan_is_what_goes_on_embedding_it():
    recipe = msgspec.structs.replace(house_recipe(), encoder="vgg16")
    encoders = Encoders()
    encoders._vgg16["cpu", "fp32"] = Stub("a" * 64)
    begun = encoders.arithmetic(recipe)
    assert begun == Arithmetic(encoder="a" * 64, device="cpu", precision="fp32")
    assert encoders.of(recipe, begun) is encoders._vgg16["cpu", "fp32"]
    encoders._vgg16["cpu", "fp32"] = Stub("b" * 64)
    with pytest.raises(UnavailableError, match="bring those back"):
        encoders.of(recipe, begun)
    with pytest.raises(UnavailableError, match="cannot be had now"):
        encoders.of(recipe, msgspec.structs.replace(begun, device="nowhere"))
    assert encoders.of(house_recipe(), Arithmetic(encoder="lattice")) is None


def house_recipe():
    from livestem.domain.parameters import PRESETS

    return PRESETS["default"]


class Stub:
    device, precision = "cpu", "fp32"

    def __init__(self, digest):
        self.digest = digest


# --- stores of older versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", sorted(GOLDEN.glob("store-*.zip")), ids=lambda p: p.stem)
def test_a_store_of_an_older_format_opens_and_goes_on(tmp_path, archive):
    with zipfile.ZipFile(archive) as kept:
        kept.extractall(tmp_path)
    stated = msgspec.json.decode((tmp_path / "s1" / "whole" / "result.json").read_bytes())
    with Store(tmp_path) as store:
        asked = msgspec.structs.asdict(GOLDEN_ASKED)
        house = House(tmp_path, ROOMY, store=store, **asked | {"support": None})
        assert store.starts == 2
        (verdict,) = house.take(list(messages(small(), [], "whole"))[:1])
        assert verdict.facts == {"already": "complete"}
        assert resumed(house) == TAKEN
        stream = list(messages(small(), tiles(small(), seed=1, rows=6), "open"))
        house.take(stream[TAKEN:])
        ((scan, status),) = house.finished
        assert (status, scan.life.tiles) == ("complete", 8)
    from livestem.runtime.batch import run_batch
    from livestem.runtime.settings import Settings

    with JournalRecording(tmp_path / "s1" / "whole" / "journal.sqlite") as journal:
        of = msgspec.structs.replace(journal.plan, processing=GOLDEN_ASKED)
        again = run_batch(journal, of, Settings(), tmp_path / "again")
    assert again.input_digest == stated["input_digest"]
    assert np.isclose(again.coverage.haadf, 1.0)


def test_todays_formats_have_their_golden_store():
    from make_golden_store import archive

    from livestem.runtime.journal import FORMAT as JOURNAL_FORMAT
    from livestem.runtime.store import FORMAT

    assert archive(FORMAT, JOURNAL_FORMAT).is_file(), "run tests/unit/make_golden_store.py"


assert ASKED.support is not None
