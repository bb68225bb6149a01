"""Watched folders: each scan once, when it is complete; and which files make a scan."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from livestem.domain.errors import SourceError
from livestem.sources.folder import PAIR_WAIT_S, Watched, is_locked
from livestem.sources.groups import groups_of, half_of_pair


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def polls(tmp_path, clock):
    """Poll after so many seconds; names of the groups."""
    made = {}

    def poll(after=0.0, **options):
        watched = made.setdefault("w", Watched(tmp_path, clock=clock, **options))
        clock.now += after
        return [tuple(p.name for p in group) for group in watched.poll()]

    poll.watched = made
    poll()
    return poll


def save(path: Path, content: bytes = b"data", at: int = 1):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(at, at))


def test_a_file_comes_once_after_it_has_settled(tmp_path, polls):
    save(tmp_path / "a.emd")
    assert polls() == [] and polls(1.9) == []
    assert polls(0.2) == [("a.emd",)]
    assert polls(10) == []
    save(tmp_path / "a.emd", b"changed", at=2)  # once is once
    assert polls(5) == [] and polls(5) == []


def test_results_of_ours_are_no_recordings(tmp_path, polls):
    save(tmp_path / "a.emd")
    save(tmp_path / "livestem-store" / "catalog.sqlite")
    save(tmp_path / "livestem-store" / "s" / "scan" / "result.hspy")
    save(tmp_path / "out" / "result.json")
    save(tmp_path / "out" / "result.hspy")
    polls()
    assert polls(2.0) == [("a.emd",)] and polls(2.0) == []


def test_a_file_that_grows_or_is_touched_is_not_complete(tmp_path, polls):
    for size in range(1, 5):
        save(tmp_path / "a.emd", b"x" * size)
        assert polls(1.5) == []
    save(tmp_path / "a.emd", b"x" * 4, at=9)  # same size, newer
    assert polls(1.5) == [] and polls(1.5) == []
    assert polls(1.0) == [("a.emd",)]


def test_an_empty_or_locked_file_waits(tmp_path, clock):
    held = {tmp_path / "a.bcf"}
    watched = Watched(tmp_path, clock=clock, locked=held.__contains__)
    save(tmp_path / "a.bcf")
    save(tmp_path / "b.bcf", b"")
    watched.poll()
    clock.now += 10
    assert watched.poll() == []
    held.clear()
    assert watched.poll() == [(tmp_path / "a.bcf",)]


@pytest.mark.parametrize("existing", [False, True])
def test_what_was_there_before_counts_only_if_asked_for(tmp_path, clock, existing):
    save(tmp_path / "old.emd")
    watched = Watched(tmp_path, clock=clock, existing=existing)
    save(tmp_path / "new.emd")
    watched.poll()
    clock.now += 3
    assert [g[0].name for g in watched.poll()] == (["new.emd", "old.emd"] if existing else ["new.emd"])


def test_a_scan_that_failed_comes_again_when_it_has_changed(tmp_path, polls):
    save(tmp_path / "a.emd")
    polls()
    assert polls(3) == [("a.emd",)]
    polls.watched["w"].failed((tmp_path / "a.emd",))
    assert polls(3) == [] and polls(3) == []
    save(tmp_path / "a.emd", b"whole", at=5)
    assert polls() == [] and polls(3) == [("a.emd",)]


def test_a_pair_comes_together_and_a_half_alone_after_a_while(tmp_path, polls):
    save(tmp_path / "a_haadf.hspy")
    polls()
    assert polls(5) == []
    save(tmp_path / "a_EDS.hspy")
    polls()
    assert polls(3) == [("a_haadf.hspy", "a_EDS.hspy")]
    save(tmp_path / "b_eds.hspy")
    polls()
    assert polls(3) == [] and polls(PAIR_WAIT_S - 1) == []
    assert polls(2) == [("b_eds.hspy",)]


def test_a_jeol_image_waits_for_its_map_and_maps_of_elements_are_nothing(tmp_path, polls):
    view = tmp_path / "Sample" / "00_View000"
    save(view / "View000_0000000.img")
    save(view / "View000_0000001.map")
    polls()
    assert polls(1000) == []
    save(view / "View000_0000006.pts")
    polls()
    assert polls(3) == [("View000_0000006.pts", "View000_0000000.img")]


def test_a_store_that_is_a_folder_is_one_file(tmp_path, polls):
    save(tmp_path / "a.zspy" / "data" / "0.0")
    assert polls() == [] and polls(1) == []
    save(tmp_path / "a.zspy" / "data" / "0.1")
    assert polls(1.5) == [] and polls(3) == [("a.zspy",)]


def test_a_share_that_is_away_for_a_moment_makes_nothing_new(tmp_path, clock):
    with pytest.raises(SourceError, match="no folder that can be read"):
        Watched(tmp_path / "share", clock=clock)
    save(tmp_path / "share" / "old.emd")
    watched = Watched(tmp_path / "share", clock=clock)
    (tmp_path / "share").rename(tmp_path / "away")
    clock.now += 3
    assert watched.poll() == []
    (tmp_path / "away").rename(tmp_path / "share")
    for _ in range(3):
        clock.now += 3
        assert watched.poll() == []


def test_a_name_that_was_deleted_and_comes_back_is_a_new_file(tmp_path, polls):
    save(tmp_path / "a.emd")
    polls()
    assert polls(3) == [("a.emd",)]
    (tmp_path / "a.emd").unlink()
    polls()
    save(tmp_path / "a.emd", b"another", at=3)
    polls()
    assert polls(3) == [("a.emd",)]


def test_other_files_are_not_ours(tmp_path, clock):
    watched = Watched(tmp_path, ["*.EMD"], clock=clock)
    save(tmp_path / "notes.txt")
    save(tmp_path / "A.emd")
    watched.poll()
    clock.now += 3
    assert [g[0].name for g in watched.poll()] == ["A.emd"]


@pytest.mark.skipif(os.name == "nt", reason="advisory locks of POSIX")
def test_a_lock_of_another_program_is_seen(tmp_path):
    import fcntl

    save(tmp_path / "a.emd")
    assert not is_locked(tmp_path / "a.emd")
    with (tmp_path / "a.emd").open("r+b") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert is_locked(tmp_path / "a.emd")
    assert not is_locked(tmp_path / "a.emd") and not is_locked(tmp_path) and not is_locked(tmp_path / "none")


@pytest.mark.parametrize(
    "names, groups",
    [
        (["sio2_haadf.hspy", "sio2_eds.hspy"], [("sio2_haadf.hspy", "sio2_eds.hspy")]),
        (["HAADF 1.dm4", "SI 1.dm4"], [("HAADF 1.dm4", "SI 1.dm4")]),
        (["a-adf.hspy", "a-edx.bcf"], [("a-adf.hspy", "a-edx.bcf")]),
        (["a_haadf.hspy", "b_eds.hspy"], [("a_haadf.hspy",), ("b_eds.hspy",)]),
        (["a_haadf.hspy", "a_adf.hspy", "a_eds.hspy"], [("a_adf.hspy",), ("a_eds.hspy",), ("a_haadf.hspy",)]),
        (["si.emd", "silicon.emd"], [("si.emd",), ("silicon.emd",)]),
        (["V_0.img", "V_6.pts", "V_7.img", "V_9.pts"], [("V_6.pts", "V_0.img"), ("V_9.pts", "V_7.img")]),
        (["V_0.img", "W_6.pts", "V_1.map"], [("W_6.pts",)]),
        (["V_8.img", "V_6.pts"], [("V_6.pts", "V_8.img")]),
    ],
)
def test_files_belong_together_by_their_names(names, groups):
    assert groups_of(Path(n) for n in names) == [tuple(Path(n) for n in g) for g in groups]
    assert groups_of(Path(n) for n in reversed(names)) == [tuple(Path(n) for n in g) for g in groups]


def test_files_of_different_folders_are_different_scans():
    assert len(groups_of([Path("1/a_haadf.hspy"), Path("2/a_eds.hspy")])) == 2


def test_a_word_for_a_modality_is_a_word():
    assert half_of_pair(Path("x_HAADF.hspy")) == "haadf" and half_of_pair(Path("eds.hspy")) == "eds"
    assert half_of_pair(Path("silicon.hspy")) is None and half_of_pair(Path("a_haadf_eds.hspy")) is None
