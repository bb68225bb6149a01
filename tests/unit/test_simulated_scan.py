"""A simulated scan: its frames can be made again, its tiles rebuild them, its drift is where the truth says."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import astuple, replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import BLOCK, DEMO, FILM, LFO, STO, altered, still

from livestem.domain.errors import UsageError
from livestem.domain.geometry import plan_grid
from livestem.domain.names import check_name
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.simulator import Simulation, load_specimen, load_truth, packaged_specimens, save_truth
from livestem.simulator.field_truth import apparent_spacings_nm
from livestem.simulator.instrument import Drift
from livestem.simulator.motion import Motion, Raster, drifted, places


@pytest.fixture(scope="module")
def small():
    return Simulation(FILM, seed=7, frames=2)


def drifting(specimen, velocity, **more):
    drift = Drift(velocity_nm_s=velocity, **more)
    scan = msgspec.structs.replace(specimen.scan, drift=drift, row_jitter_nm=0.0, flyback_nm=0.0)
    return altered(specimen, scan=scan)


# --- the way of the beam


def test_a_specimen_at_rest_is_seen_where_the_pixels_say():
    raster = Raster(shape=(4, 6), pixel_nm=0.5, origin_nm=(10.0, 20.0), dwell_s=1e-6)
    y, x = drifted(raster, Motion(Drift(), 0), 3)
    assert y.tolist() == [10.25, 10.75, 11.25, 11.75] and x[2].tolist() == [20.25, 20.75, 21.25, 21.75, 22.25, 22.75]
    assert raster.window.size_nm == (2.0, 3.0)


def test_drift_goes_on_within_frames_between_them_and_between_scans():
    motion = Motion(Drift(velocity_nm_s=(2.0, -1.0)), 0)
    raster = Raster(shape=(10, 100), pixel_nm=0.1, origin_nm=(0.0, 0.0), dwell_s=1e-3)  # a second a frame
    y0, x0 = drifted(raster, motion, 0)
    assert y0[5] - y0[0] == pytest.approx(0.5 + 2.0 * 0.5) and x0[5, 0] - x0[0, 0] == pytest.approx(-0.5)
    y3, x3 = drifted(raster, motion, 3)
    assert np.allclose(y3 - y0, 6.0) and np.allclose(x3 - x0, -3.0)
    later = drifted(replace(raster, start_s=3.0), motion, 0)
    assert np.allclose(later[0], y3) and np.allclose(later[1], x3)


def test_wander_has_its_rms_begins_at_zero_and_belongs_to_the_seed():
    time = np.linspace(0, 3000, 3001)
    ways = np.stack([Motion(Drift(wander_nm=0.5, wander_s=30.0), seed).offset_nm(time) for seed in range(20)])
    assert np.allclose(ways[..., 0], 0)
    assert ways.std(axis=2).mean() == pytest.approx(0.5, rel=0.1)
    assert np.abs(np.diff(ways)).max() < 0.15  # a second is short beside 30
    assert not np.allclose(ways[0], ways[1])


def test_rows_slip_one_by_one_and_lag_after_the_flyback():
    settings = msgspec.structs.replace(
        DEMO.scan, row_jitter_nm=0.02, flyback_nm=0.3, flyback_s=20e-6, drift=Drift(), dwell_s=2e-6
    )
    raster = Raster(shape=(4000, 64), pixel_nm=0.05, origin_nm=(0.0, 0.0), dwell_s=2e-6)
    _, x = places(raster, Motion(Drift(), 0), settings, 0, np.random.default_rng(0))
    off = x - raster.centres_nm()[1]
    slip = off[:, -1]
    assert slip.std() == pytest.approx(0.02, rel=0.05) and abs(np.corrcoef(slip[1:], slip[:-1])[0, 1]) < 0.06
    lag = off - slip[:, None]
    assert lag[0, 0] == pytest.approx(-0.3, abs=1e-3) and lag[0, 10] == pytest.approx(-0.3 / math.e, abs=2e-3)


# --- frames and tiles


def test_any_frame_can_be_made_again_alone(small):
    again = Simulation(FILM, seed=7, frames=5)
    for number in (1, 0):
        _same(again.frame(number), small.frame(number))
    moving = drifting(DEMO, (0.5, 0.3), wander_nm=0.1)  # 3 nm in so many frames: the beam sees another window
    one, many = (Simulation(moving, 3, frames, shape=(80, 80)) for frames in (1, 400))
    assert many.scene.share.shape != one.scene.share.shape and many.photons.shape != one.photons.shape
    _same(one.frame(0), many.frame(0))
    alone = Simulation(moving, 3, 1, shape=(80, 80), modalities=("eds",)).frame(0)
    assert np.array_equal(alone.channels, many.frame(0).channels)
    assert not np.array_equal(small.frame(0).haadf, small.frame(1).haadf)
    assert not np.array_equal(small.frame(0).haadf, Simulation(FILM, 8, 2).frame(0).haadf)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 100))
def test_tiles_of_any_height_rebuild_the_frames_in_time_order(small, rows):
    tiles = list(small.tiles(rows))
    order = [(t.frame, t.y, isinstance(t, EdsEvents)) for t in tiles]
    assert order == sorted(order)
    for number in range(2):
        haadf = [t for t in tiles if isinstance(t, HaadfTile) and t.frame == number]
        eds = [t for t in tiles if isinstance(t, EdsEvents) and t.frame == number]
        assert all(t.counts.sum() == t.channels.size and t.x == 0 for t in eds)
        assert [t.y for t in haadf] == [t.y for t in eds] == list(range(0, 80, rows))
        frame = small.frame(number)
        assert np.array_equal(np.concatenate([t.values for t in haadf]), frame.haadf)
        assert np.array_equal(np.concatenate([t.counts for t in eds]), frame.counts)
        assert np.array_equal(np.concatenate([t.channels for t in eds]), frame.channels)


@pytest.mark.parametrize("modality", ["haadf", "eds"])
def test_a_scan_of_one_modality_says_so_and_sends_no_other(modality):
    scan = Simulation(FILM, 0, 1, modalities=(modality,))
    assert scan.plan.modalities == (modality,)
    assert {isinstance(t, HaadfTile) for t in scan.tiles()} == {modality == "haadf"}


def test_the_counts_are_the_standard_fields_mean_per_frame_and_go_with_the_dwell():
    quiet = altered(FILM, eds=msgspec.structs.replace(FILM.eds, zero_peak_share=0.0))
    for wanted in (0.0, 0.04, 5.0):
        frame = Simulation(quiet, 1, 1, eds_counts_per_pixel=wanted, modalities=("eds",)).frame(0)
        assert frame.counts.mean() == pytest.approx(wanted, abs=4 * math.sqrt(max(wanted, 1e-12) / 80**2))
    longer = Raster(shape=(80, 80), pixel_nm=0.05, origin_nm=(0.0, 0.0), dwell_s=3 * quiet.scan.dwell_s)
    frame = Simulation(quiet, 1, 1, eds_counts_per_pixel=2.0, modalities=("eds",), raster=longer).frame(0)
    assert frame.counts.mean() == pytest.approx(6.0, rel=0.03)


def test_a_zero_peak_adds_its_share_of_the_counts_whatever_lies_there():
    noisy = altered(FILM, eds=msgspec.structs.replace(FILM.eds, zero_peak_share=0.75, counts_per_pixel=1.0))
    frame = Simulation(noisy, 1, 1, modalities=("eds",)).frame(0)
    assert frame.counts.mean() == pytest.approx(4.0, rel=0.03)
    energy = noisy.eds.offset_kev + noisy.eds.scale_kev * frame.channels
    assert np.mean(np.abs(energy) < 0.06) == pytest.approx(0.75, abs=0.02)
    brighter = Simulation(noisy, 1, 1, modalities=("eds",), eds_counts_per_pixel=5.0).frame(0)
    assert brighter.counts.mean() == pytest.approx(8.0, rel=0.03)  # electronics do not care


def test_the_scan_id_is_a_name_and_follows_from_everything_that_decides_the_scan():
    thicker = altered(FILM, thickness_nm=31.0)
    elsewhere = Raster(shape=(80, 80), pixel_nm=0.05, origin_nm=(1.0, 0.0), dwell_s=2e-6)
    scans = [
        Simulation(FILM, 0, 8),
        Simulation(FILM, 1, 8),
        Simulation(FILM, 0, 9),
        Simulation(FILM, 0, 8, shape=(64, 64)),
        Simulation(FILM, 0, 8, eds_counts_per_pixel=1.0),
        Simulation(FILM, 0, 8, modalities=("haadf",)),
        Simulation(FILM, 0, 8, raster=elsewhere),
        Simulation(FILM, 0, 8, raster=replace(elsewhere, start_s=5.0)),
        Simulation(thicker, 0, 8),
    ]
    ids = [s.scan_id for s in scans]
    assert len(set(ids)) == len(ids)
    assert all(check_name(i, "scan") for i in ids)
    assert Simulation(FILM, 0, 8, shape=(80, 80)).scan_id == ids[0]


def test_the_plan_states_the_microscope_and_gives_the_demos_grid():
    plan = Simulation(DEMO, frames=3).plan
    assert plan.beam.energy_kv == 300 and plan.beam.convergence_mrad == 18 and plan.dwell_s == 2e-6
    assert plan.beam.collection_mrad == (50, 200) and plan.frames == 3 and plan.source == "simulator"
    assert plan.eds.energy.channels == 4096 and plan.eds.energy.offset_kev == -0.25
    assert plan.eds.elements[:6] == ("Cr", "Fe", "La", "O", "Sr", "Ti")
    grid = plan_grid(plan.haadf.sampling, plan.eds.sampling)
    assert (grid.rows, grid.cols, grid.chip_px) == (21, 21, 15) and grid.chip_nm == pytest.approx(0.75)


@pytest.mark.parametrize("name", packaged_specimens())
def test_every_specimen_gives_frames_in_range(name):
    specimen = load_specimen(name)
    shape = tuple(side // 4 for side in specimen.scan.shape)
    frame = Simulation(specimen, seed=2, frames=2, shape=shape).frame(1)
    assert frame.haadf.min() > 0 and frame.haadf.max() < 65535 and frame.haadf.std() > 300
    assert frame.counts.sum() == frame.channels.size > 0 and frame.channels.max() < specimen.eds.channels


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"seed": -1}, "--seed"),
        ({"frames": 0}, "--frames"),
        ({"shape": (4, 4)}, "pixels a side"),
        ({"shape": (0, 4)}, "pixels a side"),
        ({"shape": (64, 100)}, "use 64 x 64"),
        ({"eds_counts_per_pixel": -1.0}, "EDS counts"),
        ({"eds_counts_per_pixel": float("nan")}, "EDS counts"),
        ({"modalities": ()}, "HAADF, EDS or both"),
        ({"frames": 10**8}, "1 to 100000"),
    ],
)
def test_settings_that_make_no_scan_are_refused(wrong, says):
    with pytest.raises(UsageError, match=says):
        Simulation(DEMO, **wrong)


def test_impossible_tiles_and_frames_are_refused(small):
    with pytest.raises(UsageError, match="at least 1 row"):
        next(small.tiles(0))
    for number in (-1, 2):
        with pytest.raises(UsageError, match=f"no frame {number}"):
            small.frame(number)


# --- damage


def test_order_is_lost_with_dose_and_only_where_a_critical_dose_is_given():
    beam = msgspec.structs.replace(BLOCK.beam, current_pa=2000.0)  # so that noise is no matter
    haadf = msgspec.structs.replace(BLOCK.haadf, gain=BLOCK.haadf.gain / 20)
    bright = altered(still(BLOCK), beam=beam, haadf=haadf)
    dose = Simulation(bright).frame_dose_e_nm2
    fragile = altered(bright, critical_dose_e_nm2=3 * dose)
    scan = Simulation(fragile, 0, 10, modalities=("haadf",))
    strength = [_lattice(scan.frame(n).haadf) for n in (0, 3, 9)]
    assert strength[1] / strength[0] == pytest.approx(math.exp(-1), abs=0.08)
    assert strength[2] / strength[0] == pytest.approx(math.exp(-3), abs=0.08)
    tough = Simulation(bright, 0, 10, modalities=("haadf",))
    assert _lattice(tough.frame(9).haadf) == pytest.approx(_lattice(tough.frame(0).haadf), rel=0.04)


def _lattice(image):
    """Return the amplitude of the substrate's {100} waves."""
    y, x = (np.arange(80) + 0.5) * 0.05, (np.arange(80) + 0.5) * 0.05
    window = np.outer(np.hanning(80), np.hanning(80))
    return abs((image * window * np.exp(2j * np.pi * x / 0.3905)).sum()) + abs(
        (image * window * np.exp(2j * np.pi * y[:, None] / 0.3905)).sum()
    )


