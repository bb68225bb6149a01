"""Finals outlive the service that made them: a subscriber that lives through a kill, and those that come afterwards.

The service may hold one session only, so that a session is also let go and taken up again within one start.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Listener, Service, end, wait_for

from livestem.client import Acquisition, Haadf, Sampling, ScanPlan
from livestem.wire import messages as m
from livestem.wire.codec import encode, nest

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them"),
]

PLAN = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(32, 32), pixel_nm=(1.0, 1.0)), dtype="<u2"), frames=1)
PICTURE = np.random.default_rng(0).integers(100, 1000, (32, 32)).astype("<u2")
UNSENT = "stored-but-never-sent"

Lines = list[dict[str, Any]]


@dataclass
class Heard:
    """What each of them has."""

    store: Path
    survivor: Lines  # followed everything, through the kill
    first: Lines  # came after it and asked for the session before anybody had taken it up again
    second: Lines  # came after that
    pruned: Lines  # asked for a session of which something is no longer kept
    words: str  # that it was told


def scan(service: Service, session: str, name: str) -> None:
    with Acquisition(session, service.acquisition, recorded=True) as acquisition:
        acquisition.wait_for_service(20)
        with acquisition.start_scan(PLAN, name) as writer:
            writer.haadf(PICTURE)
        acquisition.wait_acknowledged()
    service.finished(session, name)


def numbers(lines: Lines, session: str) -> list[tuple[int, int]]:
    """Return (epoch, seq) of the finals of a session, as heard."""
    return [(line["epoch"], line["seq"]) for line in lines if "seq" in line and line["session"] == session]


def kept(store: Path, session: str) -> list[tuple[int, int]]:
    """Return (epoch, seq) of the finals of a session, as stored."""
    db = sqlite3.connect(f"{(store / 'catalog.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        return db.execute("SELECT epoch, seq FROM results WHERE session = ? ORDER BY rowid", (session,)).fetchall()
    finally:
        db.close()


def store_unsent(store: Path, session: str) -> None:
    """Store one more final, as a service does that is killed before it can send it."""
    epoch, seq = kept(store, session)[-1]
    header = m.Agreement(session=session, epoch=epoch, seq=seq + 1, scan_id=UNSENT, agreement={})
    db = sqlite3.connect(store / "catalog.sqlite")
    with db:
        row = (session, epoch, seq + 1, nest(encode(header, stream="res")).tobytes())
        db.execute("INSERT INTO results (session, epoch, seq, message) VALUES (?, ?, ?, ?)", row)
    db.close()


def prune_first(store: Path, session: str) -> None:
    """Let the first final of a session go, as `livestem store prune` does."""
    db = sqlite3.connect(store / "catalog.sqlite")
    with db:
        db.execute("DELETE FROM results WHERE session = ? AND seq = 1", (session,))
    db.close()


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    folder = tmp_path_factory.mktemp("survive")
    (folder / "serve.toml").write_text("[limits]\nsessions = 1\n")
    flags = ("--config", folder / "serve.toml")
    with ExitStack() as opened:
        service = opened.enter_context(Service(folder / "before", *flags))
        survivor = opened.enter_context(Listener(service, folder / "survivor.jsonl"))
        wait_for(lambda: service.metric("livestem_subscriptions") == 1)
        scan(service, "a", "scan-0")
        scan(service, "b", "scan-1")
        scan(service, "a", "scan-2")
        survivor.until_done(3)
        assert end(service.process, signal.SIGKILL) == -signal.SIGKILL
        store_unsent(service.store, "a")
        prune_first(service.store, "b")
        again = opened.enter_context(Service(folder / "after", *flags, after=service))
        wait_for(
            lambda: any(line.get("scan_id") == UNSENT for line in survivor.lines()),
            otherwise="what was stored and not sent did not come",
        )
        first = opened.enter_context(Listener(again, folder / "first.jsonl", "--session", "a", "--scans", 3))
        first.until_done(2)
        scan(again, "a", "scan-3")
        first_lines = first.until_done(3)
        assert first.process.wait(20) == 0
        second = opened.enter_context(Listener(again, folder / "second.jsonl", "--session", "a", "--scans", 3))
        second_lines = second.until_done(3)
        pruned = opened.enter_context(Listener(again, folder / "pruned.jsonl", "--session", "b", "--scans", 1))
        pruned_lines = pruned.until_done(1)
        assert pruned.process.wait(20) == 0 and pruned.process.stderr is not None
        words = pruned.process.stderr.read()
        yield Heard(again.store, survivor.until_done(4), first_lines, second_lines, pruned_lines, words)
        again.assert_well()


def test_who_lives_through_a_kill_gets_every_final_once(heard: Heard):
    assert numbers(heard.survivor, "a") == kept(heard.store, "a")
    assert numbers(heard.survivor, "b")[1:] == kept(heard.store, "b"), "it came before the first was pruned"


def test_who_comes_later_gets_the_session_it_asks_for_and_no_other(heard: Heard):
    for lines in (heard.first, heard.second):
        assert numbers(lines, "a") == kept(heard.store, "a")
        assert {line["session"] for line in lines} == {"a"}


def test_what_is_no_longer_kept_is_said(heard: Heard):
    assert numbers(heard.pruned, "b") == kept(heard.store, "b")
    assert heard.words.splitlines() == [
        "warning: nobody keeps message 1 of session b any more; see `livestem store list` for its scans"
    ]


def test_a_session_is_let_go_and_carried_on_within_one_start_and_begun_anew_by_the_next(heard: Heard):
    epochs = [epoch for epoch, _ in kept(heard.store, "a")]
    first, second = dict.fromkeys(epochs)
    assert [seq for epoch, seq in kept(heard.store, "a") if epoch == first] == list(range(1, epochs.count(first) + 1))
    assert [seq for epoch, seq in kept(heard.store, "a") if epoch == second] == list(range(1, epochs.count(second) + 1))
