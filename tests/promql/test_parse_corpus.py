"""The corpus in plain files: the good, the bad and what its reader is told, and where we part from the oracle."""

from pathlib import Path

import promql_parser
import pytest

from flyproxy.promql.format import format_expression
from flyproxy.promql.parse import ParseError, parse

EXPRESSIONS = Path(__file__).parent / "expressions"


def lines(name: str) -> list[str]:
    text = (EXPRESSIONS / f"{name}.txt").read_text("utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("# ")]


def oracle_accepts(expression: str) -> bool:
    try:
        promql_parser.parse(expression)
    except ValueError:
        return False
    return True


def accepts(expression: str) -> bool:
    try:
        parse(expression)
    except ParseError:
        return False
    return True


def test_the_corpus_is_large() -> None:
    assert len(lines("good")) > 500
    assert len(lines("bad")) > 400


@pytest.mark.parametrize("expression", lines("good"))
def test_a_good_expression_parses_and_its_text_reads_back(expression: str) -> None:
    node = parse(expression)
    text = format_expression(node)
    assert format_expression(parse(text)) == text
    assert oracle_accepts(expression)
    assert oracle_accepts(text)


@pytest.mark.parametrize("line", lines("bad"))
def test_a_bad_expression_gets_its_sentence_at_its_place(line: str) -> None:
    expression, _, told = line.partition("  ## ")
    with pytest.raises(ParseError) as caught:
        parse(expression)
    assert f"{caught.value.column}: {caught.value.sentence}" == told
    assert 0 <= caught.value.position.start <= caught.value.position.end <= len(expression)
    assert not oracle_accepts(expression)


@pytest.mark.parametrize("line", lines("differences"))
def test_where_we_part_from_the_oracle_there_is_a_reason(line: str) -> None:
    expression, _, said = line.partition("  ## ")
    verdict, _, reason = said.partition(": ")
    assert reason
    assert accepts(expression) == (verdict == "accepted")
    assert oracle_accepts(expression) != accepts(expression)


@pytest.mark.parametrize("expression", lines("good"))
def test_metricsql_takes_all_that_is_good_promql_and_means_the_same(expression: str) -> None:
    assert repr(parse(expression, metricsql=True)) == repr(parse(expression))


@pytest.mark.parametrize("expression", lines("fly"))
def test_every_query_of_flys_dashboards_parses_and_its_text_reads_back(expression: str) -> None:
    text = format_expression(parse(expression, metricsql=True))
    assert format_expression(parse(text, metricsql=True)) == text
    parse(expression + " \n", metricsql=True)
