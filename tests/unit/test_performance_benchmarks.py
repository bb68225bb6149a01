"""The benchmarks' own arithmetic and words: medians, percentiles, tables, and their places on the page."""

import json
from pathlib import Path

import pytest
from benchmarks.performance.page import rewrite
from benchmarks.performance.table import Table, Timed, percentile, timed

TABLE = Table(
    name="ingest",
    title="Ingest",
    command="python -m benchmarks.performance ingest",
    columns=("what", "ours, MB/s", "ratio"),
    rows=(("dense", 1234.5, 0.6123), ("events", 12.345, None), ("none", 0, "-")),
    notes=("A goal.",),
    runs=5,
    took_s=12.4,
    machine="2 cores",
)


def test_the_median_and_the_spread_are_of_the_runs():
    found = Timed((3.0, 1.0, 2.0, 9.0, 4.0))
    assert found.median == 3.0
    assert found.spread == 1.0  # the quartiles are 2 and 4
    assert Timed((7.0,)).spread == 0.0


def test_a_percentile_is_a_value_that_was_measured():
    values = [float(v) for v in range(1, 101)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([5.0], 0.99) == 5.0


def test_ways_of_doing_a_thing_take_turns_and_warm_up_first():
    done: list[str] = []
    found = timed({"ours": lambda: done.append("ours"), "theirs": lambda: done.append("theirs")}, runs=2, warm=1)
    assert done == ["ours", "theirs"] * 3
    assert [len(f.seconds) for f in found.values()] == [2, 2]


def test_a_table_has_its_command_its_runs_and_its_machine():
    text = TABLE.markdown()
    assert text.startswith("```sh\npython -m benchmarks.performance ingest\n```")
    assert "Medians of 5 runs; 12 s in all; 2 cores." in text
    assert "| what | ours, MB/s | ratio |\n| --- | ---: | ---: |\n| dense | 1234 | 0.612 |" in text
    assert "| events | 12.3 |  |\n| none | 0 | - |" in text
    assert text.endswith("\n\nA goal.")


def test_the_page_gets_the_tables_that_were_made_and_keeps_the_rest(tmp_path: Path):
    page, results = tmp_path / "page.md", tmp_path / "results"
    results.mkdir()
    page.write_text(
        "# Page\n\n<!-- ingest begin -->\nold\n<!-- ingest end -->\n\n<!-- scale begin --><!-- scale end -->\n"
    )
    (results / "ingest.json").write_text(json.dumps({k: getattr(TABLE, k) for k in TABLE.__struct_fields__}))
    assert rewrite(page, results) == ["ingest"]
    text = page.read_text()
    assert TABLE.markdown() in text and "old" not in text and text.endswith("<!-- scale begin --><!-- scale end -->\n")
    assert rewrite(page, results) == ["ingest"] and page.read_text() == text


def test_a_table_without_a_place_is_not_dropped_in_silence(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    (tmp_path / "ingest.json").write_text(json.dumps({k: getattr(TABLE, k) for k in TABLE.__struct_fields__}))
    with pytest.raises(ValueError, match="no place for ingest"):
        rewrite(page, tmp_path)
