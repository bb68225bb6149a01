"""What flags become: one line for a mistake, and flags before the configuration file."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from scans import plan, tiles
from test_batch import Field
from test_live import FakeEncoders, running
from written_files import write_eds, write_haadf

from livestem.cli import options
from livestem.domain.errors import UsageError
from livestem.domain.parameters import Processing
from livestem.runtime.features import Collected
from livestem.runtime.live import LiveScorer
from livestem.runtime.settings import Settings
from livestem.runtime.survey import survey_range
from livestem.stages.chips import cut
from livestem.stages.clahe import equalise
from livestem.stages.grey import percentile_range, to_grey


def asked(**flags):
    return options.processing(**dict.fromkeys(inspect.signature(options.processing).parameters) | flags)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({}, {}),
        ({"grey": "clahe"}, {"grey": "clahe"}),
        ({"grey_range": "-2:40.5"}, {"grey": "fixed", "grey_range": (-2.0, 40.5)}),
        ({"grey": "clahe", "grey_range": "0:255"}, {"grey": "clahe", "grey_range": (0.0, 255.0)}),
        ({"ensembles": "ward=vector, louvain=mean"}, {"ensembles": {"ward": "vector", "louvain": "mean"}}),
        ({"louvain_threshold": "0.5"}, {"louvain_threshold": 0.5}),
        ({"louvain_threshold": "median"}, {"louvain_threshold": "median"}),
        ({"calibrate_region": "STO", "d_nm": 0.3905}, {"calibrate_region": "STO", "d_nm": 0.3905}),
    ],
)
def test_flags_become_what_is_asked_for(flags, wanted):
    assert asked(**flags) == Processing(**wanted)


def test_flags_win_over_the_file_and_a_choice_is_whole(tmp_path):
    path = tmp_path / "service.toml"
    path.write_text('[processing]\ngrey_range = [1, 9]\nlouvain_threshold = 0.25\nensembles = { ward = "vector" }\n')
    found = asked(config=path, grey="percentile", louvain_threshold="mean")
    assert found == Processing(grey="percentile", louvain_threshold="mean", ensembles={"ward": "vector"})
    assert asked(config=path).grey_range == (1, 9)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"grey_range": "12"}, "LOW:HIGH"),
        ({"grey_range": "a:b"}, "LOW:HIGH"),
        ({"grey_range": "9:1"}, "upwards"),
        ({"grey_range": "1:9", "survey": "x"}, "one choice"),
        ({"grey": "survey"}, "needs a grey_range"),
        ({"ensembles": "vector"}, "METHOD=WAY"),
        ({"ensembles": "ward=mean"}, "ward: joint, vector"),
        ({"louvain_threshold": "modus"}, "mode, mean, median"),
        ({"d_nm": 0.39}, "go together"),
    ],
)
def test_a_mistake_is_one_line(flags, says):
    with pytest.raises(UsageError, match=says) as caught:
        asked(**flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("device", "precision", "says"), [("tpu", None, "device is cpu, cuda or cuda:N"), (None, "fp8", "--precision")]
)
def test_a_device_that_is_none_is_one_line(device, precision, says):
    with pytest.raises(UsageError, match=says) as caught:
        options.on_device(Settings(), device, precision)
    assert "\n" not in str(caught.value)


def test_the_device_of_a_flag_wins_over_the_files():
    file = Settings(device="cuda", precision="bf16", vanish_s=5.0)
    assert options.on_device(file, "cpu", None) == Settings(device="cpu", precision="bf16", vanish_s=5.0)
    assert options.on_device(file, None, None) == file


# --- survey images --------------------------------------------------------------------------------------------


def test_a_survey_gives_the_percentiles_of_its_mean_image():
    of = plan((24, 24), frames=2)
    parts = tiles(of)
    image = sum(np.vstack([p.values for p in parts if hasattr(p, "values") and p.frame == frame]) for frame in (0, 1))
    wanted = percentile_range(image / 2)
    assert survey_range(Field(of, parts)) == (wanted.low, wanted.high)


def test_a_survey_may_be_a_file(tmp_path):
    image = np.random.default_rng(0).normal(500, 30, (24, 24)).astype(np.float32)
    wanted = percentile_range(image)
    path = write_haadf(tmp_path / "survey.hspy", image)
    assert asked(survey=path) == Processing(grey="survey", grey_range=(wanted.low, wanted.high))
    assert asked(survey=path, grey="clahe").grey == "clahe"


def test_a_survey_without_a_picture_or_contrast_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no HAADF"):
        asked(survey=write_eds(tmp_path / "eds.hspy", np.ones((8, 8, 64), np.uint16)))
    with pytest.raises(UsageError, match="every pixel of the survey image is 7"):
        asked(survey=write_haadf(tmp_path / "flat.hspy", np.full((8, 8), 7, np.uint16)))


# --- live -----------------------------------------------------------------------------------------------------


def test_clahe_is_asked_for_live_too(tmp_path):
    house, rest, running_scan = running(tmp_path, preset="as_published", grey="clahe")
    encoders = FakeEncoders()
    seen = []
    encode = encoders.fake.encode
    encoders.fake.encode = lambda chips: seen.append(chips) or encode(chips)
    house.take(rest)
    scorer = LiveScorer(encoders, 0)
    assert scorer.look(running_scan).label_map is not None
    scorer.look(running_scan)  # a first look embeds one batch, the second the rest
    data = Collected.of(running_scan.accumulator, final=False)
    plain = to_grey(data.haadf, percentile_range(data.haadf))
    np.testing.assert_array_equal(np.concatenate(seen), cut(equalise(plain), data.grid, 4))
