"""GraphEM's chip database: read as its scripts read it, and clustered with the libraries that they use."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
import test_registration as drifting
from scans import AXIS, plan, tiles
from test_batch import Field

from livestem.cli.__main__ import main
from livestem.domain.errors import LivestemError, StoreError, UsageError
from livestem.domain.parameters import Processing
from livestem.domain.tiles import EdsEvents, HaadfTile
from livestem.runtime import batch
from livestem.runtime.encoders import Encoders
from livestem.runtime.graphem import ATOMS, ENCODING, IMAGE, SPECTRA, chip_database, refuse_foreign, write_chips
from livestem.runtime.settings import Settings
from livestem.sources import open_recording

PX, CHIPS = 6, 12  # side of a chip, chips along either side
LINES = ("Cu_Ka", "Fe_Ka", "O_Ka", "Ti_Ka")  # the eleven of the preset reach beyond the small scan's axis
FIRST = 31  # channel of the scan's axis, the first above 0.2 keV
MODALITIES = {ENCODING: "haadf", SPECTRA: "eds", ATOMS: "atomic"}


class Stub:
    """An encoder of 512 numbers, not negative as those of a network with ReLU: a fixed random projection."""

    digest, precision, device, convolutions = "s" * 64, "fp32", "cpu", "none"

    def encode(self, chips):
        projection = np.random.default_rng(3).normal(size=(chips[0].size, 512)).astype(np.float32)
        return np.maximum(chips.reshape(len(chips), -1).astype(np.float32) @ projection, 0)


class StubEncoders(Encoders):
    def of(self, recipe, begun_with=None):
        return None if recipe.encoder == "lattice" else Stub()


def made(out: Path, parts=None, of=None, **asked) -> Path:
    """Process the scan of two halves with preset graphem and the stub."""
    of = of or plan((PX * CHIPS, PX * CHIPS))
    source = Field(of, tiles(of) if parts is None else parts)
    asked = Processing(**{"preset": "graphem", "lines": LINES, "chip_px": PX, "clusters": 3} | asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoders, "configured", lambda settings: StubEncoders())
        batch.run_batch(source, msgspec.structs.replace(of, processing=asked), Settings(), out)
    return out


def read_as_graphem(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read a database as GraphEM's scripts do: every name at the root is a chip, the first has all datasets' names."""
    with h5py.File(path, "r") as file:
        chips = list(file.keys())
        columns = {name: [file[chip][name][:] for chip in chips] for name in file[chips[0]]}
    order = sorted(range(len(chips)), key=lambda i: tuple(map(int, chips[i][1:].split("C"))))
    return [chips[i] for i in order], {name: np.stack([rows[i] for i in order]) for name, rows in columns.items()}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return made(tmp_path_factory.mktemp("graphem") / "out")


