"""Reads the cases in cases/ (its README says how they are written)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).parent / "cases"
KEYS = frozenset(
    ("before", "body", "closes", "first", "has", "lacks", "lacks-text", "pool", "sees", "then", "to", "whole")
)
_ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}
_ESCAPE = re.compile(rb"\\(?:\{([0-9]+) ([^}]*)\}|x([0-9a-f]{2})|([rnt\\]))")
_TITLE = re.compile(r"== ([a-z0-9.-]+) \(RFC ([0-9]{4}) ([0-9.]+)\)")
_WAIT = b"\\{wait}"


@dataclass(frozen=True)
class Case:
    """One message, or several on one connection, and what must become of it."""

    topic: str
    name: str
    rfc: str
    verdict: tuple[str, ...]
    notes: tuple[tuple[str, str], ...]
    pieces: tuple[bytes, ...]
    """As sent; between two of them the sender waits until the first has been read."""

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def id(self) -> str:
        return f"{self.topic}/{self.name}"

    def said(self, key: str) -> list[str]:
        """The values of all notes of this key."""
        return [value for noted, value in self.notes if noted == key]


def topics(kind: str) -> list[str]:
    """The names of the files of `requests` or `responses`."""
    return [path.stem for path in sorted((CASES / kind).glob("*.txt"))]


def load(kind: str, topic: str) -> list[Case]:
    """All cases of one file; ValueError where one is not written as it should be."""
    text = (CASES / kind / f"{topic}.txt").read_bytes()
    return [_case(topic, block) for block in re.split(rb"\n(?=== )", text)[1:]]


def load_all(kind: str) -> Iterator[Case]:
    for topic in topics(kind):
        yield from load(kind, topic)


def unescape(text: bytes) -> bytes:
    r"""The bytes a message's text stands for: \r \n \t \\ \xNN, \{N text}; the file's own line ends mean nothing."""
    plain = text.replace(b"\n", b"")
    if b"\\" in _ESCAPE.sub(b"", plain):
        raise ValueError(f"no such escape: {plain!r}")
    return _ESCAPE.sub(_meaning, plain)


def escape(raw: bytes) -> bytes:
    """A text that stands for these bytes, a line of it for each LF."""
    marked = raw.replace(b"\\", b"\\\\").replace(b"\r", b"\\r").replace(b"\n", b"\\n\n").replace(b"\t", b"\\t")
    return re.sub(rb"[^\n -~]", lambda match: b"\\x%02x" % match[0][0], marked)


def _meaning(match: "re.Match[bytes]") -> bytes:
    times, repeated, code, letter = match.groups()
    if times is not None:
        return unescape(repeated) * int(times)
    return bytes.fromhex(code.decode()) if code else _ESCAPES[letter]


def _case(topic: str, block: bytes) -> Case:
    description, _, message = block.partition(b"\n---\n")
    title, verdict, *notes = description.decode().splitlines()
    named = _TITLE.fullmatch(title)
    if named is None:
        raise ValueError(f"{topic}: not `== name (RFC number section)`: {title}")
    pairs = tuple((key, value) for key, _, value in (note.partition(" ") for note in notes))
    if unknown := {key for key, _ in pairs} - KEYS:
        raise ValueError(f"{topic}/{named[1]}: unknown notes {unknown}")
    pieces = tuple(unescape(piece) for piece in message.split(_WAIT))
    return Case(topic, named[1], f"{named[2]} {named[3]}", tuple(verdict.split()), pairs, pieces)
