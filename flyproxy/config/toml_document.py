"""A TOML text as plain values that remember where they stood: tomllib's values, toml_places' places."""

from __future__ import annotations

import re
import tomllib

from flyproxy.config.document import FILE_BYTES_MAX, VALUES_MAX, Document, Mark
from flyproxy.config.faults import ConfigError, Fault
from flyproxy.config.toml_places import find_places

_PLACE = re.compile(r"(.*) \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)", re.DOTALL)
_PROBLEMS = (
    ("Cannot overwrite a value", "a key or table is given twice"),
    ("Cannot declare", "a table is given twice"),
    ("Cannot mutate immutable", "an inline table is whole as it stands; nothing can be added to it"),
    ("Invalid value", "no value stands here; a text needs quotes"),
    ("Invalid statement", "neither KEY = VALUE nor [TABLE]"),
    ("Unterminated string", "a quote is never closed"),
    ("Illegal character '\\n'", "the quote is not closed on its line"),
    ("Unclosed array", "a '[' is never closed"),
    ("Unclosed inline table", "a '{' is never closed"),
    ("Invalid initial character for a key part", "a key is wanted here"),
    ("Expected '=' after a key", "a key without its '='"),
    ("Expected newline or end of document", "the line should end here; is a quote missing?"),
)


def read_toml(raw: bytes, name: str) -> Document:
    """The document of a file's bytes. Raises ConfigError when it cannot be read."""
    if len(raw) > FILE_BYTES_MAX:
        sentence = f"the file has {len(raw)} bytes; a configuration has at most {FILE_BYTES_MAX}"
        raise ConfigError([Fault(name, None, None, "", sentence)])
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        sentence = f"the file is not UTF-8: byte 0x{raw[error.start]:02x} in line {line}"
        raise ConfigError([Fault(name, None, None, "", sentence)]) from None
    document = Document(name, tuple(text.split("\n")))
    try:
        document.tree = tomllib.loads(text)
        places = find_places(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_fault(str(error), document)]) from None
    except ValueError:
        raise ConfigError([Fault(name, None, None, "", "a number has more digits than can be read")]) from None
    except RecursionError:
        raise ConfigError([Fault(name, None, None, "", "nested too deep for a configuration")]) from None
    if len(places.values) > VALUES_MAX:
        raise ConfigError([Fault(name, None, None, "", f"the file has more than {VALUES_MAX} values")])
    document.keys, document.values = places.keys, places.values
    return document


def _syntax_fault(message: str, document: Document) -> Fault:
    found = _PLACE.fullmatch(message)
    problem = found[1] if found else message
    ours = next((sentence for start, sentence in _PROBLEMS if problem.startswith(start)), None)
    sentence = f"not valid TOML: {ours or problem}"
    if found is None or found[2] is None:
        last = max(index for index, line in enumerate(document.lines) if line.strip() or index == 0)
        return document.fault_at(Mark(last, 0), sentence)
    return document.fault_at(Mark(int(found[2]) - 1, int(found[3]) - 1), sentence)
