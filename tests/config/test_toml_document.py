"""TOML with its places, and a sentence where it is not TOML."""

import pytest

from flyproxy.config.document import Mark
from flyproxy.config.faults import ConfigError
from flyproxy.config.toml_document import read_toml


def sentence_of(raw: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read_toml(raw, "fly.toml")
    return str(caught.value).splitlines()[0]


def test_values_and_their_places() -> None:
    document = read_toml(b"app = 'a'\n[x]\ny.z = [1]\n", "fly.toml")
    assert document.tree == {"app": "a", "x": {"y": {"z": [1]}}}
    assert document.values[("x", "y", "z", 0)] == Mark(2, 7)
    assert document.fault(("x", "y", "z", 0), "s").source_line == "y.z = [1]"


def test_a_byte_order_mark_and_windows_line_ends_move_no_place() -> None:
    document = read_toml(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n", "fly.toml")
    assert document.keys[("a",)] == Mark(0, 0)
    assert document.keys[("b",)] == Mark(1, 0)
    assert document.lines[0] == "a = 1"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"a = 1\na = 2\n", "2:6: error: not valid TOML: a key or table is given twice"),
        (b"a.b = 1\na.b.c = 2", "2:1: error: not valid TOML: a key or table is given twice"),
        (
            b"a = {b = 1}\na.c = 2\n",
            "2:8: error: not valid TOML: an inline table is whole as it stands; nothing can be added to it",
        ),
        (b"a = {\n", "1:6: error: not valid TOML: a key is wanted here"),
        (b's = """abc\n\n', "1:1: error: not valid TOML: a quote is never closed"),
        (b"a = [1 2]", "1:8: error: not valid TOML: a '[' is never closed"),
        (b"a = 'x' y\n", "1:9: error: not valid TOML: the line should end here; is a quote missing?"),
        (b"\x01", "1:1: error: not valid TOML: neither KEY = VALUE nor [TABLE]"),
        (b"a = '\xff'", " error: the file is not UTF-8: byte 0xff in line 1"),
        (b"a = " + b"[" * 5000, " error: nested too deep for a configuration"),
        (b"a = " + b"1" * 5000, " error: a number has more digits than can be read"),
        (b"a = [" + b"1," * 100_001 + b"]", " error: the file has more than 100000 values"),
        (b"#" * (1024 * 1024 + 1), " error: the file has 1048577 bytes; a configuration has at most 1048576"),
    ],
)
def test_what_is_no_toml_is_said_with_its_place(raw: bytes, sentence: str) -> None:
    assert sentence_of(raw) == f"fly.toml:{sentence}"
