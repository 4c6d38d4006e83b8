"""Times, steps, durations, limits and match[] out of a request, each fault with its own sentence.

URL and body are merged whatever the content type says (vmalert sends its parameters in the URL of a POST with an empty
JSON body; promtool and Grafana send forms): a form, or a JSON object whose members are the parameters. As in Prometheus
the body wins over the URL. Times are Unix seconds (integer or float) or RFC 3339; NaN and infinity are refused, and
what lies beyond TIME_MS_BOUND reads as the bound, since promtool says "from the beginning" with such numbers.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

import orjson

from flyproxy.api.faults import ApiFault, bad_data, bad_parameter
from flyproxy.series.durations import BadDurationError, parse_duration_ms

BODY_BYTES_MAX = 1024 * 1024
URL_BYTES_MAX = 64 * 1024
PARAMETERS_MAX = 512
"""Name and value pairs, URL and body together."""
MATCH_COUNT_MAX = 100
POINTS_MAX = 11_000
"""Steps of a range query, Prometheus' own bound."""
TIME_MS_BOUND = 1 << 60
"""About 36 million years either side of 1970."""
DURATION_MS_BOUND = (1 << 63) // 1_000_000
"""What fits Prometheus' int64 of nanoseconds."""

_NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?", re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d([.,]\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_FIRST_TIMES = {"-292273086-05-16T16:47:06Z": -TIME_MS_BOUND, "292277025-08-18T07:12:54.999999999Z": TIME_MS_BOUND}
_NOT_FINITE = {"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}


class Parameters:
    """What one request asks, by name; the first value of a name is the one that counts, `match[]` keeps all."""

    def __init__(self, body: Iterable[tuple[str, str]], url: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        count = 0
        for source in (_grouped(body), _grouped(url)):
            for name, values in source.items():
                count += len(values)
                if not name.endswith("[]") and len(set(values)) > 1:
                    raise bad_parameter(name, "it is given more than once, with different values")
                self._values.setdefault(name, []).extend(values)
        check_count(count)

    def text(self, name: str) -> str:
        """The value, "" when it is not there."""
        return self._values.get(name, [""])[0]

    def expression(self) -> str:
        """The `query`, which must be there."""
        text = self.text("query")
        if not text.strip():
            raise bad_parameter("query", "1:1: parse error: no expression found in input")
        return text

    def time_ms(self, name: str, default_ms: int | None = None) -> int:
        """One moment; without a default it must be there."""
        text = self.text(name)
        if not text and default_ms is not None:
            return default_ms
        return parsed_time_ms(name, text)

    def step_ms(self) -> int:
        """The resolution of a range query, at least one millisecond."""
        step_ms = parsed_duration_ms("step", self.text("step"))
        if step_ms <= 0:
            raise bad_parameter(
                "step",
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            )
        if step_ms < 1:
            raise bad_parameter("step", "the finest step is one millisecond (0.001)")
        return int(step_ms)

    def range_ms(self) -> tuple[int, int, int]:
        """(start, end, step) of a range query, within POINTS_MAX steps."""
        start_ms, end_ms = self.time_ms("start"), self.time_ms("end")
        if end_ms < start_ms:
            raise bad_parameter("end", "end timestamp must not be before start time")
        step_ms = self.step_ms()
        if (end_ms - start_ms) // step_ms > POINTS_MAX:
            raise bad_data(
                f"exceeded maximum resolution of {POINTS_MAX:,} points per timeseries. "
                "Try decreasing the query resolution (?step=XX)",
                "api_points",
            )
        return start_ms, end_ms, step_ms

    def span_ms(self, now_ms: int) -> tuple[int, int]:
        """(start, end) of a metadata query; everything up to now where they are left out."""
        start_ms, end_ms = self.time_ms("start", -TIME_MS_BOUND), self.time_ms("end", now_ms)
        if end_ms < start_ms:
            raise bad_parameter("end", "end timestamp must not be before start time")
        return start_ms, end_ms

    def timeout_s(self, longest_s: float) -> float:
        """The time the query may take: what was asked for, at most `longest_s`."""
        text = self.text("timeout")
        if not text:
            return longest_s
        asked_ms = parsed_duration_ms("timeout", text)
        if asked_ms <= 0:
            raise bad_parameter("timeout", f'"{_shown(text)}" is no time at all')
        return min(longest_s, asked_ms / 1000)

    def limit(self) -> int:
        """At most so many results; 0 (or nothing) is all of them."""
        text = self.text("limit")
        if not text:
            return 0
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise bad_parameter("limit", f'cannot parse "{_shown(text)}" to a whole number')
        if int(text) < 0:
            raise bad_parameter("limit", "limit must be non-negative")
        return int(text)

    def matches(self, *, needed: bool = False) -> tuple[str, ...]:
        """The selectors of `match[]`."""
        texts = tuple(self._values.get("match[]", ()))
        if needed and not texts:
            raise bad_data("no match[] parameter provided")
        if len(texts) > MATCH_COUNT_MAX:
            raise bad_data(
                f"{len(texts)} match[] parameters, at most {MATCH_COUNT_MAX} are accepted", "api_match_count"
            )
        return texts

    def metricsql(self) -> bool | None:
        """`dialect=promql` is strict, `dialect=metricsql` is not; None where it is left to the configuration."""
        match self.text("dialect"):
            case "":
                return None
            case "promql":
                return False
            case "metricsql":
                return True
            case other:
                raise bad_parameter("dialect", f'"{_shown(other)}" is not known; it is "promql" or "metricsql"')


def check_count(count: int) -> None:
    """Raises ApiFault for more parameters than are read; asked before they are decoded, which takes its time."""
    if count > PARAMETERS_MAX:
        raise bad_data(f"{count} parameters, at most {PARAMETERS_MAX} are read", "api_parameters")


def form_pairs(text: str | bytes, where: str) -> list[tuple[str, str]]:
    """`a=1&b=2`, percent-encoded; `where` names the place in faults: "URL" or "body"."""
    try:
        plain = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError:
        raise bad_data(f"the {where} is not UTF-8") from None
    pieces = [piece for piece in plain.split("&") if piece]
    check_count(len(pieces))
    split = [piece.partition("=") for piece in pieces]
    return [(_unquoted(name, where), _unquoted(value, where)) for name, _, value in split]


def body_pairs(body: bytes) -> list[tuple[str, str]]:
    """Parameters of a body: a JSON object when it begins like JSON, else a form."""
    text = body.strip()
    if not text:
        return []
    if text[:1] not in (b"{", b"["):
        return form_pairs(text, "body")
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError as fault:
        raise bad_data(f"the body begins like JSON but is none: {fault.msg} at byte {fault.pos}") from None
    if not isinstance(members, dict):
        raise bad_data("a JSON body must be an object of parameters")
    return list(_json_pairs(members))


def _json_pairs(members: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    for name, value in members.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bool) or not isinstance(item, str | int | float):
                raise bad_parameter(name, "in a JSON body it must be a string, a number or a list of these")
            yield name, item if isinstance(item, str) else repr(item)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups


def _unquoted(text: str, where: str) -> str:
    broken = _BAD_ESCAPE.search(text)
    if broken:
        raise bad_data(f'the {where} has a broken escape "{_shown(text[broken.start() : broken.start() + 3])}"')
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError:
        raise bad_data(f"the {where} holds a value that is not UTF-8") from None


def parsed_time_ms(name: str, text: str) -> int:
    """One moment out of a text; raises ApiFault, which calls it by `name`."""
    if text in _FIRST_TIMES:
        return _FIRST_TIMES[text]
    if text.lower() in _NOT_FINITE:
        raise bad_parameter(name, f'"{text}" is not a moment; a timestamp must be finite')
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        if math.isinf(seconds) or abs(seconds) * 1000 >= TIME_MS_BOUND:
            return TIME_MS_BOUND if seconds > 0 else -TIME_MS_BOUND
        return round(seconds * 1000)
    if _RFC3339.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:
            raise _not_a_time(name, text) from None
        passed = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return (passed.days * 86_400 + passed.seconds) * 1000 + passed.microseconds // 1000
    raise _not_a_time(name, text)


def _not_a_time(name: str, text: str) -> ApiFault:
    return bad_parameter(name, f'cannot parse "{_shown(text)}" to a valid timestamp')


def parsed_duration_ms(name: str, text: str) -> float:
    """Milliseconds, not yet whole: the caller says what a part of one means."""
    if text.lower() in _NOT_FINITE:
        raise bad_parameter(name, f'"{text}" is not a duration; it must be finite')
    try:
        duration_ms = float(text) * 1000 if _NUMBER.fullmatch(text) else float(parse_duration_ms(text))
    except BadDurationError:
        raise bad_parameter(name, f'cannot parse "{_shown(text)}" to a valid duration') from None
    if abs(duration_ms) > DURATION_MS_BOUND:
        raise bad_parameter(name, f'cannot parse "{_shown(text)}" to a valid duration. It overflows int64')
    return duration_ms


def _shown(text: str) -> str:
    """What was sent, short enough for a sentence."""
    return text if len(text) <= 64 else text[:61] + "..."
