"""Live scoring: what is known of a running scan, at most every `publish_interval_s`, never in ingest's way.

A look takes anew what has changed (`livestem.runtime.followed`), and describes nothing twice. A network is slow even
so: its embeddings are kept, and at most `BUDGET` chips that have changed are embedded again at a look, longest waiting
first. Its grey range is frozen after the first rows and taken anew when a frame ends; CLAHE, which wants the whole
picture, is taken anew at every look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.parameters import Parameters
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Collected, Encoder, Feature, grey_picture, grey_range
from livestem.runtime.finals import fewshot_map, modalities
from livestem.runtime.followed import Followed
from livestem.runtime.label_map import LabelMap
from livestem.runtime.open_scan import OpenScan
from livestem.stages.chips import cut
from livestem.stages.grey import GreyRange
from livestem.wire import messages as m

BUDGET = 256  # chips a look: eight of the encoder's batches, about a second on a laptop


@dataclass(frozen=True)
class LiveState:
    """One live message and its label map."""

    header: m.Live
    label_map: LabelMap | None
    arrived: float | None = None  # when the oldest tile came that is in no earlier message


@dataclass
class _Kept:
    """What need not be computed anew for one scan."""

    followed: Followed
    grey: GreyRange | None = None
    grey_frame: int = -1
    rows: NDArray[np.float64] | None = None
    changed_at: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # 0: embedded as it is


class LiveScorer:
    """Looks at running scans; one thread at a time.

    Parameters
    ----------
    encoders : Encoders
    first_revision : int
        Revisions rise from here, so that a restarted service's are newer.
    """

    def __init__(self, encoders: Encoders, first_revision: int) -> None:
        self._encoders = encoders
        self._revision = first_revision

    def look(self, scan: OpenScan) -> LiveState | None:
        """Return the newest state of a scan, or None if nothing has changed since the last look.

        What came since the last commit is in the maps before the watermark says so; once it does, the same map goes
        out again with it, if no newer one has.
        """
        scoring = scan.parameters.support is not None
        with scan.lock:
            accumulator = scan.accumulator
            if not any(accumulator.changed.values()):
                return self._again(scan)
            changed = {modality: marks.take() for modality, marks in accumulator.changed.items()}
            arrived, scan.arrived = scan.arrived, None
            scan.looked_from = arrived
            watermark, covered, frames = scan.watermark, accumulator.coverage(), accumulator.frames_seen
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
            watermark=watermark,
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
        scan.last_look = state = LiveState(header, label_map, arrived)
        return state

    def _again(self, scan: OpenScan) -> LiveState | None:
        """Return the last state with a new watermark, if there is one."""
        last = scan.last_look
        if not isinstance(last, LiveState) or scan.watermark == last.header.watermark:
            return None
        self._revision += 1
        header = msgspec.structs.replace(last.header, revision=self._revision, watermark=scan.watermark)
        scan.last_look = state = LiveState(header, last.label_map)
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
                    return "+".join(parts), label_map
        return None

    def _haadf(self, scan: OpenScan, kept: _Kept, data: Collected, frames: int) -> Feature:
        encoder = self._encoders.of(kept.followed.parameters.recipe, scan.arithmetic)
        return kept.followed.lattice(data) if encoder is None else self._embed(kept, data, frames, encoder)

    def _embed(self, kept: _Kept, data: Collected, frames: int, encoder: Encoder) -> Feature:
        """Embed what has waited longest; chips never embedded yet have no data."""
        assert data.haadf is not None and data.grid.haadf_px is not None
        if kept.rows is None:
            kept.rows = np.zeros((data.grid.chips, 0))
            kept.changed_at = np.zeros(data.grid.chips, np.int64)
        dirty, parameters = kept.followed.stale["haadf"], kept.followed.parameters
        kept.changed_at[dirty & (kept.changed_at == 0)] = self._revision
        dirty[:] = False
        if kept.grey is None or frames != kept.grey_frame:
            kept.grey, kept.grey_frame = grey_range(data, parameters), frames
        valid = data.valid("haadf")
        waiting = np.flatnonzero((kept.changed_at > 0) & valid)
        chosen = waiting[np.argsort(kept.changed_at[waiting], kind="stable")][:BUDGET]
        if chosen.size:
            picture = grey_picture(data, parameters, kept.grey)
            found = encoder.encode(cut(picture, data.grid, data.grid.haadf_px)[chosen])
            if not kept.rows.shape[1]:
                kept.rows = np.zeros((data.grid.chips, found.shape[1]))
            kept.rows[chosen] = found
            kept.changed_at[chosen] = 0
        return Feature(kept.rows, valid & kept.rows.any(axis=1))


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
