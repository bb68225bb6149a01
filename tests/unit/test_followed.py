"""What live scoring keeps of a scan is what a look at everything would find, whatever came in whatever order."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from scans import messages, plan, tiles
from scipy.ndimage import gaussian_filter
from test_ingest import House

from livestem.domain.geometry import Grid
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Collected, eds_features, haadf_feature
from livestem.runtime.finals import fewshot_map
from livestem.runtime.followed import around
from livestem.runtime.live import LiveScorer
from livestem.runtime.quantification import build_quantifier
from livestem.runtime.sums import Changed
from livestem.stages.chips import windows

SHAPE = (50, 51)  # two and three pixels beyond the grid of six by six chips of eight
STEP = (1, -2)  # pixels by which each frame lies off the one before


def narrow(tile):
    """Return a tile as two rectangles."""
    cut = (tile.values if isinstance(tile, HaadfTile) else tile.counts).shape[1] // 3
    if isinstance(tile, HaadfTile):
        return [replace_tile(tile, tile.values[:, :cut], 0), replace_tile(tile, tile.values[:, cut:], cut)]
    left = np.zeros(tile.counts.shape, bool)
    left[:, :cut] = True
    photons = np.repeat(left.ravel(), tile.counts.ravel())
    return [
        EdsEvents(frame=tile.frame, y=tile.y, x=0, counts=tile.counts[:, :cut], channels=tile.channels[photons]),
        EdsEvents(frame=tile.frame, y=tile.y, x=cut, counts=tile.counts[:, cut:], channels=tile.channels[~photons]),
    ]


def replace_tile(tile, values, x):
    return HaadfTile(frame=tile.frame, y=tile.y, x=x, values=np.ascontiguousarray(values))


def drifting(of, seed):
    """Return tiles of frames that each show the same blobs, moved on."""
    rng = np.random.default_rng(seed)
    height, width = of.haadf.sampling.shape
    field = 3000 + 5000 * gaussian_filter(rng.normal(size=(height + 40, width + 40)), 2)
    found = []
    for tile in tiles(of, seed):
        if isinstance(tile, HaadfTile):
            y, x = 20 + tile.y + STEP[0] * tile.frame, 20 + STEP[1] * tile.frame
            values = field[y : y + tile.values.shape[0], x : x + width].astype(tile.values.dtype)
            tile = replace_tile(tile, values, 0)
        found.append(tile)
    return found


def plain(scan, quantifier=None):
    """Return what a look at everything finds."""
    data = Collected.of(scan.accumulator, final=False)
    quantifier = quantifier or build_quantifier(data.plan, scan.parameters, data.total, final=False)
    features = {"haadf": haadf_feature(data, scan.parameters, None)}
    features |= eds_features(data, ("lines",), quantifier, final=False)
    return data, features


def fully(scan):
    data, features = plain(scan)
    return fewshot_map(("haadf", "lines"), features, data, scan.parameters)


@pytest.mark.parametrize("haadf", ["<u2", "<f4"])
@pytest.mark.parametrize("register", ["frames", "none"])
@pytest.mark.parametrize("seed", range(2))
def test_a_look_at_what_has_changed_finds_what_a_look_at_everything_does(tmp_path, seed, register, haadf):
    rng = np.random.default_rng(seed)
    of = plan(SHAPE, frames=4, haadf=haadf)
    parts = [piece for tile in drifting(of, seed) for piece in narrow(tile)]
    order = np.argsort([tile.frame + rng.uniform(0, 1.5) for tile in parts])  # frames overlap, rows come anyhow
    start, *rest = list(messages(of, [parts[i] for i in order]))[:-1]
    house = House(tmp_path, chip_px=8, register=register)
    house.take([start])
    (scan,) = house.ingest.scans.values()
    scorer = LiveScorer(Encoders(), 0)
    for message in rest:
        house.take([message])
        if rng.random() > 0.4 and message is not rest[-1]:
            continue
        state = scorer.look(scan)
        followed = scan.live.followed
        kept, (data, features) = followed.collected(scan), plain(scan, followed._quantifier)
        assert np.array_equal(kept.haadf, data.haadf) and np.array_equal(kept.haadf_exposure, data.haadf_exposure)
        assert np.array_equal(kept.spectra, data.spectra) and np.array_equal(kept.eds_exposure, data.eds_exposure)
        if features["haadf"].valid.any() and followed._descriptors is not None:
            assert np.array_equal(followed.lattice(kept).rows, features["haadf"].rows)
        if "lines" in features and followed._quantifier is not None:
            assert np.array_equal(followed.spectral(kept, "lines").rows, features["lines"].rows)
    found = fully(scan)
    assert state.header.modality == "haadf+lines"
    assert np.array_equal(state.label_map.labels, found.labels)
    assert np.array_equal(state.label_map.scores, found.scores)
    if register == "frames":
        assert scan.accumulator.registration.shifts[-1].haadf_px != (0, 0)


def test_elements_once_found_stay_and_are_fitted_with_the_newest_operator(tmp_path):
    of = plan(frames=3)
    house = House(tmp_path, elements=None, register="none")
    stream = list(messages(of, tiles(of)))
    house.take(stream[:1])
    (scan,) = house.ingest.scans.values()
    scorer, operators = LiveScorer(Encoders(), 0), []
    for message in stream[1:-1]:
        house.take([message])
        scorer.look(scan)
        quantifier = scan.live.followed._quantifier
        operators += [quantifier] if quantifier is not None and quantifier is not (operators or [None])[-1] else []
    assert {"Fe", "Ti"} <= set(scan.live.followed.parameters.elements)
    assert 2 <= len(operators) < (len(stream) - 2) / 2, "not one for every tile"
    asked = replace(scan.parameters, elements=operators[0].parameters.elements, elements_origin="metadata")
    data = Collected.of(scan.accumulator, final=False)
    newest = build_quantifier(data.plan, asked, data.total, final=False)
    assert np.array_equal(operators[-1].operator.response, newest.operator.response)


def test_a_look_that_fails_forgets_nothing(tmp_path):
    of = plan(SHAPE, frames=1)
    house = House(tmp_path, chip_px=8, register="none")
    stream = list(messages(of, tiles(of)))[:-1]
    house.take(stream[:1])
    (scan,) = house.ingest.scans.values()
    scorer = LiveScorer(Encoders(), 0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("livestem.runtime.followed.lattice_rows", lambda data, chips: 1 / 0)
        house.take(stream[1:3])
        with pytest.raises(ZeroDivisionError):
            scorer.look(scan)
    house.take(stream[3:])
    assert np.array_equal(scorer.look(scan).label_map.labels, fully(scan).labels)


@pytest.mark.parametrize("seed", range(20))
def test_chips_are_stale_whose_window_has_changed(seed):
    rng = np.random.default_rng(seed)
    px, rows, cols = int(rng.integers(1, 7)), 5, 4
    height, width = rows * px + int(rng.integers(0, px)), cols * px + int(rng.integers(0, px))
    grid = Grid(rows=rows, cols=cols, chip_nm=1.0, chip_px=px, pixel_nm=1.0 / px, haadf_px=px)
    chip_of_pixel, before = grid.chip_of_pixel((height, width), px), np.zeros((height, width))
    y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
    to = slice(y, y + int(rng.integers(1, 4))), slice(x, x + int(rng.integers(1, 4)))
    changed, after = Changed.none(grid.chips, height), before.copy()
    after[to] = 1.0
    changed.mark(chip_of_pixel[to], to[0])
    one, other = (windows(image, grid, px, px // 2) for image in (before, after))
    moved = (one != other).any(axis=(1, 2))
    assert around(changed, grid, px)[moved].all()
