"""The virtual microscope as an instrument: what it grants and refuses, and what its scans leave on the specimen."""

from __future__ import annotations

import math
import threading

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import FILM, altered, still

from livestem.domain.errors import RefusedError
from livestem.domain.request import ScanRequest
from livestem.simulator import VirtualMicroscope
from livestem.simulator.dose import DoseMap
from livestem.simulator.instrument import Drift, StageLimits
from livestem.simulator.truth import save_dose
from livestem.simulator.window import Window

ROOMY = altered(still(FILM), reach_nm=6.0, limits=StageLimits(area_nm2=100.0, time_s=1.0, dose_e_nm2=5e6))
FRAME_DOSE = 100e-12 * 2e-6 / 1.602176634e-19 / 0.05**2  # electrons per nm2, of the standard pixel


def scan_all(microscope):
    """Scan what waits, as the beam would, and return the scans."""
    done = []
    while (scan := microscope.next_scan(0.0)) is not None:
        microscope.scanned(scan)
        done.append(scan)
    return done


# --- what is granted


def test_a_request_without_words_is_the_standard_field():
    microscope = VirtualMicroscope(ROOMY)
    grant = microscope.request(ScanRequest(frames=3))
    (scan,) = scan_all(microscope)
    assert scan.scan_id == grant.scan_id and scan.frames == 3
    assert scan.shape == (80, 80) and scan.plan.haadf.sampling.origin_nm == (0.0, 0.0)
    assert grant.duration_s == pytest.approx(3 * 80 * 80 * 2e-6)
    assert grant.dose_e_nm2 == pytest.approx(3 * FRAME_DOSE, rel=1e-4) and grant.queued == 0


def test_a_region_in_nm_is_scanned_where_and_as_finely_as_it_was_asked_for():
    microscope = VirtualMicroscope(ROOMY)
    request = ScanRequest(region_nm=(-2.0, 1.0, 3.0, 6.0), pixel_nm=0.1, dwell_s=1e-6, modalities=("haadf",))
    grant = microscope.request(request)
    (scan,) = scan_all(microscope)
    sampling = scan.plan.haadf.sampling
    assert (sampling.origin_nm, sampling.shape, sampling.pixel_nm) == ((-2.0, 1.0), (30, 60), (0.1, 0.1))
    assert scan.plan.dwell_s == 1e-6 and scan.plan.eds is None
    assert grant.dose_e_nm2 == pytest.approx(FRAME_DOSE / 2 / 4, rel=1e-4)


def test_a_region_in_pixels_counts_those_of_the_scan_it_names():
    microscope = VirtualMicroscope(ROOMY)
    microscope.request(ScanRequest(region_nm=(1.0, 1.0, 3.0, 3.0), pixel_nm=0.1))
    (first,) = scan_all(microscope)
    microscope.request(ScanRequest(region_px=(5, -3, 10, 20), of=first.scan_id))
    (second,) = scan_all(microscope)
    assert second.plan.haadf.sampling.origin_nm == pytest.approx((1.5, 0.7))
    assert second.shape == (10, 20) and second.raster.pixel_nm == 0.1


