"""Functions that change labels, not numbers. Label work is per series, never per step."""

import re
from collections.abc import Callable, Sequence

import re2

from flyproxy.promql.errors import QueryError
from flyproxy.promql.matrix import Budget, with_label
from flyproxy.series.labels import METRIC_NAME, Labels, label_value
from flyproxy.series.matchers import Matcher, MatchOp

Relabel = Callable[[Labels], Labels]

_LEGACY_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
LABEL_CHARACTERS_MAX = 65_536
"""How long a label value may become; doubling it in a chain of calls would else take all memory."""
_LABELS_AT_ONCE = 4096
"""Series relabelled between two looks at the clock."""
_GROUP_DIGITS_MAX = 8
_DIGITS = frozenset("0123456789")
_NAME_CHARACTERS = r"[\p{L}\p{Nd}_]+"  # Go's letters and digits, which are fewer than Python's \w
_REFERENCE = re2.compile(rf"\$(?:\$|\{{({_NAME_CHARACTERS})\}}|({_NAME_CHARACTERS}))")


def relabelled(
    series: Sequence[Labels], relabel: Relabel, budget: Budget, checkpoint: Callable[[], None]
) -> list[Labels]:
    """Every series' new labels. The text that is added counts as points held, eight characters each."""
    found: list[Labels] = []
    for first in range(0, len(series), _LABELS_AT_ONCE):
        checkpoint()
        before = series[first : first + _LABELS_AT_ONCE]
        after = [relabel(labels) for labels in before]
        budget.hold(max(_characters(after) - _characters(before), 0) // 8)
        found += after
    return found


def _characters(series: Sequence[Labels]) -> int:
    return sum([len(name) + len(value) for labels in series for name, value in labels])


def label_replace(arguments: Sequence[str], *, legacy_names: bool) -> Relabel:
    """label_replace(v, target, replacement, source, pattern); raises QueryError for a bad name or pattern."""
    target, replacement, source, pattern = arguments
    dot_all = "" if legacy_names else "s"
    expression = _compiled(f"^(?{dot_all}:{pattern})$", pattern)
    _check_name(target, "invalid destination label name in label_replace()", legacy_names)

    def relabel(labels: Labels) -> Labels:
        found = expression.search(label_value(labels, source))
        return labels if found is None else with_label(labels, target, _expanded(replacement, found))

    return relabel


def label_join(arguments: Sequence[str], *, legacy_names: bool) -> Relabel:
    """label_join(v, target, separator, sources...); raises QueryError for a bad name."""
    target, separator, *sources = arguments
    _check_name(target, "invalid destination label name in label_join()", legacy_names)
    for source in sources:
        _check_name(source, "invalid source label name in label_join()", legacy_names)

    def relabel(labels: Labels) -> Labels:
        values = [label_value(labels, source) for source in sources]
        _check_length(sum(map(len, values)) + len(separator) * len(values))
        return with_label(labels, target, separator.join(values))

    return relabel


def changed_case(names: Sequence[str], *, upper: bool) -> Relabel:
    """MetricsQL's label_uppercase and label_lowercase."""

    def relabel(labels: Labels) -> Labels:
        for name in names:
            value = label_value(labels, name)
            labels = with_label(labels, name, value.upper() if upper else value.lower())
        return labels

    return relabel


def label_set(arguments: Sequence[str], *, legacy_names: bool) -> Relabel:
    """MetricsQL's label_set(v, name, value, ...); an empty value takes the label away. Raises QueryError for a bad
    name."""
    pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
    for name, _ in pairs:
        _check_name(name, "invalid label name in label_set()", legacy_names)

    def relabel(labels: Labels) -> Labels:
        for name, value in pairs:
            labels = with_label(labels, name, value)
        return labels

    return relabel


def only_labels(names: Sequence[str], *, keep: bool) -> Relabel:
    """MetricsQL's label_keep (these stay, the metric name only if it is among them) and label_del (these go)."""
    named = frozenset(names)
    return lambda labels: tuple([pair for pair in labels if (pair[0] in named) == keep])


def without_common(series: Sequence[Labels]) -> list[Labels]:
    """MetricsQL's drop_common_labels: all but the labels, metric name included, that every series has alike."""
    common = frozenset(series[0]).intersection(*series[1:]) if series else frozenset()
    return [tuple([pair for pair in labels if pair not in common]) for labels in series]


def labels_of_absence(matchers: Sequence[Matcher]) -> Labels:
    """What absent() says about a series that is not there: its equality matchers. (createLabelsForAbsentFunction.)"""
    known: dict[str, str] = {}
    for matcher in matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.op is MatchOp.EQUAL and matcher.name not in known:
            known[matcher.name] = matcher.value
        else:
            known[matcher.name] = ""
    return tuple(sorted((name, value) for name, value in known.items() if value))


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which numbers inside a text compare as numbers."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple(_number_key(piece) if piece[0] in _DIGITS else (1, 0, piece) for piece in pieces)


def _number_key(digits: str) -> tuple[int, int, str]:
    """Longer is larger, and of one length the digits decide: int() would refuse thousands of them."""
    significant = digits.lstrip("0")
    return (0, len(significant), significant)


def is_label_name(name: str, *, legacy: bool) -> bool:
    """Prometheus 3 takes any text for a label's name, Prometheus 2 only an identifier."""
    return bool(_LEGACY_NAME.fullmatch(name)) if legacy else bool(name)


def _check_name(name: str, complaint: str, legacy: bool) -> None:
    if not is_label_name(name, legacy=legacy):
        raise QueryError(f"{complaint}: {name}")


def _check_length(characters: int) -> None:
    if characters > LABEL_CHARACTERS_MAX:
        raise QueryError(f"a label value would be longer than {LABEL_CHARACTERS_MAX:,} characters")


def _compiled(anchored: str, pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(anchored, options=options)
    except re2.error:
        raise QueryError(f"invalid regular expression in label_replace(): {pattern}") from None


def _expanded(template: str, found: "re2._Match") -> str:
    """Go's Expand: $1, $name, ${name}; $$ is a dollar; a group that is not there is nothing."""

    length = 0

    def piece(reference: "re2._Match") -> str:
        name = reference.group(1) or reference.group(2)
        if name is None:
            return "$"
        try:
            value = found.group(int(name) if len(name) <= _GROUP_DIGITS_MAX and set(name) <= _DIGITS else name)
        except (IndexError, KeyError):
            return ""
        nonlocal length
        length += len(value or "")
        _check_length(length)
        return value or ""

    expanded: str = _REFERENCE.sub(piece, template)
    _check_length(len(expanded))
    return expanded
