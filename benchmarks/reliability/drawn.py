"""Cases drawn by hypothesis, which also finds the smallest one that fails; counted by what struck in them.

``python -m benchmarks.reliability cases --cases 10000 --seed 1`` runs them; the same seed draws the same cases. A
failure prints the smallest case that fails in the same way: ``run(Case(...))`` runs it again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from benchmarks.reliability.cases import KINDS, STORM_S, Blow, Case, Outcome, run
from benchmarks.reliability.link import Weather
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

weathers = st.builds(
    Weather,
    loss=st.sampled_from([0.0, 0.0, 0.1, 0.4]),
    double=st.sampled_from([0.0, 0.3]),
    spoil=st.sampled_from([0.0, 0.2]),
    delay_s=st.sampled_from([0.0, 0.05, 0.4]),
)
blows = st.builds(
    Blow,
    kind=st.sampled_from(KINDS),
    at_s=st.floats(0.0, STORM_S, width=32),
    length_s=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    link=st.integers(0, 2),
    channel=st.integers(0, 2),
)
cases = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    tiles=st.lists(st.integers(1, 13), min_size=1, max_size=3).map(tuple),
    recorded=st.booleans(),
    acquisition=weathers,
    results=weathers,
    blows=st.lists(blows, max_size=5).map(tuple),
    room=st.sampled_from([3, 10, 1000]),
    late=st.booleans(),
)


@dataclass
class Struck:
    """How many cases had a fault, and what came of their scans."""

    cases: int = 0
    whole: int = 0
    told: int = 0
    unheard: int = 0
    silent: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count a case."""
        self.cases += 1
        self.whole += outcome.whole
        self.told += outcome.told
        self.unheard += outcome.unheard
        self.silent += len(outcome.silent)


@dataclass
class Tally:
    """What was run: in all, and by fault; a case counts under each fault that it has."""

    all: Struck = field(default_factory=Struck)
    by_fault: dict[str, Struck] = field(default_factory=dict)

    def add(self, case: Case, outcome: Outcome) -> None:
        """Count a case."""
        self.all.add(outcome)
        for fault in faults_of(case):
            self.by_fault.setdefault(fault, Struck()).add(outcome)


def faults_of(case: Case) -> set[str]:
    """Return the words for what strikes in a case."""
    found: Counter[str] = Counter(blow.kind for blow in case.blows)
    for hop, weather in (("acquisition", case.acquisition), ("results", case.results)):
        for what, asked in (
            ("lost", weather.loss),
            ("doubled", weather.double),
            ("spoilt", weather.spoil),
            ("late, out of order", weather.delay_s),
        ):
            found[f"messages {what}: {hop}"] += asked > 0
    found["full resend buffer"] += case.room < 1000
    found["service comes in mid-scan"] += case.late
    return {word for word, n in found.items() if n} or {"none"}


def run_cases(n: int, start: int) -> Tally:
    """Draw and run cases.

    Raises
    ------
    AssertionError
        At the first case in which something was lost silently, or that does not come to rest: the smallest such one.
    """
    tally = Tally()

    @seed(start)
    @settings(
        max_examples=n,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def each(case: Case) -> None:
        outcome = run(case)
        assert not outcome.silent, f"{outcome.silent}\nseed {start}: run({case!r})"
        tally.add(case, outcome)

    each()
    return tally
