"""What may be called, with what, and what comes back: Prometheus 3's functions and aggregations, MetricsQL's additions.

This is the parser's table. Which of these the engine can run is the evaluation's to say; a name in here always parses.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flyproxy.promql.nodes import ValueType

SCALAR, STRING, INSTANT, RANGE = ValueType.SCALAR, ValueType.STRING, ValueType.INSTANT, ValueType.RANGE


@dataclass(frozen=True, slots=True)
class FunctionSignature:
    """`variadic` as in Prometheus: 0 every argument is due; n > 0 the last may be left out, or stand up to n times;
    -1 the last may be left out, or stand any number of times."""

    name: str
    arguments: tuple[ValueType, ...]
    result: ValueType = INSTANT
    variadic: int = 0
    experimental: bool = False

    @property
    def arguments_min(self) -> int:
        return len(self.arguments) - (1 if self.variadic else 0)

    @property
    def arguments_max(self) -> int | None:
        """None: no limit."""
        if self.variadic < 0:
            return None
        return self.arguments_min + self.variadic

    def argument_type(self, index: int) -> ValueType:
        """The type of the argument at an index >= 0; the last type goes on."""
        return self.arguments[min(index, len(self.arguments) - 1)]


@dataclass(frozen=True, slots=True)
class AggregationSignature:
    """`parameter` is the type of the argument before the vector, None where there is none. `sums_rest`: a string may
    follow the vector, the label of what was left out."""

    name: str
    parameter: ValueType | None = None
    experimental: bool = False
    sums_rest: bool = False


def _table(signatures: Iterable[FunctionSignature]) -> dict[str, FunctionSignature]:
    return {signature.name: signature for signature in signatures}


def _each(names: str, *arguments: ValueType, variadic: int = 0, experimental: bool = False) -> list[FunctionSignature]:
    """Several functions of one shape that answer an instant vector."""
    return [FunctionSignature(name, arguments, variadic=variadic, experimental=experimental) for name in names.split()]


FUNCTIONS: dict[str, FunctionSignature] = _table(
    [
        # one vector, series by series
        *_each("abs ceil exp floor ln log2 log10 sgn sqrt", INSTANT),
        *_each("acos acosh asin asinh atan atanh cos cosh deg rad sin sinh tan tanh", INSTANT),
        *_each("clamp", INSTANT, SCALAR, SCALAR),
        *_each("clamp_max clamp_min", INSTANT, SCALAR),
        *_each("round", INSTANT, SCALAR, variadic=1),
        *_each("timestamp", INSTANT),
        *_each("day_of_month day_of_week day_of_year days_in_month hour minute month year", INSTANT, variadic=1),
        # one vector, as a whole
        *_each("absent sort sort_desc", INSTANT),
        *_each("sort_by_label sort_by_label_desc", INSTANT, STRING, variadic=-1, experimental=True),
        *_each("label_join", INSTANT, STRING, STRING, STRING, variadic=-1),
        *_each("label_replace", INSTANT, STRING, STRING, STRING, STRING),
        *_each("info", INSTANT, INSTANT, variadic=1, experimental=True),
        # histograms
        *_each("histogram_avg histogram_count histogram_stddev histogram_stdvar histogram_sum", INSTANT),
        *_each("histogram_fraction", SCALAR, SCALAR, INSTANT),
        *_each("histogram_quantile", SCALAR, INSTANT),
        *_each("histogram_quantiles", INSTANT, STRING, SCALAR, SCALAR, variadic=9, experimental=True),
        # a window
        *_each("rate increase irate delta idelta deriv changes resets", RANGE),
        *_each("avg_over_time count_over_time last_over_time max_over_time min_over_time sum_over_time", RANGE),
        *_each("absent_over_time present_over_time stddev_over_time stdvar_over_time", RANGE),
        *_each("first_over_time mad_over_time", RANGE, experimental=True),
        *_each("ts_of_first_over_time ts_of_last_over_time", RANGE, experimental=True),
        *_each("ts_of_max_over_time ts_of_min_over_time", RANGE, experimental=True),
        *_each("quantile_over_time", SCALAR, RANGE),
        *_each("predict_linear", RANGE, SCALAR),
        *_each("double_exponential_smoothing", RANGE, SCALAR, SCALAR, experimental=True),
        *_each("integral", RANGE, SCALAR, variadic=1, experimental=True),
        # Prometheus 2's name of double_exponential_smoothing; accepted always, 2.x dashboards are full of it
        *_each("holt_winters", RANGE, SCALAR, SCALAR),
        # between scalars and vectors
        *_each("vector", SCALAR),
        FunctionSignature("scalar", (INSTANT,), SCALAR),
        FunctionSignature("pi", (), SCALAR),
        FunctionSignature("time", (), SCALAR),
        *[FunctionSignature(name, (), SCALAR, experimental=True) for name in ("start", "end", "range", "step")],
    ]
)
"""Name to signature, Prometheus 3 as of 2026."""

METRICSQL_FUNCTIONS: dict[str, FunctionSignature] = _table(
    [
        *_each("label_uppercase label_lowercase label_del label_keep", INSTANT, STRING, variadic=-1),
        *_each("label_set", INSTANT, STRING, STRING, variadic=-1),
        *_each("drop_common_labels", INSTANT, INSTANT, variadic=-1),
    ]
)
"""What VictoriaMetrics' MetricsQL adds and an ordinary call can say; known only where MetricsQL is on."""