# --- the truth


def test_chips_get_the_class_of_most_of_their_pixels(small):
    grid = plan_grid(small.plan.haadf.sampling, small.plan.eds.sampling, chip_px=10)
    classes, purity = small.truth.class_of_chips(grid)
    for row, col in np.ndindex(8, 8):
        pixels = small.truth.class_of_sum[10 * row : 10 * row + 10, 10 * col : 10 * col + 10]
        counts = np.bincount(pixels.ravel(), minlength=2)
        assert classes[row, col] == counts.argmax() and purity[row, col] == counts.max() / 100


def test_the_truth_of_a_drifting_scan_is_where_its_frames_see_it():
    still_truth = Simulation(still(FILM), 0, 1).truth
    assert np.array_equal(still_truth.class_of_pixel, still_truth.class_of_sum)
    frame_s = 80 * 80 * FILM.scan.dwell_s
    velocity = 0.05 / frame_s  # a pixel a frame, downwards
    truth = Simulation(drifting(FILM, (velocity, 0.0)), 0, 9).truth
    border = [
        int((c[:, 40] == 0).sum()) for c in (still_truth.class_of_pixel, truth.class_of_pixel, truth.class_of_sum)
    ]
    assert border[0] == 40 and border[1] in (39, 40) and border[2] == pytest.approx(border[1] - 4, abs=1)
    assert truth.facts.drift_nm[8] == pytest.approx((8 * 0.05, 0.0))


