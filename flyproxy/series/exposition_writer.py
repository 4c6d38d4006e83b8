"""Metric families as text: Prometheus' 0.0.4 and OpenMetrics 1.0.

The two disagree on two things, settled here. A counter whose name does not end in `_total` (all of Fly's) is a
`counter` in 0.0.4 and `unknown` in OpenMetrics. OpenMetrics names a counter's family without `_total`. Bucket bounds go
out as they were given in both (`le="1"`): OpenMetrics would rather have `1.0`, but every reader takes either, and a
Prometheus 2 that scrapes us must find the `le` that dashboards ask for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flyproxy.series.labels import Labels

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class ExposedSample(NamedTuple):
    """One line."""

    name: str
    """With its suffix: `_bucket`, `_sum`, `_count`, `_total`."""
    labels: Labels
    """Without `__name__`."""
    value: float
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ExposedFamily:
    """One metric and all its samples; those of one histogram stand together, buckets ascending."""

    name: str
    """As in 0.0.4: with `_total` where a counter has it."""
    type: str
    """counter, gauge, histogram, summary or unknown."""
    help: str
    unit: str
    """"" for none; OpenMetrics only says it where the name ends in it."""
    samples: Sequence[ExposedSample]


def text(families: Iterable[ExposedFamily]) -> bytes:
    """Prometheus' text format 0.0.4."""
    lines: list[str] = []
    for family in families:
        kind = "untyped" if family.type == "unknown" else family.type
        lines.append(f"# HELP {family.name} {_escaped_help(family.help)}")
        lines.append(f"# TYPE {family.name} {kind}")
        for sample in family.samples:
            line = f"{sample.name}{_label_block(sample.labels)} {number_text(sample.value)}"
            lines.append(line if sample.timestamp_ms is None else f"{line} {sample.timestamp_ms}")
    lines.append("")
    return "\n".join(lines).encode()


def openmetrics(families: Iterable[ExposedFamily]) -> bytes:
    """OpenMetrics 1.0, `# EOF` included."""
    lines: list[str] = []
    for family in families:
        name, kind = _openmetrics_identity(family)
        lines.append(f"# TYPE {name} {kind}")
        if family.unit and name.endswith(f"_{family.unit}"):
            lines.append(f"# UNIT {name} {family.unit}")
        lines.append(f"# HELP {name} {_escaped(family.help)}")
        for sample in family.samples:
            line = f"{sample.name}{_label_block(sample.labels)} {number_text(sample.value)}"
            lines.append(line if sample.timestamp_ms is None else f"{line} {sample.timestamp_ms / 1000:.3f}")
    lines.append("# EOF\n")
    return "\n".join(lines).encode()


def chosen_by(accept: str) -> tuple[str, Callable[[Iterable[ExposedFamily]], bytes]]:
    """(content type, renderer) for an Accept header: OpenMetrics only for who asks for it by name and does not like
    plain text better."""
    weights = {"text/plain": 0.0, "application/openmetrics-text": 0.0}
    for item in accept.split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        version = next((part[8:].strip('"') for part in parameters if part.startswith("version=")), "")
        if kind.lower() in weights and (kind.lower() == "text/plain" or version in ("", "1.0.0", "0.0.1")):
            weights[kind.lower()] = max(weights[kind.lower()], _weight(parameters))
    wanted = weights["application/openmetrics-text"]
    if wanted > 0 and wanted >= weights["text/plain"]:
        return OPENMETRICS_TYPE, openmetrics
    return TEXT_TYPE, text


def number_text(value: float) -> str:
    """A sample's value: the shortest text that reads back as the same float."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _openmetrics_identity(family: ExposedFamily) -> tuple[str, str]:
    if family.type != "counter":
        return family.name, family.type
    if family.name.endswith("_total"):
        return family.name.removesuffix("_total"), "counter"
    return family.name, "unknown"


def _label_block(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{_escaped(value)}"' for name, value in labels]) + "}"


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def _escaped_help(words: str) -> str:
    return words.replace("\\", r"\\").replace("\n", r"\n")


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
