"""The chip database of GraphEM: an HDF5 file with one group for each chip, which its scripts read.

Rules
-----
* A group is called ``R{row}C{col}``, rows and columns from 0 at the top left. It has exactly these datasets, all of one
  dimension, because the scripts read the first group's names from every group, with ``[:]``:

  =====================  =======  ==================================================================================
  ``image data``         uint8    the chip as the encoder saw it, p x p x 3 in rows, columns, (R, G, B), flattened
  ``image encoding data``  float32  512 numbers of VGG16
  ``eds spectra``        float64  counts of each channel above 0.2 keV, per visit of the fully scanned field
  ``atom percent data``  float64  atomic percent of each element
  =====================  =======  ==================================================================================

* The values are those that the result's own label maps were made from; on the same device and libraries to the last
  bit.
* The scripts take every name at the root for a chip, so what else is known stands in the root's attributes.
* A chip without data in one of these is left out: the scripts know no missing values, and a zero would be one.
  GraphEM's Louvain script numbers chips by place and expects a full grid; its Ward script does not.

References
----------
.. [1] github.com/pnnl/GraphEM, ``utils/data.py``, ``utils/io.py``: what writes and reads the database.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import LivestemError, StoreError, UsageError
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Encoder, eds_features, haadf_feature
from livestem.runtime.quantification import build_quantifier
from livestem.runtime.recount import Recount, recount
from livestem.stages.lines import SOFTEST_KEV

FORMAT = "GraphEM chip database"
IMAGE, ENCODING, SPECTRA, ATOMS = "image data", "image encoding data", "eds spectra", "atom percent data"


@dataclass(frozen=True, kw_only=True)
class ChipDatabase:
    """What GraphEM's scripts know of a scan.

    Attributes
    ----------
    names : N chip names, row-major
    arrays : dataset -> (N, ...) values
    left_out : names of chips without data
    about : what else is known, for the root's attributes
    """

    names: tuple[str, ...]
    arrays: dict[str, NDArray[Any]]
    left_out: tuple[str, ...]
    about: dict[str, Any]


def chip_database(path: Path, encoders: Encoders) -> ChipDatabase:
    """Collect the chip database of a result.

    Parameters
    ----------
    path : Path
        Result folder, or the ``result.json`` in it.
    encoders : Encoders
        Gives the encoder that the result was made with.

    Raises
    ------
    UsageError
        If there is no such result or it is of another kind: without HAADF or EDS, or embedded otherwise.
    LivestemError
        If the weights are missing or others, or no chip has all data.
    """
    from threadpoolctl import threadpool_limits

    made = recount(path)
    _check_kind(made, path)
    encoder = encoders.of(made.parameters.recipe)
    assert encoder is not None
    if (encoder.digest, encoder.precision) != (made.encoder, made.precision):
        raise LivestemError(
            f"the result was made with VGG16 weights {made.encoder[:12]} in {made.precision}, and here are "
            f"{encoder.digest[:12]} in {encoder.precision}; make the result again with livestem batch"
        )
    with threadpool_limits(limits=1):  # as finals: a sum's order decides its last bits
        return _collected(made, encoder)


def write_chips(database: ChipDatabase, out: Path) -> None:
    """Write a chip database; it appears whole or not at all.

    Raises
    ------
    UsageError
        If something else than an earlier database is in the way.
    StoreError
        If it cannot be written.
    """
    import h5py

    refuse_foreign(out)
    partial = out.with_name(f".{out.name}.partial")
    try:
        with h5py.File(partial, "w") as file:
            file.attrs.update(database.about)
            for i, name in enumerate(database.names):
                group = file.create_group(name)
                for dataset, rows in database.arrays.items():
                    group.create_dataset(dataset, data=rows[i])
        os.replace(partial, out)
    except OSError as e:
        raise StoreError(f"{out} cannot be written: {e.strerror or e}") from e
    finally:
        partial.unlink(missing_ok=True)


def refuse_foreign(out: Path) -> None:
    """Raise `UsageError` unless a database can be written to `out` without destroying anything else."""
    import h5py

    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}; make it, or choose another --out")
    if not out.exists():
        return
    try:
        with h5py.File(out) as file:
            ours = file.attrs.get("format") == FORMAT
    except OSError:
        ours = False
    if not ours:
        raise UsageError(f"{out} is there already and is no chip database of livestem; choose another --out")


def _check_kind(made: Recount, path: Path) -> None:
    recipe = made.parameters.recipe
    if made.data.plan.haadf is None or made.data.plan.eds is None:
        raise UsageError(
            f"{path} has {' and '.join(made.data.plan.modalities)} only; GraphEM's chips have HAADF and EDS"
        )
    if recipe.encoder != "vgg16" or not {"eds", "atomic"} <= set(recipe.eds_modalities):
        raise UsageError(
            f"{path} was made with preset {made.parameters.preset}, whose features are not GraphEM's; "
            f"run: livestem batch {path} --preset graphem --out NEW, and export NEW"
        )


def _collected(made: Recount, encoder: Encoder) -> ChipDatabase:
    data, grid = made.data, made.data.grid
    assert data.plan.eds is not None and data.total is not None and data.haadf is not None
    settled = msgspec.structs.replace(made.parameters, elements_origin="user")  # they were found when it was made
    quantifier = build_quantifier(data.plan, settled, data.total)
    if quantifier is None:
        raise LivestemError("this result knows no elements, so its chips have no atomic percent; name --elements")
    witness = _Witness(encoder)
    haadf = haadf_feature(data, settled, witness)
    eds = eds_features(data, ("eds", "atomic"), quantifier, final=True)
    if "atomic" not in eds or not haadf.valid.any():
        raise LivestemError("no chip of this result has HAADF and EDS")
    whole = haadf.valid & eds["eds"].valid & eds["atomic"].valid
    if not whole.any():
        raise LivestemError("no chip of this result has HAADF and a composition; there is nothing to export")
    elements = quantifier.composition(quantifier.fit(data.total[None], final=True)).elements  # the columns' order
    images = np.repeat(witness.seen[whole[haadf.valid]][..., None], 3, axis=-1)
    axis = data.plan.eds.energy
    energy = axis.offset_kev + axis.scale_kev * np.arange(axis.channels)
    names = np.array([f"R{row}C{col}" for row in range(grid.rows) for col in range(grid.cols)])
    about = {
        "format": FORMAT, "livestem": version("livestem"), "session": made.saved.session,
        "scan_id": made.saved.scan_id, "digest": made.digest, "input_digest": made.input_digest,
        "encoder": encoder.digest, "preset": settled.preset, "rows": grid.rows, "cols": grid.cols,
        "chip_nm": grid.chip_nm, "chip_px": images.shape[1], "elements": list(elements),
        "first_channel_kev": float(energy[energy >= SOFTEST_KEV][0]), "channel_kev": axis.scale_kev,
        "left_out": names[~whole].tolist(),
    }  # fmt: skip
    return ChipDatabase(
        names=tuple(names[whole].tolist()),
        arrays={
            IMAGE: images.reshape(len(images), -1),
            ENCODING: haadf.rows[whole].astype(np.float32),
            SPECTRA: eds["eds"].rows[whole],
            ATOMS: eds["atomic"].rows[whole],
        },
        left_out=tuple(names[~whole].tolist()),
        about=about,
    )


class _Witness:
    """An encoder that remembers the chips it was given: the pictures that the embeddings are of."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.digest, self.precision, self.device = encoder.digest, encoder.precision, encoder.device
        self.convolutions = encoder.convolutions
        self.seen: NDArray[np.uint8] = np.zeros((0, 1, 1), np.uint8)

    def encode(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed chips."""
        self.seen = chips
        return self._encoder.encode(chips)
