"""The label sets of a query are those that Prometheus answers with: one table, asked of both."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import promql_parser as promql
import pytest
from label_sets import NAME, Labels, QueryError, label_sets

SERIES = (
    'a{x="1",y="1"}', 'a{x="1",y="2"}', 'b{x="1"}', 'b{x="2"}', 'c{z="1"}', 'i{x="1",v="7"}',
    'h_bucket{le="1",x="1"}', 'h_bucket{le="+Inf",x="1"}',
)  # fmt: skip
# Every series is 1 at all times.
ANSWERS = {
    'b{x!="1"}': {'b{x="2"}': 1},
    'b{x=~"1|3"}': {'b{x="1"}': 1},
    'b{x!~"1|3"}': {'b{x="2"}': 1},
    'b{w=""}': {'b{x="1"}': 1, 'b{x="2"}': 1},
    'b{w="1"}': {},
    "-b": {'{x="1"}': -1, '{x="2"}': -1},
    "2 * b": {'{x="1"}': 2, '{x="2"}': 2},
    "b > 0": {'b{x="1"}': 1, 'b{x="2"}': 1},
    "b > bool 0": {'{x="1"}': 1, '{x="2"}': 1},
    "increase(b[5m])": {'{x="1"}': 0, '{x="2"}': 0},
    "avg_over_time((b > 0)[5m:1m])": {'{x="1"}': 1, '{x="2"}': 1},
    "count(a)": {"{}": 2},
    "sum by (x) (a)": {'{x="1"}': 2},
    "sum without (x) (a)": {'{y="1"}': 1, '{y="2"}': 1},
    "topk(1, c)": {'c{z="1"}': 1},
    "histogram_quantile(0.5, h_bucket)": {'{x="1"}': 0.5},
    "histogram_quantile(0.5, b)": {},
    "b + c": {},
    "b and c": {},
    "b or c": {'b{x="1"}': 1, 'b{x="2"}': 1, 'c{z="1"}': 1},
    "b unless c": {'b{x="1"}': 1, 'b{x="2"}': 1},
    "b unless b": {},
    "b unless (b > 5)": {'b{x="1"}': 1, 'b{x="2"}': 1},
    "i and on (x) b": {'i{v="7",x="1"}': 1},
    "b == b": {'b{x="1"}': 1, 'b{x="2"}': 1},
    "b == on (x) b": {'{x="1"}': 1, '{x="2"}': 1},
    "b * on (x) i": {'{x="1"}': 1},
    "b * ignoring (v) i": {'{x="1"}': 1},
    "a * on (x) group_left b": {'{x="1",y="1"}': 1, '{x="1",y="2"}': 1},
    "b * on (x) group_right a": {'{x="1",y="1"}': 1, '{x="1",y="2"}': 1},
    "a * ignoring (y) group_left b": {'{x="1",y="1"}': 1, '{x="1",y="2"}': 1},
    "a == on (x) group_left (v) i": {'a{v="7",x="1",y="1"}': 1, 'a{v="7",x="1",y="2"}': 1},
}


def read(series: str) -> Labels:
    name, labels = series.rstrip("}").split("{")
    return ({NAME: name} if name else {}) | dict(re.findall(r'(\w+)="(.*?)"', labels))


@pytest.mark.parametrize("query", ANSWERS)
def test_a_query_has_the_label_sets_of_its_answer(query):
    found = label_sets(promql.parse(query), [read(series) for series in SERIES])
    assert found is not None
    assert sorted(map(str, map(sorted, map(dict.items, found)))) == sorted(
        str(sorted(read(series).items())) for series in ANSWERS[query]
    )


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("a * on (x) b", "the same to their partner"),  # many to one, unsaid
        ("b * on (x) group_left a", "the same to their partner"),  # and the wrong way round
        ("sum by (w) (a)", "nothing has {'w'}"),
        ("b and on (z) c", "nothing has {'z'}"),
        ("absent(b)", "absent is not known here"),
        ("count_values('n', b)", "count_values is not known here"),
        ('b{x="1" or x="2"}', "not known here"),
    ],
)
def test_what_cannot_be_meant_or_is_not_known_is_refused(query, words):
    with pytest.raises(QueryError, match=words):
        label_sets(promql.parse(query), [read(series) for series in SERIES])


def test_two_series_that_become_one_are_refused():
    with pytest.raises(QueryError, match="the same"):
        label_sets(promql.parse('-{x="1"}'), [read('b{x="1"}'), read('d{x="1"}')])


def test_prometheus_answers_the_same(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here")
    expected = [
        {"expr": query, "eval_time": "10m", "exp_samples": [{"labels": k, "value": v} for k, v in answer.items()]}
        for query, answer in ANSWERS.items()
    ]
    inputs = [{"series": series, "values": "1+0x20"} for series in SERIES]
    tests = [{"interval": "1m", "input_series": inputs, "promql_expr_test": expected}]
    (tmp_path / "none.yml").write_text("groups: []")
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["none.yml"], "tests": tests}))  # JSON is YAML
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