@pytest.fixture(scope="module")
def exported(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("chips") / "chips.h5"
    write_chips(chip_database(result, StubEncoders()), path)
    return read_as_graphem(path)


def by_appearance(labels) -> np.ndarray:
    seen = dict.fromkeys(labels)
    return np.array([list(seen).index(v) for v in labels])


# --- what is in it


def test_every_chip_has_its_four_datasets_of_one_dimension(exported):
    chips, columns = exported
    assert chips == [f"R{r}C{c}" for r in range(CHIPS) for c in range(CHIPS)]
    assert {k: (v.shape[1:], str(v.dtype)) for k, v in columns.items()} == {
        IMAGE: ((PX * PX * 3,), "uint8"), ENCODING: ((512,), "float32"),
        SPECTRA: ((AXIS.channels - FIRST,), "float64"), ATOMS: ((len(LINES),), "float64"),
    }  # fmt: skip


def test_the_images_laid_side_by_side_are_the_haadf_in_grey(exported, result):
    check_images(*exported, result)


def check_images(chips: list[str], columns: dict[str, np.ndarray], result: Path) -> None:
    """Lay the images side by side as GraphEM's pictures do; compare with the result's HAADF in its grey mapping."""
    side = round((columns[IMAGE].shape[1] / 3) ** 0.5)
    with h5py.File(result / "result.hspy") as file:
        haadf = file["Experiments/HAADF/data"][:]
    picture = np.full((*haadf.shape, 3), np.nan)
    for chip, flat in zip(chips, columns[IMAGE], strict=True):
        row, col = map(int, chip[1:].split("C"))
        picture[row * side : (row + 1) * side, col * side : (col + 1) * side] = flat.reshape(side, side, 3)
    mapping = json.loads((result / "result.json").read_text())["parameters"]["grey_mapping"]
    low, high = mapping["low"], mapping["high"]
    there = np.isfinite(picture[..., 0])
    grey = np.clip(255 * (haadf - low) / (high - low), 0, 255)
    assert there.sum() == len(chips) * side**2 and abs(picture[there] - grey[there][:, None]).max() <= 1
    assert (picture[there] == picture[there][:, :1]).all() and picture[there].std() > 10


def test_registered_frames_are_exported_where_registration_put_them(tmp_path):
    of = drifting.plan()
    parts = [p for p in drifting.tiles(of) if isinstance(p, HaadfTile)]
    parts += [p for p in tiles(of) if isinstance(p, EdsEvents)]
    result = made(tmp_path / "out", parts, of, chip_px=6)
    moved = json.loads((result / "result.json").read_text())["registration"]["haadf_px"]
    assert np.abs(moved[-1]).max() >= 4  # pixels
    write_chips(chip_database(result, StubEncoders()), tmp_path / "chips.h5")
    chips, columns = read_as_graphem(tmp_path / "chips.h5")
    assert len(chips) == 64
    check_images(chips, columns, result)


def test_the_encodings_are_those_of_the_images(exported):
    _, columns = exported
    grey = columns[IMAGE].reshape(-1, PX, PX, 3)[..., 0]
    assert np.array_equal(Stub().encode(grey), columns[ENCODING])


def test_the_spectra_are_the_sums_of_each_chips_counts(exported):
    _, columns = exported
    counted = np.zeros((CHIPS * PX, CHIPS * PX, AXIS.channels))
    for tile in tiles(plan((PX * CHIPS, PX * CHIPS))):
        if isinstance(tile, EdsEvents):
            h, w = tile.counts.shape
            y, x = np.divmod(np.repeat(np.arange(h * w), tile.counts.ravel()), w)
            np.add.at(counted, (tile.y + y, tile.x + x, tile.channels), 1)
    chips = counted.reshape(CHIPS, PX, CHIPS, PX, -1).sum(axis=(1, 3)).reshape(CHIPS**2, -1)
    assert np.array_equal(columns[SPECTRA], chips[:, FIRST:])


def test_the_atomic_percent_are_of_the_elements_that_the_file_names(exported, result):
    _, columns = exported
    about = chip_database(result, StubEncoders()).about
    assert about["first_channel_kev"] == pytest.approx(AXIS.offset_kev + FIRST * AXIS.scale_kev)
    elements = about["elements"]
    assert sorted(elements) == sorted(line.partition("_")[0] for line in LINES)
    assert columns[ATOMS].sum(axis=1) == pytest.approx(np.full(CHIPS**2, 100.0))
    halves = columns[ATOMS].reshape(CHIPS, CHIPS, -1)[..., [elements.index("Fe"), elements.index("Ti")]]
    assert (halves[:, : CHIPS // 2, 0] > 80).all() and (halves[:, CHIPS // 2 :, 1] > 80).all()


# --- GraphEM's algorithms on it


def check_graphem(columns: dict[str, np.ndarray], result: Path) -> None:
    """Cluster the exported rows with the libraries of GraphEM's scripts; compare with the result."""
    import community
    import igraph
    import networkx
    from scipy.spatial.distance import pdist, squareform
    from sklearn.cluster import AgglomerativeClustering

    found = json.loads((result / "result.json").read_text())["maps"]
    maps, ward = np.load(result / "labels.npz"), {}
    for dataset, modality in MODALITIES.items():
        clusters = found[f"ward.{modality}"]["clusters"]
        ward[modality] = AgglomerativeClustering(n_clusters=clusters).fit(columns[dataset]).labels_
        assert np.array_equal(by_appearance(ward[modality]), maps[f"ward.{modality}"].ravel()), modality

        similarity = squareform(1 - pdist(columns[dataset], metric="cosine"))
        binary = (similarity >= found[f"louvain.{modality}"]["threshold"]).astype(int)  # the diagonal is 0 here
        graph = networkx.from_numpy_array(binary)
        assert graph.number_of_edges() == found[f"louvain.{modality}"]["edges"]
        ours = community.modularity(dict(enumerate(maps[f"louvain.{modality}"].ravel().tolist())), graph)
        assert ours == pytest.approx(found[f"louvain.{modality}"]["modularity"], abs=1e-9)
        try:
            igraph.set_random_number_generator(random.Random(42))
            theirs = igraph.Graph.Adjacency(binary.tolist(), mode="undirected").community_multilevel().modularity
        finally:
            igraph.set_random_number_generator(random)
        assert ours >= theirs - 1e-3, modality  # one greedy search may end lower than another, by up to 0.01
        reference = community.modularity(community.best_partition(graph, random_state=42), graph)
        assert ours >= reference - 1e-3, modality
    for modality in ("eds", "atomic"):
        pairs = [f"{a} {b}" for a, b in zip(ward["haadf"], ward[modality], strict=True)]
        assert np.array_equal(by_appearance(pairs), by_appearance(maps[f"ward.haadf+{modality}"].ravel()))


def test_ward_and_louvain_of_graphem_on_the_exported_rows_are_ours(exported, result):
    check_graphem(exported[1], result)


@pytest.mark.recordings
def test_ward_and_louvain_of_graphem_are_ours_on_a_real_scan_with_vgg16(recordings, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("LIVESTEM_WEIGHTS", str(recordings / "vgg16_imagenet_features.safetensors"))
    asked = Processing(preset="graphem", lines=("Si_Ka", "O_Ka", "C_Ka", "Cu_Ka"), chip_px=8, clusters=3)
    with open_recording([recordings / "sio2_haadf.hspy", recordings / "sio2_eds.hspy"]) as recording:
        of = msgspec.structs.replace(recording.plan, processing=asked)
        batch.run_batch(recording, of, Settings(), tmp_path / "out")
    write_chips(chip_database(tmp_path / "out", Encoders()), tmp_path / "chips.h5")
    chips, columns = read_as_graphem(tmp_path / "chips.h5")
    assert len(chips) == 256 and columns[ENCODING].shape == (256, 512)
    check_graphem(columns, tmp_path / "out")


# --- what is missing


def test_chips_without_data_are_left_out_and_named(tmp_path):
    parts = [p for p in tiles(plan((PX * CHIPS, PX * CHIPS))) if p.y != 8]
    result = made(tmp_path / "out", parts)
    database = chip_database(result, StubEncoders())
    empty = {f"R1C{c}" for c in range(CHIPS)}  # rows 8 to 15 never came: most of the chips of rows 6 to 11
    assert empty <= set(database.left_out) and len(database.names) + len(database.left_out) == CHIPS**2
    assert set(database.names).isdisjoint(database.left_out)
    write_chips(database, tmp_path / "chips.h5")
    chips, columns = read_as_graphem(tmp_path / "chips.h5")
    assert chips == list(database.names) and all(np.isfinite(rows).all() for rows in columns.values())
    valid = np.load(result / "labels.npz")["ward.haadf+atomic"].ravel() >= 0
    assert len(chips) == valid.sum()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"preset": "default"}, "made with preset default.*--preset graphem"),
        ({"of": plan((36, 36), eds=False), "lines": None}, "has haadf only"),
        ({"of": plan((36, 36), haadf=None)}, "has eds only"),
    ],
)
def test_another_kind_of_result_is_refused(tmp_path, change, says):
    with pytest.raises(UsageError, match=says):
        chip_database(made(tmp_path / "out", **change), StubEncoders())


