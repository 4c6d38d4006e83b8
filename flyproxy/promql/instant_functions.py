"""Functions of one instant vector, series by series and step by step: values [rows, steps] in, as many out."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flyproxy.series.frame import Bools, Floats

InstantKernel = Callable[[Floats, Bools, tuple[Floats, ...]], tuple[Floats, Bools]]
"""values, present, the call's scalar arguments ([steps] each); answers values and present."""

_DAY_S = 86_400


def _plain(change: Callable[[Floats], Floats]) -> InstantKernel:
    def kernel(values: Floats, present: Bools, _: tuple[Floats, ...]) -> tuple[Floats, Bools]:
        return change(values), present

    return kernel


def _clamp(values: Floats, present: Bools, bounds: tuple[Floats, ...]) -> tuple[Floats, Bools]:
    """Nothing at all where min > max."""
    low, high = bounds
    return _greater(low, _lesser(high, values)), present & ~(low > high)


def _clamp_min(values: Floats, present: Bools, bounds: tuple[Floats, ...]) -> tuple[Floats, Bools]:
    return _greater(bounds[0], values), present


def _clamp_max(values: Floats, present: Bools, bounds: tuple[Floats, ...]) -> tuple[Floats, Bools]:
    return _lesser(bounds[0], values), present


def _greater(left: Floats, right: Floats) -> Floats:
    """Go's math.Max: infinity wins over NaN, NaN over the rest."""
    return np.where(np.isposinf(left) | np.isposinf(right), np.inf, np.maximum(left, right))


def _lesser(left: Floats, right: Floats) -> Floats:
    return -_greater(-left, -right)


def _round(values: Floats, present: Bools, nearest: tuple[Floats, ...]) -> tuple[Floats, Bools]:
    """Halves go up. The inverse is used as Prometheus does, which keeps round(x, 0.1) free of 0.30000000000000004."""
    inverse = 1.0 / (nearest[0] if nearest else np.ones(1))
    return np.floor(values * inverse + 0.5) / inverse, present


def _log2(values: Floats) -> Floats:
    """By mantissa and exponent, as Go does: what is near 1 is rounded the same way."""
    mantissa, exponent = np.frexp(values)
    ordinary = np.isfinite(values) & (values > 0)
    split = np.where(mantissa == 0.5, exponent - 1.0, np.log(mantissa) * (1 / np.log(2)) + exponent)
    return np.where(ordinary, split, np.log2(values))


def _log10(values: Floats) -> Floats:
    scaled: Floats = _log2(values) * (np.log(2) / np.log(10))
    return scaled


def _sign(values: Floats) -> Floats:
    return np.where(values > 0, 1.0, np.where(values < 0, -1.0, values))


def _calendar(field: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """A field of a UTC date, from Unix seconds; NaN for what is no time."""

    def of_seconds(values: Floats) -> Floats:
        usable = np.abs(values) < 2.0**53
        return np.where(usable, field(np.trunc(np.where(usable, values, 0.0))), np.nan)

    return of_seconds


def _number(days: npt.NDArray[np.timedelta64]) -> Floats:
    return days.astype(np.int64).astype(np.float64)


def _day_of_month(seconds: Floats) -> Floats:
    days = (seconds // _DAY_S).astype("datetime64[D]")
    return _number(days - days.astype("datetime64[M]").astype("datetime64[D]")) + 1


def _day_of_year(seconds: Floats) -> Floats:
    days = (seconds // _DAY_S).astype("datetime64[D]")
    return _number(days - days.astype("datetime64[Y]").astype("datetime64[D]")) + 1


def _days_in_month(seconds: Floats) -> Floats:
    months = (seconds // _DAY_S).astype("datetime64[D]").astype("datetime64[M]")
    return _number((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]"))


def _month(seconds: Floats) -> Floats:
    months = (seconds // _DAY_S).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return (months % 12 + 1).astype(np.float64)


def _year(seconds: Floats) -> Floats:
    years = (seconds // _DAY_S).astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64)
    return (years + 1970).astype(np.float64)


CALENDAR_FUNCTIONS: dict[str, InstantKernel] = {
    "day_of_month": _plain(_calendar(_day_of_month)),
    "day_of_week": _plain(_calendar(lambda seconds: (seconds // _DAY_S + 4) % 7)),
    "day_of_year": _plain(_calendar(_day_of_year)),
    "days_in_month": _plain(_calendar(_days_in_month)),
    "hour": _plain(_calendar(lambda seconds: seconds // 3600 % 24)),
    "minute": _plain(_calendar(lambda seconds: seconds // 60 % 60)),
    "month": _plain(_calendar(_month)),
    "year": _plain(_calendar(_year)),
}
"""Without an argument they tell the time of evaluation."""

INSTANT_FUNCTIONS: dict[str, InstantKernel] = {
    "abs": _plain(np.abs),
    "ceil": _plain(np.ceil),
    "floor": _plain(np.floor),
    "exp": _plain(np.exp),
    "sqrt": _plain(np.sqrt),
    "ln": _plain(np.log),
    "log2": _plain(_log2),
    "log10": _plain(_log10),
    "sgn": _plain(_sign),
    "deg": _plain(np.degrees),
    "rad": _plain(np.radians),
    "sin": _plain(np.sin),
    "cos": _plain(np.cos),
    "tan": _plain(np.tan),
    "asin": _plain(np.arcsin),
    "acos": _plain(np.arccos),
    "atan": _plain(np.arctan),
    "sinh": _plain(np.sinh),
    "cosh": _plain(np.cosh),
    "tanh": _plain(np.tanh),
    "asinh": _plain(np.arcsinh),
    "acosh": _plain(np.arccosh),
    "atanh": _plain(np.arctanh),
    "clamp": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "round": _round,
    **CALENDAR_FUNCTIONS,
}
"""Each drops the metric name."""
