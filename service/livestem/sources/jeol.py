"""JEOL Analysis Station: a map (.pts) as its stream of words, with the scan's image (.img) beside it.

A .pts holds uint16 words; the upper four bits say what the lower twelve are: 0x8 the column and 0x9 the row
of the beam in 1/4096 of the field, 0xA the detector's value there, 0xB the energy channel of one photon, the
rest timing. A row that is above the one before begins a new frame. The words are read frame by frame, so
that a map of any length needs the memory of one frame; header and calibration come through RosettaSciIO,
whose decoder is the oracle in the tests.

The .img beside a .pts (`groups` finds it) is one picture of the whole acquisition, so
it is the HAADF of frame 0 only; a .pts that recorded the detector's values itself has one picture per frame,
which is better. The .map files are elemental maps. A last frame that the beam did not finish is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import SourceError
from livestem.sources.axes import find_roles
from livestem.sources.events import FrameEvents, from_photons
from livestem.sources.facts import eds_of, lookup, positive
from livestem.sources.generic import facts_of, merged_facts, read_entries, read_generic, unreadable
from livestem.sources.signals import Facts, Picture, Signals, SpectrumImage

_UNITS = 4096  # positions and channels have twelve bits
_COLUMN, _ROW, _VALUE, _PHOTON = 0x8, 0x9, 0xA, 0xB
_SCAN_BLOCK = 2**22  # words looked at at once while the stream is cut into frames: 8 MiB


def read_jeol(path: Path) -> Signals:
    """Read a .pts, or an .img alone.

    Raises
    ------
    SourceError
        If the file is damaged, or an elemental map.
    """
    if path.suffix.lower() == ".map":
        raise SourceError(f"{path.name} is an elemental map; name the .pts of the same view")
    if path.suffix.lower() == ".img":
        return read_generic(path)
    return _read_pts(path)


class Words:
    """Photons and detector values of a .pts, frame by frame.

    Parameters
    ----------
    words : (N,) uint16, an array or a `WordFile`
    shape : (rows, cols)
    channels : int
    """

    def __init__(self, words: NDArray[np.uint16] | WordFile, shape: tuple[int, int], channels: int) -> None:
        self._words = words
        self._shape = shape
        self._channels = channels
        self._cuts, self.unfinished_row = cut_frames(words, shape[0])
        self.frames = len(self._cuts) - 1
        self._last: tuple[int, FrameEvents, NDArray[np.uint32]] | None = None

    def events(self, frame: int, y0: int, y1: int) -> FrameEvents:
        """Return the photons of the rows y0 .. y1 - 1 of one frame."""
        return self._decoded(frame)[0].rows(y0, y1)

    def picture(self, frame: int, y0: int, y1: int) -> NDArray[np.uint32]:
        """Return the detector's values of the rows y0 .. y1 - 1 of one frame, summed per pixel."""
        return self._decoded(frame)[1][y0:y1]

    @property
    def has_picture(self) -> bool:
        """Whether the stream holds the detector's values."""
        first = self._words[self._cuts[0] : self._cuts[1]]
        return bool((first >> 12 == _VALUE).any())

    def _decoded(self, frame: int) -> tuple[FrameEvents, NDArray[np.uint32]]:
        if self._last is None or self._last[0] != frame:
            self._last = (frame, *self._decode(self._words[self._cuts[frame] : self._cuts[frame + 1]]))
        return self._last[1], self._last[2]

    def _decode(self, words: NDArray[np.uint16]) -> tuple[FrameEvents, NDArray[np.uint32]]:
        kind, value = words >> 12, words & 0xFFF
        rows, cols = self._shape
        y = _held(value, kind == _ROW) // (_UNITS // rows)
        x = _held(value, kind == _COLUMN) // (_UNITS // cols)
        inside = (y < rows) & (x < cols)  # a field that is no power of two leaves a margin
        pixel = y * cols + x
        photon = inside & (kind == _PHOTON) & (value < self._channels)
        seen = inside & (kind == _VALUE)
        picture = np.bincount(pixel[seen], weights=value[seen], minlength=rows * cols)
        events = from_photons(pixel[photon], value[photon], self._shape, self._channels)
        return events, picture.reshape(rows, cols).astype(np.uint32)


