"""The values of number, duration and string tokens. Each raises ParseError at the token, or inside of it."""

import math

from flyproxy.promql.lex import Kind, Token
from flyproxy.promql.nodes import Span
from flyproxy.promql.parse_error import ParseError
from flyproxy.promql.quoting import QuotingError, unquote
from flyproxy.series.durations import BadDurationError, parse_duration_ms, seconds_to_ms


def number_of(token: Token, expression: str) -> float:
    """The value of a number; of a duration its seconds."""
    if token.kind is Kind.DURATION:
        return duration_ms_of(token, expression) / 1000
    text = token.word.replace("_", "")
    value = _go_number(text)
    if math.isinf(value) and text != "inf":
        raise ParseError(f"error parsing number: {token.shown()}: value out of range", token.span, expression)
    return value


def duration_ms_of(token: Token, expression: str) -> int:
    """The milliseconds of a duration; a number is seconds, as Prometheus 3 takes it in `[300]` and `offset 60`."""
    try:
        if token.kind is Kind.DURATION:
            return parse_duration_ms(token.text)
        return seconds_to_ms(number_of(token, expression))
    except BadDurationError as bad:
        raise ParseError(str(bad), token.span, expression) from None


def string_of(token: Token, expression: str) -> str:
    """The text of a string without its quotes and escapes."""
    try:
        return unquote(token.text)
    except QuotingError as bad:
        raise ParseError(str(bad), Span(token.span.start + bad.offset, token.span.end), expression) from None


def _go_number(text: str) -> float:
    """Of a decimal, a hexadecimal or, as in Go, an octal with a leading 0; `text` is in small letters."""
    if text.startswith("0x"):
        return _float(int(text[2:], 16))
    if len(text) > 1 and text[0] == "0" and all(digit in "01234567" for digit in text):
        return _float(int(text, 8))
    return float(text)


def _float(whole: int) -> float:
    try:
        return float(whole)
    except OverflowError:
        return math.inf
