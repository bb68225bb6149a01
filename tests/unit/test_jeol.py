"""JEOL maps: the stream of words, against a word-by-word reader and against RosettaSciIO."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_events import dense

from livestem.domain.errors import SourceError
from livestem.sources import open_recording
from livestem.sources.jeol import Words, cut_frames


def written(cube, values=None):
    """Words of (frames, rows, cols, channels), with the detector's values where there are any."""
    frames, rows, cols, _ = cube.shape
    words = []
    for f in range(frames):
        for y in range(rows):
            words.append(0x9000 | (y * (4096 // rows)))
            for x in range(cols):
                photons = np.repeat(np.arange(cube.shape[3]), cube[f, y, x])
                if values is not None or photons.size:
                    words.append(0x8000 | (x * (4096 // cols)))
                if values is not None:
                    words.append(0xA000 | int(values[f, y, x]))
                for channel in photons:
                    words += [0xB000 | int(channel), 0x6000]
    return np.array(words, dtype=np.uint16)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([(4, 4), (4, 8), (8, 2), (3, 5)]))
def test_every_photon_comes_back_in_square_and_other_fields(seed, shape):
    cube = np.random.default_rng(seed).poisson(0.3, (3, *shape, 16))
    words = Words(written(cube), shape, 16)
    assert words.frames == 3 and words.unfinished_row is None and not words.has_picture
    for frame in range(3):
        assert (dense(words.events(frame, 0, shape[0]), 16) == cube[frame]).all()
        assert (dense(words.events(frame, 1, shape[0]), 16) == cube[frame, 1:]).all()


def test_the_detectors_values_are_one_picture_per_frame():
    values = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    words = Words(written(np.zeros((2, 4, 4, 8), dtype=int), values), (4, 4), 8)
    assert words.has_picture
    assert (words.picture(1, 1, 3) == values[1, 1:3]).all()


def test_an_unfinished_frame_is_left_out(monkeypatch):
    stream = written(np.ones((3, 4, 4, 2), dtype=int))
    cut = stream[: int(np.flatnonzero(stream >> 12 == 9)[10]) + 3]  # within row 2 of frame 2
    assert cut_frames(cut, 4)[1] == 2 and len(cut_frames(cut, 4)[0]) == 3
    assert Words(cut, (4, 4), 2).frames == 2
    whole = cut_frames(stream, 4)
    monkeypatch.setattr("livestem.sources.jeol._SCAN_BLOCK", 5)
    assert cut_frames(stream, 4) == whole


def test_foreign_and_elemental_files_are_one_clear_line(tmp_path):
    (tmp_path / "View000_0000001.map").write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match=r"elemental map; name the \.pts"):
        open_recording([tmp_path / "View000_0000001.map"])
    (tmp_path / "View000_0000006.pts").write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match="View000_0000006.pts"):
        open_recording([tmp_path / "View000_0000006.pts"])


@pytest.mark.recordings
def test_the_real_map_is_what_rosettasciio_decodes_and_its_image_is_found(recordings):
    from rsciio.jeol import file_reader

    view = recordings / "jeol_view000" / "Sample" / "00_View000"
    map_, image = view / "View000_0000006.pts", view / "View000_0000000.img"
    # binned 8 x 8 x 64, so that the dense oracle is megabytes instead of 15 GB
    oracle = file_reader(str(map_), sum_frames=False, downsample=8, rebin_energy=64, SI_dtype=np.uint16)
    binned = oracle[0]["data"]
    names = set()
    for paths in ([map_], [image], [map_, image], [view], [recordings / "jeol_view000"]):
        with open_recording(paths) as recording:
            names.add(recording.scan_id)
            plan = recording.plan
    assert len(names) == 1
    assert plan.frames == 14 and plan.haadf.frames == 1 and plan.eds.frames is None
    assert plan.dwell_s == pytest.approx(1e-4) and plan.eds.energy.offset_kev == pytest.approx(-0.9607, abs=1e-4)
    with open_recording([map_]) as recording:
        for k in range(14):
            found = recording.eds_rows(k, 0, 512)
            pixel = np.repeat(np.arange(512 * 512), found.counts.reshape(-1))
            mine = np.zeros((64, 64, 64), dtype=np.int64)
            np.add.at(mine, (pixel // 512 // 8, pixel % 512 // 8, found.channels // 64), 1)
            assert (mine == binned[k]).all()
        assert recording.haadf_rows(0, 0, 512).values.max() == 52
        with_haadf = [t.frame for t in recording.tiles_of(1) if hasattr(t, "values")]
    assert with_haadf == []


@pytest.mark.recordings
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
def test_the_real_map_takes_less_than_two_gib(recordings):
    program = (
        "import resource, sys, pathlib; from livestem.sources import open_recording\n"
        "with open_recording([pathlib.Path(sys.argv[1])]) as recording:\n"
        "    for tile in recording.tiles(): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", program, str(recordings / "jeol_view000")]
    peak_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak_kib < 2 * 2**20
