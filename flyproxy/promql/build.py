"""Nodes out of their parts, and the rules of types that go with it (Prometheus, parser.checkAST).

Every part carries its type and its depth, so nothing here walks a tree. A fault of syntax is raised at once; a fault of
types is kept and told only when the syntax of the whole expression is sound, the first one first.

With MetricsQL some things that are faults in PromQL get the meaning VictoriaMetrics gives them:
- an instant vector where a window is wanted: a selector, or a subquery, whose window is left out (`rate(x)`);
- a window where an instant vector is wanted: its last value (`x[5m] == 1`, `sum(rate(x)[5m])`; VictoriaMetrics'
  default_rollup is last_over_time, and a window behind anything but a selector is a subquery at the query's step);
- several expressions in an aggregation, scalars among them: all their series together (`max(0, x)`).
"""

import difflib
from dataclasses import dataclass, replace

from flyproxy.promql.functions import (
    AGGREGATIONS,
    FUNCTIONS,
    METRICSQL_AGGREGATIONS,
    METRICSQL_FUNCTIONS,
    METRICSQL_NOT_BUILT,
    AggregationSignature,
    FunctionSignature,
    aggregation_of,
    signature_of,
)
from flyproxy.promql.lex import Token
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
    Span,
    String,
    Subquery,
    Unary,
    ValueType,
)
from flyproxy.promql.operators import COMPARISONS, SET_OPERATORS
from flyproxy.promql.parse_error import ParseError
from flyproxy.promql.quoting import quoted
from flyproxy.series.durations import format_duration
from flyproxy.series.labels import METRIC_NAME
from flyproxy.series.matchers import BadPatternError, Matcher, MatchOp

DEPTH_MAX = 200
"""How deep nodes may stand in one another; `a + b + c` is two deep. Whoever walks a tree may recurse this far."""
NODES_MAX = 10_000
"""How many nodes an expression may have."""
SHOWN_CHARACTERS_MAX = 80
"""How much of a selector an error repeats."""

SCALAR, STRING, INSTANT, RANGE = ValueType.SCALAR, ValueType.STRING, ValueType.INSTANT, ValueType.RANGE
_PROMETHEUS_NOT_BUILT = frozenset({"fill", "fill_left", "fill_right"})
_MOVABLE = "an instant vector selector or range vector selector or a subquery"
_WINDOW_MEND = "; a window needs a function, e.g. last_over_time(x[5m])"
_OFF_HERE = "MetricsQL, which is off here"


@dataclass(frozen=True, slots=True)
class Part:
    """A node with what is known of it."""

    node: Node
    kind: ValueType
    depth: int = 1

    @property
    def span(self) -> Span:
        return self.node.span


@dataclass(frozen=True, slots=True)
class Grouping:
    """`by (labels)` or `without (labels)`."""

    labels: tuple[str, ...]
    without: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Modifiers:
    """What stands between a binary operator and its right side."""

    return_bool: bool
    on: bool
    labels: tuple[str, ...]
    card: Card
    include: tuple[str, ...]
    span: Span
    """The operator's, modifiers included."""


