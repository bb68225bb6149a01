"""Counting in: exactly once, in any order, in any form."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import dense, messages, plan, tiles

from livestem.client.tilecheck import check_tile
from livestem.domain.errors import SourceError, WireError
from livestem.domain.geometry import plan_grid
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.runtime.accumulator import Accumulator, memory_bytes


def accumulator(of):
    haadf = of.haadf.sampling if of.haadf else None
    eds = of.eds.sampling if of.eds else None
    return Accumulator(of, plan_grid(haadf, eds, chip_px=5))


def filled(of, parts):
    made = accumulator(of)
    for message in list(messages(of, parts))[1:-1]:
        made.apply(message)
    return made


def test_every_photon_and_pixel_is_counted_where_it_belongs():
    of = plan()
    parts = tiles(of)
    made = filled(of, parts)
    cube = np.zeros((24, 24, 1024), int)
    image = np.zeros((24, 24))
    for part in parts:
        where = slice(part.y, part.y + 8)
        if isinstance(part, EdsEvents):
            cube[where] += dense(part).values
        else:
            image[where] += part.values
    assert made.eds.counts == cube.sum()
    for row in range(4):
        for col in range(4):
            chip = cube[5 * row : 5 * row + 5, 5 * col : 5 * col + 5].sum(axis=(0, 1))
            assert np.array_equal(made.eds.spectra[row * 4 + col], chip)
    assert made.eds.spectra.sum() == cube.sum(), "photons outside the grid are kept, too"
    assert np.array_equal(made.haadf.total(), image)
    assert (made.haadf.exposure == 2).all() and (made.eds.exposure == 2).all()
    assert made.coverage().haadf == made.coverage().eds == 1.0
    assert made.missing() == ()


@settings(max_examples=25, deadline=None)
@given(order=st.randoms(use_true_random=False), dtype=st.sampled_from(["<u2", "<i2", "<f4", "<f8"]))
def test_order_repetition_and_form_do_not_matter(order, dtype):
    of = plan(haadf=dtype)
    parts = tiles(of)
    reference = filled(of, parts).input_digest()
    again = [dense(p) if isinstance(p, EdsEvents) and order.random() < 0.5 else p for p in parts]
    made = accumulator(of)
    stream = list(messages(of, again))[1:-1]
    stream += order.sample(stream, 3)
    order.shuffle(stream)
    new = sum(made.apply(message) for message in stream)
    assert new == len(stream) - 3
    assert made.input_digest() == reference


def test_float_frames_are_reduced_in_frame_order():
    of = plan((2, 2), frames=3, haadf="<f4", eds=False)
    values = [np.full((2, 2), v, np.float32) for v in (1e8, 1.0, -1e8)]
    parts = [HaadfTile(frame=i, y=0, x=0, values=v) for i, v in enumerate(values)]
    made = Accumulator(of, plan_grid(of.haadf.sampling, None, chip_px=2))
    for message in reversed(list(messages(of, parts))[1:-1]):
        made.apply(message)
    assert np.array_equal(made.haadf.total(), (values[0].astype(float) + values[1]) + values[2])


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (HaadfTile(frame=0, y=0, x=0, values=np.zeros((8, 24), "u2")), "conflict"),
        (HaadfTile(frame=0, y=4, x=0, values=np.zeros((8, 24), "u2")), "overlap"),
        (HaadfTile(frame=0, y=20, x=0, values=np.zeros((8, 24), "u2")), "outside"),
        (HaadfTile(frame=0, y=0, x=20, values=np.zeros((8, 8), "u2")), "outside"),
        (HaadfTile(frame=2, y=0, x=0, values=np.zeros((8, 24), "u2")), "outside"),
        (HaadfTile(frame=1, y=0, x=0, values=np.zeros((8, 24), "i2")), "payload"),
        (EdsEvents(frame=1, y=0, x=0, counts=np.ones((1, 1), "u1"), channels=np.array([1024], "u2")), "outside"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(part, reason):
    of = plan()
    first = [p for p in tiles(of) if p.frame == 0]
    made = filled(of, first)
    before = made.input_digest(), made.coverage(), made.changed["haadf"].chips.copy()
    message = list(messages(of, [part]))[1]
    with pytest.raises(WireError) as caught:
        made.apply(message)
    assert caught.value.reason == reason
    assert (made.input_digest(), made.coverage()) == before[:2]
    assert np.array_equal(made.changed["haadf"].chips, before[2])


def test_a_modality_of_fewer_frames_has_no_others():
    """One picture of a whole EDS scan is its frame 0."""
    of = plan(frames=3)
    of = msgspec.structs.replace(of, haadf=msgspec.structs.replace(of.haadf, frames=1))
    parts = tiles(of)
    made = filled(of, [p for p in parts if isinstance(p, EdsEvents) or p.frame == 0])
    assert made.coverage().haadf == made.coverage().eds == 1.0 and made.missing() == ()
    late = next(p for p in parts if isinstance(p, HaadfTile) and p.frame == 1)
    with pytest.raises(WireError, match="frame 1 of 1 planned"):
        made.apply(list(messages(of, [late]))[1])
    with pytest.raises(SourceError, match="frame 1 of a scan planned with 1 frames of haadf"):
        check_tile(of, late)


def test_what_is_missing_is_named_by_rows():
    of = plan()
    made = filled(of, [p for p in tiles(of) if not (p.frame == 1 and p.y == 8)])
    assert [(t.modality, t.frame, t.y, t.h) for t in made.missing()] == [("haadf", 1, 8, 8), ("eds", 1, 8, 8)]
    assert made.coverage().haadf == pytest.approx(5 / 6)
    assert made.haadf.mean()[10, 3] > 100, "a row seen once is as bright as one seen twice"


def test_a_tile_dirties_its_chips_only():
    of = plan()
    made = accumulator(of)
    tile = HaadfTile(frame=0, y=5, x=0, values=np.ones((5, 10), "u2"))
    made.apply(list(messages(of, [tile]))[1])
    assert np.flatnonzero(made.changed["haadf"].chips).tolist() == [4, 5]


def test_memory_is_estimated_from_the_plan():
    of = plan((512, 512), frames=10)
    grid = plan_grid(of.haadf.sampling, of.eds.sampling, chip_px=10)
    needed = memory_bytes(of, grid)
    assert 51 * 51 * 1024 * 4 < needed < 100e6
