"""The truth as a value and on disk: what it says of chips, and what it refuses."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid, Sampling, plan_grid
from livestem.domain.truth import ClassFacts, Truth, TruthFacts
from livestem.simulator import load_truth, save_truth

CLASSES = (
    ClassFacts(name="Cr", title="cap", composition={"Cr": 100.0}),
    ClassFacts(
        name="LFO",
        composition={"La": 20.0, "Fe": 20.0, "O": 60.0},
        d_spacing_nm=0.3955,
        d_apparent_nm=(0.3960, 0.3931),
    ),
)


def facts(**changes) -> TruthFacts:
    given = {
        "scan_id": "demo-1",
        "specimen": "0123456789abcdef",
        "seed": 3,
        "frames": 2,
        "pixel_nm": (0.05, 0.05),
        "origin_nm": (1.0, 2.0),
        "classes": CLASSES,
        "drift_nm": ((0.0, 0.0), (0.1, -0.2)),
        "dose_e_nm2": 1e5,
    }
    return TruthFacts(**given | changes)


def truth(shape: tuple[int, int] = (40, 50), seed: int = 0, **changes) -> Truth:
    rng = np.random.default_rng(seed)
    first, summed = rng.integers(-1, 2, (2, *shape)).astype(np.int8)
    return Truth(first, summed, rng.random(shape).astype(np.float32), facts(**changes))


def grid(shape: tuple[int, int], chip_px: int, pixel_nm: float = 0.05) -> Grid:
    return plan_grid(Sampling(shape=shape, pixel_nm=(pixel_nm, pixel_nm)), None, chip_px=chip_px)


# --- chips


@pytest.mark.parametrize("registered", [False, True])
def test_shares_are_counted_pixel_by_pixel_in_the_map_that_the_result_is_judged_by(registered):
    known = truth()
    laid = grid((40, 50), 7)  # leaves 5 rows and 1 column over
    shares = known.shares_of_chips(laid, registered=registered)
    labels, purity = known.class_of_chips(laid, registered=registered)
    assert shares.shape == (5, 7, 2) and labels.dtype == np.int16
    pixels = known.class_of_pixel if registered else known.class_of_sum
    for row, col in np.ndindex(5, 7):
        chip = pixels[7 * row : 7 * row + 7, 7 * col : 7 * col + 7]
        share = [np.count_nonzero(chip == c) / 49 for c in (0, 1)]
        assert shares[row, col].tolist() == pytest.approx(share)
        assert labels[row, col] == int(np.argmax(share)) and purity[row, col] == pytest.approx(max(share))


def test_a_tie_is_the_lower_class_and_an_unknown_chip_is_none():
    field = np.array([[0, 1, -1, -1], [1, 0, -1, -1]], np.int8)
    known = Truth(field, field, np.zeros((2, 4), np.float32), facts())
    labels, purity = known.class_of_chips(grid((2, 4), 2))
    assert labels.tolist() == [[0, -1]] and purity.tolist() == [[0.5, 0.0]]


def test_a_sum_is_the_default_because_frames_are_summed_as_they_come():
    first, summed = np.zeros((4, 4), np.int8), np.ones((4, 4), np.int8)
    known = Truth(first, summed, np.zeros((4, 4), np.float32), facts())
    assert (known.class_of_chips(grid((4, 4), 2))[0] == 1).all()
    assert (known.class_of_chips(grid((4, 4), 2), registered=True)[0] == 0).all()


def test_a_grid_with_an_origin_begins_there():
    known = truth((20, 20))
    laid = Grid(rows=2, cols=3, chip_nm=0.25, chip_px=5, pixel_nm=0.05, origin=(3, 4), haadf_px=5)
    pixels = known.class_of_sum[3:13, 4:19]
    assert known.area(laid) == np.s_[3:13, 4:19]
    assert known.shares_of_chips(laid, registered=False)[1, 2, 0] == np.mean(pixels[5:, 10:] == 0)


def test_the_truth_may_sample_the_field_as_either_modality_does():
    """HAADF of 0.05 nm, EDS of 0.1 nm: chips of 10 and of 5 pixels."""
    fine, coarse = Sampling(shape=(40, 40), pixel_nm=(0.05, 0.05)), Sampling(shape=(20, 20), pixel_nm=(0.1, 0.1))
    laid = plan_grid(fine, coarse, chip_px=10)
    rough = np.random.default_rng(0).integers(0, 2, (20, 20)).astype(np.int8)
    smooth = np.kron(rough, np.ones((2, 2), np.int8))
    one = Truth(rough, rough, np.zeros((20, 20), np.float32), facts(pixel_nm=(0.1, 0.1)))
    other = Truth(smooth, smooth, np.zeros((40, 40), np.float32), facts())
    assert (one.chip_px(laid), other.chip_px(laid)) == (5, 10)
    assert np.array_equal(one.shares_of_chips(laid, registered=True), other.shares_of_chips(laid, registered=True))


def test_a_grid_of_another_field_or_pixel_is_refused():
    with pytest.raises(UsageError, match="larger than the field of 40 x 50 px"):
        truth().class_of_chips(grid((60, 50), 10))
    with pytest.raises(UsageError, match="another pixel size"):
        truth().class_of_chips(grid((40, 50), 10, pixel_nm=0.06))


# --- what a truth may be


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"format": 1}, "format 1"),
        ({"pixel_nm": (0.0, 0.05)}, "pixel_nm"),
        ({"pixel_nm": (float("nan"), 0.05)}, "pixel_nm"),
        ({"classes": ()}, "1 to 127 classes"),
        ({"classes": (CLASSES[0], CLASSES[0])}, "different names"),
        ({"frames": 0, "drift_nm": ()}, "0 frames"),
        ({"drift_nm": ((0.0, 0.0),)}, "1 drifts for 2 frames"),
        ({"drift_nm": ((0.0, 0.0), (float("inf"), 0.0))}, "finite"),
        ({"origin_nm": (float("nan"), 0.0)}, "finite"),
        ({"dose_e_nm2": -1.0}, "dose_e_nm2"),
    ],
)
def test_impossible_facts_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        facts(**wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "a/b"}, "class name"),
        ({"composition": {"Xx": 100.0}}, "unknown element Xx"),
        ({"composition": {"La": 20.0, "O": 60.0}}, "sums to 80"),
        ({"composition": {"La": 120.0, "O": -20.0}}, "LFO"),
        ({"composition": {"La": float("nan")}}, "LFO"),
        ({"d_spacing_nm": 0.0}, "positive"),
        ({"d_apparent_nm": (0.39, float("inf"))}, "positive"),
    ],
)
def test_impossible_facts_of_a_class_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        ClassFacts(**{"name": "LFO"} | wrong)


def test_maps_must_fit_each_other_and_the_classes():
    field, dose = np.zeros((4, 5), np.int8), np.zeros((4, 5), np.float32)
    for maps, says in [
        ((field, field.T, dose), "class_of_sum must be int8 of shape"),
        ((field, field, dose.astype(np.float64)), "dose_e_nm2 must be float32"),
        ((field.astype(np.int16), field, dose), "class_of_pixel must be int8"),
        ((field + np.int8(2), field, dose), "classes 0 to 2"),
        ((field - np.int8(2), field, dose), "classes -2 to 0"),
        ((field[0], field[0], dose[0]), "must be a map"),
        ((field[:0], field[:0], dose[:0]), "must be a map"),
    ]:
        with pytest.raises(ValueError, match=says):
            Truth(*maps, facts())


# --- on disk


def test_a_truth_is_read_back_as_it_was_written(tmp_path):
    written = truth()
    arrays, said = save_truth(written, tmp_path / "scan.truth")
    assert (arrays.name, said.name) == ("scan.truth.npz", "scan.truth.json")
    for path in (tmp_path / "scan.truth", arrays, said):
        back = load_truth(path)
        assert back.facts == written.facts and back.names == ("Cr", "LFO")
        for name in ("class_of_pixel", "class_of_sum", "dose_e_nm2"):
            assert np.array_equal(getattr(back, name), getattr(written, name))


def test_a_person_may_write_one_by_hand(tmp_path):
    """The form in the docstring: no scan, no dose, another kind of integer, and pixels nobody knows."""
    labelled = np.where(np.arange(30)[:, None] < 10, 0, 1).repeat(30, axis=1)
    labelled[20:] = -1
    np.savez(tmp_path / "mine.npz", class_of_pixel=labelled)
    said = {
        "pixel_nm": [0.05, 0.05],
        "classes": [{"name": "LFO", "composition": {"La": 20, "Fe": 20, "O": 60}}, {"name": "vacuum"}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(said))
    found = load_truth(tmp_path / "mine")
    assert np.array_equal(found.class_of_pixel, labelled) and np.array_equal(found.class_of_sum, labelled)
    assert np.isnan(found.dose_e_nm2).all() and found.facts.dose_e_nm2 is None and found.facts.scan_id == ""
    labels, purity = found.class_of_chips(grid((30, 30), 10))
    assert labels[:, 0].tolist() == [0, 1, -1] and purity[:, 0].tolist() == [1, 1, 0]


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def claims(shape: tuple[int, ...]) -> bytes:
    """Return an archive whose array is announced larger than it is."""
    part, archive = io.BytesIO(), io.BytesIO()
    header = {"descr": "|i1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(part, header)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("class_of_pixel.npy", part.getvalue() + b"\0" * 16)
    return archive.getvalue()


FIELD = np.zeros((4, 4), np.int8)
WHOLE = npz(class_of_pixel=FIELD)
HOSTILE = {
    "empty": b"",
    "no archive": b"PK\x03\x04 nothing more",
    "text": b"class_of_pixel",
    "cut off": WHOLE[:-40],
    "damaged": WHOLE[:100] + b"\xff" * 8 + WHOLE[108:],
    "no class_of_pixel": npz(other=FIELD),
    "no array": npz(class_of_pixel=np.array(["a", "b"])),
    "pickled": npz(class_of_pixel=np.array([[{}, None]], dtype=object)),
    "floats": npz(class_of_pixel=FIELD.astype(np.float64)),
    "too many classes": npz(class_of_pixel=np.full((4, 4), 256)),  # which int8 would take for 0
    "unknown class": npz(class_of_pixel=FIELD + 7),
    "three axes": npz(class_of_pixel=np.zeros((2, 2, 2), np.int8)),
    "empty map": npz(class_of_pixel=np.zeros((0, 4), np.int8)),
    "two fields": npz(class_of_pixel=FIELD, class_of_sum=np.zeros((5, 4), np.int8)),
    "a dose of another field": npz(class_of_pixel=FIELD, dose_e_nm2=np.zeros((5, 4))),
    "larger than the file": claims((64, 64)),
    "larger than any memory": claims((10**9, 10**9)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_broken_maps_are_refused_in_one_line(tmp_path, content):
    save_truth(truth(), tmp_path / "some")
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(UsageError, match="cannot read the truth") as refused:
        load_truth(tmp_path / "some")
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1, 2]",
        b"\xff\xfe",
        b'{"pixel_nm": [0.05, 0.05], "classes": []}',
        b'{"pixel_nm": [0.05, 0.05], "classes": [{"name": "a"}], "format": 1}',
        b'{"pixel_nm": [0.05, 0.05], "classes": [{"name": "a"}], "more": 1}',
        b'{"pixel_nm": [0.05, 0.05], "classes": ' + b"[" * 100_000,
        b'{"names": ["Cr"], "format": 1, "pixel_nm": [0.05, 0.05]}',  # an earlier version's
    ],
    ids=range(9),
)
def test_broken_facts_are_refused_in_one_line(tmp_path, content):
    save_truth(truth(), tmp_path / "some")
    (tmp_path / "some.json").write_bytes(content)
    with pytest.raises(UsageError, match="cannot read the truth"):
        load_truth(tmp_path / "some")


def test_a_missing_truth_or_a_folder_that_takes_none_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the truth .*none.json"):
        load_truth(tmp_path / "none")
    (tmp_path / "half.json").write_text('{"pixel_nm": [1, 1], "classes": [{"name": "a"}]}')
    with pytest.raises(UsageError, match=r"half.npz: No such file"):
        load_truth(tmp_path / "half")
    with pytest.raises(UsageError, match="cannot write the truth"):
        save_truth(truth(), tmp_path / "no" / "folder")
