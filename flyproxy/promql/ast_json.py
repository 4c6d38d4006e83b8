"""Nodes as the JSON of Prometheus 3's `/api/v1/parse_query` (web/api/v1/translate_ast.go, and what its UI reads).

Offsets, ranges, steps and timestamps are milliseconds. As in Prometheus the matcher of a name that stands before the
braces comes last. What MetricsQL left out (a range) is null; its further arguments have keys of their own.
"""

from flyproxy.promql.functions import FunctionSignature, signature_of
from flyproxy.promql.nodes import (
    Aggregation,
    AtBound,
    Binary,
    Call,
    Matching,
    Node,
    Number,
    Parenthesis,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
    ValueType,
)
from flyproxy.promql.ranking import value_text
from flyproxy.series.labels import METRIC_NAME
from flyproxy.series.matchers import Matcher, MatchOp

Json = dict[str, object]

_TYPE_NAMES = {
    ValueType.SCALAR: "scalar",
    ValueType.STRING: "string",
    ValueType.INSTANT: "vector",
    ValueType.RANGE: "matrix",
}


def ast_json(node: Node) -> Json:
    """The node and all below it, as values that JSON knows."""
    match node:
        case Number():
            return {"type": "numberLiteral", "val": value_text(node.value)}
        case String():
            return {"type": "stringLiteral", "val": node.value}
        case Selector():
            return {"type": "vectorSelector", **_selected(node)}
        case RangeSelector():
            return {"type": "matrixSelector", "range": node.range_ms, **_selected(node.selector)}
        case Subquery():
            return {
                "type": "subquery",
                "expr": ast_json(node.expression),
                "range": node.range_ms,
                "step": node.step_ms or 0,
                **_moved(node.offset_ms, node.at_ms),
            }
        case Unary():
            return {"type": "unaryExpr", "op": "-" if node.negative else "+", "expr": ast_json(node.expression)}
        case Parenthesis():
            return {"type": "parenExpr", "expr": ast_json(node.expression)}
        case Call():
            return {"type": "call", "func": _function(node), "args": [ast_json(each) for each in node.arguments]}
        case Aggregation():
            return _aggregation(node)
        case Binary():
            return {
                "type": "binaryExpr",
                "op": node.operator,
                "lhs": ast_json(node.left),
                "rhs": ast_json(node.right),
                "matching": _matching(node.matching) if node.matching else None,
                "bool": node.return_bool,
            }


def _aggregation(node: Aggregation) -> Json:
    found: Json = {
        "type": "aggregation",
        "op": node.operator,
        "expr": ast_json(node.expression),
        "param": ast_json(node.parameter) if node.parameter else None,
        "grouping": list(node.labels),
        "without": node.without,
    }
    if node.others:
        found["others"] = [ast_json(each) for each in node.others]
    if node.rest_label is not None:
        found["restLabel"] = node.rest_label
    return found


def _matching(matching: Matching) -> Json:
    return {
        "card": matching.card.value,
        "labels": list(matching.labels),
        "on": matching.on,
        "include": list(matching.include),
    }


def _function(node: Call) -> Json:
    """What Prometheus says of a function; of MetricsQL's histogram_quantiles, whose vector comes last, what stands."""
    signature = signature_of(node.function, metricsql=True) or FunctionSignature(node.function, ())
    types = [_TYPE_NAMES[kind] for kind in signature.arguments]
    variadic = signature.variadic
    if node.function == "histogram_quantiles" and isinstance(node.arguments[0], String):
        types, variadic = ["string", "scalar", "vector"], -1
    return {
        "name": node.function,
        "argTypes": types,
        "variadic": variadic,
        "returnType": _TYPE_NAMES[signature.result],
    }


def _selected(selector: Selector) -> Json:
    first = selector.matchers[0] if selector.matchers else None
    name, matchers = "", selector.matchers
    if first is not None and first.name == METRIC_NAME and first.op is MatchOp.EQUAL:
        name, matchers = first.value, (*matchers[1:], first)
    return {
        "name": name,
        "matchers": [_matcher(each) for each in matchers],
        **_moved(selector.offset_ms, selector.at_ms),
    }


def _matcher(matcher: Matcher) -> Json:
    return {"name": matcher.name, "type": matcher.op.value, "value": matcher.value}


def _moved(offset_ms: int, at_ms: int | AtBound | None) -> Json:
    bound = isinstance(at_ms, AtBound)
    return {
        "offset": offset_ms,
        "timestamp": None if bound else at_ms,
        "startOrEnd": at_ms.value if isinstance(at_ms, AtBound) else None,
    }
