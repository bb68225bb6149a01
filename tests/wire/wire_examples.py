"""One message of every type, every field set to something that is not its default. The golden messages are these."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.geometry import Sampling
from livestem.domain.parameters import Processing
from livestem.domain.regions import LatticePeak, Region
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.domain.scan import Beam, Eds, EnergyAxis, Haadf, ScanPlan
from livestem.wire import messages as m
from livestem.wire.codec import encode, nest

Arrays = tuple[NDArray[Any], ...]
Example = tuple[m.Header, Arrays, str, str]  # header, arrays, stream, codec

EPOCH, SENT_NS = 1_700_000_000_000_000_001, 1_700_000_000_123_456_789
FIELD = Sampling(shape=(4, 6), pixel_nm=(0.25, 0.25), origin_nm=(10.0, -2.5), rotation_deg=15.0)
PLAN = ScanPlan(
    haadf=Haadf(sampling=FIELD, dtype="<u2", frames=1, detector="DF4", grey_range=(0.0, 65535.0)),
    eds=Eds(
        sampling=FIELD,
        energy=EnergyAxis(channels=2048, scale_kev=0.01, offset_kev=-0.25),
        frames=2,
        detectors=("EDS1", "EDS2"),
        live_time_s=11.5,
        real_time_s=12.0,
        take_off_angle_deg=22.0,
        energy_resolution_mnka_ev=130.0,
        elements=("Ni", "Fe"),
        lines=("Ni_Ka",),
        k_factors={"Ni_Ka": 1.5},
    ),
    frames=2,
    dwell_s=2e-6,
    beam=Beam(energy_kv=300.0, current_pa=50.0, convergence_mrad=25.0, collection_mrad=(60.0, 200.0)),
    stage={"x": 1.5, "alpha": -3.0},
    sample="superalloy, µ-phase",
    source="golden",
    recorded_at="2026-01-02T03:04:05",
    processing=Processing(preset="default", chip_px=2, elements=("Ni", "Fe")),
    vendor={"mode": "STEM", "spot": 6, "gain": 0.5, "blanked": False, "note": None},
)
REGION = Region(
    label=1,
    name="R1",
    chips=3,
    area_fraction=0.5,
    components=2,
    counts=1234,
    haadf_mean=17.25,
    atomic_percent={"Ni": 60.0, "Fe": 40.0, "O": None},
    atomic_percent_sigma={"Ni": 1.5, "Fe": 1.25, "O": None},
    extraneous_percent=2.5,
    d_spacing_nm=0.25,
    d_spacing_sigma_nm=0.001,
    d_fast_nm=0.25,
    d_slow_nm=0.375,
    lattice_peaks=(LatticePeak(d_nm=0.25, sigma_nm=0.001, angle_deg=45.0, snr=12.0),),
    crystallinity=0.75,
    notes={"O": "below detection"},
)
STREAM = m.Stream(session="gold", epoch=EPOCH, first_seq=3, last_seq=9)


def plain() -> dict[str, Example]:
    """Return the messages that carry no other message."""
    rows = np.arange(12, dtype="<u2").reshape(2, 6) * 1000
    counts, channels = np.array([[2, 0, 1]], "|u1"), np.array([5, 2047, 100], "<u2")
    dense = np.zeros((1, 2, 2048), "|u1")
    dense[0, 1, 77] = 3
    labels = np.array([[0, 1, -1], [1, 1, 0]], "<i2")
    scores = np.linspace(0, 1, 12, dtype="<f4").reshape(2, 2, 3)
    of_scan: dict[str, Any] = {"scan_id": "scan-1"}
    eds: dict[str, Any] = {**of_scan, "frame": 1, "y": 3, "h": 1}
    coverage = m.Coverage(haadf=0.5, eds=0.25)
    return {
        "scan_start": (m.ScanStart(**of_scan, plan=PLAN), (), "acq", "raw"),
        "haadf_tile": (m.HaadfRows(**of_scan, frame=0, y=2, x=0), (rows,), "acq", "raw"),
        "eds_tile": (m.EdsRows(**eds, x=3, w=3, content="events"), (counts, channels), "acq", "raw"),
        "eds_tile dense zstd": (m.EdsRows(**eds, x=4, w=2, content="dense"), (dense,), "acq", "zstd"),
        "scan_end": (
            m.ScanEnd(**of_scan, status="aborted", frames=2, haadf_tiles=4, eds_tiles=5, eds_counts=6, reason="stop"),
            (), "acq", "raw",
        ),
        "heartbeat": (m.Heartbeat(last_seq=9), (), "acq", "raw"),
        "echo": (m.Echo(last_seq=9, nonce="n-1"), (), "res", "raw"),
        "live": (
            m.Live(
                last_seq=9, **of_scan, revision=2**33, watermark=m.Watermark(epoch=EPOCH, seq=5), coverage=coverage,
                frame=1, frames=2, counts=99, chips_done=2, chips=6, method="fewshot", modality="haadf+lines",
                classes=("gamma", "mu"), drift_nm=(0.5, -0.25),
            ),
            (labels, scores), "res", "raw",
        ),
        "live aged": (
            m.Live(
                last_seq=9, **of_scan, revision=2**33 + 1, watermark=m.Watermark(epoch=EPOCH, seq=6), coverage=coverage,
                frame=1, frames=2, counts=99, chips_done=2, chips=6, method="fewshot", modality="haadf+atomic",
                classes=("gamma", "mu"), oldest_frames=3,
            ),
            (labels, scores, np.where(labels < 0, 65535, 3).astype("<u2")), "res", "raw",
        ),
        "coverage_map": (
            m.CoverageMap(**of_scan, modalities=("haadf", "eds"), chip_nm=0.5, origin_nm=(10.0, -2.5)),
            (
                np.array([[[1.0, 0.5, 0.0]], [[0.25, 0.5, 1.0]]], "<f4"),
                np.array([[[2.0, 1.0, 0.0]], [[0.5, 1.0, 1.75]]], "<f4"),
            ),
            "res", "raw",
        ),
        "registration": (
            m.Registration(**of_scan, pixel_nm=(0.05, 0.05), drift_nm=(0.06, -0.02), determined=1),
            (
                np.array([[0.0, 0.0], [1.25, -0.5]], "<f4"), np.array([[0, 0], [1, 0]], "<i4"), np.array([1, 1], "|u1"),
            ),
            "res", "raw",
        ),
        "segmentation": (
            m.Segmentation(
                **of_scan, method="ward", modality="haadf", classes=("R0", "R1"), chip_nm=0.5, origin_nm=(10.0, -2.5),
                parameters={"clusters": 2, "gap": 0.5, "linkage": "ward", "given": True, "seed": None},
            ),
            (labels,), "res", "raw",
        ),
        "agreement": (
            m.Agreement(**of_scan, agreement={"ward": {"haadf-lines": 0.5, "haadf-eds": None}}), (), "res", "raw",
        ),
        "descriptors": (m.Descriptors(**of_scan, method="ward", modality="haadf", regions=(REGION,)), (), "res", "raw"),
        "scan_done": (
            m.ScanDone(
                **of_scan, status="incomplete", coverage=coverage,
                missing_tiles=(m.MissingTile(modality="eds", frame=1, y=2, h=2),), input_digest="ab", digest="cd",
                timings_s={"ward": 0.125}, warnings=("clipped",), reason="source vanished",
            ),
            (), "res", "raw",
        ),
        "scan_done part": (
            m.ScanDone(
                **of_scan, status="incomplete", coverage=coverage,
                missing_tiles=(
                    m.MissingTile(modality="haadf", frame=1, y=0, h=2, w=3),
                    m.MissingTile(modality="haadf", frame=1, y=2, h=2, x=3, w=3),
                ),
                input_digest="ab", digest="cd", timings_s={},
            ),
            (), "res", "raw",
        ),
        "suggestion": (
            m.Suggestion(**of_scan, origin_nm=(1.0, 2.0), size_nm=(3.0, 4.0), reason="boundary"), (), "res", "raw",
        ),
        "status": (m.Status(last_seq=9, level="warning", text="läuft", scan_id="scan-1"), (), "res", "raw"),
        "hello": (m.Hello(request_id="r-1", versions=(2, 1), role="observer", name="tem pc"), (), "", "raw"),
        "welcome": (m.Welcome(request_id="r-1", version=1, streams=(STREAM,), server="segmenter"), (), "", "raw"),
        "probe": (m.Probe(request_id="r-2", nonce="n-1"), (), "", "raw"),
        "attach": (m.Attach(request_id="r-3"), (), "", "raw"),
        "attached": (m.Attached(request_id="r-3", stream=STREAM), (), "", "raw"),
        "ack": (m.Ack(request_id="r-4", seq=9), (), "", "raw"),
        "verdict": (
            m.Verdict(request_id="r-5", scan_id="scan-1", accepted=False, reason="too large", facts={"chips": 6}),
            (), "", "raw",
        ),
        "ack blocked": (m.Ack(request_id="r-4", seq=9, blocked="the disk is full"), (), "", "raw"),
        "verdict of": (m.Verdict(request_id="r-5", scan_id="scan-1", accepted=True, seq=3), (), "", "raw"),
        "resend": (m.Resend(request_id="r-6", first=3, last=4), (), "", "raw"),
        "resend place": (
            m.Resend(
                request_id="r-6", scan_id="scan-1", frame=1,
                rectangles=(m.Rectangle(modality="eds", y=0, x=1, h=2, w=3),),
            ),
            (), "", "raw",
        ),
        "gone place": (
            m.Gone(
                request_id="r-6", first=0, last=0, scan_id="scan-1", frame=1,
                rectangles=(m.Rectangle(modality="haadf", y=0, x=1, h=2, w=3),),
            ),
            (), "", "raw",
        ),
        "coming": (
            m.Coming(
                request_id="r-6", scan_id="scan-1", frame=1,
                rectangles=(m.Rectangle(modality="haadf", y=0, x=1, h=2, w=3),),
            ),
            (), "", "raw",
        ),
        "gone": (m.Gone(request_id="r-6", first=1, last=2, more=True), (), "", "raw"),
        "snapshot": (m.Snapshot(request_id="r-7", cursor=4), (), "", "raw"),
        "request_scan": (
            m.RequestScan(
                request_id="r-9",
                request=ScanRequest(
                    region_nm=(10.0, -2.5, 50.0, 75.0), frames=5, dwell_s=2e-6, pixel_nm=0.125, modalities=("haadf",),
                    reason="boundary, µ-phase",
                ),
            ),
            (), "", "raw",
        ),
        "request_scan pixels": (
            m.RequestScan(
                request_id="r-10",
                request=ScanRequest(region_px=(-4, 8, 16, 32), of="scan-1", frames=2, modalities=("eds", "haadf")),
            ),
            (), "", "raw",
        ),
        "scan_granted": (
            m.ScanGranted(
                request_id="r-9",
                grant=ScanGrant(scan_id="scan-2", duration_s=2.5, dose_e_nm2=12_500.0, queued=1),
            ),
            (), "", "raw",
        ),
        "refusal": (m.Refusal(request_id="r-8", reason="no session 'x' here"), (), "", "raw"),
    }  # fmt: skip


def sent(example: Example, seq: int = 7) -> m.Header:
    """Return an example's header as it goes out: with its origin, and numbered if it is reliable."""
    header = example[0]
    number = {"seq": seq} if isinstance(header, m.Reliable) else {}
    return msgspec.structs.replace(header, session="gold", epoch=EPOCH, sent_ns=SENT_NS, **number)


def frames_of(example: Example) -> list[bytes]:
    """Return an example's frames."""
    return encode(sent(example), example[1], stream=example[2], codec=example[3])


def examples() -> dict[str, Example]:
    """Return all of them, by name: the message type, and a word more where there are several."""
    found = plain()
    tile = nest(frames_of(found["haadf_tile"]))
    found["resent"] = (m.Resent(request_id="r-6", seq=7, more=True), (tile,), "", "raw")
    found["snapshot_page"] = (m.SnapshotPage(request_id="r-7", watermark=9, cursor=7), (tile,), "", "raw")
    return found
