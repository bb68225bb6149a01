"""The picture of a scan: one colour per class everywhere, no data never a colour, everything to scale."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from livestem.domain.errors import UsageError
from livestem.runtime.drawing import bar_length
from livestem.runtime.map_colours import OTHERS, match_colours
from livestem.runtime.picture import MapPanel, draw_overview

NAMES = ("Cr", "LFO", "amorphous", "STO")
CLASSES = np.repeat(np.array([0, 1, 1, 2, 3, 3], np.int16), 6).reshape(6, 6)
FEWSHOT = MapPanel(title="few-shot", labels=CLASSES, names=NAMES)


def clusters(labels, title="Ward"):
    labels = np.asarray(labels, np.int16)
    return MapPanel(title=title, labels=labels, names=tuple(f"R{i}" for i in range(int(labels.max()) + 1)))


def read(path):
    from matplotlib.image import imread

    return np.rint(imread(path)[..., :3] * 255).astype(int)


def count(image, colour):
    return int((np.abs(image - np.rint(np.array(colour) * 255)).max(axis=-1) <= 1).sum())


# --- colours


def test_what_is_missing_is_drawn_and_what_is_whole_is_not(tmp_path):
    share = np.ones((6, 6), np.float32)
    haadf = np.random.default_rng(0).normal(size=(60, 60))
    plain = draw_overview(haadf, 1.0, [FEWSHOT], tmp_path / "a.png", "a")
    whole = draw_overview(haadf, 1.0, [FEWSHOT], tmp_path / "b.png", "a", coverage={"haadf": share, "eds": share})
    assert whole.read_bytes() == plain.read_bytes()
    part = share.copy()
    part[3:], part[5:] = 0.5, 0.0
    image = read(draw_overview(haadf, 1.0, [FEWSHOT], tmp_path / "c.png", "a", coverage={"haadf": share, "eds": part}))
    assert image.shape[1] == pytest.approx(1.5 * read(plain).shape[1], rel=0.02)
    from matplotlib import colormaps

    panel = image[:, image.shape[1] // 3 : 2 * image.shape[1] // 3]
    drawn = {value: count(panel, colormaps["cividis"](value)[:3]) for value in (1.0, 0.5)}
    assert drawn[1.0] > 1.3 * drawn[0.5] > 1000, "three rows of chips are whole, two are half there"


def test_a_class_has_its_colour_in_every_map_even_where_it_has_another_number():
    other = MapPanel(title="other", labels=CLASSES.max() - CLASSES, names=NAMES[::-1])
    first, second = match_colours([FEWSHOT, other])
    assert {NAMES[v]: c for v, c in first.items()} == {NAMES[::-1][v]: c for v, c in second.items()}


def test_a_cluster_takes_the_colour_of_the_class_it_mostly_is():
    permuted = np.array([2, 3, 0, 1], np.int16)[CLASSES]
    permuted[0, 0] = 3  # one chip strays
    first, second = match_colours([FEWSHOT, clusters(permuted)])
    assert [second[v] for v in (2, 3, 0, 1)] == [first[v] for v in range(4)]


def test_two_halves_of_a_class_do_not_look_the_same():
    halves = CLASSES.copy()
    halves[1:3, 4:] = 4  # the smaller part of LFO
    first, second = match_colours([FEWSHOT, clusters(halves)])
    assert second[1] == first[1] and second[4] not in first.values()


def test_a_cluster_without_a_majority_takes_a_colour_of_its_own():
    mixed = np.zeros((6, 6), np.int16)  # LFO and STO hold a third each
    first, second = match_colours([FEWSHOT, clusters(mixed)])
    assert second[0] not in first.values()


def test_equal_cluster_numbers_mean_nothing():
    a, b = clusters(CLASSES), clusters(3 - CLASSES)
    first, second = match_colours([a, b])
    assert [first[v] for v in range(4)] == [second[3 - v] for v in range(4)]


def test_the_fullest_named_map_is_the_reference():
    live = CLASSES.copy()
    live[2:] = -1
    panels = [clusters(CLASSES), MapPanel(title="live", labels=live, names=NAMES), FEWSHOT]
    ward, part, final = match_colours(panels)
    assert ward == final and part == {v: final[v] for v in (0, 1)}


def test_no_data_has_no_colour_and_does_not_vote():
    hollow = CLASSES.copy()
    hollow[0] = -1
    (colours,) = match_colours([MapPanel(title="hollow", labels=hollow, names=NAMES)])
    assert set(colours) == {1, 2, 3}
    assert match_colours([]) == []


def test_the_first_23_regions_differ():
    (colours,) = match_colours([clusters(np.arange(36).reshape(6, 6))])
    assert len({colours[v] for v in range(23)}) == 23 and colours[23] == OTHERS


@pytest.mark.parametrize(
    "matrix",  # linear RGB of full deuteranopia and protanopia: Machado et al., IEEE TVCG 15 (2009) 1291
    [
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    ],
)
def test_the_palette_can_be_told_apart_by_the_colour_blind(matrix):
    (colours,) = match_colours([clusters(np.arange(8).reshape(2, 4))])
    linear = np.array([colours[v] for v in range(8)]) ** 2.2
    seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
    apart = np.sqrt(((seen[:, None] - seen[None]) ** 2).sum(-1)) + 9 * np.eye(8)
    assert apart.min() > 0.15  # of 1.73, black to white


# --- the picture


def test_a_map_is_drawn_with_the_area_of_each_class(tmp_path):
    image = read(draw_overview(None, None, [FEWSHOT], tmp_path / "a.png", "a"))
    (colours,) = match_colours([FEWSHOT])
    area = np.array([count(image, colours[v]) for v in range(4)], float)
    assert area.min() > 5000
    assert area / area.sum() == pytest.approx([1 / 6, 2 / 6, 1 / 6, 2 / 6], abs=0.01)


def test_rows_run_down_and_columns_right(tmp_path):
    labels = np.zeros((6, 6), np.int16)
    labels[0, 3:] = 1  # top right
    panel = MapPanel(title="corner", labels=labels, names=("A", "B"))
    image = read(draw_overview(None, None, [panel], tmp_path / "a.png", "a"))
    colours = match_colours([panel])[0]
    places = [np.argwhere(np.abs(image - np.rint(np.array(colours[v]) * 255)).max(-1) <= 1).mean(0) for v in (0, 1)]
    assert places[1][0] < places[0][0] and places[1][1] > places[0][1]


def test_no_data_is_grey_and_hatched_and_said_so(tmp_path):
    labels = CLASSES.copy()
    labels[3:] = -1
    panel = MapPanel(title="live", labels=labels, names=NAMES)
    holes = read(draw_overview(None, None, [panel], tmp_path / "a.png", "a"))
    full = read(draw_overview(None, None, [FEWSHOT], tmp_path / "b.png", "b"))
    ground, hatch = (0xD9 / 255,) * 3, (0x8C / 255,) * 3
    assert count(holes, ground) > 20000 and count(holes, hatch) > 1000
    assert count(full, ground) < 200
    (colours,) = match_colours([FEWSHOT])
    assert count(holes, colours[3]) == 0  # STO is not there, and nothing pretends that it is


def test_image_and_maps_share_one_scale(tmp_path):
    rng = np.random.default_rng(0)
    haadf = rng.integers(0, 60000, (100, 100)).astype(np.uint16)  # 5 nm; six chips of 0.75 nm leave a rim
    image = read(
        draw_overview(haadf, 0.05, [FEWSHOT], tmp_path / "a.png", "a", chip_nm=0.75),
    )
    colours = match_colours([FEWSHOT])[0]
    drawn = np.zeros(image.shape[:2], bool)
    for v in range(4):
        drawn |= np.abs(image - np.rint(np.array(colours[v]) * 255)).max(-1) <= 1
    columns = np.flatnonzero(drawn.sum(axis=0) > 200)
    dark = np.flatnonzero((image.max(-1) < 160).sum(axis=0) > 200)  # frames of the two panels
    assert dark[-1] - columns[-1] == pytest.approx((dark[-1] - columns[0]) * 0.1, abs=5)  # rim: 0.5 of 5 nm


@pytest.mark.parametrize(
    "haadf",
    [
        np.full((20, 20), 7, np.uint16),
        np.full((20, 20), np.nan),
        np.where(np.eye(20) > 0, np.nan, -1e6),
        np.zeros((20, 20), np.int8),
    ],
)
def test_any_image_is_drawn(tmp_path, haadf):
    assert draw_overview(haadf, None, [], tmp_path / "a.png", "a").stat().st_size > 1000


def test_a_map_without_any_data_and_a_map_of_hundreds_of_regions_are_drawn(tmp_path):
    empty = MapPanel(title="empty", labels=np.full((3, 4), -1, np.int16))
    draw_overview(None, None, [empty], tmp_path / "a.png", "a")
    many = [clusters(np.arange(600).reshape(20, 30), f"map {i}") for i in range(6)]
    draw_overview(None, None, many, tmp_path / "b.png", "a", chip_nm=3.0)


def test_equal_results_give_equal_files(tmp_path):
    files = [draw_overview(None, None, [FEWSHOT], tmp_path / f"{i}.png", "a").read_bytes() for i in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize(("width", "bar"), [(16.0, 2.0), (18.0, 5.0), (1.0, 0.2), (40.0, 10.0), (4400.0, 1000.0)])
def test_the_scale_bar_has_a_round_length(width, bar):
    assert bar_length(width) == pytest.approx(bar)


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_overview(None, None, [], tmp_path / "a.png", "a")
    with pytest.raises(ValueError, match="different grids"):
        draw_overview(None, None, [FEWSHOT, clusters(CLASSES[:3])], tmp_path / "a.png", "a")
    with pytest.raises(ValueError, match="whole numbers"):
        MapPanel(title="x", labels=np.zeros((2, 2)))
    with pytest.raises(UsageError, match="cannot write the picture"):
        draw_overview(None, None, [FEWSHOT], tmp_path / "none" / "a.png", "a")


def test_a_missing_matplotlib_is_said_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r'pip install "livestem\[service\]"'):
        draw_overview(None, None, [FEWSHOT], tmp_path / "a.png", "a")


def test_drawing_needs_no_pyplot_and_importing_no_matplotlib(tmp_path):
    code = (
        "import sys, numpy as np; from livestem.runtime.picture import MapPanel, draw_overview\n"
        "assert 'matplotlib' not in sys.modules\n"
        "draw_overview(np.eye(9), 1.0, [MapPanel(title='m', labels=np.eye(3, dtype=np.int16))],"
        f" {str(tmp_path / 'a.png')!r}, 't')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
