"""Whole series ranked over the range: by which number, who stays, and what the rest is."""

import numpy as np
import pytest

from flyproxy.promql.errors import QueryError
from flyproxy.promql.matrix import Budget, Matrix
from flyproxy.promql.range_ranking import first_k_over_range
from flyproxy.series.labels import labels_from

NAN = float("nan")
SERIES = [labels_from({"n": name}) for name in "abc"]


def ranked(
    rows: list[list[float | None]],
    k: list[float],
    measure: str = "avg",
    *,
    largest: bool = True,
    codes: list[int] | None = None,
    rest_label: str | None = None,
) -> list[tuple[str, list[float | None]]]:
    """Labels and values; None: not there."""
    present = np.array([[cell is not None for cell in row] for row in rows])
    values = np.array([[0.0 if cell is None else cell for cell in row] for row in rows])
    groups = [labels_from({"g": str(group)}) for group in range(max(codes or [0]) + 1)]
    found = first_k_over_range(
        Matrix(SERIES[: len(rows)], values, present),
        np.array(codes or [0] * len(rows), dtype=np.int64),
        groups,
        np.array(k),
        measure,
        largest=largest,
        rest_label=rest_label,
        budget=Budget(10_000),
        checkpoint=lambda: None,
    )
    return [
        (
            ",".join(f"{name}={value}" for name, value in labels),
            [float(value) if here else None for value, here in zip(row, there, strict=True)],
        )
        for labels, row, there in zip(found.labels, found.values, found.present, strict=True)
    ]


@pytest.mark.parametrize(
    ("measure", "largest", "first"),
    [
        ("avg", True, "n=b"),
        ("max", True, "n=c"),
        ("min", True, "n=b"),
        ("median", True, "n=b"),
        ("last", True, "n=a"),
        ("avg", False, "n=c"),
        ("max", False, "n=b"),
        ("min", False, "n=c"),
        ("median", False, "n=c"),
        ("last", False, "n=c"),
    ],
)
def test_every_measure_has_its_first(measure: str, largest: bool, first: str) -> None:
    rows: list[list[float | None]] = [[1, 1, 7, 7], [5, 5, 6, 6], [0, 0, 9, 0]]
    assert [labels for labels, _ in ranked(rows, [1] * 4, measure, largest=largest)] == [first]


def test_what_is_not_there_or_nan_counts_for_nothing() -> None:
    assert ranked([[None, 4, NAN], [3, 3, 3]], [1] * 3)[0] == ("n=a", [None, 4.0, pytest.approx(NAN, nan_ok=True)])
    assert [labels for labels, _ in ranked([[NAN, NAN], [-9, -9]], [1, 1])] == ["n=b"]
    assert [labels for labels, _ in ranked([[NAN, NAN], [-9, -9]], [1, 1], largest=False)] == ["n=b"]


def test_the_number_of_those_that_stay_may_change_from_step_to_step() -> None:
    assert ranked([[1, 1], [2, 2], [3, 3]], [1, 2]) == [("n=c", [3.0, 3.0]), ("n=b", [None, 2.0])]
    assert ranked([[1, 1]], [0, -1]) == []


def test_the_rest_is_a_sum_by_group_after_its_group() -> None:
    rows: list[list[float | None]] = [[1, None], [2, 5], [7, 7]]
    assert (
        ranked(rows, [1, 1], codes=[0, 0, 1], rest_label="n=other")
        == [
            ("n=b", [2.0, 5.0]),
            ("g=0,n=other", [1.0, None]),
            ("n=c", [7.0, 7.0]),
            ("g=1,n=other", [None, None]),
        ][:4]
    )


def test_a_label_alone_is_its_own_value() -> None:
    assert ranked([[1], [2]], [1], rest_label="other")[1] == ("g=0,other=other", [1.0])


def test_a_rest_that_looks_like_a_series_that_stays_is_refused() -> None:
    with pytest.raises(QueryError, match="same labelset"):
        first_k_over_range(
            Matrix(SERIES[:2], np.ones((2, 1)), np.ones((2, 1), dtype=np.bool_)),
            np.zeros(2, dtype=np.int64),
            [()],
            np.ones(1),
            "avg",
            largest=True,
            rest_label="n=a",
            budget=Budget(100),
            checkpoint=lambda: None,
        )
