"""Live scoring: what is known of a running scan, at most every `publish_interval_s`, never in ingest's way.

The lattice descriptor and the line fit are quick enough to be taken anew at every look. A network is not: its
embeddings are kept, and at most `BUDGET` chips that have changed are embedded again at a look, longest waiting
first. Its grey range is frozen after the first rows and taken anew when a frame ends; CLAHE, which wants the whole
picture, is taken anew at every look.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from livestem.domain.parameters import Parameters
from livestem.runtime.encoders import Encoders
from livestem.runtime.features import Collected, Encoder, Feature, eds_features, grey_picture, grey_range, haadf_feature
from livestem.runtime.finals import fewshot_map, modalities
from livestem.runtime.label_map import LabelMap
from livestem.runtime.open_scan import OpenScan
from livestem.runtime.quantification import Quantifier, build_quantifier
from livestem.stages.chips import coverage, cut
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

    parameters: Parameters
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
        """Return the newest state of a scan, or None if nothing has changed since the last look."""
        with scan.lock:
            accumulator = scan.accumulator
            if not accumulator.dirty.any():
                return None
            dirty = accumulator.dirty[:-1].copy()
            accumulator.dirty[:] = False
            arrived, scan.arrived = scan.arrived, None
            watermark, covered, frames = scan.watermark, accumulator.coverage(), accumulator.frames_seen
            counts, drift_nm = accumulator.counts, accumulator.drift_nm
            scoring = scan.parameters.support is not None
            data = Collected.of(accumulator, final=False, exposure_only=not scoring, borrowed=scan.borrowed)
        self._revision += 1
        scored = self._score(scan, data, dirty, frames) if scoring else None
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
        return LiveState(header, label_map, arrived)

    def _score(
        self, scan: OpenScan, data: Collected, dirty: NDArray[np.bool_], frames: int
    ) -> tuple[str, LabelMap] | None:
        """Score on the richest set of modalities that allows it."""
        kept = scan.live if isinstance(scan.live, _Kept) else _Kept(scan.parameters)
        scan.live = kept
        features: dict[str, Feature] = {}
        if data.haadf is not None:
            encoder = self._encoders.of(kept.parameters.recipe, scan.arithmetic)
            features["haadf"] = (
                haadf_feature(data, kept.parameters, None)
                if encoder is None
                else self._embed(kept, data, dirty, frames, encoder)
            )
        if data.total is not None:
            quantifier = _quantifier(kept, data)
            features |= eds_features(data, kept.parameters.recipe.eds_modalities, quantifier, final=False)
        features = {name: f for name, f in features.items() if f.valid.any()}
        for parts in reversed(modalities(features)):
            found = fewshot_map(parts, features, data, kept.parameters)
            if found is not None:
                return "+".join(parts), found
        return None

    def _embed(self, kept: _Kept, data: Collected, dirty: NDArray[np.bool_], frames: int, encoder: Encoder) -> Feature:
        """Embed what has waited longest; chips never embedded yet have no data."""
        assert data.haadf is not None and data.grid.haadf_px is not None
        if kept.rows is None:
            kept.rows = np.zeros((data.grid.chips, 0))
            kept.changed_at = np.zeros(data.grid.chips, np.int64)
        kept.changed_at[dirty & (kept.changed_at == 0)] = self._revision
        if kept.grey is None or frames != kept.grey_frame:
            kept.grey, kept.grey_frame = grey_range(data, kept.parameters), frames
        valid = data.valid("haadf")
        waiting = np.flatnonzero((kept.changed_at > 0) & valid)
        chosen = waiting[np.argsort(kept.changed_at[waiting], kind="stable")][:BUDGET]
        if chosen.size:
            picture = grey_picture(data, kept.parameters, kept.grey)
            found = encoder.encode(cut(picture, data.grid, data.grid.haadf_px)[chosen])
            if not kept.rows.shape[1]:
                kept.rows = np.zeros((data.grid.chips, found.shape[1]))
            kept.rows[chosen] = found
            kept.changed_at[chosen] = 0
        return Feature(kept.rows, valid & kept.rows.any(axis=1))


def _quantifier(kept: _Kept, data: Collected) -> Quantifier | None:
    """Build the operator on the counts so far; elements once found automatically stay for the scan."""
    assert data.total is not None
    quantifier = build_quantifier(data.plan, kept.parameters, data.total, final=False)
    if quantifier is not None and kept.parameters.elements_origin == "automatic":
        kept.parameters = msgspec.structs.replace(quantifier.parameters, elements_origin="metadata")
    return quantifier


def _done(data: Collected) -> int:
    """Return the chips whose every pixel was visited in every modality."""
    done = np.ones(data.grid.chips, dtype=bool)
    for exposure, side in ((data.haadf_exposure, data.grid.haadf_px), (data.eds_exposure, data.grid.eds_px)):
        if exposure is not None and side is not None:
            done &= coverage(exposure, data.grid, side) >= 1.0
    return int(done.sum())
