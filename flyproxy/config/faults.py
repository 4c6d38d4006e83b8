"""A fault in the configuration, and the one way it is shown: by `check`, by `run` and by a reload."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from flyproxy.errors import FlyproxyError

FAULTS_SHOWN_MAX = 100
SOURCE_COLUMNS_MAX = 120
KNOWN_SHOWN_MAX = 20

Severity = Literal["error", "warning"]

Path = tuple[str | int, ...]
"""The way to a value: ("apps", 2, "instances", 0, "address")."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, where it stands, and what would be right."""

    file: str
    """The file as the user named it, or the flag or variable the value came from."""
    line: int | None
    """From 1; None where there is no text to point into."""
    column: int | None
    """From 1, in characters."""
    path: str
    """`apps[2].instances[0].address`; "" for the file as a whole."""
    sentence: str
    source_line: str | None = None
    severity: Severity = "error"
    """A warning stops nothing: it says what is done instead of what was written."""

    def as_json(self) -> dict[str, object]:
        """The fault as plain values (`flyproxy check --json`)."""
        return asdict(self)


class ConfigError(FlyproxyError):
    """The configuration cannot be used; `faults` are all that is wrong with it, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = in_order(faults)
        super().__init__(render_faults(self.faults))


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """What has no line first, then file by file in the order of each file's lines."""
    listed = list(faults)
    files: dict[str, int] = {}
    for fault in listed:
        files.setdefault(fault.file, len(files))
    return sorted(
        listed, key=lambda fault: (fault.line is not None, files[fault.file], fault.line or 0, fault.column or 0)
    )


def written_path(path: Path) -> str:
    """The path as a user writes it: `apps[2].instances[0].address`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, "" when none is near."""
    near = difflib.get_close_matches(got[:100], [word for word in known if word != got], n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def one_of_these(got: str, known: Sequence[str]) -> str:
    """The nearest known word, else the first few of them."""
    listed = ", ".join(known[:KNOWN_SHOWN_MAX]) + (", ..." if len(known) > KNOWN_SHOWN_MAX else "")
    return did_you_mean(got, known) or (f"; there are: {listed}" if known else "; there is none")


def render_line(fault: Fault) -> str:
    """`FILE:line:col: error: path: sentence`, or `warning:`."""
    place = fault.file if fault.line is None else f"{fault.file}:{fault.line}:{fault.column}"
    where = f"{fault.path}: " if fault.path else ""
    return _printable(f"{place}: {fault.severity}: {where}{fault.sentence}")


def render_fault(fault: Fault) -> str:
    """The line, then the line of the file it stands in and a caret under the place."""
    head = render_line(fault)
    if fault.line is None or fault.source_line is None:
        return head
    shown, caret = _window(fault.source_line, (fault.column or 1) - 1)
    return f"{head}\n{fault.line:6d} | {shown}".rstrip() + f"\n       | {caret}"


def render_faults(faults: Sequence[Fault]) -> str:
    """All faults and warnings (at most FAULTS_SHOWN_MAX) and, last, how many there are."""
    parts = [render_fault(fault) for fault in faults[:FAULTS_SHOWN_MAX]]
    if len(faults) > FAULTS_SHOWN_MAX:
        parts.append(f"... and {len(faults) - FAULTS_SHOWN_MAX} more")
    severities = [fault.severity for fault in faults]
    numbers = (counted(severities.count(word), word) for word in ("error", "warning") if word in severities)
    parts.append(", ".join(numbers) or "0 errors")
    return "\n".join(parts)


def counted(number: int, word: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _window(line: str, column: int) -> tuple[str, str]:
    """The part of a line around a column, safe to print on a terminal, and the caret's line."""
    start = 0 if len(line) <= SOURCE_COLUMNS_MAX else max(0, column - SOURCE_COLUMNS_MAX // 2)
    before = line[start:column].ljust(column - start)
    shown = line[start : start + SOURCE_COLUMNS_MAX]
    caret = "".join("\t" if character == "\t" else " " for character in before) + "^"
    return _printable(shown), caret


def _printable(text: str) -> str:
    # A tab keeps its width (the caret's line repeats it); an escape sequence must not reach the terminal.
    return "".join(character if character.isprintable() or character == "\t" else "?" for character in text)
