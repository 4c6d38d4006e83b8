"""What samples come to: turns, figures, ratios, targets, the table and the JSON. Nothing is measured here."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from bench.edge.ratios import interval
from bench.edge.rounds import Outcome, as_json, order, outcome
from bench.edge.stage import Sample
from bench.edge.table import table
from bench.edge.targets import TARGETS
from bench.edge.workloads import Workload, named, workloads

ALL = {workload.name: workload for workload in workloads("uvloop")}
HAPROXY_US = [10.0, 20.0, 11.0, 10.0, 12.0, 10.0, 15.0]


def samples(us: list[float], **more: int) -> list[Sample]:
    """Rounds of 1,000 requests that took so many microseconds each."""
    return [replace(Sample(requests=1000, seconds=1.0, cpu_s=one / 1000), **more) for one in us]


def w1() -> Outcome:
    measured = {
        "haproxy": samples(HAPROXY_US),
        "caddy": samples([100.0] * 7),
        "flyproxy (pure)": samples([1.3 * one for one in HAPROXY_US]),
    }
    watched = {"requests": {"lines": 1000, "known": 100, "seen_before": 100, "distinct": 900}}
    watched["answers"] = watched["requests"]
    return outcome(ALL["W1"], measured, {"nginx": "nginx is not installed"}, {"flyproxy (pure)": watched})


def test_every_column_has_every_place_in_the_order_equally_often() -> None:
    columns = ALL["W1"].columns
    orders = [order(columns, number) for number in range(len(columns))]
    assert all(Counter(column.name for column in turn) == Counter(c.name for c in columns) for turn in orders)
    assert all(len({turn[place].name for turn in orders}) == len(columns) for place in range(len(columns)))


def test_every_target_is_of_columns_that_are_measured() -> None:
    for target in TARGETS:
        columns = {column.name for column in ALL[target.workload].columns}
        assert target.of in columns, target
        assert target.to is None or target.to in columns, target


def test_every_base_is_measured() -> None:
    for workload in ALL.values():
        assert workload.base in {"", *(column.name for column in workload.columns)}, workload.name


def test_ratios_are_paired_and_meet_their_targets_or_not() -> None:
    by_pair = {(one.of, one.to): one for one in w1().compared}
    ours = by_pair["flyproxy (pure)", "haproxy"]
    assert ours.found.median == pytest.approx(1.3)
    assert ours.met is True
    assert by_pair["flyproxy (pure)", "caddy"].met is True
    assert by_pair["caddy", "haproxy"].met is None
    assert replace(ours, found=interval([1.36] * 7)).met is False


def test_the_table_says_figures_ratios_targets_and_who_is_missing() -> None:
    text = table(w1())
    assert "W1  small GET" in text
    assert "1.3 [1.3 .. 1.3]  <= 1.35  met" in text
    assert "left out: nginx: nginx is not installed" in text
    assert "10.0% were known to the parser" in text
    assert "not a quiet machine" not in text


def test_a_machine_that_was_not_quiet_is_said_so() -> None:
    found = w1()
    loud = {name: [replace(one, others_s=0.2) for one in rounds] for name, rounds in found.samples.items()}
    assert "others used 20% of the proxies' CPU" in table(replace(found, samples=loud))


def test_added_latency_is_beyond_the_direct_way_of_the_same_round() -> None:
    measured = {
        "direct": samples([0.0] * 7, p50_us=50),
        "haproxy": samples([1.0] * 7, p50_us=80),
        "flyproxy (pure)": samples([1.0] * 7, p50_us=86),
    }
    found = outcome(ALL["W6"], measured, {}, {})
    assert found.figures["flyproxy (pure)"] == [36.0] * 7
    assert "direct" not in found.figures
    (ours,) = [one for one in found.compared if one.of == "flyproxy (pure)"]
    assert ours.found.median == pytest.approx(1.2)


def test_counting_is_a_difference_of_two_columns() -> None:
    measured = {
        "flyproxy (pure)": samples([20.5] * 7),
        "flyproxy (pure), not counting": samples([20.0] * 7),
    }
    found = outcome(ALL["counting"], measured, {}, {})
    assert found.figures == {"flyproxy (pure)": [pytest.approx(0.5)] * 7}
    assert [one.met for one in found.compared] == [True]


def test_the_json_keeps_raw_rounds_and_is_short() -> None:
    text = json.dumps(as_json(w1()))
    found = json.loads(text)
    assert found["columns"]["haproxy"]["figures"] == HAPROXY_US
    assert found["columns"]["haproxy"]["rounds"][0] == {"requests": 1000, "seconds": 1.0, "cpu_s": 0.01}
    assert found["missing"] == {"nginx": "nginx is not installed"}
    assert len(text) < 8000


def test_a_workload_that_does_not_exist_is_told_with_those_that_do() -> None:
    chosen: list[Workload] = named(list(ALL.values()), ["w1R"])
    assert [one.name for one in chosen] == ["W1r"]
    with pytest.raises(SystemExit, match="no workload W9; there are W1, W1r"):
        named(list(ALL.values()), ["W9"])