def cut_frames(words: NDArray[np.uint16] | WordFile, rows: int) -> tuple[list[int], int | None]:
    """Return where the complete frames begin, with the end of the last, and how far an unfinished one came.

    Parameters
    ----------
    words : (N,) uint16, an array or a `WordFile`
    rows : rows of a frame
    """
    starts, last, any_row = [0], -1, False
    for start in range(0, len(words), _SCAN_BLOCK):
        block = words[start : start + _SCAN_BLOCK]
        places = np.flatnonzero(block >> 12 == _ROW)
        if not places.size:
            continue
        y = np.concatenate(([last], (block[places] & 0xFFF).astype(np.int64)))
        starts.extend((places[np.flatnonzero(np.diff(y) < 0)] + start).tolist())
        last, any_row = int(y[-1]), True
    reached = last // (_UNITS // rows)
    if any_row and reached >= rows - 1:
        return [*starts, len(words)], None
    return starts, max(0, reached)


def _held(values: NDArray[np.integer], states: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for every word the last value that `states` marks, 0 before the first."""
    places = np.where(states, np.arange(len(values)), -1)
    np.maximum.accumulate(places, out=places)
    return np.where(places < 0, 0, values[places]).astype(np.int64)


def _read_pts(path: Path) -> Signals:
    # One frame tells header and calibration; `lazy` keeps even that sparse.
    entries = read_entries(path, "rsciio.jeol", lazy=True, sum_frames=False, frame_list=[0], only_valid_data=False)
    if not entries:
        raise SourceError(f"{path.name} is no JEOL map; it may be incomplete: save or copy it again")
    entry = entries[0]
    roles = find_roles(entry["axes"], entry["data"].shape, path.name)
    if roles is None or roles.energy is None:
        raise SourceError(f"{path.name} holds no spectrum image")
    header = lookup(entry, "original_metadata.PTTD Data.AnalyzableMap MeasData") or {}
    cols, rows = (int(n) for n in str(lookup(header, "Meas Cond.Pixels")).split("x"))
    channels = int(entry["data"].shape[-1])
    file = WordFile(path)
    words = Words(file, (rows, cols), channels)
    if words.frames < 1:
        file.close()
        raise SourceError(f"{path.name} holds no complete frame; record at least one")
    eds = {**eds_of(entry["metadata"]), "live_time_s": positive(lookup(header, "Doc.LiveTime"))}
    spectrum = SpectrumImage(
        path=path, title="EDS", shape=(words.frames, rows, cols, channels), pixel_nm=roles.pixel_nm,
        energy_kev=roles.energy_kev, photons=words, **eds,
    )  # fmt: skip
    left = words.unfinished_row
    return Signals(
        pictures=_own_picture(path, words, spectrum),
        spectra=(spectrum,),
        facts=_facts(entry["metadata"], header),
        warnings=() if left is None else (f"{path.name}: the last frame stops in row {left} and is left out",),
        close=file.close,
    )


def _own_picture(path: Path, words: Words, spectrum: SpectrumImage) -> tuple[Picture, ...]:
    if not words.has_picture:
        return ()
    picture = Picture(
        path=path, number=1, title="STEM image", shape=spectrum.shape[:3], dtype=np.dtype(np.uint32),
        pixel_nm=spectrum.pixel_nm, rows=words.picture,
    )  # fmt: skip
    return (picture,)


def _facts(metadata: Mapping[str, Any], header: Mapping[str, Any]) -> Facts:
    dwell_ms = positive(lookup(header, "Doc.DwellTime(msec)"))
    facts = merged_facts([facts_of(metadata)])
    return replace(facts, dwell_s=None if dwell_ms is None else dwell_ms / 1e3)


class WordFile:
    """The words of a .pts on disk, read in slices; the file's head says where they begin.

    Raises
    ------
    SourceError
        If the file ends before its data.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
            head = np.frombuffer(self._file.read(36), dtype="<u4")
            self._begin = int(head[7])
            self._size = (path.stat().st_size - self._begin) // 2
            if self._size < 1:
                raise ValueError("it ends before its data")
        except (OSError, ValueError, IndexError) as error:
            raise unreadable(path, error) from error
        self.close = self._file.close

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> NDArray[np.uint16]:
        start, stop, _ = part.indices(self._size)
        self._file.seek(self._begin + 2 * start)
        return np.frombuffer(self._file.read(2 * max(0, stop - start)), dtype="<u2")
