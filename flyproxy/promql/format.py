"""Nodes to text: the shortest plain spelling that reads back as the same nodes."""

import math
import re

from flyproxy.promql.lex import NOT_A_METRIC
from flyproxy.promql.nodes import (
    Aggregation,
    AtBound,
    Binary,
    Call,
    Card,
    Matching,
    Node,
    Number,
    Parenthesis,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
)
from flyproxy.promql.operators import GROUPS_FROM_THE_RIGHT, PRECEDENCE, SIGN_PRECEDENCE
from flyproxy.promql.quoting import quoted
from flyproxy.series.durations import format_duration
from flyproxy.series.labels import METRIC_NAME
from flyproxy.series.matchers import Matcher, MatchOp

_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBERS = frozenset({"inf", "nan"})
_TIGHTEST = 1 + max(PRECEDENCE.values())
_GROUPS = {Card.MANY_TO_ONE: "group_left", Card.ONE_TO_MANY: "group_right"}


def format_expression(node: Node) -> str:
    """PromQL on one line; `parse` makes the same nodes of it but for their spans. Parentheses are added where the tree
    needs them and has none. What MetricsQL left out stays out."""
    match node:
        case Number():
            return _number(node.value)
        case String():
            return quoted(node.value)
        case Selector():
            return _selector(node.matchers) + _modifiers(node.offset_ms, node.at_ms)
        case RangeSelector():
            window = "" if node.range_ms is None else f"[{format_duration(node.range_ms)}]"
            selector = node.selector
            return _selector(selector.matchers) + window + _modifiers(selector.offset_ms, selector.at_ms)
        case Subquery():
            inner = _operand(node.expression, _TIGHTEST)
            return inner + _window(node) + _modifiers(node.offset_ms, node.at_ms)
        case Unary():
            inner = _operand(node.expression, SIGN_PRECEDENCE + (not isinstance(node.expression, Unary)))
            return ("-" if node.negative else "+") + inner
        case Parenthesis():
            return f"({format_expression(node.expression)})"
        case Call():
            return f"{node.function}({', '.join([format_expression(argument) for argument in node.arguments])})"
        case Aggregation():
            return _aggregation(node)
        case Binary():
            return _binary(node)


def format_selector(matchers: tuple[Matcher, ...]) -> str:
    """The selector of some matchers: `name{label="value"}`."""
    return _selector(matchers)


def _operand(node: Node, tightness: int) -> str:
    """The text of a child, in parentheses where it binds less tightly than that."""
    text = format_expression(node)
    return text if _tightness(node) >= tightness else f"({text})"


def _tightness(node: Node) -> int:
    match node:
        case Binary():
            return PRECEDENCE[node.operator]
        case Unary():
            return SIGN_PRECEDENCE
        case Number():
            return SIGN_PRECEDENCE if _number(node.value)[0] == "-" else _TIGHTEST
        case _:
            return _TIGHTEST


def _binary(node: Binary) -> str:
    tightness = PRECEDENCE[node.operator]
    from_the_right = node.operator in GROUPS_FROM_THE_RIGHT
    left = _operand(node.left, tightness + from_the_right)
    right = format_expression(node.right)
    if not isinstance(node.right, Unary | Number) and _tightness(node.right) < tightness + (not from_the_right):
        right = f"({right})"
    words = [left, node.operator]
    if node.return_bool:
        words.append("bool")
    if node.matching is not None:
        words += _matching(node.matching)
    return " ".join([*words, right])


def _matching(matching: Matching) -> list[str]:
    group = _GROUPS.get(matching.card)
    if not matching.on and not matching.labels and group is None:
        return []
    words = [f"{'on' if matching.on else 'ignoring'} ({_labels(matching.labels)})"]
    if group is not None:
        words.append(f"{group} ({_labels(matching.include)})")
    return words


def _aggregation(node: Aggregation) -> str:
    arguments = [node.expression] if node.parameter is None else [node.parameter, node.expression]
    texts = [format_expression(argument) for argument in (*arguments, *node.others)]
    if node.rest_label is not None:
        texts.append(quoted(node.rest_label))
    grouping = ""
    if node.without or node.labels:
        grouping = f" {'without' if node.without else 'by'} ({_labels(node.labels)}) "
    return f"{node.operator}{grouping}({', '.join(texts)})"


def _window(node: Subquery) -> str:
    if node.range_ms is None:
        return ""
    if node.step_ms is not None:
        return f"[{format_duration(node.range_ms)}:{format_duration(node.step_ms)}]"
    is_window = node.at_query_step and not isinstance(node.expression, Selector)
    return f"[{format_duration(node.range_ms)}{'' if is_window else ':'}]"


def _modifiers(offset_ms: int, at_ms: int | AtBound | None) -> str:
    text = ""
    if isinstance(at_ms, AtBound):
        text = f" @ {at_ms}()"
    elif at_ms is not None:
        seconds, rest_ms = divmod(abs(at_ms), 1000)
        text = f" @ {'-' if at_ms < 0 else ''}{seconds}.{rest_ms:03d}"
    return text + (f" offset {format_duration(offset_ms)}" if offset_ms else "")


def _selector(matchers: tuple[Matcher, ...]) -> str:
    names = [matcher for matcher in matchers if matcher.name == METRIC_NAME]
    first = matchers[0] if matchers else None
    if first is None or first.name != METRIC_NAME or first.op is not MatchOp.EQUAL or len(names) > 1:
        return "{" + ", ".join([_matcher(matcher) for matcher in matchers]) + "}"
    rest = [_matcher(matcher) for matcher in matchers[1:]]
    if _is_plain_metric(first.value):
        return first.value + ("{" + ", ".join(rest) + "}" if rest else "")
    return "{" + ", ".join([quoted(first.value), *rest]) + "}"


def _is_plain_metric(name: str) -> bool:
    word = name.lower()
    return _METRIC.fullmatch(name) is not None and word not in NOT_A_METRIC and word not in _NUMBERS


def _matcher(matcher: Matcher) -> str:
    name = matcher.name if _LABEL.fullmatch(matcher.name) else quoted(matcher.name)
    return f"{name}{matcher.op}{quoted(matcher.value)}"


def _labels(labels: tuple[str, ...]) -> str:
    plain = [_LABEL.fullmatch(label) and label.lower() not in _NUMBERS for label in labels]
    return ", ".join([label if is_plain else quoted(label) for label, is_plain in zip(labels, plain, strict=True)])


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e15:
        return f"{'-' if math.copysign(1, value) < 0 else ''}{abs(int(value))}"
    return repr(value)
