"""What a request may ask, and the sentence for everything it may not."""

import pytest

from flyproxy.api.faults import ApiFault
from flyproxy.api.parameters import (
    MATCH_COUNT_MAX,
    PARAMETERS_MAX,
    TIME_MS_BOUND,
    Parameters,
    body_pairs,
    form_pairs,
)


def asked(url: str = "", body: str = "") -> Parameters:
    return Parameters(body_pairs(body.encode()), form_pairs(url, "URL"))


def sentence(fault: pytest.ExceptionInfo[ApiFault]) -> str:
    assert (fault.value.status, fault.value.error_type) == (400, "bad_data")
    return str(fault.value)


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("4", 4_000),
        ("1435781451.781", 1_435_781_451_781),
        ("1.5e3", 1_500_000),
        ("-1.5", -1_500),
        (".5", 500),
        ("5.", 5_000),
        ("2015-07-01T20:10:51.781Z", 1_435_781_451_781),
        ("2015-07-01t20:10:51z", 1_435_781_451_000),
        ("2015-07-01T22:10:51.781999999+02:00", 1_435_781_451_781),
        ("2015-07-01T20:10:51,781Z", 1_435_781_451_781),
        ("1969-12-31T23:59:59.5Z", -500),
        ("1e300", TIME_MS_BOUND),
        ("-9223309901257974", -TIME_MS_BOUND),
        ("9" * 400, TIME_MS_BOUND),
        ("-292273086-05-16T16:47:06Z", -TIME_MS_BOUND),
    ],
)
def test_a_time_is_unix_seconds_or_rfc3339(text: str, expected_ms: int) -> None:
    assert asked(f"time={text.replace('+', '%2B')}").time_ms("time") == expected_ms


@pytest.mark.parametrize(
    "text",
    ["x", "1_000", "0x10", "1 ", "١", "2015-07-01", "2015-13-01T00:00:00Z", "2015-07-01T20:10:51", "--1", "1e", "e5"],
)
def test_a_bad_time_is_quoted(text: str) -> None:
    with pytest.raises(ApiFault) as fault:
        asked(f"time={text}").time_ms("time")
    assert sentence(fault) == f'invalid parameter "time": cannot parse "{text}" to a valid timestamp'


@pytest.mark.parametrize("text", ["NaN", "inf", "-Inf", "%2BInf", "Infinity"])
def test_a_time_is_finite(text: str) -> None:
    with pytest.raises(ApiFault) as fault:
        asked(f"time={text}").time_ms("time")
    assert "a timestamp must be finite" in sentence(fault)


def test_a_range_needs_its_start() -> None:
    with pytest.raises(ApiFault) as fault:
        asked("query=1&end=1&step=1").range_ms()
    assert sentence(fault) == 'invalid parameter "start": cannot parse "" to a valid timestamp'


def test_a_long_value_is_quoted_in_part() -> None:
    with pytest.raises(ApiFault) as fault:
        asked("time=" + "x" * 5000).time_ms("time")
    assert len(sentence(fault)) < 150


@pytest.mark.parametrize(
    ("text", "step_ms"), [("15", 15_000), ("0.5", 500), ("1m0s", 60_000), ("300s", 300_000), ("1h30m", 5_400_000)]
)
def test_a_step_is_seconds_or_a_duration(text: str, step_ms: int) -> None:
    assert asked(f"start=0&end=1&step={text}").range_ms() == (0, 1000, step_ms)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("start=0&end=1", 'invalid parameter "step": cannot parse "" to a valid duration'),
        ("start=0&end=1&step=x", 'invalid parameter "step": cannot parse "x" to a valid duration'),
        ("start=0&end=1&step=NaN", 'invalid parameter "step": "NaN" is not a duration; it must be finite'),
        (
            "start=0&end=1&step=0",
            'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
            "Try a positive integer",
        ),
        (
            "start=0&end=1&step=-5",
            'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
            "Try a positive integer",
        ),
        ("start=0&end=1&step=0.0004", 'invalid parameter "step": the finest step is one millisecond (0.001)'),
        ("start=0&end=1&step=1e300", 'invalid parameter "step": cannot parse "1e300" to a valid duration. '),
        ("start=5&end=1&step=1", 'invalid parameter "end": end timestamp must not be before start time'),
        ("start=x&end=1&step=1", 'invalid parameter "start": cannot parse "x" to a valid timestamp'),
        (
            "start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. "
            "Try decreasing the query resolution (?step=XX)",
        ),
    ],
)
def test_every_bad_range_has_its_sentence(url: str, expected: str) -> None:
    with pytest.raises(ApiFault) as fault:
        asked(url).range_ms()
    assert sentence(fault).startswith(expected)


def test_eleven_thousand_steps_are_still_answered() -> None:
    assert asked("start=0&end=11000&step=1").range_ms() == (0, 11_000_000, 1000)


