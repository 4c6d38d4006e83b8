"""Matchers pick the rows that the labels, looked at one by one, would pick."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.series.labels import Labels, label_value, labels_from
from flyproxy.series.matchers import BadPatternError, Matcher, MatchOp
from flyproxy.tsdb import index as module
from flyproxy.tsdb.index import FrameIndex, Verdicts
from flyproxy.tsdb.layout import decode_layout, encode_layout

names = st.sampled_from(["__name__", "app", "status"])
values = st.sampled_from(["", "200", "500", "hello", "x"])
label_sets = st.dictionaries(names, values, max_size=3).map(labels_from)
runs = st.lists(st.lists(label_sets, min_size=1, max_size=5), max_size=4)
conditions = st.builds(
    Matcher, names, st.sampled_from(list(MatchOp)), st.sampled_from(["", "200", "500|x", ".*", ".+", "h.*o", "never"])
)


def index_of(runs: list[list[Labels]]) -> FrameIndex:
    index = FrameIndex()
    for run in runs:
        index.extend(len(run), decode_layout(1, index.count, len(run), encode_layout(1, index.count, run)))
    return index


@given(runs, st.lists(conditions, max_size=3))
def test_rows_labels_names_and_values_are_those_of_the_series(runs: list[list[Labels]], wanted: list[Matcher]) -> None:
    series = [labels for run in runs for labels in run]
    expected = [
        row
        for row, labels in enumerate(series)
        if all(matcher.predicate()(label_value(labels, matcher.name)) for matcher in wanted)
    ]
    index = index_of(runs)
    rows = index.match(wanted, Verdicts())
    assert rows.tolist() == expected
    assert index.labels(rows) == [series[row] for row in expected]
    assert index.names(rows) == {name for row in expected for name, _ in series[row]}
    assert index.values("app", rows) == {label_value(series[row], "app") for row in expected} - {""}


def test_series_whose_labels_are_lost_never_match() -> None:
    index = index_of([[labels_from({"a": "1"})]])
    index.extend_lost(2)
    run = [labels_from({"a": "2"})]
    index.extend(1, decode_layout(1, 3, 1, encode_layout(1, 3, run)))
    assert index.match((), Verdicts()).tolist() == [0, 3]
    assert index.match([Matcher("b", MatchOp.EQUAL, "")], Verdicts()).tolist() == [0, 3]
    assert index.match([Matcher("a", MatchOp.NOT_EQUAL, "1")], Verdicts()).tolist() == [3]


def test_a_pattern_is_asked_once_per_distinct_value() -> None:
    index = index_of([[labels_from({"app": "x", "row": str(row)}) for row in range(50)]])
    verdicts = Verdicts()
    matcher = Matcher("app", MatchOp.MATCH, "x.*")
    assert index.match([matcher], verdicts).size == 50
    _accepts, known = verdicts._known[matcher]
    assert known == {"": False, "x": True}


def test_verdicts_of_all_patterns_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERDICT_VALUES_MAX", 10)
    verdicts = Verdicts()
    patterns = [Matcher("app", MatchOp.MATCH, f"x.*{number}") for number in range(5)]
    for pattern in patterns:
        assert verdicts.of(pattern, ["x0", "x1", "x2", "x3"]).count(True) == (pattern.value < "x.*4")
    assert list(verdicts._known) == patterns[-2:]


def test_a_bad_pattern_is_the_senders_fault() -> None:
    with pytest.raises(BadPatternError):
        index_of([[labels_from({"a": "1"})]]).match([Matcher("a", MatchOp.MATCH, "(")], Verdicts())
