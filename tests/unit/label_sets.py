"""Which label sets a PromQL query can answer with, given those that there are.

Rules
-----
* A vector is a list of label sets; the metric's name is the label ``__name__``, as in Prometheus. A number is None.
* Values are not looked at: a comparison may hold for every series. What no values can make non-empty comes out empty:
  a matcher that nothing has, sides that share no label set, buckets without ``le``.
* What Prometheus answers with an error is a `QueryError`: labels that match many to many, two series become one.
  So is a grouping or matching label that no series has, which Prometheus takes for the empty label: it groups nothing.
* What is not written here (a function, an aggregation) is a `QueryError` too, never a guess.

After "Operators" and "Query functions" of Prometheus' documentation, <https://prometheus.io/docs/prometheus/latest/querying/>.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import promql_parser as promql

Labels = dict[str, str]
Vector = list[Labels]

NAME = "__name__"
SETS = {"and", "or", "unless"}
COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}
MERGING = {"sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "quantile"}
CHOOSING = {"topk", "bottomk"}
# Functions that answer with the series they are given, without their names.
PLAIN = {
    "abs", "avg_over_time", "ceil", "changes", "clamp_max", "clamp_min", "count_over_time", "delta", "deriv", "floor",
    "increase", "irate", "max_over_time", "min_over_time", "predict_linear", "rate", "resets", "round", "sum_over_time",
}  # fmt: skip


class QueryError(AssertionError):
    """A query that Prometheus refuses, or that cannot mean what it says."""


def label_sets(node: Any, series: Sequence[Labels]) -> Vector | None:
    """Return the label sets that an expression can answer with; None for a number.

    Parameters
    ----------
    node : promql_parser.Expr
    series : sequence of dict
        Every series there is, its name under ``__name__``.

    Raises
    ------
    QueryError
        If Prometheus would refuse it, or it groups or matches by a label that nothing has.
    """
    if isinstance(node, promql.VectorSelector):
        return [labels for labels in series if _selected(node, labels)]
    if isinstance(node, promql.NumberLiteral | promql.StringLiteral):
        return None
    if isinstance(node, promql.MatrixSelector):
        return label_sets(node.vector_selector, series)
    if isinstance(node, promql.ParenExpr | promql.SubqueryExpr):
        return label_sets(node.expr, series)
    if isinstance(node, promql.UnaryExpr):
        return _nameless(label_sets(node.expr, series))
    if isinstance(node, promql.Call):
        return _called(node, [label_sets(argument, series) for argument in node.args])
    if isinstance(node, promql.AggregateExpr):
        return _aggregated(node, label_sets(node.expr, series))
    if isinstance(node, promql.BinaryExpr):
        return _joined(node, label_sets(node.lhs, series), label_sets(node.rhs, series))
    raise QueryError(f"{type(node).__name__} is not known here")


def _selected(selector: Any, labels: Labels) -> bool:
    if selector.matchers.or_matchers:
        raise QueryError("matchers joined by or are not known here")
    if selector.name is not None and labels[NAME] != selector.name:
        return False
    return all(_matches(matcher, labels.get(matcher.name, "")) for matcher in selector.matchers.matchers)


def _matches(matcher: Any, value: str) -> bool:
    if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
        return (value == matcher.value) == (matcher.op == promql.MatchOp.Equal)
    return (re.fullmatch(matcher.value, value) is not None) == (matcher.op == promql.MatchOp.Re)


def _called(call: Any, arguments: list[Vector | None]) -> Vector | None:
    vectors = [vector for vector in arguments if vector is not None]
    if len(vectors) != 1:
        raise QueryError(f"{call.func.name} of {len(vectors)} vectors is not known here")
    (vector,) = vectors
    if call.func.name == "histogram_quantile":
        with_buckets = [labels for labels in vector if "le" in labels]
        return _distinct([_without(labels, {"le", NAME}) for labels in with_buckets])
    if call.func.name not in PLAIN:
        raise QueryError(f"{call.func.name} is not known here")
    return _nameless(vector)


def _aggregated(node: Any, vector: Vector | None) -> Vector:
    if vector is None:
        raise QueryError(f"{node.op} of a number")
    if str(node.op) in CHOOSING:
        return vector
    if str(node.op) not in MERGING:
        raise QueryError(f"{node.op} is not known here")
    if node.modifier is None:
        return _distinct([{} for _ in vector])
    names = set(node.modifier.labels)
    _there(names, vector)
    if node.modifier.type == promql.AggModifierType.By:
        return _distinct([_only(labels, names) for labels in vector])
    return _distinct([_without(labels, names | {NAME}) for labels in vector])


def _joined(node: Any, left: Vector | None, right: Vector | None) -> Vector | None:
    op, modifier = str(node.op), node.modifier
    named = op in COMPARISONS and not (modifier and modifier.return_bool)  # a comparison lets series pass as they are
    if left is None or right is None:
        vector = right if left is None else left
        return vector if named else _nameless(vector)
    key, on, names = _key(modifier)
    if on:
        _there(names, left)
        _there(names, right)
    else:
        _there(names, left + right)
    if op in SETS:
        return _of_sets(node, left, right, key)
    card = str(modifier.card).rpartition(".")[2] if modifier else "OneToOne"
    many, one = (right, left) if card == "OneToMany" else (left, right)
    of_one = _unique(one, key)
    joined = []
    for labels in many:
        other = of_one.get(key(labels))
        if other is None:
            continue
        kept = labels if named else _without(labels, {NAME})
        if card == "OneToOne":
            kept = _only(kept, names) if on else _without(kept, names)
        else:
            copied = modifier.group_labels or []
            kept = _without(kept, set(copied)) | _only(other, set(copied))
        joined.append((key(labels), kept))
    if card == "OneToOne":
        _unique([dict(labels) for labels, _ in joined], frozenset_of)
    return _separate([kept for _, kept in joined])


def _of_sets(node: Any, left: Vector, right: Vector, key: Callable[[Labels], Any]) -> Vector:
    there = {key(labels) for labels in right}
    if str(node.op) == "and":
        return [labels for labels in left if key(labels) in there]
    if str(node.op) == "or":
        of_left = {key(labels) for labels in left}
        return left + [labels for labels in right if key(labels) not in of_left]
    # `unless` something that depends on values may let everything pass.
    return left if _filters(node.rhs) else [labels for labels in left if key(labels) not in there]


def _filters(node: Any) -> bool:
    """Return whether an expression leaves out series by their values."""
    if isinstance(node, promql.BinaryExpr):
        compares = str(node.op) in COMPARISONS and not (node.modifier and node.modifier.return_bool)
        return compares or _filters(node.lhs) or _filters(node.rhs)
    inner = getattr(node, "expr", None)
    return any(map(_filters, [*getattr(node, "args", []), *([] if inner is None else [inner])]))


def _key(modifier: Any) -> tuple[Callable[[Labels], frozenset[tuple[str, str]]], bool, set[str]]:
    """Return what two sides are matched by, whether labels are named by ``on``, and which are named."""
    matching = modifier.matching if modifier else None
    if matching is None:
        return (lambda labels: frozenset_of(_without(labels, {NAME}))), False, set()
    names = set(matching.labels)
    if matching.type == promql.LabelModifierType.Include:
        return (lambda labels: frozenset_of(_only(labels, names))), True, names
    return (lambda labels: frozenset_of(_without(labels, names | {NAME}))), False, names


def frozenset_of(labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def _there(names: set[str], vector: Vector) -> None:
    absent = names - {label for labels in vector for label in labels}
    if vector and absent:
        raise QueryError(f"nothing has {absent}: {vector[0]}")


def _unique(vector: Vector, key: Callable[[Labels], Any]) -> dict[Any, Labels]:
    found: dict[Any, Labels] = {}
    for labels in vector:
        if key(labels) in found:
            raise QueryError(f"{labels} and {found[key(labels)]} are the same to their partner")
        found[key(labels)] = labels
    return found


def _nameless(vector: Vector | None) -> Vector | None:
    return None if vector is None else _separate([_without(labels, {NAME}) for labels in vector])


def _separate(vector: Vector) -> Vector:
    """Return a vector of which no two series are the same, as Prometheus demands."""
    _unique(vector, frozenset_of)
    return vector


def _distinct(vector: Vector) -> Vector:
    return [dict(labels) for labels in sorted({tuple(sorted(labels.items())) for labels in vector})]


def _only(labels: Labels, names: set[str]) -> Labels:
    return {name: value for name, value in labels.items() if name in names}


def _without(labels: Labels, names: set[str]) -> Labels:
    return {name: value for name, value in labels.items() if name not in names}
