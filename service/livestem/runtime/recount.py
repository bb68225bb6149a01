"""A result's data once more: its journal counted in again, and proved to be what the result was made from.

Grid and parameters are the result's own, so nothing is decided anew. The proof is the input digest: if the journal
gives another one than ``result.json`` states, the two do not belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from livestem.domain.errors import UsageError
from livestem.domain.geometry import Grid
from livestem.domain.parameters import Parameters, Register
from livestem.runtime.accumulator import Accumulator
from livestem.runtime.features import Collected
from livestem.runtime.journal import JOURNAL, JournalRecording
from livestem.runtime.saved import SavedResult, read_result, result_folder


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of ``result.json`` that say what a result was made from, and how."""

    digest: str
    input_digest: str
    grid: Grid
    parameters: dict[str, Any]
    numerics: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Recount:
    """A result and the data that it was made from.

    Attributes
    ----------
    saved : the result
    digest, input_digest : of the result
    encoder, precision : digest of the encoder that embedded its HAADF, or ``lattice``; of its arithmetic
    data, parameters : what its features follow from
    """

    saved: SavedResult
    digest: str
    input_digest: str
    encoder: str
    precision: str
    data: Collected
    parameters: Parameters


def recount(path: Path) -> Recount:
    """Count the journal of a result in again.

    Parameters
    ----------
    path : Path
        Result folder, or the ``result.json`` in it.

    Raises
    ------
    UsageError
        If there is no result or no journal, or they do not belong together.
    SourceError
        If the journal is damaged.
    """
    folder = result_folder(path)
    saved = read_result(folder)
    made, parameters = _made(folder / "result.json")
    journal = folder / JOURNAL
    if not journal.is_file():
        raise UsageError(f"{folder} has no {JOURNAL}, the data that its result was made from; copy it there")
    with JournalRecording(journal) as recording:
        accumulator = count_in(recording, made.grid, parameters.register)
    if accumulator.input_digest() != made.input_digest:
        raise UsageError(f"{journal} holds other data than the result in {folder} was made from")
    return Recount(
        saved=saved,
        digest=made.digest,
        input_digest=made.input_digest,
        encoder=str(made.numerics.get("encoder", "")),
        precision=str(made.numerics.get("precision", "")),
        data=Collected.of(accumulator, final=True),
        parameters=parameters,
    )


def count_in(journal: JournalRecording, grid: Grid, register: Register) -> Accumulator:
    """Count a journal in, frame by frame: the sums that a scan ends with, in whatever order its data came.

    Parameters
    ----------
    journal : JournalRecording
    grid : Grid
    register : Register
        How frames were registered.
    """
    accumulator = Accumulator(journal.plan, grid, register)
    for message in journal.messages():
        accumulator.apply(message)
    accumulator.finish()
    return accumulator


def _made(path: Path) -> tuple[_Made, Parameters]:
    try:
        made = msgspec.json.decode(path.read_bytes(), type=_Made)
        known = {k: v for k, v in made.parameters.items() if k in Parameters.__struct_fields__}  # others are derived
        return made, msgspec.convert(known, Parameters)
    except (OSError, ValueError) as e:
        raise UsageError(f"{path} is not a result of this livestem: {e}") from e
