"""A series' identity: its labels, sorted by name, as a plain tuple of pairs (hashable, comparable, cheap to keep)."""

from collections.abc import Iterable, Mapping

Labels = tuple[tuple[str, str], ...]

METRIC_NAME = "__name__"
EMPTY: Labels = ()


def labels_from(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> Labels:
    """Sorted by name; a label with an empty value is the same as an absent one and is left out."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return tuple(sorted((name, value) for name, value in items if value))


def label_value(labels: Labels, name: str) -> str:
    """The value of one label, "" when absent."""
    for key, value in labels:
        if key == name:
            return value
    return ""