class Builder:
    """Makes the nodes of one expression; `type_fault` is the first one found."""

    def __init__(self, expression: str, *, metricsql: bool) -> None:
        self.expression = expression
        self.metricsql = metricsql
        self.type_fault: ParseError | None = None
        self._nodes = 0

    def fault(self, sentence: str, span: Span) -> ParseError:
        return ParseError(sentence, span, self.expression)

    def number(self, span: Span, value: float) -> Part:
        return self._part(Number(span, value), SCALAR)

    def string(self, span: Span, value: str) -> Part:
        return self._part(String(span, value), STRING)

    def selector(self, span: Span, name: str | None, matchers: tuple[Matcher, ...], *, may_be_empty: bool) -> Part:
        """`name` is what stands before the braces; it becomes the first matcher."""
        if name is not None:
            for matcher in matchers:
                if matcher.name == METRIC_NAME:
                    sentence = f"metric name must not be set twice: {quoted(name)} or {quoted(matcher.value)}"
                    self._refuse(sentence, span)
            matchers = (Matcher(METRIC_NAME, MatchOp.EQUAL, name), *matchers)
        elif not may_be_empty and all(matcher.predicate()("") for matcher in matchers):
            self._refuse("vector selector must contain at least one non-empty matcher", span)
        return self._part(Selector(span, matchers), INSTANT)

    def matcher(self, name: str, op: MatchOp, value: str, span: Span) -> Matcher:
        """A matcher whose pattern is known to be good."""
        matcher = Matcher(name, op, value)
        try:
            matcher.predicate()
        except BadPatternError as bad:
            raise self.fault(f"error parsing regexp: {bad}", span) from None
        return matcher

    def parenthesis(self, span: Span, inner: Part) -> Part:
        return self._part(Parenthesis(span, inner.node), inner.kind, inner)

    def sign(self, operator: Token, inner: Part) -> Part:
        """A sign before a number becomes part of it."""
        span = Span(operator.span.start, inner.span.end)
        negative = operator.word == "-"
        if isinstance(inner.node, Number):
            value = -inner.node.value if negative else inner.node.value
            return Part(Number(span, value), SCALAR)
        inner = self._instant(inner)
        if inner.kind not in (SCALAR, INSTANT):
            allowed = "unary expression only allowed on expressions of type scalar or instant vector"
            self._refuse(f"{allowed}, got {quoted(inner.kind)}", span)
        return self._part(Unary(span, negative, inner.node), inner.kind, inner)

    def binary(self, left: Part, operator: str, modifiers: Modifiers, right: Part) -> Part:
        left, right = self._instant(left), self._instant(right)
        span = Span(left.span.start, right.span.end)
        vectors = left.kind == right.kind == INSTANT
        self._check_modifiers(operator, modifiers, both_scalar=left.kind == right.kind == SCALAR)
        for side in (left, right):
            if side.kind not in (SCALAR, INSTANT):
                mend = _WINDOW_MEND if side.kind is RANGE else ""
                sentence = f"binary expression must contain only scalar and instant vector types{mend}"
                self._refuse(sentence, side.span)
        matching = None
        if vectors:
            card = Card.MANY_TO_MANY if operator in SET_OPERATORS else modifiers.card
            matching = Matching(card, modifiers.on, modifiers.labels, modifiers.include)
            if operator in SET_OPERATORS and modifiers.card is not Card.ONE_TO_ONE:
                self._refuse(f"no grouping allowed for {quoted(operator)} operation", span)
        else:
            if modifiers.labels:
                self._refuse("vector matching only allowed between instant vectors", span)
            if operator in SET_OPERATORS:
                self._refuse(f"set operator {quoted(operator)} not allowed in binary scalar expression", span)
        node = Binary(span, operator, left.node, right.node, modifiers.return_bool, matching)
        return self._part(node, SCALAR if left.kind == right.kind == SCALAR else INSTANT, left, right)

    def call(self, name: Token, arguments: list[Part], end: int) -> Part:
        span = Span(name.span.start, end)
        signature = signature_of(name.text, metricsql=self.metricsql)
        if signature is None:
            raise self.fault(self._unknown_function(name.text), name.span)
        if name.text == "histogram_quantiles" and arguments and arguments[0].kind is STRING:
            return self._quantiles(span, arguments)
        count, least, most = len(arguments), signature.arguments_min, signature.arguments_max
        if not least <= count or (most is not None and count > most):
            self._refuse(_wrong_count(signature, count), span)
        if name.text == "label_set" and count % 2 == 0:
            self._refuse("label_set() needs a value for every label", span)
        taken = [self._argument(signature, index, part) for index, part in enumerate(arguments)]
        if name.text == "info" and count == 2:
            self._check_info(taken[1])
        node = Call(span, name.text, tuple(part.node for part in taken))
        return self._part(node, signature.result, *taken)

    def aggregation(self, name: Token, grouping: Grouping | None, arguments: list[Part], end: int) -> Part:
        span = Span(name.span.start, end)
        signature = aggregation_of(name.word, metricsql=self.metricsql)
        assert signature is not None
        if not arguments:
            raise self.fault("no arguments for aggregate expression provided", span)
        taken = list(arguments)
        rest = taken.pop() if signature.sums_rest and len(taken) == 3 else None
        parameter = taken.pop(0) if signature.parameter is not None else None
        self._check_count(signature, len(taken), len(arguments), span)
        taken = [self._instant(part) for part in taken]
        for part in taken:
            if part.kind is not SCALAR or len(taken) == 1:
                self._expect(part, INSTANT, "aggregation expression")
        if parameter is not None and signature.parameter is not None:
            self._expect(parameter, signature.parameter, "aggregation parameter")
        if rest is not None and not isinstance(rest.node, String):
            self._refuse(f'{name.word}() needs its label as a string, e.g. "region=other"', rest.span)
        labels, without = (grouping.labels, grouping.without) if grouping else ((), False)
        node = Aggregation(
            span,
            name.word,
            taken[0].node,
            parameter.node if parameter else None,
            labels,
            without,
            others=tuple(part.node for part in taken[1:]),
            rest_label=rest.node.value if rest is not None and isinstance(rest.node, String) else None,
        )
        return self._part(node, INSTANT, *arguments, *taken)

    def window(self, inner: Part, range_ms: int, brackets: Span) -> Part:
        """`inner[range]`."""
        span = Span(inner.span.start, brackets.end)
        selector = inner.node
        if self.metricsql:
            bare = _bare(selector)
            if not isinstance(bare, Selector) or bare.offset_ms or bare.at_ms is not None:
                return self.subquery(inner, range_ms, None, brackets, at_query_step=True)
            return self._part(RangeSelector(span, bare, range_ms), RANGE, inner)
        if not isinstance(selector, Selector):
            raise self.fault("ranges only allowed for vector selectors" + _subquery_mend(inner, range_ms), brackets)
        if selector.offset_ms:
            raise self.fault("no offset modifiers allowed before range", brackets)
        if selector.at_ms is not None:
            raise self.fault("no @ modifiers allowed before range", brackets)
        return self._part(RangeSelector(span, selector, range_ms), RANGE, inner)

    def subquery(
        self, inner: Part, range_ms: int, step_ms: int | None, brackets: Span, *, at_query_step: bool = False
    ) -> Part:
        """`inner[range:step]`."""
        inner = self._instant(inner)
        span = Span(inner.span.start, brackets.end)
        if inner.kind is not INSTANT:
            self._refuse(f"subquery is only allowed on instant vector, got {inner.kind} instead", span)
        return self._part(Subquery(span, inner.node, range_ms, step_ms, at_query_step=at_query_step), RANGE, inner)

    def offset(self, inner: Part, offset_ms: int, end: int) -> Part:
        node = inner.node
        moved = node.selector if isinstance(node, RangeSelector) else node
        if not isinstance(moved, Selector | Subquery):
            raise self.fault(f"offset modifier must be preceded by {_MOVABLE}", inner.span)
        if moved.offset_ms:
            raise self.fault("offset may not be set multiple times", inner.span)
        return _put(inner, replace(moved, offset_ms=offset_ms), end)

    def at(self, inner: Part, at_ms: int | AtBound, end: int) -> Part:
        node = inner.node
        pinned = node.selector if isinstance(node, RangeSelector) else node
        if not isinstance(pinned, Selector | Subquery):
            raise self.fault(f"@ modifier must be preceded by {_MOVABLE}", inner.span)
        if pinned.at_ms is not None:
            raise self.fault("@ <timestamp> may not be set multiple times", inner.span)
        return _put(inner, replace(pinned, at_ms=at_ms), end)

    def _part(self, node: Node, kind: ValueType, *inner: Part) -> Part:
        depth = 1 + max((part.depth for part in inner), default=0)
        self._nodes += 1
        if depth > DEPTH_MAX:
            raise self.fault(too_deep(), node.span)
        if self._nodes > NODES_MAX:
            raise self.fault(f"the expression has more than {NODES_MAX} parts", node.span)
        return Part(node, kind, depth)

    def _refuse(self, sentence: str, span: Span) -> None:
        if self.type_fault is None:
            self.type_fault = self.fault(sentence, span)

    def _expect(self, part: Part, wanted: ValueType, context: str) -> None:
        if part.kind is not wanted:
            mend = _WINDOW_MEND if wanted is INSTANT and part.kind is RANGE else ""
            self._refuse(f"expected type {wanted} in {context}, got {part.kind}{mend}", part.span)

    def _argument(self, signature: FunctionSignature, index: int, part: Part) -> Part:
        if not signature.arguments or (not signature.variadic and index >= len(signature.arguments)):
            return part
        wanted = signature.argument_type(index)
        if wanted is RANGE and part.kind is INSTANT:
            if self.metricsql:
                return self._windowless(part)
            self._refuse(self._needs_range(signature, index, part), part.span)
            return part
        if wanted is INSTANT:
            part = self._instant(part)
        self._expect(part, wanted, f"call to function {quoted(signature.name)}")
        return part

    def _instant(self, part: Part) -> Part:
        """With MetricsQL the last value of a window, where an instant vector is wanted."""
        if part.kind is not RANGE or not self.metricsql:
            return part
        return self._part(last_value(part.node), INSTANT, part)

    def _windowless(self, part: Part) -> Part:
        bare = _bare(part.node)
        if isinstance(bare, Selector):
            return self._part(RangeSelector(part.span, bare, None), RANGE, part)
        return self._part(Subquery(part.span, part.node, None, None, at_query_step=True), RANGE, part)

    def _check_modifiers(self, operator: str, modifiers: Modifiers, *, both_scalar: bool) -> None:
        if modifiers.return_bool and operator not in COMPARISONS:
            self._refuse("bool modifier can only be used on comparison operators", modifiers.span)
        if both_scalar and operator in COMPARISONS and not modifiers.return_bool:
            self._refuse("comparisons between scalars must use BOOL modifier", modifiers.span)
        if modifiers.on:
            for label in modifiers.labels:
                if label in modifiers.include:
                    sentence = f"label {quoted(label)} must not occur in ON and GROUP clause at once"
                    self._refuse(sentence, modifiers.span)

    def _check_info(self, second: Part) -> None:
        if not isinstance(second.node, Selector):
            self._refuse("expected label selectors only", second.span)
        elif self.expression[second.span.start] != "{":
            self._refuse("expected label selectors only, got vector selector instead", second.span)

    def _check_count(self, signature: AggregationSignature, vectors: int, given: int, span: Span) -> None:
        """One vector, after the parameter if there is one; with MetricsQL several, where there is none."""
        several = vectors > 1 and signature.parameter is None
        if vectors == 1 or (several and self.metricsql):
            return
        counted = f"expected {1 if signature.parameter is None else 2}, got {given}"
        mend = f" (several are {_OFF_HERE})" if several else ""
        raise self.fault(f"wrong number of arguments for aggregate expression provided, {counted}{mend}", span)

    def _quantiles(self, span: Span, arguments: list[Part]) -> Part:
        """MetricsQL's histogram_quantiles("label", phi, ..., buckets); Prometheus' own has the vector first."""
        if not self.metricsql:
            sentence = 'expected type instant vector in call to function "histogram_quantiles", got string'
            self._refuse(f"{sentence} (the label first is {_OFF_HERE})", arguments[0].span)
        elif len(arguments) < 3:
            self._refuse('histogram_quantiles() needs a label, quantiles and buckets: ("phi", 0.5, 0.99, x)', span)
        quantiles = arguments[1:-1]
        buckets = self._instant(arguments[-1])
        self._expect(buckets, INSTANT, 'call to function "histogram_quantiles"')
        for part in quantiles:
            self._expect(part, SCALAR, 'call to function "histogram_quantiles"')
        taken = [arguments[0], *quantiles, buckets]
        return self._part(Call(span, "histogram_quantiles", tuple(part.node for part in taken)), INSTANT, *taken)

    def _unknown_function(self, name: str) -> str:
        if name in _PROMETHEUS_NOT_BUILT:
            return f"{name}() is experimental in Prometheus and not built yet"
        known = (METRICSQL_NOT_BUILT, METRICSQL_FUNCTIONS, METRICSQL_AGGREGATIONS)
        metricsql = any(name in names for names in known)
        if metricsql and self.metricsql:
            return f"{name}() is MetricsQL and not built yet"
        sentence = f"unknown function with name {quoted(name[:SHOWN_CHARACTERS_MAX])}"
        if metricsql:
            return f"{sentence}; it is {_OFF_HERE}"
        near = difflib.get_close_matches(name.lower(), [*FUNCTIONS, *AGGREGATIONS], 1) if len(name) < 40 else []
        return f"{sentence}; did you mean {near[0]}?" if near else sentence

    def _needs_range(self, signature: FunctionSignature, index: int, part: Part) -> str:
        """What Prometheus says, after the mend: `rate() needs a range, e.g. rate(x[5m])`."""
        shown = self.expression[part.span.start : part.span.end]
        simple = isinstance(part.node, Selector)
        if len(shown) > SHOWN_CHARACTERS_MAX or "\n" in shown or "#" in shown:
            shown = "x" if simple else "(...)"
        window = "[5m]" if simple else "[5m:]"
        if isinstance(part.node, Selector) and (part.node.offset_ms or part.node.at_ms is not None):
            shown, window = "x", "[5m]"
        if isinstance(part.node, Binary | Unary):
            shown = f"({shown})"
        before = "0.9, " if index else ""
        after = ", 3600" if signature.name == "predict_linear" else ", 0.5, 0.5" if len(signature.arguments) > 2 else ""
        mend = f"{signature.name}({before}{shown}{window}{after})"
        expected = f'expected type range vector in call to function "{signature.name}", got instant vector'
        return f"{signature.name}() needs a range, e.g. {mend} ({expected})"


