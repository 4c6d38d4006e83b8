"""The dashboards for Grafana, built as plain values and written as JSON.

The shape is Grafana's classic model, schemaVersion 42, as its importer takes it without a question: a data source
*variable* instead of `__inputs` (those are not filled in by provisioning, nor inside collapsed rows), no rows, `id`
null, a fixed `uid`, a `refId` on every query. The map finds its places at our own /meta/regions.json; that URL stands
inside the JSON, so a dashboard is built for one base URL.

The windows: `$__rate_interval` is never less than four beats of the data source's step. Bars and nothing else use
`$__interval`, so that each counts its own stretch of time once; the panel's own least interval of a minute makes it
long enough. A query's `interval` would be taken as it is by newer Grafanas, also for a month at a glance (more points
than a query may have); a panel's is only the least.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

SCHEMA_VERSION = 42
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
STATUS_COLORS = (("1", "purple"), ("2", "green"), ("3", "blue"), ("4", "yellow"), ("5", "red"))
"""First digit of a status, and its colour; several of one class get shades of it."""
LEAST_BAR = "1m"
"""The least `$__interval` of a panel of bars."""
_COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard that can be had at /grafana/<name>.json."""

    name: str
    title: str
    uid: str
    panels: Callable[[str], list[Json]]
    """From the base URL."""


def dashboard_json(name: str, base_url: str, datasource_uid: str = "") -> bytes:
    """The file Grafana imports. `base_url` is where the reader's browser finds this proxy, as http://host:9290; with a
    `datasource_uid` that data source is chosen from the start. Raises KeyError for a name that is not in DASHBOARDS."""
    model = dashboard_model(DASHBOARDS[name], base_url, datasource_uid)
    return json.dumps(model, indent=2, ensure_ascii=False).encode() + b"\n"


def dashboard_model(dashboard: Dashboard, base_url: str, datasource_uid: str = "") -> Json:
    """The same as a value."""
    chosen = {"text": datasource_uid, "value": datasource_uid} if datasource_uid else {}
    return {
        "id": None,
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": "What flyproxy's front door sees of one app.",
        "tags": ["fly", "flyproxy"],
        "editable": True,
        "graphTooltip": 1,
        "links": [],
        "liveNow": False,
        "refresh": "15s",
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-15m", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "version": 1,
        "weekStart": "",
        "annotations": {"list": [_own_annotations()]},
        "templating": {
            "list": [_datasource_variable(chosen), _label_variable("app", "label_values(fly_app_concurrency, app)")]
        },
        "panels": _numbered(dashboard.panels(base_url)),
    }


def _fly(base_url: str) -> list[Json]:
    """The five panels of Fly.io's "Hooking Up Fly Metrics"."""
    return [
        _timeseries(
            "HTTP response codes",
            [
                _range_query(
                    'sum by (status) (rate(fly_edge_http_responses_count{app=~"^$app$"}[$__rate_interval]))',
                    "{{status}}",
                )
            ],
            unit="reqps",
            stacked=True,
            overrides=_status_overrides(),
            description="Responses a second by status, the front door's own answers included.",
        ),
        _timeseries(
            "Network traffic",
            [
                _range_query('sum(irate(fly_instance_net_sent_bytes{app="$app",device="eth0"}[5m])) * 8', "TX"),
                _range_query('sum(irate(fly_instance_net_recv_bytes{app="$app",device="eth0"}[5m])) * 8', "RX"),
            ],
            unit="bps",
            description="Bits a second from (TX) and to (RX) the app's instances.",
        ),
        _timeseries(
            "TCP connections",
            [
                _range_query('sum(increase(fly_app_tcp_connects_count{app="$app"}[$__interval]))', "connects"),
                _range_query('sum(increase(fly_app_tcp_disconnects_count{app="$app"}[$__interval]))', "disconnects"),
            ],
            unit="short",
            bars=True,
            description="Connections to the app's instances, opened and ended in each bar's time.",
        ),
        _geomap(
            "Requests by region",
            _table_query('sum by (region) (rate(fly_edge_http_responses_count{app=~"^$app$"}[$__rate_interval]))'),
            label="region",
            unit="reqps",
            gazetteer=f"{base_url}/meta/regions.json",
            description="Requests a second by the region whose door they came to.",
        ),
        _heatmap(
            "Response times",
            _range_query(
                'sum by (le) (increase(fly_edge_http_response_time_seconds_bucket{app=~"^$app$"}[$__rate_interval]))',
                "{{le}}",
                form="heatmap",
            ),
            description="How many responses took how long, at the front door.",
        ),
    ]


