"""Text to tokens, one at a time, so that the leftmost fault is the one that is told.

What a word means depends on where it stands: inside braces every word is a label name, inside brackets a colon stands
alone, elsewhere a colon is part of a name and the keywords are read in any case.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from flyproxy.promql.functions import aggregation_of
from flyproxy.promql.nodes import Span
from flyproxy.promql.operators import PRECEDENCE
from flyproxy.promql.parse_error import ParseError
from flyproxy.promql.quoting import quoted, quoted_character


class Kind(StrEnum):
    """Sorts of tokens, by the names errors use."""

    END = "end of input"
    IDENTIFIER = "identifier"
    METRIC_IDENTIFIER = "metric identifier"
    NUMBER = "number"
    DURATION = "duration"
    STRING = "string"
    KEYWORD = "keyword"
    AGGREGATION = "aggregation"
    OPERATOR = "operator"
    MATCH = "label matching operator"
    PUNCTUATION = "punctuation"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text; `word` is the text in small letters for keywords, aggregations and operators."""

    kind: Kind
    text: str
    word: str
    span: Span

    def described(self) -> str:
        """As errors name it: `identifier "x"`, `<op:+>`, `end of input`."""
        match self.kind:
            case Kind.END:
                return "end of input"
            case Kind.KEYWORD:
                return f"<{self.word}>"
            case Kind.OPERATOR:
                return f"<op:{self.word}>"
            case Kind.AGGREGATION:
                return f"<aggr:{self.word}>"
            case Kind.PUNCTUATION | Kind.MATCH:
                return quoted(self.text)
        return f"{self.kind} {self.shown()}"

    def shown(self) -> str:
        """The text in quotes, cut where it is long."""
        return quoted(self.text if len(self.text) <= 40 else self.text[:37] + "...")


KEYWORDS = frozenset({"offset", "by", "without", "on", "ignoring", "group_left", "group_right", "bool"})
NOT_A_METRIC = frozenset({"on", "ignoring", "group_left", "group_right", "bool", "atan2"})
"""Keywords that cannot be the name of a metric outside of braces; all others can."""

# Linear on any input. Only single characters are possessive: before 3.11.5 Python has a bug in possessive groups.
_DIGITS = "[0-9]++(?:_[0-9]++)*"
_BLANK = re.compile(r"[ \t\r\n]*+(?:#[^\r\n]*+[ \t\r\n]*+)*")
_WORD = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*+")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*+")
_NUMBER = re.compile(
    rf"(?:0[xX]_?[0-9a-fA-F]++(?:_[0-9a-fA-F]++)*|(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?)"
    r"(?![A-Za-z0-9_.])"
)
_DURATION = re.compile(r"(?:[0-9]++(?:ms|[smhdwy]))+(?![A-Za-z0-9_.])")
_NUMBER_START = re.compile(r"\.?[0-9]")
_NUMERIC = re.compile(r"[0-9A-Za-z_.]*+")
_STRINGS = {
    '"': re.compile(r'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*"'),
    "'": re.compile(r"'[^'\\\n]*+(?:\\[^\n][^'\\\n]*+)*'"),
    "`": re.compile(r"`[^`]*+`"),
}
_OPERATOR = re.compile(r"[=!<>]=|[-+*/%^<>]")
_MATCH = re.compile(r"=~|!~|!=|=")