def test_an_edge_in_the_picture_stands_where_the_truth_says():
    scan = Simulation(still(FILM), 0, 4)
    image = np.mean([scan.frame(n).haadf for n in range(4)], axis=0).mean(axis=1)
    film, substrate = image[:32].mean(), image[48:].mean()
    smooth = np.convolve(image, np.ones(8) / 8, mode="same")
    bright = smooth > (film + substrate) / 2
    crossing = np.flatnonzero(bright[10:70] & ~bright[11:71]) + 10
    truth = (scan.truth.class_of_pixel[:, 40] == 0).sum()
    assert np.abs(crossing - truth).min() <= 4  # half a unit cell


def test_a_lattice_appears_as_the_drift_shears_it():
    """Against the phase of the picture itself: fit g so that g.p = k.s(p) for the places s(p) of the beam."""
    raster = Raster(shape=(64, 64), pixel_nm=0.05, origin_nm=(0.0, 0.0), dwell_s=1e-4)
    velocity = np.array([0.9, -0.5])  # of 7.8 nm/s along the slow scan
    motion = Motion(Drift(velocity_nm_s=tuple(velocity)), 0)
    crystal = FILM.material[0].structure if FILM.material[0].name == "LFO" else FILM.material[1].structure
    p_y, p_x = np.meshgrid(*raster.centres_nm(), indexing="ij")
    times = raster.row_times_s(0)[:, None] + np.arange(64) * raster.dwell_s
    down, across = motion.offset_nm(times)
    design = np.stack([np.ones(p_y.size), p_y.ravel(), p_x.ravel()], axis=1)
    turn = math.radians(2.0)
    waves = {
        "fast": np.array([math.sin(turn), math.cos(turn)]) / crystal.cell_nm[0],
        "slow": np.array([math.cos(turn), -math.sin(turn)]) / crystal.cell_nm[1],
    }
    found = apparent_spacings_nm(crystal, 2.0, raster, velocity)
    for wave, got in zip(waves.values(), found, strict=True):
        phase = wave[0] * (p_y + down) + wave[1] * (p_x + across)
        seen = np.linalg.lstsq(design, phase.ravel(), rcond=None)[0][1:]
        assert got == pytest.approx(1 / np.hypot(*seen), rel=1e-9)
    still_ones = apparent_spacings_nm(crystal, 2.0, raster, np.zeros(2))
    assert still_ones == pytest.approx(crystal.cell_nm) and abs(found[1] / still_ones[1] - 1) > 0.05


