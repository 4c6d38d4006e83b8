from collections.abc import Collection

import promql_parser
import pytest

from flyproxy.promql.functions import (
    AGGREGATIONS,
    FUNCTIONS,
    METRICSQL_AGGREGATIONS,
    METRICSQL_FUNCTIONS,
    METRICSQL_NOT_BUILT,
    FunctionSignature,
    aggregation_of,
    signature_of,
)
from flyproxy.promql.nodes import ValueType

SAMPLE = {ValueType.SCALAR: "1", ValueType.STRING: '"a"', ValueType.INSTANT: "x", ValueType.RANGE: "x[5m]"}
OURS_ALONE = {"holt_winters", "info"}


def spelled(signature: FunctionSignature, count: int) -> str:
    return f"{signature.name}({', '.join([SAMPLE[signature.argument_type(index)] for index in range(count)])})"


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - OURS_ALONE))
def test_the_oracle_knows_every_function_with_the_same_arguments(name: str) -> None:
    signature = FUNCTIONS[name]
    least, most = signature.arguments_min, signature.arguments_max
    for count in {least, least + 1 if most is None else most}:
        promql_parser.parse(spelled(signature, count))
    for count in {least - 1, 99 if most is None else most + 1} - {99, -1}:
        with pytest.raises(ValueError, match="argument"):
            promql_parser.parse(spelled(signature, count) if signature.arguments else f"{name}(1)")


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_the_oracle_knows_every_aggregation_with_the_same_parameter(name: str) -> None:
    parameter = AGGREGATIONS[name].parameter
    promql_parser.parse(f"{name}({SAMPLE[parameter] + ', ' if parameter else ''}x)")


def test_an_optional_argument_may_be_left_out_and_a_variadic_one_repeated() -> None:
    rounding, joining = FUNCTIONS["round"], FUNCTIONS["label_join"]
    assert (rounding.arguments_min, rounding.arguments_max) == (1, 2)
    assert (joining.arguments_min, joining.arguments_max) == (3, None)
    assert joining.argument_type(7) is ValueType.STRING


def test_no_name_means_two_things() -> None:
    tables: list[Collection[str]] = [
        FUNCTIONS,
        AGGREGATIONS,
        METRICSQL_FUNCTIONS,
        METRICSQL_AGGREGATIONS,
        METRICSQL_NOT_BUILT,
    ]
    assert len({name for table in tables for name in table}) == sum(len(table) for table in tables)


def test_metricsql_names_are_found_only_where_it_is_on() -> None:
    assert signature_of("label_uppercase", metricsql=False) is None
    assert signature_of("label_uppercase", metricsql=True) is METRICSQL_FUNCTIONS["label_uppercase"]
    assert signature_of("rate", metricsql=False) is signature_of("rate", metricsql=True)
    assert aggregation_of("mode", metricsql=False) is None
    assert aggregation_of("mode", metricsql=True) is METRICSQL_AGGREGATIONS["mode"]
