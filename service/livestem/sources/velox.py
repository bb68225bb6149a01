"""Velox .emd: detector images through RosettaSciIO, photons straight out of the spectrum stream.

Velox stores EDS as a stream of uint16 per detector: a value below 65535 is the energy channel of one photon
at the current pixel, 65535 moves on to the next pixel, row-major, frame after frame; the mark of the very
last pixel may be missing. That is what a scan needs, so the stream is cut into frames and read frame by
frame; a dense cube of a real recording (512 x 512 x 4096 in hundreds of frames) would be terabytes.
RosettaSciIO's decoder is the oracle in the tests.

All detectors of the file are summed. A last frame that the beam did not finish is left out, with a warning.
Elemental maps and single spectra in the file are no data of the scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import SourceError
from livestem.sources.events import FrameEvents, from_photons
from livestem.sources.facts import lookup, positive
from livestem.sources.generic import READER_ERRORS, read_generic, unreadable
from livestem.sources.signals import Picture, Signals, SpectrumImage
from livestem.sources.velox_facts import (
    collection_of,
    detectors_of,
    elements_of,
    energy_of,
    facts_of_statement,
    load_json,
    statement_of,
    take_off_of,
    times_of,
)

_NEXT_PIXEL = 65535
_SCAN_BLOCK = 2**22  # values looked at at once while the stream is cut into frames: 8 MiB


def is_velox(path: Path) -> bool:
    """Tell whether an .emd file is Velox's (and not the NCEM kind).

    Raises
    ------
    SourceError
        If it is no readable HDF5 file: truncated, or something else.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "Version" in file and "velox" in str(load_json(file["Version"]).get("format", "")).lower()
    except READER_ERRORS as error:
        raise unreadable(path, error) from error


def read_velox(path: Path) -> Signals:
    """Read a Velox file.

    Raises
    ------
    SourceError
        If the file is damaged or its photons do not fit its pictures.
    """
    import h5py

    images = read_generic(path, select_type="images", load_SI_image_stack=True)
    try:
        file = h5py.File(path, "r")
        streams = [g for g in file.get("Data/SpectrumStream", {}).values() if "Data" in g]
        statement = statement_of(file, streams)
    except READER_ERRORS as error:
        images.close()
        raise unreadable(path, error) from error

    def close() -> None:
        images.close()
        file.close()

    pictures = tuple(replace(p, collection_mrad=collection_of(statement, p.title)) for p in images.pictures)
    signals = replace(images, pictures=pictures, facts=facts_of_statement(statement, images.facts), close=close)
    try:
        if not streams:
            warning = f"{path.name} holds no spectrum stream (no EDS, or pruned): HAADF only"
            return replace(signals, warnings=(warning,) if pictures else ())
        return _with_photons(path, signals, file, streams, statement)
    except READER_ERRORS as error:
        close()
        raise unreadable(path, error) from error
    except SourceError:
        close()
        raise


class Stream:
    """Photons of one or more detectors, frame by frame out of their streams.

    Parameters
    ----------
    streams : one (N, 1) or (N,) array or HDF5 dataset of uint16 per detector
    shape : (rows, cols)
    channels : int
    where : str
        Whose stream it is, for messages.
    """

    def __init__(self, streams: Sequence[Any], shape: tuple[int, int], channels: int, where: str) -> None:
        self._streams = streams
        self._shape = shape
        self._channels = channels
        self._where = where
        self._cuts, self.unfinished = zip(*(cut_frames(s, shape[0] * shape[1]) for s in streams), strict=True)
        self.frames = min(len(cuts) - 1 for cuts in self._cuts)
        self._last: tuple[int, FrameEvents] | None = None

    def events(self, frame: int, y0: int, y1: int) -> FrameEvents:
        """Return the photons of the rows y0 .. y1 - 1 of one frame."""
        if self._last is None or self._last[0] != frame:
            self._last = (frame, self._decode(frame))
        return self._last[1].rows(y0, y1)

    def _decode(self, frame: int) -> FrameEvents:
        pixels, channels = [], []
        for stream, cuts in zip(self._streams, self._cuts, strict=True):
            values = _values(stream, cuts[frame], cuts[frame + 1])
            is_mark = values == _NEXT_PIXEL
            pixels.append(np.cumsum(is_mark)[~is_mark])
            channels.append(values[~is_mark])
        channel = np.concatenate(channels)
        if channel.size and int(channel.max()) >= self._channels:
            raise SourceError(
                f"{self._where} has a photon in channel {int(channel.max())} of {self._channels} "
                f"in frame {frame}; the file is damaged: save or copy it again"
            )
        return from_photons(np.concatenate(pixels), channel, self._shape, self._channels)


