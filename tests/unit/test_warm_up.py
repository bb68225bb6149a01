"""The first scan's finals wait for no library: in a process of its own, because here they are loaded long since."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from livestem.runtime import warm_up

FIRST_SCAN = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import msgspec
from scans import ASKED, plan, tiles
from livestem.runtime.segmenter import Segmenter  # what `livestem serve` has loaded anyway
from livestem.runtime.batch import run_batch
from livestem.runtime.settings import Settings
from livestem.runtime.warm_up import warm_up

class Field:
    scan_id, plan = "field", plan()
    def tiles(self, rows_per_tile=None):
        return iter(tiles(self.plan))

warm_up()
before = set(sys.modules)
run_batch(Field(), msgspec.structs.replace(Field.plan, processing=ASKED), Settings(), Path(sys.argv[2]))
late = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(late - {"livestem"} - sys.stdlib_module_names))
"""
SMALL = {"dateutil", "six"}  # milliseconds


def test_the_first_finals_load_nothing(tmp_path: Path):
    command = [sys.executable, "-c", FIRST_SCAN, str(Path(__file__).parent), str(tmp_path / "out")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert (tmp_path / "out" / "result.hspy").is_file()
    assert set(told.stdout.split()) <= SMALL


def test_products_of_matrices_leave_the_other_cores_to_the_service():
    program = """
from livestem.runtime.warm_up import warm_up
warm_up()
import scipy.linalg
from threadpoolctl import threadpool_info
print(sorted({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}))
"""
    many = {**os.environ, "OPENBLAS_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=many)
    assert told.stdout.strip() == "[1]"


def test_a_full_disk_keeps_no_loop_from_being_compiled(monkeypatch, caplog):
    left = [OSError(errno.ENOSPC, "No space left on device")] * 3

    def grow(rows, pairs):
        if left:
            raise left.pop()
        return np.zeros(len(rows), int)

    monkeypatch.setattr(warm_up, "grow", grow)
    warm_up.compile_loops()
    assert not left and "No space left on device" in caplog.text
