"""Positions, and the walk through anchors and variables."""

import pytest

from flyproxy.config.document import Mark, read_document
from flyproxy.config.faults import ConfigError


def test_every_key_and_value_has_its_place() -> None:
    document = read_document(b"edge:\n  region: ord\napps:\n  - {name: a}\n", "f", {})
    assert document.tree == {"edge": {"region": "ord"}, "apps": [{"name": "a"}]}
    assert document.keys["edge", "region"] == Mark(1, 2)
    assert document.values["edge", "region"] == Mark(1, 10)
    assert document.values["apps", 0] == Mark(3, 4)
    assert document.values["apps", 0, "name"] == Mark(3, 11)


def test_a_fault_of_something_unwritten_points_at_what_would_hold_it() -> None:
    document = read_document(b"apps:\n  - name: a\n", "f", {})
    fault = document.fault(("apps", 0, "instances", 3), "s")
    assert (fault.line, fault.column, fault.path) == (2, 5, "apps[0].instances[3]")


def test_an_empty_text_is_nothing() -> None:
    document = read_document(b"", "f", {})
    assert document.tree is None
    assert document.fault(("edge",), "s").line is None


def test_a_value_behind_an_alias_points_at_the_anchor() -> None:
    document = read_document(b"a: &x {b: 1}\nc: *x\n", "f", {})
    assert document.tree == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.values["c", "b"] == Mark(0, 10)


def test_a_wide_alias_bomb_is_stopped() -> None:
    lines = ["a0: &a0 [" + ", ".join("x" * 20) + "]"]
    lines += [f"a{level}: &a{level} [" + ", ".join([f"*a{level - 1}"] * 20) + "]" for level in range(1, 9)]
    with pytest.raises(ConfigError, match="with its aliases unfolded the file has more than 100000 values"):
        read_document("\n".join(lines).encode(), "f", {})


def test_a_bomb_of_merges_is_stopped() -> None:
    keys = ", ".join(f"k{number}: 1" for number in range(1000))
    text = f"a: &a {{{keys}}}\nb: {{<<: [{', '.join(['*a'] * 1000)}]}}\n"
    with pytest.raises(ConfigError, match="with its aliases unfolded the file has more than 100000 values"):
        read_document(text.encode(), "f", {})


@pytest.mark.parametrize("text", ["a: &a {<<: *a}\n", "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_what_holds_itself_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="with its aliases unfolded the file has more than 24 levels"):
        read_document(text.encode(), "f", {})


def test_what_was_merged_is_merged_on() -> None:
    document = read_document(b"a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2, z: 2}\nc: {<<: *b, z: 3}\n", "f", {})
    assert isinstance(document.tree, dict)
    assert document.tree["c"] == {"x": 1, "y": 2, "z": 3}
    assert document.faults == []


@pytest.mark.parametrize(
    ("raw", "place", "sentence"),
    [
        (b'a: "x\\U00110000"\n', (1, 8), "not valid YAML: an escape that stands for no character"),
        (b'a:\n  "\\UFFFFFFFF"\n', (2, 6), "not valid YAML: an escape that stands for no character"),
        (b"\xef\xbb\xbfa: b\nc: \xff\n", (2, 4), "the file is not UTF-8: byte 0xff"),
        (b"a: b\0\n", (1, 5), "the character U+0000 is not allowed in YAML"),
    ],
)
def test_what_is_no_character_is_refused_in_its_place(raw: bytes, place: tuple[int, int], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_document(raw, "f", {})
    (fault,) = error.value.faults
    assert ((fault.line, fault.column), fault.sentence) == (place, sentence)


def test_half_a_surrogate_pair_is_no_value() -> None:
    document = read_document(b'a: "\\ud83d"\n', "f", {})
    assert document.tree == {"a": None}
    assert document.faults[0].sentence.startswith("half a surrogate pair is no character")


def test_all_that_does_not_stop_the_reading_is_gathered() -> None:
    document = read_document(b"a: ${X}\nb: !!int 3\na: 2\n? [k]\n: 1\n", "f", {})
    assert len(document.faults) == 4
