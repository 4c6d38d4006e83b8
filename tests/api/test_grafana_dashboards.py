"""The dashboards as Grafana reads them: every key is one its own types know, and every query is the one meant."""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import promql_parser
import pytest

from flyproxy.api.grafana_dashboards import DASHBOARDS, dashboard_json

BASE = "https://metrics.example:9290"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"reqps", "bps", "s", "short"}


@pytest.fixture(scope="module")
def through_grafanas_types() -> Callable[[Any], Any]:
    """A dashboard read into Grafana's own types and written again: what they do not know is lost on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the classic model is not its newest
        from grafana_foundation_sdk.models.dashboard import Dashboard
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    return lambda model: json.loads(JSONEncoder().encode(Dashboard.from_json(model)))


@pytest.fixture(params=sorted(DASHBOARDS))
def model(request: pytest.FixtureRequest) -> Any:
    return json.loads(dashboard_json(request.param, BASE))


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """What did not come back from Grafana's own types."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if not isinstance(theirs, dict) or key not in theirs:
                yield f"{path}.{key}"
            else:
                yield from lost(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def all_values(tree: Any, key: str) -> Iterator[Any]:
    """Every value of a key, at any depth."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree[key]
        for value in tree.values():
            yield from all_values(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from all_values(value, key)


def test_grafanas_own_types_know_every_key(model: Any, through_grafanas_types: Callable[[Any], Any]) -> None:
    assert list(lost(model, through_grafanas_types(model))) == [".id"], "only the null id is not written again"


def test_it_imports_without_a_question(model: Any) -> None:
    assert model["id"] is None
    assert model["uid"]
    assert model["title"]
    assert model["schemaVersion"] == 42
    for key in ("__inputs", "__requires", "elements", "kind"):  # the last two are another model's
        assert not list(all_values(model, key)), key
    assert "row" not in {panel["type"] for panel in model["panels"]}


def test_the_time_shown_is_that_of_the_post(model: Any) -> None:
    assert model["time"] == {"from": "now-15m", "to": "now"}


def test_every_source_of_data_is_the_variable(model: Any) -> None:
    source, app = model["templating"]["list"]
    assert (source["type"], source["name"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert app["query"]["query"] == app["definition"] == "label_values(fly_app_concurrency, app)"
    assert app["datasource"] == DATASOURCE
    for panel in model["panels"]:
        assert panel["datasource"] == DATASOURCE
        assert all(target["datasource"] == DATASOURCE for target in panel["targets"])


def test_panels_have_ids_and_places_of_their_own(model: Any) -> None:
    panels = model["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells


def test_every_query_has_a_letter_and_is_a_range_or_an_instant(model: Any) -> None:
    for panel in model["panels"]:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        for target in panel["targets"]:
            assert target["range"] != target["instant"]
            assert (target["format"] == "table") == (panel["type"] == "geomap") == target["instant"]
            assert (target["format"] == "heatmap") == (panel["type"] == "heatmap")


def test_every_query_is_plain_promql(model: Any) -> None:
    for expression in all_values(model, "expr"):
        text = re.sub(r"\$__\w+", "1m", expression).replace("$app", "hello")
        promql_parser.parse(text)
        assert "$" not in text.replace('$"', "")  # the end of a regular expression


def test_units_are_grafanas(model: Any) -> None:
    assert set(all_values(model, "unit")) <= UNITS


def test_the_map_finds_its_places_here(model: Any) -> None:
    places = list(all_values(model, "location"))
    assert places == [{"mode": "lookup", "lookup": "region", "gazetteer": f"{BASE}/meta/regions.json"}]
    assert [base["type"] for base in all_values(model, "basemap")] == ["osm-standard"]


def test_the_five_panels_of_the_post() -> None:
    model = json.loads(dashboard_json("fly", BASE))
    found = {
        panel["title"]: (panel["type"], [target["expr"] for target in panel["targets"]]) for panel in model["panels"]
    }
    responses = 'sum by (status) (rate(fly_edge_http_responses_count{app=~"^$app$"}[$__rate_interval]))'
    sent = 'sum(irate(fly_instance_net_sent_bytes{app="$app",device="eth0"}[5m])) * 8'
    buckets = 'fly_edge_http_response_time_seconds_bucket{app=~"^$app$"}[$__rate_interval]'
    assert found == {
        "HTTP response codes": ("timeseries", [responses]),
        "Network traffic": ("timeseries", [sent, sent.replace("sent", "recv")]),
        "TCP connections": (
            "timeseries",
            [
                'sum(increase(fly_app_tcp_connects_count{app="$app"}[$__interval]))',
                'sum(increase(fly_app_tcp_disconnects_count{app="$app"}[$__interval]))',
            ],
        ),
        "Requests by region": ("geomap", [responses.replace("status", "region")]),
        "Response times": ("heatmap", [f"sum by (le) (increase({buckets}))"]),
    }
    bars = next(panel for panel in model["panels"] if panel["title"] == "TCP connections")
    assert bars["fieldConfig"]["defaults"]["custom"]["drawStyle"] == "bars"
    assert bars["interval"] == "1m"
    heat = next(panel for panel in model["panels"] if panel["type"] == "heatmap")["options"]
    assert heat["calculate"] is False
    assert heat["yAxis"]["unit"] == "s"
    assert heat["rowsFrame"] == {"layout": "auto"}
    assert heat["color"]["scheme"] == "Spectral"
    assert heat["filterValues"] == {"le": 1e-9}
    assert heat["cellGap"] == 1


def test_errors_are_red_and_what_went_well_is_green() -> None:
    model = json.loads(dashboard_json("fly", BASE))
    overrides = model["panels"][0]["fieldConfig"]["overrides"]
    colors = {row["matcher"]["options"]: row["properties"][0]["value"]["fixedColor"] for row in overrides}
    assert colors["/^5/"] == "red"
    assert colors["/^2/"] == "green"


def test_a_data_source_can_be_chosen_from_the_start() -> None:
    model = json.loads(dashboard_json("fly", BASE, "flyproxy-personal"))
    assert model["templating"]["list"][0]["current"] == {"text": "flyproxy-personal", "value": "flyproxy-personal"}
