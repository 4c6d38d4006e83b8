"""Where every key and value of a TOML text stands. tomllib reads TOML but forgets the places; this finds them again.

The text has been read by tomllib before, so it is known to be valid and nothing is checked here: a walk over the
characters, told apart only as far as places need it. Keys may be bare, quoted or dotted, tables may be headers, arrays
of tables or inline; strings (multi-line ones too) and comments are stepped over. The paths are those of tomllib's
result: `("services", 1, "ports", 0, "handlers")`.

Worst case: linear in the text. Nesting costs two Python frames a level, as in tomllib, which refuses what is deeper.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flyproxy.config.document import Mark
from flyproxy.config.faults import Path

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
"""Between statements and inside arrays: blanks, line ends, comments."""
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL = re.compile(r"'([^'\n]*)'")
_LONG_BASIC = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''(?:[^']|'(?!''))*'{3,5}", re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\n#]*")
"""A number, a boolean or a date, and the blanks behind it."""
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


@dataclass(slots=True)
class Places:
    """Of each path the place of its key (its last part, where it is dotted) and of its value."""

    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)


def find_places(text: str) -> Places:
    """The places of a valid TOML text whose lines end in `\\n` or `\\r\\n`."""
    walk = _Walk(text)
    walk.statements()
    return walk.places


class _Walk:
    """One text on its way; `_at` is where it stands."""

    def __init__(self, text: str) -> None:
        self.places = Places()
        self._text = text
        self._at = 0
        self._line = 0
        self._line_start = 0
        self._marked = 0
        self._last: dict[Path, int] = {}
        """Arrays of tables: the index of the last one."""

    def statements(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) and self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        """`[a.b]` or `[[a.b]]`; which table what follows belongs to."""
        start = self._mark()
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        parts = self._key()
        self._at += 2 if array else 1
        path: Path = ()
        for name, mark in parts[:-1]:
            path = self._inside((*path, name))
            self.places.keys.setdefault(path, mark)
            self.places.values.setdefault(path, start)
        name, mark = parts[-1]
        path = (*path, name)
        self.places.keys.setdefault(path, mark)
        self.places.values.setdefault(path, start)
        if array:
            self._last[path] = self._last.get(path, -1) + 1
            path = (*path, self._last[path])
            self.places.keys[path] = mark
            self.places.values[path] = start
        return path

    def _inside(self, path: Path) -> Path:
        """The table a header goes through: of an array of tables its last one."""
        return (*path, self._last[path]) if path in self._last else path

    def _pair(self, table: Path) -> None:
        path = table
        for name, mark in self._key():
            path = (*path, name)
            self.places.keys.setdefault(path, mark)
            self.places.values.setdefault(path, mark)
        self._at += 1  # the `=`
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[tuple[str, Mark]]:
        """A dotted key with the places of its parts; then what follows the blanks after it."""
        parts = []
        while True:
            self._skip(_SPACE)
            mark = self._mark()
            parts.append((self._name(), mark))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _name(self) -> str:
        for pattern, unescape in ((_BARE, False), (_BASIC, True), (_LITERAL, False)):
            found = pattern.match(self._text, self._at)
            if found is not None:
                self._at = found.end()
                name = found[0] if pattern is _BARE else found[1]
                return _ESCAPE.sub(_unescaped, name) if unescape else name
        raise AssertionError("tomllib has read a key here")

    def _value(self, path: Path) -> None:
        self.places.values[path] = self._mark()
        opening = self._text[self._at]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        elif not (opening in "\"'" and self._string()):
            self._skip(_PLAIN)

    def _string(self) -> bool:
        for pattern in (_LONG_BASIC, _LONG_LITERAL, _BASIC, _LITERAL):
            if self._skip(pattern):
                return True
        raise AssertionError("tomllib has read a string here")

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._skip(_BLANK) and self._text[self._at] != "]":
            self._value((*path, index))
            index += 1
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._skip(_BLANK) and self._text[self._at] != "}":
            self._pair(path)
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found is not None

    def _mark(self) -> Mark:
        """Where it stands. Marks are taken in the order of the text, so lines are counted once."""
        lines = self._text.count("\n", self._marked, self._at)
        if lines:
            self._line += lines
            self._line_start = self._text.rfind("\n", self._marked, self._at) + 1
        self._marked = self._at
        return Mark(self._line, self._at - self._line_start)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _ESCAPED.get(found[3], found[3])
