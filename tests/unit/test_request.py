"""What may be asked of an instrument, and the command that asks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestem.cli.__main__ import app
from livestem.client import Endpoint, ScanGrant, ScanRequest
from livestem.domain.errors import LivestemError, RefusedError, TransportError, UsageError
from livestem.domain.request import REASON_CHARACTERS

NM = st.floats(1e-4, 1e7)
CORNER = st.floats(-1e7, 1e7)
PX, AT = st.integers(1, 2**31 - 1), st.integers(-(2**31) + 1, 2**31 - 1)
NAME = st.from_regex(r"\Ascan-[A-Za-z0-9_-]{1,58}\Z")
WHERE = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"region_nm": st.tuples(CORNER, CORNER, NM, NM)}),
    st.fixed_dictionaries({"region_px": st.tuples(AT, AT, PX, PX), "of": NAME}),
)
HOW = st.fixed_dictionaries(
    {
        "frames": PX,
        "dwell_s": st.none() | st.floats(1e-9, 60.0),
        "pixel_nm": st.none() | NM,
        "modalities": st.sampled_from([("haadf",), ("eds",), ("haadf", "eds"), ("eds", "haadf")]),
        "reason": st.text(max_size=REASON_CHARACTERS).filter(str.isprintable),
    }
)


# --- values -------------------------------------------------------------------------------------------------


@given(where=WHERE, how=HOW)
def test_a_legal_request_travels_unchanged(where: dict[str, Any], how: dict[str, Any]):
    asked = ScanRequest(**where, **how)
    for encode, decode in (
        (msgspec.msgpack.encode, msgspec.msgpack.decode),
        (msgspec.json.encode, msgspec.json.decode),
    ):
        assert decode(encode(asked), type=ScanRequest) == asked


def test_the_least_request_is_one_frame_of_everything():
    asked = ScanRequest()
    assert (asked.region_nm, asked.region_px, asked.frames, asked.modalities) == (None, None, 1, ("haadf", "eds"))


def test_numpys_numbers_become_plain_ones():
    """A controller computes its region; no encoder takes numpy's scalars."""
    y, x = np.argwhere(np.eye(3, dtype=bool))[1]
    asked = ScanRequest(region_px=(y, x, np.int32(4), np.uint8(5)), of="a", frames=np.int64(3), dwell_s=np.float32(0.5))
    assert asked == ScanRequest(region_px=(1, 1, 4, 5), of="a", frames=3, dwell_s=0.5)
    assert all(type(v) is int for v in (*asked.region_px, asked.frames)) and type(asked.dwell_s) is float  # type: ignore[misc]
    in_nm = ScanRequest(region_nm=tuple(np.arange(1, 5, dtype="f4")))  # type: ignore[arg-type]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(in_nm))["region_nm"] == [1.0, 2.0, 3.0, 4.0]
    grant = ScanGrant(scan_id="a", duration_s=np.float32(0.5), dose_e_nm2=np.float64(2), queued=np.int8(1))  # type: ignore[arg-type]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(grant), type=ScanGrant) == grant


