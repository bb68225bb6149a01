"""The tables of docs/reliability.md: made from results, none of them edited, none of them telling of a loss."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from benchmarks.reliability import page
from benchmarks.reliability.cases import Blow, Case, Outcome
from benchmarks.reliability.drawn import Tally
from benchmarks.reliability.kills import Kill
from benchmarks.reliability.kills import Outcome as Killed
from benchmarks.reliability.link import CALM
from benchmarks.reliability.matrix import Case as Cell
from benchmarks.reliability.matrix import Outcome as Cold
from benchmarks.reliability.matrix import every_case, some_cases
from benchmarks.reliability.proxy import BLOWS
from benchmarks.reliability.soak import Sample, Soak

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def json_of(**found: object) -> dict[str, object]:
    return msgspec.json.decode(msgspec.json.encode({"command": "c", "took_s": 60.0, "machine": "one", **found}))  # type: ignore[no-any-return]


def test_cases_are_counted_by_fault():
    tally = Tally()
    cut = Case(1, (3,), True, CALM, CALM, (Blow("cut", 1.0, 1.0),))
    tally.add(cut, Outcome(whole=1, told=0, unheard=0, silent=()))
    tally.add(cut, Outcome(whole=0, told=1, unheard=2, silent=("scan0: a recording lacks (1,)",)))
    table = page.cases(json_of(all=tally.all, by_fault=tally.by_fault))
    assert "| in all | 2 | 1 | 1 | 2 | 1 |" in table and "| cut | 2 | 1 | 1 | 2 | 1 |" in table


def test_a_loss_is_told_in_every_table():
    bad = Cold(Cell("drop", "cut", "service's XPUB", "single frame"), "complete", False, 0, ("another digest",), 1.0)
    assert "| drop | virtual microscope | 1 | 0 | 0 | 1 | 0 | 0 | 1.0 s |" in page.matrix(json_of(outcomes=[bad]))
    killed = Killed(Kill("service", "finals", 0.5), "complete", False, 0, ("another digest",), 1.0)
    assert "| service | finals | 1 | 0 | 0 | 1 | 1 |" in page.kills(json_of(outcomes=[killed]))
    grown = Soak(100.0, 9, 9, 1, tuple(Sample(float(i), 300.0 + i, 40, 12, 0.05, 0.2) for i in range(100)), ())
    assert "memory grew by" in page.soak(json_of(soak=grown)).splitlines()[-1]


def test_a_soak_that_has_filled_its_memory_may_grow_by_less():
    samples = tuple(Sample(float(i), 300.0 + 0.2 * i, 40, 12, 0.05, 0.2) for i in range(100))  # 15 MiB after warm-up
    assert not Soak(100.0, 180, 180, 36, samples, ()).leaks  # sessions still come into memory
    assert Soak(100.0, 1280, 1280, 256, samples, ()).leaks == ["memory grew by 15 MiB, more than 12"]


def test_a_page_keeps_its_words_and_the_tables_of_what_was_not_run(tmp_path: Path):
    kills, soak = (f"<!-- {part} begin -->\n{{}}\n<!-- {part} end -->\n" for part in ("kills", "soak"))
    words = "before\n" + kills.format("stale") + "between\n" + soak.format("kept")
    (tmp_path / "page.md").write_text(words, encoding="utf-8")
    (tmp_path / "kills.json").write_bytes(msgspec.json.encode(json_of(outcomes=[])))
    assert page.rewrite(tmp_path / "page.md", tmp_path) == ["kills"]
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "stale" not in text and "kept" in text and text.startswith("before\n") and "between" in text


def test_the_matrix_has_every_blow_at_every_place_and_its_small_part_something_of_each():
    cells = list(every_case())
    assert len(cells) == len(set(cells)) == 2 * 9 * (1 + 5 * 4)
    part = some_cases()
    for name in ("microscope", "blow", "place", "frames"):
        assert {getattr(c, name) for c in part} == {getattr(c, name) for c in cells} - {None}
    assert {c.blow for c in part} == set(BLOWS)


@pytest.mark.parametrize("part", ["cases", "matrix", "kills"])
def test_the_page_tells_of_no_silent_loss(part: str):
    begin, end = page.MARKS[part]
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index(begin) : text.index(end)]
    header, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    column = next(i for i, word in enumerate(header) if word.startswith("lost silently"))
    assert rows and all(row[column] == "0" for row in rows)


def test_the_page_is_of_ten_thousand_cases():
    found = re.search(r"(\d+) cases in", PAGE.read_text(encoding="utf-8"))
    assert found is not None and int(found[1]) >= 10_000
