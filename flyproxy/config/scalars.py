"""What one written value means: YAML 1.2's plain scalars, and `${VAR}` from the environment.

YAML 1.1 (PyYAML's own reading) is full of traps for this file's values: `off` and `no` are false there, `10:20` is
620 and `0012` is 10. So only true and false are booleans here, numbers are decimal, everything else is text; and a
number remembers how it was written, so that `host: 0123` and `id: 1234567890e123` may stay without quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from flyproxy.config.faults import did_you_mean
from flyproxy.errors import FlyproxyError

EXPANDED_CHARACTERS_MAX = 65_536

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,4})?")
_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\})?")


class WrittenInt(int):
    """A whole number that knows how it was written."""

    text: str


class WrittenFloat(float):
    """A decimal number that knows how it was written."""

    text: str


class VariableError(FlyproxyError):
    """A `${...}` that cannot be filled in; the sentence says why."""


def plain_value(text: str) -> object:
    """What a plain (unquoted) scalar means: None, a bool, a number, or the text itself."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _WHOLE.fullmatch(text):
        whole = WrittenInt(text)
        whole.text = text
        return whole
    if _DECIMAL.fullmatch(text):
        decimal = WrittenFloat(text)
        decimal.text = text
        return decimal
    return text


def has_variable(text: str) -> bool:
    """Does the text contain something for `expand` to do?"""
    return "${" in text


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`${VAR}` and `${VAR:-default}` filled in; `$${` stands for a plain `${`. Raises VariableError."""

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, default = match[1], match[2]
        if name is None:
            raise VariableError("'${' is not followed by NAME} or NAME:-default}; for a plain '${' write '$${'")
        if name in environ:
            return environ[name]
        if default is not None:
            return str(default)
        hint = did_you_mean(name, environ) or f"; for a default write ${{{name}:-value}}"
        raise VariableError(f"the environment variable {name} is not set{hint}")

    pieces: list[str] = []
    length = place = 0
    for match in _VARIABLE.finditer(text):
        pieces += (text[place : match.start()], fill(match))
        place = match.end()
        length += sum(map(len, pieces[-2:]))
        if length > EXPANDED_CHARACTERS_MAX:
            break
    pieces.append(text[place:])
    if length + len(pieces[-1]) > EXPANDED_CHARACTERS_MAX:
        raise VariableError(f"with its variables filled in this is longer than {EXPANDED_CHARACTERS_MAX} characters")
    return "".join(pieces)


def as_text(value: object) -> str | None:
    """The text a user wrote for a value, None for what is not one text (a list, a mapping, nothing, a bool)."""
    if isinstance(value, (WrittenInt, WrittenFloat)):
        return value.text
    return value if isinstance(value, str) else None


def got(value: object) -> str:
    """A value in the words of a sentence: `'abc'`, `70000`, `a list`, `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:60]}...'"
    return as_text(value) or str(value)
