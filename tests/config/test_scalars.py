"""What a written value means."""

import pytest

from flyproxy.config.scalars import EXPANDED_CHARACTERS_MAX, VariableError, as_text, expand, got, plain_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("off", "off"),
        ("12", 12),
        ("-3", -3),
        ("0012", 12),
        ("10:20", "10:20"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("2024-01-02", "2024-01-02"),
        ("9" * 30, 1e30),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_are_yaml_1_2(text: str, value: object) -> None:
    assert plain_value(text) == value


def test_a_number_knows_its_text() -> None:
    assert as_text(plain_value("0012")) == "0012"
    assert as_text(plain_value("1e3")) == "1e3"
    assert as_text(True) is None
    assert as_text([]) is None


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${A}", "one"),
        ("x${A}y${A}", "xoneyone"),
        ("${B:-two}", "two"),
        ("${B:-}", ""),
        ("${A:-two}", "one"),
        ("$A $ {", "$A $ {"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("${A}$${A}", "one${A}"),
    ],
)
def test_variables_are_filled_in(text: str, expanded: str) -> None:
    assert expand(text, {"A": "one"}) == expanded


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${1A}", "${A:+x}", "${A-x}", "${C}"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(VariableError):
        expand(text, {"A": "one"})


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    assert expand("${A}", {"A": "${A}"}) == "${A}"


def test_filling_in_is_bounded() -> None:
    with pytest.raises(VariableError, match="longer than"):
        expand("${A}" * 100, {"A": "x" * (EXPANDED_CHARACTERS_MAX // 50)})
    assert len(expand("${A}${A}", {"A": "x" * (EXPANDED_CHARACTERS_MAX // 2)})) == EXPANDED_CHARACTERS_MAX
    with pytest.raises(VariableError, match="longer than"):  # 10 GB, were it built before it is measured
        expand("${A}" * 100_000, {"A": "x" * 100_000})


def test_what_was_got_is_named_shortly() -> None:
    values = [None, True, [], {}, "a", "a" * 100, plain_value("007"), 3]
    assert [got(value) for value in values] == [
        "nothing",
        "true",
        "a list",
        "a mapping",
        "'a'",
        f"'{'a' * 60}...'",
        "007",
        "3",
    ]
