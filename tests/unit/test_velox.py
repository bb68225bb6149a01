"""Velox streams: cut into frames, and the same photons as RosettaSciIO decodes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_events import dense
from written_files import velox_stream, write_velox

from livestem.domain.errors import SourceError
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.sources import open_recording
from livestem.sources.velox import Stream, cut_frames, is_velox

FRAMES, ROWS, COLS, CHANNELS = 3, 4, 5, 16


def counts(seed=0, frames=FRAMES):
    return np.random.default_rng(seed).poisson(0.3, (frames, ROWS, COLS, CHANNELS))


def images(frames=FRAMES):
    return np.arange(frames * ROWS * COLS, dtype=np.uint16).reshape(frames, ROWS, COLS)


@given(arrays(np.uint8, (2, 2, 3, 4), elements=st.integers(0, 3)), st.booleans())
def test_a_stream_gives_back_every_photon(cube, last_mark):
    stream = Stream([velox_stream(cube, last_mark)], (2, 3), 4, "EDS")
    assert stream.frames == 2 and not any(stream.unfinished)
    for frame in range(2):
        assert (dense(stream.events(frame, 0, 2), 4) == cube[frame]).all()


def test_detectors_are_summed():
    a, b = counts(1), counts(2)
    stream = Stream([velox_stream(a), velox_stream(b)], (ROWS, COLS), CHANNELS, "EDS")
    assert (dense(stream.events(1, 0, ROWS), CHANNELS) == a[1] + b[1]).all()


def test_frames_are_cut_the_same_however_the_stream_is_looked_at(monkeypatch):
    stream = velox_stream(counts())
    whole = cut_frames(stream, ROWS * COLS)
    monkeypatch.setattr("livestem.sources.velox._SCAN_BLOCK", 7)
    assert cut_frames(stream, ROWS * COLS) == whole == cut_frames(stream[:, None], ROWS * COLS)


def test_an_unfinished_last_frame_is_left_out_with_a_word(tmp_path):
    stream = velox_stream(counts())[:-20]
    path = write_velox(tmp_path / "a.emd", images(), [stream], CHANNELS)
    with open_recording([path]) as recording:
        assert recording.frames_of("eds") == FRAMES - 1
        assert any("last frame stops in row" in w for w in recording.warnings)


def test_a_photon_beyond_the_energy_axis_is_a_damaged_file():
    stream = Stream([np.array([3, 99, 65535], dtype=np.uint16)], (1, 1), 16, "EDS of a.emd")
    with pytest.raises(SourceError, match="channel 99 of 16 in frame 0"):
        stream.events(0, 0, 1)


def test_a_whole_file_gives_its_facts_and_data(tmp_path):
    cube, maps = counts(), {"Ti": np.ones((ROWS, COLS), np.float32), "O": np.ones((ROWS, COLS), np.float32)}
    path = write_velox(tmp_path / "a.emd", images(), [velox_stream(cube)], CHANNELS, maps)
    assert is_velox(path)
    with open_recording([path]) as recording:
        plan, tiles = recording.plan, list(recording.tiles(rows_per_tile=3))
    assert plan.frames == FRAMES and plan.haadf.detector == "HAADF" and plan.haadf.dtype == "<u2"
    assert plan.haadf.sampling.pixel_nm == pytest.approx((0.05, 0.05))
    assert plan.eds.sampling == plan.haadf.sampling
    assert (plan.eds.energy.offset_kev, plan.eds.energy.scale_kev) == (-0.25, 0.01)
    assert plan.dwell_s == 2e-6 and plan.beam.energy_kv == 300 and plan.beam.convergence_mrad == 25
    assert plan.beam.collection_mrad == (50, 200) and plan.eds.take_off_angle_deg == pytest.approx(18)
    assert plan.eds.elements == ("O", "Ti", "Sr") and plan.eds.detectors == ("SuperX1",)
    assert plan.eds.live_time_s == pytest.approx(plan.eds.real_time_s / 2)
    assert plan.stage == pytest.approx({"x": 1, "y": 0, "z": 0, "alpha": 0})
    assert plan.recorded_at == "2024-02-29T06:58:04+00:00"
    order = [(t.frame, t.y, isinstance(t, EdsEvents)) for t in tiles]
    assert order == [(f, y, eds) for f in range(FRAMES) for y in (0, 3) for eds in (False, True)]
    picture = np.concatenate([t.values for t in tiles if isinstance(t, HaadfTile) and t.frame == 1])
    assert (picture == images()[1]).all()
    assert sum(t.channels.size for t in tiles if isinstance(t, EdsEvents)) == cube.sum()


def test_images_stored_in_one_piece_are_read_too(tmp_path):
    path = write_velox(tmp_path / "a.emd", images(), [velox_stream(counts())], CHANNELS, chunked=False)
    with open_recording([path]) as recording:
        assert (recording.haadf_rows(2, 0, ROWS).values == images()[2]).all()


def test_a_file_without_photons_is_haadf_only(tmp_path):
    path = write_velox(tmp_path / "a.emd", images(), [], CHANNELS)
    with open_recording([path]) as recording:
        assert recording.plan.modalities == ("haadf",) and "HAADF only" in recording.warnings[0]


def test_a_truncated_file_is_one_clear_line(tmp_path):
    whole = write_velox(tmp_path / "a.emd", images(), [velox_stream(counts())], CHANNELS).read_bytes()
    for share in (0.3, 0.9):
        (tmp_path / "cut.emd").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SourceError, match="cut.emd cannot be read .* save or copy it again") as caught:
            open_recording([tmp_path / "cut.emd"])
        assert "\n" not in str(caught.value)
    (tmp_path / "junk.emd").write_bytes(b"junk" * 100)
    with pytest.raises(SourceError, match="junk.emd cannot be read"):
        open_recording([tmp_path / "junk.emd"])


def test_files_are_closed_after_use_and_after_a_refusal(tmp_path):
    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    path = write_velox(tmp_path / "a.emd", images(), [velox_stream(counts())[:9]], CHANNELS)
    with pytest.raises(SourceError, match="no complete frame"):
        open_recording([path])
    path = write_velox(tmp_path / "a.emd", images(), [velox_stream(counts())], CHANNELS)
    open_recording([path]).close()
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == before


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["velox_superx_20frames.emd", "velox_v11_16x16.emd"])
def test_photons_are_those_that_rosettasciio_decodes(recordings, name):
    from rsciio.emd import file_reader

    entries = file_reader(str(recordings / name), sum_frames=False, load_SI_image_stack=True)
    eds = next(e for e in entries if e["data"].ndim == 4)
    haadf = next(e for e in entries if e["metadata"]["General"]["title"] == "HAADF")["data"]
    energy = eds["axes"][3]
    with open_recording([recordings / name]) as recording:
        plan = recording.plan
        assert plan.frames == len(haadf) == len(eds["data"])
        assert plan.eds.energy.offset_kev == pytest.approx(energy["offset"])
        assert plan.eds.energy.scale_kev == pytest.approx(energy["scale"])
        assert plan.eds.sampling.pixel_nm[1] == pytest.approx(eds["axes"][2]["scale"])
        for frame in range(plan.frames):
            found = recording.eds_rows(frame, 0, plan.eds.sampling.shape[0])
            assert (dense(found, plan.eds.energy.channels) == eds["data"][frame]).all()
            assert (recording.haadf_rows(frame, 0, haadf.shape[1]).values == haadf[frame]).all()


@pytest.mark.recordings
def test_single_spectra_are_no_scan(recordings):
    with pytest.raises(SourceError, match="no scan"):
        open_recording([recordings / "velox_sto_spectra.emd"])
