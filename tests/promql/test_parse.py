import math

import pytest

from flyproxy.promql.build import DEPTH_MAX, NODES_MAX
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
from flyproxy.promql.parse import EXPRESSION_CHARACTERS_MAX, ParseError, parse, parse_selector, value_type
from flyproxy.series.matchers import Matcher, MatchOp


def named(name: str) -> Matcher:
    return Matcher("__name__", MatchOp.EQUAL, name)


def refusal(expression: str, *, metricsql: bool = False) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(expression, metricsql=metricsql)
    return caught.value


# ---- what the nodes hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("0x3d", 61),
        ("0X_1f", 31),
        ("017", 15),
        ("08", 8),
        ("017.5", 17.5),
        ("1_000", 1000),
        ("1.", 1),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("5m", 300),
        ("100ms", 0.1),
        ("Inf", math.inf),
        ("-inf", -math.inf),
        ("--1", 1),
        ("9223372036854775807", 9223372036854775807.0),
    ],
)
def test_a_number_is_read_as_go_reads_it(text: str, value: float) -> None:
    assert parse(text) == Number(Span(0, len(text)), value)


def test_minus_zero_keeps_its_sign_and_nan_is_nan() -> None:
    zero, nan = parse("-0"), parse("NaN")
    assert isinstance(zero, Number)
    assert math.copysign(1, zero.value) == -1
    assert isinstance(nan, Number)
    assert math.isnan(nan.value)


def test_a_selector_has_its_name_as_first_matcher() -> None:
    assert parse('x{a="b", c!~"d.*"}') == Selector(
        Span(0, 18), (named("x"), Matcher("a", MatchOp.EQUAL, "b"), Matcher("c", MatchOp.NOT_MATCH, "d.*"))
    )


def test_a_quoted_name_is_the_same_as_a_plain_one() -> None:
    assert parse('{"x.y", "a b"="c"}') == Selector(Span(0, 18), (named("x.y"), Matcher("a b", MatchOp.EQUAL, "c")))


def test_modifiers_come_in_any_order_and_lengthen_the_span() -> None:
    first, second = parse("x @ 1.5 offset -5m"), parse("x offset -5m @ 1.5")
    assert first == second == Selector(Span(0, 18), (named("x"),), -300_000, 1500)


def test_a_window_belongs_to_its_selector() -> None:
    selector = Selector(Span(0, 1), (named("x"),), 60_000, AtBound.END)
    assert parse("x[90] @ end() offset 1m") == RangeSelector(Span(0, 23), selector, 90_000)


def test_a_subquery_has_a_step_only_where_one_is_written() -> None:
    x = Selector(Span(0, 1), (named("x"),))
    assert parse("x[1h:]") == Subquery(Span(0, 6), x, 3_600_000, None)
    assert parse("x[1h:1m] offset 5m @ start()") == Subquery(Span(0, 28), x, 3_600_000, 60_000, 300_000, AtBound.START)


@pytest.mark.parametrize("at_text", ["1.0005", "-1.0005"])
def test_a_half_millisecond_rounds_away_from_zero_as_in_go(at_text: str) -> None:
    node = parse(f"x @ {at_text}")
    assert isinstance(node, Selector)
    assert node.at_ms == (-1001 if at_text[0] == "-" else 1001)


def test_labels_stand_before_or_after_an_aggregation() -> None:
    before, after = parse("sum by (a, b) (x)"), parse("sum(x) by (a, b)")
    assert isinstance(before, Aggregation)
    assert isinstance(after, Aggregation)
    assert (before.operator, before.labels, before.without) == ("sum", ("a", "b"), False)
    assert (after.operator, after.labels, after.without) == ("sum", ("a", "b"), False)
    assert after.span == Span(0, 16)


def test_an_aggregation_has_its_parameter_and_a_small_name() -> None:
    node = parse("TOPK without (a,) (3, x)")
    assert isinstance(node, Aggregation)
    assert (node.operator, node.parameter, node.without) == ("topk", Number(Span(19, 20), 3), True)


def test_matching_is_there_between_vectors_and_only_there() -> None:
    def matching(text: str) -> Matching | None:
        node = parse(text)
        assert isinstance(node, Binary)
        return node.matching

    assert matching("a + b") == Matching(Card.ONE_TO_ONE, False, ())
    assert matching("a and b") == Matching(Card.MANY_TO_MANY, False, ())
    assert matching("a * on (i) b") == Matching(Card.ONE_TO_ONE, True, ("i",))
    assert matching("a * ignoring (i) group_left (k) b") == Matching(Card.MANY_TO_ONE, False, ("i",), ("k",))
    assert matching("a * on (i) group_right b") == Matching(Card.ONE_TO_MANY, True, ("i",), ())
    assert matching("a + 1") is None
    assert matching("1 + 2") is None