@pytest.mark.parametrize("url", ["", "query=", "query=%20%0A"])
def test_a_query_must_be_there(url: str) -> None:
    with pytest.raises(ApiFault) as fault:
        asked(url).expression()
    assert sentence(fault) == 'invalid parameter "query": 1:1: parse error: no expression found in input'


def test_the_body_wins_over_the_url_and_both_are_read() -> None:
    parameters = asked("query=up&time=4&match[]=a", "query=down&match[]=b")
    assert parameters.expression() == "down"
    assert parameters.time_ms("time") == 4000
    assert parameters.matches() == ("b", "a")


@pytest.mark.parametrize("body", ["{}", "", '{"query": "1+1", "time": 4}', "query=1%2B1&time=4"])
def test_a_body_is_a_form_or_a_json_object(body: str) -> None:
    parameters = asked("query=1%2B1&time=4", body)
    assert (parameters.expression(), parameters.time_ms("time")) == ("1+1", 4000)


def test_a_json_list_gives_all_selectors() -> None:
    assert asked(body='{"match[]": ["a", "b"]}').matches() == ("a", "b")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{", "the body begins like JSON but is none: "),
        ("[1]", "a JSON body must be an object of parameters"),
        ('{"query": {"a": 1}}', 'invalid parameter "query": in a JSON body it must be a string'),
        ('{"query": true}', 'invalid parameter "query": in a JSON body it must be a string'),
        ("query=%zz", 'the body has a broken escape "%zz"'),
        ("query=%f", 'the body has a broken escape "%f"'),
        ("query=%ff", "the body holds a value that is not UTF-8"),
        ("query=a&query=b", 'invalid parameter "query": it is given more than once, with different values'),
    ],
)
def test_every_bad_body_has_its_sentence(body: str, expected: str) -> None:
    with pytest.raises(ApiFault) as fault:
        asked(body=body)
    assert sentence(fault).startswith(expected)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(ApiFault) as fault:
        body_pairs(b"query=\xff")
    assert sentence(fault) == "the body is not UTF-8"


def test_the_same_value_twice_is_no_fault() -> None:
    assert asked("query=a&query=a").expression() == "a"


def test_parameters_are_bounded() -> None:
    with pytest.raises(ApiFault) as fault:
        asked("&".join(f"p{number}=1" for number in range(PARAMETERS_MAX + 1)))
    assert fault.value.limit == "api_parameters"


def test_selectors_are_bounded() -> None:
    with pytest.raises(ApiFault) as fault:
        asked("&".join(f"match[]=a{number}" for number in range(MATCH_COUNT_MAX + 1))).matches()
    assert fault.value.limit == "api_match_count"


def test_series_needs_a_selector() -> None:
    with pytest.raises(ApiFault) as fault:
        asked().matches(needed=True)
    assert sentence(fault) == "no match[] parameter provided"


@pytest.mark.parametrize(("url", "limit"), [("", 0), ("limit=0", 0), ("limit=7", 7)])
def test_a_limit_is_a_whole_number(url: str, limit: int) -> None:
    assert asked(url).limit() == limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", 'cannot parse "x" to a whole number'),
        ("1.5", 'cannot parse "1.5" to a whole number'),
        ("-1", "limit must be non-negative"),
    ],
)
def test_a_bad_limit_has_its_sentence(text: str, expected: str) -> None:
    with pytest.raises(ApiFault) as fault:
        asked(f"limit={text}").limit()
    assert sentence(fault) == f'invalid parameter "limit": {expected}'


@pytest.mark.parametrize(
    ("url", "timeout_s"), [("", 5.0), ("timeout=2", 2.0), ("timeout=1h", 5.0), ("timeout=500ms", 0.5)]
)
def test_a_timeout_only_shortens(url: str, timeout_s: float) -> None:
    assert asked(url).timeout_s(5.0) == timeout_s


@pytest.mark.parametrize(
    ("text", "expected"),
    [("x", 'cannot parse "x" to a valid duration'), ("0", '"0" is no time at all'), ("-1", '"-1" is no time at all')],
)
def test_a_bad_timeout_has_its_sentence(text: str, expected: str) -> None:
    with pytest.raises(ApiFault) as fault:
        asked(f"timeout={text}").timeout_s(5.0)
    assert sentence(fault) == f'invalid parameter "timeout": {expected}'


@pytest.mark.parametrize(("url", "metricsql"), [("", None), ("dialect=promql", False), ("dialect=metricsql", True)])
def test_the_dialect_is_chosen_per_query(url: str, metricsql: bool | None) -> None:
    assert asked(url).metricsql() is metricsql


def test_an_unknown_dialect_is_named() -> None:
    with pytest.raises(ApiFault) as fault:
        asked("dialect=sql").metricsql()
    assert sentence(fault) == 'invalid parameter "dialect": "sql" is not known; it is "promql" or "metricsql"'


def test_a_metadata_query_reaches_from_the_beginning_until_now() -> None:
    assert asked().span_ms(now_ms=99) == (-TIME_MS_BOUND, 99)
    assert asked("start=1&end=2.5").span_ms(now_ms=99) == (1000, 2500)
