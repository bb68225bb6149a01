"""A peer that sends rubbish: each message dropped and counted by reason, the service alive, the scan unharmed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
import zmq
from processes import Service, wait_for

from livestem.client import Acquisition, Haadf, Sampling, ScanPlan
from livestem.domain.errors import RefusedError
from livestem.domain.limits import DEFAULT_LIMITS
from livestem.domain.parameters import Processing
from livestem.wire import messages as m

pytestmark = pytest.mark.system

SHAPE = (32, 32)
PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=SHAPE, pixel_nm=(1.0, 1.0)), dtype="<u2"), frames=2)
PICTURE = np.random.default_rng(0).integers(100, 1000, (2, *SHAPE)).astype("<u2")


def _framed(*frames: bytes) -> list[bytes]:
    """Return frames with a right checksum: what is wrong with them is wrong for another reason."""
    crc = 0
    for frame in frames:
        crc = zlib.crc32(frame, crc)
    return [*frames, crc.to_bytes(4, "little")]


def _tile(session: str, **changes: Any) -> dict[str, Any]:
    """Return the header of a legal tile, as any MessagePack library writes it, with changes."""
    payload = [{"dtype": "<u2", "shape": [1, 32], "codec": "raw"}]
    header = {
        **{"v": 1, "type": "haadf_tile", "session": session, "epoch": 1, "sent_ns": 0, "payload": payload},
        **{"seq": 1, "scan_id": "s", "frame": 0, "y": 0, "x": 0},
    }
    return {k: v for k, v in (header | changes).items() if v is not None}


def _sent(session: str, body: bytes = bytes(64), topic: bytes | None = None, **changes: Any) -> list[bytes]:
    header = msgpack.packb(_tile(session, **changes))
    return _framed(topic if topic is not None else f"acq.{session}.haadf_tile".encode(), header, body)


def _flipped(session: str) -> list[bytes]:
    frames = _sent(session)
    frames[1] = frames[1][:-1] + bytes([frames[1][-1] ^ 1])
    return frames


def _payload(shape: Sequence[int], codec: str = "raw", dtype: str = "<u2") -> list[dict[str, Any]]:
    return [{"dtype": dtype, "shape": list(shape), "codec": codec}]


_HUGE = bytes(DEFAULT_LIMITS.header_bytes + 1)
_NAN = np.full(32, np.nan, "<f4").tobytes()

RUBBISH: dict[str, tuple[str, Callable[[str], list[bytes]]]] = {
    "noise": ("check", lambda s: [f"acq.{s}.haadf_tile".encode(), os.urandom(200), os.urandom(64), os.urandom(4)]),
    "flipped bit": ("check", _flipped),
    "one frame": ("header", lambda s: [f"acq.{s}.".encode()]),
    "many frames": ("limit", lambda s: _framed(f"acq.{s}.x".encode(), *[b"x"] * 50)),
    "huge header": ("limit", lambda s: _framed(f"acq.{s}.haadf_tile".encode(), _HUGE, b"")),
    "no MessagePack": ("header", lambda s: _framed(f"acq.{s}.haadf_tile".encode(), b"\xc1\xc1\xc1", b"")),
    "deep nesting": ("header", lambda s: _framed(f"acq.{s}.haadf_tile".encode(), b"\x91" * 100_000, b"")),
    "pickle": ("header", lambda s: _framed(f"acq.{s}.haadf_tile".encode(), b"\x80\x04\x95\x05.", b"")),
    "unknown field": ("header", lambda s: _sent(s, surprise=1)),
    "missing field": ("header", lambda s: _sent(s, scan_id=None)),
    "wrong type": ("header", lambda s: _sent(s, frame="first")),
    "negative place": ("header", lambda s: _sent(s, y=-1)),
    "unknown message": ("header", lambda s: _sent(s, type="firmware_update")),
    "path as a name": ("header", lambda s: _sent(s, scan_id="../../etc")),
    "another version": ("version", lambda s: _sent(s, v=7)),
    "wrong topic": ("topic", lambda s: _sent(s, topic=b"acq.somebody.haadf_tile")),
    "short payload": ("payload", lambda s: _sent(s, body=bytes(63))),
    "object array": ("header", lambda s: _sent(s, payload=_payload((1, 32), dtype="|O"))),
    "bomb": ("limit", lambda s: _sent(s, body=b"", payload=_payload((2**20, 2**20), "zstd"))),
    "bad zstd": ("payload", lambda s: _sent(s, body=b"nonsense", payload=_payload((1, 32), "zstd"))),
    "no axes": ("payload", lambda s: _sent(s, body=bytes(2), payload=_payload(()))),
    "not finite": ("value", lambda s: _sent(s, _NAN, payload=_payload((1, 32), dtype="<f4"))),
}  # fmt: skip


def _publish(acquisition: Acquisition, frames: list[bytes]) -> None:
    """Send frames on the acquisition's own PUB socket, past all that it would check."""
    with acquisition._hub.lock:
        acquisition._hub._xpub.send_multipart(frames)