def tree(node: Node) -> str:
    """With all parentheses."""
    match node:
        case Binary():
            return f"({tree(node.left)} {node.operator} {tree(node.right)})"
        case Unary():
            return f"({'-' if node.negative else '+'}{tree(node.expression)})"
        case Parenthesis():
            return f"[{tree(node.expression)}]"
        case Number():
            return f"{node.value:g}"
        case Selector():
            return node.matchers[0].value
        case _:
            raise AssertionError(node)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a - b - c", "((a - b) - c)"),
        ("a - (b - c)", "(a - [(b - c)])"),
        ("a ^ b ^ c", "(a ^ (b ^ c))"),
        ("a + b * c ^ d", "(a + (b * (c ^ d)))"),
        ("a ^ b * c + d", "(((a ^ b) * c) + d)"),
        ("a == b + c", "(a == (b + c))"),
        ("a or b and c unless d", "(a or ((b and c) unless d))"),
        ("a < b == c", "((a < b) == c)"),
        ("a atan2 b * c", "((a atan2 b) * c)"),
        ("-a ^ b", "(-(a ^ b))"),
        ("-a * b", "((-a) * b)"),
        ("-1 ^ 2", "(-(1 ^ 2))"),
        ("2 ^ -1", "(2 ^ -1)"),
        ("a ^ -b * c", "((a ^ (-b)) * c)"),
        ("a ^ -b ^ c", "(a ^ (-(b ^ c)))"),
        ("a * -b ^ c * d", "((a * (-(b ^ c))) * d)"),
        ("- -a", "(-(-a))"),
        ("a--1", "(a - -1)"),
        ("a AND b Or c", "((a and b) or c)"),
    ],
)
def test_operators_bind_as_prometheus_says(text: str, wanted: str) -> None:
    assert tree(parse(text)) == wanted


def test_a_keyword_is_a_name_wherever_nothing_else_can_stand() -> None:
    assert tree(parse("and and and")) == "(and and and)"
    assert tree(parse("sum + by")) == "(sum + by)"
    node = parse("sum by (by, and) (offset offset 5m)")
    assert isinstance(node, Aggregation)
    assert node.labels == ("by", "and")
    assert isinstance(node.expression, Selector)
    assert (node.expression.matchers, node.expression.offset_ms) == ((named("offset"),), 300_000)


def test_comments_and_lines_change_nothing_but_places() -> None:
    node = parse("# first\nsum( # open\r\n  x{ # braces\n a = 'b' } )\n# last")
    assert isinstance(node, Aggregation)
    assert node.span == Span(8, 47)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\"b\n\t\\"', 'a"b\n\t\\'),
        (r"'it\'s'", "it's"),
        (r"`a\n" "`", r"a\n"),
        ("`a\nb`", "a\nb"),
        (r'"\x41\101\u00e9\U0001F600"', "AAé😀"),
        (r'"\xc3\xa9"', "é"),
        ('"日本"', "日本"),
    ],
)
def test_a_string_has_the_escapes_of_go(text: str, value: str) -> None:
    assert parse(text) == String(Span(0, len(text)), value)


# ---- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1 + time()", ValueType.SCALAR),
        ("-(pi())", ValueType.SCALAR),
        ("scalar(x)", ValueType.SCALAR),
        ('"a"', ValueType.STRING),
        ("x", ValueType.INSTANT),
        ("1 + x", ValueType.INSTANT),
        ("rate(x[5m])", ValueType.INSTANT),
        ("(sum(x))", ValueType.INSTANT),
        ("x[5m]", ValueType.RANGE),
        ("(x[5m:])", ValueType.RANGE),
    ],
)
def test_every_node_has_a_type(text: str, kind: ValueType) -> None:
    assert value_type(parse(text)) is kind


def test_a_fault_of_syntax_is_told_before_a_fault_of_types() -> None:
    assert refusal("rate(x) + )").sentence == 'unexpected ")"'
    assert refusal("rate(x) + abs()").sentence.startswith("rate() needs a range")


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_names_line_and_column() -> None:
    fault = refusal('sum(x)\n  / sum(y{a="é", b})')
    assert str(fault) == '2:19: parse error: unexpected "}" in label matching, expected label matching operator'
    assert (fault.line, fault.column, fault.position) == (2, 19, Span(25, 26))


def test_nothing_asked_is_said_so() -> None:
    assert str(refusal("")) == "1:1: parse error: no expression found in input"
    assert refusal(" # nothing \n").sentence == "no expression found in input"


def test_a_missing_window_tells_its_mend_and_its_place() -> None:
    fault = refusal("sum(rate(fly_edge_http_responses_count))")
    assert fault.sentence.startswith("rate() needs a range, e.g. rate(fly_edge_http_responses_count[5m])")
    assert fault.position == Span(9, 38)


