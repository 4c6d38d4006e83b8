"""A condition on one label of a series: = != =~ !~, where patterns are RE2 and match the whole value."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import re2

from flyproxy.errors import FlyproxyError


class MatchOp(StrEnum):
    """The four label matching operators."""

    EQUAL = "="
    NOT_EQUAL = "!="
    MATCH = "=~"
    NOT_MATCH = "!~"


class BadPatternError(FlyproxyError):
    """A pattern RE2 does not accept (the sender's fault)."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """A label that is missing has the value ""."""

    name: str
    op: MatchOp
    value: str

    def predicate(self) -> Callable[[str], bool]:
        """The test for one value; raises BadPatternError. Callers keep verdicts per distinct value, and may keep the
        test: it holds no compiled pattern (a hostile one has 16 MB), only the way to it."""
        wanted = self.value
        match self.op:
            case MatchOp.EQUAL:
                return lambda value: value == wanted
            case MatchOp.NOT_EQUAL:
                return lambda value: value != wanted
            case MatchOp.MATCH:
                compiled_pattern(wanted)
                return lambda value: compiled_pattern(wanted)(value)
            case MatchOp.NOT_MATCH:
                compiled_pattern(wanted)
                return lambda value: not compiled_pattern(wanted)(value)


@lru_cache(maxsize=1024)
def compiled_pattern(pattern: str) -> Callable[[str], bool]:
    """An anchored RE2 match where a dot is any character; alternations of literals become a set look-up."""
    words = pattern.split("|")
    if not any(character in word for word in words for character in r"\.+*?()[]{}^$"):
        return frozenset(words).__contains__
    if pattern in (".*", "^.*$"):
        return lambda value: True
    if pattern in (".+", "^.+$"):
        return bool
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.dot_nl = True  # as Prometheus 3: a dot is any character, line ends too
    try:
        expression = re2.compile(pattern, options=options)
    except re2.error as fault:
        said = fault.args[0] if fault.args else pattern
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise BadPatternError(f"invalid pattern {pattern!r}: {text}") from None
    return lambda value: expression.fullmatch(value) is not None


def forget_patterns() -> None:
    """Give back the memory of every compiled pattern; they are compiled again when they are asked for."""
    compiled_pattern.cache_clear()
    re2.purge()