def test_the_truth_knows_the_dose_and_is_read_back_as_it_was_written(tmp_path):
    truth = Simulation(DEMO, seed=1, frames=3, shape=(64, 64)).truth
    per_frame = 100e-12 * 2e-6 / 1.602176634e-19 / 0.25**2
    assert truth.facts.dose_e_nm2 == pytest.approx(3 * per_frame, rel=1e-4)
    assert np.allclose(truth.dose_e_nm2, 3 * per_frame, rtol=1e-4)
    save_truth(truth, tmp_path / "scan.truth")
    back = load_truth(tmp_path / "scan.truth")
    assert back.facts == truth.facts and np.array_equal(back.class_of_sum, truth.class_of_sum)
    assert [c.d_spacing_nm for c in back.facts.classes] == [None, 0.3952, None, 0.3905]
    assert back.facts.classes[LFO].d_apparent_nm == pytest.approx((0.3905, 0.3952), rel=2e-3)
    assert back.facts.classes[STO].composition == pytest.approx({"Sr": 20, "Ti": 20, "O": 60})


def test_importing_the_simulator_loads_no_heavy_library():
    code = "import sys, livestem.simulator; print([m for m in ('exspy', 'hyperspy', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def _same(one, other):
    for a, b in zip(astuple(one), astuple(other), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "rows", "chip_px"),
    [("pristine-0dpa", 34, 15), ("pristine-0.1dpa", 25, 20), ("defective-0dpa", 34, 15), ("defective-0.1dpa", 51, 10)],
)
def test_the_papers_samples_ask_for_the_papers_chips(name, rows, chip_px):
    plan = Simulation(load_specimen(name)).plan
    grid = plan_grid(plan.haadf.sampling, plan.eds.sampling, chip_px=plan.processing.chip_px)
    assert (grid.rows, grid.cols, grid.chip_px) == (rows, rows, chip_px)
    coarser = Simulation(load_specimen(name), shape=(256, 256)).plan
    assert coarser.processing.chip_px is None  # chips of so many of these pixels would be other chips
    assert plan.processing.strays == coarser.processing.strays == ("C", "Cu", "Ga", "Al", "N")


def test_a_scan_that_would_see_too_much_is_refused_before_anything_is_made():
    fast = drifting(DEMO, (50.0, 20.0))
    with pytest.raises(UsageError, match="the beam would see .* nm of the specimen"):
        Simulation(fast, frames=100)


def test_the_truth_of_a_scan_that_ended_early_is_that_of_what_the_beam_did():
    scan = Simulation(still(FILM), 0, 4)
    early = scan.truth_after(1.5)
    assert early.facts.frames == 2 and early.facts.dose_e_nm2 == pytest.approx(1.5 * scan.frame_dose_e_nm2)
    assert early.dose_e_nm2[:40] == pytest.approx(2 * scan.frame_dose_e_nm2)
    assert early.dose_e_nm2[40:] == pytest.approx(scan.frame_dose_e_nm2)
    assert scan.truth.dose_e_nm2 == pytest.approx(4 * scan.frame_dose_e_nm2)
