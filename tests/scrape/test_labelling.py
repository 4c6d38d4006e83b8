"""Forced labels, names that are ours, duplicates."""

import pytest

from flyproxy.scrape.labelling import REPORT_NAMES, SERIES_WINDOW_MS, Labelled, Labelling
from flyproxy.series.exposition_parser import Reader, labels_name
from flyproxy.series.labels import Labels, labels_from

FORCED = {"app": "hello", "region": "ord", "host": "2bc3", "instance": "3d8d9e27b24e89"}


def named(name: str, **labels: str) -> Labels:
    return labels_from({"__name__": name, **FORCED, **labels})


def labelled(*pages: str) -> list[Labelled]:
    """The answers to some pages of one target."""
    reader, labelling = Reader(), Labelling(FORCED, 1000)
    return [labelling.of(reader.read(page.encode(), openmetrics=False), 0) for page in pages]


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


class Churning:
    """A target that has a bound on its series, on a clock."""

    def __init__(self, series_max: int) -> None:
        self.labelling = Labelling(FORCED, series_max)
        self._reader = Reader()
        self.result = self.of("", 0)

    def of(self, names: str, now_ms: int) -> Labelled:
        page = "".join(f"{name} 1\n" for name in names)
        self.result = self.labelling.of(self._reader.read(page.encode(), openmetrics=False), now_ms)
        return self.result

    @property
    def names(self) -> str:
        """One letter for each series that was kept of the last page."""
        return "".join(labels_name(series) for series in self.result.layout.series[5:])


def test_what_was_there_goes_on_and_what_is_new_finds_no_room() -> None:
    target = Churning(3)
    for page, kept, beyond in (("ab", "ab", 0), ("xaby", "xab", 1), ("zaby", "ab", 2), ("ab", "ab", 0)):
        target.of(page, 0)
        assert (target.names, target.result.beyond) == (kept, beyond)


def test_a_series_that_comes_back_is_not_a_new_one() -> None:
    target = Churning(4)
    for page in ("ab", "cd", "ab", "cd", "ac", "e"):
        result = target.of(page, 0)
        assert result.beyond == (page == "e")
    assert target.of("ab", 0).added == 2


def test_after_an_hour_what_is_gone_is_forgotten() -> None:
    target = Churning(2)
    target.of("ab", 1000)
    assert target.of("cd", 2000).beyond == 2
    assert target.of("cd", SERIES_WINDOW_MS - 1).beyond == 2
    assert target.of("cd", SERIES_WINDOW_MS).beyond == 0
    assert target.names == "cd"


def test_a_page_that_is_too_large_by_itself_is_kept_in_part_and_stays_the_same_layout() -> None:
    target = Churning(2)
    first = target.of("abc", 0)
    second = target.of("abc", 1)
    assert (target.names, second.beyond, second.added) == ("ab", 1, 0)
    assert second.layout is first.layout


def test_a_larger_bound_lets_more_in() -> None:
    target = Churning(1)
    target.of("ab", 0)
    target.labelling.series_max = 2
    target.of("ab", 0)
    assert target.names == "ab"