def test_a_text_that_is_no_unicode_is_refused() -> None:
    assert str(refusal('x{a="\ud800"}')) == "1:6: parse error: invalid UTF-8 rune"


@pytest.mark.parametrize(
    "text", ["x[1e300]", "x offset 1e300", "x offset Inf", "x @ 1e300", "x[5m] @ 9223372036854776"]
)
def test_a_time_too_far_away_is_refused(text: str) -> None:
    assert "out of" in refusal(text).sentence


# ---- limits ----------------------------------------------------------------------------------------------------------

HOSTILE = {
    "parentheses": "(" * 10_000 + "x" + ")" * 10_000,
    "a sum": " + ".join(["x"] * 20_000),
    "powers": "x ^ " * 10_000 + "x",
    "signs": "-" * 60_000 + "x",
    "calls": "abs(" * 10_000,
    "aggregations": "sum(" * 10_000,
    "braces": "x" + "{" * 60_000,
    "brackets": "x" + "[" * 60_000,
    "subqueries": "x" + "[1h:]" * 10_000,
    "a number": "9" * 60_000,
    "digits": "1_" * 30_000,
    "a duration": "1" * 60_000 + "m",
    "durations": "1m" * 30_000,
    "an open string": '"' + '\\"' * 30_000,
    "an open selector": "x{" + 'a="b",' * 10_000,
    "a name": "f" * 60_000 + "(x)",
    "parts": "sum(" + "label_join(x" + ', "a"' * (NODES_MAX + 10) + "))",
    "length": "x" * (EXPRESSION_CHARACTERS_MAX + 1),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("metricsql", [False, True])
def test_a_hostile_expression_gets_a_short_error(text: str, metricsql: bool) -> None:
    assert len(refusal(text, metricsql=metricsql).sentence) < 250


def test_the_deepest_expression_parses() -> None:
    assert parse("(" * (DEPTH_MAX - 1) + "x" + ")" * (DEPTH_MAX - 1)) is not None
    assert parse(" + ".join(["x"] * DEPTH_MAX)) is not None
    assert "nested more than 200 deep" in refusal(" + ".join(["x"] * (DEPTH_MAX + 1))).sentence


def test_what_is_wide_and_flat_parses() -> None:
    many = ", ".join([f'"l{number}"' for number in range(5000)])
    assert parse(f'label_join(x, "d", ",", {many})') is not None


# ---- a lone selector -------------------------------------------------------------------------------------------------


def test_a_lone_selector_may_match_everything() -> None:
    assert parse_selector('{region=~".*"}') == (Matcher("region", MatchOp.MATCH, ".*"),)
    assert parse_selector("up") == (named("up"),)
    assert parse_selector("{}") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1:1: parse error: no selector found in input"),
        ("x + y", "1:3: parse error: unexpected <op:+> in selector, expected end of input"),
        ("x[5m]", '1:2: parse error: unexpected "[" in selector, expected end of input'),
        ("sum(x)", '1:4: parse error: unexpected "(" in selector, expected end of input'),
        ("1", '1:1: parse error: unexpected number "1"'),
        ('x{"y"}', '1:1: parse error: metric name must not be set twice: "x" or "y"'),
    ],
)
def test_what_is_no_lone_selector_is_refused(text: str, told: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_selector(text)
    assert str(caught.value) == told


# ---- MetricsQL -------------------------------------------------------------------------------------------------------


def call(text: str) -> Call:
    node = parse(text, metricsql=True)
    assert isinstance(node, Call)
    return node


def test_metricsql_a_missing_window_is_none() -> None:
    x = Selector(Span(5, 6), (named("x"),))
    assert call("rate(x)").arguments == (RangeSelector(Span(5, 6), x, None),)
    assert call("rate((x))").arguments[0] == RangeSelector(Span(5, 8), Selector(Span(6, 7), (named("x"),)), None)


def test_metricsql_a_missing_window_keeps_its_modifiers() -> None:
    (argument,) = call("rate(x offset 5m)").arguments
    assert isinstance(argument, RangeSelector)
    assert (argument.range_ms, argument.selector.offset_ms) == (None, 300_000)


def test_metricsql_a_missing_window_of_anything_else_is_a_subquery() -> None:
    (argument,) = call("max_over_time(sum(x))").arguments
    assert isinstance(argument, Subquery)
    assert (argument.range_ms, argument.step_ms) == (None, None)


def test_metricsql_a_misplaced_bracket_is_the_last_value_of_a_subquery() -> None:
    node = parse("sum(rate(x)[5m]) by (status)", metricsql=True)
    assert isinstance(node, Aggregation)
    last = node.expression
    assert isinstance(last, Call)
    assert last.function == "last_over_time"
    (window,) = last.arguments
    assert isinstance(window, Subquery)
    assert (window.range_ms, window.step_ms) == (300_000, None)
    assert isinstance(window.expression, Call)
    assert window.expression.function == "rate"


@pytest.mark.parametrize("text", ["x[5m] == 1", "-x[5m]", "abs(x[5m])", "sum(x[5m])", "topk(2, x[5m])", "x[5m][1h:1m]"])
def test_metricsql_a_window_where_a_vector_is_wanted_is_its_last_value(text: str) -> None:
    assert "last_over_time" in repr(parse(text, metricsql=True))


def test_metricsql_a_window_alone_stays_a_window() -> None:
    assert value_type(parse("x[5m]", metricsql=True)) is ValueType.RANGE


def test_metricsql_an_aggregation_takes_several_expressions_and_scalars() -> None:
    node = parse("max by (a) (0, x, y[5m])", metricsql=True)
    assert isinstance(node, Aggregation)
    assert node.parameter is None
    assert [value_type(each) for each in (node.expression, *node.others)] == [
        ValueType.SCALAR,
        ValueType.INSTANT,
        ValueType.INSTANT,
    ]


def test_metricsql_a_ranking_over_the_range_has_a_label_for_the_rest() -> None:
    node = parse('topk_avg(5, sum(rate(x)) by (region), "region=other")', metricsql=True)
    assert isinstance(node, Aggregation)
    assert isinstance(node.parameter, Number)
    assert isinstance(node.expression, Aggregation)
    assert (node.operator, node.rest_label, node.others) == ("topk_avg", "region=other", ())
    assert isinstance(parse("BOTTOMK_LAST by (a) (5, x)", metricsql=True), Aggregation)


def test_metricsql_quantiles_have_their_label_first() -> None:
    node = parse('histogram_quantiles("p", 0.5, 0.9, sum(increase(x))by(le))', metricsql=True)
    assert isinstance(node, Call)
    assert [value_type(each) for each in node.arguments] == [
        ValueType.STRING,
        ValueType.SCALAR,
        ValueType.SCALAR,
        ValueType.INSTANT,
    ]


@pytest.mark.parametrize("name", ["mode", "topk_avg", "bottomk_min"])
@pytest.mark.parametrize("metricsql", [False, True])
def test_metricsql_aggregations_can_still_be_names(name: str, metricsql: bool) -> None:
    assert parse(name, metricsql=metricsql) == Selector(Span(0, len(name)), (named(name),))
    assert parse(f'{name}{{{name}="a"}} > 1', metricsql=metricsql) is not None
    assert parse(f"sum by ({name}) (x)", metricsql=metricsql) is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("median(x)", "1:1: parse error: median() is MetricsQL and not built yet"),
        ("abs(rollup(x))", "1:5: parse error: rollup() is MetricsQL and not built yet"),
        (
            "topk_avg(x)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        (
            'topk_avg(1, x, "a", "b")',
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 4",
        ),
        ("topk_avg(1, x, y)", '1:16: parse error: topk_avg() needs its label as a string, e.g. "region=other"'),
        ("mode(1)", "1:6: parse error: expected type instant vector in aggregation expression, got scalar"),
        ('max(x, "a")', "1:8: parse error: expected type instant vector in aggregation expression, got string"),
        (
            "topk(1, x, y)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 3",
        ),
        (
            'histogram_quantiles("p")',
            '1:1: parse error: histogram_quantiles() needs a label, quantiles and buckets: ("phi", 0.5, 0.99, x)',
        ),
        (
            'histogram_quantiles("p", x, x)',
            '1:26: parse error: expected type scalar in call to function "histogram_quantiles", got instant vector',
        ),
        ('label_set(x, "a", "b", "c")', "1:1: parse error: label_set() needs a value for every label"),
        (
            "drop_common_labels()",
            '1:1: parse error: expected at least 1 argument(s) in call to "drop_common_labels", got 0',
        ),
    ],
)
def test_metricsql_that_is_wrong_or_not_built_is_refused(text: str, told: str) -> None:
    assert str(refusal(text, metricsql=True)) == told


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('label_uppercase(x, "region")', "1:1"),
        ('sum(label_set(x, "a", "b"))', "1:5"),
        ("drop_common_labels(x)", "1:1"),
        ("sum(mode(x))", "1:5"),
        ('topk_avg(5, x, "a=b")', "1:1"),
        ("max(0, x)", "1:1"),
        ('histogram_quantiles("p", 0.5, x)', "1:21"),
        ("outliersk(1, x)", "1:1"),
    ],
)
def test_metricsql_is_told_with_its_place_where_it_is_off(text: str, place: str) -> None:
    fault = refusal(text)
    assert "MetricsQL, which is off here" in fault.sentence
    assert f"{fault.line}:{fault.column}" == place


def test_metricsql_functions_are_known_only_where_it_is_on() -> None:
    assert isinstance(parse('label_uppercase(x, "region")', metricsql=True), Call)
