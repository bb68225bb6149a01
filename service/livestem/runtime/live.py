"""Live scoring: what is known of a running scan, at most every `publish_interval_s`, never in ingest's way.

A look takes anew what has changed (`livestem.runtime.followed`), and describes nothing twice. A network is slow even
so: its embeddings are kept, and at a look those are made anew that need it most, as many as time allows
(`livestem.runtime.embeddings`); while some wait, a look is due even if nothing new has come. Its grey range is frozen
after the first rows and taken anew when a frame ends; CLAHE, which wants the whole picture, is taken at every look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.parameters import Parameters
from livestem.runtime.embeddings import NEVER, Embeddings
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Collected, Encoder, Feature, grey_picture, grey_range
from livestem.runtime.finals import fewshot_map, modalities
from livestem.runtime.followed import Followed
from livestem.runtime.label_map import LabelMap
from livestem.runtime.open_scan import OpenScan
from livestem.stages.chips import cut
from livestem.stages.grey import GreyRange
from livestem.wire import messages as m


@dataclass(frozen=True)
class LiveState:
    """One live message and its label map."""

    header: m.Live
    label_map: LabelMap | None
    arrived: float | None = None  # when the oldest tile came that is in no earlier message
    ages: NDArray[np.uint16] | None = None  # (rows, cols), where a network embeds

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Its payload."""
        if self.label_map is None:
            return ()
        return tuple(x for x in (self.label_map.labels, self.label_map.scores, self.ages) if x is not None)


@dataclass
class _Kept:
    """What need not be computed anew for one scan."""

    followed: Followed
    grey: GreyRange | None = None
    grey_frame: int = -1
    embeddings: Embeddings | None = None
    margin: NDArray[np.float32] | None = None  # (N,) of the last map's scores

    def take(self, label_map: LabelMap) -> None:
        """Note how sure a map is of each chip."""
        if label_map.scores is not None and len(label_map.scores) > 1:
            highest = np.sort(label_map.scores, axis=0)
            self.margin = (highest[-1] - highest[-2]).ravel()