def test_a_second_look_at_a_place_shows_the_same_specimen():
    microscope = VirtualMicroscope(ROOMY, seed=4)
    microscope.request(ScanRequest())
    microscope.request(ScanRequest(region_nm=(1.0, 1.0, 2.0, 2.0)))
    whole, part = scan_all(microscope)
    a, b = whole.frame(0).haadf[20:60, 20:60].astype(float), part.frame(0).haadf.astype(float)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.7  # but for the noise of two frames
    assert np.array_equal(whole.truth.class_of_pixel[20:60, 20:60], part.truth.class_of_pixel)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ScanRequest(region_nm=(0.0, 0.0, 40.0, 40.0)), "outside the stage's y -6 to 10, x -6 to 10 nm"),
        (ScanRequest(region_nm=(-6.1, 0.0, 2.0, 2.0)), "outside the stage"),
        (ScanRequest(region_nm=(9.0, 9.0, 2.0, 2.0)), "outside the stage"),
        (ScanRequest(region_nm=(-5.0, -5.0, 12.0, 12.0)), "144 nm2, and a scan may have 100 nm2"),
        (ScanRequest(frames=100), "100 frames take 1.28 s, and a scan may take 1 s"),
        (ScanRequest(frames=11), "5e\\+06 are allowed"),
        (ScanRequest(pixel_nm=0.0005), "8000 x 8000 pixels, and a scan has 8 to 4096 a side"),
        (ScanRequest(pixel_nm=1.0), "4 x 4 pixels"),
        (ScanRequest(pixel_nm=0.5, dwell_s=1e-9, frames=100_001), "1 to 100000"),
        (ScanRequest(region_px=(0, 0, 10, 10), of="nothing"), "no scan nothing in this session"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_nothing_starts(request_, says):
    microscope = VirtualMicroscope(ROOMY)
    with pytest.raises(RefusedError, match=says) as error:
        microscope.request(request_)
    assert "\n" not in str(error.value)
    assert microscope.next_scan(0.0) is None and microscope.dose.digest == "" and microscope.time_s == 0


def test_a_scan_that_drift_makes_too_large_is_refused_and_not_granted():
    drift = Drift(velocity_nm_s=(50.0, 50.0))
    fast = altered(ROOMY, scan=msgspec.structs.replace(ROOMY.scan, drift=drift), limits=StageLimits())
    microscope = VirtualMicroscope(fast)
    with pytest.raises(RefusedError, match="the beam would see"):
        microscope.request(ScanRequest(frames=200))
    microscope.request(ScanRequest(frames=1))


def test_pixels_of_a_scan_that_still_waits_may_be_counted():
    microscope = VirtualMicroscope(ROOMY)
    first = microscope.request(ScanRequest())
    microscope.request(ScanRequest(region_px=(0, 0, 10, 10), of=first.scan_id))


def test_the_rows_of_a_frame_that_was_begun_have_its_dose():
    microscope = VirtualMicroscope(ROOMY)
    microscope.request(ScanRequest(frames=2))
    scan = microscope.next_scan(0.0)
    microscope.scanned(scan, frames=1.5)
    at = microscope.dose.at(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    assert at == pytest.approx([2 * FRAME_DOSE, FRAME_DOSE], rel=1e-4)
    assert scan.truth_after(1.5).dose_e_nm2.max() == pytest.approx(microscope.dose.highest(microscope.stage), rel=1e-4)


def test_the_queue_is_bounded():
    microscope = VirtualMicroscope(altered(ROOMY, limits=StageLimits()))
    grants = [microscope.request(ScanRequest()) for _ in range(16)]
    assert [g.queued for g in grants] == list(range(16))
    assert len({g.scan_id for g in grants}) == 16
    with pytest.raises(RefusedError, match="16 scans wait already"):
        microscope.request(ScanRequest())
    microscope.next_scan(0.0)
    microscope.request(ScanRequest())


def test_requests_may_come_from_several_threads():
    microscope = VirtualMicroscope(altered(ROOMY, limits=StageLimits()))
    granted = []
    threads = [
        threading.Thread(target=lambda: granted.append(microscope.request(ScanRequest()).scan_id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    scans = [microscope.next_scan(5.0).scan_id for _ in range(8)]
    for thread in threads:
        thread.join()
    assert sorted(scans) == sorted(granted) and len(set(scans)) == 8


# --- dose


def test_the_dose_of_all_scans_adds_up_where_they_were():
    microscope = VirtualMicroscope(altered(ROOMY, limits=StageLimits()))
    microscope.request(ScanRequest(frames=2))
    microscope.request(ScanRequest(region_nm=(2.0, 2.0, 2.0, 2.0), pixel_nm=0.1, frames=4))
    scan_all(microscope)
    at = microscope.dose.at(np.array([1.0, 3.0, 8.0]), np.array([1.0, 3.0, 8.0]))
    assert at == pytest.approx([2 * FRAME_DOSE, 2 * FRAME_DOSE + 4 * FRAME_DOSE / 4, 0.0], rel=1e-4)


def test_every_electron_that_left_the_gun_is_on_the_map():
    microscope = VirtualMicroscope(altered(ROOMY, limits=StageLimits()))
    microscope.request(ScanRequest(frames=3))
    (scan,) = scan_all(microscope)
    y = x = np.arange(-5.875, 10, 0.25)
    electrons = microscope.dose.at(y[:, None], x).sum() * 0.25**2
    assert electrons == pytest.approx(3 * 80 * 80 * 100e-12 * 2e-6 / 1.602176634e-19, rel=1e-3)
    assert scan.truth.facts.dose_e_nm2 == pytest.approx(3 * FRAME_DOSE, rel=1e-4)


def test_the_truth_of_a_later_scan_holds_the_dose_of_the_earlier_ones():
    microscope = VirtualMicroscope(altered(ROOMY, limits=StageLimits()))
    for frames in (2, 3):
        microscope.request(ScanRequest(frames=frames))
    first, second = scan_all(microscope)
    assert np.median(first.truth.dose_e_nm2) == pytest.approx(2 * FRAME_DOSE, rel=1e-4)
    assert np.median(second.truth.dose_e_nm2) == pytest.approx(5 * FRAME_DOSE, rel=1e-4)


def test_the_limit_counts_what_was_done_and_what_waits():
    microscope = VirtualMicroscope(ROOMY)  # ten frames of the standard pixel and no more
    microscope.request(ScanRequest(frames=5))
    scan_all(microscope)
    microscope.request(ScanRequest(frames=4))
    with pytest.raises(RefusedError, match="has had 4.49e\\+06 electrons per nm2, this scan adds 9.99e\\+05"):
        microscope.request(ScanRequest(frames=2))
    microscope.request(ScanRequest(frames=1))
    microscope.request(ScanRequest(region_nm=(-5.0, -5.0, 3.0, 3.0), frames=2))  # fresh matter


def test_the_limit_counts_the_scan_that_is_under_the_beam():
    microscope = VirtualMicroscope(ROOMY)
    microscope.request(ScanRequest(frames=10))
    scan = microscope.next_scan(0.0)
    with pytest.raises(RefusedError, match="has had 4.99e\\+06 electrons per nm2"):
        microscope.request(ScanRequest(frames=1))
    microscope.scanned(scan, frames=2)  # aborted: the rest is free again
    microscope.request(ScanRequest(frames=1))


def test_a_scan_that_was_aborted_counts_for_what_the_beam_did():
    microscope = VirtualMicroscope(ROOMY)
    microscope.request(ScanRequest(frames=4))
    scan = microscope.next_scan(0.0)
    microscope.scanned(scan, frames=1.5)
    assert microscope.dose.at(np.array(1.0), np.array(2.0)) == pytest.approx(2 * FRAME_DOSE, rel=1e-4)
    assert microscope.dose.at(np.array(3.0), np.array(2.0)) == pytest.approx(FRAME_DOSE, rel=1e-4)
    assert microscope.time_s == pytest.approx(1.5 * scan.raster.frame_s)


def test_damage_done_by_one_scan_is_seen_by_the_next():
    fragile = altered(ROOMY, critical_dose_e_nm2=FRAME_DOSE, limits=StageLimits())
    microscope = VirtualMicroscope(fragile)
    microscope.request(ScanRequest(frames=3, modalities=("haadf",)))
    microscope.request(ScanRequest(modalities=("haadf",)))
    fresh, damaged = scan_all(microscope)
    assert damaged.frame(0).haadf.std() < 0.6 * fresh.frame(0).haadf.std()


@given(
    st.lists(st.tuples(*[st.integers(0, 12)] * 4, st.integers(1, 9)), max_size=6), st.tuples(*[st.integers(0, 12)] * 4)
)
def test_the_highest_dose_is_that_of_a_fine_map(fallen, seen):
    dose = DoseMap()
    for y, x, h, w, much in fallen:
        dose.add(Window(y, x, y + h, x + w), float(much))
    y, x, h, w = seen
    window = Window(y, x, y + h + 1, x + w + 1)
    assert dose.highest(window) == dose.on_grid(window, 0.25).max()


def test_the_smallest_scan_counts_in_full_and_far_away_too():
    dose = DoseMap()
    dose.add(Window(700.03, -0.01, 700.13, 0.09), 7.0)
    assert dose.highest(Window(700.0, 0.0, 700.1, 0.05)) == 7.0 and dose.highest(Window(0, 0, 600, 600)) == 0.0
    other = dose.copy()
    other.add(Window(700.0, 0.0, 701.0, 1.0), 1.0)
    assert dose.at(np.array(700.1), np.array(0.05)) == 7.0 and other.at(np.array(700.1), np.array(0.05)) == 8.0
    assert other.digest != dose.digest != DoseMap().digest == ""


def test_the_limit_holds_where_drift_has_carried_the_region():
    """Later another place stands under the same coordinates: it is fresh, and the one that had its share is not."""
    drift = Drift(velocity_nm_s=(0.01, 0.0))
    limits = StageLimits(dose_e_nm2=5e6)  # ten frames
    moving = altered(ROOMY, scan=msgspec.structs.replace(ROOMY.scan, drift=drift), limits=limits, reach_nm=30.0)
    microscope = VirtualMicroscope(moving)
    microscope.request(ScanRequest(frames=9))
    scan_all(microscope)
    microscope.rest(1000.0)  # 10 nm
    microscope.request(ScanRequest(frames=9))  # fresh
    with pytest.raises(RefusedError, match="has had"):
        microscope.request(ScanRequest(frames=9))  # the second one waits there
    with pytest.raises(RefusedError, match="has had"):
        microscope.request(ScanRequest(region_nm=(-10.0, 0.0, 4.0, 4.0), frames=9))  # the first one's place


def test_a_scan_that_is_asked_for_again_has_noise_of_its_own():
    microscope = VirtualMicroscope(altered(ROOMY, limits=StageLimits()))
    for _ in range(2):
        microscope.request(ScanRequest(frames=1))
    one, other = (scan.frame(0) for scan in scan_all(microscope))
    assert not np.array_equal(one.haadf, other.haadf) and not np.array_equal(one.counts, other.counts)
    noise = (one.haadf.astype(float) - other.haadf)[::7, ::7]
    assert abs(np.corrcoef(noise.ravel(), one.haadf[::7, ::7].ravel())[0, 1]) < 0.9


def test_the_dose_of_a_session_is_written_as_a_map(tmp_path):
    microscope = VirtualMicroscope(altered(ROOMY, limits=StageLimits()))
    microscope.request(ScanRequest(frames=2))
    scan_all(microscope)
    path = save_dose(microscope.dose, microscope.stage, tmp_path / "session-dose")
    with np.load(path) as found:
        assert found["dose_e_nm2"].shape == (64, 64) and found["origin_nm"].tolist() == [-6.0, -6.0]
        assert found["dose_e_nm2"].sum() * 0.25**2 == pytest.approx(16 * 2 * FRAME_DOSE, rel=1e-4)


# --- time


def test_drift_goes_on_between_scans():
    drift = Drift(velocity_nm_s=(0.5, 0.0))
    moving = altered(ROOMY, scan=msgspec.structs.replace(ROOMY.scan, drift=drift), limits=StageLimits())
    microscope = VirtualMicroscope(moving)
    microscope.request(ScanRequest(modalities=("haadf",)))
    scan_all(microscope)
    microscope.rest(1.0)
    microscope.request(ScanRequest(modalities=("haadf",)))
    (second,) = scan_all(microscope)
    assert second.raster.start_s == pytest.approx(1.0 + second.raster.frame_s)
    film = (second.truth.class_of_pixel[:, 40] == 0).sum()  # the border stood at row 40
    assert film == pytest.approx(40 - 0.5 * 1.0 / 0.05, abs=2)
    shift = microscope.dose.at(np.array([0.1, 4.3]), np.array([2.0, 2.0])) / FRAME_DOSE
    assert shift == pytest.approx([1.0, 1.0], rel=0.01)  # the second scan's dose lies half a nanometre further down
    assert math.isclose(microscope.time_s, 1.0 + 2 * second.raster.frame_s)
