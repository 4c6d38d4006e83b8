"""Which counters of a first page are believed to be new."""

import pytest

from flyproxy.scrape.births import created_between
from flyproxy.series.exposition_parser import Reader
from flyproxy.series.labels import label_value

SINCE_S, UNTIL_S = 1_700_000_000.0, 1_700_000_015.0


def born(page: str, *, openmetrics: bool = False) -> list[str]:
    """The values of label `x`, or the names, of what is believed to be new."""
    read = Reader().read(page.encode(), openmetrics=openmetrics)
    proven = created_between(read, SINCE_S * 1000, UNTIL_S * 1000).tolist()
    return [
        label_value(labels, "x") or label_value(labels, "__name__")
        for labels, new in zip(read.series, proven, strict=True)
        if new
    ]


@pytest.mark.parametrize(
    ("created", "new"),
    [
        ("1.700000000e9", True),
        ("1.7000000149e9", True),
        ("1.699999999e9", False),
        ("1.700000017e9", False),
        ("NaN", False),
        ("+Inf", False),
        ("0", False),
    ],
)
def test_a_counter_is_new_when_it_was_created_in_that_time(created: str, new: bool) -> None:
    page = f"# TYPE a counter\na_total 3\na_created {created}\n# EOF\n"
    assert born(page, openmetrics=True) == (["a_total"] if new else [])


def test_each_label_set_has_its_own_word() -> None:
    page = (
        "# TYPE a_total counter\n"
        'a_total{x="old"} 1000000\na_total{x="new"} 1\na_total{x="mute"} 7\n'
        "# TYPE a_created gauge\n"
        'a_created{x="old"} 1.6e9\na_created{x="new"} 1.70000001e9\n'
    )
    assert born(page) == ["new"]


def test_a_histograms_word_is_for_all_its_series() -> None:
    page = (
        "# TYPE h histogram\n"
        'h_bucket{x="1",le="0.5"} 1\nh_bucket{x="2",le="+Inf"} 1\nh_count{x="3"} 1\nh_sum{x="4"} 1\n'
        + "".join(f'h_created{{x="{number}"}} 1.70000001e9\n' for number in range(1, 5))
    )
    assert born(page) == ["1", "2", "3", "4"]


def test_a_gauge_is_no_counter_whatever_it_says() -> None:
    assert born("# TYPE a gauge\na 3\na_created 1.70000001e9\n") == []


def test_a_page_without_a_word_proves_nothing() -> None:
    assert born("# TYPE a counter\na_total 1000000\nprocess_start_time_seconds 1.70000001e9\n") == []
