"""Recorded files as scans: pairs, calibrations, choices, refusals, tiles and names."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from test_events import dense
from written_files import axis, write_eds, write_haadf, write_hspy

from livestem.domain.errors import SourceError, UsageError
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.sources import open_recording

ROWS, COLS, CHANNELS = 8, 6, 10


def spectra(seed=0, dtype=np.uint16):
    return np.random.default_rng(seed).poisson(0.4, (ROWS, COLS, CHANNELS)).astype(dtype)


def image(factor=1, dtype=np.uint16):
    return np.random.default_rng(1).integers(10, 1000, (ROWS * factor, COLS * factor)).astype(dtype)


@pytest.fixture
def pair(tmp_path):
    return write_haadf(tmp_path / "a_haadf.hspy", image()), write_eds(tmp_path / "a_eds.hspy", spectra())


def refusal(*args, **kwargs):
    with pytest.raises(SourceError) as caught:
        open_recording(*args, **kwargs).close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# what is given back


def test_a_pair_is_one_scan_in_either_order_and_by_flags(pair):
    haadf, eds = pair
    found = []
    for recording in (
        open_recording([haadf, eds]),
        open_recording([eds, haadf]),
        open_recording([], haadf=haadf, eds=eds),
        open_recording([eds], haadf=haadf),
    ):
        with recording:
            found.append((recording.scan_id, recording.plan))
    assert all(f == found[0] for f in found)
    assert found[0][1].source == "a_haadf.hspy + a_eds.hspy" and found[0][1].frames == 1


@pytest.mark.parametrize("rows_per_tile", [None, 1, 3, 8, 100])
def test_tiles_cover_everything_once_in_order_and_again(pair, rows_per_tile):
    with open_recording(list(pair)) as recording:
        first, second = list(recording.tiles(rows_per_tile)), list(recording.tiles(rows_per_tile))
    haadf = [t for t in first if isinstance(t, HaadfTile)]
    eds = [t for t in first if isinstance(t, EdsEvents)]
    assert (np.concatenate([t.values for t in haadf]) == image()).all()
    assert (np.concatenate([dense(t, CHANNELS) for t in eds]) == spectra()).all()
    assert [t.y for t in eds] == np.cumsum([0, *(t.counts.shape[0] for t in eds[:-1])]).tolist()
    for a, b in zip(first, second, strict=True):
        assert type(a) is type(b) and (a.frame, a.y, a.x) == (b.frame, b.y, b.x)
        payload = ("values",) if isinstance(a, HaadfTile) else ("counts", "channels")
        assert all((getattr(a, n) == getattr(b, n)).all() for n in payload)


@pytest.mark.parametrize("factor", [2, 4])
def test_bands_of_a_finer_haadf_cover_the_same_stripe(tmp_path, factor):
    haadf = write_haadf(tmp_path / "h.hspy", image(factor), pixel_nm=1.0 / factor)
    with open_recording([haadf, write_eds(tmp_path / "e.hspy", spectra())]) as recording:
        for band in recording.bands(3):
            assert band.haadf == (band.eds[0] * factor, band.eds[1] * factor)
        tiles = list(recording.tiles(3))
    assert sum(t.values.shape[0] for t in tiles if isinstance(t, HaadfTile)) == ROWS * factor


def test_the_default_band_is_fifty_milliseconds_of_the_scan(pair):
    with open_recording(list(pair), dwell_us=2000) as recording:  # 12 ms a row
        assert recording.bands()[0].eds == (0, 4)
        assert recording.plan.dwell_s == pytest.approx(2e-3)
    with open_recording(list(pair), dwell_us=1e6) as recording:
        assert recording.bands()[0].eds == (0, 1)


def test_frames_of_a_stack_come_one_after_the_other(tmp_path):
    stack = np.stack([spectra(k) for k in range(3)])
    pictures = np.stack([image() + k for k in range(3)])
    eds, haadf = write_eds(tmp_path / "e.hspy", stack), write_haadf(tmp_path / "h.hspy", pictures)
    with open_recording([eds, haadf]) as recording:
        assert recording.plan.frames == 3 and recording.warnings == ()
        tiles = list(recording.tiles(5))
    assert [t.frame for t in tiles] == sorted(t.frame for t in tiles)
    for frame in range(3):
        mine = [dense(t, CHANNELS) for t in tiles if t.frame == frame and isinstance(t, EdsEvents)]
        assert (np.concatenate(mine) == stack[frame]).all()


def test_one_picture_beside_many_frames_belongs_to_the_first(tmp_path):
    stack = np.stack([spectra(k) for k in range(3)])
    eds, haadf = write_eds(tmp_path / "e.hspy", stack), write_haadf(tmp_path / "h.hspy", image())
    with open_recording([eds, haadf]) as recording:
        assert (recording.plan.frames, recording.plan.haadf.frames, recording.plan.eds.frames) == (3, 1, None)
        assert {t.frame for t in recording.tiles() if isinstance(t, HaadfTile)} == {0}
        assert any("counts as frame 0" in w for w in recording.warnings)


def test_vendor_names_and_units_of_axes_do_not_matter(tmp_path):
    cube = np.moveaxis(spectra(), 0, 1)  # stored as (x, energy-less y): still by role
    axes = [axis("height", COLS, 0.002, "µm"), axis("z", ROWS, 0.002, "µm"),
            axis("Time", CHANNELS, 10.0, "eV", offset=-200.0, navigate=False)]  # fmt: skip
    with open_recording([write_hspy(tmp_path / "odd.hspy", cube, axes)]) as recording:
        plan = recording.plan
    assert plan.eds.sampling.shape == (COLS, ROWS) and plan.eds.sampling.pixel_nm == pytest.approx((2.0, 2.0))
    assert (plan.eds.energy.offset_kev, plan.eds.energy.scale_kev) == pytest.approx((-0.2, 0.01))


@pytest.mark.parametrize(
    "dtype, expected",
    [("u1", "|u1"), ("<u2", "<u2"), (">u2", "<u2"), ("<i2", "<i2"), ("<i4", "<i4"), ("<f4", "<f4"), ("<f8", "<f4")],
)
def test_haadf_keeps_its_type_unless_nothing_is_lost(tmp_path, dtype, expected):
    values = np.arange(10, 10 + ROWS * COLS).reshape(ROWS, COLS).astype(dtype)
    with open_recording([write_haadf(tmp_path / "h.hspy", values)]) as recording:
        tile = next(recording.tiles(ROWS))
        assert recording.plan.haadf.dtype == expected == tile.values.dtype.str
        assert (tile.values == values).all()


def test_haadf_in_double_precision_stays_so_where_it_needs_it(tmp_path):
    values = image().astype(np.float64) + 1e-12
    with open_recording([write_haadf(tmp_path / "h.hspy", values)]) as recording:
        assert recording.plan.haadf.dtype == "<f8" and (next(recording.tiles(ROWS)).values == values).all()


def test_facts_of_the_metadata_arrive_in_our_units(tmp_path):
    eds = {"elevation_angle": 18.0, "live_time": 10.0, "real_time": 12.0, "energy_resolution_MnKa": 130.0}
    tem = {"beam_energy": 200.0, "beam_current": 0.5, "convergence_angle": 18.0, "Stage": {"x": 0.1, "tilt_alpha": 5.0},
           "Detector": {"EDS": eds}}  # fmt: skip
    metadata = {
        "General": {"title": "EDS", "date": "2026-01-02", "time": "03:04:05"},
        "Signal": {"signal_type": "EDS_TEM"},
        "Sample": {"name": "LFO", "elements": ["Fe", "Xx", "La"], "xray_lines": ["Fe_Ka", "nonsense"]},
        "Acquisition_instrument": {"TEM": tem},
    }
    axes = [axis("y", ROWS), axis("x", COLS), axis("E", CHANNELS, 0.01, "keV", navigate=False)]
    with open_recording([write_hspy(tmp_path / "e.hspy", spectra(), axes, metadata)]) as recording:
        plan = recording.plan
    assert (plan.beam.energy_kv, plan.beam.current_pa, plan.beam.convergence_mrad) == (200, 500, 18)
    assert plan.stage == pytest.approx({"x": 100.0, "alpha": 5.0}) and plan.sample == "LFO"
    assert (plan.eds.take_off_angle_deg, plan.eds.live_time_s, plan.eds.real_time_s) == (18, 10, 12)
    assert plan.eds.elements == ("Fe", "La") and plan.eds.lines == ("Fe_Ka",)
    assert plan.recorded_at == "2026-01-02T03:04:05" and plan.eds.energy_resolution_mnka_ev == 130


# calibration


def test_an_uncalibrated_field_is_refused_until_a_pixel_is_given(tmp_path):
    haadf = write_haadf(tmp_path / "h.hspy", image(4), pixel_nm=None)
    eds = write_eds(tmp_path / "e.hspy", spectra(), pixel_nm=None)
    assert "--pixel-nm" in refusal([haadf, eds])
    with open_recording([haadf, eds], pixel_nm=0.1) as recording:
        assert recording.plan.haadf.sampling.pixel_nm == pytest.approx((0.1, 0.1))
        assert recording.plan.eds.sampling.pixel_nm == pytest.approx((0.4, 0.4))


def test_one_calibrated_modality_calibrates_the_other(tmp_path):
    haadf = write_haadf(tmp_path / "h.hspy", image(2), pixel_nm=None)
    with open_recording([haadf, write_eds(tmp_path / "e.hspy", spectra(), pixel_nm=3.0)]) as recording:
        assert recording.plan.haadf.sampling.pixel_nm == pytest.approx((1.5, 1.5))
        assert any("has no pixel size" in w for w in recording.warnings)


def test_an_energy_axis_without_calibration_is_refused_until_it_is_given(tmp_path):
    eds = write_eds(tmp_path / "e.hspy", spectra(), energy_units=None)
    assert "--energy-axis OFFSET:SCALE in keV" in refusal([eds])
    with open_recording([eds], energy_axis=(-0.5, 0.02)) as recording:
        assert (recording.plan.eds.energy.offset_kev, recording.plan.eds.energy.scale_kev) == (-0.5, 0.02)


def test_what_the_user_gives_wins_with_a_word(pair):
    with open_recording(list(pair), pixel_nm=0.5) as recording:
        assert recording.plan.eds.sampling.pixel_nm == (0.5, 0.5)
        assert "--pixel-nm 0.5 replaces the recorded 1 nm" in recording.warnings


@pytest.mark.parametrize(
    "wish", [{"pixel_nm": 0.0}, {"dwell_us": -1.0}, {"energy_axis": (0.0, 0.0)}, {"pixel_nm": np.nan}]
)
def test_senseless_wishes_are_wrong_usage(pair, wish):
    with pytest.raises(UsageError, match="--"):
        open_recording(list(pair), **wish)


# choices


def stack_of_images(tmp_path, *titles):
    return [write_haadf(tmp_path / f"{k}.hspy", image() + k, title=t) for k, t in enumerate(titles)]


@pytest.mark.parametrize(
    "titles, chosen",
    [
        (("BF", "HAADF", "DF4"), "HAADF"),
        (("HAADF filtered", "HAADF"), "HAADF"),
        (("Ti", "Sr_K", "whatever"), "whatever"),  # elemental maps aside
        (("BF", "HAADF Image"), "HAADF Image"),
    ],
)
def test_the_haadf_is_chosen_by_the_stated_rule(tmp_path, titles, chosen):
    with open_recording(stack_of_images(tmp_path, *titles)) as recording:
        assert recording.plan.haadf.detector == chosen


def test_several_images_without_that_name_are_not_guessed_at(tmp_path):
    paths = stack_of_images(tmp_path, "BF", "DF4", "DF2")
    assert "'BF'" in refusal(paths) and "--image TITLE" in refusal(paths)
    names = set()
    for title in ("DF4", "df4", "DF2"):
        with open_recording(paths, image=title) as recording:
            assert recording.plan.haadf.detector.lower() == title.lower()
            names.add(recording.scan_id)
    assert len(names) == 2
    assert "no image is called 'ADF'" in refusal(paths, image="ADF")
    assert "fits several images" in refusal(paths, image="DF")


# refusals


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_haadf_that_is_not_finite_is_named_by_its_place(tmp_path, value):
    values = np.stack([image(dtype=np.float32)] * 2)
    values[1, 3, 2] = value
    text = refusal([write_haadf(tmp_path / "h.hspy", values)])
    assert text.startswith("HAADF of h.hspy is not finite at frame 1, y 3, x 2; ")


@pytest.mark.parametrize("value, what", [(-1, "negative"), (0.5, "not a whole number"), (np.nan, "not finite")])
def test_counts_that_are_none_are_refused_before_anything_is_sent(tmp_path, value, what):
    cube = spectra(dtype=np.float32)
    cube[3, 2, 1] = value
    text = refusal([write_eds(tmp_path / "e.hspy", cube)])
    assert f"EDS of e.hspy is {what}" in text and "frame 0, y 3, x 2, channel 1" in text


def test_two_fields_are_refused(tmp_path):
    haadf = write_haadf(tmp_path / "h.hspy", image(), pixel_nm=2.0)
    assert "two fields" in refusal([haadf, write_eds(tmp_path / "e.hspy", spectra())])


def test_sampling_that_is_no_whole_multiple_is_refused(tmp_path):
    values = np.ones((ROWS * 3 // 2, COLS * 3 // 2), dtype=np.uint16)
    haadf = write_haadf(tmp_path / "h.hspy", values, pixel_nm=2 / 3)
    assert "whole multiple" in refusal([haadf, write_eds(tmp_path / "e.hspy", spectra())])


def test_two_scans_at_once_are_refused(tmp_path):
    paths = [write_eds(tmp_path / f"{k}.hspy", spectra(k)) for k in range(2)]
    assert "both hold EDS" in refusal(paths)


def test_files_that_are_no_scan_are_one_clear_line(tmp_path, pair):
    line = write_hspy(tmp_path / "line.hspy", np.ones((5, 7)),
                      [axis("x", 5), axis("E", 7, 0.01, "keV", navigate=False)])  # fmt: skip
    assert "holds no scan" in refusal([line])
    assert "does not exist" in refusal([tmp_path / "none.hspy"])
    assert "no reader knows .xyz" in refusal([_file(tmp_path / "a.xyz")])
    assert "cannot be read" in refusal([_file(tmp_path / "b.hspy")])
    assert "cannot be read" in refusal([_file(tmp_path / "c.bcf")])
    assert "holds no image" in refusal([], haadf=pair[1], eds=pair[1])
    assert "holds no EDS" in refusal([], eds=pair[0])
    (tmp_path / "empty").mkdir()
    assert "holds no recording" in refusal([tmp_path / "empty"])
    with pytest.raises(UsageError, match="--haadf FILE and --eds FILE"):
        open_recording([])


def _file(path):
    path.write_bytes(b"not what its name says" * 20)
    return path


def test_readers_write_nothing_of_their_own(tmp_path, capfd):
    (tmp_path / "d.zspy").write_bytes(b"no store")
    for name in ("d.zspy", "a.bcf", "a.dm4", "a.hspy"):
        refusal([_file(tmp_path / name)])
    assert capfd.readouterr() == ("", "")


def test_a_clipped_detector_is_a_warning(tmp_path):
    values = image()
    values[0, :], values[1, :3] = 65535, 0
    with open_recording([write_haadf(tmp_path / "h.hspy", values)]) as recording:
        assert "12.5% of its pixels are 65535" in recording.warnings[0] and "6.2%" in recording.warnings[0]


def open_hdf5_files():
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


def test_files_are_closed_after_use_and_after_a_refusal(tmp_path, pair):
    before = open_hdf5_files()
    with open_recording(list(pair)) as recording:
        assert open_hdf5_files() > before
        list(recording.tiles())
    recording.close()  # again is harmless
    assert open_hdf5_files() == before
    refusal([pair[0], write_eds(tmp_path / "e.hspy", spectra(), pixel_nm=7.0)])
    assert open_hdf5_files() == before


def test_lazy_blocks_do_not_change_what_is_read(tmp_path, monkeypatch):
    path = tmp_path / "e.hspy"
    write_eds(path, np.stack([spectra(k) for k in range(2)]))
    with h5py.File(path, "r+") as file:  # in chunks that fit no band
        group = next(iter(file["Experiments"].values()))
        values = group["data"][:]
        del group["data"]
        group.create_dataset("data", data=values, chunks=(1, 3, COLS, 4))
    monkeypatch.setattr("livestem.sources.signals._BLOCK_BYTES", 1)
    for rows_per_tile in (1, 2, 4, 8):
        with open_recording([path]) as recording:
            for frame in range(2):
                found = [dense(t, CHANNELS) for t in recording.tiles_of(frame, rows_per_tile)]
                assert (np.concatenate(found) == spectra(frame)).all()


# names


def test_the_name_comes_from_the_content(tmp_path, pair):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    moved = [shutil.copy(p, folder / f"renamed{k}.hspy") for k, p in enumerate(pair)]
    other = [pair[0], write_eds(tmp_path / "other.hspy", spectra(9))]
    names = []
    for paths, wishes in ((pair, {}), (moved, {}), (other, {}), (pair, {"pixel_nm": 0.5}), (pair[1:], {})):
        with open_recording(list(paths), **wishes) as recording:
            names.append(recording.scan_id)
            assert str(tmp_path) not in recording.plan.source
    assert names[0] == names[1] and len(set(names)) == 4


def test_a_folder_with_one_pair_in_it_is_a_scan(pair):
    with open_recording([pair[0].parent]) as recording:
        assert recording.plan.modalities == ("haadf", "eds")


def test_a_zarr_store_is_read_and_named_by_its_content(tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3")
    names = []
    for copy in ("a", "b"):
        root = zarr.open_group(str(tmp_path / f"{copy}.zspy"), mode="w", zarr_format=2)
        root.attrs.update({"file_format": "ZSpy", "file_format_version": "3.3"})
        group = root.create_group("Experiments/EDS")
        group.attrs.update({"package": "hyperspy", "package_version": "2.5"})
        group.create_array("data", shape=spectra().shape, chunks=(3, COLS, CHANNELS), dtype="<u2")[:] = spectra()
        described = [axis("y", ROWS), axis("x", COLS), axis("E", CHANNELS, 0.01, "keV", navigate=False)]
        for k, one in enumerate(described):
            group.create_group(f"axis-{k}").attrs.update(one)
        for name in ("metadata", "original_metadata", "learning_results", "attributes"):
            group.create_group(name)
        with open_recording([tmp_path / f"{copy}.zspy"]) as recording:
            found = np.concatenate([dense(t, CHANNELS) for t in recording.tiles(2)])
            assert (found == spectra()).all()
            names.append(recording.scan_id)
    assert names[0] == names[1]


# real recordings


@pytest.mark.recordings
@pytest.mark.parametrize(
    "names, frames, shape, events",
    [
        (["velox_superx_20frames.emd"], 20, (50, 10), 1_529_219),
        (["velox_v11_16x16.emd"], 2, (16, 16), 42_097),
        (["bruker_tem.bcf"], 1, (64, 64), 26_005),
        (["sio2_haadf.hspy", "sio2_eds.hspy"], 1, (128, 128), 823_049),
        (["minerals_eds.hspy"], 1, (80, 80), 716_887),
        (["jeol_view000"], 14, (512, 512), 308_261),
    ],
)
def test_real_recordings_keep_every_photon(recordings, names, frames, shape, events):
    with open_recording([recordings / n for n in names]) as recording:
        plan = recording.plan
        assert plan.frames == frames and plan.eds.sampling.shape == shape
        assert sum(t.channels.size for t in recording.tiles() if isinstance(t, EdsEvents)) == events
        assert plan.beam.energy_kv in (200, 300)
        assert plan.modalities == (("eds",) if names == ["minerals_eds.hspy"] else ("haadf", "eds"))


@pytest.mark.recordings
def test_the_bruker_haadf_is_called_clipped_at_both_ends(recordings):
    with open_recording([recordings / "bruker_tem.bcf"]) as recording:
        assert "7.1% of its pixels are 0 and 9.3% of its pixels are 65535" in recording.warnings[0]
        assert recording.plan.eds.elements == ("Cu", "O", "Pd", "Ti")
        assert recording.plan.haadf.sampling.pixel_nm[0] == pytest.approx(0.771, abs=1e-3)
