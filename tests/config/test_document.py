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


def test_all_that_does_not_stop_the_reading_is_gathered() -> None:
    document = read_document(b"a: ${X}\nb: !!int 3\na: 2\n? [k]\n: 1\n", "f", {})
    assert len(document.faults) == 4
