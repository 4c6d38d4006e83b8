"""String literals: 'single', "double" and `raw` quotes, with the escapes of Go."""

import re

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_SPECIAL = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}
_PIECE = re.compile(r"[^\\]++|\\(?:x[0-9a-fA-F]{2}|[0-7]{3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[abfnrtv\\'\"])")


class QuotingError(ValueError):
    """A string literal with a fault; `offset` is where in the literal, in characters."""

    def __init__(self, sentence: str, offset: int) -> None:
        super().__init__(sentence)
        self.offset = offset


def unquote(literal: str) -> str:
    """The value of a literal that has its quotes still on. Raises QuotingError."""
    quote = literal[0]
    inner = literal[1:-1]
    if quote == "`" or "\\" not in inner:
        return inner
    value = bytearray()
    at = 0
    while at < len(inner):
        piece = _PIECE.match(inner, at)
        if piece is None:
            raise QuotingError(_complaint(inner[at : at + 10]), at + 1)
        value += _meaning(piece.group(), quote, at + 1)
        at = piece.end()
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise QuotingError("the escapes of this string do not make valid UTF-8", 0) from None


def quoted(text: str) -> str:
    """A literal in double quotes that `unquote` reads back as the same text."""
    return '"' + "".join(_spelled(character, '"') for character in text) + '"'


def quoted_character(character: str) -> str:
    """One character in single quotes, as error sentences show it."""
    return "'" + _spelled(character, "'") + "'"


def _meaning(piece: str, quote: str, offset: int) -> bytes:
    if piece[0] != "\\":
        return piece.encode()
    kind = piece[1]
    if kind in _ESCAPES:
        return _ESCAPES[kind].encode()
    if kind in "'\"":
        if kind != quote:
            raise QuotingError(_complaint(piece), offset)
        return kind.encode()
    if kind in "uU":
        return _encoded(int(piece[2:], 16), offset)
    number = int(piece[2:], 16) if kind == "x" else int(piece[1:], 8)
    if number > 255:
        raise QuotingError("escape sequence is an invalid Unicode code point", offset)
    return bytes([number])


def _encoded(code_point: int, offset: int) -> bytes:
    if code_point > 0x10FFFF or 0xD800 <= code_point < 0xE000:
        raise QuotingError("escape sequence is an invalid Unicode code point", offset)
    return chr(code_point).encode()


def _complaint(escape: str) -> str:
    kind = escape[1:2]
    if kind and kind in "xuU01234567":
        return f"illegal escape sequence {quoted(escape)}"
    return f"unknown escape sequence {quoted(escape[:2])}"


def _spelled(character: str, quote: str) -> str:
    if character == quote:
        return "\\" + quote
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isprintable():
        return character
    code_point = ord(character)
    if code_point < 0x80:
        return f"\\x{code_point:02x}"
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"
