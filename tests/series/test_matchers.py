import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.series.matchers import BadPatternError, Matcher, MatchOp, forget_patterns


def matches(op: MatchOp, wanted: str, value: str) -> bool:
    return bool(Matcher("label", op, wanted).predicate()(value))


def test_equality_takes_the_text_as_it_is() -> None:
    assert matches(MatchOp.EQUAL, "a.b", "a.b")
    assert not matches(MatchOp.EQUAL, "a.b", "axb")
    assert matches(MatchOp.NOT_EQUAL, "a", "")
    assert matches(MatchOp.EQUAL, "", "")


@pytest.mark.parametrize(
    ("pattern", "value", "wanted"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("a", "ba", False),
        ("a|b", "b", True),
        ("a|b", "ab", False),
        ("a|", "", True),
        ("", "", True),
        ("", "a", False),
        ("a.*", "abc", True),
        (".*", "", True),
        (".+", "", False),
        (".+", "x", True),
        ("^a$", "a", True),
        ("a$|b", "b", True),
        ("(a|b)c", "bc", True),
        ("(?i)ab", "AB", True),
        (r"\d+", "42", True),
        (r"a\.b", "axb", False),
        ("é.", "éx", True),
        ("日本|x", "日本", True),
        ("5.[0-9]", "50", False),
        ("5..", "500", True),
    ],
)
def test_a_pattern_matches_the_whole_value_or_nothing(pattern: str, value: str, wanted: bool) -> None:
    assert matches(MatchOp.MATCH, pattern, value) is wanted
    assert matches(MatchOp.NOT_MATCH, pattern, value) is not wanted


@pytest.mark.parametrize("pattern", [".*", ".+", "^.*$", "a.b", "a.*", "(a.b)"])
def test_a_dot_is_any_character_line_ends_too(pattern: str) -> None:
    assert matches(MatchOp.MATCH, pattern, "a\nb")


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a**", "(?=a)", r"(a)\1", "\\", "a{2000}"])
def test_a_bad_pattern_names_itself(pattern: str) -> None:
    with pytest.raises(BadPatternError) as caught:
        Matcher("label", MatchOp.MATCH, pattern).predicate()
    assert repr(pattern) in str(caught.value)
    with pytest.raises(BadPatternError):
        Matcher("label", MatchOp.NOT_MATCH, pattern).predicate()


def test_a_pattern_made_to_backtrack_is_linear() -> None:
    assert not matches(MatchOp.MATCH, "(a*)*(a*)*(a*)*b", "a" * 50_000)


@given(st.lists(st.sampled_from("abc|.+*?()é"), max_size=8).map("".join), st.text("abcé\n", max_size=6))
def test_short_patterns_agree_with_pythons_own(pattern: str, value: str) -> None:
    try:
        predicate = Matcher("label", MatchOp.MATCH, pattern).predicate()
        wanted = re.fullmatch(pattern, value, re.DOTALL) is not None
    except (BadPatternError, re.error):
        return
    assert bool(predicate(value)) is wanted


def test_a_test_that_was_kept_works_after_its_pattern_was_forgotten() -> None:
    takes = Matcher("app", MatchOp.MATCH, "h.*o").predicate()
    refuses = Matcher("app", MatchOp.NOT_MATCH, "h.*o").predicate()
    assert (takes("hello"), refuses("hello")) == (True, False)
    forget_patterns()
    assert (takes("hello"), refuses("hello"), takes("shop"), refuses("shop")) == (True, False, False, True)