NAN, INF = math.nan, math.inf
ILLEGAL: list[tuple[dict[str, Any], str]] = [
    ({"frames": 0}, "frames must be 1 to"),
    ({"frames": -3}, "frames must be 1 to"),
    ({"frames": 2**31}, "frames must be 1 to"),
    ({"frames": 2**64 - 1}, "frames must be 1 to"),
    ({"region_nm": (0, 0, 0, 5)}, "height and width of region_nm"),
    ({"region_nm": (0, 0, 5, -5)}, "height and width of region_nm"),
    ({"region_nm": (NAN, 0, 5, 5)}, "y and x of region_nm"),
    ({"region_nm": (0, 0, 5, NAN)}, "height and width of region_nm"),
    ({"region_nm": (0, -INF, 5, 5)}, "y and x of region_nm"),
    ({"region_nm": (0, 0, INF, 5)}, "height and width of region_nm"),
    ({"region_nm": (1e300, 0, 5, 5)}, "y and x of region_nm"),
    ({"region_px": (0, 0, 0, 5), "of": "a"}, "height and width of region_px"),
    ({"region_px": (0, 0, 5, 2**63), "of": "a"}, "height and width of region_px"),
    ({"region_px": (-(2**31), 0, 5, 5), "of": "a"}, "y and x of region_px"),
    ({"region_px": (0, 0, 5, 5)}, "give region_px and of"),
    ({"of": "a"}, "give region_px and of"),
    ({"region_px": (0, 0, 5, 5), "of": "../a"}, "scan name"),
    ({"region_nm": (0, 0, 5, 5), "region_px": (0, 0, 5, 5), "of": "a"}, "one choice"),
    ({"modalities": ()}, "needs a modality"),
    ({"modalities": ("haadf", "haadf")}, "each once at most"),
    ({"dwell_s": 0.0}, "dwell_s must be"),
    ({"dwell_s": 2.0e3}, "dwell_s must be"),  # microseconds, taken for seconds
    ({"dwell_s": NAN}, "dwell_s must be"),
    ({"pixel_nm": -1.0}, "pixel_nm must be"),
    ({"pixel_nm": INF}, "pixel_nm must be"),
    ({"reason": "x" * (REASON_CHARACTERS + 1)}, "the reason is one line"),
    ({"reason": "two\nlines"}, "the reason is one line"),
    ({"reason": "\x1b[2J"}, "the reason is one line"),
]


@pytest.mark.parametrize(("given", "why"), ILLEGAL, ids=lambda x: str(x)[:60])
def test_what_no_instrument_could_do_is_one_line(given: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why) as caught:
        ScanRequest(**given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    with pytest.raises(msgspec.ValidationError, match=why):  # nor can it be received
        msgspec.msgpack.decode(msgspec.msgpack.encode(given), type=ScanRequest)


@pytest.mark.parametrize("region", [(), (1, 2, 3), (1, 2, 3, 4, 5)])
def test_a_region_is_four_numbers(region: tuple[int, ...]):
    for what in ({"region_nm": region}, {"region_px": region, "of": "a"}):
        with pytest.raises(ValueError, match=r"is \(y, x, height, width\)"):
            ScanRequest(**what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [{"frames": 1.5}, {"frames": True}, {"frames": "1"}, {"modalities": ["xps"]}, {"modalities": "haadf"}, {"of": 1},
     {"region_px": [0, 0, 1.5, 1], "of": "a"}, {"region_nm": "0,0,1,1"}, {"region_nm": ["0", 0, 1, 1]},
     {"dwell_s": "1"}, {"dwell_s": True}, {"reason": None}, {"dose": 1}, {"modalities": [["haadf"]]}],
    ids=str,
)  # fmt: skip
def test_nothing_of_another_type_is_received(given: dict[str, Any]):
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(given), type=ScanRequest)


@pytest.mark.parametrize(
    "given",
    [{"scan_id": "a b"}, {"duration_s": -1.0}, {"duration_s": NAN}, {"duration_s": INF}, {"dose_e_nm2": -1.0},
     {"dose_e_nm2": NAN}, {"queued": -1}],
    ids=str,
)  # fmt: skip
def test_a_grant_is_a_promise_that_can_be_kept(given: dict[str, Any]):
    with pytest.raises(ValueError, match="must be") as caught:
        ScanGrant(**{"scan_id": "a", "duration_s": 1.0, **given})
    assert "\n" not in str(caught.value)


# --- livestem request ---------------------------------------------------------------------------------------


class Microscope:
    """Stands in for the sockets: notes what is asked, and does what it was told."""

    def __init__(self, answer: ScanGrant | LivestemError) -> None:
        self.answer = answer
        self.asked: list[ScanRequest] = []
        self.where: list[Endpoint] = []
        self.patience: list[float] = []
        self.keys: list[Path | None] = []

    def __call__(self, endpoint: Endpoint, *, name: str, keys: Path | None) -> Microscope:
        assert name == "livestem request"
        self.where.append(endpoint)
        self.keys.append(keys)
        return self

    def __enter__(self) -> Microscope:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def request_scan(self, asked: ScanRequest, timeout_s: float) -> ScanGrant:
        self.asked.append(asked)
        self.patience.append(timeout_s)
        if isinstance(self.answer, LivestemError):
            raise self.answer
        return self.answer


