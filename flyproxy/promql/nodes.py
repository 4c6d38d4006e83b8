"""What a PromQL expression is made of: frozen nodes, each with the place in the text where it stands.

Positions are character offsets into the expression, [start, end). Times and durations are milliseconds.
"""

from dataclasses import dataclass
from enum import StrEnum

from flyproxy.series.matchers import Matcher


class ValueType(StrEnum):
    """The four types of PromQL values, by the names errors use."""

    SCALAR = "scalar"
    STRING = "string"
    INSTANT = "instant vector"
    RANGE = "range vector"


@dataclass(frozen=True, slots=True)
class Span:
    """Where a node stands in the text."""

    start: int
    end: int


class AtBound(StrEnum):
    """`@ start()` and `@ end()`."""

    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True)
class Number:
    span: Span
    value: float


@dataclass(frozen=True, slots=True)
class String:
    span: Span
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """An instant vector selector: `name{matchers} offset d @ t`. The name is one of the matchers."""

    span: Span
    matchers: tuple[Matcher, ...]
    offset_ms: int = 0
    at_ms: int | AtBound | None = None


@dataclass(frozen=True, slots=True)
class RangeSelector:
    """A selector with a window: `x[5m]`. `range_ms` is None where MetricsQL left the window out."""

    span: Span
    selector: Selector
    range_ms: int | None


@dataclass(frozen=True, slots=True)
class Subquery:
    """`expression[range:step] offset d @ t`; the default step is a setting. `range_ms` None: as above."""

    span: Span
    expression: "Node"
    range_ms: int | None
    step_ms: int | None
    offset_ms: int = 0
    at_ms: int | AtBound | None = None
    at_query_step: bool = False
    """MetricsQL: the default step is that of the query around it (`sum(x)[5m]`)."""


@dataclass(frozen=True, slots=True)
class Unary:
    """`-x` or `+x`."""

    span: Span
    negative: bool
    expression: "Node"


@dataclass(frozen=True, slots=True)
class Parenthesis:
    span: Span
    expression: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """A function call; arguments as written (missing optional ones are filled in by the evaluation)."""

    span: Span
    function: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """`sum by (labels) (expression)`, `topk(parameter, expression)`."""

    span: Span
    operator: str
    expression: "Node"
    parameter: "Node | None"
    labels: tuple[str, ...]
    without: bool
    others: tuple["Node", ...] = ()
    """MetricsQL: further expressions whose series join those of the first (`max(0, x)`); any may be a scalar."""
    rest_label: str | None = None
    """MetricsQL: `region=other` of `topk_avg(5, x, "region=other")`, what the sum of all others is called."""


class Card(StrEnum):
    """How many series of one side may meet one of the other."""

    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"


@dataclass(frozen=True, slots=True)
class Matching:
    """`on (labels)` or `ignoring (labels)`, with `group_left (include)` or `group_right (include)`."""

    card: Card
    on: bool
    labels: tuple[str, ...]
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Binary:
    """`left operator right`; matching only between two vectors."""

    span: Span
    operator: str
    left: "Node"
    right: "Node"
    return_bool: bool
    matching: Matching | None


Node = Number | String | Selector | RangeSelector | Subquery | Unary | Parenthesis | Call | Aggregation | Binary