class Lexer:
    """Hands out the tokens of one expression; at its end END, again and again. Raises ParseError."""

    def __init__(self, expression: str, *, metricsql: bool = False) -> None:
        self.expression = expression
        self._metricsql = metricsql
        self._at = 0
        self._in_braces = False
        self._in_brackets = False

    def next_token(self) -> Token:
        blank = _BLANK.match(self.expression, self._at)
        self._at = blank.end() if blank else self._at
        character = self.expression[self._at : self._at + 1]
        if not character:
            return self._end()
        if character in _STRINGS:
            return self._string(character)
        if self._in_braces:
            return self._inside_braces(character)
        if _NUMBER_START.match(self.expression, self._at):
            return self._number()
        if self._in_brackets and character == ":":
            return self._take(Kind.PUNCTUATION, 1)
        word = _WORD.match(self.expression, self._at)
        if word:
            return self._word(word.group())
        operator = _OPERATOR.match(self.expression, self._at)
        if operator:
            return self._take(Kind.OPERATOR, len(operator.group()))
        return self._punctuation(character)

    def fault(self, sentence: str, start: int, end: int | None = None) -> ParseError:
        return ParseError(sentence, Span(start, len(self.expression) if end is None else end), self.expression)

    def _take(self, kind: Kind, length: int) -> Token:
        start, self._at = self._at, self._at + length
        text = self.expression[start : self._at]
        return Token(kind, text, text.lower(), Span(start, self._at))

    def _end(self) -> Token:
        if self._in_braces:
            raise self.fault("unexpected end of input inside braces", self._at)
        return self._take(Kind.END, 0)

    def _string(self, quote: str) -> Token:
        found = _STRINGS[quote].match(self.expression, self._at)
        if found is None:
            raise self.fault("unterminated raw string" if quote == "`" else "unterminated quoted string", self._at)
        return self._take(Kind.STRING, len(found.group()))

    def _number(self) -> Token:
        for pattern, kind in ((_NUMBER, Kind.NUMBER), (_DURATION, Kind.DURATION)):
            found = pattern.match(self.expression, self._at)
            if found:
                return self._take(kind, len(found.group()))
        found = _NUMERIC.match(self.expression, self._at)
        text = found.group() if found else ""
        raise self.fault(f"bad number or duration syntax: {quoted(text[:40])}", self._at, self._at + len(text))

    def _word(self, text: str) -> Token:
        word = text.lower()
        if word in ("inf", "nan"):
            kind = Kind.NUMBER
        elif word in PRECEDENCE:
            kind = Kind.OPERATOR
        elif aggregation_of(word, metricsql=self._metricsql) is not None:
            kind = Kind.AGGREGATION
        elif word in KEYWORDS:
            kind = Kind.KEYWORD
        else:
            kind = Kind.METRIC_IDENTIFIER if ":" in text else Kind.IDENTIFIER
        return self._take(kind, len(text))

    def _inside_braces(self, character: str) -> Token:
        label = _LABEL.match(self.expression, self._at)
        if label:
            return self._take(Kind.IDENTIFIER, len(label.group()))
        operator = _MATCH.match(self.expression, self._at)
        if operator:
            return self._take(Kind.MATCH, len(operator.group()))
        if character == "{":
            raise self.fault("unexpected left brace '{'", self._at, self._at + 1)
        if character == "}":
            self._in_braces = False
        elif character != ",":
            raise self._unexpected_character(character, " inside braces")
        return self._take(Kind.PUNCTUATION, 1)

    def _punctuation(self, character: str) -> Token:
        if character == "{":
            self._in_braces = True
        elif character == "[":
            if self._in_brackets:
                raise self.fault("unexpected left bracket '['", self._at, self._at + 1)
            self._in_brackets = True
        elif character == "]":
            if not self._in_brackets:
                raise self.fault("unexpected right bracket ']'", self._at, self._at + 1)
            self._in_brackets = False
        elif character not in "(),@=":
            raise self._unexpected_character(character, "")
        return self._take(Kind.PUNCTUATION, 1)

    def _unexpected_character(self, character: str, where: str) -> ParseError:
        following = self.expression[self._at + 1 : self._at + 2]
        if character == "!" and following:
            sentence = f"unexpected character after '!'{where}: {quoted_character(following)}"
        elif character == "$":
            sentence = f"unexpected character{where}: '$' (variables are replaced by Grafana before it asks)"
        else:
            sentence = f"unexpected character{where}: {quoted_character(character)}"
        return self.fault(sentence, self._at, self._at + 1)