def cut_frames(stream: Any, pixels: int) -> tuple[list[int], int]:
    """Return where the frames of a stream begin, with the end of the last, and the pixels left over.

    Parameters
    ----------
    stream : (N, 1) or (N,) array or HDF5 dataset of uint16
    pixels : pixels of a frame
    """
    cuts, marks, size = [0], 0, stream.shape[0]
    for start in range(0, size, _SCAN_BLOCK):
        places = np.flatnonzero(_values(stream, start, min(size, start + _SCAN_BLOCK)) == _NEXT_PIXEL)
        first = pixels - 1 - marks % pixels  # the mark that ends the frame under way
        cuts.extend((places[first::pixels] + start + 1).tolist())
        marks += places.size
    left = marks % pixels
    if pixels > 1 and left == pixels - 1:  # the mark of the very last pixel may be missing
        cuts.append(size)
        left = 0
    return cuts, left


def _values(stream: Any, start: int, stop: int) -> NDArray[np.uint16]:
    return np.asarray(stream[start:stop]).reshape(-1)


def _with_photons(path: Path, signals: Signals, file: Any, streams: list[Any], statement: Mapping[str, Any]) -> Signals:
    settings = load_json(streams[0]["AcquisitionSettings"])
    channels = int(settings["bincount"])
    data = [g["Data"] for g in streams]
    shape, pixel_nm = _field(path, signals.pictures, data[0], statement)
    stream = Stream(data, shape, channels, f"EDS of {path.name}")
    frames = min([stream.frames, *_stated_frames(file)])
    if frames < 1:
        raise SourceError(f"{path.name} holds no complete frame; record at least one")
    detectors = detectors_of(statement)
    spectrum = SpectrumImage(
        path=path, title="EDS", shape=(frames, *shape, channels), pixel_nm=pixel_nm,
        energy_kev=energy_of(detectors, statement), photons=stream,
        detectors=tuple(str(d["DetectorName"]) for d in detectors),
        take_off_angle_deg=take_off_of(detectors),
        elements=elements_of(file), **times_of(detectors, signals.facts, frames, shape),
    )  # fmt: skip
    warnings = list(signals.warnings)
    if any(stream.unfinished):
        rows = min(u for u in stream.unfinished if u) // shape[1]
        warnings.append(f"{path.name}: the last frame stops in row {rows} and is left out")
    return replace(signals, spectra=(spectrum,), warnings=tuple(warnings))


def _stated_frames(file: Any) -> list[int]:
    groups = [g for g in file.get("Data/SpectrumImage", {}).values() if "SpectrumImageSettings" in g]
    ends = [positive(load_json(g["SpectrumImageSettings"]).get("endFramePosition")) for g in groups]
    return [int(end) for end in ends if end is not None]


def _field(
    path: Path, pictures: Sequence[Picture], stream: Any, statement: Mapping[str, Any]
) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """Shape and pixel of the spectrum image: those of the picture of which the stream holds whole frames."""
    if not pictures:
        raise SourceError(f"{path.name} holds spectra but no image, so it is no scan; save it with its HAADF")
    size = lookup(statement, "BinaryResult.PixelSize") or {}
    stated = (positive(size.get("height")), positive(size.get("width")))
    pixel = (stated[0] * 1e9, stated[1] * 1e9) if stated[0] and stated[1] else None
    for picture in pictures:
        if cut_frames(stream, picture.shape[1] * picture.shape[2])[1] == 0:
            return picture.shape[1:], picture.pixel_nm or pixel
    named = [p for p in pictures if "HAADF" in p.title.upper()] or list(pictures)
    return named[0].shape[1:], named[0].pixel_nm or pixel