def test_a_journal_must_be_there_and_be_the_results_own(result, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(result, bare)
    (bare / "journal.sqlite").unlink()
    with pytest.raises(UsageError, match="has no journal.sqlite"):
        chip_database(bare, StubEncoders())
    of = plan((PX * CHIPS, PX * CHIPS))
    other = made(tmp_path / "other", tiles(of, seed=5))
    shutil.copy(other / "journal.sqlite", bare)
    with pytest.raises(UsageError, match="holds other data than the result"):
        chip_database(bare, StubEncoders())
    (bare / "journal.sqlite").write_bytes(b"not a database, whatever its name says")
    with pytest.raises(LivestemError, match="cannot be read as a journal"):
        chip_database(bare, StubEncoders())


def test_other_weights_and_none_are_told(result, monkeypatch):
    class Others(StubEncoders):
        def of(self, recipe, begun_with=None):
            stub = Stub()
            stub.digest = "t" * 64
            return stub

    with pytest.raises(LivestemError, match="made with VGG16 weights s{12} in fp32, and here are t{12} in fp32"):
        chip_database(result, Others())
    with pytest.raises(LivestemError, match="livestem weights fetch"):
        chip_database(result, Encoders())


def test_somebody_elses_file_is_left_alone(result, tmp_path):
    mine = tmp_path / "thesis.h5"
    mine.write_bytes(b"mine")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1, 2]
    for out in (mine, tmp_path / "other.h5"):
        with pytest.raises(UsageError, match="no chip database"):
            refuse_foreign(out)
    with pytest.raises(UsageError, match="there is no folder"):
        refuse_foreign(tmp_path / "none" / "x.h5")
    assert mine.read_bytes() == b"mine"


def test_an_earlier_database_is_replaced_whole_or_not_at_all(result, tmp_path, monkeypatch):
    out, database = tmp_path / "x.h5", chip_database(result, StubEncoders())
    for _ in range(2):
        write_chips(database, out)
    first = out.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("livestem.runtime.graphem.os.replace", full)
    with pytest.raises(StoreError, match="cannot be written: No space left"):
        write_chips(database, out)
    assert out.read_bytes() == first and [p.name for p in tmp_path.iterdir()] == ["x.h5"]


# --- the command


def called(capsys, monkeypatch, *words) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["livestem", "export", *map(str, words)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_the_command_says_what_is_in_the_file(result, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("livestem.runtime.encoders.Encoders.of", StubEncoders.of)
    out = tmp_path / "chips.h5"
    code, said, err = called(capsys, monkeypatch, result, "--format", "graphem", "--out", out)
    assert (code, err) == (0, "") and "144 chips" in said and "512 float32" in said
    code, said, err = called(capsys, monkeypatch, result, "--format", "graphem", "--out", out, "--json")
    found = json.loads(said)
    assert (code, err) == (0, "") and found["file"] == str(out) and found["chips"] == 144 and found["left_out"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none", "--format", "graphem"], "there is no folder none"),
        ([".", "--format", "graphem"], "no result.json"),
        ([".", "--format", "csv"], "unknown format 'csv'"),
        (["."], "--format"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, said, err = called(capsys, monkeypatch, *words)
    assert (code, said) == (2, "") and err.count("\n") == 1 and says in err