class LiveScorer:
    """Looks at running scans; one thread at a time.

    Parameters
    ----------
    encoders : Encoders
    first_revision : int
        Revisions rise from here, so that a restarted service's are newer.
    clock : callable
        Seconds; that of the scans' times of arrival.
    """

    def __init__(self, encoders: Encoders, first_revision: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._encoders, self._clock = encoders, clock
        self._revision = first_revision

    def look(self, scan: OpenScan) -> LiveState | None:
        """Return the newest state of a scan, or None if nothing has changed since the last look.

        What is not stored yet is in the maps before the watermark says so: it does if all of it is stored by the end
        of the look; else, once it is, the same map goes out again with it, if no newer one has.
        """
        scoring = scan.parameters.support is not None
        with scan.lock:
            accumulator = scan.accumulator
            if not any(accumulator.changed.values()) and scan.stale_from is None:
                return self._again(scan)
            changed = {modality: marks.take() for modality, marks in accumulator.changed.items()}
            arrived, scan.arrived = scan.arrived, None
            scan.looked_from = arrived
            tiles, watermark = scan.life.tiles, scan.watermark
            covered, frames = accumulator.coverage(), accumulator.frames_seen
            counts, drift_nm = accumulator.counts, accumulator.drift_nm
            kept = _kept(scan) if scoring else None
            if kept is None:
                data = Collected.of(accumulator, final=False, exposure_only=True)
            else:
                kept.followed.renew(accumulator, changed, over=scan.status is not None)
                data = kept.followed.collected(scan)
        self._revision += 1
        scored = None if kept is None else self._score(scan, kept, data, frames)
        modality, label_map = scored or (None, None)
        header = m.Live(
            scan_id=scan.scan_id,
            revision=self._revision,
            watermark=scan.reached(tiles, watermark),  # also what was stored while we looked
            coverage=covered,
            frame=max(0, frames - 1),
            frames=scan.plan.frames,
            counts=counts,
            chips_done=_done(data),
            chips=data.grid.chips,
            method="fewshot" if scored else None,
            modality=modality,
            classes=label_map.classes if label_map else (),
            drift_nm=drift_nm,
        )
        ages = None
        if label_map is not None and kept is not None and kept.embeddings is not None:
            ages = kept.embeddings.ages(header.frame).reshape(data.grid.shape)
            oldest = int(ages.max(where=ages != NEVER, initial=0))
            header = msgspec.structs.replace(header, oldest_frames=oldest)
        scan.last_look = state = LiveState(header, label_map, arrived, ages)
        return state

    def _again(self, scan: OpenScan) -> LiveState | None:
        """Return the last state with a new watermark, if there is one."""
        last = scan.last_look
        if not isinstance(last, LiveState) or scan.watermark == last.header.watermark:
            return None
        self._revision += 1
        header = msgspec.structs.replace(last.header, revision=self._revision, watermark=scan.watermark)
        scan.last_look = state = LiveState(header, last.label_map, ages=last.ages)
        return state

    def _score(self, scan: OpenScan, kept: _Kept, data: Collected, frames: int) -> tuple[str, LabelMap] | None:
        """Score on the richest set of modalities that allows it; nothing is made of the others."""
        features: dict[str, Feature | None] = {}

        def feature(name: str) -> Feature | None:
            if name not in features:
                found = self._haadf(scan, kept, data, frames) if name == "haadf" else kept.followed.spectral(data, name)
                features[name] = found if found is not None and found.valid.any() else None
            return features[name]

        for parts in _richest_first(data, kept.followed.parameters):
            found = {part: f for part in parts if (f := feature(part)) is not None}
            if len(found) == len(parts) and modalities(found)[-1] == parts:
                label_map = fewshot_map(parts, found, data, kept.followed.parameters)
                if label_map is not None:
                    kept.take(label_map)
                    return "+".join(parts), label_map
        return None

    def _haadf(self, scan: OpenScan, kept: _Kept, data: Collected, frames: int) -> Feature:
        encoder = self._encoders.of(kept.followed.parameters.recipe, scan.arithmetic)
        return kept.followed.lattice(data) if encoder is None else self._embed(scan, kept, data, frames, encoder)

    def _embed(self, scan: OpenScan, kept: _Kept, data: Collected, frames: int, encoder: Encoder) -> Feature:
        """Embed what the budget allows; chips never embedded yet have no data."""
        assert data.haadf is not None and data.grid.haadf_px is not None
        if kept.embeddings is None:
            kept.embeddings = Embeddings(data.grid.chips, self._clock)
        stale, parameters, valid = kept.followed.stale["haadf"], kept.followed.parameters, data.valid("haadf")
        kept.embeddings.mark(stale)
        stale[:] = False
        if kept.grey is None or frames != kept.grey_frame:
            kept.grey, kept.grey_frame = grey_range(data, parameters), frames
        if (kept.embeddings.waiting & valid).any():
            grey = cut(grey_picture(data, parameters, kept.grey), data.grid, data.grid.haadf_px)
            kept.embeddings.renew(grey, encoder, valid, frames - 1, kept.margin)
        scan.stale_from = kept.embeddings.oldest(valid)
        rows = kept.embeddings.rows
        return Feature(rows, valid & rows.any(axis=1))


def _kept(scan: OpenScan) -> _Kept:
    """Return what is kept for a scan; from its first look on."""
    if not isinstance(scan.live, _Kept):
        scan.live = _Kept(Followed(scan))
    assert isinstance(scan.live, _Kept)
    return scan.live


def _richest_first(data: Collected, parameters: Parameters) -> Iterator[tuple[str, ...]]:
    """Yield the sets of modalities that this scan may be scored on: pairs with the HAADF, then single ones."""
    spectral = parameters.recipe.eds_modalities[::-1] if data.spectra is not None else ()
    picture = ("haadf",) if data.haadf is not None else ()
    yield from ((*picture, name) for name in spectral if picture)
    yield from ((name,) for name in (*spectral, *picture))


def _done(data: Collected) -> int:
    """Return the chips whose every pixel was visited in every modality."""
    done = np.ones(data.grid.chips, dtype=bool)
    for share in data.covered.values():
        done &= share >= 1.0
    return int(done.sum())
