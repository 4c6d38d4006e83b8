"""Forced labels, names that are ours, duplicates."""

import pytest

from flyproxy.scrape.labelling import REPORT_NAMES, Labelled, Labelling
from flyproxy.series.exposition_parser import Reader
from flyproxy.series.labels import Labels, labels_from

FORCED = {"app": "hello", "region": "ord", "host": "2bc3", "instance": "3d8d9e27b24e89"}


def named(name: str, **labels: str) -> Labels:
    return labels_from({"__name__": name, **FORCED, **labels})


def labelled(*pages: str) -> list[Labelled]:
    """The answers to some pages of one target."""
    reader, labelling = Reader(), Labelling(FORCED)
    return [labelling.of(reader.read(page.encode(), openmetrics=False)) for page in pages]


def test_the_labels_of_the_place_overwrite_the_apps_own() -> None:
    (result,) = labelled('a{region="mars",app="x",host="y",instance="z",le="0.5"} 1\nb 1\n')
    assert result.layout.series[5:] == (named("a", le="0.5"), named("b"))


def test_the_report_comes_first() -> None:
    (result,) = labelled("a 1\n")
    assert result.layout.series[:5] == tuple(named(name) for name in REPORT_NAMES)
    assert not result.layout.counters[:5].any()


@pytest.mark.parametrize("name", ["up", "fly_edge_data_out", "flyproxy_x", "scrape_duration_seconds", "fly_"])
def test_names_that_are_ours_are_refused(name: str) -> None:
    (result,) = labelled(f"a 1\n{name} 2\nb 3\n")
    assert result.layout.series[5:] == (named("a"), named("b"))
    assert result.kept.tolist() == [0, 2]
    assert result.refused == 1


@pytest.mark.parametrize("name", ["upper", "flying", "up_total", "my_fly_x", "scraped"])
def test_names_that_only_look_like_ours_are_kept(name: str) -> None:
    (result,) = labelled(f"{name} 2\n")
    assert result.refused == 0


def test_of_series_that_become_the_same_the_first_is_kept() -> None:
    (result,) = labelled('a{region="x"} 1\na{region="y"} 2\na 3\nb 4\n')
    assert result.kept.tolist() == [0, 3]
    assert result.duplicates == 2


def test_the_layout_is_the_same_object_while_the_series_are_the_same() -> None:
    first, second, third = labelled("a 1\n", "a 2\n", "a 3\nb 1\n")
    assert second.layout is first.layout
    assert third.layout is not first.layout
    assert [result.added for result in (first, second, third)] == [1, 0, 1]


def test_counters_stay_with_their_series() -> None:
    (result,) = labelled("# TYPE b counter\nup 1\na 1\nb 2\n")
    assert result.layout.counters.tolist() == [False] * 6 + [True]


def test_a_series_whose_type_changes_gets_a_new_layout() -> None:
    first, second = labelled("# TYPE a gauge\na 1\n", "# TYPE a counter\na 1\n")
    assert first.layout.series == second.layout.series
    assert not first.layout.counters[5]
    assert second.layout.counters[5]