DASHBOARDS: dict[str, Dashboard] = {
    dashboard.name: dashboard for dashboard in (Dashboard("fly", "Fly app", "flyproxy-fly", _fly),)
}
"""Every dashboard there is, by name."""


def _numbered(panels: Sequence[Json]) -> list[Json]:
    """Ids from 1, and places: two side by side, an odd last one over the whole width."""
    half, height = _COLUMNS // 2, 8
    placed = []
    for index, panel in enumerate(panels):
        alone = index == len(panels) - 1 and index % 2 == 0
        place = {"h": height, "w": _COLUMNS if alone else half, "x": half * (index % 2), "y": height * (index // 2)}
        placed.append({"id": index + 1, "gridPos": place, **panel})
    return placed


def _panel(kind: str, title: str, targets: Sequence[Json], description: str) -> Json:
    lettered = [{"refId": chr(ord("A") + index), **target} for index, target in enumerate(targets)]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "transparent": False,
        "targets": lettered,
    }


def _timeseries(
    title: str,
    targets: Sequence[Json],
    *,
    unit: str,
    description: str,
    stacked: bool = False,
    bars: bool = False,
    overrides: Sequence[Json] = (),
) -> Json:
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 60 if bars else 20,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    panel = _panel("timeseries", title, targets, description) | {
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": list(overrides)},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }
    return panel | {"interval": LEAST_BAR} if bars else panel


def _heatmap(title: str, target: Json, *, description: str) -> Json:
    """Of a histogram's buckets; rows are the bounds in seconds, cells with nothing in them stay empty."""
    return _panel("heatmap", title, [target], description) | {
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"decimals": 0},
            "color": {
                "mode": "scheme",
                "scheme": "Spectral",
                "scale": "exponential",
                "exponent": 0.5,
                "fill": "dark-orange",
                "reverse": False,
                "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
        },
    }


def _geomap(title: str, target: Json, *, label: str, unit: str, gazetteer: str, description: str) -> Json:
    """Circles whose size and colour are the value, at the places a gazetteer knows the label's values by."""
    style = {
        "size": {"field": "Value", "fixed": 5, "min": 4, "max": 24},
        "color": {"field": "Value", "fixed": "dark-green"},
        "opacity": 0.6,
        "symbol": {"mode": "fixed", "fixed": "img/icons/marker/circle.svg"},
        "text": {"mode": "field", "field": label, "fixed": ""},
        "textConfig": {"fontSize": 12, "offsetX": 0, "offsetY": -14, "textAlign": "center", "textBaseline": "middle"},
    }
    layer = {
        "type": "markers",
        "name": title,
        "tooltip": True,
        "location": {"mode": "lookup", "lookup": label, "gazetteer": gazetteer},
        "config": {"showLegend": False, "style": style},
    }
    return _panel("geomap", title, [target], description) | {
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "color": {"mode": "continuous-BlPu"}},
            "overrides": [],
        },
        "options": {
            "view": {"id": "zero", "lat": 0, "lon": 0, "zoom": 1, "allLayers": True},
            "controls": {"showZoom": True, "mouseWheelZoom": True, "showAttribution": True},
            "basemap": {"type": "osm-standard", "name": "Basemap"},
            "layers": [layer],
            "tooltip": {"mode": "details"},
        },
    }


def _range_query(expression: str, legend: str, form: str = "time_series") -> Json:
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "exemplar": False,
        "expr": expression,
        "format": form,
        "instant": False,
        "legendFormat": legend,
        "range": True,
    }


def _table_query(expression: str) -> Json:
    """At the end of the range only, labels as columns: what a map can look up."""
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "exemplar": False,
        "expr": expression,
        "format": "table",
        "instant": True,
        "legendFormat": "",
        "range": False,
    }


def _status_overrides() -> list[Json]:
    return [
        {
            "matcher": {"id": "byRegexp", "options": f"/^{digit}/"},
            "properties": [{"id": "color", "value": {"mode": "shades", "fixedColor": color}}],
        }
        for digit, color in STATUS_COLORS
    ]


def _datasource_variable(chosen: Json) -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": chosen,
        "options": [],
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _label_variable(label: str, query: str) -> Json:
    return {
        "type": "query",
        "name": label,
        "label": label.capitalize(),
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "current": {},
        "options": [],
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
    }


def _own_annotations() -> Json:
    """Grafana's own, which every dashboard has."""
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
