"""Text to nodes: all of Prometheus 3's grammar, and MetricsQL's missing windows. Every error has its position.

Operator precedence parsing with a stack of its own instead of Python's (Pratt's scheme, turned inside out): the parser
wants an operand, or has one and wants an operator. What waits for its right side (a sign, a binary operator, an open
parenthesis) lies on the stack. So 10,000 parentheses or a chain of 20,000 terms cannot exhaust anything: they meet
DEPTH_MAX and get a sentence. Time is linear in the length of the text.
"""

import math
from dataclasses import dataclass, field

from flyproxy.promql.build import DEPTH_MAX, INSTANT, SCALAR, Builder, Grouping, Modifiers, Part, too_deep
from flyproxy.promql.functions import signature_of
from flyproxy.promql.lex import NOT_A_METRIC, Kind, Lexer, Token
from flyproxy.promql.literals import duration_ms_of, number_of, string_of
from flyproxy.promql.nodes import (
    AtBound,
    Binary,
    Call,
    Card,
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
from flyproxy.promql.operators import GROUPS_FROM_THE_RIGHT, PRECEDENCE, SIGN_PRECEDENCE
from flyproxy.promql.parse_error import ParseError as ParseError
from flyproxy.promql.quoting import quoted
from flyproxy.series.labels import METRIC_NAME
from flyproxy.series.matchers import Matcher, MatchOp

EXPRESSION_CHARACTERS_MAX = 65_536
"""How long an expression may be."""


def parse(text: str, *, metricsql: bool = False) -> Node:
    """The checked node of an expression. Raises ParseError, with the leftmost fault of syntax or the first of types.

    With `metricsql` windows may be missing (`RangeSelector.range_ms` or `Subquery.range_ms` is None) and a window where
    an instant vector is wanted is its `last_over_time`; see build.py."""
    return _Parser(text, metricsql=metricsql).expression()


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of a lone selector, as in `match[]=`; they may all match the empty value. Raises ParseError."""
    return _Parser(text, metricsql=False).lone_selector()


def value_type(node: Node) -> ValueType:
    """What a node answers."""
    match node:
        case Number():
            return ValueType.SCALAR
        case String():
            return ValueType.STRING
        case RangeSelector() | Subquery():
            return ValueType.RANGE
        case Unary() | Parenthesis():
            return value_type(node.expression)
        case Binary():
            scalars = value_type(node.left) is value_type(node.right) is SCALAR
            return SCALAR if node.matching is None and scalars else INSTANT
        case Call():
            signature = signature_of(node.function, metricsql=True)
            return signature.result if signature else INSTANT
        case _:
            return INSTANT


@dataclass(slots=True)
class _Sign:
    """A sign that waits for its operand."""

    operator: Token
    precedence: int = SIGN_PRECEDENCE


@dataclass(slots=True)
class _Left:
    """A binary operator with its left side, waiting for the right."""

    operator: str
    left: Part
    modifiers: Modifiers
    precedence: int


@dataclass(slots=True)
class _Open:
    """An open parenthesis: of nothing, of a function or of an aggregation."""

    parenthesis: Token
    name: Token | None = None
    grouping: Grouping | None = None
    arguments: list[Part] = field(default_factory=list)
    precedence: int = 0


class _Parser:
    def __init__(self, text: str, *, metricsql: bool) -> None:
        self._text = text
        self._builder = Builder(text, metricsql=metricsql)
        if len(text) > EXPRESSION_CHARACTERS_MAX:
            sentence = f"the expression has {len(text)} characters; at most {EXPRESSION_CHARACTERS_MAX} are taken"
            raise self._builder.fault(sentence, Span(0, 0))
        self._refuse_surrogates(text)
        self._lexer = Lexer(text, metricsql=metricsql)
        self._token = self._lexer.next_token()
        self._end = 0
        self._stack: list[_Sign | _Left | _Open] = []

    def expression(self) -> Node:
        if self._is(Kind.END):
            raise self._builder.fault("no expression found in input", self._token.span)
        part: Part | None = None
        while part is None or not self._is(Kind.END):
            part = self._operand() if part is None else self._operator(part)
        part = self._reduced(part, 0)
        if self._stack:
            opening = self._stack[-1]
            assert isinstance(opening, _Open)
            raise self._builder.fault("unclosed left parenthesis", opening.parenthesis.span)
        if self._builder.type_fault is not None:
            raise self._builder.type_fault
        return part.node

    def lone_selector(self) -> tuple[Matcher, ...]:
        if self._is(Kind.END):
            raise self._builder.fault("no selector found in input", self._token.span)
        part = self._selector(may_be_empty=True)
        if not self._is(Kind.END):
            raise self._unexpected("selector", "end of input")
        if self._builder.type_fault is not None:
            raise self._builder.type_fault
        assert isinstance(part.node, Selector)
        return part.node.matchers

    # ---- where an operand is wanted ------------------------------------------------------------------------------

    def _operand(self) -> Part | None:
        """The operand that stands here with all that belongs to it; None where something was opened before it."""
        token = self._token
        match token.kind:
            case Kind.NUMBER | Kind.DURATION:
                return self._suffixed(self._builder.number(token.span, self._number()))
            case Kind.STRING:
                return self._suffixed(self._builder.string(token.span, self._string()))
            case Kind.OPERATOR if token.word in ("+", "-"):
                self._push(_Sign(self._advance()))
                return None
            case Kind.PUNCTUATION if token.text == "(":
                self._push(_Open(self._advance()))
                return None
            case Kind.AGGREGATION | Kind.IDENTIFIER:
                return self._named()
        return self._suffixed(self._selector(may_be_empty=False))

    def _named(self) -> Part | None:
        """A function, an aggregation or a metric: what follows the name says which."""
        name = self._advance()
        aggregates = name.kind is Kind.AGGREGATION
        grouping = self._grouping() if aggregates and self._at_word("by", "without") else None
        if grouping is None and not self._at("("):
            return self._suffixed(self._selector_after(name, may_be_empty=False))
        if not self._at("("):
            raise self._unexpected("aggregation")
        opening = _Open(self._advance(), name, grouping)
        if self._at(")"):
            self._advance()
            return self._suffixed(self._called(opening))
        self._push(opening)
        return None

    def _selector(self, *, may_be_empty: bool) -> Part:
        if self._at("{"):
            return self._selector_after(None, may_be_empty=may_be_empty)
        named = (Kind.IDENTIFIER, Kind.METRIC_IDENTIFIER, Kind.KEYWORD, Kind.AGGREGATION)
        token = self._token
        if (token.kind in named or token.word in ("and", "or", "unless")) and token.word not in NOT_A_METRIC:
            return self._selector_after(self._advance(), may_be_empty=may_be_empty)
        raise self._unexpected()

    def _selector_after(self, name: Token | None, *, may_be_empty: bool) -> Part:
        start = name.span.start if name else self._token.span.start
        matchers = self._matchers() if self._at("{") else ()
        if self._stack and isinstance(opening := self._stack[-1], _Open) and opening.name:
            may_be_empty |= opening.name.text == "info" and len(opening.arguments) == 1
        text = name.text if name else None
        return self._builder.selector(Span(start, self._end), text, matchers, may_be_empty=may_be_empty)

    def _matchers(self) -> tuple[Matcher, ...]:
        self._advance()
        matchers: list[Matcher] = []
        while not self._at("}"):
            matchers.append(self._matcher())
            if self._at("}"):
                break
            if not self._at(","):
                raise self._unexpected("label matching", '"," or "}"')
            self._advance()
        self._advance()
        return tuple(matchers)

    def _matcher(self) -> Matcher:
        start = self._token.span.start
        is_quoted = self._is(Kind.STRING)
        if not is_quoted and not self._is(Kind.IDENTIFIER):
            raise self._unexpected("label matching", 'identifier or "}"')
        name = self._string() if is_quoted else self._advance().text
        if not self._is(Kind.MATCH):
            if not is_quoted:
                raise self._unexpected("label matching", "label matching operator")
            return Matcher(METRIC_NAME, MatchOp.EQUAL, name)
        op = MatchOp(self._advance().text)
        if not self._is(Kind.STRING):
            raise self._unexpected("label matching", "string")
        return self._builder.matcher(name, op, self._string(), Span(start, self._end))

    # ---- where an operator is wanted -----------------------------------------------------------------------------

    def _operator(self, part: Part) -> Part | None:
        """What follows a whole operand; None where it asks for another operand."""
        if self._is(Kind.OPERATOR):
            word = self._token.word
            left = self._reduced(part, PRECEDENCE[word], from_the_right=word in GROUPS_FROM_THE_RIGHT)
            self._push(_Left(word, left, self._modifiers(), PRECEDENCE[word]))
            return None
        if self._at(")"):
            return self._close(self._reduced(part, 0))
        if self._at(","):
            self._comma(self._reduced(part, 0))
            return None
        if self._is(Kind.IDENTIFIER) and self._token.word in ("anchored", "smoothed"):
            sentence = f"the {self._token.word} modifier is experimental in Prometheus and not built yet"
            raise self._builder.fault(sentence, self._token.span)
        raise self._unexpected()

    def _reduced(self, part: Part, precedence: int, *, from_the_right: bool = False) -> Part:
        """All that waits and binds tighter is built. Open parentheses bind looser than anything."""
        while self._stack:
            waiting = self._stack[-1]
            if isinstance(waiting, _Open) or waiting.precedence < precedence:
                break
            if waiting.precedence == precedence and from_the_right:
                break
            self._stack.pop()
            if isinstance(waiting, _Sign):
                part = self._builder.sign(waiting.operator, part)
            else:
                part = self._builder.binary(waiting.left, waiting.operator, waiting.modifiers, part)
        return part

    def _close(self, part: Part) -> Part:
        if not self._stack:
            raise self._builder.fault("unexpected right parenthesis ')'", self._token.span)
        opening = self._stack.pop()
        assert isinstance(opening, _Open)
        closing = self._advance()
        if opening.name is None:
            return self._suffixed(
                self._builder.parenthesis(Span(opening.parenthesis.span.start, closing.span.end), part)
            )
        opening.arguments.append(part)
        return self._suffixed(self._called(opening))

    def _comma(self, part: Part) -> None:
        opening = self._stack[-1] if self._stack else None
        if not isinstance(opening, _Open) or opening.name is None:
            raise self._unexpected()
        opening.arguments.append(part)
        comma = self._advance()
        if self._at(")"):
            raise self._builder.fault("trailing commas not allowed in function call args", comma.span)

    def _called(self, opening: _Open) -> Part:
        assert opening.name is not None
        if opening.name.kind is not Kind.AGGREGATION:
            return self._builder.call(opening.name, opening.arguments, self._end)
        grouping = opening.grouping
        if grouping is None and self._at_word("by", "without"):
            grouping = self._grouping()
        return self._builder.aggregation(opening.name, grouping, opening.arguments, self._end)

    def _modifiers(self) -> Modifiers:
        """`<operator> bool on (labels) group_left (labels)`, all but the operator optional."""
        operator = self._advance()
        return_bool = self._skip_word("bool")
        on, card = False, Card.ONE_TO_ONE
        labels: tuple[str, ...] = ()
        include: tuple[str, ...] = ()
        if self._at_word("on", "ignoring"):
            on = self._advance().word == "on"
            labels = self._labels()
            if self._at_word("group_left", "group_right"):
                card = Card.MANY_TO_ONE if self._advance().word == "group_left" else Card.ONE_TO_MANY
                include = self._labels() if self._at("(") else ()
        return Modifiers(return_bool, on, labels, card, include, Span(operator.span.start, self._end))

    def _grouping(self) -> Grouping:
        word = self._advance()
        labels = self._labels()
        return Grouping(labels, word.word == "without", Span(word.span.start, self._end))

    def _labels(self) -> tuple[str, ...]:
        if not self._at("("):
            raise self._unexpected("grouping opts", '"("')
        self._advance()
        labels: list[str] = []
        while not self._at(")"):
            labels.append(self._label())
            if self._at(")"):
                break
            if not self._at(","):
                raise self._unexpected("grouping opts", '"," or ")"')
            self._advance()
        self._advance()
        return tuple(labels)

    def _label(self) -> str:
        token = self._token
        if token.kind is Kind.STRING:
            return self._string()
        words = (Kind.IDENTIFIER, Kind.KEYWORD, Kind.AGGREGATION)
        if token.kind in words or (token.kind is Kind.OPERATOR and token.text.isalnum()):
            return self._advance().text
        raise self._unexpected("grouping opts", "label")

    # ---- what may follow an operand and binds tighter than any operator ------------------------------------------

    def _suffixed(self, part: Part) -> Part:
        while True:
            if self._at("["):
                part = self._windowed(part)
            elif self._at_word("offset"):
                self._advance()
                part = self._builder.offset(part, self._offset_ms(), self._end)
            elif self._at("@"):
                self._advance()
                at_ms = self._at_ms()
                part = self._builder.at(part, at_ms, self._end)
            else:
                return part

    def _windowed(self, part: Part) -> Part:
        opening = self._advance()
        range_ms = self._positive_ms(opening, "range or subquery", "number or duration")
        step_ms = None
        is_subquery = self._at(":")
        if is_subquery:
            self._advance()
            if not self._at("]"):
                step_ms = self._positive_ms(opening, "subquery selector", 'number or duration or "]"')
        if not self._at("]"):
            if self._is(Kind.END):
                raise self._builder.fault("unclosed left bracket", opening.span)
            raise self._unexpected(
                *(("subquery selector", '"]"') if is_subquery else ("subquery or range", '":" or "]"'))
            )
        closing = self._advance()
        brackets = Span(opening.span.start, closing.span.end)
        if is_subquery:
            return self._builder.subquery(part, range_ms, step_ms, brackets)
        return self._builder.window(part, range_ms, brackets)

    def _positive_ms(self, opening: Token, context: str, expected: str) -> int:
        token = self._token
        if token.kind is Kind.END:
            raise self._builder.fault("unclosed left bracket", opening.span)
        if token.kind not in (Kind.NUMBER, Kind.DURATION):
            raise self._unexpected(context, expected)
        duration_ms = duration_ms_of(self._advance(), self._text)
        if duration_ms <= 0:
            raise self._builder.fault("duration must be greater than 0", token.span)
        return duration_ms

    def _offset_ms(self) -> int:
        sign = self._skip_sign()
        if not self._is(Kind.NUMBER, Kind.DURATION):
            raise self._unexpected("offset", "number or duration")
        return sign * duration_ms_of(self._advance(), self._text)

    def _at_ms(self) -> int | AtBound:
        start = self._token.span.start
        if self._is(Kind.IDENTIFIER) and self._token.word in ("start", "end"):
            bound = AtBound(self._advance().word)
            for parenthesis in "()":
                if not self._at(parenthesis):
                    raise self._unexpected("@", quoted(parenthesis))
                self._advance()
            return bound
        sign = self._skip_sign()
        if not self._is(Kind.NUMBER, Kind.DURATION):
            raise self._unexpected("@", "timestamp")
        seconds = sign * self._number()
        if not abs(seconds) < 2**63 / 1000:
            raise self._builder.fault(f"timestamp out of bounds for @ modifier: {seconds:f}", Span(start, self._end))
        return math.floor(abs(seconds) * 1000 + 0.5) * (-1 if seconds < 0 else 1)

    def _number(self) -> float:
        """The value of the number or, in seconds, the duration that stands here."""
        return number_of(self._advance(), self._text)

    def _string(self) -> str:
        return string_of(self._advance(), self._text)

    # ---- tokens --------------------------------------------------------------------------------------------------

    def _advance(self) -> Token:
        token = self._token
        self._end = token.span.end
        self._token = self._lexer.next_token()
        return token

    def _is(self, *kinds: Kind) -> bool:
        return self._token.kind in kinds

    def _at(self, text: str) -> bool:
        return self._is(Kind.PUNCTUATION) and self._token.text == text

    def _at_word(self, *words: str) -> bool:
        return self._is(Kind.KEYWORD) and self._token.word in words

    def _skip_word(self, word: str) -> bool:
        if not self._at_word(word):
            return False
        self._advance()
        return True

    def _skip_sign(self) -> int:
        if self._is(Kind.OPERATOR) and self._token.word in ("+", "-"):
            return -1 if self._advance().word == "-" else 1
        return 1

    def _push(self, waiting: _Sign | _Left | _Open) -> None:
        if len(self._stack) >= DEPTH_MAX:
            raise self._builder.fault(too_deep(), Span(self._end, self._end))
        self._stack.append(waiting)

    def _unexpected(self, context: str = "", expected: str = "") -> ParseError:
        if self._is(Kind.END) and any(isinstance(waiting, _Open) for waiting in self._stack):
            opening = next(waiting for waiting in reversed(self._stack) if isinstance(waiting, _Open))
            return self._builder.fault("unclosed left parenthesis", opening.parenthesis.span)
        where = f" in {context}" if context else ""
        wanted = f", expected {expected}" if expected else ""
        return self._builder.fault(f"unexpected {self._token.described()}{where}{wanted}", self._token.span)

    def _refuse_surrogates(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError as bad:
            raise self._builder.fault("invalid UTF-8 rune", Span(bad.start, bad.end)) from None