def _rejected(service: Service, reason: str) -> float:
    return service.metric("livestem_rejected_total", reason=reason)


def test_every_kind_of_rubbish_is_counted_and_the_scan_is_unharmed(service: Service):
    before = {reason: _rejected(service, reason) for reason, _ in RUBBISH.values()}
    with Acquisition("rubbish", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(PLAN, "unharmed") as scan:
            scan.haadf(PICTURE[0], frame=0)
            for _, make in RUBBISH.values():
                _publish(acquisition, make("rubbish"))
            scan.haadf(PICTURE[1], frame=1)
        acquisition.wait_acknowledged()
        folder = service.finished("rubbish", "unharmed")
    for reason in before:
        expected = sum(why == reason for why, _ in RUBBISH.values())
        wait_for(lambda r=reason, n=expected: _rejected(service, r) >= before[r] + n, 10, f"{reason} was not counted")
        assert _rejected(service, reason) == before[reason] + expected, reason
    _assert_whole(folder)
    service.assert_well()


def _assert_whole(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_bytes())
    assert (result["status"], result["coverage"]) == ("complete", {"haadf": 1.0})


def test_tiles_that_break_the_scans_rules_are_counted_and_not_applied(service: Service):
    """Well-formed, numbered messages, as a faulty adapter might send them: dropped, and the stream goes on."""
    bad = {
        "outside": m.HaadfRows(scan_id="rules", frame=0, y=31, x=0),  # two rows: one beyond the field
        "conflict": m.HaadfRows(scan_id="rules", frame=0, y=0, x=0),  # a place that is taken, other content
        "overlap": m.HaadfRows(scan_id="rules", frame=0, y=1, x=0),
    }
    with Acquisition("rules", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        before = {reason: _rejected(service, reason) for reason in (*bad, "payload")}
        with acquisition.start_scan(PLAN, "rules") as scan:
            for y in range(0, 32, 2):
                scan.haadf(PICTURE[0, y : y + 2], frame=0, y=y)
            for header in bad.values():
                acquisition.publish(header, (np.zeros((2, 32), "<u2"),))
            acquisition.publish(m.HaadfRows(scan_id="rules", frame=1, y=0, x=0), (np.zeros((2, 32), "<f4"),))
            acquisition.publish(m.HaadfRows(scan_id="rules", frame=2, y=0, x=0), (np.zeros((2, 32), "<u2"),))
            scan.haadf(PICTURE[1], frame=1)
        acquisition.wait_acknowledged()
        folder = service.finished("rules", "rules")
    for reason, most in (("outside", 2), ("conflict", 1), ("overlap", 1), ("payload", 1)):
        assert _rejected(service, reason) == before[reason] + most, reason
    _assert_whole(folder)
    service.assert_well()


def test_a_message_that_was_made_wrong_is_given_up_and_the_scan_ends(service: Service):
    """Its checksum is right and its content is not: asking again does not help, and must not go on for ever."""
    plan = ScanPlan(haadf=Haadf(sampling=Sampling(shape=SHAPE, pixel_nm=(1.0, 1.0)), dtype="<f4"), frames=1)
    with Acquisition("madewrong", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(plan, "holed") as scan:
            scan.haadf(PICTURE[0, :16].astype("<f4"))
            rows = m.HaadfRows(scan_id="holed", frame=0, y=16, x=0)
            acquisition.publish(rows, (np.full((16, 32), np.nan, "<f4"),))
        acquisition.wait_acknowledged()
        folder = service.finished("madewrong", "holed")
    result = json.loads((folder / "result.json").read_bytes())
    assert result["coverage"] == {"haadf": 0.5}
    assert result["missing_tiles"] == [{"modality": "haadf", "frame": 0, "y": 16, "h": 16}]
    with np.load(folder / "labels.npz") as labels:
        ward = labels["ward.haadf"]
    assert (ward[ward.shape[0] // 2 :] == -1).all() and (ward[: ward.shape[0] // 2] >= 0).all()
    service.assert_well()


def test_a_scan_with_holes_is_not_called_complete(service: Service):
    with Acquisition("half", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(PLAN, "half") as scan:
            scan.haadf(PICTURE[0, :16])  # a script that forgot the rest
        acquisition.wait_acknowledged()
        result = json.loads((service.finished("half", "half") / "result.json").read_bytes())
    assert result["coverage"] == {"haadf": 0.25}
    assert result["status"] == "incomplete"


def test_tiles_of_a_refused_scan_are_counted(service: Service):
    before = _rejected(service, "unknown_scan")
    with Acquisition("refused", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with pytest.raises(RefusedError, match="--chip-px"):
            acquisition.start_scan(msgspec.structs.replace(PLAN, processing=Processing(chip_px=99)), "big")
        acquisition.publish(m.HaadfRows(scan_id="big", frame=0, y=0, x=0), (PICTURE[0],))
        acquisition.wait_acknowledged()
    wait_for(lambda: _rejected(service, "unknown_scan") == before + 1, 10)
    service.assert_well()


def test_rubbish_at_the_other_doors_harms_nothing(service: Service):
    """The results' ROUTER, its XPUB and the HTTP port, from a port scanner or a wrong program."""
    port = int(service.results.rsplit(":", 1)[1])
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 1000)
        dealer.connect(f"tcp://127.0.0.1:{port + 1}")
        for frames in ([b""], [b"", b"x"], [os.urandom(9)] * 20, _framed(b"", b"\xc1"), _sent("x"), [b"x" * 2**20] * 4):
            dealer.send_multipart(frames)
        hello = {"type": "snapshot", "v": 1, "session": "nobody", "request_id": "1"}
        dealer.send_multipart(_framed(b"", msgpack.packb(hello)))
        assert dealer.poll(5000), "an honest request after the rubbish is answered"
        assert msgpack.unpackb(dealer.recv_multipart()[1])["type"] == "refusal"
    for door in (port, port + 1, service.http):
        for data in (os.urandom(500), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"):
            with socket.create_connection(("127.0.0.1", door), timeout=5) as peer:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):  # answered, ignored or thrown out: all fair
                    peer.settimeout(0.5)
                    peer.recv(4096)
    service.assert_well()


def test_a_scrape_that_is_broken_off_is_no_traceback(tmp_path: Path):
    with Service(tmp_path) as service:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", service.http), timeout=5) as peer:
                peer.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave with a reset
        service.assert_well()


def test_a_flood_of_rubbish_is_not_a_flood_of_log(tmp_path: Path):
    with Service(tmp_path) as service, Acquisition("flood", service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        before = len(service.words())
        for _ in range(2000):
            _publish(acquisition, [b"acq.flood.haadf_tile", b"x", b"y", b"z"])
        wait_for(lambda: _rejected(service, "check") >= 2000, 20)
        service.assert_well()
        assert len(service.words()) - before < 20_000
