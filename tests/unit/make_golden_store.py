"""Write the golden store of today's format, if it is not there yet: ``python tests/unit/make_golden_store.py``.

A golden store, once committed, is what somebody's disk holds: it is never made again. It is zipped, because pages of
SQLite are mostly empty. In it: session ``s1`` with scan ``whole``, which is complete, and scan ``open``, of which two
tiles of its eight were committed before its service was killed.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from scans import messages, plan, tiles

from livestem.domain.limits import Limits
from livestem.domain.parameters import Processing
from livestem.domain.scan import ScanPlan
from livestem.protocol.publisher import Publisher
from livestem.runtime.conclude import conclude, final_messages
from livestem.runtime.decision import Decisions
from livestem.runtime.encoders import Encoders
from livestem.runtime.ingest import Ingest
from livestem.runtime.journal import FORMAT as JOURNAL_FORMAT
from livestem.runtime.metrics import Metrics
from livestem.runtime.results import result_json, write_result
from livestem.runtime.store import FORMAT, Store

GOLDEN = Path(__file__).parent / "golden"
ASKED = Processing(elements=("Fe", "Ti"), chip_px=4, clusters=2)
TAKEN = 3  # messages of the open scan that were committed: its start and two tiles


def archive(store: int, journal: int) -> Path:
    """Return where the golden store of these formats is kept."""
    return GOLDEN / f"store-{store}-journal-{journal}.zip"


def small() -> ScanPlan:
    """Return the plan of both scans: 12 x 12 pixels, two frames in bands of six rows."""
    return plan(shape=(12, 12))


def fill(root: Path) -> str:
    """Fill a new store; return the input digest of its whole scan."""
    done = []
    with Store(root) as store:
        limits = Limits(free_disk_bytes=0)
        ingest = Ingest(store, Decisions(ASKED, Encoders(), root), limits, Metrics(), lambda *job: done.append(job))
        for message in messages(small(), tiles(small(), rows=6), "whole"):
            ingest.apply(message)
        ((scan, status),) = done
        result = conclude(scan, status, Encoders())
        write_result(store.folder("s1", "whole"), result)
        finals = Publisher("s1", "res", 1, lambda: 0, keep=lambda kept: store.keep_results("s1", 1, kept))
        finals.publish_all(final_messages(result))
        for message in list(messages(small(), tiles(small(), seed=1, rows=6), "open"))[:TAKEN]:
            ingest.apply(message)
        ingest.commit("s1", 7, TAKEN)
        ingest.close()
    return str(result_json(result)["input_digest"])


def main() -> int:
    """Add today's, if it is missing."""
    path = archive(FORMAT, JOURNAL_FORMAT)
    if path.exists():
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "store"
        fill(root)
        for big in [*root.rglob("*.hspy"), *root.rglob("*.npz"), root / "catalog.lock"]:
            big.unlink()
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as kept:
            for file in sorted(p for p in root.rglob("*") if p.is_file()):
                kept.write(file, file.relative_to(root))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