def last_value(window: Node) -> Call:
    """MetricsQL: what a window says where an instant vector is due; a subquery then runs at the query's step."""
    if isinstance(window, Subquery):
        window = replace(window, at_query_step=True)
    return Call(window.span, "last_over_time", (window,))


def too_deep() -> str:
    """The sentence for an expression nested beyond DEPTH_MAX."""
    return f"the expression is nested more than {DEPTH_MAX} deep (every operator of a chain counts)"


def _put(inner: Part, moved: Selector | Subquery, end: int) -> Part:
    """The part with its selector or subquery replaced, longer by the modifier."""
    span = Span(inner.span.start, end)
    node = inner.node
    if isinstance(node, RangeSelector):
        assert isinstance(moved, Selector)
        return replace(inner, node=replace(node, span=span, selector=moved))
    return replace(inner, node=replace(moved, span=span))


def _bare(node: Node) -> Node:
    """Without the parentheses around it."""
    while isinstance(node, Parenthesis):
        node = node.expression
    return node


def _wrong_count(signature: FunctionSignature, got: int) -> str:
    name, least, most = quoted(signature.name), signature.arguments_min, signature.arguments_max
    if least == most:
        return f"expected {least} argument(s) in call to {name}, got {got}"
    if got < least:
        return f"expected at least {least} argument(s) in call to {name}, got {got}"
    return f"expected at most {most} argument(s) in call to {name}, got {got}"


def _subquery_mend(inner: Part, range_ms: int) -> str:
    return f"; a subquery is written [{format_duration(range_ms)}:]" if inner.kind is INSTANT else ""