AGGREGATIONS: dict[str, AggregationSignature] = {
    signature.name: signature
    for signature in (
        *[AggregationSignature(name) for name in ["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"]],
        *[AggregationSignature(name, SCALAR) for name in ("topk", "bottomk", "quantile")],
        *[AggregationSignature(name, SCALAR, experimental=True) for name in ("limitk", "limit_ratio")],
        AggregationSignature("count_values", STRING),
    )
}
"""Name to signature; the names are keywords and read in any case (`SUM(x)`)."""

RANGE_RANKINGS: dict[str, tuple[bool, str]] = {
    f"{order}_{measure}": (order == "topk", measure)
    for order in ("topk", "bottomk")
    for measure in ("avg", "last", "max", "median", "min")
}
"""MetricsQL's rankings of series by one number over the whole range: whether the largest come first, and the number."""

METRICSQL_AGGREGATIONS: dict[str, AggregationSignature] = {
    "mode": AggregationSignature("mode"),
    **{name: AggregationSignature(name, SCALAR, sums_rest=True) for name in RANGE_RANKINGS},
}
"""What MetricsQL adds; keywords only where it is on, else ordinary names."""

_NOT_BUILT = """
any distinct geomean histogram iqr limitk_by mad median outliersk quantiles share sum2 zscore
aggr_over_time ascent_over_time count_eq_over_time count_gt_over_time count_le_over_time decreases_over_time
default_rollup delta_prometheus descent_over_time distinct_over_time geomean_over_time hoeffding_bound_lower
hoeffding_bound_upper ideriv increase_prometheus increase_pure increases_over_time integrate lag lifetime
median_over_time mode_over_time quantiles_over_time range_over_time rate_over_sum rollup rollup_candlestick
rollup_delta rollup_increase rollup_rate scrape_interval share_gt_over_time share_le_over_time sum2_over_time
tfirst_over_time timestamp_with_name tlast_over_time tmax_over_time tmin_over_time zscore_over_time
alias bitmap_and bitmap_or bitmap_xor buckets_limit histogram_share interpolate keep_last_value keep_next_value
label_copy label_graphite_group label_map label_match label_mismatch label_move label_transform label_value
limit_offset now prometheus_buckets rand range_avg range_first range_last range_max range_median range_min
range_quantile range_sum remove_resets running_avg running_max running_min running_sum smooth_exponential
sort_by_label_numeric sort_by_label_numeric_desc union
"""
METRICSQL_NOT_BUILT: frozenset[str] = frozenset(_NOT_BUILT.split())
"""MetricsQL names the parser knows in order to say that they are not built yet."""


def signature_of(name: str, *, metricsql: bool) -> FunctionSignature | None:
    """The signature of a function by its exact name; None when there is none."""
    found = FUNCTIONS.get(name)
    if found is None and metricsql:
        return METRICSQL_FUNCTIONS.get(name)
    return found


def aggregation_of(name: str, *, metricsql: bool) -> AggregationSignature | None:
    """The signature of an aggregation by its name in small letters; None when there is none."""
    found = AGGREGATIONS.get(name)
    if found is None and metricsql:
        return METRICSQL_AGGREGATIONS.get(name)
    return found
