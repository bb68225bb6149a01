"""The benchmark that profiles: whose time a sample is, and that a real process can be read where that is allowed."""

import subprocess
import sys
import time

import pytest
from benchmarks.performance.profile import RATE, UnprofiledError, recorded, table
from benchmarks.performance.samples import Place, by_place

FOLDED = """
thread (0x1): live;run (threading.py:5);Segmenter._look (livestem/runtime/segmenter.py:300);sum (numpy/_methods.py:9) 7
thread (0x1): live;run (threading.py:5);Segmenter._look (livestem/runtime/segmenter.py:311) 3
thread (0x2): ingest;_bootstrap (threading.py:1);wait (zmq/poll.py:1) 2

main (cli.py:1);serve (C:\\livestem\\cli\\serve.py:7) 1
"""


def test_a_sample_is_the_innermost_function_of_ours():
    assert by_place(FOLDED.splitlines()) == {
        Place("live", "runtime/segmenter.py Segmenter._look"): 10,
        Place("ingest", "elsewhere"): 2,
        Place("main", "cli/serve.py serve"): 1,
    }


def test_shares_are_of_all_and_the_rest_is_one_row():
    found = {Place("live", f"stages/x.py f{i}"): 100 - i for i in range(30)}
    told = table(found, cpu_s=25.0, played_s=10.0)
    total = sum(found.values())
    assert told.rows[0] == ("`stages/x.py f0`", f"{10000 / total:.1f} %", 100 / RATE, "live")
    assert told.rows[-1][0] == "10 others"
    assert sum(float(row[2]) for row in told.rows) == pytest.approx(total / RATE)
    assert f"All samples: {total / RATE:.1f} s" in told.notes[1] and "25.0 s" in told.notes[1]


def test_a_process_at_work_is_read(tmp_path):
    busy = "import time\nprint(flush=True)\ndef at_work():\n    while True: sum(range(1000))\nat_work()"
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            with recorded(process.pid, tmp_path / "raw"):
                time.sleep(1.0)  # samples to be had, whatever the machine does
        except UnprofiledError as e:
            pytest.skip(str(e))
        finally:
            process.kill()
    assert "at_work" in (tmp_path / "raw").read_text()


def test_a_process_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(UnprofiledError, match=r"^py-spy "), recorded(2**22 + 1, tmp_path / "raw"):
        pass
