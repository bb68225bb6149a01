"""What a scan has collected so far: each frame's data in the sums, at the frame's shift.

Rules
-----
- Data are counted in exactly once (`livestem.runtime.received`).
- A frame's shift follows from the mean of the frames before it, so frames are registered in their order: a frame once
  all its HAADF is here and every earlier frame has been registered. Until its shift is known its data wait; the first
  frame is not moved and does not wait, and neither does anything where nothing is registered. Float HAADF waits for
  its turn, because its sum depends on the order.
- A live look sees what waits at the shift that drift leads to expect.
- A frame with a hole holds up those after it for as long as the hole may be filled: until more than `MOST_WAITING`
  bytes wait, or the scan is over. It is then registered as it is. Should its data come after that, they are counted in,
  but the frames were not registered as they would have been: `late`, and finals are to be made anew, from the journal.

So the sums at the end of a scan are the same in whatever order, tiles and form its data came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.errors import WireError
from livestem.domain.geometry import Grid
from livestem.domain.parameters import Register
from livestem.domain.scan import ScanPlan
from livestem.runtime.pieces import Photons, Piece, Strip, Whole, landing, pieces
from livestem.runtime.received import content_of
from livestem.runtime.registration import Registrar, Registration
from livestem.runtime.sums import MOST_PHOTONS, Changed, EdsSum, HaadfSum, Sum
from livestem.wire import messages as m
from livestem.wire.codec import Message

MOST_WAITING = 256 * 2**20  # bytes: a minute of frames at 5 counts per pixel, time enough for any repair
_TRANSFORMS = 100  # bytes a pixel: two images, their transforms and what is made of them when a frame is registered
_LARGEST_REGISTERED = 1024 * 1024  # pixels of a frame that take part in it
_PLACED: Whole = (0, 0)


class Accumulator:
    """Everything a scan has collected.

    Parameters
    ----------
    plan : ScanPlan
    grid : Grid
    register : {"frames", "none"}
        Whether frames are registered.

    Attributes
    ----------
    haadf, eds : the sums, of what does not wait
    late : whether data came too late to take part in the registration of their frame
    changed : by modality, what a live look has not seen yet
    """

    def __init__(self, plan: ScanPlan, grid: Grid, register: Register = "none") -> None:
        self.plan, self.grid = plan, grid
        self.frames_seen = 0
        self.frames_stated = 0  # by `scan_end`: of an open-ended scan the only word on how many there were
        self.haadf = None if plan.haadf is None else HaadfSum(plan.haadf.sampling.shape, plan.haadf.dtype)
        self.eds: EdsSum | None = None
        self.late = False
        self._chips: dict[str, NDArray[np.int32]] = {}
        for modality, side in (("haadf", grid.haadf_px), ("eds", grid.eds_px)):
            if side is not None:
                self._chips[modality] = grid.chip_of_pixel(plan.sampling(modality).shape, side)
        if plan.eds is not None:
            channels = plan.eds.energy.channels
            self.eds = EdsSum(plan.eds.sampling.shape, channels, self._chips["eds"], grid.chips)
        self.changed = {k: Changed.none(grid.chips, chips.shape[0]) for k, chips in self._chips.items()}
        self._registrar = Registrar(grid) if register == "frames" and self.haadf is not None else None
        self._in_order = self._registrar is not None or (self.haadf is not None and not self.haadf.exact)
        self._open = 0  # the first frame whose HAADF may still come in order
        self._waiting: dict[int, list[tuple[str, Piece, Whole]]] = {}  # by frame, with where live looks see it
        self._waiting_bytes = 0

    def apply(self, message: Message) -> bool:
        """Count a tile in, and register what can be; False if it was here already; errors as `receive`."""
        is_new = self.receive(message)
        self.advance()
        return is_new

    def receive(self, message: Message) -> bool:
        """Count a tile in; False if it was here already. Then `advance`.

        Raises
        ------
        WireError
            If it cannot be part of this scan; nothing is changed then.
        """
        tile, arrays = message.header, message.arrays
        part: Sum
        if isinstance(tile, m.HaadfRows):
            part, modality, (h, w) = self._haadf(arrays[0]), "haadf", arrays[0].shape
        elif isinstance(tile, m.EdsRows):
            part, modality, (h, w) = self._eds(tile, arrays), "eds", (tile.h, tile.w)
        else:
            raise TypeError(f"{tile!r} is no tile")
        planned = self.plan.frames_of(modality, 0)
        if planned and tile.frame >= planned:
            raise WireError("outside", f"frame {tile.frame} of {planned} planned")
        found = list(pieces(tile, arrays))
        self._check_photons(found)
        content = content_of(type(tile).__name__, (array for piece in found for array in piece.arrays))
        if not part.occupancy.claim(tile.frame, tile.y, tile.x, h, w, content):
            return False
        for piece in found:
            part.receive(tile.frame, piece)
            self._take(modality, tile.frame, piece)
        self.frames_seen = max(self.frames_seen, tile.frame + 1)
        return True

    @property
    def due(self) -> bool:
        """Whether a frame can be registered; or must be, holes and all, because too much waits."""
        if not self._in_order or self.haadf is None:
            return False
        too_much = self._waiting_bytes > MOST_WAITING and self._open < max(self._waiting)
        return self.haadf.occupancy.complete(self._open) or too_much

    def advance(self, lock: AbstractContextManager[Any] | None = None) -> None:
        """Register what is due.

        `lock` is held while anything changes, for those who read meanwhile, and not while a shift is looked for, which
        takes as long as a look. Only the thread that counts tiles in may call this.
        """
        while self.due:
            self._close(nullcontext() if lock is None else lock)

    def finish(self) -> None:
        """Say that nothing more comes: what waits is placed, frames with holes as they are."""
        while self._in_order and self._open < self.frames_seen:
            self._close(nullcontext())

    @property
    def registration(self) -> Registration | None:
        """How the frames so far were registered; None if they are not."""
        if self._registrar is None or self.haadf is None or self.plan.haadf is None:
            return None
        left = {k: part.left for k, part in self._parts().items()}
        return Registration(tuple(self._registrar.shifts), self.plan.haadf.sampling.pixel_nm, left)

    @property
    def drift_nm(self) -> tuple[float, float] | None:
        """Shift of the newest registered frame, (y, x), nm; None while there is none but the first."""
        if self._registrar is None or self.plan.haadf is None or len(self._registrar.shifts) < 2:
            return None
        (y, x), pixel = self._registrar.shifts[-1].estimate_px, self.plan.haadf.sampling.pixel_nm
        return y * pixel[0], x * pixel[1]

    @property
    def whole(self) -> bool:
        """Whether all that is planned has come; never of an open-ended scan."""
        parts = self._parts().items()
        return self.plan.frames is not None and all(p.occupancy.coverage(self._frames(k)) >= 1.0 for k, p in parts)

    def sums(self) -> tuple[HaadfSum | None, EdsSum | None]:
        """Return copies of the sums, with what waits where it is expected to belong."""
        haadf, eds = self.haadf and self.haadf.copy(), self.eds and self.eds.copy()
        for _, piece, shift in self.waiting():
            part: Sum | None = haadf if isinstance(piece, Strip) else eds
            assert part is not None
            part.add(piece, shift)
        return haadf, eds

    def waiting(self) -> Iterator[tuple[str, Piece, Whole]]:
        """Yield the pieces that wait: modality, piece, and the shift at which live looks see it."""
        for entries in self._waiting.values():
            yield from entries

    def exposures(self) -> dict[str, NDArray[np.uint32]]:
        """Return copies of the exposures by modality, as `sums` has them, without the cost of the sums."""
        copies = {k: part.exposure.copy() for k, part in self._parts().items()}
        for modality, piece, shift in self.waiting():
            to, _ = landing(copies[modality].shape, piece, shift)
            copies[modality][to] += 1
        return copies

    @property
    def counts(self) -> int | None:
        """EDS photons counted in; None if the scan has no EDS."""
        return None if self.eds is None else self.eds.counts

    def coverage(self) -> m.Coverage:
        """Return the share of expected pixels that came, by modality."""
        return m.Coverage(**{k: p.occupancy.coverage(self._frames(k)) for k, p in self._parts().items()})

    def missing(self) -> tuple[m.MissingTile, ...]:
        """Return what never came."""
        return tuple(t for k, p in self._parts().items() for t in p.occupancy.missing(k, self._frames(k)))

    def lacking(self, frame: int) -> tuple[m.Rectangle, ...]:
        """Return what of a frame never came, as it is asked for."""
        return tuple(
            m.Rectangle(modality="haadf" if k == "haadf" else "eds", **hole._asdict())
            for k, p in self._parts().items()
            if frame < self._frames(k)
            for hole in p.occupancy.holes(frame)
        )

    def scattered(self) -> int:
        """Count the frames, of each modality, whose holes are told in whole rows."""
        return sum(p.occupancy.scattered(self._frames(k)) for k, p in self._parts().items())

    def lacking_frames(self, frames: int) -> list[int]:
        """Return those of the first `frames` that lack something."""
        parts = [(self._frames(k), p.occupancy) for k, p in self._parts().items()]
        return [f for f in range(frames) if any(f < most and not occupancy.complete(f) for most, occupancy in parts)]

    def holes(self) -> int:
        """Count the rectangles that are missing of frames before each modality's newest."""
        parts = self._parts().items()
        return sum(len(p.occupancy.missing(k, p.occupancy.newest)) for k, p in parts)

    def received(self) -> dict[str, NDArray[np.uint32]]:
        """Return, by modality, in how many of the expected frames each pixel came, where the beam swept it."""
        return {k: p.occupancy.visits(self._frames(k)) for k, p in self._parts().items()}

    def expected_frames(self) -> dict[str, int]:
        """Return the frames expected of each modality; of an open-ended scan those that were begun."""
        return {k: self._frames(k) for k in self._parts()}

    def last_swept(self) -> tuple[int, dict[str, tuple[int, int]]]:
        """Return the last frame that was begun, and by modality to which row of how many it came, if not to the end."""
        last = max(self.frames_seen, self.frames_stated) - 1
        rows = {k: (p.occupancy.swept(last), p.occupancy.shape[0]) for k, p in self._parts().items()}
        return last, {k: (row, of) for k, (row, of) in rows.items() if row is not None}

    def input_digest(self) -> str:
        """Return the SHA-256 of what was measured and where: equal however the data came, registered or not."""
        geometry = {k: self.plan.sampling(k) for k in self.plan.modalities}
        axis = None if self.plan.eds is None else self.plan.eds.energy
        came = {k: (p.occupancy.pixels, p.occupancy.checksum) for k, p in self._parts().items()}
        known = msgspec.json.encode([geometry, axis, self.grid, came, self.counts], order="sorted")
        return hashlib.sha256(known).hexdigest()

    def _take(self, modality: str, frame: int, piece: Piece) -> None:
        """Add a piece to its sum, or let it wait for the shift or the turn of its frame."""
        shift = _PLACED if self._registrar is None else self._registrar.expected(frame).of(modality)
        if self._waits(modality, frame):
            self._waiting.setdefault(frame, []).append((modality, piece, shift))
            self._waiting_bytes += piece.nbytes
        else:
            self.late |= self._in_order and modality == "haadf" and frame < self._open
            self._parts()[modality].add(piece, shift)
        self._mark(modality, piece, shift)

    def _waits(self, modality: str, frame: int) -> bool:
        if not self._in_order or frame < self._open:
            return False
        return frame > 0 if self._registrar is not None else modality == "haadf" and frame > self._open

    def _close(self, lock: AbstractContextManager[Any]) -> None:
        """Register the open frame and place what waits for it."""
        assert self.haadf is not None
        frame, registrar = self._open, self._registrar
        seen = self.haadf.occupancy.seen(frame)
        found = None if registrar is None else registrar.found(self._image(frame), seen, self.haadf)
        with lock:
            self._open += 1
            if registrar is not None and found is not None:
                registrar.take(found, seen=bool(seen.any()))
            self._release(frame)
            if registrar is None:
                self._release(self._open)  # float HAADF of the frame whose turn has come

    def _release(self, frame: int) -> None:
        for modality, piece, expected in self._waiting.pop(frame, []):
            shift = _PLACED if self._registrar is None else self._registrar.expected(frame).of(modality)
            self._waiting_bytes -= piece.nbytes
            self._parts()[modality].add(piece, shift)
            if shift != expected:
                self._mark(modality, piece, expected)
                self._mark(modality, piece, shift)

    def _image(self, frame: int) -> NDArray[Any] | None:
        """Return the HAADF of a waiting frame as far as it came; None if nothing did, or it is the first."""
        assert self.haadf is not None
        strips = [piece for _, piece, _ in self._waiting.get(frame, []) if isinstance(piece, Strip)]
        if not strips:
            return None
        image = np.zeros(self.haadf.exposure.shape, dtype=self.haadf.dtype)
        for strip in strips:
            h, w = strip.shape
            image[strip.y : strip.y + h, strip.x : strip.x + w] = strip.values
        return image

    def _mark(self, modality: str, piece: Piece, shift: Whole) -> None:
        """Mark what a piece changes."""
        chips = self._chips[modality]
        to, _ = landing(chips.shape, piece, shift)
        self.changed[modality].mark(chips[to], to[0])

    def _parts(self) -> dict[str, Sum]:
        parts: dict[str, Sum | None] = {"haadf": self.haadf, "eds": self.eds}
        return {k: p for k, p in parts.items() if p is not None}

    def _frames(self, modality: str) -> int:
        return self.plan.frames_of(modality, max(self.frames_seen, self.frames_stated))

    def _haadf(self, values: NDArray[Any]) -> HaadfSum:
        if self.haadf is None or self.plan.haadf is None:
            raise WireError("outside", "HAADF in a scan that announced none")
        if values.dtype != np.dtype(self.plan.haadf.dtype):
            raise WireError("payload", f"HAADF as {values.dtype}, announced as {self.plan.haadf.dtype}")
        return self.haadf

    def _eds(self, tile: m.EdsRows, arrays: tuple[NDArray[Any], ...]) -> EdsSum:
        if self.eds is None:
            raise WireError("outside", "EDS in a scan that announced none")
        if tile.content == "dense" and arrays[0].shape[2] != self.eds.channels:
            raise WireError("payload", f"spectra of {arrays[0].shape[2]} channels, {self.eds.channels} announced")
        if tile.content == "events" and arrays[1].size and int(arrays[1].max()) >= self.eds.channels:
            raise WireError("outside", f"channel {int(arrays[1].max())} of {self.eds.channels}")
        return self.eds

    def _check_photons(self, found: list[Piece]) -> None:
        photons = sum(piece.photons for piece in found if isinstance(piece, Photons))
        if photons + (self.counts or 0) > MOST_PHOTONS:
            raise WireError("limit", f"{photons:.0f} more photons than the {self.counts} that are here")


def memory_bytes(plan: ScanPlan, grid: Grid, register: Register = "none") -> int:
    """Estimate what the accumulator of a planned scan will take at most, bytes."""
    total = 0
    for modality in plan.modalities:
        rows, cols = plan.sampling(modality).shape
        total += rows * cols * 40  # sums, exposure, maps, occupancy of the frames under way
    if plan.haadf is not None and (register == "frames" or np.dtype(plan.haadf.dtype).kind == "f"):
        rows, cols = plan.haadf.sampling.shape
        total += _TRANSFORMS * min(rows * cols, _LARGEST_REGISTERED)
        total += MOST_WAITING + rows * cols * np.dtype(plan.haadf.dtype).itemsize
    if plan.eds is not None:
        total += 4 * (grid.chips + 2) * plan.eds.energy.channels
    return total