GRANT = ScanGrant(scan_id="scan-7", duration_s=2.625, dose_e_nm2=12345.678, queued=2)


@pytest.fixture
def microscope(monkeypatch: pytest.MonkeyPatch) -> Microscope:
    found = Microscope(GRANT)
    monkeypatch.setattr("livestem.client.instrument.Instrument", found)
    return found


def run(*words: str) -> None:
    app(["request", *words], standalone_mode=False)


def test_every_option_reaches_the_instrument(microscope: Microscope, capsys: pytest.CaptureFixture[str]):
    run("--region-nm", "10,-2.5,50,7e1", "--frames", "5", "--dwell-us", "3", "--pixel-nm", "0.1", "--modalities", "eds",
        "--reason", "a boundary", "--acquisition", "tcp://127.0.0.1:5999", "--wait", "2.5")  # fmt: skip
    assert microscope.asked == [
        ScanRequest(
            region_nm=(10.0, -2.5, 50.0, 70.0), frames=5, dwell_s=3e-6, pixel_nm=0.1, modalities=("eds",),
            reason="a boundary",
        )
    ]  # fmt: skip
    assert [e.endpoint for e in microscope.where] == ["tcp://127.0.0.1:5999"] and microscope.patience == [2.5]
    out = capsys.readouterr().out
    assert out == "granted scan-7: 2.62 s of beam, 1.235e+04 electrons per nm², 2 before it\n"


def test_pixels_of_an_earlier_scan(microscope: Microscope, capsys: pytest.CaptureFixture[str]):
    run("--region-px", "-4,8,16,32", "--of", "scan-1", "--json")
    assert microscope.asked == [ScanRequest(region_px=(-4, 8, 16, 32), of="scan-1")]
    assert json.loads(capsys.readouterr().out) == {
        "scan_id": "scan-7", "duration_s": 2.625, "dose_e_nm2": 12345.678, "queued": 2,
    }  # fmt: skip


def test_keys_reach_the_instrument(microscope: Microscope, tmp_path: Path):
    server = "a" * 40
    run("--keys", str(tmp_path), "--server-key", server)
    assert microscope.keys == [tmp_path] and [e.server_key for e in microscope.where] == [server]


def test_a_dose_that_is_not_known_is_said(microscope: Microscope, capsys: pytest.CaptureFixture[str]):
    microscope.answer = ScanGrant(scan_id="scan-8", duration_s=1.0)
    run()
    assert microscope.asked == [ScanRequest()]
    assert capsys.readouterr().out == "granted scan-8: 1 s of beam, dose not known\n"


@pytest.mark.parametrize("error", [RefusedError("outside the stage"), TransportError("nobody is there")])
def test_a_refusal_is_an_error_of_the_command(microscope: Microscope, error: LivestemError):
    microscope.answer = error
    with pytest.raises(type(error), match=str(error)):
        run()
    assert error.exit_code == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--region-nm", "1,2,3"], "Y,X,HEIGHT,WIDTH"),
        (["--region-nm", "1,2,3,x"], "Y,X,HEIGHT,WIDTH"),
        (["--region-px", "1,2,3,4.5", "--of", "a"], "whole pixels"),
        (["--region-px", "1,2,3,4"], "give region_px and of"),
        (["--region-nm", "1,2,3,4", "--region-px", "1,2,3,4", "--of", "a"], "one choice"),
        (["--region-nm", "nan,2,3,4"], "region_nm must be"),
        (["--frames", "0"], "frames must be"),
        (["--dwell-us", "0"], "dwell_s must be"),
        (["--modalities", "xps"], "haadf and eds"),
        (["--modalities", ","], "needs a modality"),
        (["--wait", "-1"], "--wait takes seconds"),
        (["--acquisition", "nowhere"], "write tcp://HOST:PORT"),
    ],
    ids=str,
)
def test_a_wrong_call_asks_for_nothing(microscope: Microscope, words: list[str], why: str):
    with pytest.raises(UsageError, match=why) as caught:
        run(*words)
    assert microscope.asked == [] and "\n" not in str(caught.value) and caught.value.exit_code == 2
